"""Agents together: debate, hand-offs and a team around a board, on scripted models whose every turn is known."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from firsthand import Agent, Task, catalog
from firsthand.errors import ConfigError
from firsthand.loop.journal import MemoryJournal
from firsthand.patterns.blackboard_team import blackboard_team
from firsthand.patterns.debate import debate
from firsthand.patterns.parts.hand_overs import hand_over
from firsthand.patterns.swarm import swarm
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.trace import Trace

TASK = Task("1", "What is 31 * 47?", hint="a number")
DESK = {"Front": "You ask.", "Back": "You answer.", "Third": "You wait."}


def run(pattern: Any, options: dict[str, Any], script: Any, **more: Any) -> tuple[Trace, Scripted]:
    model = script if isinstance(script, Scripted) else Scripted(script)
    trace = asyncio.run(rollout(Agent("a", model, pattern, options), TASK, **more))
    assert trace.error is None
    return trace, model


def last_prompts(model: Scripted, number: int) -> list[str]:
    return [asked.prompt[-1].text for asked in model.asked[-number:]]


# -- debate --


def test_debaters_read_the_others_and_never_themselves_and_the_most_common_last_answer_wins() -> None:
    first, second = (
        ["The answer is 1", "The answer is 2", "The answer is 3"],
        ["It is 5.", "The answer is 7", "The answer is 7"],
    )
    trace, model = run(debate, {"agents": 3}, [*first, *second])
    assert trace.answer == "7"
    for index, prompt in enumerate(last_prompts(model, 3)):
        assert [text in prompt for text in first] == [place != index for place in range(3)]
    events = [(event.kind, event.data) for event in trace.events]
    assert events == [("debate", {"round": 2, "changed": 3}), ("vote", {"5": 1, "7": 2})]


def test_debaters_that_answer_nothing_have_the_first_ones_text() -> None:
    assert run(debate, {"agents": 2, "rounds": 1}, ["who knows", "not me"])[0].answer == "who knows"


def test_each_round_adds_to_each_debaters_own_conversation() -> None:
    _, model = run(debate, {"agents": 2, "rounds": 3}, [f"The answer is {n}" for n in range(6)])
    assert [len(asked.prompt) for asked in model.asked] == [1, 3, 3, 5, 5]
    assert model.asked[-1].prompt[1].text == "The answer is 1" and model.asked[-1].prompt[3].text == "The answer is 3"


# -- swarm --


def test_specialists_hand_over_by_name_in_any_case_and_the_last_one_answers() -> None:
    trace, model = run(swarm, {"agents": DESK}, ["Let me see.\n**Hand over to the `back`**.", "The answer is 1457"])
    assert trace.answer == "1457"
    assert [event.data for event in trace.events] == [{"source": "Front", "target": "Back", "known": True}]
    (second,) = last_prompts(model, 1)
    assert second.startswith("You are the Back. You answer. The others are: Front, Third.")


def test_a_name_of_nobody_is_told_and_takes_a_turn() -> None:
    trace, model = run(swarm, {"agents": DESK, "max_steps": 2}, ["Hand over to Bob", "hand over to Front\nmy best: 12"])
    assert last_prompts(model, 1)[0].startswith("There is no agent 'Bob'.\n\nYou are the Front.")
    assert trace.answer == "12" and [event.data["known"] for event in trace.events] == [False, True]


def test_one_that_names_nobody_goes_on_itself() -> None:
    _, model = run(
        swarm, {"agents": DESK, "max_steps": 3}, ["Hand over to Back", "Hand over to Bob", "The answer is 3"]
    )
    assert last_prompts(model, 1)[0].startswith("There is no agent 'Bob'.\n\nYou are the Back.")


OFFICE = {"Front": "", "Dr. No": "", "Dr. No's desk": "", "the boss": "", "data": "", "Data": "", "*star*": ""}


@pytest.mark.parametrize(
    "line",
    [
        "Hand over to: X", "1. Hand over to X", "2) **Hand over to X**", "I hand over to X.", "Handing over to X",
        "Hand over to “X”", "Hand over to X (an invoice)", "_Hand over to X_", "Hand over to <X>",
        "I'll hand this over to X",
        "Hand over to\n\n- X", "Step 3: hand over to the X", "Handoff to X", "Hand over: X", "hand over to\tX's team",
        "It is about bills, so I will now hand over to X because they know", "It is a bill and so I hand over to X.",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["Front", "Dr. No", "Dr. No's desk", "the boss", "Data", "data", "*star*"])
def test_a_hand_over_in_any_form_reaches_an_agent_of_any_name(line: str, name: str) -> None:
    found = hand_over(f"It is about an invoice.\n{line.replace('X', name)}", OFFICE)
    assert found is not None and found.agent == name and not re.search(r"\d|hand", found.rest, re.IGNORECASE)


@pytest.mark.parametrize(
    "reply",
    [
        "The answer is 5", "Final answer: 12. Hand over to Back", "I would hand over to Back, but it is 5",
        "The seller must hand over to Back the keys.", "I do not need to hand over to Back: it is 5",
        "If it were a bill, I would hand over to Back.", "Should I hand over to Back? No, it is 5.", "Hand over your keys",
        "1. Add.\n2. Hand over to Back to check.\nThe answer is 5", "The answer is 5, so I hand over to Back.",
        "It is 5, so I hand over to the court", "#### 5\nHanding over to Back",
        "Nothing is wrong, I will not hand over to Back", "It is 5. Handing over to **Back** is not needed.",
        "Handing over to Back would be wrong: it is 5", "1. Hand over to Back, if it is wrong", "To hand over to Back: 5",
        "I hand over to Back: the answer is 5.", "So I hand over to Back, as my final answer: 5",
    ],
)  # fmt: skip
def test_an_answer_that_speaks_of_handing_over_ends_the_swarm(reply: str) -> None:
    assert hand_over(reply, DESK) is None


def test_a_line_as_asked_counts_before_others_and_beside_an_answer() -> None:
    plan = "1. Add.\n2. Hand over to Third.\nThe answer is 5, and so I hand over to Third.\nHand over to Back"
    found = hand_over(plan, DESK)
    assert found is not None and found.agent == "Back"
    assert found.rest == "1. Add.\n\nThe answer is 5,\n"
    within = hand_over("It is a bill and so I hand over to Back", DESK)
    assert within is not None and within.rest == "It is a bill "
    after = hand_over("Hand over to Back. The answer is 5", DESK)
    assert after is not None and after.agent == "Back" and after.rest.strip() == "The answer is 5"


@pytest.mark.parametrize(
    "line", ["Handing over to X", "I hand over to: X", "3. Hand over to X", "Hand over to Back-office"]
)
def test_a_hand_over_to_nobody_is_told_in_any_form(line: str) -> None:
    trace, model = run(swarm, {"agents": DESK, "max_steps": 2}, [line.replace("X", "Bob"), "The answer is 7"])
    assert re.match(r"There is no agent '(Bob|Back-office)'\.\n\nYou are the Front\.", last_prompts(model, 1)[0])
    assert trace.answer == "7" and [event.data["known"] for event in trace.events] == [False]


def test_a_hand_over_to_an_agent_counts_before_one_to_nobody_and_quotes_of_any_kind_are_equal() -> None:
    found = hand_over("1. Hand over to Bob\n2. Hand over to Back\n3. Hand over to Third", DESK)
    assert found is not None and found.agent == "Back"
    quoted = hand_over("Hand over to Dr. No’s “B” desk", ['Dr. No\'s "B" desk', "Dr. No"])
    assert quoted is not None and quoted.agent == 'Dr. No\'s "B" desk'


def test_a_line_without_a_name_is_told() -> None:
    trace, model = run(swarm, {"agents": DESK}, ["Hand over to ...", "The answer is 7"])
    assert last_prompts(model, 1)[0].startswith('No name stands behind "Hand over to".\n\nYou are the Front.')
    assert trace.answer == "7" and trace.events[0].data == {"source": "Front", "target": "", "known": False}


def test_no_answer_is_read_from_the_line_that_hands_over_in_the_last_turn() -> None:
    for line in ("1. Hand over to Back", "Hand over to Back, 2 bills"):
        assert run(swarm, {"agents": DESK, "max_steps": 1}, [f"It is 5.\n{line}"])[0].answer == "5"


def test_an_answer_behind_the_name_of_the_last_turn_stays_and_words_on_answers_are_none() -> None:
    assert (
        run(swarm, {"agents": DESK, "max_steps": 1}, ["It was 5.\nHand over to Back: the answer is 7"])[0].answer == "7"
    )
    for line in ("I hand over to Back to see whether the answer is right", "I hand over to Back, who would know"):
        found = hand_over(line, DESK)
        assert found is not None and found.agent == "Back"


@pytest.mark.parametrize("text", ["; hand over to Back ?" * 20_000, "hand over to Back" + " \n" * 40_000])
def test_hand_overs_of_a_long_reply_are_found_in_linear_time(text: str) -> None:
    begun = time.perf_counter()
    hand_over(text, DESK)
    assert time.perf_counter() - begun < 10


@pytest.mark.parametrize("agents", [{"a": "", " ": ""}, {"a b": "", "a  b ": ""}])
def test_names_that_cannot_be_told_apart_are_refused(agents: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="give each a name of its own, which is not blank"):
        Agent("a", Scripted([]), swarm, {"agents": agents})


# -- team --


def test_members_see_the_board_of_the_round_before_and_one_of_them_ends() -> None:
    script = ["WRITE a: one\nWRITE b: two", "thinking aloud", "nothing", "DONE: 1457"]
    trace, model = run(blackboard_team, {"members": 2}, script)
    assert trace.answer == "1457" and trace.events[-1].data == {"by": "agent 2", "round": 2}
    assert all("(empty)" in asked.prompt[-1].text for asked in model.asked[:2])
    for prompt in last_prompts(model, 2):
        assert "a (agent 1): one\nagent 2 (agent 2): thinking aloud\nb (agent 1): two" in prompt


def test_of_two_writes_to_one_key_the_first_is_taken_and_the_other_is_told() -> None:
    script = ["WRITE sum: 5", "WRITE sum: 6\nWRITE mine: x", "WRITE sum: 7\nWRITE sum: 8", "DONE: 8"]
    trace, model = run(blackboard_team, {"members": 2}, script)
    ours, theirs = last_prompts(model, 2)
    assert "sum (agent 1): 5" in ours and "was not taken" not in ours
    assert "Your text under 'sum' was not taken" in theirs and "mine (agent 2): x" in theirs
    written = [(e.data["key"], e.data["writer"], e.data.get("version")) for e in trace.events if e.kind == "board"]
    assert written == [
        ("sum", "agent 1", 1), ("sum", "agent 2", None), ("mine", "agent 2", 1), ("sum", "agent 1", 2), ("sum", "agent 1", 3)
    ]  # fmt: skip


def test_a_text_that_was_not_taken_is_told_of_in_the_next_round_alone() -> None:
    script = ["WRITE sum: 5", "WRITE sum: 6", "WRITE a: 1", "WRITE b: 2", "DONE: 8", "DONE: 8"]
    trace, model = run(blackboard_team, {"members": 2}, script)
    told = ["was not taken" in asked.prompt[-1].text for asked in model.asked]
    assert told == [False, False, False, True, False, False] and trace.answer == "8"


def test_without_an_end_the_answer_is_made_of_the_board() -> None:
    trace, model = run(blackboard_team, {"members": 1, "rounds": 2}, ["WRITE a: x", "WRITE a: y", "The answer is 3"])
    assert trace.answer == "3" and "Notes of a team:\n\na (agent 1): y" in last_prompts(model, 1)[0]


@pytest.mark.parametrize(
    "text",
    ["WRITE : x", "WRITE \u202e: x", f"WRITE {'k' * 90}: x", "write a: x", "DONE", "\x00", "WRITE a:", "*" * 50_000],
)
def test_what_is_no_write_loses_no_text_and_ends_no_attempt(text: str) -> None:
    trace, model = run(blackboard_team, {"members": 1, "rounds": 1}, [text, "The answer is 3"])
    assert trace.answer == "3" and len(model.asked) == 2


# -- all --


@pytest.mark.parametrize(
    ("pattern", "options"), [(debate, {"agents": 2}), (swarm, {}), (blackboard_team, {"members": 2})]
)
def test_a_resumed_attempt_repeats_no_call_and_ends_the_same(pattern: Any, options: dict[str, Any]) -> None:
    journal, script = (
        MemoryJournal(),
        ["WRITE a: 1\nHand over to solver", "The answer is 2", "DONE: 4", "The answer is 4"] * 3,
    )
    first, _ = run(pattern, options, list(script), journal=journal)
    again, model = run(pattern, options, list(script), journal=journal)
    assert again.answer == first.answer and model.asked == []
    assert [(e.kind, e.data) for e in again.events] == [(e.kind, e.data) for e in first.events]


@pytest.mark.parametrize(
    "named",
    [
        "debate:agents=1",
        "debate:rounds=0",
        "debate:temperature=-1",
        "swarm:max_steps=0",
        "blackboard_team:members=0",
        "blackboard_team:rounds=0",
    ],
)
def test_options_that_cannot_work_are_refused(named: str) -> None:
    pattern, options = catalog.pattern(named)
    with pytest.raises(ConfigError, match=r"give|temperature"):
        Agent("a", Scripted([]), pattern, options)
