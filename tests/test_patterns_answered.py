"""Patterns that answer at once, vote, choose or hand over: every request with its settings, every note with its "
"place."""

import math
from functools import partial

import pytest

from firsthand import catalog
from firsthand.errors import ConfigError
from firsthand.message import ToolCall, assistant
from firsthand.patterns.best_of_n import best_of_n, proxy_of
from firsthand.patterns.blackboard_team import _parts, blackboard_team
from firsthand.patterns.cot import check_shots, cot, opening
from firsthand.patterns.direct import _logprobs, direct, question
from firsthand.patterns.parts.probes import probe
from firsthand.patterns.parts.voting import Tally
from firsthand.patterns.react_cot import react_cot
from firsthand.patterns.reply import reply
from firsthand.patterns.route import _about, route
from firsthand.patterns.self_consistency import check_votes, self_consistency, vote
from firsthand.patterns.swarm import SPECIALISTS, swarm
from firsthand.tool import tool
from opened_context import Opened, asks, branch

STEP = "Let's think step by step."
OPENING = f'user: Q?\n\nEnd with "The answer is" and the answer.\n\n{STEP}'


@tool(effect="read")
def look(place: str) -> str:
    """Look somewhere."""
    return f"seen {place}"


def told(kind, call):
    with pytest.raises(kind) as refused:
        call()
    return str(refused.value)


def test_a_chain_of_thought_with_and_without_examples():
    examples = [{"question": "1?", "answer": 1}, {"question": "2?", "answer": "two"}, {"question": "3?", "answer": 3}]
    task = asks(choices=("x", "y"), metadata={"examples": examples})
    opened = Opened(["so (B)."])
    assert opened.run(lambda ctx: cot(task, ctx, shots=2)) == "B"
    assert opened.asked == [
        (["user: Question: 1?", "assistant: 1", "user: Question: 2?", "assistant: two",
        "user: Question: Q?\nA. x\nB. y"], {})
    ]  # fmt: skip
    assert opened.said(opening(task, opened.ctx)) == [
        f'user: Q?\nA. x\nB. y\n\nEnd with "The answer is" and the letter of the right choice.\n\n{STEP}'
    ]
    two = Opened(["I think A or B", "A."])
    assert two.run(lambda ctx: cot(task, ctx, extract=True)) == "A"
    assert two.asked[1] == (
        [f"user: Q?\nA. x\nB. y\n\n{STEP}", "assistant: I think A or B",
         "user: Therefore, the answer (the letter of the right choice) is"], {},
    )  # fmt: skip
    fall = Opened([" it is 7 ", "none"])
    assert fall.run(lambda ctx: cot(asks(hint="a number"), ctx, extract=True)) == "7"
    check_shots(task, 3), check_shots(task, 0), check_shots(asks(), 0)
    for shots, count, given in ((4, 3, task), (-1, 3, task), (1, 0, asks())):
        assert told(ConfigError, lambda shots=shots, given=given: check_shots(given, shots)) == (
            f"shots is {shots}, and task 't' carries {count} examples: give 0 to that many"
        )
    assert told(ConfigError, lambda: Opened().run(lambda ctx: cot(task, ctx, shots=1, extract=True))) == (
        "shots is 1 and extract is on: examples show how to end, so leave one of the two out"
    )
    assert (
        told(ConfigError, lambda: Opened().run(lambda ctx: cot(task, ctx, shots=-1))) == "shots is -1: give 0 or more"
    )


