"""The spool against a model: nothing kept is lost except what is counted, whatever happens to the files."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.spool import Spool

STREAMS = ("events", "artifacts", "samples")
ROOMY, TIGHT = 1024 * 1024, 1200
PLACE = st.floats(0, 1, exclude_max=True)
PAYLOADS = st.text(min_size=1, max_size=120).map(str.encode)


class SpoolModel(RuleBasedStateMachine):
    """`kept` is what append() returned a number for and nobody acknowledged; every loss must be counted once.

    Faults come one at a time: the next one after everything that is left was sent. Two over each other are not told
    apart: a damaged place before one that was already counted is stepped over, and is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp())
        self.folder = self.top / "spool"
        self.kept: dict[str, dict[int, bytes]] = {stream: {} for stream in STREAMS}
        self.used: dict[str, int] = dict.fromkeys(STREAMS, 0)
        self.acked: dict[str, int] = dict.fromkeys(STREAMS, 0)
        self.told: dict[str, int] = dict.fromkeys(STREAMS, 0)
        self.is_damaged = False
        self.mark_was_lost = False
        self.was_cut_in_a_crash = False

    @initialize(cap=st.sampled_from([ROOMY, TIGHT]))
    def open(self, cap: int) -> None:
        self.cap = cap
        self.spool = Spool.open(self.folder, cap)
        self.ident = self.spool.id

    @rule(stream=st.sampled_from(STREAMS), payloads=st.lists(PAYLOADS, min_size=1, max_size=12))
    def append(self, stream: str, payloads: list[bytes]) -> None:
        keeps = {
            "events": self.spool.append_event,
            "artifacts": self.spool.append_artifact,
            "samples": self.spool.append_sample,
        }
        for payload in payloads:
            seq = keeps[stream](payload)
            assert seq > self.used[stream], "a number was used twice"
            self.used[stream] = seq
            self.kept[stream][seq] = payload

    @rule(records=st.integers(1, 20), size=st.integers(1, 2000), is_acked=st.booleans())
    def send(self, records: int, size: int, is_acked: bool) -> None:
        batch = self.spool.next_batch(records, size)
        assert batch == self.spool.next_batch(records, size), "a batch changed though nothing happened"
        last: dict[str, int | None] = {}
        for stream in STREAMS:
            sent = getattr(batch, stream)
            numbers = [seq for seq, _ in sent]
            assert numbers == sorted(set(numbers)), "order is not kept"
            last[stream] = numbers[-1] if numbers else None
            for seq, payload in sent:
                assert seq > self.acked[stream] or self.mark_was_lost
                assert self.kept[stream].get(seq, payload) == payload
                if is_acked:
                    self.kept[stream].pop(seq, None)
                    self.acked[stream] = seq
        if is_acked:
            self.spool.ack(**last)

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        self._end(clean=clean)
        self._begin()

    @precondition(lambda self: not self.is_damaged)
    @rule(stream=st.sampled_from(STREAMS), at=st.floats(0, 1), clean=st.booleans())
    def cut_the_last_file(self, stream: str, at: float, clean: bool) -> None:
        self._end(clean=clean)
        last = max((self.folder / stream).glob("*.log"))
        os.truncate(last, int(at * last.stat().st_size))
        self.is_damaged = True
        self.was_cut_in_a_crash |= not clean
        self._begin()

    @precondition(lambda self: not self.is_damaged)
    @rule(stream=st.sampled_from(STREAMS), places=st.lists(st.tuples(PLACE, PLACE, st.integers(0, 255)), max_size=4))
    def damage_bytes(self, stream: str, places: list[tuple[float, float, int]]) -> None:
        self._end(clean=True)
        files = sorted(path for path in (self.folder / stream).glob("*.log") if path.stat().st_size)
        for which, at, byte in places if files else []:
            path = files[int(which * len(files))]
            data = bytearray(path.read_bytes())
            data[int(at * len(data))] = byte
            path.write_bytes(data)
        self.is_damaged = True
        self._begin()

    @rule()
    def send_everything(self) -> None:
        while self.spool.waiting:
            self.send(7, 500, is_acked=True)
        self.is_damaged = False

    @rule(stream=st.sampled_from(STREAMS))
    def lose_the_mark(self, stream: str) -> None:
        self.tell_drops()
        self._end(clean=True)
        (self.folder / stream / "mark").unlink()
        self.mark_was_lost = True
        self._begin()

    @rule()
    def tell_drops(self) -> None:
        for drop in self.spool.take_drops():
            assert drop.count > 0
            self.told[drop.stream] += drop.count

    @invariant()
    def the_cap_is_kept(self) -> None:
        size = sum(path.stat().st_size for path in self.folder.glob("*/*.log"))
        assert size <= self.cap

    def _end(self, *, clean: bool) -> None:
        """After a crash there is what the files held at that moment, and nobody closed them."""
        image = self.top / "image"
        if not clean:
            shutil.copytree(self.folder, image)
        self.spool.close()
        if not clean:
            shutil.rmtree(self.folder)
            image.rename(self.folder)

    def _begin(self) -> None:
        self.spool = Spool.open(self.folder, self.cap)
        assert self.spool.id == self.ident

    def teardown(self) -> None:
        """Everything that still waits is sent; what then is missing was told, once."""
        self.send_everything()
        self.tell_drops()
        for stream in STREAMS:
            lost = len(self.kept[stream])
            assert self.told[stream] <= lost or self.mark_was_lost, "a loss was told twice"
            assert self.told[stream] >= lost or self.was_cut_in_a_crash, "a loss was not told"
        self.spool.close()
        shutil.rmtree(self.top)


@pytest.mark.parametrize("steps", [12, 50])
def test_nothing_is_lost_uncounted(steps: int) -> None:
    run_state_machine_as_test(
        SpoolModel,
        settings=settings(
            max_examples=100 if steps == 12 else 30,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
