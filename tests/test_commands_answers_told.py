"""`rag ask` and `rag chat` line by line, `list` kind by kind, a person's game, and what a rollback or a tour asks first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corpus_tiny import tiny_corpus, write_index
from firsthand import catalog
from firsthand.commands import chat as chatting
from firsthand.commands import list as listing
from firsthand.commands import play, rag_ask, rag_chat, show, tokens, tour
from firsthand.errors import ConfigError, UnknownName
from firsthand.experiment import foreign_settings, named_agents
from firsthand.experiment import settings as stored
from firsthand.hub import fetch_model
from firsthand.message import system
from firsthand.reading import tour_progress
from firsthand.reading.tour_steps import tour_step
from firsthand.retrieval.answers import rag_model
from firsthand.retrieval.corpus import close_corpora
from firsthand.runs import store
from firsthand.safety.undo import roll_back
from firsthand.show import chat_screen
from firsthand.tokens import pretrained
from firsthand.trace import Score, Trace
from firsthand.worlds import players
from printed_tables import widen, words
from scored_runs import scored_run

Cli = Callable[..., tuple[int, str, str]]
TEXTS = {
    "mill.md": "The mill was built in 1871.\nIt burned down in 1902.\n",
    "b.md": "The river Tesk has 12 bridges.\n",
}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    widen(monkeypatch, show)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "home"
    close_corpora()


# -- rag ask --


def body(**more: Any) -> dict[str, Any]:
    cited = {"number": 2, "label": "a.md:3", "quote": "one\ntwo"}
    return {"text": "An answer.\x1b[31m", "model": "m", "citations": [cited], "hits": [], **more}


def test_an_answer_is_followed_by_citations_the_nearest_sentences_and_passages(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trail = [["dense", 1, 0.123456], ["lexical", 2, 12345.6]]
    hit = {"document": "a\nb.md", "start": 3, "end": 9, "text": "[x] long\ntext", "trail": trail}
    near = [{"label": "b.md:1", "quote": "near"}, {"label": "c.md:2", "quote": "far"}]
    rag_ask.print_answer(body(hits=[hit, {**hit, "trail": []}], nearest=near), passages=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("An answer.") and "\x1b" not in lines[0] and lines[1:] == [
        "", "[2] a.md:3 “one two”", "", rag_ask.NO_SUPPORT, "- b.md:1 “near”", "- c.md:2 “far”", "",
        "passage 1: a b.md 3-9: dense 1 (0.1235), lexical 2 (1.235e+04)", "[x] long", "text", "",
        "passage 2: a b.md 3-9: ", "[x] long", "text",
    ]  # fmt: skip
    rag_ask.print_answer(body(model=None, hits=[hit]))
    assert capsys.readouterr().out.splitlines()[1:] == ["[2] a.md:3"], "quoted sentences are the answer itself"
    rag_ask.print_answer(body(citations=[]))
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_best_passages_are_those_of_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    from firsthand.retrieval.answers import answering
    from firsthand.retrieval.retrievers import reranker_names

    asked: list[Any] = []
    real, reranked = answering.extract, reranker_names.reranked

    async def extract(question: str, hits: Any, corpus: Any, *, floor: float | None) -> Any:
        asked.append((question, len(hits), floor))
        return await real(question, hits, corpus, floor=floor)

    def ranked(found: Any, name: str, corpus: Any, writer: Any) -> Any:
        asked.append((name, writer))
        return reranked(found, name, corpus, writer)

    monkeypatch.setattr(answering, "extract", extract)
    monkeypatch.setattr(reranker_names, "reranked", ranked)
    corpus = tiny_corpus({**TEXTS, "c.md": "The mill is red.\nThe mill is tall.\n"}, vectors=False)
    found = asyncio.run(rag_ask._extracted("Which mill?", corpus, rag_ask.AnswerFlags(model="none")))
    assert asked == [("", None), ("Which mill?", 3, None)] and found["calls"] == 0 and found["model"] is None
    asked.clear()
    corpus = tiny_corpus(TEXTS)
    asyncio.run(rag_ask._extracted("mill", corpus, rag_ask.AnswerFlags(model="none", k=1, floor=-0.5)))
    assert asked == [("", None), ("mill", 1, -0.5)]


def test_an_answer_has_the_sampling_and_the_model_of_its_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    index = write_index(tmp_path / "d.index", TEXTS, vectors=False)
    opened: list[Any] = []
    made = chatting.open_model
    monkeypatch.setattr(chatting, "open_model", lambda *given: opened.append(given) or made(*given))
    Path("s.json").write_text('{"built": "The mill was built in 1871. [1]"}')
    asked: list[Any] = []
    from firsthand.retrieval.answers.rag_model import RagModel

    whole = RagModel.ask

    async def ask(self: Any, question: str, *given: Any, **more: Any) -> Any:
        asked.append((question, more["sampling"].max_tokens, more["sampling"].temperature))
        return await whole(self, question, *given, **more)

    monkeypatch.setattr(RagModel, "ask", ask)
    closed: list[str] = []
    monkeypatch.setattr(RagModel, "close", lambda self: closed.append(self.base.name))
    line = ("rag", "ask", "When was it built?", "--index", str(index), "--model", "scripted:s.json")
    code, out, err = cli(*line, "--max-tokens", "7", "--temperature", "0.5", "--show")
    assert code == 0, err
    assert asked == [("When was it built?", 7, 0.5)] and opened == [("scripted:s.json", "cpu")]
    assert closed == ["scripted:s.json"] and out.splitlines()[:3] == [
        "The mill was built in 1871. [1]", "", "[1] mill.md:1 “The mill was built in 1871.”"]  # fmt: skip
    assert "passage 1: mill.md" in out
    plain = json.loads(cli(*line, "--json")[1])
    assert plain["text"] == "The mill was built in 1871. [1]" and asked[1] == ("When was it built?", 400, 0.0)
    for given, told in (({"k": 0}, "k is 0: read 1 passage or more"),
                        ({"floor": 1.1}, "floor is 1.1: give a cosine, from -1 to 1"), ({"floor": -1.1}, "floor is -1.1"),
                        ({"model": "none", "device": "cuda"}, "--device is for a model"),
                        ({"model": "none", "form": "plain"}, "--form is for a model's answers")):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            rag_ask.AnswerFlags(**given)  # type: ignore[arg-type]
    assert [rag_ask.AnswerFlags(k=1, floor=floor).floor for floor in (-1, 1)] == [-1, 1]
    for sampling, told in (({"max_tokens": 0}, "max_tokens is 0"), ({"temperature": -0.1}, "temperature is -0.1"),
                           ({"temperature": float("nan")}, "temperature is nan")):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            rag_ask.RagSampling(**sampling)  # type: ignore[arg-type]
    assert rag_ask.RagSampling(max_tokens=1, temperature=0).max_tokens == 1


def test_what_an_answer_opened_is_closed_also_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from firsthand.retrieval import corpus
    from firsthand.retrieval.retrievers import cross_encoder

    index = write_index(tmp_path / "d.index", TEXTS, vectors=False)
    told: list[str] = []
    monkeypatch.setattr(corpus, "close_corpora", lambda: told.append("corpora"))
    monkeypatch.setattr(cross_encoder, "close_cross_encoders", lambda: told.append("encoders"))
    config = rag_ask.Config("Which mill?", index, rag_ask.AnswerFlags(model="none"), json=True)
    assert rag_ask.run(config) == 0 and told == ["corpora", "encoders"]
    with pytest.raises(ConfigError):
        rag_ask.run(rag_ask.Config("Which mill?", index, rag_ask.AnswerFlags(model="scripted:none.json")))
    assert told == ["corpora", "encoders"] * 2


# -- rag chat --


def test_a_chat_at_a_terminal_tells_what_it_searched_for_and_goes_on_after_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = write_index(tmp_path / "d.index", TEXTS, vectors=False)
    replies = {"Rewrite this": "When did the mill burn?", "mill burn": "It burned down in 1902. [1]"}
    replies["built"] = "In 1871. [1]"
    Path("s.json").write_text(json.dumps(replies))

    def screen() -> Any:
        made = real()
        made.is_terminal = terminal
        return made

    real, terminal = chat_screen.Screen, True
    monkeypatch.setattr(chat_screen, "Screen", screen)
    lines = ["When was the mill built?", "And burned?", "/ clear ", "/show", "//quit built", "/nope", "/help", "/quit"]
    lines.append("never")
    prompts: list[Any] = []
    monkeypatch.setattr(chatting, "questions", lambda prompt: prompts.append(prompt and prompt()) or iter(lines))
    config = rag_chat.Config(index, rag_ask.AnswerFlags(model="scripted:s.json"))
    closed: list[str] = []
    monkeypatch.setattr(rag_model.RagModel, "close", lambda self: closed.append(self.base.name))
    assert rag_chat.run(config) == 0 and prompts == ["> "] and closed == ["scripted:s.json"]
    out, err = capsys.readouterr()
    told = err.splitlines()
    assert told[0] == f"scripted:s.json over {index}: ask a question, /help for commands, Ctrl-D to quit"
    assert told[1:4] == [
        "searched for: When did the mill burn?", "the conversation is forgotten",
        "firsthand: there is no answer yet whose passages could be shown",
    ] and "no command '/nope'" in told[4] and len(told) == 5, told  # fmt: skip
    assert out.index("1871") < out.index("1902") < out.rindex("1871") < out.index("/show    the passages")
    terminal = False
    assert rag_chat.run(config) == 1 and prompts[1] is None, "an error in a pipe is the exit status"
    assert "over" not in capsys.readouterr().err
    lines[:] = ["When was the mill built?"]
    assert rag_chat.run(config) == 0
    lines[:] = []
    with pytest.raises(ConfigError, match="nothing was asked: type a question, or pipe questions in, a line each"):
        rag_chat.run(config)
    chat = rag_chat.RagChat(config)

    def stopped(*given: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "ask", stopped)
    with pytest.raises(KeyboardInterrupt):
        chat.run(None, iter(["q"]))  # type: ignore[arg-type]
    chat.screen.is_terminal = True
    capsys.readouterr()
    chat.run(None, iter(["q", "/exit", "/nope"]))  # type: ignore[arg-type]
    assert capsys.readouterr().err == "stopped; the question is not kept\n" and chat.was_asked and not chat.failed
    monkeypatch.setattr(rag_chat, "terminated", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        chat.run(None, iter(["q", "/exit"]))  # type: ignore[arg-type]
    assert capsys.readouterr().err == "", "SIGTERM ends the chat, at a terminal too"


# -- list --


def test_every_kind_is_listed_from_its_own_catalog_and_json_has_data_and_options(
    monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    monkeypatch.setattr(catalog, "names", lambda kind: {f"{kind}-a": f"of {kind}"})
    monkeypatch.setattr(catalog, "scorers", lambda: {"s": ("made", "scores")})
    monkeypatch.setattr(catalog, "options", lambda kind, name: {f"{kind} {name}": "1"})
    monkeypatch.setattr(catalog, "tool_forms", dict)
    monkeypatch.setattr(catalog, "protocols", lambda name: {"p": f"reproduces {name}"})
    monkeypatch.setattr(listing, "model_names", lambda: {"m": "a model"})
    monkeypatch.setattr(listing, "chunker_names", lambda: {"c": "a chunker"})
    monkeypatch.setattr(listing, "board_names", lambda: {"b": "a board"})
    monkeypatch.setattr(listing, "data_of", lambda name: listing.DataState("hub", f"how {name}"))
    benchmarks = {"benchmark-a": "of benchmark", "benchmark-a@p": "reproduces benchmark-a"}
    kinds = {
        "patterns": {"pattern-a": "of pattern"}, "benchmarks": benchmarks, "scorers": {"s": "scores"},
        "tools": {"tool-a": "of tool"}, "guards": {"guard-a": "of guard"}, "memories": {"memory-a": "of memory"},
        "models": {"m": "a model"}, "chunkers": {"c": "a chunker"}, "boards": {"b": "a board"},
    }  # fmt: skip
    data = {"benchmark-a": {"state": "hub", "how": "how benchmark-a"}}
    options = {kind: {f"{kind[:-1]}-a": {f"{kind[:-1]} {kind[:-1]}-a": "1"}} for kind in ("patterns", "benchmarks")}
    assert json.loads(cli("list", "--json")[1]) == {**kinds, "data": data, "options": options}
    for kind, found in kinds.items():
        more = {"options": {kind: options[kind]}} if kind in options else {}
        more |= {"data": data} if kind == "benchmarks" else {}
        assert json.loads(cli("list", kind, "--json")[1]) == {kind: found, **more}, kind
    told = words(cli("list")[1])
    assert [line for line in told if line in kinds] == list(kinds)
    assert told[:3] == ["patterns", "name description", "pattern-a of pattern"], (
        "options are told where one kind is asked"
    )
    assert "tool-a as declared of tool" in told and "benchmark-a of benchmark" in told
    assert words(cli("list", "patterns")[1])[2] == "pattern-a of pattern pattern pattern-a=1"
    assert words(cli("list", "benchmarks")[1])[2] == "benchmark-a hub of benchmark benchmark benchmark-a=1"


# -- a person's game, a rollback, a step of the tour, a tokenizer --


def test_a_persons_game_is_shown_turn_by_turn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node = SimpleNamespace
    said = (system("Policy \x07."), node(role="user", text="no"), node(role="assistant", text="no"))
    tasks = [node(id="t1", conversation=said, prompt="Leave."),
             node(id="t2", conversation=(), prompt="Stay.")]  # fmt: skip
    errors: list[str | None] = [None, None]
    asked: list[Any] = []

    async def played(benchmark: Any, task: Any, ask: Any, seed: int) -> Any:
        asked.append((benchmark, task.id, callable(ask), seed))
        error = errors[len(asked) - 1]
        return node(
            error=None if error is None else node(message=error), nodes=[1, 2, 3], scores=[node(name="won", value=0.25)],
            messages=lambda at: [node(text="early"), node(text=f"late {at}")],
        )  # fmt: skip

    monkeypatch.setattr(players, "play", played)
    run: Any = play._by_hand
    assert asyncio.run(run("bench", tasks, 5)) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    leaves = "quit or exit or :q leaves, \\n in a line is a new line)"
    assert first.startswith("Policy ") and "\x07" not in first and rest == [
        "Leave.", "", f"(task t1; {leaves}", "late 2", "won 0.250", "Stay.", "", f"(task t2; {leaves}", "late 2",
        "won 0.250",
    ]  # fmt: skip
    assert asked == [("bench", "t1", True, 5), ("bench", "t2", True, 5)]
    for message, code in (("the game was left before its end", 0), ("a fault", 1)):
        asked.clear()
        errors[0] = message
        assert asyncio.run(run("bench", tasks, 5)) == code and len(asked) == 1
        assert capsys.readouterr().out.splitlines()[-1] == message


def test_a_single_attempt_of_a_player_names_its_score(capsys: pytest.CaptureFixture[str]) -> None:
    bench: Any = SimpleNamespace(name="doors", options={}, protocol="p")
    trace: Any = SimpleNamespace(
        scores=[Score("opened", 1.0, {})], final_state={"rounds": 3}, error=None, value=lambda: 1.0
    )  # fmt: skip
    play._PlayedWorld("optimal", [trace]).print(bench, 4, 0.9)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "doors, optimal player, 1 task, seed 4" and told[1].startswith("opened 1.000, 90% interval ")
    assert told[2].startswith("1 of 1 task won, 90% interval ") and told[3:] == ["3.0 rounds for each task, 3 at most"]
    play._PlayedWorld("idle", []).print(bench, 4, 0.9)
    assert "0.0 rounds for each task, 0 at most" in capsys.readouterr().out


def test_a_rehearsal_of_a_run_from_elsewhere_loads_no_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    point = roll_back.UndoPoint("c", 3, "write", {"path": "f"}, "", None)
    asked: list[Any] = []
    run = SimpleNamespace(path=tmp_path, trace=lambda which: SimpleNamespace(id="a"), id="r")
    monkeypatch.setattr(store, "open_run", lambda ref, home: nullcontext(run))
    monkeypatch.setattr(roll_back, "points_of", lambda trace: [point])
    monkeypatch.setattr(roll_back, "calls_without_undo", lambda trace, tools, to: asked.append("beyond") or [])
    monkeypatch.setattr(roll_back, "roll_back", lambda *given: asked.append(given[1]) or [])
    monkeypatch.setattr(named_agents, "open_tools", lambda texts: asked.append(texts) or [])
    monkeypatch.setattr(stored, "stored_settings", lambda run: SimpleNamespace(tools=("own",)))
    owns: list[Any] = []
    monkeypatch.setattr(foreign_settings, "expect_own", lambda run, named, trust: owns.append((named, trust)))
    is_own = False
    monkeypatch.setattr(foreign_settings, "is_own", lambda run: is_own)
    assert cli("rollback", "r", "t", "--dry-run") == (0, "step 3: write f\n", "") and asked == [] == owns
    cli("rollback", "r", "t", "--dry-run", "--trust")
    assert asked == [("own",), "beyond"] and owns == [({"tool": ("own",)}, True)]
    cli("rollback", "r", "t", "--dry-run", "--tools", "given")
    assert asked[2:] == [("given",), "beyond"] and len(owns) == 1
    is_own = True
    cli("rollback", "r", "t", "--dry-run")
    assert asked[4:] == [("own",), "beyond"]
    is_own = False
    cli("rollback", "r", "t")
    assert asked[6:] == [("own",), "beyond", {}] and owns[-1] == ({"tool": ("own",)}, False)


def test_a_step_is_run_after_a_yes_and_not_before_what_it_needs(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    asked: list[Any] = []
    agreed = [False, True]
    monkeypatch.setattr(tour, "_agreed", lambda: asked.append("asked") or agreed.pop(0))
    monkeypatch.setattr(tour, "_run", lambda step: asked.append(step.number) or 7)
    monkeypatch.setattr(tour_progress, "steps_done", dict)
    step = tour_step("1")
    code, out, _ = cli("tour", "1")
    assert (code, asked) == (0, ["asked"]) and step.title in out
    assert cli("tour", "1")[0] == 7 and asked == ["asked", "asked", 1]
    assert cli("tour", "1", "--yes")[0] == 7 and asked[3:] == [1]
    assert cli("tour", "next", "--yes")[0] == 7 and asked[4:] == [1]
    with pytest.raises(UnknownName):
        tour.main(tour.Config("99"))
    monkeypatch.setattr(tour_progress, "next_step", lambda done: None)
    told = "All steps are done. `firsthand claims` tells, line by line, what of the reading list holds here.\n"
    assert cli("tour", "next", "--yes") == (0, told, "") and len(asked) == 5


def test_a_tokenizer_is_opened_from_a_file_or_fetched_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(fetch_model, "fetch_model", lambda name, **more: asked.append((name, more)) or "fetched")
    monkeypatch.setattr(pretrained, "load", lambda path: path)
    (tmp_path / "folder").mkdir()
    for name in ("a.tiktoken", "b.gguf", "x/tokenizer.json", "tokenizer.model", "folder"):
        assert tokens._open(name, shown=True) == Path(name)  # type: ignore[comparison-overlap]
    assert asked == [] and [tokens._open(name, shown=False) for name in ("smollm2", "tokenizer.txt")] == ["fetched"] * 2
    assert asked == [("smollm2", {"shown": False}), ("tokenizer.txt", {"shown": False})]
    tokens._open("m", shown=True)
    assert asked[2] == ("m", {"shown": True})


def test_an_attempt_is_shown_with_what_its_flags_ask(home: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    judged = Score("j", 1.0, {"trace": Trace("i", "sums", "t1", {"name": "j"}, 0, 0, "", 1.0).to_json()})
    tries = {"bob": {"sums": {"t1": [{"exact": 1.0, "j": judged}]}}, "ada": {"sums": {"t1": [{"exact": 0.5}]}}}
    run = scored_run(home, "one", tries)
    run.close()
    asked: list[Any] = []
    monkeypatch.setattr(show, "show", lambda trace, **more: asked.append((trace.agent_name, more)))
    monkeypatch.setattr(show, "expected_answer", lambda task, reveal: (task and task.id, reveal))
    for flags in ((), ("--full", "--reveal"), ("--judge", "j")):
        assert cli("show", run.id, "sums/t1/bob", *flags)[0] == 0
    assert asked == [
        ("bob", {"full": False, "reveal": False, "expected": ("t1", False)}),
        ("bob", {"full": True, "reveal": True, "expected": ("t1", True)}),
        ("j", {"full": False, "reveal": False, "expected": (None, False)}),
    ]
    code, _, err = cli("show", run.id, "sums/t1/bob", "--judge", "exact")
    told = "the attempt has no judged score 'exact': it has j; `firsthand score` makes them"
    assert (code, err) == (2, f"firsthand: {told}\n")
    code, out, _ = cli("show", run.id, "--json")
    [board] = json.loads(out)
    assert code == 0 == cli("show", run.id)[0]
    assert [row["agent"] for row in board["rows"]] == ["bob", "ada"] and board["baseline"] == "bob", (
        "in the order asked"
    )
