"""Stands in front of a model of somebody else, such as an A2A agent: what only the user may read is not sent to it."""

from __future__ import annotations

from dataclasses import dataclass

from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.private_texts import copies
from firsthand.message import Message, ToolResult
from firsthand.safety.rules.case import earlier_calls, words_of


@dataclass(frozen=True)
class Peer:
    """The guard. The user's own words are the user's to send."""

    name = "peer"

    def prompt(self, view: AttemptView, messages: tuple[Message, ...]) -> GuardVerdict:
        """Blocks a prompt that copies a private result, of this attempt or kept in memory by an earlier one: a run of words,
        a code, or the whole of a short one."""
        shown = "\n".join(_texts(messages))
        said = words_of(view)
        for each in earlier_calls(view):
            if each.label.readers is None or each.failed or not (each.is_call or each.declares):
                continue
            if copies(shown, [each.result], said) is not None:
                return GuardVerdict.blocked(self.name, f"it holds what {each.name} gave, which only the user may read")
        return GuardVerdict.passed(self.name)


def _texts(messages: tuple[Message, ...]) -> list[str]:
    results = [part.content for message in messages for part in message.parts if isinstance(part, ToolResult)]
    return [message.text for message in messages] + results


peer = Peer()
"""The guard by its name."""
