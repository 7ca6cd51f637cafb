"""Shows two answers to one task side by side as a word diff: in a terminal, or as one self-contained HTML file.

The file makes no network request and runs no script; its content-security policy forbids both. Model output is escaped,
control and direction characters are made visible, and sizes are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from firsthand.loop.protection import shareable
from firsthand.runs.pairing import Comparison, Pair
from firsthand.runs.run_folder import Run
from firsthand.show.expected import expected_answer
from firsthand.show.html_page import page_html
from firsthand.show.html_report import clipped
from firsthand.system.bounded_matcher import BoundedMatcher
from firsthand.task import Task
from firsthand.trace import Trace

if TYPE_CHECKING:
    from rich.text import Text

Only = Literal["changed", "worse", "better", "all"]
MAX_WORDS = 2000
"""Words of a text that are compared; what follows is left out."""
MAX_DIFF_CHARS = 20_000
"""Characters of a text that are compared."""
MAX_WORD_PAIRS = 16_000_000
"""Pairs of equal words that are looked at: two answers of prose need up to 8 million, hostile ones 400."""
MAX_PAGE_PAIRS, MIN_WORD_PAIRS = 200_000_000, 100_000
"""Pairs that all differences of one page or command share, and those that each may look at whatever is left: enough for
answers of 100 words."""
MAX_CHARS = 8000
MAX_PROMPT_CHARS = 2000
MAX_EPOCHS = 16
"""Attempts at a task among which a pair is looked for."""
MAX_SAMPLES = 500
"""Samples in one HTML file."""
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


class DiffSpan(NamedTuple):
    """A stretch of text: in both answers, in the first alone, or in the second alone; a note says what was not compared."""

    kind: Literal["same", "removed", "added", "note"]
    text: str


@dataclass(frozen=True)
class DiffSide:
    """One side of a sample."""

    trace_id: str
    score: str
    text: str
    error: str
    """Why there is no score; empty if there is one."""
    place: str = ""
    """`Trace.place`, whose beginning names the attempt."""


@dataclass(frozen=True)
class Sample:
    """One task and what both sides answered."""

    benchmark: str
    task_id: str
    epoch: int
    prompt: str
    change: Literal["better", "worse", "same"]
    a: DiffSide
    b: DiffSide
    expected: str = ""
    """The expected answer; empty where the task has none."""

    def pieces(self, budget: PairBudget) -> list[DiffSpan]:
        """The difference of the two answers, word by word."""
        return word_difference(self.a.text, self.b.text, budget)


class PairBudget:
    """Pairs of equal words that the differences of one page or command may look at together."""

    def __init__(self) -> None:
        self._left = MAX_PAGE_PAIRS
        self.cut = False
        """True where the last difference ended before all was compared."""

    def opcodes(self, a: Sequence[str], b: Sequence[str]) -> list[tuple[str, int, int, int, int]]:
        """difflib's opcodes from `a` to `b`; where the pairs run out, what is not compared yet is replaced."""
        share = min(MAX_WORD_PAIRS, max(MIN_WORD_PAIRS, self._left))
        matcher = BoundedMatcher(a, b, share)
        found: list[tuple[str, int, int, int, int]] = [*matcher.get_opcodes()]
        self._left -= share - matcher.left
        self.cut = matcher.left == 0
        return found


def word_difference(a: str, b: str, budget: PairBudget) -> list[DiffSpan]:
    """The word diff from `a` to `b`: words, spaces and punctuation, as pieces.

    Where it would take too long, alone or with the others of its budget, what is not compared yet counts as different,
    and a note at the end says so. So does one of what follows the first 2,000 words or 20,000 characters, which is left
    out.
    """
    found = [_WORD.findall(text[:MAX_DIFF_CHARS]) for text in (a, b)]
    words_a, words_b = (words[:MAX_WORDS] for words in found)
    pieces: list[DiffSpan] = []
    opcodes = budget.opcodes(words_a, words_b)
    for kind, from_a, to_a, from_b, to_b in opcodes:
        if kind == "equal":
            pieces.append(DiffSpan("same", "".join(words_a[from_a:to_a])))
            continue
        if to_a > from_a:
            pieces.append(DiffSpan("removed", "".join(words_a[from_a:to_a])))
        if to_b > from_b:
            pieces.append(DiffSpan("added", "".join(words_b[from_b:to_b])))
    if budget.cut:
        pieces.append(DiffSpan("note", "[too long to be compared to the end: the rest is marked as different]"))
    if max(map(len, found)) > MAX_WORDS or max(len(a), len(b)) > MAX_DIFF_CHARS:
        pieces.append(DiffSpan("note", "[only the beginning was compared: what follows is left out]"))
    return pieces


def samples(
    comparison: Comparison, run_a: Run, run_b: Run, only: Only = "changed", score: str | None = None
) -> Iterator[Sample]:
    """The paired tasks, those that got worse first; of several attempts the first two that scored differently."""
    tasks_a = run_a.tasks()
    kinds = {"changed": ("worse", "better"), "all": ("worse", "better", "same")}.get(only, (only,))
    for change in ("worse", "better", "same"):
        for pair in comparison.tasks(change) if change in kinds else ():
            trace_a, trace_b = map(shareable, _traces(pair, run_a, run_b, score))
            task = tasks_a.get((pair.benchmark, pair.task_id))
            yield Sample(
                clipped(pair.benchmark, 200),
                clipped(pair.task_id, 200),
                trace_a.epoch,
                _asked(task),
                change,
                _answer(trace_a, score),
                _answer(trace_b, score),
                expected_answer(task),
            )


