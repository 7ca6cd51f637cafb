"""Plays a pattern against a scripted model, and gives its answer with every request and note of the trace."""

import asyncio

from firsthand import Agent, Task
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout

QUIET = ("branch", "guard_passes")


def played(pattern, task, replies=(), /, *, score=None, notes=(), tools=(), sampling=None, setting=None, **options):
    """The answer, the requests as (conversation, settings, samples), and the notes of some kinds."""
    model = Scripted(replies, score=score)
    agent = Agent(
        "a", model, pattern, options, tools=tuple(tools), **({} if sampling is None else {"sampling": sampling})
    )
    trace = asyncio.run(rollout(agent, task, seed=5, **({} if setting is None else {"benchmark": setting})))
    assert trace.error is None, trace.error
    requests = [(_said(each.prompt), _settings(each), each.n) for each in model.asked]
    told = [(event.kind, event.data) for event in trace.events if event.kind in notes]
    return trace.answer, requests, told


def branches(trace_or_notes):
    """(name, status, score, text) of each branch that was noted."""
    return [(d["name"], d["status"], d["score"], d["text"]) for kind, d in trace_or_notes if kind == "branch"]


def _said(prompt):
    return prompt if isinstance(prompt, str) else [(message.role, message.text) for message in prompt]


def _settings(request):
    if request.sampling is None:
        return request.continuations
    kept = {
        "temperature": request.sampling.temperature,
        "max_tokens": request.sampling.max_tokens,
        "stop": request.sampling.stop,
    }
    return kept | {"tools": tuple(tool.name for tool in request.tools)}


def question(text="Q?", **more):
    """A task with that question."""
    return Task("t", text, **more)
