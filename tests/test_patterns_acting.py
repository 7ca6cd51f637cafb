"""Patterns that act, vote and reflect, as they are played; and the options that each pattern refuses."""

import asyncio
import math
from random import Random

import pytest

from firsthand import Agent, catalog
from firsthand.errors import ConfigError
from firsthand.guard import GuardVerdict
from firsthand.message import ToolCall, assistant
from firsthand.model import Likelihood, Sampling
from firsthand.patterns.attend import attend
from firsthand.patterns.audit import audit
from firsthand.patterns.best_of_n import best_of_n
from firsthand.patterns.blackboard_team import blackboard_team
from firsthand.patterns.chain import chain
from firsthand.patterns.code_act import code_act
from firsthand.patterns.constitutional import constitutional
from firsthand.patterns.cot import cot
from firsthand.patterns.debate import debate
from firsthand.patterns.deliberative import deliberative
from firsthand.patterns.direct import direct
from firsthand.patterns.evaluator_optimizer import evaluator_optimizer
from firsthand.patterns.judge import judge
from firsthand.patterns.judge_rag import judge_rag
from firsthand.patterns.parts.thoughts import GenericThoughts
from firsthand.patterns.plan_mode import plan_mode
from firsthand.patterns.react import react
from firsthand.patterns.react_cot import react_cot
from firsthand.patterns.reflexion import reflexion
from firsthand.patterns.reply import reply
from firsthand.patterns.route import route
from firsthand.patterns.self_consistency import self_consistency
from firsthand.patterns.staged import staged
from firsthand.patterns.swarm import swarm
from firsthand.patterns.thought_action import thought_action
from firsthand.patterns.toolformer import toolformer
from firsthand.patterns.tot import choose, expected, tot
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
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


def test_react_answers_wrong_actions_and_reads_a_finish_after_its_last_step():
    said = ["Thought: x", "Action: zook[a]", "Action: LOOK[here]", "Action: Finish[ 4 ]"]
    sampling = Sampling(stop=("END",), temperature=0.3)
    answer, requests, _ = played(
        react, question(hint="a number"), said, tools=(look, add), max_steps=3, sampling=sampling
    )
    known = "add[input], look[input]; or Final Answer: and the answer"
    assert answer == "4" and [each[1]["stop"] for each in requests] == [("END", "\nObservation")] * 3 + [("END",)]
    assert requests[3][0][-6:] == [
        ("user", f"Observation: There was no action. Write one line: Action: and one of {known}"), ("assistant", said[1]),
        ("user", f"Observation: There is no tool 'zook'. Write one line: Action: and one of {known}"),
        ("assistant", said[2]),
        ("user", "Observation: seen here"), ("user", "No steps are left. Write Final Answer: and a number."),
    ]  # fmt: skip
    first = requests[0][0]
    assert first[-1] == ("user", "Question: Q?") and first[0][1].startswith(
        "Answer the question. Write a Thought line, then one Action line. After each Action you are given an Observation. "
        "When you know the answer write Final Answer: and a number.\nActions:\n- "
    )
    assert "): Look somewhere." in first[0][1] or "]: Look somewhere." in first[0][1]
    many = played(react, question(), ["Final Answer: x"], sampling=Sampling(stop=tuple(f"s{n}" for n in range(64))))
    assert many[1][0][1]["stop"] == (*(f"s{n}" for n in range(1, 64)), "\nObservation")
    closed = played(react, question(), ["hm", "Thought: I know.\nAction: Finish[red wine]"], tools=(look,), max_steps=1)
    assert closed[0] == "red wine" == played(react, question(), ["Action: FINISH[red wine]"], tools=(look,))[0]
    native = [assistant("", ToolCall("1", "look", {"place": "b"})), "It is 5", "z"]
    answer, requests, _ = played(react, question(hint="a number"), native, tools=(look,), native=True)
    ending = 'Q?\n\nUse the tools where they help. End with "The answer is" and a number.'
    assert answer == "5" and requests[1][0] == [("user", ending), ("assistant", ""), ("tool", "seen b")]
    over = played(react, question(hint="a number"), [native[0], "so 6"], tools=(look,), native=True, max_steps=1)
    assert (
        over[0] == "6"
        and over[1][1][0][-1] == ("user", "No steps are left. Give the answer now.")
        and over[1][1][1]["tools"] == ()
    )


