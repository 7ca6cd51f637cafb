"""Counts the lines of code of the policy guard, file by file: `python bench/guard_size.py`.

A line counts if it holds code: blank lines, comments and docstrings do not. The first group are functions of values without
effects (`tests/test_guard_policy.py` checks that they keep nothing and change nothing); the second asks, claims and records.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import firsthand

GROUPS = {
    "pure": ("declaration.py", "safety/rules/labels.py", "safety/rules/witness.py",
             "safety/rules/whole_values.py", "safety/rules/case.py", "safety/rules/policies.py"),
    "asks and records": ("safety/policy.py", "safety/approvers.py"),
}  # fmt: skip
_SILENT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def code_lines(source: str) -> int:
    """The lines of a Python source that hold code."""
    texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr)]
    notes = [each for each in texts if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    left_out = {line for each in notes for line in range(each.lineno, (each.end_lineno or each.lineno) + 1)}
    tokens = [each for each in tokenize.generate_tokens(io.StringIO(source).readline) if each.type not in _SILENT]
    return len({line for each in tokens for line in range(each.start[0], each.end[0] + 1)} - left_out)


def main() -> None:
    """Print the lines of each file, of each group and of all."""
    root, whole = Path(firsthand.__file__).parent, 0
    for group, names in GROUPS.items():
        counts = {name: code_lines((root / name).read_text(encoding="utf-8")) for name in names}
        for name, count in counts.items():
            print(f"{name:<28}{count:6}")
        print(f"{group:<28}{sum(counts.values()):6}\n")
        whole += sum(counts.values())
    print(f"{'all':<28}{whole:6}")


if __name__ == "__main__":
    main()
