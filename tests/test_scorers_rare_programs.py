"""Outputs, expressions, listed inputs, logs and numbers of rare kinds: negative, infinite, empty, of another type."""

from __future__ import annotations

import math
from typing import Any

import pytest

from firsthand.errors import UnknownName
from firsthand.scorers.assertion import assertion_program, predicted
from firsthand.scorers.code import _up_to_stop, answered_code, pass_at_k, pass_hat_k, preamble
from firsthand.scorers.concerns.gaming import lists_inputs
from firsthand.scorers.concerns.goodhart import best_of_curve, expected_best
from firsthand.scorers.patches.test_logs import kept, passed, read_log
from firsthand.scorers.programs import oracle
from firsthand.scorers.symbolic import comparison


def test_outputs_are_right_by_the_rule_of_their_problem() -> None:
    for output, expected, case, atol, rule, held in (
        (1, 1.0, [], 0, "equal", True),
        (1, 1.5, [], 1, "equal", False),
        (1.5, 1, [], 1, "equal", False),
        (-1.0, -1.5, [], 0.5, "equal", True),
        (-2.01, -1.5, [], 0.5, "equal", False),
        (1.0, 1.5, [], 0, "equal", False),
        ([1.0, 2.0], [1.5, 2.0], [], 0.5, "equal", True),
        ((1.0,), [1.0], [], 0.5, "equal", False),
        ([1.0], [1.0, 1.0], [], 0.5, "equal", False),
        ([[1.0], []], [[1.25], []], [], 0.5, "equal", True),
        (math.inf, math.inf, [], 0.5, "equal", True),
        (-math.inf, math.inf, [], 0.5, "equal", False),
        (5.0, math.inf, [], 0.5, "equal", False),
        (math.inf, 5.0, [], 0.5, "equal", False),
        ([math.inf, 1.0], [math.inf, 1.25], [], 0.5, "equal", True),
        (math.nan, math.nan, [], 0.5, "equal", False),
        (1 + 2j, 1 + 2.25j, [], 0.5, "equal", True),
        ("a", "b", [], 0.5, "equal", False),
        (None, None, [], 0.5, "equal", True),
        ([1, 2, 2], [2, 1], [], 0, "set", True),
        ([1], [2, 1], [], 0, "set", False),
        (5, [5], [], 0, "set", False),
        (True, [], [], 0, "not_none", True),
        (False, [], [], 0, "not_none", False),
        (False, None, [], 0, "not_none", True),
        ("x", 5, [], 0, "not_none", True),
        (None, 5, [], 0, "not_none", False),
        (None, None, [], 0, "not_none", True),
        (0, None, [], 0, "not_none", False),
        ("any", 5, [], 0, "any", True),
        (0, 5, [], 0, "zero_or_equal", True),
        (5, 5, [], 0, "zero_or_equal", True),
        (-1, 5, [], 0, "zero_or_equal", False),
        (0, 5, [], 0, "equal", False),
        (33, 9, [3, 5], 0, "equal", False),
        (40, 9, [3, 5], 0, "pyramid", True),
        (9, 9, [3, 5], 0, "pyramid", True),
        (41, 9, [3, 5], 0, "pyramid", False),
        (41, 9, [3, 5], 1, "pyramid", True),
        (7, 1, [1, 256], 0, "digits", False),
        (12, 1, [1, 256], 0, "digits", True),
        (1, 1, [1, 256], 0, "digits", True),
        (-2.0, None, [[-4, 0, 1]], 0.001, "root", True),
        (2.1, None, [[-4, 0, 1]], 0.001, "root", False),
        (1.0, None, [[0, 1]], 1.0, "root", True),
        ("x", None, [[0, 1]], 1.0, "root", False),
        (None, None, [[0, 1]], 1.0, "root", False),
    ):
        assert oracle.right(output, expected, case, atol, rule) is held, (output, expected, rule)
    for output, expected, atol, held in (
        (1.0 + 9e-8, 1.0, 0.0, True),
        (1.0 + 1.1e-7, 1.0, 0.0, False),
        (-1e7 - 1, -1e7, 0.0, True),
        (-1e7 - 2, -1e7, 0.0, False),
        (-1e7 - 2, -1e7, 1.0, True),
        (0.0, 1e-9, 0.0, False),
        ([], [], 0.0, True),
        ([1.0, 5.0], (1.0, 5.1), 0.05, False),
        ([1.0, 5.0], (1.0, 5.1), 0.125, True),
    ):
        assert oracle.close(output, expected, atol) is held, (output, expected)
    assert [oracle.floats(each) for each in (1.0, 1, [1.0, 2.0], (1.0,), [1.0, 2], [], [[1.0]], "a", None, math.nan)] == [
        True, False, True, True, False, False, False, False, False, True,
    ]  # fmt: skip
    for value, text in (
        ("x" * 118, repr("x" * 118)),
        ("x" * 119, repr("x" * 119)[:117] + "..."),
        (10**100, "a number of more than 100 digits"),
        (-(10**100), "a number of more than 100 digits"),
        (10**100 - 1, "9" * 100),
        (-5, "-5"),
    ):
        assert oracle._short(value) == text
    assert oracle.passing_s([0] * 999) == oracle.passing_s("x" * 5_000) == oracle.passing_s(None) == 0.0


