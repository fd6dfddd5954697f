"""Chains from plain values: order, links, gaps, what is missing, circles."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.wire import Event
from server.causes import Link, build_chain
from server.stored import StoredEvent


def event(name: str, ts_us: int, cause: str | None = None) -> StoredEvent:
    return StoredEvent("web-3", Event(name, ts_us, "worker.exited", "info", "it ended", cause=cause))


def test_a_story_reads_from_its_root() -> None:
    kill, gone = event("kill", 100), event("gone", 150, "kill")
    start, other, ready = event("start", 200, "gone"), event("other", 170, "kill"), event("ready", 900, "start")
    chain = build_chain("start", [ready, start, other, gone, kill])
    assert chain.root == "kill"
    assert [one.event.id for one in chain.events] == ["kill", "gone", "other", "start", "ready"]
    assert Link("start", "ready", 700) in chain.links
    assert len(chain.links) == 4
    assert chain.missing == ()


def test_an_effect_comes_after_its_cause_even_if_clocks_disagree() -> None:
    chain = build_chain("a", [event("effect", 50, "a"), event("a", 100)])
    assert [one.event.id for one in chain.events] == ["a", "effect"]
    assert chain.links == (Link("a", "effect", -50),)


def test_a_cause_that_is_not_stored_is_named() -> None:
    chain = build_chain("b", [event("b", 2, "a"), event("c", 3, "b")])
    assert (chain.root, chain.missing) == ("b", ("a",))


def test_circles_are_survived() -> None:
    chain = build_chain("b", [event("a", 1, "c"), event("b", 2, "a"), event("c", 3, "b")])
    assert [one.event.id for one in chain.events] == ["a", "b", "c"]
    own = build_chain("x", [event("x", 1, "x")])
    assert (own.root, len(own.events)) == ("x", 1)


@given(
    st.dictionaries(
        st.integers(0, 30), st.tuples(st.integers(0, 9), st.one_of(st.none(), st.integers(0, 40))), min_size=1
    )
)
def test_every_event_once_and_links_only_between_events(parents: dict[int, tuple[int, int | None]]) -> None:
    events = [event(str(name), ts, None if up is None else str(up)) for name, (ts, up) in parents.items()]
    chain = build_chain(events[0].event.id, events)
    names = [one.event.id for one in chain.events]
    assert sorted(names) == sorted(one.event.id for one in events)
    assert all(link.cause in names and link.effect in names for link in chain.links)
    assert not set(chain.missing) & set(names)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 100)), min_size=1))
def test_a_cause_is_always_before_its_effects(tree: list[tuple[int, int]]) -> None:
    """Each event's cause is one made earlier, so there are no circles."""
    events = [event(str(i), ts, str(up % i) if i else None) for i, (ts, up) in enumerate(tree)]
    place = {one.event.id: index for index, one in enumerate(build_chain("0", events).events)}
    assert all(one.event.cause is None or place[one.event.cause] < place[one.event.id] for one in events)
