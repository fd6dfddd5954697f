"""Which Celery services are followed, at which broker, and the one thread in which brokers are talked to."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from agent.brokers.common import Address
from agent.celery.asking import BrokerState
from agent.celery.node import Ident, Node
from agent.celery.peers import addresses_of
from agent.celery.queue_watch import QueueWatch
from agent.celery.session import Session
from agent.celery.values import ActiveTask
from agent.procfs import ProcFs
from agent.service import Service

SEARCH_S, LONGEST_SEARCH_S = 5.0, 60.0

LINGER_S = 30.0
"""How long a broker is kept after its last node: a node that died is asked about there, and its successor comes back."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Services(Protocol):
    """Where the services are."""

    @property
    def services(self) -> Mapping[int, Service]: ...


@dataclass(slots=True)
class _Search:
    """For the broker of a service, in vain so far."""

    again_s: float = 0.0
    every_s: float = SEARCH_S


class Following:
    """The nodes and brokers of this host."""

    def __init__(self, procfs: ProcFs, rollup: Services, host: str, new_watch: Callable[[], QueueWatch]) -> None:
        self._procfs = procfs
        self._rollup = rollup
        self._hosts = frozenset({host, os.uname().nodename})
        self._new_watch = new_watch
        self._searches: dict[Ident, _Search] = {}
        self._threads: dict[object, ThreadPoolExecutor] = {}
        self.nodes: dict[Ident, Node] = {}
        self.brokers: dict[str, BrokerState] = {}

    async def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Does something that waits for a broker, after all that was asked of the same before.

        Each broker's session has a thread of its own: one that does not answer keeps no other waiting.
        """
        owner = getattr(work, "__self__", None)
        if owner not in self._threads:
            self._threads[owner] = ThreadPoolExecutor(1, thread_name_prefix="broker")
        return await asyncio.get_running_loop().run_in_executor(self._threads[owner], lambda: work(*args, **kwargs))

    async def _close(self, session: Session) -> None:
        await self.run(session.close)
        self._threads.pop(session).shutdown(wait=False)

    async def refresh(self) -> None:
        """Takes in services that are new, lets go of those that are gone."""
        services = {
            (service.master_pid, service.start_ticks): service
            for service in self._rollup.services.values()
            if service.kind == "celery" and service.settings.role != "beat" and service.stopped_event is None
        }
        if not services and not self.nodes and not self.brokers:
            return
        self.nodes = {ident: node for ident, node in self.nodes.items() if ident in services}
        self._searches = {ident: search for ident, search in self._searches.items() if ident in services}
        for ident, service in services.items():
            if ident not in self.nodes:
                await self._begin(ident, service)
            if ident in self.nodes:
                self._refresh_pids(self.nodes[ident])
        await self._refresh_brokers()

    def nodes_at(self, broker: BrokerState) -> list[Node]:
        """The nodes that have this broker, or may have it."""
        return [node for node in self.nodes.values() if node.address == broker.session.address]

    def note_birth(self, pid: int) -> None:
        """A process of a pool is there: it may be gone before the next look."""
        for node in self.nodes.values():
            if pid in node.service.workers:
                node.inner[pid] = self._procfs.inner_pid(pid) or pid

    def node_with(self, pid: int) -> Node | None:
        """The node that has, or had, this process."""
        return next((node for node in self.nodes.values() if pid in node.inner), None)

    def note_over(self, node: Node, tasks: Iterable[ActiveTask]) -> None:
        """Tasks that are over: well, if their process lives; else its death is about to be told."""
        for task in tasks:
            pid = node.host_pid(task.pid)
            worker = node.service.workers.get(pid) if pid is not None else None
            if pid == node.service.master_pid or (
                worker is not None and self._procfs.start_ticks(worker.ref.pid) == worker.ref.start_ticks
            ):
                node.ended_well(task)

    async def stop(self) -> None:
        """Takes leave of the brokers, as far as they answer in time."""
        for broker in self.brokers.values():
            await self._close(broker.session)
        for thread in self._threads.values():
            thread.shutdown(wait=False)
        self._threads.clear()

    async def _begin(self, ident: Ident, service: Service) -> None:
        """Follows a service whose broker is known, or can be found among its connections."""
        addresses = tuple(map(Address, service.broker_urls)) or await self._search(ident, service)
        if addresses:
            inside = self._procfs.environment(service.master_pid).get("HOSTNAME")
            self.nodes[ident] = Node(service, addresses, self._hosts | ({inside} if inside else set()))

    async def _search(self, ident: Ident, service: Service) -> tuple[Address, ...]:
        search = self._searches.setdefault(ident, _Search())
        if time.monotonic() < search.again_s:
            return ()
        search.again_s = time.monotonic() + search.every_s
        search.every_s = min(search.every_s * 2, LONGEST_SEARCH_S)
        return await self.run(addresses_of, self._procfs, service.master_pid)

    async def _refresh_brokers(self) -> None:
        wanted = {node.address.url: node.address for node in self.nodes.values()}
        for url, address in wanted.items():
            if url not in self.brokers:
                self.brokers[url] = BrokerState(Session(address), self._new_watch())
            self.brokers[url].wanted_s = time.monotonic()
        let_go = time.monotonic() - LINGER_S
        for url in [url for url, broker in self.brokers.items() if broker.wanted_s < let_go]:
            await self._close(self.brokers.pop(url).session)

    def _refresh_pids(self, node: Node) -> None:
        alive = {node.service.master_pid, *node.service.workers}
        for pid in alive - node.inner.keys():
            node.inner[pid] = self._procfs.inner_pid(pid) or pid
        if len(node.inner) > 2 * len(alive) + 16:
            node.inner = {pid: own for pid, own in node.inner.items() if pid in alive}
            own = frozenset(node.inner.values())
            node.last_on = {pid: last for pid, last in node.last_on.items() if pid in own}
