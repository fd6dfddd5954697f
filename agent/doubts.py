"""Names that are not certain yet: of a Gunicorn master whose title may still have the mark of a second one. Pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable

SECOND_FOR_NS = 10_000_000_000
"""How long the mark may stay when the first master has gone: Gunicorn looks once a second, after it has begun all its workers."""


class Doubts:
    """Of one host. What is doubted is looked at again; after a while the name is believed as it is."""

    def __init__(self) -> None:
        self._since_ns: dict[Hashable, int] = {}

    def __bool__(self) -> bool:
        """Whether anything is doubted."""
        return bool(self._since_ns)

    def may_wait(self, what: Hashable, now_ns: int) -> bool:
        """Notes a doubt, at a monotonic time; whether it may be waited for still. What was waited for in vain is not doubted any more."""
        since_ns = self._since_ns.setdefault(what, now_ns)
        if now_ns - since_ns <= SECOND_FOR_NS:
            return True
        del self._since_ns[what]
        return False

    def keep(self, those: Collection[Hashable]) -> None:
        """Forgets all doubts but those."""
        self._since_ns = {what: since_ns for what, since_ns in self._since_ns.items() if what in those}
