"""The brain: playbooks that decide within limits. Pure: what happens comes in as values, what is to be done goes out."""

from __future__ import annotations

from playbooks.engine import step, unfinished
from playbooks.inputs import (
    Answer,
    Armed,
    Decided,
    Entry,
    Happened,
    Input,
    Measured,
    Serve,
    Switched,
    Tick,
    Workers,
)
from playbooks.model import Playbook
from playbooks.problems import PlaybookError, Problem
from playbooks.reading import read_playbook
from playbooks.state import Place, Run, State, Use, state_from_json, state_to_json

__all__ = [
    "Answer",
    "Armed",
    "Decided",
    "Entry",
    "Happened",
    "Input",
    "Measured",
    "Place",
    "Playbook",
    "PlaybookError",
    "Problem",
    "Run",
    "Serve",
    "State",
    "Switched",
    "Tick",
    "Use",
    "Workers",
    "read_playbook",
    "state_from_json",
    "state_to_json",
    "step",
    "unfinished",
]
