"""Where attention finds its rows: pages, index arrays and plans of known steps, and the plain version in 8 bits."""

from array import array
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from firsthand.errors import ConfigError
from firsthand.kernels.attention.flash_attention import flash_attention
from firsthand.kernels.attention.gather import decode, gather_attention, quantise, store
from firsthand.kernels.attention.kv_pages import Layout, PackedChunk, Pages, kv_bytes_per_token
from firsthand.kernels.attention.score_terms import AlibiBias, BucketBias, ScoreTerms, attend_plainly, cross_attention

pytest.importorskip("numba")
from firsthand.kernels.step.encoder_ops import add_norm, attend, embed

CPU = torch.device("cpu")


def test_pages_have_room_for_whole_vectors_and_scales_where_they_are_bytes() -> None:
    sizes = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int8):
        pages = Pages.empty(5, 3, 16, 20, dtype, CPU)
        assert (pages.keys.shape, pages.values.shape) == ((5, 3, 20, 16), (5, 3, 16, 32))
        scaled = 5 if dtype == torch.int8 else 0
        assert pages.key_scales.shape == pages.value_scales.shape == (scaled, 3, 16)
        assert pages.key_scales.dtype == torch.float32
        assert (pages.is_scaled, len(pages.tensors)) == ((True, 4) if scaled else (False, 2))
        sizes[dtype] = (pages.bytes_per_token, kv_bytes_per_token(7, 3, 20, dtype))
    assert sizes == {
        torch.float32: (3 * 52 * 4, 7 * 3 * 52 * 4),
        torch.float16: (3 * 52 * 2, 7 * 3 * 52 * 2),
        torch.bfloat16: (3 * 52 * 2, 7 * 3 * 52 * 2),
        torch.int8: (3 * (52 + 8), 7 * 3 * (52 + 8)),
    }
    pages = Pages.empty(3, 1, 16, 16, torch.int8, CPU)
    for number, each in enumerate(pages.tensors):
        each[:] = torch.arange(3).reshape(3, *[1] * (each.dim() - 1)) * 10 + number
    pages.copy(2, 0)
    assert [each.flatten(1)[:, 5].tolist() for each in pages.tensors] == [
        [20 + number, 10 + number, 20 + number] for number in range(4)
    ]
    assert [each.dtype for each in pages.arrays] == [np.int8, np.int8, np.float32, np.float32]
    assert [len(each) for each in pages.arrays] == [3 * 16 * 16, 3 * 16 * 16, 3 * 16, 3 * 16]
    halves = Pages.empty(2, 1, 16, 16, torch.float16, CPU)
    halves.values[1, 0, 2, 3] = 1.5
    assert halves.arrays[1].dtype == np.int16
    assert halves.arrays[1].view(np.float16)[256 + 35] == 1.5


def shared_step(threads: int) -> Layout:
    """Two sequences share 16 blocks; a prompt of 20 tokens; one that shares nothing."""
    shared = list(range(16))
    return Layout(
        [
            PackedChunk(300, 301, [*shared, 20, 21, 22, 23]),
            PackedChunk(290, 292, array("q", [*shared, 30, 31, 32])),
            PackedChunk(10, 30, np.array([40, 41])),
            PackedChunk(140, 141, tuple(range(50, 59))),
        ],
        16,
        threads,
    )


