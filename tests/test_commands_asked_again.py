"""Sessions that go on: a conversation that was loaded, a battle that is asked again, a person without a name."""

from __future__ import annotations

import asyncio
import getpass
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from chat_at_terminal import talk, use_home
from firsthand.agent import Agent
from firsthand.arena.blind_battles import fight, prompt_task, vote
from firsthand.arena.blind_reasks import REASK
from firsthand.commands import arena, chat, rag_chat
from firsthand.errors import ModelError
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.show.chat_screen import Screen
from firsthand.system import interruption
from printed_tables import widen, words


@pytest.fixture
def runner() -> Iterator[interruption.Runner]:
    with interruption.Runner() as made:
        yield made


def test_a_loaded_conversation_goes_on_at_its_end_and_its_new_answers_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runner: interruption.Runner
) -> None:
    home = use_home(tmp_path, monkeypatch)
    first = talk(seed=3)
    first.ask(runner, "first?")
    first.save("")
    run = store.list_runs(home)[0].id
    assert "-chat" in run, "a conversation without a name is a chat"
    made = talk(seed=5)
    capsys.readouterr()
    made.load(f"{run}  ")
    assert made.is_saved and capsys.readouterr().err == "on branch main: 2 messages, the last: one\n"
    made.ask(runner, "second?")
    assert "one" in capsys.readouterr().out and made.is_saved is False
    trace = made.dialogue.trace()
    assert [message.text for message in trace.messages(len(trace.nodes) - 1)] == ["first?", "one", "second?", "one"]


def test_nothing_is_read_where_there_is_no_input_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO("piped")
    closed.close()
    at_terminal = SimpleNamespace(closed=False, isatty=lambda: True)
    for given in (None, closed, at_terminal):
        monkeypatch.setattr(sys, "stdin", given)
        assert chat.with_input("Why?") == "Why?"
    monkeypatch.setattr(sys, "stdin", io.StringIO(" a_\r\nb__\n\n"))
    assert chat.with_input("Why?") == " a_\nb__\n\nWhy?", "the lines as they are, but for their ends"


def test_a_session_asks_earlier_battles_again_by_the_chance_of_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    widen(monkeypatch, arena)
    known = {name: Agent(name, Scripted({"": f"{name} says"}), reply) for name in ("one", "two")}
    run = store.create(tmp_path, {"arena": {}}, "arena", command=["firsthand"])

    async def earlier() -> None:
        for number in range(7):
            battle = await fight(run, known["one"], known["two"], prompt_task(f"Q{number}?"), number=number, seed=0)
            vote(run, battle, "a", by="human:ada", dwell_s=1)

    asyncio.run(earlier())
    seed = next(seed for seed in range(99) if [Random(seed).random() < 0.5, drawn(seed, 1) < 0.5] == [False, True])
    config = arena.Config(("one", "two"), reask=0.5, seed=seed, voter="ada")

    def session(*lines: str) -> tuple[int, list[str]]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        votes = asyncio.run(arena._session(config, run, known, None, iter(("P0?", "P1?", "P2?"))))
        return votes, [line for line in words(capsys.readouterr().out) if line.endswith("?") and line[0] in "PQ"]

    # the first is shown at once; an old one comes before the second, and leaving it ends the session before the second
    votes, shown = session("t", "q")
    assert votes == 1 and shown[0] == "P0?" and len(shown) == 2 and shown[1].startswith("Q")
    assert [bool((each.detail or {}).get(REASK)) for each in run.preferences()] == [False] * 8
    votes, shown = session("t", "b", "q")
    assert votes == 1 and [each[0] for each in shown] == ["P", "Q", "P"], "a verdict on an old one is no new vote"
    again = run.preferences()[-1]
    assert (again.winner, again.by) == ("b", "human:ada") and (again.detail or {})[REASK]
    assert len(run.preferences()) == 10


def drawn(seed: int, place: int) -> float:
    """The number of that place that a seed gives."""
    chance = Random(seed)
    return [chance.random() for _ in range(place + 1)][place]


