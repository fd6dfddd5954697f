"""`./reflex up`, `status` and `down`: server and agent side by side on this host, kept running until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from kept import Kept, Show, stdout_show
from running import AlreadyRunning, Note, StateUnusable, find_running, hold, stop_running

ROOT = Path(__file__).resolve().parent.parent
READY_LINE = "reflex-server: ready on "
EXIT_OK, EXIT_USAGE, EXIT_MISSING, EXIT_FAILED, EXIT_PORT_TAKEN = 0, 2, 3, 1, 5
SERVER_EXIT_PORT_TAKEN = 3
DETACHED_READY_WITHIN_S = 90.0


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code, as `./reflex help` explains it."""
    options = _parser().parse_args(argv)
    state = state_dir()
    try:
        if options.command == "status":
            return _status(state)
        if options.command == "down":
            return _down(state)
        if options.detach:
            return _detach(state, options)
        return asyncio.run(_up(state, options))
    except AlreadyRunning as running:
        print(f"Reflex runs already on {running.note.url} (pid {running.note.pid}); ./reflex down stops it.")
        return EXIT_OK
    except StateUnusable as error:
        print(f"reflex: {error}", file=sys.stderr)
        return EXIT_MISSING


def state_dir() -> Path:
    """Where timeline, keys and spool are kept: REFLEX_STATE, else the place that fits the user."""
    named = os.environ.get("REFLEX_STATE")
    if named:
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/reflex")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "reflex"


def host_name() -> str:
    """This host's name on the timeline, of the characters that the server takes."""
    name = os.environ.get("REFLEX_HOST") or socket.gethostname()
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip("._-")[:200] or "localhost"


async def _up(state: Path, options: argparse.Namespace) -> int:
    stop = _stop_signal()
    with hold(state) as note:
        address = _free_address(options.listen)
        if address is None:
            _say_port_taken(options.listen)
            return EXIT_PORT_TAKEN
        show = stdout_show()
        if not _have_host_key(state):
            return EXIT_FAILED
        server = Kept("server", server_argv(state, address), show, cwd=ROOT)
        agent: Kept | None = None
        try:
            ready = await _first(server.start(READY_LINE), stop)
            if ready is None:
                return await _server_did_not_start(server, options.listen, stop)
            url = ready.removeprefix(READY_LINE).strip()
            agent = Kept("agent", agent_argv(state, url), show, cwd=ROOT)
            agent.keep()
            note.write(Note(pid=os.getpid(), url=url))
            if not options.detached_child:
                _welcome(state, url, show)
                _open_page(url, wanted=not options.no_browser)
            await stop.wait()
            show("reflex", "stopping the agent, then the server")
        finally:
            if agent is not None:
                await agent.stop()
            await server.stop()
        show("reflex", "stopped")
    return EXIT_OK


def server_argv(state: Path, address: str) -> list[str]:
    """The command that runs the server."""
    argv = [sys.executable, "-m", "server", "run", "--listen", address, "--state", str(state / "server")]
    return [*argv, "--first-token-file", str(_token_file(state))]


def agent_argv(state: Path, url: str) -> list[str]:
    """The command that runs the agent."""
    argv = [sys.executable, "-m", "agent", "run", "--server-url", url, "--host", host_name()]
    return [*argv, "--host-key-file", str(_key_file(state)), "--state-dir", str(state / "agent")]


async def _first(line: asyncio.Task[str | None], stop: asyncio.Event) -> str | None:
    """The line, or None when it does not come or a stop is asked for first."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({line, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    return line.result() if line.done() else None


async def _server_did_not_start(server: Kept, listen: str, stop: asyncio.Event) -> int:
    if stop.is_set():
        return EXIT_OK
    if await server.ended() == SERVER_EXIT_PORT_TAKEN:
        _say_port_taken(listen)
        return EXIT_PORT_TAKEN
    print("reflex: the server did not start; its own words above say why", file=sys.stderr)
    return EXIT_FAILED


def _have_host_key(state: Path) -> bool:
    """Makes this host's key on the first run; whether there is one."""
    key = _key_file(state)
    if key.exists():
        return True
    command = [sys.executable, "-m", "server", "host-key", "add", host_name(), "--out", str(key)]
    made = subprocess.run([*command, "--state", str(state / "server")], cwd=ROOT, check=False)
    if made.returncode:
        print("reflex: no key could be made for this host; the line above says why", file=sys.stderr)
    return made.returncode == 0