def test_a_layout_numbers_rows_positions_and_slots_of_packed_chunks() -> None:
    layout = shared_step(1)
    assert layout.spans.tolist() == [[0, 300, 1, 0], [1, 290, 2, 20], [3, 10, 20, 39], [23, 140, 1, 41]]
    assert layout.tables.tolist() == [*range(16), 20, 21, 22, 23, *range(16), 30, 31, 32, 40, 41, *range(50, 59)]
    assert layout.positions.tolist() == [300, 290, 291, *range(10, 30), 140]
    places = [22 * 16 + 12, 32 * 16 + 2, 32 * 16 + 3, *range(650, 656), *range(656, 670), 58 * 16 + 12]
    assert layout.places.tolist() == places
    made = [layout.once(name, lambda: object()) for name in ((4, 0), (4, 9), (4, 0), (4, 9))]
    assert made[0] is made[2] and made[1] is made[3] and made[0] is not made[1], "each kind of window has its own plan"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_plan_of_known_chunks_shares_splits_and_cuts_as_it_says(threads: int) -> None:
    layout = shared_step(threads)
    plan = layout.plan(3, 0)
    assert plan.tasks.tolist() == [
        [0, 0, 1, 0, 3, 1],  # segments 0 and 1 of both sequences at once
        [0, 1, 2, 3, 3, 1],
        [0, 2, 3, 6, 1, 1],  # then what each has alone
        [20, 2, 3, 7, 2, 1],
        [39, 0, 1, 9, 16, 0],  # 48 queries, then the other four rows
        [39, 0, 1, 25, 4, 0],
        [41, 0, 2, 29, 1, 0],
    ]
    assert plan.members.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, *range(3, 23), 23]
    assert (plan.merged.tolist(), plan.num_slots) == ([0, 1, 2], 9)
    assert plan.slots[:3].tolist() == [0, 3, 6]
    assert plan.cuts.tolist() == ([0, 7] if threads == 1 else [0, 5, 7])  # costs 13 13 7 10 52 16 14
    windowed = layout.plan(3, 100)
    assert windowed.tasks[:, :3].tolist() == [
        [0, 1, 2], [0, 2, 3], [20, 2, 3], [39, 0, 1], [39, 0, 1], [41, 0, 2],
    ]  # fmt: skip
    assert (windowed.slots[:3].tolist(), windowed.num_slots) == ([-1, 1, 3], 6)
    assert layout.plan(3, 0) is plan
    assert layout.plan(3, 100) is windowed
    assert layout.plan(48, 0).tasks[:, 4].tolist() == [1] * 30  # a row is 48 queries: 6 shared, 3 alone, 20, 1


def softmax_attention(q: Any, k: Any, v: Any, seen: list[int], scale: float, score: Any = None) -> np.ndarray:
    """One query of one head over the keys that it sees."""
    scores = np.array([float(q @ k[at]) * scale for at in seen])
    scores = scores if score is None else np.array([score(each, at) for each, at in zip(scores, seen, strict=True)])
    weights = np.exp(scores - scores.max())
    return np.asarray((weights / weights.sum()) @ v[seen])


