"""The calls of the models that a world itself asks: a customer, a host, played by a model of their own.

They are no part of the agent's budget. The journal and the trace keep each reply under the tool call that led to it, so that
a resumed, replayed or forked attempt, whose world is made anew, asks nobody again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

from firsthand.errors import ModelError, WorldFailed
from firsthand.loop.asked_at import asking
from firsthand.loop.calling import caller
from firsthand.loop.concurrency import derive_seed
from firsthand.loop.journal import JournalPart, skip_recorded
from firsthand.loop.request_key import request_key
from firsthand.message import Json
from firsthand.model import Completion, Model, Prompt, Sampling

WORLD = "world"
"""The part of an attempt's journal with the replies of the world's models."""
ASKED = "asked"
"""Key of the record of a tool call for the replies that its world got from a model, in order."""


@runtime_checkable
class Replays(Protocol):
    """A model that answers from a recorded run, and can give what other models answered in it."""

    def beside(self, model: Model) -> Model:
        """The model of the same run that answers for `model`."""


async def _as_it_came(completion: Completion) -> Completion:
    return completion


async def world_reply(
    model: Model,
    prompt: Prompt,
    sampling: Sampling,
    *,
    taken: Callable[[Completion], Awaitable[Completion]] = _as_it_came,
) -> Completion:
    """The answer of a world's own model to a prompt: the recorded one, or a new one, which is recorded.

    The seed, where none is given, is the attempt's at this place. Outside of a tool call nothing is recorded. A new answer
    is recorded as `taken` returns it; what that refuses by a WorldFailed is not, so a retried attempt asks again.
    WorldFailed if the model cannot answer, or if a replayed run holds no answer: it ends the attempt, which is not the
    agent's fault.
    """
    position = caller()
    if position is None:
        return await taken((await model.complete(prompt, sampling))[0])
    attempt, effect = position.context.attempt, position.branch.next_effect()
    number = len(position.branch.asked)
    if sampling.seed is None:
        sampling = sampling.with_seed(derive_seed(attempt.seed, effect))
    request = request_key(model.fingerprint, prompt, sampling)
    journal = JournalPart(attempt.journal, WORLD)
    body = journal.find(effect, request)
    if body is None and attempt.redone is not None and (earlier := attempt.redone.get(ASKED, ())[number:]):
        body = earlier[0]
    if body is None:
        asked = attempt.agent.model.beside(model) if isinstance(attempt.agent.model, Replays) else model
        try:
            with asking(journal, effect, attempt.note):
                (completion,) = await asked.complete(prompt, sampling)
        except ModelError as error:
            raise WorldFailed(f"{model.name}, which plays a part in the task, did not answer: {error}") from error
        if asked is model:
            completion = await taken(completion)
        body = {"completions": [replace(completion, prompt_ids=None).to_json()]}
        journal.record(effect, request, body)
        await journal.settled()
    else:
        skip_recorded(model, [body])
    position.branch.asked.append(body)
    return Completion.from_json(body["completions"][0])


def world_replies(call: str, detail: Json) -> dict[str, Json]:
    """The journal's entries of the replies that a recorded tool call's world got, by effect."""
    return {f"{WORLD}|{call} request {number}": body for number, body in enumerate(detail.get(ASKED, ()))}