class Watching:
    """A guard that keeps the results it is shown, as (id of the call, name, content, whether it failed)."""

    def __init__(self):
        self.seen = []

    def result(self, view, tool, result):
        self.seen.append((result.call_id, result.name, result.content, result.is_error))
        return GuardVerdict.passed("watching")


@tool(effect="read", name="python")
def runs(code: str) -> str:
    """Run code."""
    return f"ran {code}"


@tool(effect="read", name="act")
def acts(action: str) -> str:
    """Act."""
    return f"did {action}"


@pytest.mark.parametrize(
    ("pattern", "options", "tools", "said", "seen"),
    [
        (
            react, {"max_steps": 7}, (look, add),
            ["Action: LOOK[a]", "hm", "Action: zook[b]", "Action: add[1]", 'Action: add[{"a": 1, "b": 2}]',
             "Action: look[c]", "Final Answer: x"],
            [("step-0", "look", "seen a", False), ("step-4", "add", "3", False), ("step-5", "look", "seen c", False)],
        ),
        (
            code_act, {}, (runs,),
            ["```python\n1\n```", "hm", "```python\n2\n```", "Final Answer: x"],
            [("step-0", "python", "ran 1", False), ("step-2", "python", "ran 2", False)],
        ),
        (
            toolformer, {"max_calls": 3}, (look,),
            ["a [look(b)", " c [none(b)", " d [look(e)", " f"],
            [("call-0", "look", "seen b", False), ("call-2", "look", "seen e", False)],
        ),
    ],
)  # fmt: skip
def test_each_call_of_an_attempt_has_the_number_of_its_step_as_its_id(pattern, options, tools, said, seen):
    guard = Watching()
    agent = Agent("a", Scripted(said), pattern, options, tools, guard=(guard,))
    trace = asyncio.run(rollout(agent, question()))
    assert trace.error is None and guard.seen == seen


def test_each_action_of_a_world_has_the_number_of_its_step_as_its_id():
    guard = Watching()
    said = ["Thought: a\nAction: go", "Thought: b\nAction: stay", "Thought: c\nAction: go"]
    agent = Agent("a", Scripted(said), thought_action, {"max_steps": 3}, (acts,), guard=(guard,))
    asyncio.run(rollout(agent, question()))
    assert guard.seen == [
        ("step-0", "act", "did go", False), ("step-1", "act", "did stay", False), ("step-2", "act", "did go", False),
    ]  # fmt: skip


def test_react_and_votes_stand_in_for_each_other():
    said = ["none", *["The answer is 3"] * 2]
    answer, requests, notes = played(
        react_cot, question(hint="a number"), lambda m, s, i: "none" if len(m) > 2 else "The answer is 3",
        notes=("branch", "vote"), max_steps=1, samples=2, temperature=0.6,
    )  # fmt: skip
    assert answer == "3" and requests[1][1:] == (settings(0.6), 2) and said
    assert branches(notes) == [("react", "pruned", None, "no answer within 1 steps")] and notes[-1] == (
        "vote",
        {"3": 2},
    )
    split = ["The answer is 1", "The answer is 2", "The answer is 3", "Final Answer: 9"]
    answer, _, notes = played(
        react_cot, question(hint="a number"), lambda m, s, i: split[i] if s.temperature else split[3],
        notes=("branch",), first="cot", samples=3,
    )  # fmt: skip
    assert answer == "9" and branches(notes) == [("cot", "pruned", 1 / 3, "1 of 3 votes agree")]


