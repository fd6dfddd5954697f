"""GET /v1/artifacts/{id}: what an event names because it is too long for it."""

from __future__ import annotations

from uuid import UUID

from aiohttp import web

from server.errors import ApiError, bad_request
from server.store.artifacts import ArtifactTable
from server.stored import artifact_answer
from server.timeline import json_answer


class Artifacts:
    """Answers questions for artifacts."""

    def __init__(self, artifacts: ArtifactTable) -> None:
        self._artifacts = artifacts

    async def one(self, request: web.Request) -> web.Response:
        """One artifact by its id."""
        text = request.match_info["id"]
        try:
            id_ = str(UUID(text))
        except ValueError:
            raise bad_request(f"{text!r:.60} is no artifact id; ids are UUIDs") from None
        found = await self._artifacts.by_id(id_)
        if found is None:
            raise ApiError(404, "not_found", f"no artifact {id_} is stored: not yet, or not any more after 32 days")
        return json_answer(artifact_answer(found))
