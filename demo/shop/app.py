"""The shop of the demo: a small Flask application with requests that go wrong.

It knows nothing of Reflex. Gunicorn runs it as `app:app` with this folder as its working folder.
"""

import os
import time

from flask import Flask, Response, request

CHUNK_BYTES = 4 * 1024 * 1024

app = Flask(__name__)
reports: list[bytes] = []
carts: list[bytes] = []


def wait_for_the_warehouse() -> None:
    """Waits while it is imported for a neighbour that does not answer, without a timeout."""
    while os.path.exists(os.path.join(os.environ.get("SHOP_FOLDER", ""), "warehouse-is-down")):
        time.sleep(1)


wait_for_the_warehouse()
time.sleep(float(os.environ.get("SHOP_IMPORT_S", "0.5")))  # what a grown-up application does while it is imported


@app.get("/")
def front() -> Response:
    """The request of everyday traffic."""
    return Response("welcome to the shop\n", mimetype="text/plain")


@app.post("/report")
def report() -> Response:
    """Reads ever more into memory, as an export without paging does."""
    pause_s = float(os.environ.get("SHOP_REPORT_PAUSE_S", "0.01"))
    while True:
        reports.append(os.urandom(1) * CHUNK_BYTES)
        time.sleep(pause_s)


@app.post("/cart")
def cart() -> Response:
    """Keeps a little of each request for ever, as a cache without a bound does."""
    carts.append(os.urandom(1) * int(request.args.get("bytes", "65536")))
    return Response("in the cart\n", mimetype="text/plain")


@app.post("/payment")
def payment() -> Response:
    """Waits for a payment provider that never answers, without a timeout of its own."""
    while True:
        time.sleep(60)
