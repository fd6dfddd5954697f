from __future__ import annotations

import pytest

from benchmarks.drivers import Round, parse_round
from demo.stage import StageError


def test_a_driver_prints_operations_a_second_and_a_cpu_second() -> None:
    assert parse_round("31174.4 15800.0\n") == Round(per_s=31174.4, per_cpu_s=15800)


@pytest.mark.parametrize("output", ["", "0.0 0.0\n", "31174.4\n", "connect: Connection refused\n", "1.0 inf\n"])
def test_a_storm_that_failed_gives_no_rate(output: str) -> None:
    with pytest.raises(StageError, match="gave no rate"):
        parse_round(output)
