"""Why the kernel refused, in words: a missing capability, lockdown, a kernel built without something."""

from __future__ import annotations

import errno
from pathlib import Path

from agent.procfs import own_capabilities, perf_event_paranoid

LOCKDOWN = Path("/sys/kernel/security/lockdown")
BTF = Path("/sys/kernel/btf/vmlinux")
KPROBES = Path("/sys/bus/event_source/devices/kprobe")
PARANOID_WITH_PERFMON = 2
"""Up to here CAP_PERFMON is enough for perf events."""

CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 12, 19, 21, 38, 39


def has_capability(number: int) -> bool:
    """Whether this process has the capability now."""
    return bool(own_capabilities() >> number & 1)


def may_use_bpf() -> bool:
    """Whether the kernel lets this process load tracing programs at all."""
    return has_capability(CAP_SYS_ADMIN) or (has_capability(CAP_BPF) and has_capability(CAP_PERFMON))


def lockdown() -> str:
    """The kernel's lockdown level: none, integrity or confidentiality; empty where the kernel does not say."""
    try:
        text = LOCKDOWN.read_text()
    except OSError:
        return ""
    return text.partition("[")[2].partition("]")[0]


def why_not_bpf() -> str:
    """What keeps BPF programs in general from being loaded here; empty when nothing is known to."""
    if not may_use_bpf():
        return "BPF programs need CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, which this process does not have"
    if lockdown() == "confidentiality":
        return "the kernel is locked down (confidentiality): BPF programs may not read its memory"
    return ""


def why_no_kprobes() -> str:
    """What keeps kprobes from being used here; empty when nothing is known to."""
    return "" if KPROBES.exists() else "this kernel has no kprobes (CONFIG_KPROBES is off)"


def why_not_perf() -> str:
    """What keeps perf events, which kprobes are attached by, from this process; empty when nothing is known to."""
    paranoid = perf_event_paranoid()
    if paranoid <= PARANOID_WITH_PERFMON or has_capability(CAP_SYS_ADMIN):
        return ""
    return (
        f"kernel.perf_event_paranoid is {paranoid}: above {PARANOID_WITH_PERFMON} a Debian kernel keeps perf events, and "
        "kprobes with them, for CAP_SYS_ADMIN"
    )


def in_words(number: int | None, text: str) -> str:
    """An error of libbpf with what most likely stands behind it."""
    if number in (errno.EPERM, errno.EACCES) and (why := why_not_bpf() or why_not_perf()):
        return f"{text}; {why}"
    return text
