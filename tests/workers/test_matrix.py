"""Every kind of worker in old and new versions, through one life; docs/workers.md has what is seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.workers.matrix import HEAD, VARIANTS, Seen, Variant, table, table_of_page, watch_all


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    if os.geteuid() != 0:
        pytest.skip("needs root: BPF programs can be loaded by root only")
    folder: Path = tmp_path_factory.mktemp("matrix")
    return {seen.variant.key: seen for seen in watch_all(folder)}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.key)
def test_what_is_seen_of_it(life: dict[str, Seen], variant: Variant) -> None:
    seen = life.get(variant.key)
    if seen is None:
        pytest.skip("not installed: ./reflex setup --dev installs it")
    cells = dict(zip(HEAD, seen.cells(), strict=True))
    wrong = {name: value for name, value in cells.items() if value in ("NO", "NOT TOLD")}
    assert not wrong, f"{wrong}, settings {seen.settings}, name {seen.name}\n{seen.log}"


def test_the_page_says_the_same(life: dict[str, Seen]) -> None:
    missing = [line for line in table(life.values()) if line not in table_of_page()]
    assert missing == [], "renew it: .venv/bin/python -m tests.workers.matrix"
