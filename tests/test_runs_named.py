"""Names by which runs are found, and the entries of their index."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from firsthand.errors import UnknownName
from firsthand.runs.index import Index, RunInfo
from firsthand.runs.run_names import _slug, find_run, run_ids
from firsthand.runs.score_totals import ScoreMean


def test_runs_are_named_by_parts_of_their_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for id in ("2026-01-01-0000-sums-aaaa", "2026-01-02-0000-sums-bbbb", "2026-01-02-0000-my-run-cccc",
               "2026-02-01-0000-conversation-dddd", ".hidden"):  # fmt: skip
        (tmp_path / "runs" / id).mkdir(parents=True)
        (tmp_path / "runs" / id / "run.sqlite").touch()
    (tmp_path / "runs" / "empty").mkdir()
    ids = run_ids(tmp_path)
    assert ids == ["2026-01-01-0000-sums-aaaa", "2026-01-02-0000-my-run-cccc", "2026-01-02-0000-sums-bbbb",
                   "2026-02-01-0000-conversation-dddd"]  # fmt: skip
    for marker, at in (("2026-01-02-0000-sums-bbbb", 5), ("2026-01-02-0000-my-run-cccc", 6)):
        (tmp_path / "runs" / marker / "lock").touch()
        os.utime(tmp_path / "runs" / marker / "lock", (at, at))
    found = {
        "last": ids[1], "2026-01-01": ids[0], "cccc": ids[1], "run-cccc": ids[1], "My run": ids[1], "2026-02": ids[3],
        f"runs/{ids[0]}": ids[0], f"runs/{ids[0]}/run.sqlite": ids[0], ids[3]: ids[3],
    }  # fmt: skip
    assert {ref: find_run(ref, tmp_path).name for ref in found} == found
    for ref, said in (
        ("2026-01", r"'2026-01' is the beginning of 3 runs \(2026-01-01-0000-sums-aaaa, .*\): give more of the id"),
        ("sums", r"2 runs are named 'sums' \(2026-01-01-0000-sums-aaaa, 2026-01-02-0000-sums-bbbb\): give the id of one"),
        ("runs/empty", "'runs/empty' is not the folder of a run: it has no run.sqlite"),
        ("zzzzzz", "no run 'zzzzzz'"), ("", "no run ''"), ("!", "no run '!'"),
    ):  # fmt: skip
        with pytest.raises(UnknownName, match=said):
            find_run(ref, tmp_path)
    for id in ids[:3]:
        (tmp_path / "runs" / id / "run.sqlite").unlink()
    assert find_run("last", tmp_path).name == ids[3], "a conversation where there is no other"
    (tmp_path / "runs" / ids[3] / "run.sqlite").unlink()
    with pytest.raises(UnknownName, match=r"there are no runs in .* yet"):
        find_run("last", tmp_path)
    assert [_slug(name) for name in ("A  b", "--", "x" * 50, "É1")] == ["a-b", "run", "x" * 40, "1"]


def test_an_entry_of_the_index_comes_back_whole_while_the_files_are_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "r1"
    folder.mkdir()
    (folder / "run.sqlite").write_text("abc")
    info = RunInfo(
        "r1", folder, "2026-01-01", "done", ("a", "b"), {"model": "m", "benchmarks": ["x", 2], "pattern": None}, 5, 1,
        None, 7, 99,
        (ScoreMean("b", "a", 0.5, 2),), 123.5, 3,
    )  # fmt: skip
    index = Index(tmp_path)
    assert index.entries() == {}
    index.keep([info, replace(info, id="r2", path=tmp_path / "r2", status="running", num_planned=None)])
    index.keep([replace(info, id="bad", problem="x")])
    entries = index.entries()
    assert entries.keys() == {"r1", "r2"} and entries["r1"].info == info == entries["r1"].current()
    assert (info.benchmarks, info.models, info.patterns) == (("x", "2"), ("m",), ())
    assert entries["r2"].current() == replace(entries["r2"].info, status="interrupted")
    assert entries["r2"].info.num_planned is None
    (folder / "run.sqlite").write_text("abcd")
    assert entries["r1"].current() is None and entries["r1"].files.startswith("3@")
    index.keep([], ["r1"])
    assert index.entries().keys() == {"r2"}
    problems: list[str] = []
    index.path.write_bytes(b"damaged" * 100)
    assert index.entries(problems.append) == {} and len(problems) == 1 and not index.path.exists()
    assert "cannot be read and is made anew" in problems[0]
