"""The command line and the process: exit codes, secrets, restarts."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.__main__ import main
from server.secret import hash_of
from server.settings import SETTINGS_DOC

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["run", "--help"], ["host-key", "add", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "host-key add web-3" in said
    assert "exit codes" in said
    assert all("--" + name.replace("_", "-") in said for name in SETTINGS_DOC)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen", "nowhere"],
        ["--listen", "127.0.0.1:99999"],
        ["--log-level", "loud"],
        ["--silent-after-s", "-1"],
        ["host-key"],
        ["host-key", "add", "a b"],
        ["operator-token", "revoke", "x"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_a_taken_port_is_3(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run("--state", str(tmp_path / "state"), "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert ended.returncode == 3
    assert "cannot listen on 127.0.0.1" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_state_directory_that_cannot_be_made_is_4(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = run("--state", str(tmp_path / "file" / "state"))
    assert ended.returncode == 4
    assert "--state" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_second_server_on_one_state_is_5(server: Any) -> None:
    ended = run("--listen", "127.0.0.1:0", "--state", str(server.state))
    assert ended.returncode == 5
    assert f"pid {server.pid}" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_clickhouse_that_does_not_answer_is_5(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"http://127.0.0.1:{port}/reflex"
    ended = run("--listen", "127.0.0.1:0", "--state", str(tmp_path / "state"), "--clickhouse", url)
    assert ended.returncode == 5
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_first_start_shows_a_token_once(own_server: Any, tmp_path: Path) -> None:
    server = own_server()
    line = next(line.strip() for line in server.said.splitlines() if "#token=" in line)
    base, token = line.split("/#token=")
    assert base == server.base
    assert token not in server.log()
    assert hash_of(token).encode() in b"".join(path.read_bytes() for path in server.state.glob("state.db*"))
    assert token.encode() not in b"".join(path.read_bytes() for path in server.state.glob("state.db*"))
    assert server.stop() == 0
    server.start()
    assert "rfx_op_" not in server.said


def test_the_first_token_can_go_to_a_file(own_server: Any, tmp_path: Path) -> None:
    server = own_server("--first-token-file", str(tmp_path / "token"))
    assert "rfx_op_" not in server.said
    assert (tmp_path / "token").read_text().startswith("rfx_op_")
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


async def test_keys_and_tokens_by_command(own_server: Any, http: Any, tmp_path: Path) -> None:
    """They take effect in the running server."""
    server = own_server()
    state = ["--state", str(server.state)]
    made = run("host-key", "add", "web-9", *state)
    key = made.stdout.strip()
    assert key.startswith("rfx_host_") and "\n" not in key
    batch = {"v": 1, "spool": "019a0000-0000-7000-8000-000000000001"}

    async def status_of(secret: str) -> int:
        headers = {"Authorization": f"Bearer {secret}"}
        async with http.post(server.base + "/v1/ingest", json=batch, headers=headers) as answer:
            return int(answer.status)

    assert await status_of(key) == 200
    listed = run("host-key", "list", *state).stdout
    assert "web-9" in listed and key not in listed
    assert run("host-key", "revoke", "web-9", *state).returncode == 0
    assert run("host-key", "revoke", "web-9", *state).returncode == 6
    assert "revoked" in run("host-key", "list", *state).stdout

    out = tmp_path / "token"
    assert run("operator-token", "new", "--out", str(out), *state).stdout == ""
    assert out.stat().st_mode & 0o777 == 0o600
    async with http.post(server.base + "/v1/session", json={"token": out.read_text().strip()}) as answer:
        assert answer.status == 200
    assert run("operator-token", "revoke", "99", *state).returncode == 6


async def test_a_restart_keeps_everything(own_server: Any, connect: Any, make_event: Any) -> None:
    server = own_server()
    api, agent = connect(server, "web-1")
    event = make_event()
    await agent.send(event)
    before = await api.timeline()
    assert server.stop() == 0
    server.start()
    api.base = server.base
    assert await api.timeline() == before
    assert (await api.get("/v1/hosts"))[1]["hosts"][0]["name"] == "web-1"
    assert (await api.get("/readyz"))[0] == 200
