"""Renders a trace as a tree for the terminal; reads no store.

Output of models and tools is printed inert: control characters, terminal escapes and invisible characters are printed
as `\\x1b` and the like, and no markup is interpreted. A pattern tells of its branches with `ctx.note("branch", name=...,
at=NODE, status=..., score=..., text=...)` and of its votes with `ctx.note("vote", ...)`: both are drawn, not listed. A large
tree is collapsed where least is lost, and says what it left out.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TextIO

from firsthand.loop.protection import shareable
from firsthand.message import Message, Part, Reasoning, Text, ToolCall, ToolResult
from firsthand.show.trace_shape import Mark, Outline, marks, outline, tally
from firsthand.system.plurals import count_of
from firsthand.system.terminal import one_line, printable
from firsthand.trace import Call, Event, Score, Trace

Style = Literal["title", "system", "user", "assistant", "tool", "note", "good", "error", "body"]
_RICH_STYLES: dict[Style, str] = {
    "title": "bold",
    "system": "magenta",
    "user": "cyan",
    "assistant": "green",
    "tool": "yellow",
    "note": "dim",
    "good": "bold green",
    "error": "bold red",
    "body": "",
}
_SHORT_CHARS, _SHORT_LINES = 1200, 16
_MAX_INDENT = 24
_BRIEF_CHARS = 100


@dataclass(frozen=True)
class StyledText:
    """Some lines of output in one style, already safe to print."""

    depth: int
    style: Style
    text: str
    node: int = -1
    """The message that they begin, if they do."""


def show(
    trace: Trace, *, full: bool = False, file: TextIO | None = None, reveal: bool = False, expected: str = ""
) -> None:
    """Print the trace as a tree, in colour on a terminal, as plain text elsewhere. `full` shortens nothing.

    The words of a protected task are left out unless `reveal` is given. `expected` is shown under the answer.
    """
    file = file or sys.stdout
    encoding = file.encoding or "utf-8"
    lines = [
        replace(line, text=line.text.encode(encoding, "backslashreplace").decode(encoding))
        for line in trace_lines(trace if reveal else shareable(trace), full=full, expected=expected)
    ]
    if file.isatty():
        _print_rich(lines, file)
    else:
        file.writelines(f"{line}\n" for line in plain_lines(lines))


def plain_lines(lines: list[StyledText]) -> list[str]:
    """The lines as plain text, indented by two spaces a level."""
    return [f"{'  ' * min(line.depth, _MAX_INDENT)}{text}".rstrip() for line in lines for text in line.text.split("\n")]


def trace_lines(trace: Trace, *, full: bool = False, expected: str = "") -> list[StyledText]:
    """The trace as lines: a head, the tree of messages with what was done at each, scores, events and errors."""
    writer = _Writer(trace, full)
    writer.head()
    writer.tree()
    writer.tail(expected)
    return writer.lines


def brief_lines(trace: Trace) -> list[StyledText]:
    """The tree alone, a line for each message and call: for a view that is drawn again and again."""
    writer = _Writer(trace, full=False, brief=True)
    writer.tree()
    return writer.lines


class _Writer:
    """Collects the lines of one trace."""

    def __init__(self, trace: Trace, full: bool, brief: bool = False):
        self.trace = trace
        self.full = full
        self.brief = brief
        self.marks, self.unplaced = marks(trace)
        self.marked: set[int] = set()
        self.lines: list[StyledText] = []
        self.made_by: dict[int, tuple[Call, int]] = {}
        self.done_at: dict[int | None, list[Call]] = defaultdict(list)
        self.told = {
            (part.name, part.content)
            for node in trace.nodes
            for part in node.message.parts
            if isinstance(part, ToolResult)
        }
        for call in trace.calls:
            self.made_by.update({node: (call, sample) for sample, node in enumerate(call.nodes)})
            if not call.nodes:
                self.done_at[call.at].append(call)

    def add(self, depth: int, style: Style, text: str, node: int = -1) -> None:
        self.lines.append(StyledText(depth, style, printable(text), node))

    def head(self) -> None:
        trace, usage = self.trace, self.trace.usage
        self.add(0, "title", f"{trace.benchmark} / {trace.task_id} / {trace.agent_name} / epoch {trace.epoch}")
        if trace.origin:
            parent = f"{trace.origin.run} {trace.origin.trace}".strip()
            self.add(0, "note", f"forked from {parent} at step {trace.origin.at}")
        cost = f", {usage.cost_usd:.4f} USD" if usage.cost_usd else ""
        self.add(
            0,
            "note",
            f"{trace.id}  {trace.started_at}  {trace.duration_s:.2f} s, {count_of(len(trace.calls), 'call')}, "
            f"{_tokens(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)}{cost}",
        )

    def tree(self) -> None:
        """Each message once: an only child stays at its parent's depth, several are branches one deeper."""
        shape = outline(self.trace, self.marks, full=self.full)
        self.calls(0, None)
        waiting = self._branches(shape, None, 0)
        shown = 0
        while waiting:
            index, depth, label = waiting.pop()
            if shown >= shape.room:
                left = len(self.trace.nodes) - shown
                self.add(depth, "note", f"… {left} messages are left out; --full shows them")
                break
            if isinstance(index, str):
                self.add(depth, "note", index)
                continue
            if label:
                self.add(max(depth - 1, 0), self._style(shape.along.get(index, ()), "title"), label)
            if index in shape.folded:
                self.add(depth, "note", f"#{index} {self.gist(index)}{shape.folded[index]}")
                continue
            shown += 1
            self.message(depth, index)
            self.calls(depth, index)
            waiting.extend(self._branches(shape, index, depth))

    def _branches(self, shape: Outline, at: int | None, depth: int) -> list[tuple[int | str, int, str]]:
        """The next entries of the walk, the first on top of the stack, with placeholders for omitted messages."""
        if at is not None and at in shape.skips:
            rest, note = shape.skips[at]
            return [(rest, depth, ""), (note, depth, "")]
        children, note = shape.children(at)
        count = shape.num_children(at)
        if count == 1:
            return [(children[0], depth, "")]
        waiting: list[tuple[int | str, int, str]] = [(note, depth, "")] if note else []
        for place, child in reversed(children.items()):
            told = shape.along.get(child, ())
            self.marked.update(id(mark) for mark in told)
            waiting.append((child, depth + 1, "  ".join([f"├ branch {place} of {count}", *map(str, told)])))
        return waiting

    def _style(self, told: Sequence[Mark], usual: Style) -> Style:
        """The style of a branch: that of its fate, where the pattern told it."""
        fates: dict[str, Style] = {"kept": "good", "done": "good", "pruned": "note", "failed": "error"}
        return next((fates[mark.status] for mark in told if mark.status in fates), usual)

    def gist(self, index: int) -> str:
        """A message in a line."""
        message = self.trace.nodes[index].message
        calls = "".join(f" → {call.name}({as_json_text(call.arguments)})" for call in message.tool_calls)
        text = one_line(message.text[: 4 * _BRIEF_CHARS] + calls)
        return f"{message.role}  {text[:_BRIEF_CHARS]}{'…' if len(text) > _BRIEF_CHARS else ''}"

    def message(self, depth: int, index: int) -> None:
        message = self.trace.nodes[index].message
        if self.brief:
            self.add(depth, message.role, f"#{index} {self.gist(index)}", index)
            return
        if index in self.made_by and self.made_by[index][1] == 0:
            self.prompt(depth, self.made_by[index][0])
        self.add(depth, message.role, f"#{index} {message.role}{self.birth(index)}")
        for mark in self.marks.get(index, ()):
            if id(mark) not in self.marked:
                self.add(depth + 1, self._style([mark], "note"), str(mark))
        for part in message.parts:
            self.part(depth + 1, message, part)

    def part(self, depth: int, message: Message, part: Part) -> None:
        match part:
            case Text(text):
                self.add(depth, "body", self.short(text) if text else "(no text)")
            case ToolCall(_, name, arguments, invalid):
                given = as_json_text(arguments) if invalid is None else f"invalid JSON: {invalid}"
                self.add(depth, "tool" if invalid is None else "error", f"→ {name}({self.short(given)})")
            case ToolResult(name=name, content=content, is_error=is_error):
                self.add(depth, "error" if is_error else "body", f"← {name}: {self.short(content)}")
            case Reasoning(text):
                self.add(depth, "note", f"reasoning: {self.short(text)}" if text else "reasoning (hidden)")

    def birth(self, index: int) -> str:
        """Cost and finish reason of a sampled message; the cost of a call is shown at its first sample."""
        if index not in self.made_by:
            return ""
        call, sample = self.made_by[index]
        reasons = call.detail.get("finish_reasons") or []
        facts = [str(reasons[sample])] if sample < len(reasons) else []
        if sample == 0:
            usage = call.usage
            facts += [
                _tokens(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens),
                f"{call.duration_s:.2f} s",
            ]
            facts += [f"for {len(call.nodes)} samples"] if len(call.nodes) > 1 else []
        facts += ["replayed"] if call.replayed else []
        return f"  [{', '.join(facts)}]"

    def calls(self, depth: int, at: int | None) -> None:
        """Tool calls, scorings, and generations that failed, at the message they were made from."""
        for call in self.done_at[at]:
            replayed = ", replayed" if call.replayed else ""
            head, result = self.call_text(call)
            if self.brief:
                line = one_line(f"{head} {result[:_BRIEF_CHARS]}")[: 2 * _BRIEF_CHARS]
                self.add(depth + 1, "error" if call.error else "tool", f"· {line}")
                continue
            self.add(depth + 1, "error" if call.error else "note", f"· {head}  [{call.duration_s:.2f} s{replayed}]")
            self.prompt(depth + 2, call)
            if result:
                self.add(depth + 2, "error" if call.error else "body", self.short(result))

    def prompt(self, depth: int, call: Call) -> None:
        """The prompt of a call that is a text, which no message holds."""
        if isinstance(text := call.detail.get("prompt"), str):
            self.add(depth, "body", f"prompt: {self.short(text)}")

    def call_text(self, call: Call) -> tuple[str, str]:
        """Tool calls and results that no message of the trace holds."""
        detail = call.detail
        if call.kind == "tool":
            name, result = str(detail.get("name")), str(detail.get("result", ""))
            told = (name, result) in self.told
            return f"tool {name}({self.short(as_json_text(detail.get('arguments')))})", "" if told else result
        if call.error:
            return f"{call.kind} failed", call.error
        if call.kind == "memory":
            about = {key: value for key, value in detail.items() if key not in ("operation", "reply", "order")}
            return f"{detail.get('operation')} {self.short(as_json_text(about))}", as_json_text(detail.get("reply"))
        if call.kind == "guard":
            return f"guard asked {detail.get('model')}", str(detail.get("answer", ""))
        likelihoods = detail.get("likelihoods") or ()
        shown = [f"{each.get('logprob', 0.0):9.3f}  {as_json_text(each.get('text'))}" for each in likelihoods]
        return f"{call.kind} {len(shown)} continuations (log-prob, text)", "\n".join(shown)

    def tail(self, expected: str) -> None:
        trace = self.trace
        self.add(0, "title", "outcome")
        if trace.answer is not None:
            self.add(1, "body", f"answer: {self.short(trace.answer)}")
        if expected:
            self.add(1, "body", f"expected: {self.short(expected)}")
        self.add(1, "note" if trace.stop_reason == "done" else "error", f"stopped: {trace.stop_reason}")
        for score in trace.scores:
            self.add(1, *_score_line(score))
            if self.full and score.detail:
                self.add(2, "note", as_json_text(score.detail))
        if trace.error:
            self.add(1, "error", f"{trace.error.kind}: {self.short(trace.error.message)}")
            if trace.error.traceback:
                self.add(2, "note", trace.error.traceback if self.full else trace.error.traceback.strip()[-600:])
        if self.full and trace.final_state:
            self.add(1, "note", f"final state: {as_json_text(trace.final_state)}")
        for mark in self.unplaced:
            self.add(1, "note", f"branch {mark}")
        for event in trace.events:
            self.event(event)

    def event(self, event: Event) -> None:
        """A vote as bars; a branch not at all where the tree shows it; anything else as it is."""
        counts = tally(event)
        if counts:
            self.add(1, "note", f"{event.at_s:8.2f} s  {event.kind}")
            most = max(*counts.values(), 1.0)
            for answer, count in sorted(counts.items(), key=lambda pair: -pair[1])[
                : None if self.full else _SHORT_LINES
            ]:
                bar = "█" * max(round(24 * count / most), 1 if count > 0 else 0)
                self.add(2, "body", f"{count:6g}  {bar}  {self.short(one_line(answer))}")
        elif self.full or event.kind != "branch":
            self.add(1, "note", f"{event.at_s:8.2f} s  {event.kind}  {self.short(as_json_text(event.data))}")

    def short(self, text: str) -> str:
        """The beginning of a long text, and how much of it was left out."""
        if self.full:
            return text
        kept = "\n".join(text[:_SHORT_CHARS].split("\n")[:_SHORT_LINES])
        left = len(text) - len(kept)
        return kept if left == 0 else f"{kept} … ({left} more characters; --full shows them)"


