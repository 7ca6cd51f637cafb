"""`rag decide` step by step: what it indexes, measures and says; new sweeps, answers to approvals, prices of tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corpus_tiny import DIMENSION, WordEmbedder
from firsthand.commands import rag_decide, sessions, sweep, tokens
from firsthand.errors import ConfigError, DataError
from firsthand.experiment import rag_decision
from firsthand.experiment.rag_decision import FactChange, FactQuestion
from firsthand.providers import local_embedder
from firsthand.retrieval.chunking import chunkers
from firsthand.retrieval.chunking.chunkers import open_chunker
from firsthand.retrieval.corpus import close_corpora
from firsthand.retrieval.store.sqlite_index import open_index
from printed_tables import widen


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    for name, text in (("a.md", "Alder is in Oslo.\n"), ("b.md", "Birch is led by Maria.\n")):
        (tmp_path / "docs" / name).write_text(text)
    (tmp_path / "docs" / "q.jsonl").write_text(
        "".join(json.dumps({"question": f"Q{n}?", "answer": f"A{n}", "document": "a.md"}) + "\n" for n in range(3))
    )
    yield tmp_path / "home"
    close_corpora()


@pytest.mark.slow
def test_documents_are_indexed_without_the_questions_once_for_each_embedder_and_chunker(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def indexed(embedder: Any = None, chunker: str = "auto", **more: Any) -> tuple[Path, float, dict[str, str]]:
        config = rag_decide.Config(Path("docs"), Path("docs/q.jsonl"), **more)
        return asyncio.run(rag_decide._indexed(config, embedder, open_chunker(chunker)))

    path, took, texts = indexed()
    assert path.parent == home / "indexes" and took > 0 and capsys.readouterr().err == ""
    assert texts == {"a.md": "Alder is in Oslo.\n", "b.md": "Birch is led by Maria.\n"}
    with open_index(path, read_only=True) as index:
        header = index.header
    assert (header.embedder, header.fingerprint, header.dimension, header.chunker) == (
        "",
        "",
        0,
        open_chunker("auto").text,
    )
    with_vectors: Any = WordEmbedder()
    other, _, same = indexed(with_vectors, "sentences", k=9)
    assert other not in (path, None) and same == texts and with_vectors.asked[0] == "dimension"
    with open_index(other, read_only=True) as index:
        header = index.header
    assert (header.embedder, header.fingerprint, header.dimension) == ("minilm", "words", DIMENSION)
    Path("docs/bad.docx").write_bytes(b"no zip")
    again, _, texts = indexed()
    assert again == path and "bad.docx" not in texts
    assert capsys.readouterr().err.startswith("bad.docx was not indexed: ")
    whole = rag_decide.Config(Path("docs").absolute(), Path("docs/q.jsonl"))
    assert asyncio.run(rag_decide._indexed(whole, None, open_chunker("auto")))[0] == path, "the same folder"
    Path("else", "docs").mkdir(parents=True)
    Path("else", "docs", "a.md").write_text("Other.\n")
    with monkeypatch.context() as patch:
        patch.chdir("else")
        beside, _, texts = indexed()
    assert beside != path and texts == {"a.md": "Other.\n"}, "another folder of the same name"
    Path("empty").mkdir()
    for folder, told in (("empty", DataError), ("gone", ConfigError)):
        config = rag_decide.Config(Path(folder), Path("docs/q.jsonl"))
        with pytest.raises((DataError, ConfigError)) as refused:
            asyncio.run(rag_decide._indexed(config, None, open_chunker("auto")))
        assert isinstance(refused.value, told) and f"{folder}" in str(refused.value)


class Answered:
    """A run that is closed."""

    def __init__(self, name: str, told: list[Any]) -> None:
        self.path, self.told = Path(name), told

    def __enter__(self) -> Answered:
        return self

    def __exit__(self, *given: object) -> None:
        self.close()

    def close(self) -> None:
        self.told.append(f"{self.path} closed")


def test_arms_are_measured_before_and_after_the_change_with_the_settings_of_the_flags(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = []
    texts = {"a.md": "A0"}
    change = FactChange(FactQuestion("line-0001", "Q0?", "A0", ("a.md",)), "a.md", "new")
    errors = 0

    async def indexed(config: Any, embedder: Any, chunker: Any) -> Any:
        told.append(("index", embedder, chunker.text))
        return Path("i.sqlite"), 1.5, texts

    async def answer_all(agents: Any, benchmark: Any, *, seed: int, concurrency: int) -> Any:
        tasks = [(task.prompt, task.secret["answer"]) for task in benchmark.tasks(0)]
        told.append(("answer", agents, benchmark.name, tasks, seed, concurrency))
        return Answered(f"run{len([each for each in told if each[0] == 'answer'])}", told)

    async def changed_index(index: Path, target: Path, changes: Any, embedder: Any, chunk: Any) -> float:
        told.append(("change", index, target, changes, embedder))
        return 2.5

    def measured(arms: Any, first: Any, second: Any, changes: Any, updates: Any) -> Any:
        told.append(("measure", arms, str(first.path), second and str(second.path), changes, updates))
        return [SimpleNamespace(errors=each, to_json=lambda: "row") for each in (0, errors, 0)]

    monkeypatch.setattr(rag_decide, "_indexed", indexed)
    monkeypatch.setattr(
        rag_decide, "_tuned", lambda config, given, asked: told.append(("tune", given, len(asked))) or ("T", 9.0)
    )
    monkeypatch.setattr(rag_decide.catalog, "model", lambda name: f"model {name}")
    monkeypatch.setattr(local_embedder, "open_embedder", lambda name: f"embedder {name}")
    monkeypatch.setattr(rag_decision, "arm_agents", lambda *given, **more: (given, more))
    monkeypatch.setattr(rag_decision, "answer_all", answer_all)
    monkeypatch.setattr(
        rag_decision, "choose_changes", lambda *given, **more: told.append(("choose", given[2], more)) or [change]
    )
    monkeypatch.setattr(rag_decision, "changed_index", changed_index)
    monkeypatch.setattr(rag_decision, "measured", measured)
    monkeypatch.setattr(rag_decision, "diagnosis", lambda results, run: ["Said.", str(run.path)])
    docs = Path("docs")
    config = rag_decide.Config(
        docs, docs / "q.jsonl", model="m", arms=("RAG",), lora=True, change="50%", k=3, max_chars=7, limit=2,
        concurrency=6, seed=4, json=True,
    )  # fmt: skip
    assert asyncio.run(rag_decide.decide(config)) == 0
    arms = ["closed book", "RAG", "LoRA", "LoRA + RAG"]
    auto = chunkers.open_chunker("auto").text

    def agents(index: str) -> Any:
        return ((arms, "model m", "T", Path(index)), {"k": 3, "max_chars": 7})

    assert told == [
        ("index", "embedder minilm", auto), ("tune", texts, 2),
        ("answer", agents("i.sqlite"), "decide", [("Q0?", "A0"), ("Q1?", "A1")], 4, 6),
        ("choose", 0.5, {"seed": 4}),
        ("change", Path("i.sqlite"), Path("changed-i.sqlite"), [change], "embedder minilm"),
        ("answer", agents("changed-i.sqlite"), "decide-changed", [("Q0?", "new")], 4, 6),
        ("measure", arms, "run1", "run2", [change], {"closed book": None, "RAG": 2.5, "LoRA": 9.0, "LoRA + RAG": 2.5}),
        "run1 closed", "run2 closed",
    ]  # fmt: skip
    assert json.loads(capsys.readouterr().out) == {
        "arms": ["row"] * 3, "diagnosis": ["Said.", "run1"], "run": "run1", "changed": 1, "index_s": 1.5, "trained_s": 9.0,
        "changed_run": "run2",
    }  # fmt: skip
    told.clear()
    errors = 2
    few: dict[str, Any] = {"arms": ("RAG",), "change": "0", "embedder": "none"}
    plain = rag_decide.Config(docs, docs / "q.jsonl", **few, chunker="sentences", json=True)
    assert asyncio.run(rag_decide.decide(plain)) == 3, "failed attempts are the exit status"
    assert [each[0] for each in told[:-1]] == ["index", "answer", "measure"] and told[0][1] is None
    assert told[2][2:] == ("run1", None, [], {}) and told[0][2] == open_chunker("sentences").text
    assert told[1][1][0][2] is None and len(told[1][3]) == 3
    assert "changed_run" not in json.loads(capsys.readouterr().out)
    printed: list[Any] = []
    told.clear()
    monkeypatch.setattr(rag_decide, "_print", lambda *given: printed.append(given[1:]))
    asyncio.run(rag_decide.decide(rag_decide.Config(docs, docs / "q.jsonl", **few)))
    about = {"run": "run1", "changed": 0, "index_s": 1.5, "trained_s": 0.0}
    assert printed[0] == (["Said.", "run1"], about, 3)
    asyncio.run(rag_decide.decide(rag_decide.Config(docs, docs / "q.jsonl", **few | {"change": "0.5%"})))
    assert printed[1][1]["changed"] == 1 and ("choose", 0.005, {"seed": 0}) in told, "a small share is no nothing"


# -- sweeps, sessions, tokens --


def test_budgets_of_a_halving_are_named_once_and_in_order() -> None:
    def made(halving: str | None, command: str = "train {lr}", **more: Any) -> Any:
        return sweep.new_sweep(sweep.Config("c", set=("lr=1,2",), halving=halving, **more), command)

    found = made("steps=100,300,900", eta=4, maximise=True, best_of_curve=True, metric="reward")
    assert (found.command, found.budget, found.rungs, found.eta) == (
        ("train", "{lr}"),
        "steps",
        ("100", "300", "900"),
        4,
    )
    assert (found.metric, found.minimise, found.best_of_curve) == ("reward", False, True)
    assert (
        made(None).rungs == ("",) and made(None).budget == "" and made(None).minimise and not made(None).best_of_curve
    )
    drawn = [made(None, trials=1, seed=seed).trials for seed in range(9)]
    assert {len(each) for each in drawn} == {1} and len({str(each) for each in drawn}) == 2, "the seed draws"
    for halving in ("steps", "=1,2", "steps=", "steps=1,,2", "steps=1,2,1"):
        with pytest.raises(ConfigError) as refused:
            made(halving)
        assert str(refused.value) == f"halving is {halving!r}: give a setting and its budgets, as steps=100,300,900"
    with pytest.raises(ConfigError, match=r"^lr is the budget of --halving: leave it out of --set$"):
        made("lr=1,2")
    with pytest.raises(ConfigError, match=r"^the command is empty: give the words that start a trial$"):
        made(None, " ")
    with pytest.raises(
        ConfigError, match=r"^the command cannot be read \(No closing quotation\): put it in quotes, as"
    ):
        made(None, "a 'b")


def test_answers_to_an_approval_are_kept_with_who_gave_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept: list[Any] = []
    states = [True, True, False]
    store: Any = SimpleNamespace(
        approval=lambda id: SimpleNamespace(tool=f"tool of {id}", state="denied"),
        answer=lambda id, allowed, **more: kept.append((id, allowed, more)) or states.pop(0),
    )  # fmt: skip
    monkeypatch.setattr(sessions.getpass, "getuser", lambda: "ada")
    sessions.answer(store, "x", sessions.Config(approve="x", answers='{"city": "Oslo"}', reason="fine"))
    sessions.answer(store, "y", sessions.Config(deny="y"))
    assert capsys.readouterr().out == "tool of x is approved\ntool of y is denied\n"
    who = "ada at a terminal"
    assert kept == [
        ("x", True, {"by": who, "reason": "fine", "content": {"city": "Oslo"}}),
        ("y", False, {"by": who, "reason": "", "content": None}),
    ]
    with pytest.raises(ConfigError, match=r"^z was denied, or its turn is over: it is answered once$"):
        sessions.answer(store, "z", sessions.Config(approve="z"))
    for text in ("[1]", "oslo", "1", "[" * 9999):
        with pytest.raises(ConfigError) as refused:
            sessions.read_answers(text)
        assert str(refused.value) == f'answers is {text[:100]!r}: give a JSON object, such as \'{{"city": "Oslo"}}\''
    assert (
        sessions.read_answers("") is None
        and sessions.read_answers("null") is None
        and sessions.read_answers("{}") == {}
    )
    assert [sessions._short(text) for text in ("a\n  b", "x" * 60, "x" * 61)] == ["a b", "x" * 60, "x" * 59 + "…"]


def test_sessions_are_told_turn_by_turn_and_questions_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    widen(monkeypatch, sessions)
    rows = [SimpleNamespace(id=f"s{n}", owner=f"o{n}", context=f"c{n}") for n in range(2)]
    turns = [SimpleNamespace(number=3, state="done", prompt="a\nb", answer="yes", error="no"),
             SimpleNamespace(number=4, state="failed", prompt="c", answer=None, error="gone")]  # fmt: skip
    pending = [SimpleNamespace(id="apr_1", owner="[b]o", question="[i]pay?\nnow")]
    store: Any = SimpleNamespace(
        sessions=lambda: rows, turns=lambda id: turns if id == "s1" else turns[1:], pending=lambda: pending
    )
    sessions.print_sessions(store)
    told = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip(" ─")]
    assert told == [
        "client session turn state question answer", "o0 c0 4 failed c gone", "o1 c1 3 done a b yes",
        "o1 c1 4 failed c gone", "1 approval waiting", "apr_1 [b]o", "[i]pay?", "now",
    ]  # fmt: skip


def test_prices_are_of_models_that_are_counted() -> None:
    assert tokens._price("a=b=0.5", ("a=b", "c")) == ("a=b", 0.5) and tokens._price("c=0", ("c",)) == ("c", 0.0)
    for given in ("c", "c=-1", "c=1e9", "c=x", "d=1", "=1", "c=nan"):
        with pytest.raises(ConfigError) as refused:
            tokens._price(given, ("a", "c"))
        told = "write MODEL=DOLLARS for a million tokens, of one of a, c"
        assert str(refused.value) == f"price is {given!r}: {told}"
    assert (tokens._cost(2_000_000, 0.25), tokens._cost(5, None), tokens._cost(5, 0.0)) == (0.5, None, 0.0)
