"""Names that are not certain yet: of a Gunicorn master whose title may still have the mark of a second one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable

SECOND_FOR_NS = 10_000_000_000
"""How long the mark may stay when the first master has gone: Gunicorn looks once a second, after it has begun all its workers."""


class Doubts:
    """Of one host. What is doubted is looked at again; after a while the name is believed as it is."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        """`now_ns` is the monotonic clock."""
        self._now_ns = now_ns
        self._since_ns: dict[Hashable, int] = {}

    def __bool__(self) -> bool:
        """Whether anything is doubted."""
        return bool(self._since_ns)

    def may_wait(self, what: Hashable) -> bool:
        """Notes a doubt; whether it may be waited for still. What was waited for in vain is not doubted any more."""
        since_ns = self._since_ns.setdefault(what, self._now_ns())
        if self._now_ns() - since_ns <= SECOND_FOR_NS:
            return True
        del self._since_ns[what]
        return False

    def keep(self, those: set[Hashable]) -> None:
        """Forgets all doubts but those."""
        self._since_ns = {what: since_ns for what, since_ns in self._since_ns.items() if what in those}
