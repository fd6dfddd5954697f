"""Where playbooks come from: the library that Reflex brings, and a folder of the operator's own, which goes before it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import playbooks
from playbooks import Playbook, PlaybookError, Problem, read_playbook

LIBRARY = Path(playbooks.__file__).parent / "library"
MOST_FILES = 500
MOST_BYTES = 400_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Book:
    """A playbook with its text. `is_own`: it is the operator's, and not of the library."""

    playbook: Playbook
    text: str
    file: Path
    is_own: bool


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that is not in use because of what is wrong with it. `in_use`: the text before its last change still is."""

    file: Path
    problems: tuple[Problem, ...]
    in_use: bool = False


class Shelf:
    """All playbooks by name. A file that cannot be used leaves the playbook as it was before its change."""

    def __init__(self, own: Path, library: Path = LIBRARY) -> None:
        self._folders = (library, own)
        self._own = own
        self._seen: tuple[tuple[str, int, int], ...] | None = None
        self._of_file: dict[Path, Book] = {}
        self.books: Mapping[str, Book] = {}
        self.broken: tuple[Broken, ...] = ()

    @property
    def playbooks(self) -> Mapping[str, Playbook]:
        """What the engine reads."""
        return {name: book.playbook for name, book in self.books.items()}

    def refresh(self) -> bool:
        """Reads the files again if any has changed; whether something is different now. Blocks for the disk."""
        stamps = tuple(_stamps(self._folders))
        if stamps == self._seen:
            return False
        self._seen = stamps
        broken: list[Broken] = []
        books: dict[str, Book] = {}
        of_file: dict[Path, Book] = {}
        for file in (Path(name) for name, _, _ in stamps):
            book = self._read(file, broken)
            if book is None:
                continue
            of_file[file] = book
            before = books.get(book.playbook.name)
            if before is not None and before.is_own == book.is_own:
                text = f"the name {book.playbook.name!r} is that of {before.file}, too; that one is used"
                broken.append(Broken(file, (Problem(1, 1, text),)))
                continue
            books[book.playbook.name] = book
        self.books, self.broken, self._of_file = books, tuple(broken), of_file
        for one in broken:
            for problem in one.problems:
                log.error("%s:%d:%d: %s", one.file, problem.line, problem.column, problem.text)
        return True

    def _read(self, file: Path, broken: list[Broken]) -> Book | None:
        """The book of a file, or the one before its change where the file cannot be used now."""
        before = self._of_file.get(file)
        try:
            text = _text(file)
            return Book(read_playbook(text, str(file)), text, file, file.is_relative_to(self._own))
        except PlaybookError as error:
            problems = error.problems
        except (OSError, ValueError) as error:
            problems = (Problem(1, 1, f"cannot be read: {error}"),)
        broken.append(Broken(file, problems, in_use=before is not None))
        return before


def _text(file: Path) -> str:
    with file.open("rb") as opened:
        content = opened.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"has more than {MOST_BYTES} bytes")
    return content.decode()


def _stamps(folders: tuple[Path, ...]) -> Iterator[tuple[str, int, int]]:
    """Each file with time and size; the library's files come first."""
    for folder in folders:
        try:
            files = sorted(one for one in folder.iterdir() if one.suffix in (".yaml", ".yml"))
        except OSError:
            continue
        for file in files[:MOST_FILES]:
            try:
                stat = file.stat()
            except OSError:
                continue
            yield str(file), stat.st_mtime_ns, stat.st_size
