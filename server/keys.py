"""The commands `host-key` and `operator-token`: they work beside a running server, through the same state file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import sqlalchemy as sa

from server.errors import SomethingMissing
from server.process import prepare_state, write_secret
from server.secret import SecretKind, hash_of, new_secret
from server.settings import Settings
from server.state import HOST_KEYS, OPERATOR_TOKENS, KeyRow, State
from server.stored import rfc3339


def host_key(options: argparse.Namespace) -> int:
    """`host-key add | list | revoke`; the exit code. Raises StartError."""
    state = _open(options.state)
    if options.act == "add":
        _hand_out(state, HOST_KEYS, "host", options.out, host=options.name)
    elif options.act == "list":
        _show(state.keys(HOST_KEYS))
    elif not state.revoke(HOST_KEYS, HOST_KEYS.c.host == options.name, now_us=_now_us()):
        raise SomethingMissing(f"host {options.name} has no valid key; see: reflex-server host-key list")
    return 0


def operator_token(options: argparse.Namespace) -> int:
    """`operator-token new | list | revoke`; the exit code. Raises StartError."""
    state = _open(options.state)
    if options.act == "new":
        _hand_out(state, OPERATOR_TOKENS, "op", options.out)
    elif options.act == "list":
        _show(state.keys(OPERATOR_TOKENS))
    elif not state.revoke(OPERATOR_TOKENS, OPERATOR_TOKENS.c.id == options.id, now_us=_now_us()):
        raise SomethingMissing(f"there is no valid operator token {options.id}; see: reflex-server operator-token list")
    return 0


def _open(directory: Path) -> State:
    prepare_state(directory)
    return State(Settings(state=directory).state_file)


def _hand_out(state: State, table: sa.Table, kind: SecretKind, out: Path | None, **values: str) -> None:
    """The secret alone goes to stdout, for scripts; words about it go to stderr."""
    secret = new_secret(kind)
    if out is not None:
        write_secret(out, secret)
    number = state.add_key(table, hash=hash_of(secret), created_us=_now_us(), **values)
    if out is None:
        print(secret)
        print(f"reflex-server: number {number}; keep it now, it cannot be shown again", file=sys.stderr)


def _show(rows: Iterable[KeyRow]) -> None:
    for row in rows:
        until = "valid" if row.revoked_us is None else f"revoked {rfc3339(row.revoked_us)}"
        print("\t".join(filter(None, (str(row.id), row.host, f"made {rfc3339(row.created_us)}", until))))


def _now_us() -> int:
    return time.time_ns() // 1000
