"""Which names in the tests are the answer's, those that they use as globals and do not define; and what they hold."""

from __future__ import annotations

import asyncio
import sys
import types
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the programs are those of Linux", allow_module_level=True)

from firsthand.sandbox.programs import checker, passed_values
from firsthand.sandbox.sandbox import Outcome, Sandbox
from namespaces import WHY_NOT


def checked(sandbox: Sandbox, answer: str, tests: str, **given: Any) -> Outcome:
    return asyncio.run(sandbox.check(answer, tests, **given))


def said_of(outcome: Outcome) -> str:
    """The last line of the error, or nothing where the tests pass."""
    return "" if outcome.ok else outcome.stderr.strip().rpartition("\n")[2]


def test_a_name_that_a_function_or_class_of_the_tests_binds_for_itself_is_still_the_answers() -> None:
    for tests, names in (
        ("def ref(): total = 0; return total\ntotal(1) == ref()", {"total"}), ("def g(total): total\ntotal", {"total"}),
        ("[total for total in r]\ntotal", {"r", "total"}), ("(lambda total: total)(total)", {"total"}),
        ("class A:\n    total = 1\n    def m(self): return total", {"total"}), ("class A:\n    f = staticmethod(f)", {"f"}),
        ("def g():\n    import total\n    total\ntotal", {"total"}),
        ("def g():\n    total = 1\n    def h(): return total", set()),
        ("def g():\n    def total(): pass\n    total()", set()), ("def g(): return total\ntotal = 1", set()),
        ("def g():\n    global total\n    total = 1\ntotal", set()), ("def g():\n    global total\n    total()", {"total"}),
        ("[(w := q) for q in r]\nw", {"r"}), ("def g(): [(w := 1) for q in r]\nw", {"r", "w"}),
        ("match m:\n    case [*w]: w", {"m"}), ("async def g(): pass\ng", set()),
        ("if f(1): ok = True\nassert ok", {"f"}), ("def g():\n    total = 1\n    class A: total = total", {"total"}),
    ):  # fmt: skip
        assert checker.free_names(tests, {"given": 1}) == names, tests


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_a_name_is_in_the_tests_what_it_is_in_the_answer() -> None:
    with Sandbox() as sandbox:
        for answer, tests, said in (
            ("def f(): 'a function'", "assert f and callable(f) and f() is None", ""),
            ("answer = 6 * 7", "assert answer == 42 and type(answer) is int", ""),
            ("class A: pass", "assert callable(A) and A is not None", ""),
            ("x = 1", "assert callable(x)", "AssertionError"),
            ("x = 1", "x()", "TypeError: 'int' object is not callable"),
            ("done = False", "assert done", "AssertionError"),
            ("x = None", "assert x is not None", "AssertionError"),
            ("error = 4", "assert error != 4", "AssertionError"),
            ("x = 1", "assert solve is not None", "NameError: name 'solve' is not defined"),
            ("x: int", "assert x is not None", "NameError: name 'x' is not defined"),
            ("def __getattr__(name): return min", "assert nothing", "NameError: name 'nothing' is not defined"),
            ("if __name__ == '__main__': x = 1", "try: x\nexcept NameError: pass\nelse: assert False", ""),
            ("x = 1", "if False: nothing\nclass T: y = x\nassert T.y == 1", ""),
            ("a = [1]\nb = a\nc = [1]", "assert a is b and a == c and a is not c", ""),
            ("table = {'k': (1, {2}, b'3')}", "assert table == {'k': (1, {2}, b'3')}", ""),
        ):
            assert said_of(checked(sandbox, answer, tests)) == said, (answer, tests)


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_another_object_of_the_answer_is_refused_where_the_tests_use_it() -> None:
    other = "class Yes:\n    def __eq__(self, other): return True\nx, many = Yes(), [Yes()]\nimport math"
    refused = "TypeError: the answer's 'x': a Yes is no plain value: return numbers, text, lists, tuples, sets or dicts"
    endless = (
        "import itertools\nx = itertools.count()\ny = (each for each in x)\nz = [map(abs, y)]\ndef f(): return next(y)"
    )
    with Sandbox() as sandbox:
        for use in ("assert x", "assert x == 4", "assert x != 4", "assert not x", "x.y", "isinstance(x, int)", "str(x)",
                    "repr(x)", "f'{x}'", "{x}", "hasattr(x, 'y')", "len(x)", "list(x)", "1 in x", "x[0]",
                    "dir(x)"):  # fmt: skip
            assert said_of(checked(sandbox, other, use)) == refused, use
        for answer, tests, said in (
            (other, "assert x is not None and not callable(x)", ""),
            (other, "assert math.pi > 3", refused.replace("'x': a Yes", "'math': a module")),
            (other, "assert many", refused.replace("'x'", "'many'")),
            (other, "if False: x", ""),
            (endless, "assert f() == 0 and f() == 1\nif False: x, y, z", ""),
            (endless, "list(y)", refused.replace("'x': a Yes", "'y': a generator")),
            ("x = []\nx.append(x)", "assert x[0] is x", ""),
        ):
            assert said_of(checked(sandbox, answer, tests)).startswith(said[:80]), (answer, tests)
            assert said or (checked(sandbox, answer, tests)).ok


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_a_value_of_the_answer_is_kept_up_to_date_by_its_functions() -> None:
    answer = """
count, log, flag = 0, [], 1
same = log
def inc():
    global count
    count += 1
def record(x): log.append(x)
def renew():
    global log
    log = [*log, 9]
def again():
    global log
    log = list(log)
def truth(): log[0] = True
def begins():
    global late
    late = 5
def ends():
    global late
    del late
def fails():
    inc()
    raise ValueError
def flags():
    global flag
    flag = True
def swaps():
    global count, inc
    count, inc = len, 3
"""
    with Sandbox() as sandbox:
        for tests in (
            "inc(); inc(); assert count == 2", "def now(): return count\ninc(); assert now() == 1",
            "before = log; record(1); assert before is log and log == [1] and same is log",
            "before = log; record(1); renew(); assert (before, log, same) == ([1], [1, 9], [1]) and before is same",
            "try: late\nexcept NameError: begins()\nassert late == 5\nends()\ntry: late\nexcept NameError: late_gone = 1\n"
            "assert late_gone", "try: fails()\nexcept ValueError: pass\nassert count == 1",
            "flags(); assert flag is True", "record(1); truth(); assert log[0] is True",
            "before = log; again(); assert before is not log", "swaps(); assert inc == 3 and count([1]) == 1",
            "log.append(5); inc(); assert log == [5]; record(1); assert log == [1]",
        ):  # fmt: skip
            outcome = checked(sandbox, answer, tests)
            assert outcome.ok, (tests, outcome.stderr)
        own = "def check():\n    global count\n    count = 'own'\n    inc()\n    assert count == 'own'\ncheck()"
        assert (checked(sandbox, answer, own, names=["count"])).ok, "what the tests put there is theirs"


