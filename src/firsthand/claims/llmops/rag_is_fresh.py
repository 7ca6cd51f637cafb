"""Freshness of RAG and fine-tuning."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

CLAIM = Claim(
    quote="Knowledge freshness: RAG real-time, always current; fine-tuning baked in at training time",
    source="the list's table of RAG and fine-tuning",
    kind="small",
    cost_s=25,
    needs=("model smollm2",),
)
TASKS = 40
"""All towns of the world."""


def measure(lab: Lab) -> Measurement:
    """SmolLM2 at questions about a town's country in a made-up world, by RAG, before and after all towns change theirs."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from firsthand.agent import Agent
    from firsthand.benchmark import Benchmark
    from firsthand.benchmarks.closed_world import make_world
    from firsthand.claims.made_up_pages import page_index, put_pages
    from firsthand.model import Sampling
    from firsthand.retrieval.corpus import close_corpora
    from firsthand.retrieval.rag.naive import naive
    from firsthand.scorers.contained import contains_value
    from firsthand.task import Task

    model, sampling = lab.model("smollm2"), Sampling(temperature=0.0, max_tokens=24)
    towns = {name: known for name, known in make_world(lab.seed).items() if known["kind"] == "town"}
    countries = sorted({known["country"] for known in towns.values()})
    moved = {name: countries[(countries.index(known["country"]) + 1) % len(countries)] for name, known in towns.items()}
    pages = {name: known["page"].replace(known["country"], moved[name]) for name, known in towns.items()}
    tasks = [
        Task(name, f"In which country is the town of {name}?", hint="a name", secret={"answer": moved[name]})
        for name in list(towns)[:TASKS]
    ]
    benchmark = Benchmark("moved towns", lambda seed: tasks, (contains_value,))
    scores, rows = [], []
    with TemporaryDirectory() as folder:
        path = page_index(Lab(lab.seed, Path(folder)))
        for name in ("before", "after"):
            if name == "after":
                put_pages(path, pages)
            agent = Agent(name, model, naive, {"index": str(path), "k": 2, "search": "lexical"}, sampling=sampling)
            traces = lab.attempt(agent, benchmark, tasks)
            scores.append([trace.value() or 0.0 for trace in traces])
            old = sum(
                towns[task.id]["country"] in (trace.answer or "") for task, trace in zip(tasks, traces, strict=True)
            )
            rows.append((name, sum(scores[-1]) / TASKS, old / TASKS))
        close_corpora()
    gain = paired(scores[1], scores[0])
    return Measurement(
        gain.difference,
        "answers that name the new fact after the index was updated, less those before",
        gain.low,
        gain.high,
        TASKS,
        columns=("index", "new fact", "old fact"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """Fixed before measuring: the new fact beyond chance, and the old one in no more than 10% of the answers, hold."""
    new, stale = (m.cell("after", column) for column in ("new fact", "old fact"))
    told = f"{new:.0%} of the answers name the new fact once its page is put, {stale:.0%} the old one"
    if m.bounds[0] > 0 and stale <= 0.1:
        return ruling("holds here", f"{told}, with no training; what fine-tuning answers is not measured here")
    if m.bounds[0] > 0:
        return ruling("holds in part", told)
    return ruling("does not hold here", told)
