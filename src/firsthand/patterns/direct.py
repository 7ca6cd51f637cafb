"""Ask and take the answer, without reasoning: the baseline of every comparison."""

from __future__ import annotations

import json
from dataclasses import replace

from firsthand.context import Context
from firsthand.loop.pattern_options import checked
from firsthand.patterns.parts.answers import answer_form, answer_or_text
from firsthand.patterns.parts.probes import PROBES, answer_probes
from firsthand.task import Task


@checked(follows_protocol=True)
async def direct(task: Task, ctx: Context) -> str:
    """The model's answer to the bare question, prompted exactly as the benchmark's protocol says if it fixes the text.

    A multiple-choice task with a context is answered by log-prob instead: the letter of the choice that is most probable
    after the context (Brown et al., 2020). The likelihoods are in the trace, for scorers that normalise by length. A task
    with requests and no choices asks for likelihoods only, and its answer is empty. Where a task is about calls alone, they
    are the answer, as JSON. A task with probes is answered by the log-probs of each (`parts/probes.py`).
    """
    if PROBES in task.metadata:
        return await answer_probes(task, ctx)
    if task.scored:
        logprobs = await _logprobs(task, ctx)
        return task.letters[max(range(len(logprobs)), key=logprobs.__getitem__)] if task.choices else ""
    if task.context is not None:
        ctx = await ctx.generate(prompt=task.context, **task.sampling)
    else:
        ctx = await ctx.say(question(task)).generate(tools=ctx.tools if task.calls else (), **task.sampling)
    if task.calls and ctx.last.tool_calls:
        return json.dumps([{call.name: call.arguments} for call in ctx.last.tool_calls], ensure_ascii=False)
    return answer_or_text(ctx.text, task)


async def _logprobs(task: Task, ctx: Context) -> list[float]:
    """The log-prob of each choice after its context, one call a context; with a baseline, one more call there."""
    contexts: dict[str | None, list[int]] = {}
    for index, (before, _) in enumerate(task.scored):
        contexts.setdefault(before, []).append(index)
    logprobs = [0.0] * len(task.scored)
    for before, indices in contexts.items():
        texts = [task.scored[index][1] for index in indices]
        likelihoods = await (ctx.say(task.prompt) if before is None else ctx).score(texts, prompt=before)
        for index, likelihood in zip(indices, likelihoods, strict=True):
            logprobs[index] = likelihood.logprob
    if task.baseline is not None:
        await ctx.score([text for _, text in task.scored], prompt=task.baseline)
    return logprobs


def question(task: Task) -> str:
    """The question, its choices, and how to answer."""
    form = answer_form(replace(task, last_line=False), "")  # "only" says as much
    return f"{task.question}\n\nAnswer with {form} only." if form else task.question
