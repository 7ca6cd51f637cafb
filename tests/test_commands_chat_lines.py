"""The lines of a conversation, typed or piped in, and the agent that the flags make."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chat_at_terminal import talk, use_home
from firsthand.commands import chat
from firsthand.commands.chat import Chat, Config
from firsthand.errors import ConfigError
from firsthand.loop.approval import Approval
from firsthand.loop.budget import Limits
from firsthand.model import Sampling
from firsthand.patterns.reply import reply
from firsthand.runs import store
from firsthand.runs.dialogue import Dialogue
from firsthand.show.chat_screen import Screen
from firsthand.system import interruption


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path, monkeypatch)


@pytest.fixture
def runner() -> Iterator[interruption.Runner]:
    with interruption.Runner() as made:
        yield made


def lines(made: Chat, runner: interruption.Runner, monkeypatch: pytest.MonkeyPatch, *typed: str) -> None:
    """The conversation with these lines of a person or a pipe."""
    given = iter(typed)

    def read(prompt: str) -> str:
        try:
            return next(given)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(typed)))
    made.run(runner)


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_are_questions_commands_or_nothing(
    home: Path,
    runner: interruption.Runner,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: bool,
) -> None:
    made = talk(terminal=terminal)
    lines(made, runner, monkeypatch, "", "  ", "//first", "/fork  side ", "/help", "/retry", "/usage", "/quit", "more")
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "one" and out.splitlines()[-2:-1] == ["two"]
    assert made.dialogue.context.messages[0].text == "/first" and made.dialogue.current == "side"
    assert chat.HELP in out and out.splitlines()[-1].startswith("2 calls, ") and made.was_asked and not made.failed
    assert ("removed: /first" in err) is terminal
    lines(made, runner, monkeypatch, "/nope x", "/exit", "more")
    assert capsys.readouterr().err.startswith("firsthand: no command '/nope'") and made.failed
    quiet = talk(terminal=terminal)
    lines(quiet, runner, monkeypatch, "", " ")
    assert not quiet.was_asked


def test_ctrl_c_ends_an_answer_at_a_terminal_and_the_program_in_a_pipe(
    runner: interruption.Runner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*given: Any) -> Any:
        raise KeyboardInterrupt

    made = talk()
    made.commands["help"] = stop
    lines(made, runner, monkeypatch, "/help", "next")
    out, err = capsys.readouterr()
    assert out == "one\n\n" and err.startswith("stopped; what had arrived of the answer is kept\n") and not made.failed
    piped = talk(terminal=False)
    piped.commands["help"] = stop
    with pytest.raises(KeyboardInterrupt):
        lines(piped, runner, monkeypatch, "/help", "next")
    # what ends the program is no Ctrl-C
    monkeypatch.setattr(chat, "terminated", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        lines(made, runner, monkeypatch, "/help", "next")
    monkeypatch.setattr("builtins.input", stop)
    with pytest.raises(KeyboardInterrupt):
        next(chat._typed(made.prompt))


def test_lines_are_as_they_were_typed_but_for_blanks_around_a_question(
    home: Path, runner: interruption.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(text: str) -> list[str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return list(chat.questions(None))

    assert asked("  a  \n\n \n b\\\n c \nd\\ \ne\\\nf\\\n\ng\n") == ["a", "b\n c", "d\\", "e\nf", "g"]
    assert asked('"""\n  one \n\n\ttwo\\\n """ \nthree\nx\\') == ["one \n\n\ttwo\\", "three", "x"]
    assert asked('"""\n"""\nx\n"""\nend') == ["x", "end"] and asked('a """\n""" b\n') == ['a """', '""" b']
    made, told = talk(), []
    lines(made, runner, monkeypatch, "///x", "/ fork", "/fork a b ")
    assert made.dialogue.branches["a b"].messages[0].text == "//x" and made.failed
    monkeypatch.setattr(chat, "facts", lambda calls, writing_s: told.append((len(calls), writing_s < 5)) or "")
    for made.screen.writing_s in (0.0, 9.0):
        made.ask(runner, "y")
    assert told == [(1, True), (1, True)], "of each answer its own"
    Path("my model.gguf").touch()
    given = ("note: why?", "Why?", "my model.gguf", "HF:a b", "hf:a b")
    assert [Config(each).question for each in given] == ["note: why?", None, None, "HF:a b", None]


