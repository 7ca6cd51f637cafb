"""A simulated Model of known skill: it plays the game of 24 with given error rates, to compare search with theory.

It knows the truth of every position (`game24_solver.py`) and errs at the rates of its `Errors`, with seeded randomness.
It understands the prompts of the benchmark game24 and of the patterns that use it, and refuses others. Its name always
begins with `sim`, so that it is never taken for a real model.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from random import Random

from firsthand.errors import ConfigError, ModelError
from firsthand.loop.concurrency import derive_seed
from firsthand.message import assistant, canonical
from firsthand.model import Completion, Delta, Likelihood, Prompt, Sampling, Scored, ToolSpec, Usage
from firsthand.providers.game24_solver import (
    GOAL,
    Move,
    Numbers,
    makes_24,
    moves,
    position,
    reachable,
    solution,
    written,
)
from firsthand.providers.scripted import Scripted
from firsthand.providers.session_player import session_player
from firsthand.system.option_spec import parse_spec

_QUESTION = re.compile(r"(Question: )?Use numbers and basic arithmetic operations[^\n]*\nNumbers: ([\d ]+)")
"""With its own heading it follows worked examples."""
PerStep = tuple[float, float, float]
"""Rates for the first, second and third operation."""


@dataclass(frozen=True)
class Errors:
    """Rates of correct behaviour. The defaults are GPT-4's, measured from the log of Yao et al. (2023)."""

    propose_winning: PerStep = (0.38, 0.56, 0.87)
    """A position that can still reach 24 is proposed, if one operation leads to it."""
    propose_losing: PerStep = (0.27, 0.35, 0.46)
    """A position that cannot reach 24 is proposed."""
    legal: PerStep = (0.94, 0.91, 0.76)
    """A proposal's arithmetic is correct."""
    sure_if_winnable: PerStep = (0.51, 0.99, 1.0)
    """A position that can reach 24 is judged sure, else likely."""
    sure_if_lost: PerStep = (0.012, 0.002, 0.003)
    """A position that cannot is judged sure."""
    impossible_if_lost: PerStep = (0.12, 0.55, 0.61)
    """A position that cannot is judged impossible."""
    answer: float = 0.9
    """The expression is correct, once the steps have reached 24."""
    direct: float = 0.073
    """An answer without reasoning is correct."""
    cot: float = 0.040
    """The answer after a chain of thought is correct."""
    distractors: int = 5
    """Number of equally likely wrong answers."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            rates = value if isinstance(value, tuple) else (value,)
            if name != "distractors" and not all(0 <= rate <= 1 for rate in rates):
                raise ConfigError(f"{name} is {value!r}: give probabilities, from 0 to 1")
        if self.distractors < 1:
            raise ConfigError(f"distractors is {self.distractors}: give 1 or more")


def uniform(error: float) -> Errors:
    """Returns Errors of one rate for each step, verdict and answer; a chain of four is right if each step is."""
    right = (1 - error,) * 3
    chain = (1 - error) ** 4
    return Errors(
        propose_winning=right,
        propose_losing=(0.3, 0.3, 0.3),
        legal=(1.0, 1.0, 1.0),
        sure_if_winnable=right,
        sure_if_lost=(error,) * 3,
        impossible_if_lost=right,
        answer=1 - error,
        direct=chain,
        cot=chain,
    )


def open_model(text: str) -> Sim | Scripted:
    """Returns the model named `sim:game24` (GPT-4's rates), `sim:game24:error=0.2` (one rate for all) or `...:seed=1`.

    `sim:sessions` is the reader of the benchmark `sessions` that makes no mistake.
    """
    if text == "sessions":
        return session_player()
    spec = parse_spec(text)
    if spec.name != "game24" or set(spec.options) - {"error", "seed"}:
        raise ConfigError(
            f"sim:{text} names no simulated model: give sim:game24, sim:game24:error=0.2, sim:game24:seed=1 or sim:sessions"
        )
    try:
        error, seed = spec.options.get("error"), int(spec.options.get("seed", "0"))
        if error is not None and not 0 <= float(error) <= 1:
            raise ValueError
        errors = Errors() if error is None else uniform(float(error))
    except ValueError:
        raise ConfigError(f"sim:{text}: error is a number from 0 to 1, and seed a whole number") from None
    return Sim(errors, seed=seed, name=f"sim:{text}")


class Sim:
    """The Model. Its verdicts on one position agree, however many are requested: errors are correlated, as in real
    models."""

    def __init__(self, errors: Errors | None = None, *, seed: int = 0, name: str = "sim:game24"):
        if not name.startswith("sim"):
            raise ConfigError(f"a simulated model is named {name!r}: its name must begin with 'sim'")
        self.name = name
        self.errors = errors or Errors()
        self.seed = seed
        self.fingerprint = "sim-game24-" + canonical([asdict(self.errors), seed])

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """Returns `n` replies. Tokens are words."""
        text = _text(prompt)
        words = len(text.split())
        replies = [self._reply(text, sampling.seed, index) for index in range(n)]
        usages = [Usage(words if index == 0 else 0, 0, len(reply.split())) for index, reply in enumerate(replies)]
        return [Completion(assistant(reply), "stop", usage) for reply, usage in zip(replies, usages, strict=True)]

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        """Yields one reply, in one piece."""
        (completion,) = await self.complete(prompt, sampling, tools=tools)
        yield Delta(completion.message.text, completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """Gives nearly all probability to the verdict that it would answer with."""
        text = _text(prompt)
        said = self._reply(text, None, 0).split("\n")[-1]
        each = tuple(
            Likelihood(c, math.log(0.98 if c.strip() == said else 0.01), 1, c.strip() == said) for c in continuations
        )
        return Scored(each, Usage(len(text.split()) + len(continuations)))

    async def count_tokens(
        self, prompt: Prompt, tools: Sequence[ToolSpec] = (), continuations: Sequence[str] = ()
    ) -> int:
        """Returns the words of a prompt, and one token for each continuation."""
        return len(_text(prompt).split()) + len(continuations)

    def _reply(self, text: str, seed: int | None, index: int) -> str:
        rng = Random(derive_seed(self.seed, seed, text, index))
        shared = Random(derive_seed(self.seed, seed, text))
        if text.startswith("Evaluate if given numbers can reach 24"):
            return self._verdict(position(text.strip().split("\n")[-1]), shared)
        if text.endswith("Judge:"):
            return self._judge(text)
        if text.endswith("Possible next steps:\n"):
            return "\n".join(move.text for move in self._proposals(_last(r"Input: ([^\n]*)", text), rng))
        if "\nSteps:" in text.rpartition("Input: ")[2]:
            return self._next_line(text, rng)
        if found := _QUESTION.match(text):
            return self._answer(position(found.group(2)), bool(found.group(1)) or "step by step" in text, rng)
        raise ModelError(f"{self.name} plays the game of 24 only, and was asked: {text[:80]!r}")

    def _proposals(self, numbers: Numbers, rng: Random) -> list[Move]:
        """Returns operations in random order: each position by its rate, and wrong arithmetic besides."""
        step = _step(len(numbers))
        chance = {True: self.errors.propose_winning[step], False: self.errors.propose_losing[step]}
        positions = {move.left: move for move in moves(numbers)}.values()
        found = [move for move in positions if rng.random() < chance[reachable(move.left)]]
        legal = self.errors.legal[step]
        broken = [_broken(move) for move in found if legal and rng.random() < 1 / legal - 1]
        found += broken
        rng.shuffle(found)
        return found

    def _verdict(self, numbers: Numbers, rng: Random) -> str:
        step, draw = _step(len(numbers) + 1), rng.random()
        if reachable(numbers):
            return "sure" if draw < self.errors.sure_if_winnable[step] else "likely"
        sure = self.errors.sure_if_lost[step]
        return (
            "sure" if draw < sure else "impossible" if draw < sure + self.errors.impossible_if_lost[step] else "likely"
        )

    def _judge(self, text: str) -> str:
        """Returns the verdict on a whole expression, which is always correct."""
        expression = re.findall(r"Answer: ([^\n]*)", text)[-1].partition("=")[0]
        return "sure" if makes_24(expression, _last(r"Input: ([^\n]*)", text)) else "impossible"

    def _next_line(self, text: str, rng: Random) -> str:
        """Returns the next operation, or the expression once one number is left."""
        puzzle, steps = _last(r"Input: ([^\n]*)", text), text.rpartition("Steps:")[2]
        left = position(steps.rpartition("left: ")[2].partition(")")[0]) if "left: " in steps else puzzle
        if len(left) > 1:
            found = self._proposals(left, rng)
            return rng.choice(found).text if found else ""
        right = left == (GOAL,) and rng.random() < self.errors.answer
        return f"Answer: {self._expression(puzzle, right, rng)} = 24"

    def _answer(self, numbers: Numbers, by_steps: bool, rng: Random) -> str:
        right = rng.random() < (self.errors.cot if by_steps else self.errors.direct)
        return f"Answer: {self._expression(numbers, right, rng)} = 24"

    def _expression(self, numbers: Numbers, right: bool, rng: Random) -> str:
        """Returns a correct expression, or one of the wrong ones."""
        found = solution(numbers) if right else None
        return found or " + ".join([*map(str, numbers), str(rng.randint(1, self.errors.distractors))])


def _text(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1].text


def _step(numbers: int) -> int:
    """Returns the index of the operation for this many remaining numbers."""
    return min(max(4 - numbers, 0), 2)


def _last(pattern: str, text: str) -> Numbers:
    """Returns the numbers in the last match."""
    found = re.findall(pattern, text)
    return position(found[-1]) if found else ()


def _broken(move: Move) -> Move:
    """Returns the move with a result that is off by one."""
    shown, _, _ = move.text.partition(" = ")
    result = move.text.partition(" = ")[2].partition(" (")[0]
    [wrong] = position(result)
    left = list(move.left)
    left.remove(wrong)
    left = sorted([*left, wrong + 1])
    return Move(f"{shown} = {wrong + 1} (left: {written(tuple(left))})", tuple(left))
