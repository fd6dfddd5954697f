"""The keeper, run for real: it outlives what hands over, and lets servers hand over that cannot do it themselves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.release.words import environment_file
from demo.stage import free_port

ROOT = Path(__file__).parents[2]
KEEPER = (sys.executable, "-I", str(ROOT / "agent" / "release" / "keep.py"))
SERVER = """
import os, signal, socket, sys, time
listener = socket.socket(fileno=3)
name = open("name").read() + os.environ.get("SAID", "")
def end(*_):
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGUSR1, lambda *_: os._exit(9))
print(name, os.getpid(), flush=True)
while True:
    client, _ = listener.accept()
    client.sendall(name.encode())
    client.close()
"""
"""Tells every client what it is called, by the file that is in its folder when it starts."""


def kept(*words: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """The keeper of a program; signals that a background run of the tests ignores are heard."""
    heard = ["env", "--default-signal=HUP,INT,QUIT,TERM"]
    return subprocess.Popen([*heard, *KEEPER, *options, "--", *words], stdout=subprocess.PIPE, text=True)


def test_a_keeper_outlives_the_program_that_hands_over() -> None:
    script = "sh -c 'echo second; sleep 0.3; echo done' & echo first; exit 0"
    process = kept("sh", "-c", script)
    output, _ = process.communicate(timeout=20)
    assert sorted(output.split()) == ["done", "first", "second"]
    assert process.returncode == 0


def test_a_keeper_ends_as_its_program_does() -> None:
    assert kept("sh", "-c", "exit 4").wait(20) == 4
    assert kept("sh", "-c", "kill -9 $$").wait(20) == 128 + signal.SIGKILL
    assert kept("/nobody/has/this").wait(20) == 127


def test_a_keeper_gives_the_variables_of_a_file(tmp_path: Path) -> None:
    variables = tmp_path / "environment"
    variables.write_text(environment_file({"A": "it's 1", "B": "two\nlines", "PATH": "/usr/bin:/bin"}))
    process = kept("sh", "-c", 'echo "$A $B"', options=("--environment", str(variables)))
    assert process.communicate(timeout=20)[0] == "it's 1 two\nlines\n"
    assert kept("true", options=("--environment", str(tmp_path / "none"))).wait(20) == 1
    variables.write_text("echo hello\n")
    assert kept("true", options=("--environment", str(variables))).wait(20) == 1


def test_a_keeper_starts_gunicorn_as_the_script_beside_its_python(tmp_path: Path) -> None:
    python, script = tmp_path / "python", tmp_path / "gunicorn"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    assert kept(str(python), "-m", "gunicorn", "a:b").communicate(timeout=20)[0] == "-m gunicorn a:b\n"
    script.touch()
    assert kept(str(python), "-m", "gunicorn", "a:b").communicate(timeout=20)[0] == f"{script} a:b\n"
    assert kept(str(python), "-m", "celery").communicate(timeout=20)[0] == "-m celery\n"


def test_signals_go_through_a_keeper() -> None:
    script = "trap 'echo hup' HUP; trap 'echo term; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    process = kept("sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.stdout.readline() == "hup\n"
    process.terminate()
    assert process.stdout.readline() == "term\n"
    assert process.wait(20) == 0


class Held:
    """A server behind a keeper that holds its socket; the link `current` says which release it is started from."""

    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder
        self.address = address
        for name in ("old", "new"):
            (folder / name).mkdir()
            (folder / name / "name").write_text(name)
        (folder / "environment").write_text("# what it is told\nSAID=' it'\\''s A'\n")
        (folder / "server.py").write_text(SERVER)
        (folder / "current").symlink_to("old")
        options = ("--listen", address, "--environment", str(folder / "environment"))
        self.process = subprocess.Popen(
            [*KEEPER, *options, "--", sys.executable, str(folder / "server.py")],
            cwd=folder / "current",
            env={**os.environ, "PWD": str(folder / "current")},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.first = self.begun()[1]

    def begun(self) -> tuple[str, int]:
        """What the next server that starts is called, and its pid."""
        assert self.process.stdout is not None
        name, _, pid = self.process.stdout.readline().rstrip("\n").rpartition(" ")
        return name, int(pid)

    def turn_to(self, name: str, said: str) -> tuple[str, int]:
        """Begins a second server, of another release and with other variables."""
        (self._folder / "next").symlink_to(name)
        (self._folder / "next").rename(self._folder / "current")
        (self._folder / "environment").write_text(f"SAID=' {said}'\n")
        self.process.send_signal(signal.SIGUSR2)
        return self.begun()

    def ask(self) -> str:
        """The answer to a client that comes now."""
        with socket.socket(socket.AF_UNIX if self.address.startswith("/") else socket.AF_INET) as client:
            host, _, port = self.address.rpartition(":")
            client.connect(self.address if self.address.startswith("/") else (host, int(port)))
            client.settimeout(20)
            return client.recv(100).decode()

    def ask_or_not(self) -> str:
        """The same of a client that may come to a server which has just died."""
        with suppress(OSError):
            return self.ask()
        return ""

    def end(self) -> int:
        """The keeper's exit code after TERM."""
        self.process.terminate()
        return self.process.wait(20)


