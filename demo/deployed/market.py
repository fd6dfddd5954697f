"""The web side of the app that the demo deploys: says its version; `LEAK_KB` of each request stay in memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

VERSION = "v0"
LEAK_KB = 0
IMPORT_S = 1.5
IMPORT_CPU_S = 0.0
"""So much of the import is work; the rest is waiting."""

_began_s = time.process_time()
while time.process_time() - _began_s < IMPORT_CPU_S:
    pass
time.sleep(IMPORT_S - IMPORT_CPU_S)
_kept: list[bytes] = []


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/` says the version, `/healthz` is asked by whoever watches."""
    if LEAK_KB and environ["PATH_INFO"] == "/":
        _kept.append(os.urandom(1024) * LEAK_KB)
    if environ["PATH_INFO"] == "/crash":
        os.abort()
    body = VERSION.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
