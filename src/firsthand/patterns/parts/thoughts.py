"""The `Thoughts` protocol of Tree of Thoughts, the generic one that fits any task, and voting.

A benchmark whose tasks have thoughts of their own defines a function `thoughts(task) -> Thoughts` beside itself and puts its
name into the field `thoughts` of its tasks; every other task is searched with `GenericThoughts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from firsthand import catalog
from firsthand.errors import ConfigError
from firsthand.patterns.parts.answers import TAIL_CHARS, answer_or_text, extract_answer
from firsthand.task import Task

LABELS: Mapping[str, float] = {"sure": 20.0, "likely": 1.0, "impossible": 0.001}
"""The value of each verdict on a state, from the paper."""
HOPELESS = 0.5
"""Lower than the value of one verdict `likely`."""
STEPS = 3
_VOTE = re.compile(r"best choice is\D{0,40}(\d{1,6})", re.IGNORECASE)
_ITEM = re.compile(r"^[ \t]*(?:[-*•]|\d{1,3}[.):])[ \t]*")


@dataclass(frozen=True)
class ThoughtRequest:
    """A request to the model. `prompt` begins with what all requests of a task share, so that it is cached."""

    prompt: str
    stop: tuple[str, ...] = ()
    samples: int = 1
    """The number of replies to sample."""


class Thoughts(Protocol):
    """Defines the search over one task. A state is the text of the thoughts so far; the search begins with the empty one."""

    @property
    def steps(self) -> int:
        """The number of thoughts from the empty state to an answer."""

    @property
    def labels(self) -> Mapping[str, float]:
        """The verdicts that end a valuation, and their values."""

    @property
    def hopeless(self) -> float:
        """The value below which a depth-first search prunes a state: the paper's threshold."""

    def propose(self, state: str) -> ThoughtRequest:
        """The prompt for a list of next thoughts."""

    def proposed(self, state: str, replies: Sequence[str]) -> list[str]:
        """The states after the replies, best first where the replies rank them."""

    def sample(self, state: str) -> ThoughtRequest:
        """The prompt for one next thought, to be sampled several times."""

    def sampled(self, state: str, reply: str) -> str:
        """The state after a sampled thought."""

    def value(self, state: str) -> tuple[ThoughtRequest, ...]:
        """The prompts to judge a state; none if its value needs no model."""

    def valued(self, state: str, replies: Sequence[Sequence[str]]) -> float:
        """The value of a state from the replies to `value`'s requests."""

    def vote(self, states: Sequence[str]) -> ThoughtRequest:
        """The prompt to compare states."""

    def voted(self, states: Sequence[str], replies: Sequence[str]) -> list[float]:
        """The votes for each state."""

    def is_done(self, state: str) -> bool:
        """True if the state holds an answer, so that no thought follows."""

    def answer(self, state: str) -> str:
        """The answer that a state gives."""


def thoughts_of(task: Task) -> Thoughts:
    """The thoughts that the task's benchmark defines, or generic ones; ConfigError if only the metadata names some."""
    if task.thoughts is None:
        if "thoughts" in task.metadata:
            raise ConfigError(f"task {task.id!r} has 'thoughts' in its metadata: give it as the field `thoughts`")
        return GenericThoughts(task)
    made: Thoughts = catalog.module_attribute("benchmark", task.thoughts, "thoughts")(task)
    return made


