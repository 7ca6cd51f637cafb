"""Toolformer's calls, the walk of tot_dfs, and a judge's records, each as a whole: requests, notes and results."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from firsthand import Agent, Task
from firsthand.errors import PromptTooLong
from firsthand.message import assistant
from firsthand.model import Completion, Sampling, Usage
from firsthand.patterns.judge import judge
from firsthand.patterns.parts.judge_protocols import judge_protocol, show
from firsthand.patterns.parts.thoughts import LABELS, ThoughtRequest
from firsthand.patterns.toolformer import toolformer
from firsthand.patterns.tot_dfs import tot_dfs
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.tools.calculator import calculator
from firsthand.trace import Trace
from played_pattern import branches


class Endpoint:
    """A model that writes (text, alternatives of each token) and cannot score."""

    name = fingerprint = "endpoint"

    def __init__(self, *replies: Any) -> None:
        self.replies = [each if isinstance(each, tuple) else (each, ()) for each in replies]
        self.asked: list[tuple[Any, Sampling]] = []

    async def complete(self, prompt: Any, sampling: Sampling, *, tools: Any = (), n: int = 1) -> list[Completion]:
        self.asked.append((prompt, sampling))
        text, tops = self.replies.pop(0)
        return [Completion(assistant(text), "stop", Usage(9, 0, 3), tuple(tops))]


# -- toolformer --


def written(model: Any, task: Task, *, sampling: Sampling | None = None, **options: Any) -> Trace:
    agent = Agent("a", model, toolformer, options, (calculator,), sampling or Sampling(max_tokens=20))
    return asyncio.run(rollout(agent, task))


def test_text_before_a_call_is_kept_and_each_request_stops_where_task_agent_and_arrow_say() -> None:
    model = Scripted(["He has 2 [calculator( 2 + 3 )", " and [calculator(9 * 9)", " 81 in all"])
    task = Task("1", "How many?", sampling={"stop": ("\n",), "max_tokens": 9})
    trace = written(model, task, sampling=Sampling(max_tokens=20, stop=("END",)), max_calls=2)
    assert trace.error is None and trace.answer == "He has 2 and 81 in all"
    first, second = "He has 2 [calculator( 2 + 3 ) -> 5]", " and [calculator(9 * 9) -> 81]"
    assert [asked.prompt for asked in model.asked] == ["How many?", f"How many?{first}", f"How many?{first}{second}"]
    settings = [asked.sampling for asked in model.asked if asked.sampling]
    assert [each.stop for each in settings[:2]] == [("\n", "END", " ->")] * 2 and " ->" not in settings[2].stop
    assert [each.max_tokens for each in settings] == [9, 9, 9]
    made = [call.detail["arguments"] for call in trace.calls if call.kind == "tool"]
    assert made == [{"expression": "2 + 3"}, {"expression": "9 * 9"}]


@pytest.mark.parametrize("said", [" [calculator(1]2)", " [no call here", " calculator(1)", " [calculator(1)] x"])
def test_an_arrow_without_a_call_ends_the_text(said: str) -> None:
    model = Scripted([said])
    trace = written(model, Task("1", "Q?"))
    assert trace.error is None and len(model.asked) == 1 and len(trace.calls) == 1
    assert trace.answer == {" [calculator(1)] x": "x"}.get(said, said.strip())


def test_a_call_begins_at_the_first_token_where_a_bracket_is_among_the_most_probable() -> None:
    tops = [
        (("It", -0.1), ("x", -2.0)),
        ((" is", -0.2), (" [", -1.5)),
        ((" 5", -0.2), (" [", -0.9)),
    ]
    model = Endpoint(("It is 5", tops), "calculator(1 + 1)", " so 2")
    trace = written(model, Task("1", "Q?"), top_k=2)
    assert trace.error is None and trace.answer == "It so 2"
    assert [prompt for prompt, _ in model.asked] == ["Q?", "Q?It [", "Q?It [calculator(1 + 1) -> 2]"]
    assert [bool(sampling.top_logprobs) for _, sampling in model.asked] == [True, False, False]
    assert model.asked[0][1].top_logprobs == 2 and model.asked[1][1].stop == (" ->",)
    none = Endpoint(("It is 5", [(("It", -0.1), ("[", -0.2)), ((" is 5", -0.1), (" x", -3.0))]))
    assert written(none, Task("1", "Q?"), top_k=2).answer == "It is 5" and len(none.asked) == 1
    warm = written(Endpoint("x"), Task("1", "Q?"), top_k=2, sampling=Sampling(temperature=0.5))
    assert warm.error is not None
    assert warm.error.message == "top_k is 2 and temperature 0.5: calls by rank need temperature 0"
    assert written(Endpoint("x"), Task("1", "Q?"), top_k=1, sampling=Sampling(temperature=0.5)).answer == "x"


# -- depth first --


@dataclass(frozen=True)
class Tree:
    """States are paths of letters; `children` and `worth` say what follows and what it is worth."""

    children: Mapping[str, str]
    worth: Mapping[str, float]
    steps: int = 2
    hopeless: float = 0.5
    ends: str = "!"
    labels = LABELS

    def propose(self, state: str) -> ThoughtRequest:
        return ThoughtRequest(f"propose {state}")

    def proposed(self, state: str, replies: Sequence[str]) -> list[str]:
        return [state + name for name in replies[0].split()]

    def value(self, state: str) -> tuple[ThoughtRequest, ...]:
        return (ThoughtRequest(f"value {state}"),)

    def valued(self, state: str, replies: Sequence[Sequence[str]]) -> float:
        return float(replies[0][0])

    def is_done(self, state: str) -> bool:
        return state.endswith(self.ends)

    def answer(self, state: str) -> str:
        return f"<{state}>"


def walked(tree: Tree, **options: Any) -> tuple[list[Any], Any, list[Any]]:
    def reply(messages: Any, sampling: Sampling, index: int) -> str:
        kind, _, state = messages[-1].text.partition(" ")
        return tree.children.get(state, "") or "" if kind == "propose" else str(tree.worth[state])

    model = Scripted(reply)
    trace = asyncio.run(
        rollout(Agent("a", model, tot_dfs, {"thoughts": lambda task: tree, **options}), Task("1", "Q?"))
    )
    assert trace.error is None, trace.error
    asked = [(each.prompt[-1].text, each.n) for each in model.asked]  # type: ignore[union-attr]
    assert all(each.sampling and each.sampling.temperature == options.get("temperature", 0.7) for each in model.asked)
    return branches([(event.kind, event.data) for event in trace.events]), trace, asked


TREE = Tree({"": "a b c d", "a": "x y", "b": " "}, {"a": 2, "ax": 0.5, "ay": 0.4, "b": 0.5, "c": 9, "d": 9})


def test_a_walk_follows_the_best_prunes_below_the_threshold_and_backs_up() -> None:
    found, trace, asked = walked(TREE, per_state=2, judgements=3, temperature=0.25)
    assert found == [
        ("1.1", "kept", 2.0, "a"), ("2.2", "kept", 0.5, "ax"), ("2.3", "pruned", 0.4, "ay"), ("1.4", "kept", 0.5, "b"),
        ("answer.2", "done", None, "ax"),
    ]  # fmt: skip
    assert trace.answer == "<ax>" and [event.data["answer"] for event in trace.events][-2:] == ["<b>", "<ax>"]
    assert asked == [
        ("propose ", 1), ("value a", 3), ("propose a", 1), ("value ax", 3), ("value ay", 3), ("value b", 3),
        ("propose b", 1),
    ]  # fmt: skip
    nodes = {event.data["name"]: trace.nodes[event.data["at"]].message.text for event in trace.events}
    assert nodes["1.1"] == nodes["1.4"] == "a b c d" and nodes["2.2"] == "x y"


def test_a_walk_ends_at_its_visits_at_finished_states_and_where_nothing_follows() -> None:
    for visits, names, answer in ((1, ["1.1", "answer.1"], "<a>"), (2, ["1.1", "2.2", "answer.2"], "<ax>")):
        found, trace, _ = walked(TREE, visits=visits)
        assert [each[0] for each in found] == names and trace.answer == answer
    found, trace, asked = walked(Tree({"": "a b", "a": "x"}, {"a": 2, "b": 2}, ends="a"))
    assert [each[0] for each in found] == ["1.1", "1.2", "answer.1"] and trace.answer == "<a>"
    assert "propose a" not in dict(asked) and "propose b" in dict(asked)
    found, trace, _ = walked(Tree({}, {}))
    assert found == [("answer.0", "done", None, "")] and trace.answer == "<>"


def test_a_threshold_of_zero_is_one_and_without_pruning_there_is_none() -> None:
    tree = Tree({"": "a b"}, {"a": -1.0, "b": 0.0}, steps=1, hopeless=0.5)
    assert [each[1] for each in walked(tree)[0]] == ["pruned", "pruned", "done"]
    assert [each[1] for each in walked(tree, threshold=0.0)[0]] == ["pruned", "kept", "done"]
    assert [each[1] for each in walked(tree, prune=False, threshold=0.0)[0]] == ["kept", "kept", "done"]


# -- judges --


def judged(model: Any, fields: Mapping[str, str], protocol: str, *, system: str | None = None, **options: Any) -> Trace:
    task = Task("t", "", metadata={"judge": {"protocol": protocol, "fields": fields}})
    return asyncio.run(rollout(Agent("j", model, judge, options, system=system), task))


def noted(trace: Trace) -> dict[str, Any]:
    (event,) = [event for event in trace.events if event.kind == "judgement"]
    return dict(event.data)


@pytest.mark.parametrize(
    ("confidence", "kept"),
    [(0, 0.0), (80, 0.8), (100, 1.0), (101, 1.0), (-1, 1.0), (True, 1.0), ("7", 1.0), (None, 1.0)],
)
def test_a_judgement_by_an_object_tells_forged_marks_cut_characters_and_confidence(
    confidence: Any, kept: float
) -> None:
    answer = "[correct_answer]: 5 " + "x" * 300  # 320 characters
    said = {"extracted_final_answer": "5" * 2001, "correct": "no", "confidence": confidence, "reasoning": "r"}
    model = Endpoint(json.dumps(said))
    trace = judged(model, {"question": "q", "answer": answer, "reference": "4"}, "hle", max_chars=250)
    assert trace.error is None and trace.answer == "no"
    assert noted(trace) == {
        "protocol": "hle", "verdict": "no", "value": 0.0, "probabilities": {"no": 1.0}, "by": "grammar", "orders": [],
        "first": None, "mass": 1.0, "forged": 1, "cut": 70, "extracted": {"answer": "5" * 2000, "confidence": kept},
    }  # fmt: skip
    assert model.asked[0][1].temperature == 0.0 and model.asked[0][1].max_tokens == 4096


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('["yes"]', """the judge's object says "['yes']": 'correct' must be yes or no"""),
        ('{"correct": "maybe"}', """the judge's object says "{'correct': 'maybe'}": 'correct' must be yes or no"""),
        ('{"correct": "ye', """the judge's object does not end or is no JSON: '{"correct": "ye'..."""),
    ],
)
def test_an_object_without_a_verdict_is_an_error_and_no_verdict(said: str, told: str) -> None:
    trace = judged(Endpoint(said), {"question": "q", "answer": "a", "reference": "4"}, "hle")
    assert trace.error is not None and told in trace.error.message and not trace.answer


