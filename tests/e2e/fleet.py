"""Three hosts on one machine: each a network and a mount namespace with an agent, a Gunicorn and an app folder of its own.

The namespaces have no names: they end with their last process, and the links to them with them.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from agent.procfs import ProcFs
from agent.release.records import RECORDS_FILE
from demo.stage import ROOT, Stage, StageError, demo_python

APP = "shop"
SERVICE = "fleet-web"
USER = "nobody"
NETWORKS = tuple(f"198.18.{number}" for number in range(1, 255))
"""Of the range that is set aside for measurements (RFC 2544), so that no real network is hidden."""

PORT = 8000
WATCH_S = 4
PATIENCE_S = 60
ENDS_WITHIN_S = 150.0
POLL_S = 0.05
LOOK_S = 0.5

SOURCE = """\
import os

VERSION = "v0"
ILL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shared", "ill")


def app(environ, start_response):
    is_ill = environ["SERVER_PORT"] == "8000" and os.path.exists(ILL) and open(ILL).read() == VERSION
    body = VERSION.encode()
    status = "500 Ill" if is_ill and environ["PATH_INFO"] == "/healthz" else "200 OK"
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""

FILE = """\
app: shop
repository: {repository}
ref: main
hosts: [web-1, web-2, web-3]
batch: 2
on_failure: {on_failure}
patience: {patience}s
user: {user}
folder: {base}
shared: [shared]
build: {{least_free_mb: 50}}
web:
  - service: fleet-web
    health: {{path: /healthz, status: 200}}
    boot: 30s
watch: {{for: {watch}s}}
environment:
  PYTHONPATH: {packages}
"""


