"""Answers grounded in documents."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote="The LLM generates conditioned on retrieved context — grounding outputs in real documents.",
    source="Lewis et al. 2020, arXiv:2005.11401",
    kind="small",
    cost_s=12,
    needs=("model smollm2",),
)
TASKS = 20


def measure(lab: Lab) -> Measurement:
    """SmolLM2 at questions about a made-up world: from memory, and with the two passages that a search by words finds."""
    from firsthand.agent import Agent
    from firsthand.claims.made_up_pages import page_index, page_questions
    from firsthand.model import Sampling
    from firsthand.patterns.direct import direct
    from firsthand.retrieval.rag.naive import naive
    from firsthand.retrieval.rag_effect import retrievals

    model, benchmark = lab.model("smollm2"), page_questions(lab.seed, TASKS)
    sampling, values, rows = Sampling(temperature=0.0, max_tokens=24), [], []
    for name, pattern, options in (
        ("closed book", direct, {}),
        ("naive RAG", naive, {"index": str(page_index(lab)), "k": 2, "search": "lexical"}),
    ):
        traces = lab.attempt(Agent(name, model, pattern, options, sampling=sampling), benchmark, TASKS)
        values.append([trace.value() or 0.0 for trace in traces])
        shown = [" ".join(hit.chunk.text for _, hits in retrievals(trace) for hit in hits) for trace in traces]
        stand = sum(
            bool(trace.answer) and str(trace.answer).strip(" .").casefold() in text.casefold()
            for trace, text in zip(traces, shown, strict=True)
        )
        rows.append((name, sum(values[-1]) / TASKS, stand / TASKS))
    gain = paired(values[1], values[0])
    return Measurement(
        gain.difference,
        "accuracy of SmolLM2 135M at questions about a made-up world, with passages less without",
        gain.low,
        gain.high,
        TASKS,
        columns=("arm", "accuracy", "answers that stand in a shown passage"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """Fixed before measuring: a gain beyond chance, and half of the answers in a passage; the gain alone is a part."""
    share = m.cell("naive RAG", "answers that stand in a shown passage")
    told = f"{m.value:+.0%} with passages, and {share:.0%} of the answers stand word for word in one"
    if m.bounds[0] > 0 and share >= 0.5:
        return ruling("holds here", f"{told}; a model this small grounds the easy ones")
    if m.bounds[0] > 0:
        return ruling("holds in part", f"{told}; the others are put in the model's own words, or are wrong")
    return ruling("does not hold here", told)
