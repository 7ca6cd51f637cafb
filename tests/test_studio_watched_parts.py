"""Parts of the Studio that watch, keep and show: versions, open runs, curves made ahead, steps under way, "
"settings of sweeps."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from starlette.requests import Request

from firsthand.agent import Agent
from firsthand.benchmark import NamedSetting
from firsthand.errors import ConfigError, UnknownName
from firsthand.patterns.reply import reply
from firsthand.providers.scripted import Scripted
from firsthand.rollout import Place
from firsthand.runs import store
from firsthand.runs.index import INDEX, RunInfo, files_of
from firsthand.runs.run_names import DATABASE
from firsthand.runs.track import Track
from firsthand.studio import demo_home as demo
from firsthand.studio import open_runs
from firsthand.studio.incoming_traces import IncomingTraces
from firsthand.studio.live_events import _mark, files_of_index, mark_of, marks_of, version_of
from firsthand.studio.open_runs import OpenRuns, _identity
from firsthand.studio.regression_test import as_regression_test
from firsthand.studio.rendering import STATIC, _shown, address, asset, is_part, json_answer, part, render
from firsthand.studio.run_list import RunPage, _fulfils, earlier_run, run_page
from firsthand.studio.sweep_facts import Importance, _correlation, _correlation_ratio, axes_of, importances, ranked
from firsthand.studio.task_collection import CollectedTask, TaskCollection
from firsthand.studio.typed_filter import Term
from firsthand.studio.views import curve_views
from firsthand.studio.views.curve_views import KeptCurves
from firsthand.studio.views.run_views import KeptBoards, UnderWay, under_way_of
from firsthand.task import Task
from firsthand.trace import Event
from studio_page_outline import asked
from studio_small_home import entered
from studio_varied_home import RUNS, attempt, write_runs, write_traces


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched")
    write_runs(folder)
    write_traces(folder)
    return folder


def test_a_version_holds_files_commits_and_status(home: Path, tmp_path: Path) -> None:
    runs, traces = OpenRuns(home), IncomingTraces(home)
    second, first = (info.id for info in runs.infos())
    run = runs.get(first)
    assert version_of(f"run:{first}", runs) == f"{files_of(run.path)} {run.database.version} {run.status}"
    folder = home / "runs"
    stats = [(folder / name).stat() for name in (INDEX, f"{INDEX}-wal") if (folder / name).exists()]
    assert files_of_index(folder) == " ".join(f"{each.st_size}@{each.st_mtime_ns}" for each in stats) != ""
    assert version_of("runs", runs) == f"{files_of_index(folder)} {folder.stat().st_mtime_ns}"
    assert version_of("traces", runs, traces) == traces.version and version_of("traces", runs) == ""
    assert [version_of(topic, runs, traces) for topic in ("run:none", "runs:x", "", f"xrun:{first}", "run:../x")] == [
        ""
    ] * 5
    nowhere = OpenRuns(tmp_path / "none")
    assert version_of("runs", nowhere) == "" and files_of_index(tmp_path / "none") == ""
    assert _mark("é") == hashlib.sha256("é".encode()).hexdigest()[:16] == _mark("é")[:16]
    topics = [f"run:{second}", "traces", f"run:{first}"]
    assert marks_of(topics, runs, traces).split() == [mark_of(each, runs, traces) for each in topics]
    assert marks_of(["traces"], runs) == _mark("") and marks_of([], runs) == ""
    runs.close()


def test_runs_stay_open_by_id_and_are_opened_anew_once_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [store.create(tmp_path, {"n": n}, f"r{n}") for n in range(3)]
    for each in ids:
        each.close()
    a, b, c = (each.id for each in ids)
    monkeypatch.setattr(open_runs, "MOST_OPEN", 2)
    runs = OpenRuns(tmp_path)
    first = runs.get(a)
    stat = (first.path / DATABASE).stat()
    assert _identity(first.path) == (stat.st_dev, stat.st_ino) and _identity(tmp_path / "none") == (0, 0)
    assert runs.several([b, a]) == [runs.get(b), first] and list(runs._open) == [a, b]
    last = runs.get("last")
    assert last.id == c and list(runs._open) == [b, c] and runs.get(c) is last
    shutil.copytree(last.path, tmp_path / "copy")
    last.path.rename(tmp_path / "old")
    (tmp_path / "copy").rename(last.path)
    again = runs.get(c)
    assert again is not last and runs.get(c) is again and list(runs._open) == [b, c]
    for bad in ("a/b", "a\\b", ".a", "a\0", "/"):
        with pytest.raises(UnknownName) as told:
            runs.get(bad + "x" * 80)
        assert str(told.value) == f"no run {(bad + 'x' * 80)[:80]!r}"
    closed = list(runs._open.values())
    runs.close()
    assert runs._open == {} and runs.get(b) is not closed[0][1]
    runs.close()


def test_curves_are_made_ahead_for_the_newest_long_runs_that_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve_views, "AHEAD_AFTER_S", 0.0)
    monkeypatch.setattr(curve_views, "MAX_AHEAD", 2)
    kept, runs = KeptCurves(), OpenRuns(tmp_path)
    ids = []
    for n in range(3):
        with store.create(tmp_path, {}, f"r{n}") as run, Track(run) as track:
            track.log({name: float(n) for name in ("a", "b", "c", "d", "e")}, step=1)
        ids.append(run.id)
    infos = [RunInfo(id, tmp_path / id, status=status, num_steps=steps) for id, status, steps in (
        ("short", "done", 9_999), ("live", "running", 10_000), (ids[2], "done", 10_000), (ids[0], "interrupted", 10_001),
        (ids[1], "done", 20_000))]  # fmt: skip
    started: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(kept, "_make_ahead", lambda *given: started.append(given))
        for _ in range(2):
            kept.ahead(infos, runs)
        kept.ahead(infos[:2], runs)
        kept.ahead(infos[2:3], runs)
        assert [given for given, _ in started] == [[ids[2], ids[0]]] and started[0][1] is runs
        kept.ahead(infos[4:], runs)
        assert [given for given, _ in started][1:] == [[ids[1]]]
    kept._make_ahead(["none", ids[0], ids[2]], runs)
    assert [(key[0], key[1], key[2], key[3]) for key in kept._kept] == [  # type: ignore[misc]
        (runs.get(id).path, name, 500, frozenset()) for id in (ids[0], ids[2]) for name in ("a", "b", "c", "d")
    ]
    failed: Future[bytes] = Future()
    failed.set_exception(CancelledError())
    good: Future[bytes] = Future()
    good.set_result(b"")
    kept._kept = {("f",): failed, ("g",): good}
    kept._forget_failed(("f",), failed)
    kept._forget_failed(("g",), good)
    kept._forget_failed(("gone",), failed)
    assert list(kept._kept) == [("g",)]
    kept.close()
    kept._make_ahead([ids[1]], runs)
    assert list(kept._kept) == [("g",)], "nothing is made once it is closed"
    runs.close()


def test_attempts_under_way_have_their_steps_since_they_began_last(tmp_path: Path) -> None:
    agents = [Agent(name, Scripted(["x"], name=f"scripted:{name}"), reply) for name in ("ann", "bob")]
    places = [Place(agent, NamedSetting("quiz"), Task("t", "Q"), epoch) for epoch, agent in enumerate(agents)]
    with store.create(tmp_path, {}, "going") as run:
        assert under_way_of(run) == []
        with run.working():
            for place in (places[1], places[0]):
                run.feed.started(place)
            for place in (places[1], places[0]):
                run.feed.add(place.id, Event("limit", 1.5, {"limit": "tokens", "who": place.agent.name}))
            run.feed.started(places[1])
            run.feed.add("of an attempt whose beginning is not in the feed", Event("limit", 1.5, {"limit": "calls"}))
            run.feed.flush()
            found = under_way_of(run)
            titles = {place.id: f"quiz / t / {place.agent.name} / epoch {place.epoch}" for place in places}
            ann, bob = (place.id for place in places)
            began = {step.place: step.at for step in reversed(run.feed.under_way())}
            assert [(each.place, each.title) for each in found] == [(ann, titles[ann]), (bob, titles[bob])]
            assert found[1] == UnderWay(bob, titles[bob], began[bob], ()), "what was said before it began again is gone"
            assert found[0] == UnderWay(ann, titles[ann], began[ann], ('  limit {"limit": "tokens", "who": "ann"}',))
            for number in range(201):
                run.feed.add(bob, Event("limit", 2.0, {"n": number}))
            run.feed.flush()
            with entered(tmp_path) as client:
                page, status = asked(client, f"+/runs/{run.id}/under-way", {})
                lines = " ".join(f'limit {{"n": {number}}}' for number in range(1, 201))
                assert (page, status) == (
                    f'Under way {titles[ann]} 1 step, last: limit {{"limit": "tokens", "who": "ann"}} limit '
                    f'{{"limit": "tokens", "who": "ann"}} {titles[bob]} 201 steps, last: limit {{"n": 200}} 1 '
                    f"step before these {lines}",
                    200,
                )
        assert under_way_of(run) == []


def test_boards_are_kept_until_their_run_has_changed(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "a") as one, store.create(tmp_path, {}, "b") as two:
        one.append(attempt(one, 0, RUNS["first"][0]))
        kept = KeptBoards(most=1)
        assert kept.of(two) == ([], [])
        first = kept.of(one)
        assert first[0][0].rows[0].agent == "ann" and kept.of(one) is first and list(kept._kept) == [one.id]
        one.append(attempt(one, 1, RUNS["first"][1]))
        second = kept.of(one)
        assert second is not first and kept.of(one) is second
        trace = one.trace("p0")
        one.add_score(trace, 1, "late", "judge", trace.scores[0])
        assert kept.of(one) is not second


def test_settings_are_ranked_by_how_they_go_with_the_result() -> None:
    configs = [{"lr": 0.1, "opt": "a", "seed": 1}, {"lr": 0.01, "opt": "b", "seed": 1}, {"lr": 0.001, "opt": "a", "seed": 1},
               {"opt": "b", "seed": 1, "extra": [1]}, {"lr": 1.0, "seed": 1}]  # fmt: skip
    results = [{"loss": 4.0}, {"loss": 3.0}, {"loss": 1.0}, {"loss": 2.0, "acc": 0.5}, {}]
    axes = axes_of(configs, results)
    assert axes == [
        {"name": "lr", "is_setting": True, "kind": "number", "log": True, "values": [0.1, 0.01, 0.001, None, 1.0]},
        {"name": "opt", "is_setting": True, "kind": "word", "log": False, "values": ["a", "b", "a", "b", None]},
        {"name": "loss", "is_setting": False, "kind": "number", "log": False, "values": [4.0, 3.0, 1.0, 2.0, None]},
        {"name": "acc", "is_setting": False, "kind": "number", "log": False, "values": [None, None, None, 0.5, None]},
    ]
    assert importances(axes, "loss") == [
        Importance("lr", "rank correlation", 1.0, 1.0, 3), Importance("opt", "correlation ratio", 0.0, 0.0, 4),
    ]  # fmt: skip
    assert importances(axes, "acc") == importances(axes, "lr") == importances(axes, "none") == []
    assert _correlation([1, 2, 3], [3, 2, 1]) == -1 and _correlation([1, 2, 4], [2, 2, 2]) == 0
    assert _correlation([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5) and ranked([3, 1, 3, 2]) == [3.5, 1, 3.5, 2]
    assert _correlation_ratio(["a", "a", "b"], [1, 2, 3]) == pytest.approx((1.5 / 2) ** 0.5)
    assert _correlation_ratio(["a", "b"], [2, 2]) == 0
    tied = [{"name": n, "is_setting": True, "kind": "number", "log": False, "values": v} for n, v in
            (("b", [1, 2, 3]), ("a", [3, 2, 1]), ("c", [1, 3, 2]))]  # fmt: skip
    result = {"name": "r", "is_setting": False, "kind": "number", "log": False, "values": [1, 2, 3]}
    assert [(each.setting, each.direction) for each in importances([*tied, result], "r")] == [
        ("a", -1),
        ("b", 1),
        ("c", 0.5),
    ]
    logs = axes_of([{"x": 1, "y": 1, "z": -1, "w": True}, {"x": 100, "y": 99.9, "z": 1000, "w": False}], [])
    assert [(each["name"], each["log"], each["kind"]) for each in logs] == [
        ("x", True, "number"), ("y", False, "number"), ("z", False, "number"), ("w", False, "word"),
    ]  # fmt: skip
    many = axes_of([{f"s{n}": n + m for n in range(20)} for m in range(2)], [{f"r{n}": 1.0 for n in range(3)}] * 2)
    assert [each["name"] for each in many] == [*(f"s{n}" for n in range(16)), "r0"]


def test_runs_are_found_by_fields_flags_words_and_notes() -> None:
    def info(id: str, at: str, **more: Any) -> RunInfo:
        return RunInfo(id, Path(id), created_at=at, status=more.pop("status", "done"), **more)

    infos = [info("a", "1", tokens=30, num_errors=2, command=("firsthand", "run")), info("b", "3", num_steps=7,
    problem="Gone"),
             info("c", "2", status="running", num_traces=5, tokens=4)]  # fmt: skip

    def found(text: str, sort: str = "") -> str:
        return "".join(each.id for each in run_page(infos, text, sort, notes={"c": "Odd one", "a": ""}).rows)

    for text, ids in {
        "": "bca", "id=a": "a", "has:error": "a", "-has:error": "bc", "has:curves": "b", "has:problem": "b", "has:score": "",
        "is:running": "c", "is:done": "ba", "is:interrupted": "", "has:note": "c", "-has:note": "ba", "note:odd": "c",
        "-note:odd": "ba", "odd": "c", "-odd": "ba", "command:run": "a", "tokens>4": "a", "tokens>=4": "ca",
        "attempts=5": "c",
        "errors<1": "bc", "steps:7": "b", "status:run": "c",
    }.items():  # fmt: skip
        assert found(text) == ids, text
    assert [found("", sort) for sort in ("tokens", "-tokens", "id", "-id", "created", "score")] == [
        "bca",
        "acb",
        "abc",
        "cba",
        "acb",
        "bca",
    ]
    assert _fulfils(infos[0], Term("has", ":", "note", True), "") and not _fulfils(
        infos[0], Term("has", ":", "note"), ""
    )
    page = run_page(infos, "", "", 1, 1)
    assert ([each.id for each in page.rows], page.total, page.start, page.next_start) == (["c"], 3, 1, 2)
    assert run_page(infos, "", "", -2, 1).start == 0 and page.facets["status"] == [("done", 2), ("running", 1)]
    assert [RunPage(rows, 3, 1, {}).next_start for rows in ((infos[0],), tuple(infos[:2]), ())] == [2, None, None]
    with pytest.raises(ConfigError) as told:
        run_page(infos, "", "-model")
    assert str(told.value) == (
        "runs cannot be sorted by '-model': they can by id, status, score, tokens, errors, attempts, steps, created"
    )
    assert earlier_run(infos[0], infos) is None


def test_addresses_assets_and_answers_hold_any_text() -> None:
    assert (
        address("/a", b="x y", c="", d=None, e=False, f="0", g="é") == "/a?b=x+y&f=0&g=%C3%A9" and address("/a") == "/a"
    )
    assert part("a/b é?") == "a%2Fb%20%C3%A9%3F" and part("\ud800") == "%ED%A0%80" and part(5) == "5"
    digest = hashlib.sha256((STATIC / "mark.svg").read_bytes()).hexdigest()[:12]
    assert asset("mark.svg") == f"/static/{digest}/mark.svg"
    answer = json_answer({"a": "\ud800é"})
    assert (bytes(answer.body), answer.headers["content-type"]) == (b'{"a": "\\ud800\\u00e9"}', "application/json")
    with pytest.raises(ValueError):
        json_answer({"a": float("nan")})
    assert (
        _shown(Markup("\u202e")) == "\u202e"
        and _shown(7) == 7
        and "\u202e" not in _shown("a\u202eb")
        and _shown("a") == "a"
    )
    shown, marked = '<p class="problem" role="alert">{}</p>', "<b>\u202e"
    for given, text in (
        ("<b>\u202e & \"'", r"&lt;b&gt;\u202e &amp; &#34;&#39;"), (Markup(marked), marked), (0, "0"), (None, "None"),
    ):  # fmt: skip
        assert render("parts/problem", problem=given) == shown.format(text)
    with pytest.raises(UndefinedError):
        render("parts/problem")
    assert render("parts/problem", problem="<b>\u202e") == render("parts/problem", problem="<b>" + _shown("\u202e"))
    for value, found in ((b"true", True), (b"True", False), (b"", False)):
        assert is_part(Request({"type": "http", "headers": [(b"hx-request", value)]})) is found


def test_a_data_set_becomes_a_test_with_the_bar_and_answer_of_each_task() -> None:
    def made(*tasks: tuple[str, str, Any, float | None]) -> str:
        return as_regression_test(TaskCollection("s", tuple(
            CollectedTask(Task(id, prompt, secret=secret), "quiz", "r", "p", "", score) for id, prompt, secret,
            score in tasks
        ), 1))  # fmt: skip

    text = made(("t1", 'Q "é"?', {"answer": " -1,200.50 "}, 0.25), ("t2", "R?", {"answer": 7}, None))
    assert text[text.index("TASKS = ") : text.index('"""Name')] == (
        "TASKS = [\n    ('1 t1', 'Q \"\\xe9\"?', [], {'answers': [' -1,200.50 ']}, 'flexible', 0.25),\n"
        "    ('2 t2', 'R?', [], {'answers': ['7']}, 'flexible', 1.0),\n]\n"
    )
    for answer, scorer in (
        ("1.", "contains_words"), ("1 2", "contains_words"), ("xy", "contains_words"), ("1e3", "contains_words"),
        ("x", "normalised"), ("-", "normalised"), ("(A)", "normalised"), ("1", "flexible"),
    ):  # fmt: skip
        assert f"{{'answers': ['{answer}']}}, '{scorer}', 1.0)" in made(("t", "Q", {"answer": answer}, 1.0)), answer
    for secret in ({}, {"answer": ""}):
        with pytest.raises(ConfigError, match="no pytest file can judge this data set, as task t has no reference"):
            made(("t", "Q", secret, 0.0))