class Host:
    """One host. What runs there ends with the fleet."""

    def __init__(self, name: str, number: int, fleet: Fleet) -> None:
        self.name = name
        self.number = number
        self.folder = fleet.home / name
        self._fleet = fleet
        self._link = f"rf{os.getpid() % 100000}-{number}"
        self._holder: asyncio.subprocess.Process | None = None
        self.ill_file = self.folder / "app" / "shared" / "shared" / "ill"
        self.agent: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        """Where it is reached."""
        return f"{self._fleet.network}.{10 + self.number}"

    async def build(self) -> None:
        """Makes its namespaces, with the app's folder where all hosts have it."""
        app = self.folder / "app"
        app.mkdir(parents=True)
        shutil.chown(app, USER)
        script = f"mount --bind {app} {self._fleet.base} && echo made && exec sleep infinity"
        self._holder = await asyncio.create_subprocess_exec(
            "unshare", "--net", "--mount", "sh", "-c", script, stdout=asyncio.subprocess.PIPE
        )
        assert self._holder.stdout is not None
        if await self._holder.stdout.readline() != b"made\n":
            raise StageError(f"no namespaces can be made for {self.name}")
        pid = str(self._holder.pid)
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", pid)
        run("ip", "link", "set", self._link, "master", self._fleet.bridge, "up")
        for words in (("addr", "add", f"{self.address}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
            run("nsenter", "-t", pid, "--net", "ip", *words)
        run("nsenter", "-t", pid, "--net", "ip", "link", "set", "lo", "up")
        (self.folder / "policy.toml").write_text(f'[apps.{APP}]\nuser = "{USER}"\nfolder = "{self._fleet.base}"\n')

    def inside(self, *words: str, folder: Path = ROOT) -> list[str]:
        """A command as it runs on this host."""
        assert self._holder is not None
        return ["nsenter", "-t", str(self._holder.pid), "--net", "--mount", "env", "-C", str(folder), *words]

    async def start_agent(self) -> None:
        """Starts its agent and waits until the server hears it."""
        began_us = time.time_ns() // 1000
        key = self._fleet.folder / f"{self.name}.key"
        command = [sys.executable, "-m", "agent", "run", "--server-url", self._fleet.url, "--allow-plain-http", "true"]
        command += ["--host", self.name, "--host-key-file", str(key), "--only-own-network", "true"]
        command += ["--state-dir", str(self.folder / "state"), "--policy-file", str(self.folder / "policy.toml")]
        command += ["--runner-socket", str(self.folder / "no-runner.sock")]
        self.agent = await self._fleet.start_program(f"agent-{self.name}", self.inside(*command), ROOT)

        async def is_heard() -> bool:
            status = await self._fleet.status_of(self.name)
            return bool(status.get("probes")) and status["started_us"] >= began_us

        await self._fleet.until(is_heard, f"the agent of {self.name} is not heard", within_s=40)

    async def start_web(self) -> None:
        """Starts what serves from `current`, as a host's boot does, and waits until its agent sees it."""
        base = self._fleet.base
        command = ["setpriv", "--reuid", USER, "--regid", "65534", "--clear-groups", "env", f"PWD={base}/current"]
        command += [f"PYTHONPATH={self._fleet.packages}", f"{base}/current/venv/bin/python"]
        command.append(str(demo_python().with_name("gunicorn")))  # as a module it would be reloaded, and not hand over
        command += ["--bind", f"0.0.0.0:{PORT}", "--workers", "1", "--graceful-timeout", "2", "--name", SERVICE]
        folder = Path(f"{base}/current")
        inside = self.inside(*command, "shop:app", folder=folder)
        await self._fleet.start_program(f"web-{self.name}", inside, ROOT)

        async def is_seen() -> bool:
            status = await self._fleet.status_of(self.name)
            workers = [one for service in status.get("services", []) for one in service["workers"]]
            return any(one["state"] == "ready" for one in workers)

        await self._fleet.until(is_seen, f"{SERVICE} is not seen on {self.name}", within_s=40)

    async def version(self) -> str | None:
        """What it serves; None while it serves nothing."""
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection(self.address, PORT)
                writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
                said = await reader.read()
                writer.close()
        except (OSError, TimeoutError):
            return None
        return said.rpartition(b"\r\n\r\n")[2].decode() or None

    def masters(self) -> int:
        """How many masters of the web run: processes of Gunicorn whose parents are none."""
        procfs, pids = ProcFs(), self.pids()
        webs = {pid for pid in pids if any(SERVICE in word for word in procfs.command(pid))}
        workers = {pid for pid in webs if procfs.parent_pid(pid) in webs and not procfs.children(pid)}
        return len(webs - workers)

    def be_ill(self, version: str) -> None:
        """Its health check fails for that version from now on."""
        self.ill_file.write_text(version)

    def be_well(self) -> None:
        """Its health check is good for all versions."""
        self.ill_file.unlink(missing_ok=True)

    def has_ended(self, order: str) -> bool:
        """Whether its agent has written down the end of an order."""
        records = json.loads((self.folder / "state" / RECORDS_FILE).read_bytes())
        return records["orders"].get(order, {}).get("outcome") is not None

    def pids(self) -> list[int]:
        """All its processes but the one that holds it together."""
        assert self._holder is not None
        procfs = ProcFs()
        own = procfs.network(self._holder.pid)
        return [pid for pid in procfs.pids() if own and pid != self._holder.pid and procfs.network(pid) == own]

    async def kill_agent(self) -> None:
        """Kills its agent where it stands; what serves goes on."""
        assert self.agent is not None
        with suppress(ProcessLookupError):
            self.agent.kill()
        await self.agent.wait()

    async def cut_power(self) -> None:
        """Kills all that runs there at once."""
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(POLL_S)

    def cut_link(self) -> None:
        """Nothing goes to it or comes from it any more; what runs there goes on, and is not told."""
        run("ip", "link", "set", self._link, "down")

    def mend_link(self) -> None:
        """It is reached again."""
        run("ip", "link", "set", self._link, "up")

    async def remove(self) -> None:
        """Ends it."""
        if self._holder is None or self._holder.returncode is not None:
            return
        await self.cut_power()
        with suppress(ProcessLookupError):
            self._holder.kill()
        await self._holder.wait()


class Fleet(Stage):
    """The server, and the hosts. Use as an async context manager."""

    def __init__(self) -> None:
        super().__init__()
        self.network = free_network()
        self.address = f"{self.network}.1"
        self.home = Path(f"/tmp/reflex-fleet-{os.getpid()}")
        self.base = self.home / "app"
        self.repository = self.home / "shop.git"
        self.bridge = f"rf{os.getpid() % 100000}"
        self.packages = next((demo_python().parent.parent / "lib").glob("python3*/site-packages"))
        self.hosts = [Host(f"web-{number}", number, self) for number in (1, 2, 3)]
        self._count = 0
        self.unsaid: list[str] = []
        """Times at which hosts served different releases, no deploy was under way, and the timeline did not say so."""

        self._looks: asyncio.Task[None] | None = None

    async def __aexit__(self, *_: object) -> None:
        if self._looks is not None:
            self._looks.cancel()
            await asyncio.gather(self._looks, return_exceptions=True)
        try:
            for host in self.hosts:
                await host.remove()
            await super().__aexit__()
        finally:
            with suppress(StageError):
                run("ip", "link", "del", self.bridge)
            shutil.rmtree(self.home, ignore_errors=True)

    async def _start(self) -> None:
        self.home.mkdir(mode=0o755)
        self.base.mkdir()
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "addr", "add", f"{self.address}/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        self.playbooks.mkdir()
        for host in self.hosts:
            await host.build()
            key = ["--out", str(self.folder / f"{host.name}.key"), "--state", str(self.folder / "server")]
            run(sys.executable, "-m", "server", "host-key", "add", host.name, *key, folder=ROOT)
        await self.start_server()
        await asyncio.gather(*(host.start_agent() for host in self.hosts))
        run("git", "init", "--quiet", "--initial-branch", "main", str(self.repository))
        await self.take_on()
        await self.deployed(self.commit())
        await asyncio.gather(*(host.start_web() for host in self.hosts))
        self._looks = asyncio.create_task(self._look())

    async def _look(self) -> None:
        """Looks all along whether hosts that differ without a deploy are told."""
        while True:
            await asyncio.sleep(LOOK_S)
            with suppress(aiohttp.ClientError, OSError):
                await self.look_once()

    async def look_once(self) -> None:
        """One look; only what is so before and after it counts, and a host that serves nothing does not.

        An end that is not on the timeline yet is on its way there: `ended` waits for it.
        """
        before = await self.deploys()
        served = {name: version for name, version in (await self.versions()).items() if version}
        finished = await self.events(kind="deploy.finished", limit="10")
        after = await self.deploys()
        if before != after or any(one["stage"] != "done" for one in after) or len(set(served.values())) < 2:
            return
        usual = Counter(served.values()).most_common(1)[0][0]
        odd = [name for name, version in served.items() if version != usual]
        text = next((str(one["text"]) for one in finished if one["attrs"]["deploy"] == after[0]["id"]), None)
        if text is None:
            return
        if not all(name in text for name in odd) or not ("Hosts differ" in text or "could not be reached" in text):
            self.unsaid.append(f"{served}, but: {text}")

    async def take_on(self, *, on_failure: str = "rollback", patience_s: int = PATIENCE_S) -> None:
        """Tells the server of the app."""
        text = FILE.format(
            repository=self.repository, user=USER, base=self.base, packages=self.packages, watch=WATCH_S,
            patience=patience_s, on_failure=on_failure,
        )  # fmt: skip
        await self.put(f"/v1/apps/{APP}", {"text": text})

    def commit(self) -> str:
        """A new version on main; its name, which is a tag too."""
        self._count += 1
        version = f"v{self._count}"
        (self.repository / "shop.py").write_text(SOURCE.replace('"v0"', f'"{version}"'))
        who = ["-c", "user.name=Demo", "-c", "user.email=demo@localhost"]
        run("git", "add", "--all", folder=self.repository)
        run("git", *who, "commit", "--quiet", "-m", f"Release {version}", folder=self.repository)
        run("git", "tag", version, folder=self.repository)
        return version

    # What the server knows.

    async def status_of(self, name: str) -> dict[str, Any]:
        """What a host's agent said last."""
        hosts = (await self.get("/v1/hosts"))["hosts"]
        found: dict[str, Any] = next((host["status"] for host in hosts if host["name"] == name), {})
        return found

    async def push(self, ref: str) -> str:
        """Asks for a deploy; its id."""
        begun = await self.post(f"/v1/apps/{APP}/deploy", {"ref": ref})
        return str(begun["deploy"]["id"])

    async def deploys(self) -> list[dict[str, Any]]:
        """All deploys, the latest first."""
        found: list[dict[str, Any]] = (await self.get("/v1/deploys"))["deploys"]
        return found

    async def comes_to(self, deploy: str, is_there: Callable[[Mapping[str, Any]], bool], what: str) -> dict[str, Any]:
        """The deploy once it is there."""

        async def look() -> dict[str, Any] | None:
            now: dict[str, Any] = await self.get(f"/v1/deploys/{deploy}")
            return now if is_there(now) else None

        found: dict[str, Any] = await self.until(look, f"the deploy does not come to {what}", within_s=ENDS_WITHIN_S)
        return found

    async def ended(self, deploy: str) -> dict[str, Any]:
        """The deploy once it is over, and its end is on the timeline."""
        found = await self.comes_to(deploy, lambda now: now["stage"] == "done", "its end")

        async def is_told() -> bool:
            return any(one["attrs"]["deploy"] == deploy for one in await self.events(kind="deploy.finished"))

        await self.until(is_told, "the end of a deploy is not told")
        return found

    async def deployed(self, ref: str) -> dict[str, Any]:
        """Deploys and waits for the end."""
        return await self.ended(await self.push(ref))

    async def idle(self) -> dict[str, Any]:
        """The latest deploy, once none is under way."""

        async def is_idle() -> list[dict[str, Any]] | None:
            found = await self.deploys()
            return found if all(one["stage"] == "done" for one in found) else None

        found = await self.until(is_idle, "deploys do not end", within_s=ENDS_WITHIN_S)
        latest: dict[str, Any] = found[0]
        return await self.ended(latest["id"])

    async def followed(self, deploy: str) -> dict[str, Any]:
        """The deploy by which a host catches up with that one, once it has ended."""

        async def has_followed() -> dict[str, Any] | None:
            latest: dict[str, Any] = (await self.deploys())[0]
            return latest if latest["id"] != deploy and latest["stage"] == "done" else None

        found: dict[str, Any] = await self.until(has_followed, "nobody catches up", within_s=ENDS_WITHIN_S)
        return await self.ended(found["id"])

    async def told(self, deploy: str) -> list[dict[str, Any]]:
        """All that the timeline has of a deploy, oldest first."""
        events: list[dict[str, Any]] = []
        for kind in ("deploy.*", "release.*"):
            events += await self.events(kind=kind, limit="500")
        return sorted((one for one in events if one["attrs"].get("deploy") == deploy), key=lambda one: one["ts_us"])

    async def versions(self) -> dict[str, str | None]:
        """What each host serves."""
        found = await asyncio.gather(*(host.version() for host in self.hosts))
        return {host.name: version for host, version in zip(self.hosts, found, strict=True)}

    # What happens to it.

    async def kill_server(self) -> None:
        """Kills the server where it stands."""
        assert self.server is not None
        self.server.kill()
        await self.server.wait()

    async def heal(self) -> None:
        """All runs, and nothing is under way."""
        if self.server is None or self.server.returncode is not None:
            await self.start_server_again()
        for host in self.hosts:
            host.be_well()
            host.mend_link()
            if host.agent is None or host.agent.returncode is not None:
                await host.start_agent()
            if await host.version() is None:
                await host.start_web()
        await self.idle()


def free_network() -> str:
    """The beginning of addresses that no link of this machine has."""
    taken = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    free = (one for one in NETWORKS[os.getpid() % len(NETWORKS) :] + NETWORKS if f" {one}." not in taken)
    return next(free)


def run(*words: str, folder: Path | None = None) -> None:
    """Runs a command that has to succeed."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StageError(f"{' '.join(words)}: {done.stderr.strip()}")
