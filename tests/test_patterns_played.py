"""Patterns as they are played: each request, its settings, the notes of the trace and the answer, by a scripted model."""

import pytest

from firsthand import catalog
from firsthand.errors import ConfigError
from firsthand.message import ToolCall, assistant
from firsthand.model import Sampling
from firsthand.patterns.blackboard_team import blackboard_team
from firsthand.patterns.chain import chain
from firsthand.patterns.code_act import code_act
from firsthand.patterns.constitutional import constitutional
from firsthand.patterns.cot import cot
from firsthand.patterns.debate import debate
from firsthand.patterns.deliberative import deliberative
from firsthand.patterns.direct import direct
from firsthand.patterns.evaluator_optimizer import evaluator_optimizer
from firsthand.patterns.route import route
from firsthand.patterns.swarm import swarm
from firsthand.tool import tool
from played_pattern import branches, played, question

STEP = "Let's think step by step."
OPENING = f'Q?\n\nEnd with "The answer is" and the answer.\n\n{STEP}'


def settings(temperature=0.0, max_tokens=512, stop=(), tools=()):
    return {"temperature": temperature, "max_tokens": max_tokens, "stop": stop, "tools": tools}


@tool(effect="read")
def look(place: str) -> str:
    """Look somewhere."""
    return f"seen {place}"


@tool(effect="read")
def add(a: int, b: int) -> str:
    """Add."""
    return str(a + b)


def test_debaters_read_the_others_and_what_changed_is_counted():
    says = {
        1: ["Ann: 5", "Bob: 6", "Cem: 7"],
        3: {"Ann: 5": "The answer is 6", "Bob: 6": "The answer is 6", "Cem: 7": "no"},
    }

    def answers(messages, sampling, index):
        return says[1][index] if len(messages) == 1 else says[3][messages[1].text]

    task = question(hint="a number")
    answer, requests, notes = played(debate, task, answers, notes=("debate", "vote"), temperature=0.4)
    opening = OPENING.replace("the answer.", "a number.")
    others = (
        "These are the solutions of other agents. Use them as advice, which may be wrong, and give your own answer again. "
        'End with "The answer is" and a number.'
    )
    assert requests[0] == ([("user", opening)], settings(0.4), 3)
    assert requests[2] == (
        [
            ("user", opening),
            ("assistant", "Bob: 6"),
            ("user", f"Solution of agent 1:\nAnn: 5\n\nSolution of agent 2:\nCem: 7\n\n{others}"),
        ],
        settings(0.4),
        1,
    )
    assert answer == "6" and notes == [("debate", {"round": 2, "changed": 2}), ("vote", {"6": 2, "(no answer)": 1})]
    assert len(played(debate, question(), lambda *_: "x", agents=2, rounds=1)[1]) == 1


def chance(correct, incorrect):
    return lambda prompt, continuation: {"correct": correct, "incorrect": incorrect}.get(continuation.strip(), -9.0)


def test_a_rejected_answer_is_revised_with_the_judges_feedback():
    task = question(hint="a number")
    answer, requests, notes = played(
        evaluator_optimizer, task, ["1", "bad", "2"], score=chance(-2.0, -1.0), notes=("branch",), rounds=1
    )
    asked = "Q?\n\nProposed answer: 1\n\nCheck this answer. Say in a few sentences what is wrong with it, or that "
    asked += "nothing is."
    judged = [("user", asked), ("assistant", "bad")]
    last = ("user", "Is the proposed answer correct or incorrect? Answer in one word.")
    revised = "Q?\n\nA rejected answer: 1\nFeedback: bad\n\nGive a better answer."
    assert [each[0] for each in requests] == [
        [("user", "Q?\n\nAnswer with a number only.")], judged[:1], [*judged, last],
        [("user", f"{revised}\n\nAnswer with a number only.")],
    ]  # fmt: skip
    assert answer == "2" and requests[2][1] == ("correct", "incorrect")
    assert branches(notes) == [
        ("answer", "open", None, "Q?"), ("answer", "done", None, "1"), ("judge 1", "pruned", 0.2689, "bad"),
        ("revision 1", "open", None, revised), ("revision 1", "done", None, "2"),
    ]  # fmt: skip
    same = played(evaluator_optimizer, task, ["1", "bad", "2"], score=chance(-1.0, -1.0), notes=("branch",), rounds=1)
    assert same[0] == "2" and branches(same[2])[2][1:3] == ("pruned", 0.5)
    kept = played(evaluator_optimizer, task, ["1", "fine"], score=chance(-1.0, -2.0), notes=("branch",))
    assert kept[0] == "1" and branches(kept[2])[2][1:3] == ("kept", 0.7311)
    assert len(played(evaluator_optimizer, task, ["1"], rounds=0)[1]) == 1


