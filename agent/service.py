"""What the agent knows of a service and its workers: the values that the rollup keeps and that sentences tell. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from agent.health import WorkerHealth
from agent.kernel.records import SignalRecord
from agent.managers import Manager
from agent.procfs import Listener
from agent.slots import Slots
from agent.wire import WorkerRef
from agent.workers.settings import ServiceSettings

_SIGNALS_KEPT = 8


class Birth(Enum):
    """How it is known that a worker came; the value names the source."""

    FORK = "sched:sched_process_fork"
    SCAN = "procfs"
    UNSEEN = "before the agent"


@dataclass(slots=True)
class Service:
    """One master and its workers. Masters that follow one another under one name share the lanes.

    A service whose master serves by itself (a single uvicorn, Celery's solo and threads pools) has no workers.
    `release` names the code that it was started from; `argv` is the command line at exec, empty where a title hides it. `broker_urls` hold credentials: they stay in this process.
    """

    name: str
    kind: str
    master_pid: int
    start_ticks: int
    timeout_s: float | None
    cgroup: str
    slots: Slots
    listeners: tuple[Listener, ...] = ()
    settings: ServiceSettings = field(default_factory=ServiceSettings)
    release: str | None = None
    folder: str = ""
    argv: tuple[str, ...] = field(default=(), repr=False)
    manager: Manager | None = None
    broker_urls: tuple[str, ...] = field(default=(), repr=False)
    started_event: str | None = None
    signalled_event: str | None = None
    signalled_us: int = 0
    stopped_event: str | None = None
    workers: dict[int, Worker] = field(default_factory=dict)
    signals: deque[SignalRecord] = field(default_factory=lambda: deque(maxlen=_SIGNALS_KEPT))


@dataclass(slots=True)
class Worker:
    """One worker; `heartbeat_inode` names its heartbeat file, `ready_us` is None until its first beat."""

    ref: WorkerRef
    service: Service
    started_us: int
    heartbeat_inode: int | None
    started_event: str | None = None
    ready_us: int | None = None
    stuck_event: str | None = None
    release: str | None = None
    heartbeat_fd: int | None = None
    health: WorkerHealth = field(default_factory=WorkerHealth)
    signals: deque[SignalRecord] = field(default_factory=lambda: deque(maxlen=_SIGNALS_KEPT))
