"""Stores responses for their clients in memory, bounded in number and bytes for each key, the oldest deleted first.

A stored response holds its whole conversation, so that a response which continues it needs no other. It is kept as
compressed JSON, and its bytes are those that are held. A response of another key is not found.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field

from firsthand.message import Json
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.openai.responses_schema import ResponseItem

ENTRY_BYTES = 512
"""Memory of an entry besides its compressed JSON: the id, the objects that hold it, and its place in the tables."""
_LARGE = 1 << 16
"""JSON of more bytes is compressed in another thread, so that it does not block the event loop."""
_LEVEL = 1
"""zlib's fastest level: text shrinks to a third or a quarter."""


@dataclass(frozen=True)
class Stored:
    """A response, and the conversation up to its end."""

    response: Json
    items: tuple[ResponseItem, ...]


@dataclass
class _ClientResponses:
    """The responses of one client, as compressed JSON."""

    by_id: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    size_bytes: int = 0


class ResponseStore:
    """The responses of all clients. For one event loop."""

    def __init__(self, *, max_responses: int, max_bytes: int):
        self.max_responses, self.max_bytes = max_responses, max_bytes
        self._clients: dict[str, _ClientResponses] = {}

    def size_bytes(self, client: str) -> int:
        """Returns the bytes that are held for a client."""
        return self._clients[client].size_bytes if client in self._clients else 0

    async def keep(self, client: str, response: Json, items: tuple[ResponseItem, ...]) -> bool:
        """Store a response, and delete the client's oldest ones for it.

        False if it is too large to be stored at all: its JSON, too, is bounded, since `find` unpacks it.
        """
        if not self.max_responses:
            return False
        text = json.dumps([response, [item.model_dump(exclude_none=True) for item in items]]).encode()
        if len(text) + ENTRY_BYTES > self.max_bytes:
            return False
        large = len(text) > _LARGE
        packed = await asyncio.to_thread(zlib.compress, text, _LEVEL) if large else zlib.compress(text, _LEVEL)
        kept = self._clients.setdefault(client, _ClientResponses())
        self._drop(client, response["id"])
        kept.by_id[response["id"]] = packed
        kept.size_bytes += len(packed) + ENTRY_BYTES
        while len(kept.by_id) > self.max_responses or kept.size_bytes > self.max_bytes:
            self._drop(client, next(iter(kept.by_id)))
        return True

    def find(self, client: str, id: str, param: str | None = None) -> Stored:
        """A client's own response; a Refusal with 404 if it has none of this id."""
        response, items = json.loads(zlib.decompress(self._packed(client, id, param)))
        return Stored(response, tuple(map(ResponseItem.model_validate, items)))

    def delete(self, client: str, id: str) -> None:
        """Delete a client's own response; a Refusal with 404 if it has none of this id."""
        self._packed(client, id)
        self._drop(client, id)

    def _packed(self, client: str, id: str, param: str | None = None) -> bytes:
        kept = self._clients.get(client)
        if kept is None or id not in kept.by_id:
            raise Refusal(
                404, f"there is no response {id!r:.100} here: it was not kept, or is forgotten", param=param,
                code="response_not_found",
            )  # fmt: skip
        return kept.by_id[id]

    def _drop(self, client: str, id: str) -> None:
        kept = self._clients[client]
        if (old := kept.by_id.pop(id, None)) is not None:
            kept.size_bytes -= len(old) + ENTRY_BYTES
