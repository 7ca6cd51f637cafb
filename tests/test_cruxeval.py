# ruff: noqa: E501
"""CRUXEval: the authors' prompts, predicted inputs and outputs, and answers that are no prediction."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.errors import DataError
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.scorers.assertion import assertion_holds, predicted
from firsthand.task import Task
from namespaces import WHY_NOT
from thorough import part

CODE = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data") / "code"
needs_data = pytest.mark.skipif(not (CODE / "cruxeval.jsonl").is_file(), reason="CRUXEval is not here")
needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
ROW = {"id": "sample_0", "code": "def f(a, b=1):\n    return [a, b]", "input": "'x', b=2", "output": "['x', 2]"}


def benchmark(tmp_path, protocol="", **changes):
    (tmp_path / "cruxeval.jsonl").write_text(json.dumps(ROW | changes) + "\n")
    return catalog.benchmark(f"cruxeval{protocol}:data={tmp_path}")


def values(bench, answers):
    async def run():
        agents = [Agent("a", Scripted([each]), direct) for each in answers]
        traces = await asyncio.gather(*[rollout(a, bench.tasks(0)[0], benchmark=bench) for a in agents])
        return [trace.scores[0].value for trace in traces]

    return asyncio.run(run())


@needs_bwrap
def test_a_predicted_output_is_right_if_it_is_the_functions_own(tmp_path):
    bench = benchmark(tmp_path)
    context = bench.tasks(0)[0].context
    assert context.endswith("[PYTHON]\n" + ROW["code"] + "\nassert f('x', b=2) == ??\n[/PYTHON]\n[ANSWER]\n")
    right = ["assert f('x', b=2) == ['x', 2]", "['x', 2]", "assert f('x', b=2) == ['x',\n 2]\n[/ANSWER] and so on"]
    wrong = ["['x', 3]", "", "assert f('x', b=2) == f('x', b=2)", "((", "type('Y', (), {'__eq__': lambda a, b: True})()", "__import__('os')._exit(0)", "1)\nimport os\nos._exit(0"]  # fmt: skip
    assert values(bench, right + wrong) == [1.0] * len(right) + [0.0] * len(wrong)


@needs_bwrap
def test_a_predicted_input_is_right_if_the_function_gives_the_output(tmp_path):
    bench = benchmark(tmp_path, "@input-direct")
    assert "'x', b=2" not in json.dumps(bench.tasks(0)[0].public().to_json())
    right = ["assert f('x', b=2) == ['x', 2]", "assert f('x', 2) == anything", "f(b=2, a='x')"]
    wrong = ["assert f('x') == ['x', 2]", "'x', 2", "assert f('y', 2) == ['y', 2]", "f(lambda: 1)", "[['x', 3], {}]"]
    assert values(bench, right + wrong) == [1.0] * len(right) + [0.0] * len(wrong)


@pytest.mark.parametrize(
    ("text", "what", "expression"),
    [
        ("[THOUGHT]\n1 == 1\n[/THOUGHT]\n[ANSWER]\nassert f(1) == 2\n[/ANSWER]", "output", "2"),
        ("thinking [ANSWER] assert f(1) == 2", "input", "f(1)"),
        ("2", "output", "2"),
        ("f(1)", "input", "f(1)"),
        ("", "output", ""),
    ],
)
def test_the_prediction_in_an_answer(text, what, expression):
    assert predicted(text, what) == expression


@pytest.mark.parametrize(
    "changes", [{"code": "def f("}, {"output": "["}, {"input": ")"}, {"input": None}, {"code": ""}, {"id": 3}]
)
def test_a_row_that_is_no_python_is_refused(tmp_path, changes):
    with pytest.raises(DataError, match="line 1"):
        benchmark(tmp_path, **changes)


def test_an_output_that_is_a_statement_is_no_expression_and_one_in_brackets_or_on_two_lines_is(tmp_path):
    for output in ("x = 1", "pass", "1; 2", "1\n2"):
        with pytest.raises(DataError, match=r"line 1: the field 'output' is not Python \("):
            benchmark(tmp_path, output=output)
    for output in ("(x := 1)", "1", "[1,\n2]", "'x', 2"):
        assert benchmark(tmp_path, output=output).tasks(0)[0].secret["output"] == output


def test_a_task_of_another_benchmark_is_an_error():
    trace = asyncio.run(rollout(Agent("a", Scripted(["x"]), direct), Task("t", "Q")))
    with pytest.raises(DataError, match="input or output was expected"):
        asyncio.run(assertion_holds(Task("t", "Q"), trace))


@needs_data
@needs_bwrap
@pytest.mark.slow
def test_all_outputs_are_right_and_all_inputs_but_those_that_are_no_plain_values():
    held_back = ["sample_258", "sample_344", "sample_364"]  # a global of the code, and two functions: no plain values

    async def run(name):
        tasks = catalog.benchmark(f"cruxeval@{name}-direct:data={CODE}").tasks(0)
        chosen = set(part([task.id for task in tasks], 4)) | set(held_back)
        tasks = [task for task in tasks if task.id in chosen]
        answers = [
            f"f({t.secret['input']})" if name == "input" else t.secret["output"].replace("==", "==") for t in tasks
        ]
        gate = asyncio.Semaphore(4)

        async def one(task, answer):
            async with gate:
                trace = await rollout(Agent("a", Scripted([answer]), direct), task)
                return (await assertion_holds(task, trace)).value

        right = await asyncio.gather(*[one(task, answer) for task, answer in zip(tasks, answers, strict=True)])
        return [task.id for task, value in zip(tasks, right, strict=True) if value != 1.0]

    assert asyncio.run(run("output")) == []
    assert asyncio.run(run("input")) == held_back
