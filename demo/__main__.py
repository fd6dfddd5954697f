"""`./reflex demo`: plays a story on real programs and checks the chain of events that comes of it."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import pkgutil
import sys
from pathlib import Path
from typing import Any

import aiohttp

import demo.stories
from demo.chain import Verdict, check_chain
from demo.queue_of_jobs import Jobs, JobsOptions
from demo.stage import EXIT_STOPPED, Stage, StageError, until_told
from demo.traffic import Traffic

STORIES = tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(demo.stories.__path__)))
PAUSE_BETWEEN_S = 20.0


def main() -> int:
    """Exit codes: 0 every link of the chain is there, 1 one is missing, 2 usage, 3 no stage, 130 stopped."""
    options = _parser().parse_args()
    if os.geteuid() != 0:
        print("The demo needs root: it makes a memory cgroup and loads BPF programs. Run: sudo ./reflex demo")
        return 3
    try:
        return asyncio.run(until_told(_once(options) if options.once else _show(options)))
    except (StageError, OSError, aiohttp.ClientError) as error:
        print(f"The demo could not be played: {error}", file=sys.stderr)
        return 3
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_STOPPED


def _parser() -> argparse.ArgumentParser:
    stories = "\n".join(f"  {name:19} {_story(name).TITLE}" for name in STORIES)
    parser = argparse.ArgumentParser(
        prog="reflex demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Plays a story on a real Gunicorn or Celery and shows the causal chain that Reflex makes of it.",
        epilog=f"Stories:\n{stories}\n\nExamples:\n  sudo ./reflex demo oom\n  sudo ./reflex demo kill9 --once --json",
    )
    parser.add_argument("story", nargs="?", choices=STORIES, help="which story; without one, all of them in turn")
    parser.add_argument("--once", action="store_true", help="play once without a browser, check the chain, and end")
    parser.add_argument("--json", action="store_true", help="with --once: print the chain and the verdicts as JSON")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="with --once and a story: keep the timeline, as gzipped lines of JSON",
    )
    return parser


def _story(name: str) -> Any:
    return importlib.import_module(f"demo.stories.{name.replace('-', '_')}")


def _playbooks(story: Any) -> dict[str, str]:
    """Playbooks that a story is about, as files."""
    return {f"{name}.yaml": text for name, text in getattr(story, "PLAYBOOKS", {}).items()}


async def _once(options: argparse.Namespace) -> int:
    names = (options.story,) if options.story else STORIES
    results = []
    for name in names:
        story = _story(name)
        async with Stage(log=_note, agent=story.OPTIONS.agent, playbooks=_playbooks(story)) as stage:
            results.append(await _play(stage, name))
            if options.record is not None:
                _note(f"{await stage.record(options.record)} events are kept in {options.record}")
    for result in results:
        if not options.json:
            _print_result(result)
    if options.json:
        print(json.dumps(results[0] if options.story else results, indent=2))
    return 0 if all(result["ok"] for result in results) else 1


async def _play(stage: Stage, name: str) -> dict[str, Any]:
    story = _story(name)
    if hasattr(story, "play_all"):
        _note(f"story {name}: {story.TITLE}")
        whole: dict[str, Any] = await story.play_all(stage)
        return whole
    traffic = Traffic(await _set_up(stage, story))
    _note(f"story {name}: {story.TITLE}")
    async with traffic:
        root = await story.play(traffic.of)
        chain = await _complete_chain(stage, root["id"], story)
    verdicts = check_chain(chain["events"], story.LINKS)
    return {
        "story": name,
        "ok": all(verdict.ok for verdict in verdicts),
        "links": [_as_dict(verdict) for verdict in verdicts],
        "traffic": stage.figures or {"requests": traffic.requests, "failed": traffic.failed},
        "chain": chain,
    }


async def _set_up(stage: Stage, story: Any) -> Stage | Jobs:
    """What the story is played on: the shop, or its background jobs."""
    options = story.OPTIONS
    if isinstance(options, JobsOptions):
        _note(f"starting a real Redis and a real Celery node with {options.processes} processes")
        jobs = Jobs(stage, options)
        await jobs.start()
        return jobs
    _note(f"starting a real Gunicorn with {options.workers} workers in a memory cgroup")
    await stage.start_shop(options)
    return stage


async def _complete_chain(stage: Stage, root: str, story: Any) -> Any:
    """The chain once all its links are there, or as far as it came within the time."""
    latest: dict[str, Any] = {}

    async def whole() -> bool:
        latest.update(await stage.get(f"/v1/chain/{root}"))
        return all(verdict.ok for verdict in check_chain(latest["events"], story.LINKS))

    try:
        await stage.until(whole, "the chain is not complete")
    except StageError as error:
        print(error, file=sys.stderr)
    return latest


async def _show(options: argparse.Namespace) -> int:
    """Plays stories again and again with the page open, until Ctrl-C."""
    names = (options.story,) if options.story else STORIES
    settings = tuple(dict.fromkeys(option for name in names for option in _story(name).OPTIONS.agent))
    playbooks = {file: text for name in names for file, text in _playbooks(_story(name)).items()}
    async with Stage(log=_note, agent=settings, playbooks=playbooks) as stage:
        print(f"\nWatch it here (Ctrl-C ends everything):\n  {stage.url}/#token={stage.token}\n", flush=True)
        while True:
            for name in names:
                story = _story(name)
                if hasattr(story, "play_all"):
                    await _play(stage, name)
                    await stage.end_programs()
                    continue
                traffic = Traffic(await _set_up(stage, story))
                async with traffic:
                    _note(f"story {name}: {story.TITLE}")
                    await story.play(traffic.of)
                    await asyncio.sleep(PAUSE_BETWEEN_S)
                await stage.end_programs()


def _as_dict(verdict: Verdict) -> dict[str, Any]:
    return {"kind": verdict.kind, "claim": verdict.claim, "ok": verdict.ok, "found": verdict.found}


def _print_result(result: dict[str, Any]) -> None:
    print(f"\nStory {result['story']}: {'every link is there' if result['ok'] else 'a link is missing'}")
    for link in result["links"]:
        print(f"  {'ok  ' if link['ok'] else 'MISS'} {link['kind']:18} {link['claim']}\n       {link['found']}")
    traffic = result["traffic"]
    if "requests" not in traffic:
        for name, counts in traffic.items():
            print(f"  {name}: {', '.join(f'{number} {what}' for what, number in counts.items())}")
        return
    print(f"  meanwhile {traffic['requests']} visits or tasks, {traffic['failed']} of them failed")


def _note(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
