"""The decoder: layouts from the BPF object's own type information, records from captured bytes."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from agent.kernel.layout import LayoutError, TypeInformation
from agent.kernel.records import ExecRecord, ExitRecord, ForkRecord, OomReason, OomRecord, RecordDecoder, SignalRecord

OBJECT = Path(__file__).parents[2] / "agent" / "kernel" / "reflex.bpf.o"
CAPTURED = Path(__file__).with_name("captured_records.txt")
"""One OOM kill of a forked child in a cgroup of 50 MiB on Linux 6.12: exec, fork, its signal, its mark, its exit, the parent's exit."""

needs_object = pytest.mark.skipif(not OBJECT.exists(), reason="the BPF object is not built: make -C bpf")


@pytest.fixture(scope="module")
def decoder() -> RecordDecoder:
    return RecordDecoder(TypeInformation(OBJECT.read_bytes()))


@needs_object
def test_captured_records(decoder: RecordDecoder) -> None:
    started, forked, signal, oom, child, parent = [
        decoder.decode(bytes.fromhex(line)) for line in CAPTURED.read_text().split()
    ]
    assert isinstance(started, ExecRecord)
    assert (started.pid, started.comm, started.exe) == (285, "python", "python3.11")
    assert isinstance(forked, ForkRecord)
    assert (forked.parent_pid, forked.pid) == (285, 286)
    assert isinstance(signal, SignalRecord)
    assert (signal.pid, signal.signal, signal.code) == (286, 9, 128)
    assert isinstance(oom, OomRecord)
    assert (oom.pid, oom.allocator_pid, oom.limit_bytes) == (286, 286, 50 * 2**20)
    assert oom.cgroup_name == "rcap"
    assert (oom.anon_bytes, oom.shmem_bytes) == (54628352, 0)
    assert (oom.constraint, oom.chosen_pid, oom.group, oom.total_bytes) == (OomReason.CGROUP, 286, 0, 50 * 2**20)
    assert isinstance(child, ExitRecord)
    assert (child.pid, child.wait_status) == (286, 9)
    assert isinstance(parent, ExitRecord)
    assert (parent.pid, parent.wait_status) == (285, 0)
    assert forked.start_ns == oom.start_ns == child.start_ns


@needs_object
def test_bytes_that_are_no_record_are_refused(decoder: RecordDecoder) -> None:
    for data in (b"", bytes(24), struct.pack("=QQII", 1, 1, 77, 1), struct.pack("=QQII", 1, 1, 3, 1)):
        with pytest.raises(LayoutError, match="cannot be read"):
            decoder.decode(data)


@needs_object
def test_layouts_come_from_the_object() -> None:
    types = TypeInformation(OBJECT.read_bytes())
    assert types.struct("tracked").fields == ("start_ns", "role", "accepts")
    assert types.struct("oom_context").packed.size == 40
    assert types.enum("role")["ROLE_WORKER"] == 2
    with pytest.raises(LayoutError, match="does not describe no_such_struct"):
        types.struct("no_such_struct")


@needs_object
@pytest.mark.parametrize("keep", [0, 10, 63, 200, 5000])
def test_a_damaged_object_is_refused_in_words(keep: int) -> None:
    with pytest.raises(LayoutError):
        TypeInformation(OBJECT.read_bytes()[:keep])
