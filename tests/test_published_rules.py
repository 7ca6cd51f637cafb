"""Rules and prompts that a reader may hold beside their source: BBH's examples, IFEval's letters, the promise of float16."""

from __future__ import annotations

import json
import os
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.scorers.instructions import follows

SHARED = Path(os.environ.get("FIRSTHAND_DATA") or Path(__file__).parents[2] / "shared" / "data")
DOCS = Path(__file__).parents[1] / "docs"

# suzgunmirac/BIG-Bench-Hard, cot-prompts/sports_understanding.txt (MIT): the one file with a space after "step."
SPORTS = """A canary.
-----
Determine whether an artificially constructed sentence relating to sports is plausible or not.

Q: Is the following sentence plausible? "Bam Adebayo scored a reverse layup in the Western Conference Finals."
A: Let's think step by step. Bam Adebayo is an American basketball player. Scoring a reverse layup in the Western Conference Finals \
is part of the NBA Finals. So the answer is yes.

Q: Is the following sentence plausible? "Santi Cazorla scored a touchdown."
A: Let's think step by step. Santi Cazorla is a soccer player. Touchdown is part of American football and rugby. So the answer is no.

Q: Is the following sentence plausible? "DeMar DeRozan was called for the goal tend."
A: Let's think step by step. DeMar DeRozan is an American basketball player. Goal tending is part of basketball. So the answer is yes.
"""  # noqa: E501


def test_sports_understanding_is_asked_as_the_harness_asks_it(tmp_path: Path) -> None:
    for folder in ("data", "cot-prompts"):
        (tmp_path / folder).mkdir()
    asked = 'Is the following sentence plausible? "Elias Lindholm beat the buzzer."'
    examples = {"examples": [{"input": asked, "target": "no"}]}
    (tmp_path / "data" / "sports_understanding.json").write_text(json.dumps(examples))
    (tmp_path / "cot-prompts" / "sports_understanding.txt").write_text(SPORTS)
    (task,) = catalog.benchmark(f"bbh:task=sports_understanding:data={tmp_path}").tasks(0)
    think = "A: Let's think step by step.\n"
    instruction, *shown = SPORTS.partition("-----\n")[2].strip().split("\n\n")
    shown = [one.replace(think.strip() + " ", think) for one in shown]
    assert task.context == "\n\n".join([instruction, *shown, f"Q: {asked}\n{think}"])
    assert [one.count(think) for one in shown] == [1, 1, 1] and task.secret["answer"] == "no"


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "reasoning" / "bbh").is_dir(), reason="the full data is not on this machine")
def test_all_27_tasks_of_bbh_have_the_harness_s_own_examples_to_the_byte() -> None:
    yaml = pytest.importorskip("yaml")
    found = find_spec("lm_eval")
    if found is None or not found.submodule_search_locations:
        pytest.skip("lm_eval is not installed")
    folder = Path(found.submodule_search_locations[0]) / "tasks" / "bbh" / "cot_fewshot"
    first = {task.metadata["task"]: task for task in reversed(catalog.benchmark(f"bbh:data={SHARED}").tasks(0))}
    seen = set()
    for path in folder.glob("[!_]*.yaml"):
        described = yaml.safe_load(path.read_text())
        ask, task = described["doc_to_text"], first[described["dataset_name"]]
        shown = [
            ask.replace("{{input}}", one["input"]) + one["target"] for one in described["fewshot_config"]["samples"]
        ]
        shown.append(ask.replace("{{input}}", task.prompt))
        assert task.context == described["description"] + "\n\n".join(shown), path.name
        seen.add(described["dataset_name"])
    assert seen == set(first) and len(seen) == 27


@pytest.mark.parametrize("letter", ["!", "#", "q", "Q"])
@pytest.mark.parametrize(("relation", "few", "enough"), [("at least", False, True), ("less than", True, False)])
def test_ifeval_s_letters_are_counted_as_they_are_asked_for(
    letter: str, relation: str, few: bool, enough: bool
) -> None:
    """Row 1129 asks for six "!" and row 1122 for four "#": the harness draws another letter for them, at random."""
    arguments = {"letter": letter, "let_frequency": 6, "let_relation": relation}
    for text, expected in (("Drink! " * 5, few), ("Drink! " * 6, enough), ("Drink! " * 7, enough)):
        text = text.replace("!", letter)
        assert follows(text, "keywords:letter_frequency", arguments) is expected
    said = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    assert "Instructions about the letters `#` and `!` are\n  taken literally; the harness replaces them" in said


@pytest.mark.parametrize("mark", list(".,?!'\""))
def test_ifeval_s_first_word_ends_at_any_of_the_paper_s_marks(mark: str) -> None:
    arguments = {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Hello"}
    for text, expected in (
        (f"a\n\nHello{mark} b", True),
        (f"a\n\nHello{mark}o b", True),
        (f"a\n\n{mark}Hello b", mark in "'\""),
    ):
        assert follows(text, "length_constraints:nth_paragraph_first_word", arguments) is expected
    assert not follows("a\n\nHello; b", "length_constraints:nth_paragraph_first_word", arguments)


def test_both_pages_promise_the_same_of_each_format_of_weights() -> None:
    """models.md once said that float16 depends on the batch, and engine.md that it does not."""
    from test_engine_determinism import KINDS

    table = (DOCS / "engine.md").read_text(encoding="utf-8").partition("## Determinism")[2].partition("\n### ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    exact = {name for row in rows if "**bit for bit**" in row for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert exact == {weights for weights, _ in KINDS} - {"4 bits"}  # which the tests compare with `==`
    assert "blockwise" in next(row for row in rows if "`int8`" in row)
    said = (DOCS / "models.md").read_text(encoding="utf-8").partition("## Determinism")[2].partition("\n```")[0]
    first = said.strip().partition(" is batch-invariant.")[0]
    assert {"float16", "float32"} <= set(re.findall(r"\w+", first)) and "compiled step" in first
    assert "float16" not in said.replace(first, "") and "engine.md#determinism" in said
