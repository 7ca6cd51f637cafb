"""A small git repository with an issue, made on the spot, its record in SWE-bench's format, and patches good and bad."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

COMMAND = "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 python -m pytest -rA -p no:cacheprovider tests/test_calc.py"
BROKEN = "def half(x):\n    return x // 2\n\n\ndef double(x):\n    return x * 2\n"
FIXED = BROKEN.replace("//", "/")
TESTS = "from calc import double\n\n\ndef test_double():\n    assert double(2) == 4\n"
MORE_TESTS = TESTS.replace("double\n", "double, half\n", 1) + "\n\ndef test_half():\n    assert half(3) == 1.5\n"
HEAD = "diff --git a/calc/__init__.py b/calc/__init__.py\n--- a/calc/__init__.py\n+++ b/calc/__init__.py\n"
GOOD = HEAD + "@@ -1,5 +1,5 @@\n def half(x):\n-    return x // 2\n+    return x / 2\n \n \n def double(x):\n"
BREAKS = GOOD.replace("@@ -1,5 +1,5 @@", "@@ -1,6 +1,6 @@") + "-    return x * 2\n+    return x * 3\n"
FULL_NAME = "tests/test_calc.py::test_half"


def adds(path: str, text: str) -> str:
    """A patch that makes a file."""
    lines = text.splitlines()
    head = (
        f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{len(lines)} @@\n"
    )
    return head + "".join(f"+{line}\n" for line in lines)


def git(folder: Path, *words: str) -> str:
    """What git prints, as somebody."""
    names = {f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    dates = {"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *words],
        cwd=folder,
        env={**os.environ, **names, **dates, **own},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def make_repository(folder: Path) -> str:
    """Make the repository with its issue, and the commit that fixes it; gives the commit before the fix."""
    for name, text in {"calc/__init__.py": BROKEN, "tests/test_calc.py": TESTS}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "begin")
    base = git(folder, "rev-parse", "HEAD")
    (folder / "calc/__init__.py").write_text(FIXED)
    (folder / "tests/test_calc.py").write_text(MORE_TESTS)
    git(folder, "commit", "--quiet", "--all", "--message", "halve odd numbers")
    return base


def make_record(folder: Path, **changes: Any) -> dict[str, Any]:
    """The repository `calc` in the folder, and its record."""
    base = make_repository(folder / "calc")
    return {
        "instance_id": "calc-1",
        "repo": "calc",
        "base_commit": base,
        "problem_statement": "half(3) gives 1, and 1.5 was expected.",
        "patch": GOOD,
        "test_patch": git(folder / "calc", "diff", base, "HEAD", "--", "tests") + "\n",
        "FAIL_TO_PASS": json.dumps([FULL_NAME]),
        "PASS_TO_PASS": ["tests/test_calc.py::test_double"],
        "test_cmd": COMMAND,
        **changes,
    }


def write(folder: Path, *records: dict[str, Any]) -> Path:
    """A file of records."""
    path = folder / "tasks.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
