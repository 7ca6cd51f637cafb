"""RAG or fine-tuning? Measures arms on a user's own documents and questions, before and after some facts changed.

The arms differ in what they are given: nothing, retrieved passages, all documents, or the document that holds the answer
(oracle); a fine-tuned model may take the place of the base. Every phase is a Run, so its traces can be shown and compared.
`train/` makes fine-tuned models; this file only takes them.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError, DataError, StoreError
from firsthand.experiment.experiment import Experiment
from firsthand.experiment.stated_fact import can_be_restated, restated
from firsthand.loop.concurrency import derive_seed
from firsthand.message import Json
from firsthand.model import Embedder, Model
from firsthand.retrieval.chunk import Chunker
from firsthand.retrieval.chunk_index import IndexedDocument
from firsthand.retrieval.ingest import index_files
from firsthand.retrieval.rag.short_answer import Given, closed_prompt, short_answer
from firsthand.retrieval.store.sqlite_index import SqliteIndex, open_index
from firsthand.runs.store import Run
from firsthand.scorers.contained import contains_words
from firsthand.scorers.rankings.retrieved import passages, ranking
from firsthand.scorers.text import token_f1
from firsthand.scorers.whole_words import has_words
from firsthand.stats.intervals import Interval, mean_interval
from firsthand.stats.paired import PairedDifference, paired_difference
from firsthand.system.bounded_sqlite import connect_bounded
from firsthand.task import Task
from firsthand.trace import Score, Trace

BASELINE = "closed book"
ARMS: dict[str, tuple[Given, bool]] = {
    "closed book": ("nothing", False),
    "RAG": ("retrieved", False),
    "long context": ("all", False),
    "oracle context": ("oracle", False),
    "LoRA": ("nothing", True),
    "LoRA + RAG": ("retrieved", True),
}
"""Arm -> what it is given, and whether its model was fine-tuned."""


@dataclass(frozen=True)
class FactQuestion:
    """A question with its answer, and the documents that hold it, where they are known."""

    id: str
    question: str
    answer: str
    documents: tuple[str, ...] = ()


@dataclass(frozen=True)
class FactChange:
    """A fact that another one takes the place of, in one document."""

    question: FactQuestion
    document: str
    new: str


@dataclass(frozen=True)
class ArmResult:
    """The measurements of one arm."""

    arm: str
    quality: Interval
    """Share of questions whose answer holds the reference as whole words."""
    versus: PairedDifference | None
    """The paired difference from closed book; None for closed book itself."""
    style: float
    """Mean token F1 with the reference answers: their wording and length."""
    cited: float
    """Share of answers that are right and stand in a passage that the arm was given."""
    retrieved: float | None
    """Share of questions whose document was among those given; None if documents are not known, or none are given."""
    freshness: Interval | None
    """Quality on the changed facts, after the update that the arm has; None without changed facts."""
    stale: float | None
    """Share of the changed facts that are answered by the old fact."""
    update_s: float | None
    """Seconds to take the change in; None if it cannot without training, 0 if documents are read anew."""
    tokens_per_1k: float
    """Tokens of 1,000 answers, prompts included."""
    seconds_per_1k: float
    """Seconds of model calls for 1,000 answers."""
    usd_per_1k: float
    errors: int

    def to_json(self) -> Json:
        """The measurements as a JSON object."""
        versus = self.versus and {"difference": self.versus.difference, "low": self.versus.low, "high": self.versus.high,
                                  "p_value": self.versus.p_value, "verdict": self.versus.verdict}  # fmt: skip
        fresh = self.freshness and _interval(self.freshness)
        plain = {name: getattr(self, name) for name in _PLAIN}
        return plain | {"quality": _interval(self.quality), "versus": versus, "freshness": fresh}


_PLAIN = (
    "arm",
    "style",
    "cited",
    "retrieved",
    "stale",
    "update_s",
    "tokens_per_1k",
    "seconds_per_1k",
    "usd_per_1k",
    "errors",
)


def cited(task: Task, trace: Trace) -> Score:
    """Score 1 if the answer is right and one of the passages that the attempt was given holds the reference."""
    shown = any(has_words(each.text, task.secret["answer"]) for each in passages(trace))
    return Score("cited", float(shown and contains_words(task, trace).value > 0))


def given_document(task: Task, trace: Trace) -> Score:
    """Score 1 if a document that holds the answer is among those the attempt was given."""
    wanted = set(task.metadata.get("documents", ()))
    return Score("given_document", float(bool(wanted & set(ranking(trace)))))


def question_benchmark(questions: Sequence[FactQuestion], name: str) -> Benchmark:
    """Returns the questions as a benchmark; the oracle's documents are public, for only the oracle arm reads them."""
    tasks = [
        Task(
            each.id,
            each.question,
            hint="a few words",
            metadata={"documents": list(each.documents)},
            secret={"answer": each.answer},
        )
        for each in questions
    ]
    return Benchmark(
        name=name,
        tasks=lambda seed: tasks,
        scorers=(contains_words, token_f1, cited, given_document),
        description="Questions on a user's own documents.",
        protocol=f"{len(tasks)} questions; right is an answer that holds the reference as whole words",
        licence="the user's",
    )


