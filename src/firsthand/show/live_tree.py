"""Shows an attempt on the terminal while it runs: its tree, the calls in flight, and the rest of its budget.

`Watch` makes listeners of attempts (see `firsthand.loop.listener.Listener`). On a terminal it draws the tree again and again
and leaves the whole attempt behind when it ends; elsewhere it prints a line for each step. Output of models
and tools is printed inert. Follows one attempt at a time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from firsthand.loop.budget import Limits
from firsthand.loop.listener import Added, Began, Listener, Piece, Step
from firsthand.message import Json, ToolResult
from firsthand.model import Usage
from firsthand.rollout import Place
from firsthand.show.trace_shape import marks, tally
from firsthand.show.trace_tree import StyledText, as_json_text, brief_lines, rich_text, show
from firsthand.system.plurals import count_of
from firsthand.system.terminal import one_line
from firsthand.trace import Call, Event, Node, Trace

WIDTH = 160
"""Characters of a line that is printed where there is no terminal."""
_TAIL_CHARS = 2000


class Progress:
    """The state of one running attempt, from its steps."""

    def __init__(self, title: str, limits: Limits):
        self.title = title
        self.limits = limits
        self.nodes: list[Node] = []
        self.calls: list[Call] = []
        self.events: list[Event] = []
        self.under_way: dict[str, Began] = {}
        self.streamed: dict[str, list[str]] = {}
        self._depths: list[int] = []
        self._parents: set[int | None] = set()
        self._usage = Usage()
        self._generated = 0
        self._began = time.perf_counter()

    def tell(self, step: Step) -> None:
        """Take in a step."""
        match step:
            case Added(_, node):
                inherited = self._depths[node.parent] if node.parent is not None else 0
                self._depths.append(inherited + (node.parent in self._parents))
                self._parents.add(node.parent)
                self.nodes.append(node)
            case Began():
                self.under_way[step.id] = step
                self.streamed[step.id] = []
            case Piece(id, text):
                self.streamed[id].append(text)
            case Call():
                self.under_way.pop(step.id, None)
                self.streamed.pop(step.id, None)
                self.calls.append(step)
                self._usage += step.usage
                self._generated += 0 if step.replayed else step.usage.completion_tokens
            case Event():
                self.events.append(step)

    def depth(self, node: int | None) -> int:
        """The number of forks above a node when it was added."""
        return 0 if node is None else self._depths[node]

    def trace(self) -> Trace:
        """The attempt as far as it has come."""
        parts = tuple(self.nodes), tuple(self.calls), tuple(self.events)
        return Trace("", "", "", {"name": ""}, 0, 0, "", 0.0, *parts)

    def status(self) -> str:
        """Calls, tokens, speed, and the rest of each limit."""
        elapsed_s = max(time.perf_counter() - self._began, 1e-6)
        pieces = sum(len(each) for each in list(self.streamed.values()))
        cached = f" ({self._usage.cached_tokens} cached)" if self._usage.cached_tokens else ""
        facts = [count_of(len(self.calls), "call"), f"{self._usage.total_tokens} tokens{cached}"]
        facts += [f"{(self._generated + pieces) / elapsed_s:.1f} tokens/s", f"{elapsed_s:.1f} s"]
        used = {
            "tokens": self._usage.total_tokens,
            "calls": len(self.calls),
            "seconds": elapsed_s,
            "cost_usd": self._usage.cost_usd,
        }
        for name, limit in self.limits.to_json().items():
            if name in used:
                facts.append(f"{max(limit - used[name], 0):.4g} of {limit:.4g} {name} left")
        return ", ".join(facts)

    def now(self) -> list[str]:
        """The calls in flight, a line each, with the end of the streamed text."""
        lines = []
        for id, began in list(self.under_way.items()):
            end = one_line("".join(self.streamed.get(id, ()))[-_TAIL_CHARS:])[-WIDTH:]
            lines.append(one_line(f"▸ {_request(began)} {end}"))
        return lines

    def line(self, step: Step) -> str | None:
        """A step in a line, indented as deep as the tree is there; None where it says nothing new."""
        match step:
            case Added(index, node):
                depth, text = self.depth(index), _message(index, node)
            case Began(_, "tool", at, {"arguments": _}):
                depth, text = self.depth(at) + 1, f"→ {_request(step)}"
            case Call(kind="tool"):
                depth, text = self.depth(step.at) + 1, f"← {step.detail.get('name')}: {step.detail.get('result')}"
            case Call():
                depth, text = self.depth(step.at) + 1, f"· {_ended(step)}; {self.status()}"
            case Event():
                depth, text = 1, _noted(step)
            case _:
                return None
        line = one_line(text[: 8 * WIDTH])
        return "  " * min(depth, 12) + (line if len(line) <= WIDTH else f"{line[:WIDTH]}…")


class Watch:
    """Shows attempts while they run. `listener` makes the listener of one attempt, `ended` closes it."""

    def __init__(self, file: TextIO | None = None, *, in_place: bool = True):
        """`in_place=False` prints lines on a terminal too, for runs that may ask for approval there."""
        self.file = file or sys.stdout
        self.in_place = in_place and self.file.isatty()
        self.live: Any = None
        self.progress: Progress | None = None

    def listener(self, place: Place) -> Listener:
        """A listener for the steps of that attempt."""
        title = f"{place.benchmark.name} / {place.task.id} / {place.agent.name} / epoch {place.epoch}"
        progress = Progress(title, place.agent.limits)

        def listen(step: Step) -> None:
            if self.progress is not progress:
                self._begin(progress)
            progress.tell(step)
            if self.live is None and (line := progress.line(step)) is not None:
                self._print(line)

        return listen

    def ended(self, trace: Trace) -> None:
        """Show what came out of the attempt."""
        progress, self.progress = self.progress, None
        if self.live is not None:
            self.close()
            self._quietly(lambda: show(trace, file=self.file))
        else:
            scores = "".join(f", {score.name} {score.value:.4g}" for score in trace.scores)
            error = f", {trace.error.kind}: {trace.error.message}" if trace.error else ""
            status = f"; {progress.status()}" if progress else ""
            self._print(one_line(f"= {trace.answer!r:.80} ({trace.stop_reason}){scores}{error}{status}"))

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.live is not None:
            live, self.live = self.live, None
            live.stop()

    def _begin(self, progress: Progress) -> None:
        self.close()
        self.progress = progress
        if self.in_place:
            self.live = _live(self.file, progress)
        else:
            self._print(one_line(progress.title))

    def _print(self, line: str) -> None:
        encoding = self.file.encoding or "utf-8"
        text = line.encode(encoding, "backslashreplace").decode(encoding)
        self._quietly(lambda: print(text, file=self.file, flush=True))

    def _quietly(self, action: Any) -> None:
        """A reader that has left is no reason to stop the attempt; the command line will notice."""
        with suppress(BrokenPipeError):
            action()


@contextmanager
def watching(file: TextIO | None = None, *, in_place: bool = True) -> Iterator[Watch]:
    """A Watch that leaves the terminal as it was, whatever happens."""
    watch = Watch(file, in_place=in_place)
    try:
        yield watch
    finally:
        watch.close()


def _live(file: TextIO, progress: Progress) -> Any:
    """rich's live display of an attempt, begun."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console(file=file, highlight=False, markup=False, emoji=False)

    def draw() -> Group:
        now = progress.now()
        room = max(console.size.height - 3 - min(len(now), 8), 3)
        lines = window(brief_lines(progress.trace()), room)
        rows = [Text(one_line(progress.title), style="bold"), *(rich_text(line) for line in lines)]
        rows += [Text(line, style="green") for line in now[:8]]
        rows.append(Text(progress.status(), style="dim"))
        for row in rows:
            row.no_wrap, row.overflow = True, "ellipsis"
        return Group(*rows)

    live = Live(console=console, get_renderable=draw, refresh_per_second=8, transient=True)
    live.start()
    return live


