"""What all ways of deploying stand on: one repository, one supervisor with a program for each way, and folders of their own."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from demo.deploying import SOURCES, SUPERVISORD, USER
from demo.stage import ROOT, Stage, StageError, demo_python, end, free_port

WORKERS = 4
IMPORT_S, IMPORT_CPU_S = 1.5, 0.5
STOP_S = 40.0

PROGRAM = """\
[program:{service}]
command={command} -m gunicorn --bind 127.0.0.1:{port} --workers {workers} --name {service} market:app
environment=PWD="{base}/current"
directory={base}/current
user={user}
autostart=false
autorestart=true
startsecs=5
stopwaitsecs=30
stdout_logfile={folder}/{service}.log
redirect_stderr=true
"""
"""`startsecs` is longer than the import, so that a restart of what cannot be imported is told as an error."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where one way deploys to. `command` starts Python, from the link or from what releases share."""

    service: str
    base: Path
    port: int
    command: str


class Ground:
    """Use as an async context manager. The programs are there, and none is started."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._own = tempfile.TemporaryDirectory(prefix="reflex-bench-deploy-", ignore_cleanup_errors=True)
        self.folder = Path(self._own.name)
        self.folder.chmod(0o755)
        self.repository = self.folder / "market.git"
        config = str(self.folder / "supervisord.conf")
        self.supervisorctl = [str(demo_python()), "-m", "supervisor.supervisorctl", "-c", config]
        keeper, shared = self.folder / "reflex-keep", "{base}/venv/bin/python"
        self.sites: Mapping[str, Site] = {
            "reflex": self._site("reflex", f"{keeper} {{base}}/current/venv/bin/python"),
            "ansible_restart": self._site("ansible-restart", shared),
            "ansible_hup": self._site("ansible-hup", shared),
        }

    def _site(self, name: str, command: str) -> Site:
        base = self.folder / name
        return Site(f"market-{name}", base, free_port(), command.format(base=base))

    async def __aenter__(self) -> Self:
        self.repository.mkdir()
        self._git("init", "--quiet", "--initial-branch", "main", ".")
        keeper = self.folder / "reflex-keep"
        shutil.copy(ROOT / "agent" / "release" / "keep.py", keeper)
        keeper.chmod(0o755)
        (self.folder / "supervisord.conf").write_text(self._configuration())
        command = [str(demo_python()), "-m", "supervisor.supervisord", "-c", str(self.folder / "supervisord.conf")]
        self._supervisord = await self._stage.start_program("supervisord", command, self.folder)
        await self._stage.until(self._supervisor_answers, "supervisord does not answer")
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._supervisord, grace_s=STOP_S)
        self._own.cleanup()

    def commit(self, version: str, *, breaks: bool = False) -> str:
        """A new version on main, which cannot be imported if it `breaks`; its commit."""
        text = (SOURCES / "market.py").read_text().replace('VERSION = "v0"', f'VERSION = "{version}"')
        text = text.replace("IMPORT_S = 1.5", f"IMPORT_S = {IMPORT_S}")
        text = text.replace("IMPORT_CPU_S = 0.0", f"IMPORT_CPU_S = {IMPORT_CPU_S}")
        (self.repository / "market.py").write_text(text + "\nimport nobody_has_installed_this\n" * breaks)
        wanted = (SOURCES / "requirements.txt").read_text().splitlines()
        gunicorn = [line for line in wanted if line.startswith("gunicorn")]
        (self.repository / "requirements.txt").write_text("\n".join(gunicorn) + "\n")
        self._git("add", "--all")
        who = ("-c", "user.name=Bench", "-c", "user.email=bench@localhost")
        self._git(*who, "commit", "--quiet", "-m", f"Release {version}")
        return self._git("rev-parse", "HEAD").strip()

    async def start(self, site: Site) -> None:
        """Starts the service; it is up when this ends."""
        await self._control("start", site.service)

    async def stop(self, site: Site) -> None:
        """Stops the service."""
        await self._control("stop", site.service)

    async def _control(self, *words: str) -> None:
        process = await asyncio.create_subprocess_exec(*self.supervisorctl, *words, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        if process.returncode:
            raise StageError(f"supervisorctl {' '.join(words)}: {output.decode().strip()}")

    async def _supervisor_answers(self) -> bool:
        process = await asyncio.create_subprocess_exec(*self.supervisorctl, "pid", stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        return output.strip().isdigit()

    def _configuration(self) -> str:
        programs = (
            PROGRAM.format(
                service=site.service, base=site.base, port=site.port, command=site.command, workers=WORKERS,
                user=USER, folder=self.folder,
            )
            for site in self.sites.values()
        )  # fmt: skip
        return SUPERVISORD.format(folder=self.folder) + "".join(programs)

    def _git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.repository, capture_output=True, text=True, check=True)
        return done.stdout
