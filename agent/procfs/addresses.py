"""Addresses as /proc/net prints them, and as people write them."""

from __future__ import annotations

_MAPPED_IPV4 = "[0:0:0:0:0:ffff:"


def tcp_address(raw: str) -> str:
    """`0100007F:1F40` as `127.0.0.1:8000`; words of four bytes in host order, as /proc/net/tcp prints them."""
    address, port = raw.split(":")
    data = b"".join(bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8))
    if len(data) == 4:
        return f"{'.'.join(str(byte) for byte in data)}:{int(port, 16)}"
    groups = ":".join(f"{int.from_bytes(data[i : i + 2], 'big'):x}" for i in range(0, 16, 2))
    return f"[{groups}]:{int(port, 16)}"


def plain_ipv4(address: str) -> str:
    """`[0:0:0:0:0:ffff:7f00:1]:6379` as `127.0.0.1:6379`, which is how the far end knows it."""
    if not address.startswith(_MAPPED_IPV4):
        return address
    groups, _, port = address.removeprefix(_MAPPED_IPV4).partition("]:")
    high, low = (int(group, 16) for group in groups.split(":"))
    return f"{high >> 8}.{high & 255}.{low >> 8}.{low & 255}:{port}"
