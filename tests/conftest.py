"""What holds for every test: Ctrl-C reaches the programs that tests start, also where the run itself is in the background."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A shell lets what it starts in the background ignore SIGINT, and what that starts inherits it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
