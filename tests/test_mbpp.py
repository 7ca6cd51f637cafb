# ruff: noqa: E501
"""MBPP: the harness's prompt, the tests in the sandbox, and rows that cannot be asked."""

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
from firsthand.sandbox.sandbox import Sandbox
from namespaces import WHY_NOT

CODE = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data") / "code"
needs_data = pytest.mark.skipif(not (CODE / "mbpp.jsonl").is_file(), reason="MBPP is not here")
needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
ASKED = "You are an expert Python programmer, and here is your task: Write {} Your code should pass these tests:\n\n{}\n[BEGIN]\n"


def row(number, **changes):
    tests = [f"assert sum({number}) == {number + 1}", "assert sum(1) == 2"]
    body = {
        "task_id": number,
        "text": f"Write {number}.",
        "code": "def sum(n):\r\n    return n + 1",
        "test_list": tests,
    }
    return body | {"test_setup_code": ""} | changes


def benchmark(tmp_path, *rows, protocol=""):
    (tmp_path / "mbpp.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return catalog.benchmark(f"mbpp{protocol}:data={tmp_path}")


def test_the_prompt_shows_problems_two_to_four_and_only_the_test_split_is_asked(tmp_path):
    bench = benchmark(tmp_path, *(row(number) for number in (1, 2, 3, 4, 10, 11, 367, 511)))
    (task,) = bench.tasks(0)
    shown = [ASKED.format(f"{n}.", "\n".join(row(n)["test_list"])) for n in (2, 3, 4, 11)]
    assert task.id == "mbpp-11" and task.context == "def sum(n):\r\n    return n + 1\n[DONE]\n\n".join(shown)
    assert task.sampling["stop"] == ("[DONE]",)


@needs_bwrap
@pytest.mark.parametrize("protocol", ["", "@chat-0shot"])
def test_right_and_wrong_answers_are_told_apart_even_for_a_name_that_python_has(tmp_path, protocol):
    bench = benchmark(tmp_path, *(row(number) for number in (2, 3, 4, 11)), protocol=protocol)
    values = []
    for body in ("return n + 1", "return n"):
        answer = f"def sum(n):\n    {body}\n"
        reply = f"Here:\n```python\n{answer}```" if protocol else answer
        trace = asyncio.run(rollout(Agent("a", Scripted([reply]), direct), bench.tasks(0)[0], benchmark=bench))
        values.append(trace.scores[0].value)
    assert values == [1.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task_id": "11"}, "a number of its own"),
        ({"task_id": 2}, "a number of its own"),
        ({"test_list": []}, "not a list of assertions"),
        ({"test_list": ["assert ("]}, "are not Python"),
        ({"code": "def ("}, "are not Python"),
        ({"text": ""}, "'text'"),
        ({"test_setup_code": 3}, "test_setup_code"),
    ],
)
def test_a_row_that_cannot_be_asked_is_refused_with_its_line(tmp_path, changes, words):
    with pytest.raises(DataError, match=words) as refused:
        benchmark(tmp_path, row(2), row(3), row(4), row(11, **changes))
    assert "line 4" in str(refused.value)


def test_a_file_without_the_examples_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"lacks problems \[3, 4\]"):
        benchmark(tmp_path, row(2), row(11))


@needs_data
@needs_bwrap
@pytest.mark.slow
def test_every_reference_solution_passes_and_an_empty_one_does_not():
    tasks = catalog.benchmark(f"mbpp:data={CODE}").tasks(0)
    assert len(tasks) == 499

    async def run():
        async with Sandbox(workers=2) as box:

            async def held(task, code):
                secret = task.secret
                return await box.check(code, secret["tests"], setup=secret["setup"], names=(secret["entry_point"],))

            right = await asyncio.gather(
                *[held(task, task.secret["solution"]) for task in tasks if task.id != "mbpp-123"]
            )
            wrong = await asyncio.gather(*[held(t, f"def {t.secret['entry_point']}(*args): pass") for t in tasks])
            return sum(each.ok for each in right), sum(each.ok for each in wrong)

    assert asyncio.run(run()) == (498, 0)  # problem 123 needs longer than the sandbox's defaults
