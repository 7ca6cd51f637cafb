"""What each pattern says to a model, and what it makes of the answers. The models here are scripts."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import at_most_cpu_s
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.message import Message, ToolCall, assistant
from firsthand.model import Completion, Likelihood, Sampling, Scored, Usage
from firsthand.patterns.cot import cot
from firsthand.patterns.direct import direct
from firsthand.patterns.parts.actions import parse_action
from firsthand.patterns.parts.answers import extract_answer, normal_form
from firsthand.patterns.react import react
from firsthand.patterns.self_consistency import self_consistency
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import tool
from firsthand.tools.calculator import calculator
from thorough import repetitions

SUM = Task("1", "What is 3 * 4?", hint="a number", secret={"answer": "SECRET"})
CHOICE = Task("2", "Which is soft?", choices=(" rock", " wool"), secret={"gold": 1})
WORDS = Task("3", "Who wrote Faust?")


class Script:
    """A model that says its lines in order, and keeps what it was asked."""

    name = fingerprint = "script"

    def __init__(self, *lines: str | Message, logprobs: Sequence[float] = ()):
        self.lines, self.logprobs = list(lines), logprobs
        self.asked: list = []
        self.samplings: list[Sampling] = []

    async def complete(self, prompt, sampling, *, tools=(), n=1):
        self.asked.append(prompt)
        self.samplings.append(sampling)
        said = [self.lines.pop(0) for _ in range(n)]
        messages = [assistant(each) if isinstance(each, str) else each for each in said]
        return [Completion(message, "stop", Usage(10, 0, 5)) for message in messages]

    def stream(self, prompt, sampling, *, tools=()):
        raise NotImplementedError

    async def score(self, prompt, continuations):
        self.asked.append(prompt)
        pairs = zip(continuations, self.logprobs, strict=True)
        return Scored(tuple(Likelihood(text, logprob, 1, False) for text, logprob in pairs), Usage(10))


def attempt(pattern, task, script, *, tools=(calculator,), **options):
    agent = Agent("a", script, pattern, options, tools)
    return asyncio.run(rollout(agent, task))


def transcript(trace):
    return [(message.role, message.text) for message in trace.messages(len(trace.nodes) - 1)]


def observations(trace):
    """What a ReAct agent was told after the question."""
    said = [text for role, text in transcript(trace) if role == "user"]
    return said[said.index("Question: What is 3 * 4?") + 1 :]


def test_the_catalog_lists_the_patterns_and_not_their_helpers():
    assert {"direct", "cot", "self_consistency", "react"} <= set(catalog.names("pattern"))
    assert "answers" not in catalog.names("pattern")
    assert catalog.pattern("self_consistency:samples=16") == (self_consistency, {"samples": 16})
    assert catalog.pattern("react:native=true:max-steps=3") == (react, {"native": True, "max_steps": 3})


def test_direct_asks_the_bare_question():
    trace = attempt(direct, SUM, Script("It is 12."))
    assert trace.answer == "12"
    assert transcript(trace) == [("user", "What is 3 * 4?\n\nAnswer with a number only."), ("assistant", "It is 12.")]
    assert attempt(direct, WORDS, Script(" Goethe. \n")).answer == "Goethe."
    assert attempt(direct, CHOICE, Script("B. wool")).answer == "B"


def test_direct_scores_choices_where_there_is_a_context():
    task = Task("1", "Which is soft?", (" rock", " wool"), context="Question: Which is soft?\nAnswer:")
    script = Script(logprobs=[-2.0, -1.0])
    trace = attempt(direct, task, script)
    assert trace.answer == "B"
    assert script.asked == ["Question: Which is soft?\nAnswer:"]
    assert [each["text"] for each in trace.calls[0].detail["likelihoods"]] == [" rock", " wool"]


def test_cot_thinks_step_by_step_or_follows_examples():
    trace = attempt(cot, SUM, Script("3 * 4 = 12. The answer is 12."))
    assert trace.answer == "12"
    asked = 'What is 3 * 4?\n\nEnd with "The answer is" and a number.\n\nLet\'s think step by step.'
    assert transcript(trace)[0] == ("user", asked)
    examples = [{"question": f"{i}?", "answer": f"#### {i}"} for i in range(3)]
    shown = attempt(cot, Task("1", "Q?", hint="a number", metadata={"examples": examples}), Script("#### 7"), shots=2)
    assert shown.answer == "7"
    assert transcript(shown) == [
        ("user", "Question: 0?"), ("assistant", "#### 0"), ("user", "Question: 1?"), ("assistant", "#### 1"),
        ("user", "Question: Q?"), ("assistant", "#### 7"),
    ]  # fmt: skip
    assert attempt(cot, SUM, Script("x"), shots=1).error.kind == "ConfigError"


def test_self_consistency_votes_over_normal_forms_in_one_call():
    script = Script("The answer is 11.", "The answer is 12.0.", "I give up", "so: 12", "The answer is $11")
    trace = attempt(self_consistency, SUM, script, samples=5)
    assert trace.answer == "11"  # two against two: the first seen
    assert len(trace.calls) == 1 and len(trace.calls[0].nodes) == 5
    assert script.samplings[0].temperature == 0.7
    [event] = trace.events
    assert (event.kind, event.data) == ("vote", {"11": 2, "12": 2, "(no answer)": 1})
    assert attempt(self_consistency, SUM, Script("7", "12", "12.00"), samples=3).answer == "12"
    assert attempt(self_consistency, SUM, Script("hm", "ho"), samples=2).answer == "hm"
    with pytest.raises(ConfigError, match="samples is 0"):
        attempt(self_consistency, SUM, Script(), samples=0)


def test_react_acts_observes_and_finishes():
    script = Script("Thought: multiply.\nAction: calculator[3 * 4]", "Thought: done.\nAction: Finish[12]")
    trace = attempt(react, SUM, script)
    assert trace.answer == "12" and trace.stop_reason == "done"
    said = transcript(trace)
    question = said.index(("user", "Question: What is 3 * 4?"))
    assert said[question + 1 :] == [
        ("assistant", "Thought: multiply.\nAction: calculator[3 * 4]"),
        ("user", "Observation: 12"),
        ("assistant", "Thought: done.\nAction: Finish[12]"),
    ]
    assert script.samplings[0].stop == ("\nObservation",)
    assert "calculator[expression]" in said[0][1] and sum(len(text) for _, text in said[:question]) < 900
    [call] = [call for call in trace.calls if call.kind == "tool"]
    assert call.detail["arguments"] == {"expression": "3 * 4"}


def test_react_tells_the_model_what_was_wrong():
    script = Script(
        "Action: google[x]", "hm", 'Action: calculator[{"expression": ]', "Action: calculator[2 +]", "Final Answer: 12"
    )
    said = observations(attempt(react, SUM, script))
    assert said[0].startswith(
        "Observation: There is no tool 'google'. Write one line: Action: and one of calculator[input]"
    )
    assert said[1].startswith("Observation: There was no action.")
    assert said[2] == "Observation: The input of calculator is not valid JSON: write calculator[expression]"
    assert said[3].startswith("Observation: Error: a number was expected, but the end came")


def test_react_asks_once_more_when_steps_run_out():
    script = Script("Action: calculator[1]", "Action: calculator[2]", "The answer is 12.")
    trace = attempt(react, SUM, script, max_steps=2)
    assert trace.answer == "12" and not script.lines
    assert transcript(trace)[-2] == ("user", "No steps are left. Write Final Answer: and a number.")


def test_react_needs_arguments_by_name_where_a_tool_takes_two():
    @tool(effect="read")
    def power(base: int, exponent: int) -> int:
        """A power."""
        return base**exponent

    script = Script("Action: power[2]", 'Action: power[{"base": 2, "exponent": 5}]', "Action: Finish[32]")
    trace = attempt(react, SUM, script, tools=(power,))
    assert observations(trace) == [
        'Observation: power takes 2 arguments: write power[{"base": "...", "exponent": "..."}]',
        "Observation: 32",
    ]


def test_react_can_use_native_tool_calls():
    wanted = [ToolCall("c1", "calculator", {"expression": "3*4"}), ToolCall("c2", "calculater", {})]
    trace = attempt(react, SUM, Script(assistant("", *wanted), "The answer is 12."), native=True)
    assert trace.answer == "12"
    results = [part for node in trace.nodes if node.message.role == "tool" for part in node.message.parts]
    assert [(part.call_id, part.is_error) for part in results] == [("c1", False), ("c2", True)]
    assert results[0].content == "12"


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("Action: calculator[3*4]", ("calculator", "3*4")),
        ("Action: calculator: 3*4", ("calculator", "3*4")),
        ("Action: calculator(3*(4+1))", ("calculator", "3*(4+1)")),
        ("Thought: x\n**Action:** `calculator`[3]", ("calculator", "3")),
        ("action 2: calculator 3*4", ("calculator", "3*4")),
        ("Action: calculator[3*4", ("calculator", "3*4")),
        ("Action: Finish[the [big] one]", ("Finish", "the [big] one")),
        ("Final Answer: 12", ("final answer", "12")),
        ("Action: calculator[1]\nFinal Answer: 2", ("calculator", "1")),
        ("I will take action: now", ("", "")),
        ("Action:", ("", "")),
    ],
)
def test_actions_are_read_however_they_are_written(text, action):
    assert parse_action(text) == action


@pytest.mark.parametrize(
    ("text", "task", "answer"),
    [
        ("2+2 is 4\n#### 1,234", SUM, "1234"),
        ("The answer is 5, I mean: The answer is 40 + 2 = 42.", SUM, "42"),
        ("#### 3\nor \\boxed{4}", SUM, "3"),
        ("so \\boxed{\\frac{1}{2}} and 9", SUM, "1/2"),
        ("**Answer:** $12.", SUM, "12"),
        ("It is -7 degrees.", SUM, "-7"),
        ("The answer is unclear. Perhaps 3", SUM, "3"),
        ("none", SUM, None),
        ("The answer is (B).", CHOICE, "B"),
        ("The answer is wool.", CHOICE, "B"),
        ("A rock is hard, so it must be B", CHOICE, "B"),
        ("Wool is soft.", CHOICE, "B"),
        ("Wool is the soft one.", CHOICE, None),
        ("The answer is A rock", CHOICE, "A"),
        ("C", CHOICE, None),
        ("The answer is Goethe.", WORDS, "Goethe"),
        ("Goethe", WORDS, None),
    ],
)
def test_answers_are_found_in_the_documented_order(text, task, answer):
    assert extract_answer(text, task) == answer


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece", ["\\boxed{", "####", "answer ", "answer is ", "9", "1/", "1,", "(A) ", "Action: ", "* ", "[", "\\frac{1}{"]
)
def test_extraction_is_linear_on_hostile_text(piece):
    text = piece * (repetitions(2_000_000, 250_000) // len(piece))
    with at_most_cpu_s(repetitions(10, 2)):
        for task in (SUM, CHOICE, WORDS):
            extract_answer(text, task)
        parse_action(text)
        normal_form(text)


@pytest.mark.slow
@given(st.text(max_size=200))
def test_any_text_is_parsed_without_an_error(text):
    for task in (SUM, CHOICE, WORDS):
        found = extract_answer(text, task)
        assert found is None or isinstance(normal_form(found), str)
    assert len(parse_action(text)) == 2


@pytest.mark.parametrize("pattern", [direct, cot, self_consistency, react])
def test_no_pattern_shows_a_secret_to_a_model(pattern):
    script = Script(*["12"] * 10)
    attempt(pattern, SUM, script)
    assert script.asked and "SECRET" not in str(script.asked)
