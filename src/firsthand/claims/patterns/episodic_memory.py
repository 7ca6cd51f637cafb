"""Episodes in a vector database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired
from firsthand.stats.intervals import proportion_interval

if TYPE_CHECKING:
    from firsthand.memories.episodic import EpisodicMemory
    from firsthand.trace import Trace

CLAIM = Claim(
    quote="External (episodic): Vector DB (Pinecone, Chroma, Weaviate)",
    source="the list's memory kinds",
    kind="small",
    cost_s=5,
    needs=("model minilm",),
)
PARAPHRASES = {
    "How do I repair a flat bicycle tyre?": "My bike has a puncture, what should I do?",
    "Which medicine helps against a headache?": "What pill can I take when my head hurts?",
    "How long must an egg boil?": "For what time should I cook breakfast eggs?",
    "Where can I exchange money in Prague?": "I need Czech currency, which office changes euros?",
    "Why is my laptop so slow?": "The computer takes ages to open anything.",
    "What is the fastest train to Vienna?": "Quickest railway connection for reaching Austria's capital?",
    "Recommend a novel about the sea.": "Any good book with sailors and ocean voyages?",
    "How do I remove red wine from a carpet?": "Cleaning a Merlot stain off the rug",
    "Can a dog eat chocolate?": "Is cocoa poisonous for my puppy?",
    "When should tomatoes be planted?": "Best month to sow vegetables in the garden?",
    "How do I write a letter of resignation?": "I want to quit my job, help with the text for the boss.",
    "What does a lawyer cost?": "Typical fees of an attorney?",
}
"""Task of an earlier attempt -> the same wish in other words."""


def measure(lab: Lab) -> Measurement:
    """Twelve attempts are remembered; each is looked for in other words, by shared words and by vectors too."""
    from firsthand.agent import Agent
    from firsthand.loop.concurrency import run_sync
    from firsthand.memories.episodic import episodic
    from firsthand.patterns.direct import direct
    from firsthand.providers.scripted import Scripted
    from firsthand.rollout import rollout
    from firsthand.task import Task

    lab.path("minilm")
    model = Scripted(lambda messages, sampling, index: "Done.")
    agent = Agent("a", model, direct)
    traces = [run_sync(rollout(agent, Task(str(at), asked), seed=lab.seed)) for at, asked in enumerate(PARAPHRASES)]
    return _measured(*(run_sync(_first_is_right(episodic(vectors=each), traces)) for each in ("", "minilm")))


async def _first_is_right(memory: EpisodicMemory, traces: Sequence[Trace]) -> list[float]:
    """For each of PARAPHRASES, 1 if the attempt that it means is found first."""
    for trace in traces:
        for item in memory.learn(trace):
            await memory.write(item)
    hits = [await memory.search(other, 1) for other in PARAPHRASES.values()]
    return [float(bool(hit) and asked in hit[0].text) for asked, hit in zip(PARAPHRASES, hits, strict=True)]


def _measured(words: Sequence[float], vectors: Sequence[float]) -> Measurement:
    rows, found = [], (words, vectors)
    for name, each in zip(("words", "words and vectors"), found, strict=True):
        low, high = proportion_interval(int(sum(each)), len(each))
        rows.append((name, sum(each) / len(each), low, high))
    gain = paired(found[1], found[0])
    return Measurement(
        gain.difference,
        "earlier attempts found first with vectors, less those found by words alone",
        gain.low,
        gain.high,
        len(words),
        columns=("search", "found first", "low", "high"),
        rows=tuple(rows),
    )


def judge(m: Measurement) -> Verdict:
    """Fixed before measuring: vectors must find 70% first, and more than words do beyond chance."""
    share = m.cell("words and vectors", "found first")
    told = f"with vectors {share:.0%} of the attempts are found by other words, {m.value:+.0%} over words alone"
    if share >= 0.7 and m.bounds[0] > 0:
        return ruling("holds here", f"{told}; one SQLite file did it, and none of the three products is needed")
    if m.value > 0:
        return ruling("holds in part", told)
    return ruling("does not hold here", told)
