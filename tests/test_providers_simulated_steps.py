"""Single steps of the simulated models: arithmetic of the game of 24, and each turn of the reader of sessions."""

from __future__ import annotations

import json
from fractions import Fraction
from random import Random
from typing import Any

import pytest

from firsthand.message import Message, ToolCall, ToolResult, assistant, system, user
from firsthand.model import Sampling
from firsthand.providers.game24_solver import (
    Move,
    _number,
    _solve,
    _value,
    _values,
    makes_24,
    moves,
    position,
    reachable,
    solution,
)
from firsthand.providers.session_player import _reply, _saved, _summary, answer_to, facts_seen, sentence
from firsthand.providers.sim import Errors, Sim, _broken, _last, _step


def numbers(*given: int) -> tuple[Fraction, ...]:
    return tuple(map(Fraction, given))


def test_two_numbers_have_the_results_of_their_order() -> None:
    six, three, zero = numbers(6, 3, 0)
    assert list(_values(six, three, both_orders=True)) == [("+", 9), ("*", 18), ("-", 3), ("/", 2)]
    assert list(_values(three, six, both_orders=False)) == [("-", -3), ("/", Fraction(1, 2))]
    assert list(_values(six, zero, both_orders=True)) == [("+", 6), ("*", 0), ("-", 6)]
    assert [each.text for each in moves(numbers(2, 6, 7))][:5] == [
        "2 + 6 = 8 (left: 7 8)", "2 * 6 = 12 (left: 7 12)", "2 - 6 = -4 (left: -4 7)", "2 / 6 = 1/3 (left: 1/3 7)",
        "2 + 7 = 9 (left: 6 9)",
    ]  # fmt: skip
    assert len(moves(numbers(2, 6, 7))) == 18 and moves(numbers(5)) == ()
    assert [_number(each) for each in ("7", "2/3", "1.5", "1/0", "1e3", "x", "9" * 41)] == [
        7, Fraction(2, 3), Fraction(3, 2), None, None, None, None,
    ]  # fmt: skip


def test_a_solution_uses_every_number_and_there_is_none_where_24_cannot_be_reached() -> None:
    assert solution(numbers(24)) == "24" and solution(numbers(23)) is None and solution(()) is None
    assert solution(numbers(4, 6)) == "(4 * 6)" and solution(numbers(3, 72)) == "(72 / 3)"
    assert solution(numbers(1, 25)) == "(25 - 1)"
    for given in ((3, 3, 8, 8), (4, 5, 6, 10), (1, 5, 5, 5)):
        found = solution(numbers(*given))
        assert found is not None and makes_24(found, numbers(*given)), given
    assert solution(numbers(1, 1, 1, 1)) is None and not reachable(numbers(*[24] * 7)) and reachable(numbers(24))
    assert _solve(((Fraction(20), "a"), (Fraction(4), "b"))) == "(a + b)" and _solve(((Fraction(1), "a"),)) is None
    for expression, given, right in (
        ("(4 + 8) × 2", (2, 4, 8), True), ("48 ÷ 2", (2, 48), True), ("[26 − 2]", (2, 26), True), ("-2 + 26", (2, 26), True),
        ("4 * 6", (4, 6, 1), False), ("24", (4, 6), False), ("4 * 6 * 1", (4, 6), False), ("24 / 0", (0, 24), False),
        ("2 ** 3 * 3", (2, 3, 3), False), ("4 * 6 = 24", (4, 6), False), ("", (), False), ("4 * 5", (4, 5), False),
        (" 4*6 ", (4, 6), True), ("+4 * +6", (4, 6), False), ("18 - +6", (6, 18), False), ("-4 * -6", (4, 6), True),
        ("30 - --6", (6, 30), True), ("5 * 5 - 1", (1, 5, 5), True), ("5 * 5 - 1", (1, 1, 5), False), ("6 4", (4, 6), False),
        ("27 - 3", (3, 27), True), ("3 - 27", (3, 27), False), ("3 / 72", (3, 72), False), ("4 // 1 * 6", (1, 4, 6), False),
        ("28 % 4 + 24", (4, 24, 28), False), ("4 * 06", (4, 6), False), ("4(6)", (4, 6), True),
        ("4 (6)", (4, 6), True), ("(4)(6)", (4, 6), True), ("4(6)1", (1, 4, 6), False), ("4()6", (4, 6), False),
        ("(4)6", (4, 6), False), ("4(5)", (4, 5), False), ("16 / 4(6)", (4, 6, 16), False),
        ("24 / 1(1)", (1, 1, 24), True),
        ("4 * 6" + " " * 200, (4, 6), True), ("(" * 100 + "24" + ")" * 100, (24,), False),
    ):  # fmt: skip
        assert makes_24(expression, numbers(*given)) is right, expression
    with pytest.raises(ValueError, match="an expression"):
        _value(__import__("ast").parse("x", mode="eval").body, [])


