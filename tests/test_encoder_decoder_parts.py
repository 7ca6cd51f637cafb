"""An encoder-decoder's parts written out: layers, sources, greedy output, its files, and its shape for the engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from firsthand.engine.compute.runner import Runner
from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.kernels.attention.score_terms import ScoreTerms
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.encoder import Together
from firsthand.nn.encoder_decoder import (
    EncoderDecoder,
    FeedForward,
    LayerStack,
    ProjectedAttention,
    Sources,
    StackBlock,
)
from firsthand.nn.encoder_decoder_architecture import EncoderDecoderArchitecture
from firsthand.nn.encoder_decoder_weights import (
    file_name,
    is_encoder_decoder,
    load_encoder_decoder,
    save_encoder_decoder,
)
from firsthand.nn.families import bart, t5
from firsthand.nn.sourced_decoder import SourcedAttend, SourcedDecoder, decoder_architecture, joined

T5 = EncoderDecoderArchitecture(
    "t5", 20, 12, 1, 2, 4, 2, 6, 16, 18, "relative", 30, 1e-6, is_t5=True, activation="gelu_tanh", is_gated=True,
    num_buckets=8, max_distance=20, logit_scale=12**-0.5, end=1,
)  # fmt: skip
BART = EncoderDecoderArchitecture(
    "bart", 20, 12, 1, 2, 4, 2, 3, 16, 18, "learned", 30, 1e-5, activation="gelu", position_offset=2, embed_norm=True,
    embed_scale=12**0.5, has_logit_bias=True, decoder_start=2, end=3,
)  # fmt: skip
SAVED = replace(T5, decoder_heads=4, decoder_width=16)
"""T5's config.json has one number of heads and one width."""
MARIAN = replace(
    BART, family="marian", positions="sinusoidal", position_offset=0, embed_norm=False, activation="silu",
    decoder_start=0,
)  # fmt: skip