def _asked(task: Task | None) -> str:
    """The question, unless it is protected."""
    if task is None or task.protected is not None:
        return "" if task is None else f"[withheld: {task.protected}]"
    return clipped(task.question, MAX_PROMPT_CHARS)


def terminal_text(sample: Sample, width: int, budget: PairBudget) -> Text:
    """The sample for a terminal: what was asked, and both answers beside each other with the words that differ marked."""
    from rich.text import Text

    colour = {"better": "green", "worse": "red", "same": "dim"}[sample.change]
    out = Text()
    out.append(f"{sample.benchmark}/{sample.task_id}", "bold")
    out.append(f"  epoch {sample.epoch}  {sample.a.score} -> {sample.b.score}  ")
    out.append(f"{sample.change}\n", colour)
    out.append(f"{_plain(clipped(sample.prompt, 300))}\n", "dim")
    if sample.expected:
        out.append(f"expected: {_plain(clipped(sample.expected, 300))}\n", "dim")
    half = max(10, (width - 3) // 2)
    pieces = sample.pieces(budget)
    left = _column([p for p in pieces if p.kind in ("same", "removed")], half)
    right = _column([p for p in pieces if p.kind in ("same", "added")], half)
    head = tuple(
        Text(f"{side} {each.score} ({each.place[:8]})"[:half], "bold")
        for side, each in (("a", sample.a), ("b", sample.b))
    )
    for row in range(-1, max(len(left), len(right))):
        for column, lines in enumerate((left, right)):
            cell = head[column] if row < 0 else lines[row] if row < len(lines) else Text("")
            if column == 0:
                cell.append(" " * max(0, half - cell.cell_len))
                cell.append(" │ ", "dim")
            out.append_text(cell)
        out.append("\n")
    for piece in pieces:
        if piece.kind == "note":
            out.append(f"{piece.text}\n", "dim")
    for side, each in (("a", sample.a), ("b", sample.b)):
        if each.error:
            out.append(f"{side} has no score: {_plain(each.error)}\n", "red")
    return out


def page(title: str, shown: Iterable[Sample], counts: Sequence[tuple[str, int]]) -> str:
    """The samples as one HTML file; radio buttons, not scripts, choose between all, worse and better."""
    listed = list(shown)
    return page_html(
        "diff",
        title=clipped(title, 1000),
        samples=listed[:MAX_SAMPLES],
        budget=PairBudget(),
        counts=counts,
        left_out=max(0, len(listed) - MAX_SAMPLES),
    )


def _traces(pair: Pair, run_a: Run, run_b: Run, score: str | None) -> tuple[Trace, Trace]:
    """Two attempts of the same epoch, where both sides have one: the first two that scored differently, or the first."""
    tried_a, tried_b = (
        [run.trace(trace_id) for trace_id in side.trace_ids[:MAX_EPOCHS]]
        for run, side in ((run_a, pair.a), (run_b, pair.b))
    )
    of_epoch = {trace.epoch: trace for trace in tried_b}
    both = [(trace, of_epoch[trace.epoch]) for trace in tried_a if trace.epoch in of_epoch]
    both = both or [(tried_a[0], tried_b[0])]
    return next(((a, b) for a, b in both if a.value(score) != b.value(score)), both[0])


def _answer(trace: Trace, score: str | None) -> DiffSide:
    value = trace.value(score)
    failed = next((f"the scorer failed: {s.failure}" for s in trace.scores if s.failed), "")
    error = f"{trace.error.kind}: {trace.error.message}" if trace.error else failed
    text = trace.answer if trace.answer is not None else ""
    words = _WORD.findall(text[:MAX_CHARS])
    cut = len(text) > MAX_CHARS or len(words) > MAX_WORDS
    return DiffSide(
        clipped(trace.id, 80),
        "-" if value is None else f"{value:g}",
        "".join(words[:MAX_WORDS]) + (" …" if cut else ""),
        clipped(error, 300),
        clipped(trace.place, 80),
    )


def _column(pieces: Sequence[DiffSpan], width: int) -> list[Text]:
    """The lines of one side; what differs is between marks, so that it is seen without colours too."""
    from rich.console import Console
    from rich.text import Text

    marks = {"same": ("", "", ""), "removed": ("[-", "-]", "red"), "added": ("{+", "+}", "green")}
    text = Text()
    for piece in pieces:
        before, after, style = marks[piece.kind]
        text.append(f"{before}{_plain(piece.text)}{after}", style)
    return list(text.wrap(Console(width=width), width, overflow="fold"))


def _plain(text: str) -> str:
    """The text with whatever could steer a terminal made visible; tabs become spaces."""
    return "".join(c if c.isprintable() or c == "\n" else " " if c == "\t" else visible_char(c) for c in text)


def visible_char(char: str) -> str:
    """The character as an escape."""
    return char.encode("unicode_escape").decode()
