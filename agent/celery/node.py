"""A Celery service as it is followed: its broker, which node it is, and what that said last."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from agent.brokers.common import Address, Client, QueueLook
from agent.celery.queue_judges import Silence
from agent.celery.task_judges import Progress, Runs
from agent.celery.values import ActiveTask, NodeLook, NodeStats, TaskRules, node_of
from agent.service import Service

DEFAULT_QUEUE = "celery"
MISSES_TO_MOVE_ON = 3
"""So many searches in vain, and the node is looked for on the next address that may be its broker's."""

Ident = tuple[int, int]


@dataclass(slots=True)
class Watched:
    """A task that runs and is old enough to be watched closely."""

    progress: Progress = field(default_factory=Progress)
    told: str | None = None


@dataclass(frozen=True, slots=True)
class LastSeen:
    """A task that a process ran when the node was asked, at that Unix time."""

    task: ActiveTask
    at_s: float


@dataclass(slots=True)
class Node:
    """One master. `inner` has the pids by which its processes know themselves, by the host's pids.

    `last_on` has the last task that each process was seen running, by the pid that it knows, until it is seen without.
    """

    service: Service
    addresses: tuple[Address, ...]
    hosts: frozenset[str]
    inner: dict[int, int] = field(default_factory=dict)
    chosen: int = 0
    misses: int = 0
    stats: NodeStats | None = None
    rules: Mapping[str, TaskRules] | None = None
    active: tuple[ActiveTask, ...] | None = None
    reserved: tuple[ActiveTask, ...] = ()
    scheduled: int | None = None
    answered_s: float = 0.0
    last_on: dict[int, LastSeen] = field(default_factory=dict)
    answers: bool = False
    consumes: tuple[str, ...] | None = None
    consumed: frozenset[str] = frozenset()
    listed: tuple[str, ...] = ()
    asked_more_s: float = 0.0
    runs: Runs = field(default_factory=Runs)
    watched: dict[str, Watched] = field(default_factory=dict)
    silences: dict[str, Silence] = field(default_factory=dict)
    silent_events: dict[str, str] = field(default_factory=dict)

    @property
    def ident(self) -> Ident:
        """Its master, and never a successor of that."""
        return (self.service.master_pid, self.service.start_ticks)

    @property
    def address(self) -> Address:
        """Where its broker is, or may be."""
        return self.addresses[self.chosen]

    @property
    def name(self) -> str:
        """As Celery calls it; else as the service is called."""
        return self.stats.name if self.stats is not None else self.service.settings.node or self.service.name

    @property
    def queues(self) -> tuple[str, ...]:
        """What it should consume: -Q, else what it was seen consuming, else what the broker lists, else the default."""
        asked = self.service.settings.queues
        return tuple(sorted(set(asked) | self.consumed)) or self.listed or (DEFAULT_QUEUE,)

    @property
    def is_placed(self) -> bool:
        """Whether its broker is certain: it has answered there, or there is no other that it could have."""
        return self.stats is not None or len(self.addresses) == 1

    @property
    def needs_names(self) -> bool:
        """Whether only the broker could say which queues there are."""
        return not (self.service.settings.queues or self.consumed or self.listed)

    @property
    def is_idle(self) -> bool | None:
        """Whether it runs nothing and could take a task; None when that is not known."""
        if not self.answers or self.active is None or self.scheduled is None:
            return None
        if self.stats is not None and self.stats.prefetch and self.scheduled >= self.stats.prefetch:
            return None  # tasks for a later time fill all that it may fetch: it waits for them by design
        return not self.active and not self.reserved

    def host_pid(self, inner: int | None) -> int | None:
        """The host's pid of a process of which the node knows its own."""
        return next((pid for pid, own in self.inner.items() if own == inner), None)

    def looked_for(self) -> tuple[int, tuple[int, ...], frozenset[str], str | None]:
        """What tells it from other nodes, for `node_of`: fixed values, for use in another thread."""
        children = tuple(own for pid, own in self.inner.items() if pid != self.service.master_pid)
        return (self.inner[self.service.master_pid], children, self.hosts, self.service.settings.node)

    def found_among(self, nodes: Collection[NodeStats]) -> bool:
        """Whether the node is one of those, which it then is from here on; looks elsewhere after some misses."""
        self.stats = node_of(*self.looked_for(), nodes)
        if self.stats is None:
            self.missed()
        return self.stats is not None

    def missed(self) -> None:
        """It was not found where it was looked for."""
        self.misses += 1
        if self.misses >= MISSES_TO_MOVE_ON and not self.is_placed:
            self.chosen, self.misses = (self.chosen + 1) % len(self.addresses), 0

    def take(self, look: NodeLook, now_s: float) -> tuple[ActiveTask, ...]:
        """Takes over what the node said; the tasks that it ran before and does not run any more."""
        self.answers = look.active is not None
        if look.active is None:
            return ()
        now_running = {task.id for task in look.active}
        over = tuple(task for task in self.active or () if task.id not in now_running)
        self.active, self.answered_s = look.active, now_s
        self.last_on |= {task.pid: LastSeen(task, now_s) for task in look.active if task.pid is not None}
        self.reserved = look.reserved if look.reserved is not None else self.reserved
        self.scheduled = look.scheduled
        if look.stats is not None:
            self.stats = look.stats
            self.runs.counted(look.stats.totals)
        if look.queues is not None:
            self.consumes = look.queues
            self.consumed |= frozenset(look.queues)
        if look.rules is not None:
            self.rules = look.rules
        return over

    def ended_well(self, task: ActiveTask) -> None:
        """A task is over and its process lives."""
        last = self.last_on.get(task.pid) if task.pid is not None else None
        if last is not None and last.task.id == task.id and task.pid is not None:
            del self.last_on[task.pid]
            if task.started_s is not None:
                self.runs.ended(task.name, last.at_s - task.started_s)


def waits_for(
    queue: QueueLook,
    consumes: Sequence[str] | None,
    clients: Sequence[Client] | None,
    own: Collection[str],
    *,
    on_redis: bool,
) -> bool | None:
    """Whether a node is ready to get a message of a queue; None while that is not certain.

    `consumes` is its own account, `own` are its ends of connections. On Redis a node that consumes anything always
    waits in a blocked pop; which lists that names, Redis does not tell.
    """
    if consumes is None:
        return None
    if queue.name not in consumes:
        return False
    if not on_redis:
        return None if queue.consumers is None else queue.consumers > 0
    if clients is None:
        return None
    if not any(client.waits for client in clients):
        return False
    ends = {plain(address) for address in own}
    mine = [client for client in clients if plain(client.address) in ends]
    return any(client.waits for client in mine) if mine else None


def plain(address: str) -> str:
    """An address with its IP in one spelling."""
    import ipaddress

    host, _, port = address.rpartition(":")
    try:
        return f"{ipaddress.ip_address(host.strip('[]'))}:{port}"
    except ValueError:
        return address