@dataclass(frozen=True)
class GenericThoughts:
    """Thoughts for any task: short steps, each on a line, and a last one that gives the answer."""

    task: Task
    steps: int = STEPS
    hopeless: float = HOPELESS

    @property
    def labels(self) -> Mapping[str, float]:
        """The paper's verdicts."""
        return LABELS

    def propose(self, state: str) -> ThoughtRequest:
        """A list of different next steps; for the last step, the answer."""
        if self._is_last(state):
            return self._finish(state)
        wanted = "List up to five different next steps, each on a line of its own. Do not solve the problem yet."
        return ThoughtRequest(f"{self._opening()}{wanted}\n\n{self._so_far(state)}Possible next steps:")

    def proposed(self, state: str, replies: Sequence[str]) -> list[str]:
        """A state for each line; for the last step, for each whole reply."""
        if self._is_last(state):
            return [self.sampled(state, reply) for reply in replies if reply.strip()]
        lines = [_ITEM.sub("", line).strip() for reply in replies for line in reply.splitlines()]
        return [f"{state}{line}\n" for line in dict.fromkeys(lines) if line]

    def sample(self, state: str) -> ThoughtRequest:
        """One next step; for the last step, the answer."""
        if self._is_last(state):
            return self._finish(state)
        return ThoughtRequest(
            f"{self._opening()}Write the next step only, on one line.\n\n{self._so_far(state)}Next step:", ("\n",)
        )

    def sampled(self, state: str, reply: str) -> str:
        """The state and the step, on a line of its own."""
        return f"{state}{' '.join(reply[-TAIL_CHARS:].split())}\n"

    def value(self, state: str) -> tuple[ThoughtRequest, ...]:
        """True if the steps lead to the right answer."""
        verdicts = "/".join(self.labels)
        wanted = f"Judge in a few words whether these steps lead to the right answer. End with one word: {verdicts}."
        return (ThoughtRequest(f"{self._opening()}{wanted}\n\n{self._so_far(state)}Judgement:"),)

    def valued(self, state: str, replies: Sequence[Sequence[str]]) -> float:
        """The sum of the verdicts' values."""
        return sum(self.labels.get(last_word(reply), 0.0) for each in replies for reply in each)

    def vote(self, states: Sequence[str]) -> ThoughtRequest:
        """The paper's question, after the problem."""
        return vote(self._opening(), states)

    def voted(self, states: Sequence[str], replies: Sequence[str]) -> list[float]:
        """The number of votes for each state."""
        return count_votes(len(states), replies)

    def is_done(self, state: str) -> bool:
        """True if all steps are made, or the last one states an answer."""
        made = state.splitlines()
        return len(made) >= self.steps or bool(made and re.search(r"\banswer is\b", made[-1], re.IGNORECASE))

    def answer(self, state: str) -> str:
        """The answer in the last step, or in any."""
        last = (state.splitlines() or [""])[-1]
        found = extract_answer(last, self.task)
        return answer_or_text(state, self.task) if found is None else found

    def _is_last(self, state: str) -> bool:
        return len(state.splitlines()) >= self.steps - 1

    def _finish(self, state: str) -> ThoughtRequest:
        form = "the letter of the right choice" if self.task.choices else self.task.hint or "the answer"
        return ThoughtRequest(
            f'{self._opening()}{self._so_far(state)}Follow these steps. End with "The answer is" and {form}.'
        )

    def _opening(self) -> str:
        return f"{self.task.question}\n\n"

    def _so_far(self, state: str) -> str:
        return f"Steps so far:\n{state}" if state else ""


def vote(opening: str, states: Sequence[str]) -> ThoughtRequest:
    """The paper's request for a vote among states."""
    choices = "".join(f"Choice {number}:\n{state}\n" for number, state in enumerate(states, 1))
    return ThoughtRequest(
        f"{opening}Given an instruction and several choices, decide which choice is most promising. Analyze each choice in "
        f'detail, then conclude in the last line "The best choice is s", where s is the integer id of the choice.\n{choices}'
    )


def count_votes(choices: int, replies: Sequence[str]) -> list[float]:
    """The number of replies for each choice; the last choice that a reply names counts."""
    votes = [0.0] * choices
    for reply in replies:
        named = _VOTE.findall(reply[-TAIL_CHARS:])
        if named and 1 <= int(named[-1]) <= choices:
            votes[int(named[-1]) - 1] += 1
    return votes


def last_word(reply: str) -> str:
    """The last word of a reply, in lower case: where a verdict is asked for."""
    words = re.findall(r"[a-z]+", reply[-200:].lower())
    return words[-1] if words else ""
