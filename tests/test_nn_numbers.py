"""Small parts of the models against numbers that are worked out beside them, at uneven sizes and values."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from firsthand.errors import ConfigError
from firsthand.nn.architecture import Architecture, ExpertSettings, Rope
from firsthand.nn.batched_lora import AdapterSpan, ModuleSpans, PackedAdapter, SpanCompiler, pack_adapter, spans_of
from firsthand.nn.blocks.attention import Packed, _window_mask
from firsthand.nn.blocks.experts import (
    ExpertRouter,
    MixtureOfExperts,
    load_balancing_loss,
    router_z_loss,
    within_groups,
)
from firsthand.nn.blocks.mlp import activate, clamped_silu
from firsthand.nn.blocks.norm import RMSNorm
from firsthand.nn.blocks.rope import Rotation, frequencies, rotate, rotation
from firsthand.nn.blocks.short_attention import short_attention
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.lora import Adapter, LoRALinear, LowRankUpdate, attach, row_lengths
from firsthand.nn.routed_lora import adapters_off, agents_of, attach_agents, choose
from firsthand.nn.textbook_cache import TextbookCache

SMALL = Architecture(
    family="llama", vocab_size=40, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2, num_kv_heads=1,
    head_dim=16, max_position=64, norm_eps=1e-5, windows=(None, None), ropes=(Rope(), Rope()), tie_embeddings=False,
)  # fmt: skip


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def model(**changes: Any) -> Decoder:
    return initialise(Decoder(replace(SMALL, **changes)), seed=1, std=0.3)


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=tolerance, atol=tolerance)


def plain_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, window: int | None) -> np.ndarray:
    """Causal attention of one sequence by loops: T H K, T G K, T G K."""
    out = np.zeros_like(q)
    for t in range(len(q)):
        first = 0 if window is None else max(0, t - window + 1)
        for h in range(q.shape[1]):
            g = h // (q.shape[1] // k.shape[1])
            scores = np.array([scale * q[t, h] @ k[s, g] for s in range(first, t + 1)])
            weights = np.exp(scores - scores.max())
            out[t, h] = (weights / weights.sum()) @ v[first : t + 1, g]
    return out


@pytest.mark.parametrize("window", [None, 1, 3, 7])
def test_attention_of_uneven_sequences_is_that_of_loops_packed_or_with_a_cache(window: int | None):
    lengths, scale = [7, 4, 4, 1], 0.37
    q, k, v = drawn(16, 4, 6), drawn(16, 2, 6, seed=1), drawn(16, 2, 6, seed=2)
    packed = Packed(lengths)(0, q, k, v, scale=scale, window=window)
    starts = np.cumsum([0, *lengths])
    for start, end in pairwise(starts):
        parts = [x[start:end].numpy() for x in (q, k, v)]
        close(packed[start:end], plain_attention(*parts, scale, window))
    cache = TextbookCache(max_length=7)
    pieces = [cache(1, q[a:b], k[a:b], v[a:b], scale=scale, window=window) for a, b in ((0, 3), (3, 4), (4, 7))]
    close(torch.cat(pieces), plain_attention(*(x[:7].numpy() for x in (q, k, v)), scale, window))
    assert (cache.length(1), cache.length(0)) == (7, 0)
    with pytest.raises(ConfigError, match="the cache would hold 8 tokens: expected at most max_length"):
        cache(1, q[:1], k[:1], v[:1], scale=scale, window=window)
    assert cache.length(1) == 7
    with pytest.raises(ConfigError, match="16 tokens came for lengths that sum to 15"):
        Packed([7, 8])(0, q, k, v, scale=scale, window=window)
    with pytest.raises(ConfigError, match="every sequence needs 1 token or more"):
        Packed([3, 0])


def test_short_attention_and_its_gradients_are_those_of_the_plain_form():
    q, k, v = (drawn(2, 5, heads, 4, seed=n).requires_grad_() for n, heads in enumerate((6, 2, 2)))
    mixed = short_attention(q, k, v, 0.6)
    plain = functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), is_causal=True, scale=0.6, enable_gqa=True
    )
    expected = plain.transpose(1, 2).flatten(0, 1)
    close(mixed.detach(), expected.detach())
    by = drawn(10, 6, 4, seed=9)
    found, wanted = (torch.autograd.grad((x * by).sum(), (q, k, v)) for x in (mixed, expected))
    for one, other in zip(found, wanted, strict=True):
        close(one, other, 1e-4)
    assert _window_mask(4, 2, torch.device("cpu")).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 1, 1],
    ]


def test_a_norm_and_its_gradients_are_those_of_its_formula_with_and_without_the_offset():
    for offset in (False, True):
        norm = RMSNorm(6, 0.01, unit_offset=offset)
        norm.weight.data = drawn(6, seed=3)
        x = drawn(3, 6).requires_grad_()
        factor = norm.weight + 1 if offset else norm.weight
        expected = x / (x.pow(2).mean(-1, keepdim=True) + 0.01).sqrt() * factor
        by = drawn(3, 6, seed=4)
        found = norm(x)
        close(found.detach(), expected.detach())
        with torch.no_grad():
            close(norm(x), expected.detach())
        one, other = (torch.autograd.grad((y * by).sum(), (x, norm.weight)) for y in (found, expected))
        close(one[0], other[0])
        close(one[1], other[1])


def test_frequencies_and_turns_are_those_of_their_formulas():
    theta, size = 100.0, 8
    plain = np.array([theta ** (-2 * pair / size) for pair in range(4)])
    close(frequencies(Rope(theta), size), plain)
    close(frequencies(Rope(theta, "linear", 4.0), size), plain / 4)
    close(frequencies(Rope(theta, kind="none"), size), np.zeros(4))
    close(frequencies(Rope(theta, "divided", divisors=(1.0, 2.0, 3.0, 5.0)), size), plain / [1, 2, 3, 5])
    wider = theta * 4.0 ** (4 / 3)
    close(frequencies(Rope(theta, "ntk", 4.0), size), [wider ** (-2 * pair / size) for pair in range(4)])
    dynamic = Rope(theta, "dynamic", 2.0, 16)
    close(frequencies(dynamic, size, length=16), plain)
    stretched = theta * (2.0 * 40 / 16 - 1) ** (4 / 3)
    close(frequencies(dynamic, size, length=40), [stretched ** (-2 * pair / size) for pair in range(4)])
    long = Rope(theta, "longrope", 4.0, 16, divisors=(2.0, 3.0, 4.0, 5.0), short_divisors=(1.0, 1.0, 1.5, 2.0))
    close(frequencies(long, size, length=16), plain / [1, 1, 1.5, 2])
    close(frequencies(long, size, length=17), plain / [2, 3, 4, 5])
    llama = Rope(theta, "llama3", 8.0, 60, low_freq_factor=1.0, high_freq_factor=4.0)
    turns = 60 * plain / (2 * math.pi)
    kept = np.clip((turns - 1) / 3, 0, 1)
    assert 0 < kept[1] < 1 == kept[0] and kept[3] == 0
    close(frequencies(llama, size), plain / 8 * (1 - kept) + plain * kept)
    by = rotation(torch.tensor([0.5, 0.1]), torch.tensor([0, 3]), scale=2.0, dtype=torch.float64)
    angles = [1.5, 0.3, 1.5, 0.3]
    close(by.cos, [[2.0] * 4, [2 * math.cos(a) for a in angles]], 1e-6)
    close(by.sin[1], [2 * math.sin(a) for a in angles], 1e-6)
    turned = rotate(
        torch.tensor([[[1.0, 2.0, 3.0, 4.0, 9.0]]]),
        Rotation(torch.tensor([[0.6, 0.8, 0.6, 0.8]]), torch.tensor([[0.8, 0.6, 0.8, 0.6]])),
    )
    close(turned[0, 0], [0.6 - 2.4, 1.6 - 2.4, 1.8 + 0.8, 3.2 + 1.2, 9.0])
    assert rotate(turned, None) is turned


def test_activations_are_their_formulas():
    x = np.array([[-2.0, -0.5, 0.0, 1.5]])
    t = torch.tensor(x)
    close(activate(t, "silu"), x / (1 + np.exp(-x)), 1e-6)
    close(activate(t, "relu"), np.maximum(x, 0))
    close(activate(t, "gelu"), [[v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x[0]]], 1e-6)
    close(activate(t, "gelu_tanh"), 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), 1e-6)
    close(activate(t, "solu"), x * np.exp(x) / np.exp(x).sum(), 1e-6)
    gate, up = np.array([-9.0, 3.0, 9.0]), np.array([-9.0, 0.5, 9.0])
    clamped = np.minimum(gate, 7)
    expected = (np.clip(up, -7, 7) + 1) * clamped / (1 + np.exp(-1.702 * clamped))
    close(clamped_silu(torch.tensor(gate), torch.tensor(up), 7.0), expected, 1e-6)


def settings(**changes: Any) -> ExpertSettings:
    given = {"num_experts": 6, "per_token": 2, "width": 8, "layers": (True, True)}
    return ExpertSettings(**{**given, **changes})


def test_a_router_scores_corrects_groups_and_weighs_as_its_settings_say():
    x = drawn(5, 4)

    def routed(bias: bool = False, **changes: Any) -> tuple[ExpertRouter, Any, np.ndarray]:
        router = ExpertRouter(4, settings(has_bias=bias, **changes))
        router.weight.data = drawn(6, 4, seed=5)
        if router.bias is not None:
            router.bias.data = drawn(6, seed=6)
        if router.correction is not None:
            router.correction.data = torch.tensor([3.0, 0, 0, 0, 0, -3.0])
        logits = x.numpy() @ router.weight.detach().numpy().T + (router.bias.detach().numpy() if bias else 0)
        with torch.no_grad():
            return router, router(x), logits

    softmax = lambda rows: np.exp(rows) / np.exp(rows).sum(-1, keepdims=True)  # noqa: E731
    _, found, logits = routed(bias=True, scale=2.5)
    close(found.logits, logits)
    order = np.argsort(-logits)[:, :2]
    assert found.experts.tolist() == order.tolist()
    shares = np.take_along_axis(softmax(logits), order, 1)
    close(found.weights, 2.5 * shares / shares.sum(1, keepdims=True))
    _, found, logits = routed(renormalise=False)
    close(found.weights, np.take_along_axis(softmax(logits), np.argsort(-logits)[:, :2], 1))
    _, found, logits = routed(score="softmax_of_chosen", scale=3.0)
    close(found.weights, 3 * softmax(np.take_along_axis(logits, np.argsort(-logits)[:, :2], 1)))
    _, found, logits = routed(score="sigmoid", has_correction=True)
    scores = 1 / (1 + np.exp(-logits))
    order = np.argsort(-(scores + np.array([3, 0, 0, 0, 0, -3])))[:, :2]
    assert found.experts.tolist() == order.tolist() and set(order[:, 0]) == {0}
    shares = np.take_along_axis(scores, order, 1)
    close(found.weights, shares / shares.sum(1, keepdims=True))
    rows = torch.tensor([[9.0, 0, 5, 5, 1, 2]])
    out = -math.inf
    assert within_groups(rows, settings(num_groups=3)).tolist() == [[9, 0, out, out, out, out]]
    two = settings(num_groups=3, groups_per_token=2, group_score="top2")
    assert within_groups(rows, two).tolist() == [[9, 0, 5, 5, out, out]]
    assert within_groups(torch.tensor([[7.0, 0, 5, 4, 6, 6]]), two).tolist() == [[out, out, 5, 4, 6, 6]]
    assert within_groups(rows, settings(num_groups=3, groups_per_token=3)) is rows


def test_a_mixture_adds_its_experts_and_a_gated_shared_one_token_by_token():
    a = replace(SMALL, experts=settings(shared_width=4, has_shared_gate=True, num_experts=5, per_token=3))
    mixture = MixtureOfExperts(a)
    for number, parameter in enumerate(mixture.parameters()):
        parameter.data = 0.4 * drawn(*parameter.shape, seed=number)
    x = drawn(7, 32, seed=50)
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        found = mixture(x, lambda site, values: seen.append(values) or values)
        routes = mixture.router(x)
        for row in range(7):
            expected = torch.sigmoid(mixture.shared_gate(x[row : row + 1])) * mixture.shared(x[row : row + 1])
            for place in range(3):
                expert = mixture.experts[int(routes.experts[row, place])]
                expected = expected + routes.weights[row, place] * expert(x[row : row + 1])
            close(found[row], expected[0])
    close(seen[0], routes.logits)
    even = [torch.zeros(4, 3), torch.tensor([[5.0, 0, 0], [0, 5, 0], [0, 0, 5]])]
    logits = torch.cat(even)
    chosen = logits.softmax(-1)
    taken = torch.zeros_like(chosen).scatter(-1, chosen.topk(1, -1).indices, 1.0)
    close(load_balancing_loss(even, 1), 3 * float((taken.mean(0) * chosen.mean(0)).sum()))
    close(router_z_loss([torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 1.0], [2.0, 2.0]])]),
          np.mean([math.log(2) ** 2, (1 + math.log(2)) ** 2, (2 + math.log(2)) ** 2]))  # fmt: skip


def test_low_rank_updates_scale_merge_and_rescale_rows():
    weight, a, b = drawn(3, 4), drawn(2, 4, seed=1), drawn(3, 2, seed=2)
    update = LowRankUpdate(a, b, 1.5)
    changed = weight + 1.5 * b @ a
    close(update.applied(weight), changed)
    close(update.product(), 1.5 * b @ a)
    assert update.applied(weight.half()).dtype == torch.float16
    lengths = torch.tensor([1.0, 2.0, 0.5])
    rescaled = changed * (lengths / changed.norm(dim=1))[:, None]
    close(LowRankUpdate(a, b, 1.5, lengths).applied(weight), rescaled)
    assert row_lengths(torch.zeros(2, 3)).min() > 0
    base = torch.nn.Linear(4, 3)
    base.weight.data = weight
    x = drawn(5, 4, seed=3)
    for magnitude, expected in ((None, changed), (lengths, rescaled)):
        linear = LoRALinear(base, LowRankUpdate(a, b, 1.5, magnitude))
        close(linear(x).detach(), (x @ expected.T + base.bias).detach(), 1e-4)
        assert {name for name, each in linear.named_parameters() if each.requires_grad} == {
            "a", "b", *(["magnitude"] if magnitude is not None else []),
        }  # fmt: skip
        linear.is_on = False
        close(linear(x).detach(), base(x).detach())
        copy = linear.update()
        copy.a.zero_()
        assert linear.a.abs().max() > 0 and copy.scale == 1.5
    assert Adapter(Path(), {"w": update}).merged("v", weight) is weight


def adapter(seed: int, *names: str, scale: float = 0.5, rank: int = 3) -> Adapter:
    decoder, deltas = model(), {}
    for name in names or ("layers.0.attention.q_proj", "layers.1.mlp.down_proj"):
        outputs, inputs = decoder.get_submodule(name).weight.shape
        deltas[f"{name}.weight"] = LowRankUpdate(
            drawn(rank, inputs, seed=seed), drawn(outputs, rank, seed=seed + 1), scale
        )
    return Adapter(Path(f"adapter{seed}"), deltas)


IDS = torch.tensor([3, 9, 21, 7, 7, 30])


def states(decoder: Decoder, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return decoder(ids, torch.arange(len(ids)), Packed([len(ids)]))


def test_agents_take_turns_and_what_was_off_or_chosen_is_so_again_after_the_block():
    plain = states(model())
    alone = [states(attach(model(), adapter(seed))) for seed in (10, 20)]
    both = attach_agents(model(), {"one": adapter(10), "two": adapter(20)})
    assert agents_of(both) == ("one", "two") and agents_of(model()) == ()
    close(states(both), alone[0])
    choose(both, "two")
    close(states(both), alone[1])
    with pytest.raises(ConfigError, match="no agent 'three' has an adapter: there are one, two"):
        choose(both, "three")
    with adapters_off(both):
        close(states(both), plain)
        with adapters_off(both):
            close(states(both), plain)
        close(states(both), plain)
    close(states(both), alone[1])
    single = attach(model(), adapter(10))
    linear = next(each for each in single.modules() if isinstance(each, LoRALinear))
    linear.is_on = False
    with pytest.raises(RuntimeError), adapters_off(single):
        raise RuntimeError
    assert [each.is_on for each in single.modules() if isinstance(each, LoRALinear)] == [False, True]
    with pytest.raises(ConfigError, match="the adapters of one, two change different matrices"):
        attach_agents(model(), {"one": adapter(10), "two": adapter(20, "layers.0.attention.q_proj")})
    with pytest.raises(ConfigError, match="is a LoRALinear: attach adapters to a model that has none"):
        attach_agents(single, {"one": adapter(10)})


def test_rows_of_a_span_have_their_adapter_and_others_the_base():
    decoder = model()
    packed = [pack_adapter(adapter(seed, rank=rank), decoder, tiles_of=None) for seed, rank in ((10, 3), (20, 5))]
    assert [each.rank for each in packed] == [3, 5] and set(packed[0].matrices) == {
        "layers.0.attention.q_proj", "layers.1.mlp.down_proj",
    }  # fmt: skip
    assert packed[0].size_bytes == 4 * (3 * 32 + 32 * 3 + 3 * 48 + 32 * 3)
    texts = [[3, 9], [5, 11, 2], [8]]
    ids = torch.tensor([each for text in texts for each in text])
    positions = torch.tensor([place for text in texts for place in range(len(text))])
    spans = spans_of([packed[0], None, packed[1]], [2, 3, 1])
    assert spans == [AdapterSpan(0, 2, packed[0]), AdapterSpan(5, 6, packed[1])]
    hooks = ModuleSpans(decoder)
    with torch.no_grad(), hooks.over(spans):
        found = decoder(ids, positions, Packed([2, 3, 1]))
    close(found[:2], states(attach(model(), adapter(10)), torch.tensor([3, 9])), 1e-4)
    close(found[2:5], states(model(), torch.tensor([5, 11, 2])), 1e-4)
    close(found[5:], states(attach(model(), adapter(20, rank=5)), torch.tensor([8])), 1e-4)
    close(states(decoder), states(model()))
    with pytest.raises(ConfigError, match="is a DoRA adapter"):
        update = LowRankUpdate(drawn(1, 32), drawn(32, 1), 1.0, torch.ones(32))
        pack_adapter(Adapter(Path("x"), {"layers.0.attention.q_proj.weight": update}), decoder, tiles_of=None)


def test_spans_become_pieces_and_tables_of_the_adapters_seen():
    def packed(rank: int, number: int) -> PackedAdapter:
        return PackedAdapter({}, np.full((3, 7, 2, 5), number, dtype=np.int64), {}, rank, 0)

    from firsthand.kernels.step.lora_products import PIECE_ROWS

    one, two = packed(3, 1), packed(17, 2)
    compiler = SpanCompiler(2)
    pieces, entries, rank = compiler(
        [AdapterSpan(1, PIECE_ROWS + 3, two), AdapterSpan(PIECE_ROWS + 3, PIECE_ROWS + 4, one)]
    )
    assert pieces.tolist() == [
        [1, PIECE_ROWS + 1, 0],
        [PIECE_ROWS + 1, PIECE_ROWS + 3, 0],
        [PIECE_ROWS + 3, PIECE_ROWS + 4, 1],
    ]
    assert rank == 32 and entries.shape == (3, 2, 7, 2, 5) and entries[0, :, 0, 0, 0].tolist() == [2, 1]
    later = compiler([AdapterSpan(0, 1, one)])
    assert later.pieces.tolist() == [[0, 1, 1]] and later.rank == 16 and later.entries.shape[1] == 2
    none = compiler([])
    assert none.pieces.shape == (0, 3) and none.rank == 16
    compiler.forget()
    assert compiler([]).entries.shape == (3, 0, 7, 2, 5) and compiler([AdapterSpan(0, 1, one)]).pieces.tolist() == [
        [0, 1, 0]
    ]
    assert spans_of([one, one, None, one, two], [2, 1, 0, 3, 0]) == [AdapterSpan(0, 6, one)]