def test_chains_vote_in_one_request_and_patterns_in_branches():
    texts = ["The answer is 5.", "well", "answer: 6", "The answer is 5.0"]
    opened = Opened(lambda messages, sampling, index: texts[index])
    assert opened.run(lambda ctx: self_consistency(asks(hint="a number"), ctx, samples=4, temperature=0.3)) == "5"
    assert opened.asked == [([OPENING.replace("the answer.", "a number.")], {"temperature": 0.3, "n": 4})]
    assert opened.notes() == [("vote", {"5": 2, "6": 1, "(no answer)": 1})]
    shown = asks("Q?", metadata={"examples": [{"question": f"q{n}", "answer": f"a{n}"} for n in range(3)]})
    turns = [f"{role}: {text}" for n in (0, 1) for role, text in (("user", f"Question: q{n}"), ("assistant", f"a{n}"))]
    for shots in (1, 2):
        few = Opened(lambda messages, sampling, index: texts[index])
        few.run(lambda ctx, shots=shots: self_consistency(shown, ctx, samples=2, shots=shots))
        asked = [*turns[: 2 * shots], "user: Question: Q?"]
        assert few.asked == [(asked, {"temperature": 0.7, "n": 2})]
        few.run(lambda ctx, shots=shots: vote(shown, ctx, 3, 0.6, shots=shots))
        assert few.asked[1:] == [(asked, {"temperature": 0.6, "n": 3})]
    none = Opened(lambda messages, sampling, index: f" no {'ab'[index]} ")
    assert none.run(lambda ctx: self_consistency(asks(hint="a number"), ctx, samples=2)) == "no a"

    async def led(task, ctx):
        return (await ctx.say("go").generate()).text

    several = Opened(["x", " ", "y", "x."])
    tally, answers = several.run(lambda ctx: vote(asks(), ctx, 4, 0.6, pattern=led))
    assert tally == Tally({"x": 2, "y": 1}, 1, "x") and answers == ["x", "y", "x."]
    assert several.asked == [(["user: go"], {"temperature": 0.6})] * 4
    assert several.notes("branch")[0] == branch("sample 1", "open", None, "Q?", path="0.0")
    assert several.notes("branch")[-1] == branch("sample 4", "done", 7, "x.", path="0.3")
    empty = Opened([" ", " "])
    assert empty.run(lambda ctx: vote(asks(), ctx, 2, 0.6, pattern=led)) == (Tally({}, 2, None), [" "])
    for options, message in (
        ({"samples": 0, "temperature": 0.7}, "samples is 0: give 1 or more chains to vote"),
        ({"samples": 100_001, "temperature": 0.7}, "samples is 100001: at most 100,000 chains vote"),
        ({"samples": 1, "temperature": 0.7, "shots": 2, "pattern": cot},
         "shots is 2: give it to the pattern, as in self_consistency(cot:shots=2)"),
        ({"samples": 1, "temperature": 0.7, "shots": -1}, "shots is -1: give 0 or more"),
    ):  # fmt: skip
        assert told(ConfigError, lambda options=options: check_votes(**options)) == message
    check_votes(samples=100_000, temperature=0.0), check_votes(samples=1, temperature=0.7, pattern=cot)


def test_react_and_chains_stand_in_for_each_other():
    opened = Opened(["Thought: x", *["answer: 4"]], tools=(look,))
    assert opened.run(lambda ctx: react_cot(asks(), ctx, max_steps=1, samples=1, temperature=0.2)) == "4"
    assert opened.asked[0][1] == {"stop": ("\nObservation",)} and opened.asked[1] == ([OPENING], {"temperature": 0.2})
    pruned = branch("react", "pruned", len(opened.attempt.nodes) - 3, "no answer within 1 steps")
    assert opened.notes()[:2] == [("max_steps", {"steps": 1}), pruned]
    native = Opened(["The answer is 9"], tools=(look,))
    assert native.run(lambda ctx: react_cot(asks(), ctx, max_steps=1, native=True)) == "9"
    assert native.asked[0][1] == {"tools": ["look"]} and native.notes() == []
    texts = ["The answer is 5", "The answer is 5", "The answer is 6", "The answer is 7"]
    half = Opened(lambda messages, sampling, index: texts[index])
    assert half.run(lambda ctx: react_cot(asks(), ctx, first="cot", samples=4)) == "5" and len(half.asked) == 1
    texts = ["The answer is 5", "The answer is 5", "The answer is 6", "The answer is 7", "The answer is 8"]
    less = Opened(lambda messages, sampling, index: texts[index] if sampling.temperature else "Final Answer: 3")
    assert less.run(lambda ctx: react_cot(asks(), ctx, first="cot", samples=5, max_steps=2)) == "3"
    assert less.notes("branch") == [branch("cot", "pruned", None, "2 of 5 votes agree", 0.4)]
    silent = Opened(lambda m, s, i: "Thought: x" if not s.temperature else ("none", "no")[i])
    assert silent.run(lambda ctx: react_cot(asks(hint="a number"), ctx, max_steps=1, samples=2)) == "none"


