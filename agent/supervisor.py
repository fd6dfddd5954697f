"""Supervisor's XML-RPC over its unix socket, as far as starting a program again takes. Blocks."""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from typing import Any

_BAD_NAME, _ALREADY_STARTED, _NOT_RUNNING = 10, 60, 70


class SupervisorTrouble(Exception):
    """It cannot be asked, or says no; the text ends a sentence."""


def restart(path: str, program: str, within_s: float, *, only_start: bool = False) -> None:
    """Stops the program if it runs, and starts it; returns once supervisor says that it runs. Raises SupervisorTrouble.

    With `only_start` a program that runs is left alone.
    """
    proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=_UnixTransport(path, within_s))
    try:
        if not only_start:
            _call(proxy.supervisor.stopProcess, program, but=_NOT_RUNNING)
        _call(proxy.supervisor.startProcess, program, but=_ALREADY_STARTED)
    except xmlrpc.client.Fault as fault:
        if fault.faultCode == _BAD_NAME:
            text = f"supervisor at {path} has no program of that name; supervisorctl update lets it read its files anew"
            raise SupervisorTrouble(text) from None
        raise SupervisorTrouble(f"supervisor says {fault.faultString[:200]}") from None
    except xmlrpc.client.ProtocolError as error:
        raise SupervisorTrouble(f"supervisor answers HTTP {error.errcode}: it wants a password") from None
    except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
        raise SupervisorTrouble(f"supervisor at {path} cannot be asked: {error}") from None


def _call(method: Any, program: str, *, but: int) -> None:
    try:
        method(program, True)
    except xmlrpc.client.Fault as fault:
        if fault.faultCode != but:
            raise


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, within_s: float) -> None:
        super().__init__("127.0.0.1", timeout=within_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: str, within_s: float) -> None:
        super().__init__()
        self._path = path
        self._within_s = within_s

    def make_connection(self, _host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path, self._within_s)
