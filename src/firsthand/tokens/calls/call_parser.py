"""The streaming tool-call parser: finds calls in generated text and removes them from it.

| family | tool-call markup |
|---|---|
| Hermes, Qwen, SmolLM2 | `<tool_call>{"name": ..., "arguments": ...}</tool_call>` |
| Mistral | `[TOOL_CALLS][{...}, ...]`, and since 2025 `[TOOL_CALLS]name[ARGS]{...}` |
| Llama 3.1 | a bare `{"name": ..., "parameters": ...}`, several with `;` between, or one after `<|python_tag|>` |
| Llama 3.2 and 4, Gemma 3 | `[name(key=value), ...]`, at times between `<|python_start|>` and `<|python_end|>` |
| Gemma | a fenced block, ```tool_code with Python or ```json |

Where a call was certainly meant, invalid markup becomes a broken call, which is reported to the model; elsewhere it is
text. Code is never run: a call in Python has literal arguments, or it is broken. A call in the thought that an answer begins
with is text. `parse` takes a whole text, `CallStream` a stream; both give the same result, in time linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from firsthand.message import ToolCall
from firsthand.model import CallDelta, ToolSpec
from firsthand.tokens.calls.call_region import CallRegion, RegionEnd, is_code, starts_unmarked_call
from firsthand.tokens.calls.call_source import CLOSINGS, FENCE, LONGEST, MARKS, CallSink, CallSource
from firsthand.tokens.calls.call_value import CallValue
from firsthand.tokens.calls.thought_text import ThoughtText

_NEXT = re.compile("|".join(map(re.escape, MARKS)))
_NEXT_OR_LINE = re.compile(f"\n|{_NEXT.pattern}")
_INFO = re.compile(r"```([\w+-]{0,32})")
_CODE_FENCES = ("tool_code", "tool_call", "tool_calls")
_CALL_FENCES = (*_CODE_FENCES, "json", "")
_PIECE = 1 << 16
"""Characters parsed at a time."""
_BLANKS = re.compile(r"\s*")


def parse(
    text: str, tools: Sequence[ToolSpec] = (), *, thought: ThoughtText | None = None
) -> tuple[str, tuple[ToolCall, ...]]:
    """Returns the text without its tool calls, and the calls, with ids `call_0`, `call_1` ... in order.

    A broken call has no arguments, and its text in `invalid`. Text without calls is returned unchanged. `tools` names
    the arguments that a Python call leaves unnamed. Calls of unknown tools are kept, so that the model can be told.
    Calls are looked for behind the `thought`, if the text may have one.
    """
    stream = CallStream(tools, thought=thought)
    pieces = [*stream.feed(text), *stream.finish()]
    return "".join(piece for piece in pieces if isinstance(piece, str)), stream.calls


class CallStream:
    """Removes the tool calls from a text that comes in pieces.

    `feed` and `finish` return what has become certain: text, and pieces of calls. Whitespace between text and a call is
    held back until it is clear whether more text follows.
    """

    def __init__(self, tools: Sequence[ToolSpec] = (), *, thought: ThoughtText | None = None) -> None:
        self._thought = thought
        self._tools = {tool.name: tuple(tool.parameters.get("properties", {})) for tool in tools}
        self._source, self._sink = CallSource(), CallSink()
        self._region: CallRegion | None = None
        self._skipping: CallValue | None = None  # a value that is not a call
        self._line_begins, self._in_fence = True, False
        self._missing_mark = ""  # the closing mark that a call still lacks
        self._unmarked_from = 0  # no unmarked value begins before this place

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The complete calls."""
        return tuple(self._sink.calls)

    def feed(self, text: str) -> list[str | CallDelta]:
        """Returns the text and call pieces that this piece makes certain."""
        if self._thought is not None:
            text = self._after_thought(self._thought.feed(text))
        return self._feed(text)

    def _feed(self, text: str) -> list[str | CallDelta]:
        for at in range(0, len(text), _PIECE):
            self._source.add(text[at : at + _PIECE])
            while self._step(False):
                pass
        return self._sink.take()

    def finish(self) -> list[str | CallDelta]:
        """Returns the rest, at the end of the text."""
        if self._thought is not None:
            self._source.add(self._after_thought(self._thought.finish()))
        while self._step(True):
            pass
        if not self._sink.has_calls:
            return [piece for piece in ["".join([*map(str, self._sink.take()), *self._sink.blanks])] if piece]
        return self._sink.take()

    def _after_thought(self, parts: tuple[str, str]) -> str:
        """Pass on the text of the thought; returns the text after it."""
        thought, text = parts
        self._sink.add_text(thought)
        return text

    def _step(self, final: bool) -> bool:
        """Parse one step; returns whether there is more to do with the text so far."""
        if self._region is not None:
            outcome = self._region.step(final)
            return outcome if isinstance(outcome, bool) else self._end_region(outcome)
        if self._skipping is not None:
            return self._skip(self._skipping, final)
        return self._source.at < len(self._source.text) and self._plain(final)

    def _end_region(self, left: RegionEnd) -> bool:
        self._region = None
        self._missing_mark, self._in_fence, self._skipping = left.missing_mark, left.in_fence, left.skipping
        self._unmarked_from = max(self._unmarked_from, left.unmarked_from)
        self._line_begins = False
        self._sink.add_text(left.text)
        return True

    def _skip(self, value: CallValue, final: bool) -> bool:
        """Pass on a value that is not a call, without looking for calls inside it."""
        self._emit_to(value.feed(self._source.text, self._source.at, final))
        if value.reader.done or value.reader.broken or final:
            self._skipping = None
            return True
        return False

    def _emit_to(self, end: int) -> None:
        """Pass on the text up to a place."""
        self._sink.add_text(self._source.text[self._source.at : end])
        self._source.at = end

    def _plain(self, final: bool) -> bool:
        """Read text up to the next place where a call may begin."""
        source = self._source
        text, at = source.text, source.at
        if self._line_begins and not self._in_fence:
            return self._line(final)
        found = (_NEXT if self._in_fence else _NEXT_OR_LINE).search(text, at)
        if found is None:
            self._emit_to(len(text) if final else len(text) - _partial_mark_length(text, at))
            return False
        self._emit_to(found.start())
        mark = found[0]
        if mark == "\n":
            self._line_begins = True
            return True
        if mark == FENCE:
            return self._fence(final)
        if mark in CLOSINGS:
            source.at += len(mark)
            self._open(mark, CLOSINGS[mark], is_marked=True)
        else:
            self._closing(mark)
        return True

    def _line(self, final: bool) -> bool:
        """Read the beginning of a line, where a call may stand without a mark."""
        source = self._source
        blank = _BLANKS.match(source.text, source.at)
        assert blank is not None
        self._emit_to(blank.end())
        if source.at == len(source.text):
            return False
        if source.text[source.at] in "{[" and source.place >= self._unmarked_from:
            begins = starts_unmarked_call(source, final)
            if begins is None:
                return False
            if begins:
                self._open("", "", is_marked=False)
                return True
        self._line_begins = False
        return True

    def _fence(self, final: bool) -> bool:
        source = self._source
        if self._in_fence or self._missing_mark == FENCE:
            self._in_fence = False
            self._closing(FENCE)
            return True
        info = _INFO.match(source.text, source.at)
        assert info is not None
        if info.end() == len(source.text) and not final:
            return False
        if info[1] in _CALL_FENCES:
            source.at = info.end()
            self._open(info[0], FENCE, is_marked=info[1] in _CODE_FENCES)
        else:
            self._in_fence = True
            self._emit_to(info.end())
        return True

    def _closing(self, mark: str) -> None:
        """Drop a closing mark that a call still lacks; any other is text."""
        if mark == self._missing_mark:
            self._missing_mark = ""
            self._source.at += len(mark)
        else:
            self._emit_to(self._source.at + len(mark))

    def _open(self, mark: str, closing: str, *, is_marked: bool) -> None:
        code = not mark and is_code(self._source)
        self._region = CallRegion(
            self._source, self._sink, mark, closing, self._tools, is_marked=is_marked, is_code=code
        )


def _partial_mark_length(text: str, at: int) -> int:
    """Returns how many characters at the end of a text may begin a mark."""
    for size in range(min(LONGEST - 1, len(text) - at), 0, -1):
        tail = text[len(text) - size :]
        if any(mark.startswith(tail) for mark in MARKS):
            return size
    return 0
