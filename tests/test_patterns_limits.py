"""Limits of patterns: what is cut in notes and on boards, stops beyond the most that are sent, and memory."""

import pytest

from firsthand.grammar import choice
from firsthand.message import ToolCall, assistant
from firsthand.patterns.blackboard_team import blackboard_team
from firsthand.patterns.code_act import code_act
from firsthand.patterns.constitutional import constitutional
from firsthand.patterns.direct import direct
from firsthand.patterns.heartbeats import YIELDED, turns
from firsthand.patterns.parts.evaluation import Feedback
from firsthand.patterns.parts.self_tests import MAX_CHARS, SelfTests, read_results
from firsthand.patterns.parts.thoughts import GenericThoughts, ThoughtRequest
from firsthand.patterns.parts.voting import count
from firsthand.patterns.react import react
from firsthand.patterns.reflexion import reflexion
from firsthand.patterns.thought_action import thought_action
from firsthand.patterns.toolformer import toolformer
from firsthand.patterns.tot import Search, ThoughtState
from firsthand.sampling import Sampling
from firsthand.tokens.calls.inline_call import ARROW
from firsthand.tool import tool
from opened_context import Opened, asks


@tool(effect="read")
def act(action: str) -> str:
    """Act."""
    return "done"


@tool(effect="read")
def python(code: str) -> str:
    """Run it."""
    return "ran"


@tool(name="python", effect="read")
def passing(code: str) -> str:
    """Run it."""
    return "own test 0: passed"


@pytest.mark.parametrize(
    ("pattern", "end"), [(code_act, "\nObservation"), (thought_action, "\nObservation"), (toolformer, ARROW)]
)
def test_of_more_stops_than_are_sent_the_last_are_kept(pattern, end):
    for own, kept in ((63, range(63)), (64, range(1, 64))):
        opened = Opened(["Final Answer: x"], tools=(act, python), sampling=Sampling(stop=tuple(map(str, range(own)))))
        opened.run(lambda ctx: pattern(asks(), ctx, **({"max_steps": 1} if pattern is not toolformer else {})))
        assert opened.asked[0][1]["stop"] == (*map(str, kept), end)


def test_a_critique_is_noted_to_1000_characters_and_blanks_change_no_answer():
    opened = Opened(["same", "c" * 1100, " same\n"])
    assert opened.run(lambda ctx: constitutional(asks(), ctx)) == "same"
    [(_, noted)] = opened.notes("principle")
    assert noted["critique"] == "c" * 1000 and noted["changed"] is False and noted["round"] == 1


def test_answers_are_noted_to_200_characters():
    opened = Opened()
    tally = count(["x" * 300, "y", None, "X" * 300], opened.ctx)
    assert tally.winner == "x" * 300 and tally.votes == {"x" * 300: 2, "y": 1}
    assert opened.notes("vote") == [("vote", {"x" * 200: 2, "y": 1, "(no answer)": 1})]

    alike = ["x" * 200 + end for end in "aab"] + ["(no answer)", None, None]
    count(alike, opened.ctx)
    assert opened.notes("vote")[-1][1] == {"x" * 200: 2, "x" * 200 + " (2)": 1, "(no answer)": 2, "(no answer) (2)": 1}

    async def passes(task, ctx, answer):
        return Feedback(True, "")

    tried = Opened(["z" * 300])
    assert tried.run(lambda ctx: reflexion(asks(), ctx, pattern=direct, evaluate=passes)) == "z" * 300
    assert [data["text"] for _, data in tried.notes("branch") if data["name"] == "trial.1"] == ["z" * 200]


def test_an_entry_of_a_board_is_shown_to_4000_characters_and_noted_to_200():
    opened = Opened(["WRITE k: " + "t" * 4100, "DONE: The answer is 4"])
    assert opened.run(lambda ctx: blackboard_team(asks(hint="a number"), ctx, members=1, rounds=2)) == "4"
    assert [data["text"] for _, data in opened.notes("board")] == ["t" * 200]
    shown = opened.asked[1][0][0]
    assert f"k (agent 1): {'t' * 4000}\n\n" in shown and "t" * 4001 not in shown


def test_a_reflection_is_asked_for_with_the_last_of_the_earlier_ones_alone():
    async def never(task, ctx, answer):
        return Feedback(False, "bad")

    opened = Opened(["A1", "R1", "A2", "R2", "A3", "R3", "A4"])
    assert opened.run(lambda ctx: reflexion(asks(), ctx, pattern=direct, evaluate=never, trials=4, memory=1)) == "A4"
    asked = [talk[-1] for talk, _ in opened.asked]
    assert ["Earlier reflections:" in each for each in asked] == [False, False, False, True, False, True, False]
    assert "Earlier reflections:\n1. R1\n\nDo not" in asked[3] and "Earlier reflections:\n1. R2\n\nDo not" in asked[5]
    assert asked[6].endswith("in your own words:\n1. R3") and "R2" not in asked[6]


