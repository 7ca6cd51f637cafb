"""The game of 24: make 24 of four numbers, each used once, with + - * / (Yao et al., 2023).

The puzzles are those of 4nums.com by rank, of which the paper takes 901 to 1000, if their file is found; otherwise solvable
ones are generated from the seed, so that nothing need be installed. An answer is checked by exact arithmetic.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.sources.tot_data import PaperFile, find, prompts
from firsthand.errors import ConfigError, DataError, reason_of
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.patterns.parts.thoughts import HOPELESS, LABELS, ThoughtRequest, count_votes, last_word, vote
from firsthand.providers.game24_solver import makes_24, position, reachable
from firsthand.system.headed_csv import HeadedCsv
from firsthand.task import Task
from firsthand.trace import Score, Trace

QUESTION = (
    "Use numbers and basic arithmetic operations (+ - * /) to obtain 24. Use each number exactly once.\nNumbers: "
)
GENERATED = 100
MAX_LINE_CHARS = 1_000
"""A longer line is no expression."""
_AROUND = " \t*_`$}."
"""Markup allowed around an expression: Markdown, LaTeX, and a full stop."""
_SIGNS = {r"\times": "*", r"\cdot": "*", r"\div": "/"}
_LATEX = re.compile(r"\\(?:times|cdot|div|left|right|boxed\{|[()\[\]])")
_EXAMPLE = re.compile(r"Input: ([\d ]+)\n(Steps:\n(?:(?:(?!Input: ).)+\n)+?Answer: .+)\n")


def game24(*, ranks: str = "901-1000", data: str = "") -> Benchmark:
    """Return the benchmark over these ranks; `data` is a folder with `game24.csv` (or `24.csv`), or `generated`."""
    found = None if data == "generated" else find(("game24.csv", "24.csv"), "24/24.csv", data)
    first, last = _span(ranks)
    puzzles = _puzzles(found, first, last) if found else []
    origin = f"ranks {first} to {last} of 4nums.com ({found.origin})" if found else f"{GENERATED} generated puzzles"
    return Benchmark(
        name="game24",
        tasks=lambda seed: puzzles or generate(seed, GENERATED),
        scorers=(solved, solved_by_any),
        description="Make 24 of four numbers (Yao et al., 2023).",
        protocol=f"{origin}; exact arithmetic, each number once; any: any of the final states",
        licence="MIT (the list), facts" if found else "none needed: generated",
        options={"ranks": ranks if found else "", "data": origin, "sha256": found.sha256 if found else ""},
    )


def thoughts(task: Task) -> Game24Thoughts:
    """Return the prompts and rules by which Tree of Thoughts searches the task."""
    return Game24Thoughts(str(task.metadata["numbers"]))


def generate(seed: int, count: int) -> list[Task]:
    """Return `count` distinct solvable puzzles of numbers from 1 to 13."""
    rng, made = Random(derive_seed("game24", seed)), dict[str, Task]()
    while len(made) < count:
        numbers = " ".join(map(str, sorted(rng.randint(1, 13) for _ in range(4))))
        if numbers not in made and reachable(position(numbers)):
            made[numbers] = make_task(f"seed{seed}-{len(made):04d}", numbers)
    return list(made.values())


def make_task(id: str, numbers: str) -> Task:
    """Return the Task for four numbers."""
    return Task(
        id=id,
        prompt=QUESTION + numbers,
        hint="an expression that equals 24",
        thoughts="game24",
        metadata={"numbers": numbers, "examples": _examples()},
        secret={"numbers": numbers},
    )


def solved(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer is an expression of the four numbers, each used once, that equals 24."""
    return Score("solved", float(is_solution(trace.answer or "", str(task.secret["numbers"]))))


