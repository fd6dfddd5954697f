"""`reflexctl app`, `deploy`, `rollback`, `releases`, `logs`, `cancel`: what is deployed, and how it goes."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from ctl.client import Client
from ctl.errors import ActNotDone, MistakesFound, Misused, NothingFound
from ctl.files import mistake, read_text
from ctl.safe import clean
from ctl.screen import Screen, note, show, show_json
from ctl.timeline import TimelinePrinter

MOST_FILE_BYTES = 100_000

POLL_S = 0.5
MOST_SECRET_BYTES = 32_768
SHORT_ID = 8
KINDS = tuple(f"deploy.{one}" for one in ("queued", "started", "step", "finished")) + tuple(
    f"release.{one}" for one in ("prepared", "switched", "kept", "rolled_back", "failed", "refused", "interrupted")
)
_STARTS = re.compile(r"""\bstart: *\{ *"?(?:supervisor|unit)"?: *["']?([\w.@:-]+)""")
QUESTIONS = (
    ("app", "name of the app", ""),
    ("repository", "address that git fetches from (git@…, https://…)", ""),
    ("ref", "branch", "main"),
    ("hosts", "hosts, the first is the barrier (comma between)", ""),
    ("user", "user on the hosts that it runs as", ""),
    ("folder", "folder on the hosts that is its own", "/srv/{app}"),
    ("web", "name of the web service, as reflexctl hosts shows it (empty: none)", "{app}"),
    ("import", "what it serves, as gunicorn takes it (empty: not checked beside)", "{app}.wsgi:application"),
    ("health", "path of its health check (empty: none)", "/healthz"),
    ("celery", "name of the Celery service (empty: none)", ""),
    ("start", "who starts them where they do not run yet: supervisor or systemd (empty: you do)", ""),
    ("migrate", "command that migrates the database (empty: none)", ""),
)


async def deploy_command(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    """Runs one of the commands; raises CtlError."""
    await _COMMANDS[options.command](client, options, screen)


# Apps.


async def _app(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    await _APP_COMMANDS[options.app_command](client, options, screen)


async def _add(client: Client, options: argparse.Namespace, _screen: Screen) -> None:
    text = read_text(options.file, MOST_FILE_BYTES) if options.file is not None else await asyncio.to_thread(_guided)
    problems = (await client.post("/v1/apps/check", {"text": text}))["problems"]
    if problems:
        show(*(mistake(options.file or Path("reflex.yml"), one) for one in problems))
        raise MistakesFound(f"{len(problems)} mistake{'s' * (len(problems) > 1)}; the app was not taken on")
    name = (await client.post("/v1/apps/check", {"text": text}))["app"]
    answer = await client.put(f"/v1/apps/{name}", {"text": text})
    if options.json:
        show_json(answer)
        return
    show(f"{name} is taken on for {clean(', '.join(answer['hosts']))}. Its deploys begin with: reflexctl deploy {name}")
    show("", "The policy of each host (/etc/reflex/policy.toml) has to allow it:", "", *policy_of(text, name))
    for secret in answer["secrets_missing"]:
        show(f"A secret is missing: reflexctl app secret {name} {clean(secret)}")


def policy_of(text: str, name: str) -> list[str]:
    """The lines that a host's policy needs, as far as they can be seen in the file."""
    said = dict(line.split(":", 1) for line in text.splitlines() if line[:1].isalpha() and ":" in line)
    user, folder = (clean(said.get(key, "").strip().strip("'\"")) for key in ("user", "folder"))
    starts = ", ".join(f'"{one}"' for one in dict.fromkeys(_STARTS.findall(text)))
    lines = [f"  [apps.{name}]", f'  user = "{user}"', f'  folder = "{folder}"']
    return [*lines, *([f"  starts = [{starts}]"] if starts else [])]


def _guided() -> str:
    """Asks for what a file has to say, and writes it beside."""
    if not sys.stdin.isatty():
        raise Misused("name a file, or run it on a terminal: reflexctl app add reflex.yml")
    note("Each question has its default in brackets; Enter takes it.")
    said: dict[str, str] = {}
    for key, question, default in QUESTIONS:
        standard = default.format(app=said.get("app", ""))
        bracket = f" [{standard}]" if standard else ""
        said[key] = input(f"{question}{bracket}: ").strip() or standard
    text = file_of(said)
    Path("reflex.yml").write_text(text)
    note("reflex.yml is written; it can be changed and given again: reflexctl app add reflex.yml")
    return text


def file_of(said: Mapping[str, str]) -> str:
    """The file that the answers make."""

    def quoted(text: str) -> str:
        return orjson.dumps(text).decode()

    hosts = ", ".join(quoted(one.strip()) for one in said["hosts"].split(",") if one.strip())
    lines = [f"{key}: {quoted(said[key])}" for key in ("app", "repository", "ref")]
    lines += [f"hosts: [{hosts}]", f"user: {quoted(said['user'])}", f"folder: {quoted(said['folder'])}"]
    if said["start"] not in ("", "supervisor", "systemd"):
        raise Misused(f"services are started by supervisor or systemd, not by {said['start']!r:.40}")
    if said["migrate"]:
        lines.append(f"migrate: {{command: {quoted(said['migrate'])}}}")
    if said["web"]:
        lines += ["web:", f"  - service: {quoted(said['web'])}"]
        lines += [f"    app: {quoted(said['import'])}"] if said["import"] else []
        lines += [f"    health: {{path: {quoted(said['health'])}}}"] if said["health"] else []
        lines += [f"    start: {_start_of(said['web'], said['start'])}"] if said["start"] else []
    if said["celery"]:
        lines += ["celery:", f"  - service: {quoted(said['celery'])}"]
        lines += [f"    start: {_start_of(said['celery'], said['start'])}"] if said["start"] else []
    return "\n".join(lines) + "\n"


def _start_of(service: str, manager: str) -> str:
    """Programs and units have the name of their service, as a rule."""
    given = {"supervisor": service} if manager == "supervisor" else {"unit": f"{service}.service"}
    return orjson.dumps(given).decode()


async def _list(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    answer = await client.get("/v1/apps")
    if options.json:
        show_json(answer)
    for one in () if options.json else answer["apps"]:
        show(f"{screen.paint(clean(one['app']), 'bold')}  {clean(one['ref'])} on {clean(', '.join(one['hosts']))}")
        if one["lock"]:
            show(f"  {clean(one['lock']['who'])} deploys it since {one['lock']['since']}{_because(one['lock']['why'])}")
        if one["hold"]:
            show(screen.paint(f"  held by {clean(one['hold']['who'])}{_because(one['hold']['why'])}", "warning"))
        if one["secrets_missing"]:
            show(screen.paint(f"  secrets missing: {clean(', '.join(one['secrets_missing']))}", "warning"))
    if not answer["apps"]:
        raise NothingFound("there is no app yet; reflexctl app add takes one on")


async def _show(client: Client, options: argparse.Namespace, _screen: Screen) -> None:
    answer = await client.get(f"/v1/apps/{options.app}")
    if options.json:
        show_json(answer)
        return
    secrets = ", ".join(answer["secrets"]) or "none"
    show(f"given by {clean(answer['by'])}, {answer['since']}; secrets: {clean(secrets)}", "")
    show(*(clean(line) for line in str(answer["text"]).rstrip().splitlines()))


async def _lint(client: Client, options: argparse.Namespace, _screen: Screen) -> None:
    answer = await client.post("/v1/apps/check", {"text": read_text(options.file, MOST_FILE_BYTES)})
    if options.json:
        show_json(answer)
    else:
        show(*(mistake(options.file, one) for one in answer["problems"]))
    if answer["problems"]:
        raise MistakesFound(f"{len(answer['problems'])} mistake{'s' * (len(answer['problems']) > 1)}")
    if not options.json:
        show(f"{options.file}: {answer['app']} can be used")


async def _remove(client: Client, options: argparse.Namespace, _screen: Screen) -> None:
    answer = await client.delete(f"/v1/apps/{options.app}")
    show_json(answer) if options.json else show(f"{options.app} is forgotten. What serves goes on.")


async def _secret(client: Client, options: argparse.Namespace, _screen: Screen) -> None:
    path = f"/v1/apps/{options.app}/secrets/{options.name}"
    if options.unset:
        answer = await client.delete(path)
    else:
        answer = await client.put(path, {"value": await asyncio.to_thread(_secret_value, options.name)})
    secrets = clean(", ".join(answer["secrets"])) or "none"
    show_json(answer) if options.json else show(f"Secrets of {options.app}: {secrets}")


def _secret_value(name: str) -> str:
    if sys.stdin.isatty():
        value = getpass.getpass(f"{name}: ")
    else:
        value = sys.stdin.read(MOST_SECRET_BYTES + 1)
        value = value if "\n" in value.rstrip("\n") else value.rstrip("\n")
    if not 0 < len(value) <= MOST_SECRET_BYTES:
        raise Misused(f"a secret has 1 to {MOST_SECRET_BYTES} characters")
    return value


async def _hold(client: Client, options: argparse.Namespace, _screen: Screen) -> None:
    wants = options.app_command == "hold"
    body = {"hold": wants, **({"why": options.why, "for_s": options.for_s} if wants else {})}
    answer = await client.put(f"/v1/apps/{options.app}/hold", body)
    said = f"Deploys of {options.app} wait. To go on: reflexctl app resume {options.app}"
    show_json(answer) if options.json else show(said if wants else f"Deploys of {options.app} go on.")


# Deploys.


async def _deploy(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    body = {"ref": options.ref or "", "why": options.why or "", "force": options.force, "hosts": options.host}
    await _begun(client, await client.post(f"/v1/apps/{options.app}/deploy", body), options, screen)


async def _rollback(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    body = {"release": options.to or "", "why": options.why or "", "hosts": options.host}
    await _begun(client, await client.post(f"/v1/apps/{options.app}/rollback", body), options, screen)


async def _begun(client: Client, answer: Mapping[str, Any], options: argparse.Namespace, screen: Screen) -> None:
    """Tells of each event as it comes, until the end."""
    deploy = answer["deploy"]
    if options.no_wait:
        show_json(answer) if options.json else show(f"Begun: reflexctl logs -f {_short(deploy['id'])}")
        return
    note(f"deploy {_short(deploy['id'])}; its log: reflexctl logs -f {_short(deploy['id'])}")
    printer, told, is_told = TimelinePrinter(screen, as_json=False), set[str](), options.json
    while True:
        deploy = await client.get(f"/v1/deploys/{deploy['id']}")
        fresh = [] if options.json else await _events(client, deploy, told)
        printer.print(fresh)
        told |= {event["id"] for event in fresh}
        is_told = is_told or any(event["kind"] == "deploy.finished" for event in fresh)
        if deploy["stage"] == "done" and is_told:
            break
        await asyncio.sleep(POLL_S)
    if options.json:
        show_json(deploy)
    if deploy["outcome"] == "kept" and any(part["state"] == "failed" for part in deploy["parts"]):
        raise ActNotDone(f"it did not come everywhere: it {clean(deploy['text'])}")
    if deploy["outcome"] != "kept":
        raise ActNotDone(f"it ended as {clean(deploy['outcome'])}: {clean(deploy['text'])}")


async def _events(client: Client, deploy: Mapping[str, Any], told: set[str]) -> list[Any]:
    params = [("limit", "200"), ("from", str(deploy["at"])), *(("kind", kind) for kind in KINDS)]
    events = (await client.get("/v1/timeline", params))["events"]
    mine = [one for one in events if one["attrs"].get("deploy") == deploy["id"] and one["id"] not in told]
    return mine[::-1]


async def _releases(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    answer = await client.get("/v1/deploys", [("app", options.app)] if options.app else [])
    if options.json:
        show_json(answer)
    for one in () if options.json else answer["deploys"]:
        outcome = one["outcome"] or one["stage"]
        painted = screen.paint(clean(outcome), "bold" if outcome == "kept" else "warning")
        what = f"{clean(one['app'])} {clean(one['ref'])}" if one["ref"] else clean(one["app"])
        show(f"{_short(one['id'])}  {one['at']}  {painted}  {what} by {clean(one['who'])}{_because(one['why'])}")
        for part in one["parts"]:
            show(f"  {clean(part['host'])}: {clean(part['state'].replace('_', ' '))} {clean(part['release'])}".rstrip())
            if said := _serves(part):
                show(screen.paint(f"    {said}", "warning"))
        if one["outcome"] not in ("kept", ""):
            show(f"  {clean(one['text'])}")
    if not answer["deploys"]:
        raise NothingFound("nothing was deployed yet; reflexctl deploy APP begins")


def _serves(part: Mapping[str, Any]) -> str:
    """What a host serves, where that is another release than the deploy had for it; empty where it is the same."""
    if part["is_unsure"]:
        return "what it serves is not known until it is heard again"
    if part["is_unseen"]:
        return "nothing that runs it is seen"
    return f"serves {clean(part['serves'])}" if part["serves"] not in ("", part["release"]) else ""


async def _logs(client: Client, options: argparse.Namespace, screen: Screen) -> None:
    deploy = await _find(client, options.deploy)
    lines = 0
    async for line in client.lines(f"/v1/deploys/{deploy['id']}/log", [("follow", "1")] if options.follow else []):
        lines += 1
        if options.json:
            show_json(line)
        else:
            show(f"{screen.clock(line['ts_us'])}  {clean(line['host'])}  {clean(line['line'])}")
    if not lines:
        raise NothingFound("its lines are not kept any more; reflexctl artifact EVENT shows the log of a phase")


async def _cancel(client: Client, options: argparse.Namespace, _screen: Screen) -> None:
    deploy = await _find(client, options.deploy)
    answer = await client.post(f"/v1/deploys/{deploy['id']}/cancel", {})
    show_json(answer) if options.json else show(f"{_short(deploy['id'])} of {clean(answer['app'])} is being ended.")


async def _find(client: Client, named: str | None) -> Mapping[str, Any]:
    """The deploy of that id, or whose id ends so; the latest where none is named."""
    deploys = (await client.get("/v1/deploys"))["deploys"]
    found = [one for one in deploys if named is None or one["id"] == named or one["id"].endswith(named)]
    if not found:
        raise NothingFound(f"no deploy {named} is known" if named else "nothing was deployed yet")
    if named is not None and len(found) > 1:
        raise Misused(f"{len(found)} deploys end with {named}; name more of its id")
    one: Mapping[str, Any] = found[0]
    return one


def _short(id_: str) -> str:
    return clean(id_)[-SHORT_ID:]


def _because(why: str) -> str:
    return f": {clean(why)}" if why else ""


_Command = Callable[[Client, argparse.Namespace, Screen], Awaitable[None]]
_APP_COMMANDS: Mapping[str, _Command] = {
    "add": _add,
    "list": _list,
    "show": _show,
    "lint": _lint,
    "remove": _remove,
    "secret": _secret,
    "hold": _hold,
    "resume": _hold,
}
_COMMANDS: Mapping[str, _Command] = {
    "app": _app,
    "deploy": _deploy,
    "rollback": _rollback,
    "releases": _releases,
    "logs": _logs,
    "cancel": _cancel,
}
COMMANDS = tuple(_COMMANDS)
"""The commands that this module runs."""
