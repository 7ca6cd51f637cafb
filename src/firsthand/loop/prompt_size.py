"""Counts the tokens of a prompt before it is sent, so that a budget can reserve them.

A model that runs here tokenizes the prompt, and others may count it themselves. Of any other endpoint the number is an
estimate, from bytes: what a call really cost is charged after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from firsthand.loop.request_key import request_key
from firsthand.message import Reasoning, ToolCall, canonical
from firsthand.model import Completion, Model, Prompt, TokenCapability, TokenCounter, ToolSpec

BYTES_PER_TOKEN = 4
"""UTF-8 bytes of English text that make a token of a common vocabulary."""
ESTIMATED = "usage_estimated"
"""Key of a reply, and of its call's detail, whose tokens are an estimate: the endpoint reported none."""
TOKENS_PER_MESSAGE = 4
"""Control tokens that a chat template puts around a message."""


async def prompt_size(
    model: Model, prompt: Prompt, tools: Sequence[ToolSpec] = (), continuations: Sequence[str] = ()
) -> int:
    """Tokens of a prompt, and of the continuations that are scored after it."""
    if isinstance(model, TokenCapability):
        texts = [await model.tokenize(text) for text in continuations]
        return len(await model.tokenize(prompt, tools)) + sum(map(len, texts))
    if isinstance(model, TokenCounter):
        return await model.count_tokens(prompt, tools, continuations)
    if not continuations:
        return estimated_size(prompt, tools)
    return sum(estimated_size(prompt) + estimated_size(text) for text in continuations)  # an endpoint gets each whole


def estimated_size(prompt: Prompt, tools: Sequence[ToolSpec] = ()) -> int:
    """About how many tokens a prompt takes, from its length in bytes."""
    texts, around = [canonical(spec.to_json()) for spec in tools], 0
    if isinstance(prompt, str):
        texts.append(prompt)
    else:
        around = TOKENS_PER_MESSAGE * (len(prompt) + 1)  # the answer is begun too
        for message in prompt:
            texts.append(message.text)  # tool results are a part of it
            texts += [part.name + canonical(part.arguments) for part in message.parts if isinstance(part, ToolCall)]
            texts += [canonical(part.state) for part in message.parts if isinstance(part, Reasoning)]
    return around + -(-sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) // BYTES_PER_TOKEN)


def estimated_usage(completions: Sequence[Completion], prompt_tokens: int) -> list[Completion]:
    """The answers to one prompt with usage for those that report none; tokens of an answer whose ids are not known are an
    estimate, from bytes."""
    filled = []
    for index, each in enumerate(completions):
        sampled = each.message.sampled
        size = (
            len(sampled.token_ids) if sampled is not None else estimated_size([each.message]) - 2 * TOKENS_PER_MESSAGE
        )
        usage = replace(each.usage, prompt_tokens=0 if index else prompt_tokens, completion_tokens=size)
        filled.append(replace(each, usage=usage))
    return filled


def size_key(
    fingerprint: str, prompt: Prompt, tools: Sequence[ToolSpec] = (), continuations: Sequence[str] = ()
) -> str:
    """The address of a prompt's size in a journal, from which a resumed attempt and a replay are granted the same."""
    return "size:" + request_key(fingerprint, prompt, None, tools, 1, continuations)
