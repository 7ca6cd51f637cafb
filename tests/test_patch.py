"""Patches are found in answers and read strictly: only changes to ordinary text files inside the repository pass."""

from __future__ import annotations

import pytest

from cpu_time import at_most_cpu_s
from firsthand.errors import DataError
from firsthand.scorers.patches.patch import MAX_BYTES, find_patch, read_patch, touched
from swe_local import BREAKS, GOOD, adds


def patch(before: str, after: str, body: str = "@@ -1 +1 @@\n-a\n+b\n") -> str:
    return f"--- {before}\n+++ {after}\n{body}"


def test_a_patch_is_found_in_tags_in_a_fence_or_bare() -> None:
    for answer in (
        GOOD,
        f"I think:\n<patch>\n{GOOD}</patch>\nDone.",
        f"Not this:\n```python\nx = 1\n```\nBut this:\n```diff\n{GOOD}```\nDone.",
        f"Here it is.\n{GOOD}",
        f"<patch>\n{BREAKS}</patch> no, rather <patch>\n{GOOD}</patch>",
        GOOD.replace("\n", "\r\n"),
    ):
        assert find_patch(answer) == GOOD
    for answer in ("", "I cannot.", "```python\nx = 1\n```", "<patch>nothing</patch>"):
        assert find_patch(answer) == ""


def test_a_patch_names_what_it_changes() -> None:
    moved = "diff --git a/x y.py b/z.py\nsimilarity index 90%\nrename from x y.py\nrename to z.py\n" + patch(
        "a/x y.py", "b/z.py"
    )
    deleted = "diff --git a/e b/e\ndeleted file mode 100644\nindex e69de29..0000000\n"
    quoted = 'diff --git "a/\\303\\244.py" "b/\\303\\244.py"\n' + patch('"a/\\303\\244.py"', '"b/\\303\\244.py"')
    text = GOOD + adds("new/file.py", "x = 1") + moved + deleted + quoted
    assert touched(text) == ("calc/__init__.py", "new/file.py", "x y.py", "z.py", "e", "ä.py")
    assert [(c.before, c.after) for c in read_patch(text)][1:4] == [
        (None, "new/file.py"),
        ("x y.py", "z.py"),
        ("e", None),
    ]


def test_stripped_context_and_missing_last_line_ends_are_taken() -> None:
    assert touched(GOOD.replace("\n \n", "\n\n")) == ("calc/__init__.py",)
    assert touched(
        patch("a/x", "b/x", "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n")
    )
    assert touched(patch("a/x\t2026-01-01", "b/x\t2026-01-01")) == ("x",)


