"""Least privilege for real: agents that start with much, with little and as nobody, and what each part still can do.

Everything runs in processes of its own: what a process gives away is gone.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.kernel.capabilities import Capability
from agent.kernel.reasons import KPROBES
from agent.privilege import NEEDS
from agent.procfs import own_capability_sets

ROOT = Path(__file__).parents[2]
OBJECT = ROOT / "agent" / "kernel" / "reflex.bpf.o"
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
NOBODY = 65534
WATCHING = "watching "
WAIT_S = 240.0 if os.environ.get("REFLEX_EMULATED") else 60.0
LASTING = frozenset({Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH, Capability.KILL})
"""What an agent keeps that hears everything by BPF, on a kernel that goes by descriptors."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: there is nothing to give away")


def mask(*capabilities: int) -> int:
    return sum(1 << capability for capability in capabilities)


def setpriv(*arguments: str) -> list[str]:
    return ["setpriv", *arguments, "--"]


def only(*capabilities: Capability) -> list[str]:
    """Root whose programs get at most these."""
    return setpriv("--bounding-set", ",".join(["-all", *(f"+{_plain(one)}" for one in capabilities)]))


def as_nobody(*capabilities: Capability) -> list[str]:
    """An ordinary user with these as ambient capabilities, as AmbientCapabilities= of a systemd unit gives them."""
    given = ",".join(["-all", *(f"+{_plain(one)}" for one in capabilities)])
    user = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    return setpriv(*user, "--inh-caps", given, "--ambient-caps", given)


def _plain(capability: Capability) -> str:
    return capability.name.lower()


@dataclass(frozen=True, slots=True)
class Agent:
    """A running reflexd that watches, without a server, and what it has said so far."""

    pid: int
    said: list[str]

    def threads(self) -> list[dict[str, str]]:
        """The status of every thread."""
        return [_status(folder) for folder in Path(f"/proc/{self.pid}/task").iterdir()]


def _status(folder: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in (folder / "status").read_text().splitlines())
    return {name: value.strip() for name, _, value in pairs}


Run = Callable[..., Agent]


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="reflex-privilege-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def run(home: Path) -> Iterator[Run]:
    """`run(prefix, *options)`: a real agent behind a command that takes privileges from it, as its log says "watching"."""
    started: list[subprocess.Popen[str]] = []

    def start(prefix: Sequence[str], *options: str, uid: int = 0) -> Agent:
        key, state = home / "host-key", home / "state"
        key.write_text("key")
        key.chmod(0o600)
        state.mkdir()
        for path in (key, state):
            os.chown(path, uid, -1)
        places = ["--host-key-file", str(key), "--state-dir", str(state), "--server-url", "http://127.0.0.1:9"]
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "agent", "run", "--host", "web-3", *places, *options],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        said: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if WATCHING in line:
                threading.Thread(target=said.extend, args=(process.stderr,), daemon=True).start()
                return Agent(process.pid, said)
        raise AssertionError(f"the agent ended: {''.join(said)}")

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0


def python(code: str, prefix: Sequence[str] = ()) -> str:
    """What a Python program of a process of its own prints."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def rungs(prefix: Sequence[str] = ()) -> dict[str, str]:
    """The rung of each signal that `reflexd probes` finds."""
    return {probe["signal"]: probe["rung"] for probe in probes(prefix)}


def probes(prefix: Sequence[str] = (), wishes: str = "") -> list[dict[str, Any]]:
    """What `reflexd probes` says."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "agent", "probes", "--json", "--rungs", wishes],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    said: list[dict[str, Any]] = json.loads(done.stdout)
    return said


@contextmanager
def perf_event_paranoid(value: int) -> Iterator[None]:
    """The sysctl at that value, where there is one; it is put back."""
    if not PARANOID.exists():
        yield
        return
    before = PARANOID.read_text()
    PARANOID.write_text(str(value))
    try:
        yield
    finally:
        PARANOID.write_text(before)


