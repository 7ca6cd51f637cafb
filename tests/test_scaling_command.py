"""`firsthand scaling` fits, plans and sweeps; what it prints is what the library says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from firsthand.cli import main
from firsthand.errors import ConfigError
from firsthand.train.scaling.bootstrap_fit import bootstrap_chinchilla
from firsthand.train.scaling.hidden_markov import random_source
from firsthand.train.scaling.laws import Chinchilla
from firsthand.train.scaling.scaling_points import ScalingPoints, read_points, write_points
from firsthand.train.scaling.scaling_sweep import SourceTexts, _Falling, run_sweep, sweep_architecture
from firsthand.train.scaling.sweep_config import SweepConfig

LAW = Chinchilla(e=1.69, a=406.4, b=410.7, alpha=0.34, beta=0.28)
SMALL = SweepConfig(widths=(8, 16), tokens=(640, 1280), layers=1, context=16, texts=8, eval_texts=16)


@pytest.fixture
def points(tmp_path: Path) -> Path:
    rows = [
        (n, budget / (6 * n))
        for budget in (1e18, 1e20)
        for n in LAW.optimum(budget).parameters * np.logspace(-0.5, 0.5, 7)
    ]
    parameters, tokens = np.array(rows).T
    write_points(ScalingPoints(parameters, tokens, LAW.loss(parameters, tokens)), tmp_path / "p.csv")
    return tmp_path / "p.csv"


@pytest.mark.slow
def test_a_fit_is_printed_with_intervals_and_all_approaches(points: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scaling", "fit", str(points), "--resamples", "20"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "E + A / N^alpha",
        "[(Nc / N)",
        "a of N_opt ~ C^a",
        "Approach 1",
        "IsoFLOP parabolas): N_opt ~ C^0.4",
        "14 points",
    ):
        assert text in shown
    assert (
        main(["scaling", "fit", str(points), "--resamples", "20", "--law", "chinchilla", "--drop", "2", "--json"]) == 0
    )
    body = json.loads(capsys.readouterr().out)
    assert body["points"] == 12 and "kaplan" not in body
    assert body["chinchilla"]["parameters"]["e"]["value"] == pytest.approx(LAW.e, rel=0.02)


@pytest.mark.slow
def test_a_plan_is_for_a_compute_for_hours_or_for_one_run(points: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bodies = []
    for given in (["--flops", "1e22"], ["--hours", "1"], ["--parameters", "1e9", "--tokens", "2e10"]):
        assert main(["scaling", "plan", str(points), "--resamples", "20", "--json", *given]) == 0
        bodies.append(json.loads(capsys.readouterr().out))
    fitted = bootstrap_chinchilla(read_points(points), resamples=20)
    best = fitted.fit.law.optimum(1e22)
    assert bodies[0]["parameters"]["value"] == pytest.approx(best.parameters)
    assert bodies[0]["extrapolates"] == pytest.approx(100, rel=1e-3)
    assert bodies[1]["flops"] > 1e8 * 3600 and bodies[1]["loss"]["low"] <= bodies[1]["loss"]["value"]
    assert bodies[2]["loss"]["value"] == pytest.approx(float(LAW.loss(np.array(1e9), np.array(2e10))), rel=1e-3)
    assert main(["scaling", "plan", str(points), "--resamples", "20", "--flops", "1e22"]) == 0
    assert "the law itself may not hold" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit"], "fit needs a file of points, as in: firsthand scaling fit points.csv"),
        (["plan", "p.csv"], "plan takes one of --flops, --hours"),
        (["plan", "p.csv", "--flops", "1", "--hours", "2"], "plan takes one of"),
        (["fit", "p.csv", "--flops", "1"], "fit and sweep take none"),
        (["plan", "p.csv", "--tokens", "3"], "parameters and tokens go together"),
        (["fit", "p.csv", "--widths", "8,16"], "widths and lengths are for a sweep"),
        (["sweep", "p.csv", "--widths", "8,x"], "widths is 8,x: give whole numbers"),
        (["fit", "p.csv", "--confidence", "20%"], "confidence is '20%'"),
        (["fit", "nowhere.csv"], "nowhere.csv cannot be read"),
    ],
)
def test_commands_that_cannot_be_are_one_sentence(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scaling", *words]) != 0
    shown = capsys.readouterr().err
    assert expected in shown and "Traceback" not in shown


def test_a_path_of_a_user_who_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scaling", "fit", "~no-such-user/x.csv"]) == 2
    told = "a path begins with ~ and names no user of this machine: give ./~NAME for a file of that name"
    assert capsys.readouterr().err == f"firsthand: {told}\n"


@pytest.mark.slow
def test_a_sweep_writes_points_above_the_source_s_floor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "sweep.csv"
    assert main(["scaling", "sweep", "~/sweep.csv", "--widths", "8,16", "--lengths", "10_240,12288", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    found = read_points(path)
    assert len(found) == body["points"] == 4
    assert set(found.tokens) == {10_240, 12_288}
    assert (found.loss > body["floor"]).all() and body["floor"] > body["entropy_rate"]  # texts begin without context
    assert main(["scaling", "sweep", str(path)]) != 0
    assert "is there already: give another file" in capsys.readouterr().err


@pytest.mark.slow
def test_equal_seeds_give_equal_points_and_sizes_see_equal_texts() -> None:
    source = random_source(states=8, tokens=12)
    one, same, other = (run_sweep(source, SweepConfig(**{**vars(SMALL), "seed": seed})) for seed in (1, 1, 2))
    assert np.array_equal(one.points.loss, same.points.loss) and one.floor == same.floor
    assert not np.array_equal(one.points.loss, other.points.loss)
    first, late = SourceTexts(source, SMALL, 1), SourceTexts(source, SMALL, 1, step=1)
    batches = iter(first)
    next(batches)
    assert all(np.array_equal(a.ids, b.ids) for a, b in zip(next(batches), next(iter(late)), strict=True))
    assert first.state() == {"step": 2}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"widths": (8,)}, "widths of the sweep is .*: expected two or more sizes"),
        ({"widths": (8, 12)}, "expected multiples of 8"),
        ({"tokens": (640, 100)}, "expected 5 steps of 128 tokens or more"),
        ({"learning_rate": 0.0}, "learning_rate of the sweep is 0.0"),
    ],
)
def test_sweeps_that_cannot_be_are_refused(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        SweepConfig(**{**vars(SMALL), **changes})  # type: ignore[arg-type]


def test_the_rate_falls_from_its_peak_to_nearly_nothing() -> None:
    falling = _Falling(8, 11)
    assert [falling(step) for step in (9, 10, 11)] == [0.75, 0.5, 0.25]


def test_a_sweep_s_decoders_have_the_width_asked_for() -> None:
    for width in (8, 16, 24, 64):
        a = sweep_architecture(width, SMALL, 12)
        assert a.hidden_size == width == a.num_heads * a.head_dim and a.vocab_size == 12
