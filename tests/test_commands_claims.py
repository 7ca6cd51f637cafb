"""`firsthand claims`, `claims run` and `claims table` on claims that cost nothing: what they print, keep and write."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.claims import all_claims as every
from firsthand.claims import claim_text, list_tables
from firsthand.claims.all_claims import all_claims
from firsthand.commands import claims, claims_run, claims_table, rag_decide
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.runs import store
from firsthand.system import interruption
from printed_tables import right_cells, widen, words

UNTESTED = ("few_shot_by_scale", "react_in_frameworks")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    widen(monkeypatch, claims_run, claim_text)
    return tmp_path / "home"


def told_of(name: str) -> list[str]:
    """What is printed of a claim that cannot be tested when it ends."""
    about = all_claims()[name].claim
    return words(f'{name} [{about.kind}]\n"{about.quote}" ({about.source})\ncannot be tested here: {about.cannot}')


def test_a_run_of_claims_prints_its_plan_each_verdict_the_totals_and_where_it_is(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert claims_run.run(claims_run.Config(UNTESTED[::-1], seed=5)) == 0
    out = words(capsys.readouterr().out.replace("\n  ", "\n"))
    with store.open_run("last", home) as run:
        page = run.path / "claims.html"
        assert run.config["seed"] == 5 and [each.task_id for each in run.traces()] == [*UNTESTED]
        identifier = run.id
    # the list's order, whatever order they are named in
    assert " ".join(out) == " ".join([
        "0 claims to measure, about 0 s of CPU; 2 cannot be tested here", *told_of(UNTESTED[0]), *told_of(UNTESTED[1]),
        "2 cannot be tested here", f"run {identifier}; page {page}",
    ])  # fmt: skip
    text = page.read_text()
    assert all(each in text for each in UNTESTED)
    # a run that is resumed measures what it lacks, which is nothing; all outcomes are counted again
    markdown, other = home.parent / "deep" / "c.md", home.parent / "other.html"
    resumed = claims_run.Config(resume=identifier, page=str(other), markdown=str(markdown))
    assert claims_run.run(resumed) == 0
    assert words(capsys.readouterr().out) == [
        "0 claims to measure, about 0 s of CPU", "2 cannot be tested here", f"run {identifier}; page {other}",
    ]  # fmt: skip
    assert all(each in markdown.read_text() and each in other.read_text() for each in UNTESTED)
    assert claims_run.run(claims_run.Config(UNTESTED[:1], json=True)) == 0
    body = json.loads(capsys.readouterr().out)
    assert list(body) == ["run", "claims"] and body["run"] != identifier
    assert [(each["claim"], each["verdict"], each["measurement"], each["run"]) for each in body["claims"]] == [
        (UNTESTED[0], "cannot be tested here", None, body["run"])
    ]
    with store.create(home, {}, "other") as empty, pytest.raises(StoreError, match="holds no claims of this version"):
        claims_run.run(claims_run.Config(resume=empty.id))


def test_a_budget_chooses_the_claims_and_those_outside_of_it_are_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    costly, asked = [each for each in all_claims().values() if each.cost_s > 1][:2], []

    def fitting(claims: Any, budget_s: float | None) -> Any:
        chosen = list(claims)
        asked.append(([each.name for each in chosen], budget_s))
        return chosen[:1], costly

    monkeypatch.setattr(every, "fitting", fitting)
    assert claims_run.run(claims_run.Config(UNTESTED, budget="1.5m")) == 0 and asked == [([*UNTESTED], 90.0)]
    out = words(capsys.readouterr().out)
    outside = ", ".join(f"{each.name} ({each.cost_s:.0f} s)" for each in costly)
    assert out[:2] == [
        "0 claims to measure, about 0 s of CPU; 1 cannot be tested here", f"Outside the budget: {outside}"
    ] and "1 cannot be tested here" in out  # fmt: skip


def test_an_interrupted_run_of_claims_says_how_it_is_finished(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (*UNTESTED, "search_behind_o1")
    printed = claim_text.print_outcome

    def stopped(claim: Any, *rest: Any) -> None:
        if claim.name == names[1]:
            raise KeyboardInterrupt
        printed(claim, *rest)

    monkeypatch.setattr(claim_text, "print_outcome", stopped)
    assert claims_run.run(claims_run.Config(names)) == 130
    out, err = capsys.readouterr()
    with store.open_run("last", home) as run:
        done = len(list(run.traces()))
        assert (
            f"interrupted with {done} of 3 claims done: `firsthand claims run --resume {run.id}` finishes them" in err
        )
        assert f"{done} cannot be tested here" in out and (run.path / "claims.html").exists()
        identifier = run.id
    assert 1 <= done < 3
    monkeypatch.setattr(claim_text, "print_outcome", printed)
    assert claims_run.run(claims_run.Config(resume=identifier)) == 0
    out = words(capsys.readouterr().out)
    assert out[0] == f"0 claims to measure, about 0 s of CPU; {3 - done} cannot be tested here"
    assert "3 cannot be tested here" in out


def test_a_run_that_is_interrupted_twice_counts_all_its_claims_in_json_too(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (*UNTESTED, "search_behind_o1")
    printed, whole = claim_text.print_outcome, interruption.run

    def first(claim: Any, *rest: Any) -> None:
        printed(claim, *rest)
        raise KeyboardInterrupt

    def never(work: Any) -> None:
        work.close()
        raise KeyboardInterrupt

    def after(work: Any) -> None:
        whole(work)
        raise KeyboardInterrupt

    assert claims_run.run(claims_run.Config(names[:1])) == 0, "a run that is over is told by nothing more"
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(claim_text, "print_outcome", first)
    assert claims_run.run(claims_run.Config(names)) == 130
    capsys.readouterr()
    with store.open_run("last", home) as run:
        identifier, done = run.id, len(list(run.traces()))
    assert 1 <= done < 3
    for work, config, count in (
        (never, claims_run.Config(resume=identifier, json=True), done),
        (never, claims_run.Config(resume="last"), done),
        (after, claims_run.Config(resume=identifier, json=True), 3),
    ):
        monkeypatch.setattr(interruption, "run", work)
        assert claims_run.run(config) == 130
        out, err = capsys.readouterr()
        assert words(err) == [
            f"firsthand: interrupted with {count} of 3 claims done: `firsthand claims run --resume {identifier}` "
            "finishes them"
        ]
        if config.json:
            body = json.loads(out)
            assert body["run"] == identifier and len(body["claims"]) == count, "what is done is told"
    monkeypatch.setattr(interruption, "run", never)
    assert claims_run.run(claims_run.Config(UNTESTED[:1], json=True)) == 130
    assert "interrupted with 0 of 1 claim done: " in capsys.readouterr().err


def test_settings_of_a_run_of_claims_that_make_no_sense(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for given, told in (
        ({}, "no claim was named: try `firsthand claims run architecture`; `firsthand claims` shows all"),
        ({"names": ("a",), "resume": "x"}, "resume finishes what a run left, so it takes no names and no budget"),
        ({"budget": "1s", "resume": "x"}, "resume finishes what a run left, so it takes no names and no budget"),
        ({"names": ("a",), "retry_errors": True}, "retry_errors goes with resume: name the run"),
        ({"names": ("a",), "page": str(tmp_path)}, f"page is '{tmp_path}': give a file, in a folder that exists"),
        ({"names": ("a",), "markdown": str(tmp_path / "file/x")}, f"markdown is '{tmp_path}/file/x': give a file"),
        *(({"names": ("a",), "budget": text}, f"budget is {text!r}: give a time such as 90s, 10m or 1h")
          for text in ("0", "0.0m", "1d", "-1s", "1.s", "s", "1 2")),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            claims_run.Config(**given)  # type: ignore[arg-type]
        assert str(refused.value).startswith(told)
    for text, seconds in ((" 1.5 H ", 5400), ("2min", 120), ("3 m", 180), ("4", 4), ("0.5s", 0.5)):
        assert claims_run.Config(("a",), budget=text).budget_s() == seconds
    deep = tmp_path / "new" / "deeper" / "x.html"
    assert claims_run._can_be_file(deep) and claims_run._can_be_file(tmp_path / "file")
    assert not claims_run._can_be_file(tmp_path) and not claims_run._can_be_file(tmp_path / "file" / "x")


def test_claims_are_listed_by_section_one_by_one_or_as_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = all_claims()[UNTESTED[0]].claim
    assert claims.main(claims.Config((UNTESTED[0],))) == 0
    out = words(capsys.readouterr().out)
    assert out[0].startswith(f"{UNTESTED[0]} (") and out[-1].endswith(f"cannot be tested here: {first.cannot}")
    assert claims.main(claims.Config(UNTESTED, json=True)) == 0
    body = json.loads(capsys.readouterr().out)
    assert [(each["claim"], each["last"], each["cost_s"]) for each in body] == [(each, None, 0.0) for each in UNTESTED]
    # two that are named out of order are a list, as a section is
    assert claims.main(claims.Config(UNTESTED[::-1])) == 0
    out = words(capsys.readouterr().out)
    assert out[1] == "claim kind CPU last verdict" and [line.split()[0] for line in out[2:4]] == [*UNTESTED]
    assert out[4].startswith("2 claims, 0 testable here in 0 min of CPU.")
    claims_run.run(claims_run.Config(UNTESTED[1:], json=True))
    run = json.loads(capsys.readouterr().out)["run"]
    claims.main(claims.Config(UNTESTED, json=True))
    assert [each["last"] and each["last"]["run"] for each in json.loads(capsys.readouterr().out)] == [None, run]
    assert claims.main(claims.Config((), json=True)) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(all_claims())


def test_words_of_claims_are_a_subcommand_or_names(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert claims.dispatch(["run", UNTESTED[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["claims"][0]["claim"] == UNTESTED[0]
    assert claims.dispatch([UNTESTED[1], "--json"]) == 0
    assert [each["claim"] for each in json.loads(capsys.readouterr().out)] == [UNTESTED[1]]
    assert claims.dispatch([]) == 0 and f"{len(all_claims())} claims, " in capsys.readouterr().out
    assert set(claims.subcommands()) == {"run", "table"} and claims.subcommand("table") is claims_table
    with pytest.raises(UnknownName, match="few_shot_by_scale"):
        claims.dispatch(["few_shot_by_scal"])
    for line, told in ((["run", "--help"], "usage: firsthand claims run"), (["--help"], "usage: firsthand claims")):
        with pytest.raises(SystemExit):
            claims.dispatch(line)
        assert told.casefold() in capsys.readouterr().out.casefold()


def test_the_table_of_patterns_is_printed_with_the_lists_words(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = claims_table.Config(
        "patterns", model="scripted:echo", rows=("Chain of Thought", "Prompt Chaining"), limit=2
    )
    assert claims_table.run(asked) == 0
    printed = capsys.readouterr().out
    assert right_cells(printed, "tokens x")[0] == right_cells(printed, "calls")[0] == "1.0"
    out = words(printed)
    with store.open_run("last", home) as run:
        assert len(list(run.traces())) == 6, "two tasks, and a plain answer beside the two rows"
        identifier = run.id
    assert out[:2] == [
        "Patterns with scripted:echo on arithmetic",
        "pattern min model, by the list cost, by the list accuracy [95%] vs. direct tokens x calls",
    ]
    assert out[2].startswith("(direct) - - ") and out[2].endswith(" - 1.0 1.0")
    assert out[3].startswith("Chain of Thought 7B+ Medium ") and out[4].startswith("Prompt Chaining Any Low ")
    told = f"Cost is measured against a plain answer. run {identifier}: `firsthand show {identifier}`"
    assert " ".join(out[5:]) == told
    more = replace(asked, rows=("ReAct",), limit=None, max_tokens=9, seed=4, json=True, benchmark="syllogism")
    with pytest.raises(UnknownName, match="no benchmark 'syllogism'"):
        claims_table.run(more)
    with pytest.raises(UnknownName) as refused:
        claims_table.run(replace(asked, rows=("ReAct", "Chain of Though")))
    assert str(refused.value) == (
        "no row 'Chain of Though'; did you mean 'Chain of Thought'? `firsthand claims table --help` shows all"
    )


def test_every_option_of_the_table_of_patterns_is_passed_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    table = type("Table", (), {"to_json": lambda self: {"rows": []}})

    def measured(rows: Any, model: str, benchmark: str, **more: Any) -> Any:
        asked.append(([row.name for row in rows], model, benchmark, more))
        return table()

    monkeypatch.setattr(list_tables, "measured_patterns", measured)
    every = [row.name for row in list_tables.PATTERN_ROWS]
    assert claims_table.run(claims_table.Config("patterns", json=True)) == 0
    more = claims_table.Config("patterns", "m", "gsm8k", ("ReAct",), limit=1, max_tokens=1, seed=3, json=True)
    assert claims_table.run(more) == 0
    assert asked == [
        (every, "smollm2", "arithmetic", {"limit": 20, "max_tokens": 256, "seed": 0}),
        (["ReAct"], "m", "gsm8k", {"limit": 1, "max_tokens": 1, "seed": 3}),
    ]


def test_the_table_of_rag_shows_the_lists_words_and_measures_by_rag_decide(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(rag_decide, "run", lambda config: asked.append(config) or 7)
    docs, questions = home.parent / "docs", home.parent / "q.jsonl"
    docs.mkdir()
    questions.write_text("{}")
    config = claims_table.Config("rag", "m", docs=docs, questions=questions, embedder="none", lora=False, change="30%",
                                 limit=3, seed=4)  # fmt: skip
    assert claims_table.run(config) == 7
    out = words(capsys.readouterr().out)
    assert out[:2] == ["The list's words", "dimension RAG, by the list fine-tuning, by the list measured below as"]
    assert out[2:-1] == [" ".join(row) for row in list_tables.RAG_ROWS]
    assert out[-1] == "Fine-tuning is not measured without --lora."
    assert claims_table.run(replace(config, lora=True)) == 7
    assert words(capsys.readouterr().out) == out[:-1]
    assert claims_table.run(replace(config, lora=True, json=True, limit=None)) == 7 and capsys.readouterr().out == ""
    first = rag_decide.Config(docs, questions, model="m", embedder="none", lora=False, change="30%", limit=3, seed=4)
    assert asked == [first, replace(first, lora=True), replace(first, lora=True, json=True, limit=None)]


def test_settings_of_a_table_that_do_not_belong_to_it(tmp_path: Path) -> None:
    both = {"docs": tmp_path, "questions": tmp_path}
    for given, told in (
        ({"limit": 0}, "limit is 0: give 1 or more"), ({"max_tokens": 0}, "max_tokens is 0: give 1 or more"),
        ({"table": "rag", "docs": tmp_path}, "the table rag needs your documents and questions: give --docs DIR"),
        ({"table": "rag", "questions": tmp_path}, "the table rag needs your documents and questions: give --docs DIR"),
        ({"docs": tmp_path}, "docs, questions and lora are for the table rag: leave them out for patterns"),
        ({"questions": tmp_path}, "docs, questions and lora are for the table rag: leave them out for patterns"),
        ({"lora": True}, "docs, questions and lora are for the table rag: leave them out for patterns"),
        ({"table": "rag", **both, "rows": ("ReAct",)}, "rows are for the table patterns: leave them out for rag"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            claims_table.Config(**{"table": "patterns", **given})  # type: ignore[arg-type]
        assert str(refused.value).startswith(told)
    assert claims_table.Config("rag", limit=1, max_tokens=1, lora=True, **both).rows == ()