def arm_agents(
    arms: Sequence[str], base: Model, tuned: Model | None, index: Path, *, k: int, max_chars: int
) -> list[Agent]:
    """Returns an agent for each arm. ConfigError for an unknown arm, or a fine-tuned one without its model."""
    agents = []
    for arm in arms:
        if arm not in ARMS:
            raise ConfigError(f"no arm {arm!r}: there are {', '.join(ARMS)}")
        given, is_tuned = ARMS[arm]
        model = tuned if is_tuned else base
        if model is None:
            raise ConfigError(f"the arm {arm} needs a fine-tuned model: train one with --lora")
        options = {} if given == "nothing" else {"index": str(index), "k": k, "max_chars": max_chars}
        agents.append(Agent(arm, model, partial(short_answer, given=given), options))
    return agents


async def answer_all(agents: Sequence[Agent], benchmark: Benchmark, *, seed: int, concurrency: int) -> Run:
    """Attempts all questions by all arms; returns the run, open."""
    experiment = Experiment(agents, benchmark, seed=seed, concurrency=concurrency, name="decide")
    run = experiment.create()
    try:
        await experiment.attempt_async(run)
    except BaseException:
        run.close()
        raise
    return run


def training_rows(texts: Mapping[str, str], questions: Sequence[FactQuestion]) -> list[Json]:
    """The data that LoRA is trained on: each document as text, and each question in the words in which closed book asks."""
    rows: list[Json] = [{"text": text} for text in texts.values()]
    return rows + [{"prompt": closed_prompt(each.question), "completion": each.answer} for each in questions]


def choose_changes(
    questions: Sequence[FactQuestion], texts: Mapping[str, str], share: float, *, seed: int
) -> list[FactChange]:
    """Returns changes for a share of the questions, chosen at random among those whose answer stands in a document.

    Each gets the answer of the next chosen question that differs, in the first document that holds its own, and not as part
    of a name in the question. No two changes are of one document, so that none undoes another. DataError if fewer than two
    facts can be changed.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"the share of changed facts is {share}: give a number above 0, up to 1")
    order = list(questions)
    Random(derive_seed("changed facts", seed)).shuffle(order)
    wanted = max(1, round(share * len(questions)))
    chosen: list[tuple[FactQuestion, str]] = []
    taken: set[str] = set()
    for each in order:
        places = each.documents or tuple(sorted(texts))
        place = next((id for id in places if id not in taken
                      and can_be_restated(texts.get(id, ""), each.answer, each.question)), None)  # fmt: skip
        if place is not None and len(chosen) < wanted:
            chosen.append((each, place))
            taken.add(place)
    changes = []
    others = [each.answer for each in questions]
    for at, (question, place) in enumerate(chosen):
        ring = [chosen[(at + step) % len(chosen)][0].answer for step in range(1, len(chosen))] + others
        new = next((each for each in ring if not has_words(each, question.answer)
                    and not has_words(texts[place], each)), None)  # fmt: skip
        if new is not None:
            changes.append(FactChange(question, place, new))
    if not changes:
        raise DataError(
            "no fact can be changed: no answer stands word for word in a document, or all answers are alike; give --change 0"
        )
    return changes


async def changed_index(
    index: Path, target: Path, changes: Sequence[FactChange], embedder: Embedder | None, chunker: Chunker
) -> float:
    """Copies an index and takes the changes in; returns the seconds of the update, without the copy's."""
    for old in index_files(target):  # a log of an earlier copy would be played into this one
        old.unlink(missing_ok=True)
    try:
        with closing(connect_bounded(index, "ro")) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)  # the arms have the index open, so that its file is not ours to open and close
    except sqlite3.Error as error:
        raise StoreError(f"{index} cannot be copied to {target.name}: {error}") from None
    opened = open_index(target)
    try:
        started = time.monotonic()
        indexed = [await _changed(opened, change, embedder, chunker) for change in changes]
        receipt = await asyncio.to_thread(opened.put, indexed)
        took = time.monotonic() - started
    finally:
        opened.close()
    if receipt.failed:
        raise DataError(f"document {receipt.failed[0][0]!r} could not be changed: {receipt.failed[0][1]}")
    return took


async def _changed(
    index: SqliteIndex, change: FactChange, embedder: Embedder | None, chunker: Chunker
) -> IndexedDocument:
    import numpy as np

    document = index.document(change.document)
    text = restated(document.text, change.question.answer, change.new)
    changed = replace(document, text=text, locations=())
    chunks = chunker(changed)
    if embedder is None:
        return IndexedDocument(changed, chunks, None)
    texts = [index.header.document_prefix + each.indexed_text for each in chunks]
    known = index.known_vectors([each.indexed_text for each in chunks])
    missing = [at for at, each in enumerate(chunks) if each.indexed_text not in known]
    rows = np.zeros((len(chunks), index.header.dimension), np.float32)
    for at, each in enumerate(chunks):
        if each.indexed_text in known:
            rows[at] = known[each.indexed_text]
    if missing:
        rows[missing] = np.asarray(await embedder.embed([texts[at] for at in missing]), np.float32)
    return IndexedDocument(changed, chunks, rows)


