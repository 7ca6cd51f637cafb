"""Function calls of patterns that run them: every call that was asked for counts, in whatever message or form."""

import asyncio

import pytest

from firsthand import Agent, Task
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.bfcl import OfferedFunctions
from firsthand.errors import ToolError
from firsthand.message import ToolCall, assistant
from firsthand.patterns.direct import direct
from firsthand.patterns.react import react
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.scorers.function_calls import MadeCall, function_calls, read_calls
from firsthand.tool import tool_from_function

PLAY = {
    "name": "play",
    "description": "Play.",
    "parameters": {
        "type": "object",
        "properties": {"artist": {"type": "string"}, "minutes": {"type": "integer"}},
        "required": ["artist"],
    },
}
ACCEPTED = [{"play": {"artist": ["Cher"], "minutes": [5, ""]}}]


def play(**arguments):
    return ToolCall("c", "play", arguments)


def scored(replies, kind="calls", pattern=react, tools=(), **options):
    task = Task("t", "Q", secret={"calls": {"kind": kind, "functions": [PLAY], "accepted": ACCEPTED}}, calls=True)
    setting = Benchmark("b", lambda seed: [task], (function_calls,), environment=lambda task: OfferedFunctions((PLAY,)))
    if pattern is react:
        options = {"native": True} | options
    trace = asyncio.run(rollout(Agent("a", Scripted(replies), pattern, options, tools), task, benchmark=setting))
    assert trace.error is None and trace.scores[0].failure is None, trace.error
    return trace.scores[0].value


@pytest.mark.parametrize(
    ("replies", "right"),
    [
        ([assistant("", play(artist="Cher")), "Done."], True),
        ([assistant("", play(artist="Cher", minutes=5)), "Done."], True),
        ([assistant("", play(artist="Cher", minutes="5")), "Done."], False),
        ([assistant("", play(artist="Abba")), "Done."], False),
        ([assistant("", play(artist="Abba")), assistant("", play(artist="Cher")), "Done."], False),
        ([assistant("", play(artist="Cher")), assistant("", play(artist="Cher")), "Done."], False),
        ([assistant("", play(artist="Cher"), play(artist="Abba")), "Done."], False),
        ([assistant("", ToolCall("c", "sing", {})), assistant("", play(artist="Cher")), "Done."], False),
        ([assistant("", ToolCall("c", "play", {}, "{artist")), assistant("", play(artist="Cher")), "Done."], False),
        ([assistant("", ToolCall("c", "play", {}, '```{"artist": "Cher"}```')), "Done."], False),
        (["Done."], False),
    ],
)
def test_the_calls_of_all_messages_are_compared_with_the_expected_ones(replies, right):
    assert scored(replies) == float(right)


def test_a_call_that_was_made_where_none_was_to_be_made_is_seen_in_any_message_and_in_text():
    called = assistant("", play(artist="Cher"))
    written = "Thought: I play.\nAction: play[Cher]"
    assert scored([called, "No function fits."], "none") == 0.0 == scored([called, "No function fits."], "none", direct)
    assert scored([written, "Final Answer: none fits"], "none", native=False) == 0.0
    assert scored(["No function fits."], "none") == 1.0 == scored(["No function fits."], "none", direct)
    assert scored([called, "Done."], "some") == 1.0 == scored([called], "some", direct)


def test_a_call_that_is_left_when_the_steps_run_out_counts_once():
    called = assistant("", play(artist="Cher"))
    assert scored([called, "Done."], max_steps=1) == 1.0
    assert scored([called, called], max_steps=1) == 0.0, "the second, which nobody ran, is one call too many"


@pytest.mark.parametrize("run", [0, 1, 2])
def test_a_call_of_the_last_message_counts_once_whether_it_was_run_or_not(run):
    async def some(task, ctx):
        ctx = await ctx.say(task.question).generate(tools=ctx.tools)
        await ctx.call_all(ctx.last.tool_calls[:run])
        return ctx.text

    called = play(artist="Cher")
    assert scored([assistant("", called)], pattern=some) == 1.0
    assert scored([assistant("", called, called)], pattern=some) == 0.0
    assert scored([assistant("", called, play(artist="Abba"))], pattern=some) == 0.0


def test_drafts_whose_calls_nobody_ran_do_not_count():
    async def twice(task, ctx):
        await ctx.say("draft").generate(tools=ctx.tools)
        ctx = await ctx.say(task.question).generate(tools=ctx.tools)
        return ctx.text

    assert scored([assistant("", play(artist="Abba")), assistant("", play(artist="Cher"))], pattern=twice) == 1.0
    assert scored([assistant("", play(artist="Cher")), assistant("", play(artist="Abba"))], pattern=twice) == 0.0


def test_tools_that_the_agent_brings_along_are_no_functions_of_the_task():
    async def look(text: str) -> str:
        """Look.

        Args:
            text: What for.
        """
        if text == "no":
            raise ToolError("nothing")
        return "seen"

    looked = assistant("", ToolCall("a", "look", {"text": "x"}), ToolCall("b", "look", {"text": "no"}))
    tools = (tool_from_function(look, effect="read"),)
    assert scored([looked, assistant("", play(artist="Cher")), "Done."], tools=tools) == 1.0
    assert scored([looked, "No function fits."], "none", tools=tools) == 1.0
    written = "Thought: I look.\nAction: look[x]"
    assert scored([written, "Final Answer: none fits"], "none", tools=tools, native=False) == 1.0


def test_a_dict_that_has_a_key_twice_is_no_argument_but_for_the_leaderboards_reader():
    for text in ('f(d={"k": 1, "k": 2})', 'f(d=[{"k": 1, k: 2}])', 'f(d={"a": {1: 0, True: 0}})', 'f(d={"k": 1, **x})'):
        assert read_calls(text, whole=True)[0] == [], text
    assert read_calls('f(d={"k": 1, "k": 2})')[0] == [MadeCall("f", {"d": {"k": 2}})], "as published"
    plain = 'f(d={"k": 1, "l": {"k": 2}}, e={"k": 1}, n={})'
    assert read_calls(plain, whole=True) == (
        [MadeCall("f", {"d": {"k": 1, "l": {"k": 2}}, "e": {"k": 1}, "n": {}})], "",
    )  # fmt: skip
