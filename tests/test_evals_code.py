# ruff: noqa: E501
"""Code held to tests: what passes, what a cheating answer gets, and the estimates over many samples."""

import asyncio
import gzip
import itertools
import json
import os
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

import firsthand
from firsthand import catalog
from firsthand.agent import Agent
from firsthand.benchmarks.humaneval import humaneval
from firsthand.errors import ConfigError, DataError
from firsthand.model import Sampling
from firsthand.patterns.direct import direct
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.sandbox.programs import passed_values
from firsthand.sandbox.sandbox import Sandbox
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.scorers.code import answered_code, pass_at_k, pass_hat_k, passes_tests, preamble
from firsthand.task import Task
from namespaces import WHY_NOT

SHARED = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data")
HUMANEVAL = SHARED / "code" / "HumanEval.jsonl.gz"
needs_data = pytest.mark.skipif(not HUMANEVAL.is_file(), reason="HumanEval is not on this machine")
needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
TESTS = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-3) == 9\n\ncheck(square)"
PROMPT = 'import math\n\n\ndef square(x):\n    """The square of x."""\n'


@pytest.fixture(scope="module")
def box():
    with Sandbox(RunLimits(wall_s=5), workers=1) as sandbox:
        yield sandbox


def check(box, answer, tests=TESTS, **options):
    return asyncio.run(box.check(answer, tests, **options))


@pytest.mark.slow
@needs_bwrap
def test_a_right_answer_passes_and_a_wrong_one_says_why(box):
    assert check(box, "def square(x): return x * x").ok
    wrong = check(box, "def square(x): return x + x")
    assert wrong.ended == "error" and wrong.stderr.endswith("AssertionError\n")
    assert "candidate(-3) == 9" in wrong.stderr and "worker.py" not in wrong.stderr
    broken = check(box, "def square(x) return x")
    assert broken.ended == "error" and "SyntaxError" in broken.stderr
    assert "NameError" in check(box, "def square(x): return y").stderr
    assert check(box, "def square(x):\n    while True: pass", limits=RunLimits(wall_s=0.3)).ended == "timeout"


CHEATS = {
    "leaves_early": "import os\nos._exit(0)",
    "leaves_early_in_the_call": "import os\ndef square(x): os._exit(0)",
    "raises_system_exit": "def square(x): raise SystemExit(0)",
    "equals_everything": "class Yes:\n    def __eq__(self, other): return True\ndef square(x): return Yes()",
    "int_that_equals_everything": "class Yes(int):\n    def __eq__(self, other): return True\ndef square(x): return Yes(1)",
    "changes_builtins": "import builtins\nbuiltins.AssertionError = None\nbuiltins.compile = None\ndef square(x): return 0",
    "changes_its_check": "def check(candidate): pass\ndef square(x): return 0",
    "changes_the_checker": "import checker, passed_values, sys\npassed_values.Values.decode = checker.decode = lambda *body: 4\nsys.modules['__main__'].check = print\ndef square(x): return 0",
    "changes_the_callers": """
import sys
def square(x):
    frame = sys._getframe()
    while frame:
        frame.f_globals['check'] = frame.f_globals['exec'] = print
        frame = frame.f_back
    return 0
""",
    "reads_what_is_expected": """
import gc, os
def square(x):
    tests = ""
    for fd in range(20):
        try: tests += os.pread(fd, 10000, 0).decode()
        except Exception: pass
    for pid in os.listdir("/proc"):
        for name in ("environ", "cmdline", "fd/0", "mem"):
            try: tests += open(f"/proc/{pid}/{name}").read()
            except Exception: pass
    low, high = next(line.split()[0].split("-") for line in open("/proc/self/maps") if "heap" in line)
    tests += repr([each for each in gc.get_objects() if isinstance(each, dict) and "tests" in each])
    return 4 if "candidate(2) == 4" in tests else 0
""",
    "kills_the_tests": "import os, signal\ndef square(x):\n    os.kill(os.getppid(), signal.SIGKILL)\n    return 0",
    "interrupts_the_tests": "import os, signal\ndef square(x):\n    os.kill(os.getppid(), signal.SIGINT)\n    return 0",
    "forges_messages": """
import os
def square(x):
    words = b'{"value": 4}'
    for fd in range(1, 20):
        try: os.write(fd, len(words).to_bytes(4, "big") + words)
        except OSError: pass
    return 0
""",
    "sends_nonsense": "import os\ndef square(x):\n    for fd in range(3, 20):\n        try: os.write(fd, b'\\x00\\x00\\x00\\x02[]')\n        except OSError: pass\n    os._exit(0)",
    "closes_everything": "import os\ndef square(x):\n    os.closerange(0, 100)\n    return 0",
}  # fmt: skip


