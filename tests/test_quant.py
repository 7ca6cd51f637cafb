from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from engine_tiny import tiny_model
from firsthand.errors import ConfigError
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder, initialise
from firsthand.nn.quant import DenseLinear, Mode, best_mode, fits_float16, pack, weight_shapes

torch.set_num_threads(1)
needs_float16 = pytest.mark.skipif(best_mode() != "float16", reason="needs the compiled kernels")


def model(*, tied: bool = True, bias: bool = False) -> Decoder:
    architecture = Architecture(
        family="qwen2",
        vocab_size=50,
        hidden_size=48,
        intermediate_size=96,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=12,
        max_position=64,
        norm_eps=1e-6,
        windows=(None, None),
        ropes=(Rope(), Rope()),
        tie_embeddings=tied,
        qkv_bias=bias,
    )
    made = initialise(Decoder(architecture), std=0.2)
    if bias:
        with torch.no_grad():
            for layer in made.layers:
                layer.attention.q_proj.bias.normal_(generator=torch.Generator().manual_seed(1))
    return made


def logits(decoder: Decoder) -> torch.Tensor:
    with torch.no_grad():
        return decoder.logits(decoder(torch.arange(20), torch.arange(20), Packed([20])))


@needs_float16
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("inputs", "outputs"), [(576, 192), (576, 576), (192, 512), (64, 49), (40, 24), (33, 17)])
def test_a_row_has_the_same_bits_in_every_batch(inputs: int, outputs: int, threads: int) -> None:
    random = torch.Generator().manual_seed(0)
    linear = DenseLinear(torch.randn(outputs, inputs, generator=random), torch.randn(outputs, generator=random))
    x = torch.randn(300, inputs, generator=random)
    torch.set_num_threads(threads)
    try:
        whole = linear(x)
        for rows in (1, 2, 3, 4, 8, 16, 17, 32, 64, 299):
            assert torch.equal(linear(x[:rows]), whole[:rows])
            assert torch.equal(linear(x[-rows:]), whole[-rows:])
    finally:
        torch.set_num_threads(1)


@needs_float16
def test_the_error_is_that_of_rounding_weights_to_float16() -> None:
    random = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(64, 576, generator=random), torch.randn(64, generator=random)
    x = torch.randn(7, 576, generator=random)
    packed = DenseLinear(weight, bias)(x)
    rounded = functional.linear(x.double(), weight.half().double(), bias.double())
    assert torch.allclose(packed.double(), rounded, atol=1e-4)
    exact = functional.linear(x.double(), weight.double(), bias.double())
    assert (packed - exact).abs().max() / exact.abs().max() < 5e-4


@needs_float16
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_model_answers_nearly_as_before_and_keeps_its_embedding(tied: bool, bias: bool) -> None:
    decoder = model(tied=tied, bias=bias)
    before, embedding = logits(decoder), decoder.embed.weight.clone()
    assert pack(decoder, "float16") is decoder
    assert not any(isinstance(module, nn.Linear) for module in decoder.modules())
    assert torch.equal(decoder.embed.weight, embedding)
    after = logits(decoder)
    assert not torch.equal(before, after)
    assert (before - after).abs().max() < 5e-3 * before.abs().max()


