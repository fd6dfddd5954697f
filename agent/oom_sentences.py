"""What is told of OOM kills that were counted, not heard: how many, where, within how long, and what is not known. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from agent.counters import Difference
from agent.wire import Event, Evidence, Scalar
from agent.words import span

_WHO = {True: "a counter does not say which one", False: "a counter does not say which ones"}
_LIKELY = "Most likely the kernel's OOM killer did it: it killed {kills} in memory cgroup {path} at that time."


def killed_in_cgroup(kills: int, path: str, services: Collection[str]) -> str:
    """Kills in a cgroup that holds services."""
    return (
        f"The kernel's OOM killer killed {processes(kills)} in memory cgroup {path}, where {_run(services)}; "
        f"{_WHO[kills == 1]}."
    )


def killed_elsewhere(kills: int, host: str) -> str:
    """Kills in no cgroup of a known service."""
    return (
        f"The kernel's OOM killer killed {processes(kills)} on {host}, in no memory cgroup of a service that the agent "
        f"knows; {_WHO[kills == 1]}."
    )


def count_evidence(source: str, kills: int, seconds: float) -> Evidence:
    """What a counter said."""
    return Evidence(source, f"oom_kill rose by {kills} within {span(seconds)}")


def count_attrs(source: str, kills: int, path: str | None) -> dict[str, Scalar]:
    """How the kills are known, and how many they are."""
    attrs: dict[str, Scalar] = {"counted_by": source, "kills": kills}
    return attrs if path is None else {**attrs, "cgroup": path}


def likely_killed(death: Event, counted: Event) -> Event:
    """A death that nobody saw happen, with the counted kill that most likely was it."""
    path, source = counted.attrs["cgroup"], str(counted.attrs["counted_by"])
    kills = processes(int(counted.attrs["kills"]))
    return replace(
        death,
        text=f"{death.text} {_LIKELY.format(kills=kills, path=path)}",
        cause=counted.id,
        evidence=(*death.evidence, Evidence(f"{source} of {path}", counted.evidence[0].fact)),
        attrs={**death.attrs, "likely_death": "kernel_oom"},
    )


def mismatch(
    found: Difference, host: str, seconds: float, path: str | None, services: Collection[str], *, heard: bool
) -> str:
    """More kills counted than told, on the host or in the memory cgroup `path`. `heard`: told, but of no service."""
    where = "" if path is None else f" in memory cgroup {path}, where {_run(services)},"
    lack = f"{found.missing} {'was' if found.missing == 1 else 'were'} {'told without a service' if heard else 'not heard'}"
    return (
        f"The kernel counted {kills(found.counted)} on {host}{where} within {span(seconds)}, and the agent told of "
        f"{found.told}{'' if path is None else ' there'}: {lack}."
    )


def mismatch_attrs(found: Difference, path: str | None) -> dict[str, Scalar]:
    """Both numbers, and since when they differ."""
    attrs: dict[str, Scalar] = {
        "counted": found.counted,
        "told": found.told,
        "missing": found.missing,
        "since_us": found.since_us,
    }
    return attrs if path is None else {**attrs, "cgroup": path}


def kills(number: int) -> str:
    """`1 OOM kill`, `3 OOM kills`."""
    return f"{number} OOM kill{'' if number == 1 else 's'}"


def processes(number: int) -> str:
    """`one process`, `3 processes`."""
    return "one process" if number == 1 else f"{number} processes"


def _run(services: Collection[str]) -> str:
    return f"{' and '.join(services)} {'runs' if len(services) == 1 else 'run'}"
