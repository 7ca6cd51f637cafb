"""Mini crosswords: five words across, five down, five letters each (Yao et al., 2023).

The games are the authors' 156 (from GooBix), of which the paper tests every fifth of the first hundred. They are not shipped
here: a folder of the user's or the package `tree-of-thoughts-llm` provides them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.sources.tot_data import PACKAGE, find, prompts
from firsthand.errors import DataError
from firsthand.patterns.parts.thoughts import ThoughtRequest, count_votes, last_word, vote
from firsthand.task import Task
from firsthand.trace import Score, Trace

QUESTION = (
    "Solve this 5x5 mini crossword: five words across (h1 to h5) and five down (v1 to v5), each of five letters.\n"
    "End with five lines, one for each row, of five letters separated by spaces.\n\n"
)
EMPTY = "_" * 25
PLACES = tuple(f"{way}{number}" for way in "hv" for number in range(1, 6))
CONFIDENCE = {"certain": 1.0, "high": 0.5, "medium": 0.2, "low": 0.1}
LABELS: Mapping[str, float] = {"sure": 1.0, "maybe": 0.5, "impossible": -20.0}
"""Value of each verdict on a clue: one impossible clue makes a state's total negative, whatever the other nine are."""
PROPOSALS = 8
_PROPOSAL = re.compile(r"([hv][1-5])\. ([a-zA-Z]{5}) \((certain|high|medium|low)\)")
_ROW = re.compile(r"[ \t]*([A-Za-z_])[ \t]+([A-Za-z_])[ \t]+([A-Za-z_])[ \t]+([A-Za-z_])[ \t]+([A-Za-z_])[ \t]*")


def crosswords(*, games: Literal["test", "all"] = "test", data: str = "") -> Benchmark:
    """Return the benchmark over the paper's 20 test games, or all 156; `data` is a folder with `mini0505.json`."""
    found = find(("crosswords_mini0505.json", "mini0505.json"), "crosswords/mini0505.json", data)
    if found is None:
        raise DataError(
            f"the games are not on this machine: pip install {PACKAGE}, or give data=FOLDER with mini0505.json"
        )
    try:
        rows = json.loads(found.text)
        tasks = [_task(index, *row) for index, row in enumerate(rows)]
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{found.origin}: a list of clues and boards was expected ({error})") from None
    chosen = tasks[0:100:5] if games == "test" else tasks
    return Benchmark(
        name="crosswords",
        tasks=lambda seed: chosen,
        scorers=(words, letters, game, best_words, best_letters),
        description="5x5 mini crosswords (Yao et al., 2023).",
        protocol=f"{len(chosen)} games ({games}; {found.origin}); share of words, letters and whole games that are right",
        licence="MIT (the collection of tree-of-thought-llm)",
        options={"games": games, "data": found.origin, "sha256": found.sha256},
    )


def thoughts(task: Task) -> CrosswordThoughts:
    """Return the prompts and rules by which Tree of Thoughts searches the task."""
    return CrosswordThoughts(tuple(task.metadata["clues"]))


def words(task: Task, trace: Trace) -> Score:
    """Score the share of the ten words that are right."""
    return Score("words", share_of_words(board_in(trace.answer or ""), str(task.secret["board"])))


def letters(task: Task, trace: Trace) -> Score:
    """Score the share of the 25 letters that are right."""
    return Score("letters", share_of_letters(board_in(trace.answer or ""), str(task.secret["board"])))


def game(task: Task, trace: Trace) -> Score:
    """Score 1 if all letters are right."""
    return Score("game", float(board_in(trace.answer or "") == task.secret["board"]))


def best_words(task: Task, trace: Trace) -> Score:
    """Score the share of right words in the best state visited: the search's best find, whatever it answered."""
    return Score("best_words", share_of_words(_best(task, trace), str(task.secret["board"])))


def best_letters(task: Task, trace: Trace) -> Score:
    """Score the share of right letters in the state of `best_words`."""
    return Score("best_letters", share_of_letters(_best(task, trace), str(task.secret["board"])))


def _best(task: Task, trace: Trace) -> str:
    shown = [str(event.data["answer"]) for event in trace.events if event.kind == "branch" and "answer" in event.data]
    boards = [board_in(text) for text in (*shown, trace.answer or "")]
    return max(boards, key=lambda board: share_of_words(board, str(task.secret["board"])))


def share_of_words(board: str, truth: str) -> float:
    """Return the share of words that two boards have in common."""
    return sum(a == b for a, b in zip(words_of(board), words_of(truth), strict=True)) / 10


def share_of_letters(board: str, truth: str) -> float:
    """Return the share of letters that two boards have in common."""
    return sum(a == b for a, b in zip(board, truth, strict=True)) / 25


def board_in(text: str) -> str:
    """Return the board in the last five lines that are rows of five letters: 25 letters, `_` for an empty cell."""
    rows = ["".join(row.groups()).upper() for line in text.splitlines() if (row := _ROW.fullmatch(line))]
    return "".join(rows[-5:]).ljust(25, "_")


def words_of(board: str) -> list[str]:
    """Return the five words across and the five down."""
    return [board[5 * row : 5 * row + 5] for row in range(5)] + [board[column::5] for column in range(5)]


