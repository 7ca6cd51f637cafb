"""The commands of a conversation one by one, at a terminal and in a pipe: what they do, say and keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chat_at_terminal import talk, use_home
from firsthand.commands import chat
from firsthand.commands.chat import Config
from firsthand.errors import ConfigError, ModelError, StoreError, UnknownName
from firsthand.model import BASE_MODEL, ModelFacts, Sampling, TokenCapability, Usage
from firsthand.providers.scripted import Scripted
from firsthand.runs import store
from firsthand.system import interruption


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path, monkeypatch)


@pytest.fixture
def runner() -> Iterator[interruption.Runner]:
    with interruption.Runner() as made:
        yield made


class Local(Scripted):
    """A scripted model that says of itself that it runs here."""

    is_alive = True

    def __init__(self, facts: Any, *replies: str) -> None:
        super().__init__(replies or {"": "an answer"}, name="scripted:local")
        self.facts, self.loads = facts, 0

    async def load(self) -> Any:
        self.loads += 1
        if isinstance(self.facts, Exception):
            raise self.facts
        return self.facts

    def _unused(self, *given: Any, **named: Any) -> Any:
        raise AssertionError("a conversation asks for messages")

    counters = detokenize = rate = spell = stream_many = tokenize = _unused


def test_branches_are_forked_cleared_switched_and_listed(
    runner: interruption.Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    made = talk()
    made.ask(runner, "first [b]?")
    assert made.prompt() == "> "
    made.fork("side\x1b")
    assert made.prompt() == "(side\\x1b) > "
    made.ask(runner, "second?")
    empty = made.dialogue.free_name()
    made.clear("")
    assert made.dialogue.current == empty
    capsys.readouterr()
    made.branches()
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "  main: 2 messages, the last: one", "  side\\x1b: 4 messages, the last: two", f"* {empty}: 0 messages"
    ]  # fmt: skip
    assert err == ""
    made.switch("main")
    free = made.dialogue.free_name()
    made.fork("")
    assert made.dialogue.current == free
    made.clear("new")
    assert capsys.readouterr() == ("", "\n".join([
        "on branch main: 2 messages, the last: one", f"on branch {free}; /switch main returns",
        "on the empty branch new; /switch main returns", "",
    ]))  # fmt: skip
    assert len({"main", empty, free, "new"}) == 4 and made.dialogue.current == "new"
    long = talk(Scripted(["w" * 50 + "\n" * 30 + "v" * 50]))
    long.ask(runner, "q")
    assert long._position("main") == f"2 messages, the last: {'w' * 50} {'v' * 9}"
    with pytest.raises(UnknownName, match="mai"):
        made.switch("mai")


def test_undo_gives_the_question_back_and_says_its_beginning(
    runner: interruption.Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    made = talk()
    question = "How\n" + "long " * 30
    made.ask(runner, question)
    capsys.readouterr()
    assert made.undo() == question
    assert (
        capsys.readouterr().err == f"removed: {chat.one_line(question)[:80]}\n"
        and made._position("main") == "0 messages"
    )
    with pytest.raises(ConfigError, match=r"^this branch has no question to remove$"):
        made.undo()


def test_a_question_is_answered_and_its_facts_are_its_own(
    runner: interruption.Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    made = talk()
    assert made.is_saved is True
    made.ask(runner, "a b c")
    made.ask(runner, "d")
    assert made.is_saved is False
    out, err = capsys.readouterr()
    assert out == "one\ntwo\n"
    # words: three of the question; then those, the answer, and one more
    tokens = [line.split("; ")[1] for line in err.splitlines()]
    assert tokens == ["3 prompt tokens, 0 cached", "5 prompt tokens, 0 cached"]
    assert all(line.startswith("1 tokens, first after ") for line in err.splitlines())
    usage = made.dialogue.usage
    assert made.usage() == f"2 calls, {usage.prompt_tokens} tokens in (0 cached), 2 out" and usage.prompt_tokens == 8
    dear = talk()
    dear.dialogue = SimpleNamespace(usage=Usage(7, 2, 5, 0.01234), calls=[1])  # type: ignore[assignment]
    assert dear.usage() == "1 call, 7 tokens in (2 cached), 5 out, 0.0123 USD"
    dear.config = replace(dear.config, budget_usd=1.0)
    assert dear.usage().endswith(" 5 out, 0.0123 USD")
    made.config = replace(made.config, budget_usd=1.0)
    assert made.usage().endswith(", 2 out, no cost reported, so --budget-usd limits nothing")
    made.dialogue = SimpleNamespace(usage=Usage(), calls=[])  # type: ignore[assignment]
    assert made.usage() == "0 calls, 0 tokens in (0 cached), 0 out"
    slow = talk(Scripted(["three words more"]))
    slow.screen.writing_s = 50.0  # of answers before
    slow.ask(runner, "q")
    (told,) = capsys.readouterr().err.splitlines()
    # two words after the first, in the time of this answer alone
    assert told.startswith("3 tokens, ") and float(told.split()[2].replace(",", "")) > 2
    failing = talk(Scripted([]))
    with pytest.raises(ModelError):
        failing.ask(runner, "q")
    assert failing.is_saved is False and "tokens" not in capsys.readouterr().err


def test_a_model_that_runs_here_is_loaded_once_and_its_settings_are_taken_over(
    runner: interruption.Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = ModelFacts(
        99,
        9,
        markup={},
        thinks=False,
        has_template=False,
        recommended={"temperature": 0.25, "top_p": 0.5},  # type: ignore[arg-type]
    )
    model = Local(facts)
    assert isinstance(model, TokenCapability)
    made = talk(model)
    made.load_model(runner)
    made.load_model(runner)
    assert model.loads == 1 and made.agent.sampling == Sampling(temperature=0.25, top_p=0.5, max_tokens=1024)
    made.ask(runner, "q")
    assert model.loads == 1 and model.asked[0].sampling.top_p == 0.5  # type: ignore[union-attr]
    assert capsys.readouterr().err.splitlines()[0] + "\n" == BASE_MODEL.format(name="scripted:local") + "\n"
    other = Local(replace(facts, has_template=True, recommended={}))
    made.agent = replace(made.agent, model=other)
    made.load_model(runner)
    assert other.loads == 1 and made.agent.sampling == Sampling(temperature=0.7, max_tokens=1024)
    assert capsys.readouterr().err == ""
    plain = talk()
    plain.load_model(runner)
    assert plain.agent.sampling == Sampling(max_tokens=9), "of another's model nothing is known"


def test_loading_begins_in_the_background_and_its_errors_wait_for_the_question() -> None:
    for facts in (SimpleNamespace(), ModelError("no file")):
        model = Local(facts)
        chat.load_in_background(model)
        for thread in chat.threading.enumerate():
            if thread.name == "firsthand-load":
                assert thread.daemon
                thread.join(10)
        assert model.loads == 1
    chat.load_in_background(Scripted([]))


def test_another_model_takes_over_and_the_old_one_is_closed(
    home: Path, runner: interruption.Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    closed: list[str] = []
    old = Scripted(["one"], name="scripted:old")
    old.close = lambda: closed.append("old")  # type: ignore[method-assign]
    made = talk(old)
    made.ask(runner, "q")
    capsys.readouterr()
    made.model("")
    assert capsys.readouterr() == ("scripted:old\n", "") and made.agent.model is old
    made.model("scripted:echo")
    assert capsys.readouterr() == ("", "switched to scripted:echo\n") and closed == ["old"]
    made.ask(runner, "say it")
    assert capsys.readouterr().out == "say it\n" and made.agent.name == "chat"
    with pytest.raises(UnknownName):
        made.model("no:model")
    assert made.agent.model.name == "scripted:echo"


def test_models_are_fetched_and_opened_on_the_device_of_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(chat, "fetch_named", told.append)
    monkeypatch.setattr(
        chat.catalog, "model", lambda name, *, device: told.append(device) or Scripted([], name=f"scripted:{name}")
    )
    made = talk(device="cuda:1")
    made.model("other")
    assert made.agent.model.name == "scripted:other" == made.dialogue.trace().agent["model"]
    assert chat.make_agent(Config("third", device="auto")).model.name == "scripted:third"
    assert told == ["other", "cuda:1", "third", "auto"]


def test_a_conversation_is_saved_kept_and_loaded(
    home: Path, runner: interruption.Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    made = talk(seed=3, system="S", budget_calls=7)
    made.keep()
    assert made.is_saved and not home.exists(), "nothing was answered"
    made.ask(runner, "first?")
    capsys.readouterr()
    made.save("named")
    out = capsys.readouterr().out
    with store.open_run("last", home) as run:
        (trace,) = run.traces()
        assert trace.seed == 3 and out == f"saved: firsthand show {run.id} {trace.place[:8]}\n" and "named" in run.id
        assert run.config["chat"] == {
            "model": "scripted:x", "question": None, "device": "cpu", "system": "S", "tools": [], "approve": [],
            "temperature": None, "max_tokens": None, "seed": 3, "budget_tokens": None, "budget_calls": 7,
            "budget_seconds": None, "budget_usd": None,
        }  # fmt: skip
        assert (
            run.info.command == ("firsthand", "chat")
            and list(run.agents()) == ["chat"]
            and run.info.status != "running"
        )
        assert [task.id for task in run.tasks().values()] == [trace.task_id]
        first = run.id
    made.keep()
    assert capsys.readouterr().err == "" and len(store.list_runs(home)) == 1, "it is saved already"
    made.ask(runner, "second?")
    capsys.readouterr()
    made.keep()
    assert capsys.readouterr().err == "kept: `firsthand chat --continue` goes on, `firsthand runs` lists it\n"
    assert made.is_saved and len(store.list_runs(home)) == 2
    last = chat.last_conversation()
    assert last != first
    made.clear("x")
    made.load(f"{first} ")
    assert made.is_saved and made._position("main") == "2 messages, the last: one"
    assert capsys.readouterr().err.splitlines()[-1] == "on branch main: 2 messages, the last: one"
    made.load("")
    assert made.dialogue.trace().origin.run == first  # type: ignore[union-attr]
    assert made._position("main") == "2 messages, the last: one", "what was kept unasked is not the last run"
    with store.open_run(last, home) as run:
        place = next(run.traces()).place
    made.load(f"{last}  {place[:8]} ")
    assert made._position("main") == "4 messages, the last: two"
    assert len(made._left) == 3
    made.close(runner)
    with store.create(home, {"seed": 0}, "other") as empty, pytest.raises(StoreError) as refused:
        made.load(empty.id)
    assert str(refused.value) == f"{empty.id} holds 0 attempts: name one, as in /load {empty.id} ID"
    assert chat.last_conversation() == last, "a run of something else is none"


def test_a_conversation_that_is_not_to_be_kept_or_had_no_answer_is_not(
    home: Path, runner: interruption.Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = talk(keep=False)
    silent.ask(runner, "q")
    silent.keep()
    failed = talk(Scripted([]))
    with pytest.raises(ModelError):
        failed.ask(runner, "q")
    failed.keep()
    assert not home.exists()
    named = talk(save="mine")
    named.ask(runner, "q")
    named.keep()
    assert "mine" in chat.last_conversation()
    (home / "runs").rename(home / "moved")
    (home / "runs").write_text("in the way")
    full = talk()
    full.ask(runner, "q")
    capsys.readouterr()
    full.keep()
    assert capsys.readouterr().err.startswith("firsthand: ") and not full.failed and not full.is_saved


def test_there_is_no_conversation_in_an_empty_home(home: Path) -> None:
    with pytest.raises(UnknownName) as refused:
        chat.last_conversation()
    assert str(refused.value) == f"there is no conversation in {home / 'runs'} yet: `firsthand chat` keeps one"