def test_an_answer_is_criticised_by_each_principle_in_a_drawn_order():
    task = question(sampling={"max_tokens": 77})
    texts = ["first", "critique", " first ", "c" * 1_100, "second", "c3", " ", "c4", "fourth"]
    answer, requests, notes = played(
        constitutional, task, texts, notes=("principle", "branch"), rounds=4, principles="honest"
    )
    told = [data for kind, data in notes if kind == "principle"]
    assert sorted(each["id"] for each in told[:3]) == ["honest.facts", "honest.unknown", "honest.work"]
    assert [(each["round"], each["changed"]) for each in told] == [(1, False), (2, True), (3, True), (4, True)]
    assert told[1]["critique"] == "c" * 1_000 and answer == "fourth"
    conversations = [each[0] for each in requests]
    assert [talk[0][1].split("\n\n")[1] for talk in conversations[1::2]] == [
        f"Answer: {a}" for a in ("first", "first", "second", "second")
    ]
    assert conversations[2][:2] == [*conversations[1], ("assistant", "critique")]
    assert conversations[2][2] == (
        "user",
        "Write the answer to the request again so that it follows the principle. If nothing is wrong with it, repeat it. "
        "Reply with the answer alone.",
    )
    assert [each[1]["max_tokens"] for each in requests[:3]] == [77, 512, 77]
    assert branches(notes)[2:4] == [("revision 1", "kept", None, " first "), ("revision 2", "kept", None, "second")]
    chosen = played(constitutional, question(choices=("x", "y"), context="C"), score=lambda p, c: -1.0)
    assert chosen[0] == "A" and len(chosen[1]) == 1


def test_the_model_names_principles_before_it_answers_unless_it_is_told_not_to_reason():
    task = question(sampling={"max_tokens": 77}, hint="a word")
    answer, requests, notes = played(
        deliberative,
        task,
        ["see honest.facts", "The answer is red"],
        notes=("principles",),
        principles="honest.facts+honest.work",
    )
    first, second = requests
    assert first[0][0][1].splitlines()[0] == "Follow these principles:" and len(first[0][0][1].splitlines()) == 3
    assert first[0][1] == (
        "user",
        "Request: Q?\n\nAnswer with a word only.\n\nDo not answer yet. Name the ids of the principles that apply to this "
        "request, and say in one sentence whether to answer it or to decline.",
    )
    assert second[0][2:] == [
        ("assistant", "see honest.facts"), ("user", "Now reply to the request itself, following the principles."),
    ]  # fmt: skip
    assert (first[1]["max_tokens"], second[1]["max_tokens"]) == (512, 77) and notes == [
        ("principles", {"ids": ["honest.facts"]})
    ]
    assert answer == "red"
    at_once = played(deliberative, task, ["red"], reason=False)
    assert at_once[0] == "red" and [role for role, _ in at_once[1][0][0]] == ["system", "user"] and len(at_once[1]) == 1
    assert len(played(deliberative, question(context="C:"), ["x"])[1]) == 1


def test_a_team_writes_on_a_board_takes_turns_and_tells_of_conflicts():
    said = [
        "WRITE plan: a\nb\nWRITE plan: c", "WRITE plan: other", "just text",
        "WRITE x: 2", "DONE: The answer is 7", "WRITE y: z",
    ]  # fmt: skip
    answer, requests, notes = played(blackboard_team, question(), said, notes=("board", "done"))
    lead = "Q?\n\nYou are agent {} of 3, who solve this together through a shared board. The board now:\n\n{}\n\n{}Add what"
    board = "agent 3 (agent 3): just text\nplan (agent 1): c"
    conflict = "Your text under 'plan' was not taken: another agent wrote there first.\n\n"
    starts = [lead.format(n, "(empty)", "") for n in (1, 2, 3)]
    starts += [lead.format(n, board, conflict if n == 2 else "") for n in (1, 2, 3)]
    assert [each[0][0][1][: len(start)] for each, start in zip(requests, starts, strict=True)] == starts
    assert answer == "7" and notes[-1] == ("done", {"by": "agent 2", "round": 2})
    assert [(d["key"], d["writer"], d.get("version"), d.get("text")) for _, d in notes[:-1]] == [
        ("plan", "agent 1", 1, "a\nb"), ("plan", "agent 1", 2, "c"), ("plan", "agent 2", None, None),
        ("agent 3", "agent 3", 1, "just text"), ("x", "agent 1", 1, "2"),
    ]  # fmt: skip
    last = played(blackboard_team, question(hint="a number"), [" ", "WRITE k: v", "so 5"], members=2, rounds=1)
    assert last[0] == "5" and last[1][2][0] == [
        (
            "user",
            'Q?\n\nNotes of a team:\n\nk (agent 2): v\n\nNow answer the question. End with "The answer is" and a number.',
        )
    ]


