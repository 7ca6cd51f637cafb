"""Modules of decoders and encoders against their formulas written out, one step after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from firsthand.errors import ConfigError
from firsthand.kernels.attention.score_terms import ScoreTerms
from firsthand.nn.architecture import Architecture, LatentSettings, Rope
from firsthand.nn.blocks.attention import Attention, Packed
from firsthand.nn.blocks.latent_attention import LatentAttention
from firsthand.nn.blocks.rope import rotate
from firsthand.nn.decoder import Block, Decoder, initialise
from firsthand.nn.encoder import Encoder, EncoderBlock, Together
from firsthand.nn.encoder_arithmetic import Tiles, aligned, flat
from firsthand.nn.families.bert import BertArchitecture
from firsthand.nn.textbook_cache import TextbookCache

A = Architecture(
    "gemma2", 20, 12, 16, 3, 4, num_kv_heads=2, head_dim=6, max_position=64, norm_eps=1e-5, windows=(3, None, 5),
    ropes=(Rope(), Rope(kind="none"), Rope(500.0)), tie_embeddings=False, attention_scale=0.3,
)  # fmt: skip


def filled(module: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in module.parameters():
            each.copy_(torch.randn(each.shape, generator=generator))
    return module


def numbers(*shape: int, seed: int = 9) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Seen:
    """An `Attend` that keeps what came, and returns the values of the first query heads, doubled."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, scale: float, window: int | None, **more: Any
    ) -> Tensor:
        self.calls.append((layer, q, k, v, scale, window, more))
        return 2 * v.repeat_interleave(q.shape[1] // v.shape[1], 1)


def attended(q: Tensor, k: Tensor, v: Tensor, scale: float, sees: Callable[[int, int], bool]) -> Tensor:
    """Attention of N H K, query by query and head by head."""
    out, group = torch.zeros(*q.shape[:2], v.shape[2]), q.shape[1] // k.shape[1]
    for i in range(len(q)):
        for h in range(q.shape[1]):
            seen = [j for j in range(len(k)) if sees(i, j)]
            weights = torch.stack([scale * q[i, h] @ k[j, h // group] for j in seen]).softmax(0)
            out[i, h] = sum((w * v[j, h // group] for w, j in zip(weights, seen, strict=True)), torch.zeros(v.shape[2]))
    return out


@torch.no_grad()
def test_attention_clamps_norms_heads_and_turns_before_the_scores() -> None:
    x = numbers(5, 12)
    by = Decoder(A).rotations(torch.arange(5), torch.float32)[Rope()]
    for over in ("head", "projection"):
        a = replace(A, qkv_bias=True, o_bias=True, qk_norm=True, qk_norm_over=over, clip_qkv=1.25, has_sinks=True,
                    attention_softcap=4.0)  # fmt: skip
        part: Attention = filled(Attention(a, 2))
        q, k, v = ((proj(x)).clamp(-1.25, 1.25) for proj in (part.q_proj, part.k_proj, part.v_proj))
        if over == "projection":
            assert (part.q_norm.weight.shape, part.k_norm.weight.shape) == ((24,), (12,))  # type: ignore[union-attr]
            q, k = part.q_norm(q), part.k_norm(k)  # type: ignore[misc]
        q, k, v = q.reshape(5, 4, 6), k.reshape(5, 2, 6), v.reshape(5, 2, 6)
        if over == "head":
            q, k = part.q_norm(q), part.k_norm(k)  # type: ignore[misc]
        q, k = rotate(q, by), rotate(k, by)
        seen, taps = Seen(), dict[str, Tensor]()

        def tap(site: str, values: Tensor, taps: dict[str, Tensor] = taps) -> Tensor:
            taps[site] = values
            return values

        out = part(x, by, seen)
        [(layer, q_in, k_in, v_in, scale, window, more)] = seen.calls
        assert torch.equal(q_in, q) and torch.equal(k_in, k) and torch.equal(v_in, v)
        assert (layer, scale, window) == (2, 0.3, 5)
        terms = more["terms"]
        assert (terms.softcap, terms.bias, terms.sinks is part.sinks) == (4.0, None, True)
        mixed = 2 * v.repeat_interleave(2, 1).reshape(5, 24)
        assert torch.allclose(out, mixed @ part.o_proj.weight.T + part.o_proj.bias, atol=1e-5)
        assert torch.equal(part(x, by, Seen(), tap), out) and list(taps) == ["q", "k", "v", "mixed"]
        assert torch.equal(taps["q"], q) and torch.equal(taps["mixed"].flatten(1), mixed)
    plain: Attention = filled(Attention(A, 1))
    seen = Seen()
    plain(x, None, seen)
    assert plain.terms is None and seen.calls[0][-1] == {} and seen.calls[0][5] is None and plain.q_norm is None
    assert torch.equal(seen.calls[0][1], plain.q_proj(x).reshape(5, 4, 6))  # nothing is turned
    slopes = (0.5, 0.25, 0.125, 0.0625)
    sloped = Attention(replace(A, alibi_slopes=slopes), 0)
    assert sloped.terms is not None and sloped.terms.bias.slopes.tolist() == list(slopes)  # type: ignore[union-attr]
    assert sloped.terms.bias is sloped.terms.bias and (sloped.terms.softcap, sloped.terms.sinks) == (None, None)


@torch.no_grad()
def test_texts_of_several_lengths_are_causal_within_their_window_in_every_arithmetic() -> None:
    lengths = [4, 4, 1, 6]
    own = [text for text, length in enumerate(lengths) for _ in range(length)]
    q, k, v = numbers(15, 4, 8), numbers(15, 2, 8, seed=1), numbers(15, 2, 8, seed=2)
    packed = Packed(lengths)
    assert packed.runs == [(4, 2), (1, 1), (6, 1)]
    for window in (None, 1, 3, 4, 6, 7):
        expected = attended(
            q, k, v, 0.3, lambda i, j, w=window: own[i] == own[j] and j <= i and (w is None or j > i - w)
        )
        for terms in (None, ScoreTerms()):
            assert torch.allclose(packed(2, q, k, v, scale=0.3, window=window, terms=terms), expected, atol=1e-5)
        halves = [x.bfloat16() for x in (q, k, v)]
        with torch.autocast("cpu", torch.bfloat16):
            found = packed(2, *halves, scale=0.3, window=window)
        assert found.dtype == torch.bfloat16 and torch.allclose(found.float(), expected, atol=0.05)
    across = packed(0, q, k[:9], v[:9], scale=0.3, window=None, terms=ScoreTerms(source_lengths=(2, 3, 1, 3)))
    ends = [(0, 2), (2, 5), (5, 6), (6, 9)]
    sees = lambda i, j: ends[own[i]][0] <= j < ends[own[i]][1]  # noqa: E731
    assert torch.allclose(across, attended(q, k[:9], v[:9], 0.3, sees), atol=1e-5)
    for rows in (14, 0):
        with pytest.raises(ConfigError) as told:
            packed(2, q[:rows], k[:rows], v[:rows], scale=0.3, window=None)
        assert str(told.value) == f"{rows} tokens came for lengths that sum to 15"
    with pytest.raises(ConfigError, match=r"^lengths are \[3, 0\]: every sequence needs 1 token or more$"):
        Packed([3, 0])


@torch.no_grad()
@pytest.mark.parametrize("query_rank", [0, 7])
def test_latent_attention_is_that_of_the_keys_and_values_that_its_latent_makes(query_rank: int) -> None:
    m = LatentSettings(rank=6, nope_dim=3, rope_dim=4, value_dim=2, query_rank=query_rank)
    a = replace(A, num_kv_heads=1, head_dim=10, rotary_dim=4, latent=m, windows=(3,) * 3)
    part: LatentAttention = filled(LatentAttention(a, 1))
    by = Decoder(a).rotations(torch.arange(6), torch.float32)[Rope()]
    x = numbers(6, 12)
    latent_q = part.q_latent_norm(part.q_down(x)) if query_rank else x
    q = part.q_proj(latent_q).reshape(6, 4, 7)
    q = torch.cat([q[..., :3], rotate(q[..., 3:], by)], -1)
    down = part.kv_down(x)
    latent, turned = part.latent_norm(down[:, :6]), rotate(down[:, None, 6:], by)
    k = torch.stack([torch.cat([latent @ part.k_up[h].T, turned[:, 0]], -1) for h in range(4)], 1)
    v = torch.stack([latent @ part.v_up[h].T for h in range(4)], 1)
    mixed = attended(q, k, v, 0.3, lambda i, j: i - 3 < j <= i)
    assert torch.allclose(part(x, by, Packed([6])), part.o_proj(mixed.flatten(1)), atol=1e-4)
    assert hasattr(part, "q_down") == bool(query_rank)
    seen = Seen()
    part(x, by, seen)
    layer, _, keys, values, scale, window, _ = seen.calls[0]
    assert (layer, scale, window, keys.shape, values.shape) == (1, 0.3, 3, (6, 1, 10), (6, 1, 10))
    assert (
        torch.equal(values[:, 0, :6], latent)
        and not values[..., 6:].any()
        and torch.equal(keys[..., :6], values[..., :6])
    )


@torch.no_grad()
def test_a_block_adds_its_parts_with_norms_before_after_or_both() -> None:
    x = numbers(4, 12)
    for placement in ("pre", "sandwich", "post"):
        block: Block = filled(Block(replace(A, norm_placement=placement), 1))  # type: ignore[arg-type]
        before = placement != "post"
        after = placement != "pre"
        inner = block.attention(block.attention_norm(x) if before else x, None, Packed([4]))
        mid = x + (block.attention_out_norm(inner) if after else inner)
        inner = block.mlp(block.mlp_norm(mid) if before else mid)
        expected = mid + (block.mlp_out_norm(inner) if after else inner)
        assert torch.allclose(block(x, None, Packed([4])), expected, atol=1e-4)
        sites: dict[str, Tensor] = {}
        found = block(x, None, Packed([4]), lambda site, values, sites=sites: sites.setdefault(site, values))
        assert torch.allclose(found, expected, atol=1e-4) and torch.equal(sites["resid.post"], found)
        assert torch.allclose(sites["resid.mid"], mid, atol=1e-4) and torch.allclose(sites["mlp.out"], inner, atol=1e-4)
        assert torch.allclose(sites["mlp.in"], block.mlp_norm(mid), atol=1e-4)
        kinds = [isinstance(each, nn.Identity) for each in (block.attention_norm, block.mlp_norm, block.attention_out_norm,
                                                            block.mlp_out_norm)]  # fmt: skip
        assert kinds == [not before] * 2 + [not after] * 2
        assert set(sites) == set(block.sites)


@torch.no_grad()
def test_a_decoder_scales_adds_positions_norms_and_gives_each_layer_its_rope() -> None:
    a = replace(A, embed_scale=3.3, learned_positions=64, embed_norm=True, norm="layer", logit_softcap=2.0)
    model: Decoder = filled(Decoder(a))
    assert A.max_position <= 64 and Decoder(A).positions is None
    for rows in (64, 66):  # as OPT, whose first two rows stand for no position
        table = Decoder(replace(a, learned_positions=rows)).positions
        assert table is not None and table.weight.shape == (rows, A.hidden_size)
    ids, positions = torch.tensor([7, 3, 3, 19]), torch.tensor([0, 1, 5, 6])
    x = model.embed_norm(model.embed.weight[ids] * 3.3 + model.positions.weight[positions])  # type: ignore[union-attr]
    turned = model.rotations(positions, torch.float32)
    assert list(turned) == [Rope(), Rope(kind="none"), Rope(500.0)] and turned[Rope(kind="none")] is None
    angle = positions[:, None] * 500.0 ** (-torch.arange(3) / 3)
    assert torch.allclose(turned[Rope(500.0)].cos.reshape(4, -1)[:, :3], angle.cos(), atol=1e-5)  # type: ignore[union-attr]
    for layer, rope in zip(model.layers, a.ropes, strict=True):
        x = layer(x, turned[rope], Packed([4]))
    hidden = model.norm(x)
    assert torch.allclose(model(ids, positions, Packed([4])), hidden, atol=1e-4)
    seen: dict[str, Tensor] = {}

    def watch(site: str) -> Callable[[Tensor], None]:
        return lambda values: seen.__setitem__(site, values.clone())

    taps = {site: watch(site) for site in ("embed", "blocks.1.resid.post", "norm", "logits")}
    assert torch.allclose(model(ids, positions, Packed([4]), taps=taps), hidden, atol=1e-4)
    logits = model.logits(hidden, taps=taps)
    assert torch.allclose(logits, 2 * torch.tanh(hidden @ model.lm_head.weight.T / 2), atol=1e-5)
    assert torch.equal(seen["logits"], logits) and torch.allclose(seen["norm"], hidden, atol=1e-4)
    with pytest.raises(ConfigError, match=r"blocks\.3"):
        model(ids, positions, Packed([4]), taps={"blocks.3.resid.post": watch("x")})
    half = filled(Decoder(replace(A, embed_scale=3.3))).to(torch.bfloat16)
    embedded: dict[str, Tensor] = {}
    half(ids, positions, Packed([4]), taps={"embed": lambda values: embedded.update(embed=values)})
    assert torch.equal(embedded["embed"], half.embed.weight[ids] * 3.296875)  # 3.3 in bfloat16


def test_fresh_weights_are_normal_with_smaller_ones_into_the_residual_stream() -> None:
    a = replace(A, hidden_size=64, num_layers=8, windows=(None,) * 8, ropes=(Rope(),) * 8, qkv_bias=True, norm="layer")
    model = initialise(Decoder(a), seed=3, std=0.5)
    block = model.layers[2]
    assert isinstance(block, Block)
    large, small = (
        (block.attention.q_proj, block.mlp.up_proj, model.embed),
        (block.attention.o_proj, block.mlp.down_proj),
    )
    for weight, std in [(each.weight.detach(), 0.5) for each in large] + [
        (each.weight.detach(), 0.125) for each in small
    ]:
        assert float(weight.std()) == pytest.approx(std, rel=0.1)
    assert (block.attention.q_proj.bias == 0).all() and (block.mlp_norm.weight == 1).all()
    assert (block.mlp_norm.bias == 0).all()
    offset = initialise(Decoder(replace(A, norm_unit_offset=True)))
    assert (offset.norm.weight == 0).all() and float(offset.embed.weight.detach().std()) == pytest.approx(0.02, rel=0.2)
    again, other = initialise(Decoder(A), seed=3), initialise(Decoder(A), seed=4)
    assert torch.equal(again.embed.weight, initialise(Decoder(A), seed=3).embed.weight)
    assert not torch.equal(again.embed.weight, other.embed.weight)


@torch.no_grad()
def test_a_cache_gives_each_new_token_all_keys_so_far_within_its_window() -> None:
    q, k, v = numbers(7, 4, 3), numbers(7, 2, 3, seed=1), numbers(7, 2, 3, seed=2)
    for window in (None, 3):
        whole = attended(q, k, v, 0.7, lambda i, j, w=window: j <= i and (w is None or j > i - w))
        for terms in (None, ScoreTerms()):
            cache = TextbookCache(max_length=7)
            parts = [
                cache(4, q[a:b], k[a:b], v[a:b], scale=0.7, window=window, terms=terms)
                for a, b in ((0, 4), (4, 5), (5, 7))
            ]
            assert torch.allclose(torch.cat(parts), whole, atol=1e-5)
            assert (cache.length(4), cache.length(0)) == (7, 0)
            with pytest.raises(
                ConfigError, match=r"^the cache would hold 8 tokens: expected at most max_length \(7\)$"
            ):
                cache(4, q[:1], k[:1], v[:1], scale=0.7, window=window)
    cache = TextbookCache()
    across = cache(0, q[:2], k, v, scale=0.7, window=None, terms=ScoreTerms(source_lengths=(7,)))
    assert torch.allclose(across, attended(q[:2], k, v, 0.7, lambda i, j: True), atol=1e-5) and cache.length(0) == 0


BERT = BertArchitecture("roberta", 20, 12, 16, 2, 3, 18, 2, 2, 1e-5)


@torch.no_grad()
def test_each_token_of_an_encoder_sees_all_of_its_own_text() -> None:
    q, k, v = numbers(8, 3, 4), numbers(8, 3, 4, seed=1), numbers(8, 3, 4, seed=2)
    own = [0, 0, 1, 1, 2, 2, 2, 3]
    expected = attended(q, k, v, 0.7, lambda i, j: own[i] == own[j])
    together = Together([2, 2, 3, 1])
    assert together.runs == [(2, 2), (3, 1), (1, 1)]
    assert torch.allclose(together(0, q, k, v, scale=0.7, window=None), expected, atol=1e-5)
    assert torch.allclose(together(0, q, k, v, scale=0.7, window=None, terms=ScoreTerms()), expected, atol=1e-5)
    with pytest.raises(ConfigError, match=r"^lengths are \[2, 0\]: every text needs 1 token or more$"):
        Together([2, 0])
    block: EncoderBlock = filled(EncoderBlock(BERT, 1))
    x, seen = numbers(5, 12), Seen()
    heads = [proj(x).reshape(5, 3, 4) for proj in (block.q_proj, block.k_proj, block.v_proj)]
    mid = functional.layer_norm(
        x + block.o_proj(2 * heads[2].flatten(1)), (12,), block.attention_norm.weight, block.attention_norm.bias, 1e-5
    )
    wide = functional.gelu(block.up_proj(mid))
    out = functional.layer_norm(mid + block.down_proj(wide), (12,), block.mlp_norm.weight, block.mlp_norm.bias, 1e-5)
    assert torch.allclose(block(x, seen), out, atol=1e-5)
    layer, *came, scale, window, more = seen.calls[0]
    assert (layer, scale, window, more) == (1, 0.5, None, {})
    assert all(torch.equal(one, other) for one, other in zip(came, heads, strict=True))
    model: Encoder = filled(Encoder(BERT))
    ids, places, kinds = torch.tensor([4, 9, 19]), torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1])
    assert model.types is not None
    for types, rows in ((None, torch.zeros(3, dtype=torch.long)), (kinds, kinds)):
        x = model.norm(model.words.weight[ids] + model.types.weight[rows] + model.positions.weight[places + 2])
        for each in model.layers:
            x = each(x, Together([2, 1]))
        assert torch.allclose(model(ids, places, Together([2, 1]), types), x, atol=1e-5)
    mpnet: Encoder = filled(Encoder(replace(BERT, family="mpnet", num_types=0, num_buckets=32)))
    assert mpnet.types is None and mpnet.buckets is not None
    seen = Seen()
    mpnet(ids, places, seen)
    biases = [call[-1]["terms"].bias for call in seen.calls]
    assert [call[0] for call in seen.calls] == [0, 1] and not biases[0].is_causal
    assert biases[0].table is mpnet.buckets.weight if hasattr(biases[0], "table") else len(biases) == 2


def test_tiles_hold_panels_of_high_parts_then_low_ones() -> None:
    weight, bias = numbers(64, 64), numbers(64, seed=1)
    high = weight.bfloat16()
    low = (weight - high.float()).bfloat16()
    for parts in (1, 2):
        tiles = Tiles.__new__(Tiles)  # packing needs no matrix tiles, making one does
        tiles.parts = parts  # type: ignore[assignment]
        product = tiles.pack(weight, bias)
        assert (product.inputs, product.outputs, product.scales.size) == (64, 64, 0)
        assert product.bias.tolist() == bias.tolist()
        numbers_of = torch.from_numpy(product.numbers).view(torch.bfloat16).reshape(2, 2, parts, 2, 16, 16, 2)
        for panel, step, half, pair, output, odd in ((0, 0, 0, 0, 0, 0), (1, 0, 1, 3, 5, 1), (0, 1, 1, 15, 2, 0)):
            row, column = 32 * panel + 16 * half + output, 32 * step + 2 * pair + odd
            for part, values in enumerate((high, low)[:parts]):
                assert numbers_of[panel, step, part, half, pair, output, odd] == values[row, column]
        rows = tiles.empty(16, 64)
        assert (len(rows.numbers), rows.numbers.any(), rows.scales.size) == (parts * 1024, False, 0)
    for count, kind in ((0, "float32"), (3, "int16"), (1000, "float64")):
        found = aligned(count, kind)
        assert (len(found), found.dtype.name, found.ctypes.data % 64) == (count, kind, 0) or count == 0
        assert not found.any()
    turned = numbers(2, 3).half().T.requires_grad_(False)
    assert flat(turned).tolist() == turned.float().reshape(-1).tolist() and flat(turned).dtype.name == "float32"
