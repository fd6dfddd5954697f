"""Every setting of the server, with its default and one line that says what it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """How one server process runs. Each field is also an option of `reflex-server run` and an environment variable."""

    listen: str = field(
        default="127.0.0.1:8765",
        metadata={"doc": "Address and port for agents, people and scripts; port 0 picks a free one."},
    )
    state: Path = field(
        default=Path("/var/lib/reflex/server"),
        metadata={"doc": "Directory of keys, sessions and, unless `clickhouse` is set, the whole timeline."},
    )
    clickhouse: str = field(
        default="",
        metadata={"doc": "URL of a ClickHouse server (http://user:password@host:8123/reflex); empty: embedded."},
    )
    log_level: str = field(
        default="info", metadata={"doc": "How much is logged on stderr: debug, info, warning or error."}
    )
    first_token_file: Path | None = field(
        default=None,
        metadata={"doc": "File (mode 0600) for the operator token of the very first start, instead of stdout."},
    )
    page_dir: Path = field(
        default=Path(__file__).parent / "web" / "dist", metadata={"doc": "Directory of the built page."}
    )
    silent_after_s: float = field(
        default=15.0, metadata={"doc": "Seconds without a word from an agent until `agent.silent` is told."}
    )
    session_hours: float = field(default=12.0, metadata={"doc": "Hours until a log-in on the page ends."})
    max_inflight_bytes: int = field(
        default=64 * MIB,
        metadata={"doc": "Bytes of batches that may wait for the store at once; more get 429."},
    )
    embedded_memory_bytes: int = field(
        default=1024 * MIB, metadata={"doc": "Most memory, in bytes, that the embedded ClickHouse may use."}
    )
    max_readers: int = field(default=200, metadata={"doc": "Live streams that may be open at once; more get 503."})

    public_url: str = field(
        default="",
        metadata={
            "doc": "Where people reach the page (https://reflex.example); links that are sent elsewhere begin with it."
        },
    )
    playbooks: Path = field(
        default=Path("/etc/reflex/playbooks"),
        metadata={"doc": "Folder of your own playbooks (*.yaml); one with the name of a library's goes before it."},
    )
    channels: Path = field(
        default=Path("/etc/reflex/channels.toml"),
        metadata={"doc": "File with the channels that playbooks tell people by; their addresses stay secret."},
    )

    @property
    def store_dir(self) -> Path:
        """Where the embedded store keeps its parts."""
        return self.state / "store"

    @property
    def state_file(self) -> Path:
        """The SQLite file of the control plane."""
        return self.state / "state.db"


SETTINGS_DOC: Mapping[str, str] = MappingProxyType({f.name: f.metadata["doc"] for f in fields(Settings)})
"""Name of every setting, with its line of documentation."""
