"""Keeps old versions of libbpf from asking for the types of kernel modules, which takes CAP_SYS_ADMIN.

The agent's programs need types of the kernel itself only. One that this kernel does not have, libbpf seeks in the
modules; before version 1.3 it gives up the whole object when the kernel does not let it (EPERM). To such a libbpf a
seccomp filter answers that there are no modules with types (ENOENT), which is what a newer one assumes by itself.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

from agent.kernel.capabilities import CapabilityError, set_no_new_privileges

_FIRST_TOLERANT = (1, 3)
_BPF_BTF_GET_NEXT_ID = 23
_ENOENT = 2

# Numbers of Linux: the bpf system call and its convention, by machine; where they stand in the data of a filter.
_CALL = {"x86_64": (321, 0xC000003E), "aarch64": (280, 0xC00000B7)}
_AT_NUMBER, _AT_CONVENTION, _AT_FIRST_ARGUMENT = 0, 4, 16
_LOAD, _UNLESS_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2


def hide_module_types() -> None:
    """For this thread, those that it starts and programs that it runs; sets no-new-privileges. Nothing where no need is.

    Raises CapabilityError.
    """
    if platform.machine() not in _CALL or not _gives_up():
        return
    set_no_new_privileges()
    instructions = _filter(*_CALL[platform.machine()])
    code = ctypes.create_string_buffer(b"".join(instructions))
    program = struct.pack("@HP", len(instructions), ctypes.addressof(code))
    unused = ctypes.c_ulong(0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.c_char_p(program), unused, unused):
        number = ctypes.get_errno()
        raise CapabilityError(number, f"the kernel did not let it filter its system calls ({os.strerror(number)})")


def _gives_up() -> bool:
    """Whether libbpf is there and of a version that does not take the kernel's no."""
    try:
        library = ctypes.CDLL("libbpf.so.1")
    except OSError:
        return False
    return (library.libbpf_major_version(), library.libbpf_minor_version()) < _FIRST_TOLERANT


def _filter(number: int, convention: int) -> list[bytes]:
    """Instructions of a seccomp filter: everything is allowed but the one command of the one call."""

    def unless(value: int, skip: int) -> tuple[int, int, int, int]:
        return (_UNLESS_EQUAL, 0, skip, value)

    instructions = [
        (_LOAD, 0, 0, _AT_CONVENTION),
        unless(convention, skip=5),
        (_LOAD, 0, 0, _AT_NUMBER),
        unless(number, skip=3),
        (_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
        unless(_BPF_BTF_GET_NEXT_ID, skip=1),
        (_RETURN, 0, 0, _FAIL | _ENOENT),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return [struct.pack("=HBBI", *instruction) for instruction in instructions]
