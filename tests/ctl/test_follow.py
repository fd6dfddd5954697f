"""`reflexctl timeline --follow`: nothing missed and nothing twice, whatever happens to the server."""

from __future__ import annotations

import json
import signal
from typing import Any

from server.secret import hash_of
from server.state import OPERATOR_TOKENS


def ids(text: str) -> list[str]:
    return [json.loads(line)["id"] for line in text.splitlines()]


def test_what_was_and_then_what_comes_until_ctrl_c(start_ctl: Any, agent: Any, event: Any) -> None:
    old, other, new = event(), event(kind="worker.started"), event()
    agent.tell(old)
    running = start_ctl("timeline", "--follow", "--json", "--host", agent.host, "--kind", "worker.exited")
    running.wait_for(old["id"])
    agent.tell(other, new)
    running.wait_for(new["id"])
    running.signal(signal.SIGINT)
    done = running.end()
    assert (done.code, done.err) == (130, "")
    assert ids(done.out) == [old["id"], new["id"]]


def test_an_empty_timeline_is_followed_too(start_ctl: Any, agent: Any, event: Any) -> None:
    running = start_ctl("timeline", "-f", "--host", agent.host)
    running.wait_for("nothing yet; waiting", on="err")
    told = event()
    agent.tell(told)
    running.wait_for(told["id"])


def test_a_restart_of_the_server_loses_nothing_and_repeats_nothing(
    start_ctl: Any, restartable: Any, agent_of: Any, event: Any
) -> None:
    agent = agent_of(restartable)
    told = [event() for _ in range(40)]
    agent.tell(*told[:10])
    running = start_ctl("timeline", "-f", "--json", REFLEX_URL=restartable.base, REFLEX_TOKEN=restartable.token)
    running.wait_for(told[9]["id"])
    agent.tell(*told[10:20])
    running.wait_for(told[19]["id"])
    restartable.kill()
    running.wait_for("trying again", on="err")
    restartable.start()
    agent.tell(*told[20:30])
    running.wait_for("again\n", on="err")
    agent.tell(*told[30:])
    running.wait_for(told[-1]["id"])
    seen = [id_ for id_ in ids(running.out) if id_ in {e["id"] for e in told}]
    assert seen == [e["id"] for e in told]


def test_what_happens_while_nothing_was_printed_yet_survives_a_restart(
    start_ctl: Any, restartable: Any, agent_of: Any, event: Any
) -> None:
    agent = agent_of(restartable)
    running = start_ctl(
        "timeline", "-f", "--json", "--host", agent.host, REFLEX_URL=restartable.base, REFLEX_TOKEN=restartable.token
    )
    running.wait_for("nothing yet", on="err")
    assert restartable.stop() == 0
    running.wait_for("trying again", on="err")
    restartable.start()
    told = event()
    agent.tell(told)
    running.wait_for(told["id"])
    assert ids(running.out) == [told["id"]]


def test_while_the_server_is_away_ctrl_c_is_quiet_and_a_token_may_be_revoked(
    start_ctl: Any, restartable: Any, agent_of: Any, event: Any
) -> None:
    agent_of(restartable).tell(event(text="the last word"))
    revoked, restartable.token = restartable.token, restartable.new_token()
    watching, leaving = (
        start_ctl("timeline", "-f", REFLEX_URL=restartable.base, REFLEX_TOKEN=revoked) for _ in range(2)
    )
    for one in (watching, leaving):
        one.wait_for("the last word")
    restartable.kill()
    leaving.wait_for("trying again", on="err")
    leaving.signal(signal.SIGINT)
    left = leaving.end()
    restartable._open(lambda state: state.revoke(OPERATOR_TOKENS, OPERATOR_TOKENS.c.hash == hash_of(revoked), now_us=1))
    restartable.start()
    watched = watching.end()
    assert (left.code, left.err.count("\n")) == (130, 1)
    assert watched.code == 4
    assert "reflex-server operator-token new" in watched.err
    assert revoked not in watched.err


def test_an_unreachable_server_is_3_at_once(start_ctl: Any) -> None:
    done = start_ctl("timeline", "--follow", REFLEX_URL="http://127.0.0.1:1").end()
    assert done.code == 3
    assert "http://127.0.0.1:1 cannot be reached" in done.err


def test_a_closed_pipe_ends_it_at_the_next_event(start_ctl: Any, agent: Any, event: Any) -> None:
    first = event()
    agent.tell(first)
    running = start_ctl("timeline", "-f", "--host", agent.host)
    running.wait_for(first["id"])
    running.close_stdout()
    agent.tell(event())
    done = running.end()
    assert (done.code, done.err) == (0, "")
