"""Whatever a patch leaves in the tree, hidden tests are written byte for byte, and `patch` reads what our parser read."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import DataError, SandboxError
from firsthand.sandbox.sandbox import Outcome
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.scorers.patches.applied_patch import PatchRefused
from firsthand.scorers.patches.hidden_files import ARCHIVE, HiddenFiles, take_hidden_files
from firsthand.scorers.patches.patch import read_patch, rewritten
from firsthand.scorers.resolved import HiddenTests
from swe_local import GOOD, MORE_TESTS, adds, git, make_repository
from test_scorers_hidden_tests import SCRIPT, FolderPlace, apply

NAME = "tests/test_calc.py"
ACCENT = MORE_TESTS + "# naïve: $Id$\n"


class Tree(FolderPlace):
    """A repository at its commit, whose hidden tests have a letter that is not ASCII."""

    base = "/base"

    def __init__(self, folder: Path, attributes: str = "") -> None:
        super().__init__(folder)
        self.calc = folder / "calc"
        make_repository(self.calc)
        git(self.calc, "reset", "--quiet", "--hard", "HEAD~1")
        if attributes:
            (self.calc / ".gitattributes").write_text(attributes)
            git(self.calc, "add", ".")
            git(self.calc, "commit", "--quiet", "--message", "attributes")
        commit = git(self.calc, "rev-parse", "HEAD")
        (self.calc / NAME).write_text(ACCENT)
        test_patch = git(self.calc, "diff", "HEAD") + "\n"
        git(self.calc, "checkout", "--quiet", "--force", "HEAD", ".")
        self.tests = HiddenTests(commit, test_patch, SCRIPT, "pytest", reference=GOOD)
        self.base = f"{self.calc}/.git"

    def placed(self, hidden: HiddenFiles) -> bytes:
        """Put the hidden tests in place as the tests' script does; gives their bytes."""
        script = "\n".join(["cd /testbed", *hidden.placing])
        assert asyncio.run(self.shell(script, files={ARCHIVE: hidden.archive})).ok
        return (self.calc / NAME).read_bytes()


@pytest.mark.parametrize(
    "attribute",
    ["working-tree-encoding=ASCII//TRANSLIT", "working-tree-encoding=UTF-16", "text eol=crlf", "ident", "filter=x"],
)
@pytest.mark.parametrize("path", [".gitattributes", "tests/.gitattributes"])
@pytest.mark.slow
def test_no_attribute_of_a_patch_changes_a_byte_of_the_hidden_tests(tmp_path: Path, attribute: str, path: str) -> None:
    tree = Tree(tmp_path)
    git(tree.calc, "config", "filter.x.smudge", "sed s/half/double/")
    applied = apply(tree, adds(path, f"*.py {attribute}"), tree.tests)
    assert applied.machinery == (path,) and tree.placed(applied.hidden) == ACCENT.encode()


