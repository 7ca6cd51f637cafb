"""Tasks of reasoning-gym: about a hundred generators with scorers of their own, through its package.

Several of its scorers run Python's `eval` on the answer. Where a generator's module can do so, the answer is scored in the
sandbox, and where there is no sandbox the score is an error. All others are called here.
"""

from __future__ import annotations

import inspect
import json
import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.long_context.lengths import LazyTasks
from firsthand.errors import ConfigError, MissingExtra, SandboxError, unknown
from firsthand.sandbox.sandbox import Sandbox
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.system.plurals import count_of
from firsthand.task import Task
from firsthand.trace import Score, Trace

MAX_ANSWER_CHARS = 20_000
MAX_TASKS = 10_000
_LISTING = "python -c 'from reasoning_gym.factory import DATASETS; print(*sorted(DATASETS))'"
_RUNS_CODE = re.compile(r"\b(?:eval|exec|parse_expr|sympify)\(")
_LIMITS = RunLimits(wall_s=120.0, cpu_s=60.0, memory_bytes=4 << 30, processes=128, open_files=512)
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
    return Benchmark(
        name=f"reasoning_gym:{task}",
        tasks=lambda seed: LazyTasks(range(tasks), partial(_task, task, tasks, seed)),
        scorers=(gym_score,),
        description="Generated reasoning problems of about a hundred kinds, with reasoning-gym's own scorers.",
        protocol=f"reasoning-gym {version}, {task}, default settings, {count_of(tasks, 'problem')}; its own score",
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
    if not runs_code(name):
        dataset = _dataset(name, size, seed)
        return Score("score", float(dataset.score_answer(answer=answer, entry=dataset[index])))
    given = {"name": name, "size": size, "seed": seed, "index": index, "answer": answer}
    outcome = await _sandbox().python(_SCORING, stdin=json.dumps(given), limits=_LIMITS)
    if outcome.ended in ("timeout", "memory", "output", "killed"):
        return Score("score", 0.0, {"why": f"scoring the answer was stopped: {outcome.ended}"})
    try:
        value = float(json.loads(outcome.stdout.strip().splitlines()[-1]))
    except (ValueError, IndexError):
        raise SandboxError(
            f"reasoning-gym's scorer of {name} gave no number in the sandbox: {outcome.stderr.strip()[-300:]!r}"
        ) from None
    return Score("score", min(1.0, max(0.0, value)))


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
