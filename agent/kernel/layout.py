"""Reads a BPF object's own type information (BTF) and turns C structs into `struct.Struct` layouts.

Pure: bytes in, values out. The format is described in the kernel's Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_BTF_MAGIC = 0xEB9F
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT = range(1, 12)
_FUNC, _FUNC_PROTO, _VAR, _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(12, 20)

_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
_BYTES_AFTER = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_BYTES_PER_MEMBER = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}


class LayoutError(ValueError):
    """The object file, or a type in it, is not what the agent understands; the text says which and why."""


@dataclass(frozen=True, slots=True)
class StructLayout:
    """One C struct, nested structs flattened: `fields[i]` names item i of what `packed.unpack` returns."""

    name: str
    packed: struct.Struct
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Type:
    kind: int
    name: str
    size: int
    target: int
    count: int
    members: tuple[tuple[str, int, int], ...] = ()


class TypeInformation:
    """The types of one BPF object file."""

    def __init__(self, object_file: bytes) -> None:
        self._types = _parse_btf(_elf_section(object_file, b".BTF"))

    def struct(self, name: str) -> StructLayout:
        """The layout of `struct name`; raises LayoutError when it is absent or has holes."""
        found = self._find(_STRUCT, name)
        codes: list[str] = []
        fields: list[str] = []
        for field, code in self._flatten(found):
            fields.append(field)
            codes.append(code)
        packed = struct.Struct("=" + "".join(codes))
        if packed.size != found.size:
            raise LayoutError(f"struct {name} has holes: its members take {packed.size} bytes of {found.size}")
        return StructLayout(name, packed, tuple(fields))

    def enum(self, name: str) -> Mapping[str, int]:
        """The values of `enum name`, by their names."""
        return {member: value for member, value, _ in self._find(_ENUM, name).members}

    def _find(self, kind: int, name: str) -> _Type:
        for candidate in self._types:
            if candidate.kind == kind and candidate.name == name:
                return candidate
        raise LayoutError(f"the BPF object does not describe {name}; rebuild it with: make -C bpf")

    def _flatten(self, owner: _Type) -> Iterator[tuple[str, str]]:
        for member, type_id, _ in owner.members:
            found = self._resolve(type_id)
            if found.kind == _STRUCT:
                yield from self._flatten(found)
            elif found.kind == _ARRAY:
                yield from self._flatten_array(owner, member, found)
            else:
                yield member, self._scalar_code(owner, member, found)

    def _flatten_array(self, owner: _Type, member: str, array: _Type) -> Iterator[tuple[str, str]]:
        item = self._resolve(array.target)
        if item.kind == _INT and item.size == 1:
            yield member, f"{array.count}s"
            return
        for index in range(array.count):
            if item.kind == _STRUCT:
                for field, code in self._flatten(item):
                    yield f"{member}[{index}].{field}", code
            else:
                yield f"{member}[{index}]", self._scalar_code(owner, member, item)

    def _scalar_code(self, owner: _Type, member: str, found: _Type) -> str:
        code = _UNSIGNED.get(found.size) if found.kind in (_INT, _ENUM) else None
        if code is None:
            raise LayoutError(f"struct {owner.name}: member {member} has a type that records do not use")
        return code.lower() if found.target else code

    def _resolve(self, type_id: int) -> _Type:
        found = self._types[type_id]
        while found.kind in (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG):
            found = self._types[found.target]
        return found


def _elf_section(data: bytes, wanted: bytes) -> bytes:
    if data[:6] != b"\x7fELF\x02\x01":
        raise LayoutError("not a little-endian 64-bit ELF file; rebuild it with: make -C bpf")
    try:
        (table,) = struct.unpack_from("<Q", data, 40)
        entry_bytes, entries, names_index = struct.unpack_from("<HHH", data, 58)
        headers = [struct.unpack_from("<IIQQQQ", data, table + i * entry_bytes) for i in range(entries)]
        names_at = headers[names_index][4]
        for name_at, _type, _flags, _address, at, size in headers:
            start = names_at + name_at
            if data[start : data.index(b"\0", start)] == wanted:
                return data[at : at + size]
    except (struct.error, IndexError, ValueError) as error:
        raise LayoutError(f"damaged ELF file ({error}); rebuild it with: make -C bpf") from None
    raise LayoutError(f"no section {wanted.decode()}; build the object with clang -g")


def _parse_btf(data: bytes) -> list[_Type]:
    try:
        magic, _version, _flags, header, types_at, types_len, names_at, names_len = struct.unpack_from(
            "<HBBIIIII", data
        )
        if magic != _BTF_MAGIC:
            raise LayoutError("the type information has the wrong byte order or is damaged")
        names = data[header + names_at : header + names_at + names_len]
        return [_Type(0, "void", 0, 0, 0), *_types(data[header + types_at : header + types_at + types_len], names)]
    except (struct.error, ValueError) as error:
        raise LayoutError(f"damaged type information: {error}") from None


def _types(data: bytes, names: bytes) -> Iterator[_Type]:
    def name_at(offset: int) -> str:
        return names[offset : names.index(b"\0", offset)].decode()

    at = 0
    while at < len(data):
        name, info, size_or_type = struct.unpack_from("<III", data, at)
        kind, members = info >> 24 & 0x1F, info & 0xFFFF
        at += 12
        if kind == _INT:
            (encoding,) = struct.unpack_from("<I", data, at)
            signed = encoding >> 24 & 1
            yield _Type(kind, name_at(name), size_or_type, signed, 0)
        elif kind == _ARRAY:
            item, _index, count = struct.unpack_from("<III", data, at)
            yield _Type(kind, "", 0, item, count)
        elif kind in (_STRUCT, _UNION):
            rows = [struct.unpack_from("<III", data, at + 12 * i) for i in range(members)]
            yield _Type(kind, name_at(name), size_or_type, 0, 0, tuple((name_at(n), t, o) for n, t, o in rows))
        elif kind == _ENUM:
            pairs = [struct.unpack_from("<Ii", data, at + 8 * i) for i in range(members)]
            yield _Type(kind, name_at(name), size_or_type, 0, 0, tuple((name_at(n), v, 0) for n, v in pairs))
        else:
            yield _Type(kind, name_at(name), 0, size_or_type, 0)
        at += _BYTES_AFTER.get(kind, 0) + _BYTES_PER_MEMBER.get(kind, 0) * members
