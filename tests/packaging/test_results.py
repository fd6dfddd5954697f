"""From lines of progress to what is shown: nothing that did not happen looks like a success."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from results import Outcome, ProbeResult, Progress, Run, State, Verdict, parse_lines
from table import as_json, report, summary_line

PASSED = Verdict("tests/kernel/test_a.py::test_one", Outcome.PASSED, 1.5)
FAILED = Verdict("tests/kernel/test_a.py::test_two", Outcome.FAILED, 2.0, "assert 1 == 2\nwhole text")
SKIPPED = Verdict("tests/kernel/test_a.py::test_three", Outcome.SKIPPED, 0.1, "no kprobes on this kernel")
PROBE = ProbeResult("oom", "attached", "tp_btf/mark_victim", "")
RUN = Run("6.1", "6.1.0-56-amd64", State.RAN, boot_s=20.0, total_s=60.0, tests=(PASSED, SKIPPED), probes=(PROBE,))


def heard(*lines: dict[str, Any]) -> Progress:
    progress = Progress()
    for second, line in enumerate(lines):
        progress.hear(line, float(second))
    return progress


def test_a_vm_that_tells_all() -> None:
    progress = heard(
        {"at": "booted"},
        {"at": "probes", "probes": [{"signal": "oom", "state": "off", "rung": "", "reason": "why", "records": 1}]},
        {"at": "collected", "tests": ["a", "b"]},
        {"at": "started", "test": "a"},
        {"at": "ended", "test": "a", "outcome": "passed", "seconds": 1.0, "why": ""},
        {"at": "started", "test": "b"},
        {"at": "ended", "test": "b", "outcome": "skipped", "seconds": 0.0, "why": "reason"},
        {"at": "finished", "exit": 0},
    )
    assert progress.booted_s == 0.0
    assert progress.probes == [ProbeResult("oom", "off", "", "why")]
    assert progress.tests() == (
        Verdict("a", Outcome.PASSED, 1.0),
        Verdict("b", Outcome.SKIPPED, 0.0, "reason"),
    )
    assert progress.finished


def test_a_vm_that_stops_in_a_test() -> None:
    progress = heard({"at": "collected", "tests": ["a", "b", "c"]}, {"at": "started", "test": "b"})
    assert [test.outcome for test in progress.tests()] == [Outcome.NOT_RUN, Outcome.CUT_OFF, Outcome.NOT_RUN]
    assert not progress.finished


def test_a_line_that_is_not_whole_yet_waits() -> None:
    assert list(parse_lines('{"at": "booted"}\n{"at": "pro')) == [{"at": "booted"}]


@pytest.mark.parametrize(
    ("run", "failed"),
    [
        (RUN, False),
        (replace(RUN, tests=(PASSED, FAILED)), True),
        (replace(RUN, tests=(PASSED, replace(PASSED, outcome=Outcome.CUT_OFF))), True),
        (replace(RUN, tests=(PASSED, replace(PASSED, outcome=Outcome.NOT_RUN))), True),
        (replace(RUN, tests=(SKIPPED,)), True),
        (replace(RUN, tests=()), True),
        (replace(RUN, state=State.CUT_OFF, why="took longer than 900 s; killed"), True),
        (replace(RUN, state=State.NOT_BOOTED, tests=(), why="did not come up"), False),
        (replace(RUN, state=State.NOT_HAD, tests=(), why="no image"), False),
    ],
)
def test_what_counts_as_failed(run: Run, failed: bool) -> None:
    assert run.has_failed is failed


def test_the_report_shows_both_tables_and_every_reason_in_full() -> None:
    other = replace(
        RUN, kernel="6.12", release="6.12.1", tests=(PASSED, FAILED), probes=(replace(PROBE, rung="kprobe"),)
    )
    text = report([RUN, other])
    assert "signal  6.1.0-56-amd64      6.12.1\noom     tp_btf/mark_victim  kprobe\n" in text
    assert "test_a.py::test_one    passed 1.5 s    passed 1.5 s\n" in text
    assert "test_a.py::test_three  skipped         -\n" in text
    assert "skipped: no kprobes on this kernel\n    test_a.py::test_three\n" in text
    assert "test_a.py::test_two: FAILED\n    assert 1 == 2\n    whole text" in text
    assert text.endswith("6.12.1: 1 passed, 1 failed; boot 20 s, tests 4 s, all 60 s")


def test_the_report_of_a_kernel_that_was_not_had() -> None:
    text = report([Run("6.12", "", State.NOT_HAD, why="apt knows no package of it")])
    assert text == "6.12: not run: apt knows no package of it"


def test_the_report_of_a_boot_that_hangs_shows_the_console() -> None:
    text = report(
        [Run("6.1", "6.1.0", State.NOT_BOOTED, why="did not come up", console="line\n" * 99 + "Kernel panic")]
    )
    assert "6.1.0: not run: did not come up" in text
    assert text.count("line") == 39 + 1
    assert "    Kernel panic\n" in text


def test_a_run_without_a_pass_says_so() -> None:
    assert "not one test passed, so nothing is shown" in summary_line(replace(RUN, tests=(SKIPPED,)))


def test_for_machines() -> None:
    told = json.loads(json.dumps(as_json([RUN], 0)))
    assert told["exit_code"] == 0
    (kernel,) = told["kernels"]
    assert (kernel["release"], kernel["state"], kernel["why"]) == ("6.1.0-56-amd64", "ran", "")
    assert kernel["tests"][1] == {
        "test": SKIPPED.name,
        "outcome": "skipped",
        "seconds": 0.1,
        "why": "no kprobes on this kernel",
    }
    assert kernel["probes"][0]["rung"] == "tp_btf/mark_victim"
