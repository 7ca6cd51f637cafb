"""RAG, fine-tuning, long context, or none of them? Measure each on your own documents and questions.

Each arm answers the same questions; the table has paired intervals, and says whether retrieval or reading holds you back.
With --change some facts are replaced in a copy of the index, to see which arm's answers follow, and what that costs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from firsthand import catalog
from firsthand.errors import ConfigError, DataError
from firsthand.loop.concurrency import run_sync
from firsthand.message import Json
from firsthand.model import Model
from firsthand.system.home import data_home
from firsthand.system.json_values import TooManyValues, decoded_line
from firsthand.system.ordinary_file import read_bounded_text
from firsthand.system.packed_stream import filled_lines
from firsthand.system.packed_text import lines_of
from firsthand.system.plurals import count_of
from firsthand.system.terminal import console, print_as_json, print_table

if TYPE_CHECKING:
    from firsthand.experiment.rag_decision import ArmResult, FactChange, FactQuestion
    from firsthand.providers.local_embedder import LocalEmbedder
    from firsthand.retrieval.chunking.chunkers import NamedChunker
    from firsthand.runs.store import Run

EXAMPLES = """
firsthand rag decide docs questions.jsonl --model smollm2
firsthand rag decide docs questions.jsonl --model smollm2 --lora --change 20%
firsthand rag decide docs questions.jsonl --model openai:NAME@URL --arms "closed book,RAG,oracle context" --json
"""
MAX_QUESTIONS_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Config:
    """Documents, questions, and the arms to compare."""

    documents: Path = field(metadata={"positional": True})
    """A folder, or a file, with the documents."""
    questions: Path = field(metadata={"positional": True})
    """A .jsonl file: `question`, `answer`, and if known `document`, the path below the folder (or a list of paths)."""
    model: str = "smollm2"
    """The model that answers."""
    embedder: str = "minilm"
    """The embedder of the index; none: terms alone."""
    chunker: str = "auto"
    """The chunker, with its options."""
    arms: tuple[str, ...] = ("closed book", "RAG", "long context", "oracle context")
    """Arms besides those of --lora. The oracle needs questions that name their document."""
    lora: bool = False
    """Fine-tune the model on the documents too, with LoRA, for the arms LoRA and LoRA + RAG. Local models only."""
    train_questions: Path | None = None
    """With --lora: questions to train on besides the documents, in the same form; none of those that are asked."""
    epochs: float = 3.0
    """With --lora: passes over the training data."""
    change: str = "20%"
    """The share of questions whose fact is changed, to measure freshness; 0 leaves that out."""
    k: int = 5
    """Passages of RAG."""
    max_chars: int = 24_000
    """Characters of documents in a long context; what does not fit the model is left out too."""
    limit: int | None = None
    """Only the first N questions."""
    concurrency: int = 4
    """Max concurrent attempts."""
    seed: int = 0
    """Seed of answers, and of the choice of changed facts."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        for name in ("k", "max_chars", "concurrency"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 1 or more")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}: give 1 or more")
        if self.train_questions is not None and not self.lora:
            raise ConfigError("train_questions are for fine-tuning: give --lora too")
        self.changed_share()

    def changed_share(self) -> float:
        """The share of changed facts, 0 to 1."""
        text = self.change.strip()
        try:
            value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise ConfigError(f"change is {self.change!r}: give a share such as 20% or 0.2, or 0 for none")
        return value


def run(config: Config) -> int:
    """Measure the arms and print the table."""
    return run_sync(decide(config))


