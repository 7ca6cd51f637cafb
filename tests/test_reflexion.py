"""Reflexion: trials, verdicts, lessons, and tests that a model writes for its own code."""

import asyncio
import contextlib
import io
import math
from dataclasses import replace

import pytest
from sims import believed, corrected

from firsthand.agent import Agent
from firsthand.errors import ConfigError
from firsthand.message import user
from firsthand.patterns.direct import direct
from firsthand.patterns.parts.feedback import Feedback
from firsthand.patterns.parts.self_tests import code_in, program, read_results, usable_tests
from firsthand.patterns.react import react
from firsthand.patterns.reflexion import reflexion, remembering
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.task import Task
from firsthand.tool import tool
from firsthand.tools.calculator import calculator

SUM = Task("1", "What is 3 * 4?", hint="a number", secret={"answer": "SECRET"})
CODE = Task("2", "def double(n):\n    '''Twice n.'''\n", metadata={"entry_point": "double"}, secret={"test": "SECRET"})


@tool(effect="write")
def python(code: str) -> str:
    """What a program prints: here in this process, for programs that the tests wrote."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            exec(code, {})
        except BaseException as error:
            print(f"{type(error).__name__}: {error}")
    return out.getvalue()


def attempt(model, task=SUM, tools=(), **options):
    return asyncio.run(rollout(Agent("a", model, reflexion, options, tools), task))


def trials(trace):
    return [(event.data["name"], event.data["status"]) for event in trace.events if event.kind == "branch"]


def until(right):
    async def evaluate(task, ctx, answer):
        return Feedback(answer == right, f"{answer} is not what was expected")

    return evaluate


def test_it_tries_again_with_what_it_learned_until_the_evaluator_passes():
    script = Scripted(["10", "I added.", "11", "I must multiply.", "12"])
    trace = attempt(script, pattern=direct, trials=5, evaluate=until("12"))
    assert trace.answer == "12" and trials(trace) == [("trial.1", "failed"), ("trial.2", "failed"), ("trial.3", "done")]
    asked = [each.prompt[-1].text for each in script.asked]
    assert asked[0] == "What is 3 * 4?\n\nAnswer with a number only."
    assert "10 is not what was expected" in asked[1] and "assistant: 10" in asked[1] and "Earlier" not in asked[1]
    assert asked[2].startswith("What is 3 * 4?\n\nYou tried this before") and "1. I added." in asked[2]
    assert "Earlier reflections:\n1. I added." in asked[3]
    assert "1. I added.\n2. I must multiply." in asked[4]
    assert "SECRET" not in str(script.asked)


@pytest.mark.parametrize("memory", [1, 3])
def test_only_the_last_reflections_are_shown(memory):
    lines = [line for trial in range(1, 7) for line in (f"answer {trial}", f"lesson {trial}")]
    script = Scripted(lines)
    attempt(script, pattern=direct, trials=6, memory=memory, evaluate=until("never"))
    for trial, asked in enumerate(script.asked[::2]):
        shown = [number for number in range(1, 7) if f"lesson {number}" in asked.prompt[-1].text]
        assert shown == list(range(max(1, trial - memory + 1), trial + 1))


def test_the_number_of_calls_is_the_formula_on_the_docs_page():
    for limit in (1, 2, 4):
        trace = attempt(
            Scripted(lambda messages, sampling, index: "no"), pattern=direct, trials=limit, evaluate=until("12")
        )
        assert len(trace.calls) == limit + (limit - 1)
        judged = attempt(Scripted(lambda messages, sampling, index: "wrong"), pattern=direct, trials=limit)
        assert len(judged.calls) == 2 * limit + (limit - 1)


def test_strategies_show_the_last_attempt_both_or_nothing():
    def asked(strategy, lines):
        script = Scripted(lines)
        attempt(script, pattern=direct, trials=2, strategy=strategy, evaluate=until("never"))
        assert len(script.asked) == len(lines)
        return script.asked[-1].prompt[-1].text

    assert "assistant: 10" in asked("last_attempt", ["10", "11"])
    both = asked("both", ["10", "I added.", "11"])
    assert "assistant: 10" in both and "1. I added." in both
    assert asked("none", ["10", "11"]) == "What is 3 * 4?\n\nAnswer with a number only."


def test_any_pattern_can_act_and_its_steps_are_reflected_on():
    script = Scripted(["Action: calculator[3 + 4]", "Final Answer: 7", "I should multiply.", "Final Answer: 12"])
    trace = attempt(script, pattern=react, tools=(calculator,), trials=2, evaluate=until("12"))
    assert trace.answer == "12"
    reflected = script.asked[2].prompt[-1].text
    assert "Action: calculator[3 + 4]" in reflected and "Observation: 7" in reflected


def test_trials_side_by_side_do_not_read_each_other():
    """Two attempts run together in one trace; each reflection is on its own."""

    def reply(messages, sampling, index):
        text = messages[-1].text
        return f"lesson of {text.split()[1]}" if text.startswith("Own") else f"answer to {text.split()[0]}"

    async def both(task, ctx):
        async def slow(task, ctx):
            answer = (await ctx.say(task.prompt).generate()).text
            await asyncio.sleep(0.01)
            return answer

        pairs = (
            reflexion(replace(task, prompt=name), ctx, pattern=slow, trials=2, evaluate=until("x")) for name in "ab"
        )
        return " / ".join(await ctx.group(pairs))

    script = Scripted(reply)
    trace = asyncio.run(rollout(Agent("a", script, both), SUM))
    asked = [each.prompt[-1].text for each in script.asked if "attempt failed" in each.prompt[-1].text]
    assert trace.error is None and len(asked) == 2
    for text in asked:
        name = text.split("Problem:\n")[1][0]
        assert f"assistant: answer to {name}" in text and f"answer to {'ab'.replace(name, '')}" not in text
    assert sorted(event.data["path"] for event in trace.events) == ["0.0", "0.0", "0.1", "0.1"]


def test_without_an_evaluator_the_model_judges():
    trace = attempt(Scripted(["12", "3 * 4 = 12. Right."]), pattern=direct)
    assert trace.answer == "12" and trials(trace) == [("trial.1", "done")]
    trace = attempt(Scripted(["7", "3 * 4 is not 7: wrong", "Multiply.", "12", "right"]), pattern=direct)
    assert trace.answer == "12" and len(trace.calls) == 5


TESTS = "```python\nassert double(1) == 2\nassert double(0) == 0\nassert helper(1) == 2\nx = double(3)\n```"


def test_code_is_tried_on_tests_that_the_model_wrote():
    script = Scripted(["    return n + 1", TESTS, "Add n, not 1.", "```python\ndef double(n):\n    return n + n\n```"])
    trace = attempt(script, CODE, (python,), pattern=direct, trials=3)
    assert trials(trace) == [("trial.1", "failed"), ("trial.2", "done")] and "n + n" in trace.answer
    told = script.asked[2].prompt[-1].text
    assert "assert double(0) == 0  # failed: got 1" in told and "assert double(1) == 2  # passed" in told
    assert [event.data["tests"] for event in trace.events if event.kind == "tests"] == [
        ["assert double(1) == 2", "assert double(0) == 0"]
    ]
    assert len(trace.calls) == 2 + 1 + 1 + 2  # answers, tests written once, one reflection, tests run
    assert "SECRET" not in str(script.asked)


def test_without_a_usable_test_the_first_answer_stands():
    trace = attempt(Scripted(["    return 2 * n", "I cannot think of any."]), CODE, (python,), pattern=direct)
    assert trials(trace) == [("trial.1", "done")]
    assert "needs the tool python" in attempt(Scripted(["x", TESTS]), CODE, pattern=direct).error.message


def test_tests_are_filtered_and_few():
    lines = "\n".join(f"assert double({n}) == {2 * n}" for n in range(9))
    assert len(usable_tests(lines, "double")) == 6
    assert usable_tests("assert double(1) == 2\nassert (broken\nassert double(1)==2", "double") == [
        "assert double(1) == 2"
    ]
    assert usable_tests("assert True\nimport os\nos.remove('x')\nassert print('double')", "double") == []
    for text in ("", "(" * 5000, "assert double(" * 400, "\0"):
        assert usable_tests(text, "double") == []


def test_code_is_found_in_prose_and_completions_are_completed():
    assert code_in("Here:\n```python\nx = 1\n```\nand better:\n```\nx = 2\n```") == "x = 2"
    assert code_in("    return 1\n") == "    return 1"
    assert program(CODE, "    return 2 * n", ["assert double(1) == 2"]).startswith(CODE.prompt)
    assert not program(CODE, "def double(n): return 2 * n", []).startswith(CODE.prompt)
    head = "import math\n\ndef f(x):\n    '''Root.'''\n"
    worded = Task("3", "Complete: ...", metadata={"entry_point": "f", "prompt": head})
    assert program(worded, "def f(x):\n    return math.sqrt(x)", []).startswith("import math\n\ndef f(x):\n    return")
    assert f"{head}\n    return math.sqrt(x)" in program(worded, "return math.sqrt(x)", [])
    assert code_in("```python\ndef f(): pass\n```\nUse it:\n```\nf()\n```", "f") == "def f(): pass"


def test_what_a_program_prints_decides():
    tests = ["assert double(1) == 2", "assert double(2) == 4"]
    assert read_results(tests, "own test 0: passed\nown test 1: passed\n").passed
    stopped = read_results(tests, "own test 0: passed\nTimeoutError")
    assert not stopped.passed and "assert double(2) == 4  # did not finish" in stopped.text
    assert "SyntaxError" in read_results(tests, "SyntaxError: invalid syntax").text


def test_a_task_that_nothing_was_learned_of_is_unchanged():
    assert remembering(SUM, []) == SUM
    with pytest.raises(ConfigError, match="trials is 0"):
        attempt(Scripted([]), trials=0)
    assert user(remembering(SUM, ["a", "b"]).prompt).text.endswith("1. a\n2. b")


# -- against theory --


@pytest.mark.slow
@pytest.mark.parametrize(("writes", "trials", "false_positives"), [(0.5, 2, 0.0), (0.3, 4, 0.0), (0.5, 4, 0.16)])
def test_success_by_trial_is_its_closed_form(writes, trials, false_positives):
    theory = corrected(writes, trials, false_positives)
    measured = believed(150, beliefs=1, writes=writes, trials=trials, false_positives=false_positives)
    assert abs(measured - theory) < 3 * math.sqrt(theory * (1 - theory) / 150)


def test_more_lessons_than_the_memory_holds_are_never_all_in_sight():
    assert believed(5, beliefs=3, writes=1.0) == 1.0
    assert believed(5, beliefs=4, writes=1.0, trials=20) == 0.0
