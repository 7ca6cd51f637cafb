"""What `firsthand run` shows at its end: failures in the order of the plan, and the settings that were run in the end."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from firsthand.commands import print_run, run
from firsthand.runs import store
from printed_tables import widen

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    widen(monkeypatch, run, print_run)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    rows(1, 2, 3)
    told = 'data = "q.jsonl"\nprompt = "{question}"\ntarget = "{answer}"\nscorer = "exact"\n'
    Path("q.toml").write_text(told)
    return tmp_path / "home"


def rows(*numbers: int) -> None:
    lines = (f'{{"question": "{n} + {n}?", "answer": "{2 * n}"}}\n' for n in numbers)
    Path("q.jsonl").write_text("".join(lines))


def test_attempts_that_are_not_planned_any_more_come_after_those_that_are(home: Path, cli: Cli) -> None:
    Path("s.json").write_text('{"2 \\\\+ 2": "4"}')
    said = "attempts failed, the first with ModelError: s"
    code, _, err = cli("run", "q.toml", "--model", "scripted:s.json", "--concurrency", "1")
    assert code == 3 and f"firsthand: 2 of 3 {said}" in err and "has no reply to '1 + 1?'" in err
    with store.open_run("last", home) as made:
        orders = [trace.task_id for trace in made.traces()]
    assert orders == ["row-00000", "row-00001", "row-00002"]
    rows(1, 2)
    code, _, err = cli("run", "--resume", "--json")
    assert code == 3 and f"firsthand: 2 of 3 {said}" in err and "has no reply to '1 + 1?'" in err, err


@pytest.mark.slow
def test_after_an_equal_budget_the_command_and_the_board_are_of_what_was_chosen(home: Path, cli: Cli) -> None:
    Path("s.json").write_text('{"": "2"}')
    line = ("run", "q.toml", "--model", "scripted:s.json", "--pattern", "direct,self_consistency:samples=3,self_consistency",
            "--tools", "none", "--equal-budget")  # fmt: skip
    code, out, err = cli(*line)
    assert (code, err) == (0, "")
    with store.open_run("last", home) as made:
        chosen, budget = [*made.config["pattern"]], made.config["equal_budget"]
        report = (made.path / "report.html").read_text()
    assert chosen == ["direct", "self_consistency:samples=3", "self_consistency:samples=8"] and budget.isdecimal()
    (again,) = re.findall(r"^reproduce (.*)$", out, re.MULTILINE)
    words = shlex.split(again)
    assert (
        words[words.index("--pattern") + 1].split(",") == chosen and words[words.index("--equal-budget") + 1] == budget
    )
    assert again in report.replace("&#x27;", "'") and f"{int(budget):,} tokens each" in out
    code, out, err = cli(*line, "--json")
    (board,) = json.loads(out)["boards"]
    assert (code, err, board["budget"]) == (0, "", int(budget))
    assert {row["agent"] for row in board["rows"]} == {*chosen}