def test_a_swarm_hands_over_to_names_it_knows_and_ends_after_its_turns():
    said = ["plan\n**Hand over to the Solver.**", "Hand over to nobody", "The answer is 4"]
    answer, requests, notes = played(swarm, question(), said, notes=("hand_over",))
    turn = (
        'Do your part. Then write, on a line of its own, "Hand over to" and one of their names, or, if the answer is found, '
        '"The answer is" and the answer.'
    )
    solver = (
        f"You are the solver. You carry out the steps and find the answer. The others are: planner, checker. {turn}"
    )
    planner = "You are the planner. You say what has to be found out, step by step, and solve nothing. The others are: "
    assert requests[2][0] == [
        ("user", f"Q?\n\n{planner}solver, checker. {turn}"), ("assistant", said[0]), ("user", solver),
        ("assistant", said[1]),
        ("user", f"There is no agent 'nobody'.\n\n{solver}"),
    ]  # fmt: skip
    assert answer == "4" and notes == [
        ("hand_over", {"source": "planner", "target": "solver", "known": True}),
        ("hand_over", {"source": "solver", "target": "nobody", "known": False}),
    ]
    ended = played(
        swarm,
        question(),
        ["so it is 9\nHand over to b", "x 3\nHand over to a"],
        agents={"a": "1.", "b": "2."},
        max_steps=2,
    )
    assert ended[0] == "x 3" and len(ended[1]) == 2
    for marked in ('\n\n > Hand over to the "b"', "done\n\n- **hand over to** b", "9\r\n\t* Hand over to\nb"):
        told = played(swarm, question(), [marked, "4"], agents={"a": "1.", "b": "2."}, notes=("hand_over",))[2]
        assert told == [("hand_over", {"source": "a", "target": "b", "known": True})]


def test_a_route_is_told_by_the_first_line_of_its_pattern_and_scored():
    answer, requests, notes = played(
        route, question(), ["5"], score=lambda p, c: {"direct": -1.0, "cot": -3.0}[c], notes=("branch",)
    )
    assert requests[0][:2] == (
        [("user", "Q?\n\nDo not answer yet. Which of these fits this best?\n- direct: The model's answer to the bare "
          "question, prompted exactly as the benchmark's protocol says if it fixes the text.\n- cot: The answer at the "
          "end of one chain of thought.\n\nWrite its name only.")],
        ("direct", "cot"),
    )  # fmt: skip
    assert requests[1][0] == [("user", "Q?")] and answer == "5"
    assert branches(notes)[:2] == [("direct", "kept", 0.8808, ""), ("cot", "pruned", 0.1192, "")]
    named = played(
        route, question(), ["x"], score=lambda p, c: {"a": -3.0, "b": -1.0}[c], patterns={"a": direct, "b": cot}
    )
    assert named[1][1][0] == [("user", OPENING)]


def test_code_is_run_observed_and_asked_for_until_the_steps_are_over():
    python = catalog.tools("python")
    said = ["no code", "```python\nprint(1)", "Final Answer:  3 "]
    answer, requests, _ = played(
        code_act, question(), said, tools=python, max_steps=2, sampling=Sampling(stop=("END",))
    )
    assert answer == "3" and requests[0][1]["stop"] == ("END", "\nObservation") and requests[2][1]["stop"] == ("END",)
    assert requests[0][0][-1] == ("user", "Question: Q?") and requests[0][0][0][1].startswith(
        "Answer the question by writing"
    )
    assert [talk for talk in requests[2][0] if talk[0] == "user"][-3:] == [
        ("user", "Observation: There was no code. Write one ```python block, or Final Answer: and the answer."),
        ("user", "Observation: The code block was empty or not closed. Write a shorter one between ```python and ```."),
        ("user", "No steps are left. Write Final Answer: and in few words."),
    ]
    with pytest.raises(AssertionError, match="code_act needs the tool 'python', and the tools are add, look"):
        played(code_act, question(), ["x"], tools=(look, add))


