"""Parts of patterns by themselves: each request with all its settings, each note, and what they make of the replies."""

import asyncio
from dataclasses import replace

import pytest

from firsthand.errors import ConfigError, DataError, GuardBlocked, ModelError
from firsthand.loop.concurrency import Retry, current_branch
from firsthand.message import Message, Sampled, Text
from firsthand.patterns.parts.answers import answer_form, answer_or_text, given_answer, normal_form
from firsthand.patterns.parts.feedback import Feedback, evaluator_for, judge, passes
from firsthand.patterns.parts.probes import _checked, answer_probes, probe
from firsthand.patterns.parts.self_tests import SelfTests, program
from firsthand.patterns.parts.sub_patterns import BranchOutcome, attempt, follow
from firsthand.patterns.parts.system_text import with_system
from firsthand.patterns.parts.thoughts import GenericThoughts, ThoughtRequest, thoughts_of, vote
from firsthand.patterns.parts.voting import Tally, count, share, tallied
from firsthand.tool import tool
from opened_context import Opened, asks, branch

ONCE = Retry(attempts=1, first_wait_s=0.0)


# -- probes and system texts --


def test_each_probe_is_scored_after_its_own_turns():
    probes = [
        probe("one", [("system", "s"), ("user", "u"), ("assistant", "a")], [" x", "y "]),
        probe("two", (("user", "v"),), ["z"]),
    ]
    assert probes[0] == {
        "name": "one", "turns": [["system", "s"], ["user", "u"], ["assistant", "a"]], "continuations": [" x", "y "],
    }  # fmt: skip
    task = asks(metadata={"probes": probes})
    opened = Opened(score=lambda p, c: {" x": -2.0, "y ": -1.0, "z": -3.0}[c])
    assert opened.run(lambda ctx: answer_probes(task, ctx)) == "y"
    assert opened.asked == [(["system: s", "user: u", "assistant: a"], (" x", "y ")), (["user: v"], ("z",))]
    assert opened.notes() == [
        ("probe", {"name": "one", "logprobs": [-2.0, -1.0]}), ("probe", {"name": "two", "logprobs": [-3.0]}),
    ]  # fmt: skip
    two = asks(metadata={"probes": [probe("p", [("system", "s"), ("user", "u"), ("system", "t")], ["c"])]})
    turns, added = Opened(score=lambda p, c: -1.0), Opened(score=lambda p, c: -1.0, system="own")
    turns.run(lambda ctx: answer_probes(two, ctx)), added.run(lambda ctx: answer_probes(two, ctx))
    assert turns.asked[0][0] == ["system: s", "user: u", "system: t"], "the turns as they are where nothing was said"
    assert added.asked[0][0] == ["system: own\n\ns\n\nt", "user: u"]
    kept = Opened(score=lambda p, c: -1.0, system="own")
    assert kept.run(lambda ctx: answer_probes(task, ctx)) == "x", "the first of equals"
    assert [talk for talk, _ in kept.asked] == [
        ["system: own\n\ns", "user: u", "assistant: a"],
        ["system: own", "user: v"],
    ]


def test_a_probe_of_another_form_is_refused():
    good = probe("n", [("user", "u")], ["c"])
    assert _checked(asks(), {**good, "turns": [("user", 1)], "continuations": [2]}) == ("n", [("user", "1")], ["2"])
    assert _checked(asks(), {**good, "turns": []}) == ("n", [], ["c"])
    for wrong in ({**good, "name": 1}, {**good, "turns": [["user"]]}, {**good, "turns": [["you", "x"]]},
                  {**good, "turns": ["ab"]}, {**good, "continuations": []}, {"name": "n"}, [good]):  # fmt: skip
        with pytest.raises(DataError) as told:
            _checked(asks(), wrong)
        assert str(told.value) == (
            f"task t has a probe {str(wrong)[:80]!r}: an object with a name, turns (pairs of role and text) and "
            "continuations (one text or more) was expected"
        )


