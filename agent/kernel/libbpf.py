"""libbpf through ctypes: open a prebuilt object, load it, attach programs, read maps and the ring buffer.

Errors: LibbpfMissingError when the library is not installed, BpfError for everything that libbpf refuses.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

_MESSAGE_BYTES = 64 * 1024
_KEPT_MESSAGES = 200
_LEVEL_INFO = 1
_ITERATOR_BYTES = 32 * 1024  # the kernel hands out no more at a time
_STATS_RUN_TIME = 0
_BTF_KIND_PTR, _BTF_KIND_TYPEDEF, _BTF_KIND_FUNC = 2, 8, 12

_Printer = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_SampleCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class BpfError(OSError):
    """libbpf or the kernel refused; the text says what, and with which error."""


class LibbpfMissingError(BpfError):
    """libbpf.so.1 cannot be loaded."""


def _prototypes(library: ctypes.CDLL) -> None:
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    table: dict[str, tuple[object, list[object]]] = {
        "libbpf_set_print": (pointer, [_Printer]),
        "bpf_object__open_file": (pointer, [text, pointer]),
        "bpf_object__load": (number, [pointer]),
        "bpf_object__close": (None, [pointer]),
        "bpf_object__next_program": (pointer, [pointer, pointer]),
        "bpf_object__find_program_by_name": (pointer, [pointer, text]),
        "bpf_object__find_map_by_name": (pointer, [pointer, text]),
        "bpf_object__find_map_fd_by_name": (number, [pointer, text]),
        "bpf_map__set_autocreate": (number, [pointer, ctypes.c_bool]),
        "bpf_program__name": (text, [pointer]),
        "bpf_program__fd": (number, [pointer]),
        "bpf_program__set_autoload": (number, [pointer, ctypes.c_bool]),
        "bpf_program__attach": (pointer, [pointer]),
        "bpf_program__attach_iter": (pointer, [pointer, pointer]),
        "bpf_link__fd": (number, [pointer]),
        "bpf_link__destroy": (number, [pointer]),
        "bpf_iter_create": (number, [number]),
        "bpf_map_lookup_elem": (number, [number, pointer, pointer]),
        "bpf_map_update_elem": (number, [number, pointer, pointer, ctypes.c_uint64]),
        "bpf_map_delete_elem": (number, [number, pointer]),
        "bpf_map_get_next_key": (number, [number, pointer, pointer]),
        "libbpf_num_possible_cpus": (number, []),
        "ring_buffer__new": (pointer, [number, _SampleCallback, pointer, pointer]),
        "ring_buffer__epoll_fd": (number, [pointer]),
        "ring_buffer__consume": (number, [pointer]),
        "ring_buffer__free": (None, [pointer]),
        "btf__load_vmlinux_btf": (pointer, []),
        "btf__find_by_name_kind": (ctypes.c_int32, [pointer, text, ctypes.c_uint32]),
        "btf__type_by_id": (pointer, [pointer, ctypes.c_uint32]),
        "btf__free": (None, [pointer]),
    }
    for name, (result, arguments) in table.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments


class Libbpf:
    """The loaded library. Its messages are kept, and shown only where they explain a failure."""

    def __init__(self) -> None:
        try:
            self.c = ctypes.CDLL("libbpf.so.1", use_errno=True)
        except OSError as error:
            raise LibbpfMissingError(f"libbpf.so.1 cannot be loaded ({error}); install the package libbpf1") from None
        self._libc = ctypes.CDLL(None)
        _prototypes(self.c)
        self.messages: list[str] = []
        self._printer = _Printer(self._keep_message)
        self.c.libbpf_set_print(self._printer)

    def _keep_message(self, level: int, form: bytes, arguments: int) -> int:
        if level > _LEVEL_INFO:
            return 0
        buffer = ctypes.create_string_buffer(_MESSAGE_BYTES)
        self._libc.vsnprintf(buffer, _MESSAGE_BYTES, form, ctypes.c_void_p(arguments))
        if len(self.messages) < _KEPT_MESSAGES:
            self.messages.append(buffer.value.decode("utf-8", "replace").strip())
        return 0

    def trim_memory(self) -> None:
        """Gives memory that loading needed back to the system (glibc only)."""
        if hasattr(self._libc, "malloc_trim"):
            self._libc.malloc_trim(0)


def _error(what: str, code: int | None = None) -> BpfError:
    number = abs(code) if code else ctypes.get_errno()
    return BpfError(number, f"{what}: {errno.errorcode.get(number, number)} ({os.strerror(number)})")


@contextmanager
def run_time_statistics() -> Iterator[None]:
    """Switches the kernel's run-time statistics of BPF programs on for as long as this lasts; raises BpfError."""
    fd = ctypes.CDLL("libbpf.so.1", use_errno=True).bpf_enable_stats(_STATS_RUN_TIME)
    if fd < 0:
        raise _error("the kernel's statistics of BPF programs cannot be switched on", fd)
    try:
        yield
    finally:
        os.close(fd)