def _welcome(state: Path, url: str, show: Show) -> None:
    """Says where the page is; the first time with the operator token, which is shown this once."""
    if os.geteuid() != 0:
        show(
            "reflex",
            "not root: the agent cannot hear the kernel. It sees no OOM kills, and deaths without their cause.",
        )
        show("reflex", "Server, page and API work; sudo ./reflex up has everything.")
    try:
        token = _token_file(state).read_text().strip()
    except FileNotFoundError:
        show("reflex", f"the page: {url}")
        return
    maker = ROOT / ".venv" / "bin" / "reflex-server"
    show("reflex", f"the page, already logged in: {url}/#token={token}")
    show("reflex", "This operator token is shown only now. A new one:")
    show("reflex", f"  {maker} operator-token new --state {state / 'server'}")
    _token_file(state).unlink()


def _open_page(url: str, *, wanted: bool) -> None:
    """Opens the page where a desktop is there, as the user who called sudo. The token is not passed: `ps` shows it."""
    opener = shutil.which("xdg-open")
    if not wanted or opener is None or not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return
    user = os.environ.get("SUDO_USER")
    argv = ["runuser", "-u", user, "--", opener, url] if user and os.geteuid() == 0 else [opener, url]
    quiet = subprocess.DEVNULL
    subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


def _detach(state: Path, options: argparse.Namespace) -> int:
    """Starts `up` in a session of its own and returns when the page answers."""
    running = find_running(state)
    if running is not None:
        raise AlreadyRunning(running)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = state / "up.log"
    argv = [sys.executable, __file__, "up", "--detached-child", "--no-browser", "--listen", options.listen]
    with log.open("wb") as output:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd=ROOT
        )
    deadline = time.monotonic() + DETACHED_READY_WITHIN_S
    while time.monotonic() < deadline:
        note = find_running(state)
        if note is not None and note.url:
            _welcome(state, note.url, stdout_show())
            print(f"Reflex runs in the background; its log is {log}, ./reflex down stops it.")
            return EXIT_OK
        if child.poll() is not None:
            sys.stderr.write(log.read_text(errors="replace"))
            return child.returncode
        time.sleep(0.1)
    child.terminate()
    print(f"reflex: the server is not ready after {DETACHED_READY_WITHIN_S:g} s; see {log}", file=sys.stderr)
    return EXIT_FAILED


def _status(state: Path) -> int:
    note = find_running(state)
    if note is None:
        print(f"Reflex does not run here (state: {state}).")
        return EXIT_FAILED
    print(f"Reflex runs on {note.url or 'an address that it is just choosing'} (pid {note.pid}, state: {state}).")
    return EXIT_OK


def _down(state: Path) -> int:
    note = find_running(state)
    if note is None:
        print(f"Reflex does not run here (state: {state}); nothing to stop.")
        return EXIT_OK
    if not stop_running(state, note):
        print(f"reflex: pid {note.pid} was told to stop and has not ended yet", file=sys.stderr)
        return EXIT_FAILED
    print("Reflex has stopped.")
    return EXIT_OK


def _free_address(listen: str) -> str | None:
    """`listen` if it is free, with port 0 made a real one, so that a restarted server has the same; else None."""
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host.strip("[]"), int(port)), family=family) as probe:
            return f"{host}:{probe.getsockname()[1]}"
    except OSError:
        return None


def _say_port_taken(listen: str) -> None:
    host, _, port = listen.rpartition(":")
    print(
        f"reflex: another program listens on {listen}; stop it, or choose another port: "
        f"./reflex up --listen {host}:{(int(port) + 1) % 65536}",
        file=sys.stderr,
    )


def _token_file(state: Path) -> Path:
    return state / "first-token"


def _key_file(state: Path) -> Path:
    return state / "host-key"


def _stop_signal() -> asyncio.Event:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return stop


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no ADDRESS:PORT, for example 127.0.0.1:8765")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./reflex", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up")
    listen = os.environ.get("REFLEX_SERVER_LISTEN") or "127.0.0.1:8765"
    up.add_argument("--listen", type=_address, default=listen, metavar="ADDRESS:PORT")
    up.add_argument("--detach", action="store_true")
    up.add_argument("--no-browser", action="store_true")
    up.add_argument("--detached-child", action="store_true", help=argparse.SUPPRESS)
    commands.add_parser("status")
    commands.add_parser("down")
    return parser


if __name__ == "__main__":
    sys.exit(main())
