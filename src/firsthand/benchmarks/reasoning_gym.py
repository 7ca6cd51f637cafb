"""Tasks of reasoning-gym: about a hundred generators with scorers of their own, through its package.

Several of its scorers run Python's `eval` on the answer, in the process that then says its score. They get literals and
formulas alone; any other answer is scored as one that they cannot read. Where a generator has a scorer of its own, which may
compute without end (`1e1000000000`), it runs in the sandbox, and where there is no sandbox the score is an error. The scorer
that most share, which compares two texts, is called here.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.errors import ConfigError, MissingExtra, SandboxError, unknown
from firsthand.message import Json
from firsthand.patterns.parts.parsed_python import parsable
from firsthand.sandbox.sandbox import Outcome, Sandbox
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.system.normalised_text import normalised_text
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.trace import Score, Trace

MAX_ANSWER_CHARS = 20_000
MAX_TASKS = 10_000
_LISTING = "python -c 'from reasoning_gym.factory import DATASETS; print(*sorted(DATASETS))'"
_RUNS_CODE = re.compile(r"\b(?:eval|exec|parse_expr|sympify)\(")
_READS = frozenset({"basic_arithmetic", "bitwise_arithmetic", "codeio", "number_sorting", "propositional_logic"})
"""Generators whose modules run code, but never that of an answer: it may be any text."""
_LISTS = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
"""Generators that take a list of texts, and no library evaluates these."""
_LENIENT = {
    "coin_flip": "gives 1 to a 0 where the right number begins with one",
    "complex_arithmetic": "gives 1 to `nan`",
    "game_of_life_halting": "gives 1 to any text where the right answer is True or False",
}
"""Wrong answers that the package's own scorer gives the full score, by generator (seen in version 0.1.25)."""
_UNREADABLE = "("
_WORDS = frozenset({
    "Abs", "Rational", "abs", "acos", "acosh", "acot", "asin", "asinh", "atan", "atanh", "cbrt", "ceiling", "cos", "cosh",
    "cot", "csc", "erf", "exp", "factorial", "floor", "gamma", "ln", "log", "max", "min", "oo", "pi", "sec", "sign", "sin",
    "sinh", "sqrt", "tan", "tanh",
})  # fmt: skip
_WORD = re.compile(r"[^\W\d]\w*")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_BETWEEN = re.compile(r"[\s+\-*/%^!(),<>=]*")
_LIMITS = RunLimits(wall_s=60.0, cpu_s=20.0, memory_bytes=2 << 30, processes=128, open_files=512)
_SCORING = """
import json, sys
import reasoning_gym
given = json.load(sys.stdin)
dataset = reasoning_gym.create_dataset(given["name"], size=given["size"], seed=given["seed"])
print(json.dumps(float(dataset.score_answer(answer=given["answer"], entry=dataset[given["index"]]))))
"""


def reasoning_gym(*, task: str = "leg_counting", tasks: int = 100) -> Benchmark:
    """reasoning-gym (Stojanovski et al., 2025) by its own package: `tasks` problems of the generator `task`.

    The first score is the package's own, from 0 to 1.
    """
    if not 1 <= tasks <= MAX_TASKS:
        raise ConfigError(f"tasks is {tasks}: give a number from 1 to {MAX_TASKS:,}")
    known, version = _generators()
    if task not in known:
        raise unknown("generator of reasoning-gym", task, known, see=_LISTING)
    lenient = f", which {_LENIENT[task]}" if task in _LENIENT else ""
    return Benchmark(
        name=f"reasoning_gym:{task}",
        tasks=lambda seed: LazyTasks(range(tasks), partial(_task, task, tasks, seed)),
        scorers=(gym_score,),
        description="Generated reasoning problems of about a hundred kinds, with reasoning-gym's own scorers.",
        protocol=f"reasoning-gym {version}, {task}, default settings, {count_of(tasks, 'problem')}; its own score{lenient}",
        licence="Apache-2.0",
        options={"task": task, "tasks": tasks, "version": version},
    )