def test_votes_of_chains_and_of_patterns():
    def says(messages, sampling, index):
        return ["x", "The answer is 72.0", "The answer is 72", "The answer is 5"][index]

    answer, requests, notes = played(
        self_consistency, question(hint="a number"), says, notes=("vote",), samples=4, temperature=0.5
    )
    assert answer == "72.0" and requests == [
        ([("user", OPENING.replace("the answer.", "a number."))], settings(0.5), 4)
    ]
    assert notes == [("vote", {"72": 2, "5": 1, "(no answer)": 1})]
    answer, requests, notes = played(
        self_consistency, question(), ["a", "b", "b"], notes=("vote",), pattern=direct, samples=3
    )
    assert (
        answer == "b"
        and [each[1:] for each in requests] == [(settings(0.7), 1)] * 3
        and notes == [("vote", {"a": 1, "b": 2})]
    )
    nothing = played(self_consistency, question(hint="a number"), lambda *_: "x", samples=2)
    assert nothing[0] == "x"


def test_reflections_stand_under_the_question_of_the_next_trial():
    said = ["one", "it is wrong", " lesson 1 ", "two", "wrong", "lesson 2", "three", "still wrong"]
    answer, requests, notes = played(
        reflexion, question(), said, notes=("branch",), pattern=direct, strategy="both", memory=1
    )
    conversations = [each[0] for each in requests]
    assert conversations[1] == [
        (
            "user",
            "Problem:\nQ?\n\nProposed answer:\none\n\nCheck the answer step by step. End with one word: right or wrong.",
        )
    ]
    assert conversations[2] == [
        ("user", "This problem was attempted, and the attempt failed.\n\nProblem:\nQ?\n\nAttempt:\nassistant: one\n\nWhat "
         "came of it:\nit is wrong\n\nDo not solve the problem now. Say in a few sentences what went wrong, and what to do "
         "otherwise next time.")
    ]  # fmt: skip
    last = "You tried this before and failed. This was the end of your last attempt:\nassistant: "
    words = "You tried this before and failed. What to do otherwise, in your own words:\n1. "
    assert conversations[3] == [("user", f"Q?\n\n{last}one\n\n{words}lesson 1")]
    assert "Earlier reflections:\n1. lesson 1\n\nDo not solve" in conversations[5][0][1]
    assert (
        conversations[6] == [("user", f"Q?\n\n{last}two\n\n{words}lesson 2")]
        and answer == "three"
        and len(requests) == 8
    )
    assert [(name, status, text) for name, status, _, text in branches(notes)] == [
        ("trial.1", "failed", "one"), ("trial.2", "failed", "two"), ("trial.3", "failed", "three"),
    ]  # fmt: skip


def test_the_best_of_several_samples_is_the_earliest_of_equal_ones():
    benchmark = catalog.benchmark("goal_misspecification")
    task = benchmark.tasks(0)[0]
    proxy = catalog.module_attribute("benchmark", task.metadata["proxy"], "proxy")
    texts = ["a b", "a b c d e f", "f e d c b a", "x"]
    answer, requests, notes = played(
        best_of_n, task, lambda m, s, i: texts[i], notes=("candidates",), n=4, rounds=2, temperature=0.9
    )
    shown = notes[0][1]["answers"]
    values = [proxy(task, each) for each in shown]
    best = shown[values.index(max(values))]
    assert answer == best and [data["round"] for _, data in notes] == [1, 2] and notes[0][1]["proxies"] == values
    assert requests[0][2] == 4 and requests[0][1]["temperature"] == 0.9
    assert requests[1][0][0][1].endswith(
        f"\n\nThe best answer so far has {max(values):g} points: {best}\nGive a better one."
    )
    with pytest.raises(ConfigError, match="temperature is 0 and n 2: all answers would be the same"):
        played(best_of_n, task, ["x"], n=2, temperature=0.0)
    assert len(played(best_of_n, task, ["x"], n=1, temperature=0.0)[1]) == 1


