"""The only place of the agent that starts programs and sends signals."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


class Child:
    """A program that the agent started for a task of its own; it never outlives the task."""

    def __init__(self, command: Sequence[str], *, inherit: Sequence[int] = ()) -> None:
        """Starts it with the descriptors `inherit` open and nothing else; raises OSError when it cannot be started."""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=inherit
        )
        self.pid = self._process.pid

    def let_go(self) -> None:
        """Closes its standard input, which a child that waits for it takes as the word to go on."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def wait(self, seconds: float) -> int | None:
        """Its exit code, negative for a signal; None when it is still there after that time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Kills it if it is still there, and takes its exit status."""
        self.let_go()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def answers(command: Sequence[str], seconds: float) -> bool:
    """Whether the program can be started and ends with exit code 0 within that time."""
    try:
        child = Child(command)
    except OSError:
        return False
    code = child.wait(seconds)
    child.end()
    return code == 0
