"""Which family a model's files are of, what each refusal says in full, and small facts of taps and frozen products."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.gguf_file import GGUF
from firsthand.formats.model_files import TensorInfo
from firsthand.kernels.attention.score_terms import ScoreTerms
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.batched_lora import AdapterSpan, PackedAdapter, spans_of
from firsthand.nn.blocks.norm import RMSNorm, norm_of
from firsthand.nn.families import bart, deepseek, gemma, llama, qwen_moe, t5
from firsthand.nn.gguf_writer import _same
from firsthand.nn.model_config import (
    _shared_config,
    architecture_of,
    built,
    config_architecture,
    encoder_decoder_architecture,
    families,
    family_of,
    folder_architecture,
    gguf_architecture,
    is_gguf,
    to_config,
)
from firsthand.nn.quant import best_mode, frozen_product
from firsthand.nn.sites import Taps
from firsthand.nn.textbook_cache import TextbookCache

LEAST = {"vocab_size": 70, "hidden_size": 64, "intermediate_size": 90, "num_hidden_layers": 2, "num_attention_heads": 4}
A = Architecture(
    "llama", 70, 64, 90, 2, 4, num_kv_heads=4, head_dim=16, max_position=2048, norm_eps=1e-6, windows=(None,) * 2,
    ropes=(Rope(),) * 2, tie_embeddings=False,
)  # fmt: skip


def said(call: Any, *given: Any) -> str:
    """The sentence of a refused file."""
    with pytest.raises(ModelFileError) as told:
        call(*given)
    return str(told.value)


def test_a_path_is_a_gguf_file_or_a_folder_and_nothing_else(tmp_path: Path) -> None:
    names = ("m.gguf", "blob", "m.safetensors", "m.safetensors.gguf", "m.BIN")
    file, blob, weights, named, pickle = (tmp_path / name for name in names)
    for each in (file, blob, weights, named, pickle):
        each.write_bytes(b"")
    assert [is_gguf(each) for each in (file, blob, named, tmp_path)] == [True, True, True, False]
    assert said(is_gguf, tmp_path / "no") == (
        f"{tmp_path / 'no'} does not exist: give a .gguf file or a folder with config.json and safetensors"
    )
    assert said(is_gguf, weights) == (
        f"{weights} holds weights only: give its folder, which needs a config.json as well"
    )
    assert said(is_gguf, pickle).startswith(f"{pickle} is a pickle, and reading a pickle runs the code inside it: ")
    (tmp_path / "config.json").write_text(json.dumps({**LEAST, "model_type": "llama"}))
    assert architecture_of(str(tmp_path)) == architecture_of(tmp_path) == folder_architecture(tmp_path) == A
    assert built(lambda: 3, tmp_path) == 3

    def wrong() -> int:
        raise ConfigError("norm_eps is 2")

    assert said(built, wrong, tmp_path) == f"{tmp_path}: norm_eps is 2"


def test_every_name_of_a_family_leads_to_it_and_unknown_ones_are_listed() -> None:
    kinds = [(family, name) for family in families() for name in family.MODEL_TYPES]
    files = [(family, name) for family in families() for name in family.GGUF_ARCHITECTURES]
    assert len({name for _, name in kinds}) == len(kinds) and len({name for _, name in files}) == len(files)
    for family, name in kinds + files:
        if name != "llama":
            a = Architecture(name, *[8] * 8, 0.5, (None,) * 8, (Rope(),) * 8, True)
            assert family_of(a) is family, name
    assert family_of(A) is llama
    path = Path("models/config.json")
    unknown = said(config_architecture, {**LEAST, "model_type": "rwkv"}, path)
    assert (
        unknown == f"models/config.json: model_type is 'rwkv': expected one of {', '.join(name for _, name in kinds)}"
    )
    assert said(config_architecture, LEAST, path) == "models/config.json has no model_type: expected a string"
    assert said(config_architecture, {"model_type": "mpnet"}, path) == (
        "models/config.json is of an encoder (mpnet), which embeds texts and writes none: name it as embedder:NAME with "
        "--pattern embed, or as --embedder NAME"
    )
    assert said(
        config_architecture, {**LEAST, "model_type": "llama", "quantization_config": {"quant_method": "fp8"}}, path
    ) == (
        "models/config.json: quantization_config is 'fp8': expected gptq or awq; take the unquantised model or a GGUF file"
    )
    assert said(config_architecture, {**LEAST, "model_type": "llama", "rms_norm_eps": 1}, path) == (
        "models/config.json: norm_eps is 1.0: expected between 0 and 1"
    )
    assert said(encoder_decoder_architecture, {"model_type": "llama"}, path) == (
        "models/config.json: model_type is 'llama': expected one of t5, bart, marian"
    )
    small = {"vocab_size": 70, "d_model": 64, "num_layers": 2, "num_heads": 4, "d_ff": 96, "encoder_layers": 2,
             "decoder_layers": 3}  # fmt: skip
    for family, name in ((t5, "t5"), (bart, "bart"), (bart, "marian")):
        found = encoder_decoder_architecture({**small, "model_type": name}, path)
        assert found.family == name and name in family.MODEL_TYPES
    assert said(encoder_decoder_architecture, {**small, "model_type": "t5", "layer_norm_epsilon": 1}, path) == (
        "models/config.json: norm_eps is 1.0: expected between 0 and 1"
    )


def test_a_gguf_s_family_reads_the_keys_of_its_own_prefix() -> None:
    sizes = {"block_count": 2, "embedding_length": 64, "feed_forward_length": 90, "attention.head_count": 4,
             "context_length": 300, "attention.layer_norm_rms_epsilon": 0.01}  # fmt: skip
    table = {"token_embd.weight": TensorInfo("token_embd.weight", (70, 64), "F32", 0, 4)}

    def file(kind: str, **more: Any) -> GGUF:
        own = {f"{kind}.{key}": value for key, value in (sizes | more).items()}
        return GGUF(Path("a.gguf"), {"general.architecture": kind, "llama.context_length": 7} | own, table)

    family, found = gguf_architecture(file("qwen2"))
    assert (family.MODEL_TYPES[0], found.family, found.max_position) == ("qwen2", "qwen2", 300)
    assert gguf_architecture(file("gemma3"))[0] is gemma
    experts = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 20}
    assert gguf_architecture(file("qwen3moe", **experts))[0] is qwen_moe
    assert "deepseek2" in deepseek.GGUF_ARCHITECTURES
    names = ", ".join(name for each in families() for name in each.GGUF_ARCHITECTURES)
    assert said(gguf_architecture, file("rwkv7")) == (
        f"a.gguf: general.architecture is 'rwkv7': expected one of {names}"
    )
    wrong = file("qwen2", **{"attention.layer_norm_rms_epsilon": 1.0})
    assert said(gguf_architecture, wrong) == "a.gguf: norm_eps is 1.0: expected between 0 and 1"


def test_every_config_has_the_shared_sizes_and_no_special_tokens() -> None:
    shared = {
        "vocab_size": 70, "hidden_size": 64, "intermediate_size": 90, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "bos_token_id": None,
        "eos_token_id": None, "pad_token_id": None,
    }  # fmt: skip
    assert _shared_config(A) == shared
    assert to_config(A) == {**shared, **llama.to_config(A)}
    assert {key: to_config(A)[key] for key in shared} == shared


def test_a_norm_is_of_the_kind_width_and_eps_that_the_architecture_has() -> None:
    plain, offset = norm_of(A), norm_of(replace(A, norm_unit_offset=True))
    assert isinstance(plain, RMSNorm) and (plain.eps, plain.unit_offset, len(plain.weight)) == (1e-6, False, 64)
    assert isinstance(offset, RMSNorm) and offset.unit_offset
    layer, bare = norm_of(replace(A, norm="layer")), norm_of(replace(A, norm="layer_no_bias", norm_eps=0.5))
    assert isinstance(layer, nn.LayerNorm) and (layer.normalized_shape, layer.eps) == ((64,), 1e-6)
    assert layer.bias is not None and isinstance(bare, nn.LayerNorm) and (bare.bias, bare.eps) == (None, 0.5)


def test_two_architectures_are_the_same_up_to_float32() -> None:
    rope = Rope(500.0, "linear", 2.0)
    near = Rope(500.0 * (1 + 5e-7), "linear", 2.0)
    for one, other, same in (
        (1.0, 1.0 + 5e-7, True), (1.0, 1.0 + 2e-6, False), (1, 1, True), (1, 2, False), ("a", "a", True), (None, None, True),
        (None, 0.0, False), (1.0, None, False), ((1.0, 2.0), (1.0 + 5e-7, 2.0), True), ((1.0, 2.0), (1.0, 2.1), False),
        ((1.0,), (1.0, 2.0), False), ((), (), True), ((rope, None), (near, None), True),
        (rope, Rope(501.0, "linear", 2.0), False), (rope, Rope(500.0, "ntk", 2.0), False),
        (rope, None, False), ((1.0,), [1.0], False),
    ):  # fmt: skip
        assert (_same(one, other), _same(other, one)) == (same, same), (one, other)


def test_a_tap_that_is_unknown_or_returns_another_kind_of_tensor_is_told_in_full() -> None:
    sites = ("embed", "blocks.0.attn.in", "blocks.0.attn.out", "norm", "logits")
    for site, hint in (
        ("blocks.0.attn.inn", "did you mean 'blocks.0.attn.in'?"),
        ("zzz", "there are embed, blocks.0.attn.in, blocks.0.attn.out ... logits"),
    ):
        with pytest.raises(ConfigError) as told:
            Taps.of({"norm": lambda values: None, site: lambda values: None}, sites)
        assert str(told.value) == f"no activation site {site!r} in this model; {hint}"
    x = torch.zeros(2, 3)
    for replaced, what in ((x[:1], "(1, 3) torch.float32"), (x.half(), "(2, 3) torch.float16")):
        taps = Taps.of({"blocks.0.attn.in": lambda values, new=replaced: new}, sites)
        with pytest.raises(ConfigError) as told:
            taps.within("blocks.0.")("attn.in", x)
        assert str(told.value) == (
            f"the tap on blocks.0.attn.in returned {what} on cpu: expected (2, 3) torch.float32 on cpu, or None to leave it "
            "as it is"
        )
    assert Taps.of({}, sites)("norm", x) is x


class Twice:
    """Frozen weights whose product is counted."""

    def __init__(self) -> None:
        self.weight, self.products = torch.tensor([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]]), 0

    def product(self, x_NK: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled() or not x_NK.requires_grad
        self.products += 1
        return x_NK.float() @ self.weight.T


def test_a_gradient_reaches_the_inputs_of_frozen_weights_in_their_own_dtype() -> None:
    module = Twice()
    x = torch.tensor([[1.0, 0.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    out = frozen_product(x, module)
    assert out.tolist() == [[-1.0, 6.5]] and out.requires_grad
    (out * torch.tensor([[2.0, -1.0]])).sum().backward()
    assert x.grad is not None and (x.grad.dtype, x.grad.tolist()) == (torch.bfloat16, [[1.5, 4.0, -5.0]])
    with torch.no_grad():
        assert not frozen_product(x, module).requires_grad
    assert not frozen_product(x.detach(), module).requires_grad and module.products == 3
    here = "float16" if find_spec("numba") else "float32"
    assert [best_mode(), best_mode("cpu"), best_mode(torch.device("cpu")), best_mode("cuda"), best_mode("cuda:1")] == [
        here, here, here, "float32", "float32",
    ]  # fmt: skip


def test_a_full_cache_refuses_new_tokens_and_keeps_what_it_has() -> None:
    cache, x = TextbookCache(max_length=3), torch.ones(2, 1, 2)
    cache(0, x, x, x, scale=1.0, window=None)
    with pytest.raises(ConfigError, match=r"^the cache would hold 4 tokens: expected at most max_length \(3\)$"):
        cache(0, x, x, x, scale=1.0, window=None)
    assert (cache.length(0), cache.length(1)) == (2, 0)
    one = x[:1]
    found = cache(0, one, one, 3 * one, scale=1.0, window=1, terms=ScoreTerms())
    assert (cache.length(0), found.tolist()) == (3, [[[3.0, 3.0]]])  # a window of 1 is the token itself
    assert TextbookCache().max_length == 1 << 20


def test_runs_of_rows_of_one_adapter_that_touch_are_one_span() -> None:
    red, blue = (PackedAdapter({}, torch.zeros(0).numpy(), {}, 1, 0) for _ in range(2))
    assert spans_of([], []) == [] == spans_of([None, red], [3, 0])
    assert spans_of([None, red, red, blue, red, None, red], [2, 3, 1, 1, 2, 0, 4]) == [
        AdapterSpan(2, 6, red), AdapterSpan(6, 7, blue), AdapterSpan(7, 13, red),
    ]  # fmt: skip
    assert spans_of([red, None, red], [1, 2, 1]) == [AdapterSpan(0, 1, red), AdapterSpan(3, 4, red)]
    with pytest.raises(ValueError, match="zip"):
        spans_of([red], [1, 2])
