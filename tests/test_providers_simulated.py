"""Simulated models: the player of the game of 24 at the ends of its rates, its solver, and the reader of sessions."""

import asyncio
import json
import math
from dataclasses import fields, replace
from fractions import Fraction

import pytest

from firsthand.errors import ConfigError, ModelError
from firsthand.message import Message, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Delta, Likelihood, Sampling, Scored, Usage
from firsthand.providers import sim
from firsthand.providers.game24_solver import Move, _number, makes_24, moves, position, reachable, solution, written
from firsthand.providers.session_player import SeenFact, _summary, answer_to, facts_seen, sentence, session_player
from firsthand.providers.sim import Errors, Sim, uniform

PERFECT = replace(uniform(0.0), propose_losing=(1.0, 1.0, 1.0))
QUESTION = "Use numbers and basic arithmetic operations (+ - * /).\nNumbers: 4 4 6 8"


def say(model, text, seed=None, n=1):
    found = asyncio.run(model.complete([user(text)], Sampling(seed=seed), n=n))
    return [each.message.text for each in found]


def test_numbers_are_read_exactly_and_words_are_passed_over():
    assert position("6 4 x 1.5 2/3 1e3 1/0") == (Fraction(2, 3), Fraction(3, 2), 4, 6)
    assert _number("1" * 40) == int("1" * 40) and _number("1" * 41) is None
    assert position(" " * 199 + "12") == (1,)  # 200 characters are read
    assert written((Fraction(2, 3), Fraction(4))) == "2/3 4"


def test_moves_are_each_result_once_in_order():
    assert moves((Fraction(2), Fraction(3))) == (
        Move("2 + 3 = 5 (left: 5)", (5,)),
        Move("2 * 3 = 6 (left: 6)", (6,)),
        Move("2 - 3 = -1 (left: -1)", (-1,)),
        Move("2 / 3 = 2/3 (left: 2/3)", (Fraction(2, 3),)),
        Move("3 - 2 = 1 (left: 1)", (1,)),
        Move("3 / 2 = 3/2 (left: 3/2)", (Fraction(3, 2),)),
    )
    texts = [move.text for move in moves((Fraction(0), Fraction(5), Fraction(5)))]
    assert "0 / 5 = 0 (left: 0 5)" in texts and not any("/ 0" in text for text in texts)
    assert len(texts) == len(set(texts))


def test_a_position_is_winnable_if_all_its_numbers_make_24():
    for text, expected in (("24", True), ("23", False), ("", False), ("4 6", True), ("12 12 1", True), ("1 1 1 1", False),
                           ("3 3 8 8", True), ("24 1 1 1 1 1", True), ("24 1 1 1 1 1 1", False)):  # fmt: skip
        assert reachable(position(text)) is expected
    for text in ("24", "4 6", "3 3 8 8", "1 5 5 5"):
        found = solution(position(text))
        assert found is not None and makes_24(found, position(text))
    assert solution(position("3 3 8 8")) == "(8 / (3 - (8 / 3)))" and solution(position("1 1")) is None


def test_an_expression_uses_each_number_once():
    four = position("4 4 6 8")
    for text, expected in (
        ("(4 + 8) * (6 - 4)", True),
        (" [4+8]×(6−4) ", True),
        ("(4 + 8) * (6 - 4) + 0", False),
        ("4 * 6 + 8 - 8", False),
        ("4 + 8 + 6 + 4", False),
        ("(4 + 8) ** (6 - 4)", False),
        ("(4 + 8", False),
        ("8 / 0", False),
        ("x", False),
        ("", False),
    ):
        assert makes_24(text, four) is expected
    assert makes_24("-(4 - 8) * 6", position("4 6 8")) and makes_24("48 ÷ 2", position("2 48"))
    assert makes_24("8·3", position("3 8")) and makes_24("+".join(["1"] * 24), (Fraction(1),) * 24)
    long = "24" + " " * 197 + "+0"
    assert len(long) == 201 and not makes_24(long, position("0 24"))


