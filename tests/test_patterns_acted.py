"""Patterns that act by tools: every request with its settings and tools, every call, every note with its place."""

from dataclasses import replace

import pytest

from firsthand.errors import ConfigError
from firsthand.loop.concurrency import Retry
from firsthand.message import ToolCall, assistant
from firsthand.patterns.code_act import _observe as observed_code
from firsthand.patterns.code_act import code_act
from firsthand.patterns.parts.actions import Action
from firsthand.patterns.react import _observe, _opening, _worked, act, react
from firsthand.patterns.thought_action import OVER, step_grammar, thought_action
from firsthand.patterns.toolformer import _until_call, _with_result, toolformer
from firsthand.sampling import Sampling
from firsthand.tokens.calls.call_grammar import action_grammar
from firsthand.tool import tool
from opened_context import Considering, Opened, asks

ONCE = Retry(attempts=1, first_wait_s=0.0)


@tool(effect="read")
def look(place: str) -> str:
    """Look somewhere."""
    if place == "dark":
        raise ValueError("too dark")
    return f"seen {place}"


@tool(effect="read", name="Peer")
def peer(place: str) -> str:
    """Peer at a place."""
    return f"at {place}"


@tool(effect="read")
def add(a: int, b: int) -> str:
    """Add."""
    return str(a + b)


@tool(effect="read")
def python(code: str) -> str:
    """Run code."""
    return "" if code == "pass" else f"ran {code}"


def call(name, id="1", /, said="", **arguments):
    return assistant(said, ToolCall(id, name, arguments))


def told(kind, make):
    with pytest.raises(kind) as refused:
        make()
    return str(refused.value)


def calls_of(opened):
    return [(each.detail["name"], each.detail["arguments"]) for each in opened.attempt.calls if each.kind == "tool"]


# -- react --

EXAMPLE = [
    "Question: What is the capital of France?",
    "assistant: Thought: The capital of France is Paris.\nFinal Answer: Paris",
]


def lead(actions, wanted="in few words"):
    return (
        "user: Answer the question. Write a Thought line, then one Action line. After each Action you are given "
        "an Observation. "
        f"When you know the answer write Final Answer: and {wanted}.\nActions:\n{actions}\n\n"
    )


def test_react_acts_in_text_and_is_asked_once_more_when_its_steps_run_out():
    said = ["Thought: a\nAction: look[x]", "Thought: hm", "Final Answer: 7 of them"]
    task = asks(hint="a number")
    opened = Opened(said, tools=(look, add), sampling=Sampling(stop=("END",)))
    assert opened.run(lambda ctx: react(task, ctx, max_steps=2)) == "7"
    start = [
        lead('- add[{"a": "...", "b": "..."}]: Add.\n- look[place]: Look somewhere.', "a number") + EXAMPLE[0],
        EXAMPLE[1],
        "user: Question: Q?",
    ]  # fmt: skip
    known = "add[input], look[input]; or Final Answer: and the answer"
    after = [*start, f"assistant: {said[0]}", "user: Observation: seen x"]
    last = [
        *after,
        f"assistant: {said[1]}",
        f"user: Observation: There was no action. Write one line: Action: and one of {known}",
    ]
    stop = {"stop": ("END", "\nObservation")}
    assert opened.asked == [
        (start, stop), (after, stop),
        ([*last, "user: No steps are left. Write Final Answer: and a number."], {"stop": ("END",)}),
    ]  # fmt: skip
    assert calls_of(opened) == [("look", {"place": "x"})] and opened.notes() == [("max_steps", {"steps": 2})]
    done = Opened(["Action: finish[The answer is 8]"])
    assert done.run(lambda ctx: react(task, ctx, max_steps=1)) == "8" and len(done.asked) == 1
    words = Opened(["Thought: x", "Thought: y\nAction: look[z]"], tools=(look,))
    assert words.run(lambda ctx: react(asks(), ctx, max_steps=1)) == "Thought: y\nAction: look[z]"
    held = Opened(["Thought: t\nFinal Answer: 1"], tools=(look, add))
    assert held.run(lambda ctx: react(asks(), ctx, constrained=True)) == "1"
    assert held.asked[0][1] == {"stop": ("\nObservation",), "grammar": action_grammar([add.spec, look.spec])}


