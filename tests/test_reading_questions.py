"""The hundred questions over the list and the documentation: gold passages, scores, and the index that is asked."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark_rows import facts, said
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmark import Benchmark
from firsthand.errors import ConfigError, DataError
from firsthand.message import Json
from firsthand.providers.scripted import Scripted
from firsthand.reading.entry_documents import check_list_index, list_index, passages
from firsthand.reading.list_questions import gold_passages, list_questions
from firsthand.retrieval.document import Document
from firsthand.rollout import rollout
from firsthand.scorers.document_answers import document_answer, gold_citation
from firsthand.scorers.ranking import recall_at_5
from firsthand.task import Task
from firsthand.trace import Score, Trace
from written_documents import pdf

DOCS = Path(__file__).parent.parent / "docs"
OURS = "none needed: our own text"
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def found() -> list[Document]:
    return passages(DOCS)


def test_a_hundred_questions_fifteen_of_them_answered_nowhere() -> None:
    questions = list_questions()
    assert len({each.id for each in questions}) == len({each.question for each in questions}) == 100
    assert sum(not each.is_answerable for each in questions) == 15
    assert all(bool(each.document) == bool(each.quote) == bool(each.answers) for each in questions)


def test_every_quotation_stands_in_one_passage_of_its_page(found: list[Document]) -> None:
    for question in list_questions():
        assert len(gold_passages(question, found)) == question.is_answerable, question


def test_a_quotation_that_is_gone_is_an_error(found: list[Document]) -> None:
    with pytest.raises(DataError, match="no longer says 'words of before'"):
        gold_passages(replace(list_questions()[0], quote="words  of before"), found)
    other = replace(list_questions()[0], document="docs/engine.md")
    with pytest.raises(DataError, match=r"docs/engine\.md no longer"):
        gold_passages(other, found)


def benchmark(**options: str) -> Benchmark:
    made: Benchmark = catalog.find("benchmark", "reading_questions")(docs=str(DOCS), **options)
    return made


@pytest.mark.slow
def test_retrieval_asks_those_with_a_passage_and_answers_asks_all(found: list[Document]) -> None:
    ranked, answered = benchmark(), benchmark(measure="answers")
    assert len(ranked.tasks(0)) == 85 and len(answered.tasks(0)) == 100
    assert all(task.secret["judgements"] for task in ranked.tasks(0))
    assert 0 < sum(not task.metadata["answerable"] for task in answered.tasks(0)[:20]) < 20
    about = "Questions about the reading list and this documentation, with the passages that answer them."
    over = f"questions of ours over {len(found):,} passages; gold is the passage with the quotation"
    assert facts(ranked) == said(
        "reading_questions", "recall_at_5 ndcg_at_10 reciprocal_rank_at_10 recall_at_100", about,
        f"85 {over}; recall@5, nDCG@10 and MRR@10 as trec_eval", OURS, options={"measure": "retrieval"},
    )  # fmt: skip
    assert facts(answered) == said(
        "reading_questions:measure=answers", "document_answer gold_citation", about,
        f"100 {over}; an answer is right if it contains a reference, or says that the documents do not answer "
        f"where they do "
        "not", OURS, figures=True, options={"measure": "answers"},
    )  # fmt: skip
    mixed = sorted(list_questions(), key=lambda each: hashlib.sha256(each.id.encode()).hexdigest())
    assert [task.id for task in answered.tasks(0)] == [each.id for each in mixed]
    assert [task.id for task in ranked.tasks(0)] == [each.id for each in mixed if each.is_answerable]
    for task, each in zip(answered.tasks(0)[:30], mixed, strict=False):
        gold = task.metadata["documents"]
        assert task.prompt == each.question and len(gold) == each.is_answerable
        assert task.metadata == {
            "corpus": f"reading_questions:docs={DOCS}", "documents": gold, "answerable": each.is_answerable,
        }  # fmt: skip
        assert task.secret == {
            "judgements": dict.fromkeys(gold, 1), "answers": list(each.answers), "document": each.document,
            "quote": each.quote,
        }  # fmt: skip
        assert all(id.startswith(f"{each.document}:") for id in gold)
    scores = tuple(Score(name, 1.0) for name in ("gold_citation", "refuses_unanswerable", "refuses_answerable"))
    assert answered.figures is not None
    told = answered.figures([Trace("t", "b", "q", {}, 0, 0, "", 0.0, scores=scores)])
    assert [(each.name, each.lower_is_better) for each in told] == [
        ("gold_citation", False), ("refuses_unanswerable", False), ("refuses_answerable", True),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="measure is 'both'"):
        benchmark(measure="both")


def scores(secret: Json, answer: str, citations: tuple[Json, ...] = ()) -> dict[str, float]:
    """The scores of an answer with citations, as an attempt records them."""

    async def says(task: Task, ctx) -> str:  # type: ignore[no-untyped-def]
        ctx.note("rag_answer", citations=list(citations))
        return answer

    task = Task("1", "?", secret=secret)
    trace: Trace = asyncio.run(rollout(Agent("a", Scripted([]), says), task))
    return {each.name: each.value for each in (*document_answer(task, trace), *gold_citation(task, trace))}


@pytest.mark.parametrize(("place", "value"), [(5, 1.0), (6, 0.0)])
def test_recall_at_5_counts_the_first_five(place: int, value: float) -> None:
    async def finds(task: Task, ctx) -> str:  # type: ignore[no-untyped-def]
        ctx.note("ranking", documents=[f"other {n}" for n in range(1, place)] + ["gold"], scores=[])
        return ""

    task = Task("1", "?", secret={"judgements": {"gold": 1}})
    trace: Trace = asyncio.run(rollout(Agent("a", Scripted([]), finds), task))
    assert recall_at_5(task, trace).value == value


GOLD = {"answers": ["Porter"], "document": "docs/index.md", "quote": "stemmed by Porter's algorithm"}
NONE: Json = {"answers": [], "document": "", "quote": ""}


def test_a_right_answer_contains_a_reference_as_whole_words() -> None:
    assert scores(GOLD, "By Porter's stemmer. [1]")["document_answer"] == 1
    assert scores(GOLD, "By the Porterhouse.")["document_answer"] == 0
    assert scores(GOLD, "Not in the documents. But Porter.") == {
        "document_answer": 0,
        "refuses_answerable": 1,
        "gold_citation": 0,
    }


def test_where_the_documents_do_not_answer_only_a_refusal_is_right() -> None:
    assert scores(NONE, "Not in the documents.") == {"document_answer": 1, "refuses_unanswerable": 1}
    assert scores(NONE, "In 1494.") == {"document_answer": 0, "refuses_unanswerable": 0}


@pytest.mark.parametrize(
    ("document", "quote", "value"),
    [
        ("docs/index.md", "Words are stemmed by Porter's algorithm (SQLite's).", 1),
        ("docs/index.md:12", "Words are stemmed by Porter's algorithm.", 1),
        ("docs/index.md", "stemmed by Porter", 1),
        ("docs/index.md", "Words are by nature short.", 0),
        ("docs/index.md", "Words are stemmed by nature.", 0),
        ("docs/other.md", "stemmed by Porter's algorithm", 0),
    ],
)
def test_a_citation_counts_if_it_quotes_the_gold_passage(document: str, quote: str, value: float) -> None:
    cited: Json = {"document": document, "quote": quote}
    assert scores(GOLD, "Porter", ({"document": "x", "quote": ""}, cited))["gold_citation"] == value


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data home; its documentation is two pages, and of the user's two PDFs one is broken."""
    folder = tmp_path_factory.mktemp("reading")
    (folder / "docs").mkdir()
    (folder / "docs" / "glossary.md").write_text("# Glossary\n\nA hoopoe is a crested bird.\n")
    (folder / "docs" / "tour.md").write_text("# Tour\n\nLeft out.\n")
    (folder / "papers").mkdir()
    (folder / "papers" / "broken.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\n<<")
    (folder / "papers" / "birds.pdf").write_bytes(pdf(["A study of nests.", "The wryneck lays eleven eggs in May."]))
    return folder


