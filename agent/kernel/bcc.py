"""The BCC rung: the same programs, compiled on this host where the kernel has no BTF but its headers are there.

A child under the distribution's Python compiles and attaches them and hands the file descriptors over; then it ends, and
LLVM with it. Errors: BccError, whose text says why the rung cannot be had and what would help.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from agent.executor import Child, answers
from agent.kernel.libbpf import BpfError, BpfMap, Libbpf

SOURCE = Path(__file__).parent / "reflex.bcc.c"
CHILD = Path(__file__).parent / "bcc_child.py"
COMPILE_S = 300.0
"""Patience with the compiler; seconds on real hardware, minutes under emulation."""

RAW_TRACEPOINTS: Mapping[str, tuple[str, str]] = {
    "fork": ("sched_process_fork", "on_fork"),
    "exec": ("sched_process_exec", "on_exec"),
    "exit": ("sched_process_exit", "on_exit"),
    "signal": ("signal_generate", "on_signal"),
}
OOM_PROGRAMS = {True: "on_oom_task", False: "on_oom_pid"}
KPROBES: Mapping[str, str] = {
    "inet_csk_complete_hashdance": "on_tcp_handshake_kprobe",
    "inet_csk_reqsk_queue_add": "on_tcp_enqueue_kprobe",
    "security_unix_stream_connect": "on_unix_enqueue_kprobe",
}
MAPS = ("records", "tracked", "tracked_slots", "counters", "listeners")

_ASK_S = 180.0
_MAX_ANSWER_BYTES = 65536
_MAX_DESCRIPTORS = 64
_MODULES = Path("/lib/modules")
_RELEASE = Path("include/generated/utsrelease.h")
_MARK_VICTIM = Path("include/trace/events/oom.h")


class BccError(RuntimeError):
    """Programs cannot be compiled here, or those that were cannot be believed."""


class BccPrograms:
    """Programs that a child compiled, held by their descriptors; a Programs as agent.kernel.source wants it."""

    def __init__(self, library: Libbpf, descriptors: Mapping[str, int]) -> None:
        self._library = library
        self._descriptors = dict(descriptors)

    def map(self, name: str, value_bytes: int, *, per_cpu: bool = False) -> BpfMap:
        """A map; raises BpfError when the child did not send it."""
        copies = self._library.c.libbpf_num_possible_cpus() if per_cpu else 1
        return BpfMap(self._library, self._descriptor(f"map {name}"), value_bytes * copies)

    def program_fd(self, name: str) -> int:
        """The descriptor of a program; raises BpfError when the child did not send it."""
        return self._descriptor(f"program {name}")

    def run_iterator(self, name: str) -> bytes:
        """There are no iterators here; raises BpfError."""
        raise BpfError(f"the iterator {name} is not compiled by BCC")

    def close(self) -> None:
        """Lets go of everything, which takes the programs off their hooks."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def _descriptor(self, name: str) -> int:
        if name not in self._descriptors:
            raise BpfError(f"BCC compiled no {name}")
        return self._descriptors[name]


def compile_programs(library: Libbpf, signals: Collection[str]) -> BccPrograms:
    """The programs of these signals, compiled, attached and handed over; raises BccError."""
    headers = matching_headers(platform.release())
    python = python_with_bcc((sys.executable, "/usr/bin/python3"))
    if not SOURCE.exists():
        raise BccError(f"the source {SOURCE} is not there; run ./reflex setup or make -C bpf")
    wanted = {RAW_TRACEPOINTS[name][0]: RAW_TRACEPOINTS[name][1] for name in signals if name in RAW_TRACEPOINTS}
    if "oom" in signals:
        wanted["mark_victim"] = OOM_PROGRAMS[hands_over_the_task(headers)]
    kprobes = dict(KPROBES) if "queue" in signals else {}
    return BccPrograms(library, _ask({"raw_tracepoints": wanted, "kprobes": kprobes, "maps": MAPS}, python))


def matching_headers(release: str, modules: Path = _MODULES) -> Path:
    """The headers of exactly this kernel; raises BccError. With others, programs load, attach and report garbage."""
    build = modules / release / "build"
    try:
        _, found, _ = (build / _RELEASE).read_text().split('"')
    except (OSError, ValueError):
        raise BccError(
            f"the headers of the running kernel are not there; install the package linux-headers-{release}"
        ) from None
    if found != release:
        raise BccError(
            f"{build} holds the headers of {found}, the running kernel is {release}: "
            f"programs compiled with them would report garbage; install the package linux-headers-{release}"
        )
    return build


def hands_over_the_task(headers: Path) -> bool:
    """Whether mark_victim's first argument is the task itself and not its pid, as its declaration says."""
    folders = (headers, *(headers.resolve().parent / f"{headers.resolve().name.rsplit('-', 1)[0]}-{end}" for end in ("common",)))  # fmt: skip
    for folder in folders:
        try:
            text = (folder / _MARK_VICTIM).read_text()
        except OSError:
            continue
        prototype = text.partition("TRACE_EVENT(mark_victim")[2].partition("TP_PROTO(")[2].partition(")")[0]
        return "task_struct" in prototype
    raise BccError(f"the headers in {headers} lack {_MARK_VICTIM}, which says what the OOM killer's tracepoint gives")


def python_with_bcc(interpreters: Iterable[str]) -> str:
    """The first interpreter that has BCC; raises BccError."""
    for python in interpreters:
        if answers((python, "-I", "-c", "from bcc import BPF"), _ASK_S):
            return python
    raise BccError("no Python here has BCC; install the package python3-bpfcc")


def _ask(request: Mapping[str, object], python: str) -> dict[str, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(COMPILE_S)
        try:
            child = Child((python, "-I", str(CHILD), str(SOURCE), str(theirs.fileno())), inherit=(theirs.fileno(),))
        except OSError as error:
            raise BccError(f"{python} cannot be started: {error.strerror}") from None
        theirs.close()
        try:
            ours.sendall(json.dumps(request).encode())
            answer, descriptors, _flags, _address = socket.recv_fds(ours, _MAX_ANSWER_BYTES, _MAX_DESCRIPTORS)
        except TimeoutError:
            raise BccError(f"BCC did not compile the programs within {COMPILE_S:g} s") from None
        except OSError as error:
            raise BccError(f"BCC's child ended early: {error.strerror}") from None
        finally:
            child.end()
    return _named(answer, descriptors)


def _named(answer: bytes, descriptors: list[int]) -> dict[str, int]:
    """The descriptors by their names; an answer that is not one closes them all."""
    try:
        told = json.loads(answer)
        if "error" in told:
            raise BccError(f"BCC refused the programs: {told['error']}")
        return dict(zip(told["names"], descriptors, strict=True))
    except (ValueError, KeyError, TypeError) as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise BccError(f"BCC's child gave no answer that can be read ({error}); perhaps it ran out of memory") from None