def test_a_system_text_is_added_to_the_one_there_is():
    opened = Opened()
    assert opened.said(with_system(opened.ctx, "new")) == ["system: new"]
    talk = opened.ctx.say("u").say("a", "assistant")
    assert opened.said(with_system(talk, "new")) == ["system: new", "user: u", "assistant: a"]
    assert opened.said(talk) == ["user: u", "assistant: a"], "the conversation that was there stays"
    made = opened.ctx.say("u").say(Message("assistant", (Text("a"),), sampled=Sampled((1,), (-0.5,))))
    assert [each.sampled for each in with_system(made, "new").messages] == [None] * 3, "tokens of another conversation"
    own = Opened(system="own")
    assert own.said(with_system(own.ctx.say("u"), "new")) == ["system: own\n\nnew", "user: u"]
    assert own.said(with_system(own.ctx, "new")) == ["system: own\n\nnew"]


# -- branches --


def test_a_pattern_is_followed_from_its_start_to_its_last_message():
    async def pattern(task, ctx):
        assert current_branch().name == "worker 1"
        first = await ctx.say(task.prompt).generate()
        return (await first.say("more").generate()).text + "!"

    opened = Opened(["one", "two"])

    async def both(ctx):
        ctx = ctx.say("before")
        return await follow("worker 1", pattern, asks("do"), ctx), current_branch().name

    assert opened.run(both) == ("two!", "")
    assert opened.notes() == [branch("worker 1", "open", 0, "do"), branch("worker 1", "done", 4, "two!")]


def test_a_pattern_that_fails_is_noted_and_its_error_goes_on():
    async def fails(task, ctx):
        await ctx.say("x").generate()
        raise KeyError("lost")

    async def quiet(task, ctx):
        return 3

    async def blocked(task, ctx):
        raise GuardBlocked("no")

    async def silent(task, ctx):
        raise ModelError("m" * 1200)

    opened = Opened(["said"])
    outcome = opened.run(lambda ctx: attempt("w", fails, asks(), ctx))
    assert outcome == BranchOutcome("w", error="KeyError: 'lost'") and isinstance(outcome.cause, KeyError)
    assert opened.notes() == [branch("w", "open", None, "Q?"), branch("w", "failed", 1, "KeyError: 'lost'")]
    assert opened.run(lambda ctx: attempt("v", silent, asks(), ctx)).error == "m" * 1000
    for pattern, kind, told in (
        (quiet, ConfigError, "the pattern of w returned 3 (int): its answer must be a str"),
        (blocked, GuardBlocked, "no"),
    ):  # fmt: skip
        with pytest.raises(kind) as refused:
            Opened().run(lambda ctx, pattern=pattern: attempt("w", pattern, asks(), ctx))
        assert str(refused.value) == told


def test_a_branch_that_is_cancelled_is_noted_and_the_name_around_it_comes_back():
    reached = asyncio.Event()

    async def waits(task, ctx):
        await ctx.say("x").generate()
        reached.set()
        await asyncio.Event().wait()

    async def unspoken(task, ctx):
        raise ModelError("")

    async def cancelled(ctx):
        current_branch().name = "around"
        running = asyncio.ensure_future(follow("w", waits, asks("do"), ctx))
        await reached.wait()
        running.cancel()
        [error] = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(error, asyncio.CancelledError) and current_branch().name == "around"
        outcome = await attempt("v", unspoken, asks(), ctx)
        assert current_branch().name == "around"
        return outcome

    opened = Opened(["said"])
    outcome = opened.run(cancelled)
    assert (
        outcome == BranchOutcome("v", error="ModelError") and outcome.report == "failed: ModelError" and outcome.failed
    )
    assert [(data["name"], data["status"], data["at"], data["text"]) for _, data in opened.notes()] == [
        ("w", "open", None, "do"), ("w", "failed", 1, "CancelledError: "),
        ("v", "open", None, "Q?"), ("v", "failed", None, "ModelError"),
    ]  # fmt: skip


def test_of_branches_side_by_side_each_ends_at_its_own_last_message():
    async def pattern(task, ctx):
        return (await ctx.say(task.prompt).generate()).text

    opened = Opened(lambda messages, sampling, index: f"re {messages[-1].text}")
    found = opened.run(lambda ctx: ctx.group(attempt(f"w{n}", pattern, asks(f"p{n}"), ctx) for n in (1, 2)))
    assert found == [BranchOutcome("w1", "re p1"), BranchOutcome("w2", "re p2")]
    ends = {
        d["name"]: (d["path"], opened.said(_at(opened, d["at"]))) for _, d in opened.notes() if d["status"] == "done"
    }
    assert ends == {"w1": ("0.0", ["user: p1", "assistant: re p1"]), "w2": ("0.1", ["user: p2", "assistant: re p2"])}