class KernelTypes:
    """Questions to the running kernel's BTF; use as a context manager, it holds some megabytes."""

    def __init__(self, library: Libbpf) -> None:
        self._c = library.c
        self._btf = self._c.btf__load_vmlinux_btf()
        if not self._btf:
            raise _error("the kernel's BTF cannot be read from /sys/kernel/btf/vmlinux")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._c.btf__free(self._btf)

    def has_tracepoint(self, name: str) -> bool:
        """Whether tp_btf programs can be attached to the tracepoint."""
        return bool(self._typedef(name) > 0)

    def has_function(self, name: str) -> bool:
        """Whether the kernel has the function as one of its own, so not inlined into every caller."""
        return bool(self._c.btf__find_by_name_kind(self._btf, name.encode(), _BTF_KIND_FUNC) > 0)

    def first_argument_is_pointer(self, tracepoint: str) -> bool:
        """Whether the tracepoint's first argument is a pointer; raises BpfError if there is no such tracepoint."""
        type_id = self._typedef(tracepoint)
        if type_id <= 0:
            raise _error(f"no tracepoint {tracepoint}", errno.ENOENT)
        prototype = self._word(self._word(type_id, 2), 2)
        # A prototype's parameters follow its 12 bytes, 8 bytes each; the first is the tracepoint's own data.
        first_parameter_type = self._word(prototype, 3 + 2 + 1)
        return (self._word(first_parameter_type, 1) >> 24 & 0x1F) == _BTF_KIND_PTR

    def _typedef(self, tracepoint: str) -> int:
        name = f"btf_trace_{tracepoint}".encode()
        return int(self._c.btf__find_by_name_kind(self._btf, name, _BTF_KIND_TYPEDEF))

    def _word(self, type_id: int, index: int) -> int:
        """32-bit word `index` of a type: 0 name, 1 info, 2 size or type, then what follows."""
        address = self._c.btf__type_by_id(self._btf, type_id)
        return int(ctypes.cast(address, ctypes.POINTER(ctypes.c_uint32))[index])


class BpfMap:
    """A map by its file descriptor; keys and values are bytes of the sizes that the map was declared with."""

    def __init__(self, library: Libbpf, fd: int, value_bytes: int) -> None:
        self._c = library.c
        self.fd = fd
        self._value_bytes = value_bytes

    def lookup(self, key: bytes) -> bytes | None:
        """The value, or None when the key is absent. For per-CPU maps: the values of all CPUs, one after another."""
        value = ctypes.create_string_buffer(self._value_bytes)
        return value.raw if self._c.bpf_map_lookup_elem(self.fd, key, value) == 0 else None

    def update(self, key: bytes, value: bytes) -> None:
        """Sets the value; raises BpfError, for example E2BIG when the map is full."""
        if self._c.bpf_map_update_elem(self.fd, key, value, 0):
            raise _error("map update")

    def delete(self, key: bytes) -> bool:
        """Takes the key away; False when it was not there."""
        return bool(self._c.bpf_map_delete_elem(self.fd, key) == 0)

    def keys(self, key_bytes: int, at_most: int) -> list[bytes] | None:
        """All keys; None when there seem to be more than `at_most`: a table that changes fast can begin anew for ever."""
        found: dict[bytes, None] = {}
        here, following = None, ctypes.create_string_buffer(key_bytes)
        for _ in range(at_most):
            if self._c.bpf_map_get_next_key(self.fd, here, following):
                return list(found)
            here = following.raw
            found[here] = None
        return None


