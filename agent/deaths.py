"""Death certificates: why a process ended, from its exit status and the signals that it was sent. Pure.

Gunicorn logs a kernel OOM kill, its own timeout and a person's `kill -9` as one and the same line. What tells them
apart is who sent the signal, which the kernel says at the moment of sending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.kernel.records import ExitRecord, OomRecord, SignalRecord
from agent.wire import Evidence, Severity
from agent.words import signal_name

SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGKILL, SIGUSR2, SIGTERM = 1, 2, 3, 6, 9, 12, 15
_FAULTS = frozenset({4, 5, 6, 7, 8, 11, 31})
_STOPS = frozenset({SIGINT, SIGQUIT, SIGTERM})
_SENT_BY_KERNEL = 128
_IGNORED = 1
_MANAGERS = (
    "systemd",
    "containerd-shim",
    "runc",
    "crun",
    "conmon",
    "dockerd",
    "podman",
    "supervisord",
    "circusd",
    "runit",
)
"""Programs whose job is to stop services; by their names as the kernel keeps them, the first 15 characters."""

DEATHS: Mapping[str, str] = {
    "kernel_oom": "The kernel's OOM killer chose it and it ended by SIGKILL.",
    "master_timeout": "Its master aborted it because a request or task took too long, or its heartbeat was too old.",
    "killed_by_person": "SIGKILL from a process with a controlling terminal: a person typed it.",
    "killed_by_process": "SIGKILL, or a signal that crashes, from another program.",
    "killed_by_master": "SIGKILL from its master, which waits no longer for a worker that it stops.",
    "ended_with_master": "SIGKILL at its master's end, as it had asked the kernel for (PR_SET_PDEATHSIG): Celery's pools do.",
    "kernel_kill": "SIGKILL from the kernel, but not from its OOM killer.",
    "killed_unseen": "SIGKILL whose sender was not seen.",
    "crash_signal": "It crashed: SIGSEGV, SIGBUS, SIGABRT by itself, and the like.",
    "stopped_by_master": "Its master asked it to stop: a reload, a smaller number of workers, a shutdown.",
    "stopped_by_process": "Somebody else than its master asked it to stop.",
    "signal_unseen": "It ended by a signal whose sender was not seen.",
    "stopped_by_manager": "Its service manager or container runtime stopped it: systemd, supervisor, Docker and their like.",
    "boot_error": "It failed to boot, as its exit code says; Gunicorn stops the whole service then.",
    "app_load_error": "Its application could not be loaded, as its exit code says; Gunicorn stops the whole service then.",
    "recycled": "It ended by itself to be replaced, as its exit code says: its last allowed request or task, or a reload.",
    "error_exit": "Any other exit code but 0.",
    "clean_exit": "Exit code 0 without being asked, as after its last allowed request (max_requests).",
    "unknown": "Its exit was not heard, so how it ended is not known.",
}
"""Every certificate there is, with its meaning in one sentence."""

SIGNAL_SOURCE = "signal:signal_generate"
EXIT_SOURCE = "sched:sched_process_exit"


@dataclass(frozen=True, slots=True)
class ExitCode:
    """What an exit code of a kind of worker means: a death, and words that follow "exit code 3: ".

    `is_fatal`: the fault is not the worker's own, a successor will have it, too. `expected`: its master wanted it so.
    `by_itself`: it means this also where the master asked the worker to stop before.
    """

    death: str
    why: str
    is_fatal: bool = False
    expected: bool = False
    by_itself: bool = False


@dataclass(frozen=True, slots=True)
class DeathRules:
    """How a kind of worker ends.

    `aborts_with` is the signal by which its master begins to end one that is stuck. `kills_only_stuck`: a SIGKILL from
    its master that no asking went before means the same; with `only_with_timeout`, where the service is known to have
    one. `exits_after_fault` is the exit code of a program that catches its own faults. `aborted_because` follows "its
    master aborted it because ".
    """

    aborts_with: int | None = None
    kills_only_stuck: bool = False
    only_with_timeout: bool = False
    exits_after_fault: int | None = None
    aborted_because: str = "it was stuck"
    exit_codes: Mapping[int, ExitCode] = field(default_factory=dict)
    clean_exit: str = "as after its last allowed request"


@dataclass(frozen=True, slots=True)
class Certificate:
    """Why a process ended. `phrase` goes on after "ended after 3 min: "; `expected` when its master wanted it so."""

    death: str
    phrase: str
    severity: Severity
    evidence: tuple[Evidence, ...]
    expected: bool = False
    decisive: SignalRecord | None = None


def certify(
    exit_record: ExitRecord,
    signals: Sequence[SignalRecord],
    oom: OomRecord | None,
    master_pid: int,
    rules: DeathRules = DeathRules(),
    *,
    master_is_gone: bool = False,
) -> Certificate:
    """The certificate of a worker of the master `master_pid`, from what was seen before its end, oldest first."""
    told = [signal for signal in signals if signal.result != _IGNORED]
    number, code = exit_record.wait_status & 0x7F, exit_record.wait_status >> 8 & 0xFF
    ended = Evidence(EXIT_SOURCE, _status_words(number, code))
    if oom is not None and number == SIGKILL:
        return _kernel_oom(oom, ended)
    killed = _last(told, {SIGKILL}, from_pid=master_pid)
    if master_is_gone and number == SIGKILL and killed is not None:
        return _ended_with_master(killed, ended, master_pid)
    aborted = _aborted(told, number, master_pid, rules)
    if aborted is not None and not _killed_by_another(told, number, master_pid):
        return _master_timeout(aborted, told, ended, master_pid, rules)
    if number == SIGKILL:
        return _killed(_last(told, {SIGKILL}), ended, master_pid)
    if number in _FAULTS:
        return _crashed(number, _last(told, {number}), ended)
    if number:
        return _ended_by_signal(number, _last(told, {number}), ended, master_pid)
    fault = _last(told, _FAULTS)
    if code and code == rules.exits_after_fault and fault is not None:
        return _crashed(fault.signal, fault, ended)
    return _exited(code, _last(told, _STOPS), ended, master_pid, rules)


def sender_words(signal: SignalRecord) -> str:
    """Who sent it: `bash (pid 700, uid 1000, terminal pts/0)`."""
    details = f"pid {signal.sender_pid}, uid {signal.sender_uid}"
    if signal.sender_parent_pid:
        details += f", started by {signal.sender_parent_comm} (pid {signal.sender_parent_pid})"
    if signal.sender_tty:
        details += f", terminal {_terminal_path(signal.sender_tty)}"
    return f"{signal.sender_comm} ({details})"


def signal_evidence(signal: SignalRecord) -> Evidence:
    """What the kernel said when the signal was sent."""
    by = "the kernel itself" if signal.code == _SENT_BY_KERNEL else sender_words(signal)
    return Evidence(SIGNAL_SOURCE, f"{signal_name(signal.signal)} to pid {signal.pid} by {by}, code {signal.code}")


def _terminal_path(name: str) -> str:
    """The kernel's `pts3` as people know it from /dev: `pts/3`."""
    return f"pts/{name[3:]}" if name.startswith("pts") else name