async def decide(config: Config) -> int:
    """Index, answer, change, answer again; print what came out."""
    from firsthand.experiment import rag_decision as decision
    from firsthand.providers.local_embedder import open_embedder
    from firsthand.retrieval.chunking.chunkers import open_chunker

    questions = read_questions(config.questions)[: config.limit]
    embedder = None if config.embedder == "none" else open_embedder(config.embedder)
    chunker = open_chunker(config.chunker)
    index, index_s, texts = await _indexed(config, embedder, chunker)
    _check_documents(questions, texts)
    arms = _arms(config, questions)
    model = catalog.model(config.model)
    tuned, trained_s = _tuned(config, texts, questions) if config.lora else (None, 0.0)
    agents = decision.arm_agents(arms, model, tuned, index, k=config.k, max_chars=config.max_chars)
    first = await decision.answer_all(
        agents, decision.question_benchmark(questions, "decide"), seed=config.seed, concurrency=config.concurrency
    )
    changes: list[FactChange] = []
    second: Run | None = None
    updates: dict[str, float | None] = {}
    if share := config.changed_share():
        changes = decision.choose_changes(questions, texts, share, seed=config.seed)
        target = index.with_name(f"changed-{index.name}")
        update_s = await decision.changed_index(index, target, changes, embedder, chunker.chunk)
        fresh = [_with_answer(change) for change in changes]
        later = decision.arm_agents(arms, model, tuned, target, k=config.k, max_chars=config.max_chars)
        second = await decision.answer_all(
            later,
            decision.question_benchmark(fresh, "decide-changed"),
            seed=config.seed,
            concurrency=config.concurrency,
        )
        updates = {arm: _update(arm, update_s, trained_s) for arm in arms}
    with first:
        results = decision.measured(arms, first, second, changes, updates)
        said = decision.diagnosis(results, first)
        about = {"run": str(first.path), "changed": len(changes), "index_s": index_s, "trained_s": trained_s}
    if second is not None:
        about["changed_run"] = str(second.path)
        second.close()
    if config.json:
        print_as_json({"arms": [each.to_json() for each in results], "diagnosis": said, **about})
    else:
        _print(results, said, about, len(questions))
    return 3 if any(each.errors for each in results) else 0


def read_questions(path: Path) -> list[FactQuestion]:
    """The questions of a .jsonl file; DataError with the line of a bad one."""
    from firsthand.experiment.rag_decision import FactQuestion

    try:
        if path.stat().st_size > MAX_QUESTIONS_BYTES:
            raise DataError(f"{path} is larger than {MAX_QUESTIONS_BYTES >> 20} MiB: is it the right file?")
        lines = lines_of(read_bounded_text(path))  # a text in JSON may hold other separators of lines
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}): give a .jsonl file") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    found: list[FactQuestion] = []
    for number, line in filled_lines(lines, path):
        where = f"{path}, line {number}"
        try:
            row = decoded_line(line)
        except TooManyValues as error:
            raise DataError(f"{where}: {error}") from None
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(f"{where}: a JSON object was expected, not {line.strip()[:60]!r}")
        for name in ("question", "answer"):
            if not isinstance(text := row.get(name), str) or not text.strip():
                held = f"holds {str(text)[:60]!r}" if name in row else "is missing"
                raise DataError(f"{where}: the field {name!r} {held}, and text was expected")
        given = row.get("document", [])
        documents = [given] if isinstance(given, str) else given
        if not isinstance(documents, list) or not all(isinstance(each, str) for each in documents):
            raise DataError(f"{where}: 'document' is {str(given)[:60]!r}, and a path or a list of paths was expected")
        found.append(FactQuestion(f"line-{number:04d}", row["question"], row["answer"], tuple(documents)))
    if len(found) < 2:
        raise DataError(f"{path} has {count_of(len(found), 'question')}: intervals need two or more")
    return found


async def _indexed(
    config: Config, embedder: LocalEmbedder | None, chunker: NamedChunker
) -> tuple[Path, float, dict[str, str]]:
    """The index of the documents, the seconds it took, and the text of each document."""
    from firsthand.retrieval.chunk_index import IndexHeader
    from firsthand.retrieval.ingest import ingest
    from firsthand.retrieval.store.sqlite_index import open_index

    if not config.documents.exists():
        raise ConfigError(f"no file or folder {str(config.documents)!r}: give the documents first, then the questions")
    made = f"{config.documents.resolve()}\0{config.embedder}\0{chunker.text}"
    path = data_home() / "indexes" / f"decide-{hashlib.sha256(made.encode()).hexdigest()[:12]}.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    dimension = len((await embedder.embed(["dimension"]))[0]) if embedder is not None else 0
    header = IndexHeader(
        config.embedder if embedder else "", embedder.fingerprint if embedder else "", dimension, chunker.text
    )
    index = open_index(path, header)
    try:
        started = time.monotonic()
        receipt = await ingest(config.documents, index, embedder, chunker.chunk, own_files=[config.questions])
        took = time.monotonic() - started
        for id, why in receipt.failed:
            console(stderr=True).print(f"{id} was not indexed: {why}", markup=False)
        texts = {id: index.document(id).text for id in index.hashes()}
    finally:
        index.close()
    if not texts:
        raise DataError(f"{config.documents} holds no document that could be read")
    return path, took, texts


def _arms(config: Config, questions: Sequence[FactQuestion]) -> list[str]:
    """The arms of a run, closed book first; the oracle is left out where no question names its document."""
    wanted = ["closed book", *(each for each in config.arms if each != "closed book")]
    if "oracle context" in wanted and not all(each.documents for each in questions):
        if any(each.documents for each in questions):
            raise ConfigError("some questions name their document and others do not: name all, or none")
        wanted.remove("oracle context")
        console(stderr=True).print(
            "No question names its document, so there is no oracle and no diagnosis.", markup=False
        )
    return wanted + (["LoRA", "LoRA + RAG"] if config.lora else [])


