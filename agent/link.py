"""The way to the server: sends what the spool holds, one batch at a time, and forgets it only when it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from agent.endpoint import LinkError, authorization, endpoint_of
from agent.exchange import Answer, Rejected, TooLarge, TryLater, encode_batch, encode_status, read_answer
from agent.rejected import RejectedFile
from agent.spool import Spool, SpoolBatch
from agent.wire import MAX_BATCH_RECORDS, MAX_BODY_BYTES

__all__ = ["Link", "LinkError"]

HEARTBEAT_S = 5.0
STATUS_EVERY_S = 15.0
GATHER_SAMPLES_S = 5.0
BATCH_RECORDS = MAX_BATCH_RECORDS // 2
BATCH_BYTES = MAX_BODY_BYTES // 4
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.2, 15.0
ANSWER_BYTES = 1024 * 1024
TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)

log = logging.getLogger(__name__)


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
        """`status` is asked for every few seconds, and with events. Raises LinkError for an address that would give the key away."""
        self._endpoint = endpoint_of(url, allow_plain_http=allow_plain_http)
        self._url = URL(self._endpoint.url)
        self._authorization = authorization(host_key)
        self._spool = spool
        self._status = status
        self._rejected = RejectedFile(rejected_file)
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._gathering: asyncio.TimerHandle | None = None
        self._records_at_once = BATCH_RECORDS
        self._trouble = ""
        self._status_trouble = ""
        self._status_due_s = 0.0
        self._has_sent = False
        self._task: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Begins to send."""
        socket_path = self._endpoint.socket_path
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(socket_path) if socket_path else None,
            timeout=TIMEOUT,
            headers={"Authorization": self._authorization, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        self._spool.wake(on_event=self._wake.set, on_sample=self._gather_samples)
        self._task = asyncio.create_task(self._send_for_ever())

    async def stop(self, grace_s: float) -> None:
        """Sends what is left within the grace and ends; the rest stays spooled."""
        self._stopping.set()
        self._wake.set()
        if self._task is not None:
            done, _ = await asyncio.wait({self._task}, timeout=grace_s)
            if not done:
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._stop_gathering()
        if self._session is not None:
            await self._session.close()

    def _gather_samples(self) -> None:
        """Called for every sample: the first one of a batch starts the wait for more."""
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_SAMPLES_S, self._gathered)

    def _stop_gathering(self) -> None:
        """What was gathered is sent now."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None

    @property
    def trouble(self) -> str:
        """Why nothing can be sent now; empty when it can, or is not known yet."""
        return self._trouble

    @property
    def connected(self) -> bool | None:
        """Whether the server takes what is sent; None before the first answer."""
        return False if self._trouble else self._has_sent or None

    def _gathered(self) -> None:
        self._gathering = None
        self._wake.set()

    async def _send_for_ever(self) -> None:
        """Ends when told to stop: at once when everything was sent, else after one last try."""
        backoff_s = BACKOFF_FIRST_S
        while True:
            is_last = self._stopping.is_set()
            try:
                await self._send_waiting()
                backoff_s = BACKOFF_FIRST_S
                self._say_trouble("")
                if self._stopping.is_set():
                    return
                pause, pause_s = self._wake, HEARTBEAT_S
            except TryLater as trouble:
                self._say_trouble(str(trouble))
                pause, pause_s = self._stopping, trouble.wait_s or backoff_s * random.uniform(0.5, 1.0)
                if is_last:
                    return
                backoff_s = min(backoff_s * 2, BACKOFF_MOST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await pause.wait()

    async def _send_waiting(self) -> None:
        """Sends batch after batch until all that waited is sent; at least one, which is then the heartbeat.

        What comes in during the last one has its own wake-up, so that samples are gathered again.
        """
        while True:
            self._wake.clear()
            self._stop_gathering()
            batch = self._spool.next_batch(self._records_at_once, BATCH_BYTES)
            is_rest = len(batch) >= self._spool.pending
            try:
                answer = await self._post(batch)
            except TooLarge:
                self._shrink(batch)
                continue
            self._rejected.keep(answer.rejected)
            self._spool.ack(events=answer.events, samples=answer.samples, artifacts=answer.artifacts)
            self._has_sent = True
            self._records_at_once = min(self._records_at_once * 2, BATCH_RECORDS)
            if is_rest and not (self._stopping.is_set() and self._spool.waiting):
                return
            if not batch and not is_rest:
                return  # what waits cannot be read now; the log says why

    async def _post(self, batch: SpoolBatch) -> Answer:
        assert self._session is not None
        status = self._encoded_status() if self._wants_status(batch) else b"{}"
        body, headers = encode_batch(self._spool.id, status, batch)
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                said = await _read_bounded(answer.content)
                taken = read_answer(answer.status, answer.headers.get("Retry-After", ""), said, batch)
        except TimeoutError:
            raise TryLater("server unreachable (no answer in time)") from None
        except (aiohttp.ClientError, OSError) as error:
            raise TryLater(f"server unreachable ({str(error) or type(error).__name__})") from None

        if status != b"{}":
            self._status_due_s = time.monotonic() + STATUS_EVERY_S
        return taken

    def _wants_status(self, batch: SpoolBatch) -> bool:
        """With events, and now and then: making it is dear."""
        return bool(batch.events) or time.monotonic() >= self._status_due_s

    def _encoded_status(self) -> bytes:
        """The status must never stop the sending, whatever is wrong with it."""
        try:
            return encode_status(self._status())
        except Exception as defect:  # other parts make the status; the timeline must not wait until they are mended
            if str(defect) != self._status_trouble:
                self._status_trouble = str(defect)
                log.error("a defect in making the status; batches go on without it", exc_info=defect)
            return encode_status({"problem": f"the agent could not make its status: {defect!r:.200}"})

    def _shrink(self, batch: SpoolBatch) -> None:
        """Halves the batch; a single record that is too large is put aside. Raises TryLater when nothing is in it."""
        streams = {"events": batch.events, "artifacts": batch.artifacts, "samples": batch.samples}
        records = [(stream, *record) for stream, records in streams.items() for record in records]
        if not records:
            raise TryLater("the server says that a heartbeat is too large (HTTP 413)")
        if len(records) > 1:
            self._records_at_once = len(records) // 2
            return
        stream, seq, payload = records[0]
        self._rejected.keep([Rejected(stream, seq, payload, "the server says that it is too large")])
        self._spool.ack(**{"events": None, "samples": None, stream: seq})

    def _say_trouble(self, trouble: str) -> None:
        """Logs when trouble begins, changes or ends; not at every try."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            log.warning("%s; %d events stay spooled", trouble, self._spool.pending_events)
        else:
            log.info("the server takes batches again")


async def _read_bounded(content: aiohttp.StreamReader) -> bytes:
    """The whole body; raises TryLater for one that is too large to be an answer."""
    said = bytearray()
    async for chunk in content.iter_any():
        said += chunk
        if len(said) > ANSWER_BYTES:
            raise TryLater(f"the server's answer is larger than {ANSWER_BYTES} bytes")
    return bytes(said)