def test_a_reply_asks_the_question_once_where_no_more_was_said_than_the_tasks_conversation():
    assert played(reply, question(), ["It is 5"])[1][0][0] == [("user", "Q?")]
    talk = (assistant("", ToolCall("1", "look", {"place": "a"})),)
    calls = [assistant("", ToolCall("2", "look", {"place": "b"})), "so"]
    answer, requests, _ = played(reply, question(conversation=talk), calls, tools=(look,), max_steps=1)
    assert requests[0][1]["tools"] == ("look",) and requests[1][1]["tools"] == () and answer == "so"
    assert [text for _, text in requests[1][0]][-2:] == ["seen b", "No steps are left. Give the answer now."]
    assert [text for _, text in requests[0][0]] == ["", "Q?"]


@pytest.mark.parametrize(
    ("pattern", "fits", "wrong"),
    [
        (react, {"max_steps": 1}, [{"max_steps": 0}, {"native": True, "constrained": True}]),
        (react_cot, {"max_steps": 1, "samples": 1, "temperature": 0.0},
         [{"max_steps": 0}, {"samples": 0}, {"temperature": -0.1}]),
        (self_consistency, {"samples": 1, "shots": 0},
         [{"samples": 0}, {"shots": -1}, {"pattern": cot, "shots": 1}, {"temperature": -1.0}]),
        (reflexion, {"trials": 1, "memory": 1}, [{"trials": 0}, {"memory": 0}]),
        (best_of_n, {"n": 1, "temperature": 0.0}, [{"n": 0}, {"rounds": 0}, {"rounds": 2, "n": 1, "temperature": 0.0}]),
        (reply, {"max_steps": 1}, [{"max_steps": 0}]),
        (debate, {"agents": 2, "rounds": 1}, [{"agents": 1}, {"rounds": 0}, {"temperature": -0.1}]),
        (swarm, {"agents": {"a": "", "b": ""}, "max_steps": 1}, [{"agents": {"a": ""}}, {"max_steps": 0}]),
        (blackboard_team, {"members": 1, "rounds": 1}, [{"members": 0}, {"rounds": 0}]),
        (chain, {"steps": ("x",)}, [{"steps": ()}]),
        (code_act, {"max_steps": 1}, [{"max_steps": 0}]),
        (constitutional, {"rounds": 0}, [{"rounds": -1}, {"principles": "nothing"}]),
        (deliberative, {"principles": "honest"}, [{"principles": "nothing"}]),
        (evaluator_optimizer, {"rounds": 0}, [{"rounds": -1}]),
        (route, {"patterns": {"a": direct}}, [{"patterns": {}}]),
        (cot, {"shots": 0, "extract": True}, [{"shots": -1}, {"shots": 1, "extract": True}]),
        (attend, {"window": 0}, [{"window": -1}]),
        (audit, {"branches": 0, "max_steps": 1}, [{"branches": -1}, {"max_steps": 0}]),
        (tot, {"breadth": 1, "samples": 1, "judgements": 1, "temperature": 0.0},
         [{"breadth": 0}, {"samples": 0}, {"judgements": 0}, {"temperature": -0.1}]),
        (toolformer, {"max_calls": 0, "top_k": 100}, [{"max_calls": -1}, {"top_k": 0}, {"top_k": 101}]),
        (thought_action, {"max_steps": 1}, [{"max_steps": 0}]),
        (plan_mode, {"retries": 0}, [{"retries": -1}]),
        (staged, {"most": 1}, [{"most": 0}]),
        (judge, {"max_chars": 250, "reasoning_tokens": 1}, [{"max_chars": 249}, {"reasoning_tokens": 0}]),
        (judge_rag, {"max_chars": 1, "questions": 1}, [{"max_chars": 0}, {"questions": 0}]),
    ],
)  # fmt: skip
def test_options_are_checked_when_an_agent_is_made(pattern, fits, wrong):
    assert Agent("a", Scripted([]), pattern, fits).options == fits
    for each in wrong:
        with pytest.raises(ConfigError):
            Agent("a", Scripted([]), pattern, each)


