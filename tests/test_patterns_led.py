"""What the patterns that take several steps or lead others say to a model, and what they make of its answers."""

import asyncio
from functools import partial

import pytest

from firsthand.agent import Agent
from firsthand.errors import ConfigError, ModelError
from firsthand.loop.budget import Limits
from firsthand.patterns.chain import chain
from firsthand.patterns.code_act import code_act, parse_code
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import direct
from firsthand.patterns.evaluator_optimizer import evaluator_optimizer
from firsthand.patterns.orchestrate import orchestrate
from firsthand.patterns.parallel import paragraphs, parallel
from firsthand.patterns.parts.list_items import listed
from firsthand.patterns.plan_execute import plan_execute
from firsthand.patterns.react import react
from firsthand.patterns.react_cot import react_cot
from firsthand.patterns.route import route
from firsthand.patterns.self_consistency import self_consistency
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import tool
from firsthand.tools.calculator import calculator

SUM = Task("1", "What is 3 * 4?", hint="a number")
RISK = Task("2", "Is this text harmful? Answer yes or no.")


@tool(effect="write")
def python(code: str) -> str:
    """Run Python and return what it prints."""
    lines = code.splitlines()
    if "1/0" in code:
        raise ZeroDivisionError("division by zero")
    return f"ran {len(lines)} lines"


def run(pattern, model, /, *, task=SUM, tools=(calculator, python), limits=None, **options):
    return asyncio.run(rollout(Agent("a", model, pattern, options, tools, limits=limits or Limits()), task))


def said(trace, role="user"):
    return [node.message.text for node in trace.nodes if node.message.role == role]


def noted(trace, kind):
    return [event.data for event in trace.events if event.kind == kind]


def branches(trace):
    return [(data["name"], data["status"]) for data in noted(trace, "branch")]


def in_turn(*replies):
    """A model that says these in the order it is asked, each once."""
    return Scripted(list(replies))


def test_zero_shot_cot_in_the_two_calls_of_the_paper():
    trace = run(cot, in_turn("3 * 4 is 3 + 3 + 3 + 3.", "12"), extract=True)
    assert trace.answer == "12"
    assert said(trace) == ["What is 3 * 4?\n\nLet's think step by step.", "Therefore, the answer (a number) is"]
    assert run(cot, in_turn("so it is 12", "hm"), extract=True).answer == "12"
    with pytest.raises(ConfigError, match="leave one of the two out"):
        run(cot, in_turn("x"), extract=True, shots=1)


def test_chain_feeds_each_step_with_the_one_before():
    steps = ("List the numbers in: {question}", "Multiply: {previous}", "Say {previous} as {wanted}, {{so}}.")
    trace = run(chain, in_turn("3 and 4", "12", "The answer is 12"), steps=steps)
    assert trace.answer == "12"
    assert said(trace) == ["List the numbers in: What is 3 * 4?", "Multiply: 3 and 4", "Say 12 as a number, {so}."]
    assert [node.parent for node in trace.nodes[::2]] == [None] * 3
    assert run(chain, in_turn("{x}", "{0}", "12")).answer == "12"  # what a model writes is no template
    for template in ("{answer}", "{question.__class__}", "{question", "{}"):
        with pytest.raises(ConfigError, match="and other braces doubled"):
            run(chain, in_turn("x"), steps=(template,))
    with pytest.raises(ConfigError, match="steps is empty"):
        run(chain, in_turn(), steps=())


def test_a_gate_stops_a_chain_that_does_not_mend():
    def gate(step, text):
        return "there is no number in it" if step == 1 and not any(map(str.isdigit, text)) else None

    mended = run(chain, in_turn("none", "3 and 4", "12"), steps=("{question}", "{previous}"), gate=gate)
    assert mended.answer == "12" and said(mended)[1].startswith("That cannot be used: there is no number in it")
    assert branches(mended) == [("step 1", "pruned"), ("step 1", "done"), ("step 2", "done")]
    stuck = run(chain, in_turn("none", "nothing"), steps=("{question}", "{previous}"), gate=gate)
    assert stuck.answer == "nothing" and branches(stuck)[-1] == ("step 1", "failed")


