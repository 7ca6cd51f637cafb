"""Patterns that talk a question through: every request with all its settings, every note with its place in the "
"trace."""

import math
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.loop.concurrency import derive_seed
from firsthand.message import ToolCall, assistant
from firsthand.patterns.chain import _fill, chain
from firsthand.patterns.constitutional import constitutional
from firsthand.patterns.debate import _told, debate
from firsthand.patterns.deliberative import deliberative
from firsthand.patterns.evaluator_optimizer import _revision, evaluator_optimizer
from firsthand.patterns.parts.constitution import load_constitution
from firsthand.patterns.parts.feedback import Feedback
from firsthand.patterns.parts.probes import probe
from firsthand.patterns.reflexion import last_said, reflection_prompt, reflexion, remembering, shown, transcript
from firsthand.tool import tool
from opened_context import Opened, asks, branch

STEP = "Let's think step by step."
OPENING = f'Q?\n\nEnd with "The answer is" and the answer.\n\n{STEP}'
RULES = {each.id: each for each in load_constitution()}


@tool(effect="read")
def look(place: str) -> str:
    """Look somewhere."""
    if place == "dark":
        raise ValueError("too dark")
    return f"seen {place}"


def pair(correct, incorrect):
    return lambda prompt, continuation: {"correct": correct, "incorrect": incorrect}[continuation]


def test_constitutional_criticises_and_revises_by_one_principle_a_round():
    opened = Opened(["first", "c1", " second ", "c2", "second", "c3", " "])
    task = asks(sampling={"max_tokens": 77})
    found = opened.run(lambda ctx: constitutional(task, ctx, rounds=3, principles="honest.facts+honest.unknown"))
    assert found == "second"
    notes = opened.notes("principle")
    assert notes[0][1]["id"] != notes[1][1]["id"], "none comes again until all have had a turn"
    revise = (
        "user: Write the answer to the request again so that it follows the principle. If nothing is wrong with "
        "it, repeat it. "
        "Reply with the answer alone."
    )

    def criticised(answer, id):
        about = f"{RULES[id].rule} {RULES[id].critique}"
        return (
            f"user: Request: Q?\n\nAnswer: {answer}\n\nCriticise the answer by this principle: {about} Reply in "
            f"one or two "
            "sentences."
        )

    one, two, three = (
        criticised(*each) for each in zip(("first", "second", "second"), (n["id"] for _, n in notes), strict=True)
    )
    assert opened.asked == [
        (["user: Q?"], {"max_tokens": 77}),
        ([one], {}), ([one, "assistant: c1", revise], {"max_tokens": 77}),
        ([two], {}), ([two, "assistant: c2", revise], {"max_tokens": 77}),
        ([three], {}), ([three, "assistant: c3", revise], {"max_tokens": 77}),
    ]  # fmt: skip
    assert opened.notes() == [
        branch("answer", "open", None, "Q?"), branch("answer", "done", 1, "first"),
        ("principle", {"id": notes[0][1]["id"], "round": 1, "changed": True, "critique": "c1"}),
        branch("revision 1", "kept", 5, " second "),
        ("principle", {"id": notes[1][1]["id"], "round": 2, "changed": False, "critique": "c2"}),
        branch("revision 2", "kept", 9, "second"),
        ("principle", {"id": notes[2][1]["id"], "round": 3, "changed": True, "critique": "c3"}),
        branch("revision 3", "kept", 13, " "),
    ]  # fmt: skip
    for id in ("t", "u"):
        order = Random(derive_seed("constitutional", id)).sample(range(3), 3)
        told = Opened(["a", *["c", "a"] * 3])
        told.run(lambda ctx, id=id: constitutional(replace(asks(), id=id), ctx, rounds=3, principles="honest"))
        honest = [name for name in RULES if name.startswith("honest.")]
        assert [data["id"] for _, data in told.notes("principle")] == [honest[place] for place in order]
    for scored in (asks(choices=("x", "y"), context="C"), asks(metadata={"probes": [probe("p", [], ["x"])]})):
        alone = Opened(score=lambda p, c: -1.0)
        assert alone.run(lambda ctx, task=scored: constitutional(task, ctx)) in ("A", "x") and len(alone.asked) == 1
    assert Opened(["a"]).run(lambda ctx: constitutional(asks(), ctx, rounds=0)) == "a"
    with pytest.raises(ConfigError, match=r"^rounds is -1: give 0 or more$"):
        Opened().run(lambda ctx: constitutional(asks(), ctx, rounds=-1))


