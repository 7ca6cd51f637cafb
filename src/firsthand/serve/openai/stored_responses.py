"""Stores responses for their clients in memory, bounded in number and bytes for each key, the oldest deleted first.

A stored response holds its whole conversation, so that a response which continues it needs no other. A response of another
key is not found.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from firsthand.message import Json
from firsthand.serve.http.refusals import Refusal

if TYPE_CHECKING:
    from firsthand.serve.openai.responses_schema import ResponseItem


@dataclass(frozen=True)
class Stored:
    """A response, and the conversation up to its end."""

    response: Json
    items: tuple[ResponseItem, ...]
    size_bytes: int


@dataclass
class _ClientResponses:
    """The responses of one client."""

    by_id: OrderedDict[str, Stored] = field(default_factory=OrderedDict)
    size_bytes: int = 0


class ResponseStore:
    """The responses of all clients. For one event loop."""

    def __init__(self, *, max_responses: int, max_bytes: int):
        self.max_responses, self.max_bytes = max_responses, max_bytes
        self._clients: dict[str, _ClientResponses] = {}

    def keep(self, client: str, response: Json, items: tuple[ResponseItem, ...]) -> bool:
        """Store a response, and delete the client's oldest ones for it. False if it is too large to be stored at all."""
        texts = [json.dumps(response), *(json.dumps(item.model_dump(exclude_none=True)) for item in items)]
        stored = Stored(response, items, sum(map(len, texts)))
        if not self.max_responses or stored.size_bytes > self.max_bytes:
            return False
        kept = self._clients.setdefault(client, _ClientResponses())
        self._drop(client, response["id"])
        kept.by_id[response["id"]] = stored
        kept.size_bytes += stored.size_bytes
        while len(kept.by_id) > self.max_responses or kept.size_bytes > self.max_bytes:
            self._drop(client, next(iter(kept.by_id)))
        return True

    def find(self, client: str, id: str, param: str | None = None) -> Stored:
        """A client's own response; a Refusal with 404 if it has none of this id."""
        kept = self._clients.get(client)
        if kept is None or id not in kept.by_id:
            raise Refusal(
                404, f"there is no response {id!r:.100} here: it was not kept, or is forgotten", param=param,
                code="response_not_found",
            )  # fmt: skip
        return kept.by_id[id]

    def delete(self, client: str, id: str) -> None:
        """Delete a client's own response; a Refusal with 404 if it has none of this id."""
        self.find(client, id)
        self._drop(client, id)

    def _drop(self, client: str, id: str) -> None:
        kept = self._clients[client]
        if (old := kept.by_id.pop(id, None)) is not None:
            kept.size_bytes -= old.size_bytes
