"""Resumes an answer whose replica was lost: another replica repeats it, and the part that was shown is left out.

This is exact because an answer's tokens depend only on its request and its seed (see `engine/core/engine.py`). The pieces
may be cut elsewhere the second time, so text, tokens and calls are counted, not pieces. The repeated part is compared with
what was shown: if it differs, the answer ends with an error, and never with the end of another answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from firsthand.errors import ModelError
from firsthand.model import CallDelta, Delta


@dataclass
class ShownPart:
    """The items of one kind that were shown, and how far their repetition has come."""

    shown: list[object] = field(default_factory=list)
    at: int = 0

    def rest(self, items: str | tuple[object, ...]) -> int:
        """The number of the next items that were shown already. ModelError if other items were shown."""
        known = min(len(items), len(self.shown) - self.at)
        if list(items[:known]) != self.shown[self.at : self.at + known]:
            raise ModelError(
                "the replica was lost, and the one that took over gave another answer: send the request again"
            )
        self.shown.extend(items[known:])
        self.at += len(items)
        return known


@dataclass
class ShownAnswer:
    """The part of one answer that was shown."""

    text: ShownPart = field(default_factory=ShownPart)
    token_ids: ShownPart = field(default_factory=ShownPart)
    calls: dict[int, ShownPart] = field(default_factory=dict)
    num_computed: int = 0
    """The tokens that were shown, and those that were held back with the last of them."""
    ended: bool = False

    def restart(self) -> None:
        """Expect the answer from its beginning."""
        for channel in (self.text, self.token_ids, *self.calls.values()):
            channel.at = 0

    def rest(self, delta: Delta) -> Delta | None:
        """The new part of a piece; None if all of it was shown."""
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
            top_ids=delta.top_ids[known:],
        )
        computed, before = self.token_ids.at + delta.num_held, self.num_computed
        self.num_computed = max(computed, before)
        is_new = text or fresh.token_ids or computed > before or call is not None or completion is not None
        return fresh if is_new else None

    def _rest_of_call(self, call: CallDelta) -> CallDelta | None:
        """The new part of a piece of a call. The name counts as an item before the arguments."""
        channel = self.calls.setdefault(call.index, ShownPart())
        name = () if call.name is None else (call.name,)
        has_name = channel.rest(name) == len(name)
        arguments = call.arguments[channel.rest(call.arguments) :]
        if has_name and not arguments and (name or call.arguments):
            return None
        return replace(call, id="" if has_name else call.id, name=None if has_name else call.name, arguments=arguments)