def window(lines: list[StyledText], room: int) -> list[StyledText]:
    """At most `room` of the lines: those that end a little below the newest message."""
    if len(lines) <= room:
        return lines
    newest = max(range(len(lines)), key=lambda place: lines[place].node)
    end = min(len(lines), max(newest + 1 + room // 4, room))
    return lines[end - room : end]


def _message(index: int, node: Node) -> str:
    after = "" if node.parent in (None, index - 1) else f" (after #{node.parent})"
    message = node.message
    calls = "".join(f" → {call.name}({as_json_text(call.arguments)})" for call in message.tool_calls)
    failed = any(isinstance(part, ToolResult) and part.is_error for part in message.parts)
    return f"#{index} {message.role}{after}{' (error)' if failed else ''}  {message.text}{calls}"


def _request(began: Began) -> str:
    detail: Json = began.detail
    if began.kind == "tool":
        given = as_json_text(detail["arguments"]) if "arguments" in detail else "…"
        return f"{detail.get('name')}({given})"
    several = f" {detail['n']} answers" if detail.get("n", 1) > 1 else ""
    return f"{began.kind}{several}{'' if began.at is None else f' after #{began.at}'}:"


def _ended(call: Call) -> str:
    if call.error:
        return f"{call.kind} failed: {call.error}"
    usage = call.usage
    how = ", ".join(str(reason) for reason in call.detail.get("finish_reasons", ())[:8]) or call.kind
    cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
    took = "replayed" if call.replayed else f"{call.duration_s:.2f} s"
    return f"{how}, {usage.prompt_tokens} tokens in{cached}, {usage.completion_tokens} out, {took}"


def _noted(event: Event) -> str:
    if counts := tally(event):
        return f"{event.kind}  " + ", ".join(f"{answer}: {count:g}" for answer, count in counts.items())
    if event.kind == "branch":
        at = event.data.get("at")
        _, (mark,) = marks(Trace("", "", "", {"name": ""}, 0, 0, "", 0.0, events=(event,)))
        return f"branch  {mark}{'' if at is None else f' (#{at})'}"
    return f"{event.kind}  {as_json_text(event.data)}"