def test_a_branch_ends_at_its_last_message_also_in_a_branch_below_or_of_several_samples():
    async def below(task, ctx):
        first = await ctx.say("first").generate()
        found = await first.group(attempt(f"{task.prompt}.{n}", said, asks(f"p{n}"), first) for n in range(2))
        return " ".join(each.answer for each in found)

    async def said(task, ctx):
        return (await ctx.say(task.prompt).generate()).text

    async def several(task, ctx):
        return (await ctx.say("many").sample(3))[1].text

    async def nothing(task, ctx):
        return "no call"

    def ends(opened):
        return {
            d["name"]: opened.said(_at(opened, d["at"])) for _, d in opened.notes("branch") if d["status"] == "done"
        }

    def says(messages, sampling, index):
        return f"re {messages[-1].text} {index}"

    opened = Opened(says)
    start = ["user: s"]
    opened.run(lambda ctx: attempt("w", below, asks("w"), ctx.say("s")))
    first = [*start, "user: first", "assistant: re first 0"]
    assert ends(opened) == {
        "w.0": [*first, "user: p0", "assistant: re p0 0"], "w.1": [*first, "user: p1", "assistant: re p1 0"],
        "w": [*first, "user: p1", "assistant: re p1 0"],
    }  # fmt: skip
    patterns = [below, *[said] * 9, several, nothing]  # the branch of 0.1 is not that of 0.10
    opened = Opened(says)

    async def all_of(ctx):
        ctx = ctx.say("s")
        return await ctx.group(attempt(f"w{n}", each, asks(f"t{n}"), ctx) for n, each in enumerate(patterns))

    opened.run(all_of)
    assert ends(opened) == {
        "t0.0": [*first, "user: p0", "assistant: re p0 0"], "t0.1": [*first, "user: p1", "assistant: re p1 0"],
        "w0": [*first, "user: p1", "assistant: re p1 0"],
        **{f"w{n}": [*start, f"user: t{n}", f"assistant: re t{n} 0"] for n in range(1, 10)},
        "w10": [*start, "user: many", "assistant: re many 2"], "w11": start,
    }  # fmt: skip


def test_a_branch_ends_at_no_message_of_its_neighbour_or_of_the_time_before_it():
    reached = asyncio.Event()

    async def early(task, ctx):
        found = (await ctx.say("early").generate()).text
        await reached.wait()
        return found

    async def late(task, ctx):
        found = (await ctx.say("late").generate()).text
        reached.set()
        return found

    async def idle(task, ctx):
        return "idle"

    async def main(ctx):
        ctx = await ctx.say("s").generate()
        return await ctx.group(attempt(f"w{n}", {1: early, 10: late}.get(n, idle), asks(), ctx) for n in range(11))

    opened = Opened(lambda messages, sampling, index: f"re {messages[-1].text}")
    opened.run(main)
    start = ["user: s", "assistant: re s"]
    done = [(d["name"], d["at"]) for _, d in opened.notes("branch") if d["status"] == "done"]
    assert {name: opened.said(_at(opened, at)) for name, at in done} == {
        **{f"w{n}": start for n in range(11)}, "w1": [*start, "user: early", "assistant: re early"],
        "w10": [*start, "user: late", "assistant: re late"],
    }  # fmt: skip
    assert done[-1][0] == "w1", "its neighbour was done before it"


def _at(opened, node):
    return replace(opened.ctx, node=node)


# -- votes and answers --


def test_votes_are_counted_by_normal_form_and_noted():
    opened = Opened()
    given = ["72.0", "a" * 250, None, "72", "b", None, "b"]
    assert tallied(given) == Tally({"72": 2, "a" * 250: 1, "b": 2}, 2, "72.0")
    tally = count(given, opened.ctx)
    assert tally == tallied(given) and (tally.most, tally.cast) == (2, 7)
    assert opened.notes() == [("vote", {"72": 2, "a" * 200: 1, "b": 2, "(no answer)": 2})]
    assert tallied(["x", "Yes", "yes."]).winner == "Yes"
    assert tallied([None]) == Tally({}, 1, None) and (tallied([]).most, tallied([]).cast) == (0, 0)
    assert count(["x"], opened.ctx).abstained == 0 and opened.notes()[-1] == ("vote", {"x": 1})
    assert [share("yes", each) for each in (["Yes.", "yes, it is", "yes2", None], [], ["no"], [None])] == [
        0.5,
        0.0,
        0.0,
        0.0,
    ]


