"""Packed attention against the formula, and the decoder's packing, windows and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from firsthand.errors import ConfigError
from firsthand.nn.architecture import Architecture, Rope
from firsthand.nn.blocks.attention import Packed
from firsthand.nn.decoder import Decoder, initialise

torch.set_num_threads(1)


def spelled_out(
    q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, lengths: list[int], scale: float, window: int | None
) -> Tensor:
    """Token by token, head by head, in float64."""
    group = q_NHK.shape[1] // k_NGK.shape[1]
    out_NHK = torch.zeros_like(q_NHK, dtype=torch.float64)
    start = 0
    for length in lengths:
        for i in range(start, start + length):
            first = start if window is None else max(start, i - window + 1)
            for head in range(q_NHK.shape[1]):
                keys_TK, values_TK = (x[first : i + 1, head // group].double() for x in (k_NGK, v_NGK))
                out_NHK[i, head] = (keys_TK @ q_NHK[i, head].double() * scale).softmax(0) @ values_TK
        start += length
    return out_NHK.to(q_NHK.dtype)


@pytest.mark.parametrize("lengths", [[7], [1, 1, 1], [5, 5, 2, 9, 9, 1], [3, 8]])
@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_packed_attention_is_the_formula(lengths: list[int], window: int | None, num_kv_heads: int) -> None:
    torch.manual_seed(0)
    tokens = sum(lengths)
    q_NHK = torch.randn(tokens, 4, 8)
    k_NGK, v_NGK = torch.randn(2, tokens, num_kv_heads, 8)
    found_NHK = Packed(lengths)(0, q_NHK, k_NGK, v_NGK, scale=0.3, window=window)
    expected_NHK = spelled_out(q_NHK, k_NGK, v_NGK, lengths, 0.3, window)
    torch.testing.assert_close(found_NHK, expected_NHK, atol=1e-5, rtol=0)


def test_lengths_must_cover_the_tokens() -> None:
    q_NHK = torch.zeros(4, 1, 2)
    with pytest.raises(ConfigError, match="4 tokens came for lengths that sum to 5"):
        Packed([2, 3])(0, q_NHK, q_NHK, q_NHK, scale=1.0, window=None)
    with pytest.raises(ConfigError, match="1 token or more"):
        Packed([2, 0])


def tiny(**changes: object) -> Architecture:
    settings: dict[str, object] = dict(
        family="llama",
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        max_position=64,
        norm_eps=1e-5,
        windows=(None, 3),
        ropes=(Rope(1e4), Rope(1e6)),
        tie_embeddings=False,
    )
    return Architecture(**{**settings, **changes})  # type: ignore[arg-type]


def test_packing_does_not_change_a_sequence() -> None:
    model = initialise(Decoder(tiny()), std=0.3)
    torch.manual_seed(1)
    sequences = [torch.randint(0, 50, (length,)) for length in (5, 5, 9, 1)]
    positions_N = torch.cat([torch.arange(len(ids)) for ids in sequences])
    together_ND = model(torch.cat(sequences), positions_N, Packed([len(ids) for ids in sequences]))
    alone = [model(ids, torch.arange(len(ids)), Packed([len(ids)])) for ids in sequences]
    torch.testing.assert_close(together_ND, torch.cat(alone), atol=1e-5, rtol=0)


def test_a_window_limits_what_reaches_a_token() -> None:
    model = initialise(Decoder(tiny(windows=(3, 3))), std=0.3)
    ids_N = torch.arange(12)
    changed_N = ids_N.clone()
    changed_N[0] = 40
    with torch.no_grad():
        delta_N = (model(ids_N, ids_N, Packed([12])) - model(changed_N, ids_N, Packed([12]))).abs().amax(-1)
    assert (delta_N[:5] > 1e-4).all(), "two layers of window 3 carry a change 4 positions on"
    assert (delta_N[5:] == 0).all()


@pytest.mark.slow
def test_gradients_are_those_of_finite_differences() -> None:
    sandwich = dict(
        norm_placement="sandwich", norm_unit_offset=True, qk_norm=True, activation="gelu_tanh", logit_softcap=5.0
    )
    for changes in (
        {},
        sandwich,
        dict(tie_embeddings=True, qkv_bias=True, o_bias=True, mlp_bias=True, embed_scale=2.0),
    ):
        model = initialise(Decoder(tiny(**changes)), std=0.3)
        ids_N, positions_N = torch.tensor([3, 8, 1, 44, 3, 9]), torch.tensor([0, 1, 2, 3, 0, 1])

        def loss(model: Decoder = model, ids_N: Tensor = ids_N, positions_N: Tensor = positions_N) -> Tensor:
            logits_NV = model.logits(model(ids_N, positions_N, Packed([4, 2])))
            return torch.nn.functional.cross_entropy(logits_NV, ids_N)

        loss().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
            direction = parameter.grad / parameter.grad.norm()
            step = 1e-2
            with torch.no_grad():
                parameter += step * direction
                above = loss()
                parameter -= 2 * step * direction
                below = loss()
                parameter += step * direction
            slope = float(above - below) / (2 * step)
            assert slope == pytest.approx(float(parameter.grad.norm()), rel=0.03, abs=2e-4), name


def test_initialise_is_seeded_and_starts_near_the_uniform_guess() -> None:
    first, again, other = (initialise(Decoder(tiny()), seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.embed.weight, other.embed.weight)
    ids_N = torch.arange(20)
    logits_NV = first.logits(first(ids_N, ids_N, Packed([20])))
    assert torch.nn.functional.cross_entropy(logits_NV, ids_N.flip(0)).item() == pytest.approx(
        torch.tensor(50.0).log().item(), abs=0.1
    )


def test_projections_are_plain_linears_that_can_be_swapped() -> None:
    model = Decoder(tiny())
    names = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if type(module) is torch.nn.Linear}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"}


def test_logits_are_float32_whatever_the_weights_are() -> None:
    model = Decoder(tiny()).to(torch.bfloat16)
    hidden_ND = model(torch.arange(4), torch.arange(4), Packed([4]))
    assert hidden_ND.dtype == torch.bfloat16
    assert model.logits(hidden_ND).dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_gives_what_the_cpu_gives() -> None:
    model = initialise(Decoder(tiny()), std=0.3)
    ids_N, positions_N = torch.arange(12), torch.arange(12)
    cpu_NV = model.logits(model(ids_N, positions_N, Packed([12])))
    model = model.cuda()
    cuda_NV = model.logits(model(ids_N.cuda(), positions_N.cuda(), Packed([12]))).cpu()
    torch.testing.assert_close(cuda_NV, cpu_NV, atol=1e-4, rtol=0)
