"""Which replica a request goes to: the one that knows most of how it begins, unless that one has too much to do.

A request's beginning is a chain of hashes, one for each piece of its prompt, each over all before it: messages in pieces of
64 characters, ending where the message ends, so that a conversation's next turn begins with all pieces of the turn before.
For each replica the pieces are kept that it was sent lately, as many as its cache has blocks, the least recent forgotten
first, as its own cache does. What a replica really holds is its own to know; a wrong guess costs time and changes no answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import takewhile

from firsthand.cluster.replicas.replica_messages import TokenPrompt
from firsthand.message import Message, canonical
from firsthand.model import ToolSpec

PIECE_CHARS = 64
"""About as many as the tokens of a block have."""
PIECE_IDS = 16
MAX_PROMPT = 1 << 14
"""So many pieces of a prompt are looked at: a million characters."""
MAX_KNOWN = 1 << 16
"""So many are remembered of a replica at most."""
SLACK_ANSWERS = 4
SLACK_SHARE = 0.5
"""A replica may have so many answers under way more than the one with the fewest, and this share of that one's more."""

Pieces = list[int]


def pieces(prompt: TokenPrompt, tools: Sequence[ToolSpec] = (), *, space: object = None) -> Pieces:
    """The beginnings of a prompt, shortest first. In another `space`, such as another adapter's, they are others."""
    found: Pieces = []
    if tools:
        _extend(found, canonical([tool.to_json() for tool in tools]), space)
    if isinstance(prompt, str):
        _extend(found, prompt, space)
        return found
    if prompt and isinstance(prompt[0], Message):
        for message in prompt:
            assert isinstance(message, Message)
            _extend(found, spoken(message), space)
        return found
    for start in range(0, len(prompt) - PIECE_IDS + 1, PIECE_IDS):
        _add(found, tuple(prompt[start : start + PIECE_IDS]), space)
    return found


def followed(before: Pieces, answer: Message, *, space: object = None) -> Pieces:
    """The beginnings of a conversation that goes on with this answer."""
    found = list(before)
    _extend(found, spoken(answer), space)
    return found


def spoken(message: Message) -> str:
    """A message as text. The ids of calls are left out: every client sees others."""
    calls = [[call.name, call.arguments, call.invalid] for call in message.tool_calls]
    return f"{message.role}\n{message.text}{canonical(calls) if calls else ''}"


def _extend(found: Pieces, text: str, space: object) -> None:
    for start in range(0, len(text), PIECE_CHARS):
        _add(found, text[start : start + PIECE_CHARS], space)


def _add(found: Pieces, piece: object, space: object) -> None:
    if len(found) < MAX_PROMPT:
        found.append(hash((found[-1] if found else space, piece)))


class Router:
    """Remembers what each replica was sent. For one event loop."""

    def __init__(self) -> None:
        self._known: dict[int, OrderedDict[int, None]] = {}
        self._room: dict[int, int] = {}
        self._turn = 0
        self._last: dict[int, int] = {}
        """When each replica was chosen last."""

    def open(self, replica: int, num_blocks: int) -> None:
        """A replica is there, and knows nothing yet. Its cache has so many blocks."""
        self._known[replica] = OrderedDict()
        self._room[replica] = max(1, min(num_blocks, MAX_KNOWN))

    def close(self, replica: int) -> None:
        """A replica is gone, and what it knew with it."""
        self._known.pop(replica, None)

    def choose(self, wanted: Sequence[int], loads: Mapping[int, int]) -> int:
        """One of the replicas in `loads`, which has how many answers each has under way."""
        most = most_of(loads)
        free = [replica for replica, load in loads.items() if load <= most]
        best = min(free, key=lambda r: (-self.match(r, wanted), loads[r], self._last.get(r, 0)))
        self._turn += 1
        self._last[best] = self._turn
        return best

    def match(self, replica: int, wanted: Sequence[int]) -> int:
        """How many pieces a replica knows of a beginning."""
        known = self._known[replica]
        return sum(1 for _ in takewhile(known.__contains__, wanted))

    def note(self, replica: int, sent: Sequence[int]) -> None:
        """A replica computes this beginning now. The shortest beginnings are forgotten last."""
        known, room = self._known.get(replica), self._room.get(replica, 0)
        if known is None:
            return
        for piece in reversed(sent[:room]):
            known[piece] = None
            known.move_to_end(piece)
        while len(known) > room:
            known.popitem(last=False)

    def num_known(self, replica: int) -> int:
        """How many pieces are remembered of a replica."""
        return len(self._known.get(replica, ()))


def most_of(loads: Mapping[int, int]) -> float:
    """With more answers than this under way, a replica gets no request for what it knows."""
    least = min(loads.values())
    return least * (1 + SLACK_SHARE) + SLACK_ANSWERS
