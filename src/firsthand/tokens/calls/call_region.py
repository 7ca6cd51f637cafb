"""Parses a region of generated text that holds tool calls, from its opening mark on; `call_parser.py` finds the mark.

A CallRegion reads from a CallSource, writes to a CallSink, and reports at its end what was not a call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from firsthand.tokens.calls.call_source import CLOSINGS, FENCE, LONGEST, MARKS, CallSink, CallSource
from firsthand.tokens.calls.call_value import CallValue, PartialCall, name_in
from firsthand.tokens.calls.lenient_json import Reader
from firsthand.tool_arguments import RepeatedKey, loads_arguments

MAX_BACKTRACKS = 16
"""Times, per text, that text is parsed again as something else."""

_INNER_FENCE = re.compile(r"```\w{0,16}")
_BETWEEN = re.compile(r"[\s,;]*")
_LIST_OF_CODE = re.compile(r"\[\s{0,64}[^\W\d][\w.]{0,127}\(")
_MAYBE_CODE = re.compile(r"\[\s{0,64}([^\W\d][\w.]{0,127})?\Z")
_NAME = re.compile(r"[^\W\d][\w.\-]{0,127}")
_NAMED_MORE = 160
_PRINTED = re.compile(r"print\(\s{0,8}(?=[^\W\d][\w.]{0,127}\()")
_ASSIGNED = re.compile(r"\s{0,8}=\s{0,8}(?=[^\W\d])")
_MISTRAL = re.compile(r"\s{0,8}(?:\[CALL_ID\][^\[\]{}]{0,64})?\s{0,8}(?:\[ARGS\])?\s{0,8}(?=\{)")


class RegionEnd(NamedTuple):
    """The state that a region leaves at its end."""

    text: str = ""
    """Text after all."""
    missing_mark: str = ""
    """The closing mark that has not come yet."""
    in_fence: bool = False
    """True if a code fence without a call continues."""
    skipping: CallValue | None = None
    """A value that is not a call, to be passed over."""
    unmarked_from: int = 0
    """The place from which an unmarked value may begin again."""


Outcome = bool | RegionEnd
"""True if the text so far holds more to read; or the end of the region."""


class CallRegion:
    """Parses calls from an opening mark on: the values, and the text between them."""

    def __init__(
        self,
        source: CallSource,
        sink: CallSink,
        mark: str,
        closing: str,
        tools: Mapping[str, tuple[str, ...]],
        *,
        is_marked: bool,
        is_code: bool = False,
    ):
        self.source = source
        self.sink = sink
        self.mark = mark
        self.closing = closing
        self.tools = tools
        """The argument names of each tool, in order."""
        self.is_marked = is_marked
        """True if the mark declares a call, so that invalid text is a broken call and not text."""
        self.is_code = is_code
        """True for a list of calls in Python."""
        self._raw: list[str] = []  # since the mark, or since the last call
        self._found = 0
        self._value: CallValue | None = None
        self._draft = 0
        self._sent: int | None = None  # argument pieces passed on; None: not even the name
        self._in_list = False
        self._broken = self._looked_back = False

    def step(self, final: bool) -> Outcome:
        """Parse on."""
        if self._broken:
            return self._seek_end(final)
        if self._value is not None:
            return self._read(self._value, final)
        return self._between(final)

    # -- between values --

    def _between(self, final: bool) -> Outcome:
        source = self.source
        self._consume(_end(_BETWEEN, source.text, source.at))
        text, at = source.text, source.at
        if at == len(text):
            return final and self._over()
        if not final and source.might_be((*MARKS, "```json")):
            return False
        if self.closing and text.startswith(self.closing, at):
            return self._closed()
        character = text[at]
        if self._found and any(text.startswith(mark, at) for mark in CLOSINGS):
            return self._over()
        if character in "}])" and self._found:  # an extra bracket, or the end of a list of Python calls
            self._consume(at + 1)
            return True
        if self.is_marked and text.startswith(FENCE, at):  # a fence inside the marks
            after = _end(_INNER_FENCE, text, at)
            if after == len(text) and not final:
                return False
            self._consume(after)
            return True
        if character == "[" and (self.is_marked or self.is_code) and not self._in_list:
            if _LIST_OF_CODE.match(text, at):
                self._in_list = True
                self._consume(at + 1)
                return True
            if not final and _MAYBE_CODE.match(text, at):
                return False
        if character in "{[" and not self.is_code:
            return self._begin(CallValue(Reader()))
        if self.is_marked or self._in_list:
            return self._named(final)
        return self._no_value()

    def _named(self, final: bool) -> Outcome:
        """Parse a call whose name precedes its arguments, as in Python and in Mistral's second form."""
        text, at = self.source.text, self.source.at
        name = _NAME.match(text, at)
        if name is None:
            return self._no_value()
        after = name.end()
        is_open = "(" in text[after : after + 1] or "{" in text[after : after + _NAMED_MORE]
        if not final and not is_open and len(text) - after < _NAMED_MORE:
            return False
        if text.startswith("(", after):
            printed = _PRINTED.match(text, at)
            if printed:  # Gemma prints the call's result
                self._consume(printed.end())
                return True
            if name[0] == "print" and not final and len(text) - after < _NAMED_MORE:
                return False
            self._consume(after + 1)
            called = name[0].removesuffix(".call")  # Llama 3.1's form for built-in tools
            return self._begin(CallValue(Reader(call=True, positional=self.tools.get(called, ())), called))
        if self.is_code or (between := _MISTRAL.match(text, after)) is None:
            assigned = _ASSIGNED.match(text, after)
            if assigned is None or self._found or self.is_code:
                return self._no_value()
            self._consume(assigned.end())
            return True
        self._consume(between.end())
        return self._begin(CallValue(Reader(), name[0]))

    def _begin(self, value: CallValue) -> bool:
        self._value, self._draft, self._sent = value, 0, None
        value.take()
        return True

    def _closed(self) -> Outcome:
        """Handle the closing mark."""
        if not self._found:
            if not self.is_marked:
                return self._no_value()
            self._break_off("".join(self._raw))
        self.source.at += len(self.closing)
        return RegionEnd()

    def _over(self) -> Outcome:
        """Handle the end of the calls without a closing mark: other text follows, or none."""
        if not self._found:
            return self._no_value()
        return RegionEnd("".join(filter(str.isspace, "".join(self._raw))), self.closing)

    def _no_value(self) -> Outcome:
        """Handle text that is not a call, where one was expected."""
        if self._found:
            return self._over()
        if self.is_marked:
            self._broken = True
            return True
        return self._as_text()

    # -- a value --

    def _read(self, value: CallValue, final: bool) -> Outcome:
        self._consume(value.feed(self.source.text, self.source.at, final))
        if value.verdict == "none" and not self.is_marked:
            ended = value.reader.done or value.reader.broken
            raw = "".join(self._raw)
            if self._found:
                return RegionEnd(raw, self.closing, skipping=None if ended else value)
            in_fence = self.closing == FENCE
            return RegionEnd(self.mark + raw, in_fence=in_fence, skipping=None if ended else value)
        self._release(value)
        if value.reader.done:
            return self._ended(value)
        if value.reader.broken or final:
            return self._failed(value, final)
        return False

    def _is_held(self, value: CallValue) -> bool:
        """True if nothing is certain before the value's end: a list may hold other values, or a name is of no known
        tool."""
        return not self.is_marked and (value.is_list or (self.is_code and value.drafts[0].name not in self.tools))

    def _release(self, value: CallValue) -> None:
        """Pass on the calls, as far as they are certain."""
        is_whole = value.reader.done and value.verdict == "call"
        if self._is_held(value) and not is_whole:
            return
        while self._draft < len(value.drafts):
            draft = value.drafts[self._draft]
            if self._sent is None and draft.name and (self.is_marked or draft.is_call or is_whole):
                self.sink.begin_call(draft.name)
                self._sent = 0
            if self._sent is not None and draft.is_object and self._sent < len(draft.pieces):
                self.sink.add_arguments("".join(draft.pieces[self._sent :]))
                self._sent = len(draft.pieces)
            if not draft.complete or (self._sent is None and not self.is_marked):
                return
            if draft.name and draft.invalid is not None:
                self.sink.end_call(draft.name, {}, draft.invalid)
            elif draft.name:  # one without a name is reported at the value's end
                text = "".join(draft.pieces)
                try:
                    self.sink.end_call(draft.name, loads_arguments(text), None)
                except RepeatedKey:  # the call is told which, when it is made
                    self.sink.end_call(draft.name, {}, text)
            self._draft, self._sent = self._draft + 1, None

    def _ended(self, value: CallValue) -> Outcome:
        """Handle a complete value, whose calls were released."""
        if value.has_other_values:  # only behind a mark: `_read` ends a region without one at such a value
            self._break_off("".join(self._raw))
        self._found += 1
        self._value, self._raw = None, []
        return True

    def _failed(self, value: CallValue, final: bool) -> Outcome:
        """Handle a value that is invalid or has no end."""
        source = self.source
        if self.closing and value.reader.broken:
            if not final and source.might_be((self.closing,)):
                value.reader.broken = False
                return False
            if (
                source.text.startswith(self.closing, source.at) and value.reader.close()
            ):  # only closing brackets were missing
                value.take()
                if self.is_marked or value.verdict == "call":
                    self._release(value)
                    return self._ended(value)
        draft = value.drafts[self._draft] if self._draft < len(value.drafts) else PartialCall()
        is_meant = self._sent is not None or (draft.is_call and not self._is_held(value))
        if self.is_marked or is_meant:
            self._broken = True
            return True
        if self._found:
            return RegionEnd("".join(self._raw), self.closing)
        return self._as_text()

    # -- what cannot be read --

    def _seek_end(self, final: bool) -> Outcome:
        """Find where a broken call ends: at the closing mark, at another mark of its kind, or at the end of the text."""
        source = self.source
        pattern = _ends(self.closing, self.mark)
        if not self._looked_back and pattern is not None:
            if not final and len(source.text) - source.at < LONGEST:
                return False
            self._looked_back = True
            raw = "".join(self._raw)
            found = pattern.search(raw + source.text[source.at : source.at + LONGEST - 1])
            if found and found.start() < len(raw) and source.backtracks < MAX_BACKTRACKS:
                source.backtracks += 1
                source.backtrack(raw[found.start() :])
                return self._broken_until(raw[: found.start()])
        found = pattern.search(source.text, source.at) if pattern is not None else None
        if found is not None:
            self._consume(found.start())
            return self._broken_until("".join(self._raw))
        self._consume(len(source.text) if final or pattern is None else max(source.at, len(source.text) - LONGEST + 1))
        if not final:
            return False
        raw = "".join(self._raw)
        if self._found == 0 and self._value is None and self.mark != "<|python_tag|>" and not re.search(r"[{(]", raw):
            return self._as_text()  # a mark without an end, and no call after it
        self._break_off(raw)
        return RegionEnd()

    def _broken_until(self, body: str) -> RegionEnd:
        """Report the broken call; parsing continues at its end."""
        self._break_off(body)
        if self.closing and self.source.text.startswith(self.closing, self.source.at):
            self.source.at += len(self.closing)
        return RegionEnd()

    def _break_off(self, body: str) -> None:
        """Report a broken call with this text."""
        drafts = self._value.drafts if self._value is not None else []
        draft = drafts[self._draft] if self._draft < len(drafts) else PartialCall()
        name, invalid = draft.name or name_in(body), body.strip()
        if self._sent is None:
            self.sink.begin_call(name, invalid)
        self.sink.end_call(name, {}, invalid)

    def _as_text(self) -> RegionEnd:
        """Treat the mark or the first character as text, and parse what follows again."""
        source, raw = self.source, "".join(self._raw)
        before, in_fence = source.place, self.closing == FENCE
        if source.backtracks >= MAX_BACKTRACKS:
            return RegionEnd(self.mark + raw, in_fence=in_fence, unmarked_from=before)
        source.backtracks += 1
        size = 0 if self.mark else 1
        source.backtrack(raw[size:])
        return RegionEnd(self.mark + raw[:size], in_fence=in_fence, unmarked_from=before)

    def _consume(self, end: int) -> None:
        """Take the text up to a place."""
        if end > self.source.at:
            self._raw.append(self.source.text[self.source.at : end])
            self.source.at = end


def starts_unmarked_call(source: CallSource, final: bool) -> bool | None:
    """Returns whether an unmarked call may begin at this bracket; None while more text is needed."""
    text, at = source.text, source.at
    if text[at] == "{":
        return True
    if is_code(source):
        return True
    if not final and (source.might_be(("[TOOL_CALLS]",)) or _MAYBE_CODE.match(text, at)):
        return None
    return re.compile(r"\[\s{0,64}[\[{]").match(text, at) is not None


def is_code(source: CallSource) -> bool:
    """True if a list of calls in Python begins at this place."""
    return _LIST_OF_CODE.match(source.text, source.at) is not None


@cache
def _ends(closing: str, mark: str) -> re.Pattern[str] | None:
    """Returns the pattern that ends a broken call: its closing mark, or another mark of its kind; None if it has
    neither."""
    ends = [re.escape(each) for each in (closing, mark) if each in MARKS]
    return re.compile("|".join(ends)) if ends else None


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()