def test_a_broken_step_is_off_by_one_and_errors_go_by_the_numbers_that_are_left() -> None:
    assert _broken(Move("4 + 8 = 12 (left: 6 12)", numbers(6, 12))) == Move("4 + 8 = 13 (left: 6 13)", numbers(6, 13))
    assert _broken(Move("6 * 2 = 12 (left: 12 12)", numbers(12, 12))).left == numbers(12, 13)
    assert _broken(Move("9 - 3 = 6 (left: 6 7)", numbers(6, 7))) == Move("9 - 3 = 7 (left: 7 7)", numbers(7, 7))
    assert [_step(each) for each in (6, 5, 4, 3, 2, 1, 0)] == [0, 0, 0, 1, 2, 2, 2]
    assert (
        _last(r"Input: ([^\n]*)", "Input: 1 2\nx\nInput: 4 3\n") == numbers(3, 4) and _last("Input: (.*)", "none") == ()
    )
    sure = Sim(Errors(sure_if_winnable=(0.0, 1.0, 0.0), sure_if_lost=(0, 0.5, 0), impossible_if_lost=(0, 0.25, 0)))
    assert sure._verdict(numbers(4, 6), Random(1)) == "sure" and sure._verdict(numbers(1, 4, 6), Random(1)) == "likely"

    class Draws:
        def __init__(self, draw: float) -> None:
            self.draw = draw

        def random(self) -> float:
            return self.draw

    def lost(draw: float) -> str:
        drawn: Any = Draws(draw)
        return sure._verdict(numbers(1, 1), drawn)

    last = Sim(Errors(sure_if_lost=(0, 0, 0.5), impossible_if_lost=(0, 0, 0.25)))
    drawn: list[Any] = [Draws(each) for each in (0.49, 0.5, 0.74, 0.75)]
    assert [last._verdict(numbers(5), each) for each in drawn] == ["sure", "impossible", "impossible", "likely"]
    assert [lost(each) for each in (0.49, 0.5, 0.74, 0.75)] == ["sure", "impossible", "impossible", "likely"]
    text = "Input: 4 6\nAnswer: 4 * 5 = 24\nJudge:\nInput: 4 6\nAnswer: 4 * 6 = 24\nJudge:"
    assert sure._judge(text) == "sure" and sure._judge(text.replace("4 * 6", "4 + 6")) == "impossible"


PLAN = "2024-01-02: The pet name of Ann Lee is Rex. The home town of Bob Ray is Oslo now."
LATER = "2024-03-04: The pet name of Ann Lee is no longer Rex."


def reply(*messages: Message, max_tokens: int = 99) -> Any:
    return _reply(messages, Sampling(max_tokens=max_tokens), 0)