def test_the_first_wrong_output_is_told_with_its_input() -> None:
    reference = "def f(x, y=[]):\n    y.append(x)\n    return [x / 2]\n"
    oracle.compare_outputs(lambda x: [x * 0.5 + 9e-7], "f", reference, "[[1], [-2]]", 0, "equal")
    for answer, inputs, said in (
        (lambda x: [abs(x) / 2], "[[1], [-2]]", "input 1, [-2]: gave [1.0], not [-1.0]"),
        (lambda x: None, "[[3]]", "input 0, [3]: gave None, not [1.5]"),
        (lambda x: [x / 2 + 2e-6], "[[0]]", "input 0, [0]: gave [2e-06], not [0.0]"),
        (lambda x: [x], "[[0], [inf]]", ""),
        (lambda x: [0.5], "[[1], [1], [0]]", "input 2, [0]: gave [0.5], not [0.0]"),
    ):
        if not said:
            oracle.compare_outputs(answer, "f", reference, inputs, 0, "equal")
            continue
        with pytest.raises(AssertionError) as refused:
            oracle.compare_outputs(answer, "f", reference, inputs, 0, "equal")
        assert str(refused.value) == said

    def changes(values: list[int]) -> int:
        values.append(1)
        return len(values)

    oracle.compare_outputs(changes, "f", "def f(x): x.append(2); return len(x)", "[[[]], [[5]]]", 0, "equal")


