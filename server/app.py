"""All routes, and how the parts behind them are put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress

import orjson
from aiohttp import web

from agent.wire import MAX_BODY_BYTES
from server.acts import Acts
from server.artifacts import Artifacts
from server.auth import Auth, Handler
from server.brain import Brain
from server.commands import CommandHub
from server.errors import ApiError, StoreError, try_later
from server.hosts import Hosts
from server.ingest import Ingest
from server.lender import Lender
from server.live import Live
from server.notices import Notices
from server.own_acts import OwnActs
from server.page import PageFiles
from server.pipeline.acts import DeployActs
from server.pipeline.api import DeployApi
from server.pipeline.channels import Channels
from server.pipeline.hooks import Hooks
from server.pipeline.pipeline import Pipeline
from server.pipeline.vault import Vault
from server.playbook_api import PlaybookApi
from server.playbook_files import Shelf
from server.presence import Presence
from server.recorder import Publish, Recorder
from server.settings import Settings
from server.state import State
from server.store import Store
from server.stream import Stream
from server.timeline import Timeline, json_answer

PING_S = 2

_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
}

log = logging.getLogger(__name__)


async def build_app(settings: Settings, state: State, store: Store) -> web.Application:
    """The application on an open state and store. It closes neither."""
    hosts = Hosts(await asyncio.to_thread(state.hosts))
    live = Live(max_readers=settings.max_readers)
    listeners: list[Publish] = [live.publish]
    recorder = Recorder(
        store, lambda events: [tell(events) for tell in listeners], last_arrival=await store.events.last_arrival()
    )
    auth = Auth(state, session_hours=settings.session_hours)
    presence = Presence(state, hosts, recorder, silent_after_s=settings.silent_after_s)
    stream = Stream(auth, live, store.events, hosts)
    timeline = Timeline(store.events)
    artifacts = Artifacts(store.artifacts)
    hub = CommandHub(auth)
    acts = Acts(hub, hosts, recorder)
    vault = await asyncio.to_thread(Vault, settings.state)
    pipeline = Pipeline(state, store.events, recorder, hub, vault, public_url=settings.public_url)
    own_acts = OwnActs(Notices(settings.channels), DeployActs(pipeline))
    brain = Brain(state, store.events, recorder, hub, hosts, Shelf(settings.playbooks), own_acts)
    await brain.open()
    listeners.append(brain.take)
    lender = Lender(brain, hub, lambda: len(hosts.by_name))
    await pipeline.open()
    listeners.append(pipeline.take)
    channels = Channels(lender, pipeline)
    hub.heard, hub.gone, brain.on_change = channels.heard, channels.gone, lender.wake
    deploys = DeployApi(pipeline)
    hooks = Hooks(pipeline, deploys)
    books = PlaybookApi(brain, store.events, lender)
    ingest = Ingest(auth, recorder, hosts, brain, presence.save, max_inflight_bytes=settings.max_inflight_bytes)
    page = PageFiles(settings.page_dir)

    app = web.Application(middlewares=[_answer_errors], client_max_size=MAX_BODY_BYTES)
    app.add_routes(
        [
            web.post("/v1/ingest", ingest.receive),
            web.get("/v1/timeline", auth.operator(timeline.page)),
            web.get("/v1/events/{id}", auth.operator(timeline.one)),
            web.get("/v1/chain/{id}", auth.operator(timeline.chain)),
            web.get("/v1/artifacts/{id}", auth.operator(artifacts.one)),
            web.get("/v1/stream", auth.operator(stream.serve), allow_head=False),
            web.get("/v1/hosts", auth.operator(hosts.answer)),
            web.post("/v1/hosts/{host}/act", auth.operator(acts.ask)),
            web.get("/v1/commands", hub.serve, allow_head=False),
            web.get("/v1/playbooks", auth.operator(books.all)),
            web.post("/v1/playbooks/check", auth.operator(books.check)),
            web.post("/v1/playbooks/test", auth.operator(books.test)),
            web.get("/v1/playbooks/{name}", auth.operator(books.one)),
            web.put("/v1/playbooks/{name}/mode", auth.operator(books.set_mode)),
            web.post("/v1/playbooks/{name}/run", auth.operator(books.run)),
            web.get("/v1/runs", auth.operator(books.runs)),
            web.post("/v1/runs/{id}/{decision:approve|reject}", auth.operator(books.decide)),
            web.put("/v1/stop", auth.operator(books.stop)),
            web.get("/v1/apps", auth.operator(deploys.apps)),
            web.post("/v1/apps/check", auth.operator(deploys.check)),
            web.get("/v1/apps/{app}", auth.operator(deploys.app)),
            web.put("/v1/apps/{app}", auth.operator(deploys.put_app)),
            web.delete("/v1/apps/{app}", auth.operator(deploys.drop_app)),
            web.put("/v1/apps/{app}/secrets/{name}", auth.operator(deploys.put_secret)),
            web.delete("/v1/apps/{app}/secrets/{name}", auth.operator(deploys.drop_secret)),
            web.put("/v1/apps/{app}/hold", auth.operator(deploys.hold)),
            web.post("/v1/apps/{app}/deploy", auth.operator(deploys.deploy)),
            web.post("/v1/apps/{app}/rollback", auth.operator(deploys.roll_back)),
            web.get("/v1/deploys", auth.operator(deploys.deploys)),
            web.get("/v1/deploys/{id}", auth.operator(deploys.one)),
            web.post("/v1/deploys/{id}/cancel", auth.operator(deploys.cancel)),
            web.get("/v1/deploys/{id}/log", auth.operator(deploys.log), allow_head=False),
            web.post("/v1/hooks/{app}", hooks.receive),
            web.post("/v1/session", auth.log_in),
            web.delete("/v1/session", auth.log_out),
            web.get("/v1/session", auth.operator(auth.who_am_i)),
            web.get("/healthz", _healthy),
            web.get("/readyz", _ready_check(store)),
            web.get("/", page.index),
            web.get("/assets/{name}", page.asset),
            web.get("/{name}", page.beside),
        ]
    )
    app.on_response_prepare.append(_add_security_headers)

    async def background(_app: web.Application) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(presence.run()),
            asyncio.create_task(stream.tell_hosts()),
            asyncio.create_task(brain.run()),
            asyncio.create_task(lender.run()),
            asyncio.create_task(pipeline.run()),
        ]
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await brain.close()
        await pipeline.close()
        await presence.save()
        await recorder.close()

    async def end_streams(_app: web.Application) -> None:
        live.close()
        await hub.close()

    app.cleanup_ctx.append(background)
    app.on_shutdown.append(end_streams)
    return app


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as JSON with a code and a sentence."""
    try:
        return await handler(request)
    except ApiError as error:
        return _error(error.status, error.code, error.message, error.headers)
    except StoreError as error:
        log.error("%s %s: %s", request.method, request.path, error)
        later = try_later(503, "store_failed", f"the store does not answer: {error}", after_s=2)
        return _error(later.status, later.code, later.message, later.headers)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        code = error.reason.lower().replace(" ", "_")
        return _error(error.status, code, f"{request.method} {request.path:.100}: {error.reason.lower()}", allow)
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _error(500, "internal", "the server has a defect here; its log has the details", {})


def _error(status: int, code: str, message: str, headers: dict[str, str]) -> web.Response:
    body = orjson.dumps({"error": {"code": code, "message": message}})
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


async def _add_security_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_SECURITY_HEADERS)


async def _healthy(_request: web.Request) -> web.Response:
    return json_answer({"status": "ok"})


def _ready_check(store: Store) -> Handler:
    async def ready(_request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(PING_S):
                await store.ping()
        except (StoreError, TimeoutError) as error:
            reason = str(error) or f"no answer within {PING_S} s"
            raise try_later(503, "not_ready", f"the store does not answer: {reason}", after_s=PING_S) from error
        return json_answer({"status": "ready"})

    return ready
