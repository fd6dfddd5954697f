"""The scripts of packaging/kernels are run as a folder and import each other by their bare names; so do their tests."""

from __future__ import annotations

import sys
from pathlib import Path

KERNELS = Path(__file__).parents[2] / "packaging" / "kernels"
sys.path.insert(0, str(KERNELS))
