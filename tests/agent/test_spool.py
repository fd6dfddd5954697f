"""The spool on real files: kill -9, a full disk, damage, caps, a second agent, a long backlog."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agent.spool.log
from agent.spool import Drop, Spool, SpoolError
from agent.spool.frames import MAX_PAYLOAD_BYTES

ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024
ROOMY = 64 * MIB
WRITER = """
import sys
from pathlib import Path
from agent.spool import Spool
spool = Spool.open(Path(sys.argv[1]), 64 * 1024 * 1024)
number = 0
while True:
    number += 1
    seq = spool.append_event(b'{"n":%d}' % number)
    sys.stdout.write(f"{seq} {number}\\n")
    sys.stdout.flush()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def everything(spool: Spool) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """Reads and acknowledges all that waits."""
    events: list[tuple[int, bytes]] = []
    samples: list[tuple[int, bytes]] = []
    while spool.waiting:
        batch = spool.next_batch(1000, MIB)
        events += batch.events
        samples += batch.samples
        spool.ack(
            events=batch.events[-1][0] if batch.events else None,
            samples=batch.samples[-1][0] if batch.samples else None,
        )
    return events, samples


def segments(folder: Path, stream: str = "events") -> list[Path]:
    return sorted((folder / stream).glob("*.log"))


def test_what_kill_9_leaves_is_what_append_returned(folder: Path) -> None:
    """Three writers after one another on the same folder; each is killed while it writes."""
    returned: dict[int, bytes] = {}
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(2000)]
            writer.kill()
            lines += writer.stdout.readlines()
        for line in lines:
            if line.endswith(b"\n"):
                seq, number = line.split()
                assert int(seq) not in returned, "a number was used twice"
                returned[int(seq)] = b'{"n":%s}' % number
    spool = Spool.open(folder, ROOMY)
    found = everything(spool)[0]
    assert [seq for seq, _ in found] == sorted(seq for seq, _ in found)
    assert returned.items() <= dict(found).items()
    assert len(found) - len(returned) <= 3, "at most one a writer was kept and not yet told"
    assert spool.take_drops() == []


def test_numbers_rise_by_one_and_go_on_after_everything_was_sent(folder: Path) -> None:
    for first in (1, 4, 7):
        spool = Spool.open(folder, ROOMY)
        assert [spool.append_event(b"{}") for _ in range(3)] == [first, first + 1, first + 2]
        assert len(everything(spool)[0]) == 3
        spool.close()
    assert len(segments(folder)) == 1


def test_numbers_leap_after_a_crash_and_also_without_a_mark(folder: Path) -> None:
    spool = Spool.open(folder, ROOMY)
    last = spool.append_event(b"{}")
    spool.ack(events=last, samples=None)
    spool.close()
    for name in ("mark", *(path.name for path in segments(folder))):
        (folder / "events" / name).unlink()
        spool = Spool.open(folder, ROOMY)
        fresh = spool.append_event(b"{}")
        assert fresh > last
        last = fresh
        spool.close()


def test_a_spool_that_lost_its_numbers_takes_another_name(folder: Path) -> None:
    """The server knows a sample by spool and number: the same name with numbers from 1 would look like a repetition."""
    spool = Spool.open(folder, ROOMY)
    name = spool.id
    spool.close()
    for path in [*segments(folder, "samples"), folder / "samples" / "mark"]:
        path.unlink()
    spool = Spool.open(folder, ROOMY)
    assert spool.id != name
    spool.close()


def test_damage_in_the_middle_costs_only_what_was_damaged(folder: Path) -> None:
    spool = Spool.open(folder, ROOMY)
    for number in range(100):
        spool.append_event(b'{"n":%d}' % number)
    spool.close()
    (path,) = segments(folder)
    data = bytearray(path.read_bytes())
    middle = data.index(b'{"n":50}')
    data[middle : middle + 3] = b"\0\0\0"
    path.write_bytes(data)
    for _ in range(3):
        spool = Spool.open(folder, ROOMY)
        assert [seq for seq, _ in spool.next_batch(1000, MIB).events] == [*range(1, 51), *range(52, 101)]
        spool.close()
    spool = Spool.open(folder, ROOMY)
    assert sum(drop.count for drop in spool.take_drops()) == 1, "told once over all readings and restarts"
    assert len(everything(spool)[0]) == 99
    assert spool.take_drops() == []


