"""Weights in 4 bits: which level a number takes, what is kept of each block, and the layers that are replaced."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from firsthand.errors import ConfigError
from firsthand.nn.nf4 import INT4, NF4, FourBitLinear, FourBits, _doubly, four_bits, to_four_bits


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_number_between_two_levels_takes_the_lower_one_and_every_level_itself() -> None:
    for levels, table in (("nf4", NF4), ("int4", INT4)):
        exact = torch.tensor(table)
        middles = (exact[1:] + exact[:-1]) / 2
        last = len(table) - 1
        row = torch.cat([exact, middles, torch.zeros(64 - len(table) - len(middles)), 2 * exact.flip(0)])
        row = torch.cat([row, torch.zeros(64 - len(table) - 1), torch.tensor([-0.5])])
        made = four_bits(row.reshape(2, 64), levels=levels, double=False)  # type: ignore[arg-type]
        assert (made.shape, made.levels, made.absmax.tolist()) == ((2, 64), levels, [1.0, 2.0])
        assert (made.scales, made.mean, made.size_bytes, made.bits_per_weight) == (None, None, 64 + 8, 8 * 72 / 128)
        codes = torch.stack([made.codes // 16, made.codes % 16], 1).flatten().tolist()
        zero = table.index(0)
        quarter = min(range(last + 1), key=lambda at: abs(table[at] + 0.25))
        assert codes == [
            *range(last + 1), *range(last), *[zero] * (63 - 2 * last), *range(last, -1, -1), *[zero] * (62 - last), quarter,
        ]  # fmt: skip
        values = made.values()
        assert torch.equal(values[0, : last + 1], exact) and torch.equal(values[1, : last + 1], 2 * exact.flip(0))
        assert values.dtype == torch.float32 and made.absmax_values() is made.absmax
    assert (len(NF4), NF4[7], len(INT4), INT4[:2]) == (16, 0.0, 15, (-1.0, -6 / 7))


def test_absmax_become_bytes_after_their_mean_is_taken_away() -> None:
    absmax = torch.cat([torch.full((256,), 3.0), torch.tensor([5.0, 4.0, 1.0])])
    absmax[2], absmax[7] = 4.27, 2.0
    codes, scales, mean = _doubly(absmax)
    middle = (254 * 3.0 + 4.27 + 2.0 + 10.0) / 259
    assert float(mean) == pytest.approx(middle, rel=1e-6) and codes.dtype == torch.int8 and len(codes) == 259
    first, second = (4.27 - middle) / 127, (middle - 1.0) / 127
    assert scales.tolist() == pytest.approx([first, second], rel=1e-5)
    assert [int(codes[at]) for at in (0, 2, 7)] == [round((3.0 - middle) / first), 127, round((2.0 - middle) / first)]
    assert codes[256:].tolist() == [round((5.0 - middle) / second), round((4.0 - middle) / second), -127]
    packed = FourBits((1, 64 * 259), "nf4", torch.zeros(32 * 259, dtype=torch.uint8), codes, scales, mean)
    found = packed.absmax_values()
    assert found[[2, 258]].tolist() == pytest.approx([4.27, 1.0], rel=1e-5) and len(found) == 259
    assert packed.size_bytes == 32 * 259 + 259 + 8 + 4
    assert packed.values()[0, [128, 258 * 64]].tolist() == pytest.approx([-4.27, -1.0], rel=1e-5)
    assert packed.bits_per_weight == pytest.approx(4 + (259 + 8 + 4) * 8 / (64 * 259))
    level, spread, same = _doubly(torch.full((3,), 2.5))
    assert (level.tolist(), spread.tolist(), float(same)) == ([0, 0, 0], [0.0], 2.5)
    # the codes of weights are those of the absmax as it is kept, not as it was
    weight = torch.cat([numbers(64), 9 * numbers(64, seed=1), 0.5 * numbers(64, seed=2)]).reshape(1, -1)
    made = four_bits(weight)
    kept = made.absmax_values().repeat_interleave(64)
    nearest = (weight[0, :, None] / kept[:, None] - torch.tensor(NF4)).abs().argmin(-1)
    assert torch.equal(made.values()[0], torch.tensor(NF4)[nearest] * kept)
    assert not torch.equal(made.absmax_values(), weight.reshape(-1, 64).abs().amax(1))


def test_rows_need_not_fill_blocks_and_other_tensors_are_refused() -> None:
    odd = four_bits(numbers(3, 43).half(), double=False)
    assert (odd.shape, len(odd.codes), len(odd.absmax)) == ((3, 43), 96, 3)  # 129 weights: two blocks and one
    assert odd.values().shape == (3, 43)
    assert odd.values()[2, 42] == numbers(3, 43).half()[2, 42]  # alone in its block it is the largest
    zeros = four_bits(torch.zeros(2, 32))
    assert (zeros.codes.tolist(), zeros.values().any().item()) == ([119] * 32, False)
    for wrong, said in (
        (torch.zeros(64), "a tensor of shape (64,) came: 4 bits are for matrices"),
        (torch.zeros(2, 3, 4), "a tensor of shape (2, 3, 4) came: 4 bits are for matrices"),
        (torch.tensor([[1.0, -torch.inf]]), "the weights hold values that are no finite numbers: they cannot be rounded "
                                            "to 4 bits"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as told:
            four_bits(wrong)
        assert str(told.value) == said


def test_a_layer_in_four_bits_keeps_its_sizes_bias_and_the_dtype_of_its_inputs() -> None:
    plain = nn.Linear(40, 6)
    matrix = four_bits(plain.weight)
    layer = FourBitLinear(matrix, plain.bias)
    assert (layer.in_features, layer.out_features, layer.levels) == (40, 6, "nf4")
    assert layer.extra_repr() == "in_features=40, out_features=6, nf4"
    assert list(layer.state_dict()) == ["codes", "absmax", "scales", "mean", "bias"] and not list(layer.parameters())
    assert layer.bias is not None and not layer.bias.requires_grad and torch.equal(layer.bias, plain.bias)
    again = layer.matrix
    assert (again.shape, again.levels) == ((6, 40), "nf4") and torch.equal(again.values(), matrix.values())
    assert torch.equal(layer.weight, matrix.values()) and layer.weight.dtype == torch.float32
    x = numbers(2, 3, 40, seed=4).requires_grad_()
    out = layer(x)
    torch.testing.assert_close(out, x @ matrix.values().T + plain.bias)
    out.sum().backward()
    torch.testing.assert_close(x.grad, matrix.values().sum(0).expand(2, 3, 40))
    half = x.detach().bfloat16()
    assert layer.product(half).dtype == torch.bfloat16
    torch.testing.assert_close(layer.product(half), half @ matrix.values().bfloat16().T)
    bare = FourBitLinear(four_bits(plain.weight, levels="int4", double=False), None)
    assert (bare.bias, bare.scales, bare.mean, bare.levels) == (None, None, None, "int4")
    torch.testing.assert_close(bare(x), x @ bare.weight.T)


def test_all_linears_or_those_named_are_replaced_in_place() -> None:
    def model() -> nn.Module:
        torch.manual_seed(3)
        inner = nn.Sequential(nn.Linear(8, 4, bias=False), nn.LayerNorm(4))
        return nn.ModuleDict({"first": nn.Linear(4, 8), "inner": inner, "table": nn.Embedding(3, 4)})

    made, kept = model(), model()
    assert to_four_bits(made) is made
    kinds = {name: type(each).__name__ for name, each in made.named_modules() if not list(each.children())}
    assert kinds == {"first": "FourBitLinear", "inner.0": "FourBitLinear", "inner.1": "LayerNorm", "table": "Embedding"}
    first, inner = made.get_submodule("first"), made.get_submodule("inner.0")
    old = kept.get_submodule("first")
    assert torch.equal(first.weight, four_bits(old.weight).values()) and torch.equal(first.bias, old.bias)  # type: ignore[arg-type]
    assert inner.bias is None and inner.levels == "nf4" and inner.scales is not None
    some = to_four_bits(model(), ["inner.0", "table"], levels="int4")
    kinds = {name: type(each).__name__ for name, each in some.named_modules() if not list(each.children())}
    assert kinds == {"first": "Linear", "inner.0": "FourBitLinear", "inner.1": "LayerNorm", "table": "Embedding"}
    assert some.get_submodule("inner.0").levels == "int4"
    assert type(to_four_bits(model(), []).get_submodule("first")) is nn.Linear  # no names are not all