HOSTILE = {
    "up": (patch("a/../../etc/passwd", "b/../../etc/passwd"), "leads out"),
    "inner up": (patch("a/x/../../y", "b/x/../../y"), "leads out"),
    "absolute": (patch("/etc/passwd", "/etc/passwd"), "absolute"),
    "absolute after the prefix": (patch("a//etc/passwd", "b//etc/passwd"), "leads out"),
    "no prefix": (patch("passwd", "passwd"), "no prefix"),
    "git folder": (patch("/dev/null", "b/.git/hooks/post-checkout"), "inside .git"),
    "git folder in capitals": (patch("/dev/null", "b/x/.GIT/config"), "inside .git"),
    "git folder with a dot": (patch("/dev/null", "b/.git./config"), "inside .git"),
    "git folder, short name": (patch("/dev/null", "b/GIT~1/config"), "inside .git"),
    "git folder, unseen letter": (patch("/dev/null", "b/.g\u200bit/config"), "inside .git"),
    "git folder, quoted": (patch("/dev/null", '"b/.\\147it/config"'), "inside .git"),
    "backslash": (patch("/dev/null", "b/x\\..\\y"), "inside .git"),
    "submodules": (patch("/dev/null", "b/.gitmodules"), "submodules"),
    "new link": ("diff --git a/l b/l\nnew file mode 120000\n" + patch("/dev/null", "b/l"), "symbolic link"),
    "changed link": ("diff --git a/l b/l\nindex 1234567..89abcde 120000\n" + patch("a/l", "b/l"), "symbolic link"),
    "file to link": ("diff --git a/l b/l\nold mode 100644\nnew mode 120000\n", "symbolic link"),
    "submodule": ("diff --git a/s b/s\nnew file mode 160000\n" + patch("/dev/null", "b/s"), "submodule"),
    "device": ("diff --git a/s b/s\nnew file mode 060644\n", "mode 060644"),
    "binary": ("diff --git a/b b/b\nindex 1..2 100644\nGIT binary patch\nliteral 3\nKcmb\n", "binary"),
    "binary, not shown": ("diff --git a/b b/b\nindex 1..2 100644\nBinary files a/b and b/b differ\n", "binary"),
    "zero byte": (patch("a/x", "b/x", "@@ -1 +1 @@\n-a\n+\0\n"), "zero byte"),
    "surrogate": (patch("a/x", "b/x", "@@ -1 +1 @@\n-a\n+\ud800\n"), "surrogate"),
    "control characters": (patch("a/x", '"b/x\\033[2J"'), "control"),
    "rename out": ("diff --git a/x b/y\nrename from x\nrename to ../y\n", "leads out"),
    "copy from git": ("diff --git a/x b/y\ncopy from .git/config\ncopy to y\n", "inside .git"),
    "short hunk": (patch("a/x", "b/x", "@@ -1,9 +1,9 @@\n a\n"), "shorter"),
    "long hunk": (patch("a/x", "b/x", "@@ -1 +1 @@\n-a\n+b\n+c\n"), "longer"),
    "wrong hunk": (patch("a/x", "b/x", "@@ -1,2 +1,1 @@\n+a\n+b\n"), "do not match its header"),
    "huge counts": (patch("a/x", "b/x", f"@@ -1,{'9' * 40} +1 @@\n-a\n+b\n"), "not a hunk header"),
    "no hunk": ("--- a/x\n+++ b/x\n", "hunk"),
    "no other side": ("diff --git a/x b/x\n--- a/x\n@@ -1 +1 @@\n-a\n+b\n", "not followed"),
    "both nothing": (patch("/dev/null", "/dev/null"), "both sides"),
    "a hunk of nothing": ("diff --git a/x b/x\n@@ -1 +1 @@\n-a\n+b\n", "without `---`"),
    "two names": ("diff --git a/x b/y\n", "same file on both sides"),
    "nothing": ("hello\n", "names no file"),
    "empty": (" \n", "empty"),
    "too long": (adds("x", "y" * MAX_BYTES), "at most"),
    "too many": ("".join(adds(f"x{number}", "y") for number in range(301)), "at most 300"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_patch_is_refused_with_its_reason(name: str) -> None:
    text, reason = HOSTILE[name]
    with pytest.raises(DataError, match=reason):
        read_patch(text)


def test_reading_is_linear() -> None:
    for text in (
        "@@ " * 300_000,
        "diff --git " * 90_000,
        "--- a/x\n" * 100_000,
        "<patch>" * 100_000,
        "```diff\n" * 100_000,
    ):
        with at_most_cpu_s(10):
            find_patch(text)
            with pytest.raises(DataError):
                read_patch(text)


DIFF, NAMES, HUNK = "diff --git a/x b/x\n", "--- a/x\n+++ b/x\n", "@@ -1 +1 @@\n-a\n+b\n"
ABSOLUTE = "is absolute: give one inside the repository"
IN_GIT = "is, or could be read as, one inside .git, which is refused"
OUT = "leads out of the repository, or is not normalised"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (f"{DIFF}--- /x\n+++ b/x\n{HUNK}", 2, f"the path '/x' {ABSOLUTE}"),
        (f"{DIFF}--- a/x\n+++ /x\n{HUNK}", 3, f"the path '/x' {ABSOLUTE}"),
        (f"--- a/x\n+++ /x\n{HUNK}", 2, f"the path '/x' {ABSOLUTE}"),
        (f"{DIFF}--- a/x\n+++ /{'y' * 80}\n{HUNK}", 3, f"the path '/{'y' * 79}' {ABSOLUTE}"),
        (f"{DIFF}rename from x\nrename to /y\n", 3, f"the path '/y' {ABSOLUTE}"),
        (f"{DIFF}rename from ../x\nrename to y\n", 2, f"the path '../x' {OUT}"),
        (f"{DIFF}copy from x\ncopy to .git/y\n", 3, f"the path '.git/y' {IN_GIT}"),
        ("x\ndiff --git a/x b/y\n", 2, "'diff --git a/x b/y' does not name the same file on both sides"),
        ("x\ndiff --git x x\n", 2, "the path 'x' has no prefix: write it as a/FILE and b/FILE"),
        (f'{DIFF}--- a/x\n+++ "b/\\001"\n{HUNK}', 3, r"the path 'b/\x01' has control characters"),
        (f"{DIFF}--- a/x\n+++ b/.gitmodules\n{HUNK}", 3, "the path 'b/.gitmodules' declares submodules, which are refused"),
        (f"{DIFF}--- a/x\n", 2, "`--- FILE` is not followed by `+++ FILE`"),
        (f"{DIFF}--- a/x\n+b\n", 2, "`--- FILE` is not followed by `+++ FILE`"),
        (f"{DIFF}--- /dev/null\n+++ /dev/null\n{HUNK}", 2, "both sides are /dev/null"),
        (DIFF + NAMES, 4, "a hunk `@@ -1,2 +1,3 @@` was expected after the names of the file"),
        (f"{NAMES}hello\n", 3, "a hunk `@@ -1,2 +1,3 @@` was expected after the names of the file"),
        (f"{NAMES}@@ {'x' * 60}\n", 3, f"'@@ {'x' * 57}' is not a hunk header, such as `@@ -1,2 +1,3 @@`"),
        (f"{NAMES}{HUNK}@@ -9 +9,2 @@\n-a\n", 6, "the hunk is shorter than its header says"),
        (f"{NAMES}{HUNK}@@ -9 +9 @@\n-a\n+b\n c\n", 6, "the hunk is longer than its header says"),
        (f"{NAMES}{HUNK}@@ -9 +9 @@\n-a\n-b\n", 6, "the hunk's lines do not match its header"),
        (DIFF + HUNK, 2, "a hunk without `---` and `+++` before it"),
        (f"{DIFF}new mode 120000\n", 2, "a symbolic link is refused: only ordinary files may be changed"),
        (f"{NAMES}{HUNK}old mode 160000\n", 6, "a submodule is refused: only ordinary files may be changed"),
        (f"{DIFF}Binary files a/x and b/x differ\n", 2, "a binary file is changed, and only text is allowed"),
    ],
)  # fmt: skip
def test_a_refusal_names_its_line_and_the_whole_reason(text: str, line: int, reason: str) -> None:
    with pytest.raises(DataError) as refused:
        read_patch(text)
    assert str(refused.value) == f"line {line} of the patch: {reason}"


