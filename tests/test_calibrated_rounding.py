"""GPTQ and AWQ lose less than plain rounding, and their files are read as the packages that write them pack."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from firsthand.cli import main
from firsthand.errors import ConfigError, ModelFileError
from firsthand.hub.quantize_model import quantize_file, quantize_folder
from firsthand.nn import calibrated_rounding, weights
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.blocks.norm import RMSNorm
from firsthand.nn.calibrated_rounding import (
    _group_of,
    _hessians,
    _same,
    awq_scales,
    gptq,
    round_model,
    save_rounded,
)
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.families import phi3
from firsthand.nn.int8_outliers import OutlierLinear, to_int8_outliers
from firsthand.nn.packed_format import PackedFormat
from firsthand.nn.packed_linears import RoundedMatrix, group_grid, round_groups, unpack
from firsthand.nn.weight_layout import COLUMNS, OUTER, FileLayout, plain_rows, row
from firsthand.tokens import pretrained
from tiny import write_model

SMALL = Architecture(
    family="llama", vocab_size=96, hidden_size=64, intermediate_size=128, num_layers=2, num_heads=4, num_kv_heads=4,
    head_dim=16, max_position=128, norm_eps=1e-5, windows=(None, None), ropes=(Rope(), Rope()), tie_embeddings=False,
)  # fmt: skip


def inputs(tokens: int = 256, width: int = 64) -> torch.Tensor:
    """Correlated inputs with a few large features, as in real models."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(tokens, width, generator=generator) @ torch.randn(width, width, generator=generator) / 8
    mixed[:, :3] *= 20
    return mixed


def weight(outputs: int = 48, width: int = 64) -> torch.Tensor:
    return torch.randn(outputs, width, generator=torch.Generator().manual_seed(1))


def product_error(made: torch.Tensor, real: torch.Tensor, x: torch.Tensor) -> float:
    return float((x @ (made - real).T).square().mean())


def test_gptq_and_awq_lose_less_of_the_products_than_rounding() -> None:
    x, w = inputs(), weight()
    hessian = x.T @ x
    plain = product_error(round_groups(w, 4, 32).values(), w, x)
    assert product_error(gptq(w, hessian, 32).values(), w, x) < 0.5 * plain
    scale = awq_scales([w], hessian, x.abs().mean(0), 32)
    assert product_error(round_groups(w * scale, 4, 32).values() / scale, w, x) < 0.9 * plain


def test_gptq_of_inputs_without_correlation_is_rounding() -> None:
    w = weight()
    made = gptq(w, torch.eye(64) * 5, 32)
    assert torch.equal(made.codes, round_groups(w, 4, 32).codes)
    dead = torch.eye(64)
    dead[7, 7] = 0  # an input that is always 0
    assert (gptq(w, dead, 32).values()[:, 7] == 0).all()