@pytest.fixture(params=["tcp", "unix"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Held]:
    made = Held(tmp_path, f"127.0.0.1:{free_port()}" if request.param == "tcp" else str(tmp_path / "sock"))
    yield made
    made.process.kill()
    made.process.wait()


def until(is_true: Callable[[], object]) -> None:
    ends_s = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < ends_s
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_clients_are_led_to_another_release_at_one_moment(held: Held) -> None:
    assert {held.ask() for _ in range(20)} == {"old it's A"}
    assert held.turn_to("new", "B")[0] == "new B"
    assert {held.ask() for _ in range(50)} == {"old it's A"}
    held.process.send_signal(signal.SIGWINCH)
    until(lambda: held.ask() == "new B")
    assert {held.ask() for _ in range(50)} == {"new B"}
    until(lambda: is_gone(held.first))
    assert {held.ask() for _ in range(50)} == {"new B"}
    name, third = held.turn_to("old", "C")
    held.process.send_signal(signal.SIGWINCH)
    until(lambda: held.ask() == "old C")
    assert (name, is_gone(third)) == ("old C", False)
    assert held.end() == 0


def test_a_server_that_comes_to_nothing_changes_nothing(held: Held) -> None:
    _, second = held.turn_to("new", "B")
    os.kill(second, signal.SIGKILL)
    until(lambda: is_gone(second))
    held.process.send_signal(signal.SIGWINCH)
    assert {held.ask() for _ in range(20)} == {"old it's A"}
    assert held.end() == 0


def test_a_second_wish_replaces_the_one_that_has_not_taken_over(held: Held) -> None:
    _, second = held.turn_to("new", "B")
    name, third = held.turn_to("new", "C")
    assert (name, is_gone(second), third != second) == ("new C", True, True)
    assert held.ask() == "old it's A"
    held.process.send_signal(signal.SIGWINCH)
    until(lambda: held.ask() == "new C")
    assert held.end() == 0


def test_the_next_one_serves_when_the_one_that_served_dies(held: Held) -> None:
    held.turn_to("new", "B")
    os.kill(held.first, signal.SIGKILL)
    until(lambda: is_gone(held.first))
    until(lambda: held.ask_or_not() == "new B")
    assert held.end() == 0


def test_a_keeper_ends_with_the_one_that_serves(held: Held) -> None:
    held.process.send_signal(signal.SIGUSR1)
    assert held.process.wait(20) == 9


@pytest.mark.parametrize("words", [(), ("--",), ("--listen",), ("--listen", "127.0.0.1:0"), ("--nobody", "x")])
def test_a_command_line_that_is_none_is_told(words: tuple[str, ...]) -> None:
    done = subprocess.run([*KEEPER, *words], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stderr[:20]) == (1, "usage: reflex-keep [")


def test_an_address_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        words = [*KEEPER, "--listen", address, "--", "true"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stderr) == (1, f"reflex-keep: cannot listen on {address}: Address already in use\n")
