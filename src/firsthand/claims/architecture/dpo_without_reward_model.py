"""DPO without a reward model."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.stats.intervals import proportion_interval

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
    from firsthand.nn.blocks.attention import Packed
    from firsthand.nn.decoder import Decoder
    from firsthand.train.losses.pair_losses import dpo_loss

    torch.set_num_threads(1)
    policy, reference = (
        small_decoder(
            lab.seed, std=0.05, vocab_size=32, hidden_size=32, intermediate_size=64, num_heads=2, num_kv_heads=2
        )
        for _ in range(2)
    )
    places, pack = torch.arange(LENGTH).repeat(BATCH), Packed([LENGTH] * BATCH)

    def logprob(model: Decoder, ids_BT: torch.Tensor) -> torch.Tensor:
        logits = model.logits(model(ids_BT.flatten(), places, pack)).view(BATCH, LENGTH, -1)[:, :-1].log_softmax(-1)
        return logits.gather(-1, ids_BT[:, 1:, None])[..., 0].sum(-1)

    generator = torch.Generator().manual_seed(lab.seed)

    def pairs() -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.randint(2, 32, (2, BATCH, LENGTH), generator=generator)
        liked = (ids < 10).sum(-1)
        swap = (liked[0] < liked[1])[:, None]
        return torch.where(swap, ids[1], ids[0]), torch.where(swap, ids[0], ids[1])

    optimizer, rows = torch.optim.AdamW(policy.parameters(), lr=3e-3, weight_decay=0.0), []
    held = [pairs() for _ in range(4)]

    def agreement() -> float:
        right = 0
        with torch.inference_mode():
            for better, worse in held:
                liked = logprob(policy, better) - logprob(reference, better)
                right += int((liked > logprob(policy, worse) - logprob(reference, worse)).sum())
        return right / (len(held) * BATCH)

    rows.append(("0", agreement()))
    for step in range(1, STEPS + 1):
        better, worse = pairs()
        with torch.no_grad():
            ratios = [logprob(reference, each) for each in (better, worse)]
        loss = dpo_loss(logprob(policy, better) - ratios[0], logprob(policy, worse) - ratios[1])
        optimizer.zero_grad()
        loss.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % (STEPS // 4) == 0:
            rows.append((str(step), agreement()))
    n = len(held) * BATCH
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
