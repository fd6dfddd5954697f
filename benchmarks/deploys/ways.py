"""The ways of deploying: each is a command that somebody runs, and what one does by hand when the service is down after it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.release.words import SYSTEM_PATH
from benchmarks.deploys.ground import WORKERS, Ground, Site
from demo.deploying import USER
from demo.stage import HOST, ROOT, Stage, StageError, end

PLAYBOOKS = Path(__file__).parent
RESTART, HUP = PLAYBOOKS / "restart.yml", PLAYBOOKS / "hup.yml"
APP = "market"
LAST_LINES = 20
SEEN_WITHIN_S = 60.0
ENDS_WITHIN_S = 600.0

FILE = """\
app: market
repository: {repository}
ref: main
hosts: [{host}]
user: {user}
folder: {base}
web:
  - service: {service}
    app: market:app
    health: {{path: /healthz, status: 200}}
    boot: 60s
watch: {{for: 5s}}
"""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended."""

    began_s: float
    ended_s: float
    code: int
    output: str


class Way(Protocol):
    """One way of deploying; `redeploy_words` say what `redeploy` is."""

    site: Site
    redeploy_words: str

    async def take_on(self, commit: str) -> None:
        """The first release, and the service running from it."""

    async def is_known(self) -> None:
        """Returns once whoever deploys could do it: whoever watches has seen the service."""

    async def deploy(self, commit: str) -> Done:
        """The command."""

    async def redeploy(self, commit: str) -> Done:
        """What brings the release before back to a service that is down."""


class Ansible:
    """A playbook of this folder, by ansible-core on this host itself."""

    redeploy_words = "a redeploy of the release before by restart.yml, begun at once"

    def __init__(self, ground: Ground, site: Site, playbook: Path) -> None:
        self.site = site
        self._ground = ground
        self._playbook = playbook
        self._python = ansible_python()

    async def take_on(self, commit: str) -> None:
        """A restart starts what does not run."""
        _must(await self._play(RESTART, commit), "the first deploy by Ansible")

    async def is_known(self) -> None:
        """Nobody watches."""

    async def deploy(self, commit: str) -> Done:
        """Plays the playbook."""
        return await self._play(self._playbook, commit)

    async def redeploy(self, commit: str) -> Done:
        """A HUP needs a master, so it is always a restart."""
        return await self._play(RESTART, commit)

    async def _play(self, playbook: Path, commit: str) -> Done:
        variables = {
            "repository": str(self._ground.repository),
            "base": str(self.site.base),
            "commit": commit,
            "python": shutil.which("python3", path=SYSTEM_PATH),
            "service": self.site.service,
            "port": self.site.port,
            "supervisorctl": self._ground.supervisorctl,
            "ansible_python_interpreter": self._python,
        }
        home = self._ground.folder / "ansible"
        own = {
            "ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"),
            "ANSIBLE_HOME": str(home),
            "ANSIBLE_REMOTE_TEMP": str(home / "tmp"),
            "LC_ALL": "C.UTF-8",
        }
        command = [self._python, "-m", "ansible", "playbook", "--inventory", "localhost,", "--connection", "local"]
        return await _run([*command, "--extra-vars", json.dumps(variables), str(playbook)], own)


class Reflex:
    """`reflexctl deploy`."""

    redeploy_words = "reflexctl deploy of the release before, begun at once"

    def __init__(self, stage: Stage, ground: Ground, site: Site) -> None:
        self.site = site
        self._stage = stage
        self._ground = ground

    async def take_on(self, commit: str) -> None:
        """The host's policy names the app, the server gets its file."""
        (self._stage.folder / "policy.toml").write_text(f'[apps.{APP}]\nuser = "{USER}"\nfolder = "{self.site.base}"\n')
        await self._stage.restart_agent()
        text = FILE.format(
            repository=self._ground.repository, host=HOST, user=USER, base=self.site.base, service=self.site.service
        )
        await self._stage.put(f"/v1/apps/{APP}", {"text": text})
        _must(await self.deploy(commit), "the first deploy by Reflex")
        await self._ground.start(self.site)

    async def is_known(self) -> None:
        """The agent sees every worker ready."""
        await self._stage.until(self._is_seen, f"{self.site.service} is not seen", within_s=SEEN_WITHIN_S)

    async def _is_seen(self) -> bool:
        hosts = (await self._stage.get("/v1/hosts"))["hosts"]
        services = [one for host in hosts for one in host["status"].get("services", [])]
        mine = [one for one in services if one["name"] == self.site.service]
        return any(_ready(one) == WORKERS for one in mine)

    async def deploy(self, commit: str) -> Done:
        """Returns when the release was watched and kept, or went back."""
        own = {"REFLEX_URL": self._stage.url, "REFLEX_TOKEN_FILE": str(self._stage.folder / "token")}
        return await _run([sys.executable, "-m", "ctl", "deploy", APP, "--ref", commit], own)

    async def redeploy(self, commit: str) -> Done:
        """The same command."""
        return await self.deploy(commit)


def ansible_python() -> str:
    """The interpreter of Ansible's own virtual environment, which `./reflex bench deploy` makes."""
    python = ROOT / ".reflex" / "ansible-venv" / "bin" / "python"
    if not python.exists():
        raise StageError(f"Ansible's virtual environment is missing ({python}); run ./reflex bench deploy")
    return str(python)


def _ready(service: Mapping[str, Any]) -> int:
    return sum(worker["state"] == "ready" for worker in service["workers"])


def _must(done: Done, what: str) -> None:
    if done.code:
        raise StageError(f"{what} failed:\n{done.output}")


async def _run(command: Sequence[str], own: Mapping[str, str]) -> Done:
    began_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env={**os.environ, **own}, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = await asyncio.wait_for(process.communicate(), ENDS_WITHIN_S)
    except TimeoutError:
        raise StageError(f"{' '.join(command[:4])} … did not end within {ENDS_WITHIN_S:g} s") from None
    finally:
        await end(process)
    last = "\n".join(output.decode(errors="replace").splitlines()[-LAST_LINES:])
    return Done(began_s, time.monotonic(), process.returncode or 0, last)
