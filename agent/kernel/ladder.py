"""Which means each kernel signal can be heard by, best first. Pure: a table and the words around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

State = Literal["attached", "degraded", "off"]
"""attached: all that the signal can tell; degraded: a part of it; off: nothing."""

Means = Literal["tp_btf", "fentry", "kprobe", "iterator", "bcc", "netlink", "diag", "counters", "psutil", "scan", "off"]
MEANS: tuple[Means, ...] = get_args(Means)


@dataclass(frozen=True, slots=True)
class Rung:
    """One means of hearing a signal.

    `programs` are those of the BPF object that must all attach. `tracepoint`, `functions` and `iterator` name what
    the running kernel must have for them; `wants_pointer` asks that the tracepoint's first argument is, or is not, a
    pointer: kernels differ. `maps` are made for this rung alone, as not every kernel can. A rung without programs belongs to a part of the agent that needs no BPF.
    """

    means: Means
    label: str
    programs: tuple[str, ...] = ()
    tracepoint: str = ""
    functions: tuple[str, ...] = ()
    iterator: str = ""
    maps: tuple[str, ...] = ()
    wants_pointer: bool | None = None
    state: State = "attached"
    blind: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """How one signal is heard. `rung` is empty when `state` is "off"; `reason` says why it is not better."""

    signal: str
    state: State
    means: Means = "off"
    rung: str = ""
    reason: str = ""
    programs: tuple[str, ...] = ()


_ENQUEUE = ("inet_csk_complete_hashdance", "inet_csk_reqsk_queue_add", "security_unix_stream_connect")
_ENQUEUE_FENTRY = ("on_tcp_handshake_fentry", "on_tcp_enqueue_fentry", "on_unix_enqueue_fentry")
_ENQUEUE_KPROBE = ("on_tcp_handshake_kprobe", "on_tcp_enqueue_kprobe", "on_unix_enqueue_kprobe")
_ACCEPT = ("security_sock_graft",)
_FULL = (
    *("tcp_conn_request", "tcp_v4_syn_recv_sock", "tcp_v6_syn_recv_sock"),
    *("unix_find_other", "unix_wait_for_peer", "unix_stream_connect"),
)

LADDERS: Mapping[str, tuple[Rung, ...]] = {
    "oom": (
        Rung("tp_btf", "tp_btf/mark_victim", ("on_oom_task",), tracepoint="mark_victim", wants_pointer=True),
        Rung(
            "tp_btf",
            "tp_btf/mark_victim (pid only)",
            ("on_oom_pid",),
            tracepoint="mark_victim",
            wants_pointer=False,
            state="degraded",
            blind="the victim's memory is not known",
        ),
        Rung("bcc", "bcc raw_tp/mark_victim", ("on_oom_task",)),
        Rung(
            "counters",
            "memory.events and vmstat",
            state="degraded",
            blind="OOM kills are counted per cgroup; victim and allocator are not named",
        ),
    ),
    "oom_context": (
        Rung(
            "fentry",
            "fentry/oom_kill_process",
            ("on_oom_kill_enter", "on_oom_kill_leave"),
            functions=("oom_kill_process",),
        ),
        Rung(
            "kprobe",
            "kprobe/oom_kill_process",
            ("on_oom_kill_kprobe", "on_oom_kill_kretprobe"),
            functions=("oom_kill_process",),
        ),
        Rung(
            "tp_btf",
            "the victim's cgroups at tp_btf/mark_victim",
            tracepoint="mark_victim",
            state="degraded",
            blind="whether a cpuset or the host ran short is inferred, the OOM killer's score is not known",
        ),
    ),
    "fork": (
        Rung("tp_btf", "tp_btf/sched_process_fork", ("on_fork",), tracepoint="sched_process_fork"),
        Rung("bcc", "bcc raw_tp/sched_process_fork", ("on_fork",)),
        Rung("netlink", "netlink proc connector", state="degraded", blind="every fork of the host wakes the agent"),
        Rung(
            "scan", "scan of all processes every 2 s", state="degraded", blind="a worker that lives shorter is not seen"
        ),
    ),
    "exec": (
        Rung("tp_btf", "tp_btf/sched_process_exec", ("on_exec",), tracepoint="sched_process_exec"),
        Rung("bcc", "bcc raw_tp/sched_process_exec", ("on_exec",)),
        Rung("netlink", "netlink proc connector", state="degraded", blind="every exec of the host wakes the agent"),
        Rung("scan", "scan of all processes every 2 s", state="degraded", blind="a service is found up to 2 s late"),
    ),
    "exit": (
        Rung("tp_btf", "tp_btf/sched_process_exit", ("on_exit",), tracepoint="sched_process_exit"),
        Rung("bcc", "bcc raw_tp/sched_process_exit", ("on_exit",)),
        Rung("netlink", "netlink proc connector", state="degraded", blind="memory and CPU at the end are not known"),
        Rung(
            "scan",
            "scan of all processes every 2 s",
            state="degraded",
            blind="deaths are noticed late and without cause",
        ),
    ),
    "signal": (
        Rung("tp_btf", "tp_btf/signal_generate", ("on_signal",), tracepoint="signal_generate"),
        Rung("bcc", "bcc raw_tp/signal_generate", ("on_signal",)),
    ),
    "queue": (
        Rung(
            "fentry",
            "fentry on enqueue, TCP and unix",
            _ENQUEUE_FENTRY,
            functions=_ENQUEUE,
        ),
        Rung(
            "kprobe",
            "kprobe on enqueue, TCP and unix",
            _ENQUEUE_KPROBE,
            functions=_ENQUEUE,
        ),
        Rung("tp_btf", "tp_btf/sk_data_ready", ("on_data_ready",), tracepoint="sk_data_ready"),
        Rung("bcc", "bcc kprobe on enqueue, TCP and unix", _ENQUEUE_KPROBE),
        Rung("diag", "netlink diag twice a second", state="degraded", blind="a peak between two looks is not seen"),
    ),
    "queue_wait": (
        Rung(
            "fentry",
            "fentry on enqueue and accept",
            (*_ENQUEUE_FENTRY, "on_accept_fentry"),
            functions=(*_ENQUEUE, *_ACCEPT),
        ),
        Rung(
            "kprobe",
            "kprobe on enqueue and accept",
            (*_ENQUEUE_KPROBE, "on_accept_kprobe"),
            functions=(*_ENQUEUE, *_ACCEPT),
        ),
        Rung(
            "tp_btf",
            "mean by Little's law at tp_btf/sk_data_ready",
            ("on_data_ready",),
            tracepoint="sk_data_ready",
            state="degraded",
            blind="the wait is an estimated mean, no connection's own time",
        ),
    ),
    "queue_overflow": (
        Rung(
            "fentry",
            "fentry and fexit where a full queue turns clients away",
            (
                *("on_tcp_syn_fentry", "on_tcp4_ack_fentry", "on_tcp6_ack_fentry"),
                *("on_unix_found_fexit", "on_unix_wait_fentry", "on_unix_connected_fexit"),
            ),
            functions=_FULL,
        ),
        Rung(
            "fentry",
            "fentry and fexit where a full queue turns clients away, kprobe at the end of TCP handshakes",
            (
                *("on_tcp_syn_fentry", "on_tcp4_ack_kprobe", "on_tcp6_ack_kprobe"),
                *("on_unix_found_fexit", "on_unix_wait_fentry", "on_unix_connected_fexit"),
            ),
            functions=_FULL,
        ),
        Rung(
            "kprobe",
            "kprobe and kretprobe where a full queue turns clients away",
            (
                *("on_tcp_syn_kprobe", "on_tcp4_ack_kprobe", "on_tcp6_ack_kprobe"),
                *("on_unix_found_kretprobe", "on_unix_wait_kprobe", "on_unix_connected_kretprobe"),
            ),
            functions=_FULL,
        ),
        Rung(
            "diag",
            "a TCP listener's own count of drops, by netlink diag",
            state="degraded",
            blind="drops of a TCP listener count whatever their reason, refusals of a unix listener are not seen",
        ),
    ),
    "readings": (
        Rung(
            "iterator",
            "iter/task",
            ("read_tasks", "read_moved"),
            iterator="task",
            functions=("task_storage_map_alloc",),
            maps=("told_tasks",),
        ),
        Rung(
            "psutil",
            "psutil",
            state="degraded",
            blind="run-queue wait, faults, swap and file memory are not known, and each reading costs far more",
        ),
    ),
}
"""The signals and their rungs, best first."""

DETAILS: frozenset[str] = frozenset({"oom_context", "queue_wait", "queue_overflow"})
"""Signals that add to another one: heard by lesser means, they are worth knowing and no warning."""

WITHOUT: Mapping[str, str] = {
    "oom": "OOM kills are not seen",
    "oom_context": "limit and constraint of an OOM kill are not known",
    "fork": "new workers are not seen",
    "exec": "new services are not seen",
    "exit": "deaths are not seen",
    "signal": "who sent a signal is not known",
    "queue": "the depth of accept queues is not known",
    "queue_wait": "how long connections wait for accept is not known",
    "queue_overflow": "clients that a full accept queue turns away are not counted",
    "readings": "memory and CPU of workers are not known",
}
"""What the agent cannot see without a signal."""


class RungsError(ValueError):
    """A wish for rungs that names no signal or no means; the text says which."""


def parse_wishes(text: str) -> dict[str, Means]:
    """The rungs that the setting `rungs` asks for, such as `oom=counters,queue=diag`; raises RungsError."""
    wishes: dict[str, Means] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        signal, _, means = (word.strip() for word in part.partition("="))
        if signal not in LADDERS:
            raise RungsError(f"there is no signal {signal!r}; the signals are {', '.join(LADDERS)}")
        offered: dict[str, Means] = {**{rung.means: rung.means for rung in LADDERS[signal]}, "off": "off"}
        if means not in offered:
            raise RungsError(f"{signal} cannot be heard by {means!r}; its means are {', '.join(offered)}")
        wishes[signal] = offered[means]
    return wishes
