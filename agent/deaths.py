"""Death certificates: why a process ended, from its exit status and the signals that it was sent. Pure.

Gunicorn logs a kernel OOM kill, its own timeout and a person's `kill -9` as one and the same line. What tells them
apart is who sent the signal, which the kernel says at the moment of sending.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.kernel.records import ExitRecord, OomRecord, SignalRecord
from agent.wire import Evidence, Severity
from agent.words import signal_name

SIGINT, SIGQUIT, SIGABRT, SIGKILL, SIGTERM = 2, 3, 6, 9, 15
_FAULTS = frozenset({4, 5, 6, 7, 8, 11, 31})
_STOPS = frozenset({SIGINT, SIGQUIT, SIGTERM})
_SENT_BY_KERNEL = 128
_IGNORED = 1
_EXIT_CODES = {3: ("boot_error", "it failed to boot"), 4: ("app_load_error", "its application could not be loaded")}

DEATHS: Mapping[str, str] = {
    "kernel_oom": "The kernel's OOM killer chose it and it ended by SIGKILL.",
    "master_timeout": "Its master aborted it because its heartbeat was too old.",
    "killed_by_person": "SIGKILL from a process with a controlling terminal: a person typed it.",
    "killed_by_process": "SIGKILL, or a signal that crashes, from another program.",
    "killed_by_master": "SIGKILL from its master, which waits no longer for a worker that it stops.",
    "kernel_kill": "SIGKILL from the kernel, but not from its OOM killer.",
    "killed_unseen": "SIGKILL whose sender was not seen.",
    "crash_signal": "It crashed: SIGSEGV, SIGBUS, SIGABRT by itself, and the like.",
    "stopped_by_master": "Its master asked it to stop: a reload, a smaller number of workers, a shutdown.",
    "stopped_by_process": "Somebody else than its master asked it to stop.",
    "signal_unseen": "It ended by a signal whose sender was not seen.",
    "boot_error": "Exit code 3: Gunicorn could not boot the worker, and stops the whole service.",
    "app_load_error": "Exit code 4: the application could not be loaded, and Gunicorn stops the whole service.",
    "error_exit": "Any other exit code but 0.",
    "clean_exit": "Exit code 0 without being asked, as after its last allowed request (max_requests).",
    "unknown": "Its exit was not heard, so how it ended is not known.",
}
"""Every certificate there is, with its meaning in one sentence."""

SIGNAL_SOURCE = "signal:signal_generate"
EXIT_SOURCE = "sched:sched_process_exit"


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
    exit_record: ExitRecord, signals: Sequence[SignalRecord], oom: OomRecord | None, master_pid: int
) -> Certificate:
    """The certificate of a worker of the master `master_pid`, from what was seen before its end, oldest first."""
    told = [signal for signal in signals if signal.result != _IGNORED]
    number, code = exit_record.wait_status & 0x7F, exit_record.wait_status >> 8 & 0xFF
    ended = Evidence(EXIT_SOURCE, _status_words(number, code))
    if oom is not None and number == SIGKILL:
        return _kernel_oom(oom, ended)
    aborted = _last(told, {SIGABRT}, from_pid=master_pid)
    if aborted is not None and not _killed_by_another(told, number, master_pid):
        return _master_timeout(aborted, told, ended, master_pid)
    if number == SIGKILL:
        return _killed(_last(told, {SIGKILL}), ended, master_pid)
    if number in _FAULTS:
        return _crashed(number, _last(told, {number}), ended)
    if number:
        return _ended_by_signal(number, _last(told, {number}), ended, master_pid)
    return _exited(code, _last(told, _STOPS), ended, master_pid)


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
    aborted: SignalRecord, told: Sequence[SignalRecord], ended: Evidence, master_pid: int
) -> Certificate:
    killed = _last(told, {SIGKILL}, from_pid=master_pid)
    how = "SIGABRT and then SIGKILL" if killed is not None else "SIGABRT"
    evidence = tuple(signal_evidence(signal) for signal in (aborted, killed) if signal is not None)
    phrase = f"its master (pid {master_pid}) sent {how} because it had stopped beating"
    return Certificate("master_timeout", phrase, "critical", (*evidence, ended), decisive=aborted)


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
    death = "stopped_by_master" if by_master else "stopped_by_process"
    phrase = f"{signal_name(number)} from {who}"
    severity: Severity = "info" if by_master else "warning"
    return Certificate(death, phrase, severity, (signal_evidence(sent), ended), expected=by_master, decisive=sent)


def _exited(code: int, stop: SignalRecord | None, ended: Evidence, master_pid: int) -> Certificate:
    if code:
        death, why = _EXIT_CODES.get(code, ("error_exit", "it gave up by itself"))
        return Certificate(death, f"exit code {code}: {why}", "critical", (ended,))
    if stop is None:
        return Certificate("clean_exit", "exit code 0, by itself, as after its last allowed request", "info", (ended,))
    by_master = stop.sender_pid == master_pid
    who = f"its master (pid {master_pid})" if by_master else sender_words(stop)
    death = "stopped_by_master" if by_master else "stopped_by_process"
    phrase = f"exit code 0 after {signal_name(stop.signal)} from {who}"
    evidence = (signal_evidence(stop), ended)
    return Certificate(death, phrase, "info", evidence, expected=by_master, decisive=stop)


def _killed_by_another(told: Sequence[SignalRecord], number: int, master_pid: int) -> bool:
    """Whether the SIGKILL that ended it came from somebody else than the master that had sent SIGABRT."""
    kill = _last(told, {SIGKILL})
    return number == SIGKILL and kill is not None and kill.sender_pid != master_pid


def _last(
    signals: Sequence[SignalRecord], numbers: frozenset[int] | set[int], from_pid: int | None = None
) -> SignalRecord | None:
    for signal in reversed(signals):
        if signal.signal in numbers and (from_pid is None or signal.sender_pid == from_pid):
            return signal
    return None


def _status_words(number: int, code: int) -> str:
    return f"ended by {signal_name(number)}" if number else f"exited with code {code}"
