"""One request to the server and its answer: bodies out, acknowledgements in, with every size bounded. No I/O."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from agent.spool import SpoolBatch
from agent.wire import PROTOCOL_VERSION

MAX_STATUS_BYTES = 64 * 1024
GZIP_FROM_BYTES = 1024
REFUSED_RETRY_S = 30.0
RETRY_AFTER_MOST_S = 15.0
SHOWN_CHARS = 200


class TryLater(Exception):
    """The server did not take the batch. `wait_s` is None for the usual back-off."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class TooLarge(Exception):
    """The server says that the batch is too large."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that the server will never take, and why."""

    stream: str
    seq: int
    payload: bytes
    error: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What of the batch the server has: numbers up to these (None: nothing), and what it will not take."""

    events: int | None
    samples: int | None
    rejected: tuple[Rejected, ...]
    artifacts: int | None = None


def encode_status(status: Mapping[str, Any]) -> bytes:
    """The status as JSON; one that cannot be sent is replaced by a word about it."""
    try:
        encoded = orjson.dumps(dict(status))
    except TypeError as error:
        return orjson.dumps({"problem": f"the agent's status is not JSON: {error}"[:SHOWN_CHARS]})
    if len(encoded) > MAX_STATUS_BYTES:
        return orjson.dumps(
            {"problem": f"the agent's status has {len(encoded)} bytes; the limit is {MAX_STATUS_BYTES}"}
        )
    return encoded


def encode_batch(spool: str, status: bytes, batch: SpoolBatch) -> tuple[bytes, dict[str, str]]:
    """Body and headers of the request in docs/api.md; the records' JSON is joined as it is."""
    document = {
        "v": PROTOCOL_VERSION,
        "spool": spool,
        "status": orjson.Fragment(status),
        "events": [{"seq": seq, "event": orjson.Fragment(payload)} for seq, payload in batch.events],
        "samples": [{"seq": seq, "sample": orjson.Fragment(payload)} for seq, payload in batch.samples],
    }
    if batch.artifacts:
        document["artifacts"] = [{"seq": seq, "artifact": orjson.Fragment(payload)} for seq, payload in batch.artifacts]
    body, headers = orjson.dumps(document), {"Content-Type": "application/json"}
    if len(body) < GZIP_FROM_BYTES:
        return body, headers
    return gzip.compress(body, 1, mtime=0), {**headers, "Content-Encoding": "gzip"}


def read_answer(status: int, retry_after: str, body: bytes, batch: SpoolBatch) -> Answer:
    """What the answer says about `batch`; raises TooLarge, or TryLater for all that is no acknowledgement."""
    if status == 413:
        raise TooLarge
    if status in (401, 403):
        raise TryLater(
            f"the server does not know this host key (HTTP {status}); make a new one with: reflex-server host-key add",
            REFUSED_RETRY_S,
        )
    if status != 200:
        raise TryLater(f"the server answers HTTP {status}{_message(body)}", _seconds(retry_after))
    answer = _object(body)
    acked = answer.get("acked")
    if not isinstance(acked, dict):
        raise TryLater("the server's answer acknowledges nothing")
    events, samples = _acked(acked, "events", batch.events), _acked(acked, "samples", batch.samples)
    artifacts = _acked(acked, "artifacts", batch.artifacts)
    if batch and events is None and samples is None and artifacts is None:
        raise TryLater("the server acknowledges nothing of the batch")
    return Answer(events, samples, tuple(_rejected(answer.get("rejected"), batch)), artifacts)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise TryLater("the server's answer is not JSON") from None
    if not isinstance(value, dict):
        raise TryLater("the server's answer is no object")
    return value


def _acked(acked: dict[str, Any], stream: str, sent: tuple[tuple[int, bytes], ...]) -> int | None:
    """Never more than what was sent, whatever the answer says."""
    seq = acked.get(stream)
    if not sent or isinstance(seq, bool) or not isinstance(seq, int) or seq < sent[0][0]:
        return None
    return min(seq, sent[-1][0])


def _rejected(items: object, batch: SpoolBatch) -> list[Rejected]:
    sent = {("events", seq): payload for seq, payload in batch.events}
    sent |= {("samples", seq): payload for seq, payload in batch.samples}
    sent |= {("artifacts", seq): payload for seq, payload in batch.artifacts}
    found = []
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict) and isinstance(seq := item.get("seq"), int) and isinstance(item.get("stream"), str):
            payload = sent.get((item["stream"], seq))
            if payload is not None:
                found.append(Rejected(item["stream"], seq, payload, str(item.get("error"))[:SHOWN_CHARS]))
    return found


def _seconds(retry_after: str) -> float | None:
    """Retry-After in its form of whole seconds; a date counts as none."""
    if not (retry_after.isascii() and retry_after.isdigit()) or len(retry_after) > 9:
        return None
    return min(float(retry_after), RETRY_AFTER_MOST_S) or None


def _message(body: bytes) -> str:
    """What the server says about an error, if it says it in the form of docs/api.md."""
    try:
        said = orjson.loads(body)["error"]["message"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return ""
    return f": {said}"[:SHOWN_CHARS] if isinstance(said, str) else ""
