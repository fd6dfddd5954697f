"""The control plane's rows: keys, tokens, sessions, what is known of each host. SQLAlchemy Core on SQLite.

Calls block for a disk sync; callers on the event loop use `asyncio.to_thread`. Secrets come in as hashes only.
Every call raises StoreError when the file cannot be read or written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as upsert

from server.errors import StateUnusable, StoreError

VERSION = 1
"""Version of the tables below; a file with another one is refused."""

_METADATA = sa.MetaData()

_VERSION = sa.Table("version", _METADATA, sa.Column("number", sa.Integer, nullable=False))

HOST_KEYS = sa.Table(
    "host_keys",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("host", sa.Text, nullable=False, index=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    sa.Column("revoked_us", sa.BigInteger),
)

OPERATOR_TOKENS = sa.Table(
    "operator_tokens",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    sa.Column("revoked_us", sa.BigInteger),
)

_SESSIONS = sa.Table(
    "sessions",
    _METADATA,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("token_id", sa.ForeignKey("operator_tokens.id"), nullable=False),
    sa.Column("expires_us", sa.BigInteger, nullable=False),
)

_HOSTS = sa.Table(
    "hosts",
    _METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("last_seen_us", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("silent_event", sa.Text),
    sa.Column("stopped_event", sa.Text),
)

_OUTBOX = sa.Table(
    "outbox",
    _METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
)


def _parts(name: str) -> sa.Table:
    """A table of JSON values by part and key."""
    return sa.Table(
        name,
        _METADATA,
        sa.Column("part", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


_BRAIN = _parts("brain")
_PIPELINE = _parts("pipeline")


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One host key or operator token; `host` is empty for a token."""

    id: int
    host: str
    created_us: int
    revoked_us: int | None


@dataclass(frozen=True, slots=True)
class HostRow:
    """What is known of a host. `status` is JSON; `silent_event` and `stopped_event` are ids of its last such event."""

    name: str
    last_seen_us: int
    status: str
    silent_event: str | None
    stopped_event: str | None


