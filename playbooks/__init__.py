"""The brain: playbooks that decide within limits. Pure: what happens comes in as values, what is to be done goes out."""

from __future__ import annotations

from playbooks.engine import step, unfinished
from playbooks.inputs import (
    Answer,
    Armed,
    Asked,
    Decided,
    Entry,
    Happened,
    Holds,
    Input,
    Known,
    Lend,
    Measured,
    Serve,
    Switched,
    Taken,
    Tick,
)
from playbooks.model import Playbook
from playbooks.problems import PlaybookError, Problem
from playbooks.reading import read_playbook
from playbooks.rows import changes, state_of
from playbooks.state import Members, Place, Run, State, Use

__all__ = [
    "Answer",
    "Armed",
    "Asked",
    "Decided",
    "Entry",
    "Happened",
    "Holds",
    "Input",
    "Known",
    "Lend",
    "Measured",
    "Members",
    "Place",
    "Playbook",
    "PlaybookError",
    "Problem",
    "Run",
    "Serve",
    "State",
    "Switched",
    "Taken",
    "Tick",
    "Use",
    "changes",
    "read_playbook",
    "state_from_json",
    "state_of",
    "state_to_json",
    "step",
    "unfinished",
]
