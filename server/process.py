"""The life of the server process: state directory, port, store, serving, and a clean end."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import web

from server.app import build_app
from server.errors import PortTaken, StateUnusable, StoreCannotStart
from server.secret import hash_of, new_secret
from server.settings import MIB, Settings
from server.state import OPERATOR_TOKENS, State
from server.store import Store, open_store

NEEDED_BYTES = 64 * MIB
THREADS = 16
SHUTDOWN_S = 3

log = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT. Raises StartError."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="reflex"))
    stop = _stop_signal()
    async with AsyncExitStack() as stack:
        prepare_state(settings.state)
        stack.callback(os.close, lock_state(settings.state))
        listener = stack.enter_context(bind(settings.listen))
        state = State(settings.state_file)
        stack.callback(state.close)
        store = await open_store(settings)
        stack.push_async_callback(store.close)
        await stack.enter_async_context(_serving(settings, state, store, listener))
        base = page_url(listener)
        hand_out_first_token(state, base, settings.first_token_file)
        print(f"reflex-server: ready on {base}", flush=True)
        await stop.wait()
        log.info("stopping")


def prepare_state(directory: Path) -> None:
    """Makes the state directory if need be. Raises StateUnusable."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = directory / ".writable"
        probe.write_bytes(b"x")
        probe.unlink()
        free_bytes = shutil.disk_usage(directory).free
    except OSError as error:
        raise StateUnusable(
            f"the state directory {directory} cannot be used ({error.strerror}); "
            "run as a user who may write it, or name another with --state"
        ) from None
    if free_bytes < NEEDED_BYTES:
        raise StateUnusable(
            f"the disk of {directory} has {free_bytes // MIB} MiB left and the server needs {NEEDED_BYTES // MIB}; "
            "make room, or name a directory on another disk with --state"
        )


def lock_state(directory: Path) -> int:
    """A file descriptor that holds the directory for this process. Raises StoreCannotStart when another has it."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StoreCannotStart(
            f"another reflex-server (pid {holder or 'unknown'}) uses {directory}; stop it, or name another --state"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def bind(listen: str) -> socket.socket:
    """A listening socket; connections wait in it until the server is ready. Raises PortTaken."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        family, _kind, _, _, address = socket.getaddrinfo(
            host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address, family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise PortTaken(
            f"cannot listen on {listen} ({error}); stop what listens there, or choose another address with --listen"
        ) from None


def page_url(listener: socket.socket) -> str:
    """The address at which a browser on this machine reaches the server."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def hand_out_first_token(state: State, base: str, file: Path | None) -> None:
    """Makes the first operator token if there was never one, and shows it this one time."""
    if state.keys(OPERATOR_TOKENS):
        return
    token = new_secret("op")
    if file is not None:
        write_secret(file, token)
    else:
        print(
            "reflex-server: this is the first start. The operator token, shown only now:\n\n"
            f"    {token}\n\nThe page, already logged in:\n\n    {base}/#token={token}\n",
            flush=True,
        )
    state.add_key(OPERATOR_TOKENS, hash=hash_of(token), created_us=time.time_ns() // 1000)


def write_secret(file: Path, secret: str) -> None:
    """Writes the secret for its owner's eyes only. Raises StateUnusable."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as out:
            os.fchmod(out.fileno(), 0o600)
            out.write(secret + "\n")
    except OSError as error:
        raise StateUnusable(
            f"{file} cannot be written ({error.strerror}); name a file in a directory of yours"
        ) from None


@asynccontextmanager
async def _serving(settings: Settings, state: State, store: Store, listener: socket.socket) -> AsyncIterator[None]:
    """Answers requests inside; afterwards streams are ended, running requests finished, inserts stored."""
    app = await build_app(settings, state, store)
    # Bodies are decompressed by server.body, which bounds their size.
    runner = web.AppRunner(app, auto_decompress=False, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()


def _stop_signal() -> asyncio.Event:
    """Set by SIGTERM or SIGINT from now on; a server that is still starting finishes that first."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
