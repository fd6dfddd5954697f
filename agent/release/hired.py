"""Asks the runner to run programs as the users of apps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from agent.procfs import short_path

MOST_TOLD_BYTES = 256 * 1024
LAST_LINES = 20
CONNECT_S = 5.0
LATE_S = 15.0
"""How much later than a job's own end the runner may answer."""


class RunnerTrouble(Exception):
    """The runner cannot be asked, or refuses; the text ends a sentence."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended; `code` is None when it took too long and was ended. `last` are its last lines."""

    code: int | None
    last: tuple[str, ...]


class Runner:
    """The runner at one socket, for one app. Cancelling a call ends its program."""

    def __init__(self, path: Path, app: str, *, clean: Callable[[str], str] = lambda line: line) -> None:
        """`clean` takes secrets out of each line before anybody has it: whoever cuts a line must not cut a secret."""
        self._path = path
        self._app = app
        self._clean = clean

    async def run(
        self,
        argv: Sequence[str],
        folder: str,
        environment: Mapping[str, str],
        *,
        seconds: float,
        given: str = "",
        is_modest: bool = True,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> Done:
        """Runs a program to its end; raises RunnerTrouble when it cannot be begun."""
        last: list[str] = []

        def hear(line: str) -> None:
            line = self._clean(line)
            last.append(line)
            del last[:-LAST_LINES]
            on_line(line)

        job = {"argv": list(argv), "folder": folder, "environment": dict(environment), "seconds": seconds}
        answer = await self._ask({**job, "given": given, "is_modest": is_modest}, seconds, hear)
        return Done(answer["code"], tuple(last))

    async def begin(self, argv: Sequence[str], folder: str, environment: Mapping[str, str], *, log: str) -> int:
        """Begins a program that goes on by itself; its pid. Raises RunnerTrouble."""
        job = {"argv": list(argv), "folder": folder, "environment": dict(environment), "log": log}
        return int((await self._ask(job, CONNECT_S, lambda line: None))["pid"])

    async def make_folder(self) -> None:
        """Makes the app's own folder if it is not there; raises RunnerTrouble."""
        await self._ask({"makes_folder": True}, CONNECT_S, lambda line: None)

    async def _ask(self, job: Mapping[str, Any], seconds: float, hear: Callable[[str], None]) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(CONNECT_S):
                with short_path(self._path.parent) as folder:
                    path = str(folder / self._path.name)
                    reader, writer = await asyncio.open_unix_connection(path, limit=MOST_TOLD_BYTES)
        except (OSError, TimeoutError) as error:
            why = getattr(error, "strerror", None) or "it does not answer"
            raise RunnerTrouble(
                f"the runner of this host, which runs builds, cannot be asked at {self._path}: {why}; an agent that was "
                "started before its policy named an app has none: restart it (docs/deploys.md)"
            ) from None
        try:
            writer.write(orjson.dumps({**job, "app": self._app}) + b"\n")
            await writer.drain()
            async with asyncio.timeout(seconds + LATE_S):
                return await _answer(reader, hear)
        except (OSError, TimeoutError, ValueError) as error:
            raise RunnerTrouble(f"the runner of this host ended in the middle of it: {error!r:.100}") from None
        finally:
            writer.close()


async def _answer(reader: asyncio.StreamReader, hear: Callable[[str], None]) -> Mapping[str, Any]:
    while raw := await reader.readline():
        said = json.loads(raw)
        if "line" in said:
            hear(str(said["line"]))
        elif "trouble" in said:
            raise RunnerTrouble(str(said["trouble"]))
        else:
            return dict(said)
    raise RunnerTrouble("the runner of this host ended in the middle of it")
