"""Numbers in sentences."""

from __future__ import annotations

import pytest

from agent.words import signal_name, size, span


@pytest.mark.parametrize(
    ("amount_bytes", "text"),
    [(0, "0"), (4096, "4.0 KiB"), (192 * 2**20, "192.0 MiB"), (3 * 2**29, "1.50 GiB")],
)
def test_sizes(amount_bytes: int, text: str) -> None:
    assert size(amount_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.004, "4 ms"),
        (1.72, "1.72 s"),
        (30.4, "30.4 s"),
        (192, "3 min 12 s"),
        (59.99, "60.0 s"),
        (7260, "2 h 1 min"),
        (187200, "2 d 4 h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_signals() -> None:
    assert signal_name(9) == "SIGKILL"
    assert signal_name(200) == "signal 200"