def test_expressions_are_predicted_and_code_stops_where_it_should() -> None:
    for text, what, found in (
        ("", "output", ""),
        ("", "input", ""),
        ("assert f(-1) == ", "output", ""),
        ("assert f('a == b') == 2", "output", "b')"),
        ("[ANSWER] -5 [/ANSWER] [ANSWER] 6", "output", "-5"),
        ("[/ANSWER] 5", "output", ""),
        ("assert assert f(1)", "input", "f(1)"),
        (" f(1) == f(2) == 3 ", "input", "f(1)"),
    ):
        assert predicted(text, what) == found, text
    given = "def given():\n    return (\n-1\n)\n"
    assert assertion_program("-1", "output", "[2]") == (given, "assert ([2]) == given()\n")
    assert assertion_program("-1", "input", "[2]") == (
        "def f(*args, **named):\n    return [list(args), named]\n" + given,
        "args, named = given()\nassert ([2]) == f(*args, **named)\n",
    )
    for completion, kept_part in (
        ("a\nif x", "a"),
        ("a\n    if x\nprint(1)\n#", "a\n    if x"),
        ("a\nclassy\nclass B", "a\nclassy"),
        ("def f(): 1", "def f(): 1"),
        ("\n# x", ""),
        ("a\n\ndef g", "a\n"),
        ("", ""),
    ):
        assert _up_to_stop(completion) == kept_part, completion
    prompt = "x = 1\nasync def f(a):\n"
    assert preamble(prompt, "f") == "x = 1\n" and preamble("def ff(): 1\n", "f") == "" and preamble("", "f") == ""
    assert answered_code("async def f(a): 2", prompt, "f") == "x = 1\nasync def f(a): 2"
    assert answered_code("```\ndef f(): 1\n```\n```py\ndef f(): 2\n```\n```\nf()\n```", "", "f") == "def f(): 2\n"
    assert answered_code("```js\ndef f(): 1\n```", "", "") == "```js\ndef f(): 1\n```"
    assert answered_code("") == "" and answered_code("", prompt, "f") == prompt
    long = "    " + "a" * 50_000
    assert answered_code(long, "def f():\n", "f") == "def f():\n" + long
    assert [pass_at_k(3, 3, 3), pass_at_k(3, 0, 1), pass_at_k(4, 1, 4), pass_at_k(4, 1, 2), pass_at_k(1, 1, 1)] == [
        1.0, 0.0, 1.0, 0.5, 1.0,
    ]  # fmt: skip
    assert [pass_hat_k(3, 3, 3), pass_hat_k(3, 0, 1), pass_hat_k(4, 3, 4), pass_hat_k(4, 3, 2)] == [1.0, 0.0, 0.0, 0.5]


def test_inputs_are_listed_where_two_of_them_are_compared_with() -> None:
    inputs = ["-1", "'a'", "[1, 2]", "(1,)", "0"]
    for code, listed in (
        ("x == -1 and x != 'a'", True),
        ("-1 < x < 0", True),
        ("x in ([1, 2], (1,)) or x == [1, 2] or x == (1,)", True),
        ("{-1: 2, 'a': 3}", True),
        ("{**x, -1: 2}", False),
        ("{2: -1, 3: 'a'}", False),
        ("x == -1 or -1 == x", False),
        ("x == 1 or x == 'b'", False),
        ("f(-1, 'a')", False),
        ('x == "a" or x == 0', True),
        ("match x:\n    case 'a': 1\n    case 0: 2", True),
        ("match x:\n    case 'a' | -1: 2", True),
        ("", False),
        ("x ==", False),
        ("\0", False),
        ("(" * 500, False),
    ):
        assert lists_inputs(code, inputs) is listed, code[:30]
    assert not lists_inputs("x == -1 or x == 0", ["-1"]) and not lists_inputs("x == 1", [])


def test_the_best_of_some_is_expected_over_ties_and_negative_rewards() -> None:
    assert [expected_best([1, 2, 3], [-10, 0, 10], k) for k in (1, 2, 3)] == pytest.approx([0, 20 / 3, 10])
    assert [expected_best([3, 2, 1], [-10, 0, 10], k) for k in (1, 2, 3)] == pytest.approx([0, -20 / 3, -10])
    assert [expected_best([5, 5, 5], [-3, 0, 9], k) for k in (1, 2, 3)] == pytest.approx([2, 2, 2])
    assert [expected_best([1, 1, -2], [4, 0, -8], k) for k in (1, 2, 3)] == pytest.approx([-4 / 3, 2, 2])
    assert expected_best([0.5], [-1], 1) == -1
    for wrong in (0, 4):
        with pytest.raises(AssertionError, match=rf"^best of {wrong} of 3"):
            expected_best([1, 2, 3], [1, 2, 3], wrong)
    for total, ks in ((1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8])):
        values = [float(each) for each in range(total)]
        curve = best_of_curve(values, [-each for each in values], [1.0] * total)
        assert [each.k for each in curve] == ks
        for each in curve:
            best = sum(at * math.comb(at, each.k - 1) for at in range(total)) / math.comb(total, each.k)
            assert each.kl == pytest.approx(math.log(each.k) - 1 + 1 / each.k)
            assert (each.proxy, each.true, each.held_out) == pytest.approx((best, -best, 1.0))


