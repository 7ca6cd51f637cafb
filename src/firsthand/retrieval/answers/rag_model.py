"""RagModel: a variant over an index as a Model, whose answers end with their sources; for servers and other agents."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from firsthand.agent import Agent, Pattern, pattern_name
from firsthand.errors import ConfigError, LimitExceeded, ModelError
from firsthand.loop.budget import Limits
from firsthand.loop.listener import Listener
from firsthand.message import Json, Message, assistant, canonical
from firsthand.model import (
    Completion,
    Delta,
    FinishReason,
    Model,
    Prompt,
    Sampling,
    Scored,
    ToolSpec,
    Usage,
    add_lost_usage,
    close,
)
from firsthand.retrieval.answers.conversation import Turn, in_conversation
from firsthand.retrieval.answers.variant_parts import recorded_answer
from firsthand.retrieval.hit_json import hit_to_json
from firsthand.retrieval.rag_effect import retrievals
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.trace import Trace


@dataclass
class RagModel:
    """A Model that retrieves, answers with citations, and lists its sources under the answer."""

    base: Model
    """The model that rewrites, judges and answers."""
    pattern: Pattern
    """A variant, such as `naive`."""
    options: Mapping[str, Any]
    """The variant's options, its index among them."""
    name: str = "rag"
    limits: Limits = field(default_factory=Limits)
    """For one answer."""

    @property
    def fingerprint(self) -> str:
        """The base model, the variant and its options."""
        parts = canonical(
            [self.base.fingerprint, pattern_name(self.pattern), {k: str(v) for k, v in self.options.items()}]
        )
        return f"rag:{hashlib.sha256(parts.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"

    async def ask(
        self,
        question: str,
        history: Sequence[Turn] = (),
        *,
        sampling: Sampling | None = None,
        system: str | None = None,
        seed: int = 0,
        listener: Listener | None = None,
    ) -> Json:
        """The answer as JSON: text, citations, passages, usage; see `body_of`."""
        variant = partial(self.pattern, **self.options)
        agent = Agent(
            self.name,
            self.base,
            in_conversation,
            {"pattern": variant, "history": tuple(history)},
            sampling=sampling or Sampling(temperature=0.0),
            system=system,
            limits=self.limits,
        )
        return body_of(await rollout(agent, Task("question", question), seed=seed, listener=listener))

    async def complete(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = (), n: int = 1
    ) -> list[Completion]:
        """`n` answers to the last question of a conversation, each with its sources."""
        if tools or sampling.grammar is not None:
            raise ConfigError(
                f"{self.name} takes no tools and no response format: its answers have a form of their own"
            )
        question, history, system = _split(prompt)
        plain = replace(sampling, stop=(), seed=None)
        seeds = [(sampling.seed or 0) + number for number in range(n)]
        asked = (self.ask(question, history, sampling=plain, system=system, seed=seed) for seed in seeds)
        return [_completion(body) for body in await asyncio.gather(*asked)]

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        """The answer at once, when it has been checked."""
        (completion,) = await self.complete(prompt, sampling, tools=tools)
        yield Delta(completion.message.text)
        yield Delta("", completion)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> Scored:
        """ConfigError: it has no likelihoods."""
        raise ConfigError(f"{self.name} answers from documents and has no log-probs: ask {self.base.name} for them")

    def close(self) -> None:
        """Close the base model."""
        close(self.base)


def body_of(trace: Trace) -> Json:
    """The answer of an attempt as JSON: `text`, `in_documents`, `citations`, `hits`, `usage`, `calls`, `model`.

    LimitExceeded if a limit ended the attempt, ModelError, with what the attempt cost, if it failed.
    """
    if trace.error is not None:
        error = ModelError(trace.error.message)
        add_lost_usage(error, trace.usage)
        raise error
    if trace.answer is None:
        raise LimitExceeded(trace.stop_reason, f"there is no answer: the attempt was ended by {trace.stop_reason}")
    found = recorded_answer(trace) or {"text": trace.answer, "in_documents": True, "citations": [], "unsupported": []}
    read = {hit.chunk.id: hit for _, hits in retrievals(trace) for hit in hits}
    usage = sum((call.usage for call in trace.calls), Usage())
    rewritten = [event.data["question"] for event in trace.events if event.kind == "rewritten"]
    return {
        **{name: value for name, value in found.items() if name != "passages"},
        "text": trace.answer,
        "hits": [hit_to_json(read[id]) for id in found.get("passages", []) if id in read],
        "usage": usage.to_json(),
        "calls": sum(call.kind != "tool" for call in trace.calls),
        "model": trace.agent.get("model"),
        **({"question": rewritten[-1]} if rewritten else {}),
    }


def sources_of(body: Json) -> str:
    """The citations of an answer, a line each: `[1] guide.md:12 “quotation”`."""
    return "\n".join(
        f"[{each['number']}] {' '.join(each['label'].split())} “{' '.join(each['quote'].split())}”"
        for each in body["citations"]
    )


def _completion(body: Json) -> Completion:
    sources = sources_of(body)
    text = f"{body['text']}\n\nSources:\n{sources}" if sources else body["text"]
    reason: FinishReason = "stop"
    return Completion(assistant(text), reason, Usage(**body["usage"]))


def _split(prompt: Prompt) -> tuple[str, list[Turn], str | None]:
    """The last question, the turns before it, and the system message. ConfigError if the last message is no user's."""
    if isinstance(prompt, str):
        return prompt, [], None
    messages: list[Message] = list(prompt)
    if not messages or messages[-1].role != "user":
        raise ConfigError("the last message is no user's: ask a question")
    system = "\n\n".join(each.text for each in messages if each.role == "system") or None
    turns: list[Turn] = []
    asked = ""
    for message in messages[:-1]:
        if message.role == "user":
            asked = message.text
        elif message.role == "assistant" and asked:
            turns.append((asked, message.text.split("\n\nSources:\n")[0]))
            asked = ""
    return messages[-1].text, turns, system
