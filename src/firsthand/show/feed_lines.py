"""Formats a run's live feed, a line for each step, for `firsthand show RUN --follow`.

Lines begin with the attempt's place, since several attempts run at a time. For protected tasks only the start and the end
of an attempt are printed. Output of models and tools is printed inert.
"""

from __future__ import annotations

from collections.abc import Iterator

from firsthand.loop.budget import Limits
from firsthand.runs.feed import Ended, FeedStep, Started
from firsthand.show.live_tree import Progress
from firsthand.system.terminal import one_line
from firsthand.trace import Event

SHORT = 8
"""Characters of a place, enough to name the attempt to `firsthand show`."""


class FeedLines:
    """The lines of the steps of a feed, which must hold each unfinished attempt from its beginning on."""

    def __init__(self) -> None:
        self._attempts: dict[str, Progress] = {}
        self._silent: set[str] = set()

    def of(self, told: FeedStep) -> Iterator[str]:
        """The lines that a step adds, at most one."""
        line = self._line(told)
        if line is not None:
            yield f"{one_line(told.place)[:SHORT]}  {line}"

    def _line(self, told: FeedStep) -> str | None:
        match told.step:
            case Started() as began:
                title = f"{began.benchmark} / {began.task_id} / {began.agent} / epoch {began.epoch}"
                self._attempts[told.place] = Progress(title, Limits())
                self._silent.discard(told.place)
                return one_line(title)
            case Ended() as ended:
                self._attempts.pop(told.place, None)
                title = f"{ended.benchmark} / {ended.task_id} / {ended.agent} / epoch {ended.epoch}"
                score = "" if ended.score is None else f" {ended.score:.4g}"
                return one_line(f"={score} ({ended.error or ended.stop_reason}) {title}")
            case Event("protected"):
                self._silent.add(told.place)
                return "protected: its steps are not shown"
            case step:
                progress = self._attempts.get(told.place)
                if progress is None or told.place in self._silent:
                    return None
                progress.tell(step)
                return progress.line(step)
