"""ChargedSteps: a listener that charges a client for the tokens of an attempt, whichever door it came by."""

from __future__ import annotations

from collections.abc import Callable

from firsthand.loop.listener import Added, Began, Piece, Step
from firsthand.loop.prompt_size import BYTES_PER_TOKEN, TOKENS_PER_MESSAGE, estimated_size
from firsthand.message import Message
from firsthand.trace import Call, Node

Charge = Callable[[str, int], None]
"""Charges the client of this name for tokens."""


def charge_nobody(client: str, num_tokens: int) -> None:
    """The charge where no client has an allowance."""


class ChargedSteps:
    """Charges each model call as it ends. A call that the journal repeats was charged when it was made."""

    streams = False

    def __init__(self, charge: Charge, client: str):
        self._charge, self._client = charge, client
        self._nodes: list[Node] = []
        self._open: dict[str, tuple[int | None, int]] = {}
        """The calls of a model under way: the node that each was made from, and bytes of its answer."""

    def __call__(self, step: Step) -> None:
        """Count a step."""
        match step:
            case Added(_, node):
                self._nodes.append(node)
            case Began(id, kind, at) if kind != "tool":
                self._open[id] = at, 0
            case Piece(id, text) if id in self._open:
                at, size = self._open[id]
                self._open[id] = at, size + len(text.encode("utf-8", "surrogatepass"))
            case Call():
                is_asked = self._open.pop(step.id, None) is not None and step.error is None
                num_tokens = step.usage.total_tokens or (self._estimated(step) if is_asked else 0)
                if not step.replayed and num_tokens:
                    self._charge(self._client, num_tokens)

    def _estimated(self, call: Call) -> int:
        """About the tokens of a call whose endpoint stated none, by the bytes of its prompt and answers."""
        answers = [[self._nodes[index].message] for index in call.nodes if index < len(self._nodes)]
        size = sum(estimated_size(each) - 2 * TOKENS_PER_MESSAGE for each in answers)
        return estimated_size(self._path(call.at)) + size

    def cut(self) -> None:
        """Charge the calls that were cut off with the attempt, by the bytes of their prompts and of what they had said."""
        for at, size in self._open.values():
            self._charge(self._client, estimated_size(self._path(at)) - (-size // BYTES_PER_TOKEN))
        self._open.clear()

    def _path(self, at: int | None) -> list[Message]:
        messages = []
        while at is not None and at < len(self._nodes):
            messages.append(self._nodes[at].message)
            at = self._nodes[at].parent
        return messages
