"""Patterns over several steps, rounds and levels: what is gathered on the way, and what is handed on to the next."""

import json
import math

import pytest

from firsthand.errors import ConfigError, ModelError
from firsthand.message import ToolCall, assistant
from firsthand.patterns.audit import audit
from firsthand.patterns.judge_rag import judge_rag
from firsthand.patterns.orchestrate import orchestrate
from firsthand.patterns.parts.answers import extract_answer
from firsthand.patterns.parts.verdicts import Distribution, _by_schema, weighed
from firsthand.patterns.react_cot import react_cot
from firsthand.patterns.route import route
from firsthand.patterns.thought_action import OVER, thought_action
from firsthand.patterns.toolformer import toolformer
from firsthand.tool import tool
from opened_context import Free, Opened, asks, branch


@tool(effect="read")
def look(place: str) -> str:
    """Look somewhere."""
    if place == "dark":
        raise ValueError("too dark")
    return f"seen {place}"


@tool(effect="write")
def act(action: str) -> str:
    """Act."""
    return f"did {action}"


def called(number, place):
    return ToolCall(number, "look", {"place": place})


def test_an_audit_records_the_calls_and_texts_of_all_steps_of_a_branch():
    steps = [
        assistant("one", called("1", "a"), called("2", "dark")), assistant("two", called("3", "b")), "three",
        "four", assistant("five", called("4", "c")), assistant("six", called("5", "d")), assistant("", called("6", "dark")),
    ]  # fmt: skip
    opened = Opened(steps, tools=(look,))
    opened.run(lambda ctx: audit(asks("Hello", metadata={"pressure": ["p", "q"]}), ctx, max_steps=3))
    fine, refused = {"name": "look", "refused": False}, {"name": "look", "refused": True}
    assert [data for _, data in opened.notes("audit_branch")] == [
        {"name": "opening", "message": "Hello", "reply": "one\ntwo\nthree", "calls": [fine, refused, fine]},
        {"name": "branch 1", "message": "p", "reply": "four", "calls": []},
        {"name": "branch 2", "message": "q", "reply": "five\nsix", "calls": [fine, fine, refused]},
    ]
    assert [(data["name"], data["text"]) for _, data in opened.notes("branch")] == [
        ("opening", "three"), ("branch 1", "four"), ("branch 2", ""),
    ]  # fmt: skip


def test_a_judgement_of_relevance_needs_both_fields_of_every_answer_right():
    task = asks(
        metadata={"rag_judgement": {"metric": "answer_relevance", "question": "Q", "answer": "A", "passages": []}}
    )
    good = {"question": "q", "noncommittal": False}
    for wrong in (
        {"question": "q"}, {"noncommittal": True}, {"question": 1, "noncommittal": True}, {"question": None},
        {"question": "q", "noncommittal": "no"}, {"question": "q", "noncommittal": 0}, {"question": "q" * 99},
    ):  # fmt: skip
        opened = Opened(model=Free([json.dumps(good), json.dumps(wrong)]))
        with pytest.raises(ModelError) as refused:
            opened.run(lambda ctx: judge_rag(task, ctx, questions=2))
        assert str(refused.value) == (
            f"the judge wrote {str(wrong)[:80]!r}: a question and whether the answer is noncommittal"
        )


def test_statements_and_passages_are_shown_to_the_judge_as_they_were_written():
    about = {"metric": "faithfulness", "question": "Q", "answer": "é", "passages": ["ü\n1", " b "]}
    said = [json.dumps({"statements": [" é one ", "\n", "two"]})]
    scored = {"yes": -1.0, "no": -2.0}
    model = Free(said, score=lambda prompt, label: scored[label] if "two" in str(prompt) else -3 - scored[label])
    opened = Opened(model=model)
    answer = opened.run(lambda ctx: judge_rag(asks(metadata={"rag_judgement": about}), ctx))
    assert json.loads(answer) == {"statements": [" é one ", "two"], "verdicts": [False, True]}
    shown = ["".join(talk) for talk, _ in opened.asked]
    assert '\nQuestion: "Q"\nAnswer: "é"\n' in shown[0] and len(shown) == 3
    for text, statement in zip(shown[1:], (" é one ", "two"), strict=True):
        assert f'\nPassage 1: "ü\\n1"\nPassage 2: " b "\nStatement: "{statement}"\nCan' in text


