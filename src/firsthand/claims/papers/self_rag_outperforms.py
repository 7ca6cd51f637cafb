"""Self-RAG against RAG."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote="Significantly outperforms RAG on factual tasks.",
    source="Asai et al. 2023, arXiv:2310.11511",
    kind="small",
    cost_s=18,
    needs=("model smollm2",),
)
TASKS = 16


def measure(lab: Lab) -> Measurement:
    """SmolLM2 at questions about a made-up world, by both patterns with the same search; its reflections are choices
    between words, since it was not trained to write the paper's reflection tokens."""
    from firsthand.agent import Agent
    from firsthand.claims.made_up_pages import page_index, page_questions
    from firsthand.model import Sampling
    from firsthand.retrieval.rag.naive import naive
    from firsthand.retrieval.rag.self_rag import self_rag

    model, benchmark = lab.model("smollm2"), page_questions(lab.seed, TASKS)
    sampling, values, rows = Sampling(temperature=0.0, max_tokens=24), [], []
    options = {"index": str(page_index(lab)), "k": 2, "search": "lexical"}
    for name, pattern, more in (("naive RAG", naive, {}), ("Self-RAG", self_rag, {"beam": 1, "depth": 1})):
        traces = lab.attempt(Agent(name, model, pattern, {**options, **more}, sampling=sampling), benchmark, TASKS)
        values.append([trace.value() or 0.0 for trace in traces])
        failed = sum(trace.error is not None for trace in traces)
        tokens = sum(trace.usage.total_tokens for trace in traces) / TASKS
        rows.append((name, sum(values[-1]) / TASKS, tokens, float(failed)))
    gain = paired(values[1], values[0])
    return Measurement(
        gain.difference,
        "accuracy of SmolLM2 135M with Self-RAG less that with naive RAG, same passages",
        gain.low,
        gain.high,
        TASKS,
        columns=("pattern", "accuracy", "tokens", "attempts that failed"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """Fixed before measuring: significant is beyond chance; a gain within it is a part."""
    told = f"{m.value:+.0%} for a model that was not trained for it (`firsthand train selfrag` does)"
    if m.bounds[0] > 0:
        return ruling("holds here", told)
    if m.value > 0:
        return ruling("holds in part", f"{told}, within chance")
    return ruling("does not hold here", f"{told}; the paper's gain is of models trained to criticise")
