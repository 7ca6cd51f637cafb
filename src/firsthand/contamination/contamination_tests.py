"""Runs the tests of contamination on a benchmark's items, a model and a corpus, and reports them together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from firsthand.contamination.canary_rank import ASKS as CANARY_ASKS
from firsthand.contamination.canary_rank import canary_evidence
from firsthand.contamination.completion_overlap import completion_evidence
from firsthand.contamination.leak_evidence import ALPHA, ContaminationReport, Evidence, report
from firsthand.contamination.ngram_overlap import overlap_evidence
from firsthand.contamination.option_order import option_evidence
from firsthand.contamination.order_test import order_evidence
from firsthand.contamination.text_twins import twins_of, without_answers
from firsthand.contamination.token_evidence import min_k_evidence
from firsthand.model import Model
from firsthand.task import Task

TestName = Literal["n-grams", "min-k%", "min-k%++", "order", "canary", "completion", "options"]
TESTS: tuple[TestName, ...] = get_args(TestName)


async def contamination(
    name: str,
    tasks: Sequence[Task],
    model: Model | None = None,
    *,
    corpus: Path | None = None,
    index: Path | None = None,
    reference: Model | None = None,
    canary: str = "",
    guided: bool = False,
    tests: Sequence[TestName] = TESTS,
    seed: int = 0,
    alpha: float = ALPHA,
) -> ContaminationReport:
    """The evidence for and against a leak, with a verdict over all tests that could be run.

    Args:
        name: The benchmark.
        tasks: Its items, in the order of its file.
        model: The model in question; without one only the corpus is searched.
        corpus: A folder of texts that a model was or will be trained on.
        index: A folder that `CorpusIndex.build` made, in place of the corpus.
        reference: A model that cannot have seen the items; controls for how natural the twins and the file's order are.
        canary: The benchmark's canary string, if it has one.
        guided: Ask for completions by an instruction that names the data set, for models that follow instructions.
        tests: The tests to run.
        seed: Of twins, orders and random canaries.
        alpha: Chance that any test of the report calls a clean model leaked.
    """
    found: list[Evidence] = []
    items = list(tasks)
    if "n-grams" in tests:
        found.append(overlap_evidence(items, corpus=corpus, index=index))
    if model is not None:
        asked = without_answers(items)
        bare = twins_of(asked, seed)
        rated, twins = (asked, bare) if reference is None else (items, twins_of(items, seed))
        if "min-k%" in tests:
            found.append(await min_k_evidence(model, rated, twins, reference=reference))
        if "min-k%++" in tests:
            found.append(await min_k_evidence(model, rated, twins, reference=reference, plus=True))
        if "order" in tests:
            found.append(await order_evidence(model, items, reference=reference, seed=seed))
        if "canary" in tests:
            none = Evidence("canary", CANARY_ASKS, detail="not run: the benchmark names no canary (--canary TEXT)")
            found.append(await canary_evidence(model, canary, seed=seed) if canary else none)
        if "completion" in tests:
            found.append(await completion_evidence(model, asked, bare, name=name if guided else "", seed=seed))
        if "options" in tests:
            found.append(await option_evidence(model, items, reference=reference, seed=seed))
    source = "" if corpus is None and index is None else str(corpus or index)
    return report(name, "" if model is None else model.name, found, corpus=source, alpha=alpha)
