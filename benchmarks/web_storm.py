"""The storm of requests: wrk on a real Gunicorn, whose sync workers take a new connection for each."""

from __future__ import annotations

import re
import resource
from pathlib import Path

from benchmarks.crowd import Member
from benchmarks.drivers import Round, run
from demo.stage import StageError

UNIT = "requests/s"


async def run_round(wrk: Path, member: Member, seconds: float) -> Round:
    """Requests for about so long, in whole seconds as wrk takes them; the CPU time is that of workers and wrk."""
    argv = [str(wrk), "-t1", "-c4", f"-d{max(round(seconds), 1)}s", f"http://127.0.0.1:{member.port}/"]
    before_s = _cpu_s(member)
    count, per_s = parse_wrk(await run(argv))
    return Round(per_s, count / (_cpu_s(member) - before_s))


def parse_wrk(output: str) -> tuple[int, float]:
    """Requests in all and a second; raises StageError when there were none, or errors."""
    count = re.search(r"^\s*(\d+) requests in ", output, re.M)
    rate = re.search(r"^Requests/sec:\s+(\d+\.\d+)$", output, re.M)
    errors = re.search(r"Socket errors|Non-2xx", output)
    if count is None or rate is None or errors is not None or int(count[1]) == 0:
        raise StageError(f"wrk had no requests answered, or errors: {output.strip():.500}")
    return int(count[1]), float(rate[1])


def _cpu_s(member: Member) -> float:
    """CPU time of the workers until now, and of this process's children that ended, wrk among them."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    on_cpu = (Path(f"/proc/{pid}/schedstat").read_text().split()[0] for pid in member.workers())
    return ended.ru_utime + ended.ru_stime + sum(map(int, on_cpu)) / 1e9
