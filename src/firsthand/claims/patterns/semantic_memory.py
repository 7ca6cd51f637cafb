"""Facts by similarity."""

from __future__ import annotations

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab
from firsthand.stats.intervals import proportion_interval

CLAIM = Claim(
    quote="Semantic memory: Facts stored as embeddings, retrieved by similarity",
    source="Packer et al. 2023, arXiv:2310.08560",
    kind="sim",
    cost_s=1,
)
PEOPLE = {
    "Ann": "Oslo",
    "Ben": "Lima",
    "Cleo": "Rome",
    "Dan": "Bergen",
    "Eve": "Porto",
    "Fay": "Turin",
    "Gus": "Malmo",
    "Hal": "Bonn",
}


def measure(lab: Lab) -> Measurement:
    """Facts of eight people, asked for one by one."""
    from firsthand.agent import Agent
    from firsthand.loop.concurrency import run_sync
    from firsthand.memories.semantic import semantic
    from firsthand.providers.scripted import Scripted
    from firsthand.rollout import rollout
    from firsthand.task import Task

    async def remembers(task, ctx):  # type: ignore[no-untyped-def]
        for name, city in PEOPLE.items():
            await ctx.remember(f"{name} lives in {city}", subject=name, attribute="home", value=city)
        found = [await ctx.recall(f"Where does {name} live?", k=1) for name in PEOPLE]
        return str(sum(city in items[0].text for items, city in zip(found, PEOPLE.values(), strict=True) if items))

    trace = run_sync(rollout(Agent("remembers", Scripted([]), remembers, memory=semantic()), Task("1", "Remember.")))
    found = int(trace.answer or 0)
    low, high = proportion_interval(found, len(PEOPLE))
    return Measurement(
        found / len(PEOPLE),
        "facts that a question brings back first",
        low,
        high,
        len(PEOPLE),
        columns=("facts", "found"),
        rows=((str(len(PEOPLE)), float(found)),),
    )


def judge(m: Measurement) -> Verdict:
    """Nearly all must come back."""
    if m.value >= 0.9 and m.bounds[0] > 0.5:
        return ruling(
            "holds here", f"{m.value:.0%} of the facts come back first; here by terms, with an embedder also by vectors"
        )
    if m.value >= 0.5:
        return ruling("holds in part", f"{m.value:.0%} of the facts come back first")
    return ruling("does not hold here", f"only {m.value:.0%} of the facts come back first")