def test_the_demo_is_unpacked_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "demo.zip"
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("runs/one/run.sqlite", "x")
        file.writestr("runs/two/a.txt", "y")
        file.writestr("ABOUT.txt", "z")
    monkeypatch.setattr(demo, "PACKED", packed)
    with demo.demo_home() as folder:
        assert sorted(str(each.relative_to(folder)) for each in folder.rglob("*")) == [
            "ABOUT.txt", "runs", "runs/one", "runs/one/lock", "runs/one/run.sqlite", "runs/two", "runs/two/a.txt",
            "runs/two/lock",
        ]  # fmt: skip
        assert folder.name.startswith("firsthand-demo-") and (folder / "runs/two/lock").read_bytes() == b""
    assert not folder.exists()


def test_files_of_runs_are_listed_with_the_runs_that_share_them(tmp_path: Path) -> None:
    names, digests = {}, []
    for number, text in enumerate(("weights", "weights", "others")):
        file = tmp_path / f"model{number}.bin"
        file.write_text(text)
        with store.create(tmp_path, {"n": number}, f"tr{number}") as run, Track(run) as track:
            track.log({"loss": 1.0}, step=3)
            digests.append(track.artifact(file, step=None if number else 7).sha256[:16])
        names[run.id] = f"TR{number}"
    assert digests[0] == digests[1] == hashlib.sha256(b"weights").hexdigest()[:16] != digests[2]
    ids = {name: id for id, name in names.items()}
    with entered(tmp_path) as client:
        page, status = asked(client, "/curves?run=TR2&run=TR1&run=TR0", {id: name for id, name in names.items()})
        files = (
            f"Files file run step bytes SHA-256 model2.bin TR2 6 {digests[2]} model1.bin TR1 7 {digests[1]}the "
            f"same file as in TR0 "
            f"model0.bin TR0 7 7 {digests[0]}first kept here; also in TR1"
        )
        assert status == 200 and page.endswith(files)
        assert asked(client, "/curves?run=TR1", names)[0].endswith(
            f"Files file run step bytes SHA-256 model1.bin TR1 7 {digests[1]}"
        )
        many = "&".join(f"run=r{number}" for number in range(41))
        for path, says, status in (
            (f"/curves?{many}", "41 runs are too many for one plot: choose 40 at most", 400),
            (f"/curves.json?run={ids['TR0']}&with=zz&with=at&with=b", "with is 'b': it is one of at, means", 400),
            ("/curves?run=none", "no run 'none'; `firsthand runs` shows all", 404),
            (f"/curves.json?run={ids['TR0']}&points=x", "points is 'x': a whole number was expected", 400),
        ):  # fmt: skip
            assert asked(client, path, names) == (f"Problem {says} All runs(/)", status)
        twice = "&".join([f"run={ids['TR0']}"] * 41)
        assert asked(client, f"/curves?{twice}", names)[1] == 200, "one run, however often it is named"


@pytest.mark.slow
def test_a_sweep_whose_last_values_are_no_numbers_is_shown_without_a_result(tmp_path: Path) -> None:
    ids, nan = {}, float("nan")
    for number, values in enumerate(({"acc": nan}, {"acc": nan}, {"acc": nan}, {"acc": 2.0, "score": 1.0})):
        with store.create(tmp_path, {"lr": number}, f"t{number}") as run, Track(run) as track:
            track.log(values, step=1)
        ids[run.id] = f"TR{number}"
    with entered(tmp_path) as client:
        for last, results in (("TR2", "Show"), ("TR3", "*acc score Show"), ("TR3&target=score", "acc *score Show")):
            page, status = asked(client, f"/curves?run=TR0&run=TR1&run={last}", ids)
            ends = f"result target: {results} ] What differs setting TR0 TR1 {last[:3]} lr 0 1 {last[2]}"
            assert status == 200 and page.endswith(ends), last
