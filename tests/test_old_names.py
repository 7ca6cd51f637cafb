"""Classes and functions of the benchmarks, scorers and bridges that were renamed keep their old names for one version."""

import ast
import importlib
from pathlib import Path

import pytest

import firsthand

ROOT = Path(firsthand.__file__).parent
FILES = [path for room in ("benchmarks", "scorers", "bridges") for path in sorted((ROOT / room).rglob("*.py"))]
OLD_NAMES = [
    (".".join(path.relative_to(ROOT.parent).with_suffix("").parts), ast.literal_eval(node.args[1]))
    for path in FILES
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "old_names"
]


@pytest.mark.parametrize(("name", "renamed"), OLD_NAMES)
def test_an_old_name_gives_the_renamed_thing_and_warns(name: str, renamed: dict[str, str]) -> None:
    module = importlib.import_module(name)
    for old, new in renamed.items():
        with pytest.warns(DeprecationWarning, match=f"{name}.{old} is now {new}"):
            assert getattr(module, old) is getattr(module, new)
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = module.no_such_name


def test_the_renamed_names_are_many() -> None:
    assert len(OLD_NAMES) > 15


def test_the_package_shows_its_public_names_and_nothing_else() -> None:
    import firsthand

    assert dir(firsthand) == sorted([*firsthand.__all__, "__version__"])
    assert all(getattr(firsthand, name) is not None for name in firsthand.__all__)
    with pytest.warns(DeprecationWarning, match="run_sync"):
        assert firsthand.run is firsthand.run_sync
