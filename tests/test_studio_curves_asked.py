"""The page of curves: settings that only some runs have, the curves that it begins with, samples, and targets."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from firsthand.runs import store
from firsthand.runs.curve_envelope import Envelope
from firsthand.runs.track import Track
from firsthand.studio.views import curve_views
from firsthand.studio.views.curve_views import KeptCurves, curve_body, flat, last_values, points_of, shared_files
from studio_page_outline import outline
from studio_small_home import entered

CONFIGS: list[dict[str, Any]] = [
    {"lr": 0.1, "opt": {"name": "adam", "betas": {"one": 0.5}}, "same": 1, "none": None, "long": "x" * 90},
    {"lr": 0.1, "same": 1, "warm": 0, "opt": {"name": "adam"}},
    {"lr": 0.2, "same": 1, "opt": {"name": "sgd"}},
]
METRICS: list[dict[str, float]] = [
    {"acc": 0.5, "val_loss": 3.0},
    {"acc": 0.25, "val_loss": 2.0},
    {"acc": 0.75, "extra": 1.0},
]
Shown = tuple[TestClient, Path, list[str]]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Three runs of curves, which keep two files in common, and one of none."""
    home = tmp_path_factory.mktemp("curves")
    for number, text in enumerate(("weights", "others")):
        (home / f"file{number}").write_text(text)
    ids = []
    for number, (config, values) in enumerate(zip(CONFIGS, METRICS, strict=True)):
        with store.create(home, config, f"run{number}", command=["train"]) as run, Track(run) as track:
            for step in (1, 4):
                track.log(
                    {name: value + 4 - step for name, value in values.items()}, step=step, at=100.0 + 1.23456 * step
                )
            for step in range(3):
                track.text("said", f"text {number}{step}", step=step)
            for file in (1, 0, 0)[number:]:
                track.artifact(home / f"file{file}")
            ids.append(run.id)
    with store.create(home, {}, "bare", command=["train"]) as bare:
        ids.append(bare.id)
    with entered(home) as client:
        yield client, home, ids


def page_of(shown: Shown, which: str, query: str = "") -> str:
    client, _, ids = shown
    answer = client.get("/curves?" + "&".join(f"run={ids[int(n)]}" for n in which) + query)
    assert answer.status_code == 200
    return html.unescape(answer.text)


