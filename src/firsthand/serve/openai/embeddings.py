"""POST /v1/embeddings."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable

import numpy as np

from firsthand.errors import PromptTooLong
from firsthand.loop.prompt_size import estimated_size
from firsthand.message import Json
from firsthand.model import CountingEmbedder, Embedder
from firsthand.serve.admission.active_request import ActiveRequest
from firsthand.serve.http.refusals import bad
from firsthand.serve.http.replies import Reply, long_reply
from firsthand.serve.openai.openai_state import OpenAIState
from firsthand.serve.openai.request_schema import EmbeddingRequest, read

MAX_CHARS = 1 << 20
"""Most characters of all inputs together."""


async def embeddings(state: OpenAIState, request: ActiveRequest) -> Reply:
    """A vector for each text. A text that the model would cut off is refused before any is computed: half a text has another
    meaning."""
    given = request.json()
    _refuse_ids(given.get("input"))
    body = read(EmbeddingRequest, given)
    embedder = state.models.find_embedder(body.model)
    texts = [body.input] if isinstance(body.input, str) else body.input
    if sum(map(len, texts)) > MAX_CHARS:
        raise bad(f"the inputs have more than {MAX_CHARS} characters together: send fewer at a time", "input")
    if not all(texts):
        raise bad("an input is empty: give some text", "input")
    request.notes["inputs"] = len(texts)
    if request.span is not None:
        request.span.model(embedder.name)
    estimate = sum(estimated_size(text) for text in texts)
    try:
        vectors, num_tokens = await _embed(embedder, texts)
    except asyncio.CancelledError:  # the client left, or its time was over
        state.admission.charge(request.client, estimate)
        raise
    state.admission.charge(request.client, num_tokens or estimate)
    request.notes["prompt_tokens"] = num_tokens
    state.telemetry.metrics.tokens["prompt"] += num_tokens
    as_base64 = body.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _base64(vector) if as_base64 else [float(x) for x in vector],
        }
        for index, vector in enumerate(vectors)
    ]
    usage: Json = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return await long_reply({"object": "list", "data": data, "model": embedder.name, "usage": usage})


def _refuse_ids(given: object) -> None:
    """Refuse token ids: a client's are of OpenAI's vocabulary, and as another one's they would be another text."""
    first = given[0] if isinstance(given, list) and given else None
    if isinstance(first, int | list):
        raise bad(
            "input holds token ids, which are not those of this embedder: send texts (LangChain's OpenAIEmbeddings with "
            "check_embedding_ctx_length=False)",
            "input",
            "unsupported_parameter",
        )


async def _embed(embedder: Embedder, texts: list[str]) -> tuple[Iterable[Iterable[float]], int]:
    """The vectors, and the tokens of all texts together; 0 if the embedder does not count them."""
    if not isinstance(embedder, CountingEmbedder):
        return await embedder.embed(texts), 0
    try:
        counted = await embedder.embed_counted(texts, whole=True)
    except PromptTooLong as error:
        raise bad(str(error), "input", "context_length_exceeded") from None
    cut = [index for index, truncated in enumerate(counted.truncated) if truncated]
    if cut:  # by an embedder that takes `whole` and does not heed it
        said = f"input {cut[0]} has more tokens than the model takes ({counted.num_tokens[cut[0]]}): split it"
        raise bad(said, "input", "context_length_exceeded")
    return counted.vectors, sum(counted.num_tokens)


def _base64(vector: Iterable[float]) -> str:
    """The vector as little-endian float32 in base64, which OpenAI's client asks for by default."""
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode("ascii")