def test_a_question_of_the_command_line_is_the_only_one(
    runner: interruption.Runner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = talk(question="Why?")
    monkeypatch.setattr("sys.stdin", io.StringIO("notes\n"))
    assert list(made.questions()) == ["notes\n\nWhy?"]
    assert list(made.questions()) == ["Why?"]
    made.run(runner)
    assert capsys.readouterr().out == "one\n"


def test_ctrl_c_starts_a_typed_line_again_and_ctrl_d_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: Iterator[Any] = iter(["a", KeyboardInterrupt(), "b", EOFError(), "c"])
    prompts: list[str] = []

    def read(prompt: str) -> str:
        prompts.append(prompt)
        found = next(given)
        if isinstance(found, BaseException):
            raise found
        return str(found)

    monkeypatch.setattr("builtins.input", read)
    assert list(chat._typed(lambda: f"{len(prompts)}> ")) == ["a", "b"]
    assert prompts == ["0> ", "1> ", "2> ", "3> "] and capsys.readouterr().out == "\n\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a \xff\r\nb\n\n c")))
    assert list(chat._piped()) == ["a �", "b", "", " c"]
    monkeypatch.setattr("sys.stdin", None)
    assert list(chat._piped()) == []


def test_an_agent_has_what_the_flags_say() -> None:
    agent = chat.make_agent(Config(
        "scripted:echo", system="S", tools=("calculator",), approve=("write=deny",), temperature=0.25, max_tokens=7,
        budget_tokens=1, budget_calls=2, budget_seconds=3.0, budget_usd=4.0,
    ))  # fmt: skip
    assert (agent.name, agent.model.name, agent.pattern, agent.options) == ("chat", "scripted:echo", reply, {})
    assert [tool.name for tool in agent.tools] == ["calculator"] and agent.system == "S"
    assert agent.sampling == Sampling(temperature=0.25, max_tokens=7) and agent.limits == Limits(1, 2, 3.0, 4.0)
    assert agent.approval == Approval(chat.parse_rules(("write=deny",))) != Approval(chat.parse_rules(()))
    recommended = {"temperature": 0.5, "max_tokens": 33.0, "top_k": 4}
    assert chat.sampling_of(Config(), recommended) == Sampling(temperature=0.5, max_tokens=33, top_k=4)
    assert chat.sampling_of(Config(temperature=0.0), recommended) == Sampling(temperature=0.0, max_tokens=33)
    assert chat.sampling_of(Config(max_tokens=5), recommended).max_tokens == 5