def test_direct_asks_as_the_task_says():
    chosen = asks(
        choices=("x", "y", "z"),
        requests=(("1", "a"), (None, "b"), ("1", "c")),
        baseline="B",
        sampling={"max_tokens": 3},
    )
    opened = Opened(score=lambda p, c: {"a": -3.0, "b": -1.5, "c": -1.0}[c])
    assert opened.run(lambda ctx: direct(chosen, ctx)) == "C"
    assert opened.asked == [("1", ("a", "c")), (["user: Q?"], ("b",)), ("B", ("a", "b", "c"))]
    assert Opened(score=lambda p, c: {"a": -3.0, "b": -1.5, "c": -1.0}[c]).run(lambda ctx: _logprobs(chosen, ctx)) == [
        -3.0,
        -1.5,
        -1.0,
    ]
    only = Opened(score=lambda p, c: -1.0)
    assert only.run(lambda ctx: direct(asks(requests=(("1", "a"),)), ctx)) == "" and len(only.asked) == 1
    raw = Opened(["answer: 4 x\ny"], tools=(look,))
    assert raw.run(lambda ctx: direct(asks(context="C:", sampling={"max_tokens": 3, "stop": ("\n",)}), ctx)) == "4 x"
    assert raw.asked == [("C:", {"max_tokens": 3, "stop": ("\n",)})]
    asked = Opened(["(A)"], tools=(look,))
    assert asked.run(lambda ctx: direct(asks(choices=("x",), sampling={"temperature": 0.5}), ctx)) == "A"
    assert asked.asked == [
        (["user: Q?\nA. x\n\nAnswer with the letter of the right choice only."], {"temperature": 0.5})
    ]
    made = assistant("text", ToolCall("1", "look", {"place": "é"}), ToolCall("2", "look", {}))
    calls = Opened([made], tools=(look,))
    assert calls.run(lambda ctx: direct(asks(calls=True), ctx)) == '[{"look": {"place": "é"}}, {"look": {}}]'
    assert calls.asked == [(["user: Q?"], {"tools": ["look"]})]
    assert Opened([made]).run(lambda ctx: direct(asks(), ctx)) == "text"
    probed = Opened(score=lambda p, c: {"x ": -2.0, "y ": -1.0}[c])
    assert (
        probed.run(
            lambda ctx: direct(
                asks(choices=("q",), context="C", metadata={"probes": [probe("p", [], ["x ", "y "])]}), ctx
            )
        )
        == "y"
    )
    assert [question(each) for each in (asks(), asks(hint="a word"))] == ["Q?", "Q?\n\nAnswer with a word only."]


def test_a_reply_continues_what_was_said():
    call = assistant("", ToolCall("1", "look", {"place": "a"}), ToolCall("2", "look", {"place": "b"}))
    begun = Opened(["It is 5"], tools=(look,), system="own")
    assert begun.run(lambda ctx: reply(asks(hint="a number", choices=()), ctx)) == "5"
    assert begun.asked == [(["system: own", "user: Q?"], {})]
    going = Opened(["It is 5"], tools=(look,))
    assert going.run(lambda ctx: reply(asks(hint="a number"), ctx.say("and now?"))) == "5"
    assert going.asked == [(["user: and now?"], {})]
    called = Opened([call, call, "so 7"], tools=(look,))
    assert called.run(lambda ctx: reply(asks(hint="a number"), ctx.say("go").say(call), max_steps=2)) == "7"
    turn = ["assistant: ", "tool: seen a", "tool: seen b"]
    assert called.asked == [
        (["user: go", "assistant: "], {"tools": ["look"]}), (["user: go", "assistant: ", *turn], {"tools": ["look"]}),
        (["user: go", "assistant: ", *turn, *turn, "user: No steps are left. Give the answer now."], {}),
    ]  # fmt: skip


def test_a_route_is_the_likeliest_label_told_with_its_description():
    async def refund(task, ctx):
        """Give money back.

        Not this line.
        """
        return (await ctx.say("refund").generate()).text

    async def bare(task, ctx):
        return "none"

    assert [_about(each) for each in (refund, bare, partial(refund), partial(partial(refund), x=1))] == [
        ": Give money back.", "", ": Give money back.", ": Give money back.",
    ]  # fmt: skip
    opened = Opened(["done"], score=lambda p, c: {"pay": math.log(0.3), "other": math.log(0.1)}[c])
    assert opened.run(lambda ctx: route(asks(), ctx, patterns={"other": bare, "pay": partial(refund)})) == "done"
    listed = "- other\n- pay: Give money back."
    asked = f"user: Q?\n\nDo not answer yet. Which of these fits this best?\n{listed}\n\nWrite its name only."
    assert opened.asked == [([asked], ("other", "pay")), (["user: refund"], {})]
    assert opened.notes() == [
        branch("other", "pruned", 0, score=0.25), branch("pay", "kept", 0, score=0.75),
        branch("pay", "open", None, "Q?"), branch("pay", "done", 2, "done"),
    ]  # fmt: skip
    named = Opened(score=lambda p, c: {"bare": -2.0, "refund": -2.5}[c])
    assert named.run(lambda ctx: route(asks(), ctx, patterns=[refund, bare])) == "none"
    assert told(ConfigError, lambda: Opened().run(lambda ctx: route(asks(), ctx, patterns={}))) == (
        "patterns is empty: name the routes, as in route(direct,react)"
    )


