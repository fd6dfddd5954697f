"""Environments, files and logs of releases: what goes in, and what must not come out."""

from __future__ import annotations

import subprocess

from hypothesis import given
from hypothesis import strategies as st

from agent.release.layout import Layout
from agent.release.log import Log
from agent.release.words import environment_file, git_environment, redactor
from agent.wire.app import VARIABLE_NAME

LAYOUT = Layout("/srv/shop")
MARK = "PRIVATE KEY"
NAMES = st.from_regex(VARIABLE_NAME, fullmatch=True).map(lambda name: f"R_{name}"[:50])
VALUES = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FFF, exclude_categories=("Cs",)), max_size=40)


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_a_shell_reads_the_file_of_variables_as_it_was_meant(variables: dict[str, str]) -> None:
    script = environment_file(variables) + "\n".join(f"printf '%s\\0' \"${name}\"" for name in sorted(variables))
    read = subprocess.run(["/bin/sh"], input=script.encode(), capture_output=True, check=True).stdout
    assert read.split(b"\0")[:-1] == [variables[name].encode() for name in sorted(variables)]


def test_a_token_is_in_no_command_and_a_key_in_a_file_only() -> None:
    with_token = git_environment(LAYOUT, "ghp_verysecret", "https://git.example/team/shop.git")
    assert "ghp_verysecret" not in repr(with_token)
    assert with_token["GIT_CONFIG_KEY_0"] == "http.https://git.example/.extraHeader"
    with_key = git_environment(LAYOUT, f"-----BEGIN OPENSSH {MARK}-----\nabc\n")
    assert "abc" not in repr(with_key)
    assert "/srv/shop/.reflex/key" in with_key["GIT_SSH_COMMAND"]


@given(st.lists(st.text(min_size=4, max_size=20).filter(lambda text: text.strip() == text), max_size=4), st.text())
def test_no_secret_is_in_what_is_told(secrets: list[str], around: str) -> None:
    redact = redactor(secrets)
    for secret in secrets:
        if len(secret.splitlines()) == 1:
            assert secret not in redact(f"{around}{secret}{around}").replace("•••", "") or secret in "•••"


def test_a_log_is_bounded_and_says_what_it_left_out() -> None:
    sent: list[str] = []
    log = Log(["hunter2!"], lambda: 5, lambda _at, line: sent.append(line))
    for number in range(10_000):
        log.say(f"line {number} hunter2!")
    artifact = log.artifact("01890000-0000-7000-8000-000000000001")
    assert b"hunter2" not in artifact.content
    assert b"line 0 " in artifact.content
    assert b"line 9999 " in artifact.content
    assert b'"left_out":' in artifact.content
    assert len(artifact.content) < 256 * 1024
    assert len(sent) == 10_000
    assert sent[0] == "line 0 •••"