@pytest.mark.slow
def test_a_patch_whose_attributes_git_cannot_follow_is_applied_and_named(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    applied = apply(tree, adds(".gitattributes", f"{NAME} working-tree-encoding=UTF-16"), tree.tests)
    assert (applied.how, applied.machinery) == ("git apply", (".gitattributes",))
    assert tree.placed(applied.hidden) == ACCENT.encode()


@pytest.mark.slow
def test_the_commits_own_attributes_count_for_the_hidden_tests(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "tests/*.py text eol=crlf\n")
    applied = apply(tree, GOOD, tree.tests)
    assert (applied.how, applied.machinery) == ("git apply", ())
    assert tree.placed(applied.hidden) == ACCENT.replace("\n", "\r\n").encode()


CONFIG = '@@ -1 +1,3 @@\n+[filter "x"]\n+\tsmudge = sed s/half/double/\n [core]\n'
LAX = GOOD.replace(" \n \n def", " \n # other\n def")


@pytest.mark.slow
def test_patch_reads_no_line_of_a_patch_that_our_parser_does_not(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    before = (tree.calc / ".git/config").read_text()
    for first in ("Index: a/.git/config", "Index: .git/config", "Prereq: x\nIndex: a/.git/config"):
        hostile = f"{LAX}{first}\n--- a/ words.py\n+++ b/ words.py\n{CONFIG}"
        assert len(read_patch(hostile)) == 2
        with pytest.raises(PatchRefused, match=r"^the patch does not apply: "):
            apply(tree, hostile, tree.tests)
        assert (tree.calc / ".git/config").read_text() == before
        assert git(tree.calc, "status", "--short") == "", "where one file does not fit, none is changed"
    double = "@@ -5,2 +5,2 @@\n def double(x):\n-    return x * 2\n+    return x * 3\n"
    with pytest.raises(PatchRefused, match=r"^the patch does not apply: "):
        apply(tree, f"{LAX}Index: a/calc/__init__.py\n--- a/ words.py\n+++ b/ words.py\n{double}", tree.tests)


def test_a_patch_is_written_anew_with_its_names_quoted_and_nothing_but_its_changes() -> None:
    text = (
        "From: me\nIndex: a/.git/config\n"
        'diff --git a/a b.py b/c"\\.py\nold mode 100644\r\nnew mode 100755\nsimilarity index 90%\njunk\nrename from a b.py\n'
        'rename to c"é.py\nindex 1..2\n--- a/a b.py\t2020\n+++ "b/c\\"\\303\\251.py"\n'
        "@@ -1,2 +1,2 @@ def f():\n-a\n+b\n\n\\ No newline at end of file\nPrereq: 1\n"
        "diff --git a/new b/new\nnew file mode 100755\n*** junk\n"
        "diff --git a/gone.py b/gone.py\ndeleted file mode 100644\nindex 1..0\n"
        "--- a/gone.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"
    )
    assert rewritten(text) == (
        'diff --git "a/a b.py" "b/c\\"\\303\\251.py"\nold mode 100644\nnew mode 100755\nrename from "a b.py"\n'
        'rename to "c\\"\\303\\251.py"\n--- "a/a b.py"\n+++ "b/c\\"\\303\\251.py"\n'
        "@@ -1,2 +1,2 @@\n-a\n+b\n \n\\ No newline at end of file\n"
        'diff --git "a/new" "b/new"\nnew file mode 100755\n'
        'diff --git "a/gone.py" "b/gone.py"\ndeleted file mode 100644\n--- "a/gone.py"\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n'
    )
    assert read_patch(rewritten(text)) == read_patch(text)


@pytest.mark.slow
def test_patch_still_takes_what_git_does_not_with_odd_names_moves_and_deletions(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    names = ("a b.py", 'q"é\\.py', "old.py", "deep/gone.py")
    (tree.calc / "deep").mkdir()
    for name in names:
        (tree.calc / name).write_text("one\ntwo\n")
    (tree.calc / "a b.py").chmod(0o755)
    git(tree.calc, "add", ".")
    git(tree.calc, "commit", "--quiet", "--message", "more")
    hunk = "@@ -1,2 +1,2 @@\n-one\n+ONE\n two\n"
    quoted = 'q\\"\\303\\251\\\\.py'
    patch = LAX + f"--- a/a b.py\t\n+++ b/a b.py\t\n{hunk}"
    patch += f'--- "a/{quoted}"\n+++ "b/{quoted}"\n{hunk}' + adds("made/it.py", "x = 1")
    patch += "diff --git a/old.py b/new.py\nrename from old.py\nrename to new.py\n"
    patch += f"--- a/old.py\n+++ b/new.py\n{hunk}" + "--- a/deep/gone.py\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-one\n-two\n"
    with pytest.raises(DataError, match=r"is, or could be read as, one inside \.git"):
        read_patch(patch)
    patch = patch.replace("\\\\.py", ".py")
    (tree.calc / names[1]).rename(tree.calc / 'q"é.py')
    git(tree.calc, "add", ".")
    git(tree.calc, "commit", "--quiet", "--message", "renamed")
    assert apply(tree, patch, tree.tests).how == "patch --fuzz=5"
    for name in ("a b.py", 'q"é.py', "new.py"):
        assert (tree.calc / name).read_text() == "ONE\ntwo\n", name
    assert (tree.calc / "a b.py").stat().st_mode & 0o111 and (tree.calc / "made/it.py").read_text() == "x = 1\n"
    assert not (tree.calc / "old.py").exists() and not (tree.calc / "deep/gone.py").exists()
    assert "x / 2" in (tree.calc / "calc/__init__.py").read_text()


def test_patch_writes_through_no_link_of_the_repository(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/x.py").write_text("a\n")
    (tree.calc / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(PatchRefused, match=r"^the patch does not apply: "):
        apply(tree, f"{LAX}--- a/link/x.py\n+++ b/link/x.py\n@@ -1 +1 @@\n-a\n+b\n", tree.tests)
    assert (tmp_path / "outside/x.py").read_text() == "a\n"


def test_a_file_in_place_of_a_folder_of_the_hidden_tests_is_a_conflict_though_git_ignores_it(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tests = replace(tree.tests, test_patch=adds("tests/unit/test_more.py", "pass"))
    patch = adds(".gitignore", ".gitignore\ntests/unit") + adds("tests/unit", "x")
    with pytest.raises(PatchRefused, match=r"^the patch conflicts with the tests: mkdir: "):
        apply(tree, patch, tests)


def test_hidden_tests_replace_what_stands_at_their_place_and_go_where_they_are_deleted(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    hidden = apply(tree, "", tree.tests).hidden
    (tree.calc / NAME).unlink()
    (tree.calc / NAME).mkdir()
    (tree.calc / NAME / "x").write_text("x")
    assert tree.placed(hidden) == ACCENT.encode()
    assert HiddenFiles(read_patch(f"--- a/{NAME}\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n")).placing == (
        f"rm -rf -- {NAME}",
    )
    (tree.calc / "tests").rename(tree.calc / "moved")
    (tree.calc / "tests").write_text("in the way")
    script = "\n".join(["cd /testbed", *hidden.placing, "echo went on"])
    ended = asyncio.run(tree.shell(script, files={ARCHIVE: hidden.archive}))
    assert (ended.exit_status, ended.stdout) == (98, ""), "tests do not run without the hidden files"


def test_an_archive_of_hidden_tests_that_is_cut_short_is_an_error_and_none_is_placed(tmp_path: Path) -> None:
    class Full(Tree):
        """A workplace whose disk is full when the archive is half written."""

        async def shell(self, command: str, **given: Any) -> Outcome:
            failing = 'tar() { printf half >"$3"; echo no room >&2; return 2; }\n'
            return await super().shell(failing + command, **given)

    tree = Full(tmp_path)
    with pytest.raises(SandboxError, match=r"^the hidden tests could not be read \(error\): no room$"):
        asyncio.run(take_hidden_files(tree, tree.tests.base_commit, tree.tests.test_patch, limits=RunLimits()))
    hidden = HiddenFiles(read_patch(tree.tests.test_patch), "aGFsZg==")
    script = "\n".join(["cd /testbed", *hidden.placing, "echo tests run"])
    placed = asyncio.run(Tree.shell(tree, script, files={ARCHIVE: hidden.archive}))
    assert (placed.exit_status, placed.stdout) == (98, "")
