"""Blind battles: which pair is drawn, what is kept before and after a vote, and the session in the terminal."""

import asyncio
import io
import json
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.agent import Agent
from firsthand.arena.battle_table import BattleTable
from firsthand.arena.blind_battles import ARENA, battles_of, fight, prompt_task, vote
from firsthand.arena.pair_choice import PRIOR, choose_pair, expected_reductions
from firsthand.arena.ratings import rate
from firsthand.commands.board_of_votes import follow_votes
from firsthand.errors import ConfigError
from firsthand.patterns.reply import reply
from firsthand.preference import Preference
from firsthand.providers.scripted import Scripted
from firsthand.runs import store


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test as a function, which pytest runs without a plugin."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


def table(*rows: tuple[str, str, str], models: tuple[str, ...] = ("x", "y", "z")) -> BattleTable:
    return BattleTable.from_columns(*(list(column) for column in zip(*rows, strict=True)), models=models)


def covariance_trace(battles: BattleTable, theta: np.ndarray, extra: tuple[int, int] | None) -> float:
    """The sum of variances by inverting the information of all battles and of one more, written out battle by battle."""
    information = PRIOR * np.eye(len(theta))
    for a, b in [*zip(battles.a, battles.b, strict=True), *([extra] if extra else [])]:
        step = np.eye(len(theta))[a] - np.eye(len(theta))[b]
        p = 1 / (1 + np.exp(theta[b] - theta[a]))
        information += p * (1 - p) * np.outer(step, step)
    return float(np.trace(np.linalg.inv(information)))


def test_the_expected_reduction_is_that_of_one_more_battle() -> None:
    battles = table(*[("x", "y", "a")] * 5, *[("x", "y", "b")] * 2, ("y", "z", "tie"))
    theta = rate(battles, prior=PRIOR).theta
    found = expected_reductions(battles)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        expected = covariance_trace(battles, theta, None) - covariance_trace(battles, theta, (a, b))
        assert found[a, b] == pytest.approx(expected) == pytest.approx(found[b, a])
    assert not found.diagonal().any()


@pytest.mark.slow
def test_pairs_that_teach_more_are_drawn_more_and_sides_are_even() -> None:
    battles = table(*[("x", "y", "a"), ("x", "y", "b")] * 50)
    drawn = [choose_pair(battles, np.random.default_rng(seed)) for seed in range(400)]
    assert drawn == [choose_pair(battles, np.random.default_rng(seed)) for seed in range(400)]
    known = sum(set(pair) == {0, 1} for pair in drawn)
    assert known < 40
    first = sum(pair[0] == 2 for pair in drawn)
    assert 150 < first < 240  # of about 390 battles of the new model, half with it first
    nothing = BattleTable.from_columns([], [], [], models=["x", "y"])
    assert sorted(choose_pair(nothing, np.random.default_rng(0))) == [0, 1]


def agent(name: str, *replies: str) -> Agent:
    return Agent(name, Scripted(list(replies), name=name), reply)


