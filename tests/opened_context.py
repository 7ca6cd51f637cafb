"""Opens a Context over a scripted model, to run one function of a pattern with no attempt around it."""

import asyncio
import math
from dataclasses import fields, replace

from firsthand import Agent, Task
from firsthand.context import Attempt, open_context
from firsthand.errors import ModelError
from firsthand.loop.attempt_memory import AttemptMemory
from firsthand.loop.budget import Budget
from firsthand.loop.concurrency import Branch, enter_branch
from firsthand.loop.journal import MemoryJournal
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.sampling import Sampling

USUAL = Sampling()


def unscored(prompt, continuation):
    """A score function of a model that gives none."""
    raise ModelError("no scores here")


def raising(error):
    """A score function that raises."""

    def fails(prompt, continuation):
        raise error

    return fails


def logs(**shares):
    """A score function: the logarithm of each continuation's share."""
    return lambda prompt, continuation: math.log(shares[continuation])


class Considering(Scripted):
    """A model that tells, where it is asked, what it considered at each token; log-probs in lists, one for an answer."""

    def __init__(self, replies, considered, **more):
        super().__init__(replies, **more)
        self.considered = list(considered)

    async def complete(self, prompt, sampling, *, tools=(), n=1):
        """The scripted answers with their alternatives."""
        found = await super().complete(prompt, sampling, tools=tools, n=n)
        return (
            [replace(each, top_logprobs=self.considered.pop(0)) for each in found] if sampling.top_logprobs else found
        )


class Free(Considering):
    """Writes its replies whatever the grammar."""

    def __init__(self, replies, **more):
        super().__init__(replies, [[] for _ in replies], **more)

    async def complete(self, prompt, sampling, *, tools=(), n=1):
        """The scripted answers, as if no grammar was given."""
        return await super().complete(prompt, replace(sampling, grammar=None), tools=tools, n=n)


class Opened:
    """A Context at the beginning of a conversation, with the requests and the notes of what was run from it."""

    def __init__(self, replies=(), /, *, score=None, tools=(), seed=5, task=None, model=None, **agent):
        self.model = model or Scripted(replies, score=score)
        self.agent = Agent("a", self.model, direct, tools=tuple(tools), **agent)
        self.attempt = Attempt(self.agent, self.agent.own_tools, MemoryJournal(), seed, task=task)
        if self.agent.memory is not None:
            self.attempt.memory = AttemptMemory(self.agent.memory, {})
        self.ctx = open_context(self.attempt, Budget(self.agent.limits))
        self.branch = Branch()

    def run(self, make):
        """The result of the coroutine that `make` gives for the Context."""

        async def inside():
            enter_branch(self.branch)
            return await make(self.ctx)

        return asyncio.run(inside())

    @property
    def asked(self):
        """Each request as its conversation, `role: text` by line or the raw prompt, and all settings that are not usual."""
        return [(_said(each.prompt), _settings(each)) for each in self.model.asked]

    def said(self, at=None):
        """A conversation, to the Context `at`."""
        return _said((self.ctx if at is None else at).messages)

    def notes(self, *kinds):
        """(kind, data) of the events of these kinds, or of all."""
        return [(each.kind, each.data) for each in self.attempt.events if not kinds or each.kind in kinds]


def branch(name, status, at, text="", score=None, path="", **more):
    """The event of a branch, whole."""
    return "branch", {"name": name, "at": at, "status": status, "score": score, "text": text, "path": path, **more}


def asks(prompt="Q?", /, **more):
    """A task with that prompt."""
    return Task("t", prompt, **more)


def _said(prompt):
    return prompt if isinstance(prompt, str) else [f"{message.role}: {message.text}" for message in prompt]


def _settings(request):
    if request.sampling is None:
        return request.continuations
    changed = {
        each.name: value
        for each in fields(Sampling)
        if each.name != "seed" and (value := getattr(request.sampling, each.name)) != getattr(USUAL, each.name)
    }
    changed |= {"tools": [tool.name for tool in request.tools]} if request.tools else {}
    return changed | ({"n": request.n} if request.n != 1 else {})
