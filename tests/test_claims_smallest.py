"""What claims measure at their smallest: the counting, the split, the arm and the interval, by models of known skill.

`tests/data/claims_smallest.json` holds the numbers, `claims_at_smallest.py` the models. The value of each follows from its
rows, as the first test says for those where it is a difference or a ratio of two of them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from claims_at_smallest import SMALLEST, TRAINED, measured, measured_after_training

KEPT: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "claims_smallest.json").read_text())


STEPS = {
    "architecture.dpo_without_reward_model", "architecture.facts_in_ffn", "architecture.heads_differ",
    "safety.neurons_or_features",
}  # fmt: skip
"""Claims whose smallest measurement takes real steps of training: another processor rounds otherwise, and counts move."""


def near(kept: Any, within: float = 2e-5) -> Any:
    """The kept numbers, to a thousandth or to `within`."""
    if isinstance(kept, float):
        return pytest.approx(kept, rel=1e-3, abs=within)
    if isinstance(kept, list):
        return [near(each, within) for each in kept]
    return {name: near(each, within) for name, each in kept.items()} if isinstance(kept, dict) else kept


@pytest.mark.slow
@pytest.mark.parametrize("place", SMALLEST)
def test_a_claim_at_its_smallest_measures_what_is_kept(place: str, tmp_path: Path) -> None:
    found, kept = measured(place, tmp_path), KEPT[place]["measured"]
    if place == "architecture.flash_attention_memory":  # the largest difference is of rounding alone
        assert max(row.pop() for row in found["rows"]) < 1e-5
        assert all(row.pop() < 1e-5 for row in kept["rows"])
    for part, value in kept.items():
        assert found[part] == near(value, 0.35 if place in STEPS else 2e-5), part


@pytest.mark.parametrize("place", TRAINED)
def test_a_claim_that_trains_asks_for_its_recipes_and_tries_both_models_on_the_held_out_tasks(
    place: str, tmp_path: Path
) -> None:
    found, made = measured_after_training(place, tmp_path)
    assert json.loads(json.dumps(made)) == KEPT[place]["made"]
    assert {part: found[part] for part in KEPT[place]["measured"]} == near(KEPT[place]["measured"])


DIFFERENCES = {
    "papers.tot_game24": (2, 0, 1), "papers.cot_reasoning": (1, 0, 1), "papers.few_shot_examples": (2, 0, 1),
    "papers.rag_grounds_answers": (1, 0, 1), "papers.self_rag_outperforms": (1, 0, 1),
    "papers.toolformer_self_supervised": (3, 1, 1), "architecture.verifiable_rewards": (1, 0, 1),
    "architecture.fits_is_not_retrieves": (0, 2, 1), "architecture.past_the_middle": (1, 0, 1),
    "architecture.facts_in_ffn": (2, 3, 2), "safety.neurons_or_features": (2, 0, 1), "safety.proxy_not_goal": (2, 1, 2),
    "safety.reasoning_improves_safety": (2, 1, 1), "llmops.fine_tuning_specialises": (1, 0, 1),
    "llmops.fine_tuning_style": (2, 1, 1), "llmops.rag_cites": (0, 1, 2), "llmops.rag_is_fresh": (1, 2, 1),
}  # fmt: skip
"""Claim -> the two rows and the column whose difference is its value."""


def test_values_follow_from_the_rows_and_lie_within_their_intervals() -> None:
    for place, (one, other, column) in DIFFERENCES.items():
        kept = KEPT[place]["measured"]
        rows = kept["rows"]
        assert kept["value"] == pytest.approx(rows[one][column] - rows[other][column], abs=2e-5), place
    for place, each in KEPT.items():
        kept = each["measured"]
        assert kept["low"] is None or kept["low"] <= kept["value"] <= kept["high"], place
    rows = KEPT["architecture.flash_attention_memory"]["measured"]["rows"]
    assert KEPT["architecture.flash_attention_memory"]["measured"]["value"] == pytest.approx(
        math.log(rows[3][2] / rows[1][2]) / math.log(64 / 32), rel=1e-4
    )
    rows = KEPT["architecture.work_without_cache"]["measured"]["rows"]
    assert rows == [["2", 3.0, 2.0], ["5", 15.0, 5.0], ["9", 45.0, 9.0]], "1 + 2 + ... tokens without a cache"
    edges = KEPT["architecture.lost_in_the_middle"]["measured"]
    assert edges["value"] == pytest.approx((edges["rows"][0][1] + edges["rows"][2][1]) / 2 - edges["rows"][1][1])
    curves = KEPT["architecture.yarn_extends"]["measured"]
    assert [curves["curves"]["RoPE"], curves["curves"]["YaRN"]] == [
        [[float(row[0]), row[at]] for row in curves["rows"]] for at in (1, 2)
    ]