def test_a_length_that_lies_costs_one_record(folder: Path) -> None:
    spool = Spool.open(folder, ROOMY)
    for _ in range(10):
        spool.append_event(b"{}")
    spool.close()
    (path,) = segments(folder)
    data = bytearray(path.read_bytes())
    data[4:8] = (MAX_PAYLOAD_BYTES - 1).to_bytes(4, "little")
    path.write_bytes(data)
    spool = Spool.open(folder, ROOMY)
    assert [seq for seq, _ in everything(spool)[0]] == list(range(2, 11))
    assert spool.take_drops() == [Drop("events", 1, "their spool file was damaged")]


def test_a_file_that_was_removed_is_counted(folder: Path) -> None:
    spool = Spool.open(folder, 8 * 1000)
    for _ in range(100):
        spool.append_event(b"{}" * 10)
    spool.close()
    first, second, *_ = segments(folder)
    lost = int(second.name[:20])
    first.unlink()
    spool = Spool.open(folder, 8 * 1000)
    assert [seq for seq, _ in everything(spool)[0]] == list(range(lost + 1, 101))
    assert spool.take_drops() == [Drop("events", lost, "their spool file was damaged")]


def test_a_spool_that_is_removed_under_the_agent_costs_what_was_in_it_and_no_more(folder: Path) -> None:
    spool = Spool.open(folder, ROOMY)
    first = [spool.append_event(b"{}") for _ in range(3)]
    shutil.rmtree(folder)
    later = [spool.append_event(b"{}") for _ in range(3)]
    assert [seq for seq, _ in everything(spool)[0]] == later
    assert spool.take_drops() == [Drop("events", len(first), "their spool file was damaged")]
    waiting = spool.append_event(b"{}")
    before = spool.id
    spool.close()
    spool = Spool.open(folder, ROOMY)
    assert [seq for seq, _ in everything(spool)[0]] == [waiting]
    assert spool.id != before


def test_after_a_file_that_cannot_be_read_comes_one_that_can(folder: Path) -> None:
    spool = Spool.open(folder, ROOMY)
    spool.append_event(b"{}")
    segments(folder)[-1].rename(folder / "moved")
    assert everything(spool) == ([], [])
    assert spool.take_drops() == [Drop("events", 1, "their spool file was damaged")]
    seq = spool.append_event(b"{}")
    assert everything(spool)[0] == [(seq, b"{}")]
    assert spool.take_drops() == []


def test_stray_files_do_no_harm(folder: Path) -> None:
    spool = Spool.open(folder, ROOMY)
    spool.append_event(b"{}")
    spool.close()
    for name in ("core", "notes.log", "1.log", "x-y.log"):
        (folder / "events" / name).write_text("stray")
    spool = Spool.open(folder, ROOMY)
    assert everything(spool)[0] == [(1, b"{}")]


def test_over_the_cap_the_oldest_samples_go_first_then_the_oldest_events(folder: Path) -> None:
    cap = 80_000
    spool = Spool.open(folder, cap)
    payload = b"x" * 480
    for _ in range(50):
        spool.append_event(payload)
    for _ in range(200):
        spool.append_sample(payload)
    (drop,) = spool.take_drops()
    assert (drop.stream, drop.reason) == ("samples", "the spool reached its cap of 0.08 MB")
    assert 90 <= drop.count <= 130
    for _ in range(200):
        spool.append_event(payload)
    drops = {one.stream: one.count for one in spool.take_drops()}
    assert drops["samples"] == 200 - drop.count, "all samples went before the first event"
    assert sum(path.stat().st_size for path in folder.rglob("*.log")) <= cap
    events, samples = everything(spool)
    assert samples == []
    assert len(events) + drops["events"] == 250
    assert [seq for seq, _ in events] == list(range(drops["events"] + 1, 251))


def test_a_record_that_could_never_be_sent_is_refused(folder: Path) -> None:
    spool = Spool.open(folder, ROOMY)
    spool.append_event(b"x" * MAX_PAYLOAD_BYTES)
    with pytest.raises(ValueError, match="is beyond the limit"):
        spool.append_event(b"x" * (MAX_PAYLOAD_BYTES + 1))
    assert [seq for seq, _ in everything(spool)[0]] == [1]


def test_a_second_agent_is_told_clearly(folder: Path) -> None:
    spool = Spool.open(folder, ROOMY)
    with pytest.raises(SpoolError, match="is in use by another agent; stop that one first"):
        Spool.open(folder, ROOMY)
    spool.close()
    Spool.open(folder, ROOMY).close()


