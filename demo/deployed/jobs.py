"""The background side of the app that the demo deploys: each task notes in Redis that it ran, and by which version."""

from __future__ import annotations

import os
import time

import redis
from celery import Celery
from market import VERSION

BROKER = os.environ["MARKET_BROKER_URL"]

app = Celery("jobs", broker=BROKER)
app.conf.update(worker_prefetch_multiplier=1, task_acks_late=False, broker_connection_retry_on_startup=True)
noted = redis.Redis.from_url(BROKER)


@app.task(name="market.bill")
def bill(number: int, seconds: float) -> None:
    """A task that takes a while; it is noted once for each time that it runs."""
    time.sleep(seconds)
    noted.hincrby("ran", str(number), 1)
    noted.hincrby("by", VERSION, 1)