def test_parallel_votes():
    model = in_turn("12", "The answer is 12.0", "11", "7")
    trace = run(parallel, model)
    assert trace.answer == "12" and noted(trace, "vote") == [{"12": 2, "11": 1, "7": 1}]
    assert all(asked.sampling.temperature == 0.7 for asked in model.asked)
    assert len({asked.sampling.seed for asked in model.asked}) == 4
    assert run(parallel, in_turn("?", "!"), n=2).answer == "?"


@pytest.mark.parametrize(
    ("combine", "answers", "answer"),
    [
        ("any", ["no", "No.", "Yes, it is."], "yes"),
        ("any", ["no", "No.", "yesterday"], "no"),
        ("all", ["yes", "Yes", "yes."], "yes"),
        ("all", ["yes", "Yes", "no"], "no"),
        ("threshold", ["yes", "yes", "no"], "yes"),
        ("threshold", ["yes", "no", "no"], "no"),
    ],
)
def test_parallel_flags_by_any_all_or_a_share(combine, answers, answer):
    assert run(parallel, in_turn(*answers), task=RISK, n=3, combine=combine, threshold=0.6).answer == answer


def test_a_branch_that_fails_has_no_say():
    async def odd(task, ctx):
        ctx = await ctx.say(task.prompt).generate()
        if ctx.text == "12":
            raise RuntimeError("boom")
        return ctx.text

    trace = run(parallel, in_turn("12", "11", "11"), pattern=odd, n=3)
    assert trace.answer == "11" and branches(trace).count(("branch 1", "failed")) == 1
    assert run(parallel, in_turn("12"), pattern=odd, n=1).error.message == "boom"
    assert (
        run(parallel, in_turn(" ", " "), n=2).answer == ""
        and run(parallel, in_turn(" "), n=1, combine="best").answer == ""
    )
    votes = run(self_consistency, in_turn("12", "11", "11"), pattern=odd, samples=3)
    assert votes.answer == "11" and noted(votes, "vote") == [{"11": 2, "(no answer)": 1}]
    assert run(self_consistency, in_turn("12", "12"), pattern=odd, samples=2).error.message == "boom"
    spent = run(parallel, Scripted(lambda *_: "12"), pattern=chain, limits=Limits(calls=2))
    assert spent.stop_reason == "calls" and spent.answer is None
    flagged = run(parallel, in_turn("12", "yes", "yes"), pattern=odd, task=RISK, n=3, combine="all")
    assert flagged.answer == "" and noted(flagged, "vote") == [{"yes": 2}]


def test_parallel_keeps_the_answer_that_the_model_calls_right():
    def likes(prompt, label):
        return 0.0 if ("answer: 11" in prompt) == (label == "correct") else -5.0

    trace = run(parallel, Scripted(["12", "11", "12"], score=likes), n=3, combine="best")
    assert trace.answer == "11" and [call.kind for call in trace.calls].count("score") == 2
    assert ("branch 2", "kept") in branches(trace) and ("branch 1", "pruned") in branches(trace)


def test_parallel_sections_a_long_prompt_and_merges():
    text = "\n\n".join([*(f"Paragraph {i} " + "x" * 100 for i in range(7)), "How many paragraphs are odd?"])
    task = Task("3", text, hint="a number")
    sections = paragraphs(task, 3)
    assert len(sections) == 3 and all(each.prompt.endswith("How many paragraphs are odd?") for each in sections)
    body = [line for each in sections for line in each.prompt.split("\n\n")[:-1]]
    assert body == text.split("\n\n")[:-1]
    assert [each.prompt for each in paragraphs(SUM, 4)] == [SUM.prompt]
    assert len(paragraphs(Task("4", "a\n\nb\n\nq"), 9)) == 2
    model = Scripted({"Make one answer": "The answer is 3", "": "1"})
    trace = run(parallel, model, task=task, n=3, split="paragraphs", combine="merge")
    assert trace.answer == "3" and len(trace.calls) == 4 and model.asked[0].sampling.temperature == 0
    assert "Answer of branch 2:\n1" in said(trace)[-1]
    assert run(parallel, model, split=lambda task, n: [], n=2).error.kind == "ConfigError"


