"""The cost formulas of docs/patterns/ against the calls that patterns really make."""

import asyncio
import re
from functools import partial
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ModelError
from firsthand.loop.critical_path import critical_calls
from firsthand.patterns.chain import STEPS, chain
from firsthand.patterns.cot import cot
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import tool
from firsthand.tools.calculator import calculator

DOCS = Path(__file__).parent.parent / "docs" / "patterns"
SUM = Task("1", "What is 3 * 4?\n\nSay it.\n\nNow.", hint="a number")
DONE = {"": "Final Answer: 12. The answer is 12"}
ACT = "1. again\nAction: calculator[3*4]\n```python\nprint(12)\n```"
ONE_ACTION = {"Observation": DONE[""], "": ACT}
NEVER_DONE = {"step by step": "The answer is 12", "No steps are left": "12", "": ACT}
UNSURE = {"step by step": "who knows", "": ACT}
TWO_PARTS = {"numbered list": "1. a\n2. b", "": "The answer is 12"}
MANY_PARTS = {"numbered list": "\n".join(f"{i}. part" for i in range(1, 30)), "": "The answer is 12"}
ALL_FAIL = {"numbered list": "\n".join(f"{i}. part" for i in range(1, 30)), "this step only": " ", "": "12"}
LED = partial(cot, extract=True)  # leads to 2 calls, in a row
P = D = 2


@tool(effect="write")
def python(code: str) -> str:
    """Run Python and return what it prints."""
    return "12"


class Unscoring(Scripted):
    """A model behind a chat endpoint."""

    async def score(self, prompt, continuations):
        raise ModelError("no scores here")


def rejecting(prompt, label):
    return -1.0 if label in ("correct", "direct") else 0.0


def different(messages, sampling, index):
    return f"{sampling.seed % 10**6}"


def rows(name):
    """The formulas in backticks of each row of the page's cost table."""
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    table = text.partition("\n## Cost\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| ([\w ]+) \| (.+) \|$", table, re.MULTILINE)
    return {row: re.findall(r"`([^`]+)`", cell) for row, cell in found}


def attempt(pattern, model, options):
    function = catalog.find("pattern", pattern) if isinstance(pattern, str) else pattern
    return asyncio.run(rollout(Agent("a", model, function, options, (calculator, python)), SUM))


TYPICAL = [
    ("direct", DONE, {}, {}, 0),
    ("chain", DONE, {}, {"S": len(STEPS)}, 0),
    ("cot", DONE, {}, {"extract": 0}, 0),
    ("cot", DONE, {"extract": True}, {"extract": 1}, 0),
    ("self_consistency", DONE, {"samples": 5}, {"samples": 5}, 0),
    ("self_consistency", DONE, {"samples": 5, "pattern": LED}, {"samples": 5}, 1),
    ("react", DONE, {}, {"T": 1}, 0),
    ("react", ONE_ACTION, {}, {"T": 2}, 0),
    ("react_cot", ONE_ACTION, {}, {"T": 2}, 0),
    ("react_cot", DONE, {"first": "cot"}, {"T": 0}, 1),
    ("parallel", DONE, {"n": 3, "pattern": LED}, {"n": 3}, 0),
    ("parallel", DONE, {"n": 3, "pattern": LED, "combine": "merge"}, {"n": 3}, 1),
    ("parallel", DONE, {"n": 3, "pattern": LED, "split": "paragraphs"}, {"n": 2}, 0),
    ("orchestrate", TWO_PARTS, {"pattern": LED}, {"W": 2}, 0),
    ("evaluator_optimizer", DONE, {"pattern": LED, "rounds": 0}, {"J": 0, "V": 0}, 0),
    (
        "evaluator_optimizer",
        Scripted(DONE, score=lambda p, label: -rejecting(p, label)),
        {"pattern": LED},
        {"J": 1, "V": 0},
        0,
    ),
    ("evaluator_optimizer", Scripted(DONE, score=rejecting), {"pattern": LED}, {"J": 2, "V": 2}, 0),
    ("route", DONE, {"patterns": (LED, LED)}, {}, 0),
    ("plan_execute", TWO_PARTS, {"pattern": LED}, {"S": 2, "A": 0}, 0),
    ("plan_execute", ALL_FAIL, {"pattern": LED, "max_steps": 3}, {"S": 3, "A": 1}, 0),
    ("code_act", ONE_ACTION, {}, {"T": 2}, 0),
    ("debate", DONE, {"agents": 4, "rounds": 3}, {}, 0),
    ("swarm", DONE, {}, {"H": 1}, 0),
    ("swarm", Scripted(["Hand over to solver", DONE[""]]), {}, {"H": 2}, 0),
    ("blackboard_team", {"": "DONE: 12"}, {"members": 2}, {"N": 1}, 0),
]
MOST = [
    ("direct", DONE, {}, {}, 0),
    ("cot", DONE, {"extract": True}, {"extract": 1}, 0),
    ("self_consistency", DONE, {"samples": 5, "pattern": LED}, {"samples": 5}, 1),
    ("react", NEVER_DONE, {"max_steps": 3}, {}, 0),
    ("react_cot", NEVER_DONE, {"max_steps": 3}, {}, 0),
    ("react_cot", UNSURE, {"max_steps": 3, "first": "cot"}, {}, 1),
    ("parallel", different, {"n": 3, "pattern": LED, "combine": "best"}, {"n": 3}, 0),
    ("orchestrate", MANY_PARTS, {"pattern": LED, "workers": 3, "rounds": 1}, {}, 0),
    ("evaluator_optimizer", Scripted(DONE, score=rejecting), {"pattern": LED, "rounds": 3}, {}, 0),
    ("route", DONE, {"patterns": (LED,)}, {}, 0),
    ("route", Unscoring(DONE), {"patterns": {"answer": LED}}, {}, 1),
    ("plan_execute", ALL_FAIL, {"pattern": LED, "max_steps": 5, "replans": 2}, {}, 0),
    ("code_act", NEVER_DONE, {"max_steps": 3}, {}, 0),
    ("debate", DONE, {"agents": 3, "rounds": 2}, {}, 0),
    ("swarm", {"": "Hand over to nobody"}, {"max_steps": 3}, {}, 0),
    ("blackboard_team", {"": "hm"}, {"members": 2, "rounds": 3}, {}, 0),
]