def test_blank_context_at_the_end_and_other_white_space_of_a_patch_are_kept() -> None:
    ends_blank = patch("a/x", "b/x", "@@ -1,2 +1,2 @@\n-a\n+b\n \n")
    for end in (" \n", "\t\n", "+\n", "-c \n", " \n \n", "+x\t\n"):
        whole = patch("a/x", "b/x", "@@ -1 +1 @@\n-a\n+b\n") + end
        for answer in (
            whole,
            whole.rstrip("\n"),
            whole + "\n\n",
            f"Said:\n{whole}",
            f"<patch>\n{whole}</patch>",
            f"<patch>\n{whole}\n\n</patch>",
            f"<diff>{whole}</diff> ",
            f"```diff\n{whole}```\n",
            f"``` patch \n{whole}\n```",
            whole.replace("\n", "\r\n"),
        ):
            assert find_patch(answer) == whole, (end, answer)
    assert read_patch(find_patch(f"```diff\n{ends_blank}\n```"))[0].path == "x"
    assert read_patch(find_patch(ends_blank)) == read_patch(ends_blank)
    assert find_patch(f" --- a/x\n\n{ends_blank}") == ends_blank  # a header begins its line


def test_empty_lines_at_the_end_are_kept_as_far_as_the_last_hunk_counts_them_as_context() -> None:
    for head, lines, empty in (
        ("-1,2 +1,2", "-a\n+b\n", 1),
        ("-1,4 +1,4", "-a\n+b\n", 3),
        ("-1,3 +1,2", "-a\n-b\n+c\n", 1),
        ("-1,4 +1,4", "-a\n+b\n\n x\n", 1),
        ("-1 +1", "-a\n+b\n", 0),
        ("-0,0 +1", "+b\n", 0),
        ("-1 +0,0", "-b\n", 0),
        ("-1,2 +1", "-a\n+b\n", 0),  # no number of lines of context makes it whole
        ("-1 +1,2", "-a\n+b\n", 0),
        ("-1,9 +1,9", "-a\n+b\n", 0),
    ):
        for before in ("", patch("a/y", "b/y", "@@ -1,5 +1,5 @@ def f\n-a\n+b\n x\n\n\n\n")):
            found = before + patch("a/x", "b/x", f"@@ {head} @@\n{lines}") + "\n" * empty
            for more in (0, 1, 2):
                said = found + "\n" * more
                assert find_patch(said) == find_patch(f"```diff\n{said}```") == found, (head, more)
            if head not in ("-1,2 +1", "-1 +1,2", "-1,9 +1,9"):
                assert touched(found) == (("y", "x") if before else ("x",))
    assert find_patch("--- a/x\n\n\n") == "--- a/x\n"
    assert find_patch("--- a/x\n@@ no\n\n\n") == "--- a/x\n@@ no\n"
