"""Rows with choices as items, GPQA's shuffles and its encrypted file, and the parts of AgentBench's composite."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmark_rows import names, refused, written
from firsthand.benchmark import Benchmark
from firsthand.benchmarks import agentbench, gpqa
from firsthand.benchmarks.protocols.multiple_choice import (
    choices_of,
    labelled,
    multiple_choice,
    olmes_text,
    question_item,
    requests_file,
)
from firsthand.benchmarks.protocols.protocol import Item, Protocol
from firsthand.benchmarks.sources.datasets import Rows, Source
from firsthand.errors import ConfigError, DataError, UnknownName
from firsthand.scorers.choice import acc
from firsthand.task import Task
from firsthand.trace import Score, Trace


def test_choices_are_2_to_26_texts_with_the_index_of_the_right_one() -> None:
    texts = [f"c{at}" for at in range(26)]
    assert choices_of({"choices": texts, "gold": 25}, "w") == (tuple(texts), 25)
    assert choices_of({"choices": ["x", " "], "gold": 0}, "w") == (("x", " "), 0)
    for wrong in ([*texts, "z"], ["x"], ["x", ""], ["x", 1], "xy", None):
        said = f"w: the field 'choices' is {str(wrong)[:60]!r}, and 2 to 26 texts were expected"
        assert refused(DataError, choices_of, {"choices": wrong, "gold": 0}, "w") == said
    for gold in (3, -1, "1", True, None, 1.0):
        said = f"w: the field 'gold' is {gold!r}, and an index from 0 to 2 was expected"
        assert refused(DataError, choices_of, {"choices": ["a", "b", "c"], "gold": gold}, "w") == said
    row = {"query": "Question: Why? Question: \nAnswer:", "choices": ["a", "b"], "gold": 1}
    item = Item("i", {"question": "Why? Question: "}, ("a", "b"), 1)
    assert question_item(row, "i", "w") == item == question_item({**row, "query": "Why? Question: "}, "i", "w")
    goal = question_item({**row, "query": "Goal: Question: q"}, "i", "w", prefix="Goal: ")
    assert goal.fields == {"question": "Question: q"}
    hub = {"choices": {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, "answerKey": " 3 "}
    expected = {"query": "Question: Why?\nAnswer:", "choices": ["x", "y", "z"], "gold": 2}
    assert labelled(hub, "Why?") == expected and requests_file("piqa") == "olmes/piqa_5shot.requests.jsonl.gz"
    protocol = olmes_text("R", "Q {question}")
    assert (protocol.reproduces, protocol.query, protocol.shots, protocol.examples) == ("R", "Q {question}", 5, "olmes")
    assert protocol.baseline == "Answer:" and [each.__name__ for each in protocol.scorers] == [
        "acc_norm", "acc", "acc_mutual_info",
    ]  # fmt: skip


def test_a_multiple_choice_benchmark_reads_rows_or_takes_them(tmp_path: Path) -> None:
    protocols = {"one": Protocol("R", scorers=(acc,)), "two": Protocol("S", query="{question}!", scorers=(acc,))}
    source = Source("mcq/x.jsonl", 2, "MIT", "", "", "validation", dict)
    rows = [{"query": f"q{at}", "choices": ["a", "b"], "gold": at} for at in (1, 0)]
    file = written(tmp_path / "x.jsonl", *rows)
    made = multiple_choice("x", protocols, "two", source, str(file), question_item, "D")
    first, second = made.tasks(0)
    assert (first.id, second.id, first.secret["gold"], second.secret["gold"]) == (
        "validation-0000",
        "validation-0001",
        1,
        0,
    )
    assert first.context == "q1!" and first.prompt == "q1" and (made.name, made.description) == ("x@two", "D")
    assert str(made.options["data"]).startswith("validation split, ") and made.licence == "MIT"
    given = Rows((rows[1],), "given", Path("g"), "77")
    other = multiple_choice("x", protocols, "", source, "/nowhere", question_item, "D", given)
    assert len(other.tasks(0)) == 1 and other.options == {
        "data": "validation split, given", "sha256": "77", "protocol": "one",
    }  # fmt: skip


def science(n: int, **changes: Any) -> dict[str, Any]:
    wrong = {f"Incorrect Answer {at}": f" w{n}{at} [title]x  y " for at in (1, 2, 3)}
    return {"Question": f"Q{n}?", "Correct Answer": f"r{n}", **wrong, **changes}


def test_gpqa_shuffles_with_one_generator_over_all_repeats() -> None:
    rows = Rows((science(1), science(2)), "o", Path("f"), "5")
    draw = Random(0)
    found = list(gpqa._items(rows, "main", 2, gpqa._permuted))
    for item, (repeat, n) in zip(found, [(0, 1), (0, 2), (1, 1), (1, 2)], strict=True):
        row = science(n)
        listed = [row["Correct Answer"], *(row[f"Incorrect Answer {at}"] for at in (1, 2, 3))]
        choices = tuple(listed[place] for place in draw.sample(range(4), 4))
        assert item == Item(
            f"main-000{n - 1}-r{repeat}",
            {"question": f"Q{n}?"},
            choices,
            choices.index(f"r{n}"),
            metadata={"protected": gpqa.WHY, "cluster": f"main-000{n - 1}"},
        )
    draw = Random(0)
    for item, n in zip(gpqa._items(rows, "main", 1, gpqa._shuffled), (1, 2), strict=True):
        choices_ = [f"w{n}{at}. x y" for at in (1, 2, 3)] + [f"r{n}"]
        draw.shuffle(choices_)
        assert item.choices == tuple(choices_) and choices_[item.gold] == f"r{n}"
        assert item.id == f"main-000{n - 1}" and item.metadata == {"protected": gpqa.WHY}
    for column in gpqa.COLUMNS:
        bad = Rows((science(1), science(2, **{column: " "})), "o", Path("f"), "5")
        said = refused(DataError, lambda bad=bad: list(gpqa._items(bad, "main", 1, gpqa._permuted)))
        assert said.endswith(f": the column {column!r} is empty, and text was expected") and said.startswith(
            "f, line 2"
        )
    for wrong in (0, 65):
        assert refused(ConfigError, gpqa.gpqa, repeats=wrong) == f"repeats is {wrong}: give 1 to 64; simple-evals has 4"
    assert "set of GPQA" in refused(UnknownName, gpqa.gpqa, subset="Main")


def test_gpqas_file_is_found_in_the_zip_by_its_bare_name_up_to_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("d/gpqa_main.csv", "abc")
        archive.writestr("d/gpqa_maine.csv", "xyz")
    raw, file = held.getvalue(), Path("z.zip")
    assert gpqa.unzipped(raw, "gpqa_main.csv", file) == b"abc"
    monkeypatch.setattr(gpqa, "MAX_BYTES", 3)
    assert gpqa.unzipped(raw, "gpqa_main.csv", file) == b"abc"
    monkeypatch.setattr(gpqa, "MAX_BYTES", 2)
    said = "gpqa_main.csv in z.zip unpacks to more than 0 MiB: is it the right file?"
    assert refused(DataError, gpqa.unzipped, raw, "gpqa_main.csv", file) == said
    said = "z.zip holds no main.csv: it has d/gpqa_main.csv, d/gpqa_maine.csv"
    assert refused(DataError, gpqa.unzipped, raw, "main.csv", file) == said
    told = refused(DataError, gpqa.unzipped, raw[:-5], "gpqa_main.csv", file)
    assert told.startswith("z.zip is not a complete zip file (")
    text = b"\xef\xbb\xbfQuestion,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,More\n"
    rows, lines = gpqa._csv_rows(text + b'"Q\n1",r,a,b,c,m\nQ2,r,a,b,c,m\n', file)
    assert [row["Question"] for row in rows] == ["Q\n1", "Q2"] and lines == (3, 4)
    assert refused(DataError, gpqa._csv_rows, text, file) == "z.zip holds no rows: is it truncated?"
    said = "z.zip has no column 'Incorrect Answer 3': give the authors' gpqa_*.csv, or their dataset.zip"
    short = text.replace(b",Incorrect Answer 3", b"") + b"q,r,a,b,m\n"
    assert refused(DataError, gpqa._csv_rows, short, file) == said


def test_environments_of_agentbench_get_the_options_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def real(*, split: str = "", data: str = "", actions: str = "") -> Any:
        asked.append((split, data, actions))
        return "real"

    def generated(*, actions: str = "", data: str = "") -> Any:
        asked.append((actions, data))
        return "generated"

    def still(*, level: int = 1) -> Any:
        raise ConfigError("no browser")

    makers = {"agentbench_db": real, "agentbench_kg": generated, "agentbench_wb": still}
    monkeypatch.setattr(agentbench.catalog, "is_ours", lambda kind, name: name in makers)
    monkeypatch.setattr(agentbench.catalog, "find", lambda kind, name: makers[name])
    options = {"split": "dev", "actions": "native", "data": "/d"}
    found, missing = agentbench._found(["db", "kg", "wb", "os"], options, must=False)
    assert found == {"db": "real", "kg": "generated"} and asked == [("dev", "/d", "native"), ("native", "")]
    assert missing == {"wb": "no browser", "os": "this firsthand does not have it"}
    agentbench._found(["db"], {**options, "data": ""}, must=True)
    assert asked[-1] == ("dev", "", "native")
    assert refused(ConfigError, agentbench._found, ["db", "wb"], options, must=True) == "no browser"
    said = "no environment of AgentBench can be made here: no browser"
    assert refused(ConfigError, agentbench._found, ["wb", "os"], options, must=False) == said
    assert agentbench._named("all") == ["os", "db", "kg", "dcg", "ltp", "hh", "ws", "wb"]
    assert agentbench._named("wb + agentbench_os+wb") == ["wb", "os"]
    tasks = [Task(f"t{at}", "p") for at in range(7)]
    for each, places in ((0, range(7)), (3, (0, 2, 4)), (6, (0, 1, 2, 3, 4, 5)), (7, range(7)), (8, range(7))):
        assert agentbench._spread(tasks, each) == [tasks[at] for at in places]


def test_the_composite_scores_as_its_parts_do_under_their_own_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def scorer(task: Task, trace: Trace) -> Any:
        seen.append(task.id)
        return (Score("reward", 0.25, {"x": 1}), Score("other", 1.0))

    def part(name: str) -> Benchmark:
        tasks = [Task(f"{name}/{at}", "p", metadata={"kind": "k"}) for at in range(5)]
        return Benchmark(name, lambda seed: tasks, (scorer,), protocol=f"P{name}", environment=lambda task: task)  # type: ignore

    parts = {"kg": part("kg"), "os": part("os")}
    monkeypatch.setattr(agentbench, "_found", lambda names, options, must: (parts, {"wb": "no browser"}))
    made = agentbench.agentbench(each=2)
    tasks = made.tasks(0)
    assert [task.id for task in tasks] == ["kg/kg/0", "kg/kg/2", "os/os/0", "os/os/2"]
    assert [task.metadata for task in tasks[1:3]] == [{"kind": "k", "stratum": "kg"}, {"kind": "k", "stratum": "os"}]
    (score,) = made.scorers
    result: Any = score(tasks[3], Trace("t", "b", "os/os/2", {"name": "a"}, 0, 0, "", 0.0))
    assert result == Score("score", 0.25, {"x": 1, "world": "os", "metric": "reward"}) and seen == ["os/2"]
    assert made.environment is not None and made.environment(tasks[1]).id == "kg/2"  # type: ignore[attr-defined]
    assert "2 environments of 8; without wb: no browser. kg: Pkg; os: Pos" in made.protocol
    assert made.options == {"split": "standard", "worlds": "kg+os", "each": 2, "actions": "text"}
    assert agentbench._first(0.5) == Score("score", 0.5) and names(made) == ("score",)
    assert refused(ConfigError, agentbench.agentbench, each=-1) == (
        "each is -1: give the number of tasks of each environment, or 0 for all"
    )
