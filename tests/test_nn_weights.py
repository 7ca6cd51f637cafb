"""Checkpoints against transformers: what it writes we load, what we write it loads, and GGUF gives the same numbers."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from firsthand.errors import ConfigError, FirsthandError, ModelFileError
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.blocks.rope import frequencies
from firsthand.nn.decoder import Decoder
from firsthand.nn.matrices import num_parameters
from firsthand.nn.quant import BlockLinear, best_mode
from firsthand.nn.weights import architecture_of, load, save

torch.set_num_threads(1)
SIZES: dict[str, Any] = dict(
    vocab_size=131,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=5e5,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=32)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3_untied": ("Llama", dict(rope_parameters=LLAMA3, tie_word_embeddings=False, rms_norm_eps=1e-5)),
    "llama_tied_biased": ("Llama", dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True)),
    "llama_linear": ("Llama", dict(rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=2.0))),
    "llama_yarn": ("Llama", dict(rope_parameters=YARN)),
    "llama_yarn_mscale": ("Llama", dict(rope_parameters={**YARN, "mscale": 0.8, "mscale_all_dim": 0.5})),
    "llama_wide_heads": ("Llama", dict(head_dim=32)),
    "mistral_window": ("Mistral", dict(sliding_window=8)),
    "mistral_full": ("Mistral", dict(sliding_window=None)),
    "qwen2": ("Qwen2", dict(rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "qwen2_window": ("Qwen2", dict(use_sliding_window=True, sliding_window=8, max_window_layers=1)),
    "qwen3": ("Qwen3", dict(head_dim=32, tie_word_embeddings=True)),
    "gemma3": (
        "Gemma3",
        dict(
            num_hidden_layers=7,
            head_dim=32,
            sliding_window=8,
            query_pre_attn_scalar=48,
            rope_parameters=dict(
                sliding_attention=dict(rope_type="default", rope_theta=1e4),
                full_attention=dict(rope_type="linear", rope_theta=1e6, factor=8.0),
            ),
        ),
    ),
    "gemma3_softcap": ("Gemma3", dict(head_dim=16, sliding_window=8, final_logit_softcapping=3.0)),
}


def reference(name: str, *, seed: int = 0) -> Any:
    """A transformers model with random weights whose norms and biases are random too, so that none can be forgotten."""
    kind, changes = FAMILIES[name]
    config_class = getattr(transformers, f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config")
    config = config_class(**{**SIZES, **deepcopy(changes)}, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.dim() > 1 else 0.3))
    return model


def logprobs(model: Decoder, ids: list[int]) -> Tensor:
    with torch.no_grad():
        hidden_ND = model(torch.tensor(ids), torch.arange(len(ids)), Packed([len(ids)]))
        return model.logits(hidden_ND).log_softmax(-1)


def reference_logprobs(model: Any, ids: list[int]) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        return result


def greedy(step: Any, ids: list[int], steps: int = 32) -> list[int]:
    for _ in range(steps):
        ids = [*ids, int(step(ids)[-1].argmax())]
    return ids


PROMPT = [5, 77, 130, 0, 12, 12, 99, 3]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_what_transformers_writes_we_load_and_what_we_write_it_loads(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    assert sum(p.numel() for p in ours.parameters()) == num_parameters(ours.architecture)
    ids = greedy(lambda ids: reference_logprobs(theirs, ids), PROMPT)
    assert greedy(lambda ids: logprobs(ours, ids), PROMPT) == ids
    assert len(ids) > 3 * 8, "longer than the windows"
    torch.testing.assert_close(logprobs(ours, ids), reference_logprobs(theirs, ids), atol=1e-4, rtol=0)

    save(ours, tmp_path / "ours")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert type(back) is type(theirs)
    torch.testing.assert_close(reference_logprobs(back, ids), reference_logprobs(theirs, ids), atol=1e-4, rtol=0)
    assert architecture_of(tmp_path / "ours") == ours.architecture


def test_old_style_configs_give_the_same_architecture(tmp_path: Path) -> None:
    def rewrite(name: str, drop: list[str], put: dict[str, Any]) -> tuple[Any, Any]:
        folder = tmp_path / name
        reference(name).config.save_pretrained(folder)
        new = architecture_of(folder)
        config = json.loads((folder / "config.json").read_text())
        config = {key: value for key, value in config.items() if key not in drop} | put
        (folder / "config.json").write_text(json.dumps(config))
        return new, architecture_of(folder)

    old = {key: value for key, value in LLAMA3.items() if key not in ("rope_type", "rope_theta")}
    for key in ("rope_type", "type"):
        new, again = rewrite(
            "llama3_untied", ["rope_parameters"], {"rope_theta": 5e5, "rope_scaling": {**old, key: "llama3"}}
        )
        assert new == again and new.ropes[0].kind == "llama3"
    new, again = rewrite("qwen2_window", ["layer_types"], {})
    assert new == again and new.windows == (None, 8, 8)
    new, again = rewrite(
        "gemma3",
        ["rope_parameters", "layer_types"],
        {
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "sliding_window_pattern": 6,
        },
    )
    assert new == again and new.windows == (8, 8, 8, 8, 8, None, 8)
    assert (new.ropes[0].kind, new.ropes[5].kind) == ("default", "linear")


def test_sharded_checkpoints_load(tmp_path: Path) -> None:
    theirs = reference("llama3_untied")
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    torch.testing.assert_close(logprobs(load(tmp_path), PROMPT), reference_logprobs(theirs, PROMPT), atol=1e-4, rtol=0)


def test_an_index_cannot_name_files_outside_its_folder(tmp_path: Path) -> None:
    reference("llama3_untied").save_pretrained(tmp_path / "a", max_shard_size="100KB")
    (tmp_path / "outside.safetensors").write_bytes(next((tmp_path / "a").glob("*.safetensors")).read_bytes())
    index = tmp_path / "a" / "model.safetensors.index.json"
    placed = json.loads(index.read_text())
    for bad in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "x\0.safetensors", 7, "b.bin"):
        placed["weight_map"]["lm_head.weight"] = bad
        index.write_text(json.dumps(placed))
        with pytest.raises(ModelFileError, match="this same folder"):
            load(tmp_path / "a")


def test_an_index_and_its_files_must_name_the_same_tensors_in_the_same_files(tmp_path: Path) -> None:
    reference("llama3_untied").save_pretrained(tmp_path, max_shard_size="100KB")
    index = tmp_path / "model.safetensors.index.json"
    placed = json.loads(index.read_text())
    files = sorted(set(placed["weight_map"].values()))
    name = "model.norm.weight"
    elsewhere = next(file for file in files if file != placed["weight_map"][name])
    left_out = {key: file for key, file in placed["weight_map"].items() if key != name}
    for changed in (
        left_out,
        {**placed["weight_map"], name: elsewhere},
        {**placed["weight_map"], "x.weight": files[0]},
    ):
        index.write_text(json.dumps({**placed, "weight_map": changed}))
        with pytest.raises(ModelFileError, match="disagree about which tensors there are"):
            load(tmp_path)


def test_missing_surplus_and_misshapen_tensors_are_listed(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    reference("qwen2").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    del state["model.layers.1.self_attn.q_proj.bias"]
    state["model.layers.9.extra"] = torch.zeros(3)
    state["model.norm.weight"] = torch.zeros(5)
    save_file(state, file)
    with pytest.raises(ModelFileError) as caught:
        load(tmp_path)
    for part in ("1 missing: model.layers.1.self_attn.q_proj.bias", "1 surplus: model.layers.9.extra", "1 misshapen"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "mamba"}, "llama, mistral, qwen2, qwen3, gemma3_text"),
        ({"model_type": None}, "has no model_type"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_hidden_layers": 10**9}, "1 to 1024 layers"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_attention_heads": 0}, "num_heads"),
        ({"num_attention_heads": 2**30, "head_dim": 2**30}, "wide"),
        ({"intermediate_size": 2**31 - 1}, "wide"),
        ({"num_key_value_heads": 3}, "multiple of num_kv_heads"),
        ({"head_dim": 15}, "even"),
        ({"rms_norm_eps": float("nan")}, "finite"),
        ({"hidden_act": "swoosh"}, "hidden_act"),
        ({"rope_parameters": {"rope_type": "proportional"}}, "default, linear, llama3, yarn, dynamic, longrope, ntk"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "factor"),
        ({"rope_parameters": {"rope_type": "made_up"}}, "made_up"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "one set of parameters"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}}, "low_freq_factor"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0}}, "factor"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_parameters": []}, "an object"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config"),
    ],
)
def test_configs_that_cannot_work_say_why(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    reference("llama_yarn").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match=sentence):
        load(tmp_path)


JSON_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 40),
    st.integers(),
    st.floats(),
    st.sampled_from(["yarn", "llama3", "linear", "gelu", "full_attention", "qwen3", "gemma3_text", "1"]),
    st.lists(st.sampled_from(["full_attention", "sliding_attention"]), max_size=8),
)
ROPE_KEYS = (
    *("rope_type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    *("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "truncate", "partial_rotary_factor"),
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["qwen2_window", "mistral_window", "llama_yarn", "gemma3"]), st.data())
def test_any_config_gives_an_architecture_or_a_model_file_error(tmp_path: Path, name: str, data: st.DataObject) -> None:
    folder = tmp_path / name
    if not folder.exists():
        reference(name).config.save_pretrained(folder)
        (folder / "config.json").rename(folder / "sound.json")
    config = json.loads((folder / "sound.json").read_text())
    config |= data.draw(st.dictionaries(st.sampled_from(sorted(config)), JSON_VALUES, max_size=3))
    ropes = st.dictionaries(st.sampled_from(ROPE_KEYS), JSON_VALUES, max_size=8)
    config |= data.draw(
        st.just({})
        | st.fixed_dictionaries(
            {
                "rope_parameters": ropes
                | st.dictionaries(st.sampled_from(["full_attention", "sliding_attention"]), ropes)
            }
        )
    )
    (folder / "config.json").write_text(json.dumps(config))
    try:
        architecture = architecture_of(folder)
    except ModelFileError as error:
        assert "config.json" in str(error)
    else:
        for rope in set(architecture.ropes):
            assert len(frequencies(rope, architecture.head_dim)) == architecture.head_dim // 2


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["llama3_untied", "llama_yarn", "qwen3", "gemma3"]), st.data())
def test_any_flipped_gguf_gives_a_model_or_a_model_file_error(tmp_path: Path, name: str, data: st.DataObject) -> None:
    path = tmp_path / f"{name}.gguf"
    if not path.exists():
        write_gguf(reference(name), path, extra=GGUF_CASES[name])
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 1200))] = data.draw(st.integers(0, 255))
    (tmp_path / "flipped.gguf").write_bytes(raw)
    try:
        load(tmp_path / "flipped.gguf")
    except ModelFileError as error:
        assert "flipped.gguf" in str(error)


def test_gemma_2_features_are_refused(tmp_path: Path) -> None:
    reference("gemma3").config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in ({"attn_logit_softcapping": 50.0}, {"use_bidirectional_attention": True}):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelFileError, match=next(iter(change))):
            architecture_of(tmp_path)


def test_pickles_and_wrong_paths_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelFileError, match="pickle"):
        load(tmp_path / "pytorch_model.bin")
    reference("llama_yarn").config.save_pretrained(tmp_path)
    with pytest.raises(ModelFileError, match="pickle"):
        load(tmp_path)
    with pytest.raises(ModelFileError, match="does not exist"):
        load(tmp_path / "nothing")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelFileError, match="folder"):
        load(tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match="empty"):
        load(tmp_path)


def test_integer_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    reference("llama_yarn").save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["model.norm.weight"] = torch.ones(64, dtype=torch.int8)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match="I8"):
        load(tmp_path)


def test_a_loaded_model_trains_and_can_be_saved_over_itself(tmp_path: Path) -> None:
    reference("llama_tied_biased").save_pretrained(tmp_path)
    model = load(tmp_path)
    assert model.lm_head.weight is model.embed.weight
    before = (tmp_path / "model.safetensors").read_bytes()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    ids_N = torch.tensor(PROMPT)
    model.logits(model(ids_N, torch.arange(8), Packed([8]))).logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimizer.step()
    assert (tmp_path / "model.safetensors").read_bytes() == before, "training must not write through a mapped file"
    save(model, tmp_path)
    torch.testing.assert_close(logprobs(load(tmp_path), PROMPT), logprobs(model, PROMPT), atol=0, rtol=0)


def test_a_model_whose_projections_were_replaced_is_not_saved(tmp_path: Path) -> None:
    reference("llama_yarn").save_pretrained(tmp_path / "a")
    model = load(tmp_path / "a")
    model.layers[1].mlp.up_proj = torch.nn.Identity()
    with pytest.raises(ConfigError, match="replaced"):
        save(model, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_dtype_is_the_one_asked_for_and_close_to_transformers_in_it(tmp_path: Path) -> None:
    for name in ("llama3_untied", "gemma3"):
        theirs = reference(name).to(torch.bfloat16)
        theirs.save_pretrained(tmp_path / name)
        ours = load(tmp_path / name, dtype=torch.bfloat16)
        assert {parameter.dtype for parameter in ours.parameters()} == {torch.bfloat16}
        wide = load(tmp_path / name)
        error = (logprobs(ours, PROMPT) - logprobs(wide, PROMPT)).abs().max()
        assert error <= 2 * (reference_logprobs(theirs, PROMPT) - logprobs(wide, PROMPT)).abs().max() + 1e-3


# GGUF

GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def write_gguf(model: Any, path: Path, quant: str = "F32", extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write a transformers model as llama.cpp's converter does: its names, q and k permuted, Gemma's norms plus one."""
    config = model.config
    arch = {"gemma3_text": "gemma3"}.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    for key, value in (extra or {}).items():
        whole = isinstance(value, int)
        writer.add_key_value(key, value, gguf.GGUFValueType.UINT32 if whole else gguf.GGUFValueType.get_type(value))
    names = gguf.get_tensor_name_map(
        {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}.get(
            arch, gguf.MODEL_ARCH.GEMMA3
        ),
        config.num_hidden_layers,
    )
    written = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = value.numpy()
        if arch == "llama" and (".q_proj." in name or ".k_proj." in name):
            heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
            halves = values.reshape(heads, 2, -1, *values.shape[1:])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        if arch == "gemma3" and name.endswith("norm.weight"):
            values = values + 1
        kind = gguf.GGMLQuantizationType["F32" if values.ndim == 1 else quant]
        raw = gguf.quants.quantize(np.ascontiguousarray(values), kind)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), raw, raw_dtype=kind)
        written[name] = gguf.quants.dequantize(raw, kind).reshape(values.shape)
    if arch == "llama" and config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(config.rope_parameters, head_dim))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


