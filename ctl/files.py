"""Files that an operator names: what they say, and where the server found mistakes in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctl.errors import Misused
from ctl.safe import clean


def read_text(file: Path, most_bytes: int) -> str:
    """What a file says; raises Misused for one that cannot be read, is too large or no text."""
    try:
        with file.open("rb") as opened:
            content = opened.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise Misused(f"{file} has more than {most_bytes} bytes")
        return content.decode()
    except OSError as error:
        raise Misused(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misused(f"{file} is not UTF-8") from None


def mistake(file: Path | str, problem: Mapping[str, Any]) -> str:
    """One mistake with its place, as compilers print it."""
    return f"{clean(str(file))}:{problem['line']}:{problem['column']}: {clean(problem['text'])}"
