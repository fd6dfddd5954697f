"""Every kind of worker in every version that is installed, watched through one life; what was seen, as a table.

`python -m tests.workers.matrix` renews the table of docs/workers.md; with words, it shows only variants that have one in their key.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.workers.life import Life, Seen
from tests.workers.variants import VARIANTS, Variant

PAGE = Path(__file__).parents[2] / "docs" / "workers.md"
BEGIN, END = "<!-- the table of tests/workers/matrix.py -->", "<!-- its end -->"
HEAD = (
    *(
        "program",
        "version",
        "variant",
        "found when it starts",
        "found when it runs",
        "name",
        "slots",
        "ready",
        "settings",
    ),
    *(
        "SIGKILL",
        "crash",
        "max_requests",
        "reload",
        "replacement linked",
        "stop of the master",
        "SIGKILL of the master",
    ),
)
LOG_LINES = 15


def cells(seen: Seen) -> tuple[str, ...]:
    """A row of the table."""
    marks = {True: "yes", False: "NO", None: "–"}
    picture = (seen.started, seen.found_later, seen.has_its_name, seen.slots, seen.ready, not seen.wrong_settings)
    deaths = (seen.killed, seen.crashed, seen.recycled, seen.reloaded, seen.replaced)
    variant = seen.variant
    known = (marks[value] for value in (*picture, *deaths))
    return (variant.program, variant.version, variant.name, *known, seen.stopped, seen.master_killed)


def is_wrong(cell: str) -> bool:
    """Whether a cell says that something was not seen as it is."""
    return cell in ("NO", "NOT TOLD")


def watch_all(folder: Path, variants: Sequence[Variant] = VARIANTS) -> list[Seen]:
    """One life of all variants that are installed; their logs go into the folder."""
    with Life(variants, folder) as life:
        life.run()
        for key, seen in life.seen.items():
            told = [event.text for event in life.told(key)]
            seen.log = "\n".join([*told, *life.log(key).splitlines()[-LOG_LINES:]])
    return list(life.seen.values())


def table(rows: Iterable[Seen]) -> list[str]:
    """The table in Markdown, line by line."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    return [*lines, *(f"| {' | '.join(cells(seen))} |" for seen in rows)]


def table_of_page() -> list[str]:
    """The table that docs/workers.md has."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip().splitlines()


def main(words: Sequence[str]) -> int:
    """Exit code 1 where a variant was not seen as it should be."""
    chosen = [variant for variant in VARIANTS if not words or any(word in variant.key for word in words)]
    with tempfile.TemporaryDirectory(prefix="reflex-matrix-") as folder:
        rows = watch_all(Path(folder), chosen)
    if not words:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(table(rows)) + f"\n\n{END}{after}")
    print("\n".join(table(rows)))
    wrong = [seen for seen in rows if any(map(is_wrong, cells(seen)))]
    for seen in wrong:
        names = (seen.name, seen.later_name, seen.second_name)
        print(f"\n{seen.variant.key}: names {names}, settings {seen.settings}\n{seen.log}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
