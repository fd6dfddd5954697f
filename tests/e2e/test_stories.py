"""The demo's stories, played once each as users play them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from demo.__main__ import STORIES
from demo.stage import ROOT, StageError, demo_python


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the demo loads BPF programs and makes a memory cgroup")
@pytest.mark.parametrize("story", STORIES)
def test_every_link_of_the_story_is_there(story: str) -> None:
    try:
        demo_python()
    except StageError as error:
        pytest.skip(str(error))
    played = subprocess.run(
        [sys.executable, "-m", "demo", story, "--once", "--json"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert played.returncode == 0, played.stderr + played.stdout
    result = json.loads(played.stdout)
    assert result["ok"]
    assert result["chain"]["root"] == result["chain"]["events"][0]["id"]
    assert result["chain"]["missing"] == []
    assert len(result["chain"]["links"]) >= len(result["links"]) - 1
    assert result["traffic"]["requests"] > 0