def test_the_reader_of_sessions_does_what_its_prompt_ends_with() -> None:
    found = json.loads(reply(user(f"{PLAN}\n{LATER}\nFacts:")))
    assert found == [
        {"subject": "Ann Lee", "attribute": "pet name", "value": "Rex", "withdrawn": False},
        {"subject": "Bob Ray", "attribute": "home town", "value": "Oslo", "withdrawn": False},
        {"subject": "Ann Lee", "attribute": "pet name", "value": "Rex", "withdrawn": True},
    ]
    lines = [
        "2024-01-02: The pet name of Ann Lee is Rex.", "2024-01-02: The home town of Bob Ray is Oslo.",
        "2024-03-04: The pet name of Ann Lee is no longer Rex.",
    ]  # fmt: skip
    text = f"{PLAN}\n{LATER}\nSummary:"
    assert _summary(text, 29) == "\n".join(lines) and _summary(text, 20) == "\n".join(lines[1:])
    assert [len(each.split()) for each in lines] == [9, 9, 11] and _summary(text, 28) == "\n".join(lines[1:])
    assert (
        _summary(text, 10) == "Nothing was stated." == _summary("", 99) and reply(user(text), max_tokens=11) == lines[2]
    )
    asks = user("What was the pet name of Ann Lee on 2024-02-01?")
    assert reply(system(f"{PLAN}\n{LATER}"), asks) == "Rex"
    assert reply(system(f"{PLAN}\n{LATER}"), user("What is the pet name of Ann Lee?")) == "unknown"
    assert reply(system("x"), asks) == "unknown" and reply(user("Hello")) == "Noted."
    core = system("Core memory: the blocks\n" + PLAN)
    query = {"query": "pet name Ann Lee", "request_heartbeat": True}
    assert reply(core, asks) == assistant("", ToolCall("search", "archival_memory_search", query))
    searched = Message("tool", (ToolResult("search", "archival_memory_search", PLAN),))
    assert reply(core, asks, assistant("", ToolCall("search", "archival_memory_search", query)), searched) == "Rex"


def test_the_reader_of_sessions_archives_each_fact_of_the_last_one_once() -> None:
    session = user(f"[session]\n{PLAN}")
    saved = _saved([user(f"[old]\n{LATER}"), session])
    assert saved == assistant(
        "",
        *(
            ToolCall(f"save{number}", "archival_memory_insert", {"content": content, "request_heartbeat": True})
            for number, content in enumerate(
                ["2024-01-02: The pet name of Ann Lee is Rex.", "2024-01-02: The home town of Bob Ray is Oslo."]
            )
        ),
    )
    done = Message("tool", (ToolResult("save0", "archival_memory_insert", "ok"),))
    assert (
        _saved([session, assistant("x"), done])
        == "Noted."
        == _saved([user("[session] nothing")])
        == _saved([user("x")])
    )
    assert isinstance(_saved([done, session]), Message)
    later = user(f"[second]\n{LATER}")
    turns = [session, saved, done, assistant("Noted."), later]
    third = ["2024-03-04: The pet name of Ann Lee is no longer Rex."]
    again = assistant("", ToolCall("save0", "archival_memory_insert", {"content": third[0], "request_heartbeat": True}))
    assert _saved(turns) == again == reply(*turns), "what was saved of the first session is not of the second"
    assert _saved([*turns, again, done]) == "Noted." == reply(*turns, again, done)
    assert _saved([*turns, assistant("said"), user("not a session")]) == again
    assert _saved([*turns, user("[third]")]) == "Noted." == _saved([])
    assert _saved([system(f"[session]\n{PLAN}")]) == "Noted.", "the user tells a session"


HOME = "The home of Ann Lee is {}."


def test_the_last_question_is_answered_from_all_that_is_shown_besides_it() -> None:
    ask = user("What is the home of Ann Lee?")
    older = user("What is the pet name of Bob Ray?")
    facts = system("[2024-05-01] " + HOME.format("Oslo") + " " + HOME.format("Rome"))
    assert reply(facts, older, ask) == "Rome" and reply(facts, ask, older) == "unknown"
    assert reply(older, ask, user("2024-06-01 " + HOME.format("Bonn"))) == "Bonn", "what comes later is seen too"
    assert reply(user("2023-01-01 " + HOME.format("Bonn")), facts, ask) == "Rome", "the later day counts, not the place"
    both = user(HOME.format("Kiel") + " What is the home of Ann Lee?")
    assert reply(both) == "unknown", "the question's own message tells nothing"
    day = user("What was the home of Ann Lee on 2024-05-01?")
    assert reply(facts, day) == "Rome" and reply(facts, user(day.text.replace("05-01", "04-30"))) == "unknown"
    core = system("Core memory: the blocks")
    told = Message("tool", (ToolResult("s", "archival_memory_search", "2024-05-02 " + HOME.format("Bern")),))
    search = {"query": "home Ann Lee", "request_heartbeat": True}
    call = assistant("", ToolCall("search", "archival_memory_search", search))
    assert reply(core, told, ask) == call, "a result from before the question is no search for it"
    assert reply(core, ask, told) == "Bern" == reply(told, ask) and reply(core, older, told, ask, told) == "Bern"
    assert reply(core, user("[2024-05-02] " + HOME.format("Bern"))) == assistant(
        "",
        ToolCall(
            "save0",
            "archival_memory_insert",
            {"content": "2024-05-02: " + HOME.format("Bern"), "request_heartbeat": True},
        ),
    )