def test_a_chat_ends_with_1_if_a_piped_question_failed(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.json").write_text('["one"]')
    config = Config("scripted:s.json", save="mine")
    monkeypatch.setattr("sys.stdin", io.StringIO("a?\nb?\n"))
    assert chat.main(config) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "one" and err.startswith("firsthand: ")
    with store.open_run("last", home) as run:
        assert "mine" in run.id
        first = run.id
        (trace,) = run.traces()
        assert out.splitlines()[1:] == [f"saved: firsthand show {first} {trace.place[:8]}"]
    monkeypatch.setattr("sys.stdin", io.StringIO("/branches\n"))
    assert chat.main(replace(config, save=None, load=first)) == 0
    assert capsys.readouterr().out == "* main: 2 messages, the last: one\n"
    assert len(store.list_runs(home)) == 1, "nothing new was said"
    monkeypatch.setattr("sys.stdin", io.StringIO("a?\n"))
    assert chat.main(replace(config, save=None, continue_=True, model="scripted:echo")) == 0
    with store.open_run(chat.last_conversation(), home) as run:
        assert run.id != first and [each.message.text for each in next(run.traces()).nodes] == [
            "a?",
            "one",
            "b?",
            "a?",
            "a?",
        ]


def test_at_a_terminal_the_model_loads_meanwhile_and_a_failure_is_no_exit_code(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = []

    class Terminal(Screen):
        def __init__(self) -> None:
            super().__init__()
            self.is_terminal = True

    typed: Iterator[str] = iter(["first?", "/nope", "second?"])

    def read(prompt: str) -> str:
        told.append(prompt)
        if (line := next(typed, None)) is None:
            raise EOFError
        return line

    monkeypatch.setattr(chat, "Screen", Terminal)
    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr(chat, "_use_line_editing", lambda: told.append("editing"))
    monkeypatch.setattr(chat, "load_in_background", lambda model: told.append(model.name))
    Path("s.json").write_text('["one", "two"]')
    assert chat.main(Config("scripted:s.json")) == 0
    assert told == ["editing", "scripted:s.json", "> ", "> ", "> ", "> "]
    out, err = capsys.readouterr()
    assert out.split() == ["one", "two"]
    lines = err.splitlines()
    assert lines[0] == "scripted:s.json: ask a question, /help for commands, Ctrl-D to quit"
    assert lines[2].startswith("firsthand: no command '/nope'") and lines[-1].startswith("kept: ") and len(lines) == 5
    assert chat.main(Config("scripted:s.json")) == 0, "at a terminal nothing need be asked"
    assert len(store.list_runs(home)) == 1


def test_all_conversations_are_closed_at_the_end(
    home: Path, monkeypatch: pytest.MonkeyPatch, runner: interruption.Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    closed: list[str] = []

    async def close(dialogue: Dialogue) -> None:
        closed.append(dialogue.current)

    monkeypatch.setattr(Dialogue, "close", close)
    made = talk()
    made.ask(runner, "q")
    made.save("")
    made.clear("before")
    made.load("last")
    made.clear("between")
    made.load("last")
    made.clear("after")
    made.close(runner)
    assert closed == ["before", "between", "after"]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(ConfigError) as refused:
        chat.main(Config("scripted:echo"))
    assert str(refused.value) == "nothing was asked: give a question, as in `firsthand chat scripted:echo QUESTION`"
    assert closed[3:] == ["main"]
    monkeypatch.setattr("sys.stdin", io.StringIO("a?\n"))
    monkeypatch.setattr(Chat, "_save", lambda self, name: closed.append(f"kept as {name}") or ("id", "place"))
    assert chat.main(Config("scripted:echo")) == 0
    assert closed[4:] == ["kept as conversation", "main"], "what tools hold open is there while it is kept"


def test_an_empty_name_or_load_is_one_that_was_given(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for given, told in (
        ({"save": "", "keep": False}, "--save keeps"),
        ({"load": "", "continue_": True}, "--continue and"),
    ):
        with pytest.raises(ConfigError, match=told):
            Config(**given)  # type: ignore[arg-type]
    assert Config("two words", question="").model == "two words", "a question that is empty is one"
    Path("s.json").write_text('{"b": "two", "a": "one"}')
    monkeypatch.setattr("sys.stdin", io.StringIO("a?\n"))
    assert chat.main(Config("scripted:s.json", save="")) == 0
    made = chat.last_conversation()
    assert "chat" in made and f"saved: firsthand show {made} " in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("b?\n"))
    assert chat.main(Config("scripted:s.json", load="")) == 0, "the last one"
    with store.open_run(chat.last_conversation(), home) as run:
        assert run.id != made and [each.message.text for each in next(run.traces()).nodes] == ["a?", "one", "b?", "two"]


def test_a_conversation_that_is_saved_is_not_saved_again_at_its_end(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.json").write_text('["one", "two"]')
    monkeypatch.setattr("sys.stdin", io.StringIO("a?\n/save own\n"))
    assert chat.main(Config("scripted:s.json", save="mine")) == 0
    assert capsys.readouterr().out.count("saved: ") == 1
    assert ["own" in info.id for info in store.list_runs(home)] == [True]


def test_a_question_of_blanks_is_none(home: Path, runner: interruption.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    made = talk(question=" ", terminal=False)
    made.run(runner)
    assert not made.was_asked and made.dialogue.calls == []


def test_a_question_may_be_several_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    block = '"""'
    typed = [
        "one \\",
        " two\\",
        "three ",
        "",
        f" {block} ",
        "a",
        "",
        f"b{block}",
        block,
        "\\",
        "last\\",
        block,
        " open ",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(typed)))
    # a line that ends in a backslash takes the next one, whatever it is; a block that is not closed ends with the input
    assert list(chat.questions(None)) == ["one \n two\nthree", f"a\n\nb{block}", f"last\n{block}", "open"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{block}\nx\n y \n"))
    assert list(chat.questions(None)) == ["x\n y"]
    monkeypatch.setattr("sys.stdin", io.StringIO("end\\"))
    assert list(chat.questions(None)) == ["end"]
