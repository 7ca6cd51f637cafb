"""Settings and results of several training runs: axes, and which settings go with the result."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from starlette.testclient import TestClient

from firsthand.runs import store
from firsthand.runs.track import Track
from firsthand.studio.access import Access
from firsthand.studio.studio_app import create_app
from firsthand.studio.sweep_facts import axes_of, importances, ranked

PORT = 8128
CONFIGS = [
    {"lr": 1e-4, "width": 8, "kind": "a", "same": 1, "parts": [1]},
    {"lr": 1e-3, "width": 16, "kind": "b", "same": 1, "parts": [2]},
    {"lr": 1e-2, "width": 8, "kind": "a", "same": 1, "parts": [3]},
    {"lr": 1e-1, "width": 32, "kind": "b", "same": 1, "parts": [4]},
]
RESULTS = [{"loss": 4.0}, {"loss": 1.0}, {"loss": 3.0}, {"loss": math.inf}]


def test_axes_are_settings_that_differ_then_results() -> None:
    axes = axes_of(CONFIGS, RESULTS)
    assert [(axis["name"], axis["kind"], axis["log"]) for axis in axes] == [
        ("lr", "number", True), ("width", "number", False), ("kind", "word", False), ("loss", "number", False),
    ]  # fmt: skip
    assert axes[-1]["values"] == [4.0, 1.0, 3.0, None]


def test_a_setting_that_orders_the_result_is_the_strongest() -> None:
    axes = axes_of(CONFIGS, [{"loss": 4.0}, {"loss": 3.0}, {"loss": 2.0}, {"loss": 1.0}])
    found = importances(axes, "loss")
    assert (
        found[0].setting == "lr" and found[0].direction == pytest.approx(-1) and found[0].strength == pytest.approx(1)
    )
    # ranks of the losses are 4 3 2 1; the means of a and b are 3 and 2, so 1 of 5 parts of the variance lies between them
    kind = next(each for each in found if each.setting == "kind")
    assert kind.strength == pytest.approx(math.sqrt(1 / 5)) and kind.direction == 0
    width = next(each for each in found if each.setting == "width")
    assert width.direction == pytest.approx(stats.spearmanr([8, 16, 8, 32], [4, 3, 2, 1]).statistic)


def test_ranks_are_scipys_with_ties() -> None:
    values = [3.0, 1.0, 3.0, 2.0, 3.0, 1.0]
    np.testing.assert_array_equal(ranked(values), stats.rankdata(values))


def test_few_runs_and_constant_results_say_nothing() -> None:
    assert importances(axes_of(CONFIGS[:2], RESULTS[:2]), "loss") == []
    equal = importances(axes_of(CONFIGS, [{"loss": 1.0}] * 4), "loss")
    assert {each.strength for each in equal} == {0.0}
    assert importances(axes_of(CONFIGS, RESULTS), "other") == []


@pytest.mark.slow
def test_the_page_ranks_settings_and_names_files_that_runs_share(tmp_path: Path) -> None:
    access = Access()
    access.port = PORT
    (tmp_path / "data.bin").write_bytes(b"data")
    ids = []
    for number, config in enumerate(CONFIGS):
        with store.create(tmp_path, config, f"fit{number}") as run:
            track = Track(run)
            track.log({"loss": 9.0}, step=0)
            track.log({"loss": 4.0 - number, "acc": 0.5}, step=1)
            if number in (1, 2):
                track.artifact(tmp_path / "data.bin")
            track.flush()
            assert track.last("loss") == 4.0 - number and track.last("other") is None
            ids.append(run.id)
    with TestClient(create_app(tmp_path, access), base_url=f"http://127.0.0.1:{PORT}") as client:
        client.cookies.set(access.cookie, access.exchange(access.new_code()) or "")
        page = client.get("/curves", params={"run": ids}).text
        rank = page.partition("Settings by how strongly")[2]
        assert rank.index(">lr<") < rank.index(">width<") < rank.index(">kind<") and "-1.00" in rank
        assert f"also in {ids[2]}" in page and f"the same file as in {ids[1]}" in page
        assert (
            "group by" in page and "Settings by how strongly" not in client.get("/curves", params={"run": ids[:2]}).text
        )
        assert "last acc over" in client.get("/curves", params={"run": ids, "target": "acc"}).text
