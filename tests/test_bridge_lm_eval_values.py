"""Values of a task file of lm-evaluation-harness: each is looked at once, the empty ones too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from firsthand.bridges.lm_eval.task_files import _leaves, code_in


def test_every_value_of_a_task_file_is_looked_at_the_empty_ones_too(tmp_path: Path) -> None:
    shared = ["s"]
    loop: list[Any] = [1]
    loop.append(loop)
    body = {"a": 0, "b": {"c": False, 5: "", "d": {}}, "e": [None, [0.0, {"f": "x"}], []], "g": shared, "h": shared}
    assert list(_leaves(body)) == [
        ("a", 0), ("c", False), ("5", ""), ("e", None), ("g", "s"), ("e", 0.0), ("f", "x"),
    ]  # fmt: skip
    assert list(_leaves({"l": loop})) == [("l", 1)] and list(_leaves({})) == list(_leaves([])) == []
    assert list(_leaves("x")) == [("", "x")] and list(_leaves([3, 3])) == [("", 3), ("", 3)]
    path = tmp_path / "a.yaml"
    path.write_text("odd: !function ''\nclass: ''\nhf_evaluate: false\nuse_prompt: 0\nclasses: x.Y\n")
    assert code_in(path) == ["!function  (a.yaml)"]
