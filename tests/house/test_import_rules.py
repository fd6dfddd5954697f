"""Who may import whom, and who owns what: the rules of docs/architecture.md, checked on the syntax tree of every module."""

from __future__ import annotations

import ast
import configparser
import functools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ("agent", "server", "playbooks", "ctl")
UNSHIPPED = ("demo", "benchmarks", "tests", "packaging")
PURE = re.compile(
    r"agent\.(wire(\..+)?|rollup|deaths|sentences|slots|words|identity|celery\.(values|queue_judges|task_judges|sentences)|kernel\.(layout|records)|actions(\..+)?)"
    r"|agent\.release\.(gate|choice|layout|words|own)|server\.pipeline\.(engine|deploys|site|forges)"
    r"|server\.(causes|advisor(\..+)?)|playbooks(\..+)?"
)
IMPURE = ("os", "socket", "asyncio", "subprocess", "ctypes", "time")
SPAWNS = re.compile(
    r"subprocess(\..+)?|os\.(kill|killpg|system|popen|fork|forkpty|exec\w+|spawn\w+|posix_spawnp?)"
    r"|signal\.(pidfd_send_signal|pthread_kill)|asyncio\.(create_)?subprocess(\w+|\..+)?|multiprocessing(\..+)?"
)
SQL = re.compile(
    r"\s*(SELECT|INSERT INTO|CREATE (TABLE|DATABASE|VIEW|MATERIALIZED)|ALTER TABLE|DELETE FROM|UPDATE \S+ SET"
    r"|DROP (TABLE|VIEW|DATABASE)|TRUNCATE|OPTIMIZE TABLE|SYSTEM (STOP|START|FLUSH))\b"
)
# The name that a package is imported by, where it is not the name it is installed by.
INSTALLED_AS = {
    "cel": "common-expression-language",
    "ruamel": "ruamel-yaml",
    "clickhouse_connect": "clickhouse-connect",
}
# bcc comes with the distribution's python3, which alone runs the module that imports it.
OF_THE_DISTRIBUTION = ("bcc",)
# What the server lends, and what a repository says of its app; the second is a process of its own.
BRAINY = ("agent.reflexes", "agent.release.own_file")
# One file that needs nothing but Python: the users of apps run it.
KEEPER = "agent.release.keep"
OTHER_PROGRAMS = ("agent.release.runner", "agent.release.running", KEEPER)
# server.keys names the tables of server.state when it picks rows for a command; all statements are made in server.state.
SQLALCHEMY = ("server.state", "server.keys")


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file of the tree under its dotted name."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        """The top-level package."""
        return self.name.partition(".")[0]

    def says(self, line: int, sentence: str) -> str:
        """A violation, where an editor finds it."""
        return f"{self.path}:{line}: {self.name} {sentence}"


def modules(root: Path) -> Iterator[Module]:
    for package in SHIPPED:
        for path in sorted((root / package).rglob("*.py")):
            inside = path.relative_to(root)
            if "node_modules" not in inside.parts:
                name = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
                yield Module(name, inside, ast.parse(path.read_text(), filename=str(path)))


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported; `from a import b` gives `a.b`, whether b is a module or not."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _dotted(node.func) in ("importlib.import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value


def uses(module: Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that is imported or reached by dots (`os.kill`)."""
    yield from imports(module)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            yield node.lineno, _dotted(node)


def texts(module: Module) -> Iterator[tuple[int, str]]:
    """Line and value of every string literal that is not a docstring."""
    docstrings = {
        id(node.value) for node in ast.walk(module.tree) if isinstance(node, ast.Expr)
    }  # a string that is a statement of its own explains something
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def only_the_wire_is_shared(module: Module) -> Iterator[str]:
    for line, name in imports(module):
        package = name.partition(".")[0]
        if module.package == "agent" and package in ("server", "ctl"):
            yield module.says(line, f"imports {name}; of Reflex the agent may import playbooks only")
        elif module.name not in BRAINY and module.package == "agent" and package == "playbooks":
            yield module.says(line, f"imports {name}; playbooks belong to agent/reflexes.py")
        elif module.package != "agent" and package == "agent" and not _is_in(name, "agent.wire"):
            yield module.says(line, f"imports {name}; of the agent it may import agent.wire only")
        elif module.package in ("playbooks", "ctl") and package in SHIPPED and package not in (module.package, "agent"):
            yield module.says(line, f"imports {name}; of Reflex it may import agent.wire only")
        elif package in UNSHIPPED:
            yield module.says(line, f"imports {name}, which is not in the wheel")


