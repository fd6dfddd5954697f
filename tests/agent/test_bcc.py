"""The BCC rung without a compiler: which headers are refused, how sources are translated, what a broken child means."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.kernel import bcc
from agent.kernel.bcc import BccError, hands_over_the_task, matching_headers, python_with_bcc

BPF = Path(__file__).parents[2] / "bpf"


@pytest.fixture(scope="module")
def translation() -> Any:
    spec = importlib.util.spec_from_file_location("bcc_source", BPF / "bcc_source.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _headers(modules: Path, release: str, holds: str) -> Path:
    build = modules / release / "build"
    (build / "include/generated").mkdir(parents=True)
    (build / "include/generated/utsrelease.h").write_text(f'#define UTS_RELEASE "{holds}"\n')
    return build


def test_headers_of_this_very_kernel_are_taken(tmp_path: Path) -> None:
    build = _headers(tmp_path, "6.1.0-9-amd64", "6.1.0-9-amd64")
    assert matching_headers("6.1.0-9-amd64", tmp_path) == build


def test_headers_of_another_kernel_are_refused(tmp_path: Path) -> None:
    _headers(tmp_path, "6.1.0-9-amd64", "6.1.0-8-amd64")
    with pytest.raises(BccError, match="headers of 6.1.0-8-amd64, the running kernel is 6.1.0-9-amd64.*garbage"):
        matching_headers("6.1.0-9-amd64", tmp_path)


def test_missing_headers_name_their_package(tmp_path: Path) -> None:
    with pytest.raises(BccError, match="install the package linux-headers-6.1.0-9-amd64"):
        matching_headers("6.1.0-9-amd64", tmp_path)


@pytest.mark.parametrize(("prototype", "task"), [("struct task_struct *task, uid_t uid", True), ("int pid", False)])
def test_what_mark_victim_gives_is_read_from_the_headers(tmp_path: Path, prototype: str, task: bool) -> None:
    """The declaration stands in the common part of the headers, beside those of the architecture."""
    own, common = tmp_path / "linux-headers-6.1.0-9-amd64", tmp_path / "linux-headers-6.1.0-9-common"
    own.mkdir()
    (common / "include/trace/events").mkdir(parents=True)
    (common / "include/trace/events/oom.h").write_text(
        f"TRACE_EVENT(other,\n\tTP_PROTO(long a)\n);\nTRACE_EVENT(mark_victim,\n\tTP_PROTO({prototype}),\n"
    )
    assert hands_over_the_task(own) is task


def test_no_python_with_bcc_names_the_package() -> None:
    with pytest.raises(BccError, match="install the package python3-bpfcc"):
        python_with_bcc(("/does/not/exist", "/bin/false"))


def test_an_answer_that_does_not_fit_closes_its_descriptors() -> None:
    read_end, write_end = os.pipe()
    with pytest.raises(BccError, match="no answer that can be read"):
        bcc._named(json.dumps({"names": ["map records"]}).encode(), [read_end, write_end])
    for descriptor in (read_end, write_end):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_what_bcc_says_is_the_reason() -> None:
    with pytest.raises(BccError, match="refused the programs: Exception: no such function"):
        bcc._named(json.dumps({"error": "Exception: no such function"}).encode(), [])


def test_maps_and_programs_are_said_in_bcc(translation: Any) -> None:
    source = (
        "struct {\n\t__uint(type, BPF_MAP_TYPE_HASH);\n\t__uint(max_entries, 8);\n\t__type(key, __u32);\n"
        '\t__type(value, struct one);\n} table SEC(".maps");\n'
        'SEC("tp_btf/some_event")\nint BPF_PROG(on_it, struct task_struct *task, int number)\n{\n'
        "\tstruct one *found = bpf_map_lookup_elem(&table, &number);\n\n\treturn found ? 1 : 0;\n}\n"
        'SEC("fentry/some_function")\nint BPF_PROG(on_enter, int number)\n{\n\treturn 0;\n}\n'
    )
    said = translation.translate(source)
    assert 'BPF_TABLE("hash", __u32, struct one, table, 8);' in said
    assert (
        "int on_it(struct bpf_raw_tracepoint_args *ctx)\n{\n\tstruct task_struct *task = (struct task_struct *)ctx->args[0];"
        in said
    )
    assert "table.lookup(&number)" in said
    assert "on_enter" not in said


def test_a_form_that_is_not_known_is_refused(translation: Any) -> None:
    with pytest.raises(translation.SourceError, match="cannot be said in BCC: bpf_map_push_elem"):
        translation.translate("bpf_map_push_elem(&stack, &value, 0);\n")


def test_all_sources_can_be_said(translation: Any) -> None:
    text = translation.one_file()
    for program in (*(name for _, name in bcc.RAW_TRACEPOINTS.values()), *bcc.OOM_PROGRAMS.values()):
        assert f"int {program}(struct bpf_raw_tracepoint_args *ctx)" in text
    for program in bcc.KPROBES.values():
        assert f"int {program}(struct pt_regs *ctx" in text
    assert all(f", {name}, " in text or f"({name}, " in text for name in bcc.MAPS)