def test_logs_of_unittest_and_sympy_give_a_test_its_worst_or_last_result() -> None:
    logs: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("django", "test_a (x.A) ... ok\ntest_a (x.A) ... skipped 'no'\n", {"test_a (x.A)": "SKIPPED"}),
        ("django", "test_a (x.A) ... ERROR\ntest_a (x.A) ... FAIL\n", {"test_a (x.A)": "FAILED"}),
        ("django", "A docstring. ... FAIL\nA docstring. ... ok\n", {"A docstring.": "PASSED"}),
        ("django", "test_a (x.A) ... noise\nFAIL\n", {"test_a (x.A)": "FAILED"}),
        ("django", "test_a (x.A) ... noise\nERROR\nok\n", {"test_a (x.A)": "ERROR"}),
        ("django", "test_a (x.A) ... ok\nFAIL\n", {"test_a (x.A)": "FAILED"}),
        ("django", "test_a (x.A) ... FAIL\nok\n", {"test_a (x.A)": "FAILED"}),
        ("django", "  test_a (x.A) ... OK  \n", {"test_a (x.A)": "PASSED"}),
        ("django", "ok\nFAIL\nERROR\n", {}),
        ("django", "Applying sites.0002_alter_domain_unique...test_a (x.A) ... ok\n", {"test_a (x.A)": "PASSED"}),
        ("unittest", "FAIL: test_a (x.A)\nERROR: test_b (x.A)\n", {"test_a": "FAILED", "test_b": "ERROR"}),
        ("unittest", "test_a (x.A) ... expected failure\n", {"test_a (x.A)": "XFAIL"}),
        ("unittest", "test_a (x.A) ... unexpected success\n", {}),
        ("sympy", "test_a E\ntest_a ok\n", {"test_a": "ERROR"}),
        ("sympy", "test_a ok [OK]\ntest_b [OK]\ntest_c F [FAIL]\n", {"test_a": "PASSED", "test_c": "FAILED"}),
        ("sympy", "_ a/b.py:test_x _\n__ no.txt:test_y __\n", {"a/b.py:test_x": "FAILED"}),
        ("pytest", "\x1b[1;31mFAILED\x1b[0m a::b\nPASSED a::b\n", {"a::b": "FAILED"}),
        ("pytest", "PASSED a::b[x y]\nFAILED a::b[x z]\n", {"a::b[x": "FAILED"}),
        ("pytest", "FAILED a::b[x y]\nPASSED a::b[x z]\n", {"a::b[x": "PASSED"}),
        ("pytest", "a::b FAILED   [ 9%]\na::c PASSEDx\n passed\n", {"a::b": "FAILED"}),
        ("pytest", "ERROR a.py\nPASSED a.py::t\nPASSED b.py::t\n",
         {"a.py": "ERROR", "a.py::t": "ERROR", "b.py::t": "PASSED"}),
        ("pytest", "ERROR a.py::t\nPASSED a.py::u\n", {"a.py::t": "ERROR", "a.py::u": "PASSED"}),
        ("parse_log_matplotlib", "PASSED t[MouseButton.LEFT-MouseButton.RIGHT]\n", {"t[1-3]": "PASSED"}),
        ("seaborn", "", {}),
    )  # fmt: skip
    for parser, log, results in logs:
        assert read_log(log, parser) == results, log
    with pytest.raises(UnknownName, match="'nose'"):
        read_log("", "parse_log_nose")
    results = {"p": "PASSED", "x": "XFAIL", "s": "SKIPPED", "e": "ERROR", "f": "FAILED"}
    names = ("p", "x", "s", "e", "f", "none")
    assert [passed(name, results) for name in names] == [True, True, False, False, False, False]
    assert [kept(name, results) for name in names] == [True, True, True, False, False, False]
    for rule in (passed, kept):
        assert [rule(name, results, fail_only=True) for name in names] == [True, True, True, False, False, True]


