"""Few-shot examples of one's own benchmark: none asks what its row asks, and there are as many as `shots` says."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.protocols.protocol import Item
from firsthand.benchmarks.sources.own import read_benchmark
from firsthand.benchmarks.sources.own_examples import ExampleChoice
from firsthand.errors import ConfigError, DataError
from firsthand.message import canonical

TOWNS = "q,t\nCapital of France?,Paris\nCapital of Italy?,Rome\nCapital of Norway?,Oslo\nCapital of Peru?,Lima\n"
ABOUT = {"data": "t.csv", "prompt": "Q: {q}\nA:", "target": "{t}"}
LETTERS = "q,a,b,t\nCapital of France?,Rome,Paris,B\nCapital of Italy?,Rome,Paris,A\nCapital of Norway?,Oslo,Bern,A\n"
CHOICES = ABOUT | {
    "prompt": "{q}\n{options}Answer:", "choices": ["{a}", "{b}"], "continuation": " {letter}", "target_is": "letter"
}  # fmt: skip


def benchmark(folder: Path, data: str, about: dict[str, Any], **tables: str) -> Benchmark:
    for name, text in {"t": data, **tables}.items():
        (folder / f"{name}.csv").write_text(text)
    (folder / "b.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in about.items()))
    return read_benchmark(folder / "b.toml")


def prompts(made: Benchmark) -> list[str]:
    return [task.context or task.prompt for task in made.tasks(0)]


def test_a_row_is_never_its_own_example(tmp_path: Path) -> None:
    made = benchmark(tmp_path, TOWNS, ABOUT | {"examples": "t.csv", "shots": 2})
    france, italy, norway = (
        "Q: Capital of France?\nA: Paris",
        "Q: Capital of Italy?\nA: Rome",
        "Q: Capital of Norway?\nA: Oslo",
    )
    assert [each.split("\n\n")[:2] for each in prompts(made)] == [
        [italy, norway], [france, norway], [france, italy], [france, italy],
    ]  # fmt: skip
    assert made.protocol.startswith("t.csv, 4 rows; 2-shot, each without its own question (2 rows had it); 'Q: {q}")


def test_a_row_with_choices_is_never_its_own_example(tmp_path: Path) -> None:
    made = benchmark(tmp_path, LETTERS, CHOICES | {"examples": "t.csv", "shots": 1})
    shown = [each.split("\n\n")[0] for each in prompts(made)]
    france = "Capital of France?\nA. Rome\nB. Paris\nAnswer: B"
    assert shown == ["Capital of Italy?\nA. Rome\nB. Paris\nAnswer: A", france, france]
    assert "1-shot, each without its own question (1 row had it);" in made.protocol


@pytest.mark.parametrize("other", ["Capital  of France?", " Capital of\u2003France? "])
def test_spacing_makes_no_other_question(tmp_path: Path, other: str) -> None:
    shown = f'q,t\n"{other}",Paris\nCapital of Cuba?,Havana\n'
    made = benchmark(tmp_path, TOWNS, ABOUT | {"prompt": "{q}", "examples": "e.csv", "shots": 1}, e=shown)
    assert [each.split("\n\n")[0].endswith("Havana") for each in prompts(made)] == [True, False, False, False]


def test_composed_and_decomposed_letters_make_no_other_question(tmp_path: Path) -> None:
    table, shown = "q,t\nPer\u00fa?,Lima\n", "q,t\nPeru\u0301?,Lima\nCuba?,Havana\n"
    (task,) = benchmark(tmp_path, table, ABOUT | {"examples": "e.csv", "shots": 1}, e=shown).tasks(0)
    assert "Havana" in task.prompt


@pytest.mark.parametrize("other", ["2 - 1", "21", "2!", "(2)", "²", "2."])
def test_signs_make_another_question(tmp_path: Path, other: str) -> None:
    table, shown = "q,t\n2 + 1,3\n2,2\n", f"q,t\n{other},1\n"
    made = benchmark(tmp_path, table, ABOUT | {"examples": "e.csv", "shots": 1}, e=shown)
    assert all(other in each for each in prompts(made)) and "own question" not in made.protocol


def test_questions_of_spelling_and_punctuation_differ_in_case_and_marks(tmp_path: Path) -> None:
    table = "q,t\nRight? hello World.,no\nRight? Hello world.,yes\nRight? Hello world,no\n"
    made = benchmark(tmp_path, table, ABOUT | {"examples": "t.csv", "shots": 2})
    assert prompts(made)[0].startswith("Q: Right? Hello world.\nA: yes\n\nQ: Right? Hello world\nA: no\n\n")


def test_where_all_rows_have_one_question_no_more_examples_are_read_than_their_choices_need(tmp_path: Path) -> None:
    table = "q,a,b,t\nTrue?,one,two,A\nTrue?,three,four,B\n"
    shown = "q,a,b,t\nTrue?,two,one,B\nTrue?,five,six,A\nTrue?,seven,eight,A\nTrue?,nine,ten,\n"
    made = benchmark(tmp_path, table, CHOICES | {"examples": "e.csv", "shots": 2}, e=shown)
    assert [each.split("\n")[1] for each in prompts(made)] == ["A. five", "A. two"]
    with pytest.raises(DataError, match=r"e\.csv, line 5: the target '\{t\}' is empty here"):
        benchmark(tmp_path, table, CHOICES | {"examples": "e.csv", "shots": 3}, e=shown)


def test_many_rows_of_one_question_take_time_in_proportion_to_their_number() -> None:
    rows = [Item(f"row-{n}", {}, ("yes", "no"), 0, question="True?") for n in range(15_000)]
    other = Item("other", {}, ("yes", "no"), 1, question="True?")
    choice = ExampleChoice([*rows, other], 1, "t.csv")
    began = time.process_time()
    assert all(choice.of(item) == [other] for item in rows) and choice.of(other) == rows[:1]
    assert choice.of(Item("new", {}, question="False?")) == rows[:1]
    assert time.process_time() - began < 1.0 and choice.told() == ", each without its own question (15000 rows had it)"


def test_one_question_of_other_choices_is_another_unless_the_right_one_is_the_same(tmp_path: Path) -> None:
    table = "q,a,b,t\nWhich is right?,he go,he goes,B\nWhich is right?,I is,I am,B\nWhich is right?,I are,I  am,B\n"
    made = benchmark(tmp_path, table, CHOICES | {"examples": "t.csv", "shots": 1})
    assert [each.split("\n")[1] for each in prompts(made)] == ["A. I is", "A. he go", "A. he go"]
    with pytest.raises(
        ConfigError, match=r"shots is 2, and t\.csv has 1 row with another question than that of 'row-00001'"
    ):
        benchmark(tmp_path, table, CHOICES | {"examples": "t.csv", "shots": 2})


def test_examples_of_other_questions_are_the_first_rows_and_no_later_row_is_read(tmp_path: Path) -> None:
    shown = "q,t\nOne?,1\nTwo?,2\n,3\nFour?,\n"
    made = benchmark(tmp_path, TOWNS, ABOUT | {"prompt": "{q}", "examples": "e.csv", "shots": 2}, e=shown)
    assert all(each.startswith("One? 1\n\nTwo? 2\n\nCapital") for each in prompts(made))
    assert made.protocol.startswith("t.csv, 4 rows; 2-shot; '{q}'")


def test_a_question_that_comes_twice_among_the_examples_is_passed_over_twice(tmp_path: Path) -> None:
    shown = "q,t\nCapital of France?,Paris\nCapital of  France?,Paris\nCapital of Italy?,Rome\nTwo?,2\nThree?,\n"
    made = benchmark(tmp_path, TOWNS, ABOUT | {"examples": "e.csv", "shots": 2}, e=shown)
    assert prompts(made)[0].startswith("Q: Capital of Italy?\nA: Rome\n\nQ: Two?\nA: 2\n\nQ: Capital of France?")
    assert prompts(made)[2].startswith("Q: Capital of France?\nA: Paris\n\nQ: Capital of  France?\nA: Paris\n\n")


@pytest.mark.parametrize("more", [{}, {"prompt": "{q}"}])
def test_too_few_examples_are_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    about = ABOUT | {"examples": "e.csv", "shots": 3} | more
    with pytest.raises(
        ConfigError, match=r"b\.toml: shots is 3, and e\.csv has 2 rows: give as many rows as shots, or fewer"
    ):
        benchmark(tmp_path, TOWNS, about, e="q,t\none,1\ntwo,2\n")
    assert benchmark(tmp_path, TOWNS, about, e="q,t\none,1\ntwo,2\nthree,3\n").tasks(0)
    with pytest.raises(
        ConfigError, match=r"shots is 3, and e\.csv has 2 rows with another question than that of 'row-00003'"
    ):
        benchmark(tmp_path, TOWNS, about, e="q,t\none,1\ntwo,2\nCapital of Peru?,Lima\n")


def own(folder: Path, line: str, **about: Any) -> Benchmark:
    (folder / "t.jsonl").write_text(line + "\n")
    fields = ABOUT | {"data": "t.jsonl"} | about
    (folder / "b.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items()))
    return read_benchmark(folder / "b.toml")


@pytest.mark.parametrize(("value", "shown"), [("NaN", "nan"), ("1e400", "inf"), ("-Infinity", "-inf")])
def test_a_number_that_is_none_is_an_error_where_it_is_used(tmp_path: Path, value: str, shown: str) -> None:
    with pytest.raises(DataError, match=rf"line 1: target: .*\(t = {shown}: not text or a number here\)"):
        own(tmp_path, f'{{"q": "2+2?", "t": {value}}}')
    with pytest.raises(DataError, match="line 1: the scorer cosine_spearman needs the column 'similarity'"):
        own(tmp_path, f'{{"q": "a", "t": "b", "similarity": {value}}}', scorer=["cosine_spearman"])


def test_a_number_that_is_none_stays_in_a_column_that_is_not_used_so_that_the_task_is_that_of_older_runs(
    tmp_path: Path,
) -> None:
    (task,) = own(tmp_path, '{"q": "2+2?", "t": 4.0, "note": NaN, "n": 0.5, "yes": true}').tasks(0)
    columns = {"q": "2+2?", "t": 4.0, "note": math.nan, "n": 0.5, "yes": True}
    assert canonical(task.secret) == canonical({"answer": "4.0", "columns": columns})


def test_a_key_that_comes_twice_is_an_error_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.jsonl, line 1: the key 't' comes twice in one object: write it once"):
        own(tmp_path, '{"q": "2+2?", "t": "4", "t": "5"}')
    with pytest.raises(DataError, match=r"line 1: the key 'd1' comes twice"):
        own(tmp_path, '{"q": "2+2?", "t": "4", "judgements": {"d1": 1, "d1": 0}}')
    (tmp_path / "t.json").write_text('[{"q": "1?", "t": "1"}, {"q": "2?", "q": "3?", "t": "2"}]')
    (tmp_path / "b.toml").write_text((tmp_path / "b.toml").read_text().replace("t.jsonl", "t.json"))
    with pytest.raises(DataError, match=r"t\.json: the key 'q' comes twice in one object"):
        read_benchmark(tmp_path / "b.toml")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            '{"d1": 0.9, "d2": 0.4}',
            "the relevance of 'd1' is 0.9, .*whole numbers: multiply graded ones, such as 9 for 0.9",
        ),
        ('{"d1": 1, "d2": "high"}', "the relevance of 'd2' is 'high'"),
        ('{"d1": null}', "the relevance of 'd1' is None"),
        ('{"d1": NaN}', "the relevance of 'd1' is nan"),
        ('{"d1": 1e400}', "the relevance of 'd1' is inf"),
        ('["d1"]', "an object of document ids and their relevance was expected"),
        ("{}", "an object of document ids"),
    ],
)
def test_judgements_that_are_no_whole_numbers_are_refused_with_their_line(
    tmp_path: Path, given: str, says: str
) -> None:
    for scorer in ("ndcg_at_10", "ndcg:k=5", "recall_at_5"):
        with pytest.raises(DataError, match=f"line 1: the column 'judgements': {says}"):
            own(tmp_path, f'{{"q": "a", "t": "b", "judgements": {given}}}', scorer=[scorer])


def test_judgements_of_a_table_are_whole_numbers_in_any_writing(tmp_path: Path) -> None:
    line = '{"q": "a", "t": "b", "judgements": {"d1": 2, "d2": 1.0, "d3": "1.0", "d4": "0", "d5": -1, "d6": true}}'
    assert own(tmp_path, line, scorer=["ndcg_at_10"]).tasks(0)
