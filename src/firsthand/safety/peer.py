"""Stands in front of a model of somebody else, such as an A2A agent: what only the user may read is not sent to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.private_texts import copies
from firsthand.message import Message, Reasoning, Text, ToolCall, ToolResult
from firsthand.safety.rules.case import earlier_calls, words_of
from firsthand.safety.rules.escaped_text import unescaped
from firsthand.safety.rules.witness import leaves


@dataclass(frozen=True)
class Peer:
    """The guard. The user's own words are the user's to send."""

    name = "peer"

    def prompt(self, view: AttemptView, messages: tuple[Message, ...]) -> GuardVerdict:
        """Blocks a prompt that copies a private result, of this attempt or kept in memory by an earlier one: a run of words,
        a code, or the whole of a short one, in whatever part of a message."""
        tools = {tool.name for tool in view.tools}
        texts = [text for message in messages for text in (message.text, *_beside_text(message, tools))]
        shown = "\n".join([*texts, *map(unescaped, texts), *(text.replace("_", " ") for text in texts)])
        said = words_of(view)
        for each in earlier_calls(view):
            if each.label.readers is None or each.failed or not (each.is_call or each.declares):
                continue
            if copies(shown, [each.result, unescaped(each.result), each.shown], said) is not None:
                return GuardVerdict.blocked(self.name, f"it holds what {each.name} gave, which only the user may read")
        return GuardVerdict.passed(self.name)


def _beside_text(message: Message, tools: set[str]) -> Iterator[str]:
    """The texts of calls, results and reasoning that a model is sent; of names those that no tool has."""
    for part in message.parts:
        match part:
            case Text():
                pass  # in the message's text
            case ToolCall():
                yield from (part.id, part.name if part.name not in tools else "", part.invalid or "")
                yield from (text for _, text in leaves(part.arguments))
            case ToolResult():
                yield from (part.name if part.name not in tools else "", part.origin or "", part.content)
            case Reasoning():
                yield part.text
                yield from (text for _, text in leaves(part.state))


peer = Peer()
"""The guard by its name."""