PLANTED = """
for module in ("{module}", "random", "copy", "math", "re", "encodings.x", "decimal"):
    open(module + ".py", "w").write("import os; os._exit(0)")
def {name}(x): return 0
"""
"""An answer that puts a module beside itself which ends the process that imports it, with exit status 0."""
PLANTS = {
    "plants_what_the_setup_imports": PLANTED.format(module="statistics", name="square"),
    "plants_what_the_tests_import": PLANTED.format(module="colorsys", name="square"),
    "plants_while_the_setup_waits": "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\n"
    + PLANTED.format(module="statistics", name="square")
    + "\nos.kill(os.getppid(), signal.SIGCONT)",
    "plants_in_the_folder_of_packages": """
import os, sys
for folder in [*sys.path, os.path.expanduser("~"), "/tmp", os.getcwd()]:
    try: open(os.path.join(folder, "colorsys.py"), "w").write("import os; os._exit(0)")
    except OSError: pass
def square(x): return 0
""",
}  # fmt: skip


@pytest.mark.slow
@needs_bwrap
@pytest.mark.parametrize("name", PLANTS)
def test_tests_import_nothing_that_an_answer_has_written(box, name):
    tests = f"import colorsys, subprocess\n{TESTS}"
    outcome = check(box, PLANTS[name], tests, setup="import statistics")
    refused = "PermissionError" in outcome.stderr and name == "plants_while_the_setup_waits"  # from Linux 6.12 on
    assert not outcome.ok and ("AssertionError" in outcome.stderr or refused), outcome
    assert check(box, "def square(x): return x * x", tests, setup="import statistics").ok


FORGED_PYTHON = """
import os
folder = os.path.expanduser("~/.local/lib/python{version}/site-packages")
os.makedirs(folder)
for name, text in (("a.pth", "import os; os.write(1, b'5'); os._exit(0)"), ("usercustomize.py", "print(5)")):
    open(os.path.join(folder, name), "w").write(text)
def square(x): return 0
"""


@needs_bwrap
def test_a_python_that_tests_start_imports_nothing_that_an_answer_has_written(box):
    tests = (
        "import subprocess, sys\nsquare(1)\n"
        "said = subprocess.run([sys.executable, '-c', 'print(2 + 2)'], capture_output=True, text=True).stdout\n"
        "assert said == '4\\n', said"
    )
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    outcome = check(box, FORGED_PYTHON.replace("{version}", version), tests)
    assert outcome.ok, outcome


@needs_bwrap
@pytest.mark.parametrize("answer", ["def square(x): raise StopIteration", "def square(x): return next(iter(()))"])
def test_an_answer_that_raises_stop_iteration_does_not_end_the_cases_of_a_map(box, answer):
    for tests in (
        "assert all(map(lambda case: square(case[0]) == case[1], [(2, 4), (-3, 9)]))",
        "for given, expected in zip(map(square, [2, -3]), [4, 9]):\n    assert given == expected",
    ):
        outcome = check(box, answer, tests)
        assert not outcome.ok and "RuntimeError: StopIteration" in outcome.stderr, outcome


@needs_bwrap
def test_only_tests_that_ran_to_their_end_have_passed(box):
    """An exit status alone says nothing: what a test imports may end the process."""
    for ending in ("import os; os._exit(0)", "raise SystemExit(0)", "import sys; sys.exit()"):
        outcome = check(box, "def square(x): return x * x", f"{ending}\n{TESTS}")
        assert outcome.ended == "error", (ending, outcome)
    printed = check(box, "def square(x): return x * x", f"print('a')\n{TESTS}\nprint('b', end='')")
    assert printed.ok and printed.stdout == "a\nb"


@pytest.mark.slow
@needs_bwrap
@pytest.mark.parametrize("name", CHEATS)
def test_an_answer_that_cheats_does_not_pass(box, name):
    outcome = check(box, CHEATS[name])
    assert not outcome.ok, outcome
    assert check(box, "def square(x): return x * x").ok


