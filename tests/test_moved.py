"""Modules that moved keep their old names for one version, with a warning."""

import importlib
import subprocess
import sys
import warnings

import pytest

from firsthand import _moved


@pytest.mark.parametrize(
    "old, new",
    [
        ("firsthand.budget", "firsthand.loop.budget"),
        ("firsthand.evals.intervals", "firsthand.stats.intervals"),
        ("firsthand.providers.hub", "firsthand.hub.model_lookup"),
        ("firsthand.tools.sandbox", "firsthand.sandbox.sandbox"),
    ],
)
def test_an_old_name_gives_the_module_at_its_new_place_and_warns(old: str, new: str) -> None:
    sys.modules.pop(old, None)
    here = importlib.import_module(new)
    spec, loader, name = here.__spec__, here.__loader__, here.__name__
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {new}"):
        assert importlib.import_module(old) is here
    assert (here.__spec__, here.__loader__, here.__name__) == (spec, loader, name)


def test_every_moved_module_is_there() -> None:
    missing = [new for new in _moved.MOVED.values() if importlib.util.find_spec(f"firsthand.{new}") is None]
    assert missing == []


def test_a_name_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("firsthand.evals.nothing")


def test_nothing_of_ours_uses_an_old_name() -> None:
    code = "import firsthand, firsthand.cli, firsthand.rollout, firsthand.runs.store, firsthand.show.board"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_from_imports_of_a_moved_module_work_too() -> None:
    sys.modules.pop("firsthand.runs.otel", None)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        from firsthand.runs import otel  # type: ignore[attr-defined]

        assert otel.__name__ == "firsthand.telemetry.otlp_export"
    assert [warning.category for warning in seen] == [DeprecationWarning]


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("firsthand.patterns.parts.thoughts", "Ask", "ThoughtRequest"),
        ("firsthand.loop.approval", "Verdict", "Permission"),
        ("firsthand.benchmark", "Verdict", "ScorerResult"),
    ],
)
def test_a_renamed_name_is_there_for_one_version_with_a_warning(module: str, old: str, new: str) -> None:
    home = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=f"{module}.{old} is {new} now"):
        assert getattr(home, old) is getattr(home, new)
    with pytest.raises(AttributeError):
        home.no_such_name  # noqa: B018
