"""Self-consistency: several chains of thought, and the answer most of them agree on (Wang et al., 2022)."""

from __future__ import annotations

from typing import Any

from firsthand.agent import Pattern
from firsthand.context import MAX_ANSWERS, Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import at_least, check_temperature, checked
from firsthand.patterns.cot import check_shots, opening
from firsthand.patterns.parts.answers import answer_or_text, extract_answer, given_answer
from firsthand.patterns.parts.sub_patterns import alive, attempt, note_shared_world, world_tools
from firsthand.patterns.parts.voting import Tally, count
from firsthand.task import Task


def check_votes(*, samples: int, temperature: float, shots: int = 0, pattern: Pattern | None = None, **_: Any) -> None:
    """ConfigError for options that no vote can be taken with."""
    if samples < 1:
        raise ConfigError(f"samples is {samples}: give 1 or more chains to vote")
    if samples > MAX_ANSWERS:
        raise ConfigError(f"samples is {samples}: at most {MAX_ANSWERS:,} chains vote")
    if pattern is not None and shots:
        raise ConfigError(f"shots is {shots}: give it to the pattern, as in self_consistency(cot:shots={shots})")
    at_least(0, shots=shots)
    check_temperature(temperature)


def _check_task(task: Task, *, shots: int, pattern: Pattern | None, **_: Any) -> None:
    if pattern is None:
        check_shots(task, shots)


@checked(check_votes, task=_check_task)
async def self_consistency(
    task: Task,
    ctx: Context,
    *,
    pattern: Pattern | None = None,
    samples: int = 8,
    temperature: float = 0.7,
    shots: int = 0,
) -> str:
    """The most common answer of `samples` chains of thought, unweighted; of equally common ones the first seen.

    Answers are compared in normal form (72.0 is 72); chains without an answer do not vote. The paper samples 40 at 0.7. With
    a `pattern`, its answers vote instead, each attempt in a branch of its own. A benchmark's environment is one for all of
    them: where its tools change it, the samples act on top of each other, and the trace has an event `shared_world`.
    """
    tally, answers = await vote(task, ctx, samples, temperature, shots=shots, pattern=pattern)
    return answers[0] if tally.winner is None else tally.winner


async def vote(
    task: Task, ctx: Context, samples: int, temperature: float, *, shots: int = 0, pattern: Pattern | None = None
) -> tuple[Tally, list[str]]:
    """The votes of `samples` attempts, and the answer of each that did not fail."""
    if pattern is None:
        chains = await opening(task, ctx, shots).sample(samples, temperature=temperature)
        found = [extract_answer(chain.text, task) for chain in chains]
        return count(found, ctx), [answer_or_text(chain.text, task) for chain in chains]
    note_shared_world(ctx, samples, world_tools(ctx))
    warm = ctx.sampled(temperature=temperature)
    outcomes = await ctx.group(attempt(f"sample {i}", pattern, task, warm) for i in range(1, samples + 1))
    answers = [outcome.answer for outcome in alive(outcomes)] or [outcomes[0].answer]
    silent = [None] * (len(outcomes) - len(answers))
    return count([*(given_answer(answer, task) for answer in answers), *silent], ctx), answers