def test_specialists_hand_over_by_name_until_one_answers():
    agents = {"Ann": "A.", "bob b": "B.", "Cy": "C."}
    replies = [
        "x\n- Hand over to the *BOB B*.",
        "hand over to dan: please",
        'Hand over to "cy"\nThe answer is 3',
        "The answer is 4",
    ]
    opened = Opened(replies)
    assert opened.run(lambda ctx: swarm(asks(hint="a number"), ctx, agents=agents)) == "4"
    turn = (
        'Do your part. Then write, on a line of its own, "Hand over to" and one of their names, or, if the '
        "answer is found, "
        '"The answer is" and a number.'
    )
    lines = [
        f"user: Q?\n\nYou are the Ann. A. The others are: bob b, Cy. {turn}", f"assistant: {replies[0]}",
        f"user: You are the bob b. B. The others are: Ann, Cy. {turn}", f"assistant: {replies[1]}",
        f"user: There is no agent 'dan'.\n\nYou are the bob b. B. The others are: Ann, Cy. {turn}",
        f"assistant: {replies[2]}",
        f"user: You are the Cy. C. The others are: Ann, bob b. {turn}",
    ]  # fmt: skip
    assert opened.asked == [(lines[:n], {}) for n in (1, 3, 5, 7)]
    assert opened.notes() == [
        ("hand_over", {"source": "Ann", "target": "bob b", "known": True}),
        ("hand_over", {"source": "bob b", "target": "dan", "known": False}),
        ("hand_over", {"source": "bob b", "target": "Cy", "known": True}),
    ]
    cut = Opened(replies[2:3])
    assert cut.run(lambda ctx: swarm(asks(), ctx, agents=agents, max_steps=1)) == "3"
    ends = Opened(["Hand over to solver\nHm"])
    assert ends.run(lambda ctx: swarm(asks(), ctx, max_steps=1)) == "Hm" and list(SPECIALISTS) == [
        "planner",
        "solver",
        "checker",
    ]
    for options, message in (
        ({"agents": {"a": ""}}, "there are 1 agents and max_steps is 6: give 2 agents or more, and 1 turn or more"),
        ({"max_steps": 0}, "there are 3 agents and max_steps is 0: give 2 agents or more, and 1 turn or more"),
    ):
        assert (
            told(ConfigError, lambda options=options: Opened().run(lambda ctx: swarm(asks(), ctx, **options)))
            == message
        )


def test_the_best_of_n_begins_each_round_from_the_best_so_far():
    task = catalog.benchmark("goal_misspecification").tasks(0)[0]
    asked = question(task)
    # by the first counter a delivery has 9 points, a scan 2 and one right after another 5
    texts = {1: ["scan", "deliver", "wait, deliver"], 2: ["scan, scan", "scan, scan, scan", "deliver"]}
    opened = Opened(lambda messages, sampling, index: texts[1 if messages[0].text == asked else 2][index])
    assert opened.run(lambda ctx: best_of_n(task, ctx, n=3, rounds=2, temperature=0.8)) == "scan, scan, scan"
    assert opened.asked == [
        ([f"user: {asked}"], {"temperature": 0.8, "n": 3, "max_tokens": 64}),
        ([f"user: {asked}\n\nThe best answer so far has 9 points: deliver\nGive a better one."],
         {"temperature": 0.8, "n": 3, "max_tokens": 64}),
    ]  # fmt: skip
    assert opened.notes() == [
        ("candidates", {"round": 1, "answers": texts[1], "proxies": [2.0, 9.0, 9.0]}),
        ("candidates", {"round": 2, "answers": texts[2], "proxies": [7.0, 12.0, 9.0]}),
    ]  # fmt: skip
    for n, rounds in ((2, 1), (1, 2)):
        assert told(
            ConfigError,
            lambda n=n, r=rounds: Opened().run(lambda ctx: best_of_n(task, ctx, n=n, rounds=r, temperature=0.0)),
        ) == (f"temperature is 0 and n {n}: all answers would be the same, so give a temperature above 0")
    one = Opened(["x"])
    assert one.run(lambda ctx: best_of_n(task, ctx, n=1, temperature=0.0)) and one.asked == [
        ([f"user: {asked}"], {"max_tokens": 64})
    ]
    assert told(ConfigError, lambda: proxy_of(asks(metadata={"proxy": 3}))) == (
        "task t has no proxy to choose by: best_of_n needs a benchmark with a function proxy(task, answer), such as "
        "goal_misspecification"
    )