def test_a_tree_of_thoughts_proposes_judges_keeps_and_answers():
    verdicts = {"a": "sure", "b": "likely", "c": "impossible"}

    def says(messages, sampling, index):
        said = messages[-1].text
        if said.endswith("Possible next steps:"):
            return "1. a\n- b\n2) c\na"
        if said.endswith("Judgement:"):
            return f"so {verdicts[said.splitlines()[-2].strip()[-1]]}."
        return f"The answer is {said.count('a') % 7}{said.splitlines()[-2][-1:]}"

    task = question("Q?", hint="a word")
    answer, requests, notes = played(tot, task, says, notes=("branch",), breadth=2, judgements=2, temperature=0.3)
    first, *judged = requests[:4]
    assert first[0][0][1].startswith("Q?\n\nList up to five different next steps, each on a line of its own.")
    assert first[1]["temperature"] == 0.3 and first[2] == 1 and [each[2] for each in judged] == [2, 2, 2]
    assert all(each[0][0][1].startswith("Q?\n\nJudge in a few words whether these steps lead") for each in judged)
    found = branches(notes)
    values = {text: score for name, status, score, text in found[:3]}
    assert [name for name, *_ in found[:3]] == ["1.0", "1.1", "1.2"] and values["a"] > values["b"] > values["c"] >= 0
    assert [status for _, status, _, _ in found[:3]] == ["kept", "kept", "pruned"]
    assert values["a"] == 2 * 20.0 and values["b"] == 2 * 1.0
    ended = [each for each in found if each[0].startswith("answer.")]
    assert [name for name, *_ in ended] == ["answer.0", "answer.1"] and ended[0][1] == "done" and answer


def test_verdicts_are_expected_by_their_likelihoods_and_states_are_chosen_in_order():
    likelihoods = [Likelihood("x", math.log(share), 1, False) for share in (0.5, 0.25, 0.25)]
    assert expected(likelihoods, {"sure": 20.0, "likely": 1.0, "impossible": 0.001}) == pytest.approx(10.25025)
    assert choose([1.0, 3.0, 3.0, 2.0], 3, "greedy", Random(0)) == [1, 2, 3]
    assert choose([0.0, 0.0], 1, "sample", Random(0)) == [0] and choose([0.0, 1.0, 0.0], 3, "sample", Random(0)) == [
        1,
        1,
        1,
    ]


def test_generic_thoughts_ask_for_steps_and_then_for_the_answer():
    thoughts = GenericThoughts(question("Q?", hint="a word"))
    assert thoughts.sample("one\n").prompt.startswith("Q?\n\nWrite the next step only, on one line.\n\n")
    assert thoughts.sample("one\n").stop == ("\n",) and thoughts.sample("one\n").prompt.endswith("Next step:")
    last = thoughts.propose("one\ntwo\n")
    assert last.prompt.endswith('Follow these steps. End with "The answer is" and a word.') and last == thoughts.sample(
        "one\ntwo\n"
    )
    assert thoughts.proposed("one\n", ["1. two\n* three\n\n", "two"]) == ["one\ntwo\n", "one\nthree\n"]
    assert thoughts.proposed("one\ntwo\n", [" The  answer\nis x ", " "]) == ["one\ntwo\nThe answer is x\n"]
    assert [thoughts.is_done(text) for text in ("", "a\n", "The answer is b\n", "a\nb\nc\n", "answer is x\nno\n")] == [
        False, False, True, True, False,
    ]  # fmt: skip
    assert thoughts.answer("a\nThe answer is red\n") == "red"
    assert thoughts.valued("s", [["so sure", "likely."], ["none"]]) == 21.0 and (thoughts.steps, thoughts.hopeless) == (
        3,
        0.5,
    )
