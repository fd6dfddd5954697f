"""Compiles the programs with BCC, attaches them, hands the file descriptors over, and ends.

Run by whatever Python has the distribution's `bcc`, so it imports nothing of the agent: `python3 bcc_child.py SOURCE
SOCKET_FD`, with a request in JSON on the socket: {"raw_tracepoints": {tracepoint: program}, "kprobes": {function: program},
"maps": [name, ...]}. The answer is one JSON message with the names of what the descriptors beside it are, or with an
error. LLVM and its memory end with this process; the programs stay as long as the descriptors do.
"""

import json
import os
import socket
import sys
from typing import Any

MAX_REQUEST_BYTES = 65536


def main() -> None:
    """Answers the one request on the socket."""
    source, fd = sys.argv[1], int(sys.argv[2])
    channel = socket.socket(fileno=fd)
    request = json.loads(channel.recv(MAX_REQUEST_BYTES))
    try:
        names, descriptors = build(source, request)
    except Exception as error:  # noqa: BLE001 - whatever BCC raises is the answer
        channel.sendall(json.dumps({"error": f"{type(error).__name__}: {error}"[:2000]}).encode())
    else:
        socket.send_fds(channel, [json.dumps({"names": names}).encode()], descriptors)
    # BCC's own way out would switch the probes off that are now somebody else's.
    channel.close()
    sys.stdout.flush()
    os._exit(0)


def build(source: str, request: dict[str, Any]) -> tuple[list[str], list[int]]:
    """Names and descriptors of the maps, of the programs, and of what holds each on its hook."""
    from bcc import BPF  # type: ignore[import-not-found]

    with open(source, encoding="utf-8") as file:
        text = file.read()
    compiled = BPF(text=text, cflags=["-w"])
    found = {f"map {name}": compiled[name].map_fd for name in request["maps"]}
    for tracepoint, program in request["raw_tracepoints"].items():
        found[f"program {program}"] = compiled.load_func(program, BPF.RAW_TRACEPOINT).fd
        compiled.attach_raw_tracepoint(tp=tracepoint.encode(), fn_name=program.encode())
        found[f"link {program}"] = compiled.raw_tracepoint_fds[tracepoint.encode()]
    for function, program in request["kprobes"].items():
        found[f"program {program}"] = compiled.load_func(program, BPF.KPROBE).fd
        compiled.attach_kprobe(event=function.encode(), fn_name=program.encode())
        held = next(fds for name, fds in compiled.kprobe_fds.items() if name.endswith(function.encode()))
        found[f"link {program}"] = held[program.encode()] if isinstance(held, dict) else held
    return list(found), list(found.values())


if __name__ == "__main__":
    main()