def test_orchestrators_below_the_first_have_its_pattern_its_workers_and_its_rounds():
    async def worker(task, ctx):
        return f"{task.question} is done"

    def planner(messages, sampling, index):
        last = messages[-1].text
        if "Do not answer yet" in last:
            return "1. a\n2. b\n3. c" if last.startswith("Q?") else f"1. {last[0]}x\n2. {last[0]}y\n3. {last[0]}z"
        return "1. more" if "If more is needed" in last and len(messages[0].text) != 1 else "The answer is 7"

    opened = Opened(planner)
    assert opened.run(lambda ctx: orchestrate(asks(), ctx, pattern=worker, workers=2, rounds=2, depth=2)) == "7"
    made = [data["text"] for _, data in opened.notes("branch") if data["status"] == "open"]
    first = ["a", "ax", "ay", "more", "b", "bx", "by", "more"]
    # the one further task of the first is split and has a second round as well
    assert sorted(made) == sorted([*first, "more", "mx", "my", "more"])
    asked = [talk[-1].removeprefix("user: ") for talk, _ in opened.asked]
    assert sum("If more is needed, write up to 2 " in each for each in asked) == 1 + 3
    assert sum("into at most 2 sub-tasks" in each for each in asked) == 1 + 3
    assert sum("Now answer the question" in each for each in asked) == 1 + 3


def test_a_choice_is_quoted_without_the_spaces_and_full_stops_at_its_ends():
    task = asks(choices=(" The  big Cat. ", "Dogs. And cats", "EMU"))
    for text, letter in (
        ("it is THE\nbig cat", "A"), ("dogs. and cats", "B"), ("dogs and cats", None), ("an emu", "C"),
        ("the big cat, an emu", None), ("the cat", None),
    ):  # fmt: skip
        assert extract_answer(text, task) == letter, text
    letters = asks(choices=("x1", "y1", "z1"))
    for text, letter in (("A  dog", None), ("A   .", "A"), ("A \t\ndog", "A"), ("B  dog", None), ("A", "A")):
        assert extract_answer(text, letters) == letter, text
    dots = asks(choices=("Dog.", "...", " . "))
    assert extract_answer("a dog", dots) == "A", "a choice of full stops alone is quoted nowhere"


def test_tokens_that_leave_the_text_give_no_distribution_at_all():
    forms = {"yes": "yes", "no": "no", "yet": "yet"}
    begun = [("ye", math.log(0.5)), ("no", math.log(0.25))]
    assert weighed(forms, "yes", [begun, [("x", 0.0)]]) is None, "the 1/4 of `no` is not given alone"
    assert weighed(forms, "yes", [begun, []]) is None
    assert weighed(forms, "yes", [begun, [("", 0.0)]]) is None
    shares, mass = weighed(
        forms, "yes", [begun, [("s", math.log(0.5)), ("t", math.log(0.125)), ("", 0.0)], [("x", 0.0)]]
    )
    # yes 1/2 * 1/2, no 1/4, yet 1/2 * 1/8: 9/16 in all
    assert shares == pytest.approx({"yes": 4 / 9, "no": 4 / 9, "yet": 1 / 9}) and mass == pytest.approx(9 / 16)


def test_a_verdict_as_json_may_have_white_space_around_it():
    for text in ('\n {"verdict": "[[B]]"}', '{"verdict": "[[B]]"} \n', '\t{ "verdict" : "[[B]]" }\r\n'):
        found = Opened(model=Free([text])).run(lambda ctx: _by_schema(ctx.say("Q"), ("[[A]]", "[[B]]")))
        assert found == Distribution({"[[A]]": 0.0, "[[B]]": 1.0}, "grammar"), text