def test_orchestrate_delegates_side_by_side_and_concludes():
    model = Scripted(
        {"Do not answer yet": "Plan:\n1. What is 3 * 2?\n2) What is 6 * 2?\n- spare", "Result of": "12", "": "6"}
    )
    trace = run(orchestrate, model, workers=2)
    assert trace.answer == "12" and len(trace.calls) == 4
    assert [call.id for call in trace.calls] == [":0", "0.0:0", "0.1:0", ":1"]
    assert "What is 3 * 2?" in said(trace) and "spare" not in said(trace)
    assert said(trace)[-1].startswith("Result of worker 1:\n6\n\nResult of worker 2:\n6\n\nWhat is 3 * 4?")
    assert run(orchestrate, Scripted(lambda *_: "no list, 12")).answer == "12"


def test_a_worker_that_fails_is_told_to_the_planner_and_the_others_go_on():
    async def worker(task, ctx):
        if "bad" in task.prompt:
            raise ModelError("the worker is down")
        return (await ctx.say(task.prompt).generate()).text

    model = Scripted({"Do not answer yet": "1. bad\n2. good", "Result of": "12", "": "fine"})
    trace = run(orchestrate, model, pattern=worker)
    assert trace.answer == "12" and trace.error is None
    assert "Result of worker 1:\nfailed: the worker is down\n\nResult of worker 2:\nfine" in said(trace)[-1]
    assert ("worker 1", "failed") in branches(trace) and ("worker 2", "done") in branches(trace)


def test_orchestrate_goes_on_for_rounds_and_levels_but_not_without_end():
    model = Scripted({"Do not answer yet": "1. a\n2. b", "If more is needed": "1. c", "": "12"})
    trace = run(orchestrate, model, rounds=2)
    assert len(trace.calls) == 1 + 2 + 1 + 1 + 1 and ("worker 2.1", "done") in branches(trace)
    deep = run(orchestrate, model, depth=2, workers=2)
    assert len(deep.calls) == 2 + 2 * (2 + 2) and max(call.id.count("/") for call in deep.calls) == 1
    with pytest.raises(ConfigError, match="allow 1110 sub-agents"):
        run(orchestrate, model, workers=10, depth=3)
    with pytest.raises(ConfigError, match="allow 257 sub-agents"):
        run(orchestrate, model, workers=1, depth=10**9)


def test_an_answer_is_revised_until_the_judge_accepts():
    def verdict(prompt, label):
        return 0.0 if (label == "correct") == ("answer: 12" in prompt) else -3.0

    model = Scripted({"Check this answer": "4 times 3 is not 11.", "Give a better": "12", "": "11"}, score=verdict)
    trace = run(evaluator_optimizer, model)
    assert trace.answer == "12" and len(trace.calls) == 2 * 3
    assert branches(trace)[2] == ("judge 1", "pruned") and branches(trace)[-1] == ("judge 2", "kept")
    assert "A rejected answer: 11\nFeedback: 4 times 3 is not 11." in "\n".join(said(trace))
    never = run(
        evaluator_optimizer, Scripted(lambda *_: "11", score=lambda p, label: -float(label == "correct")), rounds=3
    )
    assert never.answer == "11" and len(never.calls) == 1 + 3 * 3
    assert run(evaluator_optimizer, in_turn("12"), rounds=0).answer == "12"


def test_route_goes_where_the_likelihood_is_highest():
    routes = {"sum": react, "talk": direct}
    model = Scripted(lambda *_: "Final Answer: 12", score=lambda prompt, label: {"sum": -1.0, "talk": -2.0}[label])
    trace = run(route, model, patterns=routes)
    assert trace.answer == "12" and [call.kind for call in trace.calls] == ["score", "generate"]
    assert [(data["name"], data["status"]) for data in noted(trace, "branch")] == [
        ("sum", "kept"), ("talk", "pruned"), ("sum", "open"), ("sum", "done"),
    ]  # fmt: skip
    assert noted(trace, "branch")[0]["score"] == pytest.approx(0.7311, abs=1e-4)
    assert "- direct: The model's answer to the bare question" in said(run(route, in_turn("12", "12")))[0]
    with pytest.raises(ConfigError, match="name the routes"):
        run(route, in_turn(), patterns=())