def test_the_stops_and_the_grammar_of_the_agent_hold_in_searches_and_steps_too():
    opened = Opened(["r"], sampling=Sampling(stop=("END",)))
    search = Search(GenericThoughts(asks()), opened.ctx, 1)
    [reply] = opened.run(lambda ctx: search.ask(ThoughtRequest("p", ("\n", "."))))
    assert reply.text == "r" and opened.asked == [(["user: p"], {"stop": ("END", "\n", ".")})]
    held = choice(("Final Answer: x", "Final Answer: y"))
    for pattern in (react, thought_action):
        opened = Opened(["Final Answer: x"], tools=(act,), sampling=Sampling(grammar=held))
        opened.run(lambda ctx, pattern=pattern: pattern(asks(), ctx, max_steps=1))
        assert opened.asked[0][1]["grammar"] == held


def test_one_call_that_failed_among_several_goes_on_without_a_word():
    @tool(effect="read")
    def keep(place: str, request_heartbeat: bool = True) -> str:
        """Keep a place."""
        if place == "dark":
            raise ValueError("too dark")
        return "kept"

    def calls(*places, **more):
        return assistant("", *(ToolCall(place, "keep", {"place": place} | more) for place in places))

    for first, told in (
        (calls("a", "dark", request_heartbeat=False), False),
        (calls("dark", "a", request_heartbeat=False), False),
        (calls("a", "b", request_heartbeat=False), True),
        (calls("a", "b"), False),
    ):
        opened = Opened([first, "so"], tools=(keep,))
        _, said = opened.run(lambda ctx: turns(ctx.say("u"), 2))
        assert said == "so" and (opened.asked[1][0][-1] == f"user: {YIELDED}") is told


def test_results_of_own_tests_are_read_in_the_end_of_what_was_printed():
    early = "own test 0: passed\n"
    within = early + "x" * (MAX_CHARS - len(early))
    assert len(within) == MAX_CHARS and read_results(["assert f()"], within) == Feedback(True, "assert f()  # passed")
    beyond = read_results(["assert f()"], "own test 0: passed\n" + "x" * MAX_CHARS)
    assert beyond == Feedback(False, f"assert f()  # did not finish\nThe program ended with:\n{'x' * 500}")


def test_a_conflict_on_a_board_is_told_in_the_round_after_it_alone():
    turns = ["WRITE k: a", "WRITE k: b", "WRITE l: c", "WRITE m: d", "DONE: The answer is 4", "DONE: 5"]
    opened = Opened(lambda messages, sampling, index: turns[len(opened.model.asked) - 1])
    assert opened.run(lambda ctx: blackboard_team(asks(hint="a number"), ctx, members=2, rounds=3)) == "4"
    told = "Your text under 'k' was not taken: another agent wrote there first."
    assert [told in talk[0] for talk, _ in opened.asked] == [False, False, False, True, False, False]


def test_a_state_is_noted_with_the_branch_that_the_search_is_made_in():
    opened = Opened()

    async def searched(ctx):
        search = Search(GenericThoughts(asks()), ctx, 1)
        search.note("1.0", ThoughtState(" a\nb\n", 3), "kept", 2.5, answer="x")

    opened.run(lambda ctx: ctx.group(searched(ctx) for _ in range(2)))
    about = {"name": "1.0", "at": 3, "status": "kept", "score": 2.5, "text": "b", "answer": "x"}
    assert opened.notes() == [("branch", about | {"path": f"0.{number}"}) for number in range(2)]


@pytest.mark.parametrize(
    ("reply", "tests", "feedback"),
    [
        ("I know of none.", [], Feedback(True, "There is no test to fail.")),
        ("```\nassert f(1) == 2\n```", ["assert f(1) == 2"], Feedback(True, "assert f(1) == 2  # passed")),
    ],
)
def test_own_tests_are_asked_for_once_also_where_the_reply_held_none(reply, tests, feedback):
    task = asks("P", metadata={"entry_point": "f"})
    opened = Opened([reply, "```\nassert f(3) == 4\n```", reply], tools=(passing,))
    evaluate = SelfTests()

    async def thrice(ctx):
        return [await evaluate(task, ctx, "def f(x): return 2") for _ in range(3)]

    assert opened.run(thrice) == [feedback] * 3
    assert len(opened.asked) == 1 and opened.notes("tests") == [("tests", {"tests": tests})]
    assert evaluate.tests == tests
