"""Makes the key of a request: the address of its reply in a journal, a cassette or a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from firsthand.message import Json, Message, canonical
from firsthand.model import Prompt, Sampling, ToolSpec


def request_key(
    fingerprint: str,
    prompt: Prompt,
    sampling: Sampling | None = None,
    tools: Sequence[ToolSpec] = (),
    n: int = 1,
    continuations: Sequence[str] = (),
) -> str:
    """SHA-256, in hex, of all that decides an answer: the address of a reply in a store."""
    body = {
        "model": fingerprint,
        "prompt": prompt if isinstance(prompt, str) else [_deciding(message) for message in prompt],
        "sampling": None if sampling is None else sampling.to_json(),
        "tools": [spec.to_json() for spec in tools],
        "n": n,
        "continuations": list(continuations),
    }
    return hashlib.sha256(canonical(body).encode("utf-8", "surrogatepass")).hexdigest()


def _deciding(message: Message) -> Json:
    """A message as JSON without how its tokens were drawn, which decides no answer."""
    body = message.to_json()
    if message.sampled is not None:
        body["sampled"] = {name: body["sampled"][name] for name in ("token_ids", "logprobs")}
    return body
