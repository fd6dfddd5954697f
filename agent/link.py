"""The way to the server: sends what the spool holds, one batch at a time, and forgets it only when it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ipaddress
import logging
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from agent.spool import Spool, SpoolBatch
from agent.wire import MAX_BATCH_RECORDS, MAX_BODY_BYTES, PROTOCOL_VERSION

HEARTBEAT_S = 5.0
GATHER_SAMPLES_S = 1.0
BATCH_RECORDS = MAX_BATCH_RECORDS // 2
BATCH_BYTES = MAX_BODY_BYTES // 4
GZIP_FROM_BYTES = 1024
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.2, 15.0
REFUSED_RETRY_S = 30.0
REJECTED_FILE_BYTES = 16 * 1024 * 1024
TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)

log = logging.getLogger(__name__)


class LinkError(ValueError):
    """The server's address cannot be used as it is; the text says why and what to do."""


class _TryLater(Exception):
    """The server did not take the batch. `wait_s` is None for the usual back-off."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class _TooLarge(Exception):
    """The server says that the batch is too large."""


class Link:
    """Sends in the background between `start` and `stop`; never blocks and never gives up."""

    def __init__(
        self,
        url: str,
        host_key: str,
        spool: Spool,
        status: Callable[[], Mapping[str, Any]],
        *,
        rejected_file: Path,
        allow_plain_http: bool = False,
    ) -> None:
        """`status` is asked for every batch. Raises LinkError for an address that would give the key away."""
        self._url, self._connector_path = _endpoint(url, allow_plain_http=allow_plain_http)
        self._host_key = host_key
        self._spool = spool
        self._status = status
        self._rejected_file = rejected_file
        self._wake = asyncio.Event()
        self._records_at_once = BATCH_RECORDS
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Begins to send."""
        connector = aiohttp.UnixConnector(self._connector_path) if self._connector_path else None
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=TIMEOUT, headers={"Authorization": f"Bearer {self._host_key}"}
        )
        loop = asyncio.get_running_loop()
        later: list[asyncio.TimerHandle] = []

        def sample_waits() -> None:
            if not later or later[0].cancelled() or later[0].when() <= loop.time():
                later[:] = [loop.call_later(GATHER_SAMPLES_S, self._wake.set)]

        self._spool.wake(on_event=self._wake.set, on_sample=sample_waits)
        self._task = asyncio.create_task(self._send_for_ever())

    async def stop(self, grace_s: float) -> None:
        """Sends what is left within the grace and ends; the rest stays spooled."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            done, _ = await asyncio.wait({self._task}, timeout=grace_s)
            if not done:
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _send_for_ever(self) -> None:
        backoff_s = BACKOFF_FIRST_S
        while True:
            try:
                await self._send_waiting()
                backoff_s = BACKOFF_FIRST_S
                self._say_trouble("")
            except _TryLater as trouble:
                self._say_trouble(str(trouble))
                if self._stopping:
                    return
                wait_s = trouble.wait_s or backoff_s * random.uniform(0.5, 1.0)
                backoff_s = min(backoff_s * 2, BACKOFF_MOST_S)
                await asyncio.sleep(wait_s)
                continue
            if self._stopping:
                return
            await self._woken_or_heartbeat()

    async def _woken_or_heartbeat(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), HEARTBEAT_S)

    async def _send_waiting(self) -> None:
        """Sends batch after batch until nothing waits; at least one, which is then the heartbeat."""
        while True:
            self._wake.clear()
            batch = self._spool.next_batch(self._records_at_once, BATCH_BYTES)
            try:
                answer = await self._post(batch)
            except _TooLarge:
                self._shrink(batch)
                continue
            self._keep_rejected(answer.get("rejected", []), batch)
            acked = answer.get("acked", {})
            self._spool.ack(events=acked.get("events"), samples=acked.get("samples"))
            self._records_at_once = min(self._records_at_once * 2, BATCH_RECORDS)
            if not self._spool.waiting:
                return

    async def _post(self, batch: SpoolBatch) -> dict[str, Any]:
        assert self._session is not None
        body, headers = _body(self._spool.id, dict(self._status()), batch)
        try:
            async with self._session.post(self._url, data=body, headers=headers) as answer:
                raw = await answer.content.read(MAX_BODY_BYTES)
                return _read_answer(answer.status, answer.headers.get("Retry-After", ""), raw)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _TryLater(f"server unreachable ({error or type(error).__name__})") from None

    def _shrink(self, batch: SpoolBatch) -> None:
        """Halves the batch; a single record that is too large is put aside."""
        count = len(batch.events) + len(batch.samples)
        if count > 1:
            self._records_at_once = max(count // 2, 1)
            return
        for stream, records in (("events", batch.events), ("samples", batch.samples)):
            for seq, payload in records:
                self._put_aside(stream, seq, payload, "the server says that it is too large")
        self._spool.ack(
            events=batch.events[-1][0] if batch.events else None,
            samples=batch.samples[-1][0] if batch.samples else None,
        )

    def _keep_rejected(self, rejected: list[dict[str, Any]], batch: SpoolBatch) -> None:
        records = {"events": dict(batch.events), "samples": dict(batch.samples)}
        for item in rejected:
            stream, seq = str(item.get("stream")), item.get("seq")
            payload = records.get(stream, {}).get(seq) if isinstance(seq, int) else None
            if payload is not None and isinstance(seq, int):
                self._put_aside(stream, seq, payload, str(item.get("error")))

    def _put_aside(self, stream: str, seq: int, payload: bytes, error: str) -> None:
        log.warning(
            "the server rejected record %d of %s (%s); it is kept in %s", seq, stream, error, self._rejected_file
        )
        line = orjson.dumps(
            {"stream": stream, "seq": seq, "error": error, "record": payload.decode("utf-8", "replace")}
        )
        try:
            if self._rejected_file.exists() and self._rejected_file.stat().st_size > REJECTED_FILE_BYTES:
                return
            with self._rejected_file.open("ab") as file:
                file.write(line + b"\n")
        except OSError as problem:
            log.warning("the rejected record could not be kept: %s", problem)

    def _say_trouble(self, trouble: str) -> None:
        """Logs when trouble begins, changes or ends; not at every try."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            log.warning("%s; %d events stay spooled", trouble, self._spool.pending_events)
        else:
            log.info("the server takes batches again")


