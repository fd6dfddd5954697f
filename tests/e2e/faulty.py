"""Applications with faults, for playbooks to repair: texts of files that Gunicorn, uWSGI and Celery run."""

from __future__ import annotations

from collections.abc import Mapping

_APP = """
import os, socket, time
kept = []
def application(environ, start_response):
    path, _, amount = environ["PATH_INFO"].strip("/").partition("/")
    if path == "sleep":
        time.sleep(float(amount))
    elif path == "keep":
        kept.append(os.urandom(1) * int(amount))
    elif path == "eat":
        while True:
            kept.append(os.urandom(1) * 4_000_000)
            time.sleep(0.01)
    elif path == "neighbour":
        here, there = socket.socketpair()
        here.recv(1)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\\n"]
"""
_CRASHING = """
import ctypes, threading
from app import application
threading.Timer(2.0, ctypes.string_at, (0,)).start()
"""
WEB: Mapping[str, str] = {"app.py": _APP, "crashing.py": _CRASHING}
"""An application that sleeps, keeps, eats memory or waits for a neighbour for ever; one whose workers crash by themselves."""

JOBS = """
import os, signal, socket, time
from celery import Celery

app = Celery("jobs", broker=os.environ["CELERY_BROKER_URL"])
app.conf.broker_connection_retry_on_startup = True

@app.task
def work(seconds): time.sleep(seconds)

@app.task(acks_late=True, bind=True)
def late(self, seconds):
    time.sleep(seconds)
    with open(os.environ["RAN"], "a") as ran: ran.write(self.request.id + "\\n")

@app.task(acks_late=True, reject_on_worker_lost=True)
def fatal(after):
    time.sleep(after)
    os.kill(os.getpid(), signal.SIGKILL)

@app.task
def eat():
    kept = []
    while True:
        kept.append(os.urandom(1) * 4_000_000)
        time.sleep(0.02)

@app.task
def neighbour():
    here, there = socket.socketpair()
    here.recv(1)
"""
"""Tasks that work, that end their process each time, eat memory, or wait for a neighbour for ever."""
