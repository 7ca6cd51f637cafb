"""The tour: twenty steps from one file, in the terminal and as a page, with progress that survives."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from firsthand.errors import DataError, UnknownName
from firsthand.reading.reading_list import entry_named
from firsthand.reading.tour_page import tour_page
from firsthand.reading.tour_progress import mark_done, next_step, steps_done
from firsthand.reading.tour_steps import tour_step, tour_steps
from thorough import THOROUGH

DOCS = Path(__file__).parent.parent / "docs"
Cli = Callable[..., tuple[int, str, str]]
TRAINED = ("pretraining", "reinforcement", "curves")
"""They take a minute or two together."""
BARE = [step.id for step in tour_steps() if not step.weights and step.id not in TRAINED]
FETCHED = [step.id for step in tour_steps() if step.weights]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path))
    return tmp_path


def test_there_are_twenty_steps_each_with_an_entry_to_read_and_a_page() -> None:
    steps = tour_steps()
    assert [step.number for step in steps] == list(range(1, 21)) and len({step.id for step in steps}) == 20
    for step in steps:
        assert entry_named(step.next) and (DOCS / step.page).is_file(), step.id
        assert step.command.startswith("firsthand ") and step.idea.endswith(".") and step.look.endswith("."), step.id
        assert ("smollm2" in step.command or "papers ask" in step.command) == step.weights, step.id
        assert not step.after or tour_step(step.after).number < step.number
        assert not step.makes or step.makes in step.command


def test_the_page_of_the_tour_is_what_the_command_prints() -> None:
    assert (DOCS / "tour.md").read_text(encoding="utf-8") == tour_page(), "firsthand tour --page > docs/tour.md"


def test_a_step_is_named_by_number_or_id() -> None:
    assert tour_step("20") is tour_steps()[19] and tour_step("react").number == 8
    for wrong in ("0", "21", "²", "9" * 5000, ""):
        with pytest.raises(UnknownName):
            tour_step(wrong)
    with pytest.raises(UnknownName, match="did you mean 'react'"):
        tour_step("raect")


def test_the_first_step_that_is_not_done_is_next(home: Path) -> None:
    assert next_step(steps_done()) is tour_steps()[0]
    mark_done(tour_step("1"))
    mark_done(tour_step("3"))
    assert set(steps_done()) == {"tokens", "memory-plan"} and next_step(steps_done()) is tour_steps()[1]
    assert next_step(step.id for step in tour_steps()) is None


def test_damaged_progress_is_an_error_in_one_sentence(home: Path, cli: Cli) -> None:
    mark_done(tour_step("1"))
    file = home / "tour" / "progress.json"
    for text in ("", "[]", '{"done": 3}', '{"done": null}', "[" * 100_000):
        file.write_text(text)
        with pytest.raises(DataError, match="begins anew"):
            steps_done()
    code, _, err = cli("tour")
    assert code == 1 and "--reset" in err
    assert cli("tour", "--reset")[0] == 0 and not file.exists()


def test_without_a_terminal_a_step_is_printed_and_not_run(home: Path, cli: Cli) -> None:
    code, out, _ = cli("tour", "power")
    assert code == 0 and "firsthand power --disagreement" in out and "Next: " in out
    assert not (home / "tour").exists()
    code, out, _ = cli("tour")
    assert code == 0 and "`firsthand tour 1` is the next step" in out and "done" not in out
    assert json.loads(cli("tour", "--json")[1])[5]["id"] == "power"
    code, _, err = cli("tour", "--yes")
    assert code == 2 and "name one" in err


def test_a_step_that_needs_another_says_which(home: Path, cli: Cli) -> None:
    code, _, err = cli("tour", "curves", "--yes")
    assert code == 2 and "uses what step 13 made" in err and "curves" not in steps_done()


@pytest.mark.slow
def test_a_step_is_done_when_its_command_ends_well(home: Path, cli: Cli) -> None:
    assert cli("tour", "power", "--yes")[0] == 0
    assert list(steps_done()) == ["power"] and "done" in cli("tour")[1]
    mark_done(tour_step("reinforcement"))  # and nothing of it is there, so that the next command fails
    assert cli("tour", "curves", "--yes")[0] != 0 and "curves" not in steps_done()


whole = pytest.mark.skipif(not THOROUGH, reason="the whole tour is run by FIRSTHAND_THOROUGH alone")


@whole
@pytest.mark.slow
def test_the_steps_without_weights_run_one_after_the_other(home: Path, cli: Cli) -> None:
    for id in BARE:
        assert cli("tour", id, "--yes")[0] == 0, id
    assert list(steps_done()) == BARE


@whole
@pytest.mark.weights
def test_the_steps_with_weights_and_those_that_train_run(home: Path, cli: Cli, smollm2: Path) -> None:
    (home / "models").mkdir()
    (home / "models" / "smollm2").symlink_to(smollm2.parent)
    for id in ("index", *FETCHED, *TRAINED):
        assert cli("tour", id, "--yes")[0] == 0, id
