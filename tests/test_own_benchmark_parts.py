"""A benchmark of one's own, part by part: items, choices, answers, leaks, braces, scorers, ids and sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark_rows import bodies, facts, refused, said
from firsthand.benchmarks.protocols.protocol import Item, Protocol
from firsthand.benchmarks.sources import own
from firsthand.benchmarks.sources.own import BenchmarkDescription
from firsthand.benchmarks.sources.tables import TableRow
from firsthand.errors import ConfigError, DataError
from firsthand.task import Task


def described(**changes: Any) -> BenchmarkDescription:
    given: dict[str, Any] = {"data": "t.csv", "prompt": "Of {place}?", "target": "{town}"}
    return BenchmarkDescription(**{**given, **changes})


def row(where: str = "t.csv, line 2", /, **columns: Any) -> TableRow:
    return TableRow({"place": "Peru", "town": "Lima", **columns}, where)


def test_a_benchmark_of_ones_own_says_all_that_its_file_says(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("place,town,kind\n Peru ,Lima,a\nMali,Bamako,b\nCuba,Havana,a\n")
    (tmp_path / "shown.csv").write_text("place,town,kind\nFrance,Paris,x\nSpain,Madrid,x\nItaly,Rome,x\n")
    about = {
        "data": "t.csv", "prompt": " Of {place}? ", "target": "{town} ", "shots": 2, "examples": "shown.csv",
        "id": "of-{place}", "cluster": "{kind}", "stratum": "s-{kind}", "reduce": "max", "hint": "a town",
        "name": "towns", "description": "Towns.", "licence": "mine", "scorer": ["exact", "f1"],
    }  # fmt: skip
    path = tmp_path / "mine.toml"
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in about.items()))
    made = own.read_benchmark(path)
    assert facts(made) == said(
        "towns", "exact f1", "Towns.", "t.csv, 3 rows; 2-shot; ' Of {place}? '", "mine",
        reduce="max", options={"data": "t.csv"},
    )  # fmt: skip
    shown = " Of France?  Paris\n\n Of Spain?  Madrid\n\n"
    assert bodies(made.tasks(5)) == [
        {
            "id": f"of-{place}",
            "prompt": f"{shown}Of {place}?",
            "hint": "a town",
            "metadata": {"cluster": kind, "stratum": f"s-{kind}"},
            "secret": {"answer": town, "columns": {"place": place, "town": town, "kind": kind}},
        }
        for place, town, kind in ((" Peru ", "Lima", "a"), ("Mali", "Bamako", "b"), ("Cuba", "Havana", "a"))
    ]
    path.write_text('data = "t.csv"\nprompt = "Of {place}?"\ntarget = "{town}"\n')
    plain = own.read_benchmark(path)
    assert facts(plain) == said(
        "mine", "normalised", "", "t.csv, 3 rows; 0-shot; 'Of {place}?'", "", options={"data": "t.csv"}
    )
    assert [task.id for task in plain.tasks(0)] == ["row-00000", "row-00001", "row-00002"]
    assert plain.tasks(0)[0].hint is None and plain.tasks(0)[0].metadata == {}


def test_an_item_holds_its_columns_groups_and_what_its_scorers_need() -> None:
    long, most = "x" * (own.MAX_KEPT_CHARS + 1), "y" * own.MAX_KEPT_CHARS
    given = row(n=3, ok=True, share=0.5, none=None, listed=["a"], long=long, most=most, tests="assert f()")
    about = described(
        prompt=" Of {place} {n}? ", target=" {town} ", id="{n}!", cluster="c{ok}", scorer=("passes_tests", "exact")
    )
    found = own._item(given, about, "row-00007")
    columns = {"place": "Peru", "town": "Lima", "n": "3", "ok": "True", "share": "0.5", "long": long, "most": most}
    kept = {"place": "Peru", "town": "Lima", "n": 3, "ok": True, "share": 0.5, "most": most, "tests": "assert f()"}
    assert found == Item(
        "3!",
        {**columns, "tests": "assert f()"},
        secret={"answer": "Lima", "tests": "assert f()", "columns": kept},
        metadata={"cluster": "cTrue"},
        question="Of Peru 3?",
        target="Lima",
    )
    assert own._item(given, described(stratum="{place}"), "row-00007").id == "row-00007"
    bare = own._item(TableRow({"place": long, "town": long}, "w"), described(), "r")
    assert "columns" not in bare.secret
    for changes, told in (
        ({"target": "{empty}"}, "t.csv, line 2: the target '{empty}' is empty here"),
        ({"prompt": " {empty} "}, "t.csv, line 2: the prompt is empty here"),
    ):
        assert refused(DataError, own._item, row(empty=" "), described(**changes), "r") == told
    told = refused(DataError, own._item, row(listed=[1], none=None), described(stratum="{listed}"), "r")
    assert told == (
        "t.csv, line 2: stratum: the template '{listed}' names {listed}; there are place, town; write {{ and }} "
        "for braces "
        "(listed, none: not text or a number here)"
    )
    assert "not text or a number" not in refused(DataError, own._item, row(), described(target="{twn}"), "r")


def test_an_item_of_choices_knows_the_right_one_and_no_answer() -> None:
    about = described(
        prompt="{place}?\n{options}", target="{right}", choices=("{a}", "{b}", "{c}"), continuation=" {letter}"
    )
    given = row(a="Lima", b="Rome", c="Oslo", right="b")
    _, (found,) = own._with_gold([], [], [own._item(given, about, "r")], [given], about)
    assert (found.choices, found.gold, found.target) == (("Lima", "Rome", "Oslo"), 1, "b")
    assert found.question == "Peru?" and "answer" not in found.secret
    task = own._task(found, about, own._protocol(about), [])
    assert task.context == "Peru?\nA. Lima\nB. Rome\nC. Oslo\n" and task.requests[1] == (task.context, " B")
    assert task.secret["gold"] == 1 and task.secret["answer"] == "B"


def test_choices_are_templates_or_one_column_of_2_to_26_texts() -> None:
    one = described(choices=("listed",))
    for found in (["a", "b"], [str(number) for number in range(26)]):
        assert own._choices(row(listed=found), one) == tuple(found)
    for found in (["a"], ["a", 1], "ab", [str(number) for number in range(27)], None):
        told = f"t.csv, line 2: the column 'listed' holds {str(found)[:60]}, not 2 to 26 texts"
        assert refused(DataError, own._choices, row(listed=found), one) == told
    assert own._choices(row(), described(choices=("{town}", "no"))) == ("Lima", "no")
    assert own._choices(row(), described(choices=("{town}",))) == ("Lima",)


def test_the_parts_of_a_choice_may_not_be_columns_that_the_prompt_names() -> None:
    plain = {"options": "", "letter": "", "choice": ""}
    about = described(choices=("a", "b"), prompt="{place} {options}")
    assert own._placeholders(about, row()) == own._placeholders(about, row(letter="x")) == plain
    assert own._placeholders(described(prompt="{place} {options}"), row(options="x")) == {}
    told = "t.csv, line 2: the column {!r} is named like a part of each choice: rename the column"
    assert refused(DataError, own._placeholders, about, row(options="x")) == told.format("options")
    assert refused(DataError, own._placeholders, about, row(choice="x")) == told.format("choice")
    lettered = described(choices=("a", "b"), continuation=" {letter}")
    assert refused(DataError, own._placeholders, lettered, row(letter="x")) == told.format("letter")


def leaking(prompt: str, answer: str, *choices: str) -> Task:
    return Task("t", prompt, choices=choices, secret={"answer": answer})


def test_a_prompt_that_holds_its_answer_as_words_is_a_leak() -> None:
    tasks = [
        leaking("It is LIMA, yes", "Lima."), leaking("Limas", "Lima"), leaking("It is Rom", "Rom"), leaking("lima", "lima"),
        leaking("Lima", "Lima", " a", " b"), leaking("in the end Lima", "Lima"),
    ]  # fmt: skip
    rows = [TableRow({}, f"a, b.csv, line {number}") for number in range(2, 8)]
    assert own.leaks(tasks, rows) == ["LEAK: the prompt contains the target in 3 of 6 rows (line 2, line 5, line 7)"]
    assert own.leaks(tasks[1:3], rows[1:3]) == own.leaks([], []) == []
    assert own.leaks(tasks[:1], rows[:1]) == ["LEAK: the prompt contains the target in 1 of 1 row (line 2)"]
    for number, more in ((5, ""), (6, " and 1 more")):
        named = ", ".join(f"line {each}" for each in range(2, 7))
        told = f"LEAK: the prompt contains the target in {number} of {number} rows ({named}{more})"
        assert own.leaks([tasks[0]] * number, rows[:number]) == [told]


def test_a_columns_name_without_braces_is_refused() -> None:
    for field in ("target", "id", "cluster", "stratum"):
        told = f'{field} = "town" is the same text for every row: write "{{town}}" for the column town'
        assert refused(ConfigError, own._check_braces, described(**{field: " town "}), [row()]) == told
    told = 'prompt = "place" is the same text for every row: write "{place}" for the column place'
    assert refused(ConfigError, own._check_braces, described(prompt="place"), [row()]) == told
    assert refused(ConfigError, own._check_braces, described(prompt="Of what?"), [row()]) == (
        "the prompt 'Of what?' names no column and asks the same of every row: write one in braces, as in prompt = "
        '"{question}"'
    )
    own._check_braces(described(id="towns"), [row()])
    own._check_braces(described(id="town"), [])


def test_scorers_need_choices_judges_or_columns() -> None:
    told = "the scorer acc needs choices: give choices, or a scorer of texts such as normalised"
    assert refused(ConfigError, own._check_scorers, described(scorer=("exact", "acc")), []) == told
    own._check_scorers(described(scorer=("acc",), choices=("a", "b")), [row()])
    told = "the scorer order_consistency compares judges with votes: it needs a benchmark such as judge_mtbench"
    assert refused(ConfigError, own._check_scorers, described(scorer=("order_consistency",)), []) == told
    calls = {"kind": "none", "functions": []}
    rows = [row(calls=calls), row("t.csv, line 3", calls="")]
    told = "t.csv, line 3: the scorer function_calls needs the column 'calls'; there are place, town, calls"
    assert refused(DataError, own._check_scorers, described(scorer=("function_calls:a=b",)), rows) == told
    for value in (None, "", float("nan")):
        rows = [row(label=value)]
        assert "needs the column 'label'" in refused(
            DataError, own._check_scorers, described(scorer=("few_shot_accuracy",)), rows
        )
    own._check_scorers(described(scorer=("few_shot_accuracy",)), [row(label=0), row(label=False)])


def test_ids_that_are_there_twice_are_named_with_both_places() -> None:
    items = [Item(id, {}) for id in ("a", "b", "c", "b", "a", "b")]
    rows = [TableRow({}, f"line {number}") for number in range(1, 7)]
    assert (
        refused(DataError, own._check_ids, items, rows) == "line 5: the id 'a' is also that of line 1: ids must differ"
    )
    assert refused(DataError, own._check_ids, items[1:], rows[1:]) == (
        "line 4: the id 'b' is also that of line 2: ids must differ"
    )
    own._check_ids(items[:3], rows[:3])


def test_filled_templates_are_as_large_as_a_data_file_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "MAX_BYTES", 2 << 20)
    most = [1 << 20, (1 << 20) - 1, 1]
    assert own._bounded(iter(most), int, Path("m.toml")) == most
    told = "m.toml: the filled templates are larger than 2 MiB: name fewer or shorter columns"
    made: list[int] = []
    assert refused(DataError, own._bounded, (made.append(n) or n for n in [*most, 1, 9]), int, Path("m.toml")) == told
    assert made == [*most, 1]
    shown = Item("id", {"a": "x" * 90}, ("ab", "c"), question="1234567", target="12345", metadata={"cluster": "k" * 30})
    assert own._item_bytes(shown) == 2 + 2 + 1 + 7 + 5 + 30


def test_all_that_templates_fill_is_counted_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "MAX_BYTES", 1 << 20)
    (tmp_path / "d.csv").write_text("q,a,x\n" + "".join(f"q{n},a{n},{'é' * 99}\n" for n in range(60)))
    (tmp_path / "w.csv").write_text("q,a,x\n" + "".join(f"q{n},a{n},{'😀' * 99}\n" for n in range(60)))
    path = tmp_path / "b.toml"
    long = "{x}" * 100  # 9,900 characters: 594,000 in all
    fine = 'data = "d.csv"\nprompt = "{q}?"\ntarget = "{a}"\n'
    for more in (f'cluster = "{long}"', f'stratum = "{long}"', f'id = "{{q}}{long}"'):
        path.write_text(fine + more)
        assert len(own.read_benchmark(path).tasks(0)) == 60
        path.write_text(fine.replace("d.csv", "w.csv") + more)
        assert "the filled templates are larger than 1 MiB" in refused(DataError, own.read_benchmark, path)
    for more in (
        'choices = ["{a}", "b"]\ncontinuation = "{letter}' + long + '"',
        f'choices = ["{{a}}", "{long}{long}"]',
    ):
        path.write_text(fine + more)
        assert "the filled templates are larger than 1 MiB" in refused(DataError, own.read_benchmark, path), more


def test_the_texts_of_one_row_are_bounded_before_they_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "MAX_BYTES", 1 << 20)
    (tmp_path / "d.csv").write_text(f"q,a,x\nq,A,{'x' * 10_000}\n")
    path, begin = tmp_path / "b.toml", 'data = "d.csv"\ntarget = "{a}"\n'
    path.write_text(begin + f'prompt = "{{q}}"\nchoices = {["{x}" * 40, "b", "{x}" * 70]}\n')
    assert "d.csv, line 2: the filled templates are larger than 1 MiB" in refused(DataError, own.read_benchmark, path)
    path.write_text(begin + f'prompt = "{{q}} {{options}}"\nchoices = {["{x}" * 8, *"bcdefgh"]}\n')
    assert "the texts before its 8 choices are larger than 1 MiB" in refused(DataError, own.read_benchmark, path)
    path.write_text(begin + f'prompt = "{{q}} {{options}}"\nchoices = {["{x}" * 6, *"bcdefgh"]}\n')
    assert len(own.read_benchmark(path).tasks(0)) == 1


def test_an_id_or_a_group_is_a_key_of_some_length_and_may_be_a_passage(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(f"q,a,x\nq,a,{'p' * 20_000}\n")
    path = tmp_path / "b.toml"
    for name in ("cluster", "stratum", "id"):
        path.write_text(f'data = "d.csv"\nprompt = "{{q}}?"\ntarget = "{{a}}"\n{name} = "{{x}}"\n')
        assert len(own.read_benchmark(path).tasks(0)) == 1
        path.write_text(f'data = "d.csv"\nprompt = "{{q}}?"\ntarget = "{{a}}"\n{name} = "{{x}}."\n')
        said = f"d.csv, line 2: the {name} has 20,001 characters, and at most 20,000 are expected: name a short column"
        assert said in refused(DataError, own.read_benchmark, path)


def test_the_protocol_of_ones_own_has_its_scorers_shots_and_continuation() -> None:
    plain, choices = own._protocol(described()), own._protocol(described(choices=("a", "b"), continuation=" {letter}"))
    assert [scorer.__name__ for scorer in plain.scorers] == ["normalised"] and plain.continuation is None
    assert [scorer.__name__ for scorer in choices.scorers] == [
        "acc",
        "acc_norm",
    ] and choices.continuation == " {letter}"
    several = own._protocol(described(shots=3, examples="e.csv", scorer=("exact",)))
    assert several == Protocol(
        "your own", query="Of {place}?", scorers=several.scorers, shots=3, examples="e.csv", continuation=None
    )


def test_a_description_needs_three_fields_and_shots_with_examples() -> None:
    for field in ("data", "prompt", "target"):
        told = f'{field} is empty: a benchmark needs data, prompt and target, as in {field} = "..."'
        assert refused(ConfigError, described, **{field: ""}) == told
    for shots, examples in ((1, ""), (0, "e"), (101, "e"), (-1, "")):
        told = f"shots is {shots} and examples {examples!r}: give both, or neither"
        assert refused(ConfigError, described, shots=shots, examples=examples) == told
    assert described(shots=100, examples="e").shots == 100 and described(target=" ").target == " "
    assert refused(ConfigError, described, prompt="{town} is {place}", target="{town}") == (
        "the prompt contains the target '{town}': every question would give its answer away"
    )
