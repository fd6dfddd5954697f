"""What is thought of a release, by plain figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.release.gate import Probed, Second, Seen, judge
from agent.wire.app import Watch

MB = 1_000_000
WATCH = Watch(for_s=60)


def seen(
    *,
    seconds: int = 40,
    each_mb: float = 50,
    grows_mb: float = 0,
    workers: int = 4,
    cpu_ms: float = 2,
    wait_ms: float | None = 1,
    took_ms: float = 5,
) -> Seen:
    """A service that is asked a hundred times a second."""
    found = Seen("shop-web", 100.0)
    for second in range(seconds):
        at_s = 101.0 + second
        memory = (each_mb + grows_mb * second) * MB * workers
        found.seconds.append(Second(at_s, memory, workers, second * 100 * cpu_ms / 1000, 100, wait_ms))
        found.probes.append(Probed(at_s, took_ms, ""))
    return found


def test_alike_is_no_change() -> None:
    verdict = judge(seen(), seen(), WATCH, is_over=True)
    assert (verdict.state, verdict.reasons) == ("same", ())
    assert "CPU of a request: 2.00 ms before, 2.00 ms now" in verdict.compared
    assert "memory of a worker: 50 MB before, 50 MB now" in verdict.compared


def test_nothing_seen_decides_nothing() -> None:
    verdict = judge(None, Seen("shop-web", 0.0), WATCH, is_over=True)
    assert (verdict.state, verdict.reasons) == ("unknown", ())
    assert all("not enough seen to compare" in said for said in verdict.compared)


def test_memory_that_grows_without_rest_is_worse_before_the_time_is_up() -> None:
    verdict = judge(seen(), seen(grows_mb=4), WATCH, is_over=False)
    assert verdict.state == "worse"
    assert "grows by 4" in verdict.reasons[0]
    assert "one of the release before held 50 MB" in verdict.reasons[0]


@pytest.mark.parametrize(
    "after",
    [
        seen(each_mb=60),
        seen(grows_mb=0.2),
        seen(seconds=8, grows_mb=20),
        seen(each_mb=74, grows_mb=0.01),
        replace(seen(), seconds=[]),
    ],
    ids=["a little more", "slowly", "seen for too short", "under the ratio", "not seen"],
)
def test_memory_that_says_little_decides_nothing(after: Seen) -> None:
    assert judge(seen(), after, WATCH, is_over=False).state != "worse"


def test_memory_decides_nothing_without_a_release_before() -> None:
    assert judge(None, seen(grows_mb=9), WATCH, is_over=True).state == "same"


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (seen(cpu_ms=5), "CPU of a request: 2.00 ms before, 5.00 ms now"),
        (seen(wait_ms=400), "wait for an accept"),
        (seen(took_ms=300), "median of health checks: 5.0 ms before, 300.0 ms now"),
    ],
)
def test_what_is_slower_is_worse_when_the_time_is_up(after: Seen, said: str) -> None:
    assert judge(seen(), after, WATCH, is_over=False).state == "same"
    verdict = judge(seen(), after, WATCH, is_over=True)
    assert verdict.state == "worse"
    assert said in verdict.reasons[0]


def test_a_death_of_a_fault_is_worse_at_once() -> None:
    after = seen(seconds=2)
    after.faults.append("Worker 1 of shop-web (pid 9) ended after 2 s: SIGSEGV.")
    assert judge(seen(), after, WATCH, is_over=False).reasons == (
        "Worker 1 of shop-web (pid 9) ended after 2 s: SIGSEGV",
    )


def test_deaths_that_were_usual_before_are_no_change() -> None:
    before, after = seen(), seen()
    before.faults += ["one", "two"]
    after.faults += ["three"]
    assert judge(before, after, WATCH, is_over=True).state == "same"
    assert judge(seen(), after, replace(WATCH, deaths=1), is_over=True).state == "same"


def test_health_checks_that_fail_in_a_row_are_worse() -> None:
    after = seen()
    after.probes[-2:] = [Probed(1, 1, "answered / with 500 instead of 200")] * 2
    assert judge(seen(), after, WATCH, is_over=False).state == "same"
    after.probes.append(after.probes[-1])
    assert judge(seen(), after, WATCH, is_over=False).reasons == (
        "shop-web answered / with 500 instead of 200, 3 times in a row",
    )


def test_a_backlog_that_grows_is_worse() -> None:
    before, after = seen(), seen()
    before.lengths += [3, 9, 4]
    after.lengths += [9, 30, 60, 90]
    assert "tasks that wait: 9 at most before, 90 now" in judge(before, after, WATCH, is_over=True).reasons
    after.lengths += [40]
    assert judge(before, after, WATCH, is_over=True).state == "same"


@given(st.floats(1, 5_000), st.integers(1, 16), st.floats(0.1, 500), st.floats(0, 100), st.floats(0.1, 1000))
def test_a_release_is_never_worse_than_itself(
    each_mb: float, workers: int, cpu_ms: float, wait_ms: float, took_ms: float
) -> None:
    one = seen(each_mb=each_mb, workers=workers, cpu_ms=cpu_ms, wait_ms=wait_ms, took_ms=took_ms)
    assert judge(one, one, WATCH, is_over=True).state == "same"