def pure_modules_do_nothing(module: Module) -> Iterator[str]:
    if PURE.fullmatch(module.name):
        for line, name in imports(module):
            if name.partition(".")[0] in IMPURE:
                yield module.says(line, f"is pure and imports {name}")


def ctypes_belongs_to_the_kernel_folder(module: Module) -> Iterator[str]:
    if not _is_in(module.name, "agent.kernel") and module.name != KEEPER:
        for line, name in imports(module):
            if _is_in(name, "ctypes"):
                yield module.says(line, "imports ctypes, which belongs to agent/kernel")


def proc_belongs_to_procfs(module: Module) -> Iterator[str]:
    """agent.settings names the mount point alone, as the default of a setting."""
    if module.package == "agent" and not _is_in(module.name, "agent.procfs") and module.name != KEEPER:
        for line, text in texts(module):
            if re.search(r"/proc(/|$)", text) and not (module.name == "agent.settings" and text == "/proc"):
                yield module.says(line, f"names {text!r}; /proc belongs to agent/procfs")


def acts_belong_to_the_executor(module: Module) -> Iterator[str]:
    """The runner and the keeper are programs of their own beside the agent."""
    if module.package == "agent" and module.name not in ("agent.executor", *OTHER_PROGRAMS):
        for line, name in uses(module):
            if SPAWNS.fullmatch(name):
                yield module.says(line, f"uses {name}; signals and programs belong to agent/executor.py")


def sql_belongs_to_the_store(module: Module) -> Iterator[str]:
    if not _is_in(module.name, "server.store"):
        for line, name in imports(module):
            if _is_in(name, "chdb") or _is_in(name, "clickhouse_connect") or _is_in(name, "sqlite3"):
                yield module.says(line, f"imports {name}, which belongs to server/store")
            if _is_in(name, "sqlalchemy") and module.name not in SQLALCHEMY:
                yield module.says(line, f"imports {name}, which belongs to server/state.py")
        for line, text in texts(module):
            if SQL.match(text):
                yield module.says(line, f"has SQL ({text.strip():.30}…), which belongs to server/store")


def imports_are_installed(module: Module) -> Iterator[str]:
    """Agent and reflexctl are installed alone; what the server needs beside comes with `[server]`."""
    extras = ("server",) if module.package in ("server", "playbooks") else ()
    for line, name in imports(module):
        top = name.partition(".")[0]
        package = INSTALLED_AS.get(top, top.replace("_", "-"))
        if top in sys.stdlib_module_names or top in (*SHIPPED, *UNSHIPPED, *OF_THE_DISTRIBUTION):
            continue
        if package not in _installed(extras):
            yield module.says(line, f"imports {name}, and setup.cfg does not install {package} there")


RULES: tuple[Callable[[Module], Iterator[str]], ...] = (
    only_the_wire_is_shared,
    pure_modules_do_nothing,
    ctypes_belongs_to_the_kernel_folder,
    proc_belongs_to_procfs,
    acts_belong_to_the_executor,
    sql_belongs_to_the_store,
    imports_are_installed,
)


def violations(root: Path) -> list[str]:
    return [sentence for module in modules(root) for rule in RULES for sentence in rule(module)]


def test_the_tree_keeps_the_rules() -> None:
    assert violations(ROOT) == []