@pytest.mark.slow
def test_the_list_is_indexed_with_pages_and_papers_and_asked(
    home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(home / "data"))
    code, _, err = cli("papers", "ask", "What is a hoopoe?")
    assert code == 2 and "`firsthand papers index` makes it" in err
    flags = ("--model", "none", "--docs", str(home / "docs"))
    code, out, _ = cli("papers", "index", *flags, "--pdfs", str(home / "papers"))
    assert code == 3 and "157 added" in out and "papers/broken.pdf" in out
    code, out, _ = cli("papers", "ask", "How many eggs has a wryneck?", "--model", "none", "--k", "1")
    assert code == 0 and "“The wryneck lays eleven eggs in May.” [1]\n[1] papers/birds.pdf, page 2" in out
    code, out, _ = cli("papers", "ask", "What is a hoopoe?", "--model", "none", "--k", "1")
    assert code == 0 and "docs/glossary.md:3" in out and "crested" in out
    code, out, _ = cli("papers", "ask", "How does MemGPT manage context?", "--model", "none", "--k", "1")
    assert code == 0 and "list/memgpt.md" in out
    assert "156 unchanged" in cli("papers", "index", *flags)[1]
    check_list_index(list_index())
    code, _, err = cli("papers", "ask")
    assert code == 2 and "ask what?" in err


def test_folders_that_are_none_and_indexes_of_other_documents_are_refused(
    home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(home / "other"))
    code, _, err = cli("papers", "index", "--docs", str(home / "papers"))
    assert code == 2 and "no glossary.md" in err
    code, _, err = cli("papers", "index", "--docs", str(home / "docs"), "--pdfs", str(home / "nowhere"))
    assert code == 2 and "is no folder" in err
    assert cli("rag", "index", str(home / "docs"), "--model", "none", "--index", str(home / "own.index"))[0] == 0
    code, _, err = cli("papers", "ask", "What?", "--index", str(home / "own.index"))
    assert code == 2 and "index of other documents" in err


@pytest.mark.slow
def test_the_right_passages_are_found_by_their_words(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    code, out, _ = cli(
        "run", f"reading_questions:docs={DOCS}", "--model", "scripted:echo", "--pattern", "retrieve:variant=lexical"
    )
    found = re.search(r"^retrieve\s+(\d\.\d\d)", out, re.MULTILINE)
    assert code == 0 and "recall_at_5, 85 tasks" in out and found and float(found[1]) >= 0.75
