"""Makes services of processes: their kind, their settings, and the name that no other living service has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent.discovery import kind_of_command
from agent.identity import home_of
from agent.looks import Looks, ProcessFiles
from agent.managers import (
    Manager,
    circus_config,
    circus_endpoint,
    holds_socket,
    is_between,
    is_circusd,
    manager_of,
    supervisor_of,
)
from agent.naming import service_name
from agent.overrides import Override, first_fitting
from agent.procfs import Listener, Process, ProcFs
from agent.release.found import release_of
from agent.service import Service
from agent.slots import Slots
from agent.workers import KINDS, gunicorn
from agent.workers.kind import Command, Kind

LONGEST_MARK = 60
_BETWEEN = 3
"""How many keepers and shells may stand between circus and a master."""


class Maker:
    """Reads what makes up a service. `services` are those that are known, by the pid of their master."""

    def __init__(
        self, procfs: ProcFs, looks: Looks, overrides: Sequence[Override], services: Mapping[int, Service]
    ) -> None:
        self._procfs = procfs
        self._looks = looks
        self._overrides = overrides
        self._services = services

    def kind(self, process: Process) -> Kind | None:
        """The kind of a process by what the settings or its command line say."""
        said = first_fitting(self._overrides, process).kind if self._overrides else None
        return KINDS[said] if said is not None else kind_of_command(process.argv)

    def is_named(self, process: Process) -> bool:
        """Whether the settings say what to call a process, which goes before what it was called."""
        return bool(self._overrides) and first_fitting(self._overrides, process).name is not None

    def command(self, kind: Kind | None, process: Process) -> Command:
        """What its command line, environment and configuration file say."""
        environment = self._procfs.environment(process.pid)
        supervisor, is_second = supervisor_of(environment), gunicorn.BEGUN_BY in environment
        if kind is None:
            return Command(supervisor=supervisor, is_second=is_second)
        command = kind.read_command(process.argv, environment, ProcessFiles(self._procfs, process.pid))
        return replace(command, supervisor=supervisor, is_second=is_second)

    def service(self, kind: Kind, process: Process, command: Command) -> Service:
        """The service of a master. A title, once there, knows the name also where a configuration file gave it."""
        now = self._procfs.process(process.pid)
        if now is None or not now.folder:  # it has ended; one that nobody has waited for yet has no folder any more
            now = process
        old_master = self._services.get(process.parent_pid) if kind.KIND == gunicorn.KIND else None
        titled = gunicorn.title_name(now.argv) if kind.KIND == gunicorn.KIND and old_master is None else None
        if titled is not None and command.is_second and titled not in (command.name, command.app):
            titled = titled.removesuffix(gunicorn.SECOND)
        if titled is not None:
            named = kind.read_command(gunicorn.titled(titled), {}, ProcessFiles(self._procfs, process.pid))
            command = replace(command, name=named.name, app=named.app)
        role = "beat" if command.settings.role == "beat" else ""
        listeners = self._looks.listeners(process.pid)
        said = first_fitting(self._overrides, replace(process, folder=now.folder, cgroup=now.cgroup))
        name = said.name or service_name(
            kind.KIND, now.folder, now.cgroup, own_name=command.name, app=command.app, role=role
        )
        beside = old_master or self._kept_beside(process)
        if beside is not None and beside.kind == kind.KIND:
            name = beside.name  # the title of Gunicorn's says `.2` until the old one is gone
        return Service(
            name=name
            if beside is not None and name == beside.name
            else self._free_name(name, kind, process, listeners, command),
            kind=kind.KIND,
            master_pid=process.pid,
            start_ticks=process.start_ticks,
            timeout_s=command.settings.timeout_s,
            cgroup=now.cgroup,
            slots=Slots(),
            listeners=tuple(one for one in listeners if kind.serves_clients(one.address)),
            settings=command.settings,
            release=said.release or release_of(self._procfs, process.pid, now.folder),
            folder=now.folder,
            argv=process.argv if len(process.argv) > 1 else (),
            manager=manager_of(home_of(now.cgroup), command.supervisor, self._circus(now)),
            broker_urls=command.broker_urls,
        )

    def look_again(self, service: Service) -> None:
        """What a signal to a master may have changed: the folder that it works in, and with it the release that it runs."""
        now = self._procfs.process(service.master_pid)
        if now is None or now.start_ticks != service.start_ticks or not now.folder:
            return
        said = first_fitting(self._overrides, replace(now, argv=service.argv or now.argv))
        service.folder = now.folder
        service.release = said.release or release_of(self._procfs, now.pid, now.folder)

    def _kept_beside(self, process: Process) -> Service | None:
        """The master that a keeper started before this one, and that this one is to replace."""
        parent = self._procfs.process(process.parent_pid)
        if parent is None or not holds_socket(parent.argv):
            return None
        alive = (s for s in self._services.values() if s.stopped_event is None and s.master_pid != process.pid)
        return next((s for s in alive if self._procfs.parent_pid(s.master_pid) == parent.pid), None)

    def _circus(self, process: Process) -> Manager | None:
        """The circus that has begun a process, itself or through a keeper or a shell; which watcher it is is asked later."""
        child = process
        for _ in range(_BETWEEN):
            parent = self._procfs.process(child.parent_pid)
            if parent is None:
                return None
            if is_circusd(parent.argv):
                config = self._procfs.file_text(parent.pid, path) if (path := circus_config(parent.argv)) else ""
                listens = {one.address for one in self._looks.listeners(parent.pid)}
                return Manager("circus", "", circus_endpoint(config, listens), child.pid)
            if not is_between(parent.argv):
                return None
            child = parent
        return None

    def _free_name(
        self, name: str, kind: Kind, process: Process, listeners: Sequence[Listener], command: Command
    ) -> str:
        """The name, with what tells it apart if another living service has it that is not the new one's parent."""

        def others(name: str) -> list[Service]:
            alive = (s for s in self._services.values() if s.name == name and s.stopped_event is None)
            return [one for one in alive if one.master_pid not in (process.parent_pid, process.pid)]

        if not others(name):
            return name
        is_alike = any(one.kind == kind.KIND and one.settings.role == command.settings.role for one in others(name))
        settings = command.settings
        addresses = [one.address for one in listeners if kind.serves_clients(one.address)]
        apart = (
            "" if is_alike else kind.KIND if settings.role != "beat" else "celery beat",
            ",".join(settings.queues),
            (settings.node or "").partition("@")[0],
            next(iter((*settings.binds, *addresses)), "").removeprefix("tcp "),
            settings.config_file or "",
            f"pid {process.pid}",
        )
        return next(full for mark in apart if mark and not others(full := f"{name} ({mark[:LONGEST_MARK]})"))
