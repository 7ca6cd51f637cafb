"""POST /v1/embeddings."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from firsthand.message import Json
from firsthand.serve.http.refusals import Refusal, bad
from firsthand.serve.http.replies import Reply, reply
from firsthand.serve.models.served_model import Asked, Door
from firsthand.serve.openai.request_schema import EmbeddingRequest, read

MAX_CHARS = 1 << 20
"""Characters of all inputs together."""


async def embeddings(door: Door, asked: Asked) -> Reply:
    """A vector for each text. A text that the model would cut is refused: half a text has another meaning."""
    wanted = read(EmbeddingRequest, asked.json())
    door.check_name(wanted.model)
    if door.embedder is None:
        raise Refusal(501, "this server has no model for embeddings: start it with --embedder minilm")
    texts = [wanted.input] if isinstance(wanted.input, str) else wanted.input
    if sum(map(len, texts)) > MAX_CHARS:
        raise bad(f"the inputs have more than {MAX_CHARS} characters together: send fewer at a time", "input")
    if not all(texts):
        raise bad("an input is empty: give some text", "input")
    asked.notes["inputs"] = len(texts)
    embedder: Any = door.embedder
    if asked.span is not None:
        asked.span.model(embedder.name)
    num_tokens = 0
    if hasattr(embedder, "embed_counted"):
        found = await embedder.embed_counted(texts)
        vectors, num_tokens = found.vectors, sum(found.num_tokens)
        cut = [place for place, lost in enumerate(found.truncated) if lost]
        if cut:
            raise bad(
                f"input {cut[0]} has more tokens than the model takes ({found.num_tokens[cut[0]]}): split it",
                "input",
                "context_length_exceeded",
            )
    else:
        vectors = await embedder.embed(texts)
    asked.notes["prompt_tokens"] = num_tokens
    door.metrics.tokens["prompt"] += num_tokens
    as_base64 = wanted.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _base64(vector) if as_base64 else [float(x) for x in vector],
        }
        for index, vector in enumerate(vectors)
    ]
    usage: Json = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return reply({"object": "list", "data": data, "model": embedder.name, "usage": usage})


def _base64(vector: Sequence[float]) -> str:
    """The vector as little-endian float32 in base64, which is what OpenAI's client asks for by itself."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode("ascii")