def test_rates_are_probabilities():
    for each in fields(Errors):
        if each.name == "distractors":
            continue
        bad = 1.5 if isinstance(each.default, float) else (0.0, -0.1, 0.0)
        with pytest.raises(ConfigError, match=f"{each.name} is .*: give probabilities, from 0 to 1"):
            Errors(**{each.name: bad})
    with pytest.raises(ConfigError, match="distractors is 0: give 1 or more"):
        Errors(distractors=0)
    assert Errors(distractors=1, answer=1.0, direct=0.0).distractors == 1
    assert Errors() == Errors(
        propose_winning=(0.38, 0.56, 0.87), propose_losing=(0.27, 0.35, 0.46), legal=(0.94, 0.91, 0.76),
        sure_if_winnable=(0.51, 0.99, 1.0), sure_if_lost=(0.012, 0.002, 0.003), impossible_if_lost=(0.12, 0.55, 0.61),
        answer=0.9, direct=0.073, cot=0.040, distractors=5,
    )  # fmt: skip
    even = uniform(0.5)
    assert even == Errors(
        propose_winning=(0.5,) * 3, propose_losing=(0.3,) * 3, legal=(1.0,) * 3, sure_if_winnable=(0.5,) * 3,
        sure_if_lost=(0.5,) * 3, impossible_if_lost=(0.5,) * 3, answer=0.5, direct=0.0625, cot=0.0625,
    )  # fmt: skip


def test_names_open_the_player_at_its_rates():
    plain, wrong = sim.open_model("game24"), sim.open_model("game24:error=0.25:seed=3")
    assert isinstance(plain, Sim) and isinstance(wrong, Sim)
    assert (plain.name, plain.errors, plain.seed) == ("sim:game24", Errors(), 0)
    assert (wrong.name, wrong.errors, wrong.seed) == ("sim:game24:error=0.25:seed=3", uniform(0.25), 3)
    best, worst = sim.open_model("game24:error=0"), sim.open_model("game24:error=1")
    assert (
        isinstance(best, Sim)
        and best.errors == uniform(0.0)
        and isinstance(worst, Sim)
        and worst.errors == uniform(1.0)
    )
    assert len({plain.fingerprint, wrong.fingerprint, Sim(seed=1).fingerprint}) == 3
    assert plain.fingerprint == Sim().fingerprint and plain.fingerprint.startswith("sim-game24-[{")
    assert sim.open_model("sessions").name == "scripted:sessions"
    for bad in ("game25", "game24:x=1"):
        with pytest.raises(ConfigError, match=f"^sim:{bad} names no simulated model: give sim:game24"):
            sim.open_model(bad)
    for bad in ("game24:error=2", "game24:error=x", "game24:seed=1.5", "game24:error=-1"):
        with pytest.raises(ConfigError, match=f"^sim:{bad}: error is a number from 0 to 1, and seed a whole number$"):
            sim.open_model(bad)
    with pytest.raises(ConfigError, match="a simulated model is named 'x': its name must begin with 'sim'"):
        Sim(name="x")


def test_verdicts_follow_the_rates_of_their_step():
    def verdict(numbers, **rates):
        base = {"sure_if_winnable": (0.0,) * 3, "sure_if_lost": (0.0,) * 3, "impossible_if_lost": (0.0,) * 3}
        return say(Sim(Errors(**base | rates)), f"Evaluate if given numbers can reach 24 (sure/likely)\n{numbers}\n")[0]

    assert [verdict(each) for each in ("4 6 1", "4 6", "24", "1 1")] == ["likely"] * 4
    for place, won, lost in ((0, "4 6 1", "1 1 1"), (1, "4 6", "1 1"), (2, "24", "3")):
        rates = tuple(float(at == place) for at in range(3))
        assert verdict(won, sure_if_winnable=rates) == "sure" and verdict(lost, sure_if_lost=rates) == "sure"
        assert (
            verdict(lost, impossible_if_lost=rates) == "impossible"
            and verdict(lost, sure_if_winnable=rates) == "likely"
        )
        assert verdict(won, sure_if_lost=rates, impossible_if_lost=rates) == "likely"
        assert verdict(lost, sure_if_lost=rates, impossible_if_lost=rates) == "sure"
    half = Sim(Errors(sure_if_winnable=(0.5,) * 3))
    said = {tuple(say(half, "Evaluate if given numbers can reach 24\n4 6", seed, n=4)) for seed in range(20)}
    assert said == {("sure",) * 4, ("likely",) * 4}  # verdicts of one request agree