def test_a_fact_has_the_first_day_before_it_on_its_line_and_else_that_of_a_line_above() -> None:
    def days(*lines: str) -> list[tuple[str, str]]:
        return [(each.date, each.value) for each in facts_seen("\n".join(lines))]

    oslo, rome, bonn = (HOME.format(each) for each in ("Oslo", "Rome", "Bonn"))
    assert days("2024-01-01", f"{oslo} On 2024-02-02 {rome}") == [("2024-01-01", "Oslo"), ("2024-02-02", "Rome")]
    assert days("2024-01-01", f"{oslo} On 2024-02-02 {rome}", bonn)[2] == ("2024-01-01", "Bonn")
    assert days(f"{oslo} 2024-02-02 {rome}", bonn) == [("", "Oslo"), ("2024-02-02", "Rome"), ("", "Bonn")]
    assert days("2024-01-01", f"2024-02-02 {oslo}", rome) == [("2024-02-02", "Oslo"), ("2024-02-02", "Rome")]
    asked = "What was the home of Ann Lee on 2024-07-07?"
    assert days("2024-01-01", f"{asked} {oslo}", rome) == [("2024-07-07", "Oslo"), ("2024-01-01", "Rome")]
    assert days("2024-01-01 2024-03-03", oslo) == [("2024-01-01", "Oslo")] and days("", asked) == []


def test_facts_stand_under_the_day_before_them() -> None:
    text = "\n".join(
        [
            HOME.format("Oslo"), "On 2024-01-02 and 2024-01-03 they met.", HOME.format("Rome") + " 2024-09-09",
            "2024-02-02: " + HOME.format("Bonn") + " 2024-03-03: " + HOME.format("Kiel"),
            "What was the home of Ann Lee on 2024-07-07?", HOME.format("no longer Kiel").replace(".", " now."),
        ]
    )  # fmt: skip
    assert [(each.date, each.value, each.withdrawn) for each in facts_seen(text)] == [
        ("", "Oslo", False), ("2024-01-02", "Rome", False), ("2024-02-02", "Bonn", False), ("2024-02-02", "Kiel", False),
        ("2024-02-02", "Kiel", True),
    ]  # fmt: skip
    found = facts_seen(text)
    assert (
        answer_to("What is the home of Ann Lee?", found) == "unknown" == answer_to("What is the home of Al Lee?", found)
    )
    assert answer_to("What is the home of Ann Lee?", found[:4]) == "Kiel"
    assert answer_to("What was the home of Ann Lee on 2024-02-01?", found) == "Rome"
    assert answer_to("What was the home of Ann Lee on 2023-02-01?", found) == "Oslo", (
        "a fact without a day is before all"
    )
    assert answer_to("Where does Ann Lee live?", found) is None
    assert [sentence(each) for each in found[3:]] == [HOME.format("Kiel"), HOME.format("no longer Kiel")]


class Draws(Random):
    """Draws this number again and again; turns lists round, takes the last of them, and the highest whole number."""

    def __init__(self, drawn: float) -> None:
        super().__init__(0)
        self.drawn = drawn

    def random(self) -> float:
        return self.drawn

    def shuffle(self, x: Any) -> None:
        x.reverse()

    def choice(self, seq: Any) -> Any:
        return seq[-1]

    def randint(self, a: int, b: int) -> int:
        assert a == 1
        return b


