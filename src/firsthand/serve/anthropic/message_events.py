"""The events of a streamed message: blocks as they begin, grow and end, then the reason and the counts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from firsthand.message import Json, canonical
from firsthand.model import CallDelta, Completion, Usage
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.anthropic.message_parts import ended_json, message_json, tool_input, tool_use_id, usage_json
from firsthand.serve.http.refusals import Refusal
from firsthand.serve.http.replies import event
from firsthand.serve.openai.chat_completions import ChatJob, check_called, check_number, deltas, remember, splitter
from firsthand.serve.openai.choices import CallMarks, arguments
from firsthand.serve.openai.openai_state import OpenAIState


async def message_events(
    state: OpenAIState, request: ActiveRequest, job: ChatJob, prompt_tokens: int
) -> AsyncGenerator[bytes, None]:
    """The events. `prompt_tokens` is the count that the first one tells; the last has those of the model."""
    blocks, split = _Blocks(job.marks), splitter(job)
    completion: Completion | None = None
    is_begun = False
    async with aclosing(deltas(state, request, job)) as pieces:
        async for each in pieces:
            if not is_begun:  # not before the model has taken it: until then a refusal has its own status
                is_begun = True
                open_end: Json = {"stop_reason": None, "stop_sequence": None}
                begun = message_json(request, job, [], open_end, usage_json(Usage(prompt_tokens)))
                yield _event("message_start", message=begun)
            shown = split.feed(each.text) if each.text else []
            if each.completion is not None:
                completion = each.completion
                remember(state, request, job, completion)
                check_called(job, completion)
                shown = [*shown, *split.finish()]
            for kind, text in shown:
                for made in blocks.add_text(kind, text):
                    yield made
            if each.call is not None:
                check_number(job, each.call.index + 1)
                for made in blocks.add_call(each.call):
                    yield made
    if completion is None:
        raise Refusal(502, "the model ended without an answer")
    for at, call in enumerate(completion.message.tool_calls):
        if at not in blocks.calls:  # it came whole
            for made in blocks.add_call(
                CallDelta(at, call.id, call.name, canonical(tool_input(call, arguments(call))))
            ):
                yield made
    for made in blocks.end():
        yield made
    yield _event("message_delta", delta=ended_json(job, completion), usage=usage_json(completion.usage))
    yield _event("message_stop")


class _Blocks:
    """The blocks of one message, in order; the last one is open."""

    def __init__(self, marks: CallMarks) -> None:
        self._marks = marks
        self.calls: dict[int, int] = {}
        """The places of blocks of calls, by the number of the call."""
        self._kinds: list[str] = []

    def add_text(self, kind: str, text: str) -> list[bytes]:
        """The events of a piece of reasoning or content."""
        name = "thinking" if kind == "reasoning" else "text"
        events: list[bytes] = []
        if not self._kinds or self._kinds[-1] != name:
            more: Json = {"signature": ""} if name == "thinking" else {"citations": None}
            events = self._begin(name, {"type": name, name: "", **more})
        return [*events, self._delta(len(self._kinds) - 1, {"type": f"{name}_delta", name: text})]

    def add_call(self, call: CallDelta) -> list[bytes]:
        """The events of a piece of a call."""
        events: list[bytes] = []
        if call.index not in self.calls:
            block = {
                "type": "tool_use",
                "id": tool_use_id(self._marks.of(call.index)),
                "name": call.name or "",
                "input": {},
            }
            events = self._begin("tool_use", block)
            self.calls[call.index] = len(self._kinds) - 1
        if call.arguments:
            delta = {"type": "input_json_delta", "partial_json": call.arguments}
            events.append(self._delta(self.calls[call.index], delta))
        return events

    def end(self) -> list[bytes]:
        """The end of the open block, if there is one."""
        return [_event("content_block_stop", index=len(self._kinds) - 1)] if self._kinds else []

    def _begin(self, kind: str, block: Json) -> list[bytes]:
        events = self.end()
        self._kinds.append(kind)
        return [*events, _event("content_block_start", index=len(self._kinds) - 1, content_block=block)]

    def _delta(self, index: int, delta: Json) -> bytes:
        return _event("content_block_delta", index=index, delta=delta)


def _event(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)