@pytest.mark.parametrize("window", [None, 1, 4])
def test_the_plain_version_in_8_bits_is_attention_of_the_rounded_keys_and_values(window: int | None) -> None:
    generator = torch.Generator().manual_seed(1)
    lengths, starts = (10, 6, 9), (9, 0, 5)  # one decoded token, a whole prompt, the end of a prompt
    texts = [[torch.randn(n, heads, 20, generator=generator) for heads in (4, 2, 2)] for n in lengths]
    texts[1][1][2] = 0  # a key of zeros
    pages = Pages.empty(12, 2, 4, 20, torch.int8, CPU)
    pages.keys.fill_(77)
    pages.values.fill_(-77)
    pages.key_scales.fill_(torch.nan)
    pages.value_scales.fill_(torch.nan)
    tables = [[7, 2, 9, 11], [0, 5], [3, 1, 10]]
    for (_, k, v), start, table in zip(texts, starts, tables, strict=True):
        at = torch.arange(start)
        store(k[:start], v[:start], pages, torch.tensor(table)[at // 4], at % 4)
    chunks = [PackedChunk(s, n, table) for s, n, table in zip(starts, lengths, tables, strict=True)]
    packed = [torch.cat([text[i][s:] for text, s in zip(texts, starts, strict=True)]) for i in range(3)]
    found = gather_attention(*packed, pages, Layout(chunks, 4), scale=0.3, window=window)
    row = 0
    for (q, *both), start, length in zip(texts, starts, lengths, strict=True):
        k, v = ((codes.double() * scales[..., None]).numpy() for codes, scales in map(quantise, both))
        for at in range(start, length):
            seen = list(range(0 if window is None else max(0, at - window + 1), at + 1))
            for head in range(4):
                expected = softmax_attention(q[at, head].numpy(), k[:, head // 2], v[:, head // 2], seen, 0.3)
                np.testing.assert_allclose(found[row, head].numpy(), expected, atol=1e-5)
            row += 1
    assert row == len(found) == 11


def test_bytes_and_scales_of_vectors() -> None:
    vectors = torch.tensor([[[1.0, -2.0, 0.99]], [[0.0, 0.0, -0.0]], [[1.0, torch.inf, 0.0]], [[254.0, 3.0, -1.0]]])
    codes, scales = quantise(vectors)
    assert codes[:, 0].tolist() == [[64, -127, 63], [0, 0, 0], [0, 0, 0], [127, 2, 0]]  # halves go to the even one
    assert codes.dtype == torch.int8
    assert scales[[0, 1, 3], 0].tolist() == pytest.approx([2 / 127, 0, 2])
    assert torch.isnan(scales[2, 0])


def test_a_given_kernel_decodes_only_what_it_knows_about() -> None:
    calls: list[tuple[Any, ...]] = []

    def own(q: Tensor, pages: Pages, tables: Tensor, positions: Tensor, *, scale: float, window: int | None) -> Tensor:
        calls.append((q.shape, tables.tolist(), positions.tolist(), scale, window))
        return torch.full_like(q, 5.0)

    pages = Pages.empty(6, 1, 4, 16, torch.float32, CPU)
    for each in pages.tensors:
        each.zero_()
    chunks = [PackedChunk(8, 9, [5, 4, 3, 0]), PackedChunk(0, 2, [1]), PackedChunk(3, 4, [2, 0])]
    q, k, v = (torch.ones(4, heads, 16) for heads in (2, 1, 1))
    layout = Layout(chunks, 4)
    found = gather_attention(q, k, v, pages, layout, scale=0.5, window=3, decode_by=own)
    assert calls == [((2, 2, 16), [[5, 4, 3], [2, 0, 0]], [8, 3], 0.5, 3)]
    assert found[:, 0, 0].tolist() == [5, 1, 1, 5]
    plain = decode(q[[0, 3]], pages, torch.tensor(calls[0][1]), torch.tensor([8, 3]), scale=0.5, window=3)
    gather_attention(q, k, v, pages, layout, scale=0.5, window=3, decode_by=own, terms=ScoreTerms(softcap=1e9))
    assert len(calls) == 1
    share = np.exp(8) / (np.exp(8) + 2)  # the new key is ones, the two before it zeros
    assert plain[:, 1, 2].tolist() == pytest.approx([share, share])


def test_score_terms_are_capped_then_biased_then_masked_and_sinks_take_their_share() -> None:
    generator = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(1, heads, n, 8, generator=generator) for heads, n in ((4, 3), (2, 5), (2, 5)))
    distance = torch.arange(5) - torch.arange(2, 5)[:, None]
    slopes, sinks = torch.tensor([0.1, 0.2, 0.4, 0.8]), torch.tensor([-1.0, 0.5, 2.0, 0.0])
    terms = ScoreTerms(softcap=0.7, bias=AlibiBias(slopes), sinks=sinks)
    found = attend_plainly(q, k, v, distance <= 0, distance, scale=1.5, terms=terms)
    for head in range(4):
        for query in range(3):
            seen = list(range(query + 3))
            scores = (q[0, head, query] @ k[0, head // 2, seen].T).double() * 1.5
            scores = 0.7 * torch.tanh(scores / 0.7) + slopes[head].double() * distance[query, seen]
            weights = scores.exp() / (scores.exp().sum() + sinks[head].double().exp())
            expected = weights @ v[0, head // 2, seen].double()
            torch.testing.assert_close(found[0, head, query].double(), expected, atol=1e-5, rtol=1e-5)
    distances = -torch.tensor([0, 1, 3, 4, 5, 6, 8, 9, 13, 14, 19, 20, 100, -1, -7])
    table = torch.arange(16.0).reshape(8, 2)
    assert BucketBias(table, 20).bucket(distances).tolist() == [0, 1, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7, 7, 0, 0]
    both_ways = BucketBias(table, 20, is_causal=False)
    assert both_ways.bucket(distances).tolist() == [0, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 5, 7]
    assert both_ways(torch.tensor([[0, 1], [-3, 9]])).tolist() == [[[0, 10], [4, 14]], [[1, 11], [5, 15]]]
    with pytest.raises(AssertionError, match="one source for each sequence"):
        cross_attention(q[0], k[0], v[0], [4], scale=1.0, terms=ScoreTerms(source_lengths=(1, 1)))
    with pytest.raises(AssertionError, match="distances between two texts mean nothing"):
        cross_attention(q[0], k[0], v[0], [4], scale=1.0, terms=ScoreTerms(bias=AlibiBias(slopes), source_lengths=(2,)))


def test_packed_queries_of_several_texts_see_their_own_source_and_nothing_is_written() -> None:
    generator = torch.Generator().manual_seed(5)
    q, k, v = (torch.randn(n, heads, 16, generator=generator) for n, heads in ((5, 4), (7, 2), (7, 2)))
    chunks = [PackedChunk(6, 9, [1, 0, 2]), PackedChunk(0, 2, [3])]
    pages = Pages.empty(4, 2, 4, 16, torch.float32, CPU)
    for each in pages.tensors:
        each.fill_(3)
    terms = ScoreTerms(source_lengths=(2, 5))
    found = gather_attention(q, k, v, pages, Layout(chunks, 4), scale=0.3, window=1, terms=terms)
    for row in range(5):
        seen = [0, 1] if row < 3 else [2, 3, 4, 5, 6]
        for head in range(4):
            expected = softmax_attention(
                q[row, head].numpy(), k.numpy()[:, head // 2], v.numpy()[:, head // 2], seen, 0.3
            )
            np.testing.assert_allclose(found[row, head].numpy(), expected, atol=1e-5)
    assert all((each == 3).all() for each in pages.tensors)


def test_flash_attention_keeps_the_dtype_and_says_which_shapes_do_not_fit() -> None:
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(1, heads, n, 4, generator=generator).half() for heads, n in ((2, 7), (1, 5), (1, 5)))
    found = flash_attention(q, k, v, scale=0.5, is_causal=False, tile=3)
    weights = (q.double() @ k.double().transpose(-1, -2) * 0.5).softmax(-1)
    torch.testing.assert_close(found, (weights @ v.double()).half(), atol=2e-3, rtol=2e-3)
    with pytest.raises(ConfigError) as told:
        flash_attention(q, k, v, scale=0.5, tile=3)
    assert str(told.value) == "tile is 3 with 7 queries of 5 keys: expected 1 or more, and no fewer keys"
    for keys, values in ((k, v[:, :, 1:]), (k.expand(2, 1, 5, 4), v.expand(2, 1, 5, 4)), (k[..., :2], v[..., :2])):
        with pytest.raises(ConfigError) as told:
            flash_attention(q, keys, values, scale=0.5, is_causal=False)
        assert str(told.value) == (
            f"queries, keys and values are (1, 2, 7, 4), {tuple(keys.shape)}, {tuple(values.shape)}: "
            "expected B H Q K, B G T K twice, and G a divisor of H"
        )


def layer_norm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    rest = x.astype(np.float64) - x.mean(-1, keepdims=True, dtype=np.float64)
    return np.asarray(rest / np.sqrt((rest**2).mean(-1, keepdims=True) + eps) * gain + bias)


def test_an_encoder_s_embeddings_norms_and_attention_are_those_of_numpy() -> None:
    rng = np.random.default_rng(4)
    words, positions, kind, gain, bias = (
        rng.normal(size=shape).astype(np.float32) for shape in ((9, 64), (7, 64), (64,), (64,), (64,))
    )
    ids, places, eps = np.array([8, 0, 3]), np.array([2, 6, 0]), np.float32(0.3)
    x = np.full(5 * 64, 7, dtype=np.float32)
    embed(ids, places, words.reshape(-1), positions.reshape(-1), kind, gain, bias, eps, 64, x)
    expected = layer_norm(words[ids] + kind + positions[places], gain, bias, 0.3)
    np.testing.assert_allclose(x[: 3 * 64].reshape(3, 64), expected, atol=1e-5)
    assert (x[3 * 64 :] == 7).all()
    change = rng.normal(size=5 * 64).astype(np.float32)
    before = x.copy()
    add_norm(x, change, gain, bias, eps, 2, 64)
    expected = layer_norm((before + change)[:128].reshape(2, 64), gain, bias, 0.3)
    np.testing.assert_allclose(x[:128].reshape(2, 64), expected, atol=1e-5)
    np.testing.assert_array_equal(x[128:], before[128:])

    lengths, heads, head_dim, rows = np.array([1, 37, 9]), 2, 64, 48
    starts = np.cumsum(lengths) - lengths
    width = heads * head_dim
    qkv = rng.normal(size=(rows, 3 * width)).astype(np.float32)
    panels = np.ascontiguousarray(qkv.reshape(rows, -1, 32).transpose(1, 0, 2)).reshape(-1)
    out = np.full(rows * width, 7, dtype=np.float32)
    attend(panels, starts, lengths, heads, head_dim, np.float32(0.2), 32 * rows, out)
    q, k, v = (part.reshape(rows, heads, head_dim) for part in np.split(qkv, 3, axis=1))
    mixed = out.reshape(rows, heads, head_dim)
    for start, length in zip(starts, lengths, strict=True):
        seen = list(range(start, start + length))
        for row in seen:
            for head in range(heads):
                expected = softmax_attention(q[row, head], k[:, head], v[:, head], seen, 0.2)
                np.testing.assert_allclose(mixed[row, head], expected, atol=1e-5)
    assert (mixed[47:] == 7).all()
