"""Decodes an answer to several prompts of one model, by RAG-Token or RAG-Sequence, as a Completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from firsthand.errors import PromptTooLong
from firsthand.message import Json, assistant
from firsthand.model import Completion, DistributionModel, Prompt, Usage
from firsthand.retrieval.marginal.beam_search import Floats, Hypothesis
from firsthand.retrieval.marginal.marginal_decoding import rag_sequence_decoding, rag_token_decoding

MarginalKind = Literal["rag_token", "rag_sequence"]


@dataclass(frozen=True)
class MarginalSettings:
    """All that decides a marginalised answer besides model and prompts."""

    decoder: MarginalKind
    document_logprobs: tuple[float, ...]
    """Log p(z|x) of each prompt's document."""
    max_tokens: int
    beams: int = 1
    decoding: Literal["thorough", "fast"] = "thorough"
    """Of RAG-Sequence: whether candidates are scored under every document, or only where they were in its beam."""

    def to_json(self) -> Json:
        """The settings as a JSON object."""
        return {**vars(self), "document_logprobs": list(self.document_logprobs)}


async def decode_marginal(
    settings: MarginalSettings, model: DistributionModel, prompts: Sequence[Prompt]
) -> Completion:
    """The best answer to the prompts, one for each document. Its `top_logprobs` hold log p of each token, of the mixture.

    For RAG-Sequence, which gives whole answers a probability, the first token carries log p(y|x) and the others 0. Usage
    counts each prompt once and each computed answer token. PromptTooLong if a prompt leaves no room for `max_tokens`.
    """
    facts = await model.load()
    ids_K = [list(await model.tokenize(prompt)) for prompt in prompts]
    longest = max(map(len, ids_K))
    if longest + settings.max_tokens > facts.context:
        raise PromptTooLong(
            f"a document's prompt has {longest} tokens and the answer may have {settings.max_tokens}: the model's context "
            f"is {facts.context}, so retrieve smaller chunks or lower max_tokens"
        )
    computed = 0

    async def next_of(z: int, ids: tuple[int, ...]) -> Floats:
        nonlocal computed
        computed += 1
        return await model.next_logprobs([*ids_K[z], *ids])

    async def answer_logprob(z: int, ids: tuple[int, ...]) -> float:
        nonlocal computed
        computed += len(ids)
        rated = await model.rate([*ids_K[z], *ids])
        return sum(each.logprob for each in rated[-len(ids) :])

    common = {"end_ids": model.end_ids, "max_tokens": settings.max_tokens, "beams": settings.beams}
    prior = settings.document_logprobs
    if settings.decoder == "rag_token":
        answers = await rag_token_decoding(next_of, prior, **common)  # type: ignore[arg-type]
    else:
        search = partial(rag_sequence_decoding, next_of, answer_logprob, prior, decoding=settings.decoding)
        answers = await search(**common)  # type: ignore[arg-type]
    best = answers[0]
    shown = best.ids[:-1] if best.is_ended else best.ids
    return Completion(
        assistant(await model.detokenize(shown)),
        "stop" if best.is_ended else "length",
        Usage(prompt_tokens=sum(map(len, ids_K)), completion_tokens=computed),
        await _token_logprobs(model, best),
    )


async def _token_logprobs(model: DistributionModel, best: Hypothesis) -> tuple[tuple[tuple[str, float], ...], ...]:
    logprobs = best.logprobs or (best.logprob, *[0.0] * (len(best.ids) - 1))
    spelled = [word.decode("utf-8", "replace") for word in model.spell(best.ids)]
    return tuple(((text, logprob),) for text, logprob in zip(spelled, logprobs, strict=True))