@dataclass(frozen=True, slots=True)
class PartRow:
    """A part of what the brain or the pipeline remembers; `value` is JSON, None where the row is to go."""

    part: str
    key: str
    value: str | None


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An event that the server itself made and that is not in the store for certain; `event` is JSON."""

    id: str
    host: str
    event: str


class State:
    """The rows of one state file. Two processes may use it at once (the server, and a command beside it)."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file. Raises StateUnusable."""
        self._engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), connect_args={"timeout": 10})
        sa.event.listen(self._engine, "connect", _configure)
        try:
            path.touch(mode=0o600)
            with self._engine.begin() as connection:
                _METADATA.create_all(connection)
                version = connection.scalar(sa.select(_VERSION.c.number))
                if version is None:
                    connection.execute(_VERSION.insert().values(number=VERSION))
        except (sa.exc.DatabaseError, OSError) as error:
            raise StateUnusable(
                f"the state file {path} cannot be used ({error}); check its rights and the disk"
            ) from None
        if version not in (None, VERSION):
            raise StateUnusable(f"the state file {path} has version {version}, this Reflex reads {VERSION}; upgrade it")

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """All or nothing. Raises StoreError when the file cannot be read or written."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.DatabaseError as error:
            raise StoreError(f"the state file {self._engine.url.database} does not answer: {error.orig}") from error

    def add_key(self, table: sa.Table, **values: Any) -> int:
        """Adds a row of HOST_KEYS or OPERATOR_TOKENS; its id."""
        with self._transaction() as connection:
            return int(connection.execute(table.insert().values(**values).returning(table.c.id)).scalar_one())

    def keys(self, table: sa.Table) -> list[KeyRow]:
        """All rows of HOST_KEYS or OPERATOR_TOKENS, oldest first."""
        host = table.c.host if "host" in table.c else sa.literal("")
        question = sa.select(table.c.id, host, table.c.created_us, table.c.revoked_us).order_by(table.c.id)
        with self._transaction() as connection:
            return [KeyRow(*row) for row in connection.execute(question)]

    def revoke(self, table: sa.Table, condition: sa.ColumnElement[bool], *, now_us: int) -> int:
        """Revokes the rows that fit and are not revoked; how many."""
        change = table.update().where(condition, table.c.revoked_us.is_(None)).values(revoked_us=now_us)
        with self._transaction() as connection:
            return connection.execute(change).rowcount

    def host_of_key(self, hash_: str) -> str | None:
        """The host whose valid key has this hash."""
        question = sa.select(HOST_KEYS.c.host).where(HOST_KEYS.c.hash == hash_, HOST_KEYS.c.revoked_us.is_(None))
        with self._transaction() as connection:
            return connection.scalar(question)

    def operator_of_token(self, hash_: str) -> int | None:
        """The id of the valid operator token with this hash."""
        question = sa.select(OPERATOR_TOKENS.c.id).where(
            OPERATOR_TOKENS.c.hash == hash_, OPERATOR_TOKENS.c.revoked_us.is_(None)
        )
        with self._transaction() as connection:
            return connection.scalar(question)

    def operator_of_session(self, hash_: str, *, now_us: int) -> int | None:
        """The id of the operator token behind a session that has not expired and whose token is valid."""
        question = (
            sa.select(_SESSIONS.c.token_id)
            .join(OPERATOR_TOKENS)
            .where(_SESSIONS.c.hash == hash_, _SESSIONS.c.expires_us > now_us, OPERATOR_TOKENS.c.revoked_us.is_(None))
        )
        with self._transaction() as connection:
            return connection.scalar(question)

    def add_session(self, hash_: str, token_id: int, *, expires_us: int, now_us: int) -> None:
        """Adds a session and sweeps those that have expired."""
        with self._transaction() as connection:
            connection.execute(_SESSIONS.delete().where(_SESSIONS.c.expires_us <= now_us))
            connection.execute(_SESSIONS.insert().values(hash=hash_, token_id=token_id, expires_us=expires_us))

    def end_session(self, hash_: str) -> None:
        """Forgets a session."""
        with self._transaction() as connection:
            connection.execute(_SESSIONS.delete().where(_SESSIONS.c.hash == hash_))

    def hosts(self) -> list[HostRow]:
        """All hosts that were ever heard."""
        with self._transaction() as connection:
            return [HostRow(*row) for row in connection.execute(sa.select(_HOSTS))]

    def save_hosts(self, hosts: Sequence[HostRow], outbox: Iterable[OutboxRow] = ()) -> None:
        """Writes hosts and, in the same transaction, the events that tell of their change."""
        with self._transaction() as connection:
            for host in hosts:
                values = {column.name: getattr(host, column.name) for column in _HOSTS.c}
                change = upsert(_HOSTS).values(values).on_conflict_do_update(index_elements=["name"], set_=values)
                connection.execute(change)
            _put_out(connection, outbox)

    def brain(self) -> list[PartRow]:
        """All that the brain wrote down."""
        return self._all_parts(_BRAIN)

    def save_brain(self, rows: Iterable[PartRow], outbox: Iterable[OutboxRow]) -> None:
        """Writes what has changed and, in the same transaction, the events that tell of it."""
        self._save_parts(_BRAIN, rows, outbox)

    def pipeline(self) -> list[PartRow]:
        """All that the pipeline wrote down."""
        return self._all_parts(_PIPELINE)

    def save_pipeline(self, rows: Iterable[PartRow], outbox: Iterable[OutboxRow] = ()) -> None:
        """Writes what has changed and, in the same transaction, the events that tell of it."""
        self._save_parts(_PIPELINE, rows, outbox)

    def _all_parts(self, table: sa.Table) -> list[PartRow]:
        with self._transaction() as connection:
            return [PartRow(*row) for row in connection.execute(sa.select(table))]

    def _save_parts(self, table: sa.Table, rows: Iterable[PartRow], outbox: Iterable[OutboxRow]) -> None:
        with self._transaction() as connection:
            for row in rows:
                if row.value is None:
                    connection.execute(table.delete().where(table.c.part == row.part, table.c.key == row.key))
                    continue
                change = upsert(table).values({"part": row.part, "key": row.key, "value": row.value})
                connection.execute(
                    change.on_conflict_do_update(index_elements=["part", "key"], set_={"value": row.value})
                )
            _put_out(connection, outbox)

    def outbox(self) -> list[OutboxRow]:
        """Events that may not be in the store yet."""
        with self._transaction() as connection:
            return [OutboxRow(*row) for row in connection.execute(sa.select(_OUTBOX))]

    def clear_outbox(self, ids: Sequence[str]) -> None:
        """Forgets events that are in the store."""
        with self._transaction() as connection:
            connection.execute(_OUTBOX.delete().where(_OUTBOX.c.id.in_(ids)))


def _put_out(connection: sa.Connection, outbox: Iterable[OutboxRow]) -> None:
    for row in outbox:
        connection.execute(_OUTBOX.insert().values(id=row.id, host=row.host, event=row.event))


def _configure(connection: Any, _record: object) -> None:
    """What was answered is on the disk; readers and the writer do not wait for each other."""
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