@in_a_loop
async def test_both_attempts_are_kept_before_a_vote_and_the_vote_after(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "arena") as run, run.working():
        first, second = agent("scripted:one", "four", "five"), agent("scripted:two", "three", "six")
        task = prompt_task("What is 2 + 2?")
        battle = await fight(run, first, second, task, number=0, seed=0)
        assert sorted(trace.answer for trace in run.traces(benchmark=ARENA)) == ["four", "three"]
        assert (battle.a.answer, battle.b.answer, battle.failure) == ("four", "three", "")
        assert battles_of(run, ("scripted:one", "scripted:two"))[0].models == ("scripted:one", "scripted:two")
        kept = vote(run, battle, "a", by="human:ada", dwell_s=1.23456)
        again = await fight(run, second, first, task, number=1, seed=0)  # the same prompt is answered anew
        assert (again.a.answer, again.b.answer) == ("six", "five")
        vote(run, again, "both_bad", by="human:bob", dwell_s=0.5)
    with store.open_run(tmp_path / "runs" / run.id, tmp_path) as read:
        assert read.preferences()[0] == kept
        assert kept.detail["dwell_s"] == 1.235 and kept.detail["void"] == "" and len(kept.detail["prompt_sha256"]) == 64
        battles, void = battles_of(read, ("scripted:one", "scripted:two"))
    assert battles.outcome.tolist() == [0, 1] and void == 0
    assert battles.a.tolist() == [0, 1] and battles.b.tolist() == [1, 0]
    assert battles.voters.tolist() == [0, 1] and battles.questions.tolist() == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "prompt", "answer", "void"),
    [
        ("smollm2", "Who are you?", "I am SmolLM, made by Hugging Face.", True),
        ("smollm2", "Who are you?", "A model of HUGGING FACE.", True),
        ("qwen2.5-coder.gguf", "Hi", "I am Qwen.", True),
        ("openai:gpt-9@http://x/v1", "Hi", "Made by OpenAI", True),
        ("smollm2", "Who are you?", "An assistant.", False),
        ("smollm2", "What is SmolLM?", "SmolLM is a model.", False),  # the prompt named it
        ("one", "Hi", "a scripted model, in one line", False),
    ],
)
@in_a_loop
async def test_a_vote_is_void_where_an_answer_names_its_model(
    model: str, prompt: str, answer: str, void: bool, tmp_path: Path
) -> None:
    for swapped in (False, True):
        with store.create(tmp_path, {}, "arena") as run, run.working():
            named = Agent("named", Scripted([answer], name=f"scripted:{model}"), reply)
            pair = (agent("scripted:other", "plain"), named) if swapped else (named, agent("scripted:other", "plain"))
            battle = await fight(run, *pair, prompt_task(prompt), number=0, seed=0)
            kept = vote(run, battle, "a", by="human:ada", dwell_s=1)
            assert bool(kept.detail["void"]) == void
            assert kept.detail["void"].startswith("B" if swapped else "A") or not void
            battles, voided = battles_of(run)
            assert (len(battles), voided) == ((0, 1) if void else (1, 0))
            assert len(run.preferences()) == 1  # a void vote stays


@in_a_loop
async def test_a_failed_attempt_is_no_battle(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "arena") as run, run.working():
        battle = await fight(
            run, agent("scripted:one", "x"), agent("scripted:none"), prompt_task("Hi"), number=0, seed=0
        )
    assert battle.failure.startswith("B failed: ")