def measured(
    arms: Sequence[str],
    run: Run,
    fresh: Run | None,
    changes: Sequence[FactChange],
    updates: Mapping[str, float | None],
) -> list[ArmResult]:
    """Returns the measurements of each arm from the runs before and after the change."""
    before = {arm: list(run.traces(agent=arm)) for arm in arms}
    after = {} if fresh is None else {arm: list(fresh.traces(agent=arm)) for arm in arms}
    old = {change.question.id: change.question.answer for change in changes}
    found = []
    for arm in arms:
        traces = before[arm]
        done = [each for each in traces if each.value() is not None]
        quality = {each.task_id: [each.value()] for each in traces}
        base = {each.task_id: [each.value()] for each in before.get(BASELINE, ())}
        later = after.get(arm, [])
        given = ARMS[arm][0]
        known = given != "nothing" and any(_documents(run, each) for each in traces)
        calls = [call for each in traces for call in each.calls]
        per = 1000 / max(1, len(traces))
        found.append(
            ArmResult(
                arm,
                mean_interval([_number(each[0]) for each in quality.values()]),
                paired_difference(_scores(quality), _scores(base)) if base and arm != BASELINE else None,
                _mean([_number(each.value("token_f1")) for each in done]),
                _mean([_number(each.value("cited")) for each in traces]),
                _mean([_number(each.value("given_document")) for each in traces]) if known else None,
                mean_interval([_number(each.value()) for each in later]) if later else None,
                _mean([float(has_words(each.answer or "", old[each.task_id])) for each in later]) if later else None,
                updates.get(arm),
                per * sum(call.usage.total_tokens for call in calls),
                per * sum(call.duration_s for call in calls if call.kind == "generate"),
                per * sum(call.usage.cost_usd for call in calls),
                sum(each.error is not None for each in traces),
            )
        )
    return found


def diagnosis(results: Sequence[ArmResult], run: Run, *, confidence: float = 0.95) -> list[str]:
    """Returns sentences: what holds the user back, retrieval or reading, and which arms buy something."""
    by_arm = {each.arm: each for each in results}
    said = []
    scores = {arm: _scores({each.task_id: [_number(each.value())] for each in run.traces(agent=arm)}) for arm in by_arm}
    if "oracle context" in by_arm and "RAG" in by_arm:
        oracle, rag = by_arm["oracle context"].quality.value, by_arm["RAG"].quality.value
        gap = paired_difference(scores["oracle context"], scores["RAG"], confidence)
        unread = 1 - oracle
        shown = f"RAG loses {gap.difference:.2f} [{gap.low:.2f}, {gap.high:.2f}] against it, and it loses {unread:.2f}"
        missed = 1 - (by_arm["RAG"].retrieved or 0.0)
        if gap.verdict == "better" and gap.difference >= unread and missed >= gap.difference / 2:
            said.append(
                f"Retrieval holds you back: with the right document quality is {oracle:.2f}, with RAG {rag:.2f} ({shown}), "
                f"and {missed:.0%} of the documents were not found."
            )
        elif gap.verdict == "better" and gap.difference >= unread:
            said.append(
                f"Reading among other passages holds you back: the document is found for {1 - missed:.0%} of the questions, "
                f"yet quality is {rag:.2f} and with that document alone {oracle:.2f} ({shown}); give fewer passages (--k), "
                "rerank them, or take a larger model."
            )
        elif unread > max(gap.difference, 0.0) and mean_interval(_flat(scores["oracle context"])).high < 0.9:
            said.append(
                f"Reading holds you back: even with the right document quality is only {oracle:.2f} ({shown}); "
                "a larger or a fine-tuned model helps, better retrieval does not."
            )
        elif gap.verdict == "better":
            said.append(f"Both lose: {shown}.")
        else:
            said.append(f"Neither retrieval nor reading is shown to hold you back on these questions ({shown}).")
    for arm in ("RAG", "LoRA", "LoRA + RAG", "long context"):
        if arm in by_arm and (versus := by_arm[arm].versus) is not None:
            words = {"better": "better than", "worse": "worse than", "inconclusive": "not shown to differ from"}
            said.append(
                f"{arm} is {words[versus.verdict]} closed book: {versus.difference:+.2f} "
                f"[{versus.low:+.2f}, {versus.high:+.2f}], p={versus.p_value:.3f}."
            )
    return said


def _documents(run: Run, trace: Trace) -> list[str]:
    found: list[str] = list(run.tasks()[trace.benchmark, trace.task_id].metadata.get("documents", ()))
    return found


def _scores(values: Mapping[str, Sequence[float | None]]) -> dict[str, list[float]]:
    return {task: [_number(each) for each in given] for task, given in values.items()}


def _flat(values: Mapping[str, Sequence[float]]) -> list[float]:
    return [each for given in values.values() for each in given]


def _number(value: float | None) -> float:
    return 0.0 if value is None else value


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _interval(found: Interval) -> Json:
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