def test_react_by_native_calls():
    both = assistant("I look.", ToolCall("1", "look", {"place": "a"}), ToolCall("2", "look", {"place": "dark"}))
    opened = Opened([both, call("look", place="b"), "so 9"], tools=(look, add))
    task = asks(hint="a number")
    assert opened.run(lambda ctx: react(task, ctx, max_steps=2, native=True)) == "9"
    start = 'user: Q?\n\nUse the tools where they help. End with "The answer is" and a number.'
    one = [start, "assistant: I look.", "tool: seen a", "tool: Error: look failed: ValueError: too dark"]
    offered = {"tools": ["add", "look"]}
    assert opened.asked == [
        ([start], offered), (one, offered),
        ([*one, "assistant: ", "tool: seen b", "user: No steps are left. Give the answer now."], {}),
    ]  # fmt: skip
    at_once = Opened(["It is 4."], tools=(look,))
    ctx, answer = at_once.run(lambda ctx: act(task, ctx, 3, native=True))
    assert (answer, at_once.said(ctx)) == ("4", [start, "assistant: It is 4."])
    never = Opened([both], tools=(look,))
    assert never.run(lambda ctx: act(task, ctx, 1, native=True))[1] is None
    assert told(ConfigError, lambda: Opened().run(lambda ctx: react(task, ctx, native=True, constrained=True))) == (
        "constrained is for actions in text: a local model holds native calls to their schemas anyway"
    )


def test_an_observation_says_what_was_wrong_with_an_action():
    opened = Opened(tools=(look, add, peer))
    known = "Peer[input], add[input], look[input]; or Final Answer: and the answer"
    for (name, given), found in {
        ("", ""): f"There was no action. Write one line: Action: and one of {known}",
        ("Peek", "a"): f"There is no tool 'Peek'. Write one line: Action: and one of {known}",
        ("LOOK", "a"): "seen a",
        ("peer", "b"): "at b",
        ("look", "dark"): "Error: look failed: ValueError: too dark",
        ("add", "1, 2"): 'add takes 2 arguments: write add[{"a": "...", "b": "..."}]',
        ("add", '{"a": 1, "b": 2}'): "3",
    }.items():
        assert opened.run(lambda ctx, name=name, given=given: _observe(ctx, Action(name, given), 4)) == found
    assert [each.detail["name"] for each in opened.attempt.calls] == ["look", "Peer", "look", "add"]
    bare = Opened()
    assert bare.run(lambda ctx: _observe(ctx, Action("", ""), 0)) == (
        "There was no action. Write one line: Action: and one of none, for there are no tools; or Final Answer: "
        "and the answer"
    )


def test_a_world_shows_worked_turns_of_its_own_examples():
    properties = {"action": {"type": "string", "examples": ["go a", 'say\n"b"']}}
    world = replace(look, spec=replace(look.spec, name="act", parameters={"type": "object", "properties": properties}))
    assert _worked(world) == (
        ("user", "Question: Another task of this kind."),
        ("assistant", "Thought: I need act.\nAction: act[go a]"), ("user", "Observation: (what happens then)"),
        ("assistant", 'Thought: I need act.\nAction: act[{"action": "say\\n\\"b\\""}]'),
        ("user", "Observation: (what happens then)"),
        ("assistant", "Thought: The task is done.\nFinal Answer: done"),
    )  # fmt: skip
    assert _worked(look) == _worked(add) == ()
    for parameters in (
        {"type": "object", "properties": properties | {"more": {"type": "string", "examples": ["x"]}}},
        {"type": "object", "properties": {"more": {"type": "string"}} | properties},
        {"type": "object", "properties": {}}, {"type": "object"}, {},
        {"type": "object", "properties": {"action": {"type": "string", "examples": []}}},
    ):  # fmt: skip
        assert _worked(replace(look, spec=replace(look.spec, parameters=parameters))) == (), "of one parameter alone"
    opened = Opened(tools=(world,))
    said = opened.said(_opening(asks(), opened.ctx))
    assert said[0] == lead("- act[action]: Look somewhere.") + "Question: Another task of this kind." and len(said) == 7
    for names, first, count in (
        (("calculator",), "Question: A shop sells 12 boxes of 30 pens. How many pens is that?", 9),
        (("search",), "Question: Which company does Ana Karel work for?", 11),
        (("calculator", "search"), "Question: A shop sells 12 boxes of 30 pens. How many pens is that?", 19),
    ):
        shown = Opened(tools=[replace(look, spec=replace(look.spec, name=name)) for name in names])
        said = shown.said(_opening(asks(), shown.ctx))
        assert (said[0].rpartition("\n\n")[2], len(said), said[-1]) == (first, count, "user: Question: Q?")
        assert all("Answer the question." not in each for each in said[1:])