def _kernel_oom(oom: OomRecord, ended: Evidence) -> Certificate:
    marked = Evidence("oom:mark_victim", f"the OOM killer chose pid {oom.pid} while pid {oom.allocator_pid} allocated")
    return Certificate("kernel_oom", "SIGKILL from the kernel's OOM killer", "critical", (marked, ended))


def _master_timeout(
    aborted: SignalRecord, told: Sequence[SignalRecord], ended: Evidence, master_pid: int, rules: DeathRules
) -> Certificate:
    killed = _last(told, {SIGKILL}, from_pid=master_pid)
    sent = [signal for signal in (aborted, killed) if signal is not None]
    sent = sent[:1] if killed is aborted else sent
    how = " and then ".join(signal_name(signal.signal) for signal in sent)
    evidence = tuple(signal_evidence(signal) for signal in sent)
    phrase = f"its master (pid {master_pid}) sent {how} because {rules.aborted_because}"
    return Certificate("master_timeout", phrase, "critical", (*evidence, ended), decisive=aborted)


def _ended_with_master(kill: SignalRecord, ended: Evidence, master_pid: int) -> Certificate:
    phrase = f"SIGKILL because its master (pid {master_pid}) had died"
    evidence = (signal_evidence(kill), ended)
    return Certificate("ended_with_master", phrase, "warning", evidence, expected=True, decisive=kill)


def _killed(kill: SignalRecord | None, ended: Evidence, master_pid: int) -> Certificate:
    if kill is None:
        return Certificate("killed_unseen", "SIGKILL from a sender that was not seen", "warning", (ended,))
    evidence = (signal_evidence(kill), ended)
    if kill.code == _SENT_BY_KERNEL:
        phrase = "SIGKILL from the kernel, but not from its OOM killer"
        return Certificate("kernel_kill", phrase, "warning", evidence, decisive=kill)
    if kill.sender_pid == master_pid:
        phrase = f"SIGKILL from its master (pid {master_pid}), which waits no longer for a worker that it stops"
        return Certificate("killed_by_master", phrase, "warning", evidence, expected=True, decisive=kill)
    if _is_manager(kill):
        phrase = f"SIGKILL from {sender_words(kill)}, which stops services"
        return Certificate("stopped_by_manager", phrase, "warning", evidence, decisive=kill)
    death = "killed_by_person" if kill.sender_tty else "killed_by_process"
    who = "a person at a terminal, through " if kill.sender_tty else "another program, "
    phrase = f"SIGKILL from {who}{sender_words(kill)}; neither the kernel nor its master did it"
    return Certificate(death, phrase, "warning", evidence, decisive=kill)


