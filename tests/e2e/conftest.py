"""The stage of the end-to-end tests: a server and an agent of their own, or a reason why there can be none."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from demo.stage import Stage, StageError, demo_python


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A running server and agent, without a shop."""
    if os.geteuid() != 0:
        pytest.skip("needs root: BPF programs can be loaded by root only")
    try:
        demo_python()
    except StageError as error:
        pytest.skip(str(error))
    async with Stage() as made:
        yield made