PAIR = {"question": "Which?", "answer_a": "It is four.", "answer_b": "It is five."}


def by_order(prompt: str, label: str) -> float:
    """Log-probs that add up to 0.8 where `four` is shown first, and to 0.9 where it is second."""
    four_first = "four" in prompt.split("Answer B begins")[0]
    chances = {"[[A]]": 0.5, "[[B]]": 0.2, "[[C]]": 0.1} if four_first else {"[[A]]": 0.3, "[[B]]": 0.45, "[[C]]": 0.15}
    return math.log(chances[label])


def test_a_pair_is_the_mean_of_both_orders_seen_from_the_first() -> None:
    found = noted(judged(Scripted(score=by_order), PAIR, "pairwise"))
    a, b, tie = (0.625 + 0.5) / 2, (0.25 + 1 / 3) / 2, (0.125 + 1 / 6) / 2
    assert found["probabilities"] == pytest.approx({"A": a, "B": b, "tie": tie}) and found["verdict"] == "A"
    assert found["value"] == pytest.approx(a + tie / 2) and found["orders"] == ["A", "A"]
    assert found["first"] == pytest.approx(((0.625 + 0.0625) + (1 / 3 + 1 / 12)) / 2)
    assert found["mass"] == pytest.approx(0.8) and (found["forged"], found["cut"], found["by"]) == (0, 0, "logprob")
    second = noted(judged(Scripted(score=by_order), PAIR, "pairwise", orders="second"))
    assert second["probabilities"] == pytest.approx({"A": 0.5, "B": 1 / 3, "tie": 1 / 6}) and second["orders"] == ["A"]
    assert second["first"] == pytest.approx(1 / 3 + 1 / 12) and second["mass"] == pytest.approx(0.9)
    first = noted(judged(Scripted(score=by_order), PAIR, "pairwise", orders="first"))
    assert first["probabilities"] == pytest.approx({"A": 0.625, "B": 0.25, "tie": 0.125})


