"""Recorded life through the whole library in shadow: every fault finds its playbook, and everyday life finds none."""

from __future__ import annotations

from benchmarks.shadow_week import QUIET, library, play, recordings

EXPECTED = {
    "backlog": {"celery-backlog"},
    "boothang": set[str](),
    "celery-dead": {"celery-orphaned-unacked", "celery-worker-dead"},
    "kill9": set[str](),
    "leak": {"gunicorn-leak-surge"},
    "losttask": {"celery-child-oom"},
    "oom": {"gunicorn-worker-oom"},
    "poison": {"celery-child-oom", "celery-poison-task"},
    "silent": {"celery-silent-consumer"},
    "stuck": {"celery-stuck-task"},
    "timeout": set[str](),
}
"""A worker that hangs while it boots, one that a person killed and one that its master killed are no repair's business."""


def test_each_fault_finds_its_playbooks_and_everyday_life_none() -> None:
    would, _, events = play(12)
    assert events > 12 * 5_000
    assert [one.text for one in would if one.recording == QUIET] == []
    found = {name: {one.playbook for one in would if one.recording == name} for name in recordings() if name != QUIET}
    assert found == EXPECTED
    assert set().union(*found.values()) <= library().keys()
