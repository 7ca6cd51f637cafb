"""Programs that scorers send to the sandbox, to the letter, and what they say of a reference that fails there."""

from __future__ import annotations

import asyncio
import textwrap
from typing import Any

import pytest

from cpu_time import at_most_cpu_s
from firsthand.errors import DataError
from firsthand.sandbox.sandbox import Outcome
from firsthand.scorers import differential, unit_tests
from firsthand.scorers.assertion import assertion_holds, assertion_program, predicted
from firsthand.scorers.code import LIMITS, answered_code, passes_tests, reason
from firsthand.task import Task
from firsthand.trace import Trace


def outcome(ended: Any = "done", stdout: str = "", stderr: str = "") -> Outcome:
    return Outcome(ended, 0 if ended == "done" else 1, stdout, stderr, 1.23456, None, None, "bubblewrap")


class ToldSandbox:
    """Keeps what it is asked, and answers with outcomes that were written before."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes, self.asked = list(outcomes), list[Any]()

    async def python(self, code: str, **given: Any) -> Outcome:
        self.asked.append((code, given))
        return self.outcomes.pop(0)

    async def check(self, answer: str, tests: str, **given: Any) -> Outcome:
        self.asked.append((answer, tests, given))
        return self.outcomes.pop(0)


def attempt(answer: str | None = "", **more: Any) -> Trace:
    return Trace("i", "b", "t", {}, 0, 0, "", 0.0, answer=answer, **more)


SECRET: dict[str, Any] = {"tests": "T", "before": "import x\n", "solution": "S", "needs": ["numpy", "absent", "json"]}


def test_unit_tests_are_sent_with_the_answer_in_a_file_of_its_own() -> None:
    box: Any = ToldSandbox(outcome())
    task = Task("t", "?", secret=SECRET)
    assert asyncio.run(unit_tests.run_unit_tests("code", task, box)) == outcome()
    program = unit_tests.runner()
    assert program.endswith('if __name__ == "__main__":\n    main()\n') and "from firsthand" not in program
    files = {"answer.py": "import x\ncode\n"}
    given = {"stdin": "T", "files": files, "limits": unit_tests.LIMITS, "ours": True, "name": "<tests>"}
    assert box.asked == [(program, given)]
    with pytest.raises(DataError, match=r"^task t has no tests: secret\['tests'\] holds 'None', code was expected$"):
        asyncio.run(unit_tests.run_unit_tests("code", Task("t", "?"), box))


def test_a_reference_that_fails_is_told_by_what_the_sandbox_lacks_or_by_its_error() -> None:
    task = Task("t", "?", secret=SECRET)

    def said(*outcomes: Outcome) -> tuple[str, Any]:
        box: Any = ToldSandbox(*outcomes)
        try:
            asyncio.run(unit_tests.check_reference(task, box))
        except DataError as error:
            return str(error), box.asked
        return "", box.asked

    words, asked = said(outcome())
    assert words == "" and asked[0][1]["files"] == {"answer.py": "import x\nS\n"} and len(asked) == 1
    words, asked = said(outcome("error", stderr="a\nb: c"), outcome(stdout='["absent", "x"]\n'))
    assert words == (
        "t needs absent, x, which the sandbox lacks: set FIRSTHAND_SANDBOX_PACKAGES to a virtual environment that has it"
    )
    assert asked[1][1] == {"stdin": '["absent", "json", "numpy"]'} and "find_spec(n) is None" in asked[1][0]
    fails = "t cannot be scored here: its reference solution fails in this sandbox "
    assert said(outcome("error", stderr="a\nb: c\n"), outcome(stdout="[]"))[0] == f"{fails}(b: c)"
    assert said(outcome("timeout", stderr="b"), outcome("error"))[0] == f"{fails}(ended: timeout)"
    assert asyncio.run(unit_tests.lacking((), ToldSandbox(outcome(stdout="[]")))) == []  # type: ignore[arg-type]


def test_inputs_of_a_reference_are_compared_once_or_with_the_added_ones() -> None:
    secret = {"entry_point": "f", "solution": "def f(): ...", "inputs": {"base": "[[1]]", "plus": "[[2]]"}, "atol": 0.5}
    task = Task("t", "?", secret={**secret, "rule": "set"})
    call = "_compare(f, 'f', 'def f(): ...', {!r}, 0.5, 'set')\n"
    for which, inputs in (("base", ["[[1]]"]), ("plus", ["[[1]]", "[[2]]"])):
        box: Any = ToldSandbox(outcome("error"))
        assert asyncio.run(differential.check_against_reference("code", task, which, box)).ended == "error"
        ((code, tests, given),) = box.asked
        assert code == "code" and tests == "".join(call.format(each) for each in inputs)
        assert given == {"setup": differential._setup(), "names": ("f",), "limits": differential.LIMITS, "load_s": 30.0}
    names: dict[str, Any] = {}
    exec(differential._setup(), names)
    assert names["_compare"].__name__ == "compare_outputs" and [each for each in names if each[0] != "_"] == []
    with pytest.raises(DataError, match=r"^task t has no 'inputs' for the tests: use humaneval_plus or mbpp_plus$"):
        asyncio.run(
            differential.check_against_reference(
                "", Task("t", "", secret={"entry_point": "f", "solution": ""}), "", box
            )
        )


def test_predictions_and_tests_need_their_secrets_before_any_sandbox() -> None:
    for text, output, given in (
        ("assert f(17) == 18 == 19", "18", "f(17)"),
        ("[ANSWER] f(1) == 2 [/ANSWER] more", "2", "f(1)"),
        ("x [ANSWER]assert f('==') [/ANSWER] [ANSWER]b", "') ", "f('"),
        ("  7 ", "7", "7"),
    ):
        assert (predicted(text, "output"), predicted(text, "input")) == (output.strip(), given), text
    for predict in (None, "both"):
        with pytest.raises(DataError, match=f"^task t predicts {predict!r}: input or output was expected$"):
            asyncio.run(assertion_holds(Task("t", "?", secret={"predict": predict} if predict else {}), attempt()))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"^task t has no tests: secret\['tests'\] holds '7', and code was expected$"):
        asyncio.run(passes_tests(Task("t", "?", secret={"tests": 7}), attempt()))  # type: ignore[arg-type]
    assert reason(outcome()) == {"wall_s": 1.2346, "tier": "bubblewrap"}
    assert reason(outcome("error", stderr="a\n" + "b" * 301 + "\n"))["reason"] == "b" * 300
    assert reason(outcome("error", stderr=" \n"))["reason"] == "ended: error" and (LIMITS.wall_s, LIMITS.cpu_s) == (
        10,
        5,
    )
    prompt = "import os\ndef f(x):\n    '''Doc.'''\n"
    for answer, code in (
        ("return x\nprint(f(1))", prompt + "    return x"),
        ("    return x\n\ndef g(): pass", prompt + "    return x\n"),
        ("if x:\n    return 1\nreturn 2", prompt + "    if x:\n        return 1\n    return 2"),
        ("```python\ndef f(x): return 2\n```\n```\ndef g(): pass\n```", "import os\ndef f(x): return 2\n"),
        ("```python\ndef f(x): return 1\n```\n```python\ndef f(x): return 2\n```", "import os\ndef f(x): return 2\n"),
        ("```js\ndef f(x): 1\n```\n```py\nreturn 3\n```", prompt + "    return 3\n"),
        ("async def f(x): return 4", "import os\nasync def f(x): return 4"),
    ):
        assert answered_code(answer, prompt, "f").rstrip() == code.rstrip(), answer


def test_an_assertion_is_a_value_of_the_answer_and_a_test_of_ours() -> None:
    given = "def given():\n    return (\nf(1, b=2)\n)\n"
    assert assertion_program("f(1, b=2)", "output", "[1, 2]") == (given, "assert ([1, 2]) == given()\n")
    answer, tests = assertion_program("f(1, b=2)", "input", "[1, 2]")
    assert tests == "args, named = given()\nassert ([1, 2]) == f(*args, **named)\n"
    assert answer == f"def f(*args, **named):\n    return [list(args), named]\n{given}"
    names: dict[str, Any] = {}
    exec(answer, names)
    assert names["given"]() == [[1], {"b": 2}]


def test_a_body_without_its_indent_keeps_what_looks_like_a_stop_string_and_loses_what_follows_it() -> None:
    prompt = "def g(x):\n    return x\n\n\ndef f(x):\n    '''Doc.'''\n"
    for body in (
        "y = x\nif y > 1:\n    return 1\nreturn 2",
        "# Count.\n# Both.\ny = x\n# Now the rest.\nreturn y",
        "\nif x:\n    return 1\nelse:\n    raise ValueError",
        "def inner(y):\n    return y\nif x:\n    return inner(x)\nreturn 0",
        "y = 0\ndef inner():\n    return x\nreturn inner()",
        "y = 1\nprint(y)\nreturn y",
        "y = x\nwhile True:\n    if y:\n        return y\n    y += 1",
        "with suppress(ValueError):\n    return int(x)\n# Else.\nreturn 0",
        "with suppress(ValueError):\n    return int(x)\nif x:\n    return 1\nreturn 0",
        "y = x\ntry:\n    y = g(x)\nexcept ValueError:\n    return 1\nelse:\n    return y",
        "x.sort()\nif x:\n    x.pop()",
        "while True:\n    if x: break\nif x:\n    return 1\nreturn 2",
        "try:\n    return 1\nexcept ValueError:\n    x = 2\nif x:\n    return 3\nreturn 4",
        "with x:\n    y = 1\nif y:\n    return 3\nreturn 4",
        "if x:\n    return 1\nelse:\n    y = 2\nif y:\n    return 3\nreturn 4",
        "for y in x:\n    return y\nif x:\n    return 3\nreturn 4",
    ):
        program = prompt + textwrap.indent(body, "    ")
        for answer in (body, f"```python\n{body}\n```", body + "\n\nprint(f(2))\n", body + "\nclass A: pass"):
            assert answered_code(answer, prompt, "f").rstrip() == program, answer
        for after in ("\nif __name__ == '__main__':\n    f(f(1))", "\ndef test():\n    f(1)"):
            assert answered_code(body + "\n" + after, prompt, "f").rstrip() == program, after
        if "return" in body:
            for after in ("\n# Why\nThis is it.", "\nif f(1):\n    f(2)"):
                assert answered_code(body + after, prompt, "f").rstrip() == program, after
    for answer, program in (
        ("x.append(1)\ny = 2\n# So:\nIt appends.", "    x.append(1)\n    y = 2"),
        ("y = x\n    z = y\n    return z\nprint(f(1))", "    y = x\n    z = y\n    return z"),  # the answer was stripped
        ("    y = x\n    return y\nif y:\n    return 3", "    y = x\n    return y"),  # as in Chen et al. (2021)
        ("", ""),
    ):  # fmt: skip
        assert answered_code(answer, prompt, "f").rstrip() == (prompt + program).rstrip(), answer
    chain = "if x:\n    return 1\n" + "elif x:\n    return 2\n" * 1_500 + "else:\n    return 3"
    assert answered_code(chain, prompt, "f") == prompt + textwrap.indent(chain, "    ")
    with at_most_cpu_s(5):
        answered_code("if x:\n    y\n" * 4_000, prompt, "f")
