from __future__ import annotations

import pytest

from benchmarks.drivers import parse_rate
from demo.stage import StageError

WRK = """\
Running 1s test @ http://127.0.0.1:8000/
  1 threads and 4 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.02ms  228.23us   4.11ms   81.20%
    Req/Sec     3.91k   301.99     4.32k    70.00%
  3893 requests in 1.00s, 632.90KB read
Requests/sec:   3892.51
Transfer/sec:    632.82KB
"""


def test_a_driver_prints_its_rate() -> None:
    assert parse_rate("31174.4\n") == 31174.4


def test_wrk_prints_its_rate_among_others() -> None:
    assert parse_rate(WRK) == 3892.51


@pytest.mark.parametrize(
    "output",
    [
        "",
        "0.0\n",
        WRK.replace("Requests/sec:   3892.51", "Requests/sec:      0.00"),
        WRK + "  Socket errors: connect 0, read 12, write 0, timeout 0\n",
        WRK + "  Non-2xx or 3xx responses: 7\n",
    ],
)
def test_a_storm_that_failed_gives_no_rate(output: str) -> None:
    with pytest.raises(StageError, match="no rate, or errors"):
        parse_rate(output)
