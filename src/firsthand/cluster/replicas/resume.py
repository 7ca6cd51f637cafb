"""Going on with an answer whose replica was lost: another one gives it again, and what was shown already is left out.

That is exact because an answer's tokens depend on nothing but its request and its seed (see `engine/core/engine.py`). The
pieces may be cut elsewhere the second time, so text, tokens and calls are counted, not pieces. What is left out is compared
with what was shown: should it differ, the answer ends with an error and never with another answer's end.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from firsthand.errors import ModelError
from firsthand.model import CallDelta, Delta


@dataclass
class Channel:
    """What was shown of one kind, and how far a repetition of it has come."""

    shown: list[object] = field(default_factory=list)
    at: int = 0

    def rest(self, items: str | tuple[object, ...]) -> int:
        """How many of these items, which come next, were shown already. ModelError if others were."""
        known = min(len(items), len(self.shown) - self.at)
        if list(items[:known]) != self.shown[self.at : self.at + known]:
            raise ModelError("the replica was lost, and the one that took over gave another answer: ask again")
        self.shown.extend(items[known:])
        self.at += len(items)
        return known


@dataclass
class Seen:
    """What was shown of one answer."""

    text: Channel = field(default_factory=Channel)
    token_ids: Channel = field(default_factory=Channel)
    calls: dict[int, Channel] = field(default_factory=dict)
    ended: bool = False

    def again(self) -> None:
        """The answer comes from its beginning now."""
        for channel in (self.text, self.token_ids, *self.calls.values()):
            channel.at = 0

    def rest(self, delta: Delta) -> Delta | None:
        """What is new in a piece; None if all of it was shown."""
        text = delta.text[self.text.rest(delta.text) :]
        known = self.token_ids.rest(delta.token_ids)
        call = None if delta.call is None else self._rest_of_call(delta.call)
        completion = None if self.ended else delta.completion
        self.ended |= delta.completion is not None
        fresh = replace(
            delta,
            text=text,
            call=call,
            completion=completion,
            token_ids=delta.token_ids[known:],
            logprobs=delta.logprobs[known:],
            top_logprobs=delta.top_logprobs[known:],
        )
        return fresh if text or fresh.token_ids or call is not None or completion is not None else None

    def _rest_of_call(self, call: CallDelta) -> CallDelta | None:
        """What is new in a piece of a call. Its name counts as an item before its arguments."""
        channel = self.calls.setdefault(call.index, Channel())
        name = () if call.name is None else (call.name,)
        has_name = channel.rest(name) == len(name)
        arguments = call.arguments[channel.rest(call.arguments) :]
        if has_name and not arguments and (name or call.arguments):
            return None
        return replace(call, id="" if has_name else call.id, name=None if has_name else call.name, arguments=arguments)