def test_deliberative_reasons_about_the_principles_before_it_answers():
    policy = "system: own\n\nFollow these principles:\n[honest.facts] " + RULES["honest.facts"].rule
    opened = Opened(["[honest.facts] and honest.unknown: answer", "The answer is red"], system="own")
    task = asks(hint="a word", sampling={"max_tokens": 9})
    assert opened.run(lambda ctx: deliberative(task, ctx, principles="honest.facts")) == "red"
    asked = (
        "user: Request: Q?\n\nAnswer with a word only.\n\nDo not answer yet. Name the ids of the principles that "
        "apply to this "
        "request, and say in one sentence whether to answer it or to decline."
    )
    reply = [
        "assistant: [honest.facts] and honest.unknown: answer",
        "user: Now reply to the request itself, following the principles.",
    ]
    assert opened.asked == [([policy, asked], {}), ([policy, asked, *reply], {"max_tokens": 9})]
    assert opened.notes() == [("principles", {"ids": ["honest.facts"]})]
    for given, options in (
        (asks(), {"reason": False}), (asks(context="C:"), {}), (asks(choices=("x",), requests=((None, "x"),)), {}),
        (asks(metadata={"probes": [probe("p", [("user", "u")], ["x"])]}), {}),
    ):  # fmt: skip
        alone = Opened(["red"], score=lambda p, c: -1.0)
        alone.run(
            lambda ctx, given=given, options=options: deliberative(given, ctx, principles="honest.facts", **options)
        )
        assert len(alone.asked) == 1 and [name for name, _ in alone.notes("principles")] == [], given
        assert [data["name"] for _, data in alone.notes("branch")] == ["answer", "answer"]
        if given.context is None:
            assert alone.asked[0][0][0] == policy.replace("own\n\n", "")


def test_reflexion_learns_from_each_failed_trial():
    async def evaluate(task, ctx, answer):
        return Feedback(answer == "A3", f"fb {answer}")

    opened = Opened(["A1", " l1 ", "A2", "l2", "A3"])
    assert (
        opened.run(lambda ctx: reflexion(asks(), ctx, evaluate=evaluate, strategy="both", memory=1, trials=4)) == "A3"
    )
    again = "Q?\n\nYou tried this before and failed. This was the end of your last attempt:\nassistant: {}\n\n"
    again += "You tried this before and failed. What to do otherwise, in your own words:\n1. {}"
    lesson = (
        "user: This problem was attempted, and the attempt failed.\n\nProblem:\nQ?\n\nAttempt:\nassistant: "
        "{0}\n\nWhat came of it:"
        "\nfb {0}\n\n{1}Do not solve the problem now. Say in a few sentences what went wrong, and what to do "
        "otherwise next time."
    )
    end = OPENING.removeprefix("Q?")
    assert opened.asked == [
        ([f"user: {OPENING}"], {}), ([lesson.format("A1", "")], {}), ([f"user: {again.format('A1', 'l1')}{end}"], {}),
        ([lesson.format("A2", "Earlier reflections:\n1. l1\n\n")], {}),
        ([f"user: {again.format('A2', 'l2')}{end}"], {}),
    ]  # fmt: skip
    assert opened.notes() == [
        branch("trial.1", "failed", 1, "A1"), branch("trial.2", "failed", 5, "A2"), branch("trial.3", "done", 9, "A3"),
    ]  # fmt: skip
    for strategy, replies, prompts in (
        ("none", ["x", "y"], [OPENING, OPENING]),
        ("last_attempt", ["x", "y"],
        [OPENING, again.format("x", "").partition("\n\nYou tried this before and failed. What")[0] + end]),
    ):  # fmt: skip
        last = Opened(replies)
        assert last.run(lambda ctx, s=strategy: reflexion(asks(), ctx, evaluate=evaluate, strategy=s, trials=2)) == "y"
        assert [talk for talk, _ in last.asked] == [[f"user: {each}"] for each in prompts], strategy


def test_a_trial_that_says_nothing_is_told_by_its_answer():
    async def silent(task, ctx):
        return "x" * 201

    async def evaluate(task, ctx, answer):
        return Feedback(False, "no")

    opened = Opened(["lesson"])
    run = opened.run(lambda ctx: reflexion(asks(), ctx.say("before"), pattern=silent, evaluate=evaluate, trials=2))
    assert run == "x" * 201
    assert [f"\n\nAttempt:\nassistant: {'x' * 201}\n\n" in talk[-1] for talk, _ in opened.asked] == [True]
    assert opened.asked[0][0][0] == "user: before"
    assert opened.notes() == [branch(f"trial.{n}", "failed", None, "x" * 200) for n in (1, 2)]
    judged = Opened(["A", "right"])
    assert judged.run(lambda ctx: reflexion(asks(), ctx)) == "A"
    assert judged.asked[1][0][0].startswith("user: Problem:\nQ?\n\nProposed answer:\nA\n\nCheck the answer")
    for options in ({"trials": 0}, {"memory": 0}):
        given = {"trials": 3, "memory": 3, **options}
        with pytest.raises(ConfigError) as told:
            Opened().run(lambda ctx, options=options: reflexion(asks(), ctx, **options))
        assert str(told.value) == f"trials is {given['trials']} and memory {given['memory']}: give 1 or more of each"


