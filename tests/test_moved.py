"""Modules that moved keep their old names until 0.10.0, with a warning."""

import ast
import importlib
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import firsthand
from firsthand import _moved
from firsthand.engine.core.engine_stats import Stats
from firsthand.engine.core.sequence import Request

ROOT = Path(firsthand.__file__).parent


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


def test_old_names_go_in_a_version_that_is_still_to_come() -> None:
    promised = set()
    for file in ROOT.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        promised |= set(re.findall(r"(?:goe?s? in|until) (\d+\.\d+\.\d+)", text))
    assert promised == {"0.10.0"}
    assert tuple(map(int, firsthand.__version__.split(".")[:3])) < (0, 10, 0), "remove the old names"
    with pytest.warns(DeprecationWarning, match="the old name goes in 0.10.0"):
        _moved.warn_renamed("a", "b")
    sys.modules.pop("firsthand.budget", None)
    with pytest.warns(DeprecationWarning, match="the old name goes in 0.10.0"):
        importlib.import_module("firsthand.budget")


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


@pytest.mark.slow
def test_renamed_names_are_found_with_a_warning() -> None:
    olds = [
        (path, node.args[1])
        for path in sorted(ROOT.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "old_names"
    ]
    assert len(olds) > 10
    for path, table in olds:
        module = importlib.import_module(".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
        for old, new in ast.literal_eval(table).items():
            with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
                found = getattr(module, old)
            there, _, name = new.rpartition(".")
            assert found is getattr(importlib.import_module(f"firsthand.{there}") if there else module, name)
        with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
            _ = module.no_such_name


def test_a_request_takes_its_owner_under_the_old_name() -> None:
    with pytest.warns(DeprecationWarning, match="owner"):
        assert Request((1,), run="client") == Request((1,), owner="client")


def test_pinned_prefixes_have_their_old_names() -> None:
    stats = Stats(**{field: 3 for field in Stats.__dataclass_fields__})
    with pytest.warns(DeprecationWarning, match="pinned_prefixes"):
        assert stats.holds == 3
    with pytest.warns(DeprecationWarning, match="pinned_blocks"):
        assert stats.held_blocks == 3
