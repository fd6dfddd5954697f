"""Whether this processor can run the embedded ClickHouse, asked before the engine is loaded."""

from __future__ import annotations

import platform
from pathlib import Path

from server.errors import StoreCannotStart


def check_cpu(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str | None = None) -> None:
    """Raises StoreCannotStart on an x86 processor without AVX2, where the engine would die of SIGILL."""
    if (machine or platform.machine()) not in ("x86_64", "AMD64"):
        return
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), None)
    if flags is not None and "avx2" not in flags.split():
        raise StoreCannotStart(
            "this machine's processor has no AVX2, which the embedded ClickHouse needs; "
            "use another machine, let the hypervisor pass AVX2 on, or name a ClickHouse server with --clickhouse"
        )
