from __future__ import annotations

import pytest

from benchmarks.web_storm import parse_wrk
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


def test_wrk_tells_requests_and_rate() -> None:
    assert parse_wrk(WRK) == (3893, 3892.51)


@pytest.mark.parametrize(
    "output",
    [
        "",
        WRK.replace("3893 requests", "0 requests"),
        WRK + "  Socket errors: connect 0, read 12, write 0, timeout 0\n",
        WRK + "  Non-2xx or 3xx responses: 7\n",
    ],
)
def test_requests_that_failed_are_no_measurement(output: str) -> None:
    with pytest.raises(StageError, match="errors"):
        parse_wrk(output)
