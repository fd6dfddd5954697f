"""Finds the broker of a node whose URL is nowhere to be seen: among its established connections."""

from __future__ import annotations

from collections.abc import Iterable

from agent.brokers.common import Address, BrokerTrouble
from agent.procfs import Peer, ProcFs

REDIS_PORTS = range(6379, 6400)
AMQP_PORTS = {5672: "amqp", 5671: "amqps"}


def addresses_of(procfs: ProcFs, pid: int) -> tuple[Address, ...]:
    """The brokers that a process is connected to, as far as they want no password. Blocks, within seconds."""
    return tuple(found for peers in _by_far_end(procfs.peers(pid)) for found in _addresses(peers))


def _by_far_end(peers: Iterable[Peer]) -> Iterable[tuple[Peer, ...]]:
    ends: dict[str, list[Peer]] = {}
    for peer in peers:
        ends.setdefault(peer.far, []).append(peer)
    return map(tuple, ends.values())


def _addresses(peers: tuple[Peer, ...]) -> tuple[Address, ...]:
    host, _, port = peers[0].far.rpartition(":")
    if int(port) in AMQP_PORTS:
        return (Address(f"{AMQP_PORTS[int(port)]}://{host}:{port}//"),)
    if int(port) not in REDIS_PORTS:
        return ()
    from agent.brokers.redis import databases_of

    try:
        used = databases_of(host.strip("[]"), int(port), frozenset(peer.own for peer in peers))
    except BrokerTrouble:
        return ()
    return tuple(Address(f"redis://{host}:{port}/{database}") for database in sorted(used))