def by_hand(packed: np.ndarray, scales: np.ndarray, zeros: np.ndarray, method: str, group: int) -> np.ndarray:
    """Unpacks one number at a time, from the layouts that AutoGPTQ and AutoAWQ document."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    outputs = scales.shape[1]
    inputs_ = packed.shape[0] * 8 if method == "gptq" else packed.shape[0]
    made = np.zeros((outputs, inputs_))
    for k in range(inputs_):
        for o in range(outputs):
            g = k // group
            if method == "gptq":
                code = (int(packed[k // 8, o]) >> 4 * (k % 8)) & 15
                zero = ((int(zeros[g, o // 8]) >> 4 * (o % 8)) & 15) + 1 & 15
            else:
                nibble = order.index(o % 8)
                code = (int(packed[k, o // 8]) >> 4 * nibble) & 15
                zero = (int(zeros[g, o // 8]) >> 4 * nibble) & 15
            made[o, k] = (code - zero) * scales[g, o]
    return made


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_packed_matrices_have_the_packages_layout(method: str) -> None:
    rounded = round_groups(weight(16, 64), 4, 32)
    of = PackedFormat(method, 4, 32, zero_offset=int(method == "gptq"))  # type: ignore[arg-type]
    parts = rounded.tensors(of)
    kinds = {name: (values.dtype, values.is_contiguous()) for name, values in parts.items()}
    whole, half = (torch.int32, True), (torch.float16, True)
    ordered = {"g_idx": whole} if method == "gptq" else {}
    assert kinds == {"qweight": whole, "qzeros": whole, "scales": half} | ordered
    if method == "gptq":
        assert parts["g_idx"].tolist() == [0] * 32 + [1] * 32, "AutoGPTQ writes it of inputs in order too"
    assert torch.allclose(unpack(parts.get, of, "w"), rounded.values(), atol=1e-6)
    found = by_hand(parts["qweight"].numpy(), parts["scales"].float().numpy(), parts["qzeros"].numpy(), method, 32)
    assert np.allclose(found, rounded.values().numpy(), atol=1e-6)
    shuffled = {**parts, "g_idx": torch.arange(64) % 2}  # activation order: inputs of a group lie apart
    assert not torch.allclose(unpack(shuffled.get, of, "w"), rounded.values(), atol=1e-3)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_rounded_model_is_saved_and_read_back_with_its_numbers(tmp_path: Path, method: str) -> None:
    model = initialise(Decoder(SMALL), seed=0, std=0.3)
    ids = torch.arange(60) % 96

    def logits(of: Decoder) -> torch.Tensor:
        with torch.no_grad():
            return of.logits(of(ids, torch.arange(60), Packed([60])))

    before, told = logits(model), []
    rounded, group = round_model(
        model,
        [list(range(5, 90)), list(range(90, 3, -1))],
        method,  # type: ignore[arg-type]
        told=lambda *at: told.append(at),
    )
    assert len(rounded) == 14 and group == 64 and told == [(1, 2), (2, 2)]
    after = logits(model)
    assert (
        0 < (after - before).norm() < 0.7 * before.norm()
    )  # plain rounding gives 0.65, of a random model without outliers
    folder = tmp_path / "not" / "there"
    for _ in range(2):
        save_rounded(model, rounded, group, method, folder)  # type: ignore[arg-type]
    loaded = weights.load(folder)
    assert torch.allclose(logits(loaded), after, atol=0.05 * float(after.abs().max()))
    for name, matrix in rounded.items():
        assert torch.allclose(loaded.get_parameter(f"{name}.weight"), matrix.values(), atol=1e-6), name


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"norm_unit_offset": True},
        {"family": "stablelm", "norm": "layer"},
        {"family": "olmo2", "norm_placement": "post"},
    ],
)
def test_awq_s_scales_alone_change_no_number(monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    def exact(weight_OK: torch.Tensor, bits: int, group: int) -> RoundedMatrix:
        made = round_groups(weight_OK, bits, group)
        monkeypatch.setattr(made.__class__, "values", lambda self: self.kept, raising=True)
        object.__setattr__(made, "kept", weight_OK)
        return made

    model = initialise(Decoder(replace(SMALL, mlp_bias=True, **change)), seed=0, std=0.3)
    ids, places = torch.arange(50) % 96, torch.arange(50)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith("bias"):
                values.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
        before = model.logits(model(ids, places, Packed([50])))
        weight_before = model.layers[0].mlp.up_proj.weight.clone()  # type: ignore[union-attr,operator]
        monkeypatch.setattr("firsthand.nn.calibrated_rounding.awq_scales", lambda w, h, mean, g: mean.clamp(0.1, 9))
        monkeypatch.setattr("firsthand.nn.calibrated_rounding.round_groups", exact)
        round_model(model, [list(range(90))], "awq")
        after = model.logits(model(ids, places, Packed([50])))
        assert not torch.allclose(model.layers[0].mlp.up_proj.weight, weight_before)  # type: ignore[union-attr,arg-type]
    assert torch.allclose(before, after, atol=1e-3)


class Doubled(RMSNorm):
    """A norm that a division of its weight does not divide."""

    def forward(self, x_D: torch.Tensor) -> torch.Tensor:
        return super().forward(x_D) * (1 + self.weight)


def test_awq_refuses_a_layer_that_its_scales_would_change() -> None:
    model = initialise(Decoder(SMALL), seed=0, std=0.3)
    model.layers[1].attention_norm = Doubled(64, 1e-5)
    text = [list(range(90))]
    with pytest.raises(ConfigError, match="AWQ's scales change what layer 1 computes: take GPTQ, or a GGUF type"):
        round_model(model, text, "awq")
    assert len(round_model(model, text, "gptq")[0]) == 14


def test_a_scaled_layer_may_differ_by_the_rounding_of_its_numbers_alone() -> None:
    x, plain = torch.zeros(2, 64), torch.ones(2, 64)
    assert _same(x, plain, plain * 1.0009) and _same(x, plain, plain * 0.9991)
    assert not _same(x, plain, plain * 1.0011) and not _same(x, plain, plain * torch.nan)
    assert not _same(plain * 9, plain * 10, plain * 10.002), "measured by what the layer adds"
    assert _same(plain * 1e6, plain * 1e6, plain * (1e6 + 0.25)), "up to the last digits of what it is added to"
    narrow = [each.bfloat16() for each in (x, plain, plain * 1.04)]
    assert _same(*narrow) and not _same(*(each.float() for each in narrow))


@pytest.mark.parametrize("method", ["gptq", "awq"])
@pytest.mark.parametrize("number", [-65_520.0, torch.nan])
def test_numbers_beyond_float16_are_refused_before_any_work(tmp_path: Path, method: Any, number: float) -> None:
    model = initialise(Decoder(replace(SMALL, qkv_bias=True)), seed=0, std=0.3)
    text, refused = (
        [list(range(90))],
        r"holds a number that is not finite or beyond 65504, where float16 ends: quantise",
    )
    bias, told = model.layers[0].attention.k_proj.bias, []
    with torch.no_grad():
        bias[5] = 65_504.0
    rounded, group = round_model(copy.deepcopy(model), text, method)
    with torch.no_grad():
        bias[5] = number
    with pytest.raises(ConfigError, match=f"layers.0.attention.k_proj.bias {refused}"):
        round_model(model, text, method, told=lambda *at: told.append(at))
    with pytest.raises(ConfigError, match=f"model.layers.0.self_attn.k_proj.bias {refused}"):
        save_rounded(model, rounded, group, method, tmp_path / "out")
    with torch.no_grad():
        bias[5] = 1.0
    wide = {
        **rounded,
        "layers.1.mlp.up_proj": replace(rounded["layers.1.mlp.up_proj"], scales=torch.full((128, 1), 7e4)),
    }
    with pytest.raises(ConfigError, match=f"model.layers.1.mlp.up_proj.scales {refused}"):
        save_rounded(model, wide, group, method, tmp_path / "out")
    assert told == [] and not (tmp_path / "out").exists()


def test_the_command_calibrates_on_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, text = write_model(tmp_path / "model"), tmp_path / "text.txt"
    text.write_text("The answer is 42. " * 40)
    arguments = ["models", "quantize", str(source), "--to", "GPTQ", "--out", str(tmp_path / "out")]
    for extra, message in (
        ([], "add --calibration FILE"),
        (["--calibration", str(tmp_path / "none.txt")], "cannot be read"),
        (["--calibration", "/dev/null"], "is empty"),
    ):
        assert main([*arguments, *extra]) == 2
        assert message in capsys.readouterr().err
    assert main([*arguments, "--calibration", str(text), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "GPTQ"
    assert weights.load(tmp_path / "out") and (tmp_path / "out" / "tokenizer.json").exists()
    assert main([*arguments, "--calibration", str(text)]) == 2
    assert "holds a model" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="calibration text is empty"):
        round_model(initialise(Decoder(SMALL), seed=0), [], "awq")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 3}, "bits is '3'"),
        ({"group_size": 0}, "group_size is '0'"),
        ({"group_size": 32}, "expected"),
        ({"quant_method": "awq", "checkpoint_format": "gemm", "version": "gemv"}, "version is 'gemv'"),
        ({"quant_method": "awq", "checkpoint_format": "gemm", "version": "exllama"}, "version is 'exllama'"),
        ({"quant_method": "aqlm"}, "gptq or awq"),
    ],
)
def test_packed_files_that_contradict_themselves_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    model = initialise(Decoder(SMALL), seed=0, std=0.3)
    rounded, group = round_model(model, [list(range(50))], "gptq")
    save_rounded(model, rounded, group, "gptq", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match=message):
        weights.load(tmp_path)


def test_groups_outside_the_scales_and_missing_parts_are_refused(tmp_path: Path) -> None:
    model = initialise(Decoder(SMALL), seed=0, std=0.3)
    save_rounded(model, *round_model(model, [list(range(50))], "gptq"), "gptq", tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj."
    for changed, message in (
        ({**state, f"{name}g_idx": torch.full((64,), 9)}, "g_idx that names groups outside"),
        ({key: value for key, value in state.items() if key != f"{name}scales"}, "lacks its qweight"),
        ({**state, f"{name}scales": state[f"{name}scales"].to(torch.float64)}, "packed matrices are I32"),
    ):
        save_file(changed, tmp_path / "model.safetensors")
        with pytest.raises(ModelFileError, match=message):
            weights.load(tmp_path)


def test_outliers_are_multiplied_in_floats_and_the_rest_in_8_bits() -> None:
    x, w = inputs(40), weight()
    layer = OutlierLinear(w, torch.ones(48), threshold=6.0)
    exact = x @ w.T + 1
    worst = (x / (x.abs().amax(1, keepdim=True) / 127)).round() * (
        x.abs().amax(1, keepdim=True) / 127
    ) @ layer.weight.T + 1
    found = layer(x)
    assert (found - exact).norm() < 0.02 * exact.norm()
    assert (found - exact).norm() < 0.5 * (worst - exact).norm()  # 8 bits for all would be ruled by the outliers
    assert layer.codes.dtype == torch.int8 and layer.size_bytes < 0.3 * w.nbytes
    none = OutlierLinear(w, None, threshold=1e9)
    whole = (none(x) * 127 * 127 / none.scales / x.abs().amax(1, keepdim=True)).double()
    assert torch.allclose(whole, whole.round(), atol=0.05)  # whole numbers before the scales


def test_a_model_in_8_bits_with_outliers_scores_as_before_and_passes_gradients() -> None:
    model = initialise(Decoder(SMALL), seed=0, std=0.3)
    ids, places = torch.arange(50) % 96, torch.arange(50)
    with torch.no_grad():
        before = model.logits(model(ids, places, Packed([50])))
        after = to_int8_outliers(model).logits(model(ids, places, Packed([50])))  # type: ignore[operator]
    assert (after - before).norm() < 0.1 * before.norm()
    assert isinstance(model.layers[0].mlp.up_proj, OutlierLinear)  # type: ignore[union-attr]
    x = torch.randn(3, 64, requires_grad=True)
    layer = model.layers[0].mlp.up_proj  # type: ignore[union-attr]
    layer(x).sum().backward()
    assert torch.allclose(x.grad, layer.weight.sum(0).expand(3, -1), atol=1e-4)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no finite numbers"):
        OutlierLinear(torch.full((4, 4), torch.nan), None)


def test_a_rounded_matrix_says_what_it_holds() -> None:
    matrix = RoundedMatrix(
        torch.tensor([[0, 15, 8, 8]], dtype=torch.uint8), torch.tensor([[0.5, 2.0]]), torch.tensor([[8.0, 8.0]])
    )
    assert matrix.values().tolist() == [[-4.0, 3.5, 0.0, 0.0]]


def test_gptq_is_the_surgery_of_one_input_after_another() -> None:
    x, w = inputs(), weight(5).double()
    h = (x.T @ x).double()
    made = gptq(w, h, 32)
    h = h + 0.01 * h.diagonal().mean() * torch.eye(64, dtype=torch.float64)
    rest, codes, scales = w.clone(), torch.empty(5, 64), []
    for column in range(64):  # Hassibi and Stork, 1993: the rest takes the error by the inverse of what is left of H
        if column % 32 == 0:
            scale, zero = group_grid(rest[:, column : column + 32].float(), 4, 32)
            scales.append(scale)
        codes[:, column] = (rest[:, column] / scale[:, 0] + zero[:, 0]).round().clamp(0, 15)
        error = rest[:, column] - (codes[:, column] - zero[:, 0]) * scale[:, 0]
        inverse = torch.linalg.inv(h[column:, column:])
        rest[:, column + 1 :] -= error[:, None] * inverse[0, 1:] / inverse[0, 0]
    assert torch.equal(made.codes.float(), codes) and torch.allclose(made.scales, torch.cat(scales, 1), rtol=1e-4)
    assert torch.equal(w, weight(5).double())  # what came in is as it was


def test_awqs_scale_is_the_best_power_of_the_mean_over_all_matrices() -> None:
    x, several = inputs(), [weight(8), weight(16)[8:] * 3]
    mean = x.abs().mean(0)
    mean[5] = 0.0  # an input that is never seen counts as 1e-4
    found, errors = [], []
    for step in range(20):
        scale = mean.clamp(min=1e-4) ** (step / 20)
        scale = scale / (scale.max() * scale.min()) ** 0.5
        misses = [round_groups(w * scale, 4, 32).values() / scale - w for w in several]
        errors.append(sum(float((x @ miss.T).square().sum()) for miss in misses))
        found.append(scale)
    best = min(range(20), key=errors.__getitem__)
    assert 0 < best < 19 and torch.allclose(awq_scales(several, x.T @ x, mean, 32), found[best])
    drawn = [torch.randn(8, 64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 12)]
    for matrices, step in ((drawn, 7), (drawn[::-1], 7), (drawn[:1], 6), (drawn[1:], 10)):
        assert torch.allclose(awq_scales(matrices, x.T @ x, mean, 32), found[step]), "of two a step between them"
    assert torch.equal(awq_scales([], x.T @ x, mean, 32), torch.ones(64))
    assert torch.equal(
        awq_scales(several, torch.zeros(64, 64), mean, 32), torch.ones(64)
    )  # equal: the first, which is 1


def test_what_a_block_reads_is_summed_over_all_texts_and_its_mean_is_by_token() -> None:
    model = initialise(Decoder(replace(SMALL, ropes=(Rope(), Rope(50.0)))), seed=0, std=0.3)
    block, texts = model.layers[1], [torch.randn(3, 64), torch.randn(5, 64) * 2]
    with torch.no_grad():
        sites, outputs = _hessians(model, 1, block, texts, keep=False)  # type: ignore[arg-type]
        read = torch.cat([block.attention_norm(text) for text in texts])  # type: ignore[union-attr,operator]
        kept = _hessians(model, 1, block, texts, keep=True)  # type: ignore[arg-type]
        rope = [model.rotations(torch.arange(count), torch.float32)[Rope(50.0)] for count in (3, 5)]
        alone = [block(text, by, Packed([len(text)]), None) for text, by in zip(texts, rope, strict=True)]
    assert set(sites) == {"attn.in", "attn.mixed", "mlp.in", "mlp.act"} and outputs == [] and kept[0] == {}
    assert torch.allclose(sites["attn.in"][0], read.T @ read, atol=1e-3)
    assert torch.allclose(sites["attn.in"][1], read.abs().mean(0), atol=1e-5)
    assert sites["mlp.act"][0].shape == (128, 128) and sites["attn.mixed"][1].shape == (64,)
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(kept[1], alone, strict=True))


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_embeddings_reach_the_first_block_by_the_model_s_scale(method: str) -> None:
    scaled = initialise(
        Decoder(replace(SMALL, num_layers=1, windows=(None,), ropes=(Rope(),), embed_scale=8.0)), std=0.3
    )
    plain = initialise(Decoder(replace(SMALL, num_layers=1, windows=(None,), ropes=(Rope(),))), std=0.3)
    plain.load_state_dict(scaled.state_dict() | {"embed.weight": 8 * scaled.embed.weight})
    one, other = (round_model(each, [range(5, 40)], method)[0] for each in (scaled, plain))  # type: ignore[arg-type]
    assert one.keys() == other.keys() and len(one) == 7
    assert all(torch.equal(one[name].codes, other[name].codes) for name in one)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_all_but_the_rounded_matrices_is_written_in_float16_with_its_settings(tmp_path: Path, method: str) -> None:
    model = initialise(Decoder(SMALL), seed=0, std=0.3)
    rounded, group = round_model(model, [[5], list(range(50))], method)  # type: ignore[arg-type]
    save_rounded(model, rounded, group, method, tmp_path / "new" / "folder")  # type: ignore[arg-type]
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    state = load_file(folder / "model.safetensors")
    plain = {name: values for name, values in state.items() if name.endswith(".weight")}
    assert set(plain) == {
        "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight",
        *(f"model.layers.{n}.{norm}.weight" for n in (0, 1) for norm in ("input_layernorm", "post_attention_layernorm")),
    }  # fmt: skip
    assert {values.dtype for values in plain.values()} == {torch.float16}
    assert torch.equal(plain["model.norm.weight"], model.norm.weight.detach().half())  # type: ignore[union-attr,operator]
    config = json.loads((folder / "config.json").read_text())
    own = {"desc_act": False, "sym": False, "checkpoint_format": "gptq"}
    other = {"zero_point": True, "version": "gemm"}
    assert config["quantization_config"] == {
        "quant_method": method, "bits": 4, "group_size": 64, **(own if method == "gptq" else other),
    }  # fmt: skip
    assert config["dtype"] == "float16" and config["hidden_size"] == 64
    assert (folder / "config.json").read_text() == json.dumps(config, indent=2) + "\n"
    assert set(rounded) == {
        f"layers.{n}.{part}" for n in (0, 1) for part in (
            *(f"attention.{name}_proj" for name in "qkvo"), *(f"mlp.{name}_proj" for name in ("gate", "up", "down")))
    }  # fmt: skip


def test_models_that_no_group_divides_or_with_other_blocks_are_refused() -> None:
    assert [_group_of(widths) for widths in ([256, 128], [128, 64], [64, 192], [96, 64])] == [128, 64, 64, 32]
    with pytest.raises(ConfigError, match="rows that groups of 32 do not divide"):
        _group_of([64, 48])
    for change, told in (
        ({"vocab_size": 96, "intermediate_size": 100}, "groups of 32 do not divide"),
        ({"is_gated": False, "activation": "gelu"}, "a block has no plain gate_proj"),
    ):
        with pytest.raises(ConfigError, match=told):
            round_model(initialise(Decoder(replace(SMALL, **change)), seed=0), [list(range(9))], "gptq")  # type: ignore[arg-type]
    narrow = replace(SMALL, num_heads=4, head_dim=16, num_kv_heads=1, hidden_size=64)
    assert len(round_model(initialise(Decoder(narrow), seed=0, std=0.3), [list(range(9))], "awq")[0]) == 14
    with pytest.raises(ConfigError, match="calibration text is empty"):
        round_model(initialise(Decoder(SMALL), seed=0), [[5], []], "gptq")
    four = replace(SMALL, num_heads=8, num_kv_heads=1, head_dim=4)  # keys and values of 4 numbers, queries of 32
    with pytest.raises(
        ConfigError, match=r"^awq packs eight weights in an integer: this model has matrices of other sizes"
    ):
        round_model(initialise(Decoder(four), seed=0), [[5, 6]], "awq")
    longer = initialise(Decoder(SMALL), seed=0)
    longer.layers.append(torch.nn.Identity())
    with pytest.raises(
        ConfigError, match=r"^gptq takes blocks of attention and a gated MLP: quantise this model to GGUF"
    ):
        round_model(longer, [[5, 6]], "gptq")
    one = replace(SMALL, num_layers=1, windows=(None,), ropes=(Rope(),))
    alone, pair = (
        round_model(initialise(Decoder(one), seed=0), texts, "gptq")[0]
        for texts in ([[5], [], [5, 6]], [[5, 6]])  # one token says nothing
    )
    assert all(torch.equal(alone[name].codes, pair[name].codes) for name in pair)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_fused_projections_are_packed_as_the_family_s_folders_have_them(tmp_path: Path, method: Any) -> None:
    one = dict(num_layers=1, windows=(None,), ropes=(Rope(),))
    model = initialise(Decoder(replace(SMALL, family="phi3", num_kv_heads=2, **one)), seed=1, std=0.2)
    rounded, group = round_model(model, [list(range(50))], method)
    save_rounded(model, rounded, group, method, tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    own = {name.rpartition(".")[0] for name in held if name.endswith(".qweight")}
    assert own == {
        f"model.layers.0.{name}"
        for name in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    }
    assert held["model.layers.0.self_attn.qkv_proj.scales"].shape == (64 // group, 64 + 32 + 32)
    again = dict(weights.load(tmp_path).named_parameters())
    for name, parameter in model.named_parameters():
        close = dict(rtol=0, atol=0) if name.removesuffix(".weight") in rounded else dict(rtol=2e-3, atol=1e-6)
        assert torch.allclose(again[name], parameter, **close), name


def test_matrices_in_a_layout_of_their_own_are_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = FileLayout(OUTER, tuple(row(each.file, *each.ours, fold=COLUMNS) for each in plain_rows()))
    monkeypatch.setattr(phi3, "huggingface_layout", lambda a: layout)
    model = initialise(Decoder(replace(SMALL, family="phi3")), seed=1)
    with pytest.raises(ConfigError, match="files of phi3 hold matrices in a layout of their own"):
        round_model(model, [list(range(50))], "gptq")


def test_a_packed_folder_that_is_quantised_again_is_rounded_twice_and_the_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, packed = write_model(tmp_path / "source"), tmp_path / "packed"
    text = tmp_path / "text.txt"
    text.write_text("What is 12 + 30? " * 60)
    assert quantize_file(source, tmp_path / "plain.gguf", "Q8_0").twice is False
    to = ["--calibration", str(text)]
    assert main(["models", "quantize", str(source), "--to", "GPTQ", "--out", str(packed), *to]) == 0
    assert "twice" not in capsys.readouterr().out
    assert quantize_file(packed, tmp_path / "q8.gguf", "Q8_0").twice is True
    assert quantize_file(packed, tmp_path / "f16.gguf", "F16").twice is False, "floats hold what the codes are"
    for kind, name, more in (("Q8_0", "again.gguf", []), ("AWQ", "again", to)):
        assert main(["models", "quantize", str(packed), "--to", kind, "--out", str(tmp_path / name), *more]) == 0
        assert "rounded twice" in capsys.readouterr().out


@pytest.mark.parametrize("begins", [True, False])
def test_calibration_reads_sequences_that_begin_as_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: bool
) -> None:
    config = write_model(tmp_path / "source") / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "add_bos_token": begins}))
    seen: list[list[int]] = []

    def read(model: Any, texts: list[list[int]], method: str, *, told: Any) -> Any:
        seen.extend(texts)
        raise ConfigError("read enough")

    monkeypatch.setattr(calibrated_rounding, "round_model", read)
    tokenizer, begin = pretrained.load(tmp_path / "source"), [0] if begins else []
    for text, most in (("12 30 " * 400, 600), ("7 " * 60_000, 128 * (512 - len(begin))), ("", 0)):
        seen.clear()
        with pytest.raises(ConfigError, match="read enough"):
            quantize_folder(tmp_path / "source", tmp_path / "out", "GPTQ", text)
        ids = tokenizer.encode(text)
        assert len(ids) >= most and len(seen) <= 128 and {len(each) for each in seen[:-1]} <= {512}
        assert all(each[: len(begin)] == begin for each in seen)
        body = [id for each in seen for id in each[len(begin) :]]
        assert body == ids[: 128 * (512 - len(begin))] and len(body) >= most
