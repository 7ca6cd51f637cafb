"""Parallelisation: sections of a task, or several attempts at it, run concurrently and combined to one answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from firsthand.agent import Pattern
from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.marked_texts import marked_spans
from firsthand.loop.pattern_options import check_temperature, checked
from firsthand.patterns.direct import direct
from firsthand.patterns.parts.answers import answer_form, answer_or_text, given_answer
from firsthand.patterns.parts.label_choice import chance_correct
from firsthand.patterns.parts.sub_patterns import BranchOutcome, alive, attempt, note_shared_world, world_tools
from firsthand.patterns.parts.voting import count, share, tallied
from firsthand.task import Task
from firsthand.tool import MARK_END

Split = Callable[[Task, int], Sequence[Task]]
"""A task and the most sections -> the sections, each a task that can be done without the others."""
CombineBranches = Literal["majority", "any", "all", "threshold", "best", "merge"]


def _check(*, n: int, threshold: float, temperature: float, **_: Any) -> None:
    if n < 1 or not 0 < threshold <= 1:
        raise ConfigError(
            f"n is {n} and threshold {threshold:g}: give 1 branch or more, and a share above 0, at most 1"
        )
    check_temperature(temperature)


@checked(_check)
async def parallel(
    task: Task,
    ctx: Context,
    *,
    pattern: Pattern = direct,
    n: int = 4,
    split: Literal["copies", "paragraphs"] | Split = "copies",
    combine: CombineBranches = "majority",
    flag: str = "yes",
    threshold: float = 0.5,
    temperature: float = 0.7,
) -> str:
    """One answer, made of those of up to `n` branches that each run `pattern`.

    `split` says what they work on: `copies` of the task (voting), `paragraphs` (sections of the prompt, each with its last
    paragraph, the question), or a function of your own. `combine` says what becomes of their answers. `majority`: the most
    common one. `any`, `all`, `threshold`: `flag` if one, all, or that share of them say so, else the most common other one
    (the empty string if there is no other).
    `best`: the one that the model finds most probably right. `merge`: what the model makes of all. A branch that fails
    has no say; if all do, the first error is the attempt's. A benchmark's environment is one for all branches: where its
    tools change it, they act on top of each other, and the trace has an event `shared_world`.
    """
    sections = _sections(task, n, split)
    note_shared_world(ctx, len(sections), world_tools(ctx))
    warm = ctx.sampled(temperature=temperature) if split == "copies" else ctx
    named = [(f"branch {number}", section) for number, section in enumerate(sections, 1)]
    outcomes = await ctx.group(attempt(name, pattern, section, warm) for name, section in named)
    answered = alive(outcomes)
    if combine == "merge":
        return await _merged(task, ctx, outcomes)
    if combine == "best" and answered:
        return await _best(task, ctx, answered)
    answers = [given_answer(outcome.answer, task) for outcome in answered]
    tally = count(answers, ctx)
    if combine == "majority":
        return tally.winner or (answered or outcomes)[0].answer
    least = {"any": 1 / len(outcomes), "all": 1.0}.get(combine, threshold)
    raised = share(flag, answers) * len(answers) / len(outcomes)
    others = [answer for answer in answers if share(flag, [answer]) == 0]
    return flag if raised >= least - 1e-9 else tallied(others).winner or ""


def copies(task: Task, n: int) -> list[Task]:
    """The task `n` times."""
    return [task] * n


def paragraphs(task: Task, n: int) -> list[Task]:
    """Up to `n` sections of about equal length, of whole paragraphs, each with the task's last paragraph under it.

    Each paragraph of a marked document stands between its marks, and is never the last one.
    """
    pieces = list(_paragraphs(task.prompt))
    own = [at for at, (_, is_own) in enumerate(pieces) if is_own]
    if not own or len(pieces) == 1:
        return [task]
    question = pieces.pop(own[-1])[0]
    body = [paragraph for paragraph, _ in pieces]
    groups: list[list[str]] = [[] for _ in range(min(n, len(body)))]
    total, passed = sum(map(len, body)), 0
    for index, paragraph in enumerate(body):
        place = max(passed * len(groups) // total, index - len(body) + len(groups))  # none is left empty at the end
        groups[min(place, index)].append(paragraph)
        passed += len(paragraph)
    return [replace(task, prompt="\n\n".join([*group, question])) for group in groups if group]


def _paragraphs(text: str) -> Iterator[tuple[str, bool]]:
    """The paragraphs of a text, and whether each is its own: not one of a marked document, between whose marks it stands."""
    at = 0
    for begin, inside, end in [*marked_spans(text), (len(text),) * 3]:
        yield from ((each.strip(), True) for each in text[at:begin].split("\n\n") if each.strip())
        for each in text[inside : end - len(MARK_END)].split("\n\n") if end > begin else ():
            if each.strip():
                yield f"{text[begin:inside]}{each.strip()}{MARK_END}", False
        at = end


def _sections(task: Task, n: int, split: str | Split) -> Sequence[Task]:
    ways: dict[str, Split] = {"copies": copies, "paragraphs": paragraphs}
    sections = split(task, n) if callable(split) else ways[split](task, n)
    if not 1 <= len(sections) <= n:
        raise ConfigError(f"split made {len(sections)} sections: 1 to {n} were expected")
    return sections


async def _merged(task: Task, ctx: Context, outcomes: Sequence[BranchOutcome]) -> str:
    """The model's synthesis of all the answers."""
    told = "\n\n".join(f"Answer of {outcome.name}:\n{outcome.report}" for outcome in outcomes)
    ending = f'Make one answer of these. End with "The answer is" and {answer_form(task)}.'
    return answer_or_text((await ctx.say(f"{task.question}\n\n{told}\n\n{ending}").generate()).text, task)


async def _best(task: Task, ctx: Context, outcomes: Sequence[BranchOutcome]) -> str:
    """The answer that the model most probably calls correct when it is asked (Kadavath et al., 2022)."""
    first: dict[str, BranchOutcome] = {}
    for outcome in outcomes:
        first.setdefault(outcome.answer, outcome)
    different = list(first.values())

    async def rate(outcome: BranchOutcome) -> float:
        return await chance_correct(ctx, f"{task.question}\n\nProposed answer: {outcome.answer}\n\n")

    scores = await ctx.group(rate(outcome) for outcome in different)
    best = max(range(len(different)), key=lambda i: scores[i])
    for index, outcome in enumerate(different):
        ctx.branch(outcome.name, "kept" if index == best else "pruned", score=scores[index], text=outcome.answer)
    return different[best].answer
