"""Runs one command of reflexctl and turns its outcome into an exit code."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from ctl.commandline import read_arguments
from ctl.errors import CtlError, Misused, ReaderGone
from ctl.screen import note, screen_of_stdout

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code (docs/reflexctl.md)."""
    if sys.stdout is None:
        note("stdout is closed, so there is nowhere to answer")
        return Misused.exit_code
    options = read_arguments(sys.argv[1:] if argv is None else argv)
    try:
        _run(options)
    except ReaderGone as gone:
        _drop_stdout()
        return gone.exit_code
    except CtlError as error:
        note(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _run(options: argparse.Namespace) -> None:
    """Imports what talks HTTP here, so that --help and wrong usage answer at once; raises CtlError."""
    from ctl import login
    from ctl.ask import ask

    if options.command == "login":
        login.log_in(options.url, options.token_file, insecure=options.insecure)
    elif options.command == "logout":
        login.log_out()
    else:
        asyncio.run(ask(options, screen_of_stdout()))


def _drop_stdout() -> None:
    """Lets the interpreter's own flush at exit go nowhere instead of into a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
