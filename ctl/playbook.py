"""`reflexctl playbook …`: which playbooks there are, what they would do, and what people say to them."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ctl.act import place_of
from ctl.client import Client
from ctl.errors import MistakesFound, NothingFound
from ctl.files import mistake, read_text
from ctl.safe import clean, pad
from ctl.screen import Screen, show, show_json
from ctl.timeline import TimelinePrinter

MOST_FILE_BYTES = 400_000

HISTORY_KINDS = (
    "started",
    "step",
    "verified",
    "failed",
    "escalated",
    "cancelled",
    "skipped",
    "would_run",
    "waiting",
    "recurring",
)


async def playbook(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    """Runs one of the commands; raises CtlError."""
    await _COMMANDS[options.playbook](client, options, screen)


async def _list(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    answer = await client.get("/v1/playbooks")
    if options.json:
        show_json(answer)
        return
    if answer.get("stopped_by"):
        show(
            screen.paint(
                f"{clean(answer['stopped_by'])} has stopped all playbooks: reflexctl playbook resume", "critical"
            ),
            "",
        )
    books = answer.get("playbooks", [])
    width = max((len(str(one["name"])) for one in books), default=0)
    for one in books:
        mode = pad(clean(one["mode"]), 6)
        painted = screen.paint(mode, "bold") if one["mode"] == "armed" else mode
        acted = f", acted {one['acted_last_hour']} times in the last hour" if one["acted_last_hour"] else ""
        runs = ", ".join(f"{run['phase']} on {run['service'] or run['host']}" for run in one["runs"])
        show(
            f"{painted}  {pad(clean(one['name']), width)}  {clean(one['title'])}{acted}{f' ({clean(runs)})' if runs else ''}"
        )
    for one in answer.get("broken", []):
        for problem in one["problems"]:
            show(screen.paint(mistake(one["file"], problem), "critical"))
    if not books:
        raise NothingFound("the server has no playbooks")


async def _show(client: Client, options: argparse.Namespace, _screen: Screen) -> None:
    answer = await client.get(f"/v1/playbooks/{options.name}")
    if options.json:
        show_json(answer)
        return
    whose = "of your own" if answer["own"] else "of the library"
    limits = answer["limits"]
    show(
        f"{answer['name']}: {answer['title']}",
        f"{answer['mode']} (its file says {answer['file_mode']}), {whose}: {answer['file']}",
        f"at most {limits['per_hour']} times an hour for one target and {limits['fleet_per_hour']} for all, "
        f"{limits['cooldown_s']} s apart; {answer['acted_last_hour']} times in the last hour",
        *(
            [f"run by these hosts themselves: {clean(', '.join(sorted(answer['lent_to'])))}"]
            if answer["lent_to"]
            else []
        ),
        "",
        *str(answer["text"]).rstrip().splitlines(),
    )


async def _lint(client: Client, options: argparse.Namespace, _screen: Screen) -> None:
    answers = [
        await client.post("/v1/playbooks/check", {"file": str(one), "text": read_text(one, MOST_FILE_BYTES)})
        for one in options.file
    ]
    mistakes = sum(len(one["problems"]) for one in answers)
    if options.json:
        show_json({"files": answers})
    else:
        for one in answers:
            show(*(mistake(one["file"], problem) for problem in one["problems"]))
            if not one["problems"]:
                show(f"{one['file']}: {one['name']} can be used")
    if mistakes:
        raise MistakesFound(f"{mistakes} mistake{'s' * (mistakes > 1)}")


async def _test(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    file = Path(options.playbook_or_file)
    is_file = file.suffix in (".yaml", ".yml")
    what = (
        {"text": read_text(file, MOST_FILE_BYTES), "file": str(file)} if is_file else {"name": options.playbook_or_file}
    )
    body = {**what, "from": options.since, "to": options.until, "host": options.host, "service": options.service}
    answer = await client.post("/v1/playbooks/test", {name: value for name, value in body.items() if value is not None})
    if options.json:
        show_json(answer)
        return
    would = answer["would"]
    TimelinePrinter(screen, as_json=False).print(would)
    if answer["samples"]:
        show("Its triggers on metrics were not tested: samples are not replayed.")
    if answer["limited"]:
        show(f"Only the newest {answer['events']} events were tested: there are more, so name a shorter time.")
    show(f"{answer['playbook']} was tested with {answer['events']} events from {answer['from']} to {answer['to']}.")
    if not would:
        raise NothingFound("it would have done nothing")


async def _run(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    host, worker = place_of((await client.get("/v1/hosts")).get("hosts", []), options)
    body = {"host": host, "service": options.service, "worker": worker}
    answer = await client.post(
        f"/v1/playbooks/{options.name}/run", {name: value for name, value in body.items() if value}
    )
    _tell(answer, options, screen)
    if not options.json:
        show(f"What becomes of it: reflexctl chain {answer['run']}")


async def _runs(client: Client, options: argparse.Namespace, _screen: Screen) -> None:
    answer = await client.get("/v1/runs")
    if options.json:
        show_json(answer)
    for run in () if options.json else answer["runs"]:
        where = f"{run['service']} on {run['host']}" if run["service"] else run["host"]
        show(f"{run['id']}  {clean(run['phase'])}  {clean(run['playbook'])} for {clean(where)}, since {run['begun']}")
    if not answer["runs"]:
        raise NothingFound("no playbook runs now")


async def _decide(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    _tell(await client.post(f"/v1/runs/{options.run}/{options.playbook}", {}), options, screen)


async def _mode(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    mode = {"arm": "armed", "shadow": "shadow", "off": "off", "reset": None}[options.playbook]
    for name in options.name:
        answer = await client.put(f"/v1/playbooks/{name}/mode", {"mode": mode})
        if options.json:
            show_json(answer)
        else:
            show(f"{answer['name']} is {_MODES[answer['mode']]}.")
            _tell_not_reached(answer, screen)


def _tell_not_reached(answer: Mapping[str, Any], screen: Screen) -> None:
    """Hosts that run playbooks by themselves and have not heard of a change."""
    if answer["hosts_not_reached"]:
        hosts = clean(", ".join(answer["hosts_not_reached"]))
        text = f"Not reached: {hosts}. What they run by themselves goes on there until they are, for a day at most; the file stop-acting in the agent's state_dir stops a host."
        show(screen.paint(text, "critical"))


_MODES = {"armed": "armed: it acts by itself", "shadow": "in shadow mode: it says what it would do", "off": "off"}


async def _switch(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    answer = await client.put("/v1/stop", {"stop": options.playbook == "stop"})
    if options.json:
        show_json(answer)
    elif answer["stopped_by"]:
        show("All playbooks are stopped; runs that were under way are cancelled. To go on: reflexctl playbook resume")
        _tell_not_reached(answer, screen)
    else:
        show("Playbooks go on.")


async def _history(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    params = [("limit", str(options.limit)), *(("kind", f"playbook.{kind}") for kind in HISTORY_KINDS)]
    params += [(name, value) for name, value in (("from", options.since), ("service", options.service)) if value]
    answer = await client.get("/v1/timeline", params)
    found = [one for one in answer["events"] if options.name in (None, one["attrs"].get("playbook"))]
    TimelinePrinter(screen, as_json=options.json).print(found[::-1])
    if not found:
        raise NothingFound("no playbook has done anything then")


def _tell(answer: Mapping[str, Any], options: argparse.Namespace, screen: Screen) -> None:
    if options.json:
        show_json(answer)
        return
    TimelinePrinter(screen, as_json=False).print(answer["told"])


_Command = Callable[[Client, argparse.Namespace, Screen], Awaitable[None]]
_COMMANDS: Mapping[str, _Command] = {
    "list": _list,
    "show": _show,
    "lint": _lint,
    "test": _test,
    "run": _run,
    "runs": _runs,
    "approve": _decide,
    "reject": _decide,
    "arm": _mode,
    "shadow": _mode,
    "off": _mode,
    "reset": _mode,
    "stop": _switch,
    "resume": _switch,
    "history": _history,
}
"""Each command by its name."""

COMMANDS: Sequence[str] = tuple(_COMMANDS)
