"""Softcaps, biases, sinks and other sources of keys, against the formula written out, wherever attention is computed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from firsthand.kernels.attention import gather
from firsthand.kernels.attention.kv_pages import Layout, PackedChunk, Pages
from firsthand.kernels.attention.paged_attention import attend_pages, can_compile
from firsthand.kernels.attention.score_terms import AlibiBias, BucketBias, ScoreTerms, attend_plainly
from firsthand.nn.blocks.attention import Packed

torch.set_num_threads(1)
HEADS, GROUPS, DIM, SCALE = 4, 2, 8, 0.4
ALIBI = AlibiBias(torch.tensor([0.5, 0.25, 0.125, 0.0625]))
BUCKETS = BucketBias(torch.randn(8, HEADS, generator=torch.Generator().manual_seed(1)), max_distance=16)
SINKS = torch.tensor([0.3, -2.0, 1.5, 4.0])
TERMS = {
    "softcap": ScoreTerms(softcap=0.6),
    "alibi": ScoreTerms(bias=ALIBI),
    "buckets": ScoreTerms(bias=BUCKETS),
    "sinks": ScoreTerms(sinks=SINKS),
    "all": ScoreTerms(softcap=0.6, bias=ALIBI, sinks=SINKS),
}


def bucket(distance: int, count: int = 8, longest: int = 16) -> int:
    """T5's causal bucket of a key so far back, with Python's numbers."""
    exact = count // 2
    if distance < exact:
        return distance
    return min(count - 1, exact + int(math.log(distance / exact) / math.log(longest / exact) * (count - exact)))


def spelled_out(q: Tensor, k: Tensor, v: Tensor, terms: ScoreTerms, window: int | None) -> Tensor:
    """Query by query, head by head, in float64, for one causal sequence."""
    out = torch.zeros_like(q)
    for i in range(len(q)):
        first = 0 if window is None else max(0, i - window + 1)
        for head in range(HEADS):
            scores = []
            for j in range(first, i + 1):
                score = float(q[i, head].double() @ k[j, head // (HEADS // GROUPS)].double()) * SCALE
                if terms.softcap is not None:
                    score = terms.softcap * math.tanh(score / terms.softcap)
                if terms.bias is ALIBI:
                    score -= float(ALIBI.slopes[head]) * (i - j)
                if terms.bias is BUCKETS:
                    score += float(BUCKETS.table[bucket(i - j), head])
                scores.append(score)
            masses = [math.exp(score) for score in scores]
            whole = sum(masses) + (math.exp(float(terms.sinks[head])) if terms.sinks is not None else 0.0)
            for j, mass in enumerate(masses):
                out[i, head] += mass / whole * v[first + j, head // (HEADS // GROUPS)]
    return out


def made(tokens: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(tokens, HEADS, DIM, generator=generator)
    k, v = torch.randn(2, tokens, GROUPS, DIM, generator=generator)
    return q, k, v


@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("name", TERMS)
def test_packed_sequences_are_the_formula(name: str, window: int | None) -> None:
    q, k, v = made(37)
    found = Packed([20, 17])(0, q, k, v, scale=SCALE, window=window, terms=TERMS[name])
    parts = [spelled_out(q[rows], k[rows], v[rows], TERMS[name], window) for rows in (slice(0, 20), slice(20, 37))]
    torch.testing.assert_close(found, torch.cat(parts), atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("name", TERMS)
def test_paged_prompts_and_decode_steps_are_the_formula(name: str, window: int | None) -> None:
    q, k, v = made(37)
    pages = Pages.empty(6, GROUPS, 16, DIM, torch.float32, torch.device("cpu"))
    assert can_compile(pages, 16), "the compiled version would take this cache, and must stand aside"
    for tensor in pages.tensors:
        tensor.fill_(torch.nan)
    parts = []
    for start, end in ((0, 20), (20, 35), (35, 36), (36, 37)):
        layout = Layout([PackedChunk(start, end, [4, 1, 5])], 16)
        rows = slice(start, end)
        parts.append(
            attend_pages(
                q[rows], k[rows], v[rows], pages, layout, scale=SCALE, window=window, terms=TERMS[name], decode=refuse
            )
        )
    torch.testing.assert_close(torch.cat(parts), spelled_out(q, k, v, TERMS[name], window), atol=1e-5, rtol=0)


def refuse(*_: object, **__: object) -> Tensor:
    raise AssertionError("a kernel that knows no terms was called with some")


def test_decode_steps_of_several_sequences_are_each_their_own() -> None:
    lengths, terms = (3, 30, 17), TERMS["all"]
    pages = Pages.empty(8, GROUPS, 16, DIM, torch.float32, torch.device("cpu"))
    tables = ([0], [1, 2], [3, 4])
    inputs = [made(length, seed) for seed, length in enumerate(lengths)]
    for (q, k, v), table, length in zip(inputs, tables, lengths, strict=True):
        layout = Layout([PackedChunk(0, length - 1, table)], 16)
        gather.gather_attention(q[:-1], k[:-1], v[:-1], pages, layout, scale=SCALE, window=None, terms=terms)
    last = [torch.stack([each[part][-1] for each in inputs]) for part in range(3)]
    chunks = [PackedChunk(length - 1, length, table) for length, table in zip(lengths, tables, strict=True)]
    found = gather.gather_attention(*last, pages, Layout(chunks, 16), scale=SCALE, window=None, terms=terms)
    expected = torch.stack([spelled_out(*each, terms, None)[-1] for each in inputs])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sinks", [None, SINKS])
def test_cross_attention_sees_all_of_its_own_source_and_writes_nothing(sinks: Tensor | None) -> None:
    q, _, _ = made(7)
    _, k, v = made(12, seed=3)
    terms = ScoreTerms(sinks=sinks, source_lengths=(9, 3))
    expected = torch.zeros_like(q)
    for rows, source in ((range(4), slice(0, 9)), (range(4, 7), slice(9, 12))):
        for i in rows:
            for head in range(HEADS):
                keys, values = (x[source, head // (HEADS // GROUPS)].double() for x in (k, v))
                masses = (keys @ q[i, head].double() * SCALE).exp()
                whole = masses.sum() + (sinks[head].double().exp() if sinks is not None else 0.0)
                expected[i, head] = masses / whole @ values
    packed = Packed([4, 3])(0, q, k, v, scale=SCALE, window=None, terms=terms)
    torch.testing.assert_close(packed, expected, atol=1e-5, rtol=0)
    pages = Pages.empty(4, GROUPS, 16, DIM, torch.float32, torch.device("cpu"))
    for tensor in pages.tensors:
        tensor.fill_(5.0)
    layout = Layout([PackedChunk(10, 14, [0]), PackedChunk(0, 3, [1])], 16)
    paged = attend_pages(q, k, v, pages, layout, scale=SCALE, window=None, terms=terms)
    torch.testing.assert_close(paged, expected, atol=1e-5, rtol=0)
    assert all(bool((tensor == 5.0).all()) for tensor in pages.tensors)


@pytest.mark.parametrize("is_causal", [True, False])
def test_distance_buckets_are_those_of_transformers(is_causal: bool) -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    bias = BucketBias(torch.zeros(32, 1), max_distance=128, is_causal=is_causal)
    distance = torch.arange(-300, 300)
    expected = t5.T5Attention._relative_position_bucket(distance, not is_causal, 32, 128)
    assert bias.bucket(distance).tolist() == expected.tolist()


def test_int8_keeps_the_largest_of_each_vector_and_is_half_a_step_off_at_most() -> None:
    x_NGK = (
        torch.randn(5, 3, 16, generator=torch.Generator().manual_seed(3)) * torch.tensor([1e-3, 1.0, 300.0])[:, None]
    )
    x_NGK[4, 2] = 0.0
    codes, scales = gather.quantise(x_NGK)
    top_NG = x_NGK.abs().amax(-1)
    torch.testing.assert_close(scales * 127, top_NG)
    assert codes.dtype == torch.int8 and int(codes.abs().max()) == 127 and codes[4, 2].eq(0).all()
    assert ((codes * scales[..., None] - x_NGK).abs() <= scales[..., None] * 0.5001).all()
    x_NGK[0, 0, 3] = torch.inf
    codes, scales = gather.quantise(x_NGK)
    assert scales[0, 0].isnan() and codes[0, 0].eq(0).all() and not scales[0, 1:].isnan().any()


@pytest.mark.parametrize(("asked", "held"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)])
def test_plain_attention_has_the_type_of_its_queries(asked: torch.dtype, held: torch.dtype) -> None:
    q_BHQK, kv_BGTK = torch.ones(1, 2, 1, 4, dtype=asked), torch.ones(1, 1, 3, 4, dtype=held)
    seen_QT, distance_QT = torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.long)
    mixed = attend_plainly(q_BHQK, kv_BGTK, kv_BGTK, seen_QT, distance_QT, scale=0.5, terms=ScoreTerms())
    assert mixed.dtype == asked and torch.equal(mixed, torch.ones_like(q_BHQK))
