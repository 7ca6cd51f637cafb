# ruff: noqa: E501
"""HumanEval+ and MBPP+: outputs held to the reference's, and answers that are wrong, late, or cheat."""

import asyncio
import gzip
import json
import os
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmarks.mbpp_plus import typed
from firsthand.errors import DataError
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.sandbox.programs import passed_values
from firsthand.sandbox.sandbox import Sandbox
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.scorers.differential import base, check_against_reference, plus
from firsthand.scorers.programs import oracle
from firsthand.task import Task
from namespaces import WHY_NOT
from thorough import part

CODE = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data") / "code"
needs_data = pytest.mark.skipif(not (CODE / "MbppPlus.jsonl.gz").is_file(), reason="EvalPlus's files are not here")
needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
PROMPT = 'from typing import List\n\n\ndef mean(xs: List[float]) -> float:\n    """ The mean. """\n'


def row(**changes):
    body = {"task_id": "HumanEval/0", "prompt": PROMPT, "entry_point": "mean", "atol": 0}
    body |= {"canonical_solution": "    return sum(xs) / len(xs)\n", "contract": ""}
    return body | {"base_input": [[[1.0, 2.0]]], "plus_input": [[[0.1, 0.2, 0.3]], [[1e300, 1e300]]]} | changes


def benchmark(tmp_path, *rows, name="humaneval_plus", file="HumanEvalPlus.jsonl"):
    (tmp_path / file).write_text("".join(json.dumps(each) + "\n" for each in rows))
    return catalog.benchmark(f"{name}:data={tmp_path}")


def scores(bench, answer):
    trace = asyncio.run(rollout(Agent("a", Scripted([answer]), direct), bench.tasks(0)[0], benchmark=bench))
    return {score.name: score.value for score in trace.scores}, trace


def outcomes(task, answers, which="plus"):
    async def held():
        async with Sandbox(workers=2) as box:
            return [await check_against_reference(each, task, which, box) for each in answers]

    return asyncio.run(held())


@pytest.mark.slow
@needs_bwrap
def test_base_and_plus_are_both_told_and_only_plus_sees_the_harder_inputs(tmp_path):
    bench = benchmark(tmp_path, row())
    right, _ = scores(
        bench, "```python\ndef mean(xs):\n    total = 0.0\n    for x in xs: total += x\n    return total / len(xs)\n```"
    )
    assert right == {"plus": 1.0, "base": 1.0}
    half, trace = scores(
        bench,
        "```python\ndef mean(xs):\n    return (min(xs) + max(xs)) / 2 if len(xs) == 2 and max(xs) < 9 else 0.0\n```",
    )
    assert half == {"plus": 0.0, "base": 1.0}
    assert "input 0, [[0.1, 0.2, 0.3]]: gave 0.0, not 0." in trace.scores[0].detail["reason"]
    close = "def mean(xs):\n    return sum(xs) / len(xs) + 1e-8"
    assert scores(bench, f"```python\n{close}\n```")[0] == {"plus": 1.0, "base": 1.0}  # EvalPlus's 1e-6 for floats


CHEATS = {
    "leaves": "import os\ndef mean(xs): os._exit(0)",
    "leaves_at_once": "import os\nos._exit(0)",
    "equals_everything": "class Yes(float):\n    def __eq__(self, other): return True\n    def __sub__(self, other): return 0.0\ndef mean(xs): return Yes(7)",
    "reads_the_reference": """
import gc, os, sys
def mean(xs):
    seen = []
    frame = sys._getframe()
    while frame:
        seen.append(repr(frame.f_globals) + repr(frame.f_locals))
        frame = frame.f_back
    for pid in os.listdir("/proc"):
        for name in ("environ", "cmdline", "fd/0", "mem"):
            try: seen.append(open(f"/proc/{pid}/{name}").read())
            except Exception: pass
    seen.append(repr([each for each in gc.get_objects() if isinstance(each, (dict, str))]))
    return sum(xs) / len(xs) if "return sum(xs) / " + "len(xs)\\n" in "".join(seen).split("def mean(xs):\\n    seen")[0] else 0.0
""",
    "stops_the_clock": "import signal\ndef mean(xs):\n    signal.setitimer(signal.ITIMER_REAL, 0)\n    return 0.0",
    "changes_its_input": "def mean(xs):\n    xs[:] = [0.0]\n    return 0.0",
    "says_it_is_late": "def mean(xs): raise TimeoutError",
    "renames_the_oracle": "def _compare(*args): return None\ndef compare_outputs(*args): return None\ndef mean(xs): return 0.0",
}  # fmt: skip


