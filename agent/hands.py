"""Puts together what acts: the performer, the commands, their way from the server, and what asks Celery's nodes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from agent.acting import Performer, Rollup, Snapshotter
from agent.celery.beat import CeleryBeat
from agent.celery.hands import CeleryHands
from agent.clock import Clock
from agent.command_link import CommandLink
from agent.commands import Commands
from agent.procfs import ProcFs
from agent.reflexes import LoanRefused, Reflexes
from agent.release.records import RECORDS_FILE
from agent.reporter import Reporter
from agent.settings import Settings
from agent.wire import Command, Event

if TYPE_CHECKING:
    from agent.release.releaser import Releaser

log = logging.getLogger(__name__)


class _Later:
    """The commands, which the engine of the host and they themselves need of each other."""

    def __init__(self, commands: Callable[[], Commands]) -> None:
        self._commands = commands

    def own(self, command: Command) -> None:
        """See Commands.own."""
        self._commands().own(command)

    def fail(self, command: Command, why: str) -> None:
        """See Commands.fail."""
        self._commands().fail(command, why)


class Hands:
    """All that this agent does to processes when it is asked to."""

    def __init__(
        self, settings: Settings, host_key: str, procfs: ProcFs, rollup: Rollup, celery: CeleryBeat, reporter: Reporter,
        clock: Clock, snapshot: Snapshotter, reporters: Sequence[Reporter],
    ) -> None:  # fmt: skip
        """Opens the journal of commands; raises OSError and LinkError. `reporters` are all that tell events."""
        self._performer = Performer(procfs, rollup, CeleryHands(celery), snapshot)
        self.reflexes = Reflexes(
            settings.host,
            host_key,
            settings.state_dir,
            rollup.services,
            reporter,
            clock,
            _Later(lambda: self._commands),
        )
        self._reporters = reporters
        self._releaser: Releaser | None = None

        def make_releaser() -> Releaser:
            """Releases take a megabyte of code, which hosts that are not deployed to do without."""
            from agent.release.hire import own_socket
            from agent.release.releaser import Releaser

            runner = settings.runner_socket if settings.runner_socket.exists() else own_socket(settings)
            return Releaser(
                settings.host, host_key, settings.state_dir, settings.policy_file, runner, self._performer, procfs,
                rollup.services, reporter, clock, lambda said: self._link.say(said),
            )  # fmt: skip

        self._make_releaser = make_releaser
        self._listen(reporters)
        self.reflexes.open()
        self._has_records = (settings.state_dir / RECORDS_FILE).exists()
        self._commands = Commands(
            settings.host, host_key, settings.state_dir, settings.policy_file, self._performer, reporter, clock,
            self.reflexes,
        )  # fmt: skip
        self._link = CommandLink(
            settings.server_url, host_key, self._hello, self._take, allow_plain_http=settings.allow_plain_http
        )

    def remember(self) -> None:
        """Takes up what this host remembers of releases, once its services have been looked for."""
        if self._has_records:
            self._releases()

    def _releases(self) -> Releaser:
        """What does releases; made when the first is ordered, or when there have been some."""
        if self._releaser is None:
            self._releaser = self._make_releaser()
            self._releaser.open()
            for one in self._reporters:
                one.measured = self._releaser.rows
        return self._releaser

    def release_status(self) -> dict[str, object] | None:
        """What the host says of its releases; None where there have been none."""
        return None if self._releaser is None else self._releaser.status()

    def _listen(self, reporters: Sequence[Reporter]) -> None:
        """What any part tells may be what a playbook waits for."""
        for reporter in reporters:
            before = reporter.notice

            def both(event: Event, before: Callable[[Event], None] | None = before) -> None:
                if before is not None:
                    before(event)
                self.reflexes.notice(event)
                if self._releaser is not None:
                    self._releaser.notice(event)

            reporter.notice = both

    def _hello(self) -> object:
        return {"holding": self.reflexes.holding()}

    def _take(self, envelope: object) -> object | None:
        """A command, an order, or what the server lends."""
        if isinstance(envelope, dict) and "order" in envelope:
            self._releases().take(envelope["order"], envelope.get("signature"))
            return None
        if not isinstance(envelope, dict) or "books" not in envelope:
            self._commands.take(envelope)
            return None
        try:
            return {"holding": self.reflexes.take(envelope["books"], envelope.get("signature"))}
        except LoanRefused as refused:
            self._commands.tell_unbelieved(refused.reason, str(refused))
        except OSError as error:
            log.error("what the server lends is not taken, because it cannot be written down: %s", error)
        return {"holding": self.reflexes.holding()}

    def notice(self, events: Sequence[Event]) -> None:
        """Births and deaths, for steps that wait for them."""
        self._performer.notice(events)

    async def command_beat(self) -> None:
        """Listens for commands, for ever."""
        await self._link.listen()

    async def reflex_beat(self) -> None:
        """Decides what this host does by itself, for ever."""
        await self.reflexes.reflex_beat()

    async def stop(self) -> None:
        """Ends what is under way."""
        if self._releaser is not None:
            await self._releaser.stop()
        await self._commands.stop()
