"""What an exported run says of what it could not take in: attempts over the limit, figures that cannot be computed."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from firsthand.runs import store
from firsthand.runs.track import Track
from firsthand.studio import run_export
from firsthand.studio.run_export import exported
from firsthand.task import Task
from studio_small_home import attempt


def shown(text: str) -> list[str]:
    return re.findall(r'<details id="a\d+".*?quiz / (t\d)', text, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_attempts_over_the_limit_are_counted_as_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(run_export, "MAX_ATTEMPTS", limit)
    with store.create(tmp_path, {}, "three", command=["firsthand"]) as run:
        run.add_tasks("quiz", [Task(f"t{n}", f"Ask {n}?") for n in range(3)])
        for at, task in enumerate(("t2", "t0", "t1")):
            attempt(run, at, "ann", task, 1.0)
        text, count, left = exported(run)
        some, some_count, some_left = exported(run, "task:t1")
    assert (count, left) == (min(3, limit), max(0, 3 - limit))
    assert shown(text) == ["t0", "t1", "t2"][:limit]
    assert re.findall(r">([^>]+) more are left out\.", text) == {1: ["2"], 2: ["1"]}.get(limit, [])
    assert (some_count, some_left, shown(some)) == (1, 0, ["t1"]) and "left out" not in some


def test_a_board_stands_beside_the_sentence_on_figures_that_cannot_be_computed(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "odd", command=["firsthand"], figures={"quiz": "no_such_thing"}) as run:
        run.add_tasks("quiz", [Task("t0", "Ask?")])
        empty, count, left = exported(run)
        attempt(run, 0, "ann", "t0", 1.0)
        text, _, _ = exported(run)
    says = "quiz has figures of its own, which cannot be computed here: "
    for page in (empty, text):
        (problem,) = re.findall(r'<p class="problem">(.*?)</p>', page, re.DOTALL)
        assert problem.startswith(says) and "no_such_thing" in problem
    assert (count, left, shown(empty), shown(text)) == (0, 0, [], ["t0"])
    assert text.index("<table") < text.index(says) < text.index('<details id="a1"'), "the board is made"


def test_the_caption_of_a_curve_tells_its_last_value_though_it_is_not_finite(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "diverged", command=["firsthand"]) as run:
        track = Track(run)
        for step in range(1, 6):
            loss = 2.0 - step / 4 if step < 4 else math.nan
            track.log(
                {"loss": loss, "norm": math.inf if step > 2 else 1.0, "never": math.nan, "sound": step}, step=step
            )
        track.flush()
        text, _, _ = exported(run)
    captions = re.findall(r"<figcaption>(.*?)</figcaption><svg[^>]*>(.*?)</svg>", text)
    assert [caption for caption, _ in captions] == [
        "loss: nan at step 5, from 1.25 to 1.75", "never: nan at step 5", "norm: inf at step 5, from 1 to 1",
        "sound: 5 at step 5, from 1 to 5",
    ]  # fmt: skip
    assert [drawn.count("polyline") for _, drawn in captions] == [1, 0, 1, 1]
