"""Architectures, experts and ropes at the limits of their settings, and the settings that files state."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from firsthand.errors import ConfigError, ModelFileError
from firsthand.formats.fields import Fields
from firsthand.nn.activation_monitor import ActivationMonitor, read_monitor, write_monitor
from firsthand.nn.architecture import Architecture, ExpertSettings, LatentSettings, Rope
from firsthand.nn.direction_file import Direction, read_direction, write_direction
from firsthand.nn.families.rope_config import (
    llama3_divisors,
    longest_text,
    mscale,
    rope_from_config,
    rope_tensors,
    rope_to_gguf,
    rope_to_parameters,
    rotated_values,
)
from firsthand.nn.gguf_recipes import RecipeShape, is_quantised, shape_of, tensor_types
from firsthand.nn.packed_format import PackedFormat, packed_format
from firsthand.nn.sites import Taps
from firsthand.nn.steering_vector import SteeringVector, read_steering, write_steering

SMALL = Architecture(
    family="llama", vocab_size=40, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2, num_kv_heads=1,
    head_dim=16, max_position=64, norm_eps=1e-5, windows=(None, None), ropes=(Rope(), Rope()), tie_embeddings=False,
)  # fmt: skip


def test_settings_at_their_limits_are_taken_and_beyond_them_refused():
    def refused(said: str, **changes: Any) -> None:
        with pytest.raises(ConfigError, match=said):
            replace(SMALL, **changes)

    for changes in ({"vocab_size": 2**24 - 1}, {"rotary_dim": 16}, {"logit_softcap": 0.1}, {"windows": (1, None)}):
        replace(SMALL, **changes)  # type: ignore[arg-type]
    refused("a layer is 16777216 wide", vocab_size=2**24)
    refused("num_layers is 0", num_layers=0)
    refused(r"num_heads is 3: expected a multiple of num_kv_heads \(2\)", num_heads=3, num_kv_heads=2)
    refused("head_dim is 15: expected an even number", head_dim=15)
    refused("norm_eps is 1: expected between 0 and 1", norm_eps=1)
    refused("windows is", windows=(None,))
    refused("windows is .*: expected None or 1 and more", windows=(0, None))
    refused("ropes is .*: expected one for each of 2 layers", ropes=(Rope(),))
    refused("ropes is .*: expected 8 divisors", ropes=(Rope(kind="divided", divisors=(1.0,)), Rope()))
    refused("rotary_dim is 18", rotary_dim=18)
    refused("alibi_slopes is .*: expected 2 numbers", alibi_slopes=(0.5,))
    refused("learned_positions is 63: expected a row for each of max_position", learned_positions=63)
    refused("attention_softcap is 0", attention_softcap=0.0)
    refused("clip_qkv is inf", clip_qkv=math.inf)
    refused("experts is .*: expected a choice for each of 2 layers", experts=ExpertSettings(2, 1, 8, (True,)))
    refused("latent is .*: expected one KV head", latent=LatentSettings(8, 4, 4, 4))
    assert (
        replace(SMALL, attention_scale=0.0).attention_scale == 16**-0.5
        and replace(SMALL, attention_scale=0.3).attention_scale == 0.3
    )
    assert SMALL.rotated == 16 and replace(SMALL, rotary_dim=4).rotated == 4 and not SMALL.has_experts(0)
    for given, said in (
        ({"theta": 1.0}, "theta is 1"), ({"factor": 0.0}, "factor is 0"), ({"kind": "yarn"}, "original_max_position is 0"),
        ({"kind": "llama3", "original_max_position": 8, "low_freq_factor": 4.0}, "high_freq_factor is 4"),
        ({"kind": "yarn", "original_max_position": 8, "beta_fast": 0.5}, "beta_fast is 0.5"),
        ({"attention_factor": math.inf}, "attention_factor is inf"), ({"kind": "divided"}, r"divisors is \(\)"),
        ({"kind": "longrope", "original_max_position": 8, "divisors": (1.0, 2.0), "short_divisors": (1.0,)},
         "2 numbers above 0"),
        ({"kind": "longrope", "original_max_position": 8, "divisors": (1.0, 0.0), "short_divisors": (1.0, 1.0)},
         r"^rope divisors is \(1\.0, 0\.0\): expected a number above 0 for each pair$"),
        ({"kind": "longrope", "original_max_position": 8, "divisors": (1.0, 2.0), "short_divisors": (1.0, -1.0)},
         "short_divisors is .* expected 2 numbers above 0, as many as there are divisors"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            Rope(**given)  # type: ignore[arg-type]
    Rope(kind="yarn", original_max_position=8, beta_fast=2.0, beta_slow=2.0)
    for given, said in (
        ({"per_token": 7}, "per_token is 7"), ({"num_groups": 4}, "num_groups is 4: expected a divisor"),
        ({"num_groups": 3, "groups_per_token": 4}, "groups_per_token is 4"),
        ({"layers": (False,)}, "a layer that has experts"),
        ({"per_token": 3, "num_groups": 3}, "no more than the 1 groups"), ({"scale": 0.0}, "scale is 0"),
        ({"num_groups": 6, "group_score": "top2", "per_token": 1}, "max where a group has a single expert"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            ExpertSettings(**{"num_experts": 6, "per_token": 2, "width": 8, "layers": (True,), **given})  # type: ignore[arg-type]
    for given in ({"rank": 0}, {"value_dim": 2**20}, {"query_rank": -1}):
        with pytest.raises(ConfigError, match=f"latent attention's {next(iter(given))} is"):
            LatentSettings(**{"rank": 4, "nope_dim": 4, "rope_dim": 4, "value_dim": 4, **given})


def test_ropes_are_read_from_old_and_new_configs_and_written_back():
    def read(**values: Any) -> Rope:
        return rope_from_config(Fields({"max_position_embeddings": 4096, **values}, "config.json"))

    assert read() == Rope(10_000.0) and read(rope_theta=5e5) == Rope(5e5)
    assert read(rope_theta=7.0, rope_parameters={"rope_theta": 9.0, "rope_type": "default"}) == Rope(9.0)
    assert read(rope_scaling={"type": "linear", "factor": 2.0}) == Rope(1e4, "linear", 2.0)
    assert read(rope_scaling={"rope_type": "dynamic", "factor": 3.0}) == Rope(1e4, "dynamic", 3.0, 4096)
    older = {"rope_type": "dynamic", "factor": 3.0, "original_max_position_embeddings": 1024}
    assert read(rope_scaling=older) == Rope(1e4, "dynamic", 3.0, 4096), "it stretches from the model's own length"
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.5, "high_freq_factor": 3.0}
    stated = {**llama3, "original_max_position_embeddings": 512}
    assert read(rope_scaling=stated) == Rope(1e4, "llama3", 8.0, 512, low_freq_factor=1.5, high_freq_factor=3.0)
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    assert read(rope_scaling=yarn) == Rope(1e4, "yarn", 4.0, 1024, attention_factor=0.1 * math.log(4) + 1)
    more = {**yarn, "beta_fast": 20.0, "beta_slow": 2.0, "attention_factor": 1.5, "truncate": False}
    found = Rope(1e4, "yarn", 4.0, 1024, beta_fast=20.0, beta_slow=2.0, attention_factor=1.5, truncate=False)
    assert read(rope_scaling=more) == found
    scaled = read(rope_scaling={**yarn, "mscale": 2.0, "mscale_all_dim": 0.5}).attention_factor
    assert scaled == pytest.approx((0.2 * math.log(4) + 1) / (0.05 * math.log(4) + 1))
    assert read(rope_scaling={"rope_type": "yarn", "original_max_position_embeddings": 1024}).factor == 4.0
    long = {
        "type": "su",
        "long_factor": [2.0, 3.0],
        "short_factor": [1.0, 1.5],
        "original_max_position_embeddings": 1024,
    }
    stretched = math.sqrt(1 + math.log(4) / math.log(1024))
    longrope = Rope(
        1e4, "longrope", 4.0, 1024, attention_factor=stretched, divisors=(2.0, 3.0), short_divisors=(1.0, 1.5)
    )
    assert read(rope_scaling=long) == longrope == read(rope_scaling={**long, "type": "yarn"})
    for rope in (Rope(7.0), Rope(7.0, "linear", 2.0), found, longrope, read(rope_scaling=stated)):
        assert read(rope_parameters=rope_to_parameters(rope)) == rope
    assert "original_max_position_embeddings" not in rope_to_parameters(Rope(7.0, "linear", 2.0))
    for kind in ("ntk", "none"):
        with pytest.raises(ConfigError, match=f"this rope is '{kind}', which config.json cannot express"):
            rope_to_parameters(Rope(kind=kind))  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="partial_rotary_factor"):
        read(partial_rotary_factor=0.5)
    with pytest.raises(ModelFileError, match="rope_type"):
        read(rope_scaling={"rope_type": "spiral", "factor": 2.0})
    share = Fields({"partial_rotary_factor": 0.3}, "c")
    assert rotated_values(share, 80) == 24 and rotated_values(Fields({}, "c"), 80) == 80
    for wrong in (0.0, 1.1):
        with pytest.raises(ModelFileError, match="above 0, and 1 at most"):
            rotated_values(Fields({"partial_rotary_factor": wrong}, "c"), 80)
    lengths = Fields({"max_position_embeddings": 100}, "c")
    assert longest_text(lengths, Rope(1e4, "dynamic", 2.5, 100), 7) == 250 and longest_text(lengths, Rope(), 7) == 100
    assert longest_text(Fields({}, "c"), Rope(), 7) == 7
    assert (mscale(1.0), mscale(0.5), mscale(math.e, 2.0)) == (1.0, 1.0, pytest.approx(1.2))


def test_ropes_are_written_to_gguf_with_their_divisors():
    assert rope_to_gguf(Rope(5.0)) == {"rope.freq_base": 5.0} and rope_tensors(Rope(5.0), 8) == {}
    assert rope_to_gguf(Rope(5.0, "linear", 3.0)) == {
        "rope.freq_base": 5.0, "rope.scaling.type": "linear", "rope.scaling.factor": 3.0,
    }  # fmt: skip
    yarn = rope_to_gguf(Rope(5.0, "yarn", 4.0, 64, attention_factor=2.0, beta_fast=9.0, beta_slow=3.0))
    assert yarn["rope.scaling.attn_factor"] == pytest.approx(2 / (0.1 * math.log(4) + 1))
    assert yarn["rope.scaling.original_context_length"] == 64
    assert (yarn["rope.scaling.yarn_beta_fast"], yarn["rope.scaling.yarn_beta_slow"]) == (9.0, 3.0)
    long = Rope(5.0, "longrope", 2.0, 8, divisors=(2.0, 3.0), short_divisors=(1.0, 1.5))
    assert rope_tensors(long, 4) == {"rope_factors_long.weight": (2.0, 3.0), "rope_factors_short.weight": (1.0, 1.5)}
    llama3 = Rope(100.0, "llama3", 8.0, 60)
    divisors = llama3_divisors(llama3, 8)
    turns = [60 * 100 ** (-2 * pair / 8) / (2 * math.pi) for pair in range(4)]
    kept = [min(max((each - 1) / 3, 0), 1) for each in turns]
    assert divisors == pytest.approx([1 / ((1 - k) / 8 + k) for k in kept]) and divisors[0] == 1 and divisors[3] == 8
    assert rope_tensors(llama3, 8) == {"rope_freqs.weight": tuple(divisors)}


def test_mixtures_of_types_follow_place_layer_shape_and_family():
    def kinds(file_type: str, shape: RecipeShape, *names: str, width: int = 256) -> list[str]:
        dims = {name: (64, width) for name in names}
        dims |= {f"blk.{layer}.attn_v.weight": (64, width) for layer in range(shape.num_layers)}
        dims |= {"output.weight": (64, width)}
        return [tensor_types(dims, file_type, shape)[name] for name in names]

    plain = RecipeShape(32)
    downs = [f"blk.{layer}.ffn_down.weight" for layer in (0, 3, 4, 5, 6, 27, 28, 31)]
    assert kinds("Q4_K_M", plain, *downs) == ["Q6_K", "Q6_K", "Q4_K", "Q4_K", "Q6_K", "Q6_K", "Q6_K", "Q6_K"]
    assert kinds("Q4_K_S", plain, *downs[:3]) == ["Q5_K", "Q5_K", "Q4_K"]
    assert kinds("Q3_K_M", plain, *[f"blk.{layer}.ffn_down.weight" for layer in (1, 2)]) == ["Q5_K", "Q4_K"]
    values = [f"blk.{layer}.attn_v.weight" for layer in (0, 1, 2, 3, 4)]
    assert kinds("Q3_K_M", plain, *values) == ["Q5_K", "Q5_K", "Q4_K", "Q4_K", "Q4_K"]
    assert kinds("Q4_K_S", plain, *values) == ["Q5_K"] * 4 + ["Q4_K"]
    grouped = [kinds("Q2_K", RecipeShape(32, heads), values[0])[0] for heads in (3, 4)]
    assert grouped == ["Q3_K", "Q4_K"]
    large = RecipeShape(80, 8)
    assert large.is_70b and not RecipeShape(80, 1).is_70b and not RecipeShape(80, 8, family="qwen2").is_70b
    assert kinds("Q4_K_M", large, "blk.11.attn_v.weight", "blk.12.attn_v.weight") == ["Q5_K", "Q6_K"]
    assert kinds("Q5_K_M", large, "blk.11.attn_v.weight") == ["Q5_K"]
    eight = RecipeShape(32, 4, 8)
    names = ("blk.9.attn_v.weight", "blk.9.attn_k.weight", "blk.9.attn_output.weight", "blk.9.attn_q.weight")
    assert kinds("Q4_K_M", eight, *names) == ["Q8_0", "Q8_0", "Q5_K", "Q4_K"]
    assert kinds("Q5_K_M", eight, *names)[2] == "Q5_K" and kinds("Q3_K_L", eight, *names)[2] == "Q3_K"
    assert kinds("Q3_K_M", plain, *names) == ["Q4_K", "Q3_K", "Q4_K", "Q3_K"]
    assert kinds("Q2_K", plain, names[2]) == ["Q3_K"] and kinds("Q6_K", plain, *names) == ["Q6_K"] * 4
    assert kinds("Q4_K_M", plain, names[3], width=96) == ["Q5_0"] and kinds("Q4_K_M", plain, names[3], width=80) == [
        "F16"
    ]
    heads = [tensor_types({"output.weight": (9, w)}, "Q4_K_M", plain)["output.weight"] for w in (256, 96)]
    assert heads == ["Q6_K", "Q8_0"]
    tied = tensor_types({"token_embd.weight": (9, 256), "blk.0.attn_norm.weight": (256,)}, "Q4_K_M", plain)
    assert tied == {"token_embd.weight": "Q6_K", "blk.0.attn_norm.weight": "F32"}
    apart = tensor_types({"token_embd.weight": (9, 256), "output.weight": (9, 256)}, "Q4_K_M", plain)
    assert apart == {"token_embd.weight": "Q4_K", "output.weight": "Q6_K"}
    assert tensor_types(
        {"blk.0.ffn_gate_inp.weight": (8, 256)}, "Q8_0", plain, {"blk.0.ffn_gate_inp.weight": "F16"}
    ) == {"blk.0.ffn_gate_inp.weight": "F16"}
    assert not is_quantised("blk.0.attn_q.bias", (3, 4)) and not is_quantised("x.weight", (3,))
    assert is_quantised("x.weight", (3, 4))
    with pytest.raises(ConfigError, match=r"no GGUF file type 'q4_k_m'; did you mean Q4_K_M\?"):
        tensor_types({}, "q4_k_m", plain)
    facts = {"general.architecture": "llama", "llama.block_count": 5, "llama.attention.head_count": [8, 4]}
    assert shape_of({**facts, "llama.attention.head_count_kv": 3, "llama.expert_count": 8}) == RecipeShape(
        5, 2, 8, "llama"
    )
    assert shape_of({"general.architecture": "x", "x.block_count": 0}) == RecipeShape(1, 1, 0, "x")


def test_packed_formats_are_read_with_their_offset_and_others_refused():
    def read(**values: Any) -> PackedFormat | None:
        return packed_format(Fields({"quantization_config": values}, "c"))

    assert packed_format(Fields({}, "c")) is None
    assert read(quant_method="gptq", bits=4) == PackedFormat("gptq", 4, 128, 1)
    assert read(quant_method="gptq", bits=8, group_size=-1, checkpoint_format="gptq_v2") == PackedFormat(
        "gptq", 8, -1, 0
    )
    assert read(quant_method="awq", bits=4, group_size=1, version="GEMM") == PackedFormat("awq", 4, 1, 0)
    for values, said in (
        ({"quant_method": "fp8", "bits": 8}, "gptq or awq"), ({"quant_method": "gptq", "bits": 3}, "2, 4 or 8 for gptq"),
        ({"quant_method": "awq", "bits": 8}, "4 for awq"), ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "gemm"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "checkpoint_format is 'marlin': expected"),
        ({"quant_method": "gptq", "bits": 4, "is_marlin_format": True}, "checkpoint_format is 'marlin': expected"),
        ({"quant_method": "gptq", "bits": 4, "format": "bitblas"}, "format is 'bitblas': expected gptq or gptq_v2"),
        ({"quant_method": "awq", "bits": 4, "format": "gemv"}, "format is 'gemv': expected gemm"),
        ({"quant_method": "awq", "bits": 4, "checkpoint_format": "gemv_fast"}, "checkpoint_format is 'gemv_fast'"),
        ({"quant_method": "awq", "bits": 4, "version": "gemm", "format": "gemv"}, "format is 'gemv'"),
        ({"quant_method": "awq", "bits": 4, "backend": "llm-awq"}, "backend is 'llm-awq'"),
        ({"quant_method": "awq", "bits": 4, "group_size": 0}, "group_size"),
        ({"quant_method": "awq", "bits": 4, "group_size": 1 << 20}, "group_size"),
    ):  # fmt: skip
        with pytest.raises(ModelFileError, match=said):
            read(**values)


def test_directions_monitors_and_steering_vectors_are_read_back_and_others_refused(tmp_path: Path):
    values = torch.tensor([1.0, -2.0, 0.5])
    file = tmp_path / "d@2.safetensors"
    write_direction(file, "f.1", Direction("blocks.1.resid.post", values, "mine", {"a": 0.1, "b": -3.0}))
    found = read_direction(file, "f.1", "thing", "make it", ("b", "a"))
    assert found.site == "blocks.1.resid.post" and found.name == "mine" and found.numbers == {"b": -3.0, "a": 0.1}
    assert found.values.tolist() == values.tolist()
    for format, numbers in (("f.2", ()), ("f.1", ("c",))):
        with pytest.raises(ModelFileError, match="is no thing: give a file that `make it` wrote"):
            read_direction(file, format, "thing", "make it", numbers)
    with pytest.raises(ConfigError, match=r"no thing '.*none': give a file that"):
        read_direction(tmp_path / "none", "f.1", "thing", "make it")
    with pytest.raises(ConfigError, match="a file holds one vector, so give a site without heads"):
        write_direction(file, "f.1", Direction("s", torch.zeros(2, 2), "n", {}))
    for bad in (torch.tensor([math.nan]), torch.zeros(0)):
        write_direction(file, "f.1", Direction("s", bad, "n", {}))
        with pytest.raises(ModelFileError):
            read_direction(file, "f.1", "thing", "make it")
    monitor = ActivationMonitor("s", values, bias=0.25, threshold=1.5, name="m", false_alarms=0.01)
    assert monitor.scores(torch.tensor([[2.0, 1, 0], [0, 0, 4]])) == [0.25, 2.25]
    write_monitor(monitor, file)
    again = read_monitor(file)
    assert (again.site, again.bias, again.threshold, again.name, again.false_alarms) == ("s", 0.25, 1.5, "m", 0.01)
    with pytest.raises(ConfigError, match="the monitor m reads 3 values, and this model's hidden states have 32"):
        again.expect_fits(SMALL)
    write_monitor(replace(monitor, threshold=math.inf), file)
    with pytest.raises(ModelFileError, match="a threshold that is no number"):
        read_monitor(file)
    vector = SteeringVector("s", values, 2.0, "v")
    assert vector.added(torch.tensor([[1.0, 1, 1]])).tolist() == [[3.0, -3.0, 2.0]]
    with pytest.raises(ConfigError, match="has 3 values, and s of this model has 2"):
        vector.added(torch.zeros(1, 2))
    write_steering(vector, file)
    assert read_steering(str(file)).strength == 2.0 and read_steering(f"{file}@-0.5").strength == -1.0
    assert read_steering(str(file)).name == "v" and read_steering(str(file)).digest == vector.digest
    digests = {
        each.digest
        for each in (
            vector,
            replace(vector, strength=2.1),
            replace(vector, site="t"),
            replace(vector, direction=-values),
        )
    }
    assert len(digests) == 4 and len(vector.digest) == 16
    with pytest.raises(ConfigError, match="the strength 'x' of a steering vector is no number"):
        read_steering(f"{file}@x")
    for strength, said in ((math.inf, "give a finite number"), (1e39, "more than float32 can hold")):
        with pytest.raises(ConfigError, match=said):
            replace(vector, strength=strength)


def test_taps_replace_a_tensor_only_by_one_of_its_kind():
    taps = Taps.of({"a.b": lambda values: values + 1, "c": lambda values: None}, ("a.b", "c"))
    x = torch.zeros(2, 3)
    assert taps.within("a.")("b", x).tolist() == (x + 1).tolist() and taps("c", x) is x and taps("b", x) is x
    with pytest.raises(ConfigError, match=r"the tap on a\.b returned \(3,\) torch\.float32 on cpu: expected \(2, 3\)"):
        Taps.of({"a.b": lambda values: values[0]}, ("a.b",)).within("a.")("b", x)
    with pytest.raises(ConfigError, match=r"torch\.float16 on cpu: expected"):
        Taps.of({"c": lambda values: values.half()}, ("c",))("c", x)
    with pytest.raises(ConfigError, match=r"no activation site 'a\.c' in this model; did you mean 'a\.b'"):
        Taps.of({"a.c": lambda values: None}, ("a.b", "x"))
