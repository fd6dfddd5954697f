"""Reads the file of a repository in a process of its own: `python -m agent.release.own_file`.

What reads YAML is large, and is wanted once in a deploy: it ends with the process. One JSON object comes in with `text`,
`file` and `services`; one goes out, with `own` or with `wrong`, which has a line for each mistake.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from typing import Any

import orjson

from agent.executor import output_of
from agent.release.runner import interpreter
from agent.wire.app import App

MOST_BYTES = 100_000
"""Of the file; a larger one is refused."""

READ_S = 60.0
_MOST_OUTPUT_BYTES = 1_000_000


class OwnFileWrong(ValueError):
    """The file cannot be used; the text has a line for each mistake, with file, line and column."""


async def read_own_file(raw: bytes, app: App) -> dict[str, Any]:
    """What the file says, as plain values of the wire. Raises OwnFileWrong and OSError."""
    services = {"web": [one.service for one in app.web], "celery": [one.service for one in app.jobs]}
    asked = {"text": base64.b64encode(raw).decode(), "file": app.own_file, "services": services}
    program = [*interpreter(), "-m", "agent.release.own_file"]
    done = await output_of(program, seconds=READ_S, most_bytes=_MOST_OUTPUT_BYTES, given=orjson.dumps(asked))
    if done.code != 0:
        raise OSError(f"what reads {app.own_file} ended with code {done.code}: {done.errors.decode()[-200:]}")
    answer = orjson.loads(done.text)
    if "wrong" in answer:
        raise OwnFileWrong(answer["wrong"])
    return dict(answer["own"])


def _read(asked: Mapping[str, Any]) -> dict[str, Any]:
    from playbooks.apps import read_own
    from playbooks.problems import PlaybookError

    try:
        text = base64.b64decode(asked["text"]).decode()
        return {"own": read_own(text, asked["file"], asked["services"])}
    except UnicodeDecodeError as error:
        return {"wrong": f"{asked['file']}:1:1: is no UTF-8: {error.reason}"}
    except PlaybookError as error:
        return {"wrong": str(error)}


if __name__ == "__main__":
    json.dump(_read(json.load(sys.stdin)), sys.stdout)
