"""Proposes, executes and judges Toolformer's calls with a model: places, samples from our engine, losses of the trainer."""

# T tokens of a text, M tokens of a forward pass, V vocabulary

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from firsthand.errors import ConfigError, ToolError
from firsthand.loop.concurrency import derive_seed
from firsthand.nn.decoder import Decoder
from firsthand.patterns.parts.actions import arguments_of
from firsthand.providers.local import Local
from firsthand.sampling import Sampling
from firsthand.tokens.calls.inline_call import ARROW, END, START, InlineCall, parse_inline_call
from firsthand.tokens.tokenizer import Tokenizer
from firsthand.tool import Tool
from firsthand.train.objective import Targets
from firsthand.train.stream_logprobs import stream_logprobs
from firsthand.train.toolformer.call_filter import JudgedCall, ProposedCall, best_places, weighted_loss

Ids = NDArray[np.int32]
CONCURRENCY = 64
MAX_RESULT_CHARS = 200
"""A result that is longer, or that would end the call's brackets, is left out as a failed call is."""


@dataclass
class Annotator:
    """A model that annotates texts: the weights that judge, the same weights in an engine that samples, and the tools."""

    model: Decoder
    local: Local
    tokenizer: Tokenizer
    tools: Mapping[str, Tool]
    max_input_tokens: int = 32
    """Tokens of a sampled call."""
    micro_tokens: int = 4096

    def __post_init__(self) -> None:
        if len(self.encoded(START)) != 1:
            raise ConfigError(
                f"the tokenizer writes {START!r}, the beginning of a call, as {len(self.encoded(START))} tokens: expected 1"
            )

    @property
    def lead(self) -> int:
        """Tokens that begin every text, after which a prefix stands."""
        return int(self.tokenizer.add_bos and self.tokenizer.bos_id is not None)

    def encoded(self, text: str) -> list[int]:
        """The ids of a text that continues another."""
        return self.tokenizer.encode(text, continuing=True)

    def start_logprobs(self, texts: Sequence[Ids]) -> list[NDArray[np.float64]]:
        """The log-prob that a call begins before each token: T for each text, 0 at the first."""
        (start,) = self.encoded(START)

        def of_start(logits_MV: Tensor, targets: Targets) -> Tensor:
            return logits_MV.log_softmax(-1)[:, start]

        found = stream_logprobs(self.model, texts, policy_logprobs=of_start, micro_tokens=self.micro_tokens)
        return [each.logprobs for each in found]

    def places(self, texts: Sequence[Ids], *, most: int, above: float) -> list[list[int]]:
        """The places of each text at which a call is tried: p_i = p(<API> | x_1..i-1), the top k above tau_s."""
        return [best_places(np.exp(each), most=most, above=above) for each in self.start_logprobs(texts)]

    def first_calls(self, texts: Sequence[Ids]) -> list[list[int]]:
        """The first place of each text at which a call is the most probable continuation, if there is one."""
        (start,) = self.encoded(START)

        def margin(logits_MV: Tensor, targets: Targets) -> Tensor:
            return logits_MV[:, start] - logits_MV.max(-1).values

        found = stream_logprobs(self.model, texts, policy_logprobs=margin, micro_tokens=self.micro_tokens)
        return [(np.flatnonzero(each.logprobs[1:] >= 0)[:1] + 1).tolist() for each in found]

    async def proposals(
        self,
        texts: Sequence[Ids],
        places: Sequence[Sequence[int]],
        *,
        count: int,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> tuple[list[ProposedCall], dict[str, float]]:
        """Up to `count` different calls at each place, executed, and how many there were; failed ones are left out."""
        limit = asyncio.Semaphore(CONCURRENCY)

        async def at(text: int, place: int) -> list[InlineCall | None]:
            async with limit:
                return await self._sampled(
                    texts[text][:place], count, temperature, derive_seed("toolformer", seed, text, place)
                )

        where = [(text, place) for text, found in enumerate(places) for place in found]
        sampled = await asyncio.gather(*(at(*each) for each in where))
        asked = Counter(
            ProposedCall(*each, call, "") for each, calls in zip(where, sampled, strict=True) for call in calls if call
        )
        results = await self._results({each.call for each in asked})
        proposed = [
            replace(each, result=result, num_sampled=times)
            for each, times in asked.items()
            if (result := results[each.call]) is not None
        ]
        counts = {
            "places": len(where),
            "sampled": sum(map(len, sampled)),
            "well_formed": sum(asked.values()),
            "different": len(asked),
            "executed": len(proposed),
        }
        return proposed, {name: float(number) for name, number in counts.items()}

    async def _sampled(self, before: Ids, count: int, temperature: float, seed: int) -> list[InlineCall | None]:
        """Calls after the text before a place; None for one without an end or in no form."""
        settings = Sampling(
            max_tokens=self.max_input_tokens, temperature=temperature, seed=seed, stop=(ARROW, END),
            include_stop_str_in_output=True,
        )  # fmt: skip
        prompt = [*before.tolist(), *self.encoded(START)]
        found: list[InlineCall | None] = [None] * count
        async with aclosing(self.local.stream_many(prompt, settings, n=count)) as deltas:
            async for delta in deltas:
                if delta.completion is not None:
                    text = delta.completion.message.text
                    end = next((mark for mark in (ARROW, END) if text.endswith(mark)), None)
                    found[delta.index] = None if end is None else parse_inline_call(text.removesuffix(end))
        return found

    async def _results(self, calls: set[InlineCall]) -> dict[InlineCall, str | None]:
        """The result of each call; None where the tool is not known, refuses its input, or tells what cannot be written."""
        limit = asyncio.Semaphore(CONCURRENCY)

        async def result(call: InlineCall) -> str | None:
            async with limit:
                return await executed(call, self.tools)

        ordered = sorted(calls)
        return dict(zip(ordered, await asyncio.gather(*map(result, ordered)), strict=True))

    def judged(self, texts: Sequence[Ids], proposed: Sequence[ProposedCall]) -> list[JudgedCall]:
        """The losses of what follows each call.

        A call is a prefix of the whole text here, not inserted, since the model has seen none inside (section 2).
        """
        used = sorted({each.text for each in proposed})
        bare = dict(zip(used, self._logprobs([texts[text] for text in used]), strict=True))
        prefixes = [
            self.encoded(text) for each in proposed for text in (each.call.written(), each.call.written(each.result))
        ]
        owners = [each.text for each in proposed for _ in range(2)]
        found = self._logprobs(
            [self._prefixed(texts[text], prefix) for text, prefix in zip(owners, prefixes, strict=True)]
        )
        judged = []
        for at, each in enumerate(proposed):
            asked, answered = (
                weighted_loss(found[2 * at + n], each.place + len(prefixes[2 * at + n])) for n in range(2)
            )
            judged.append(JudgedCall(each, weighted_loss(bare[each.text], each.place), asked, answered))
        return judged

    def _prefixed(self, text: Ids, prefix: Sequence[int]) -> Ids:
        return np.concatenate([text[: self.lead], np.asarray(prefix, np.int32), text[self.lead :]])

    def _logprobs(self, texts: Sequence[Ids]) -> list[NDArray[np.float64]]:
        return [each.logprobs for each in stream_logprobs(self.model, texts, micro_tokens=self.micro_tokens)]


async def executed(call: InlineCall, tools: Mapping[str, Tool]) -> str | None:
    """The result of a call as it is written into a text; None if there is none."""
    tool = tools.get(call.name)
    if tool is None:
        return None
    arguments = arguments_of(tool, call.input.strip())
    if isinstance(arguments, str):
        return None
    try:
        result = (await tool(arguments)).strip()
    except ToolError:
        return None
    is_written = 0 < len(result) <= MAX_RESULT_CHARS and not set(result) & set("[]\n")
    return result if is_written else None