@pytest.mark.slow
@needs_bwrap
def test_answers_that_cheat_do_not_pass_and_none_learns_what_is_expected(tmp_path):
    (task,) = benchmark(tmp_path, row()).tasks(0)
    for name, outcome in zip(CHEATS, outcomes(task, CHEATS.values()), strict=True):
        assert not outcome.ok, name
    public = json.dumps(task.public().to_json())
    assert "sum(xs)" not in public and "1e300" not in public and "0.3" not in public


@pytest.mark.slow
@needs_bwrap
def test_what_an_answer_prints_and_its_main_block_change_nothing(tmp_path):
    (task,) = benchmark(tmp_path, row()).tasks(0)
    noisy = "import sys\ndef mean(xs):\n    print('x' * 2_000_000)\n    print('MemoryError', file=sys.stderr)\n    return sum(xs) / len(xs)\n"
    main = "def mean(xs): return sum(xs) / len(xs)\nif __name__ == '__main__': raise SystemExit(input())"
    assert all(outcome.ok for outcome in outcomes(task, [noisy, main]))


@pytest.mark.slow
@needs_bwrap
def test_a_function_that_python_has_too_is_the_answers_own(tmp_path):
    mine = row(
        entry_point="sum",
        prompt="def sum(a, b):\n",
        canonical_solution="    return a + b\n",
        base_input=[[1, 2]],
        plus_input=[],
    )
    (task,) = benchmark(tmp_path, mine).tasks(0)
    right, wrong = outcomes(task, ["def sum(a, b): return b + a", "def sum(a, b): return a"])
    assert right.ok and not wrong.ok


@needs_bwrap
@pytest.mark.slow
def test_a_late_answer_fails_and_says_on_which_input(tmp_path):
    (task,) = benchmark(tmp_path, row()).tasks(0)
    (outcome,) = outcomes(task, ["def mean(xs):\n    while len(xs) > 2: pass\n    return sum(xs) / len(xs)"])
    assert "TimeoutError: input 0, [[0.1, 0.2, 0.3]]: no output within 4.0 s" in outcome.stderr


