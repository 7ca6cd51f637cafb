"""CSV files read by their headings, and points of scaling laws, whose work is bounded before it begins."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firsthand.benchmarks import gpqa
from firsthand.benchmarks.game24 import _puzzles
from firsthand.benchmarks.mteb.labelled_texts import read_labelled
from firsthand.benchmarks.sources.tot_data import PaperFile
from firsthand.benchmarks.truthfulqa import read_csv_rows
from firsthand.errors import ConfigError, DataError
from firsthand.scorers.concerns.refusal_rule import read_labels
from firsthand.system import headed_csv
from firsthand.system.headed_csv import HeadedCsv
from firsthand.train.scaling import bootstrap_fit, scaling_points
from firsthand.train.scaling.scaling_points import ScalingPoints, read_points

WIDE = ",".join(f"h{each}" for each in range(30))


def test_rows_are_read_up_to_the_cells_that_they_are_filled_up_to(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a,b,c\n1\n\n2,3,4,5\n"
    assert list(HeadedCsv(io.StringIO(text))) == list(csv.DictReader(io.StringIO(text)))
    monkeypatch.setattr(headed_csv, "MAX_CELLS", 7)  # three, and four with the rest of the last row
    assert len(list(HeadedCsv(io.StringIO(text)))) == 2
    monkeypatch.setattr(headed_csv, "MAX_CELLS", 6)
    with pytest.raises(csv.Error, match="its 3 headings and the rows up to line 4 make more than 6 cells: leave colu"):
        list(HeadedCsv(io.StringIO(text)))
    with pytest.raises(csv.Error, match="its 7 headings"):
        list(HeadedCsv(io.StringIO("a" + ",b" * 6 + "\n1\n")))


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "scaling": ("parameters,tokens,loss", read_points),
    "labels": ("objective,assistant_response,human_score", read_labels),
    "mteb": ("text,category", read_labelled),
    "truthfulqa": ("Question,Best Answer,Correct Answers,Incorrect Answers", read_csv_rows),
    "gpqa": (",".join(gpqa.COLUMNS), lambda path: gpqa._csv_rows(path.read_bytes(), path)),
    "game24": ("Puzzles", lambda path: _puzzles(PaperFile(path.read_text(), str(path), ""), 1, 2)),
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_many_headings_and_short_rows_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headings, read = READERS[name]
    (tmp_path / "w.csv").write_text(f"{headings},{WIDE}\n" + ",".join("1" for _ in headings.split(",")) + "\n")
    with pytest.raises(DataError, match="CSV") as refused, monkeypatch.context() as bounded:
        bounded.setattr(headed_csv, "MAX_CELLS", 30)
        read(tmp_path / "w.csv")
    assert "\n" not in str(refused.value)


def test_a_quote_in_the_middle_of_a_cell_is_refused_only_where_that_is_asked_for() -> None:
    assert list(HeadedCsv(["a,b\n", '"x"y,1\n'])) == [{"a": "xy", "b": "1"}]
    with pytest.raises(csv.Error, match="expected after"):
        list(HeadedCsv(["a,b\n", '"x"y,1\n'], strict=True))


def test_points_are_counted_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_points, "MAX_POINTS", 6)
    file = tmp_path / "p.csv"
    file.write_text("parameters,tokens,loss\n" + "1,2,3\n" * 6)
    assert len(read_points(file)) == 6
    file.write_text("parameters,tokens,loss\n" + "1,2,3\n" * 7 + "no number\n")
    with pytest.raises(
        DataError, match=r"p.csv has more than 6 points: give fewer, as by thinning out the training curv"
    ):
        read_points(file)
    ScalingPoints(*[np.ones(6)] * 3)
    with pytest.raises(DataError, match="7 points came: give 6 at most"):
        ScalingPoints(*[np.ones(7)] * 3)


@pytest.mark.parametrize("make", [bootstrap_fit.bootstrap_chinchilla, bootstrap_fit.bootstrap_kaplan])
def test_draws_times_points_are_bounded_before_anything_is_fitted(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap_fit, "fit_chinchilla", None)
    monkeypatch.setattr(bootstrap_fit, "fit_kaplan", None)
    monkeypatch.setattr(bootstrap_fit, "MAX_DRAWN", 160)
    sizes = np.logspace(7, 9, 8)
    points = ScalingPoints(sizes, sizes * 20, 9 - np.log10(sizes) / 2)
    with pytest.raises(ConfigError, match="resamples is 21 for 8 points: give at most 20, or fewer points"):
        make(points, resamples=21)
    with pytest.raises(TypeError):  # the fit is called, which is taken away here
        make(points, resamples=20)
