"""Activations and edits equal TransformerLens's on one set of GPT-2-shaped weights. TransformerLens is optional."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from firsthand.interp.activations import run_with_cache, run_with_edits
from firsthand.nn import weights

if find_spec("transformer_lens") is None:
    pytest.skip("TransformerLens is not installed", allow_module_level=True)
lens: Any = importlib.import_module("transformer_lens")
transformers: Any = importlib.import_module("transformers")
pytestmark = pytest.mark.slow
LAYERS, HEADS, WIDTH, HEAD, VOCAB, CONTEXT = 2, 4, 32, 8, 61, 48
TEXT = [5, 17, 3, 44, 0, 60, 17, 5, 9, 31]


@pytest.fixture(scope="module")
def theirs() -> Any:
    config = lens.HookedTransformerConfig(
        n_layers=LAYERS, n_heads=HEADS, d_model=WIDTH, d_head=HEAD, d_mlp=4 * WIDTH, d_vocab=VOCAB, n_ctx=CONTEXT,
        act_fn="gelu_new", normalization_type="LN", positional_embedding_type="standard", seed=0, device="cpu",
    )  # fmt: skip
    model = lens.HookedTransformer(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        model.unembed.W_U.copy_(model.embed.W_E.T)
        model.unembed.b_U.zero_()
    return model


@pytest.fixture(scope="module")
def ours(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same weights, written as a GPT-2 checkpoint and loaded by us."""
    state = {"transformer.wte.weight": theirs.embed.W_E, "transformer.wpe.weight": theirs.pos_embed.W_pos}
    for place, block in enumerate(theirs.blocks):
        name = f"transformer.h.{place}"
        attn = block.attn
        flat = [matrix.permute(1, 0, 2).reshape(WIDTH, WIDTH) for matrix in (attn.W_Q, attn.W_K, attn.W_V)]
        state |= {
            f"{name}.attn.c_attn.weight": torch.cat(flat, 1),
            f"{name}.attn.c_attn.bias": torch.cat([each.flatten() for each in (attn.b_Q, attn.b_K, attn.b_V)]),
            f"{name}.attn.c_proj.weight": attn.W_O.reshape(WIDTH, WIDTH),
            f"{name}.attn.c_proj.bias": attn.b_O,
            f"{name}.mlp.c_fc.weight": block.mlp.W_in,
            f"{name}.mlp.c_fc.bias": block.mlp.b_in,
            f"{name}.mlp.c_proj.weight": block.mlp.W_out,
            f"{name}.mlp.c_proj.bias": block.mlp.b_out,
        }
        for ln, which in (("ln_1", block.ln1), ("ln_2", block.ln2)):
            state |= {f"{name}.{ln}.weight": which.w, f"{name}.{ln}.bias": which.b}
    state |= {"transformer.ln_f.weight": theirs.ln_final.w, "transformer.ln_f.bias": theirs.ln_final.b}
    config = transformers.GPT2Config(
        vocab_size=VOCAB,
        n_positions=CONTEXT,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config)
    lacks = model.load_state_dict({k: v.detach().clone() for k, v in state.items()}, strict=False)
    assert lacks.missing_keys == ["lm_head.weight"] and not lacks.unexpected_keys
    model.tie_weights()
    folder: Path = tmp_path_factory.mktemp("gpt2")
    model.save_pretrained(folder)
    return weights.load(folder)


NAMES = [
    "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_q",
    "attn.hook_k", "attn.hook_v", "attn.hook_z", "mlp.hook_post",
]  # fmt: skip


def test_logits_and_each_activation_are_theirs(theirs: Any, ours: Any) -> None:
    logits, cache = theirs.run_with_cache(torch.tensor([TEXT]))
    names = [f"blocks.{layer}.{name}" for layer in range(LAYERS) for name in NAMES]
    found = run_with_cache(ours, TEXT, names)
    assert torch.allclose(found.logits, logits[0], atol=1e-4)
    for name in names:
        mine, want = found.cache[name], cache[name][0]
        assert torch.allclose(mine.reshape(want.shape), want, atol=1e-4), name


@pytest.mark.parametrize("name", ["hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z", "attn.hook_q"])
def test_edits_give_their_logits(theirs: Any, ours: Any, name: str) -> None:
    site = f"blocks.1.{name}"

    def halved(values: torch.Tensor, hook: Any = None) -> torch.Tensor:
        return values * 0.5 + torch.linspace(-1, 1, values.shape[-1])

    want = theirs.run_with_hooks(torch.tensor([TEXT]), fwd_hooks=[(site, halved)])[0]
    found = run_with_edits(ours, TEXT, {site: halved})
    assert torch.allclose(found, want, atol=1e-4)
    assert not torch.allclose(found, run_with_cache(ours, TEXT, ()).logits, atol=5e-4)