def test_a_chain_fills_its_templates_and_tells_a_step_what_was_wrong():
    def gate(number, text):
        return f"{number}: too short" if len(text) < 3 else None

    steps = ("{question}|{previous}|{wanted}", "then {previous} {{x}}")
    answer, requests, notes = played(
        chain, question(hint="a number"), ["ab", "abcd", "12", "3"], notes=("branch",), steps=steps, gate=gate
    )
    assert [each[0] for each in requests] == [
        [("user", "Q?||a number")],
        [("user", "Q?||a number"), ("assistant", "ab"), ("user", "That cannot be used: 1: too short\nWrite it again.")],
        [("user", "then abcd {x}")],
        [
            ("user", "then abcd {x}"),
            ("assistant", "12"),
            ("user", "That cannot be used: 2: too short\nWrite it again."),
        ],
    ]
    assert answer == "3" and branches(notes) == [
        ("step 1", "pruned", None, "1: too short"), ("step 1", "done", None, "abcd"),
        ("step 2", "pruned", None, "2: too short"),
        ("step 2", "failed", None, "2: too short"),
    ]  # fmt: skip
    for wrong in ("{x}", "{", "{0}"):
        with pytest.raises(
            ConfigError, match=r"cannot be filled in .*it may hold \{question\}, \{previous\} and \{wanted\}"
        ):
            played(chain, question(), ["x"], steps=(wrong,))


def test_one_chain_of_thought_or_the_two_calls_of_the_paper():
    assert played(cot, question(), ["so The answer is 9."])[:2] == ("9", [([("user", OPENING)], settings(), 1)])
    answer, requests, _ = played(cot, question(hint="a number"), ["I think 7.", "8"], extract=True)
    assert answer == "8" and requests[1][0] == [
        ("user", f"Q?\n\n{STEP}"), ("assistant", "I think 7."), ("user", "Therefore, the answer (a number) is"),
    ]  # fmt: skip
    assert played(cot, question(hint="a number"), ["I think 7.", "none"], extract=True)[0] == "7"
    examples = [{"question": "1?", "answer": 1}, {"question": "2?", "answer": 2}]
    shown = played(cot, question(metadata={"examples": examples}), ["x"], shots=1)[1][0][0]
    assert shown == [("user", "Question: 1?"), ("assistant", "1"), ("user", "Question: Q?")]
    with pytest.raises(AssertionError, match="shots is 3, and task 't' carries 2 examples: give 0 to that many"):
        played(cot, question(metadata={"examples": examples}), ["x"], shots=3)


def test_direct_takes_calls_contexts_and_likelihoods_as_the_task_says():
    calls = question(calls=True)
    made = assistant("", ToolCall("1", "look", {"place": "é"}), ToolCall("2", "add", {"a": 1}))
    answer, requests, _ = played(direct, calls, [made], tools=(look, add))
    assert answer == '[{"look": {"place": "é"}}, {"add": {"a": 1}}]' and requests[0][1]["tools"] == ("add", "look")
    assert (
        played(direct, question(), ["x"], tools=(look,))[1][0][1]["tools"] == ()
        and played(direct, calls, ["no"], tools=(look,))[0] == "no"
    )
    text = played(direct, question(context="C:", sampling={"max_tokens": 3, "stop": ("\n",)}), ["red"])
    assert text[:2] == ("red", [("C:", settings(max_tokens=3, stop=("\n",)), 1)])
    chosen = question(choices=("x", "y", "z"), requests=(("1", "a"), ("2", "b"), ("1", "c")), baseline="B")
    answer, requests, _ = played(direct, chosen, score=lambda p, c: {"a": -3.0, "b": -1.0, "c": -2.0}[c])
    assert answer == "B" and [each[:2] for each in requests] == [
        ("1", ("a", "c")),
        ("2", ("b",)),
        ("B", ("a", "b", "c")),
    ]
    talked = question(choices=("x", "y"), requests=((None, "a"), (None, "b")))
    answer, requests, _ = played(direct, talked, score=lambda p, c: -1.0)
    assert answer == "A" and requests[0][:2] == ([("user", "Q?")], ("a", "b"))
