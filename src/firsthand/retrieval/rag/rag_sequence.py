"""RAG-Sequence: answers are scored by the mixture of their probabilities given each passage (Lewis et al., 2020)."""

from __future__ import annotations

from typing import Any, Literal

from firsthand.context import Context
from firsthand.errors import ConfigError
from firsthand.loop.pattern_options import checked
from firsthand.retrieval.answers.variant_parts import check_rag
from firsthand.retrieval.marginal.marginal_pattern import marginal_answer
from firsthand.task import Task


def _check(*, decoding: str, **options: Any) -> None:
    if decoding not in ("thorough", "fast"):
        raise ConfigError(f"decoding is {decoding!r}: thorough or fast was expected")
    check_rag(**options)


@checked(_check)
async def rag_sequence(
    task: Task,
    ctx: Context,
    *,
    index: str,
    k: int = 5,
    search: str = "dense",
    scale: float = 1.0,
    beams: int = 4,
    decoding: Literal["thorough", "fast"] = "thorough",
    max_tokens: int = 64,
) -> str:
    """The most probable answer under p(y|x) = sum_z p(z|x) prod_i p(y_i|x,z,y_<i) among the beams of all passages.

    p(z|x) is a softmax over the scores of the `k` passages times `scale`; see `document_logprobs`. `thorough` decoding
    scores every candidate given every passage, `fast` only given those whose beam found it. Needs a local model.
    """
    return await marginal_answer(task, ctx, "rag_sequence", index, k, search, scale, beams, max_tokens, decoding)