def test_proposals_are_the_positions_that_its_rates_choose():
    def proposed(numbers, errors):
        text = say(Sim(errors), f"Input: 1 1\n...\nInput: {numbers}\nPossible next steps:\n")[0]
        return text.split("\n") if text else []

    assert proposed("24", PERFECT) == proposed("", PERFECT) == []
    asked = "Input: 1 2 3 4\nPossible next steps:\n"
    orders = {tuple(say(Sim(PERFECT, seed=seed), asked)[0].split("\n")) for seed in (1, 2)}
    assert len(orders) == 2 and len({tuple(sorted(each)) for each in orders}) == 1  # in random order
    lefts = {move.left for move in moves(position("4 6"))}
    every = proposed("4 6", PERFECT)
    assert {position(line.partition("left: ")[2].rstrip(")")) for line in every} == lefts and len(every) == len(lefts)
    only = Errors(propose_winning=(1.0,) * 3, propose_losing=(0.0,) * 3, legal=(1.0,) * 3)
    assert proposed("4 6", only) == ["4 * 6 = 24 (left: 24)"]
    assert proposed("4 6", replace(only, propose_winning=(1.0, 1.0, 0.0))) == []  # two numbers: the third operation
    assert proposed("4 6 1", replace(only, propose_winning=(1.0, 0.0, 1.0))) == []
    assert proposed("4 6 1 1", replace(only, propose_winning=(0.0, 1.0, 1.0))) == []
    half = replace(only, legal=(0.5,) * 3)  # as many wrong as right ones
    assert sorted(proposed("4 6", half)) == ["4 * 6 = 24 (left: 24)", "4 * 6 = 25 (left: 25)"]
    assert proposed("4 6", replace(only, legal=(0.0,) * 3)) == ["4 * 6 = 24 (left: 24)"]
    assert sim._broken(Move("1 + 2 = 3 (left: 3 9)", position("3 9"))) == Move("1 + 2 = 4 (left: 4 9)", position("4 9"))


def test_steps_lead_to_an_answer():
    model = Sim(replace(PERFECT, propose_losing=(0.0,) * 3))
    asked = "Input: 4 6\nSteps:\n"
    assert say(model, asked) == ["4 * 6 = 24 (left: 24)"]
    assert say(model, asked + "4 * 6 = 24 (left: 24)\n") == ["Answer: (4 * 6) = 24"]
    wrong = say(model, asked + "4 + 6 = 10 (left: 10)\n")[0]
    assert wrong.startswith("Answer: 4 + 6 + ") and wrong[16] in "12345" and wrong.endswith(" = 24")
    never = Sim(replace(PERFECT, answer=0.0))
    assert say(never, asked + "4 * 6 = 24 (left: 24)\n")[0].startswith("Answer: 4 + 6 + ")
    assert say(model, "Input: 1 1\nSteps:\n") == [""]


def test_a_question_is_answered_at_the_rate_of_its_kind():
    direct = Sim(Errors(direct=1.0, cot=0.0, distractors=1))
    by_steps = Sim(Errors(direct=0.0, cot=1.0, distractors=1))
    answer, wrong = f"Answer: {solution(position('4 4 6 8'))} = 24", "Answer: 4 + 4 + 6 + 8 + 1 = 24"
    for asked, first, second in (
        (QUESTION, answer, wrong),
        (f"Question: {QUESTION}", wrong, answer),
        (f"{QUESTION}\nThink step by step.", wrong, answer),
    ):
        assert (say(direct, asked), say(by_steps, asked)) == ([first], [second])
    judged = f"Input: 4 4 6 8\n{answer}\nJudge:"
    assert say(direct, judged) == ["sure"] and say(direct, f"Input: 4 4 6 8\n{wrong}\nJudge:") == ["impossible"]
    with pytest.raises(ModelError, match=r"^sim:game24 plays the game of 24 only, and was asked: 'Hello'"):
        say(direct, "Hello")


def test_replies_cost_their_words_and_scores_name_the_verdict():
    model = Sim(PERFECT)
    one, two = asyncio.run(model.complete([user("Input: 4 6\nSteps:\n")], Sampling(), n=2))
    words = [len(each.message.text.split()) for each in (one, two)]
    assert [one.usage, two.usage] == [Usage(4, 0, words[0]), Usage(0, 0, words[1])]
    asked = "Evaluate if given numbers can reach 24\n4 6"
    assert asyncio.run(model.score(asked, [" sure", "likely"])) == Scored(
        (Likelihood(" sure", math.log(0.98), 1, True), Likelihood("likely", math.log(0.01), 1, False)), Usage(11)
    )
    assert asyncio.run(model.count_tokens(asked, (), ["a", "b"])) == 11

    async def streamed():
        return [delta async for delta in model.stream(asked, Sampling())]

    (delta,) = asyncio.run(streamed())
    assert delta == Delta("sure", delta.completion) and delta.completion.message.text == "sure"


# -- the reader of sessions --