@pytest.mark.parametrize(
    "given",
    [
        "5 s|5 h",
        "p|P",
        "AaBb|aabb",
        "x=5|y=5",
        "CO|Co",
        r"\\Delta|\\delta",
        "1e5|e5",
        ".5|5",
        r"\\fraction1|\\frac1",
    ],
)
def test_different_answers_are_different_votes(given: str):
    one, two = given.replace("\\\\", "\\").split("|")
    assert len(tallied([one, two]).votes) == 2
    assert tallied([one, two, two]).winner == two and tallied([one, one, two]).winner == one


def test_spellings_of_one_answer_are_votes_for_it_and_the_commonest_is_returned():
    halves = ["\\frac{1}{2}", "\\dfrac{1}{2}", "\\frac12", "0.5", ".5", "1/2", "½", "$\\tfrac12$", "5e-1"]
    assert tallied([*halves, *["3"] * 8]).votes == {"1/2": 9, "3": 8}
    roots = ["2\\sqrt{3}", "2 \\sqrt{3}", "\\left(2\\sqrt{3}\\right)", "(2\\,\\sqrt{3})", "\\frac1x", "\\dfrac1x"]
    assert list(tallied(roots).votes.values()) == [2, 2, 2]
    assert len(tallied(["\\sin x", "\\sinx"]).votes) == 2
    assert tallied(["Paris", "paris", "PARIS.", "paris"]) == Tally({"paris": 4}, 0, "paris")
    assert tallied(["No", "no", "NO"]).votes == {"no": 3} and tallied(["the End", "The end", "An end"]).most == 2
    assert share("yes", ["YES, McDonald", "yEs", "yes."]) == 1.0 and share("5", ["5.0", "5 m", "50"]) == pytest.approx(
        2 / 3
    )


def test_an_answer_is_a_vote_where_the_task_can_use_it():
    number, pick, free = asks(hint="a whole number"), asks(choices=("x", "y")), asks(hint="a numbered word")
    assert [given_answer(text, number) for text in ("so 7", "none", " ")] == ["7", None, None]
    assert [given_answer(text, pick) for text in ("(B)", "neither", " ")] == ["B", None, None]
    assert [given_answer(text, free) for text in (" red ", "The answer is red.", "  ")] == ["red", "red", None]
    assert [answer_or_text(text, number) for text in (" none ", "is 1,200")] == ["none", "1200"]
    forms = ["a whole number", "the letter of the right choice", "o"]
    assert [answer_form(each, "o") for each in (number, pick, asks())] == forms
    assert answer_form(asks()) == "the answer"
    given = ("1,200", "1/2", " Two  WORDS. ", "72.00%", "ÄB")
    assert [normal_form(each) for each in given] == ["1200", "1/2", "two words", "72.00%", "ÄB"]


# -- evaluators --


@tool(effect="read")
def python(code: str) -> str:
    """Run code."""
    return "own test 0: passed\nown test 1: failed: got 3"


def test_own_tests_are_asked_for_once_and_run_on_each_answer():
    task = asks("def f(x): ...", metadata={"entry_point": "f", "prompt": "HEAD"})
    opened = Opened(["```\nassert f(1) == 2\nassert f(2) == 4\n```"], tools=(python,))
    evaluate = evaluator_for(task)
    assert isinstance(evaluate, SelfTests)

    async def twice(ctx):
        return [await evaluate(task, ctx, answer) for answer in ("def f(x): return 1", "def f(x): return 2")]

    tests = ["assert f(1) == 2", "assert f(2) == 4"]
    feedback = Feedback(False, "assert f(1) == 2  # passed\nassert f(2) == 4  # failed: got 3")
    assert opened.run(twice) == [feedback, feedback]
    assert opened.asked == [
        (["user: HEAD\n\nWrite up to 6 tests for f, each one line of the form `assert f(...) == ...`. Think of edge cases. "
          "Write the tests only, in one code block."], {})
    ]  # fmt: skip
    assert opened.notes() == [("tests", {"tests": tests})]
    calls = [each.detail for each in opened.attempt.calls if each.kind == "tool"]
    assert [each["arguments"] for each in calls] == [
        {"code": program(task, f"def f(x): return {n}", tests)} for n in (1, 2)
    ]  # fmt: skip
    unnamed = Opened(["no tests"], tools=(python,))
    assert unnamed.run(lambda ctx: SelfTests()(asks("P"), ctx, "x")) == Feedback(True, "There is no test to fail.")
    assert "tests for this function, each one line of the form `assert f(...) == ...`" in unnamed.asked[0][0][0]
    with pytest.raises(
        ConfigError, match=r"^testing code needs the tool python: add --tools python, or take evaluator=judge$"
    ):
        Opened().run(lambda ctx: SelfTests()(task, ctx, "x"))


