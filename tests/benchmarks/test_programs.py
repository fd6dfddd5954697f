from __future__ import annotations

from benchmarks.programs import Runs, parse_fdinfo, parse_runs

PROGRAM = """\
pos:\t0
flags:\t02000002
mnt_id:\t17
ino:\t1038
prog_type:\t26
prog_jited:\t1
prog_tag:\tf4869e50ffe1a408
memlock:\t4096
prog_id:\t9039
run_time_ns:\t184320
run_cnt:\t1500
recursion_misses:\t0
verified_insns:\t180
"""

LINK = """\
pos:\t0
flags:\t02000000
mnt_id:\t17
ino:\t1038
link_type:\traw_tracepoint
link_id:\t6001
prog_tag:\tf4869e50ffe1a408
prog_id:\t9039
tp_name:\tsched_process_fork
cookie:\t0
"""


def test_a_programs_descriptor_tells_its_run_times() -> None:
    assert parse_runs(PROGRAM) == Runs(count=1500, time_ns=184320)


def test_other_descriptors_tell_none() -> None:
    assert parse_runs(LINK) is None
    assert parse_runs("pos:\t0\nflags:\t02\n") is None
    assert parse_runs("") is None


def test_a_link_names_its_program_and_tracepoint() -> None:
    fields = parse_fdinfo(LINK)
    assert (fields["prog_id"], fields["tp_name"]) == ("9039", "sched_process_fork")


def test_runs_between_two_readings() -> None:
    runs = Runs(300, 60_000).since(Runs(100, 40_000))
    assert runs == Runs(200, 20_000)
    assert runs.ns_each == 100


def test_no_runs_have_no_mean() -> None:
    assert Runs(0, 0).ns_each is None