def test_a_prompt_of_reflexion_has_what_there_is():
    task = asks(choices=("x", "y"))
    assert remembering(task, []) == task
    assert remembering(task, ["a", "b"], "said").prompt == (
        "Q?\n\nYou tried this before and failed. This was the end of your last attempt:\nsaid\n\n"
        "You tried this before and failed. What to do otherwise, in your own words:\n1. a\n2. b"
    )
    asked = reflection_prompt(task, "said", Feedback(False, "fb"), ["a", "b"])
    assert asked == (
        "This problem was attempted, and the attempt failed.\n\nProblem:\nQ?\nA. x\nB. "
        "y\n\nAttempt:\nsaid\n\nWhat came of it:\n"
        "fb\n\nEarlier reflections:\n1. a\n2. b\n\nDo not solve the problem now. Say in a few sentences what "
        "went wrong, and what "
        "to do otherwise next time."
    )
    talk = [
        assistant("first"),
        assistant(" I look. ", ToolCall("1", "look", {"place": "a"})),
        assistant("", ToolCall("2", "x", {})),
    ]
    assert (
        transcript(talk) == "assistant: I look. \nlook({'place': 'a'})\nassistant: x({})" and transcript(talk[:1]) == ""
    )
    assert shown(assistant("a", ToolCall("2", "x", {}))) == "a\nx({})"
    assert transcript([assistant("q"), assistant("z" * 13_000)]) == "z" * 12_000


def test_the_last_message_is_that_of_the_own_branch_or_of_the_last_one_below():
    opened = Opened(lambda messages, sampling, index: f"re {messages[-1].text}")

    async def both(ctx):
        assert last_said(ctx, 0) is None
        own = await (await ctx.say("before").generate()).say("own").generate()
        found = [last_said(ctx, 0) == own.node, last_said(ctx, 2)]

        async def side(name):
            mine = await ctx.say(name).generate()
            return mine.node, last_said(ctx, 0)

        sides = await ctx.group(side(name) for name in ("a", "b"))
        return [
            *found,
            [node == seen for node, seen in sides],
            last_said(ctx, 2) == sides[1][0],
            last_said(ctx, 0) == own.node,
        ]

    assert opened.run(both) == [True, None, [True, True], True, True]


def test_of_branches_that_end_in_any_order_the_last_in_place_has_said_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firsthand.patterns.reflexion.current_branch", lambda: SimpleNamespace(path=""))
    calls = [SimpleNamespace(id=f"{path}:0", nodes=(node,)) for path, node in (("1.1", 7), ("1.0", 8))]
    ctx: Any = SimpleNamespace(attempt=SimpleNamespace(calls=calls))
    assert last_said(ctx, 0) == 7, "the slower branch of 1.0 does not take the place of 1.1"


def test_a_debate_shows_each_agent_the_others_and_counts_the_changed():
    then = {"so 5": "6", "so 6": "6", "none": "x"}
    opened = Opened(lambda messages, _, index: list(then)[index] if len(messages) == 1 else then[messages[1].text])
    task = asks(hint="a number")
    assert opened.run(lambda ctx: debate(task, ctx, agents=3, rounds=2, temperature=0.4)) == "6"
    others = (
        "{}\n\nThese are the solutions of other agents. Use them as advice, which may be wrong, and give your "
        "own answer again. "
        'End with "The answer is" and a number.'
    )
    first = "user: " + OPENING.replace("the answer.", "a number.")
    said = ["so 5", "so 6", "none"]
    told = [_told(said, index) for index in range(3)]
    assert told[1] == "Solution of agent 1:\nso 5\n\nSolution of agent 2:\nnone"
    assert opened.asked == [
        ([first], {"temperature": 0.4, "n": 3}),
        *(([first, f"assistant: {text}", f"user: {others.format(seen)}"], {"temperature": 0.4}) for text,
        seen in zip(said, told, strict=True)),
    ]  # fmt: skip
    assert opened.notes() == [("debate", {"round": 2, "changed": 1}), ("vote", {"6": 2, "(no answer)": 1})]
    silent = Opened(lambda m, s, i: f"so {i}")
    assert silent.run(lambda ctx: debate(task, ctx, agents=2, rounds=1)) == "0"
    words = Opened(lambda m, s, i: "none")
    assert words.run(lambda ctx: debate(task, ctx, agents=2, rounds=1)) == "none"
    for options, message in (
        ({"agents": 1}, "agents is 1 and rounds 2: give 2 or more agents, and 1 round or more"),
        ({"rounds": 0}, "agents is 3 and rounds 0: give 2 or more agents, and 1 round or more"),
    ):
        with pytest.raises(ConfigError) as refused:
            Opened().run(lambda ctx, options=options: debate(asks(), ctx, **options))
        assert str(refused.value) == message