def llama3_divisors(rope: dict[str, Any], head_dim: int) -> np.ndarray:
    wavelengths = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    turns = rope["original_max_position_embeddings"] / wavelengths
    keep = (turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
    keep = np.clip(keep, 0, 1)
    return (1 / ((1 - keep) / rope["factor"] + keep)).astype(np.float32)


GGUF_CASES: dict[str, dict[str, Any]] = {
    "llama3_untied": {"llama.rope.freq_base": 5e5},
    "llama_tied_biased": {},
    "llama_linear": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0},
    "llama_yarn": {
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 32,
    },
    "qwen2": {"qwen2.rope.freq_base": 1e6},
    "qwen3": {},
    "gemma3": {
        "gemma3.rope.freq_base": 1e6,
        "gemma3.rope.scaling.type": "linear",
        "gemma3.rope.scaling.factor": 8.0,
        "gemma3.attention.sliding_window": 8,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GGUF_CASES)
def test_a_float32_gguf_gives_the_numbers_of_its_source(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    if name == "gemma3":  # GGUF has no key for the scale: llama.cpp takes head_dim
        theirs.config.query_pre_attn_scalar = theirs.config.head_dim
        for layer in theirs.model.layers:
            layer.self_attn.scaling = theirs.config.head_dim**-0.5
    write_gguf(theirs, tmp_path / "m.gguf", "F32", GGUF_CASES[name])
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "m.gguf")
    expected = load(tmp_path / "theirs").state_dict()
    for key, value in ours.state_dict().items():  # norms of Gemma lose a bit to the 1 that was added
        torch.testing.assert_close(value, expected[key], atol=2e-7 if name == "gemma3" else 0, rtol=0)
    ids = greedy(lambda ids: reference_logprobs(theirs, ids), PROMPT)
    torch.testing.assert_close(logprobs(ours, ids), reference_logprobs(theirs, ids), atol=1e-4, rtol=0)


def test_released_llama3_ropes_are_recognised_and_can_be_saved(tmp_path: Path) -> None:
    theirs = reference("llama3_untied")
    theirs.config.rope_parameters["original_max_position_embeddings"] = 8192
    write_gguf(theirs, tmp_path / "m.gguf", extra={"llama.rope.freq_base": 5e5})
    model = load(tmp_path / "m.gguf")
    rope = model.architecture.ropes[0]
    assert (rope.kind, rope.factor, rope.original_max_position) == ("llama3", 8.0, 8192)
    save(model, tmp_path / "saved")
    assert architecture_of(tmp_path / "saved").ropes[0] == rope
    # another trained length cannot be told from the divisors: it loads, but config.json cannot hold it
    write_gguf(reference("llama3_untied"), tmp_path / "n.gguf", extra={"llama.rope.freq_base": 5e5})
    with pytest.raises(FirsthandError, match="divides each frequency"):
        save(load(tmp_path / "n.gguf"), tmp_path / "cannot")
    assert not (tmp_path / "cannot").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quant", "error"),
    [
        ("F32", 0),
        ("F16", 1e-3),
        ("BF16", 8e-3),
        ("Q8_0", 8e-3),
        ("Q5_1", 0.05),
        ("Q5_0", 0.08),
        ("Q4_1", 0.1),
        ("Q4_0", 0.15),
    ],
)
def test_quantised_weights_are_the_source_within_their_error(quant: str, error: float, tmp_path: Path) -> None:
    theirs = reference("llama_wide_heads")
    write_gguf(theirs, tmp_path / "m.gguf", quant)
    theirs.save_pretrained(tmp_path / "theirs")
    ours, expected = load(tmp_path / "m.gguf").state_dict(), load(tmp_path / "theirs").state_dict()
    for key, value in ours.items():
        assert (value - expected[key]).norm() <= error * expected[key].norm()
    exact = write_gguf(theirs, tmp_path / "again.gguf", quant)
    np.testing.assert_array_equal(ours["layers.1.mlp.up_proj.weight"], exact["model.layers.1.mlp.up_proj.weight"])