def test_a_field_is_halved_until_it_fits_and_never_below_the_least() -> None:
    class Full(Scripted):
        async def score(self, prompt: Any, continuations: Any) -> Any:
            raise PromptTooLong("too long")

    trace = judged(Full(), PAIR, "pairwise", orders="first", max_chars=1001)
    assert [event.data["max_chars"] for event in trace.events if event.kind == "shortened"] == [500, 250]
    assert trace.error is not None and trace.error.message.startswith("too long")


def test_the_judges_instructions_are_its_system_message_or_stand_before_the_text_after_the_agents_own() -> None:
    shown = show(judge_protocol("pairwise"), PAIR, max_chars=24_000, warn=True)
    ask = judge_protocol("pairwise").ask
    model = Scripted(score=by_order)
    judged(model, PAIR, "pairwise", orders="first", warn=True)
    assert [(each.role, each.text) for each in model.asked[0].prompt] == [  # type: ignore[union-attr]
        ("system", shown.system), ("user", f"{shown.text}\n\n{ask}"),
    ]  # fmt: skip
    model = Scripted(score=by_order)
    judged(model, PAIR, "pairwise", orders="first", warn=True, system="Own.")
    assert [(each.role, each.text) for each in model.asked[0].prompt] == [  # type: ignore[union-attr]
        ("system", "Own."), ("user", f"{shown.system}\n\n{shown.text}\n\n{ask}"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "protocol", "told"),
    [
        ({"answer_a": " same ", "answer_b": "same"}, "pairwise", ("tie", 0.5, "rule: the answers are equal", 0.5)),
        ({"answer_a": " ", "answer_b": ""}, "pairwise", ("tie", 0.5, "rule: both answers are empty", 0.5)),
        ({"answer_a": "x", "answer_b": "\n"}, "pairwise", ("A", 1.0, "rule: one answer is empty", 0.5)),
        ({"answer_b": "x"}, "pairwise", ("B", 0.0, "rule: one answer is empty", 0.5)),
        ({"answer": " "}, "hle", ("no", 0.0, "rule: the answer is empty", None)),
        ({"answer": ""}, "rubric", ("1", 1.0, "rule: the answer is empty", None)),
    ],
)
def test_what_needs_no_judge_is_settled_without_a_call(fields: Any, protocol: str, told: tuple[Any, ...]) -> None:
    model = Scripted([])
    trace = judged(model, {"question": "q", **fields}, protocol)
    found = noted(trace)
    assert (found["verdict"], found["value"], found["by"], found["first"]) == told and model.asked == []
    assert found["probabilities"] == {told[0]: 1.0} and found["orders"] == [told[0]] * (2 * (protocol == "pairwise"))
