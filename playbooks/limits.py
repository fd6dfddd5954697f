"""Whether a playbook may run now: what its limits, its windows and other runs say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from playbooks.durations import duration_text
from playbooks.model import HOUR_US, Playbook
from playbooks.state import Place, Run, Use

Reason = Literal["killed", "window", "conflict", "cooldown", "per_hour", "fleet_per_hour", "full", "late", "lent"]


@dataclass(frozen=True, slots=True)
class Held:
    """Why a playbook may not run now; `text` ends a sentence that begins with its name."""

    reason: Reason
    text: str


def held_by_limits(
    playbook: Playbook,
    place: Place,
    uses: Sequence[Use],
    active: Iterable[Run],
    now_us: int,
    *,
    fleet: int,
    is_shadow: bool,
) -> Held | None:
    """What its limits say; `fleet` is what may be used of the fleet's here.

    A run that is on its way and has not acted yet counts as if it had.
    """
    mine = [use for use in uses if use.playbook == playbook.name and use.is_shadow == is_shadow]
    pending = [run for run in active if run.playbook == playbook.name and not run.acted]
    limits = playbook.limits
    here = [use.at_us for use in mine if use.place == place]
    if here and now_us - max(here) < limits.cooldown_us:
        left = duration_text(limits.cooldown_us)
        return Held("cooldown", f"it acted on {place} less than {left} ago, which is its cooldown")
    last_hour = [use for use in mine if now_us - use.at_us < HOUR_US]
    of_place = sum(use.place == place for use in last_hour) + sum(run.place == place for run in pending)
    if of_place >= limits.per_hour:
        return Held("per_hour", f"it has acted {of_place} times on {place} within an hour, as often as it may")
    number = len(last_hour) + len(pending)
    if number >= (limits.fleet_per_hour if is_shadow else fleet):
        text = f"it has acted {number} times on all hosts within an hour, as often as it may"
        if fleet < limits.fleet_per_hour and not is_shadow:
            text = f"{text} (the rest of {limits.fleet_per_hour} is for hosts that run it by themselves)"
        return Held("fleet_per_hour", text)
    return None


def held_by_window(playbook: Playbook, now_us: int) -> Held | None:
    """Whether none of its windows is open."""
    if not playbook.windows or any(window.is_open(now_us) for window in playbook.windows):
        return None
    return Held("window", "it is outside of the times at which it may act")


def is_recurring(playbook: Playbook, place: Place, uses: Sequence[Use], now_us: int) -> int:
    """How often it has repaired this target within `recurring.within`; 0 while that is not worth telling."""
    within = [
        use
        for use in uses
        if (use.playbook, use.place, use.is_shadow) == (playbook.name, place, False)
        and now_us - use.at_us < playbook.recurring.within_us
    ]
    return len(within) if len(within) >= playbook.recurring.times else 0


def still_counted(uses: Iterable[Use], playbooks: Iterable[Playbook], now_us: int) -> tuple[Use, ...]:
    """Uses that some limit may still ask for."""
    longest = {one.name: max(HOUR_US, one.limits.cooldown_us, one.recurring.within_us) for one in playbooks}
    return tuple(use for use in uses if now_us - use.at_us < longest.get(use.playbook, HOUR_US))
