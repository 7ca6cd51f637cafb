"""`firsthand chat`: answers come as they are written, branches cost nothing, and what was said is on record."""

from __future__ import annotations

import asyncio
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.commands.chat import MAX_INPUT, Config, facts
from firsthand.errors import ConfigError, GuardBlocked, LimitExceeded, ModelError, UnknownName
from firsthand.guard import AttemptView, GuardVerdict
from firsthand.loop.approval import Approval
from firsthand.loop.budget import Limits
from firsthand.loop.listener import Piece, Step
from firsthand.message import Message, ToolCall, assistant
from firsthand.model import Delta, Prompt, Sampling, ToolSpec, Usage
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.runs.dialogue import Dialogue
from firsthand.runs.run_names import find_run, run_ids
from firsthand.show.trace_tree import plain_lines, trace_lines
from firsthand.tool import tool
from firsthand.trace import Call, Trace


@tool(effect="read")
def double(n: int) -> int:
    """Double a number."""
    return 2 * n


@tool(effect="irreversible")
def erase(path: str) -> str:
    """Erase a file."""
    raise AssertionError("nobody approved it")


def talk(model: Any, *questions: str, **agent: Any) -> Dialogue:
    dialogue = Dialogue(Agent("chat", model, reply, **agent))

    async def main() -> None:
        for question in questions:
            await dialogue.ask(question)

    asyncio.run(main())
    return dialogue


def said(dialogue: Dialogue) -> list[str]:
    return [message.text for message in dialogue.context.messages]


class Slow(Scripted):
    """A scripted model that hangs after `words` pieces of its answer."""

    words = 2

    async def stream(
        self, prompt: Prompt, sampling: Sampling, *, tools: Sequence[ToolSpec] = ()
    ) -> AsyncIterator[Delta]:
        count = 0
        async for delta in super().stream(prompt, sampling, tools=tools):
            if count == self.words:
                await asyncio.sleep(60)
            yield delta
            count += 1


def broken_off(dialogue: Dialogue, question: str) -> None:
    """Ask, and stop the answer when it hangs."""

    async def main() -> None:
        asking = asyncio.create_task(dialogue.ask(question))
        for _ in range(20):
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(main())


# -- the conversation --


def test_each_answer_sees_what_was_said_before() -> None:
    model = Scripted(["one", "two"])
    dialogue = talk(model, "a", "b", system="Be brief.")
    assert said(dialogue) == ["Be brief.", "a", "one", "b", "two"]
    assert [message.text for message in model.asked[1].prompt] == ["Be brief.", "a", "one", "b"]  # type: ignore[union-attr]


def test_a_branch_shares_what_came_before_and_leaves_the_other_alone() -> None:
    dialogue = talk(Scripted(["one", "two", "three"]), "a")
    nodes = len(dialogue.trace().nodes)
    dialogue.fork("idea")
    assert len(dialogue.trace().nodes) == nodes  # nothing was copied
    asyncio.run(dialogue.ask("b"))
    dialogue.switch("main")
    asyncio.run(dialogue.ask("c"))
    assert said(dialogue) == ["a", "one", "c", "three"]
    dialogue.switch("idea")
    assert said(dialogue) == ["a", "one", "b", "two"]
    assert dialogue.trace().nodes[2].parent == dialogue.trace().nodes[4].parent == 1


def test_a_name_that_is_taken_or_unknown_is_one_sentence() -> None:
    dialogue = talk(Scripted([]))
    with pytest.raises(ConfigError, match="there is a branch 'main' already"):
        dialogue.fork("main")
    with pytest.raises(UnknownName, match="no branch 'mian'; did you mean 'main'"):
        dialogue.switch("mian")
    dialogue.fork(dialogue.free_name())
    dialogue.fork(dialogue.free_name())
    assert list(dialogue.branches) == ["main", "branch-2", "branch-3"]


