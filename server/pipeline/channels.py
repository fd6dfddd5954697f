"""What hosts say on their channels, and to whom it goes."""

from __future__ import annotations

from server.lender import Lender
from server.pipeline.pipeline import Pipeline


class Channels:
    """Lines of logs go to the pipeline, all else to the lender; both are told when a channel opens and closes."""

    def __init__(self, lender: Lender, pipeline: Pipeline) -> None:
        self._lender = lender
        self._pipeline = pipeline
        self._open: set[str] = set()

    async def heard(self, host: str, message: object) -> None:
        """A host says something; the first time is when its channel has opened."""
        if isinstance(message, dict) and isinstance(message.get("log"), dict):
            self._pipeline.said(host, message["log"])
            return
        await self._lender.heard(host, message)
        if host not in self._open:
            self._open.add(host)
            await self._pipeline.connected(host)

    def gone(self, host: str) -> None:
        """The channel of a host has closed."""
        self._open.discard(host)
        self._lender.gone(host)
        self._pipeline.gone(host)
