from __future__ import annotations

from pathlib import Path

from benchmarks.footprint import TOOLS, times_less_cpu
from benchmarks.tools import netdata, process_exporter
from benchmarks.tools.psutil_loop import last_count


def test_the_best_of_the_others_counts() -> None:
    assert times_less_cpu({"reflexd": 0.25, "psutil": 2.0, "netdata": 3.0}) == 8


def test_nothing_to_compare_with() -> None:
    assert times_less_cpu({"reflexd": 0.25}) is None
    assert times_less_cpu({"psutil": 2.0}) is None


def test_the_names_that_readers_of_the_json_rely_on() -> None:
    assert list(TOOLS) == ["reflexd", "psutil", "process_exporter", "netdata"]


def test_the_psutil_loop_tells_its_last_second() -> None:
    assert last_count("200\n199\n") == 199
    assert last_count("") == 0
    assert last_count("Traceback (most recent call last):\n") == 0


def test_netdata_finds_its_parts_below_its_prefix_and_writes_into_its_folder() -> None:
    lines = {line.strip() for line in netdata.settings(Path("/prefix"), Path("/folder"), 4711).splitlines()}
    assert {"plugins = /prefix/usr/lib/netdata/plugins.d", "cache = /folder/cache", "default port = 4711"} <= lines


def test_the_exporter_groups_the_workers_of_this_crowd_by_their_pids() -> None:
    """Backslashes as its YAML wants them: a regular expression in single quotes."""
    assert process_exporter.settings("crowd-4711") == (
        "process_names:\n  - name: \"gunicorn:{{.PID}}\"\n    cmdline:\n      - 'gunicorn: worker \\[crowd-4711-'\n"
    )
