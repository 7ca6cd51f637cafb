"""AgentBench's lateral thinking world: one question a round, answered yes, no or irrelevant, until all points are found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random

from firsthand.message import Json
from firsthand.worlds.puzzles.puzzle import Puzzle
from firsthand.worlds.puzzles.puzzle_judge import PuzzleHost, content_words
from firsthand.worlds.world import InvalidAction, WorldCall

MAX_QUESTION = 500
ABORT = 5
"""Strikes that end a game, as in the paper: 2 for leaving the game, 1 for a question that was asked before."""
_LEAVING = (
    "new story", "other story", "another story", "new game", "other game", "new question", "other question", "new round",
    "other round", "great job", "further question",
)  # fmt: skip
_OPEN = ("why", "what", "who", "whom", "whose", "how", "where", "when", "which", "为什么", "什么", "谁", "怎么")
HINT = 'ask one question that can be answered with "yes", "no" or "irrelevant"'


class PuzzleWorld:
    """A World of one puzzle."""

    examples = ("Is the man alive?", "Did it happen at night?")

    form = "[^\\n]{3,200}\\?"

    def __init__(self, puzzle: Puzzle, host: PuzzleHost, rounds: int):
        self.puzzle, self.host, self.rounds = puzzle, host, rounds
        self.ending: str | None = None
        self.left = list(range(len(puzzle.answer_keys)))
        self.questions: list[tuple[str, str]] = []
        self.known: list[str] = []
        self.strikes = self.asked = 0
        self.counts = {"yes": 0, "no": 0, "irrelevant": 0}

    @property
    def moves(self) -> Sequence[Callable[..., Awaitable[str]]]:
        """The question."""
        return (self.ask,)

    async def ask(self, question: str) -> str:
        """Ask about the truth behind the story; the answer is yes, no or irrelevant.

        Args:
            question: One question that can be answered with yes or no.
        """
        self.asked += 1
        lowered = " ".join(question.lower().split())
        if any(mark in lowered for mark in _LEAVING):
            self._strike(2)
            raise InvalidAction(f"the game goes on with this story: {HINT}")
        if lowered.startswith(_OPEN):
            self._strike(2)
            raise InvalidAction(f"make a guess of your own: {HINT}")
        if any(lowered == before for before, _ in self.questions):
            self._strike(1)
            return "This is a question that has already been asked. Please ask a new question."
        found = await self.host.answer(self.puzzle, question, self.known, self.left)
        if found.verdict == "yes" and not found.found and self._is_in_story(question):
            self.questions.append((lowered, "story"))
            return "This information is already in the story, please ask a new question."
        self.counts[found.verdict] += 1
        self.questions.append((lowered, found.verdict))
        if found.verdict == "yes":
            self.known.append(question)
        self.left = [index for index in self.left if index not in found.found]
        if not self.left:
            self.ending = "won"
        return found.verdict.capitalize() + "."

    async def open(self) -> None:
        """Do nothing: a game begins with its story."""

    async def close(self) -> None:
        """Do nothing: a game holds nothing open."""

    def read(self, action: str) -> WorldCall:
        """The first line, as the question."""
        line = next((line.strip() for line in action.splitlines() if line.strip()), "")
        if not line or len(line) > MAX_QUESTION or not content_words(line):
            raise InvalidAction(f"{line[:40]!r} ({len(line)} characters) is no question: {HINT}")
        return WorldCall("ask", {"question": line})

    def admissible(self) -> None:
        """Return None: questions cannot be listed."""
        return

    def render(self) -> str:
        """The story, the last questions with their answers, and how many points are found."""
        said = "\n".join(f"  {question} - {verdict}" for question, verdict in self.questions[-6:])
        points = len(self.puzzle.answer_keys)
        return f"{self.puzzle.story}\n{said}\n{points - len(self.left)} of {points} points found".replace("\n\n", "\n")

    async def result(self) -> Json:
        """The counts behind the paper's four figures."""
        return {
            "found": len(self.puzzle.answer_keys) - len(self.left),
            "points": len(self.puzzle.answer_keys),
            "asked": self.asked,
            **self.counts,
            "finish_round": self.asked if not self.left else self.rounds,
        }

    def optimal(self) -> str:
        """The first point that is not found, as a question."""
        return f"Is it true that {self.puzzle.answer_keys[self.left[0]].rstrip('.。;；')}?"

    def random(self, rng: Random) -> str:
        """A question of three words from the story."""
        words = [word.strip(".,?!\"'")[:12] for word in self.puzzle.story.split()]
        if len(words) < 3:  # Chinese is written without spaces
            words = [self.puzzle.story[place : place + 3] for place in range(len(self.puzzle.story) - 2)]
        return f"Is it because of {' '.join(rng.choice(words) for _ in range(3))}?"

    def _is_in_story(self, question: str) -> bool:
        """True if every content word of the question is in the story."""
        return content_words(question) <= content_words(" ".join([self.puzzle.story, *self.puzzle.story_keys]))

    def _strike(self, strikes: int) -> None:
        self.strikes += strikes
        if self.strikes >= ABORT:
            self.ending = "aborted"