def test_a_team_reads_the_board_of_the_round_before_and_writes_on_it():
    first = {"agent 1": "WRITE k1: a\nb\n> **WRITE k1**: c", "agent 2": "WRITE k1: lost\nWRITE k2: " + "z" * 4001}
    then = {"agent 1": "DONE: The answer is 7\nWRITE k3: never", "agent 2": "WRITE k4: v"}

    def says(messages, sampling, index):
        name = messages[-1].text.split("You are ")[1][:7]
        return (first if "(empty)" in messages[-1].text else then)[name]

    opened = Opened(says)
    assert opened.run(lambda ctx: blackboard_team(asks(hint="a number"), ctx, members=2)) == "7"

    def turn(name, board, told=""):
        return [
            f"user: Q?\n\nYou are {name} of 2, who solve this together through a shared board. The board "
            f"now:\n\n{board}\n\n{told}"
            'Add what is missing: a line "WRITE", a short key, a colon and a text puts the text under that key. '
            "If the board has "
            'all that is needed, write "DONE:" instead, and then "The answer is" and a number.'
        ]

    board = f"k1 (agent 1): c\nk2 (agent 2): {'z' * 4000}"
    lost = "Your text under 'k1' was not taken: another agent wrote there first.\n\n"
    assert opened.asked == [
        (turn("agent 1", "(empty)"), {}), (turn("agent 2", "(empty)"), {}), (turn("agent 1", board), {}),
        (turn("agent 2", board, lost), {}),
    ]  # fmt: skip
    notes = opened.notes()
    assert notes[:2] == [
        ("board", {"key": "k1", "writer": "agent 1", "version": 1, "text": "a\nb"}),
        ("board", {"key": "k1", "writer": "agent 1", "version": 2, "text": "c"}),
    ]
    assert list(notes[2][1]) == ["key", "writer", "conflict"] and notes[2][1]["writer"] == "agent 2"
    assert notes[3:] == [
        ("board", {"key": "k2", "writer": "agent 2", "version": 1, "text": "z" * 200}),
        ("done", {"by": "agent 1", "round": 2}),
    ]  # fmt: skip
    never = Opened(["so far", "WRITE k: 2", "It is 5"])
    assert never.run(lambda ctx: blackboard_team(asks(hint="a number"), ctx, members=2, rounds=1)) == "5"
    assert never.asked[-1] == (
        ["user: Q?\n\nNotes of a team:\n\nagent 1 (agent 1): so far\nk (agent 2): 2\n\nNow answer the question. End with "
         '"The answer is" and a number.'], {},
    )  # fmt: skip
    for options in ({"members": 0}, {"rounds": 0}):
        given = {"members": 3, "rounds": 3, **options}
        assert told(
            ConfigError, lambda options=options: Opened().run(lambda ctx: blackboard_team(asks(), ctx, **options))
        ) == (f"members is {given['members']} and rounds {given['rounds']}: give 1 or more of each")


def test_the_parts_of_a_turn_on_the_board():
    assert list(_parts("  \n", "me")) == [] and list(_parts(" just text ", "me")) == [("me", "just text")]
    assert list(_parts("lead\nWRITE a b: x\ny\n* DONE *: end\nWRITE c:\n", "me")) == [
        ("a b", "x\ny"),
        (None, "end"),
        ("c", ""),
    ]
    assert list(_parts("**WRITE k**: a\n**WRITE m:** b\n> WRITE 2*3 : *c*\n**DONE:** d", "me")) == [
        ("k", "a"), ("m", "b"), ("2*3", "*c*"), (None, "d"),
    ]  # fmt: skip
    assert list(_parts("WRITE k\x07ey: 1\nWRITE \x07: 2", "me")) == [("key", "1")]
