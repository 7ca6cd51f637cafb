"""A score that several people give an attempt: the mean of what each said last, in the run as in the queue."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError
from firsthand.runs import store
from firsthand.runs.run_folder import Run
from firsthand.studio.annotation_queue import Queues
from firsthand.studio.studio_store import SqliteStore
from firsthand.studio.views.attempt_views import MAX_PEOPLE, add_note, rated
from firsthand.trace import Score
from studio_small_home import OWN, entered, ids, write_home


def note(run: Run, place: str, name: str = "note.good") -> tuple[float, Any]:
    (found,) = (each for each in run.trace(place).attempt_scores if each.name == name)
    return found.value, found.detail


def test_the_run_keeps_the_mean_of_all_raters_of_a_queue_and_of_those_of_another_with_its_score(tmp_path: Path) -> None:
    home = write_home(tmp_path)
    _, id = ids(home)
    with entered(home) as client, store.open_run(id, home) as run:

        def rate(queue: str, who: str, value: str, version: int = 0, text: str = "") -> None:
            form = {"value": value, "version": str(version), "as": who, "text": text}
            assert (
                client.post(f"/queues/{queue}/items/p0", data=form, headers=OWN, follow_redirects=False).status_code
                == 303
            )

        for queue in ("q", "r"):
            client.post("/queues", data={"name": queue, "run": id, "score": "good", "raters": "2"}, headers=OWN)
        rate("q", "anna", "1", text="Clear")
        assert note(run, "p0") == (1.0, {"by": "human:anna", "text": "Clear"})
        rate("q", "ed", "0")
        ratings = {"human:anna": {"value": 1.0, "text": "Clear"}, "human:ed": {"value": 0.0}}
        both = {"by": "human:anna, human:ed", "text": "human:anna: Clear", "ratings": ratings}
        assert note(run, "p0") == (0.5, both)
        assert "human:anna: Clear" in client.get(f"/runs/{id}/attempts/p0").text
        rate("q", "anna", "0.5", 1)
        assert note(run, "p0") == (
            0.25,
            {"by": "human:anna, human:ed", "ratings": {"human:anna": {"value": 0.5}, "human:ed": {"value": 0.0}}},
        )
        rate("r", "bo", "1")
        assert note(run, "p0")[0] == 0.5 and note(run, "p0")[1]["by"] == "human:anna, human:ed, human:bo"
        add_note(run, run.trace("p0"), 1, "good", "0", "", by="human:bo")
        assert note(run, "p0")[0] == pytest.approx(0.5 / 3)
        add_note(run, run.trace("p0"), 1, "kind", "1", "", by="human:bo")
        assert note(run, "p0", "note.kind") == (1.0, {"by": "human:bo"}), "another score is one of its own"
        assert len(Queues(SqliteStore(home)).labels("q")) == 2


def test_people_who_rate_at_once_are_all_kept(tmp_path: Path) -> None:
    home = write_home(tmp_path)
    _, id = ids(home)
    with store.open_run(id, home) as run, store.open_run(id, home) as again:
        trace = run.trace("p0")
        gate = threading.Barrier(8)

        def rate(n: int) -> None:
            gate.wait()
            add_note((run, again)[n % 2], trace, 1, "good", str(n % 2), "", by=f"human:r{n}")

        threads = [threading.Thread(target=rate, args=(n,)) for n in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        value, detail = note(run, "p0")
        assert value == 0.5 and len(detail["ratings"]) == 8


def test_a_note_of_another_try_or_attempt_or_name_does_not_count(tmp_path: Path) -> None:
    home = write_home(tmp_path)
    _, id = ids(home)
    with store.open_run(id, home) as run:
        for place, number, name, by in (("p1", 1, "good", "x"), ("p0", 2, "good", "y"), ("p0", 1, "bad", "z")):
            add_note(run, run.trace(place), number, name, "1", "", by=f"human:{by}")
        add_note(run, run.trace("p0"), 1, "good", "0", "", by="human:ann")
        assert note(run, "p0") == (0.0, {"by": "human:ann"})


@pytest.mark.parametrize(
    ("detail", "people"),
    [
        ({"by": "human:ann"}, ["human:ann", "human:ed"]),
        ({"by": "human:ed", "text": "before"}, ["human:ed"]),
        ({"by": "person"}, ["human:ed"]),  # as versions before 0.23.0 named everybody
        ({"by": 3}, ["human:ed"]),
        ({}, ["human:ed"]),
        ({"by": "human:ann", "ratings": [1]}, ["human:ed"]),
        ({"ratings": {"human:a": {"value": 2}, "human:b": {"value": "x"}, "human:c": 3, "human:d": {}}}, ["human:ed"]),
        ({"ratings": {"human:a": {"value": -1}, "human:b": {"value": 0, "text": 3}}}, ["human:ed"]),
        (
            {"ratings": {"human:a": {"value": 0}, "human:b": {"value": 1}, "x": {"value": 1}}},
            ["human:a", "human:b", "human:ed"],
        ),
    ],
)
def test_a_note_of_an_older_version_or_of_anyone_counts_where_it_says_who_gave_it(
    detail: Any, people: list[str]
) -> None:
    made = rated("note.good", Score("note.good", 0.5, detail), "human:ed", 1.0, "Yes")
    assert made.detail["by"] == ", ".join(people) and made.detail["text"].endswith("Yes")
    assert list(made.detail.get("ratings", people)) == people


def test_a_score_has_so_many_people_at_most_and_each_may_change_theirs() -> None:
    last = rated("note.good", None, "human:0", 1.0, "")
    for number in range(1, MAX_PEOPLE):
        last = rated("note.good", last, f"human:{number}", 0.0, "")
    assert last.value == 1 / MAX_PEOPLE
    with pytest.raises(ConfigError, match=r"^50 people have scored this attempt as note.good: choose another name$"):
        rated("note.good", last, "human:more", 1.0, "")
    assert rated("note.good", last, "human:3", 1.0, "").value == 2 / MAX_PEOPLE


def test_words_without_a_label_are_not_kept_and_enter_presses_the_label_that_is_there(tmp_path: Path) -> None:
    home = write_home(tmp_path)
    _, id = ids(home)
    with entered(home) as client, store.open_run(id, home) as run:
        client.post("/queues", data={"name": "q", "run": id, "score": "good"}, headers=OWN)

        def default() -> str:
            """The value of the form's first button, which Enter in a field presses."""
            page = client.get("/queues/q/items/p0?as=ed").text
            found = re.search(r'<button[^>]* value="([^"]*)"', page[page.index('class="rate"') :])
            assert found is not None
            return found[1]

        assert default() == ""
        for form in ({"value": ""}, {}):
            refused = client.post(
                "/queues/q/items/p0", data={"version": "0", "as": "ed", "text": "Hm, <hm>", **form}, headers=OWN
            )
            assert refused.status_code == 400 and 'value="Hm, &lt;hm&gt;"' in refused.text
            assert "choose a label with them, 1 (no), 2 (partly), 3 (yes)." in refused.text
        assert not [each for each in run.trace("p0").attempt_scores if each.name == "note.good"]
        client.post("/queues/q/items/p0", data={"value": "0", "version": "0", "as": "ed"}, headers=OWN)
        assert default() == "0.0", "a no is a label"
        client.post("/queues/q/items/p0", data={"value": "1", "version": "1", "as": "ed"}, headers=OWN)
        assert default() == "1.0"