def _body(spool: str, status: dict[str, Any], batch: SpoolBatch) -> tuple[bytes, dict[str, str]]:
    """The request of docs/api.md; the records' JSON is joined as it is."""
    document = {
        "v": PROTOCOL_VERSION,
        "spool": spool,
        "status": status,
        "events": [{"seq": seq, "event": orjson.Fragment(payload)} for seq, payload in batch.events],
        "samples": [{"seq": seq, "sample": orjson.Fragment(payload)} for seq, payload in batch.samples],
    }
    body, headers = orjson.dumps(document), {"Content-Type": "application/json"}
    if len(body) >= GZIP_FROM_BYTES:
        return gzip.compress(body, 1), {**headers, "Content-Encoding": "gzip"}
    return body, headers


def _read_answer(status: int, retry_after: str, raw: bytes) -> dict[str, Any]:
    """The answer's object; raises _TooLarge, or _TryLater for everything that is no acknowledgement."""
    if status == 413:
        raise _TooLarge
    if status in (401, 403):
        raise _TryLater(
            f"the server does not know this host key (HTTP {status}); make a new one with: reflex-server host-key add",
            REFUSED_RETRY_S,
        )
    if status != 200:
        wait_s = float(retry_after) if retry_after.isdigit() else None
        raise _TryLater(f"the server answers HTTP {status}", min(wait_s, BACKOFF_MOST_S) if wait_s else None)
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise _TryLater("the server's answer is not JSON") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("acked"), dict):
        raise _TryLater("the server's answer acknowledges nothing")
    return answer


def _endpoint(url: str, *, allow_plain_http: bool) -> tuple[str, str]:
    """The address to post to, and the path of a unix socket or nothing."""
    if url.startswith("unix:"):
        return "http://reflex-server/v1/ingest", url.removeprefix("unix:")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LinkError(f"server_url {url!r} must look like https://reflex.example or unix:/run/reflex.sock")
    if parts.scheme == "http" and not allow_plain_http and not _is_loopback(parts.hostname):
        raise LinkError(
            f"server_url {url!r} would send the host key unencrypted; use https, or set allow_plain_http = true"
        )
    return f"{url.rstrip('/')}/v1/ingest", ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