@needs_bwrap
def test_tests_and_answer_exchange_values_of_every_plain_kind(box):
    values = "[1, -2.5, float('inf'), 'é\\ud800', b'\\xff', None, True, (1, (2,)), {3}, frozenset({4}), {(1, 2): [3]}, 10**5000, 1j, range(3)]"
    tests = (
        f"for value in {values}:\n    got = same(value)\n    assert got == value and type(got) is type(value), value\n"
    )
    tests += "from decimal import Decimal\nfrom fractions import Fraction\n"
    tests += "assert same(Decimal('1.10')) == Decimal('1.10') and same(Fraction(1, 3)) == Fraction(1, 3)\n"
    tests += "assert list(squares(3)) == [0, 1, 4] and squares(3) != [0, 1, 4]\n"
    tests += "mine = [3, 1, 2]\nassert sort_it(mine) is None and mine == [1, 2, 3]\n"
    tests += "assert named(x=2) == 2\n"
    tests += "try:\n    fail()\n    raise RuntimeError\nexcept KeyError: pass\n"
    answer = (
        "def same(x): return x\ndef squares(n): return (i * i for i in range(n))\ndef sort_it(x): x.sort()\n"
        "def named(*, x): return x\ndef fail(): raise KeyError('k')"
    )
    outcome = check(box, answer, tests)
    assert outcome.ok, outcome.stderr


def test_what_is_no_plain_value_is_not_sent():
    with pytest.raises(TypeError, match="plain value"):
        passed_values.encode(object())
    for hostile in ([1], {"what": 1}, {"list": [[1]]}, {"dict": [[{"list": []}, 1]]}):
        with pytest.raises((TypeError, ValueError)):
            passed_values.decode(hostile)


@needs_bwrap
def test_the_scorer_says_what_happened_and_a_task_without_tests_is_an_error():
    async def scored(answer, secret):
        task = Task("t", "Square it.", secret=secret)
        trace = await rollout(Agent("scripted", Scripted([answer]), direct), task)
        return await passes_tests(task, trace)

    secret = {"tests": TESTS, "prompt": PROMPT, "entry_point": "square"}
    right = asyncio.run(scored("Here it is:\n```python\ndef square(x):\n    return x ** 2\n```\nIt squares.", secret))
    assert right.value == 1.0 and right.detail["ended"] == "done"
    wrong = asyncio.run(scored("```python\ndef square(x):\n    return x\n```", secret))
    assert wrong.value == 0.0 and wrong.detail["reason"] == "AssertionError"
    with pytest.raises(DataError, match="no tests"):
        asyncio.run(scored("x", {}))


@pytest.mark.slow
def test_a_missing_sandbox_is_an_error_and_never_a_zero(tmp_path):
    code = (
        "import asyncio\nfrom firsthand.benchmark import Benchmark\nfrom firsthand.agent import Agent\n"
        "from firsthand.scorers.code import passes_tests\nfrom firsthand.patterns.direct import direct\n"
        "from firsthand.providers.scripted import Scripted\nfrom firsthand.rollout import rollout\nfrom firsthand.task import Task\n"
        "task = Task('t', 'Q', secret={'tests': 'assert f(1)'})\n"
        "benchmark = Benchmark('b', lambda seed: [task], scorers=(passes_tests,))\n"
        "print(asyncio.run(rollout(Agent('a', Scripted(['x = 1']), direct), task, benchmark=benchmark)))\n"
    )
    environment = os.environ | {"PATH": str(tmp_path)}
    source = str(Path(firsthand.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment | {"PYTHONPATH": source}
    )
    assert done.returncode == 1 and "SandboxError: untrusted code is not run" in done.stderr and not done.stdout


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("```python\ndef square(x):\n    return x\n```", "import math\n\n\ndef square(x):\n    return x\n"),
        ("First:\n```\ndef other(): pass\n```\nthen\n```py\ndef square(x):\n    return 2\n```", "import math\n\n\ndef square(x):\n    return 2\n"),
        ("```python\ndef square(x):\n    return x", "import math\n\n\ndef square(x):\n    return x"),
        ("def square(x):\n    return x", "import math\n\n\ndef square(x):\n    return x"),
        ("    return x * x\n\ndef unrelated(): pass", PROMPT + "    return x * x\n"),
        ("```python\n    return x * x\n```", PROMPT + "    return x * x\n"),
        ("    return x\n# and so on", PROMPT + "    return x"),
        ("y = x\n    return y", PROMPT + "    y = x\n    return y"),
        ("y = x\nreturn y", PROMPT + "    y = x\n    return y"),
        ("", PROMPT),
    ],
)  # fmt: skip
def test_the_code_of_an_answer(answer, code):
    assert answered_code(answer, PROMPT, "square") == code


def test_a_preamble_is_what_comes_before_the_function():
    assert preamble("import a\n\ndef b(): pass\n\ndef c(x):\n", "c") == "import a\n\ndef b(): pass\n\n"
    assert preamble("def c(x):\n", "c") == preamble("no code", "c") == preamble("x", "") == ""