def test_undo_takes_back_the_question_with_all_that_followed_it() -> None:
    call = assistant("", ToolCall("call_0", "double", {"n": 4}))
    dialogue = talk(Scripted(["one", call, "8"]), "a", "what is twice 4?", tools=(double,))
    assert said(dialogue)[-2:] == ["8", "8"]
    assert dialogue.undo() == "what is twice 4?"
    assert said(dialogue) == ["a", "one"]
    assert dialogue.undo() == "a"
    assert said(dialogue) == [] and dialogue.undo() is None


def test_equal_questions_get_answers_of_their_own() -> None:
    dialogue = talk(Scripted(["one", "two"]), "a")
    dialogue.undo()
    asyncio.run(dialogue.ask("a"))
    assert said(dialogue) == ["a", "two"]


# -- tools, approvals, budgets: the Context's own --


def test_tools_run_until_the_model_answers_in_words() -> None:
    calls = assistant("Let me see.", ToolCall("call_0", "double", {"n": 4}), ToolCall("call_1", "duble", {"n": 5}))
    dialogue = talk(Scripted([calls, "It is 8."]), "twice 4?", tools=(double,))
    assert said(dialogue)[2:4] == ["8", "Error: no tool 'duble'; did you mean 'double'? there are double"]
    assert dialogue.context.text == "It is 8."


def test_a_model_that_calls_for_ever_is_asked_for_words_in_the_end() -> None:
    model = Scripted(lambda messages, sampling, index: assistant("", ToolCall("c", "double", {"n": len(messages)})))
    dialogue = Dialogue(Agent("chat", model, reply, tools=(double,)))
    asyncio.run(dialogue.ask("go", max_steps=2))
    assert [bool(asked.tools) for asked in model.asked] == [True, True, False]


def test_a_call_that_nobody_can_approve_is_refused_and_the_model_is_told() -> None:
    call = assistant("", ToolCall("call_0", "erase", {"path": "x"}))
    dialogue = talk(Scripted([call, "I may not."]), "erase x", tools=(erase,), approval=Approval())
    assert "erase needs approval (irreversible), and there is no terminal to ask at" in said(dialogue)[2]


def test_a_used_up_budget_or_a_failing_model_leaves_the_conversation_as_it_was() -> None:
    dialogue = talk(Scripted(["one", "two"]), "a", limits=Limits(calls=1))
    with pytest.raises(LimitExceeded):
        asyncio.run(dialogue.ask("b"))
    assert said(dialogue) == ["a", "one"]
    failing = Dialogue(Agent("chat", Scripted(error=ModelError("it is down")), reply))
    with pytest.raises(ModelError, match="it is down"):
        asyncio.run(failing.ask("a"))
    assert said(failing) == []


# -- broken off --


def test_an_answer_that_is_stopped_stays_as_far_as_it_had_come() -> None:
    dialogue = Dialogue(Agent("chat", Slow(["one two three", "four"]), reply), listener=lambda step: None)
    broken_off(dialogue, "a")
    assert said(dialogue) == ["a", "one two "]
    assert dialogue.context.last.role == "assistant"


def test_a_question_that_had_no_answer_yet_is_taken_back() -> None:
    model = Slow(["one two three"])
    model.words = 0
    dialogue = Dialogue(Agent("chat", model, reply))
    broken_off(dialogue, "a")
    assert said(dialogue) == []


def test_a_call_that_is_stopped_has_a_result_that_says_so() -> None:
    @tool(effect="read")
    async def wait() -> str:
        """Wait."""
        await asyncio.sleep(60)
        return "late"

    dialogue = Dialogue(Agent("chat", Scripted([assistant("", ToolCall("c", "wait", {})), "on"]), reply, tools=(wait,)))
    broken_off(dialogue, "a")
    assert said(dialogue)[-1] == "Error: it was broken off by the person"
    asyncio.run(dialogue.ask("b"))
    assert said(dialogue)[-2:] == ["b", "on"]


# -- on record --