def place(board: str, thought: str) -> str:
    """Return the board after a thought such as `h2. motor`."""
    where, word = thought.split(". ")
    cells, index = list(board), int(where[1]) - 1
    cells[slice(5 * index, 5 * index + 5) if where[0] == "h" else slice(index, None, 5)] = word.upper()
    return "".join(cells)


def board_of(state: str) -> str:
    """Return the board after all thoughts of a state."""
    board = EMPTY
    for thought in state.splitlines():
        board = place(board, thought)
    return board


@dataclass(frozen=True)
class CrosswordThoughts:
    """The paper's thoughts: one placed word each. Words that would change a letter are dropped."""

    clues: tuple[str, ...]
    steps: int = 9
    """Depth of the search: the authors' code goes fewer than ten words deep."""
    hopeless: float = 0.0

    @property
    def labels(self) -> Mapping[str, float]:
        """Map the paper's verdicts on a clue to their values."""
        return LABELS

    def propose(self, state: str) -> ThoughtRequest:
        """Ask eight times, with board and clues, for words with confidences."""
        return ThoughtRequest(prompts("crosswords")["propose"].replace("{input}", self.shown(state)), samples=PROPOSALS)

    def proposed(self, state: str, replies: Sequence[str]) -> list[str]:
        """Return one state per word that fits the board, ordered by total confidence over all replies."""
        confidence: dict[str, float] = {}
        for reply in replies:
            for line in reply.splitlines():
                if found := _PROPOSAL.match(line):
                    thought = f"{found.group(1)}. {found.group(2).lower()}"
                    confidence[thought] = confidence.get(thought, 0) + CONFIDENCE[found.group(3)]
        board = board_of(state)
        ranked = sorted(confidence, key=lambda thought: -confidence[thought])
        return [f"{state}{thought}\n" for thought in ranked if _fits(board, place(board, thought))]

    def sample(self, state: str) -> ThoughtRequest:
        """ThoughtRequest, with board and clues, for the next word."""
        return ThoughtRequest(
            f"{prompts('crosswords')['propose'].replace('{input}', self.shown(state))}Give one word only.\n", ("\n",)
        )

    def sampled(self, state: str, reply: str) -> str:
        """Return the state extended by the word if it fits."""
        return next(iter(self.proposed(state, [reply])), state)

    def value(self, state: str) -> tuple[ThoughtRequest, ...]:
        """ThoughtRequest, for each clue with two or more letters filled in, whether a word fits."""
        lines = [
            f"{clue}: {' '.join(word.lower())}"
            for clue, word in zip(self.clues, words_of(board_of(state)), strict=True)
            if word.count("_") < 4
        ]
        return tuple(ThoughtRequest(prompts("crosswords")["value"].replace("{input}", line)) for line in lines)

    def valued(self, state: str, replies: Sequence[Sequence[str]]) -> float:
        """Return the sum of the verdicts' values: negative if a clue is impossible."""
        return sum(LABELS.get(last_word(reply), 0.0) for each in replies for reply in each)

    def vote(self, states: Sequence[str]) -> ThoughtRequest:
        """Ask for the most promising words."""
        return vote(QUESTION + self._clues(PLACES), states)

    def voted(self, states: Sequence[str], replies: Sequence[str]) -> list[float]:
        """Return the number of votes for each state."""
        return count_votes(len(states), replies)

    def is_done(self, state: str) -> bool:
        """Return whether the board is full."""
        return "_" not in board_of(state)

    def answer(self, state: str) -> str:
        """Return the board, one line per row."""
        return "\n".join(" ".join(word) for word in words_of(board_of(state))[:5])

    def shown(self, state: str) -> str:
        """Return board and clues as text, filled clues listed apart from open ones."""
        board = board_of(state)
        filled = [where for where in PLACES if f"{where}. " in state]
        unfilled = [where for where in PLACES if where not in filled]
        rows = "".join(f"{word}\n" for word in words_of(board)[:5])
        sections = f"\nUnfilled:\n{self._clues(unfilled, board)}\nFilled:\n{self._clues(filled, board)}\nChanged:\n"
        return f"Current Board:\n{rows}{sections}"

    def _clues(self, places: Sequence[str], board: str = "") -> str:
        found = words_of(board) if board else [""] * 10
        lines = [
            f"{where}. {clue}{': ' if board else ''}{word}\n"
            for where, clue, word in zip(PLACES, self.clues, found, strict=True)
            if where in places
        ]
        return "".join(lines)


def _fits(old: str, new: str) -> bool:
    """True if no letter changes."""
    return all(before in ("_", after) for before, after in zip(old, new, strict=True))


def _task(index: int, clues: Any, board: Any) -> Task:
    if len(clues) != 10 or len(board) != 25 or not all(isinstance(clue, str) and clue for clue in clues):
        raise ValueError(f"game {index} has {len(clues)} clues and {len(board)} letters")
    listed = "".join(f"{where}. {clue}\n" for where, clue in zip(PLACES, clues, strict=True))
    return Task(
        id=f"game-{index:03d}",
        prompt=QUESTION + listed,
        hint="five rows of five letters",
        verbatim=True,
        thoughts="crosswords",
        metadata={"clues": list(clues)},
        secret={"board": "".join(board).upper()},
    )
