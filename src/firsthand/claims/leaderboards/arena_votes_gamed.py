"""Votes that an attacker needs to move a model up in an arena of blind votes."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab

CLAIM = Claim(
    quote="The only benchmark that can't be gamed — humans pick winners without knowing the model.",
    source="LM Arena; Min et al. 2025, arXiv:2501.17858",
    kind="sim",
    cost_s=4,
)
MODELS, VOTES, VOTERS = 8, 4_000, 100


def measure(lab: Lab) -> Measurement:
    """Forged votes, among 4,000 honest ones, after which a model stands one rank higher."""
    import numpy as np

    from firsthand.arena.battle_table import A_WINS, B_WINS, BattleTable
    from firsthand.arena.vote_stuffing import StuffingAttack, forged_votes_needed

    rng = np.random.default_rng(lab.seed)
    strength = np.linspace(1.0, -1.0, MODELS)
    a = rng.integers(0, MODELS, VOTES).astype(np.int32)
    b = ((a + rng.integers(1, MODELS, VOTES)) % MODELS).astype(np.int32)
    wins = rng.random(VOTES) < 1 / (1 + np.exp(strength[b] - strength[a]))
    outcome = np.where(wins, A_WINS, B_WINS).astype(np.int32)
    names = tuple(f"model {i}" for i in range(MODELS))
    honest = BattleTable(names, a, b, outcome, voters=rng.integers(0, VOTERS, VOTES).astype(np.int32))
    rows = []
    for target in (3, 5):
        attack = StuffingAttack(names[target], most=VOTES)
        for checks in (False, True):
            needed = forged_votes_needed(honest, attack, checks=checks, seed=lab.seed)
            rows.append((f"{names[target]}, {'checks' if checks else 'no checks'}", float(needed or VOTES)))
    share = 100 * rows[0][1] / VOTES
    what = "forged votes that move a model up one rank, in % of the honest ones"
    return Measurement(share, what, unit="%", columns=("target", "forged votes"), rows=tuple(rows))


def judge(m: Measurement) -> Verdict:
    """It could not be gamed if not even as many forged votes as honest ones moved it."""
    if m.value >= 100:
        return ruling("holds here", "not even as many forged votes as honest ones move a model up a rank")
    return ruling("does not hold here", f"forged votes of {m.value:.1f}% of the honest ones move a model up a rank")