@pytest.mark.parametrize(
    ("output", "expected", "case", "atol", "rule", "right"),
    [
        (1, 1, [], 0, "equal", True),
        (1.0000001, 1.0, [], 1e-6, "equal", True),
        (1, 1.0000001, [], 1e-6, "equal", False),  # types differ and values too
        ((1.0, 2.0), [1.0, 2.0], [], 1e-6, "equal", False),
        ([1.0, [2.0000001]], [1.0, [2.0]], [], 1e-6, "equal", True),
        ([1.0], [1.0, 2.0], [], 1e-6, "equal", False),
        ([(1.0, 2.0000001)], [[1.0, 2.0]], [], 1e-6, "equal", True),  # as in EvalPlus
        ([range(1, 3)], [[1.0, 2.0]], [], 1e-6, "equal", True),
        ([{1.0: 0}, {2.0: 5}], [[1.0], [2.0]], [], 1e-6, "equal", False),
        ([{1.0}, [2.0]], [[1.0], [2.0]], [], 1e-6, "equal", False),
        ([b"\1\2"], [[1, 2]], [], 1e-6, "equal", False),
        (["ab"], [["a", "b"]], [], 1e-6, "equal", False),
        (({1.0: 0},), ((1.0,),), [], 1e-6, "equal", False),
        (float("nan"), float("nan"), [], 1e-6, "equal", False),
        (float("inf"), float("inf"), [], 1e-6, "equal", True),
        ("a", "b", [], 1e-4, "equal", False),
        (None, "b", [], 1e-4, "equal", False),
        (2.0, None, [[-4, 0, 1]], 1e-4, "root", True),
        (2.1, 2.1, [[-4, 0, 1]], 1e-4, "root", True),
        (2.1, 2.0, [[-4, 0, 1]], 1e-4, "root", False),
        (3.0, 2.0, [[-4, 0, 1]], 1e-4, "root", False),
        (None, 2.0, [[-4, 0, 1]], 1e-4, "root", False),
        ((5, 4), (4, 5), [], 0, "set", True),
        ((5, 4, 4), (4, 5), [], 0, "set", True),
        (5, (4, 5), [], 0, "set", False),
        (..., "match", [], 0, "not_none", True),
        (None, "match", [], 0, "not_none", False),
        (True, "match", [], 0, "not_none", True),
        (False, None, [], 0, "not_none", True),
        (None, None, [], 0, "not_none", True),
        ("whatever", True, [], 0, "any", True),
        (0, 7, [], 0, "zero_or_equal", True),
        (33, 0, [3, 4], 0, "pyramid", False),
        (35, 0, [3, 4], 0, "pyramid", True),
        (9, 0, [12, 345], 0, "digits", True),
    ],
)
def test_the_rules_of_evalplus(output, expected, case, atol, rule, right):
    assert oracle.right(output, expected, case, atol, rule) is right


def test_large_numbers_and_long_lists_pass_between_the_processes_unchanged():
    for value in (10**5000, [-(10**120), 1], [True, 1, 2.5, None, "x"], [[1], (2,)], [float("inf")], {0, 10**200}):
        through = passed_values.decode(json.loads(json.dumps(passed_values.encode(value))))
        assert repr(through) == repr(value) if not isinstance(value, int) else through == value
        assert type(through) is type(value)


@pytest.mark.parametrize(
    ("task_id", "given", "restored"),
    [
        ("Mbpp/2", [[[3, 4], [5]]], [[(3, 4), (5,)]]),
        ("Mbpp/63", [[[[1, 2], [3]]]], [[[(1, 2), (3,)]]]),
        ("Mbpp/115", [[[[1], [], {}]]], [[[{1}, {}, {}]]]),
        ("Mbpp/124", [[1, "2j"]], [[1.0, 2j]]),
        ("Mbpp/259", [[[[1], [2]], [[3]]]], [[((1,), (2,)), ((3,),)]]),
        ("Mbpp/278", [[[1, [2, 3]]]], [[(1, (2, 3))]]),
        ("Mbpp/722", [[{"a": [1, 2]}, 5]], [[{"a": (1, 2)}, 5]]),
        ("Mbpp/580", [[[1, [2, [3]]]]], [[(1, (2, (3,)))]]),
        ("Mbpp/3", [[[1]]], [[[1]]]),
        ("Mbpp/x", [[[1]]], [[[1]]]),
    ],
)
def test_arguments_have_the_types_that_json_lost(task_id, given, restored):
    assert repr(typed(task_id, given)) == repr(restored)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"entry_point": "f(); import os"}, "a function's name"),
        ({"entry_point": "class"}, "a function's name"),
        ({"base_input": []}, "untested"),
        ({"base_input": {"a": 1}}, "not a list of argument lists"),
        ({"plus_input": [1]}, "not a list of argument lists"),
        ({"atol": "0"}, "tolerance"),
        ({"atol": True}, "tolerance"),
        ({"canonical_solution": None}, "canonical_solution"),
    ],
)
def test_a_row_that_cannot_test_is_refused_with_its_line(tmp_path, changes, words):
    with pytest.raises(DataError, match=words) as refused:
        benchmark(tmp_path, row(), row(**changes))
    assert "line 2" in str(refused.value)


