"""What goes into programs and files of a release: environments, commands, the file of variables; and what must not come out. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping

from agent.release.layout import Layout
from agent.wire.app import App

SHORTEST_SECRET = 4
"""Shorter values are too common as words to be taken out of a log."""

HIDDEN = "•••"
CUT = "…"
"""Where the runner has cut a line."""

_ORIGIN = re.compile(r"https?://[^/?#]+")

IMPORTS = """\
import importlib, sys
module, _, name = sys.argv[1].partition(":")
found = importlib.import_module(module)
for part in filter(None, name.partition("(")[0].split(".")):
    found = getattr(found, part)
"""
"""Imports `module:name` as an application server does; run with the release as its folder."""


WRITES = 'umask 077 && cat > "$1.new" && mv -fT "$1.new" "$1"'
"""For sh: what it is given goes into the file that it is told."""


READS = 'git cat-file blob "$1" | base64 -w 1000'
"""For sh: a file of a commit as it was committed, in lines that a log leaves as they are."""


def git_environment(layout: Layout, key: str, repository: str = "") -> dict[str, str]:
    """Makes git ask nobody anything. A private key is in a file of the app's user, a token goes into no command line.

    The token is for the repository's own server: whoever writes the repository names the servers of its submodules, and
    these may be neither programs nor folders of this host.
    """
    settings = {}
    origin = _ORIGIN.match(repository)
    if key and not is_private_key(key) and origin is not None:
        told = base64.b64encode(f"oauth2:{key.strip()}".encode()).decode()
        settings[f"http.{origin[0]}/.extraHeader"] = f"Authorization: Basic {told}"
    settings |= {"protocol.ext.allow": "never", "protocol.file.allow": "user"}
    ssh = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "-o", "ConnectTimeout=15"]
    ssh += ["-o", f"UserKnownHostsFile={layout.own}/known_hosts"]
    if is_private_key(key):
        ssh += ["-o", "IdentitiesOnly=yes", "-i", layout.key]
    numbered: dict[str, str] = {}
    for number, (name, value) in enumerate(settings.items()):
        numbered |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return {
        "PATH": SYSTEM_PATH,
        "LANG": "C.UTF-8",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_GLOBAL": f"{layout.own}/gitconfig",
        "GIT_SSH_COMMAND": " ".join(ssh),
        "GIT_CONFIG_COUNT": str(len(settings)),
        **numbered,
    }


GIT_CONFIG = "[safe]\n\tdirectory = *\n"
"""A repository on this host may belong to another user; which one is fetched from, the order says and the policy allows."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def is_private_key(key: str) -> bool:
    """Whether the key is one of ssh's; else it is a token."""
    return "PRIVATE KEY-----" in key


def build_environment(app: App, layout: Layout, release: str, secrets: Mapping[str, str]) -> dict[str, str]:
    """What builds, checks and commands of a release see: that of the app, and its virtual environment first."""
    venv = f"{layout.release(release)}/venv"
    return {
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        **app.environment,
        **secrets,
        "PATH": f"{venv}/bin:{SYSTEM_PATH}",
        "VIRTUAL_ENV": venv,
        "PIP_CACHE_DIR": f"{layout.own}/cache/pip",
        "UV_CACHE_DIR": f"{layout.own}/cache/uv",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
    }


def environment_file(variables: Mapping[str, str]) -> str:
    """The variables as systemd (EnvironmentFile=) and sh read them."""
    lines = []
    for name, value in sorted(variables.items()):
        quoted = value.replace("'", "'\\''")
        lines.append(f"{name}='{quoted}'\n")
    return "".join(lines)


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """Takes secrets out of a line; each line of one that has several, too; of a line that was cut also a secret's beginning."""
    pieces = {part.strip() for secret in secrets for part in (secret, *secret.splitlines())}
    hidden = sorted((one for one in pieces if len(one) >= SHORTEST_SECRET), key=len, reverse=True)

    def redact(line: str) -> str:
        for one in hidden:
            line = line.replace(one, HIDDEN)
        return _without_beginning(line, hidden) if line.endswith(CUT) else line

    return redact


def _without_beginning(line: str, secrets: Iterable[str]) -> str:
    """A line that was cut, without the part of a secret that it was cut in."""
    line = line.removesuffix(CUT)
    for one in secrets:
        for chars in range(len(one) - 1, 0, -1):
            if line.endswith(one[:chars]):
                return f"{line[:-chars]}{HIDDEN}{CUT}"
    return f"{line}{CUT}"


def boot_argv(kind: str, name: str, app: str, port: int, folder: str) -> tuple[str, ...]:
    """The command that boots one worker of a release on a spare port; raises ValueError for a kind without one."""
    python = f"{folder}/venv/bin/python"
    if kind == "gunicorn":
        spare = ("--bind", f"127.0.0.1:{port}", "--workers", "1", "--name", name, "--pid", f"{folder}/.reflex-boot.pid")
        return (python, "-m", "gunicorn", *spare, "--log-level", "warning", app)
    if kind == "uvicorn":
        return (python, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", app)
    if kind == "uwsgi":
        own = (
            "--http-socket",
            f"127.0.0.1:{port}",
            "--master",
            "--processes",
            "1",
            "--procname-master",
            name,
            "--die-on-term",
            "--need-app",
        )
        return ("uwsgi", *own, "--home", f"{folder}/venv", "--chdir", folder, "--module", app)
    raise ValueError(f"a {kind} service cannot be booted on a spare port")