def _check_documents(questions: Sequence[FactQuestion], texts: dict[str, str]) -> None:
    for each in questions:
        for id in each.documents:
            if id not in texts:
                raise DataError(
                    f"question {each.question[:60]!r} names the document {id!r}, which was not indexed: give its path below "
                    "the folder"
                )


def _tuned(config: Config, texts: dict[str, str], questions: Sequence[FactQuestion]) -> tuple[Model, float]:
    """The model fine-tuned on the documents, and the seconds of its training."""
    from firsthand.commands.train import dispatch
    from firsthand.experiment.rag_decision import training_rows

    asked = {each.question for each in questions}
    more = [] if config.train_questions is None else read_questions(config.train_questions)
    if leaked := next((each.question for each in more if each.question in asked), None):
        raise ConfigError(f"the question {leaked[:60]!r} is asked and trained on: leave it out of train_questions")
    rows = training_rows(texts, more)
    folder = data_home() / "runs" / f"decide-lora-{time.strftime('%Y-%m-%d-%H%M%S')}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    data = folder.with_suffix(".jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    started = time.monotonic()
    words = ["sft", str(data), "--model", config.model, "--adapter", "lora", "--epochs", str(config.epochs)]
    words += ["--batch-size", "4", "--lr", "1e-3", "--too-long", "cut", "--holdout", "0", "--out", str(folder)]
    with contextlib.redirect_stdout(sys.stderr):  # standard output is the table's, or the JSON's
        code = dispatch(words)
    if code != 0:
        raise ConfigError("the fine-tuning failed: see its messages above, or leave --lora out")
    return catalog.model(str(folder / "model")), time.monotonic() - started


def _with_answer(change: FactChange) -> FactQuestion:
    from firsthand.experiment.rag_decision import FactQuestion

    asked = change.question
    return FactQuestion(asked.id, asked.question, change.new, (change.document,))


def _update(arm: str, update_s: float, trained_s: float) -> float | None:
    """Seconds to take changed facts in: index again, read anew, train again, or never."""
    costs = {
        "closed book": None,
        "RAG": update_s,
        "long context": 0.0,
        "oracle context": 0.0,
        "LoRA": trained_s,
        "LoRA + RAG": update_s,
    }
    return costs[arm]


def _print(results: Sequence[ArmResult], said: Sequence[str], about: Json, questions: int) -> None:
    columns = [
        "arm",
        "quality",
        "vs. closed book",
        "freshness",
        "stale",
        "update",
        "per 1k answers",
        "style",
        "cited",
        "found",
    ]
    rows = []
    for each in results:
        quality, versus, fresh = each.quality, each.versus, each.freshness
        rows.append(
            [
                each.arm,
                f"{quality.value:.2f} [{quality.low:.2f}, {quality.high:.2f}]",
                ""
                if versus is None
                else f"{versus.difference:+.2f} [{versus.low:+.2f}, {versus.high:+.2f}] {versus.verdict}",
                "" if fresh is None else f"{fresh.value:.2f} [{fresh.low:.2f}, {fresh.high:.2f}]",
                "" if each.stale is None else f"{each.stale:.2f}",
                ("" if fresh is None else "train again") if each.update_s is None else f"{each.update_s:.1f} s",
                f"{each.tokens_per_1k:,.0f} tokens, {each.seconds_per_1k:,.0f} s"
                + (f", ${each.usd_per_1k:.2f}" if each.usd_per_1k else ""),
                f"{each.style:.2f}",
                f"{each.cited:.2f}",
                "" if each.retrieved is None else f"{each.retrieved:.2f}",
            ]
        )
    print_table("", columns, rows)
    out = console()
    for sentence in said:
        out.print(sentence, markup=False)
    out.print(
        f"\n{questions} questions, {about['changed']} facts changed. Quality: the answer holds the reference as whole "
        "words. Freshness: quality on changed facts after the update; stale: answered by the old fact. Update: seconds to "
        "take the change in. Style: token F1 with the references. Cited: right, and the reference stands in a passage that "
        "was given. Found: the document was among those given. Brackets are 95% CIs, differences paired by question.",
        markup=False,
    )
    out.print(
        f"runs      {about['run']}" + (f"\n          {about['changed_run']}" if "changed_run" in about else ""),
        markup=False,
    )