def test_inputs_of_the_wrong_shape_are_refused_with_their_line(tmp_path):
    with pytest.raises(DataError, match=r"line 1.*arguments of mean"):
        benchmark(tmp_path, row(task_id="Mbpp/124", base_input=[[1]]), name="mbpp_plus", file="MbppPlus.jsonl")


def test_without_the_file_the_message_says_where_to_get_it(monkeypatch):
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    with pytest.raises(DataError, match="humanevalplus_release"):
        catalog.benchmark("humaneval_plus:data=hub")


def test_a_task_of_another_benchmark_is_an_error_and_no_zero():
    for scorer in (base, plus):
        trace = asyncio.run(rollout(Agent("a", Scripted(["x"]), direct), Task("t", "Q")))
        with pytest.raises(DataError, match="use humaneval_plus"):
            asyncio.run(scorer(Task("t", "Q"), trace))


@needs_data
@pytest.mark.parametrize(
    ("name", "file", "count"), [("humaneval_plus", "HumanEvalPlus", 164), ("mbpp_plus", "MbppPlus", 378)]
)
@pytest.mark.slow
def test_the_prompts_are_what_evalplus_sends(name, file, count):
    """Its backend openai: the instruction, then the stripped prompt in a fence; base models are given the prompt and a line end."""
    rows = [json.loads(line) for line in gzip.decompress((CODE / f"{file}.jsonl.gz").read_bytes()).splitlines()]
    asked = "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
    chat = catalog.benchmark(f"{name}:data={CODE}").tasks(0)
    completed = catalog.benchmark(f"{name}@evalplus-base:data={CODE}").tasks(0)
    assert len(chat) == count
    for task, other, each in zip(chat, completed, rows, strict=True):
        assert task.prompt == asked + "\n```python\n" + each["prompt"].strip() + "\n```"
        assert other.context == each["prompt"].strip() + "\n" and "\nif __name__" in other.sampling["stop"]


@needs_data
@needs_bwrap
@pytest.mark.slow
def test_a_few_real_problems_know_right_from_wrong():
    tasks = {task.id: task for task in catalog.benchmark(f"mbpp_plus:data={CODE}").tasks(0)}
    for name in ("Mbpp/2", "Mbpp/126", "Mbpp/124"):
        task = tasks[name]
        wrong = f"def {task.secret['entry_point']}(*args): return None"
        right, bad = outcomes(task, [task.secret["solution"], wrong])
        assert right.ok and not bad.ok


@needs_data
@needs_bwrap
@pytest.mark.slow
@pytest.mark.parametrize("name", ["humaneval_plus", "mbpp_plus"])
def test_every_reference_solution_passes_and_an_empty_one_does_not(name):
    """Some two minutes for all."""
    tasks = part(catalog.benchmark(f"{name}:data={CODE}").tasks(0), 8)

    async def run():
        async with Sandbox(RunLimits(), workers=2) as box:
            right = await asyncio.gather(
                *[check_against_reference(t.secret["solution"], t, "plus", box) for t in tasks]
            )
            empty = [f"def {task.secret['entry_point']}(*args, **named): pass" for task in tasks]
            wrong = await asyncio.gather(
                *[check_against_reference(c, t, "plus", box) for c, t in zip(empty, tasks, strict=True)]
            )
            return right, wrong

    right, wrong = asyncio.run(run())
    assert [(task.id, each.stderr[-200:]) for task, each in zip(tasks, right, strict=True) if not each.ok] == []
    assert {task.id for task, each in zip(tasks, wrong, strict=True) if each.ok} == set()
