"""Every kind of worker in old and new versions, through one life; docs/workers.md has what is seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.workers.life import Seen
from tests.workers.matrix import HEAD, cells, is_wrong, table_of_page, watch_all
from tests.workers.variants import VARIANTS, Variant


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    if os.geteuid() != 0:
        pytest.skip("needs root: BPF programs can be loaded by root only")
    folder: Path = tmp_path_factory.mktemp("matrix")
    return {seen.variant.key: seen for seen in watch_all(folder)}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.key)
def test_what_is_seen_of_it(life: dict[str, Seen], variant: Variant) -> None:
    seen = life.get(variant.key)
    if seen is None:
        pytest.skip("not installed: ./reflex setup --dev installs it")
    wrong = {name: cell for name, cell in zip(HEAD, cells(seen), strict=True) if is_wrong(cell)}
    names = (seen.name, seen.later_name, seen.second_name)
    assert not wrong, f"{wrong}, settings {seen.settings}, names {names}\n{seen.log}"


def test_the_page_says_the_same(life: dict[str, Seen]) -> None:
    page = {row[:3]: row for line in table_of_page() if (row := tuple(line.strip("| ").split(" | ")))}
    other = [row for seen in life.values() if page.get((row := cells(seen))[:3]) != row]
    assert other == [], "renew it: .venv/bin/python -m tests.workers.matrix"