def test_the_evaluator_is_the_models_judgement_unless_there_is_code_to_test():
    code = asks(metadata={"entry_point": ""})
    given = ((code,), (asks(), "tests"), (asks(),), (code, "judge"))
    assert [isinstance(evaluator_for(*each), SelfTests) for each in given] == [True, True, False, False]
    assert evaluator_for(asks()) is judge is evaluator_for(code, "judge")
    opened = Opened([" It is Wrong. ", "so INCORRECT", "wrong? right", "unsure", "No idea", "No.", "Wrong"])
    task = asks(choices=("x",))
    found = [opened.run(lambda ctx: judge(task, ctx, "A")) for _ in range(5)]
    assert found == [
        Feedback(False, "It is Wrong."), Feedback(False, "so INCORRECT"), Feedback(True, "wrong? right"),
        Feedback(True, "unsure"), Feedback(False, "No."),
    ]  # fmt: skip
    assert opened.asked[4][0][-1] == "user: Reply with one word, right or wrong, and nothing else."
    assert opened.notes() == [("unclear_verdict", {"text": "unsure"})]
    assert opened.asked[0] == (
        ["user: Problem:\nQ?\nA. x\n\nProposed answer:\nA\n\nCheck the answer step by step. End with one word: right or "
         "wrong."], {}
    )  # fmt: skip


@pytest.mark.parametrize(
    "said, passed",
    [
        ("**Right**", True), ("It's correct.", True), ("`wrong`", False), ("Final verdict: wrong 😞", False),
        ("It is not right", False), ("This isn\u2019t quite right.", False), ("not **correct**", False),
        ("The answer is not wrong", True), ("Nothing is wrong.", True), ("It is not 5. Right", True),
        ("I do not see a slip: right", True), ("Wrong. It should be 1457", False), ("wrong (see above)", False),
        ("**Incorrect**\n\nThe sum is 8.", False), ("Right, let me see: 3 + 4 = 7.", None), ("No.", None), ("", None),
        ("Wrongly put, but it is 7.", None), ("Wrong-footed at first, it gets 7.", None),
        (f"It is not wrong to {'add ' * 100} and so it is right", True), (f"{'add ' * 100} It is not right", False),
        ("It is wrong because 31 * 47 = 1457.", None),
        ("Wrong answers would differ; this one holds.", None), ("Incorrect units were a risk only.", None),
        ("Wrong because 3 + 4 is 7", False), ("**Wrong** - it is 7", False), ("Wrong the sum", False),
        ("Wrong\nIt is 7", False),
        ("The answer cannot be right", False), ("I would not say it is right", False),
        ("It isn't necessarily right", False),
        ("I don't see anything wrong", True), ("There is nothing that is wrong", True),
        ("I do not think. It is right", True),
        ("I could not find an error, so it is right", True), ("It can't possibly be right.", False),
    ],
)  # fmt: skip
def test_a_judgement_passes_what_it_calls_right_and_not_what_it_denies(said: str, passed: bool | None) -> None:
    assert passes(said) is passed


# -- thoughts --


