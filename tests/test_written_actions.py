"""Actions and final answers that models write as text: of several lines, with quotes, brackets, names and labels."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.loop.approval import Approval
from firsthand.message import Message, Text, ToolCall
from firsthand.model import Sampling
from firsthand.patterns.code_act import code_act, parse_code
from firsthand.patterns.parts.actions import Action, arguments_of, parse_action, read_action, settled_answer, unquoted
from firsthand.patterns.parts.fenced_code import CodeBlock, first_action
from firsthand.patterns.react import react
from firsthand.patterns.toolformer import toolformer
from firsthand.providers.cassette import Cassette, CassetteMiss, open_model, prompt_text, recorded
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.tools.calculator import calculator
from firsthand.trace import Trace

NUMBER = Task("n", "How many?", hint="a number")
VERBATIM = Task("v", "Write.", verbatim=True)
FREE = Task("f", "Who?")


@tool(effect="irreversible")
def change(statement: str) -> str:
    """Changes the database.

    Args:
        statement: The SQL.
    """
    return "changed"


@tool(effect="read")
def listing(folder: str = "/") -> str:
    """Lists a folder.

    Args:
        folder: The folder.
    """
    return folder


@tool(effect="external")
def send(to: str, text: str = "") -> str:
    """Sends a mail.

    Args:
        to: The address.
        text: The text.
    """
    return "sent"


@tool(effect="read")
def python(code: str) -> str:
    """Runs Python.

    Args:
        code: The code.
    """
    return "ran"


@tool(effect="read")
def clock() -> str:
    """Tells the time."""
    return "noon"


def attempt(pattern: Any, task: Task, *replies: str | Message, tools: tuple[Tool, ...] = (), **options: Any) -> Trace:
    agent = Agent(
        "a", Scripted(replies), pattern, options, tools=tools, approval=Approval({"irreversible": "allow"})
    )  # fmt: skip
    return asyncio.run(rollout(agent, task, seed=0))


def calls(trace: Trace) -> list[Any]:
    return [call.detail["arguments"] for call in trace.calls if call.kind == "tool"]


def observed(trace: Trace) -> str:
    return [node.message.text for node in trace.nodes if node.message.text.startswith("Observation")][-1]


@pytest.mark.parametrize("pattern", [react, code_act])
@pytest.mark.parametrize(
    ("task", "said", "answer"),
    [
        (NUMBER, "Final Answer:\n42", "42"),
        (NUMBER, "**Final Answer:**\n\n42", "42"),
        (NUMBER, "**Final Answer: 42**", "42"),
        (NUMBER, "### Final Answer: 42", "42"),
        (NUMBER, "Final Answer: \n\n$$\\boxed{42}$$", "42"),
        (NUMBER, "Final Answer: 42\nThat is 6 * 7.", "42"),
        (NUMBER, "Final Answer: So:\nit is 42", "42"),
        (NUMBER, "Final Answer: $\\boxed{42}$\n\nExplanation: 6 * 7 and 2 more.", "42"),
        (NUMBER, "Final Answer: There are 6 boxes of 7.\n\\boxed{42}", "42"),
        (NUMBER, "Final Answer: 1. Six\n2. Seven\nThe answer is 42.", "42"),
        (NUMBER, "Final Answer: 42\nThe answer is a product.", "42"),
        (FREE, "Final Answer: Ana\nThought: I am done.", "Ana"),
        (FREE, "Final Answer: Ana\n\nQuestion: Who else?\nFinal Answer: Bo", "Ana"),
        (FREE, "Final Answer: Ana\nFinal Answer: Bo", "Ana"),
        (FREE, "Final Answer: Ana\nand Bo", "Ana\nand Bo"),
        (VERBATIM, "Final Answer: Roses are red,\n\nviolets are blue.", "Roses are red,\n\nviolets are blue."),
        (VERBATIM, "Final Answer: Ask:\nQuestion: why?", "Ask:\nQuestion: why?"),
        (VERBATIM, "Final Answer:\n```python\ndef f():\n    return 1\n```", "```python\ndef f():\n    return 1\n```"),
        (VERBATIM, "Final Answer: 5\n6", "5\n6"),
    ],
)
def test_a_final_answer_may_have_several_lines(pattern: Any, task: Task, said: str, answer: str) -> None:
    assert attempt(pattern, task, said, tools=(python,)).answer == answer
    late = attempt(pattern, task, "hm", said, tools=(python,), max_steps=1)
    assert late.answer == answer, "also the one that is asked for when no steps are left"


@pytest.mark.parametrize("pattern", [react, code_act])
def test_an_empty_final_answer_is_told_and_no_answer(pattern: Any) -> None:
    trace = attempt(pattern, NUMBER, "Final Answer:", "Final Answer: 3", tools=(python,))
    assert trace.answer == "3" and "Final Answer: and the answer" in observed(trace)
    assert "There is no tool" not in observed(trace)


def test_a_choice_is_read_from_the_first_line_of_a_final_answer_and_a_last_line_from_the_last() -> None:
    choice = Task("c", "Which?", choices=("rock", "wool"))
    assert settled_answer("B\nfor A is hard", choice) == "B"
    assert settled_answer("B\nThe answer is not A.\nA", choice) == "B"
    assert settled_answer("1\n2", Task("l", "?", hint="a number", last_line=True)) == "2"
    assert settled_answer("5\n6", Task("v", "?", hint="a number", verbatim=True)) == "5\n6"


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("change[DELETE FROM t\nWHERE id = 2]", "DELETE FROM t\nWHERE id = 2"),
        ("change[a[0]\nb]\nThis deletes [one] row.", "a[0]\nb"),
        ("change(f(1)\n+ 2)", "f(1)\n+ 2"),
        ("change[print(']')\nx]", "print(']')\nx"),
        ("change[the ] key]", "the ] key"),
        ("change[it's [a] b's]", "it's [a] b's"),
        ("change[it's a]", "it's a"),
        ("change[ls *].", "ls *"),
        ("change: rm -r build/*", "rm -r build/*"),
        ("change (2+3)*4", "(2+3)*4"),
        ("change (2+3)", "2+3"),
        ("change (a) or (b)", "(a) or (b)"),
        ("`change[a]`", "a"),
        ("`change` [a]", "a"),
        ("change {\"a\": 1,\n\"b\": 2}", '{"a": 1,\n"b": 2}'),
        ("change\nAction Input: Ana", "Ana"),
        ("change\nAction Input: SELECT 1\nFROM t\nObservation: 1", "SELECT 1\nFROM t"),
        ("change[a]\nAction Input: a", "a"),
        ("change\nActionInput: a", "a"),
        ("change\n**Action Input:** a", "a"),
        ("change[a]\nThought: next\nAction: change[b]", "a"),
        ('"change[a]"', "a"),
        ("change\n```sql\na\nb\n```", "```sql\na\nb\n```"),
        ("change: ```\na\n```", "```\na\n```"),
        ("change(a) b)", "a) b"),
        ("change[ a ]", "a"),
        ("change[say \"it's ]\"\nx]", "say \"it's ]\"\nx"),
    ],
)  # fmt: skip
def test_the_whole_input_of_an_action_is_read(said: str, read: str) -> None:
    assert read_action(f"Thought: so.\nAction: {said}") == Action("change", read)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("Thought 1: I search.\nAction 1: Search[Milhouse]\nObservation 1: A boy.", ("Search", "Milhouse")),
        ("Thought 3: So.\nAction 3: Finish[Richard Nixon]", ("Finish", "Richard Nixon")),
        ("> think: I look.\n> Action: go to fridge 1", ("go", "to fridge 1")),
        ("> think: I look for a pan.", ("", "")),
        ("Action: Final Answer: Ana", ("Final Answer", "Ana")),
        ("Action: final answer\nAction Input: Ana", ("final answer", "Ana")),
        ("Action: Final answers: Ana", ("Final", "answers: Ana")),
        ("Action: Finish\nFinal Answer: Ana", ("final answer", "Ana")),
        ("Action: Finish[Bo]\nFinal Answer: Ana", ("Finish", "Bo")),
        ("Action: search\nFinal Answer: Ana", ("search", "")),
        ("Action: Finish\nThought: no.\nFinal Answer: Ana", ("Finish", "")),
    ],
)
def test_published_forms_of_an_action_and_of_the_last_are_read(said: str, read: tuple[str, str]) -> None:
    assert parse_action(said) == read


def test_a_fence_around_a_whole_input_is_left_out() -> None:
    body = '{"to": "a", "text": "b"}'
    trace = attempt(react, FREE, f"Action: send\nAction Input: ```json\n{body}\n```", "Final Answer: x", tools=(send,))
    assert calls(trace) == [{"to": "a", "text": "b"}]
    coded = attempt(react, FREE, "Action: python\n```py\na\nb\n```", "Final Answer: x", tools=(python,))
    assert calls(coded) == [{"code": "a\nb"}]
    for whole in ("```\na\n```\nb\n```\nc\n```", "```\na\n``` b", "```\na\n```\nb`", "```\na`", "x\n```\na\n```"):
        assert arguments_of(python, whole) == {"code": whole}


def test_bold_around_an_action_is_left_out_and_stars_of_its_input_are_not() -> None:
    assert parse_action("**Action: change: a**") == ("change", "a")
    assert parse_action("**Action:** change: 2**") == ("change", "2**")
    assert parse_action("Action: change: `a` and `b`") == ("change", "`a` and `b`")
    assert parse_action("Action: `change`: echo `date`") == ("change", "echo `date`")


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("change[DELETE FROM t", "no closing ]"),
        ("change[the ] key] x", "followed by more text"),
        ("change [DELETE FROM t", "no closing ]"),
        ("change[DELETE FROM t\nAction: change[x]", "no closing ]"),
        ("change: DELETE FROM t\nWHERE id = 2", "several lines"),
        ("change DELETE FROM t\nWHERE id = 2", "several lines"),
        ("change (DELETE) FROM t\nWHERE id = 2", "several lines"),
        ("change[DELETE FROM t] WHERE id = 2", "followed by more text"),
        ("change(2+3)*4", "followed by more text"),
        ("change[in a]\nrm b]", "followed by more text"),
        ("change[a]\nAction Input: b", "write it once"),
    ],
)
def test_an_input_that_may_be_half_is_told_and_no_call_is_made(said: str, fault: str) -> None:
    trace = attempt(react, FREE, f"Action: {said}", "Final Answer: done", tools=(change,))
    told = observed(trace)
    assert calls(trace) == [] and "Nothing was done" in told and "as in change[statement]" in told
    assert fault in told


def test_words_after_a_tool_without_arguments_or_in_finish_are_no_fault() -> None:
    trace = attempt(react, FREE, "Action: clock\nI wait.\nI see.", "Action: Finish[Ana] as she said", tools=(clock,))
    assert calls(trace) == [{}] and trace.answer == "Ana"
    assert attempt(react, FREE, "Action: finish (a) or b").answer == "(a) or b"
    assert attempt(react, VERBATIM, "Action: Finish: a\nb").answer == "a\nb"


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("'Ann'", "Ann"), ('"a"', "a"), ("`a`", "a"), ("name = 'Ann'", "name = 'Ann'"), ("note = ''", "note = ''"),
        ('"Ana" born', '"Ana" born'), ("'a' or 'b'", "'a' or 'b'"), ("'", "'"), ("''", ""), ("'a\"", "'a\""), ("", ""),
        ("xax", "xax"),
    ],
)  # fmt: skip
def test_quotes_are_left_out_as_a_pair_around_the_whole_alone(text: str, bare: str) -> None:
    assert unquoted(text) == bare
    if text:
        assert arguments_of(change, text) == {"statement": bare}
        assert arguments_of(change, f"statement = {text}") == {"statement": bare}


def test_the_only_argument_is_taken_as_it_is_written() -> None:
    assert arguments_of(change, r"statement = 'a\n'") == {"statement": r"a\n"}


def test_toolformer_keeps_the_quotes_of_an_input() -> None:
    said = [" [change(name = 'Ann')", " done"]
    assert calls(attempt(toolformer, FREE, *said, tools=(change,))) == [{"statement": "name = 'Ann'"}]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ('to="a@b", text="hello"', {"to": "a@b", "text": "hello"}),
        ("text='x, to=y', to='a'", {"to": "a", "text": "x, to=y"}),
        ('"a@b", "hello"', {"to": "a@b", "text": "hello"}),
        ('to="a, text=b"', {"to": "a, text=b"}),
        ("to=Bob", {"to": "Bob"}),
        ("to=5", {"to": "5"}),
        ('"a@b"', {"to": "a@b"}),
        ('text="hello"', {"text": "hello"}),
        ("to == x", {"to": "to == x"}),
        ('"Ana" and Bo', {"to": '"Ana" and Bo'}),
        ("to: Bob", {"to": "to: Bob"}),
        ("to='it\\'s'", {"to": "it's"}),
        ("text=5", {"text": 5}),
        ("Dear to: a, text: b", {"to": "Dear to: a, text: b"}),
        ("to: a, to: b", {"to": "to: a, to: b"}),
    ],
)
def test_arguments_may_be_named_as_in_python(given: str, read: dict[str, str]) -> None:
    assert arguments_of(send, given) == read


@pytest.mark.parametrize(
    "given",
    [
        "to: a@b, text: hello",
        "to: a@b\ntext : hello",
        "to = Dear Bob, text = hi",
        "text = hi",
        'to="a", to="b"',
        'to="a", text=open("x")',
    ],
)
def test_named_arguments_that_cannot_be_told_apart_are_refused(given: str) -> None:
    assert "names its arguments in no known form" in arguments_of(send, given)


def test_an_empty_input_is_told_where_one_is_needed_and_left_out_where_not() -> None:
    assert "is empty: write change[statement]" in arguments_of(change, "")
    assert "is empty" in arguments_of(change, " \n") and arguments_of(change, '""') == {"statement": ""}
    assert arguments_of(listing, "") == {} and arguments_of(listing, "/a") == {"folder": "/a"}


@pytest.mark.parametrize(
    "word", ["python3", "Python", "py3", "ipython", "ipython3", 'python title="a"', "python {cell}"]
)
@pytest.mark.parametrize("fence", ["```", "````", "~~~"])
def test_code_act_runs_python_of_each_name_and_fence(word: str, fence: str) -> None:
    text = f"Thought: so.\n{fence}{word}\nprint(1)\n{fence}\n"
    assert first_action(text) == CodeBlock("python", "print(1)", 13, True) and parse_code(text) == ("print(1)", None)


def test_code_act_reads_the_end_of_code_that_smolagents_writes() -> None:
    text = "Thought: so.\nCode:\n```py\nprint(1)\n```<end_code>\nMore:\n```py\nprint(2)\n```<end_code>"
    assert parse_code(text) == ("print(1)", None) and parse_code("```py\nx\n```<end>\ny") == ("", None)


def test_code_between_tags_is_found_beside_fences_in_whichever_order() -> None:
    tagged = "<execute>\na = '''\n```\n'''\n</execute>"
    assert parse_code(f"{tagged}\n```python\nb\n```") == ("a = '''\n```\n'''", None)
    assert parse_code(f"```python\nb\n```\n{tagged}") == ("b", None)
    assert parse_code(f"```xml\n<execute>\nx\n</execute>\n```\n{tagged}") == ("a = '''\n```\n'''", None)
    assert parse_code("```xml\n<execute>\nx\n</execute>\n```") == ("", None)
    assert parse_code("~~~python\ns = '''\n```\n'''\n~~~") == ("s = '''\n```\n'''", None)
    assert parse_code("<execute>a") == ("", None)


def test_a_cassette_of_ones_own_attempt_replays_native_tool_calls(tmp_path: Any) -> None:
    call = Message("assistant", (Text("I look."), ToolCall("id-7", "calculator", {"expression": "6*7"})))
    broken = Message("assistant", (ToolCall("id-8", "calculator", {}, "{6*"),))
    task = Task("x", "What is 6*7?", hint="a number")
    live = attempt(react, task, call, broken, "The answer is 42", tools=(calculator,), native=True)
    found = recorded([live])
    file = tmp_path / "run.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": prompt, "replies": replies}) for prompt, replies in found.items()))
    for model in (Cassette(found), open_model(str(file))):
        agent = Agent("a", model, react, {"native": True}, tools=(calculator,))
        played = asyncio.run(rollout(agent, task, seed=0))
        assert played.answer == live.answer == "42" and model.unplayed == 0
        assert [node.message.parts for node in played.nodes] == [node.message.parts for node in live.nodes]


def test_prompts_that_differ_in_a_call_alone_are_two_requests() -> None:
    def asked(*parts: Any) -> list[Message]:
        return [Message("user", (Text("q"),)), Message("assistant", parts)]

    one, other = asked(Text("so"), ToolCall("1", "f", {"x": 1})), asked(Text("so"), ToolCall("1", "f", {"x": 2}))
    assert prompt_text(one) == '[user]\nq\n[assistant]\nso\n[call] f {"x":1}'
    assert prompt_text(asked(ToolCall("1", "f", {}, "{bad"))) == "[user]\nq\n[assistant]\n[call] f {bad"
    assert prompt_text(one) == prompt_text(asked(Text("so"), ToolCall("2", "f", {"x": 1}))), "ids are a model's own"
    with pytest.raises(CassetteMiss):
        asyncio.run(Cassette({prompt_text(one): ["a"]}).complete(other, Sampling()))


def test_a_cassette_streams_a_call_and_says_how_the_reply_ended() -> None:
    reply = {"text": "so", "tool_calls": [{"id": "1", "name": "f", "arguments": {"x": "é"}}]}

    async def streamed() -> list[Any]:
        return [delta async for delta in Cassette({"q": [reply]}).stream("q", Sampling())]

    text, call, last = asyncio.run(streamed())
    assert text.text == "so" and text.completion is None and last.completion.finish_reason == "tool_calls"
    assert (call.call.id, call.call.name, call.call.arguments) == ("1", "f", '{"x": "é"}')
    assert last.completion.usage.completion_tokens == 4


def test_a_cassette_streams_several_calls_broken_ones_too_and_a_text_that_is_the_last_piece() -> None:
    calls = [
        {"id": "1", "name": "f", "arguments": {}, "invalid": None},
        {"id": "2", "name": "g", "arguments": {}, "invalid": "{bad"},
    ]
    tape = Cassette({"q": [{"text": "", "tool_calls": calls}, "that is all"]})

    async def streamed() -> list[Any]:
        return [delta async for delta in tape.stream("q", Sampling())]

    _, *pieces, last = asyncio.run(streamed())
    assert [(each.call.index, each.call.id, each.call.arguments) for each in pieces] == [
        (0, "1", "{}"),
        (1, "2", "{}"),
    ]
    # clients join the pieces to an object; the whole answer has the broken text
    assert last.call is None and [each.invalid for each in last.completion.message.tool_calls] == [None, "{bad"]
    (only,) = asyncio.run(streamed())
    assert only.text == only.completion.message.text == "that is all" and only.completion.finish_reason == "stop"


def test_a_cassette_may_say_that_a_call_is_not_broken(tmp_path: Any) -> None:
    call = vars(ToolCall("1", "f", {"x": 1}))
    assert call["invalid"] is None
    (tmp_path / "c.jsonl").write_text(json.dumps({"prompt": "q", "replies": [{"text": "", "tool_calls": [call]}]}))
    (completion,) = asyncio.run(open_model(str(tmp_path / "c.jsonl")).complete("q", Sampling()))
    assert completion.message.tool_calls == (ToolCall("1", "f", {"x": 1}),)


@pytest.mark.parametrize(
    "reply",
    [
        '{"text": "a"}', '{"text": "a", "tool_calls": []}',
        '{"text": 1, "tool_calls": [{"id": "1", "name": "f", "arguments": {}}]}',
        '{"text": "", "tool_calls": [{"name": "f", "arguments": {}}]}',
        '{"text": "", "tool_calls": [{"id": 1, "name": "f", "arguments": {}}]}',
        '{"text": "", "tool_calls": [{"id": "1", "name": 1, "arguments": {}}]}',
        '{"text": "", "tool_calls": [{"id": "1", "name": "f", "arguments": []}]}',
        '{"text": "", "tool_calls": [{"id": "1", "name": "f", "arguments": {}, "invalid": 1}]}',
        '{"text": "", "tool_calls": [{"id": "1", "name": "f", "arguments": {}}, 1]}',
    ],
)  # fmt: skip
def test_a_cassette_refuses_replies_that_are_neither_texts_nor_calls(reply: str, tmp_path: Any) -> None:
    (tmp_path / "bad.jsonl").write_text(f'{{"prompt": "q", "replies": [{reply}]}}')
    with pytest.raises(ConfigError, match="or for a reply with tool calls"):
        open_model(str(tmp_path / "bad.jsonl"))
