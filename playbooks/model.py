"""What a playbook is: plain values that the engine reads. Spans are in us."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from agent.wire import Scalar
from playbooks.expressions import Expression, Template
from playbooks.windows import Window

Mode = Literal["off", "shadow", "armed"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""`shadow`: it says what it would do. `armed`: it does it."""

Place = Literal["server", "host"]
PLACES: tuple[Place, ...] = get_args(Place)
"""`host`: it may run on the host by itself while the server is out of reach."""

Of = Literal["service", "host"]
TARGETS: tuple[Of, ...] = get_args(Of)
"""What a run is about; of each there is at most one run at a time."""

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US


@dataclass(frozen=True, slots=True)
class OnEvent:
    """An event of this kind, if `where` holds of it, or so many of them within a time."""

    kind: str
    where: Expression | None = None
    times: int = 1
    within_us: int = 0


@dataclass(frozen=True, slots=True)
class OnSample:
    """A metric that stays above or below a bound for as long as `hold_us`. A gap of samples begins anew."""

    metric: str
    above: float | None
    below: float | None
    hold_us: int

    def is_beyond(self, value: float) -> bool:
        """Whether the value is on the wrong side."""
        return (self.above is not None and value > self.above) or (self.below is not None and value < self.below)


Trigger: TypeAlias = OnEvent | OnSample


@dataclass(frozen=True, slots=True)
class Retry:
    """How often an act that failed is tried again, and after which pause. One whose outcome is not known never is."""

    times: int = 0
    pause_us: int = 10 * SECOND_US


@dataclass(frozen=True, slots=True)
class Act:
    """One act. `each`: once for every worker that the service has then. `params` are texts where they have expressions."""

    id: str
    action: str
    params: Mapping[str, Scalar | Template] = field(default_factory=dict)
    when: Expression | None = None
    each: bool = False
    timeout_us: int = MINUTE_US
    retry: Retry = field(default_factory=Retry)


@dataclass(frozen=True, slots=True)
class Together:
    """Acts that are begun at once; the step is done when all are."""

    id: str
    acts: tuple[Act, ...]


Step: TypeAlias = Act | Together


def acts_of(step: Step) -> tuple[Act, ...]:
    """The acts of a step."""
    return step.acts if isinstance(step, Together) else (step,)


@dataclass(frozen=True, slots=True)
class Expect:
    """An event that must come, or must not come, about the run's target."""

    kind: str
    where: Expression | None = None
    never: bool = False


@dataclass(frozen=True, slots=True)
class Verify:
    """What must be true within a time after the last act."""

    within_us: int
    expects: tuple[Expect, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """How often a playbook may act. A run that never acted uses nothing up."""

    cooldown_us: int = 10 * MINUTE_US
    per_hour: int = 3
    fleet_per_hour: int = 10


@dataclass(frozen=True, slots=True)
class Recurring:
    """So many repairs of one target within this time are told: the repairs hide a fault."""

    times: int = 3
    within_us: int = 6 * HOUR_US


@dataclass(frozen=True, slots=True)
class Playbook:
    """One playbook. Of two that want the same target, the one with the higher `priority` gets it.

    `digest` stands for its text: a run ends when the text changes under it.
    """

    name: str
    title: str
    on: tuple[Trigger, ...]
    steps: tuple[Step, ...]
    condition: Expression | None = None
    target: Of = "service"
    verify: Verify | None = None
    otherwise: tuple[Step, ...] = ()
    limits: Limits = field(default_factory=Limits)
    recurring: Recurring = field(default_factory=Recurring)
    priority: int = 50
    approval_us: int | None = None
    windows: tuple[Window, ...] = ()
    mode: Mode = "shadow"
    runs_on: Place = "server"
    digest: str = ""