def facts_of(shown: Shown, which: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(re.findall(r'data-facts="(\{.*?\}\})"', page_of(shown, which))[0])
    return {str(shown[2].index(id)): facts for id, facts in found.items()}


def test_a_setting_that_only_some_runs_have_differs(shown: Shown) -> None:
    assert facts_of(shown, "01") == {"0": {"opt.betas.one": "0.5", "long": "x" * 80}, "1": {"warm": "0"}}
    assert facts_of(shown, "21") == {
        "2": {"lr": "0.2", "opt.name": "sgd"}, "1": {"lr": "0.1", "opt.name": "adam", "warm": "0"},
    }  # fmt: skip
    one = outline(page_of(shown, "0"))
    assert "Settings setting" in one and "same 1" in one and "group by" not in one, "of one run all are shown"
    two = outline(page_of(shown, "01"))
    assert (
        "What differs" in two and "same 1" not in two and "warm 0" in two and "nothing opt.betas.one long warm" in two
    )
    assert outline(page_of(shown, "00")) == one, "a run that is named twice is one"


def test_the_last_samples_and_the_files_of_each_run_are_shown(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, ids = shown
    monkeypatch.setattr(curve_views, "MAX_SAMPLES", 2)
    page = page_of(shown, "10")
    assert re.findall(r"text (\d\d)", page) == ["11", "12", "01", "02"]
    tracks = [(run, Track(run)) for run in (store.open_run(ids[n], shown[1]) for n in (2, 1, 0))]
    shared = shared_files(tracks)
    assert list(shared.values()) == [[ids[0], ids[1], ids[2]]], "in the order of the runs, and once each"
    assert shared_files(tracks[2:]) == {} and last_values(tracks[0][1]) == {"acc": 0.75, "extra": 1.0}
    for run, _ in tracks:
        run.close()


def test_the_result_is_the_loss_unless_another_is_asked_for_and_three_runs_are_needed(shown: Shown) -> None:
    def target(which: str, query: str = "") -> list[str]:
        return re.findall(r'data-target="([^"]*)"', page_of(shown, which, query))

    assert target("012") == target("210") == ["val_loss"] and target("012", "&target=acc") == ["acc"]
    assert target("01") == target("0") == [] and target("012", "&target=none") == ["none"]
    axes = json.loads(re.findall(r'data-axes="(\{.*?\]\})"', page_of(shown, "120"))[0])
    assert [shown[2].index(id) for id in axes["runs"]] == [1, 2, 0]
    named = {axis["name"]: axis["values"] for axis in axes["axes"]}
    assert (
        named["lr"] == [0.1, 0.2, 0.1] and named["acc"] == [0.25, 0.75, 0.5] and named["val_loss"] == [2.0, None, 3.0]
    )
    assert named["opt.name"] == ["adam", "sgd", "adam"] and "same" not in named
    bare = page_of(shown, "3")
    assert "The run has logged no numbers." in bare and "data-axes" not in bare


def test_the_page_begins_with_the_curves_that_its_script_asks_for(shown: Shown) -> None:
    client, _, ids = shown
    kept: KeptCurves = client.app.state.curves  # type: ignore[attr-defined]
    for query, parts in (
        ("", ()), ("&smooth=0.5", ("means",)), ("&smooth=-1", ()), ("&smooth=x", ()), ("&group=lr", ("means",)),
        ("&x=time", ("at",)), ("&x=step&smooth=0", ()), ("&x=time&group=lr", ("means", "at")),
    ):  # fmt: skip
        for which, columns, points in (("0", 750, 1500), ("02", 500, 1000)):
            if which == "02" and query not in ("", "&x=time&group=lr"):
                continue
            kept._kept.clear()
            page = page_of(shown, which, query)
            begun = [(key[0].name, *key[1:4]) for key in kept._kept]  # type: ignore[attr-defined]
            wanted = [(ids[int(n)], name, columns, frozenset(parts)) for n in which for name in sorted(METRICS[int(n)])]
            assert begun == wanted, (which, query)
            runs = "&".join(f"run={ids[int(n)]}" for n in which)
            asked = f"/curves.json?{runs}&points={points}" + "".join(f"&with={each}" for each in parts)
            assert f'href="{asked}"' in page and f'data-source="/curves.json?{runs}&points={points}"' in page
            before = dict(kept._kept)
            body = json.loads(client.get(asked).text)["curves"]
            assert dict(kept._kept) == before, "nothing is made twice"
            assert [(each["run"], each["name"]) for each in body] == [(id, name) for id, name, *_ in wanted]
            assert body[0]["steps"] == [1, 4] and body[0]["values"] == [3.5, 0.5]
            assert body[0].get("at") == ([101.235, 104.938] if "at" in parts else None)


def test_names_of_nested_settings_and_bodies_of_curves() -> None:
    assert flat({1: {2: 3, "a": {}}, "b": [1, {"c": 2}], "d": None}) == {"1.2": 3, "b": [1, {"c": 2}], "d": None}
    assert flat({}) == {} and flat(5) == {"": 5} and flat({"x": {"y": {"z": False}}}) == {"x.y.z": False}
    assert [points_of("abcd"[:count]) for count in range(5)] == [1500, 1500, 1500, 1000, 1000]
    values, means = (1.0, 2.0), (1.0, 1.5)
    curve = Envelope((3, 7), values, (0.0004, 1.2346), means)
    for parts, body in (
        ((), {}), (("at",), {"at": [0.0, 1.235]}), (("means",), {"means": means}),
        (("at", "means"), {"at": [0.0, 1.235], "means": means}),
    ):  # fmt: skip
        assert curve_body(curve, parts) == {"steps": (3, 7), "values": values, **body}
    assert curve_body(Envelope((3, 7), values, (), values), ("means",)) == {"steps": (3, 7), "values": values}


def test_the_curves_that_were_asked_for_last_are_kept_and_made_again_when_more_is_logged(tmp_path: Path) -> None:
    kept = KeptCurves(most=2)
    with store.create(tmp_path, {}, "r") as run, Track(run) as track:
        track.log({"a": 1.0, "b": 2.0, "c": 3.0}, step=0)
        track.flush()
        first = kept.begin(run, ["a", "b"], 10, ())
        assert kept.begin(run, ["b", "a"], 10, []) == first[::-1] and len(kept._kept) == 2, "as many as it may keep"
        again = kept.begin(run, ["a"], 11, ()), kept.begin(run, ["a"], 11, ["at"])
        assert [(key[1], key[2], key[3]) for key in kept._kept] == [
            ("a", 11, frozenset()),
            ("a", 11, frozenset({"at"})),
        ]
        assert "at" in json.loads(again[1][0].result()) and "at" not in json.loads(again[0][0].result())
        before = json.loads(first[0].result())["values"]
        track.log({"a": 5.0}, step=1)
        track.flush()
        (new,) = kept.begin(run, ["a"], 11, ())
        assert json.loads(new.result())["values"] == [1.0, 5.0] and before == [1.0]
    kept.close()


@pytest.mark.slow
@pytest.mark.parametrize("closes_at", ["the run", "its first curve", "before"])
def test_curves_made_ahead_end_with_the_studio_and_no_other_run_is_opened(tmp_path: Path, closes_at: str) -> None:
    kept, opened = KeptCurves(), list[str]()
    with store.create(tmp_path, {}, "r") as run, Track(run) as track:
        track.log({"a": 1.0, "b": 2.0}, step=0)
        track.flush()

        class Closing:
            """Runs that are all this one; the Studio ends while the first is opened."""

            def get(self, id: str) -> Any:
                opened.append(id)
                if closes_at == "the run":
                    kept.close()
                return run

        if closes_at == "before":
            kept.close()
        begun = kept.begin
        if closes_at == "its first curve":

            def begin(*given: Any) -> Any:
                made = begun(*given)
                made[0].result()
                kept.close()
                return made

            kept.begin = begin  # type: ignore[method-assign]
        kept._make_ahead(["one", "two", "three"], Closing())  # type: ignore[arg-type]
        assert opened == ["one"]
        assert [key[1] for key in kept._kept] == (["a"] if closes_at == "its first curve" else [])
    kept.close()