def test_a_conversation_is_a_trace_that_show_draws_and_that_goes_on_when_it_is_loaded() -> None:
    agent = Agent("chat", Scripted(["one", "two", "three"], fingerprint="f"), reply, system="Be brief.")
    dialogue = Dialogue(agent)
    asyncio.run(dialogue.ask("a"))
    dialogue.fork("idea")
    asyncio.run(dialogue.ask("b"))
    dialogue.switch("main")
    trace = Trace.from_json(json.loads(json.dumps(dialogue.trace().to_json())))
    assert trace.answer == "one" and trace.usage.completion_tokens == 2
    assert any("idea open" in line for line in plain_lines(trace_lines(trace)))
    again = Dialogue(agent, origin=trace, run="r")
    assert again.current == "main" and said(again) == ["Be brief.", "a", "one"]
    asyncio.run(again.ask("c"))
    again.switch("idea")
    assert said(again) == ["Be brief.", "a", "one", "b", "two"]
    assert again.trace().origin is not None and again.trace().origin.trace == trace.id  # type: ignore[union-attr]


@pytest.mark.parametrize("kept", [None, {}, {"branches": {"x": 99}}, {"branches": [1]}, {"branches": {"x": "y"}}])
def test_a_trace_without_branches_that_fit_is_loaded_at_its_last_message(kept: Any) -> None:
    from dataclasses import replace

    trace = replace(talk(Scripted(["one"]), "a").trace(), final_state=kept or {})
    assert said(Dialogue(Agent("chat", Scripted([]), reply), origin=trace)) == ["a", "one"]


def test_tokens_of_another_model_are_not_taken_along() -> None:
    from dataclasses import replace

    from firsthand.message import Sampled
    from firsthand.trace import Node

    trace = talk(Scripted(["one"], fingerprint="f"), "a").trace()
    sampled = replace(trace.nodes[1].message, sampled=Sampled((1,), (0.0,)))
    trace = replace(trace, nodes=(trace.nodes[0], Node(0, sampled)))
    kept: dict[str, Message] = {}
    for fingerprint in ("f", "g"):
        agent = Agent("chat", Scripted([], fingerprint=fingerprint), reply)
        kept[fingerprint] = Dialogue(agent, origin=trace).context.last
    assert kept["f"].sampled is not None and kept["g"].sampled is None


def test_pieces_and_calls_are_told_while_they_come() -> None:
    told: list[Step] = []
    dialogue = Dialogue(Agent("chat", Scripted(["one two"]), reply), listener=told.append)
    asyncio.run(dialogue.ask("a"))
    assert [step.text for step in told if type(step).__name__ == "Piece"] == ["one ", "two"]


# -- the command --