def filled(module: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in module.parameters():
            each.copy_(torch.randn(each.shape, generator=generator) * 0.5)
    return module


def numbers(*shape: int, seed: int = 9) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Seen:
    """An `Attend` that keeps what came, and returns the queries plus the sum of the values."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, scale: float, window: int | None, terms: Any
    ) -> Tensor:
        self.calls.append((layer, q, k, v, scale, window, terms))
        return q + v.sum(0)


@torch.no_grad()
def test_projections_scores_and_mlps_are_t5_s_or_bart_s() -> None:
    x, source = numbers(5, 12), numbers(3, 12, seed=1)
    for a, scale, width in ((T5, 1.0, 24), (BART, 6**-0.5, 12)):
        part: ProjectedAttention = filled(ProjectedAttention(a, 7, 2))
        assert [each.bias is None for each in (part.q_proj, part.k_proj, part.v_proj, part.o_proj)] == [a.is_t5] * 4
        keys, values = part.keys_and_values(source)
        for found, proj in ((keys, part.k_proj), (values, part.v_proj)):
            assert torch.equal(found, proj(source).reshape(3, 2, width // 2))
        seen = Seen()
        out = part(x, (keys, values), seen, "terms")  # type: ignore[arg-type]
        q = part.q_proj(x).reshape(5, 2, width // 2)
        assert torch.allclose(out, part.o_proj((q + values.sum(0)).flatten(1)), atol=1e-5)
        layer, query, k, v, by, window, terms = seen.calls[0]
        assert (layer, by, window, terms) == (7, pytest.approx(scale), None, "terms")
        assert torch.equal(query, q) and k is keys and v is values
    gated: FeedForward = filled(FeedForward(T5, 16))
    assert gated.gate_proj is not None and gated.up_proj.bias is None and gated.down_proj.bias is None
    wide = functional.gelu(gated.gate_proj(x), approximate="tanh") * gated.up_proj(x)
    assert torch.allclose(gated(x), gated.down_proj(wide), atol=1e-5)
    plain: FeedForward = filled(FeedForward(BART, 16))
    assert plain.gate_proj is None and plain.up_proj.bias is not None and plain.up_proj.out_features == 16
    assert torch.allclose(plain(x), plain.down_proj(functional.gelu(plain.up_proj(x))), atol=1e-5)


@torch.no_grad()
def test_t5_norms_before_its_parts_and_bart_after_its_sums() -> None:
    x = numbers(5, 12)
    for a in (T5, BART):
        block: StackBlock = filled(StackBlock(a, 1, is_decoder=True))
        assert (block.self_attention.num_heads, block.mlp.up_proj.out_features) == (2, 18)
        kv = block.cross_attention.keys_and_values(numbers(3, 12, seed=1))  # type: ignore[union-attr]
        other = (numbers(3, 2, 1), numbers(3, 2, 1))
        sources = Sources((other[0], kv[0]), (other[1], kv[1]), (3,))
        seen = Seen()
        found = block(x, seen, "own", sources)  # type: ignore[arg-type]
        assert [call[0] for call in seen.calls] == [1, 1] and seen.calls[0][-1] == "own"
        assert vars(seen.calls[1][-1]) == vars(ScoreTerms(source_lengths=(3,)))

        def step(x: Tensor, norm: Any, part: Any, is_pre: bool = a.is_t5) -> Tensor:
            return x + part(norm(x)) if is_pre else norm(x + part(x))

        own, cross = block.self_attention, block.cross_attention
        assert cross is not None

        def itself(x: Tensor, own: Any = own) -> Tensor:
            return own(x, own.keys_and_values(x), Seen(), None)  # type: ignore[no-any-return]

        def across(x: Tensor, cross: Any = cross, kv: Any = kv) -> Tensor:
            return cross(x, kv, Seen(), None)  # type: ignore[no-any-return]

        y = step(x, block.self_attention_norm, itself)
        without = step(y, block.mlp_norm, block.mlp)
        y = step(y, block.cross_attention_norm, across)
        assert torch.allclose(found, step(y, block.mlp_norm, block.mlp), atol=1e-4)
        assert torch.allclose(block(x, Seen(), None), without, atol=1e-4)
        encoder = StackBlock(a, 0, is_decoder=False)
        assert encoder.cross_attention is None and isinstance(encoder.cross_attention_norm, nn.Identity)
        assert (encoder.self_attention.num_heads, encoder.mlp.up_proj.out_features) == (4, 16)


@torch.no_grad()
def test_a_stack_adds_its_kind_of_positions_around_its_layers() -> None:
    x, places = numbers(5, 12), torch.tensor([0, 1, 2, 0, 1])
    for a in (T5, BART, MARIAN):
        for is_decoder in (False, True):
            stack: LayerStack = filled(LayerStack(a, is_decoder=is_decoder))
            assert len(stack.layers) == 1 + is_decoder
            assert (stack.buckets is not None, stack.positions is not None) == (a is T5, a is BART)
            y = x
            if stack.positions is not None:
                assert stack.positions.weight.shape == (32, 12)
                y = y + stack.positions.weight[places + 2]
            if a is MARIAN:  # sines, then cosines
                angles = places[:, None] * 10_000 ** (-torch.arange(6) / 6)
                y = y + torch.cat([angles.sin(), angles.cos()], -1)
            y = stack.embed_norm(y)
            assert isinstance(stack.embed_norm, nn.Identity) == (a is not BART)
            seen = Seen()
            found = stack(x, places, seen)
            terms = seen.calls[0][-1]
            if a is T5:
                assert stack.buckets is not None and stack.buckets.weight.shape == (8, 2 if is_decoder else 4)
                assert terms.bias.is_causal is is_decoder and all(call[-1] is terms for call in seen.calls)
                assert (terms.bias.max_distance, len(seen.calls)) == (20, len(stack.layers))
            else:
                assert terms is None
            for layer in stack.layers:
                y = layer(y, Seen(), None)
            assert torch.allclose(found, stack.norm(y), atol=1e-4)
            assert isinstance(stack.norm, nn.Identity) != (a is T5)


@torch.no_grad()
def test_the_whole_model_scales_embeddings_and_logits_and_its_sources_are_each_layer_s() -> None:
    ids, lengths = torch.tensor([4, 9, 19, 4]), [3, 1]
    for a in (T5, replace(T5, tie_embeddings=False), BART):
        model: EncoderDecoder = filled(EncoderDecoder(a))
        places, embedded = torch.tensor([0, 1, 2, 0]), model.embed.weight[ids] * (12**0.5 if a is BART else 1.0)
        hidden = model.encode(ids, lengths)
        assert torch.allclose(hidden, model.encoder(embedded, places, Together(lengths)), atol=1e-5)
        sources = model.sources(hidden, lengths)
        assert sources.lengths == (3, 1) and len(sources.keys) == len(sources.values) == 2
        second = model.decoder.layers[1].cross_attention.keys_and_values(hidden)  # type: ignore[union-attr, operator]
        assert torch.equal(sources.keys[1], second[0]) and torch.equal(sources.values[1], second[1])
        out = model(ids, places, Packed(lengths), sources)
        assert torch.allclose(out, model.decoder(embedded, places, Packed(lengths), sources), atol=1e-5)
        head = model.embed.weight if model.lm_head is None else model.lm_head.weight
        assert (model.lm_head is None) == a.tie_embeddings
        bias = 0 if model.logit_bias is None else model.logit_bias
        assert torch.allclose(model.logits(out), out * a.logit_scale @ head.T + bias, atol=1e-4)


def test_greedy_output_ends_with_the_end_token_or_at_the_longest() -> None:
    model: EncoderDecoder = filled(EncoderDecoder(BART)).eval()
    source = [4, 9, 19]
    with torch.no_grad():
        found: list[int] = []
        sources = model.sources(model.encode(torch.tensor(source), [3]), [3])
        for _ in range(6):  # all is computed again for each token
            ids = [2, *found]
            hidden = model(torch.tensor(ids), torch.arange(len(ids)), Packed([len(ids)]), sources)
            found.append(int(model.logits(hidden[-1:]).argmax()))
    model.architecture = replace(BART, end=None)
    assert model.generate(source, max_tokens=6) == found and model.generate(source, max_tokens=0) == []
    assert len(model.generate(source, max_tokens=99)) == 30  # rows of positions
    model.architecture = replace(BART, end=found[-1])
    assert model.generate(source, max_tokens=99) == found[: found.index(found[-1]) + 1]
    said = "tokens: expected 1 to 30 of them, each below 20"
    for wrong in ([], [1] * 31, [20], [-1]):
        with pytest.raises(ConfigError, match=f"^the source has {len(wrong)} {said}$"):
            model.generate(wrong, max_tokens=1)
    assert len(model.generate([0] * 30, max_tokens=1)) == 1


@torch.no_grad()
def test_the_engine_sees_the_decoder_with_the_sources_of_each_sequence() -> None:
    model: EncoderDecoder = filled(EncoderDecoder(BART)).eval()
    assert decoder_architecture(BART) == Architecture(
        "bart", 20, 12, 18, 2, 2, num_kv_heads=2, head_dim=6, max_position=30, norm_eps=1e-5, windows=(None, None),
        ropes=(Rope(kind="none"),) * 2, tie_embeddings=True, activation="gelu", is_gated=False,
    )  # fmt: skip
    assert decoder_architecture(T5).is_gated and decoder_architecture(T5).head_dim == 12
    sourced = SourcedDecoder(model)
    assert sourced.lm_head.weight is model.embed.weight and sourced.embed is model.embed and sourced.sites() == ()
    assert not len(sourced.layers) and sourced.architecture == decoder_architecture(BART)
    own: EncoderDecoder = filled(EncoderDecoder(replace(T5, tie_embeddings=False)))
    assert SourcedDecoder(own).lm_head is own.lm_head
    texts = [(4, 9, 19), (7,)]
    for graphs in (True, False, None):
        run = Runner(sourced, num_blocks=4, block_size=16, graphs=graphs)
        assert run.modules is not None and run.modules.steps is None, "cross-attention has no fixed shape"
        assert [len(pages.keys) for pages in run.pages] == [4] * len(run.pages) and run.fused is None
        assert run.not_compiled == "it is an encoder-decoder"
    first, second = sourced.encoded(texts)
    for text, made in zip(texts, (first, second), strict=True):
        alone = model.sources(model.encode(torch.tensor(text), [len(text)]), [len(text)])
        assert made.lengths == alone.lengths == (len(text),)
        for one, other in zip((*made.keys, *made.values), (*alone.keys, *alone.values), strict=True):
            assert torch.allclose(one, other, atol=1e-5)
    both = joined([second, first])
    assert both.lengths == (1, 3) and joined([first]) is first
    assert torch.equal(both.keys[1], torch.cat([second.keys[1], first.keys[1]]))
    assert torch.equal(both.values[0], torch.cat([second.values[0], first.values[0]]))
    ids, places = torch.tensor([2, 5, 2]), torch.tensor([0, 1, 0])
    attend = SourcedAttend(Packed([2, 1]), both, [2, 1])
    expected = model(ids, places, Packed([2, 1]), both)
    hidden = sourced(ids, places, attend)
    assert torch.allclose(hidden, expected, atol=1e-5)
    assert torch.allclose(sourced.logits(hidden), model.logits(expected), atol=1e-4)
    assert torch.allclose(SourcedDecoder(own).logits(hidden), own.logits(hidden), atol=1e-4)
    with pytest.raises(ConfigError, match=r"^an encoder-decoder has no sites: "):
        sourced.checked({})
    with pytest.raises(AssertionError, match="an encoder-decoder's step has sources"):
        sourced(ids, places, Packed([2, 1]))
    seen = Seen()
    q, k = numbers(3, 2, 4), numbers(3, 2, 4, seed=1)
    terms = ScoreTerms(softcap=2.0)
    SourcedAttend(seen, both, [2, 1])(5, q, k, k, scale=0.5, window=4, terms=terms)  # type: ignore[arg-type]
    assert seen.calls[0][0] == 5 and seen.calls[0][4:] == (0.5, 4, terms)


@pytest.mark.slow
@pytest.mark.parametrize(
    "a", [SAVED, replace(SAVED, tie_embeddings=False), BART, MARIAN], ids=["t5", "t5 head", "bart", "marian"]
)
def test_a_saved_model_is_read_back_and_files_may_repeat_the_shared_table(
    a: EncoderDecoderArchitecture, tmp_path: Path
) -> None:
    model: EncoderDecoder = filled(EncoderDecoder(a)).to(torch.bfloat16)
    folder = tmp_path / "new" / "m"
    for _ in range(2):  # the second takes the place of the first
        save_encoder_decoder(model, folder)
    assert (
        is_encoder_decoder(folder)
        and not is_encoder_decoder(tmp_path)
        and not is_encoder_decoder(folder / "config.json")
    )
    assert sorted(each.name for each in folder.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    family: Any = t5 if a.is_t5 else bart
    assert config == {
        "is_encoder_decoder": True, "vocab_size": 20, "decoder_start_token_id": a.decoder_start, "eos_token_id": a.end,
        **family.to_config(a), "dtype": "bfloat16",
    }  # fmt: skip
    assert (folder / "config.json").read_text() == json.dumps(config, indent=2) + "\n"
    loaded = load_encoder_decoder(str(folder))
    assert loaded.architecture == a and not loaded.training and loaded.embed.weight.dtype == torch.float32
    for (name, one), (_, other) in zip(loaded.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(one, other.float()), name
    assert load_encoder_decoder(folder, dtype=torch.float16).embed.weight.dtype == torch.float16
    state = load_file(folder / "model.safetensors")
    if a.has_logit_bias:
        assert state.pop("final_logits_bias").shape == (1, 20)
    copies = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "model.encoder.embed_tokens.weight",
              *([] if a.is_t5 else ["lm_head.weight"])]  # fmt: skip
    table = state["shared.weight" if a.is_t5 else "model.shared.weight"]
    positions = {"model.decoder.embed_positions.weight": torch.ones(1)} if a is MARIAN else {}
    save_file({**state, **positions, **{name: table.clone() for name in copies}}, folder / "model.safetensors")
    again = load_encoder_decoder(folder)
    if a.has_logit_bias:
        assert again.logit_bias is not None and not again.logit_bias.any()
    save_file({**state, "model.extra": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(ModelFileError) as refused:
        load_encoder_decoder(folder)
    assert str(refused.value) == f"{folder} does not hold the {a.family} it says: 1 surplus: model.extra"
    with pytest.raises(
        ModelFileError, match=r"is no folder: an encoder-decoder is read from config\.json and safetensors$"
    ):
        load_encoder_decoder(folder / "config.json")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    assert not is_encoder_decoder(folder)


def test_a_head_in_the_file_counts_whatever_the_config_says_and_outputs_begin_and_end_as_before(tmp_path: Path) -> None:
    a = replace(SAVED, tie_embeddings=False, decoder_start=4, end=7)
    model: EncoderDecoder = filled(EncoderDecoder(a))
    save_encoder_decoder(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    told = [
        config[key] for key in ("is_encoder_decoder", "vocab_size", "decoder_start_token_id", "eos_token_id", "dtype")
    ]
    assert told == [True, 20, 4, 7, "float32"] and config["tie_word_embeddings"]
    loaded = load_encoder_decoder(tmp_path)
    assert loaded.architecture == a and not loaded.training
    assert loaded.lm_head is not None and model.lm_head is not None
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight) and torch.equal(
        loaded.embed.weight, model.embed.weight
    )
    assert load_encoder_decoder(tmp_path, dtype=torch.bfloat16).embed.weight.dtype == torch.bfloat16
    assert is_encoder_decoder(tmp_path) and not is_encoder_decoder(tmp_path / "config.json")
    (tmp_path / "config.json").unlink()
    assert not is_encoder_decoder(tmp_path)


def test_a_bias_of_the_logits_has_a_dimension_more_in_files_and_is_zeros_where_a_file_leaves_it_out(
    tmp_path: Path,
) -> None:
    model: EncoderDecoder = filled(EncoderDecoder(BART))
    save_encoder_decoder(model, tmp_path)
    loaded, state = load_encoder_decoder(tmp_path), load_file(tmp_path / "model.safetensors")
    assert loaded.logit_bias is not None and model.logit_bias is not None
    assert torch.equal(loaded.logit_bias, model.logit_bias) and state.pop("final_logits_bias").shape == (1, 20)
    copies = ("lm_head.weight", "model.encoder.embed_tokens.weight")
    save_file(
        {**state, **{name: state["model.shared.weight"].clone() for name in copies}}, tmp_path / "model.safetensors"
    )
    without = load_encoder_decoder(tmp_path)
    assert without.architecture.tie_embeddings and without.lm_head is None, (
        "a copy of the embedding is no head of its own"
    )
    assert without.logit_bias is not None and without.logit_bias.tolist() == [0.0] * 20
    for name, said in (
        ("lm_head.weight", r"1 misshapen: lm_head\.weight \(1,\) where \(20, 12\) was expected$"),
        ("model.encoder.embed_tokens.weight", r": model\.encoder\.embed_tokens\.weight is not model\.shared\.weight: "),
    ):
        save_file({**state, name: torch.ones(1)}, tmp_path / "model.safetensors")
        with pytest.raises(ModelFileError, match=said):
            load_encoder_decoder(tmp_path)
    save_file({**state, "model.encoder.embed_positions.extra": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"1 surplus: model\.encoder\.embed_positions\.extra$"):
        load_encoder_decoder(tmp_path)


def test_each_parameter_has_its_name_in_the_family_s_files() -> None:
    q = "self_attention.q_proj.weight"
    assert [file_name(ours, T5) for ours in (
        "embed.weight", f"encoder.layers.10.{q}", "decoder.layers.1.cross_attention.o_proj.weight",
        "decoder.layers.1.mlp.gate_proj.weight", "encoder.layers.0.mlp.down_proj.weight", "decoder.layers.1.mlp_norm.weight",
        "decoder.layers.2.cross_attention_norm.weight", "encoder.buckets.weight", "decoder.norm.weight",
        "encoder.layers.0.self_attention_norm.weight",
    )] == [
        "shared.weight", "encoder.block.10.layer.0.SelfAttention.q.weight",
        "decoder.block.1.layer.1.EncDecAttention.o.weight",
        "decoder.block.1.layer.2.DenseReluDense.wi_0.weight", "encoder.block.0.layer.1.DenseReluDense.wo.weight",
        "decoder.block.1.layer.2.layer_norm.weight", "decoder.block.2.layer.1.layer_norm.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "decoder.final_layer_norm.weight",
        "encoder.block.0.layer.0.layer_norm.weight",
    ]  # fmt: skip
    up = "decoder.layers.1.mlp.up_proj.weight"
    assert [file_name(up, replace(T5, is_gated=gated)) for gated in (True, False)] == [
        f"decoder.block.1.layer.2.DenseReluDense.{name}.weight" for name in ("wi_1", "wi")
    ]
    assert [file_name(ours, BART) for ours in (
        "embed.weight", "logit_bias", f"encoder.layers.10.{q}", "decoder.layers.1.cross_attention.o_proj.bias",
        "decoder.layers.1.mlp.up_proj.bias", "encoder.layers.0.mlp.down_proj.weight", "decoder.layers.1.mlp_norm.bias",
        "decoder.layers.1.cross_attention_norm.weight", "encoder.positions.weight", "decoder.embed_norm.bias",
    )] == [
        "model.shared.weight", "final_logits_bias", "model.encoder.layers.10.self_attn.q_proj.weight",
        "model.decoder.layers.1.encoder_attn.out_proj.bias", "model.decoder.layers.1.fc1.bias",
        "model.encoder.layers.0.fc2.weight", "model.decoder.layers.1.final_layer_norm.bias",
        "model.decoder.layers.1.encoder_attn_layer_norm.weight", "model.encoder.embed_positions.weight",
        "model.decoder.layernorm_embedding.bias",
    ]  # fmt: skip


def test_configs_of_t5_and_bart_have_their_defaults_and_every_key_counts() -> None:
    least = {"d_model": 12, "num_layers": 3, "num_heads": 4, "d_ff": 16, "vocab_size": 20}
    found = t5.from_config(Fields(least, "c"))
    assert found == EncoderDecoderArchitecture(
        "t5", 20, 12, 3, 3, 4, 4, 64, 16, 16, "relative", 512, 1e-6, is_t5=True, num_buckets=32, max_distance=128,
        logit_scale=12**-0.5, decoder_start=0, end=1,
    )  # fmt: skip
    given = {
        "num_decoder_layers": 2, "d_kv": 6, "n_positions": 30, "layer_norm_epsilon": 0.01, "feed_forward_proj": "gated-silu",
        "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20, "pad_token_id": 5, "eos_token_id": 7,
        "tie_word_embeddings": False,
    }  # fmt: skip
    most = t5.from_config(Fields({**least, **given}, "c"))
    assert most == EncoderDecoderArchitecture(
        "t5", 20, 12, 3, 2, 4, 4, 6, 16, 16, "relative", 30, 0.01, is_t5=True, activation="silu", is_gated=True,
        num_buckets=8, max_distance=20, decoder_start=5, end=7,
    )  # fmt: skip
    told = {"n_positions": 0, "decoder_start_token_id": 3, "pad_token_id": 5, "scale_decoder_outputs": True}
    other = t5.from_config(Fields({**least, **given, **told}, "c"))
    assert (other.max_position, other.decoder_start, other.logit_scale) == (512, 3, 12**-0.5)
    assert t5.to_config(most) == {
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 12, "d_kv": 6, "d_ff": 16,
        "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4, "n_positions": 30, "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20, "feed_forward_proj": "gated-silu", "layer_norm_epsilon": 0.01,
        "tie_word_embeddings": False, "pad_token_id": 0,
    }  # fmt: skip
    assert t5.to_config(found)["tie_word_embeddings"] is True and t5.to_config(found)["feed_forward_proj"] == "relu"
    least = {"model_type": "bart", "d_model": 64, "encoder_layers": 3, "decoder_layers": 2, "vocab_size": 20}
    found = bart.from_config(Fields(least, "c"))
    assert found == EncoderDecoderArchitecture(
        "bart", 20, 64, 3, 2, 16, 16, 4, 4096, 4096, "learned", 1024, 1e-5, activation="gelu", position_offset=2,
        embed_norm=True, has_logit_bias=True, decoder_start=2, end=2,
    )  # fmt: skip
    given = {
        "model_type": "marian", "encoder_attention_heads": 8, "decoder_attention_heads": 4, "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 18, "max_position_embeddings": 30, "activation_function": "swish", "scale_embedding": True,
        "decoder_start_token_id": 6, "eos_token_id": 7,
    }  # fmt: skip
    most = bart.from_config(Fields({**least, **given}, "c"))
    assert most == EncoderDecoderArchitecture(
        "marian", 20, 64, 3, 2, 8, 4, 8, 16, 18, "sinusoidal", 30, 1e-5, activation="silu", embed_scale=8.0,
        has_logit_bias=True, decoder_start=6, end=7,
    )  # fmt: skip
    assert bart.to_config(most) == {
        "architectures": ["MarianMTModel"], "model_type": "marian", "d_model": 64, "encoder_layers": 3, "decoder_layers": 2,
        "encoder_attention_heads": 8, "decoder_attention_heads": 4, "encoder_ffn_dim": 16, "decoder_ffn_dim": 18,
        "max_position_embeddings": 30, "pad_token_id": 6, "activation_function": "swish", "scale_embedding": True,
        "tie_word_embeddings": True,
    }  # fmt: skip
    assert bart.to_config(replace(most, tie_embeddings=False))["tie_word_embeddings"] is False
    plain = bart.to_config(found)
    assert (plain["architectures"], plain["pad_token_id"], plain["activation_function"], plain["scale_embedding"]) == (
        ["BartForConditionalGeneration"], 1, "gelu", False
    )  # fmt: skip
    for key, value, said in (
        ("normalize_before", True, "normalize_before is 'True': expected false, with no final norm"),
        ("add_final_layer_norm", True, "normalize_before is 'True': expected false, with no final norm"),
        ("share_encoder_decoder_embeddings", False, "share_encoder_decoder_embeddings is 'False': expected true"),
    ):
        with pytest.raises(ModelFileError, match=f"^c: {said}"):
            bart.from_config(Fields({**least, key: value}, "c"))
    with pytest.raises(ConfigError, match=r"^head_dim is 0: "):
        bart.from_config(Fields({**least, "encoder_attention_heads": 7}, "c"))