def _crashed(number: int, fault: SignalRecord | None, ended: Evidence) -> Certificate:
    evidence = (ended,) if fault is None else (signal_evidence(fault), ended)
    if fault is not None and fault.code <= 0 and fault.sender_pid != fault.pid:
        phrase = f"{signal_name(number)} from {sender_words(fault)}"
        return Certificate("killed_by_process", phrase, "warning", evidence, decisive=fault)
    phrase = f"it crashed with {signal_name(number)}"
    return Certificate("crash_signal", phrase, "critical", evidence, decisive=fault)


def _ended_by_signal(number: int, sent: SignalRecord | None, ended: Evidence, master_pid: int) -> Certificate:
    if sent is None:
        phrase = f"{signal_name(number)} from a sender that was not seen"
        return Certificate("signal_unseen", phrase, "warning", (ended,))
    by_master = sent.sender_pid == master_pid
    who = f"its master (pid {master_pid})" if by_master else sender_words(sent)
    death = _stopped_by(sent, by_master=by_master)
    phrase = f"{signal_name(number)} from {who}"
    severity: Severity = "info" if by_master else "warning"
    return Certificate(death, phrase, severity, (signal_evidence(sent), ended), expected=by_master, decisive=sent)


def _exited(code: int, stop: SignalRecord | None, ended: Evidence, master_pid: int, rules: DeathRules) -> Certificate:
    known = rules.exit_codes.get(code)
    if code and not (known is not None and known.expected):
        death, why = (known.death, known.why) if known is not None else ("error_exit", "it gave up by itself")
        return Certificate(death, f"exit code {code}: {why}", "critical", (ended,))
    if known is not None and (stop is None or known.by_itself):
        return Certificate(known.death, f"exit code {code}: {known.why}", "info", (ended,))
    if stop is None:
        phrase = f"exit code 0, by itself, {rules.clean_exit}"
        return Certificate("clean_exit", phrase, "info", (ended,))
    by_master = stop.sender_pid == master_pid
    who = f"its master (pid {master_pid})" if by_master else sender_words(stop)
    death = _stopped_by(stop, by_master=by_master)
    phrase = f"exit code {code} after {signal_name(stop.signal)} from {who}"
    evidence = (signal_evidence(stop), ended)
    return Certificate(death, phrase, "info", evidence, expected=by_master, decisive=stop)


def _aborted(told: Sequence[SignalRecord], number: int, master_pid: int, rules: DeathRules) -> SignalRecord | None:
    """The signal by which the master began to end a worker that was stuck."""
    if rules.aborts_with is not None and (sent := _last(told, {rules.aborts_with}, from_pid=master_pid)) is not None:
        return sent
    asked = _last(told, _STOPS | {SIGHUP})
    if rules.kills_only_stuck and number == SIGKILL and asked is None:
        return _last(told, {SIGKILL}, from_pid=master_pid)
    return None


def _stopped_by(sent: SignalRecord, *, by_master: bool) -> str:
    if by_master:
        return "stopped_by_master"
    return "stopped_by_manager" if _is_manager(sent) else "stopped_by_process"


def _is_manager(signal: SignalRecord) -> bool:
    return signal.code != _SENT_BY_KERNEL and signal.sender_comm.startswith(_MANAGERS)


def _killed_by_another(told: Sequence[SignalRecord], number: int, master_pid: int) -> bool:
    """Whether the SIGKILL that ended it came from somebody else than the master that had sent SIGABRT."""
    kill = _last(told, {SIGKILL})
    return number == SIGKILL and kill is not None and kill.sender_pid != master_pid


def _last(
    signals: Sequence[SignalRecord], numbers: frozenset[int] | set[int], from_pid: int | None = None
) -> SignalRecord | None:
    """The last of these signals. One that a process sends to itself only passes on what it was sent: another's goes before."""
    fitting = [one for one in signals if one.signal in numbers and (from_pid is None or one.sender_pid == from_pid)]
    from_others = [one for one in fitting if one.sender_pid != one.pid or one.code == _SENT_BY_KERNEL]
    return next(iter([*reversed(from_others), *reversed(fitting)]), None)


def _status_words(number: int, code: int) -> str:
    return f"ended by {signal_name(number)}" if number else f"exited with code {code}"
