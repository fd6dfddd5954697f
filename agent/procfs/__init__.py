"""The only reader of /proc and of the cgroup file systems. Roots are parameters, so that trees can be tried.

A process can end between any two reads: every reader answers None, or nothing, for one that is gone.
"""

from __future__ import annotations

from agent.procfs.cgroups import MemoryCgroups
from agent.procfs.own import (
    OWN_SESSION,
    foreign_namespaces,
    own_capabilities,
    own_capability_sets,
    own_descriptor,
    own_network,
    own_oom_score_adj,
    own_threads,
    perf_event_paranoid,
    set_own_oom_score_adj,
    short_path,
)
from agent.procfs.reader import ProcFs
from agent.procfs.values import (
    PAGE_BYTES,
    TICKS_PER_SECOND,
    Connection,
    Listener,
    OomCount,
    OpenFile,
    Peer,
    Process,
    Remains,
    Shares,
    Usage,
)

__all__ = [
    "OWN_SESSION",
    "PAGE_BYTES",
    "TICKS_PER_SECOND",
    "Connection",
    "Listener",
    "MemoryCgroups",
    "OomCount",
    "OpenFile",
    "Peer",
    "ProcFs",
    "Process",
    "Remains",
    "Shares",
    "Usage",
    "foreign_namespaces",
    "own_capabilities",
    "own_capability_sets",
    "own_descriptor",
    "own_network",
    "own_oom_score_adj",
    "own_threads",
    "perf_event_paranoid",
    "set_own_oom_score_adj",
    "short_path",
]