def write_adapter(folder: Path, theirs: Any) -> Tensor:
    """An adapter of the first layer's q_proj in a folder; returns what it adds."""
    from safetensors.torch import save_file

    outputs, inputs = theirs.model.layers[0].self_attn.q_proj.weight.shape
    a_rD, b_Or = torch.randn(2, inputs), torch.randn(outputs, 2)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    folder.mkdir()
    save_file({name.format("A"): a_rD, name.format("B"): b_Or}, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return 2.0 * b_Or @ a_rD


@pytest.mark.skipif(best_mode() != "float16", reason="needs the compiled kernels")
@pytest.mark.parametrize(
    ("name", "quant"), [("llama_wide_heads", "Q8_0"), ("llama_wide_heads", "Q4_1"), ("qwen2", "Q5_0")]
)
def test_a_files_own_blocks_hold_the_values_that_plain_loading_gives(name: str, quant: str, tmp_path: Path) -> None:
    theirs = reference(name)
    write_gguf(theirs, tmp_path / "m.gguf", quant)
    plain, kept = load(tmp_path / "m.gguf"), load(tmp_path / "m.gguf", keep_blocks=True)
    linears = {place: module for place, module in plain.named_modules() if isinstance(module, nn.Linear)}
    assert len(linears) == 7 * len(plain.layers) + 1
    for place, module in linears.items():
        packed = kept.get_submodule(place)
        assert isinstance(packed, BlockLinear)
        torch.testing.assert_close(packed.weight, module.weight, atol=1e-6, rtol=1e-6)
        assert (packed.bias is None) == (module.bias is None)
        assert packed.bias is None or torch.equal(packed.bias, module.bias)
    assert torch.equal(kept.embed.weight, plain.embed.weight) and not kept.embed.weight.is_meta
    agreed = torch.nn.functional.cosine_similarity(logprobs(kept, PROMPT), logprobs(plain, PROMPT))
    assert agreed.min() > 0.999


@pytest.mark.skipif(best_mode() != "float16", reason="needs the compiled kernels")
def test_blocks_are_not_kept_where_something_else_was_asked_for_too(tmp_path: Path) -> None:
    theirs = reference("llama_wide_heads")
    write_gguf(theirs, tmp_path / "m.gguf", "Q8_0")
    added = write_adapter(tmp_path / "adapter", theirs)
    plain = load(tmp_path / "m.gguf")
    adapted = load(tmp_path / "m.gguf", keep_blocks=True, adapter=tmp_path / "adapter")
    halved = load(tmp_path / "m.gguf", keep_blocks=True, dtype=torch.bfloat16)
    for model in (plain, adapted, halved):
        assert not any(isinstance(module, BlockLinear) for module in model.modules())
    expected = plain.state_dict()["layers.0.attention.q_proj.weight"] + added
    torch.testing.assert_close(adapted.state_dict()["layers.0.attention.q_proj.weight"], expected)
    write_gguf(theirs, tmp_path / "f.gguf", "F16")  # which has no blocks to keep
    assert not any(isinstance(module, BlockLinear) for module in load(tmp_path / "f.gguf", keep_blocks=True).modules())


def test_gguf_of_another_architecture_or_partial_rope_is_refused(tmp_path: Path) -> None:
    theirs = reference("llama_yarn")
    write_gguf(theirs, tmp_path / "m.gguf")
    raw = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "x.gguf").write_bytes(raw.replace(b"llama", b"mamba"))
    with pytest.raises(ModelFileError, match="expected one of llama, qwen2, qwen3, gemma3"):
        load(tmp_path / "x.gguf")
    key = b"llama.rope.dimension_count" + (4).to_bytes(4, "little")
    (tmp_path / "y.gguf").write_bytes(raw.replace(key + b"\x10", key + b"\x08"))
    with pytest.raises(ModelFileError, match="dimension_count"):
        load(tmp_path / "y.gguf")
