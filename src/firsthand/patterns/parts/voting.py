"""Counting votes: what several answers have in common, compared in normal form (72.0 is 72)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from firsthand.context import Context
from firsthand.patterns.parts.answers import normal_form

NO_ANSWER = "(no answer)"


@dataclass(frozen=True)
class Tally:
    """The votes for each answer, by its normal form; those without an answer did not vote, and are counted apart."""

    votes: Mapping[str, int]
    abstained: int
    winner: str | None
    """The most common answer in its most common spelling; of equally common ones the first seen; None if nobody voted."""

    @property
    def most(self) -> int:
        """The winner's votes."""
        return max(self.votes.values(), default=0)

    @property
    def cast(self) -> int:
        """The number of answers, abstentions included."""
        return sum(self.votes.values()) + self.abstained


def tallied(answers: Sequence[str | None]) -> Tally:
    """The tally of some answers, unweighted."""
    given = [answer for answer in answers if answer is not None]
    votes = Counter(normal_form(answer) for answer in given)
    best = votes.most_common(1)[0][0] if votes else None  # Counter keeps the order of first sight among equals
    spellings = Counter(answer for answer in given if normal_form(answer) == best)
    winner = spellings.most_common(1)[0][0] if spellings else None
    return Tally(votes, len(answers) - len(given), winner)


def count(answers: Sequence[str | None], ctx: Context) -> Tally:
    """The tally of some answers, which is noted in the trace as a `vote`."""
    tally = tallied(answers)
    shown = {answer[:200]: number for answer, number in tally.votes.items()}
    ctx.note("vote", **(shown | {NO_ANSWER: tally.abstained} if tally.abstained else shown))
    return tally


def share(flag: str, answers: Sequence[str | None]) -> float:
    """The share of the answers that are `flag`, or begin with it as a word."""
    agree = [answer for answer in answers if answer is not None and _first_word(answer, flag)]
    return len(agree) / len(answers) if answers else 0.0


def _first_word(answer: str, flag: str) -> bool:
    said, wanted = (" ".join(each.casefold().split()).strip(" .") for each in (answer, flag))
    return normal_form(answer) == normal_form(flag) or (
        said.startswith(wanted) and not said[len(wanted) :][:1].isalnum()
    )
