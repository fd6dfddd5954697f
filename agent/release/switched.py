"""What a switch has done."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(slots=True)
class Switched:
    """What was done: `before` is the release that served, `ways` how each service changed, `notes` what to know of it.

    `absent` are the services that did not run when it was begun.
    """

    before: str | None
    release: str
    ways: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    absent: set[str] = field(default_factory=set)
    web_s: float = 0.0
    """After how long every service that answers requests ran the release."""

    @property
    def is_seen(self) -> bool:
        """Whether anything that runs the release was seen."""
        return any(way != "none" for way in self.ways.values())

    def gone(self, ran: Collection[str]) -> list[str]:
        """Those of the services which were seen before, `ran`, that are not seen now."""
        return [name for name, way in self.ways.items() if way == "none" and name in ran]