class BpfObject:
    """One object file with its programs and maps. Programs can be left out before `load`."""

    def __init__(self, library: Libbpf, path: Path) -> None:
        self._library = library
        self._c = library.c
        self._links: dict[str, int] = {}
        self._object = self._c.bpf_object__open_file(str(path).encode(), None)
        if not self._object:
            raise _error(f"the BPF object {path} cannot be opened")

    def programs(self) -> Iterator[str]:
        """The names of all programs in the object."""
        program = None
        while program := self._c.bpf_object__next_program(self._object, program):
            yield self._c.bpf_program__name(program).decode()

    def leave_out(self, name: str) -> None:
        """Keeps `load` from loading the program."""
        self._c.bpf_program__set_autoload(self._program(name), False)

    def leave_out_map(self, name: str) -> None:
        """Keeps `load` from making the map, if the object has it; no program that is loaded may use it."""
        found = self._c.bpf_object__find_map_by_name(self._object, name.encode())
        if found:
            self._c.bpf_map__set_autocreate(found, False)

    def load(self) -> None:
        """Loads maps and programs into the kernel; raises BpfError, after which the object is of no more use."""
        self._library.messages.clear()
        code = self._c.bpf_object__load(self._object)
        if code:
            raise _error("the kernel refused the BPF programs", code)

    def attach(self, name: str) -> None:
        """Attaches the program to what its section names; raises BpfError."""
        link = self._c.bpf_program__attach(self._program(name))
        if not link:
            raise _error(f"program {name} cannot be attached")
        self._links[name] = link

    def attach_iterator(self, name: str) -> None:
        """Readies an iterator program for `run_iterator`; until then it costs nothing. Raises BpfError."""
        link = self._c.bpf_program__attach_iter(self._program(name), None)
        if not link:
            raise _error(f"iterator {name} cannot be attached")
        self._links[name] = link

    def run_iterator(self, name: str) -> bytes:
        """Runs an attached iterator over all that it visits; what it wrote. Raises BpfError."""
        fd = self._c.bpf_iter_create(self._c.bpf_link__fd(self._links[name]))
        if fd < 0:
            raise _error(f"iterator {name} cannot be run", fd)
        parts = []
        try:
            while part := os.read(fd, _ITERATOR_BYTES):
                parts.append(part)
        except OSError as error:
            raise _error(f"iterator {name} cannot be read", error.errno) from None
        finally:
            os.close(fd)
        return b"".join(parts)

    def detach(self, name: str) -> None:
        """Takes an attached program off its hook."""
        self._c.bpf_link__destroy(self._links.pop(name))

    def program_fd(self, name: str) -> int:
        """The file descriptor of a loaded program."""
        return int(self._c.bpf_program__fd(self._program(name)))

    def map(self, name: str, value_bytes: int, *, per_cpu: bool = False) -> BpfMap:
        """A map of the loaded object; `value_bytes` is the size of one value (of one CPU)."""
        fd = self._c.bpf_object__find_map_fd_by_name(self._object, name.encode())
        if fd < 0:
            raise _error(f"no map {name} in the BPF object", fd)
        copies = self._c.libbpf_num_possible_cpus() if per_cpu else 1
        return BpfMap(self._library, fd, value_bytes * copies)

    def close(self) -> None:
        """Detaches everything and frees the object."""
        for name in list(self._links):
            self.detach(name)
        self._c.bpf_object__close(self._object)

    def _program(self, name: str) -> int:
        program = self._c.bpf_object__find_program_by_name(self._object, name.encode())
        if not program:
            raise _error(f"no program {name} in the BPF object", errno.ENOENT)
        return int(program)


class RingBuffer:
    """The ring buffer's reading end. `fd` becomes readable when records wait; `consume` takes them."""

    def __init__(self, library: Libbpf, buffer: BpfMap, *, at_once: int) -> None:
        self._c = library.c
        self._at_once = at_once
        self._taken: list[bytes] = []
        self._callback = _SampleCallback(self._sample)
        self._ring = self._c.ring_buffer__new(buffer.fd, self._callback, None, None)
        if not self._ring:
            raise _error("the ring buffer cannot be mapped")
        self.fd = int(self._c.ring_buffer__epoll_fd(self._ring))

    def _sample(self, _context: int, data: int, size: int) -> int:
        self._taken.append(ctypes.string_at(data, size))
        # A negative answer ends the call with this record consumed: a storm cannot starve the event loop.
        return -errno.EAGAIN if len(self._taken) >= self._at_once else 0

    def consume(self) -> list[bytes]:
        """The records that wait, oldest first, at most `at_once`."""
        self._taken = []
        self._c.ring_buffer__consume(self._ring)
        return self._taken

    def close(self) -> None:
        """Unmaps the buffer."""
        self._c.ring_buffer__free(self._ring)
