"""Stores responses for their clients in memory, bounded in number and bytes for each key, the oldest deleted first.

A stored response holds its whole conversation, so that a response which continues it needs no other. Both are kept as
compressed JSON, apart from each other, and their bytes are those that are held. The response is sent as it was encoded once.
The conversation is kept with one text for each item and has no more of them, and no more text, than a request could send, so
that to continue it costs no more than to send it again. A response of another key is not found.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from firsthand.message import Json
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.replies import pieces
from firsthand.serve.openai.request_schema import MAX_MESSAGES
from firsthand.serve.openai.responses_schema import ResponseItem, joined

ENTRY_BYTES = 512
"""Memory of an entry besides its compressed JSON: the id, the objects that hold it, and its place in the tables."""
MAX_ITEMS = 4 * MAX_MESSAGES
"""Most items of a stored conversation: a message of a chat may have reasoning, a call and its output beside it."""
MAX_CONVERSATION_BYTES = 4 << 20
"""Most bytes of JSON of a stored conversation, for clients whose request bodies may not have more."""
_LEVEL = 1
"""zlib's fastest level: text shrinks to a third or a quarter."""


@dataclass(frozen=True)
class _Stored:
    """A response, and the conversation up to its end, a line for each item: compressed JSON."""

    response: bytes
    items: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.response) + len(self.items) + ENTRY_BYTES


@dataclass
class _ClientResponses:
    """The responses of one client."""

    by_id: OrderedDict[str, _Stored] = field(default_factory=OrderedDict)
    size_bytes: int = 0


class ResponseStore:
    """The responses of all clients. For one event loop; JSON is encoded, packed and decoded in another thread."""

    def __init__(self, *, max_responses: int, max_bytes: int):
        self.max_responses, self.max_bytes = max_responses, max_bytes
        self._clients: dict[str, _ClientResponses] = {}

    def size_bytes(self, client: str) -> int:
        """Returns the bytes that are held for a client."""
        return self._clients[client].size_bytes if client in self._clients else 0

    async def keep(
        self,
        client: str,
        response: Json,
        items: Sequence[ResponseItem],
        *,
        max_conversation_bytes: int = MAX_CONVERSATION_BYTES,
    ) -> bool:
        """Store a response, and delete the client's oldest ones for it.

        False if it is too large to be stored at all: its JSON, too, is bounded, since reading unpacks it.
        """
        if not self.max_responses or len(items) > MAX_ITEMS:
            return False
        stored = await asyncio.to_thread(_packed, response, items, self.max_bytes, max_conversation_bytes)
        if stored is None:
            return False
        kept = self._clients.setdefault(client, _ClientResponses())
        self._drop(client, response["id"])
        kept.by_id[response["id"]] = stored
        kept.size_bytes += stored.size_bytes
        while len(kept.by_id) > self.max_responses or kept.size_bytes > self.max_bytes:
            self._drop(client, next(iter(kept.by_id)))
        return True

    async def response(self, client: str, id: str) -> bytes:
        """A client's own response as JSON; a Refusal with 404 if it has none of this id."""
        return await asyncio.to_thread(zlib.decompress, self._find(client, id).response)

    async def items(self, client: str, id: str, param: str | None = None) -> list[ResponseItem]:
        """The conversation up to the end of a client's own response; a Refusal with 404 if it has none of this id."""
        return await asyncio.to_thread(_unpacked, self._find(client, id, param).items)

    def delete(self, client: str, id: str) -> None:
        """Delete a client's own response; a Refusal with 404 if it has none of this id."""
        self._find(client, id)
        self._drop(client, id)

    def _find(self, client: str, id: str, param: str | None = None) -> _Stored:
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
            kept.size_bytes -= old.size_bytes


def _packed(response: Json, items: Sequence[ResponseItem], most: int, most_of_items: int) -> _Stored | None:
    """The response and its conversation as they are kept; None if their JSON has more bytes than that."""
    body = b"".join(piece.encode("utf-8", "replace") for piece in pieces(response))
    lines, size = [], 0
    for item in items:
        line = json.dumps(joined(item).model_dump(exclude_none=True), ensure_ascii=False)
        lines.append(line.encode("utf-8", "surrogatepass"))
        size += len(lines[-1]) + 1
        if size > most_of_items or size + len(body) + ENTRY_BYTES > most:
            return None
    if len(body) + ENTRY_BYTES > most:
        return None
    return _Stored(zlib.compress(body, _LEVEL), zlib.compress(b"\n".join(lines), _LEVEL))


def _unpacked(packed: bytes) -> list[ResponseItem]:
    """The items, decoded one at a time, so that the event loop runs meanwhile."""
    lines = zlib.decompress(packed).split(b"\n")
    return [ResponseItem.model_validate(json.loads(line.decode("utf-8", "surrogatepass"))) for line in lines if line]