def test_generic_thoughts_whole():
    thoughts = GenericThoughts(asks(hint="a number"), steps=3)
    one, two = "first step\n", "first step\nsecond step\n"
    wanted = "List up to five different next steps, each on a line of its own. Do not solve the problem yet."
    assert thoughts.propose("") == ThoughtRequest(f"Q?\n\n{wanted}\n\nPossible next steps:")
    assert thoughts.propose(one) == ThoughtRequest(f"Q?\n\n{wanted}\n\nSteps so far:\n{one}Possible next steps:")
    last = ThoughtRequest(f'Q?\n\nSteps so far:\n{two}Follow these steps. End with "The answer is" and a number.')
    assert thoughts.propose(two) == last == thoughts.sample(two)
    assert thoughts.sample(one) == ThoughtRequest(
        f"Q?\n\nWrite the next step only, on one line.\n\nSteps so far:\n{one}Next step:", ("\n",)
    )
    assert thoughts.proposed(one, ["1. a\n- b\n\n", "2) a\nc d"]) == [f"{one}{each}\n" for each in ("a", "b", "c d")]
    assert thoughts.proposed(two, ["x\ny", " ", "z"]) == [f"{two}x y\n", f"{two}z\n"]
    assert thoughts.sampled(one, " a \n b ") == f"{one}a b\n"
    assert thoughts.value(one) == (
        ThoughtRequest(
            "Q?\n\nJudge in a few words whether these steps lead to the right answer. End with one word: "
            f"sure/likely/impossible.\n\nSteps so far:\n{one}Judgement:"
        ),
    )
    assert thoughts.valued(one, [["Sure.", "likely", "hm"], ["so impossible"]]) == pytest.approx(21.001)
    assert [thoughts.is_done(each) for each in ("", two, two + "x\n", "a\nThe Answer is 3\n",
        "The answer is 3\nb\n")] == [
        False, False, True, True, False,
    ]  # fmt: skip
    assert [thoughts.answer(each) for each in ("", "is 4\nis 5\n", "is 4\nnone\n")] == ["", "5", "4"]
    told = (
        "Given an instruction and several choices, decide which choice is most promising. Analyze each choice in "
        "detail, "
        'then conclude in the last line "The best choice is s", where s is the integer id of the choice.\n'
    )
    assert thoughts.vote(["s1\n", "s2"]) == ThoughtRequest(f"Q?\n\n{told}Choice 1:\ns1\n\nChoice 2:\ns2\n")
    assert vote("O ", []) == ThoughtRequest(f"O {told}")
    assert thoughts.voted(
        ["a", "b", "c"], ["best choice is 3", "The best choice is 1, no: best choice is 3", "is 2"]
    ) == [0, 0, 2]
    assert thoughts_of(asks()) == GenericThoughts(asks())
    with pytest.raises(
        ConfigError, match=r"^task 't' has 'thoughts' in its metadata: give it as the field `thoughts`$"
    ):
        thoughts_of(asks(metadata={"thoughts": "game24"}))


@pytest.mark.parametrize(
    ("given", "winner", "votes"),
    [
        (["18", "18 apples", "18 red apples", "20", "20"], "18", 3),
        (["20 apples", "20 apples", "18 apples", "18", "18 Apple"], "18 apples", 3),
        (["5 s", "5 h", "5", "5 h"], "5 h", 2),
        (["5 h", "5 s", "5", "5"], "5", 2),
        (["5 m", "5 m", *["5 ms"] * 3, *["7 m"] * 4], "7 m", 4),
        (["5 MB", "5 Mb", "5 Mb", "6 MB", "6 MB", "6 MB"], "6 MB", 3),
        (["5 mW", "5 MW", "5 MW", "6 W", "6 W", "6 W"], "6 W", 3),
        (["5 KB", "5 kB", "6 B"], "5 KB", 2),
        (["5 GB", "6 Gb", "6 Gb", "5 GBs", "5 GBs"], "5 GBs", 3),
        (["5 Gb", "5 GBs", "5 GBs"], "5 GBs", 2),
        (["5 kbp", "5 kbps", "5 kbps"], "5 kbps", 2),
        (["6 PM", "6 pm", "7 pm"], "6 PM", 2),
        (["5 kgs", "5 kg", "5 Kg", "5 lb"], "5 kgs", 3),
        (["5 apples", "5 Apple", "6"], "5 apples", 2),
        (["$5", "5 cents", "5 dollars"], "$5", 2),
        (["5%", "5", "6", "6", "5 percent"], "5%", 3),
        (["x = 5", "y = 5", "y = 5"], "y = 5", 2),
        (["\\frac{1}{2}\\text{ cm}", "0.5 cm", "0.5", "1", "1"], "\\frac{1}{2}\\text{ cm}", 3),
        (["up", "Up", "down", "down", "up"], "up", 3),
        (["Bb", "bb", "bb"], "bb", 2),
        (["CO", "Co", "Co"], "Co", 2),
    ],
)
def test_a_number_s_votes_are_those_of_the_one_answer_that_has_its_words(
    given: list[str], winner: str, votes: int
) -> None:
    tally = tallied(given)
    assert (tally.winner, tally.most, tally.cast) == (winner, votes, len(given))
