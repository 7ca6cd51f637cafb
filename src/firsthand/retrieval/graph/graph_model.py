"""A model as graph building asks it: answers held to a schema, parsed, counted, and within a cap of tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from firsthand.errors import LimitExceeded, ModelError
from firsthand.grammar import choice, json_schema
from firsthand.loop.concurrency import Retry, with_retries
from firsthand.loop.endpoint_pace import Pace, pace_of
from firsthand.message import Json, Message
from firsthand.model import Completion, Model, Sampling, Usage, lost_usage

BYTES_PER_TOKEN = 4


def count_tokens(text: str) -> int:
    """About how many tokens a text takes: its UTF-8 bytes divided by 4, rounded up. Budgets of contexts count so."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


@dataclass
class GraphModel:
    """Asks a model, at most `concurrency` questions at a time, until `max_tokens` are used."""

    model: Model
    max_tokens: int | None = None
    """LimitExceeded once prompts and answers have used so many; None: no cap. What was answered before is kept."""
    concurrency: int = 4
    usage: Usage = field(default_factory=Usage)
    calls: int = 0

    def __post_init__(self) -> None:
        self._gate, self._pace = asyncio.Semaphore(self.concurrency), Pace()

    async def ask(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """One answer."""
        async with self._gate:
            pace = pace_of(self.model) or self._pace
            (completion,) = await with_retries(lambda: self._answers(messages, sampling), Retry(), pace=pace)
            self.usage += completion.usage
            self.calls += 1
            return completion

    async def _answers(self, messages: Sequence[Message], sampling: Sampling) -> list[Completion]:
        """The answers of one try. What one that fails has cost counts too."""
        used = self.usage.total_tokens
        if self.max_tokens is not None and used >= self.max_tokens:
            raise LimitExceeded(
                "tokens",
                f"building the graph has used {used} tokens of at most {self.max_tokens}: what is done is kept, so "
                "raise the cap and run it again to go on",
            )
        try:
            return await self.model.complete(messages, sampling)
        except ModelError as error:
            self.usage += lost_usage(error)
            raise

    async def ask_json(self, messages: Sequence[Message], schema: Json, max_tokens: int) -> tuple[Json, Message]:
        """An answer of a schema, parsed, and its message. ModelError if it is cut off or no JSON."""
        completion = await self.ask(messages, Sampling(max_tokens=max_tokens, grammar=json_schema(schema)))
        if completion.finish_reason == "length":
            raise ModelError(
                f"the answer was cut off after {max_tokens} tokens: raise max_answer_tokens, or chunk smaller"
            )
        return parsed_object(completion.message.text), completion.message

    async def ask_choice(self, messages: Sequence[Message], options: Sequence[str]) -> str:
        """One of the options."""
        completion = await self.ask(messages, Sampling(max_tokens=8, grammar=choice(options)))
        return completion.message.text.strip()


def parsed_object(text: str) -> Json:
    """The JSON object that a text is. ModelError if it is none."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ModelError(f"the answer is {text[:80]!r}: a JSON object was expected")
    return body
