"""Recall of a fact from the middle of a text, and from the lines that a search finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from firsthand.claims.architecture.lost_in_the_middle import CODES, LINES, NAMES
from firsthand.claims.claim import Claim, Measurement, Verdict, ruling
from firsthand.claims.lab import Lab, paired

if TYPE_CHECKING:
    from firsthand.retrieval.retriever import Hit

CLAIM = Claim(
    quote="Techniques like RAG, chunk summarization, and hierarchical memory address this.",
    source="Liu et al. 2023, arXiv:2307.03172; Lewis et al. 2020, arXiv:2005.11401",
    kind="small",
    cost_s=5,
    needs=("model smollm2",),
)
ITEMS, FOUND = 16, 3


def measure(lab: Lab) -> Measurement:
    """The eighth of sixteen facts is asked for: with all of them in the prompt, and with the three that BM25 ranks first."""
    import tempfile
    from pathlib import Path
    from random import Random

    from firsthand.claims.made_up_pages import put_pages
    from firsthand.loop.concurrency import run_sync
    from firsthand.retrieval.corpus import close_corpora, open_corpus
    from firsthand.retrieval.retriever import Query
    from firsthand.retrieval.retrievers.searches import lexical

    async def found(path: Path, asked: str) -> Sequence[Hit]:
        return await lexical(open_corpus(path))(Query(asked), FOUND)

    model, hits = lab.model("smollm2"), dict[str, list[float]]({"all lines": [], "lines found": []})
    with tempfile.TemporaryDirectory() as folder:
        for item in range(ITEMS):
            rng = Random(f"{lab.seed}-{item}")
            names, codes = rng.sample(NAMES, LINES), rng.sample(CODES, LINES)
            lines = [f"The colour of {name} is {code}." for name, code in zip(names, codes, strict=True)]
            right = LINES // 2
            asked = f"The colour of {names[right]} is"
            path = Path(folder) / f"{item}.index"
            put_pages(path, {f"{at:02}": line for at, line in enumerate(lines)})
            ranked = run_sync(found(path, asked))
            for arm, shown in (("all lines", lines), ("lines found", [hit.chunk.text for hit in ranked])):
                prompt = "\n".join([*shown, asked])
                scored = run_sync(model.score(prompt, [f" {code}" for code in codes])).likelihoods
                hits[arm].append(float(max(range(LINES), key=lambda at: scored[at].logprob) == right))
        close_corpora()
    gain = paired(hits["lines found"], hits["all lines"])
    return Measurement(
        gain.difference,
        f"recall of the middle fact from the {FOUND} lines that BM25 finds, less from all {LINES}",
        gain.low,
        gain.high,
        ITEMS,
        columns=("prompt", "recall"),
        rows=tuple((arm, sum(values) / ITEMS) for arm, values in hits.items()),
    )


def judge(m: Measurement) -> Verdict:
    """Fixed before measuring: a gain beyond chance holds in part, since one of the three techniques was measured."""
    told = f"retrieval changes recall of the middle by {m.value:+.0%}"
    if m.bounds[0] > 0:
        return ruling("holds in part", f"{told}; summaries and hierarchical memory are not measured by this")
    if m.cell("all lines", "recall") >= 0.95:
        return ruling(
            "cannot be tested here", f"{told}: the model recalls the middle as it is, and nothing is to be gained"
        )
    return ruling("does not hold here", f"{told}, within the interval of no difference or below")