def test_a_verdict_goes_by_the_rate_of_its_step() -> None:
    rates = Errors(
        sure_if_winnable=(0.25, 0.5, 0.75), sure_if_lost=(0.125, 0.25, 0.5), impossible_if_lost=(0.25, 0.125, 0.0625)
    )
    sim = Sim(rates)

    def verdicts(numbers: str, *drawn: float) -> list[str]:
        return [sim._verdict(position(numbers), Draws(each)) for each in drawn]

    for numbers, sure in (("4 6 1", 0.25), ("4 6", 0.5), ("24", 0.75)):
        assert verdicts(numbers, 0.0, sure - 0.001, sure, 0.999) == ["sure", "sure", "likely", "likely"]
    for numbers, sure, lost in (("1 1 1", 0.125, 0.375), ("1 1", 0.25, 0.375), ("23", 0.5, 0.5625)):
        found = verdicts(numbers, sure - 0.001, sure, lost - 0.001, lost)
        assert found == ["sure", "impossible", "impossible", "likely"], numbers


def test_steps_are_proposed_by_what_they_lead_to_and_mistakes_besides() -> None:
    rates = Errors(propose_winning=(0.9, 0.9, 0.5), propose_losing=(0.8, 0.8, 0.25), legal=(1.0, 1.0, 0.5))
    sim = Sim(rates)

    def proposed(numbers: str, drawn: float) -> list[str]:
        return [each.text for each in sim._proposals(position(numbers), Draws(drawn))]

    (won,) = [text for text in proposed("4 6", 0.4) if text.endswith("left: 24)")]
    assert proposed("4 6", 0.4) == [won.replace("24", "25"), won] and proposed("4 6", 0.5) == []
    lefts = {text.partition("left: ")[2] for text in proposed("4 6", 0.2)}
    assert {"24)", "25)", "10)", "11)", "2)", "3)"} <= lefts and len(proposed("4 6", 0.2)) == 2 * (len(lefts) // 2)
    three = proposed("1 1 1", 0.79)
    assert three and not any("(left: 1 1 1)" in each for each in three) and proposed("1 1 1", 0.8) == []
    assert len({each.partition("(")[2] for each in three}) == len(three), "one step for each position"


def test_a_line_goes_on_from_the_last_step_and_ends_in_an_expression() -> None:
    rates = Errors(
        propose_winning=(1.0, 1.0, 1.0), propose_losing=(0.0, 0.0, 0.0), legal=(1.0, 1.0, 1.0), answer=0.5, distractors=7,
        direct=0.25, cot=0.75,
    )  # fmt: skip
    sim = Sim(rates)
    examples = "Input: 1 1\nSteps:\n1 + 1 = 2 (left: 2)\nInput: 4 6\nSteps:\n"
    assert sim._next_line(examples, Draws(0.4)).endswith("= 24 (left: 24)"), "the last input counts"
    done = examples + "4 * 6 = 24 (left: 24)\n"
    right = sim._next_line(done, Draws(0.49))
    assert right.startswith("Answer: ") and right.endswith(" = 24") and makes_24(right[8:-5], position("4 6"))
    assert sim._next_line(done, Draws(0.5)) == "Answer: 4 + 6 + 7 = 24"
    assert sim._next_line(examples + "4 + 6 = 10 (left: 10)\n", Draws(0.0)) == "Answer: 4 + 6 + 7 = 24"
    assert sim._next_line("Input: 1 1\nSteps:\n", Draws(0.5)) == "", "nothing is proposed"
    wrong = "Answer: 4 + 6 + 7 = 24"
    assert sim._answer(position("6 4"), False, Draws(0.25)) == wrong == sim._answer(position("6 4"), True, Draws(0.75))
    for by_steps, drawn in ((False, 0.24), (True, 0.74)):
        assert sim._answer(position("6 4"), by_steps, Draws(drawn)) in (
            "Answer: 4 * 6 = 24",
            "Answer: 6 * 4 = 24",
            right,
        )
    assert sim._expression(position("1 1"), True, Draws(0.0)) == "1 + 1 + 7"
    judged = "Input: 1 1\nAnswer: 4 * 6 = 24\nInput: 4 6\nAnswer: 1 + 1\nAnswer: 6 * 4 = 9\nJudge:"
    assert sim._judge(judged) == "sure" and sim._judge(judged.replace("Input: 4 6", "Input: 4 7")) == "impossible"