class Unscoring(Scripted):
    """A model behind a chat endpoint: it cannot score."""

    async def score(self, prompt, continuations):
        raise ModelError("this endpoint does not score")


def test_a_model_that_cannot_score_is_asked_in_words():
    words = {"Answer with one of these words": "I would say Cot, not direct.", "step by step": "The answer is 12"}
    trace = run(route, Unscoring(words))
    assert trace.answer == "12" and [call.kind for call in trace.calls] == ["score", "generate", "generate"]
    assert trace.calls[0].error == "this endpoint does not score"
    assert run(route, Unscoring({"one of these": "neither", "": "7"})).answer == "7"


def test_plan_execute_runs_the_steps_in_turn():
    model = Scripted({"Write a plan": "1. add\n2. double", "this step only": "6", "": "The answer is 12"})
    trace = run(plan_execute, model)
    assert trace.answer == "12" and len(trace.calls) == 4
    assert "step 1: add\nResult: 6\n\nNow do this step only, and write its result: double" in said(trace)[2]
    assert said(trace)[-1].startswith("step 1: add\nResult: 6\n\nstep 2: double\nResult: 6\n\nWhat is 3 * 4?")


def test_plan_execute_plans_anew_when_a_step_fails():
    model = Scripted(
        {
            "Write a plan": "1. look\n2. never",
            "That step failed": "1. think",
            "result: look": "",
            "result: think": "6",
            "": "12",
        }
    )
    trace = run(plan_execute, model)
    assert trace.answer == "12" and branches(trace)[-1] == ("step 2", "done") and len(trace.calls) == 5
    assert not any("never" in text for text in said(trace))
    patient = run(plan_execute, model, replans=0)
    assert any("result: never" in text for text in said(patient)) and len(patient.calls) == 4
    endless = Scripted({"numbered list": "1. a\n2. b\n3. c", "this step only": " ", "": "12"})
    assert len(run(plan_execute, endless, max_steps=4, replans=9).calls) == 2 + 4 + 3


def test_code_act_runs_code_and_reads_what_came():
    turns = (
        "Thought: try.\n```python\n1/0\n```",
        "```py\nx = 3\nprint(x * 4)\n```\nObservation: made up",
        "Final Answer: 12",
    )
    trace = run(code_act, in_turn(*turns))
    assert trace.answer == "12"
    assert said(trace)[-2:] == [
        "Observation: Error: python failed: ZeroDivisionError: division by zero",
        "Observation: ran 2 lines",
    ]
    assert "made up" not in said(trace, "assistant")[-2]
    lost = run(code_act, in_turn("hm", "```python\nprint(1", "```\n\n```", "The answer is 12"), max_steps=3)
    assert lost.answer == "12" and len(lost.calls) == 4
    assert said(lost)[-4].startswith("Observation: There was no code.") and "not closed" in said(lost)[-3]
    missing = run(code_act, in_turn(), tools=(calculator,))
    assert "needs the tool 'python', and the tools are calculator" in missing.error.message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```python\nprint(1)\n```", ("print(1)", None)),
        ("x\n```\n  y\n```\nFinal Answer: 2", ("  y", None)),
        ("<execute>print(1)</execute>", ("print(1)", None)),
        ("**Final Answer:** 3\n```python\nx\n```", (None, "3\n```python\nx\n```")),
        ("```python\nx", ("", None)),
        ("```json\n{}\n```", ("", None)),
        ("no code", (None, None)),
        ("", (None, None)),
    ],
)
def test_code_is_found_however_it_is_fenced(text, found):
    assert parse_code(text) == found


def test_react_falls_back_to_votes():
    lost = {"step by step": "The answer is 12", "": "Action: calculator[3*4]"}
    trace = run(react_cot, Scripted(lost), max_steps=2, samples=5)
    assert trace.answer == "12" and len(trace.calls) == 2 * 2 + 1
    assert branches(trace) == [("react", "pruned")] and noted(trace, "vote") == [{"12": 5}]
    found = run(react_cot, in_turn("Final Answer: 12"))
    assert found.answer == "12" and found.events == ()


