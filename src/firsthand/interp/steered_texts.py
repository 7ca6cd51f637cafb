"""Greedy continuations of a prompt while a feature's direction is added at several strengths, for a dashboard's slider."""

# T tokens of one request in a step, D hidden

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from firsthand.engine.compute.request_taps import RequestTap, RequestTaps
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.engine.core.sequence import Request
from firsthand.errors import DataError
from firsthand.interp.feature_files import SteeredText
from firsthand.interp.saes.sae_files import SavedSae
from firsthand.nn.decoder import Decoder
from firsthand.sampling import Sampling
from firsthand.tokens.tokenizer import Tokenizer

STRENGTHS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
"""Multiples of a feature's maximum; 0 is the model as it is."""


def steered_texts(
    saved: SavedSae, model: Decoder, tokenizer: Tokenizer, maxima: Sequence[tuple[int, float]], prompt: str, *,
    tokens: int = 20, strengths: Sequence[float] = STRENGTHS,
) -> list[list[SteeredText]]:  # fmt: skip
    """For each (feature, its maximum), the continuations of `prompt` at each strength.

    A strength of 1 adds the feature's decoder row times its maximum to the site at every token. DataError if the prompt has
    no tokens.
    """
    saved.expect_fits(model)
    ids = tuple(tokenizer.encode_prompt(prompt))
    if not ids:
        raise DataError("the prompt to steer has no tokens: give a few words")
    engine = Engine(model, EngineConfig(weights="float32", kv_cache="float32", kv_memory_bytes=1 << 27))
    sampling = Sampling(max_tokens=tokens, temperature=0.0)
    ends = tokenizer.eos_ids
    jobs = []
    for feature, maximum in maxima:
        row_D = saved.sae.decoder[feature].detach() * maximum
        for strength in strengths:
            taps = RequestTaps({saved.site: _adding(strength * row_D)}) if strength else None
            jobs.append(engine.add(Request(ids, sampling, stop_ids=ends, taps=taps)))
    written: dict[int, list[int]] = {job: [] for job in jobs}
    while engine.has_work:
        for output in engine.step():
            written[output.request_id] += output.token_ids
    texts = [tokenizer.decode(written[job], skip_special=False) for job in jobs]
    each = len(strengths)
    return [
        [SteeredText(*pair) for pair in zip(strengths, texts[at : at + each], strict=True)]
        for at in range(0, len(texts), each)
    ]


def _adding(vector_D: Tensor) -> RequestTap:
    return lambda values, positions, index: values + vector_D.reshape(values.shape[1:]).to(values.dtype)
