"""A loop over psutil as a careful programmer writes it; a program of its own that imports nothing else of Reflex.

Processes are kept and each is read at once, which is cheaper than looking all of them up anew; `is_running` notices
when a pid has come to belong to somebody else.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence

READINGS = ("memory_info", "cpu_times", "num_threads", "create_time", "status")


def loop(pids: Sequence[int]) -> None:
    """Reads the processes for ever, at the beat of a second, and prints how many of them it read."""
    psutil = importlib.import_module("psutil")
    processes = [psutil.Process(pid) for pid in pids]
    next_s = time.monotonic()
    while True:
        read = [process.as_dict(READINGS) for process in processes if process.is_running()]
        print(len(read), flush=True)
        next_s += 1
        time.sleep(max(next_s - time.monotonic(), 0))


if __name__ == "__main__":
    loop([int(word) for word in sys.argv[1:]])
