"""What can go wrong in the server, and how it is said.

ServerError
├── StartError           the process cannot start; `exit_code` tells scripts why
│   ├── PortTaken            3
│   ├── StateUnusable        4
│   ├── StoreCannotStart     5
│   └── SomethingMissing     6
├── StoreError           a query or an insert failed; nothing may be acknowledged
└── ApiError             a request that gets an error answer; `status` is the HTTP status
"""

from __future__ import annotations

from collections.abc import Mapping


class ServerError(Exception):
    """Base of everything that the server raises on purpose."""


class StartError(ServerError):
    """The server cannot start; the message is one sentence that says what, where and what to do."""

    exit_code = 1


class PortTaken(StartError):
    """Another process listens there, or the address is not this machine's."""

    exit_code = 3


class StateUnusable(StartError):
    """The state directory cannot be made, written or has no room."""

    exit_code = 4


class StoreCannotStart(StartError):
    """The store does not open: processor, lock, schema or connection."""

    exit_code = 5


class SomethingMissing(StartError):
    """A package or a named thing that is needed is not there."""

    exit_code = 6


class StoreError(ServerError):
    """A query or an insert failed. Whether rows landed is unknown, so the sender must send them again."""


class ApiError(ServerError):
    """A request that is answered with `{"error": {"code", "message"}}`."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


def bad_request(message: str) -> ApiError:
    """400: the request itself is wrong and will not become right by sending it again."""
    return ApiError(400, "bad_request", message)


def try_later(status: int, code: str, message: str, *, after_s: int) -> ApiError:
    """429 or 503 with the number of seconds to wait in `Retry-After`."""
    return ApiError(status, code, message, {"Retry-After": str(after_s)})
