"""What can go wrong for an operator, and the exit code by which a script tells it apart.

CtlError                 one sentence for stderr
├── NothingFound    1    the question was fine, and nothing answers it
├── MistakesFound   1    a playbook cannot be used as it is
├── Misused         2    an option, an address or a file is not what it must be
├── ServerFailing   3    no answer, or none that can be used
├── NotAllowed      4    no token, or one that the server does not take
├── ActNotDone      5    a host refused an act or could not finish it, or a playbook may not run now
└── ReaderGone      0    nobody reads stdout any more (`| head`); nothing is said about it
"""

from __future__ import annotations

HOW_TO_GET_A_TOKEN = (
    "make one on the server's machine with: reflex-server operator-token new; then run: reflexctl login"
)


class CtlError(Exception):
    """Base of everything that reflexctl raises on purpose."""

    exit_code = 3


class NothingFound(CtlError):
    """The server answered, and there is nothing to show."""

    exit_code = 1


class Misused(CtlError):
    """The operator has to write something differently."""

    exit_code = 2


class ServerFailing(CtlError):
    """The server cannot be reached or did not do its part. `retry_after_s` is what it asked for, in seconds."""

    exit_code = 3

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotAllowed(CtlError):
    """There is no token, or the server does not take it."""

    exit_code = 4


class MistakesFound(CtlError):
    """A playbook cannot be used as it is."""

    exit_code = 1


class ActNotDone(CtlError):
    """A host refused an act, or could not finish it."""

    exit_code = 5


class ReaderGone(CtlError):
    """Who read our output has closed it."""

    exit_code = 0
