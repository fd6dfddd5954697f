from __future__ import annotations

from benchmarks.report import table


def test_what_nests_deeper_gets_a_heading() -> None:
    lines = list(table({"cpus": 2, "storms": {"spawn": {"loss_percent": 0.1}, "gunicorn": None}, "notes": {}}))
    assert lines == [
        "  cpus               2",
        "  storms",
        "    spawn              loss_percent 0.1",
        "    gunicorn           -",
    ]


def test_an_unknown_figure_is_a_dash() -> None:
    assert list(table({"reflexd": {"cpu_percent": None}})) == ["  reflexd            cpu_percent -"]
