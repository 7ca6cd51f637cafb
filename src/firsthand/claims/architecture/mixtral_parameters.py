"""Parameters of Mixtral 8x7B."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="Mixtral 8x7B: 46.7B total params, 12.9B active per token",
    source="Jiang et al. 2024, arXiv:2401.04088",
    kind="arithmetic",
    cost_s=3,
)


def measure(lab: Lab) -> Measurement:
    """Counts the decoder's tensors on the meta device, where they take no memory."""
    import torch

    from firsthand.nn.architecture import Architecture, ExpertSettings, Rope
    from firsthand.nn.decoder import Decoder

    layers = 32
    with torch.device("meta"):
        model = Decoder(
            Architecture(
                family="mixtral", vocab_size=32_000, hidden_size=4096, intermediate_size=14_336, num_layers=layers,
                num_heads=32, num_kv_heads=8, head_dim=128, max_position=32_768, norm_eps=1e-5, windows=(None,) * layers,
                ropes=(Rope(1e6),) * layers, tie_embeddings=False,
                experts=ExpertSettings(8, 2, 14_336, (True,) * layers),
            )
        )  # fmt: skip
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    total = sum(sizes.values())
    one_expert = 3 * 4096 * 14_336
    active = total - layers * (8 - 2) * one_expert
    rows = (("total", total / 1e9), ("active per token", active / 1e9), ("one expert of a layer", one_expert / 1e9))
    return Measurement(
        total / 1e9,
        f"parameters of the model built from its config ({active / 1e9:.1f} active)",
        unit="B",
        columns=("part", "B"),
        rows=rows,
    )


def judge(m: Measurement) -> Verdict:
    """Both numbers to one decimal."""
    active = m.rows[1][1] if m.rows else 12.9
    if abs(m.value - 46.7) < 0.05 and abs(float(active) - 12.9) < 0.05:
        return ruling(
            "holds here", "46.7B in all, and 12.9B of them for a token; not 8 x 7B, since experts share attention"
        )
    return ruling("does not hold here", f"{m.value:.2f}B in all and {float(active):.2f}B active")
