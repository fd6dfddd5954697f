"""The agent's settings: defaults, then the TOML file, then REFLEXD_* of the environment, then the command line."""

from __future__ import annotations

import argparse
import contextlib
import operator
import os
import re
import socket
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from agent.kernel.ladder import RungsError, parse_wishes

DEFAULT_FILE = Path("/etc/reflex/reflexd.toml")
ENVIRONMENT_PREFIX = "REFLEXD_"
MAX_KEY_BYTES = 1024
LOG_LEVELS = ("debug", "info", "warning", "error")
_TRUE, _FALSE = ("true", "yes", "1", "on"), ("false", "no", "0", "off")


class SettingsError(ValueError):
    """A setting that cannot be used; the text says which, where it stands, and what was meant."""


def _doc(text: str, **bounds: float) -> dict[str, Any]:
    """What the setting is for; `least` and `most` bound a number."""
    return {"doc": text, **bounds}


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set."""

    server_url: str = field(
        default="http://127.0.0.1:8765", metadata=_doc("Address of reflex-server: https://…, http://… or unix:/path.")
    )
    host_key_file: Path = field(
        default=Path("/etc/reflex/host-key"), metadata=_doc("File with this host's key, readable by its owner only.")
    )
    host: str = field(
        default_factory=socket.gethostname,
        metadata=_doc("Name of this host; must be the one that its host key was made for."),
    )
    state_dir: Path = field(
        default=Path("/var/lib/reflex/agent"), metadata=_doc("Folder of the spool and other state of the agent.")
    )
    services_file: Path = field(
        default=Path("/etc/reflex/services.toml"),
        metadata=_doc(
            "File that names services, and says the kind of those whose command line does not; it may be absent."
        ),
    )
    policy_file: Path = field(
        default=Path("/etc/reflex/policy.toml"),
        metadata=_doc("File that says which actions the server may ask for on this host; it may be absent."),
    )
    runner_socket: Path = field(
        default=Path("/run/reflex/runner.sock"),
        metadata=_doc(
            "Socket of the runner, which runs builds as the users of apps; without it a root agent starts one."
        ),
    )
    spool_max_bytes: int = field(
        default=256 * 1024 * 1024,
        metadata=_doc("Size of the spool, in bytes, beyond which the oldest samples go first.", least=1024 * 1024),
    )
    log_level: str = field(default="info", metadata=_doc("One of debug, info, warning, error."))
    proc_root: Path = field(default=Path("/proc"), metadata=_doc("Where the proc file system is mounted."))
    only_own_network: bool = field(
        default=False,
        metadata=_doc("Watch only services in the agent's own network namespace, where several hosts share a kernel."),
    )
    bpf_object: Path = field(
        default=Path(__file__).parent / "kernel" / "reflex.bpf.o", metadata=_doc("The compiled BPF programs.")
    )
    rungs: str = field(
        default="",
        metadata=_doc("Means to take for kernel signals, such as oom=counters,queue=diag; others take the best."),
    )
    allow_plain_http: bool = field(
        default=False,
        metadata=_doc("Send the host key over unencrypted http to another machine; only in a trusted net."),
    )
    cpu_budget_percent: float = field(
        default=3.0,
        metadata=_doc(
            "CPU of the agent, in per cent of one core over 30 s, beyond which it sheds samples.", most=10_000
        ),
    )
    memory_budget_mb: int = field(
        default=128, metadata=_doc("Memory of the agent, in MiB, beyond which it sheds samples.", most=1_000_000)
    )
    boot_hang_s: float = field(
        default=60.0,
        metadata=_doc("A worker that is not ready after so many seconds hangs; later where its service boots slowly."),
    )
    stuck_after_s: float = field(
        default=60.0,
        metadata=_doc("A worker or thread that stands still inside of a call for so many seconds is stuck."),
    )
    celery_stuck_after_s: float = field(
        default=300.0,
        metadata=_doc("Age in seconds from which a Celery task of which little is known may be stuck."),
    )
    celery_backlog_window_s: float = field(
        default=120.0,
        metadata=_doc("For so many seconds a Celery queue must grow, all through, to be a backlog.", least=40),
    )
    oom_score_adj: int = field(
        default=-900,
        metadata=_doc("Protection from the OOM killer, as in oom_score_adj; -1000 is refused.", least=-999, most=1000),
    )

    def read_host_key(self) -> str:
        """The key itself; raises SettingsError when the file is missing, empty or readable by others."""
        try:
            with self.host_key_file.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                key = file.read(MAX_KEY_BYTES + 1).decode("ascii").strip()
        except OSError as error:
            raise SettingsError(
                f"the host key {self.host_key_file} cannot be read ({error.strerror}); "
                f"make one with: reflex-server host-key add {self.host} --out {self.host_key_file}"
            ) from None
        except UnicodeDecodeError:
            raise SettingsError(f"the host key {self.host_key_file} is no text; is it the right file?") from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise SettingsError(
                f"the host key {self.host_key_file} can be read by others; run: chmod 600 {self.host_key_file}"
            )
        if not key:
            raise SettingsError(f"the host key {self.host_key_file} is empty")
        if len(key) > MAX_KEY_BYTES or len(key.split()) > 1:
            raise SettingsError(
                f"the host key {self.host_key_file} must be one word on one line; is it the right file?"
            )
        return key


SETTINGS_DOC: Mapping[str, str] = {one.name: one.metadata["doc"] for one in fields(Settings)}
"""What each setting is for, in one line."""

_BOUNDS: Mapping[str, Mapping[str, float]] = {one.name: one.metadata for one in fields(Settings)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--config` and one option for each setting."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"the TOML file (default: {DEFAULT_FILE}, if it is there)"
    )
    for name, doc in SETTINGS_DOC.items():
        parser.add_argument(_option(name), metavar=name.rpartition("_")[2].upper(), help=doc)


def load_settings(options: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this run; raises SettingsError."""
    values: dict[str, Any] = {}
    for name, raw, where in (*_from_file(options.config), *_from_environment(environment), *_from_options(options)):
        values[name] = _convert(name, raw, where)
    return Settings(**values)