def test_votes_fall_back_to_react_below_half():
    split = in_turn("The answer is 1", "The answer is 2", "The answer is 2", "none", "none", "Final Answer: 12")
    trace = run(react_cot, split, first="cot", samples=5)
    assert trace.answer == "12" and noted(trace, "branch")[0]["text"] == "2 of 5 votes agree"
    even = in_turn("The answer is 1", "The answer is 2", "The answer is 2", "The answer is 3")
    assert run(react_cot, even, first="cot", samples=4).answer == "2"
    defaults = partial(react_cot, first="cot")
    wide = Scripted(lambda *_: "The answer is 12")
    assert run(defaults, wide).answer == "12" and wide.asked[0].n == 21 and wide.asked[0].sampling.temperature == 0.7


def test_native_calls_that_only_read_run_side_by_side():
    from firsthand.message import ToolCall, assistant

    wanted = [ToolCall(f"c{i}", "calculator", {"expression": f"{i}+1"}) for i in range(300)]
    trace = run(react, in_turn(assistant("", *wanted), "The answer is 12"), native=True)
    results = [part for node in trace.nodes if node.message.role == "tool" for part in node.message.parts]
    assert [part.call_id for part in results] == [call.id for call in wanted]
    assert [part.content for part in results[:2]] == ["1", "2"]
    ran = [call.kind for call in trace.calls].count("tool")
    assert 8 <= ran < 300 and [part.is_error for part in results] == [False] * ran + [True] * (300 - ran)
    assert noted(trace, "too_many_calls") == [{"asked": 300, "run": ran}]
    written = [ToolCall(f"c{i}", "python", {"code": "x"}) for i in range(2)]
    ordered = run(react, in_turn(assistant("", *written), "The answer is 12"), native=True)
    assert [call.id for call in ordered.calls] == [":0", ":1", ":2", ":3"]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("1. a\n2) b\n  3: c", ["a", "b", "c"]),
        ("Sure:\n- a\n* b\n• c\ntext", ["a", "b", "c"]),
        ("**Step 1:** a\nStep 2. b", ["a", "b"]),
        ("1.5 is a number\nno list", []),
        ("1. \n2. b", ["b"]),
        ("", []),
        ("1. Buy\n   - 500 g\n   - white\n2. Bake\n3. Serve", ["Buy\n- 500 g\n- white", "Bake", "Serve"]),
        ("1. A\n   1. x\n   2. y\n   3. z\n2. B", ["A\n- x\n- y\n- z", "B"]),
        ("1. A\n   1. x\n2. B\n   1. y\n   2. z\n3. C", ["A\n- x", "B\n- y\n- z", "C"]),
        ("1. A\n\t- x\n\t\t- y\n2. B", ["A\n- x\n- y", "B"]),
        ("1. A\n   2. B\n   3. C", ["A", "B", "C"]),
        ("1. A\n   1. x\n   2. y\n2. B\n   3. C", ["A\n- x\n- y", "B", "C"]),
        ("1. A\n   - x\n   2. B", ["A\n- x", "B"]),
        (" 9. a\n10. b\n 11. c", ["a", "b", "c"]),
        ("- a\n  - x\n - b", ["a\n- x", "b"]),
        ("  - x\n1. A", ["x", "A"]),
        ("1. A\n   -  \n   - **x**\n2. B", ["A\n- x", "B"]),
        ("- \n   - a\n   - b", ["a", "b"]),
    ],
)
def test_lists_are_read_however_they_are_written(text, items):
    assert listed(text, 9) == items
    assert listed(text, 1) == items[:1]


def test_self_consistency_gives_shots_to_its_chains():
    examples = {"examples": [{"question": "2?", "answer": "#### 2"}]}
    task = Task("1", "Q?", hint="a number", metadata=examples)
    assert run(self_consistency, Scripted(lambda *_: "#### 2"), task=task, samples=2, shots=1).answer == "2"
    with pytest.raises(ConfigError, match=r"self_consistency\(cot:shots=1\)"):
        run(self_consistency, Scripted(lambda *_: "x"), task=task, pattern=cot, shots=1)
