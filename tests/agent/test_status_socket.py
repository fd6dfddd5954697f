"""Who may ask the agent for its status, and that nobody who asks can hold it up."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from pathlib import Path
from typing import Any

import pytest

from agent.status_socket import AT_ONCE, NoAgentError, StatusSocket, ask

LARGE = {"text": "x" * 4_000_000}


def deaf(folder: Path) -> socket.socket:
    """A client that connects and reads nothing."""
    asking = socket.socket(socket.AF_UNIX)
    asking.connect(str(folder / "status.sock"))
    return asking


def until_hung_up(asking: socket.socket) -> None:
    """Waits until the other side has closed, and reads nothing."""
    poll = select.poll()
    poll.register(asking, 0)
    assert poll.poll(20_000)


async def test_whoever_asks_gets_the_document_of_that_moment(tmp_path: Path) -> None:
    count = iter(range(10))
    server = StatusSocket(tmp_path, lambda: {"count": next(count)})
    assert await server.open() is None
    assert [(await asyncio.to_thread(ask, tmp_path))["count"] for _ in range(3)] == [0, 1, 2]
    assert (tmp_path / "status.sock").stat().st_mode & 0o777 == 0o600
    await server.close()
    with pytest.raises(NoAgentError, match="no agent answers"):
        await asyncio.to_thread(ask, tmp_path)


async def test_a_folder_whose_name_is_longer_than_a_sockets_address(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    server = StatusSocket(folder, lambda: {"count": 1})
    assert await server.open() is None
    assert (await asyncio.to_thread(ask, folder))["count"] == 1
    await server.close()
    assert list(folder.iterdir()) == []


async def test_nothing_is_made_before_somebody_asks(tmp_path: Path) -> None:
    made: list[int] = []

    def document() -> dict[str, Any]:
        made.append(1)
        return {}

    server = StatusSocket(tmp_path, document)
    await server.open()
    assert not made
    await asyncio.to_thread(ask, tmp_path)
    assert len(made) == 1
    await server.close()


async def test_a_file_that_was_left_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "status.sock"))
    left.close()
    with pytest.raises(NoAgentError, match="no agent answers"):
        ask(tmp_path)
    server = StatusSocket(tmp_path, dict)
    assert await server.open() is None
    assert await asyncio.to_thread(ask, tmp_path) == {}
    await server.close()


async def test_a_large_answer_comes_whole_to_a_slow_reader(tmp_path: Path) -> None:
    server = StatusSocket(tmp_path, lambda: LARGE)
    await server.open()
    reader, writer = await asyncio.open_unix_connection(tmp_path / "status.sock", limit=4096)
    got = 0
    while piece := await reader.read(10_000):
        got += len(piece)
    assert got == len('{"text":""}') + 4_000_000
    writer.close()
    await server.close()


async def test_clients_that_do_not_read_are_cut_off_and_others_get_their_answer(tmp_path: Path) -> None:
    server = StatusSocket(tmp_path, lambda: LARGE, within_s=2.0)
    await server.open()
    held = [deaf(tmp_path) for _ in range(AT_ONCE - 1)]
    assert await asyncio.to_thread(ask, tmp_path) == LARGE
    held.append(deaf(tmp_path))

    async def all_of(asking: socket.socket) -> int:
        asking.setblocking(False)
        loop, got = asyncio.get_running_loop(), 0
        while piece := await loop.sock_recv(asking, 1 << 20):
            got += len(piece)
        return got

    for asking in held:
        await asyncio.to_thread(until_hung_up, asking)
    assert all(0 < got < 4_000_000 for got in [await all_of(asking) for asking in held])
    assert await asyncio.to_thread(ask, tmp_path) == LARGE
    for asking in held:
        asking.close()
    await server.close()


async def test_of_too_many_clients_the_later_get_no_answer_at_once(tmp_path: Path) -> None:
    server = StatusSocket(tmp_path, lambda: LARGE)
    await server.open()
    held = [deaf(tmp_path) for _ in range(AT_ONCE)]
    with pytest.raises(NoAgentError, match="gives no answer"):
        await asyncio.to_thread(ask, tmp_path)
    for asking in held:
        asking.close()
    await server.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
async def test_another_user_gets_no_answer(tmp_path: Path) -> None:
    server = StatusSocket(tmp_path, lambda: LARGE)
    await server.open()
    script = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(len(s.recv(100)))"
    )
    # The folder and the file are opened to all, so that what refuses is the agent and not the file's mode.
    (tmp_path / "status.sock").chmod(0o666)
    opened = tmp_path
    while opened != Path("/tmp") and opened != Path("/"):
        opened.chmod(opened.stat().st_mode | 0o055)
        opened = opened.parent
    process = await asyncio.create_subprocess_exec(
        "/usr/bin/python3",
        "-I",
        "-c",
        script,
        str(tmp_path / "status.sock"),
        user=65534,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert output == b"0\n"
    await server.close()


async def test_a_defect_in_the_document_ends_the_answer_and_not_the_socket(tmp_path: Path) -> None:
    answers = iter((None, {"fine": True}))

    def document() -> dict[str, Any]:
        answer = next(answers)
        if answer is None:
            raise KeyError("defect")
        return answer

    server = StatusSocket(tmp_path, document)
    await server.open()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    with pytest.raises(NoAgentError, match="its log may say more"):
        await asyncio.to_thread(ask, tmp_path)
    assert await asyncio.to_thread(ask, tmp_path) == {"fine": True}
    await server.close()


async def test_half_an_answer_and_another_program_are_no_agent(tmp_path: Path) -> None:
    for answer, problem in ((b'{"half', "broke off after 6 bytes"), (b"[]", "no agent of Reflex")):
        (tmp_path / "status.sock").unlink(missing_ok=True)

        async def say(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes = answer) -> None:
            writer.write(answer)
            writer.close()

        server = await asyncio.start_unix_server(say, tmp_path / "status.sock")
        with pytest.raises(NoAgentError, match=problem):
            await asyncio.to_thread(ask, tmp_path)
        server.close()


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    problem = await StatusSocket(tmp_path / "missing", dict).open()
    assert problem is not None
    assert "cannot be asked for its status" in problem
    problem = await StatusSocket(tmp_path / ("x" * 120), dict).open()
    assert problem is not None
    assert "No such file" in problem
