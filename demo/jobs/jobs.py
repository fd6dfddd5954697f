"""The shop's background jobs: a small Celery application with tasks that go wrong.

It knows nothing of Reflex. Celery runs it as `-A jobs` with this folder as its working folder.
"""

import os
import threading
import time

from celery import Celery  # type: ignore[import-untyped]

CHUNK_BYTES = 4 * 1024 * 1024

app = Celery("jobs", broker=os.environ["SHOP_BROKER_URL"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=os.environ.get("SHOP_ACKS_LATE") == "1",
    worker_prefetch_multiplier=1,
    worker_send_task_events=False,
)


@app.task(name="shop.mail")  # type: ignore[untyped-decorator]
def mail(seconds: float = 0.01) -> None:
    """The task of everyday traffic."""
    time.sleep(seconds)


@app.task(name="shop.resize")  # type: ignore[untyped-decorator]
def resize(seconds: float = 0.5) -> None:
    """Work that takes its time, of which there can be too much."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        sum(range(10_000))
        time.sleep(0.01)


@app.task(name="shop.sync_stock")  # type: ignore[untyped-decorator]
def sync_stock() -> None:
    """Waits for a lock that nobody gives back, as a client without a timeout does."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@app.task(name="shop.export")  # type: ignore[untyped-decorator]
def export() -> None:
    """Reads ever more into memory, as an export without paging does."""
    rows = []
    while True:
        rows.append(os.urandom(1) * CHUNK_BYTES)
        time.sleep(0.2)
