"""What `bench/mutants.py` draws from, and how it puts a change into functions that are already imported."""

from __future__ import annotations

import json
import re
from pathlib import Path

import forked_tests
import mutants
import pytest
import tests_reached
import wrong_changes

SOURCE = '''
LIMIT: int = 3


def share(found: list[str], *, of: int = 2, loud: bool = False) -> float:
    """A share."""
    assert of > 0
    if not found:
        raise ValueError(f"none of {of + 1}")
    kept = sorted(each.strip() for each in found if each)
    tell(kept, loud=loud)
    return max(len(kept[:9]) / of, -1.0) if loud else LIMIT
'''


def test_every_wrong_change_of_a_source_is_listed_with_its_place() -> None:
    changes = list(wrong_changes.changes_of(SOURCE, "a.py"))
    assert all(SOURCE.encode()[each.begin : each.end].decode() == each.old for each in changes)
    assert [(each.line, each.old, each.new) for each in changes] == [
        (2, "3", "4"),
        (2, "3", "2"),
        (5, "2", "3"),
        (5, "2", "1"),
        (5, "False", "True"),
        (8, "not found", "True"),
        (8, "not found", "False"),
        (8, "not found", "(found)"),
        (10, "(each.strip() for each in found if each)", "(each.strip() for each in found)"),
        (10, "each.strip()", "(each)"),
        (11, "tell(kept, loud=loud)", "None"),
        (11, "tell(kept, loud=loud)", "tell(kept)"),
        (12, "max(len(kept[:9]) / of, -1.0) if loud else LIMIT", "(max(len(kept[:9]) / of, -1.0))"),
        (12, "max(len(kept[:9]) / of, -1.0) if loud else LIMIT", "(LIMIT)"),
        (12, "max(len(kept[:9]) / of, -1.0)", "min(len(kept[:9]) / of, -1.0)"),
        (12, "max(len(kept[:9]) / of, -1.0)", "(len(kept[:9]) / of)"),
        (12, "max(len(kept[:9]) / of, -1.0)", "(-1.0)"),
        (12, "len(kept[:9]) / of", "(len(kept[:9]) * of)"),
        (12, "kept[:9]", "(kept)"),
        (12, "9", "10"),
        (12, "9", "8"),
        (12, "-1.0", "(1.0)"),
        (12, "1.0", "2.0"),
    ]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = f(a, b)\n", ["f(b, a)"]),
        ("x = f(a, a)\n", []),
        ("x = f(a, b, c)\n", []),
        ("x = min(a, b)\n", ["max(a, b)", "(a)", "(b)"]),
        ("x = min(*a, 3)\n", ["max(*a, 3)", "4", "2"]),
        ("x = a is not None\n", ["(a is None)", "(a)"]),
        ("x = a is None\n", ["(a is not None)", "(not a)"]),
        ("x = a != b\n", ["(a == b)", "(a < b)", "(a > b)"]),
        ("x = dict.fromkeys(a)\n", ["(a)"]),
        ("x = clip(a.b)\n", ["(a.b)"]),
        ("x = Text(a), len(b), clip(a(1))\n", ["2", "0"]),
        ("x = Path(a).expanduser()\n", ["(Path(a))"]),
        ("for x in y:\n    continue\n", ["break"]),
        ("try:\n    pass\nexcept BaseException:\n    pass\n", ["Exception"]),
        ("try:\n    pass\nexcept (A, B):\n    pass\n", ["(B,)", "(A,)"]),
        ("class C:\n    def __init__(self, a): self.a = a\n    def end(self): self.a = self.b[0] = self.c\n", ["1"]),
        ("class C:\n    def end(self): self.a = self.c\n", ["None"]),
        ("x[a] = b\n", ["None"]),
        ("def f(a: int, b: str, *, c: int, d) -> int: return a + c\n", ["(a - c)", "c", "a"]),
        ("x = f(*a, b)\n", []),
        ("x += 1\n", ["x -= 1", "2", "0"]),
        ("x = a and b\n", ["(a or b)", "(b)", "(a)"]),
        ("x = sorted(a)\n", ["(a)"]),
        ("print(a, b)\n", ["print(b, a)"]),
    ],
)
def test_calls_and_conditions_change_in_the_ways_that_people_err(source: str, found: list[str]) -> None:
    assert [each.new for each in wrong_changes.changes_of(source, "a.py")] == found


def test_a_listed_change_keeps_only_the_lines_that_differ() -> None:
    source = "a = 1\né = 2\nb = 3\nc = 4\n".encode()
    change = mutants.narrowed("a.py", source, "é = 2\nb = 3\nc = 4\n", "é = 2\nb = 5\nc = 4\n")
    assert (change.line, change.old, change.new) == (3, "b = 3\n", "b = 5\n")
    assert (
        source[: change.begin] + change.new.encode() + source[change.end :] == "a = 1\né = 2\nb = 5\nc = 4\n".encode()
    )
    more = mutants.narrowed("a.py", source, "b = 3\n", "b = 3\nd = 5\n")
    assert (more.line, more.old, more.new) == (3, "b = 3\n", "b = 3\nd = 5\n"), "a line is left to find tests by"
    gone = mutants.narrowed("a.py", source, "b = 3\n", "")
    assert source[: gone.begin] + gone.new.encode() + source[gone.end :] == "a = 1\né = 2\nc = 4\n".encode()


