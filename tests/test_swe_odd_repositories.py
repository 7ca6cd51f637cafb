"""Software tasks from a commit that renames, empties, removes and adds files, among them one that was empty before."""

from __future__ import annotations

from pathlib import Path

import pytest

from firsthand.benchmarks.swe.swe_tasks import _oracle_files
from firsthand.benchmarks.swe_records import _full_hash, _split
from firsthand.errors import DataError
from firsthand.scorers.resolved import TaskWorkplaces
from swe_local import git

LONG = "".join(f"line {number}\n" for number in range(9))
BEFORE = {
    "old[a].py": LONG,
    "tests/test_old.py": LONG,
    "keep.py": "x\n",
    "b_empty.py": "",
    "a.py": "x\ny",
    "z.py": "1\n",
}
AFTER = {"new.py": LONG, "tests/test_new.py": f"{LONG}more\n", "keep.py": "x\n", "b_empty.py": "now\n", "a.py": "x\nz"}


def commit(folder: Path, files: dict[str, str], message: str) -> str:
    """A commit of these files alone; gives its hash."""
    for path in folder.rglob("*.py"):
        path.unlink()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, newline="")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.mark.slow
def test_a_renamed_file_is_removed_and_added_and_the_oracle_shows_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    path = tmp_path / "calc"
    path.mkdir()
    git(path, "init", "--quiet")
    base, head = commit(path, BEFORE, "begin"), commit(path, AFTER, " rename\n\nmore\n")
    parent, message, patch, tests = _split(path, head, tmp_path / "pair")
    assert (parent, message) == (base, "rename\n\nmore")
    for text, removed, added, gone, new in ((patch, 9 + 1 + 1, 9 + 1 + 1, 2, 1), (tests, 9, 10, 1, 1)):
        body = [line for line in text.splitlines() if not line.startswith(("---", "+++"))]
        assert sum(line.startswith("-") for line in body) == removed
        assert sum(line.startswith("+") for line in body) == added and "rename" not in text
        assert (text.count("deleted file mode"), text.count("new file mode")) == (gone, new)
    assert "--- a/old[a].py\n+++ /dev/null" in patch and "--- /dev/null\n+++ b/new.py" in patch
    assert "test_" not in patch and "keep" not in patch and "a.py" not in tests
    assert "--- a/tests/test_old.py\n" in tests and "+++ b/tests/test_new.py\n" in tests
    record = {"instance_id": "c-1", "base_commit": base, "repo": "calc", "patch": patch}
    numbered = "".join(f"{number} {line}\n" for number, line in enumerate([*LONG.split("\n")], 1))
    assert _oracle_files(record, TaskWorkplaces(folder=tmp_path)) == (
        "[start of a.py]\n1 x\n2 y\n[end of a.py]\n[start of b_empty.py]\n1 \n[end of b_empty.py]\n"
        f"[start of old[a].py]\n{numbered}[end of old[a].py]\n[start of z.py]\n1 1\n2 \n[end of z.py]"
    )


def test_a_commit_is_known_by_its_branch_its_tag_or_its_first_digits_and_a_whole_hash_is_taken_as_it_is(
    tmp_path: Path,
) -> None:
    path = tmp_path / "calc"
    path.mkdir()
    git(path, "init", "--quiet")
    git(path, "commit", "--quiet", "--allow-empty", "--message", "begin")
    git(path, "tag", "--annotate", "--message", "first", "v1")
    head = git(path, "rev-parse", "HEAD")
    assert git(path, "rev-parse", "v1") != head, "a tag with a message is an object of its own"
    for name in ("v1", "HEAD", head[:10], head):
        assert _full_hash(path, name) == head
    for whole in ("a" * 40, "a" * 64):
        assert _full_hash(tmp_path / "none", whole) == whole
    for folder, name in ((path, "--all"), (path, "a b"), (path, "a" * 201), (tmp_path / "none", "HEAD")):
        with pytest.raises(DataError, match="give all 40 digits of its hash, or a name in a working copy"):
            _full_hash(folder, name)
