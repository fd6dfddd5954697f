"""`reflexd status --watch`: the page again and again, in its place; it outlives a restart of the agent."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import orjson
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from agent.status_socket import NoAgentError
from agent.status_view import render

Ask = Callable[[], Mapping[str, Any]]


def watch(ask: Ask, every_s: float) -> None:
    """Until Ctrl-C, which leaves the last page standing; where there is no terminal, page after page.

    Raises NoAgentError when there is no agent to begin with.
    """
    console = Console(highlight=False)
    last = render(ask(), console.width, _rows(console))
    if not console.is_terminal:
        _print_for_ever(console, ask, every_s, last)
    try:
        with Live(last, console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(every_s)
                try:
                    last = render(ask(), console.width, _rows(console))
                    live.update(last, refresh=True)
                except NoAgentError as error:
                    live.update(Group(_no_answer(error), last), refresh=True)
    finally:
        console.print(last)


def watch_json(ask: Ask, every_s: float) -> None:
    """One document a line, until Ctrl-C. Raises NoAgentError as soon as there is no agent."""
    while True:
        sys.stdout.write(orjson.dumps(ask()).decode() + "\n")
        sys.stdout.flush()
        time.sleep(every_s)


def _print_for_ever(console: Console, ask: Ask, every_s: float, page: RenderableType) -> None:
    while True:
        console.print(page, "")
        time.sleep(every_s)
        page = render(ask(), console.width)


def _rows(console: Console) -> int | None:
    return console.height if console.is_terminal else None


def _no_answer(error: NoAgentError) -> Text:
    return Text(f"{datetime.now():%H:%M:%S} No answer now, what follows is old: {error}", style="bold red")
