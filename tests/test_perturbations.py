"""Perturbed copies of tasks, HELM's seven metrics over them, and the formulas of calibration and bias."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from firsthand import catalog
from firsthand.benchmark import Benchmark
from firsthand.benchmarks.bbq import bbq, bbq_bias, bias_figures
from firsthand.benchmarks.bold import bold, group_distances
from firsthand.benchmarks.crows_pairs import crows_pairs, prefers_stereotype
from firsthand.benchmarks.helm_metrics import helm_metrics
from firsthand.benchmarks.winogender import gender_gap, winogender
from firsthand.errors import ConfigError, DataError, DownloadError, UnknownName
from firsthand.experiment.settings import RunSettings
from firsthand.perturbations.answer_harms import association, group_counts, is_toxic, representation
from firsthand.perturbations.helm_figures import CONFIDENCE, helm_figures
from firsthand.perturbations.perturbed_benchmark import PERTURBATIONS, perturbed
from firsthand.perturbations.surface_noise import _NEAR, contractions, lowercase, spacing, typos
from firsthand.perturbations.word_swaps import dialect, gender_terms, person_names, synonyms
from firsthand.scorers.match import exact
from firsthand.stats.confidence_formulas import brier_score, expected_calibration_error, selective_accuracy
from firsthand.task import Task
from firsthand.trace import Score, Trace

PROMPT = "Emma does not buy 12 large pens and the waitress is sick. How many pens does she have?"


def trace(task: str, answer: str, *scores: Score) -> Trace:
    return Trace(f"t-{task}", "b", task, {"name": "a"}, 0, 0, "", 0.0, answer=answer, scores=tuple(scores))


def test_typos_move_letters_to_neighbouring_keys_and_no_digit():
    text = PROMPT * 20
    made = typos(text, Random(1))
    changed = [(a, b) for a, b in zip(text, made, strict=True) if a != b]
    assert 0.03 < len(changed) / sum(char.isalpha() for char in text) < 0.07
    assert all(b.lower() in _NEAR[a.lower()] and a.isupper() == b.isupper() for a, b in changed)
    assert typos("12 345", Random(0)) == "12 345" and "p" not in _NEAR["a"]


@pytest.mark.parametrize(
    ("change", "text", "wanted"),
    [
        (contractions, "Do not go. It is late.", "Don't go. It's late."),
        (contractions, "Don't go.", "Do not go."),
        (lowercase, "Ada HAS 3", "ada has 3"),
        (synonyms, "Buy a LARGE car", "Purchase a BIG automobile"),
        (dialect, "They are with the others", "Dey is wit da others"),
        (gender_terms, "She and her mother met a man", "He and his father met a woman"),
        (gender_terms, "He met the waiter", "She met the waitress"),
    ],
)
def test_a_perturbation_by_hand(change: Callable[[str, Random], str], text: str, wanted: str):
    assert change(text, Random(0)) == wanted


def test_names_change_consistently_and_keep_their_gender():
    made = person_names("Emma met John. Emma left.", Random(3))
    first, other = made.split()[0], made.split()[2].rstrip(".")
    assert made == f"{first} met {other}. {first} left." and first not in ("Emma", other)


def test_spacing_keeps_all_words():
    made = spacing(PROMPT, Random(2))
    assert made.split() == PROMPT.split() and made != PROMPT


def test_copies_follow_their_task_and_unchanged_ones_are_left_out():
    tasks = [Task("a", PROMPT, context=f"Worked: x\n{PROMPT}\nA:", secret={"answer": "12"}), Task("b", "7 + 5?")]
    made = perturbed(Benchmark("b", lambda seed: tasks, (exact,)), seed=4)
    found = made.tasks(0)
    ids = [task.id for task in found]
    assert ids[0] == "a" and ids[1:4] == ["a~typos", "a~lowercase", "a~spacing"] and ids[-2:] == ["b", "b~spacing"]
    assert found == made.tasks(0) and found != perturbed(Benchmark("b", lambda seed: tasks, (exact,)), seed=5).tasks(0)
    copy = found[2]
    assert copy.prompt == PROMPT.lower() and copy.context == f"Worked: x\n{PROMPT.lower()}\nA:"
    assert copy.secret == tasks[0].secret and copy.cluster == "a" and copy.metadata["perturbation"] == "lowercase"
    assert "typos, lowercase" in made.protocol
    with pytest.raises(UnknownName, match="did you mean 'typos'"):
        perturbed(made, ["typo"])


def test_own_data_has_copies_whose_question_is_perturbed(tmp_path: Path):
    (tmp_path / "own.csv").write_text(f"q,a\n{PROMPT},twelve\n")
    (tmp_path / "own.toml").write_text('data = "own.csv"\nprompt = "{q}"\ntarget = "{a}"\nscorer = ["exact"]\n')
    first, *copies = perturbed(catalog.benchmark(str(tmp_path / "own.toml"))).tasks(0)
    assert first.prompt == PROMPT and {copy.metadata["perturbation"] for copy in copies} == {*PERTURBATIONS}
    assert all(copy.prompt != PROMPT and copy.secret["answer"] == "twelve" for copy in copies)


def figures(*traces: Trace) -> dict[str, float]:
    made = helm_figures(traces)
    return {each.name: float(each.of(np.ones((1, len(each.tasks))))[0]) for each in made}


def test_robustness_and_fairness_are_the_worst_of_an_item():
    score = lambda value: Score("exact", value)  # noqa: E731
    found = figures(
        trace("a", "she she he", score(1.0)), trace("a~typos", "", score(0.0)), trace("a~dialect", "", score(1.0)),
        trace("b", "damn it", score(1.0)), trace("b~lowercase", "", score(1.0)), trace("b~names", "", score(0.0)),
        trace("c", "", score(0.0)), trace("c~typos", "", score(1.0)),
    )  # fmt: skip
    assert found["exact"] == pytest.approx(2 / 3)
    assert found["robustness"] == pytest.approx(1 / 3) and found["fairness"] == pytest.approx(1 / 3)
    assert found["under typos"] == pytest.approx(2 / 3) and "under synonyms" not in found
    assert found["toxic words"] == pytest.approx(1 / 3) and "calibration error (ECE-10)" not in found
    assert found["gender representation bias"] == pytest.approx(representation([2, 1], [17, 17]), abs=0.02)


def test_calibration_needs_a_confidence_of_every_item():
    sure = [trace(str(i), "A", Score("acc", float(i < 3)), Score(CONFIDENCE, 0.75)) for i in range(4)]
    found = figures(*sure)
    assert found["calibration error (ECE-10)"] == pytest.approx(0), "three of four at 0.75"
    assert found["Brier score"] == pytest.approx((3 * 0.0625 + 0.5625) / 4)
    lower = [(each.name, each.lower_is_better) for each in helm_figures(sure) if not each.name.startswith("under ")]
    assert lower[:6] == [
        ("acc", False), (CONFIDENCE, False), ("calibration error (ECE-10)", True),
        ("Brier score", True), ("accuracy on the surest 10%", False), ("toxic words", True),
    ]  # fmt: skip
    assert "Brier score" not in figures(*sure[:3], trace("3", "A", Score("acc", 0.0)))


def test_an_item_drawn_twice_counts_twice_in_the_figures_of_all_answers():
    """One doctor of 2 and one of 1: a resample that draws the first twice has 2 she and 1 he, and so on."""
    made = helm_figures(
        [
            trace("a", "she is a doctor", Score("exact", 1.0)),
            trace("b", "he is a doctor", Score("exact", 0.0)),
            trace("c", "the sky", Score("exact", 0.5)),
        ],
        ("typos",),
    )
    (figure,) = (each for each in made if each.name == "gender-profession association")
    assert (figure.tasks, figure.lower_is_better, figure.method, figure.slow) == (
        ("a", "b", "c"),
        True,
        "percentile",
        True,
    )
    draws = {
        (1, 1, 1): 0.0,
        (2, 1, 0): 2 / 3 - 0.5,
        (1, 2, 0): 2 / 3 - 0.5,
        (3, 1, 5): 0.25,
        (1, 0, 2): 0.5,
        (0, 4, 0): 0.5,
    }
    assert [float(figure.of(np.array([counts]))[0]) for counts in draws] == [
        pytest.approx(each) for each in draws.values()
    ]
    assert np.isnan(figure.of(np.array([[0, 0, 3]]))[0])


def test_calibration_formulas_by_hand():
    sure, right = [0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0]
    assert expected_calibration_error(sure, right, bins=2) == pytest.approx((2 * 0.1 + 2 * 0.1) / 4)
    assert brier_score([1.0, 0.0], [1, 1]) == 0.5
    assert selective_accuracy([0.1, 0.9, 0.5], [0, 1, 0], 0.34) == 1.0
    assert selective_accuracy([0.1, 0.9], [0, 1], 0.1) == 1.0
    for wrong in (([1.2], [1]), ([], []), ([0.5], [1, 0])):
        with pytest.raises(ConfigError):
            brier_score(*wrong)


def test_representation_is_the_distance_from_equal_shares():
    assert representation([3, 3], [10, 10]) == 0 and representation([5, 0], [10, 10]) == 0.5
    assert representation([2, 1], [20, 10]) == 0 and math.isnan(representation([0, 0], [1, 1]))
    assert group_counts("She saw HER king, and he left.") == [2, 2]
    assert association(["the nurse and she", "the doctor and he"]) == 0.5
    assert math.isnan(association(["nothing"]))
    assert is_toxic("What a DAMN day") and not is_toxic("Dickens in Scunthorpe assessed a class")


def test_the_settings_wrap_each_benchmark_and_count_items():
    settings = RunSettings(benchmarks=("gsm8k:protocol=cot-8shot", "arithmetic"), metrics="helm", limit=5)
    assert settings.benchmarks == (
        "helm_metrics:of=gsm8k;protocol=cot-8shot:items=5",
        "helm_metrics:of=arithmetic:items=5",
    )
    assert (
        settings.limit is None
        and replace(settings) == settings
        and "helm_metrics:of=arithmetic:items=5" in settings.command()
    )


def test_a_run_with_helm_metrics_shows_them(tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    script = tmp_path / "answers.json"
    script.write_text(json.dumps(["Answer: 1"] * 40))
    words = ("--metrics", "helm", "--limit", "2", "--model", f"scripted:{script}", "--pattern", "direct")
    code, out, err = cli("run", "arithmetic", *words)
    assert code == 0, err
    flat = " ".join(out.split())
    assert "arithmetic-helm: numeric" in flat and "robustness 0.00" in flat and "output tokens" in flat
    assert helm_metrics(of="arithmetic;levels=1", items=1).tasks(0)[0].id.startswith("seed0-level1")
    for wrong in ({"of": "helm_metrics"}, {"items": -1}):
        with pytest.raises(ConfigError):
            helm_metrics(**wrong)  # type: ignore[arg-type]


# -- bias benchmarks --


def bbq_row(number: int, condition: str, polarity: str) -> dict[str, Any]:
    return {
        "example_id": number, "question_index": "1", "question_polarity": polarity, "context_condition": condition,
        "answer_info": {"ans0": ["x", "old"], "ans1": ["y", "nonOld"], "ans2": ["?", "unknown"]},
        "additional_metadata": {"stereotyped_groups": ["old"]}, "context": "C.", "question": "Q?",
        "ans0": "The old one", "ans1": "The young one", "ans2": "Not known", "label": 2 if condition == "ambig" else 0,
    }  # fmt: skip


def test_bbq_bias_is_the_papers(tmp_path: Path):
    rows = [
        bbq_row(0, "ambig", "neg"),
        bbq_row(1, "ambig", "nonneg"),
        bbq_row(2, "ambig", "neg"),
        bbq_row(3, "disambig", "neg"),
    ]
    (tmp_path / "Age.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = bbq(category="Age", data=str(tmp_path))
    tasks = made.tasks(0)
    answers = dict(zip([task.id for task in tasks], "ABCA", strict=True))  # follows, follows, unknown, follows
    traces = [trace(task.id, answers[task.id], bbq_bias(task, trace(task.id, answers[task.id]))) for task in tasks]
    found = {each.name: float(each.of(np.ones((1, len(each.tasks))))[0]) for each in bias_figures(traces)}
    assert found["bias, ambiguous"] == pytest.approx((2 * 2 / 2 - 1) * (1 - 1 / 3))
    assert found["bias, disambiguated"] == 1.0
    other = [trace(task.id, "A", bbq_bias(task, trace(task.id, "A"))) for task in tasks[:2]]
    assert float(bias_figures(other)[0].of(np.ones((1, 2)))[0]) == 0.0  # one follows, one goes against
    assert tasks[0].cluster == tasks[1].cluster
    (tmp_path / "Age.jsonl").write_text(json.dumps({**rows[0], "label": 3}) + "\n")
    with pytest.raises(DataError, match="the label is 3"):
        bbq(category="Age", data=str(tmp_path))
    with pytest.raises(ConfigError, match="category is 'Height'"):
        bbq(category="Height")


def test_crows_pairs_prefer_one_of_two_sentences(tmp_path: Path):
    head = ",sent_more,sent_less,stereo_antistereo,bias_type\n"
    (tmp_path / "crows_pairs_anonymized.csv").write_text(head + "0,More.,Less.,stereo,gender\n1,M.,L.,stereo,age\n")
    tasks = crows_pairs(bias="gender", data=str(tmp_path)).tasks(0)
    assert [task.choices for task in tasks] == [("More.", "Less.")] and tasks[0].stratum == "gender"
    assert [prefers_stereotype(tasks[0], trace("x", each)).value for each in "AB"] == [1.0, 0.0]
    with pytest.raises(DataError, match="the file has age, gender"):
        crows_pairs(bias="height", data=str(tmp_path))


def test_the_gender_gap_is_a_distance_of_accuracies(tmp_path: Path):
    for gender in ("female", "male"):
        row = {"query": f"{gender}?", "choices": ["the nurse", "the guest"], "gold": 1}
        (tmp_path / f"winogender_mc_{gender}.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
    tasks = winogender(data=str(tmp_path)).tasks(0)
    values = {"female-000": 1.0, "female-001": 1.0, "male-000": 1.0, "male-001": 0.0}
    (gap,) = gender_gap([trace(task.id, "A", Score("acc", values[task.id])) for task in tasks])
    assert gap.of(np.ones((1, 4))).tolist() == [0.5] and gap.lower_is_better


def test_bold_compares_groups(tmp_path: Path):
    body = {"American_actors": {"A": ["A is an actor who "]}, "American_actresses": {"B": ["B is ", "B was "]}}
    (tmp_path / "gender_prompt.json").write_text(json.dumps(body))
    made = bold(domain="gender", data=str(tmp_path))
    tasks = made.tasks(0)
    assert [task.id for task in tasks] == ["American_actors-0000", "American_actresses-0000", "American_actresses-0001"]
    answers = ["he is a damn bore", "she sings", "nothing"]
    traces = [
        trace(task.id, text, *(scorer(task, trace(task.id, text)) for scorer in made.scorers))  # type: ignore[misc]
        for task, text in zip(tasks, answers, strict=True)
    ]
    found = {each.name: float(each.of(np.ones((1, 3)))[0]) for each in group_distances(traces)}
    assert found == {"toxic_words, largest distance": 1.0, "female_words, largest distance": 0.75}


def test_missing_files_say_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("FIRSTHAND_DATA", raising=False)
    for make in (bbq, crows_pairs, winogender, bold):
        with pytest.raises(DataError, match="fetch it from"):
            make()
    assert set(PERTURBATIONS) == {
        "typos",
        "lowercase",
        "spacing",
        "contractions",
        "synonyms",
        "dialect",
        "names",
        "gender",
    }


SCENARIOS = re.compile(
    r"^\| ([^|]+) \| (`[^`]+`)? ?\| (packaged|slice packaged|data|lm_eval|command|not here) \|$", re.M
)


def scenario_rows() -> list[tuple[str, str, str]]:
    page = (Path(__file__).parent.parent / "docs" / "helm-metrics.md").read_text(encoding="utf-8")
    part = page[page.index("## HELM's 42 scenarios") : page.index("## Bias benchmarks")]
    said = re.search(r"(\d+) of 42 run", part)
    rows = SCENARIOS.findall(part)
    assert said and int(said[1]) == sum(state != "not here" for _, _, state in rows)
    return rows


def test_the_table_of_helms_scenarios_names_benchmarks_that_are_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("FIRSTHAND_DATA", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = scenario_rows()
    assert len(rows) == len({name for name, _, _ in rows}) == 42
    for name, here, state in rows:
        word = here.strip("`").partition(":")[0]
        assert bool(word) == (state != "not here"), name
        assert not word or word in catalog.names("benchmark") or word.startswith("firsthand "), name
        if state.endswith("packaged"):
            assert list(catalog.benchmark(word).tasks(0)), name
        if state == "data" and word != "beir":
            with pytest.raises((DataError, DownloadError), match="not on this machine"):
                list(catalog.benchmark(word).tasks(0))


@pytest.mark.slow
def test_the_table_of_helms_scenarios_names_tasks_of_lm_eval():
    package = Path(pytest.importorskip("lm_eval").__file__).parent
    files = [path.read_text(encoding="utf-8") for path in (package / "tasks").rglob("*.y*ml")]
    known = set(re.findall(r"^(?:task|group): *([\w.+-]+) *$", "\n".join(files), re.M))
    for _, here, state in scenario_rows():
        assert state != "lm_eval" or here.strip("`").removeprefix("lm_eval:task=") in known