def solved_by_any(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer or any final state of the search is right: the paper's count for b > 1."""
    final = [event.data.get("answer", "") for event in trace.events if event.data.get("status") == "done"]
    answers = [trace.answer or "", *map(str, final)]
    return Score("any", float(any(is_solution(each, str(task.secret["numbers"])) for each in answers)))


def is_solution(answer: str, numbers: str) -> bool:
    """Return whether the last line of an answer makes 24 of exactly these numbers.

    What is said of the expression is not read: `24 =` before it, an equals sign and what follows it, LaTeX's and Markdown's
    marks around it, and a full stop.
    """
    line = (answer.strip().splitlines() or [""])[-1]
    if len(line) > MAX_LINE_CHARS:
        return False
    plain = _LATEX.sub(lambda found: _SIGNS.get(found[0], ""), line.lower().rpartition("answer:")[2])
    first, *others = [side.strip(_AROUND) for side in plain.split("=")]
    expression = others[0] if first == "24" and others else first
    return makes_24(expression, position(numbers))


@dataclass(frozen=True)
class Game24Thoughts:
    """The paper's thoughts: three operations, one per line with the numbers left, then the whole expression."""

    numbers: str
    steps: int = 4
    hopeless: float = HOPELESS

    @property
    def labels(self) -> Mapping[str, float]:
        """Map the paper's verdicts to their values."""
        return LABELS

    def propose(self, state: str) -> ThoughtRequest:
        """Ask for next operations on the numbers left; once 24 is left, for the expression."""
        left = numbers_left(state or self.numbers)
        if left == "24":
            return ThoughtRequest(f"{self._fill('cot')}Steps:{state}")
        return ThoughtRequest(prompts("game24")["propose"].replace("{input}", left))

    def proposed(self, state: str, replies: Sequence[str]) -> list[str]:
        """Return one state per line of the replies."""
        return [f"{state}{line}\n" for reply in replies for line in reply.split("\n") if line.strip()]

    def sample(self, state: str) -> ThoughtRequest:
        """ThoughtRequest, with the steps so far, for the next line."""
        return ThoughtRequest(f"{self._fill('cot')}Steps:\n{state}", ("\n",))

    def sampled(self, state: str, reply: str) -> str:
        """Return the state extended by the line."""
        return f"{state}{reply.strip()}\n"

    def value(self, state: str) -> tuple[ThoughtRequest, ...]:
        """Ask whether the numbers left can reach 24, or whether the expression is right; nothing if it is missing."""
        last = state.strip().split("\n")[-1]
        if self._is_unanswered(state):
            return ()
        if "left: " in last:
            return (ThoughtRequest(prompts("game24")["value"].replace("{input}", numbers_left(state))),)
        return (ThoughtRequest(self._fill("value_answer").replace("{answer}", last.lower().replace("answer: ", ""))),)

    def valued(self, state: str, replies: Sequence[Sequence[str]]) -> float:
        """Return the sum of the verdicts' values: impossible .001, likely 1, sure 20."""
        verdicts = [last_word(reply) for each in replies for reply in each]
        return sum(verdicts.count(label) * worth for label, worth in reversed(list(self.labels.items())))

    def vote(self, states: Sequence[str]) -> ThoughtRequest:
        """Ask for the most promising steps."""
        return vote(f"{QUESTION}{self.numbers}\n\n", states)

    def voted(self, states: Sequence[str], replies: Sequence[str]) -> list[float]:
        """Return the number of votes for each state."""
        return count_votes(len(states), replies)

    def is_done(self, state: str) -> bool:
        """Return whether the state ends with an expression."""
        return "answer" in state.lower()

    def answer(self, state: str) -> str:
        """Return the expression, or the last step."""
        return state.strip().split("\n")[-1].removeprefix("Answer: ")

    def _fill(self, name: str) -> str:
        return prompts("game24")[name].replace("{input}", self.numbers)

    def _is_unanswered(self, state: str) -> bool:
        return len(state.strip().split("\n")) >= self.steps and not self.is_done(state)


def numbers_left(state: str) -> str:
    """Return the numbers left, as the last step states them."""
    return state.strip().split("\n")[-1].split("left: ")[-1].split(")")[0]


@cache
def _examples() -> list[Json]:
    """Return the paper's five worked examples."""
    return [
        {"question": QUESTION + numbers, "answer": steps}
        for numbers, steps in _EXAMPLE.findall(prompts("game24")["cot"])
    ]


def _span(ranks: str) -> tuple[int, int]:
    span = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", ranks)
    first, last = (int(span.group(1)), int(span.group(2) or span.group(1))) if span else (0, 0)
    if not 1 <= first <= last:
        raise ConfigError(f"ranks is {ranks!r}: give a range such as 901-1000")
    return first, last


def _puzzles(found: PaperFile, first: int, last: int) -> list[Task]:
    try:
        rows = list(HeadedCsv(io.StringIO(found.text)))
    except csv.Error as error:
        raise DataError(f"{found.origin} is no CSV file: {reason_of(error)}") from None
    if not rows or "Puzzles" not in rows[0] or last > len(rows):
        raise DataError(f"{found.origin}: a CSV with a column Puzzles and at least {last} rows was expected")
    made = [make_task(f"rank-{rank:04d}", str(rows[rank - 1]["Puzzles"])) for rank in range(first, last + 1)]
    for task in made:
        if not re.fullmatch(r"\d{1,3}( \d{1,3}){3}", str(task.metadata["numbers"])):
            raise DataError(
                f"{found.origin}, {task.id}: four numbers were expected, not {task.metadata['numbers']!r:.60}"
            )
    return made
