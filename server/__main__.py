"""The command line: `reflex-server run`, and the keys and tokens that agents and people need."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path

from server.errors import SomethingMissing, StartError, StoreError
from server.settings import Settings

_ABOUT = """\
reflex-server keeps the timeline of your hosts, shows it on a page, and answers agents and scripts (docs/api.md).

  reflex-server                                start; the first start prints an operator token, once
  reflex-server host-key add web-3             make the key that the agent on web-3 needs
  reflex-server host-key list                  which hosts have keys
  reflex-server operator-token new             another token for people and scripts
"""
_EXITS = """\
exit codes: 0 ended in good order, 2 wrong usage, 3 the port is taken, 4 the state directory cannot be used or its disk
is full, 5 the store cannot start, 6 something is missing. The reason is one sentence on stderr.
"""
_COMMANDS = ("run", "host-key", "operator-token")
_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not {"-h", "--help", *_COMMANDS} & set(given):
        given = ["run", *given]
    options = _parser().parse_args(given)
    try:
        return _dispatch(options)
    except StartError as error:
        print(f"reflex-server: {error}", file=sys.stderr)
        return error.exit_code
    except StoreError as error:
        print(f"reflex-server: {error}", file=sys.stderr)
        return 4


def _dispatch(options: argparse.Namespace) -> int:
    try:
        from server import keys
        from server.process import run
    except ImportError as error:
        raise SomethingMissing(f"a Python package is missing ({error}); run: pip install 'reflexd[server]'") from error
    if options.command == "host-key":
        return keys.host_key(options)
    if options.command == "operator-token":
        return keys.operator_token(options)
    settings = Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)})
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if settings.log_level != "debug":
        logging.getLogger("chdb").setLevel(logging.WARNING)
    asyncio.run(run(settings))
    return 0


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("reflex-server", description=_ABOUT, epilog=_EXITS, formatter_class=shape)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    run = commands.add_parser(
        "run",
        help="start the server (the default command)",
        epilog="Each option is also an environment variable: --log-level is REFLEX_SERVER_LOG_LEVEL.",
    )
    for field in fields(Settings):
        _add_setting(run, field)
    state = argparse.ArgumentParser(add_help=False)
    _add_setting(state, next(field for field in fields(Settings) if field.name == "state"))

    host_key = commands.add_parser("host-key", help="the keys by which agents are known")
    acts = host_key.add_subparsers(dest="act", required=True, metavar="act")
    add = acts.add_parser("add", parents=[state], help="make a key for a host; it is shown once and stored as a hash")
    add.add_argument("name", type=_host_name, help="the host's name on the timeline")
    add.add_argument("--out", type=Path, metavar="FILE", help="write the key to FILE (mode 0600), show nothing")
    acts.add_parser("list", parents=[state], help="all keys, without their secrets")
    revoke = acts.add_parser("revoke", parents=[state], help="make all keys of a host invalid within seconds")
    revoke.add_argument("name", type=_host_name)

    token = commands.add_parser("operator-token", help="the tokens with which people and scripts log in")
    acts = token.add_subparsers(dest="act", required=True, metavar="act")
    new = acts.add_parser("new", parents=[state], help="make a token; it is shown once, older ones stay valid")
    new.add_argument("--out", type=Path, metavar="FILE", help="write the token to FILE (mode 0600), show nothing")
    acts.add_parser("list", parents=[state], help="all tokens, without their secrets")
    revoke = acts.add_parser("revoke", parents=[state], help="make a token and its log-ins invalid within seconds")
    revoke.add_argument("id", type=int, help="the number that `list` shows")
    return parser


def _add_setting(parser: argparse.ArgumentParser, field: Field[object]) -> None:
    """One option whose type, default and help come from the setting; the environment replaces the default."""
    option = "--" + field.name.replace("_", "-")
    default = os.environ.get("REFLEX_SERVER_" + field.name.upper(), field.default)
    assert default is not MISSING
    kinds: Mapping[str, Callable[[str], object]] = {
        "Path": Path,
        "Path | None": Path,
        "float": _positive,
        "int": _whole,
        "str": str,
    }
    special: Mapping[str, Callable[[str], object]] = {"listen": _address, "log_level": _log_level}
    kind = special.get(field.name) or kinds[str(field.type)]
    shown = "" if default in (None, "") else f" (default: {default})"
    parser.add_argument(
        option, type=kind, default=default, metavar=field.name.upper(), help=field.metadata["doc"] + shown
    )


def _address(text: str) -> str:
    _host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no ADDRESS:PORT, for example 127.0.0.1:8765")
    return text


def _log_level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise argparse.ArgumentTypeError(f"{text!r} is none of debug, info, warning, error")
    return text.lower()


def _positive(text: str) -> float:
    if not (value := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be more than 0")
    return value


def _whole(text: str) -> int:
    if (value := int(text)) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} must be more than 0")
    return value


def _host_name(text: str) -> str:
    if not _HOST_NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no host name: letters, digits, dots, dashes and underscores only"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
