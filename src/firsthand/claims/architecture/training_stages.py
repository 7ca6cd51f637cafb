"""Stages of training."""

from __future__ import annotations

from firsthand.claims.claim import Claim

CLAIM = Claim(
    quote=(
        "Pre-training on trillions of tokens — learns language. Supervised Fine-Tuning (SFT) on instruction/response "
        "pairs — learns to be helpful. RLHF — human raters rank outputs, trains reward model, PPO optimizes against "
        "it."
    ),
    source="Ouyang et al. 2022, arXiv:2203.02155",
    kind="none",
    cannot=(
        "trillions of tokens and raters are not here; `firsthand train pretrain, sft, reward, ppo, dpo` are the "
        "stages at a small size, and dpo_without_reward_model tests the last"
    ),
)