# -- code --


def test_code_is_run_and_what_it_prints_is_observed():
    said = ["Thought: x\n```python\nprint(1)\n```", "none", "final answer: it is 3\nFinal Answer: 4"]
    opened = Opened(said, tools=(python,), sampling=Sampling(stop=("END",)))
    assert opened.run(lambda ctx: code_act(asks(hint="a number"), ctx, max_steps=2)) == "3"
    start = opened.asked[0][0]
    assert start[0] == (
        "user: Answer the question by writing Python. Write a Thought line, then one ```python block that prints "
        "what you need. "
        "You are then given an Observation: what it printed. When you know the answer write Final Answer: and a "
        "number.\n\n"
        "Question: A shop sells 12 boxes of 30 pens. How many pens is that?"
    )
    assert start[1:] == [
        "assistant: Thought: I compute 12 * 30.\n```python\nprint(12 * 30)\n```", "user: Observation: 360",
        "assistant: Thought: The result is 360.\nFinal Answer: 360", "user: Question: What is 75 - 18?",
        "assistant: Thought: I compute 75 - 18.\n```python\nprint(75 - 18)\n```", "user: Observation: 57",
        "assistant: Thought: The result is 57.\nFinal Answer: 57", "user: Question: Q?",
    ]  # fmt: skip
    one = [*start, f"assistant: {said[0]}", "user: Observation: ran print(1)"]
    no_code = "user: Observation: There was no code. Write one ```python block, or Final Answer: and the answer."
    stop = {"stop": ("END", "\nObservation")}
    assert opened.asked == [
        (start, stop), (one, stop),
        ([*one, "assistant: none", no_code, "user: No steps are left. Write Final Answer: and a number."],
        {"stop": ("END",)}),
    ]  # fmt: skip
    assert calls_of(opened) == [("python", {"code": "print(1)"})]
    block = "```python\n{}\n```\n".format
    two = Opened([block("x = 1") + block("print(x)"), block("") + block("y"), "Final Answer: 2"], tools=(add, python))
    assert two.run(lambda ctx: code_act(asks(), ctx)) == "2" and len(calls_of(two)) == 1
    assert two.asked[1][0][-1] == (
        "user: Observation: ran x = 1\n"
        "(Of the 2 blocks only the first was run: write what belongs together in one. python: Run code.)"
    )
    assert two.asked[2][0][-1].endswith("between ```python and ```.")
    first = Opened(["Final Answer:  a word "], tools=(python,))
    assert first.run(lambda ctx: code_act(asks(), ctx, max_steps=1)) == "a word" and len(first.asked) == 1
    at_once = Opened(["Final Answer: it is 3"], tools=(python,))
    assert at_once.run(lambda ctx: code_act(asks(hint="a number"), ctx)) == "3"
    over = Opened(["x", "It is 6"], tools=(python,))
    assert over.run(lambda ctx: code_act(asks(hint="a number"), ctx, max_steps=1)) == "6"
    for code, found in (
        ("pass", "(it printed nothing)"), ("x", "ran x"),
        (" \n", "The code block was empty or not closed. Write a shorter one between ```python and ```."),
    ):  # fmt: skip
        assert opened.run(lambda ctx, code=code: observed_code(ctx, code, 3)) == found
    assert told(ConfigError, lambda: Opened(tools=(look,)).run(lambda ctx: code_act(asks(), ctx))) == (
        "code_act needs the tool 'python', and the tools are look: give it, as in --tools python"
    )
    assert "and the tools are none:" in told(ConfigError, lambda: Opened().run(lambda ctx: code_act(asks(), ctx)))