def test_a_voter_whom_the_system_does_not_know_is_called_user(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[Any] = [OSError(), KeyError("uid")]

    def getuser() -> str:
        if failures:
            raise failures.pop()
        return "ada"

    monkeypatch.setattr(getpass, "getuser", getuser)
    assert [arena._user() for _ in range(3)] == ["user", "user", "ada"]


def test_an_earlier_battle_whose_prompt_is_gone_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {name: Agent(name, Scripted({"": f"{name} says"}), reply) for name in ("one", "two")}
    run = store.create(tmp_path, {"arena": {}}, "arena", command=["firsthand"])

    async def fought() -> None:
        for number in range(6):
            battle = await fight(run, known["one"], known["two"], prompt_task(f"Q{number}?"), number=number, seed=0)
            vote(run, battle, "a", by="human:ada", dwell_s=1)

    asyncio.run(fought())
    monkeypatch.setattr(type(run), "task", lambda *given: None)
    assert arena._asked_again(run, "human:ada", Random(1)) is True and capsys.readouterr().out == ""


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home, beside the file of a model's answers."""
    home = use_home(tmp_path, monkeypatch)
    Path("s.json").write_text('{"": "yes"}')
    return home


def piped(monkeypatch: pytest.MonkeyPatch, text: str, **more: Any) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    return chat.main(chat.Config("scripted:s.json", **more))


def test_only_the_word_alone_asks_again(
    scripted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert piped(monkeypatch, "a?\n/retry now\n", keep=False) == 1
    out, err = capsys.readouterr()
    assert out.count("yes") == 1 and "no command '/retry'" in err
    assert piped(monkeypatch, "a?\n/retry\n", keep=False) == 0 and capsys.readouterr().out.count("yes") == 2


def test_a_conversation_is_saved_under_an_empty_name_and_the_newest_one_goes_on(
    scripted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert piped(monkeypatch, "a?\n", save="") == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("saved: firsthand show ")
    [kept] = store.list_runs(scripted)
    with store.create(scripted, {"settings": {}}, "later"):
        pass
    capsys.readouterr()
    assert piped(monkeypatch, "/branches\n", load="") == 0, "the newest run is no conversation"
    assert capsys.readouterr().out == "* main: 2 messages, the last: yes\n"
    assert [each.id for each in store.list_runs(scripted) if "chat" in each.config] == [kept.id]


def test_a_turn_is_kept_as_it_was_asked_though_another_question_was_searched_for(
    runner: interruption.Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    class Model:
        async def ask(self, question: str, history: list[tuple[str, str]], *, sampling: Any) -> Any:
            asked.append((question, list(history), sampling))
            told = {"text": f"A{len(asked)}", "model": None, "citations": [], "hits": []}
            return told | ({"question": "When was the mill built?"} if len(asked) == 2 else {})

    made = rag_chat.RagChat.__new__(rag_chat.RagChat)
    made.screen, made.model, made.sampling = Screen(), Model(), "S"  # type: ignore[assignment]
    made.screen.is_terminal = True
    made.history, made.last, made.failed, made.was_asked = [], None, False, False
    made.run(runner, iter(("The mill?", "And when?", "//why", "/clear", "/show", "Now?", "/quit", "never")))
    turns = [("The mill?", "A1"), ("And when?", "A2"), ("/why", "A3")]
    assert asked == [
        ("The mill?", [], "S"), ("And when?", turns[:1], "S"), ("/why", turns[:2], "S"), ("Now?", [], "S")
    ]  # fmt: skip
    assert made.history == [("Now?", "A4")] and made.was_asked and made.failed, "what is forgotten cannot be shown"
    out, err = capsys.readouterr()
    assert out.splitlines() == ["A1", "A2", "A3", "A4"]
    assert err.splitlines() == [
        "searched for: When was the mill built?", "the conversation is forgotten",
        "firsthand: there is no answer yet whose passages could be shown",
    ]  # fmt: skip


def test_only_a_model_that_runs_here_is_loaded_while_the_first_question_is_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Any] = []

    class Thread:
        def __init__(self, *, target: Any, name: str, daemon: bool) -> None:
            told.append((name, daemon))
            self.start = target

    def run(work: str) -> None:
        told.append(work)
        raise ModelError("no memory")

    monkeypatch.setattr(chat.threading, "Thread", Thread)
    monkeypatch.setattr(chat.interruption, "run", run)
    chat.load_in_background(Scripted([]))
    assert told == []
    monkeypatch.setattr(chat, "TokenCapability", SimpleNamespace)
    model: Any = SimpleNamespace(load=lambda: "loading")
    chat.load_in_background(model)
    assert told == [("firsthand-load", True), "loading"], "an error is told when a question is asked"


def test_a_line_is_ended_after_each_answer_though_it_broke_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: interruption.Runner
) -> None:
    use_home(tmp_path, monkeypatch)
    made = talk(Scripted({"a": "yes"}))
    told: list[str] = []
    monkeypatch.setattr(made.screen, "end_line", lambda: told.append("ended"))
    monkeypatch.setattr(made.screen, "fact", told.append)
    made.ask(runner, "a?")
    assert told[0] == "ended" and " tokens" in told[1] and len(told) == 2
    with pytest.raises(ModelError):
        made.ask(runner, "b?")
    assert told[2:] == ["ended"], "nothing is told of an answer that did not come"