def test_an_answer_is_judged_and_revised_until_it_is_accepted():
    def score(prompt, continuation):
        chance = {"bad": 0.25, "so so": 0.5, "good": 0.75}[prompt.split("\n")[-2]]
        return math.log(chance if continuation == "correct" else 1 - chance)

    opened = Opened(["1", "bad", "2", "so so", "3", "good"], score=score)
    task = asks(context=None, hint="a number")
    assert opened.run(lambda ctx: evaluator_optimizer(task, ctx, rounds=3)) == "3"
    check = "user: Q?\n\nProposed answer: {}\n\nCheck this answer. Say in a few sentences what is wrong with it, "
    check += "or that nothing is."
    last = "user: Is the proposed answer correct or incorrect? Answer in one word."
    form = "\n\nAnswer with a number only."
    revised = "Q?\n\nA rejected answer: {}\nFeedback: {}\n\nGive a better answer."
    words = ("correct", "incorrect")
    assert opened.asked == [
        ([f"user: Q?{form}"], {}),
        ([check.format(1)], {}), ([check.format(1), "assistant: bad", last], words),
        ([f"user: {revised.format(1, 'bad')}{form}"], {}),
        ([check.format(2)], {}), ([check.format(2), "assistant: so so", last], words),
        ([f"user: {revised.format(2, 'so so')}{form}"], {}),
        ([check.format(3)], {}), ([check.format(3), "assistant: good", last], words),
    ]  # fmt: skip
    assert opened.notes() == [
        branch("answer", "open", None, "Q?"), branch("answer", "done", 1, "1"),
        branch("judge 1", "pruned", 3, "bad", 0.25),
        branch("revision 1", "open", None, revised.format(1, "bad")), branch("revision 1", "done", 6, "2"),
        branch("judge 2", "pruned", 8, "so so", 0.5),
        branch("revision 2", "open", None, revised.format(2, "so so")), branch("revision 2", "done", 11, "3"),
        branch("judge 3", "kept", 13, "good", 0.75),
    ]  # fmt: skip
    task = asks(context="C:", choices=("x",))
    again = _revision(task, "A", "fb")
    assert (again.id, again.prompt, again.context, again.choices) == (
        "t/revision",
        revised.format("A", "fb"),
        None,
        ("x",),
    )


def test_a_chain_tells_a_step_once_what_was_wrong_and_ends_where_it_fails_again():
    opened = Opened(["ab", "abcd", "x", "y"])

    def gate(number, text):
        return f"{number} {text}!" if len(text) < 3 else None

    steps = ("{question}|{previous}|{wanted}", "then {previous} {{x}} {wanted}", "never")
    assert opened.run(lambda ctx: chain(asks(hint="a word"), ctx, steps=steps, gate=gate)) == "y"
    one, two = "user: Q?||a word", "user: then abcd {x} a word"
    assert opened.asked == [
        ([one], {}), ([one, "assistant: ab", "user: That cannot be used: 1 ab!\nWrite it again."], {}),
        ([two], {}), ([two, "assistant: x", "user: That cannot be used: 2 x!\nWrite it again."], {}),
    ]  # fmt: skip
    assert opened.notes() == [
        branch("step 1", "pruned", 1, "1 ab!"), branch("step 1", "done", 3, "abcd"),
        branch("step 2", "pruned", 5, "2 x!"), branch("step 2", "failed", 7, "2 y!"),
    ]  # fmt: skip
    usual = Opened(["facts", "work", "The answer is 7."])
    assert usual.run(lambda ctx: chain(asks(), ctx)) == "7"
    assert [talk for talk, _ in usual.asked] == [
        ["user: Q?\n\nDo not answer yet. List the facts that are given, and what is asked."],
        ["user: Q?\n\nFacts:\nfacts\n\nWork out the answer from these facts."],
        ['user: Q?\n\nSolution:\nwork\n\nEnd with "The answer is" and the answer.'],
    ]
    assert usual.notes() == [
        branch(f"step {n}", "done", 2 * n - 1, text) for n, text in enumerate(("facts", "work", "The answer is 7."), 1)
    ]
    assert _fill("{previous}{question}{{}}", asks("{q}"), "{p}") == "{p}{q}{}"
    with pytest.raises(ConfigError) as told:
        _fill("{other}" + "x" * 60, asks(), "")
    assert str(told.value) == (
        f"the step '{{other}}{'x' * 53}' cannot be filled in ('other'): it may hold {{question}}, "
        f"{{previous}} and {{wanted}}, and "
        "other braces doubled"
    )
    with pytest.raises(ConfigError, match=r"^steps is empty: give one template or more, such as '\{question\}'$"):
        Opened().run(lambda ctx: chain(asks(), ctx, steps=()))