async def gym_score(task: Task, trace: Trace) -> Score:
    """Score by the generator's own `score_answer`; an answer of more than 20,000 characters is 0."""
    answer, secret = trace.answer or "", task.secret
    if not answer or len(answer) > MAX_ANSWER_CHARS:
        return Score("score", 0.0, {"why": f"the answer has {len(answer)} characters"})
    name, size, seed, index = (secret[key] for key in ("generator", "size", "seed", "index"))
    if answer == secret["answer"]:
        return Score("score", 1.0)
    if compares_texts(name):
        dataset = _dataset(name, size, seed)
        return Score("score", float(dataset.score_answer(answer=answer, entry=dataset[index])))
    given = {"name": name, "size": size, "seed": seed, "index": index}
    is_read = name in _READS or not runs_code(name) or is_plain(answer, lists=name in _LISTS)
    outcome = await _scored(given | {"answer": answer if is_read else _UNREADABLE})
    why = (
        {}
        if is_read
        else {"why": "the answer is neither a literal nor a formula, and this scorer would run it as code"}
    )
    if isinstance(outcome, float):
        return Score("score", outcome, why)
    if outcome.ended in ("timeout", "memory", "output", "killed"):
        return Score("score", 0.0, {"why": f"scoring the answer was stopped: {outcome.ended}"})
    if isinstance(await _scored(given | {"answer": secret["answer"]}), float):  # so it is this answer's own failure
        return Score("score", 0.0, {"why": f"the scorer failed on this answer: {outcome.stderr.strip()[-300:]!r}"})
    raise SandboxError(
        f"reasoning-gym's scorer of {name} gave no number in the sandbox: {outcome.stderr.strip()[-300:]!r}"
    )


async def _scored(given: Json) -> float | Outcome:
    """The score of an answer in the sandbox, or how scoring ended."""
    outcome = await _sandbox().python(_SCORING, stdin=json.dumps(given), limits=_LIMITS)
    try:
        return min(1.0, max(0.0, float(json.loads(outcome.stdout.strip().splitlines()[-1])))) if outcome.ok else outcome
    except (ValueError, TypeError, IndexError):
        return outcome


def is_plain(answer: str, *, lists: bool) -> bool:
    """True for an answer that runs nothing when it is evaluated: a formula, one word, or with `lists` a list of literals.

    A formula has numbers, operators, single letters and the names of mathematical functions. A library of algebra evaluates
    texts within an expression in their turn, so that it has none.
    """
    text = normalised_text("NFKC", answer).strip()
    if lists:
        try:
            if isinstance(ast.literal_eval(parsable(text)), list | tuple | set):
                return True
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            pass
    at = 0
    while at < len(text):
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        if word := _WORD.match(text, at):
            if len(word[0]) > 1 and word[0] not in _WORDS and word[0] != text:
                return False
            at = word.end()
        elif number := _NUMBER.match(text, at):
            at = number.end()
        elif at < len(text):
            return False
    return True


def compares_texts(name: str) -> bool:
    """True if a generator has the scorer of the package's base class, which looks for the expected text in the answer."""
    gym = _package()
    return gym.factory.DATASETS[name][0].score_answer is gym.factory.ProceduralDataset.score_answer


def runs_code(name: str) -> bool:
    """True if the module of a generator, or of a class it derives from within the package, evaluates text as code."""
    gym = _package()
    dataset = gym.factory.DATASETS[name][0]
    modules = {inspect.getmodule(each) for each in dataset.__mro__ if each.__module__.startswith("reasoning_gym.")}
    return any(_RUNS_CODE.search(inspect.getsource(module)) for module in modules if module is not None)


def _package() -> Any:
    try:
        import reasoning_gym
    except ImportError:
        raise MissingExtra("reasoning-gym", "gym", "the benchmark reasoning_gym") from None
    return reasoning_gym


def _generators() -> tuple[list[str], str]:
    """The names of the generators, and the package's version."""
    from importlib.metadata import version

    return sorted(_package().factory.DATASETS), version("reasoning-gym")


@lru_cache(maxsize=8)
def _dataset(name: str, size: int, seed: int) -> Any:
    return _package().create_dataset(name, size=size, seed=seed)


@lru_cache(maxsize=1)
def _sandbox() -> Sandbox:
    """The sandbox that may import the package and what it needs."""
    return Sandbox(packages=[Path(str(_package().__file__)).parents[1]], workers=1)


def _task(generator: str, size: int, seed: int, index: int) -> Task:
    entry = _dataset(generator, size, seed)[index]
    return Task(
        f"{generator}-seed{seed}-{index:04d}",
        str(entry["question"]),
        metadata={"generator": generator},
        secret={"answer": str(entry["answer"]), "generator": generator, "size": size, "seed": seed, "index": index},
    )