@pytest.mark.parametrize(("n", "c"), [(5, 0), (5, 2), (6, 6), (7, 3)])
def test_the_estimates_are_the_averages_over_all_subsets(n, c):
    outcomes = [1] * c + [0] * (n - c)
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(outcomes, k))
        assert pass_at_k(n, c, k) == pytest.approx(float(Fraction(sum(map(any, subsets)), len(subsets))))
        assert pass_hat_k(n, c, k) == pytest.approx(float(Fraction(sum(map(all, subsets)), len(subsets))))


def test_the_estimates_are_unbiased_and_survive_large_numbers():
    rng = random.Random(0)
    p, n, k = 0.3, 20, 5
    drawn = [pass_at_k(n, sum(rng.random() < p for _ in range(n)), k) for _ in range(4000)]
    assert sum(drawn) / len(drawn) == pytest.approx(1 - (1 - p) ** k, abs=0.01)
    assert 0 < pass_hat_k(10_000, 9_000, 100) < 1e-4 and pass_at_k(200, 1, 100) == pytest.approx(0.5)
    for n, c, k in ((5, 6, 1), (5, 2, 6), (5, 2, 0), (5, -1, 1)):
        with pytest.raises(ConfigError, match="was expected"):
            pass_at_k(n, c, k)


def row(**changes):
    solution = "    return x * x\n"
    body = {"task_id": "HumanEval/0", "prompt": PROMPT, "entry_point": "square", "canonical_solution": solution}
    return body | {"test": TESTS.removesuffix("\n\ncheck(square)")} | changes


def test_two_tasks_of_humaneval_with_one_id_are_refused(tmp_path):
    file = tmp_path / "HumanEval.jsonl"
    file.write_text("".join(json.dumps(row(task_id=name)) + "\n" for name in ("a", "b", "a")))
    with pytest.raises(DataError, match=r"line 3: the task_id 'a' is also that of .*line 1: ids must differ"):
        humaneval(data=str(file))


@needs_bwrap
def test_humaneval_reads_a_users_file_and_scores_a_model(tmp_path):
    (tmp_path / "HumanEval.jsonl").write_text(json.dumps(row()) + "\n")
    benchmark = catalog.benchmark(f"humaneval:data={tmp_path}")
    (task,) = benchmark.tasks(0)
    assert task.prompt.endswith(PROMPT.rstrip() + "\n```") and "x * x" not in json.dumps(task.public().to_json())
    agent = Agent("scripted", Scripted(["    return x * x"]), direct, sampling=Sampling(max_tokens=50))
    trace = asyncio.run(rollout(agent, task, benchmark=benchmark))
    assert trace.scores[0].name == "passes_tests" and trace.scores[0].value == 1.0


def test_a_row_without_tests_is_refused_with_its_line(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(row()) + "\n" + json.dumps(row(test="")) + "\n")
    with pytest.raises(DataError, match="line 2"):
        humaneval(data=str(path))


@needs_data
def test_the_164_problems_are_those_of_the_paper():
    tasks = humaneval(data=str(HUMANEVAL)).tasks(0)
    rows = [json.loads(line) for line in gzip.decompress(HUMANEVAL.read_bytes()).splitlines()]
    assert len(tasks) == 164 and [task.id for task in tasks] == [f"HumanEval/{i}" for i in range(164)]
    for task, line in zip(tasks, rows, strict=True):
        secret = task.secret
        code = answered_code(secret["solution"], secret["prompt"], secret["entry_point"])
        assert code == line["prompt"] + line["canonical_solution"].split("\n#")[0].split("\ndef ")[0].split("\nif ")[0]


@needs_data
@needs_bwrap
@pytest.mark.slow
def test_every_reference_solution_passes_and_an_empty_one_does_not():
    async def run():
        async with Sandbox(workers=2) as box:

            async def one(task, solution):
                secret = task.secret
                code = answered_code(solution, secret["prompt"], secret["entry_point"])
                return (await box.check(code, secret["tests"], setup=secret["setup"])).ok

            tasks = humaneval(data=str(HUMANEVAL)).tasks(0)
            right = await asyncio.gather(*[one(task, task.secret["solution"]) for task in tasks])
            wrong = await asyncio.gather(*[one(task, "    return None\n") for task in tasks])
            return sum(right), sum(wrong)

    right, wrong = asyncio.run(run())
    assert right == 164 and wrong <= 1  # HumanEval/0 to 163: None is right for none but perhaps one
