"""Prefix-aware routing: a request goes to the replica with the longest cached prefix of it, unless that one is too busy.

A prompt is a chain of hashes, one for each piece, each over all pieces before it. Messages are cut into pieces of 64
characters, the last of which ends with the message, so that the next turn of a conversation starts with all pieces of the
turn before. The router remembers the pieces that it lately sent to each replica, as many as the replica's cache has blocks,
and forgets the least recently used, as the cache does. It only estimates: a wrong guess costs time and changes no answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import takewhile

from firsthand.cluster.replicas.replica_messages import TokenPrompt
from firsthand.message import Message, canonical
from firsthand.model import ToolSpec

PIECE_CHARS = 64
"""About the characters of a block's tokens."""
PIECE_IDS = 16
MAX_PROMPT = 1 << 14
"""Most pieces of a prompt that count: a million characters."""
MAX_KNOWN = 1 << 16
"""Most pieces remembered for a replica."""
SLACK_ANSWERS = 4
SLACK_SHARE = 0.5
"""A replica may have this many more answers under way than the one with the fewest, plus this share of that one's."""

PrefixHashes = list[int]


def prefix_hashes(prompt: TokenPrompt, tools: Sequence[ToolSpec] = (), *, space: object = None) -> PrefixHashes:
    """The hashes of a prompt's prefixes, shortest first. They differ between spaces, such as those of adapters."""
    hashes: PrefixHashes = []
    if tools:
        _extend(hashes, canonical([tool.to_json() for tool in tools]), space)
    if isinstance(prompt, str):
        _extend(hashes, prompt, space)
        return hashes
    if prompt and isinstance(prompt[0], Message):
        for message in prompt:
            assert isinstance(message, Message)
            _extend(hashes, message_text(message), space)
        return hashes
    for start in range(0, len(prompt) - PIECE_IDS + 1, PIECE_IDS):
        _add(hashes, tuple(prompt[start : start + PIECE_IDS]), space)
    return hashes


def next_turn_hashes(before: PrefixHashes, answer: Message, *, space: object = None) -> PrefixHashes:
    """The hashes of a conversation's prefixes after this answer."""
    hashes = list(before)
    _extend(hashes, message_text(answer), space)
    return hashes


def message_text(message: Message) -> str:
    """A message as text. The ids of calls are left out: they differ between clients."""
    calls = [[call.name, call.arguments, call.invalid] for call in message.tool_calls]
    return f"{message.role}\n{message.text}{canonical(calls) if calls else ''}"


def _extend(hashes: PrefixHashes, text: str, space: object) -> None:
    for start in range(0, len(text), PIECE_CHARS):
        _add(hashes, text[start : start + PIECE_CHARS], space)


def _add(hashes: PrefixHashes, piece: object, space: object) -> None:
    if len(hashes) < MAX_PROMPT:
        hashes.append(hash((hashes[-1] if hashes else space, piece)))


class Router:
    """Remembers the prefixes that each replica was sent. For one event loop."""

    def __init__(self) -> None:
        self._known: dict[int, OrderedDict[int, None]] = {}
        self._room: dict[int, int] = {}
        self._turn = 0
        self._last: dict[int, int] = {}
        """The turn in which each replica was chosen last."""

    def open(self, replica: int, num_blocks: int) -> None:
        """Add a replica with an empty cache of this many blocks."""
        self._known[replica] = OrderedDict()
        self._room[replica] = max(1, min(num_blocks, MAX_KNOWN))

    def close(self, replica: int) -> None:
        """Remove a replica, and all that is remembered of it."""
        self._known.pop(replica, None)

    def choose(self, prefix: Sequence[int], loads: Mapping[int, int]) -> int:
        """The best replica of `loads`, which has the number of answers under way in each."""
        most = max_load(loads)
        free = [replica for replica, load in loads.items() if load <= most]
        best = min(free, key=lambda r: (-self.match(r, prefix), loads[r], self._last.get(r, 0)))
        self._turn += 1
        self._last[best] = self._turn
        return best

    def match(self, replica: int, prefix: Sequence[int]) -> int:
        """The number of leading pieces that the replica has been sent."""
        known = self._known[replica]
        return sum(1 for _ in takewhile(known.__contains__, prefix))

    def note(self, replica: int, sent: Sequence[int]) -> None:
        """Remember that the replica computes this prefix. The shortest prefixes are forgotten last."""
        known, room = self._known.get(replica), self._room.get(replica, 0)
        if known is None:
            return
        for piece in reversed(sent[:room]):
            known[piece] = None
            known.move_to_end(piece)
        while len(known) > room:
            known.popitem(last=False)

    def num_known(self, replica: int) -> int:
        """The number of pieces remembered for a replica."""
        return len(self._known.get(replica, ()))


def max_load(loads: Mapping[int, int]) -> float:
    """The load above which a replica gets no request because of its cache."""
    least = min(loads.values())
    return least * (1 + SLACK_SHARE) + SLACK_ANSWERS