TOLD = (
    "On 2024-01-02 they met. The job of Ann Lee is Baker. The home of Ann Lee is Rome now.\n"
    "[2024-02-03]\n"
    "Then: The job of Ann Lee is no longer Baker.\n"
    "2024-03-04: The job of Bo Ray is Pilot."
)
FACTS = [
    SeenFact("2024-01-02", "job", "Ann Lee", "Baker", False),
    SeenFact("2024-01-02", "home", "Ann Lee", "Rome", False),
    SeenFact("2024-02-03", "job", "Ann Lee", "Baker", True),
    SeenFact("2024-03-04", "job", "Bo Ray", "Pilot", False),
]


def test_facts_have_the_date_above_them():
    assert facts_seen(TOLD) == FACTS
    asked = "What was the job of Ann Lee on 2023-05-05?\nThe job of Ann Lee is Baker."
    assert facts_seen(asked)[0].date == ""  # the date of a question dates nothing
    assert sentence(FACTS[2]) == "The job of Ann Lee is no longer Baker."
    assert sentence(FACTS[0]) == "The job of Ann Lee is Baker."


def test_a_question_is_answered_as_of_its_day():
    for question, answer in (
        ("What is the job of Bo Ray?", "Pilot"),
        ("What is the job of Ann Lee?", "unknown"),
        ("What was the job of Ann Lee on 2024-02-02?", "Baker"),
        ("What was the job of Ann Lee on 2024-02-03?", "unknown"),
        ("What was the job of Ann Lee on 2024-01-01?", "unknown"),
        ("What is the age of Ann Lee?", "unknown"),
        ("Who is it?", None),
    ):
        assert answer_to(question, FACTS) == answer
    same_day = [FACTS[0], FACTS[0]._replace(value="Cook")]
    assert answer_to("What is the job of Ann Lee?", same_day) == "Cook"


def test_a_summary_keeps_the_last_facts_that_fit():
    lines = ["2024-02-03: The job of Ann Lee is no longer Baker.", "2024-03-04: The job of Bo Ray is Pilot."]
    assert _summary(TOLD, 18) == "\n".join(lines) == _summary(TOLD + "\n" + lines[1], 25)
    assert _summary(TOLD, 17) == _summary(TOLD, 8) == lines[1]
    assert _summary(TOLD, 7) == _summary("nothing", 99) == "Nothing was stated."


def read(*messages, **settings):
    (found,) = asyncio.run(session_player().complete(list(messages), Sampling(**settings)))
    return found.message


def test_the_reader_extracts_summarises_and_answers():
    facts = [dict(zip(("subject", "attribute", "value", "withdrawn"), (f.subject, f.attribute, f.value, f.withdrawn),
                      strict=True)) for f in FACTS]  # fmt: skip
    assert json.loads(read(user(f"{TOLD}\nFacts:")).text) == facts
    assert read(user(f"{TOLD}\nSummary:"), max_tokens=8).text == "2024-03-04: The job of Bo Ray is Pilot."
    asked = user("What is the job of Bo Ray?")
    assert read(system(TOLD), asked).text == "Pilot"
    assert read(user("The job of Bo Ray is Cook."), asked, assistant("?")).text == "Cook"
    assert read(asked).text == "unknown"


def test_the_reader_searches_its_archive_before_it_answers():
    core, asked = system("Core memory: the blocks\nnone"), user("What is the job of Bo Ray?")
    call = ToolCall("search", "archival_memory_search", {"query": "job Bo Ray", "request_heartbeat": True})
    assert read(core, asked) == assistant("", call)
    found = Message(
        "tool", (ToolResult("search", "archival_memory_search", "2024-03-04: The job of Bo Ray is Pilot."),)
    )
    assert read(core, found, asked) == assistant("", call)  # what was found before the question is no answer to it
    assert read(core, asked, assistant("", call), found).text == "Pilot"


def test_the_reader_archives_the_last_session():
    session = user("[2024-01-02] The job of Ann Lee is Baker. The home of Ann Lee is Rome.")
    saved = read(user("[2023-01-01] The job of Al Low is Cook."), session)
    texts = ["2024-01-02: The job of Ann Lee is Baker.", "2024-01-02: The home of Ann Lee is Rome."]
    assert saved == assistant(
        "",
        *(
            ToolCall(f"save{number}", "archival_memory_insert", {"content": text, "request_heartbeat": True})
            for number, text in enumerate(texts)
        ),
    )
    done = Message("tool", (ToolResult("save0", "archival_memory_insert", "ok"),))
    assert read(session, saved, done, user("go on")).text == "Noted."
    assert read(user("[2024-01-02] Nothing.")).text == read(user("Hello.")).text == "Noted."