# -- worlds --


def world(**schema):
    properties = {"action": {"type": "string", **schema}}

    def move(action: str) -> str:
        """Act."""
        return f"did {action}"

    made = tool(effect="write")(move)
    return replace(
        made, spec=replace(made.spec, name="act", parameters={**made.spec.parameters, "properties": properties})
    )


def test_a_thought_and_an_action_in_turn():
    place = world(enum=["go a", "go b"])
    opened = Opened(
        ["Thought: x\nAction: go a", "Thought: y\nAction: go b"], tools=(place,), sampling=Sampling(stop=("END",))
    )
    assert opened.run(lambda ctx: thought_action(asks(), ctx, max_steps=2)) == "Thought: y\nAction: go b"
    held = {"stop": ("END", "\nObservation"), "grammar": step_grammar({"enum": ["go a", "go b"]})}
    one = ["user: Q?", "assistant: Thought: x\nAction: go a", "user: Observation: did go a"]
    assert opened.asked == [(["user: Q?"], held), (one, held)]
    assert calls_of(opened) == [("act", {"action": "go a"}), ("act", {"action": "go b"})]
    assert opened.notes() == [("max_steps", {"steps": 2})]
    bare = Opened(["Action: go a"], tools=(place,))
    assert bare.run(lambda ctx: thought_action(asks(), ctx, max_steps=1, thought=False)) == "Action: go a"
    assert bare.asked[0][1]["grammar"] == step_grammar({"enum": ["go a", "go b"]}, False)
    free = Opened(["jump"], tools=(place,))
    assert free.run(lambda ctx: thought_action(asks(), ctx, max_steps=1, constrained=False)) == "jump"
    assert free.asked[0][1] == {"stop": ("\nObservation",)}
    assert told(ConfigError, lambda: Opened(tools=(look,)).run(lambda ctx: thought_action(asks(), ctx))) == (
        "thought_action acts by the tool `act`, and there is none: run it on a world, such as agentbench_db, "
        "with text actions"
    )

    async def after_the_end(ctx):
        await ctx.call(ToolCall("1", "act", {"action": "go a"}))
        ctx.attempt.tools.clear()
        ctx.attempt.own_tools.clear()
        return await thought_action(asks(), ctx)

    ended = Opened(tools=(place,))
    assert ended.run(after_the_end) == OVER and ended.asked == []


def test_a_world_that_is_over_is_left_without_a_note_of_its_steps():
    opened = Opened(["Action: go a", "never"])

    @tool(effect="write")
    def act(action: str) -> str:
        """Act."""
        opened.attempt.tools.pop("act")
        return f"did {action}"

    opened.attempt.tools["act"] = act
    assert opened.run(lambda ctx: thought_action(asks(), ctx, max_steps=9)) == "Action: go a"
    assert len(opened.asked) == 1 and opened.notes() == []
    assert opened.attempt.nodes[-1].message.text == "Observation: did go a"


def test_the_grammar_of_a_step():
    line = '\nthought: "Thought: " LINE "\\n"\nLINE: /[^\\n]{1,400}/'
    assert step_grammar({"enum": ["a", "b c"]}).source == f'start: thought "Action: " ("a" | "b c"){line}'
    assert step_grammar({"enum": ["a"], "pattern": "x"}, thought=False).source == 'start: "Action: " ("a")'
    assert step_grammar({"pattern": r"a/b\/c"}).source == f'start: thought "Action: " ACTION{line}\nACTION: /a\\/b\\/c/'
    assert step_grammar({"enum": []}) is None