def chat(tmp_path: Path, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"FIRSTHAND_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "firsthand", "chat", *words]
    return subprocess.run(command, input=text, capture_output=True, text=True, env=environment, timeout=60)


@pytest.mark.slow
def test_a_pipe_gives_a_question_a_line_and_gets_plain_answers(tmp_path: Path) -> None:
    lines = ["hello\x1b[31m", "", "/fork idea", "two \\", "lines", '"""', "a", "", "b", '"""', "/undo", "//slash"]
    lines += ["/branches", "/nope", "/save trip", "/usage"]
    done = chat(tmp_path, "\n".join(lines), "scripted:echo")
    out = done.stdout.splitlines()
    assert out[:7] == ["hello\\x1b[31m", "two ", "lines", "a", "", "b", "/slash"]
    assert out[7:9] == ["  main: 2 messages, the last: hello\\x1b[31m", "* idea: 6 messages, the last: /slash"]
    assert done.stderr == "firsthand: no command '/nope'; did you mean '/undo'? `/help` shows all\n"
    assert done.returncode == 1  # a script is told that a line of it failed
    show = out[9].removeprefix("saved: firsthand show ").split()
    assert "trip" in show[0]
    assert out[10].startswith("4 calls, ")
    loaded = chat(tmp_path, "/branches\n/switch main\nmore\n", "scripted:echo", "--load", show[0])
    assert loaded.stdout.splitlines()[1].startswith("* idea: 6 messages") and loaded.stdout.endswith("more\n")
    assert loaded.returncode == 0 and loaded.stderr == ""


@pytest.mark.slow
def test_at_a_terminal_it_prompts_streams_and_leaves_with_ctrl_d(tmp_path: Path) -> None:
    import pty

    pid, screen = pty.fork()
    if pid == 0:
        os.environ["FIRSTHAND_HOME"] = str(tmp_path)
        os.environ["TERM"] = "dumb"
        os.execv(sys.executable, [sys.executable, "-m", "firsthand", "chat", "scripted:echo"])
    seen = ""

    def until(mark: str, seconds: float = 60) -> bool:
        nonlocal seen
        start, deadline = len(seen), time.monotonic() + seconds
        while mark not in seen[start:] and time.monotonic() < deadline:
            if select.select([screen], [], [], 0.2)[0]:
                try:
                    piece = os.read(screen, 4096)
                except OSError:  # the other side has gone
                    piece = b""
                if not piece:
                    break
                seen += piece.decode("utf-8", "replace")
        assert mark in seen[start:] or seconds < 60, seen
        return mark in seen[start:]

    until("> ")
    os.write(screen, b"hello there\n")
    until("cached")
    assert "hello there\r\nhello there\r\n2 tokens" in seen.replace("\x1b[?2004h", "").replace("\x1b[?2004l\r", "")
    os.write(screen, b"/fork idea\n")
    until("(idea) > ")
    os.write(screen, b"half a line")
    until("half a line")
    for _ in range(30):  # Ctrl-C begins the line again; before the prompt is really read from, it may be missed
        os.write(screen, b"\x03")
        if until("(idea) > ", 2):
            break
    else:
        raise AssertionError(seen)
    os.write(screen, b"\x04")
    until("kept: `firsthand chat --continue` goes on")
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.slow
def test_a_conversation_is_kept_and_continued(tmp_path: Path) -> None:
    chat(tmp_path, "one\n", "scripted:echo")
    chat(tmp_path, "two\n", "scripted:echo")
    done = chat(tmp_path, "/undo\n/branches\nthree\n", "scripted:echo", "--continue", "--no-keep")
    assert done.stdout.splitlines() == ["* main: 0 messages", "three"] and done.stderr == ""
    again = chat(tmp_path, "/branches\n", "scripted:echo", "--continue")
    assert again.stdout.splitlines() == ["* main: 2 messages, the last: two"]
    assert len(run_ids(tmp_path)) == 2, "what said nothing new, or was not to be kept, is not kept"
    assert "conversation" in run_ids(tmp_path)[0]


@pytest.mark.slow
def test_last_is_the_last_run_and_no_conversation_that_was_kept_unasked(tmp_path: Path) -> None:
    chat(tmp_path, "one\n", "scripted:echo", "--save", "trip")
    chat(tmp_path, "two\n", "scripted:echo")
    assert find_run("last", tmp_path).name.endswith("trip" + find_run("last", tmp_path).name[-5:])
    shutil.rmtree(find_run("last", tmp_path))
    assert "conversation" in find_run("last", tmp_path).name


@pytest.mark.slow
def test_there_may_be_nothing_to_continue(tmp_path: Path) -> None:
    done = chat(tmp_path, "", "scripted:echo", "--continue")
    assert done.returncode == 2 and "there is no conversation" in done.stderr


@pytest.mark.slow
def test_what_is_piped_in_comes_before_the_question(tmp_path: Path) -> None:
    done = chat(tmp_path, "line one\nline two\n\n", "scripted:echo", "Summarise this.")
    assert done.stdout == "line one\nline two\n\nSummarise this.\n"
    assert chat(tmp_path, " \n", "scripted:echo", "Hello?").stdout == "Hello?\n"


@pytest.mark.slow
def test_piped_input_has_a_limit(tmp_path: Path) -> None:
    most = "x" * MAX_INPUT
    assert len(chat(tmp_path, most, "scripted:echo", "Q?").stdout) == MAX_INPUT + 5
    done = chat(tmp_path, most + "y", "scripted:echo", "Q?")
    assert done.returncode == 2 and "more than 4,000,000 characters" in done.stderr


@pytest.mark.slow
def test_a_pasted_block_is_one_question_and_long_lines_wrap_at_words(tmp_path: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    pid, screen = pty.fork()
    if pid == 0:
        # Readline has set COLUMNS in this process, where os.environ does not show it: so the child's are given whole.
        own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        own |= {"FIRSTHAND_HOME": str(tmp_path), "TERM": "xterm", "NO_COLOR": "1"}
        os.execve(sys.executable, [sys.executable, "-m", "firsthand", "chat", "scripted:echo"], own)
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    seen = b""

    def until(mark: bytes) -> None:
        nonlocal seen
        start, deadline = len(seen), time.monotonic() + 60
        while mark not in seen[start:] and time.monotonic() < deadline:
            if select.select([screen], [], [], 0.2)[0]:
                seen += os.read(screen, 4096)
        assert mark in seen[start:], seen

    def press(keys: bytes) -> None:
        deadline = time.monotonic() + 60
        while termios.tcgetattr(screen)[3] & termios.ICANON and time.monotonic() < deadline:
            time.sleep(0.01)  # what is typed before readline has the terminal may be lost
        os.write(screen, keys)

    until(b"> ")
    press(b"\x1b[200~the first line\n" + b"word " * 12 + b"end\x1b[201~")
    until(b"end")
    press(b"\r")
    until(b"cached")
    answer = seen.decode()[seen.decode().rindex("the first line") :]
    assert answer.splitlines()[:3] == ["the first line", " ".join(["word"] * 8), "word word word word end"]
    press(b"\x04")
    until(b"kept: ")
    assert os.waitpid(pid, 0)[1] == 0


# -- another model, a new beginning, a limit of time --


def test_another_model_goes_on_with_what_was_said_and_no_tokens_of_the_first() -> None:
    first, second = Scripted(["one"], name="scripted:a"), Scripted(["two", "three"], name="scripted:b")
    dialogue = talk(first, "a", system="Be brief.")
    dialogue.fork("idea")
    dialogue.use(replace(dialogue.agent, model=second))
    asyncio.run(dialogue.ask("b"))
    assert said(dialogue) == ["Be brief.", "a", "one", "b", "two"]
    assert all(message.sampled is None for message in second.asked[0].prompt)  # type: ignore[union-attr]
    dialogue.switch("main")
    asyncio.run(dialogue.ask("c"))
    assert said(dialogue)[-1] == "three" and len(first.asked) == 1
    trace = dialogue.trace()
    assert trace.agent["model"] == "scripted:b" and [e.data for e in trace.events if e.kind == "model"] == [
        {"name": "scripted:b"}
    ]
    assert len(trace.calls) == 3


def test_a_new_beginning_leaves_the_old_branch_and_keeps_the_system_message() -> None:
    dialogue = talk(Scripted(["one", "two"]), "a", system="Be brief.")
    dialogue.clear("new")
    assert said(dialogue) == ["Be brief."]
    asyncio.run(dialogue.ask("b"))
    assert said(dialogue) == ["Be brief.", "b", "two"]
    dialogue.switch("main")
    assert said(dialogue) == ["Be brief.", "a", "one"]


@pytest.mark.slow
def test_when_the_time_is_up_an_answer_stays_as_far_as_it_came_and_no_other_is_asked() -> None:
    dialogue = talk(Slow(["one two three four five"]), limits=Limits(seconds=0.5))
    with pytest.raises(LimitExceeded, match=r"the 0.5 seconds for answers were over"):
        asyncio.run(dialogue.ask("a"))
    assert said(dialogue) == ["a", "one two "]
    with pytest.raises(LimitExceeded, match=r"time budget exhausted: the 0.5 seconds"):
        asyncio.run(dialogue.ask("b"))
    assert said(dialogue) == ["a", "one two "]


@pytest.mark.slow
def test_a_question_on_the_command_line_is_answered_and_that_is_all(tmp_path: Path) -> None:
    done = chat(tmp_path, "", "scripted:echo", "What now?")
    assert (done.stdout, done.stderr, done.returncode) == ("What now?\n", "", 0)


def test_a_text_in_place_of_the_model_is_a_question(tmp_path: Path) -> None:
    asked = Config("And after that?", continue_=True)
    assert (asked.model, asked.question) == ("smollm2", "And after that?")
    assert Config("One: two?").question == "One: two?"
    for model in ("smollm2", "openai:my model@http://127.0.0.1:1/v1", str(tmp_path)):
        assert (Config(model).model, Config(model).question) == (model, None)
    (tmp_path / "a model.gguf").touch()
    assert Config(str(tmp_path / "a model.gguf")).question is None
    assert (Config("two words", "Why?").model, Config("two words", "Why?").question) == ("two words", "Why?")


@pytest.mark.slow
def test_retry_model_and_clear_through_a_pipe(tmp_path: Path) -> None:
    replies = tmp_path / "replies.json"
    replies.write_text('["first", "second"]')
    text = f"/model\n/model scripted:{replies}\nhello\n/retry\n/clear\n/branches\n/model nothing:here\n/retry\n"
    done = chat(tmp_path, text, "scripted:echo")
    out = done.stdout.splitlines()
    assert out[:3] == ["scripted:echo", "first", "second"]
    assert out[3:] == ["  main: 2 messages, the last: second", "* branch-2: 0 messages"]
    complaints = done.stderr.splitlines()
    assert len(complaints) == 2 and "no question to remove" in complaints[1]


class NoSecrets:
    """Replaces answers with SECRET in them, and blocks those with BOMB."""

    name = "no_secrets"

    def answer(self, view: AttemptView, answer: str) -> GuardVerdict:
        if "BOMB" in answer:
            return GuardVerdict.blocked("bomb", "it is dangerous")
        if "SECRET" in answer:
            return GuardVerdict.replaced("secret", answer.replace("SECRET", "***"))
        return GuardVerdict.passed("secret")


def test_an_answer_that_a_guard_watches_is_shown_once_it_has_passed() -> None:
    shown: list[str] = []

    def listen(step: Step) -> None:
        if isinstance(step, Piece):
            shown.append(step.text)

    agent = Agent("chat", Scripted(["a SECRET word", "fine", "a BOMB"]), reply, guard=NoSecrets())
    dialogue = Dialogue(agent, listener=listen)
    assert asyncio.run(dialogue.ask("one")) == "a *** word"
    assert asyncio.run(dialogue.ask("two")) == "fine"
    assert shown == ["a *** word", "fine"]
    assert said(dialogue) == ["one", "a *** word", "two", "fine"]
    assert dialogue.context.messages[1].sampled is None
    with pytest.raises(GuardBlocked, match="it is dangerous"):
        asyncio.run(dialogue.ask("three"))
    assert said(dialogue) == ["one", "a *** word", "two", "fine"]
    assert shown == ["a *** word", "fine"]
    assert [event.data["action"] for event in dialogue.trace().events if event.kind == "guard"] == ["replace", "block"]


def test_the_facts_of_an_answer_are_sums_over_its_calls() -> None:
    def made(kind: Any, seconds: float, *tokens: int) -> Call:
        return Call("c", kind, None, 0.0, seconds, "r", usage=Usage(*tokens))

    calls = [made("generate", 2.0, 10, 4, 6), made("tool", 9.0), made("generate", 1.0, 20, 8, 5)]
    assert facts(calls, 1.5) == "11 tokens, 6.0 tokens/s, first after 1.50 s; 30 prompt tokens, 12 cached"
    assert facts(calls, 3.5) == "11 tokens, 2.6 tokens/s, first after 0.00 s; 30 prompt tokens, 12 cached"
    assert facts(calls, 0.0).startswith("11 tokens, first after 3.00 s;")
    assert facts([made("generate", 1.0, 3, 0, 1)], 0.5) == "1 tokens, first after 0.50 s; 3 prompt tokens, 0 cached"