def test_every_package_is_looked_at() -> None:
    assert {module.package for module in modules(ROOT)} == set(SHIPPED)
    assert {"agent.wire", "agent.rollup", "server.causes"} <= {m.name for m in modules(ROOT) if PURE.fullmatch(m.name)}


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("agent/link.py", "from server.app import build_app", "the agent may import playbooks only"),
        ("agent/link.py", "def f():\n    import playbooks.engine", "belong to agent/reflexes.py"),
        ("server/app.py", "from agent.rollup import Rollup", "agent.wire only"),
        ("server/app.py", "from agent import __version__", "agent.wire only"),
        ("server/app.py", "import importlib\nimportlib.import_module('agent.spool')", "agent.wire only"),
        ("playbooks/engine.py", "from server.store import Store", "agent.wire only"),
        ("ctl/__main__.py", "import playbooks.model", "agent.wire only"),
        ("server/app.py", "from demo.stage import Stage", "not in the wheel"),
        ("agent/wire/command.py", "import time", "is pure and imports time"),
        ("agent/actions/recycle.py", "from os import path", "is pure and imports os.path"),
        ("agent/kernel/layout.py", "import ctypes", "is pure and imports ctypes"),
        ("server/advisor/workers.py", "from asyncio import sleep", "is pure and imports asyncio.sleep"),
        ("playbooks/__init__.py", "import socket", "is pure and imports socket"),
        ("server/app.py", "import ctypes.util", "belongs to agent/kernel"),
        ("agent/budget.py", "open(f'/proc/{pid}/stat')", "belongs to agent/procfs"),
        ("agent/settings.py", "FILE = '/proc/stat'", "belongs to agent/procfs"),
        ("agent/daemon.py", "import os\nos.kill(1, 9)", "belong to agent/executor.py"),
        ("agent/daemon.py", "from os import kill", "belong to agent/executor.py"),
        ("agent/daemon.py", "import subprocess", "belong to agent/executor.py"),
        ("agent/daemon.py", "import asyncio\nasyncio.create_subprocess_exec('ls')", "belong to agent/executor.py"),
        ("agent/daemon.py", "import signal\nsignal.pidfd_send_signal(3, 9)", "belong to agent/executor.py"),
        ("server/ingest.py", "x = '''\n  SELECT 1'''", "belongs to server/store"),
        ("server/ingest.py", "import clickhouse_connect", "belongs to server/store"),
        ("server/ingest.py", "from sqlalchemy import select", "belongs to server/state.py"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, path: str, source: str, expected: str) -> None:
    _plant(tmp_path, path, source)
    found = violations(tmp_path)
    assert len(found) == 1, found
    assert expected in found[0]
    assert found[0].startswith(f"{path}:")


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("server/app.py", "from agent.wire import Event\nfrom agent import wire\nimport agent.wire"),
        ("playbooks/engine.py", "from playbooks.model import Playbook\nfrom . import limits"),
        ("agent/watcher.py", '"""Reads /proc through procfs."""\nX = 1\n"""/proc/PID/stat, field 22."""'),
        ("agent/settings.py", "ROOT = '/proc'"),
        ("agent/executor.py", "import os, subprocess\nos.kill(1, 9)"),
        ("server/store/rows.py", "QUERY = 'SELECT 1'\nimport chdb"),
        ("server/app.py", '"""SELECT is a word of SQL."""\nTEXT = "SELECTED hosts"'),
    ],
)
def test_what_is_allowed_passes(tmp_path: Path, path: str, source: str) -> None:
    _plant(tmp_path, path, source)
    assert violations(tmp_path) == []


@functools.cache
def _installed(extras: tuple[str, ...]) -> frozenset[str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lists = [parser["options"]["install_requires"], *(parser["options.extras_require"][extra] for extra in extras)]
    names = (re.split(r"[\s\[<>=]", line.strip())[0] for line in "\n".join(lists).splitlines())
    # What comes with a package and is part of how it is used: addresses of aiohttp, errors of kombu.
    return frozenset({*names, "yarl", "amqp"} - {""})


def _plant(root: Path, path: str, source: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True)
    file.write_text(source)


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    is_package = module.path.name == "__init__.py"
    parts = module.name.split(".")
    base = parts[: len(parts) - node.level + is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")