# -- toolformer --


def test_a_text_goes_on_after_the_result_of_each_call():
    opened = Opened(
        ['It [add({"a": 1, "b": 2})', " so [peek(x)", " end [look(a)"],
        tools=(look, add),
        sampling=Sampling(stop=("END",)),
    )
    task = asks(sampling={"max_tokens": 9, "stop": ("\n",)})
    assert opened.run(lambda ctx: toolformer(task, ctx, max_calls=2)) == "It so end [look(a)"
    first, second = 'It [add({"a": 1, "b": 2}) -> 3]', " so [peek(x)]"
    cut = {"max_tokens": 9, "stop": ("\n", "END", " ->")}
    assert opened.asked == [
        ("Q?", cut), (f"Q?{first}", cut), (f"Q?{first}{second}", {"max_tokens": 9, "stop": ("\n",)}),
    ]  # fmt: skip
    assert calls_of(opened) == [("add", {"a": 1, "b": 2})]
    raw = Opened(["so 5"], tools=(look,))
    assert raw.run(lambda ctx: toolformer(asks(context="C:", hint="a number"), ctx)) == "5" and raw.asked[0][0] == "C:"
    none = Opened(["x"])
    assert none.run(lambda ctx: toolformer(asks(), ctx, max_calls=0)) == "x" and none.asked == [("Q?", {})]
    for inside, found in (
        ("look( a )", " [look( a ) -> seen a]"), ('add( {"a": 2, "b": 5} )', ' [add( {"a": 2, "b": 5} ) -> 7]'),
        ("look(dark)", " [look(dark)]"), ("peek(a)", " [peek(a)]"),
        ("add(1)", " [add(1)]"),
    ):  # fmt: skip
        assert opened.run(lambda ctx, inside=inside: _with_result(ctx, inside, 3)) == found
    for options, message in (
        ({"max_calls": -1}, "max_calls is -1: give 0 or more"),
        ({"top_k": 0}, "top_k is 0: give a number from 1 to 100"),
        ({"top_k": 101}, "top_k is 101: give a number from 1 to 100"),
    ):  # fmt: skip
        assert (
            told(ConfigError, lambda options=options: Opened().run(lambda ctx: toolformer(asks(), ctx, **options)))
            == message
        )
    warm = Opened(sampling=Sampling(temperature=0.5))
    assert told(ConfigError, lambda: warm.run(lambda ctx: toolformer(asks(), ctx, top_k=2))) == (
        "top_k is 2 and temperature 0.5: calls by rank need temperature 0"
    )


def test_a_call_by_rank_begins_where_its_token_is_among_the_most_probable():
    considered = [[[("It", -0.1), ("x", -2.0)], [(" is", -0.2), (" [", -1.5)], [(" 5", -0.3), (" [", -0.5)]]]
    model = Considering(["It is 5", "look(a)"], considered)
    opened = Opened(model=model, tools=(look,), sampling=Sampling(stop=("END",)))
    assert opened.run(lambda ctx: _until_call(ctx, "P", 2, asks(sampling={"max_tokens": 7}))) == ("It [look(a)", True)
    cut = {"max_tokens": 7, "stop": ("END", " ->")}
    assert opened.asked == [("P", {**cut, "top_logprobs": 2}), ("PIt [", cut)]
    none = Opened(model=Considering(["It [is"], [[[("It", -0.1)], [(" is", -0.1)]]]))
    assert none.run(lambda ctx: _until_call(ctx, "P", 2, asks())) == ("It [is", False)
    for said, found in (
        ("a [look(b)", True),
        ("look(b)", False),
        (" [look(b)] c", False),
        (" [look", False),
        (" [look(a]b)", False),
        (" [x] [look(b)", True),
    ):
        assert Opened([said]).run(lambda ctx: _until_call(ctx, "P", 1, asks())) == (said, found)
