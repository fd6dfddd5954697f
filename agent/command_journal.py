"""Which commands were begun: on the disk before anything is done, so that no end of the agent makes one happen twice."""

from __future__ import annotations

import os
from pathlib import Path

import orjson

from agent.wire import Command, WireError, command_from_json, command_to_json

MOST_IDS = 10_000
MOST_LINES = 20_000
KEPT_US = 3_600_000_000
"""How long an id is kept after its command expired, so that a clock that is set back by less makes none valid again."""


class Journal:
    """The file `commands.jsonl` of a state directory. A line that was cut off was never acted upon."""

    def __init__(self, path: Path, now_us: int) -> None:
        """Reads what is there and writes it anew without what is forgotten; raises OSError."""
        self._path = path
        self._until_us: dict[str, int] = {}
        begun = self._read()
        self.cut = tuple(begun.values())
        """Commands that were begun and of whose end nothing is known, oldest first."""

        self._compact(now_us)

    def __contains__(self, command_id: object) -> bool:
        return command_id in self._until_us

    def has_room(self, now_us: int) -> bool:
        """Whether one more id can be kept; what is forgotten by then makes room."""
        if len(self._until_us) >= MOST_IDS:
            self._forget(now_us)
        return len(self._until_us) < MOST_IDS

    def reserve(self, command: Command) -> None:
        """From now on the id is known; `begin` must follow before anything is done."""
        self._until_us[command.id] = command.expires_us + KEPT_US

    def begin(self, command: Command) -> None:
        """Returns when the id is on the disk; raises OSError."""
        self._write({"begun": command_to_json(command)}, durable=True)

    def end(self, command: Command, now_us: int) -> None:
        """The command's outcome is told."""
        self._write({"ended": command.id, "until_us": self._until_us[command.id]}, durable=False)
        if self._lines > MOST_LINES:
            self._forget(now_us)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def _read(self) -> dict[str, Command]:
        begun: dict[str, Command] = {}
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return {}
        for line in lines:
            try:
                value = orjson.loads(line)
                if "begun" in value:
                    command = command_from_json(value["begun"])
                    begun[command.id] = command
                    self._until_us[command.id] = command.expires_us + KEPT_US
                else:
                    begun.pop(str(value["ended"]), None)
                    self._until_us[str(value["ended"])] = int(value["until_us"])
            except (ValueError, KeyError, TypeError, WireError):
                continue
        return begun

    def _forget(self, now_us: int) -> None:
        os.close(self._file)
        self._compact(now_us)

    def _compact(self, now_us: int) -> None:
        self._until_us = {id_: until for id_, until in self._until_us.items() if until > now_us}
        fresh = self._path.with_suffix(".new")
        lines = [orjson.dumps({"ended": id_, "until_us": until}) + b"\n" for id_, until in self._until_us.items()]
        with fresh.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        self._lines = len(lines)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)

    def _write(self, value: object, *, durable: bool) -> None:
        os.write(self._file, orjson.dumps(value) + b"\n")
        self._lines += 1
        if durable:
            os.fsync(self._file)