@needs_float16
@pytest.mark.parametrize(("inputs", "outputs"), [(576, 192), (130, 49), (33, 17), (1, 1)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_dense_products_are_exact_to_the_last_digits(inputs: int, outputs: int, dtype: type) -> None:
    from firsthand.kernels.products.float_products import dense_product, tile_floats, untile_floats

    random = np.random.default_rng(0)
    weights = random.standard_normal((outputs, inputs)).astype(np.float32)
    tiles = tile_floats(weights, dtype)
    np.testing.assert_array_equal(untile_floats(tiles), weights.astype(dtype).astype(np.float32))
    for rows in (1, 7, 31):
        x = random.standard_normal((rows, inputs)).astype(np.float32)
        exact = x.astype(np.float64) @ weights.astype(dtype).astype(np.float64).T
        np.testing.assert_allclose(dense_product(x, tiles), exact, atol=2e-6 * inputs**0.5, rtol=1e-6)


@needs_float16
def test_what_is_not_a_number_stays_in_its_row() -> None:
    linear = DenseLinear(torch.ones(20, 40), None)
    x = torch.ones(9, 40)
    x[4, 7] = float("nan")
    assert linear(x)[4].isnan().all() and not linear(x)[[0, 1, 2, 3, 5, 6, 7, 8]].isnan().any()


def test_float32_leaves_the_model_alone() -> None:
    decoder = model()
    before = logits(decoder)
    pack(decoder, "float32")
    assert torch.equal(logits(decoder), before)
    assert decoder.lm_head.weight is decoder.embed.weight


@needs_float16
def test_packed_weights_are_replaced_by_the_names_they_came_with() -> None:
    decoder, other = model(bias=True), model(bias=True)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)
    pack(decoder, "float16").load_state_dict(other.state_dict())
    pack(other, "float16")
    assert torch.equal(logits(decoder), logits(other))
    state = model(bias=True).state_dict()
    del state["layers.0.attention.q_proj.bias"]
    with pytest.raises(RuntimeError, match=r"q_proj\.bias"):
        decoder.load_state_dict(state)


@pytest.mark.slow
@needs_float16
@pytest.mark.parametrize("mode", ["float32", "float16", "int8"])
def test_a_packed_model_takes_the_same_names_and_shapes_and_misses_each(mode: Mode) -> None:
    made = model(bias=True, tied=False) if mode != "int8" else tiny_model(tied=False)  # widths of whole blocks
    plain = made.eval().requires_grad_(False)
    shapes = {name: tuple(each.shape) for name, each in plain.named_parameters()}
    assert any(len(shape) == 2 and shape[0] != shape[1] for shape in shapes.values())
    state = {name: value.clone() for name, value in plain.state_dict().items()}
    packed = pack(deepcopy(plain), mode)
    assert weight_shapes(packed) == shapes
    for name in {"layers.0.mlp.up_proj.weight", "layers.1.attention.k_proj.bias", "lm_head.weight"} & shapes.keys():
        with pytest.raises(RuntimeError, match=f'Missing key.*"{name}"'):
            packed.load_state_dict({key: value for key, value in state.items() if key != name})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"layers.0.mlp.up_proj.scale"'):
        packed.load_state_dict({**state, "layers.0.mlp.up_proj.scale": torch.zeros(1)})
    packed.load_state_dict(state)
    assert torch.equal(logits(packed), logits(pack(plain, mode)))


def test_the_largest_numbers_of_float16_fit_and_the_next_float32_does_not() -> None:
    for sign in (1.0, -1.0):
        assert fits_float16(torch.tensor([0.0, sign * 65504.0]))
        assert not fits_float16(torch.tensor([0.0, sign * 65504.01]))


@pytest.mark.parametrize("value", [7e4, -7e4, float("inf"), float("nan")])
def test_weights_beyond_float16_are_refused_before_anything_changes(value: float) -> None:
    decoder = model()
    with torch.no_grad():
        decoder.layers[1].mlp.down_proj.weight[3, 4] = value
    assert not fits_float16(decoder.layers[1].mlp.down_proj.weight)
    with pytest.raises(ConfigError, match=r"layers\.1\.mlp\.down_proj"):
        pack(decoder, "float16")
    assert isinstance(decoder.layers[0].attention.q_proj, nn.Linear)


def test_only_float32_models_are_packed() -> None:
    with pytest.raises(ConfigError, match="bfloat16"):
        pack(model().to(torch.bfloat16), "float16")


def test_other_devices_keep_their_own_weights() -> None:
    assert best_mode("cuda") == "float32"
    assert best_mode("cpu") in ("float16", "float32")