def test_a_table_that_holds_what_it_held_is_not_written_again_and_one_that_does_not_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("answer")
    given: dict[str, Any] = {"d": {1: 2}, "l": [1, 0], "n": 7, "s": {1}, "x": [[1]]}
    vars(module).update(given)
    names, written = checker.Names(module), []
    names.asked = sorted(given)
    assert set(names.changed()["names"]) == set(given)
    plain = passed_values.Values.encode
    monkeypatch.setattr(passed_values.Values, "encode", lambda self, each: [written.append(each), plain(self, each)][1])
    assert names.changed() == {} and written == [[[1]], [1]], "the nested one alone, whose parts may change"
    given["d"][1] = True
    given["l"][1] = False
    given["s"].add(2)
    given["x"][0].append(2)
    found = names.changed()["names"]
    assert {name: kind for name, (kind, _) in found.items()} == dict.fromkeys("dlsx", "content")
    given["l"].append([1])
    assert list(names.changed()["names"]) == ["l"]
    given["l"][-1].append(2)
    assert list(names.changed()["names"]) == ["l"], "its parts may change now"
    vars(module)["a"], names.asked = given["d"], ["a", *sorted(given)]
    assert names.changed()["names"] == {"a": ["value", {"dict": [[1, True]]}], "d": ["same", "a"]}
    del vars(module)["a"]
    assert names.changed()["names"]["d"] == ["content", {"dict": [[1, True]]}]
    given["d"][1] = 1
    assert names.changed()["names"] == {"d": ["content", {"dict": [[1, 1]]}]}
    vars(module)["l"] = [*given["l"]]
    assert names.changed()["names"]["l"][0] == "value"


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_a_name_of_pythons_or_of_the_set_up_is_the_answers_alone_if_it_is_named() -> None:
    with Sandbox() as sandbox:
        for answer, tests, setup, said in (
            ("def sum(xs): return 7", "assert sum([1]) == 7 and max(1, 2) == 2", "", ""),
            ("x = 1", "assert sum([1, 2]) == 3", "", "NameError: name 'sum' is not defined"),
            ("def sum(xs): return 7", "import builtins\nassert builtins.sum([1]) == 1", "", ""),
            ("x = 1", "check()", "def check(): assert sum([1, 2]) == 3", "NameError: name 'sum' is not defined"),
            (
                "def sum(xs): return 7",
                "assert kept == 3 and f([1]) == 7",
                "kept = sum([1, 2])\ndef f(x): return sum(x)",
                "",
            ),
            ("x = 1", "assert sum([1, 2]) == 3", "def sum(xs): return 3", "NameError: name 'sum' is not defined"),
        ):
            assert said_of(checked(sandbox, answer, tests, setup=setup, names=["sum"])) == said, (answer, tests)
        assert (checked(sandbox, "def sum(xs): return 7", "assert sum([1, 2]) == 3")).ok


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_a_forged_message_changes_no_name_but_the_answers() -> None:
    answer = """
import sys
def f():
    serving = sys._getframe(2)
    names = {each: ["value", 9] for each in ("f", "len", "kept", "mine", "x")}
    serving.f_globals["send"](serving.f_locals["link"], {"value": 1, "names": names})
x = 1
"""
    tests = "mine = 1\nassert f() == 1 and (len([7]), kept, mine, x) == (1, 1, 1, 9)"
    with Sandbox() as sandbox:
        assert said_of(checked(sandbox, answer, tests, setup="kept = 1")) == ""
