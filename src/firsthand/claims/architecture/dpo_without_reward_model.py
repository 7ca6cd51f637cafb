"""DPO without a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.stats.intervals import proportion_interval

if TYPE_CHECKING:
    import torch

    from firsthand.nn.decoder import Decoder

CLAIM = Claim(
    quote=(
        "DPO (Direct Preference Optimization) — simpler alternative to RLHF, directly learns from preference pairs "
        "without a separate reward model."
    ),
    source="Rafailov et al. 2023, arXiv:2305.18290",
    kind="ours",
    cost_s=3,
)
STEPS, BATCH, LENGTH = 80, 32, 12


def measure(lab: Lab) -> Measurement:
    """A tiny model is trained on pairs whose better text has more of some tokens; no reward model is made."""
    import torch

    from firsthand.claims.small_decoders import small_decoder
    from firsthand.train.losses.pair_losses import dpo_loss

    torch.set_num_threads(1)
    policy, reference = (
        small_decoder(
            lab.seed, std=0.05, vocab_size=32, hidden_size=32, intermediate_size=64, num_heads=2, num_kv_heads=2
        )
        for _ in range(2)
    )
    generator = torch.Generator().manual_seed(lab.seed)
    optimizer, rows = torch.optim.AdamW(policy.parameters(), lr=3e-3, weight_decay=0.0), []
    held = [_pairs(generator) for _ in range(4)]

    def agreement() -> float:
        right = 0
        with torch.inference_mode():
            for better, worse in held:
                liked = _logprob(policy, better) - _logprob(reference, better)
                right += int((liked > _logprob(policy, worse) - _logprob(reference, worse)).sum())
        return right / (len(held) * BATCH)

    rows.append(("0", agreement()))
    for step in range(1, STEPS + 1):
        better, worse = _pairs(generator)
        with torch.no_grad():
            ratios = [_logprob(reference, each) for each in (better, worse)]
        loss = dpo_loss(_logprob(policy, better) - ratios[0], _logprob(policy, worse) - ratios[1])
        optimizer.zero_grad()
        loss.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % (STEPS // 4) == 0:
            rows.append((str(step), agreement()))
    return _measured(rows, len(held) * BATCH)


def _measured(rows: Sequence[tuple[str, float]], n: int) -> Measurement:
    """`rows`: steps, and the share of the n held-out pairs that the policy agrees with after them."""
    low, high = proportion_interval(round(rows[-1][1] * n), n)
    return Measurement(
        rows[-1][1],
        "held-out preferences that the policy agrees with after training on pairs alone",
        low,
        high,
        n,
        columns=("steps", "agreement"),
        rows=tuple(rows),
        curves={"agreement": [(float(r[0]), r[1]) for r in rows]},
        axes=("steps", "held-out agreement"),
    )


def _logprob(model: Decoder, ids_BT: torch.Tensor) -> torch.Tensor:
    """The log-probability of each text after its first token, of shape (B)."""
    import torch

    from firsthand.nn.blocks.attention import Packed

    count, length = ids_BT.shape
    hidden = model(ids_BT.flatten(), torch.arange(length).repeat(count), Packed([length] * count))
    logits = model.logits(hidden).view(count, length, -1)[:, :-1].log_softmax(-1)
    return logits.gather(-1, ids_BT[:, 1:, None])[..., 0].sum(-1)


def _pairs(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Better and worse texts of shape (BATCH, LENGTH): the better one has as many of the tokens 2 to 9, or more."""
    import torch

    ids = torch.randint(2, 32, (2, BATCH, LENGTH), generator=generator)
    liked = (ids < 10).sum(-1)
    swap = (liked[0] < liked[1])[:, None]
    return torch.where(swap, ids[1], ids[0]), torch.where(swap, ids[0], ids[1])


def judge(m: Measurement) -> Verdict:
    """Better than chance on pairs that it has not seen."""
    if m.bounds[0] > 0.7:
        return ruling(
            "holds here",
            f"{m.value:.0%} of held-out preferences, with two models where PPO with a reward model has four",
        )
    if m.bounds[0] > 0.5:
        return ruling("holds in part", f"{m.value:.0%} of held-out preferences")
    return ruling("does not hold here", f"{m.value:.0%} of held-out preferences, no better than chance")