def test_votes_about_attempts_of_another_run_are_refused(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "arena") as run, run.working():
        run.add_preference(Preference("t", "no-trace", "none", "a", "human:ada"))
        with pytest.raises(ConfigError, match="1 votes of run"):
            battles_of(run)
    with pytest.raises(ConfigError, match="prompt is empty"):
        prompt_task(" \n")


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli):
    """Runs `firsthand arena` between two scripted models with typed lines."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name, text in (("one", "the first answer"), ("two", "the [bold]second\x1b[31m answer")):
        Path(f"{name}.json").write_text(json.dumps({"": text}))

    def run(typed: str, *options: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        return cli("arena", "scripted:one.json", "scripted:two.json", "--voter", "ada", *options)

    return run


def test_a_session_asks_shows_and_reveals(session, tmp_path: Path, cli) -> None:
    code, out, err = session("What is up?\nx\na\nAnd now?\nb\n\n")
    assert code == 0 and not err
    before, after = out.split("A was", 1)
    assert "the first answer" in before and "scripted:one" not in before  # blind until the vote
    assert "scripted:one.json" in after
    assert "[bold]second\\x1b[31m answer" in out
    assert "2 votes kept" in out
    code, out, _ = session("again\nt\n\n", "--continue", "last")
    assert code == 0 and "1 vote kept" in out
    with store.open_run("last", tmp_path / "home") as run:
        assert [each.by for each in run.preferences()] == ["human:ada"] * 3
        assert len(list(run.traces())) == 6


@pytest.mark.slow
def test_the_board_of_a_run_holds_the_length_of_answers_equal(session, cli) -> None:
    long = "a much longer answer than the other one"
    Path("one.json").write_text(json.dumps({"first": long, "": "short"}))
    Path("two.json").write_text(json.dumps({"first": "brief", "": long}))
    Path("prompts.txt").write_text("".join(f"{word} question {i}\n" for i in range(6) for word in ("first", "next")))
    code, out, err = session("a\nb\nt\n" * 4, "--prompts", "prompts.txt", "--seed", "3")
    assert code == 0, err
    code, out, err = cli("board", "last", "--style", "length", "--json")
    assert code == 0, err
    assert "length" in json.loads(out)["covariates"]
    code, _, err = cli("board", "last", "--style", "bold")
    assert code != 0 and "the answers never differ in bold" in err
    code, _, err = cli("board", "last", "--where", "language=English")
    assert code != 0 and "--where is for files of votes" in err


@pytest.mark.slow
def test_a_session_on_a_file_ends_with_its_battles_or_its_prompts(session, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one?\n\ntwo?\nthree?\n")
    assert "2 votes kept" in session("a\nb\na\n", "--prompts", "prompts.txt", "--battles", "2")[1]
    assert "1 vote kept" in session("s\nt\n", "--prompts", "prompts.txt")[1]  # a skip, a vote, then the end of input
    with store.open_run("last", tmp_path / "home") as run:
        assert [each.winner for each in run.preferences()] == ["tie"]


@pytest.mark.slow
def test_a_watched_board_is_printed_after_each_vote_until_the_session_ends(
    session, tmp_path: Path, cli, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firsthand.commands.board_of_votes.LOOK_S", 0.001)
    home, shown = tmp_path / "home", []
    with store.create(home, {"arena": {}}, "arena") as run, ExitStack() as working:
        working.enter_context(run.working())

        def show() -> None:
            shown.append(len(run.preferences()))
            if len(shown) < 3:
                run.add_preference(Preference("t", f"a{len(shown)}", "b", "a", "human:ada"))
            if len(shown) == 2:
                working.close()  # the session ends with a vote that was not shown yet
            if not run.preferences()[1:]:
                raise ConfigError("more battles are needed")

        follow_votes(run.id, show)
    assert shown == [0, 1, 2] and "0 votes: more battles are needed" in capsys.readouterr().out

    def fails() -> None:
        raise ConfigError("more battles are needed")

    with pytest.raises(ConfigError, match="more battles"):
        follow_votes(run.id, fails)
    session("What is up?\nt\nAnd now?\nt\n\n")
    code, out, _ = cli("board", "last", "--watch")
    assert code == 0 and out.count("2 battles") == 1
    (tmp_path / "votes.csv").write_text("model_a,model_b,winner\nx,y,model_a\nx,y,model_b\n")
    code, _, err = cli("board", "votes.csv", "--watch")
    assert code == 2 and "leave it out for a file of votes" in err


def test_an_empty_session_keeps_no_run_and_one_without_votes_nothing_that_can_be_rated(session, cli) -> None:
    assert "Nothing was asked, so nothing is kept." in session("")[1]
    code, _, err = cli("board", "last")
    assert code != 0 and "no runs" in err
    assert "No vote was given" in session("one?\ns\n")[1]
    code, _, err = cli("board", "last")
    assert code != 0 and "holds no votes" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("scripted:echo",), "name two or more"),
        (("scripted:echo", "scripted:echo"), "name two or more"),
        (("scripted:echo", "scripted:x.json"), "x.json"),
        (("scripted:echo", "scripted:one.json", "--battles", "-1"), "battles is -1"),
        (("scripted:echo", "scripted:one.json", "--prompts", "none.txt"), "none.txt"),
        (("scripted:echo", "scripted:one.json", "--prompts", "empty.txt"), "has no prompts"),
        (("scripted:echo", "scripted:one.json", "--continue", "nope"), "nope"),
    ],
)
def test_a_wrong_arena_is_one_sentence(words: tuple, sentence: str, session, tmp_path: Path, cli) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    code, _, err = cli("arena", *words)
    assert code != 0 and sentence in err and "Traceback" not in err


@pytest.mark.slow
def test_a_run_is_continued_by_models_that_it_knows(session, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    session("hi\na\n\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\na\n"))
    outcomes = set()
    for seed in range(6):
        code, _, err = cli("arena", "scripted:one.json", "scripted:echo", "--continue", "last", "--seed", str(seed))
        outcomes.add(code)
        assert code == 0 or "name it among the models too" in err
    assert outcomes - {0}
