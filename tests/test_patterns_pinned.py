"""Patterns at their bounds: sums and thresholds of searches, votes at a tie, shares at exact equality."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.errors import ConfigError, ModelError, PromptTooLong
from firsthand.loop.concurrency import derive_seed
from firsthand.loop.pattern_options import check_options
from firsthand.message import Message, ToolCall, ToolResult, assistant, user
from firsthand.model import Likelihood, ToolSpec
from firsthand.patterns.chain import chain
from firsthand.patterns.code_act import code_act, parse_code
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import direct
from firsthand.patterns.evaluator_optimizer import evaluator_optimizer
from firsthand.patterns.judge import _from_object, judge, settled, swapped, winner
from firsthand.patterns.orchestrate import orchestrate
from firsthand.patterns.parallel import paragraphs, parallel
from firsthand.patterns.parts.actions import arguments_of, parse_action, usage
from firsthand.patterns.parts.answers import (
    extract_answer,
    last_number,
    normal_form,
    parse_number,
)
from firsthand.patterns.parts.boxes import last_boxed
from firsthand.patterns.parts.evaluation import Feedback
from firsthand.patterns.parts.feedback import evaluator_for
from firsthand.patterns.parts.judge_protocols import delimiters, judge_protocol, shortened, show
from firsthand.patterns.parts.list_items import listed
from firsthand.patterns.parts.self_tests import program, read_results, usable_tests
from firsthand.patterns.parts.thoughts import GenericThoughts, ThoughtRequest, count_votes
from firsthand.patterns.parts.verdicts import distribution, normalised, weighed
from firsthand.patterns.parts.voting import share, tallied
from firsthand.patterns.plan_execute import plan_execute
from firsthand.patterns.react import react
from firsthand.patterns.react_cot import react_cot
from firsthand.patterns.reflexion import reflexion, transcript
from firsthand.patterns.reply import reply
from firsthand.patterns.route import route
from firsthand.patterns.self_consistency import self_consistency
from firsthand.patterns.tot import choose, expected, tot
from firsthand.patterns.tot_dfs import tot_dfs
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import Tool, tool
from firsthand.trace import Trace

NUMBER = Task("1", "What is 3 * 4 + 2?", hint="a number")


def attempt(pattern: Any, model: Scripted, task: Task = NUMBER, /, **options: Any) -> Trace:
    return asyncio.run(rollout(Agent("a", model, pattern, options), task, seed=0))


def asked(reply: Callable[[str], str], **options: Any) -> Scripted:
    """A model that answers by the text of the last message."""
    return Scripted(lambda messages, sampling, index: reply(messages[-1].text), **options)


@tool(effect="read")
def run_python(code: str) -> str:
    """Run Python."""
    return "ran"


run_python = replace(run_python, spec=replace(run_python.spec, name="python"))


class Endpoint(Scripted):
    """A model behind an API, which cannot score."""

    async def score(self, prompt: Any, continuations: Sequence[str]) -> Any:
        raise ModelError("endpoint cannot score")


# -- Tree of Thoughts --


def test_a_state_is_worth_the_sum_of_its_verdicts() -> None:
    generic = GenericThoughts(NUMBER)
    assert generic.valued("", [["likely", "likely", "so: likely."]]) == 3.0
    assert generic.valued("", [["sure", "impossible"], ["likely"]]) == pytest.approx(21.001)
    assert generic.valued("", [["perhaps", ""]]) == 0.0
    verdicts = {
        "\none": "likely likely impossible",
        "\ntwo": "likely likely likely",
        "\nthree": "impossible likely likely",
    }

    def reply(messages: Any, sampling: Any, index: int) -> str:
        text = messages[-1].text
        if "Possible next steps" in text:
            return "- one\n- two\n- three"
        if "Judgement" not in text:
            return "The answer is 14"
        return next(words.split()[index] for state, words in verdicts.items() if state in text)

    trace = attempt(tot, Scripted(reply), breadth=1)  # by the best verdict alone the first would be kept
    kept = [event.data for event in trace.events if event.kind == "branch" and event.data["status"] == "kept"]
    assert (kept[0]["text"], kept[0]["score"]) == ("two", 3.0)


def test_greedy_selection_keeps_the_first_of_equals_and_the_highest() -> None:
    assert choose([2.0, 5.0, 5.0, 1.0], 3, "greedy", Random(0)) == [1, 2, 0]
    assert choose([1.0], 5, "greedy", Random(0)) == [0] and len(choose([1.0, 2.0], 3, "sample", Random(0))) == 3
    labels = {"sure": 20.0, "likely": 1.0}
    likelihoods = [Likelihood(name, math.log(share), 1, False) for name, share in (("sure", 0.2), ("likely", 0.6))]
    assert expected(likelihoods, labels) == pytest.approx((0.2 * 20 + 0.6) / 0.8)


@pytest.mark.parametrize(("value", "followed"), [(0.5, True), (0.499999, False), (0.500001, True)])
def test_depth_first_follows_a_state_that_is_worth_the_threshold(value: float, followed: bool) -> None:
    class Toy(GenericThoughts):
        def valued(self, state: str, replies: Sequence[Sequence[str]]) -> float:
            return value

    model = asked(lambda text: "- a" if "Possible" in text else "The answer is 1")
    trace = attempt(tot_dfs, model, threshold=0.5, thoughts=lambda task: Toy(task))
    states = [event.data["status"] for event in trace.events if event.kind == "branch"][:-1]
    assert states == (["kept"] * 3 if followed else ["pruned"])
    assert "pruned" not in str(attempt(tot_dfs, model, prune=False, thoughts=lambda task: Toy(task)).events)


def test_depth_first_stops_at_its_visits_and_its_children() -> None:
    model = asked(
        lambda text: (
            "- a\n- b\n- c\n- d" if "Possible" in text else "likely" if "Judgement" in text else "The answer is 1"
        )
    )
    for visits in (1, 4, 7):
        trace = attempt(tot_dfs, model, visits=visits, per_state=2)
        assert len([event for event in trace.events if event.data.get("status") == "kept"]) == visits
    whole = attempt(tot_dfs, model, per_state=2)  # 2 at the first level, 2 below each, 1 answer below each of those
    assert len([event for event in whole.events if event.data.get("status") == "kept"]) == 2 + 4 + 4


def test_each_step_of_a_sampled_search_draws_anew_and_asks_as_often_as_its_thoughts_want() -> None:
    class Toy(GenericThoughts):
        def propose(self, state: str) -> ThoughtRequest:
            return replace(super().propose(state), samples=2)

        def valued(self, state: str, replies: Sequence[Sequence[str]]) -> float:
            return 1.0 + len(replies[0])

    def reply(messages: Any, sampling: Any, index: int) -> str:
        return f"- a{index}\n- b{index}\n- c{index}" if "Possible" in messages[-1].text else "The answer is 1"

    for seed in range(3):
        agent = Agent("a", Scripted(reply), tot, {"select": "sample", "breadth": 2, "thoughts": lambda task: Toy(task)})
        trace = asyncio.run(rollout(agent, NUMBER, seed=seed))
        own = derive_seed(seed, "adhoc", NUMBER.id, 0)
        for step in (1, 2):
            states = [event.data for event in trace.events if event.data.get("name", "").startswith(f"{step}.")]
            drawn = choose([each["score"] for each in states], 2, "sample", Random(derive_seed(own, "", step)))
            assert [index for index, each in enumerate(states) if each["status"] == "kept"] == sorted(set(drawn))
        proposals = [call for call in trace.calls if call.nodes and "Possible" in trace.messages(call.at)[-1].text]
        assert proposals and all(len(call.nodes) == 2 for call in proposals)


def test_votes_name_a_choice_from_one_to_the_last() -> None:
    replies = [f"The best choice is {number}." for number in (0, 1, 3, 4, 3)]
    assert count_votes(3, replies) == [1.0, 0.0, 2.0]
    assert count_votes(3, ["The best choice is 9.\nNo: the best choice is 2."]) == [0.0, 1.0, 0.0]


# -- votes --


def test_of_equally_common_answers_the_first_seen_wins() -> None:
    tally = tallied(["7", None, "8.0", "8", "7.0", "9"])
    assert (tally.winner, tally.most, tally.cast, tally.abstained) == ("7", 2, 6, 1)
    assert tallied(["8.0", "7", "8"]).winner == "8.0"  # as it was first given
    assert tallied(["8", "7", "7.0"]).winner == "7" and tallied([None]).winner is None
    replies = iter(["#### 5", "no idea", "#### 6", "#### 6.0"])
    model = Scripted(lambda messages, sampling, index: ["#### 5", "no idea", "#### 6", "#### 6.0"][index])
    assert attempt(self_consistency, model, samples=4).answer == "6" and next(replies) == "#### 5"
    assert share("yes", ["yes.", "Yes, it is", "yesterday", "no", None]) == pytest.approx(2 / 5)
    for flag, other in (
        ("5", "5.3 apples 7"), ("5", "5,000 men 2"), ("5", "5/6 of 2"), ("5", "5:30 or 6"), ("5", "5-6 men"),
        ("5", "5–6 men"),
        ("no", "No-one knows"), ("no", "no‑one"), ("no", "no_one"), ("can", "can't"), ("can", "can’t"), ("5", "5th of 2"),
        ("5", "5−6 men"), ("no", "no‐one"),
    ):  # fmt: skip
        assert share(flag, [other]) == 0, other
    for flag, same in (
        ("5", "5. It has 6"), ("5", "5, not 6"), ("5", "5 apples 7"), ("5", "5: all 6"), ("no", "no - never"),
        ("no", "No.It is not"),
        ("no", "no,never"), ("no", "no/never"), ("no", "no: 5"), ("no", "no"),
    ):  # fmt: skip
        assert share(flag, [same]) == 1, same


@pytest.mark.parametrize(("agreeing", "voted"), [(2, True), (1, False), (3, True)])
def test_half_of_the_votes_are_enough_for_self_consistency(agreeing: int, voted: bool) -> None:
    def reply(messages: Any, sampling: Any, index: int) -> str:
        if "Actions:" in messages[0].text:
            return "Final Answer: 99"
        return f"#### {7 if index < agreeing else 10 + index}"

    found = attempt(react_cot, Scripted(reply), first="cot", samples=4).answer
    assert found == ("7" if voted else "99")


@pytest.mark.parametrize(("threshold", "flagged"), [(0.5, True), (0.50001, False), (0.25, True)])
def test_a_share_that_is_the_threshold_is_enough(threshold: float, flagged: bool) -> None:
    yes = iter(["yes", "no", "yes", "no"] * 2)
    model = asked(lambda text: next(yes))
    free = Task("1", "Is it?")
    trace = attempt(parallel, model, free, n=4, combine="threshold", threshold=threshold)
    assert trace.answer == ("yes" if flagged else "no")


def test_all_and_any_count_every_branch() -> None:
    for combine, said, answer in (
        ("any", "no no yes no", "yes"),
        ("all", "yes yes no yes", "no"),
        ("all", "yes yes yes yes", "yes"),
    ):
        words = iter(said.split())
        model = asked(lambda text, words=words: next(words))  # type: ignore[misc]
        assert attempt(parallel, model, Task("1", "Is it?"), n=4, combine=combine).answer == answer


def test_paragraphs_are_shared_out_with_the_question_under_each() -> None:
    task = Task("1", "\n\n".join(["a" * 30, "b" * 10, "c" * 10, "d" * 10, "Q?"]))
    parts = [part.prompt.split("\n\n") for part in paragraphs(task, 2)]
    assert [[text[0] for text in part] for part in parts] == [["a", "Q"], ["b", "c", "d", "Q"]]
    assert len(paragraphs(task, 9)) == 4 and len(paragraphs(Task("1", "Q?"), 3)) == 1


# -- judges --


def test_a_verdict_is_the_most_probable_and_equal_chances_tie() -> None:
    assert winner({"A": 0.4, "B": 0.4, "tie": 0.2}) == "tie" and winner({"A": 0.5, "B": 0.3, "tie": 0.2}) == "A"
    assert winner({"A": 0.3, "B": 0.4, "tie": 0.3}) == "B" and winner({"A": 0.3, "B": 0.3001, "tie": 0.3999}) == "tie"
    assert (
        winner({"A>>B": 0.3, "A>B": 0.2, "B>A": 0.4, "tie": 0.1}) == "A"
        and winner({"A": 0.4, "B": 0.2, "tie": 0.4}) == "A"
    )
    assert [swapped(name) for name in ("A", "B", "tie", "A>>B", "B>A")] == ["B", "A", "tie", "B>>A", "A>B"]


def test_a_pair_is_seen_from_the_first_order_and_position_is_told() -> None:
    task = Task(
        "1",
        "?",
        metadata={
            "judge": {"protocol": "pairwise", "fields": {"question": "q", "answer_a": "XONE", "answer_b": "XTWO"}}
        },
    )
    table = {
        "XONE": {"A": 0.6, "B": 0.1, "tie": 0.3},
        "XTWO": {"A": 0.5, "B": 0.3, "tie": 0.2},
    }  # by what is shown first
    names = {verdict.label: verdict.name for verdict in judge_protocol("pairwise").verdicts}

    def score(prompt: str, label: str) -> float:
        first = "XONE" if prompt.index("XONE") < prompt.index("XTWO") else "XTWO"
        return math.log(table[first][names[label]])

    trace = attempt(judge, Scripted([], score=score), task)
    (found,) = [event.data for event in trace.events if event.kind == "judgement"]
    assert found["probabilities"] == pytest.approx({"A": (0.6 + 0.3) / 2, "B": (0.1 + 0.5) / 2, "tie": (0.3 + 0.2) / 2})
    assert found["orders"] == ["A", "B"] and trace.answer == "A"
    assert found["first"] == pytest.approx(((0.6 + 0.15) + (0.5 + 0.1)) / 2)
    assert found["value"] == pytest.approx(0.45 + 0.25 / 2)
    masses = {"XONE": 0.9, "XTWO": 0.6}  # how probable any verdict is at all: the lower one is told

    def doubtful(prompt: str, label: str) -> float:
        return score(prompt, label) + math.log(
            masses["XONE" if prompt.index("XONE") < prompt.index("XTWO") else "XTWO"]
        )

    trace = attempt(judge, Scripted([], score=doubtful), task)
    assert trace.answer == "A" and next(e for e in trace.events if e.kind == "judgement").data["mass"] == pytest.approx(
        0.6
    )
    agreed = attempt(judge, Scripted([], score=score), task, combine="agree")
    assert agreed.answer == "tie"
    second = attempt(judge, Scripted([], score=score), task, orders="second")
    assert second.answer == "B"


async def worded(said: str, labels: Sequence[str]) -> str:
    """The label that a judge names in words."""
    found: list[str] = []

    async def pattern(task: Task, ctx: Context) -> str:
        found.append((await distribution(ctx.say("?"), labels, "words")).top)
        return ""

    trace = await rollout(Agent("a", Scripted([said, said]), pattern), NUMBER)
    if trace.error is not None:
        raise ModelError(trace.error.message)
    return found[0]


def test_words_are_one_verdict_or_asked_for_again_and_name_the_first_label() -> None:
    fields = {"question": "q", "answer_a": "one", "answer_b": "two"}
    task = Task("1", "?", metadata={"judge": {"protocol": "pairwise", "fields": fields}})
    first, second = (verdict.label for verdict in judge_protocol("pairwise").verdicts[:2])
    for said, answer in (([f"{first}: it is right"], "A"), ([f"{first} or {second}, so {first}", second], "B")):
        assert attempt(judge, Scripted(said), task, how="words", orders="first").answer == answer
    with pytest.raises(ModelError, match="one of yes, no and nothing else was asked for twice"):
        asyncio.run(worded("perhaps", ("yes", "no")))
    routes = {"sums": cot, "words": direct}
    for said, name in (
        ("sums, or words, or sums", "sums"),
        ("words before sums and words", "words"),
        ("neither", "sums"),
    ):
        trace = attempt(route, Endpoint([said, "#### 5"]), patterns=routes)
        kept = [
            event.data["name"] for event in trace.events if event.kind == "branch" and event.data["status"] == "kept"
        ]
        assert kept == [name] and trace.answer == "5"


@pytest.mark.parametrize(
    ("said", "labels", "chosen"),
    [
        ("route_ab then route_a", ("route_a", "route_ab"), "route_ab"),  # of two at one place the longer
        ("route_a then route_ab", ("route_a", "route_ab"), "route_a"),
        ("ROUTE_AB", ("route_ab", "route_a"), "route_ab"),
        ("none of them", ("first", "second"), "first"),
    ],
)
def test_a_label_that_begins_another_is_told_from_it(said: str, labels: tuple[str, str], chosen: str) -> None:
    trace = attempt(route, Endpoint([said, "#### 5"]), patterns=dict.fromkeys(labels, direct))
    branches = {
        event.data["name"]: event.data for event in trace.events if event.kind == "branch" and "at" in event.data
    }
    statuses = {name: branches[name]["score"] for name in labels if branches[name]["score"] is not None}
    assert chosen in {event.data["name"] for event in trace.events if event.data.get("status") == "done"}
    assert all(score == float(name == chosen) for name, score in statuses.items())


@pytest.mark.parametrize(
    ("confidence", "told"),
    [(0, 0.0), (37, 0.37), (100, 1.0), (101, 1.0), (-1, 1.0), (None, 1.0), ("80", 1.0), (True, 1.0), (50.0, 1.0)],
)
def test_a_confidence_that_is_no_percentage_is_100_as_the_published_prompt_says(
    confidence: object, told: float
) -> None:
    body = {"extracted_final_answer": "7", "reasoning": "", "correct": "no", "confidence": confidence}
    found = _from_object(judge_protocol("hle"), body, 2, 3)
    assert found.extracted == {"answer": "7", "confidence": told} and (found.verdict, found.value) == ("no", 0.0)
    assert (found.forged, found.cut, found.probabilities) == (2, 3, {"no": 1.0})


def test_rules_settle_empty_and_equal_answers() -> None:
    pair = judge_protocol("pairwise")
    for a, b, verdict, value in (
        ("x", "", "A", 1.0),
        (" ", "x", "B", 0.0),
        ("x", "x ", "tie", 0.5),
        ("", "", "tie", 0.5),
    ):
        found = settled(pair, {"answer_a": a, "answer_b": b})
        assert found is not None and (found.verdict, found.value) == (verdict, value)
    assert settled(pair, {"answer_a": "x", "answer_b": "y"}) is None
    rubric = judge_protocol("rubric", low=2, high=5)
    worst = settled(rubric, {"answer": " "})
    assert worst is not None and (worst.verdict, worst.value) == ("2", 2.0)
    assert rubric.expected({"2": 0.25, "5": 0.75}) == pytest.approx(4.25)
    hard = judge_protocol("arena-hard")
    weights = {verdict.name: verdict.weight for verdict in hard.verdicts}
    assert weights["A>>B"] == 3.0 and weights["A>B"] == 1.0
    assert hard.expected({"A>>B": 0.5, "B>A": 0.5}) == pytest.approx(0.75)


def test_a_long_text_keeps_its_two_ends() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 4) == "ab\n[... 3 characters are left out here ...]\nfg"


def test_log_probs_of_labels_are_normalised_and_followed_to_what_is_left() -> None:
    shares, mass = normalised({"a": math.log(0.1), "b": math.log(0.3)})
    assert shares == pytest.approx({"a": 0.25, "b": 0.75}) and mass == pytest.approx(0.4)
    with pytest.raises(ModelError, match="probability 0"):
        normalised({"a": -math.inf})
    forms = {"A": "[[A]]", "B": "[[B]]", "C": "[[C]]"}
    tokens = [
        [("[[", math.log(0.8)), ("x", math.log(0.2))],
        [("A", math.log(0.5)), ("B", math.log(0.25)), ("C", math.log(0.125))],
    ]
    found = weighed(forms, "[[A]]", tokens)
    assert found is not None and found[1] == pytest.approx(0.8 * 0.875)
    assert found[0] == pytest.approx({"A": 4 / 7, "B": 2 / 7, "C": 1 / 7})
    assert weighed(forms, "[[A]]", [[("no", 0.0)]]) is None


# -- loops --


@pytest.mark.parametrize(("chance", "calls"), [(0.51, 2), (0.5, 4)])
def test_an_answer_is_accepted_above_one_half(chance: float, calls: int) -> None:
    def score(prompt: str, label: str) -> float:
        return math.log(chance if label == "correct" else 1 - chance)

    model = asked(lambda text: "it is fine" if "Check" in text else "1", score=score)
    trace = attempt(evaluator_optimizer, model, rounds=1)
    assert len([call for call in trace.calls if call.kind == "generate"]) == (2 if calls == 2 else 3)


def test_reflections_are_the_last_ones_and_the_last_trial_ends() -> None:
    made = iter(f"lesson {number}" for number in range(1, 9))
    shown: list[str] = []

    def reply(text: str) -> str:
        if "Do not solve" in text:
            return next(made)
        shown.append(text)
        return "The answer is 1"

    async def never(task: Task, ctx: Context, answer: str) -> Feedback:
        return Feedback(False, "no")

    trace = attempt(reflexion, asked(reply), trials=4, memory=2, evaluate=never)
    assert trace.answer == "1" and len(shown) == 4
    lessons = [[number for number in range(1, 9) if f"lesson {number}" in text] for text in shown]
    assert lessons == [[], [1], [1, 2], [2, 3]]


def test_a_plan_is_made_anew_as_often_as_it_may_be_and_has_no_more_steps_than_allowed() -> None:
    def reply(text: str) -> str:
        if "Write a plan" in text or "Write a new plan" in text:
            return "1. a\n2. b\n3. c\n4. d\n5. e"
        return "" if "this step only" in text else "The answer is 3"

    trace = attempt(plan_execute, asked(reply), max_steps=3, replans=1)
    said = [node.message.text for node in trace.nodes if node.message.role == "user"]
    assert sum("this step only" in text for text in said) == 3 and sum("new plan" in text for text in said) == 1
    assert any("at most 2 steps" in text for text in said) and trace.answer == "3"


def test_sub_agents_are_bounded_in_all() -> None:
    model = asked(lambda text: "1. a\n2. b\n3. c" if "Split" in text else "The answer is 2")
    trace = attempt(orchestrate, model, workers=2)
    assert (
        sum(
            event.data["name"].startswith("worker") and event.data["status"] == "done"
            for event in trace.events
            if event.kind == "branch"
        )
        == 2
    )
    assert attempt(orchestrate, model, workers=16, rounds=16, depth=1).error is None
    with pytest.raises(ConfigError, match="allow 257 sub-agents"):
        attempt(orchestrate, model, workers=257, rounds=1)
    with pytest.raises(ConfigError, match="allow 272 sub-agents"):
        attempt(orchestrate, model, workers=16, depth=2)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
@pytest.mark.parametrize("workers", [1, 2, 4, 16, 64])
def test_the_sub_agents_that_options_allow_are_those_of_all_rounds_and_depths(
    workers: int, rounds: int, depth: int
) -> None:
    def below(level: int) -> int:  # each worker of each round may lead as many again
        return 0 if level == 0 else workers * rounds * (1 + below(level - 1))

    def options() -> None:
        check_options(orchestrate, {"workers": workers, "rounds": rounds, "depth": depth})

    if below(depth) <= 256:
        return options()
    with pytest.raises(ConfigError, match=f"allow {below(depth)} sub-agents"):
        options()


def test_a_gate_is_passed_by_the_second_try_or_ends_the_chain() -> None:
    def gate(step: int, text: str) -> str | None:
        return "too short" if len(text) < 3 else None

    for said, answer, calls in ((["a", "long", "#### 5"], "5", 3), (["a", "b"], "b", 2)):
        trace = attempt(chain, Scripted(list(said)), steps=("{question}", "{previous}"), gate=gate)
        assert (trace.answer, len(trace.calls)) == (answer, calls)


def test_as_many_examples_are_shown_as_are_asked_for() -> None:
    examples = [{"question": f"Q{n}", "answer": f"A{n}"} for n in range(3)]
    task = Task("1", "Q?", metadata={"examples": examples})
    model = Scripted(["#### 4"])
    assert attempt(cot, model, task, shots=2).answer == "4"
    assert [message.text for message in model.asked[0].prompt] == [
        "Question: Q0",
        "A0",
        "Question: Q1",
        "A1",
        "Question: Q?",
    ]
    assert attempt(cot, Scripted(["#### 4"]), task, shots=3).error is None
    error = attempt(cot, Scripted(["#### 4"]), task, shots=4).error
    assert error is not None and "carries 3 examples" in error.message


def test_react_takes_its_steps_and_one_more_to_end() -> None:
    model = Scripted(["Action: none[1]"] * 3 + ["Final Answer: 5"])
    trace = attempt(react, model, max_steps=3)
    assert trace.answer == "5" and len(trace.calls) == 4
    assert parse_action("Action: f[1]\nAction: g[2]") == ("f", "1")
    assert parse_action("Final Answer: 1\nAction: f[2]") == ("final answer", "1")
    assert parse_action("Action: f[a[0]]") == ("f", "a[0]") and parse_action("Action: f: x") == ("f", "x")


@pytest.mark.parametrize(
    ("earlier", "offered"), [([], False), (["none"], False), (["a call"], True), (["a call", "none"], True)]
)
@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_reply_offers_tools_where_the_conversation_has_calls_and_ends_after_its_steps(
    earlier: list[str], offered: bool, calls: int
) -> None:
    made = ToolCall("c", "python", {"code": "1"})
    talk = [message for each in earlier for message in (
        user("q"), assistant("", made) if each == "a call" else assistant("fine"),
        *([Message("tool", (ToolResult("c", "python", "1"),))] if each == "a call" else ()),
    )]  # fmt: skip
    model = Scripted([*[assistant("", made)] * calls, "#### 5"])

    async def pattern(task: Task, ctx: Context) -> str:
        for message in talk:
            ctx = ctx.say(message)
        return await reply(task, ctx if not talk else ctx.say("and?"), max_steps=2)

    trace = asyncio.run(rollout(Agent("a", model, pattern, tools=(run_python,)), NUMBER))
    assert [len(request.tools) for request in model.asked[:2]] == [int(offered)] * min(2, calls + 1)
    said = [node.message.text for node in trace.nodes if node.message.role == "user"]
    assert ("No steps are left. Give the answer now." in said) is (calls >= 2)
    assert (NUMBER.question in said) is not bool(talk)
    assert sum(call.kind == "tool" for call in trace.calls) == min(calls, 2)


def test_direct_takes_the_first_of_equally_probable_choices() -> None:
    scores = {" a": -3.0, " b": -1.0, " c": -1.0}
    task = Task("1", "?", choices=tuple(scores), context="q", baseline="A:")
    model = Scripted([], score=lambda prompt, text: scores[text])
    trace = attempt(direct, model, task)
    assert trace.answer == "B" and [call.detail["prompt"] for call in trace.calls] == ["q", "A:"]


@pytest.mark.parametrize(
    ("said", "answer"),
    [("12", "12"), ("12 apples", "12"), ("$1,200.", "1200"), ("x = 3/4", "3/4"), ("twelve", "twelve"), ("**7**", "7")],
)
def test_a_final_answer_is_taken_in_the_form_of_the_task(said: str, answer: str) -> None:
    final = f"Thought: so.\nFinal Answer: {said}"
    for pattern, tools in ((react, ()), (code_act, (run_python,))):
        for replies, options in (
            ([final], {}),
            (["hm", final], {"max_steps": 1}),
        ):  # at once, or when no steps are left
            agent = Agent("a", Scripted(list(replies)), pattern, options, tools)
            assert asyncio.run(rollout(agent, NUMBER)).answer == answer


def test_the_examples_shown_are_those_of_the_tools_there_are_the_calculators_first() -> None:
    for names, shown in (
        ((), ["capital of France"]), (("calculator",), ["12 boxes", "75 - 18"]), (("search",), ["Ana Karel", "Boris Lund"]),
        (("search", "calculator"), ["12 boxes", "75 - 18", "Ana Karel", "Boris Lund"]), (("other",), ["capital of France"]),
    ):  # fmt: skip
        tools = tuple(replace(run_python, spec=replace(run_python.spec, name=name)) for name in names)
        model = Scripted(["Final Answer: 1"])
        asyncio.run(rollout(Agent("a", model, react, tools=tools), NUMBER))
        asked = [message.text for message in model.asked[0].prompt if message.role == "user"]  # type: ignore[union-attr]
        assert [text for text in asked if text.rpartition("\n\n")[2].startswith("Question: ")][
            -1
        ] == "Question: What is 3 * 4 + 2?"
        examples = [text for text in asked[:-1] if "Question: " in text]
        assert len(examples) == len(shown) and all(words in text for words, text in zip(shown, examples, strict=True))
        assert [text.startswith("Answer the question. Write a Thought") for text in examples] == [True] + [False] * (
            len(shown) - 1
        )
        assert all(f"- {name}[" in examples[0] for name in names)


def test_a_world_shows_react_its_own_actions_and_not_those_of_other_tools() -> None:
    world = catalog.benchmark("agentbench_hh:level=1:tasks=1:rounds=3")
    model = Scripted(["Thought: I look.\nAction: act[look]", "Final Answer: done"])
    agent = Agent("a", model, react, tools=(replace(run_python, effect="read"),))
    trace = asyncio.run(rollout(agent, world.tasks(0)[0], benchmark=world))
    texts = [message.text for message in model.asked[0].prompt]  # type: ignore[union-attr]
    shown = [text for text in texts if "Action: " in text]
    assert shown == [
        "Thought: I need act.\nAction: act[go to shelf 1]", "Thought: I need act.\nAction: act[take mug 1 from shelf 1]",
    ] and not any("France" in text for text in texts)  # fmt: skip
    assert trace.error is None and trace.final_state["rounds"] == 1


@pytest.mark.parametrize("replans", [0, 1, 2])
def test_the_planner_is_told_each_result_once(replans: int) -> None:
    def reply(text: str) -> str:
        if "this step only" in text:
            return "" if text.endswith(("step two", "step four")) else f"done with {text[-9:]}"
        if "new plan" in text:
            return "1. step three\n2. step four\n3. step five"
        return "1. step one\n2. step two\n3. step six" if "Write a plan" in text else "The answer is 3"

    model = asked(reply)
    trace = attempt(plan_execute, model, replans=replans, max_steps=5)
    told = trace.messages(trace.calls[-1].nodes[0])
    results = [
        line
        for message in told
        for line in message.text.split("\n")
        if message.role == "user" and line.startswith("step ")
    ]
    done = [
        event.data["name"]
        for event in trace.events
        if event.kind == "branch" and event.data["status"] in ("done", "failed")
    ]
    assert [line.partition(":")[0] for line in results] == done and len(results) == (3, 5, 5)[replans]


class Narrow(Scripted):
    """A model whose context takes so many characters."""

    def __init__(self, most: int, **options: Any):
        super().__init__([], **options)
        self.most, self.seen = most, 0

    async def score(self, prompt: Any, continuations: Sequence[str]) -> Any:
        text = prompt if isinstance(prompt, str) else "".join(message.text for message in prompt)
        self.seen = max(self.seen, len(text))
        if len(text) > self.most - 400 * (text.find("B" * 50) < text.find("A" * 50)):  # a little less for one order
            raise PromptTooLong(f"{len(text)} characters")
        return await super().score(prompt, continuations)


@pytest.mark.parametrize("max_chars", [250, 499, 500, 1000, 1999, 2000])
def test_judged_text_is_halved_until_it_fits_and_never_below_its_least(max_chars: int) -> None:
    fields = {"question": "q", "answer_a": "A" * 2000, "answer_b": "B" * 2000}
    task = Task("1", "?", metadata={"judge": {"protocol": "pairwise", "fields": fields}})
    none = attempt(judge, Narrow(100), task, max_chars=max_chars, orders="first")
    halves = [event.data["max_chars"] for event in none.events if event.kind == "shortened"]
    expected, size = [], max_chars
    while size // 2 >= 250:
        size //= 2
        expected.append(size)
    assert halves == expected and none.error is not None and none.error.kind == "PromptTooLong"


def test_what_is_told_of_a_pair_is_the_worse_of_its_orders() -> None:
    fields = {"question": "q", "answer_a": "A" * 2000, "answer_b": "B" * 2000}
    task = Task("1", "?", metadata={"judge": {"protocol": "pairwise", "fields": fields}})
    wide = Narrow(10**9)
    attempt(judge, wide, task, max_chars=2000)
    for most, cuts in ((wide.seen + 1000, (0, 0)), (wide.seen + 200, (0, 2000))):
        trace = attempt(judge, Narrow(most), task, max_chars=2000)
        (found,) = [event.data for event in trace.events if event.kind == "judgement"]
        assert found["cut"] == max(cuts), most
        first = attempt(judge, Narrow(most), task, max_chars=2000, orders="first")
        assert next(event.data["cut"] for event in first.events if event.kind == "judgement") == cuts[0]


@pytest.mark.parametrize(("baseline", "prompts"), [(None, ["q"]), ("A:", ["q", "A:"]), ("", ["q", ""])])
def test_a_baseline_is_scored_if_there_is_one_however_short(baseline: str | None, prompts: list[str]) -> None:
    task = Task("1", "?", choices=(" a", " b"), context="q", baseline=baseline)
    trace = attempt(direct, Scripted([], score=lambda prompt, text: -1.0), task)
    assert [call.detail["prompt"] for call in trace.calls] == prompts


# -- texts --


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 1\n\\boxed{2} The answer is 3", "1"),
        ("\\boxed{2} The answer is 3", "2"),
        ("The answer is 3.\nThe answer is 4", "4"),
        ("#### 1\n#### 2", "2"),
        ("#### none\nThe answer is 3", "3"),
        ("5 or 6", "6"),
        ("The answer is x = 1/2 = 0.5", "0.5"),
        ("The answer is -1,234.50.", "-1234.50"),
    ],
)
def test_an_answer_is_the_last_of_the_first_kind(text: str, answer: str) -> None:
    assert extract_answer(text, NUMBER) == answer


def test_numbers_and_lists_are_read_to_their_bounds() -> None:
    assert [str(parse_number(text)) for text in ("-1 1/2", "1 1/2", "$5", "15%", "\\frac{3}{4}", "1/0", "1 2", ".5")] == [
        "-3/2", "3/2", "5", "15", "3/4", "None", "None", "1/2",
    ]  # fmt: skip
    assert last_number("7 then 1,000.5 and -3") == "-3" and last_number("x") is None
    assert normal_form(" 72.0 ") == "72" and normal_form("Paris. ") == "paris"
    assert last_boxed(r"\boxed{1} \boxed{a{b}c}") == "a{b}c" and last_boxed(r"\boxed{1") is None
    assert listed("1. a\n- b\nStep 3: c\n4) d\nplain", 3) == ["a", "b", "c"]
    choice = Task("1", "?", choices=("red", "green"))
    assert [extract_answer(text, choice) for text in ("The answer is (b)", "It is red.", "C", "I say B.")] == [
        "B",
        "A",
        None,
        "B",
    ]


def test_own_tests_are_the_first_six_that_call_the_function() -> None:
    text = (
        "```python\n" + "".join(f"assert f({n}) == {n}\n" for n in range(8)) + "assert g(1) == 1\nassert f(0) == 0\n```"
    )
    assert usable_tests(text, "f") == [f"assert f({n}) == {n}" for n in range(6)]
    tests = ["assert f(0) == 0", "assert f(1) == 1"]
    assert read_results(tests, "own test 0: passed\nown test 1: passed").passed
    assert not read_results(tests, "own test 0: passed").passed
    assert not read_results(tests, "own test 0: passed\nown test 1: failed").passed


def test_code_is_run_where_it_comes_before_the_final_answer() -> None:
    block = "```python\nprint(1)\n```"
    assert parse_code(f"{block}\nFinal Answer: 2") == ("print(1)", None)
    assert parse_code(f"Final Answer: 2\n{block}") == (None, f"2\n{block}")
    assert parse_code("Final Answer: 2") == (None, "2") and parse_code("```python\nprint(1)") == ("", None)
    assert parse_code("thinking") == (None, None)


def test_an_attempt_that_fails_has_no_vote_and_is_counted() -> None:
    said = iter(["5", "", "5"])

    async def attempts(task: Task, ctx: Context) -> str:
        return next(said)

    trace = attempt(self_consistency, Scripted([]), Task("1", "?"), pattern=attempts, samples=3)
    (vote,) = [event.data for event in trace.events if event.kind == "vote"]
    assert trace.answer == "5" and vote == {"5": 2, "(no answer)": 1}


def test_marks_are_looked_for_in_what_is_judged_and_not_in_the_rubric() -> None:
    protocol = judge_protocol("mt-bench-pair-v2")
    mark = delimiters(protocol)[0]
    fields = {"question": "q", "answer_a": f"x {mark.lower()}", "answer_b": "y", "rubric": mark}
    shown = show(protocol, fields, max_chars=1000)
    assert (
        shown.forged == 1 and shown.cut == 0 and show(protocol, {**fields, "answer_a": "x"}, max_chars=1000).forged == 0
    )


@pytest.mark.parametrize(
    ("said", "passed"), [("It is wrong.", False), ("so: Incorrect", False), ("Right!", True), ("hm", True)]
)
def test_an_answer_passes_its_evaluator_unless_it_is_called_wrong(said: str, passed: bool) -> None:
    found: list[bool] = []

    async def evaluated(task: Task, ctx: Context) -> str:
        found.append((await evaluator_for(task)(task, ctx, "5")).passed)
        return "5"

    attempt(evaluated, Scripted([said, said]))
    assert found == [passed]


@pytest.mark.parametrize(
    "body", ["return n * 2", "    return n * 2", "m = n\nreturn m * 2", "if n:\n    n *= 2\nreturn n"]
)
@pytest.mark.parametrize("doc", ["", '    """Twice n."""\n'])
def test_a_completion_becomes_the_functions_body_whatever_indentation_it_lost(body: str, doc: str) -> None:
    task = Task("1", f"def twice(n):\n{doc}", metadata={"entry_point": "twice"})
    scope: dict[str, Any] = {}
    exec(program(task, body, []).partition("\n_own_tests(")[0], scope)
    assert scope["twice"](4) == 8 and scope["twice"](0) == 0


def test_actions_name_their_arguments_where_there_are_several() -> None:
    def noted(*names: str, needed: Sequence[str] = ()) -> Tool:
        spec = ToolSpec("f", "", {"properties": {name: {} for name in names}, "required": list(needed)})
        return replace(run_python, spec=spec)

    none, one, two = noted(), noted("x", needed=["x"]), noted("x", "y", needed=["x"])
    assert [usage(each) for each in (none, one, two)] == ["f[]", "f[x]", 'f[{"x": "...", "y": "..."}]']
    assert usage(noted("x", "y")) == usage(two) and usage(noted("x")) == "f[x]"
    assert [arguments_of(each, "'7'") for each in (none, one, two, noted("y", "x"))] == [
        {},
        {"x": "7"},
        {"x": "7"},
        {"y": "7"},
    ]
    both = noted("x", "y", needed=["x", "y"])
    assert arguments_of(both, '{"y": 1}') == {"y": 1} and "takes 2 arguments" in str(arguments_of(both, "7"))
    assert arguments_of(one, "x = 7") == {"x": "7"} and arguments_of(one, "y = 7") == {"x": "y = 7"}
    assert "not valid JSON" in str(arguments_of(one, "{7")) and "no JSON" not in str(arguments_of(one, "{}"))


def test_a_transcript_leaves_out_the_question_and_keeps_the_end() -> None:
    called = assistant("so", ToolCall("1", "f", {"x": 1}))
    messages = [user("question"), called, user("more"), assistant(" done ")]
    assert transcript(messages) == "assistant: so\nf({'x': 1})\nuser: more\nassistant: done"
    assert transcript(messages[:1]) == "" and transcript([*messages[:2], user("z" * 100_000)])[-3:] == "zzz"


@pytest.mark.parametrize("name", ["python", "Python", "PYTHON"])
def test_react_finds_a_tool_whatever_the_case_of_its_name(name: str) -> None:
    model = Scripted([f"Action: {name}[print(3)]", "Final Answer: 5"])
    trace = asyncio.run(rollout(Agent("a", model, react, tools=(run_python,)), NUMBER))
    (call,) = [each for each in trace.calls if each.kind == "tool"]
    assert call.detail["name"] == "python" and trace.answer == "5"


def test_an_empty_reply_is_no_thought_whether_it_is_the_last_or_not() -> None:
    generic = GenericThoughts(NUMBER)
    last = "step\n" * (generic.steps - 1)
    for state in ("", last):
        assert generic.proposed(state, ["", " \n", "the end"]) == [f"{state}the end\n"]
    assert generic.proposed(last, ["a\nb"]) == [f"{last}a b\n"] and generic.proposed("", ["a\nb"]) == ["a\n", "b\n"]
