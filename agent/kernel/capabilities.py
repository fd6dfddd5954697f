"""What the kernel lets this process do: its capability sets, read and given away. See capability(7).

The kernel keeps the sets for each thread. A new thread gets those of the one that starts it, so giving away is for the
time before there are others; `threads_with_more` tells of any that were too early.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Collection, Iterable
from enum import IntEnum

from agent.procfs import own_capability_sets, own_threads


class Capability(IntEnum):
    """The capabilities that some part of the agent can use, by the kernel's numbers."""

    DAC_READ_SEARCH = 2
    KILL = 5
    SETPCAP = 8
    NET_ADMIN = 12
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYS_RESOURCE = 24
    PERFMON = 38
    BPF = 39

    def __str__(self) -> str:
        return f"CAP_{self.name}"


class CapabilityError(OSError):
    """The kernel did not let the process give something away; the text says what."""


_VERSION_3 = 0x20080522
_PR_SET_CHILD_SUBREAPER = 36
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LOW = 0xFFFFFFFF


def permitted() -> frozenset[Capability]:
    """Of the capabilities that the agent can use, those that this thread may use."""
    mask = own_capability_sets()["CapPrm"]
    return frozenset(capability for capability in Capability if mask >> capability & 1)


def limit_to(kept: Collection[Capability]) -> None:
    """Gives everything else away, in this thread and those that it starts; programs that it runs may have the rest.

    Raises CapabilityError.
    """
    sets, mask = own_capability_sets(), _mask(kept)
    _capset(effective=sets["CapPrm"] & mask, permitted=sets["CapPrm"] & mask, inheritable=sets["CapInh"] & mask)


def keep_only(kept: Collection[Capability]) -> None:
    """Gives everything else away for good: programs that the thread runs get at most the same, and only as root.

    The bounding set is trimmed only with CAP_SETPCAP; without it, no-new-privileges alone keeps programs from gaining.
    Raises CapabilityError.
    """
    sets, mask = own_capability_sets(), _mask(kept)
    set_no_new_privileges()
    _prctl("clear the ambient capabilities", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    if sets["CapEff"] >> Capability.SETPCAP & 1:
        for number in _numbers(sets["CapBnd"] & ~mask):
            _prctl("trim the bounding set", _PR_CAPBSET_DROP, number)
    _capset(effective=sets["CapPrm"] & mask, permitted=sets["CapPrm"] & mask, inheritable=0)


def set_no_new_privileges() -> None:
    """From now on no program that this thread runs gains anything by being run, setuid or not. Raises CapabilityError."""
    _prctl("set no-new-privileges", _PR_SET_NO_NEW_PRIVS, 1)


def threads_with_more(kept: Collection[Capability]) -> tuple[int, ...]:
    """Threads of this process that may use more than these."""
    allowed = _mask(kept)
    return tuple(tid for tid, sets in own_threads().items() if sets["CapPrm"] & ~allowed)


def _capset(*, effective: int, permitted: int, inheritable: int) -> None:
    """Sets the three sets of this thread."""
    sets = (effective, permitted, inheritable)
    header = struct.pack("=Ii", _VERSION_3, 0)
    data = struct.pack("=6I", *(mask & _LOW for mask in sets), *(mask >> 32 for mask in sets))
    if ctypes.CDLL(None, use_errno=True).capset(header, data):
        raise _error("give capabilities away")


def adopt_orphans() -> None:
    """From now on what a child of this process leaves behind becomes a child of this process; raises CapabilityError."""
    _prctl("adopt orphans", _PR_SET_CHILD_SUBREAPER, 1)


def _prctl(what: str, option: int, argument: int) -> None:
    unused = ctypes.c_ulong(0)
    if ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(argument), unused, unused, unused):
        raise _error(what)


def _error(what: str) -> CapabilityError:
    number = ctypes.get_errno()
    return CapabilityError(number, f"the kernel did not let it {what} ({os.strerror(number)})")


def _mask(capabilities: Iterable[Capability]) -> int:
    return sum(1 << capability for capability in frozenset(capabilities))


def _numbers(mask: int) -> list[int]:
    return [number for number in range(mask.bit_length()) if mask >> number & 1]
