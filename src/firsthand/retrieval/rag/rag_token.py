"""RAG-Token: every token is drawn from the mixture of the distributions given each passage (Lewis et al., 2020)."""

from __future__ import annotations

from firsthand.context import Context
from firsthand.loop.pattern_options import checked
from firsthand.retrieval.answers.variant_parts import check_rag
from firsthand.retrieval.marginal.marginal_pattern import marginal_answer
from firsthand.task import Task


@checked(check_rag)
async def rag_token(
    task: Task,
    ctx: Context,
    *,
    index: str,
    k: int = 5,
    search: str = "dense",
    scale: float = 1.0,
    beams: int = 1,
    max_tokens: int = 64,
) -> str:
    """The most probable answer under p(y|x) = prod_i sum_z p(z|x) p(y_i|x,z,y_<i), found greedily or with `beams`.

    p(z|x) is a softmax over the scores of the `k` passages times `scale`; see `document_logprobs`. Needs a local model.
    """
    return await marginal_answer(task, ctx, "rag_token", index, k, search, scale, beams, max_tokens)