@pytest.mark.parametrize(
    ("new", "same"),
    [
        ("    return of * 2\n", True),
        ("    return (lambda: of)()\n", True),
        ("    return of\n\n\nLIMIT = 4\n", False),
        ("    return of\n\n\nLIMIT = 3\n\n\ndef other(x=1): pass\n", False),
    ],
)
def test_only_the_code_of_functions_is_changed_in_place(new: str, same: bool) -> None:
    head, tail = "def share(of):\n", "\n\nLIMIT = 3\n\n\ndef other(x=2): pass\n"
    before = compile(head + "    return of\n" + tail, "a.py", "exec")
    after = compile(head + new + (tail if same else ""), "a.py", "exec")
    assert forked_tests.same_outside(before, after) is same


def test_a_class_whose_constant_changes_needs_a_fresh_process() -> None:
    source = "class Settings:\n    most = 3\n    def top(self): return {}\n"
    was = compile(source.format("self.most"), "a.py", "exec")
    assert forked_tests.same_outside(was, compile(source.format("self.most + 1"), "a.py", "exec"))
    assert not forked_tests.same_outside(was, compile(source.format("self.most").replace("3", "4"), "a.py", "exec"))


def test_a_changed_file_is_as_it_was_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "src" / "firsthand" / "a.py"
    file.parent.mkdir(parents=True)
    file.write_text("one = 1\n")
    time = file.stat().st_mtime_ns
    with forked_tests.Written(tmp_path, forked_tests.Edit("a.py", 6, 7, "20")):
        assert file.read_text() == "one = 20\n"
    assert (file.read_text(), file.stat().st_mtime_ns) == ("one = 1\n", time)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x = [", "is no list of changes"),
        ("x = 1", "is no list of changes ('change')"),
        ('[[change]]\nfile = "cli.py"\nnew = "b"\n', "a change has no old"),
        ('[[change]]\nfile = "nope.py"\nold = "a"\nnew = "b"\n', "there is no 'nope.py' below"),
        ('[[change]]\nfile = "cli.py"\nold = "no such text"\nnew = "b"\n', "cli.py has 0 times 'no such text'"),
        ('[[change]]\nfile = "cli.py"\nold = "import"\nnew = "b"\n', "give a text that occurs once"),
    ],
)
def test_a_list_that_cannot_be_planted_is_one_sentence(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "changes.toml"
    path.write_text(content)
    with pytest.raises(SystemExit, match=re.escape(said)):
        list(mutants.listed(path))
    with pytest.raises(SystemExit, match=r"none\.toml is no list of changes"):
        list(mutants.listed(tmp_path / "none.toml"))


def test_tests_near_a_line_come_most_special_first_within_their_seconds(tmp_path: Path) -> None:
    file = "system/plurals.py"
    line = tests_reached.functions_of(tests_reached.parsed(file))[0].body[-1].lineno
    tests = [{"name": f"t{n}", "s": s, "lines": lines} for n, (s, lines) in enumerate(((1.0, 9), (5.0, 3), (2.0, 5)))]
    path = tmp_path / "reached.json"
    path.write_text(json.dumps({"tests": tests, "slow": [], "lines": {file: {line: [0, 1, 2]}}}))
    near = tests_reached.Reached(path).near
    assert near(file, line, line, budget_s=9.0, most=9) == (["t1", "t2", "t0"], True)
    assert near(file, line, line, budget_s=6.0, most=9) == (["t1", "t0"], True)
    assert near(file, line, line, budget_s=0.0, most=9) == (["t1"], True), "one test runs, however long it takes"
    assert near(file, line, line, budget_s=9.0, most=2) == (["t1", "t2"], True)
    for content in ("", "{}", "[]", '{"tests": [], "slow": [], "lines": {"a.py": 3}}'):
        path.write_text(content)
        with pytest.raises(SystemExit, match="does not tell which tests run which lines"):
            tests_reached.Reached(path)


def test_a_test_that_fails_without_the_change_is_left_out_and_the_others_decide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkout = forked_tests.Checkout.__new__(forked_tests.Checkout)
    monkeypatch.setattr(checkout, "_is_sound", lambda test, slow: not test.startswith("bad"), raising=False)

    def fate(*tests: str, noticed: str = "", ends: bool | None = True) -> str:
        def forked(edit: forked_tests.Edit, asked: list[str], cpu_s: float) -> forked_tests.Ended:
            failing = [each for each in asked if each.startswith("bad") or each == noticed]
            return forked_tests.Ended(False, failing[:1]) if failing else forked_tests.Ended(ends, [])

        monkeypatch.setattr(checkout, "_forked", forked, raising=False)
        return checkout.fate(forked_tests.Edit("a.py", 0, 1, "x"), tests, cpu_s=1.0)

    assert fate("bad::1", "a", "bad::2", "b", noticed="b") == "caught"
    assert fate("bad::1", "a") == "lives"
    assert fate("bad::1", "a", ends=None) == "no end"
    assert fate("bad::1", "bad::2") == "its test fails"
    assert fate() == "not reached"