def _print_rich(lines: list[StyledText], file: TextIO) -> None:
    """Print in colour. Text objects are never read as markup, so nothing a model wrote can style or link."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text as RichText

    console = Console(file=file, highlight=False, markup=False, emoji=False)
    for line in lines:
        text = RichText(line.text, style=_RICH_STYLES.get(line.style, ""))
        console.print(Padding(text, (0, 0, 0, 2 * min(line.depth, _MAX_INDENT))))


def rich_text(line: StyledText) -> Any:
    """A line of output as rich's Text, indented and in its style."""
    from rich.text import Text as RichText

    return RichText("  " * min(line.depth, _MAX_INDENT) + line.text, style=_RICH_STYLES.get(line.style, ""))


def _score_line(score: Score) -> tuple[Style, str]:
    place = "" if score.node is None else f" at #{score.node}"
    if score.failed:
        return "error", f"score {score.name}{place}: the scorer failed: {score.failure}"
    return "good" if score.is_right else "body", f"score {score.name}{place}: {score.value:.4g}"


def _tokens(prompt: int, cached: int, completion: int) -> str:
    return f"{prompt} tokens in{f' ({cached} cached)' if cached else ''}, {completion} out"


def as_json_text(body: Any) -> str:
    """Data as JSON in a line, whatever is in it."""
    return json.dumps(body, ensure_ascii=False, default=str)