def anybody_can_run_python() -> bool:
    """Whether other users reach this interpreter and this tree."""
    try:
        subprocess.run([*as_nobody(), sys.executable, "-c", "import agent"], cwd=ROOT, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def kept_here() -> frozenset[Capability]:
    """What an agent that may do everything keeps on this kernel, by the means that it takes here."""
    kept = set(LASTING)
    means = python(
        """
        from agent.kernel.capabilities import permitted
        from agent.kernel.map_access import maps_need_capability
        from agent.privilege import lasting
        from agent.probes import look
        from agent.settings import Settings
        means = frozenset(row["means"] for row in look(Settings(), seconds=0))
        needs = lasting(means, permitted(), maps_need_capability=maps_need_capability())
        print(*{int(need.capability) for need in needs})
        """
    )
    kept |= {Capability(int(number)) for number in means.split()}
    return frozenset(kept) & {one for one in Capability if own_capability_sets()["CapPrm"] >> one & 1}


# Whole agents.


def test_root_keeps_the_table_and_nothing_else(run: Run) -> None:
    kept = f"{mask(*kept_here()):016x}"
    for thread in run(()).threads():
        assert {thread[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {kept}
        assert {thread["CapInh"], thread["CapAmb"]} == {f"{0:016x}"}
        assert thread["NoNewPrivs"] == "1"


def test_root_in_a_bounding_set_keeps_what_it_was_given(run: Run) -> None:
    """As in a systemd unit. Without CAP_SETPCAP the bounding set stays, and no-new-privileges stands in for it."""
    given = (Capability.BPF, Capability.PERFMON, Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH)
    agent = run(only(*given))
    kept = mask(*(set(given) & kept_here()))
    for thread in agent.threads():
        assert {thread["CapPrm"], thread["CapEff"]} == {f"{kept:016x}"}
        assert thread["CapBnd"] == f"{mask(*given):016x}"
        assert thread["NoNewPrivs"] == "1"
    assert "runs without CAP_KILL: it cannot signal processes of other users." in "".join(agent.said)


@pytest.mark.skipif(not anybody_can_run_python(), reason="this Python is closed to other users")
def test_nobody_with_ambient_capabilities_hears_as_well_as_root(run: Run) -> None:
    given = (Capability.BPF, Capability.PERFMON, *LASTING)
    agent = run(as_nobody(*given), uid=NOBODY)
    for thread in agent.threads():
        assert thread["Uid"].split()[0] == str(NOBODY)
        assert {thread["CapPrm"], thread["CapEff"]} == {f"{mask(*(set(given) & kept_here())):016x}"}
        assert {thread["CapInh"], thread["CapAmb"]} == {f"{0:016x}"}
    with perf_event_paranoid(2):
        assert rungs(as_nobody(*given)) == rungs()


@pytest.mark.skipif(not anybody_can_run_python(), reason="this Python is closed to other users")
def test_nobody_without_any_says_what_it_cannot_do(run: Run) -> None:
    said = "".join(run(as_nobody(), uid=NOBODY).said)
    for need in (one for one in NEEDS if one.capability in LASTING):
        assert f"The agent on web-3 runs without {need.capability}: it {need.without}." in said
    assert re.search(r"does not hear signal: .*need CAP_BPF and CAP_PERFMON", said)


def test_threads_that_start_later_have_no_more(run: Run) -> None:
    """Asking the disk to keep events runs in a pool of threads, which begins when it is first needed."""
    agent = run(())
    names = {thread["Pid"] for thread in agent.threads()}
    for _ in range(600):
        if len(names) > 1:
            break
        threading.Event().wait(0.05)
        names = {thread["Pid"] for thread in agent.threads()}
    assert len(names) > 1
    assert {thread["CapPrm"] for thread in agent.threads()} == {f"{mask(*kept_here()):016x}"}


# The parts, one by one.


@pytest.mark.skipif(not Path("/sys/kernel/btf/vmlinux").exists(), reason="no BTF here")
def test_programs_load_with_cap_bpf_and_cap_perfmon_alone() -> None:
    """Also with a libbpf that asks for the types of modules, which takes CAP_SYS_ADMIN."""
    everything = rungs()
    with perf_event_paranoid(2):
        assert rungs(only(Capability.BPF, Capability.PERFMON)) == everything
    assert rungs(only(Capability.BPF)) != everything
    assert rungs(only(Capability.PERFMON)) != everything


@pytest.mark.skipif(not KPROBES.exists(), reason="this kernel has no kprobes")
@pytest.mark.skipif(not PARANOID.exists(), reason="this kernel has no perf events")
def test_what_keeps_kprobes_from_an_agent_without_cap_sys_admin_is_said() -> None:
    """Debian's own limit; a kernel that does not know it gives the kprobe."""
    with perf_event_paranoid(3):
        [probe] = [
            p for p in probes(only(Capability.BPF, Capability.PERFMON), "queue=kprobe") if p["signal"] == "queue"
        ]
    assert probe["means"] == "kprobe" or "kernel.perf_event_paranoid is 3" in probe["reason"]


AFTER_ATTACHING = """
    import os, select, socket, time
    from pathlib import Path
    from agent.kernel.capabilities import Capability, keep_only, permitted
    from agent.kernel.opening import open_kernel
    from agent.kernel.map_access import maps_need_capability
    from agent.kernel.records import Role
    from agent.procfs import ProcFs

    kernel, procfs = open_kernel(Path({object!r})), ProcFs()
    keep_only({{Capability.BPF}} if maps_need_capability() else ())
    pid = os.getpid()
    kernel.track(pid, procfs.start_ticks(pid) * 10**9 // os.sysconf("SC_CLK_TCK"), Role.MASTER)
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    heard = []
    while len(heard) < 2 and select.select([source.fd for source in kernel.sources], [], [], 30)[0]:
        heard += [type(record).__name__ for record in kernel.read() if record.pid == child]
    listener = socket.create_server(("127.0.0.1", 0))
    kernel.watch_listener(os.fstat(listener.fileno()).st_ino)
    client = socket.create_connection(listener.getsockname())
    second = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 10**9
    (queue,) = kernel.queues(second).values()
    kernel.renew(lambda pid, start_ns: False)
    kernel.untrack(child)
    print(heard, kernel.bpf.refused, [reading.pid for reading in kernel.read_tasks()] == [pid], kernel.counts()["fork"].sent)
    print(max(seen.depth for seen in queue.seconds), kernel.figures()["fork"].records)
    kernel.close()
"""


def test_attached_programs_are_heard_steered_and_read_without_privileges() -> None:
    if any(rungs()[signal] == "" or "scan" in rungs()[signal] for signal in ("fork", "exit")):
        pytest.skip("no BPF here")
    printed = python(AFTER_ATTACHING.format(object=str(OBJECT)))
    assert printed == "['ForkRecord', 'ExitRecord'] 0 True 1\n1 1"


@pytest.fixture
def stranger(home: Path) -> Iterator[int]:
    """A process of another user in a closed folder, with a listener in a network namespace of its own."""
    folder = home / "closed"
    folder.mkdir()
    (folder / "gunicorn.conf.py").touch()
    for path in (folder, folder / "gunicorn.conf.py"):
        os.chown(path, NOBODY, NOBODY)
    folder.chmod(0o700)
    code = "import socket, sys; s = socket.create_server(('', 0)); print('up', flush=True); sys.stdin.read()"
    user = setpriv("--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
    inside = ["env", "-C", str(folder), "SECRET=of-nobody", "/usr/bin/python3", "-c", code]
    process = subprocess.Popen(
        ["unshare", "--net", *user, *inside], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "up\n"
    yield process.pid
    process.stdin.close()
    process.wait(WAIT_S)


READS = {
    "binary": "procfs._link({pid}, 'exe')",
    "folder": "procfs._link({pid}, 'cwd')",
    "shared memory": "procfs.shares({pid})",
    "environment": "procfs.environment({pid})",
    "open files": "procfs.open_files({pid}, '')",
    "listeners": "procfs.listeners({pid})",
    "configuration": "procfs.has_file({pid}, 'gunicorn.conf.py')",
    "usage": "procfs.usage({pid})",
}


def readable(pid: int, *capabilities: Capability) -> set[str]:
    """What an agent with these can read of a process."""
    looks = ", ".join(f"{name!r}: {look.format(pid=pid)}" for name, look in READS.items())
    code = (
        f"from agent.procfs import ProcFs; procfs = ProcFs(); print(*(k for k, v in {{{looks}}}.items() if v), sep=';')"
    )
    return set(python(code, only(*capabilities)).split(";"))


def test_each_capability_for_proc_opens_its_part(stranger: int) -> None:
    by_ptrace = {"usage", "binary", "folder", "shared memory"}
    assert readable(stranger) == {"usage"}
    assert readable(stranger, Capability.DAC_READ_SEARCH) == {"usage"}
    assert readable(stranger, Capability.SYS_PTRACE) == by_ptrace
    assert readable(stranger, Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH) == set(READS)


def test_signals_to_others_take_cap_kill(stranger: int) -> None:
    code = f"""
        import os, signal
        try:
            os.kill({stranger}, 0)
        except PermissionError:
            print("refused")
        else:
            print("sent")
    """
    assert python(code, only()) == "refused"
    assert python(code, only(Capability.KILL)) == "sent"


def test_queues_in_other_network_namespaces_take_cap_sys_admin(stranger: int) -> None:
    code = f"""
        from agent.kernel.diag import QueueDiag
        from agent.procfs import ProcFs
        (listener,) = ProcFs().listeners({stranger})
        print(len(QueueDiag().look({{listener.inode: {stranger}}})))
    """
    reading = (Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH)
    assert python(code, only(*reading)) == "0"
    assert python(code, only(*reading, Capability.SYS_ADMIN)) == "1"


def test_a_thread_that_began_too_early_is_told() -> None:
    code = """
        import threading
        from agent.privilege import Privileges
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        privileges = Privileges()
        privileges.begin()
        print(*privileges.settle([]), sep=";")
    """
    assert "has 1 threads with privileges that it does not need" in python(code)


def test_programs_that_the_agent_runs_gain_nothing() -> None:
    code = """
        import subprocess
        from agent.kernel.capabilities import Capability, keep_only
        keep_only({Capability.KILL})
        print(subprocess.run(["grep", "-E", "CapEff|CapBnd", "/proc/self/status"], capture_output=True, text=True).stdout)
    """
    kept = f"{mask(Capability.KILL):016x}"
    assert python(code).split() == ["CapEff:", kept, "CapBnd:", kept]


# The OOM killer.


def score_adj(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_the_agent_is_protected_from_the_oom_killer_or_says_that_it_is_not(run: Run) -> None:
    agent = run(())
    may_lower = own_capability_sets()["CapPrm"] >> Capability.SYS_RESOURCE & 1 or score_adj(os.getpid()) <= -900
    assert score_adj(agent.pid) == (-900 if may_lower else score_adj(os.getpid()))
    assert ("is not protected from the OOM killer" in "".join(agent.said)) is not may_lower


def test_the_score_is_a_setting(run: Run) -> None:
    assert score_adj(run((), "--oom-score-adj", "300").pid) == 300


def test_a_child_gets_an_ordinary_score() -> None:
    code = """
        import subprocess
        from agent.protect import expose, protect
        print(protect(300))
        print(subprocess.run(["cat", "/proc/self/oom_score_adj"], capture_output=True, text=True).stdout.strip())
        print(subprocess.run(["cat", "/proc/self/oom_score_adj"], capture_output=True, text=True, preexec_fn=expose).stdout)
    """
    assert python(code).split() == ["[]", "300", "0"]