def run(pattern, model, options):
    trace = attempt(pattern, model if isinstance(model, Scripted) else Scripted(model), options)
    assert trace.error is None and trace.stop_reason == "done"
    return trace


@pytest.mark.parametrize(("pattern", "model", "options", "letters", "which"), TYPICAL)
def test_calls_are_what_the_page_says(pattern, model, options, letters, which):
    trace, table = run(pattern, model, options), rows(pattern)
    known = {"P": P, "D": D, **options, **letters}
    in_a_row = table["calls in a row"]
    assert len(trace.calls) == eval(table["calls"][which], {}, known)
    assert critical_calls(trace) == eval(in_a_row[min(which, len(in_a_row) - 1)], {}, known)


@pytest.mark.parametrize(("pattern", "model", "options", "letters", "which"), MOST)
def test_the_most_calls_are_what_the_page_says(pattern, model, options, letters, which):
    trace = run(pattern, model, options)
    assert len(trace.calls) == eval(rows(pattern)["calls at most"][which], {}, {"P": P, **options, **letters})


def test_rounds_of_an_orchestrator_and_a_gate_come_to_the_most_too():
    delegating = Scripted(lambda messages, *_: MANY_PARTS["numbered list"])
    most = {"workers": 2, "rounds": 3, "P": 1}
    assert len(run("orchestrate", delegating, {"workers": 2, "rounds": 3}).calls) == eval(
        rows("orchestrate")["calls at most"][0], {}, most
    )
    gated = partial(chain, gate=lambda step, text: "no" if text == "first" else None)
    replies = iter(["first", "12"] * 3)
    trace = run(gated, Scripted(lambda *_: next(replies)), {})
    assert len(trace.calls) == eval(rows("chain")["calls at most"][0], {}, {"S": 3})


def words(text):
    return text.split()


def computed(model, answers):
    """The words that a cache of all that was read and written before leaves to be computed."""
    seen, total = [], 0
    for asked, reply in zip(model.asked, answers, strict=True):
        prompt = [word for message in asked.prompt for word in words(message.text)]
        known = max((common(prompt, each) for each in seen), default=0)
        total += len(prompt) - known
        seen.append(prompt + words(reply))
    return total


def common(left, right):
    """How many words two texts begin with in common."""
    pairs = zip(left, right, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


ANSWER, ACTION = "So the sum is: The answer is 12", "Thought: so I multiply it.\nAction: calculator[3*4]"
CODE = "Thought: run\n```python\nprint(12)\n```\nso"


@pytest.mark.parametrize(
    ("pattern", "replies", "options", "which"),
    [
        ("direct", [ANSWER], {}, 0),
        ("cot", [ANSWER], {}, 0),
        ("cot", [ANSWER, ANSWER], {"extract": True}, 1),
        ("self_consistency", [ANSWER] * 4, {"samples": 4}, 0),
        ("react", [ACTION, ACTION, ACTION, "Thought: it is.\nFinal Answer: 12 then"], {}, 0),
        ("code_act", [CODE, CODE, "Thought: it is\nFinal Answer: 12"], {}, 0),
    ],
)
def test_tokens_are_what_the_page_says(pattern, replies, options, which):
    model, table = Scripted(replies), rows(pattern)
    trace = run(pattern, model, options)
    (length,) = {len(words(reply)) for reply in replies}
    first = [len(words(message.text)) for message in model.asked[0].prompt]
    observed = [
        len(words(node.message.text)) for node in trace.nodes if node.message.text.startswith("Observation: 12")
    ]
    letters = {
        "Q": first[-1], "I": sum(first[:-1]), "O": length, "R": observed[-1] if observed else 0, "T": len(replies),
        "E": len(words("Therefore, the answer (a number) is")), **options,
    }  # fmt: skip
    once = replies[:1] if pattern == "self_consistency" else replies
    assert trace.usage.prompt_tokens == eval(table["prompt tokens"][which], {}, letters)
    assert computed(model, once) == eval(table["computed with a prefix cache"][which], {}, letters)
    assert trace.usage.completion_tokens == eval(table["completion tokens"][which], {}, letters)


def test_every_pattern_has_a_page_with_its_costs():
    named = {case[0] for case in TYPICAL}
    assert named <= set(catalog.names("pattern"))
    for name in named:
        text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        for part in ("## Example", "## Cost", "## Parameters", "## When it fails", "| completion tokens |"):
            assert part in text, f"docs/patterns/{name}.md has no {part}"
        assert f"]({name}.md)" in (DOCS / "index.md").read_text(encoding="utf-8")
        assert {"calls", "calls at most", "calls in a row"} <= rows(name).keys()