def test_a_folder_that_cannot_be_used_is_told_clearly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match=r"cannot be used: .*; free the disk or set state_dir"):
        Spool.open(tmp_path / "file" / "spool", ROOMY)
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "samples").write_text("")
    for _ in range(2):
        with pytest.raises(SpoolError, match="cannot be used"):
            Spool.open(folder, ROOMY)
    (folder / "samples").unlink()
    Spool.open(folder, ROOMY).close()


async def test_only_files_that_were_written_are_synced(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool.open(folder, 800)
    for _ in range(10):
        spool.append_event(b"x" * 40)
    everything(spool)
    await spool.sync()
    await spool.sync()
    assert caplog.text == ""
    spool.close()
    Spool.open(folder, 800).close()


def test_what_waits_shrinks_with_every_acknowledgement(folder: Path) -> None:
    spool = Spool.open(folder, ROOMY)
    for _ in range(10):
        spool.append_event(b"{}")
    full = spool.pending_bytes
    spool.next_batch(5, MIB)
    spool.ack(events=5, samples=None)
    assert spool.pending_bytes == full // 2
    everything(spool)
    assert spool.pending_bytes == 0


def test_a_long_backlog_is_read_once_and_little_at_a_time(folder: Path) -> None:
    """What was measured: bytes that the process read are hardly more than what the spool holds."""
    spool = Spool.open(folder, ROOMY)
    for _ in range(40_000):
        spool.append_event(b"x" * 280)
    held, before = spool.pending_bytes, _bytes_read()
    assert held > 10 * MIB
    assert len(everything(spool)[0]) == 40_000
    assert _bytes_read() - before < held * 2


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_lived_through(tiny_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    spool = Spool.open(tiny_disk / "spool", ROOMY)
    numbers = [spool.append_event(b"x" * 1000) for _ in range(50)]
    ballast = tiny_disk / "ballast"
    _fill(ballast)
    numbers += [spool.append_event(b"y" * 1000) for _ in range(100)]
    assert caplog.text.count("No space left on device") == 1, "said once"
    assert [seq for seq, _ in spool.next_batch(1000, MIB).events] == numbers
    spool.ack(events=numbers[9], samples=None)
    ballast.unlink()
    numbers.append(spool.append_event(b"z" * 1000))
    assert "the spool of events can be written again" in caplog.text
    spool.close()
    spool = Spool.open(tiny_disk / "spool", ROOMY)
    assert [seq for seq, _ in everything(spool)[0]] == numbers[10:]
    assert spool.take_drops() == []
    spool.close()


def test_on_a_full_disk_memory_is_bounded_and_what_it_costs_is_counted(
    tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent.spool.log, "MEMORY_RECORDS", 30)
    spool = Spool.open(tiny_disk / "spool", ROOMY)
    for _ in range(10):
        spool.append_event(b"x" * 1000)
    ballast = tiny_disk / "ballast"
    _fill(ballast)
    numbers = [spool.append_event(b"y" * 5000) for _ in range(100)]
    (drop,) = spool.take_drops()
    assert "No space left on device" in drop.reason
    ballast.unlink()
    spool.append_event(b"z")
    found = [seq for seq, _ in everything(spool)[0]]
    assert len(found) == 10 + 100 + 1 - drop.count
    assert found[-31:-1] == numbers[-30:]
    assert spool.take_drops() == [], "the gap was told when it came about, and is not told again"
    spool.close()


def test_an_agent_starts_on_a_full_disk_that_it_knows(tiny_disk: Path) -> None:
    spool = Spool.open(tiny_disk / "spool", ROOMY)
    spool.append_event(b"{}")
    spool.close()
    ballast = tiny_disk / "ballast"
    _fill(ballast)
    spool = Spool.open(tiny_disk / "spool", ROOMY)
    spool.append_event(b"{}" * 5000)
    assert [seq for seq, _ in everything(spool)[0]] == [1, 2]
    spool.close()


def test_memory_is_bounded_in_bytes_too(tiny_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.spool.log, "MEMORY_BYTES", 10_000)
    spool = Spool.open(tiny_disk / "spool", ROOMY)
    _fill(tiny_disk / "ballast")
    for _ in range(30):
        spool.append_event(b"y" * 4000)
    assert 2 <= len(everything(spool)[0]) <= 4
    spool.close()


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
