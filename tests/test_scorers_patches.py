"""Patches and their tests to the letter: what is read, what is refused and why, canaries, doubts and verdicts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cpu_time import at_most_cpu_s
from firsthand.errors import DataError
from firsthand.scorers.patches import patch
from firsthand.scorers.patches.patch import MAX_BYTES, Change, find_patch, read_patch, rewritten, touched
from firsthand.scorers.patches.test_logs import read_log
from firsthand.scorers.resolved import (
    END,
    START,
    Canary,
    HiddenTests,
    TestRun,
    _doubt,
    _runner,
    canary_for,
    script_parts,
    verdict,
)

HUNK = "@@ -1 +1 @@\n-a\n+b\n"


def names(before: str, after: str, hunk: str = HUNK) -> str:
    return f"--- {before}\n+++ {after}\n{hunk}"


ONE = names("a/x.py", "b/x.py")


def test_a_patch_is_the_last_one_that_tags_fences_or_headers_mark() -> None:
    other, first = names("a/y.py", "b/y.py"), names("a/x.py", "b/x.py", "@@ -3 +3 @@\n-c\n+d\n")
    draft = names("a/x.py", "b/x.py", "@@ -1,2 +1,2 @@\n-a\n+d\n c\n")
    for answer, found in (
        (f"so\n{ONE}", ONE),
        (f"<patch>\n{draft}</patch> then <patch>{ONE}</patch>", ONE),
        (f"<diff>\n{ONE}\n\n</diff>", ONE),
        (f"<diff>{other}</diff><patch>{ONE}</patch>", ONE),
        (f"```diff\n{first}```\nor\n```\n{ONE}```\nend", ONE),
        (f"```patch\n{ONE}```\n```\nno\n```", ONE),
        (f"```python\n{ONE}```", ONE + "```\n"),
        ("nothing", ""),
        ("<patch>none</patch>", ""),
        (ONE.replace("\n", "\r\n"), ONE),
        (f"</patch>\n{ONE}", ONE),
        (ONE.rstrip("\n"), ONE),
        (f"x --- a/b\n{ONE}", ONE),
        (f"text\ndiff --git a/x.py b/x.py\n{ONE}", f"diff --git a/x.py b/x.py\n{ONE}"),
    ):
        assert find_patch(answer) == found, answer


def test_a_patch_in_parts_is_one_and_of_each_file_the_last_part_counts() -> None:
    first, one, two, three = (names(f"a/{name}", f"b/{name}") for name in ("x.py", "x.py", "y.py", "z.py"))
    first = first.replace("+b", "+draft")
    moved = "diff --git a/y.py b/w.py\nrename from y.py\nrename to w.py\n"
    made = names("/dev/null", "b/n.py", "@@ -0,0 +1 @@\n+n\n")
    for parts, paths in (
        ((two, one), ["y.py", "x.py"]),
        ((three, two, one), ["z.py", "y.py", "x.py"]),
        ((first, two, one), ["y.py", "x.py"]),
        ((first + two, one), ["y.py", "x.py"]),
        ((two + three, first, one), ["y.py", "z.py", "x.py"]),
        ((one, two + three), ["x.py", "y.py", "z.py"]),
        ((two, moved, one), ["x.py", "w.py"]),  # the file was moved in its last part
        ((moved, two), ["y.py"]),
        ((made, one), ["n.py", "x.py"]),
        ((two, "--- a sketch\n", one), ["y.py", "x.py"]),
    ):
        for opens, closes in (
            ("<patch>\n", "</patch>"),
            ("<diff>", "</diff>"),
            ("```diff\n", "```\n"),
            ("```\n", "```\n"),
        ):
            said = (
                "Of one file:\n" + "\n\nand of another:\n".join(f"{opens}{part}{closes}" for part in parts) + "\nDone."
            )
            for answer in (said, said.replace("\n", "\r\n"), f"<think>\n```diff\n{three}{first}```\n</think>{said}"):
                found = find_patch(answer)
                assert [change.path for change in read_patch(found)] == paths, answer
                assert "+draft" not in found and parts[-1] in found, answer
    assert find_patch(f"```diff\n{two}```\n```diff\n--- a/x.py\n```") == "--- a/x.py\n"  # refused with its own reason
    assert find_patch(f"<think>\n```diff\n{one}```\n</think> I cannot.") == find_patch(f"<think>\n{one}") == one
    assert find_patch(names("a/t", "b/t", "@@ -1 +1 @@\n-<think>\n+</think>\n")).endswith("+</think>\n")
    ends_thought = names("a/t", "b/t", "@@ -1 +1 @@\n-<think>\n+</think>\n")
    assert touched(find_patch(f"{ends_thought}{one}")) == ("t", "x.py")  # a patch that has the tag is no thought
    with at_most_cpu_s(5):
        many = "".join(f"<patch>{names(f'a/{at}', f'b/{at}')}</patch>" for at in range(5_000))
        assert len(touched("".join(find_patch(many).splitlines(True)[:750]))) == 150
        lines = (names("a/x", "b/x", f"@@ -{at} +{at} @@\n-a\n+b\n") for at in range(1, 10_000, 2))
        with pytest.raises(DataError, match="at most 300"):
            read_patch(find_patch("".join(f"<patch>{each}</patch>" for each in lines)))


def test_parts_for_other_lines_of_one_file_are_one_patch(tmp_path: Path) -> None:
    lines = [str(at) for at in range(1, 31)]
    (tmp_path / "x.py").write_text("\n".join(lines) + "\n")
    added = names("a/x.py", "b/x.py", "@@ -2,0 +3,2 @@\n+p\n+q\n")
    removed = names("a/x.py", "b/x.py", "@@ -10,2 +9,0 @@\n-10\n-11\n")
    changed = "diff --git a/x.py b/x.py\n" + names("a/x.py", "b/x.py", "@@ -20 +20 @@\n-20\n+r\n")
    other = names("a/y.py", "b/y.py")
    for parts in ((added, removed, changed), (changed, removed, added), (removed, added + other, changed)):
        found = find_patch("\nand\n".join(f"```diff\n{part}```" for part in parts)).replace(rewritten(other), "")
        assert "@@ -2,0 +3,2 @@" in found and "@@ -10,2 +11,0 @@" in found and "@@ -20,1 +20,1 @@" in found, found
        subprocess.run(
            ["git", "apply", "--unidiff-zero", "-"], input=found, text=True, cwd=tmp_path, check=True, timeout=20
        )
        assert (tmp_path / "x.py").read_text().split() == [
            *lines[:2],
            "p",
            "q",
            *lines[2:9],
            *lines[11:19],
            "r",
            *lines[20:],
        ]
        (tmp_path / "x.py").write_text("\n".join(lines) + "\n")
    for first, last in (
        (added, names("a/x.py", "b/x.py", "@@ -2 +2 @@\n-2\n+s\n")),
        (removed, names("a/x.py", "b/x.py", "@@ -11 +11 @@\n-11\n+s\n")),
        (names("/dev/null", "b/n.py", "@@ -0,0 +1 @@\n+n\n"), names("/dev/null", "b/n.py", "@@ -0,0 +1 @@\n+m\n")),
        (added, "diff --git a/x.py b/x.py\nold mode 100644\nnew mode 100755\n"),
    ):
        assert find_patch(f"```diff\n{first}```\n```diff\n{last}```") == last
    moved = "diff --git a/x.py b/w.py\nrename from x.py\nrename to w.py\n"
    early, late = (moved + names("a/x.py", "b/w.py", f"@@ -{at} +{at} @@\n-{at}\n+s\n") for at in (2, 20))
    assert find_patch(f"```diff\n{early}```\n```diff\n{late}```") == late  # a file is moved once
    mode = "diff --git a/x.py b/x.py\nold mode 100644\nnew mode 100755\n" + added
    assert "new mode 100755\n" in find_patch(f"```diff\n{mode}```\n```diff\n{removed}```")
    assert find_patch("\n".join(f"```diff\n{part}```" for part in (added, removed, other))).endswith(
        "@@\n-10\n-11\n" + other
    )
    last = names("a/x.py", "b/x.py", "@@ -12 +12 @@\n-12\n+s\n")
    assert find_patch(f"```diff\n{removed}```\n```diff\n{last}```").count("@@ -") == 2


def test_a_part_before_words_that_withdraw_it_is_none() -> None:
    two = names("a/y.py", "b/y.py")
    for words, kept in (
        ("Instead, patch y:", False),
        ("Hmm, that is not enough.", False),
        ("**Actually,** y has it:", False),
        ("That was wrong.", False),
        ("So.\nWait, no:", False),
        ("I think that the first patch is wrong. So:", False),
        ("Please ignore the above.", False),
        ("Let us fix y.py instead:", False),
        ("I fix it in y.py instead.", False),
        ("The fix in y is to parse it instead:", True),
        ("or", False),
        ("Instead of `a`, y has `b`:", True),
        ("In y.py, parse it instead:", True),
        ("In y.py the default was None, which is wrong:", True),
        ("y does not split any more. Instead, it parses:", True),
        ("No other file calls it but y.", True),
        ("We ignore that in y.", True),
        ("", True),
    ):
        for opens, closes in (("<patch>", "</patch>"), ("```diff\n", "```\n")):
            answer = f"{opens}{ONE}{closes}{words}\n{opens}{two}{closes}Instead, wait."
            assert touched(find_patch(answer)) == (("x.py", "y.py") if kept else ("y.py",)), answer
    assert touched(find_patch(f"Instead,\n<patch>{ONE}</patch><patch>{two}</patch>")) == ("x.py", "y.py")
    thought = f"No.\n```diff\n{ONE}```\nSo"
    for ends in ("\n</think>\n", ".</think>\n\n"):  # the chat template opened it
        assert find_patch(f"{thought}{ends}```diff\n{two}```") == two
    for says in ("Both write `</think>`:\n", "\n"):
        assert touched(find_patch(f"```diff\n{ONE}```\n{says}```diff\n{two}```")) == ("x.py", "y.py")
    tags = names("a/t", "b/t", "@@ -1 +1 @@\n-<diff>1</diff>\n+<diff>2</diff>\n")
    assert find_patch(f"```diff\n{tags}```") == tags


def test_a_patch_in_parts_is_rendered_so_that_git_takes_it(tmp_path: Path) -> None:
    for name, text in (("x.py", "a\n"), ("y.py", "c\n"), ("z.py", "c\nd\n"), ("gone.py", "e\n")):
        (tmp_path / name).write_text(text)
    parts = (
        "diff --git a/y.py b/w.py\nsimilarity index 100%\nrename from y.py\nrename to w.py\n",
        "diff --git a/gone.py b/gone.py\ndeleted file mode 100644\n--- a/gone.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-e\n",
        names("/dev/null", "b/n.py", "@@ -0,0 +1 @@\n+n\n"),
        names("a/z.py", "b/z.py", "@@ -1,2 +1,2 @@\n-c\n+f\n d\n"),
        ONE,
    )
    for order in (parts, parts[::-1]):
        found = find_patch("\n".join(f"<patch>{part}</patch>" for part in order))
        for text in (found, rewritten(found)):
            checked = subprocess.run(
                ["git", "apply", "--check", "-v", "-"],
                input=text,
                text=True,
                cwd=tmp_path,
                capture_output=True,
                timeout=20,
            )
            assert checked.returncode == 0 and checked.stderr.count("Checking patch") == 5, checked.stderr


def test_changes_are_read_file_by_file_with_moves_new_and_deleted_ones() -> None:
    whole = (
        "intro\ndiff --git a/m.py b/m.py\nold mode 100644\nnew mode 100755\n"
        "diff --git a/old b/new\nsimilarity index 90%\nrename from old\nrename to new\n"
        "diff --git a/c b/d\ncopy from c\ncopy to d\n"
        + names("a/c", "b/d")
        + "diff --git a/n b/n\nnew file mode 100644\nindex 0..1 100644\n"
        + names("/dev/null", "b/n", "@@ -0,0 +1,2 @@\n+x\n+y\n\\ No newline\n")
        + "diff --git a/g b/g\ndeleted file mode 100644\ndiff --git a/h b/h\n"
        + names('"a/\\303\\251 b"', '"b/\\303\\251 b"\t2020', "@@ -1,3 +1,2 @@ def\n \n-a\n c\n")
        + names("a/z", "/dev/null", "@@ -1,1 +0,0 @@\n-a\n")
        + "diff --git a/e b/e\nnew file mode 100644\n"
    )
    found = [
        ("m.py", "m.py"),
        ("old", "new"),
        ("c", "d"),
        (None, "n"),
        ("g", None),
        ("é b", "é b"),
        ("z", None),
        (None, "e"),
    ]
    assert read_patch(whole) == tuple(Change(*each) for each in found)
    assert [each.path for each in read_patch(whole)] == ["m.py", "new", "d", "n", "g", "é b", "z", "e"]
    assert touched(whole) == ("m.py", "old", "new", "c", "d", "n", "g", "é b", "z", "e")
    assert read_patch(names("a/x", "b/x", HUNK + HUNK) + "\n") == (Change("x", "x"),)
    assert read_patch(names("a/x y \t2020 ", "b/x y  \r")) == (Change("x y", "x y"),), "blanks at the end are no name"
    for prose in ("--- and then", "+++ b/y", "--- a/y\n\n+++ b/y", "--- \n--- a/y", "-- a/y\n+++ b/y"):
        found = read_patch(f"{names('a/w', 'b/w')}{prose}\n{ONE}{prose}\n")
        assert found == (Change("w", "w"), Change("x.py", "x.py")), f"{prose} names no file"
    assert read_patch(names("a/x", "b/x", "@@ -1,2 +1,2 @@\n-a\n+b\n\n") + ONE) == (
        Change("x", "x"),
        Change("x.py", "x.py"),
    )


def test_a_patch_that_is_malformed_or_leads_elsewhere_is_refused_with_its_line() -> None:
    binary = "a binary file is changed, and only text is allowed"
    longer = "line {} of the patch: the hunk is longer than its header says"
    for text, said in (
        ("\ud800", "the patch is not text: it has half of a surrogate pair"),
        ("x" * (MAX_BYTES + 1), f"the patch has {MAX_BYTES + 1:,} bytes: at most 1,048,576 are allowed"),
        (" \n", "the patch is empty"),
        (ONE + "\0", "the patch has a zero byte: binary content is refused"),
        ("hello\n", "the patch names no file: lines `--- a/FILE` and `+++ b/FILE` were expected"),
        (ONE * 301, "the patch changes 301 files: at most 300 are allowed"),
        ("diff --git a/x b/x\n--- a/x\n", "line 2 of the patch: `--- FILE` is not followed by `+++ FILE`"),
        ("diff --git a/x b/x\n" + HUNK, "line 2 of the patch: a hunk without `---` and `+++` before it"),
        ("diff --git a/x b/y\n", "line 1 of the patch: 'diff --git a/x b/y' does not name the same file on both sides"),
        (names("/dev/null", "/dev/null"), "line 1 of the patch: both sides are /dev/null"),
        (
            names("a/x", "b/x", "no\n"),
            "line 3 of the patch: a hunk `@@ -1,2 +1,3 @@` was expected after the names of the file",
        ),
        (
            names("a/x", "b/x", "@@ -a +1 @@\n"),
            "line 3 of the patch: '@@ -a +1 @@' is not a hunk header, such as `@@ -1,2 +1,3 @@`",
        ),
        (
            names("a/x", "b/x", "@@ -1,2 +1,2 @@\n-a\n+b\n"),
            "line 3 of the patch: the hunk is shorter than its header says",
        ),
        (
            names("a/x", "b/x", "@@ -1 +1,2 @@\n-a\n-b\n"),
            "line 3 of the patch: the hunk's lines do not match its header",
        ),
        (
            names("a/x", "b/x", "@@ -1,2 +1 @@\n-a\n+b\n+c\n"),
            "line 3 of the patch: the hunk's lines do not match its header",
        ),
        (names("a/x", "b/x", "@@ -1 +1 @@\n-a\n+b\n+c\n"), longer.format(3)),
        (names("a/x", "b/x", "@@ -1 +1 @@\n-a\n+b\n c\n"), longer.format(3)),
        ("GIT binary patch\n", f"line 1 of the patch: {binary}"),
        (
            "diff --git a/x b/x\nBinary files a and b differ\n",
            f"line 2 of the patch: {binary}",
        ),
        (
            "diff --git a/x b/x\nnew file mode 120000\n",
            "line 2 of the patch: a symbolic link is refused: only ordinary files may be changed",
        ),
        (
            "diff --git a/x b/x\nindex 0a..1b 160000\n",
            "line 2 of the patch: a submodule is refused: only ordinary files may be changed",
        ),
        (
            "diff --git a/x b/x\nold mode 100600\n",
            "line 2 of the patch: a file of mode 100600 is refused: only ordinary files may be changed",
        ),
    ):
        with pytest.raises(DataError) as refused:
            read_patch(text)
        assert str(refused.value) == said
    refusal = "line 2 of the patch: {} is refused: only ordinary files may be changed"
    for key in (
        "old mode",
        "new mode",
        "new file mode",
        "deleted file mode",
        "index 0a..1b",
        "index é\t..z",
        "index ..",
    ):
        for mode, kind in (
            ("120000 ", "a symbolic link"), (" 120000", "a symbolic link"), ("\t160000\r", "a submodule"),
            ("120000x", "a symbolic link"), ("+120000", "a file of mode +120000"), (" -060000", "a file of mode -060000"),
            ("0120000", "a file of mode 0120000"), ("1006440", "a file of mode 1006440"),
        ):  # fmt: skip
            with pytest.raises(DataError) as refused:
                read_patch(f"diff --git a/x b/x\n{key} {mode}\n")
            assert str(refused.value) == refusal.format(kind), (key, mode)
        for mode in ("100644 ", " 100755\r", "x1", "x -060000"):
            assert len(read_patch(f"diff --git a/x b/x\n{key} {mode}\n")) == 1
    assert read_patch("diff --git a/x b/x\nindex 0a..12\n") == (Change("x", "x"),), "a mode may be left out"
    with at_most_cpu_s(2), pytest.raises(DataError, match="names no file"):
        read_patch("index " + "." * 400_000 + "\nindex .." + " " * 400_000)
    assert len(read_patch(ONE * 300)) == 300
    lead = "é" * 500_000 + "\n"  # two bytes each
    most = lead + "x" * (MAX_BYTES - 1_000_002 - len(ONE)) + "\n" + ONE
    assert len(most.encode()) == MAX_BYTES and read_patch(most) == (Change("x.py", "x.py"),)
    with pytest.raises(DataError, match=r"^the patch has 1,048,577 bytes: at most 1,048,576 are allowed$"):
        read_patch("x" + most)
    git = "is, or could be read as, one inside .git, which is refused"
    for path, said in (
        ("/etc/x", "is absolute: give one inside the repository"),
        ("x", "has no prefix: write it as a/FILE and b/FILE"),
        ("a/../x", "leads out of the repository, or is not normalised"),
        ("a//x", "leads out of the repository, or is not normalised"),
        ("a/./x", "leads out of the repository, or is not normalised"),
        ("a/.GIT/x", git), ("a/.git. /x", git), ("a/git~1/x", git), ("a/.g\u200bit/x", git), ("a/c:x", git), ("a/c\\x", git),
        ("a/.gitmodules", "declares submodules, which are refused"),
        ("a/x\x7f", "has control characters"),
    ):  # fmt: skip
        with pytest.raises(DataError) as refused:
            read_patch(names(path, "b/x"))
        assert str(refused.value) == f"line 1 of the patch: the path {path!r} {said}"
    assert read_patch(names("a/sub/.gitmodules", "b/.gitignore"))[0] == Change("sub/.gitmodules", ".gitignore")


def hidden(*files: str) -> HiddenTests:
    return HiddenTests("c", "".join(names(f"a/{file}", f"b/{file}") for file in files), "", "pytest")


def test_a_test_command_gets_a_canary_beside_the_file_that_it_names() -> None:
    made = canary_for("cd x\npytest -rA tests/test_a.py", hidden("src/b.py", "tests/test_a.py"))
    assert (
        made is not None and made.path.startswith("tests/test_z") and made.path.endswith(".py") and len(made.path) == 27
    )
    assert made.command == f"cd x\npytest -rA tests/test_a.py {made.path}" and made.passing != made.failing
    assert made.text == f"def {made.passing}():\n    pass\n\n\ndef {made.failing}():\n    assert False\n"
    assert made.placing == (
        "[ -d tests ] || { mkdir -p tests; : > tests/__init__.py; }",
        f"cp /tmp/work/canary.py {made.path}",
    )
    django = canary_for("./tests/runtests.py --settings=x admin.tests", hidden("tests/admin/tests.py"))
    assert django is not None
    assert django.path == f"tests/{django.command.split()[-1]}/tests.py"
    assert "unittest.TestCase" in django.text
    unit = canary_for("python -m unittest pkg.test_a", hidden("pkg/test_a.py"))
    assert unit is not None and unit.command.endswith(" " + unit.path.removesuffix(".py").replace("/", "."))
    by_path = canary_for("python -m unittest pkg/test_a.py", hidden("pkg/test_a.py"))
    assert by_path is not None and by_path.command.endswith(f" {by_path.path}")
    found = canary_for("python -m unittest discover", hidden("pkg/test_a.py"))
    assert found is not None and found.command == "python -m unittest discover" and found.path.startswith("pkg/test_z")
    for command, files in (
        ("pytest tests", ("tests/test_a.py",)), ("pytest 'tests", ("tests",)), ("make", ("test_a.py",)),
        ("./tests/runtests.py other", ("tests/admin/tests.py",)),
        ("python -m unittest test_b", ("test_a.py",)), ("pytest a.txt", ("a.txt",)),
    ):  # fmt: skip
        assert canary_for(command, hidden(*files)) is None, command
    for command, runner in (
        ("python -m pytest x", "pytest"),
        ("py.test", "pytest"),
        ("tox -e py -- x", "pytest"),
        ("tox -e py", ""),
        ("python -m unittest", "unittest"),
        ("./tests/runtests.py", "django"),
        ("bin/test -C", "sympy"),
        ("make tests", ""),
    ):
        assert _runner(command.split()) == runner


def test_a_log_is_doubted_where_canaries_or_the_exit_status_say_otherwise() -> None:
    canary = Canary("t.py", "", "", "test_p", "test_f")
    good = {"t.py::test_p": "PASSED", "t.py::test_f": "FAILED", "x": "PASSED"}
    lost = "the log cannot be trusted: it does not report the two canary tests as one passed and one failed"
    zero = "the log cannot be trusted: the exit status is 0, and a test failed"
    one = "the log cannot be trusted: the exit status is 1, and it names no failed test"
    for results, status, made, said in (
        (good, 1, canary, ""),
        ({**good, "t.py::test_f": "ERROR"}, 1, canary, ""),
        (good, 0, canary, zero),
        ({**good, "t.py::test_f": "PASSED"}, 1, canary, lost),
        ({"x": "PASSED"}, 1, canary, lost),
        ({**good, "t.py::test_p": "SKIPPED"}, 1, canary, lost),
        ({"x": "PASSED"}, 0, None, ""),
        ({"x": "PASSED"}, 1, None, one),
        ({"x": "FAILED"}, 1, None, ""),
        ({"x": "ERROR"}, 0, None, zero),
        ({}, 1, None, ""),
        ({}, 0, None, ""),
        ({}, None, None, ""),
        ({"x": "PASSED"}, None, None, one.replace("is 1", "is None")),
        ({"x": "SKIPPED", "y": "XFAIL"}, -9, None, one.replace("is 1", "is -9")),
        ({"x": "PASSED", "y": "ERROR"}, None, None, ""),
        (good, None, canary, ""),
        ({}, 1, canary, lost),
    ):
        assert _doubt(results, status, made) == said
    printed, passed = {"x": "PASSED", "app:t.py:3": "ERROR"}, {"x": "PASSED"}
    for results, status, made, counted, said in (
        (printed, 0, None, False, ""),  # a passing test has logged an error
        (printed, 0, None, None, zero),
        (printed, 0, None, True, zero),
        (passed, 0, None, True, zero),
        ({}, 0, None, True, zero),  # where a log lists failures alone, none of its tests would fail
        (passed, 0, None, False, ""),
        (good, 0, canary, False, zero),
        (printed, 1, None, False, ""),
        (passed, 1, None, True, one),
    ):
        assert _doubt(results, status, made, counted=counted) == said
    assert canary.owns("test_p (a.B)")
    assert canary.owns("t.py::test_f")
    assert not canary.owns("test_pp")
    assert not canary.lost(good)


def test_a_test_command_stands_between_the_last_markers_and_is_not_empty() -> None:
    script = f"setup\n{START}\nold\n {END} \nmore\n{START}\npytest x\n{END}\nend"
    assert script_parts(script) == (f"setup\n{START}\nold\n {END} \nmore", "pytest x")
    for start, end in ((f" {START}", f"{END}  "), (f"\t{START}\r", f"\t{END}\r"), (START, f"  {END}")):
        assert script_parts(f"a\nb\n{start}\n pytest x\npytest y\n{end}\nc") == ("a\nb", " pytest x\npytest y")
        assert script_parts(f"{start}\nx\n{end}") == ("", "x")
    for wrong in (
        f"{START} x\npytest\n{END}",
        f"{START}\npytest\n{END} x",
        f"{START}\n{END}",
        "",
        START,
        END,
        f"{END}\n{START}\nx",
        f"{START}\n \n{END}",
    ):
        with pytest.raises(DataError, match=r"^the eval_script holds no test command between the lines "):
            script_parts(wrong)


def test_a_run_is_resolved_if_all_tests_that_must_pass_did_and_its_log_is_trusted() -> None:
    secret = {"FAIL_TO_PASS": ["a", "b"], "PASS_TO_PASS": ["c", "d", "e"]}

    def run(doubt: str = "", ended: str = "error", **results: str) -> TestRun:
        made = {"a": "PASSED", "b": "XFAIL", "c": "PASSED", "d": "SKIPPED", "e": "PASSED", **results}
        return TestRun(made, 1, ended, "git apply", doubt, 1.23456, "bwrap", "x" * 3000 + "end")

    base = {"applied": True, "applied_with": "git apply", "exit_status": 1, "wall_s": 1.235, "tier": "bwrap"}
    found = verdict(replace(run(), machinery=("conftest.py",)), secret)
    assert found.value == 1 and found.detail == {
        **base, "fail_to_pass": [2, 2], "pass_to_pass": [3, 3], "changes_test_machinery": ["conftest.py"],
        "skipped_or_xfailed": ["b", "d"],
    }  # fmt: skip
    found = verdict(run(a="SKIPPED", c="FAILED", e="ERROR", doubt="odd", ended="timeout"), secret)
    assert found.value == 0 and found.detail == {
        **base, "fail_to_pass": [1, 2], "pass_to_pass": [1, 3], "still_failing": ["a"], "broken": ["c", "e"],
        "reason": "the tests were ended: timeout; odd; 1 of 2 tests still fail; 2 of 3 tests are broken",
        "log_end": "x" * 1997 + "end", "skipped_or_xfailed": ["a", "b", "d"],
    }  # fmt: skip
    for changes, value in (
        ({"doubt": "odd"}, 0), ({"ended": "timeout"}, 0), ({"ended": "done"}, 1), ({"a": "FAILED"}, 0), ({"d": "FAILED"}, 0),
    ):  # fmt: skip
        assert verdict(run(**changes), secret).value == value
    only: dict[str, Any] = {**secret, "eval_type": "fail_only"}
    for status, value in (("ERROR", 0), ("SKIPPED", 1), ("FAILED", 0)):
        assert verdict(run(a=status), only).value == value
    assert verdict(TestRun({}, 0, "done", "nothing", "", 0.0, "t", ""), only).value == 1


def test_logs_are_read_by_status_name_and_parser() -> None:
    log = "a::x PASSED\nPASSED b::y - z\n"
    log += "SKIPPED [2] c.py:1: no\nFAILED d.py::t[a b] x\nPASSED d.py::t[a c]\nERROR e.py\ne.py::t PASSED\nXFAILx\n"
    assert read_log(log, "pytest") == {
        "a::x": "PASSED",
        "b::y": "PASSED",
        "d.py::t[a": "PASSED",
        "e.py": "ERROR",
        "e.py::t": "ERROR",
    }
    assert read_log("SKIPPED f::t\nx::y SKIPPED (no)\n", "astropy") == {"f::t": "SKIPPED", "x::y": "SKIPPED"}
    assert read_log("FAILED g.py\ng.py::t PASSED\n", "pytest")["g.py::t"] == "PASSED", "not an import that failed"
    paths = "PASSED t.py::t[/a/b/c]\nPASSED t.py::u[/a/b*]\nFAILED t.py::v[x]\n"
    assert read_log(paths, "requests") == {"t.py::t[/c]": "PASSED", "t.py::u[/a/b*]": "PASSED", "t.py::v[x]": "FAILED"}
    for name, known in (
        ("[/a]b/c]", "[/c]"), ("[/a[b/c[d]", "[/c[d]"), ("[/a/b]x", "[/b]"), ("[/a]", "[/a]"), ("[/a/]", "[/]"),
        ("[/a/b", "[/a/b"), ("[//a/b]", "[//a/b]"), ("[a/b]", "[a/b]"), ("[/a/*b]", "[/a/*b]"), ("/a/b]", "/a/b]"),
        ("[]", "[]"), ("", ""),
    ):  # fmt: skip
        for parser in ("requests", "parse_log_pylint"):
            assert read_log(f"PASSED t.py::t{name}\n", parser) == {f"t.py::t{known}": "PASSED"}, name
        assert read_log(f"PASSED t.py::t{name}\n", "pytest") == {f"t.py::t{name}": "PASSED"}
    assert read_log("PASSED t[MouseButton.RIGHT]", "matplotlib") == {"t[3]": "PASSED"}
    sympy = "test_a ok [OK]\ntest_b F\ntest_c E [FAIL]\nok\ntest_d\nother ok\n____ sympy/x.py:test_e ____\ntest_a F\n"
    assert read_log(sympy, "sympy") == {
        "test_a": "FAILED",
        "test_b": "FAILED",
        "test_c": "ERROR",
        "sympy/x.py:test_e": "FAILED",
    }
    unit = "--version is equivalent to version\n"
    unit += "ERROR: test_q (a.B)\ntest_s ... skipped 'x'\nx ... y ... ok\ntest_w (a.B) ... unknown\n"
    assert read_log(unit, "unittest") == {
        "--version is equivalent to version": "PASSED",
        "test_q": "ERROR",
        "test_s": "SKIPPED",
        "x ... y": "PASSED",
    }


def test_parts_of_one_file_are_read_once_each_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    each_hunk = patch._each_hunk

    def counted(lines: tuple[str, ...]) -> Iterator[tuple[int, int, int, tuple[str, ...]]]:
        read.append(len(lines))
        return each_hunk(lines)

    monkeypatch.setattr(patch, "_each_hunk", counted)
    parts = []
    for part in reversed(range(60)):  # the first lines of the file come last
        hunks = (f"@@ -{start},1 +{start},1 @@\n-a\n+b\n" for start in range(20 * part + 1, 20 * part + 20, 4))
        parts.append(f"```diff\n--- a/x.py\n+++ b/x.py\n{''.join(hunks)}```\n")
    whole = find_patch("".join(parts))
    starts = [int(line.split(",")[0][4:]) for line in whole.splitlines() if line.startswith("@@")]
    assert starts == sorted(starts) == list(range(1, 1200, 4)) and whole.count('--- "a/x.py"') == 1
    assert sum(read) == 60 * 5 * 3, "no part is read again for each that joins it"
    beside = find_patch("".join([*parts[:2], parts[0].replace("+b", "+c"), *parts[2:]]))
    assert beside.count("+c") == 5 and beside.count("+b") == 295, "of parts for the same lines the last counts"