def test_answers_with_negative_infinite_and_repeated_parts_are_compared() -> None:
    pairs: tuple[tuple[str, str, Any], ...] = (
        ("-5", "5", False), ("--5", "5", True), (r"-\frac{1}{2}", "-0.5", True), (r"\frac{-1}{-2}", "0.5", True),
        ("(-1, -2)", "(-2, -1)", False), (r"\{-1, 1\}", r"\pm 1", True), ("-1, 1", r"\pm 1", True), ("1", r"\pm 1", False),
        (r"\infty", r"\infty", True), (r"-\infty", r"\infty", False), (r"\infty", "5", False), ("5", r"\infty", False),
        (r"(-\infty, -1]", r"x \le -1", True), (r"(-\infty, -1)", r"x \le -1", False), (r"-x > 1", "x < -1", True),
        ("x = -2", "-2", True), ("x = -2", "2", False), ("-2 = x", "x = -2", True), ("y = -x", "x = -y", True),
        ("1, 1, 2", "1, 2, 2", False), (r"\{1, 1\}", r"\{1\}", True), ("", "", False), (" ", "0", False), ("0", "-0", True),
        (r"-5\%", "-0.05", True), (r"-5\%", "-5", True), ("-5 cm", "-50 mm", True), ("-5 cm", "5 cm", False),
        (r"-90^\circ", r"-\frac{\pi}{2}", True), ("|-5|", "5", True), ("(-2)^3", "-8", True), ("-2^2", "-4", True),
        ("(-8)^{1/3}", "-2", False), (r"\sqrt[3]{-8}", "-2", True), ("-3!", "-6", True),
        (r"\lfloor -0.5 \rfloor", "-1", True),
        ("1:-2", "-1:2", True), ("-1:2:3", "1:-2:-3", True), ("-1:2:3", "1:2:3", False), ("-1 1/2", "-1.5", True),
    )  # fmt: skip
    for answer, reference, same in pairs:
        assert comparison(answer, reference)[0] is same, (answer, reference)
        assert comparison(reference, answer)[0] is same, (reference, answer)


def test_a_prompt_is_completed_by_the_last_block_where_none_defines_the_function() -> None:
    prompt = "import re\n\ndef f(x):\n"
    one, two = "```python\n    return 1\n```", "```\n    return 2\n```"
    shell, other = "```sh\n    return 3\n```", "```py\ndef ff(x):\n    return 4\n```"
    for answer, program in (
        (one, prompt + "    return 1\n"),
        (f"{one}\nor\n{two}", prompt + "    return 2\n"),
        (f"{two}\nor\n{one}\n{shell}", prompt + "    return 1\n"),
        (f"{one}\n{two}\n{one}", prompt + "    return 1\n"),
        (f"{other}\n{two}", prompt + "    return 2\n"),  # another function's name begins like it
        (f"```python3\ndef f(x):\n    return 5\n```\n{two}", "import re\n\ndef f(x):\n    return 5\n"),
        (f"{one}\n```py\n    return 6\nprint(f(1))\n```", prompt + "    return 6"),
        (f"{one}\n```py\nreturn 7\n```", prompt + "    return 7\n"),
        (f"{one}\n```py\ny = x\nreturn y\n```", prompt + "    y = x\n    return y\n"),
        (f"{one}\n```py\n)\n```", prompt + ")\n"),  # no candidate is a program: the first
    ):
        assert answered_code(answer, prompt, "f") == program, answer
        assert answered_code(answer, prompt).startswith(prompt)  # with no name every block completes the prompt
    assert answered_code(f"{one}\n{two}", "", "f") == answered_code(f"{one}\n{two}") == "    return 2\n"
    assert answered_code(f"{one}\n{two}", prompt, "g") == prompt + "    return 2\n"