def _from_file(named: Path | None) -> list[tuple[str, object, str]]:
    path = named or DEFAULT_FILE
    try:
        with path.open("rb") as file:
            text = file.read().decode()
        table = tomllib.loads(text)
    except FileNotFoundError:
        if named is None:
            return []
        raise SettingsError(f"the settings file {path} is not there") from None
    except OSError as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits and deep nesting among them
        raise SettingsError(f"the settings file {path} is not TOML: {error}") from None
    return [(name, value, f"{path}, line {_line_of(text, name)}") for name, value in table.items()]


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, object, str]]:
    names = [name for name in environment if name.startswith(ENVIRONMENT_PREFIX)]
    return [
        (name.removeprefix(ENVIRONMENT_PREFIX).lower(), environment[name], f"environment, {name}") for name in names
    ]


def _from_options(options: argparse.Namespace) -> list[tuple[str, object, str]]:
    given = {name: getattr(options, name, None) for name in SETTINGS_DOC}
    return [(name, value, f"command line, {_option(name)}") for name, value in given.items() if value is not None]


def _convert(name: str, raw: object, where: str) -> Any:
    known: dict[str, Field[Any]] = {one.name: one for one in fields(Settings)}
    if name not in known:
        from difflib import get_close_matches  # only a mistake needs it

        close = get_close_matches(name, known, n=1)
        meant = f"; did you mean {close[0]}?" if close else f"; the settings are {', '.join(known)}"
        raise SettingsError(f"{where}: there is no setting {name}{meant}")
    kind = str(known[name].type)
    if kind == "bool":
        return _boolean(name, raw, where)
    if kind == "int":
        return _bounded(name, _whole(name, raw, where), where)
    if kind == "float":
        return _bounded(name, _number(name, raw, where), where)
    if not isinstance(raw, str) or not (raw or name == "rungs") or not raw.isprintable():
        raise SettingsError(f"{where}: {name} must be a string of printable characters, not {_shown(raw)}")
    if name == "log_level" and raw not in LOG_LEVELS:
        raise SettingsError(f"{where}: log_level must be one of {', '.join(LOG_LEVELS)}, not {_shown(raw)}")
    if name == "rungs":
        _check_rungs(raw, where)
    return Path(raw) if kind == "Path" else raw


def _check_rungs(raw: str, where: str) -> None:
    try:
        parse_wishes(raw)
    except RungsError as error:
        raise SettingsError(f"{where}: rungs: {error}") from None


def _boolean(name: str, raw: object, where: str) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in (*_TRUE, *_FALSE):
        return raw.lower() in _TRUE
    raise SettingsError(f"{where}: {name} must be true or false, not {_shown(raw)}")


def _whole(name: str, raw: object, where: str) -> int:
    if isinstance(raw, str) and raw.isascii() and raw.removeprefix("-").isdigit() and len(raw) < 19:
        raw = int(raw)
    below_zero = _BOUNDS[name].get("least", 1) < 0
    if isinstance(raw, bool) or not isinstance(raw, int) or (raw <= 0 and not below_zero):
        raise SettingsError(f"{where}: {name} must be a whole number{' above 0' * (not below_zero)}, not {_shown(raw)}")
    return raw


def _number(name: str, raw: object, where: str) -> float:
    if isinstance(raw, str) and len(raw) < 19:
        with contextlib.suppress(ValueError):
            raw = float(raw)
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not raw > 0:
        raise SettingsError(f"{where}: {name} must be a number above 0, not {_shown(raw)}")
    return raw


def _bounded(name: str, value: float, where: str) -> float:
    for bound, breaks in (("least", operator.lt), ("most", operator.gt)):
        limit = _BOUNDS[name].get(bound)
        if limit is not None and breaks(value, limit):
            raise SettingsError(f"{where}: {name} must be at {bound} {limit}, not {value}")
    return value


def _shown(raw: object) -> str:
    """A wrong value in a few characters; a table or list by its type."""
    if isinstance(raw, dict | list):
        return f"a {type(raw).__name__}"
    return repr(raw[:60] if isinstance(raw, str) else raw)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _line_of(text: str, name: str) -> int:
    """The line where a key or table begins: `name = …`, `"name" = …`, `name.part = …` or `[name]`."""
    begins = re.compile(rf"""\s*\[*\s*["']?{re.escape(name)}["']?\s*[=.\]]""")
    for number, line in enumerate(text.split("\n"), 1):
        if begins.match(line):
            return number
    return 1