def test_react_after_chains_that_disagree_has_the_same_steps_and_native_calls():
    def says(messages, sampling, index):
        if sampling.temperature:
            return ("The answer is 5", "The answer is 6", "The answer is 7")[index]
        return assistant("", called(f"{len(messages)}", "a"))

    opened = Opened(says, tools=(look,))
    opened.run(lambda ctx: react_cot(asks(), ctx, first="cot", samples=3, temperature=0.4, max_steps=2, native=True))
    assert opened.notes("branch") == [branch("cot", "pruned", None, "1 of 3 votes agree", 1 / 3)]
    settings = [each for _, each in opened.asked]
    assert settings[0] == {"temperature": 0.4, "n": 3}
    assert settings[1:] == [{"tools": ["look"]}] * 2 + [{}], "two steps, and the answer"


def test_of_three_routes_the_taken_one_is_kept_though_it_has_less_than_half():
    async def bare(task, ctx):
        return ctx.text if ctx.messages else "taken"

    shares = {"a": 0.35, "b": 0.4, "c": 0.25}
    opened = Opened(score=lambda prompt, label: math.log(shares[label] / 2))
    assert opened.run(lambda ctx: route(asks(), ctx, patterns=dict.fromkeys(shares, bare))) == "taken"
    assert opened.notes("branch") == [
        branch("a", "pruned", 0, score=0.35), branch("b", "kept", 0, score=0.4), branch("c", "pruned", 0, score=0.25),
        branch("b", "open", None, "Q?"), branch("b", "done", None, "taken"),
    ]  # fmt: skip
    thirds = Opened(score=lambda prompt, label: -1.0)
    thirds.run(lambda ctx: route(asks(), ctx, patterns={"z": bare, "y": bare, "x": bare}))
    assert [(d["name"], d["status"], d["score"]) for _, d in thirds.notes("branch")][:3] == [
        ("z", "kept", 0.3333), ("y", "pruned", 0.3333), ("x", "pruned", 0.3333),
    ]  # fmt: skip


def test_a_task_is_over_only_if_its_own_act_was_called_before():
    def after(*calls):
        async def run(ctx):
            for call in calls:
                await ctx.call(call)
            ctx.attempt.tools.clear()
            ctx.attempt.own_tools.clear()
            return await thought_action(asks(), ctx)

        return lambda: Opened(tools=(act, look)).run(run)

    with pytest.raises(
        ConfigError, match=r"^thought_action acts by the tool `act`, and there is none: run it on a world"
    ):
        after(called("1", "a"))()
    with pytest.raises(ConfigError, match=r"there is none"):
        after()()
    moved = ToolCall("2", "act", {"action": "go"})
    assert after(called("1", "a"), moved)() == after(moved, called("1", "a"))() == OVER

    async def asked(ctx):
        await ctx.say("act").generate()
        return await thought_action(asks(), ctx)

    with pytest.raises(ConfigError, match=r"there is none"):
        Opened(["act"], tools=(look,)).run(asked)


def test_an_annotated_text_that_ends_without_a_call_keeps_what_was_written_before():
    opened = Opened(["It [look(a)", " and [look(dark)", " ends."], tools=(look,))
    assert opened.run(lambda ctx: toolformer(asks(), ctx, max_calls=5)) == "It and ends."
    assert [prompt for prompt, _ in opened.asked] == [
        "Q?", "Q?It [look(a) -> seen a]", "Q?It [look(a) -> seen a] and [look(dark)]",
    ]  # fmt: skip
    number = Opened(["so 5 [look(a)", " apples"], tools=(look,))
    assert number.run(lambda ctx: toolformer(asks(hint="a number"), ctx, max_calls=2)) == "5"


def test_the_last_64_stops_and_the_result_without_its_margins_are_given_on():
    @tool(effect="read")
    def pad(place: str) -> str:
        """Look with margins."""
        return f" \n{place}  is\n"

    stops = tuple(f"s{number}" for number in range(64))
    opened = Opened(["It [pad( a )", "."], tools=(pad,))
    assert opened.run(lambda ctx: toolformer(asks(sampling={"stop": stops}), ctx, max_calls=1)) == "It."
    assert [prompt for prompt, _ in opened.asked] == ["Q?", "Q?It [pad( a ) -> a  is]"]
    assert opened.asked[0][1]["stop"] == (*stops[1:], " ->")
