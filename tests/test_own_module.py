"""A user's Python file: loaded once, from where it is named, with the modules that it imports from its folder."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.errors import ConfigError
from firsthand.experiment.own_files import files_of
from firsthand.system import own_module
from firsthand.system.own_module import load_module

TOOLS = """
from firsthand.tool import tool
KEPT = {}
@tool(effect="write")
def put(key: str) -> str:
    "Keep it."
    KEPT[key] = "kept"
    return "put"
@tool(effect="read")
def get(key: str) -> str:
    "Give it."
    return KEPT.get(key, "nothing")
"""
DESCRIBED = 'data = "t.csv"\nprompt = "{q}"\ntarget = "{a}"\nscorer = ["mine.py:own"]\n'


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Modules of one test are none of the next one's."""
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        del sys.modules[name]
    own_module._BESIDE.folders.clear()


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_tools_of_one_file_share_what_it_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "store.py", TOOLS)
    monkeypatch.chdir(tmp_path)
    (put,), (get,) = catalog.tools("store.py:put"), catalog.tools(f"{file}:get")
    assert put.function("a") == "put"
    assert get.function("a") == "kept"


def test_a_file_that_has_changed_is_loaded_anew_and_others_of_its_name_are_others(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a/f.py", "x = 1\n"), written(tmp_path / "b/f.py", "x = 2\n")
    one, two = load_module(first), load_module(second)
    assert (one.x, two.x, load_module(first) is one, load_module(second) is two) == (1, 2, True, True)
    assert one.__name__ == "firsthand_file_f" and sys.modules[one.__name__] is one and sys.modules[two.__name__] is two
    written(first, "x = 3\n")  # as long as before, and perhaps in the same second
    assert (load_module(first).x, one.x, load_module(second) is two) == (3, 1, True)


def test_modules_beside_a_file_are_imported_when_it_is_loaded_and_later(tmp_path: Path) -> None:
    file = written(
        tmp_path / "f.py",
        "from own_helper_a import a\nimport own_package_a.part as part\n"
        "def later():\n    import own_helper_c as c\n    return c.c\n",
    )
    written(tmp_path / "own_helper_a.py", "from own_helper_b import b as a\n")
    written(tmp_path / "own_helper_b.py", "b = 2\n")
    written(tmp_path / "own_helper_c.py", "c = 3\n")
    written(tmp_path / "own_package_a/part.py", "p = 4\n")
    written(tmp_path / "own_other_a.py", "raise RuntimeError\n")
    made = load_module(file)
    assert (made.a, made.part.p, made.later()) == (2, 4, 3)
    assert str(tmp_path) not in sys.path
    assert sorted(own_module._BESIDE.folders) == ["own_helper_a", "own_helper_b", "own_helper_c", "own_package_a"]
    assert {*map(Path, files_of(str(file)))} >= {tmp_path / "own_helper_b.py", tmp_path / "own_package_a/part.py"}


def test_what_is_installed_comes_before_a_module_beside_a_file(tmp_path: Path) -> None:
    file = written(tmp_path / "f.py", "import json, colorsys, yaml\n")
    for name in ("json", "colorsys", "yaml"):
        written(tmp_path / f"{name}.py", "mine = True\n")
    sys.modules.pop("colorsys", None)
    made = load_module(file)
    assert not any(hasattr(each, "mine") for each in (made.json, made.colorsys, made.yaml))
    assert own_module._BESIDE.folders == {}


def test_a_changed_module_beside_a_file_is_imported_anew(tmp_path: Path) -> None:
    file = written(tmp_path / "f.py", "import own_helper_d\nfrom own_helper_d import x\n")
    helper = written(tmp_path / "own_helper_d.py", "x = 1\n")
    assert load_module(file).x == 1
    written(helper, "x = 22\n")
    assert load_module(file).x == 22


def test_a_changed_module_is_imported_anew_by_whatever_uses_it(tmp_path: Path) -> None:
    first = written(tmp_path / "f.py", "from own_helper_f import a\nimport own_helper_g\n")
    second = written(tmp_path / "g.py", "from own_helper_g import b\nimport own_helper_f, own_helper_h\n")
    written(tmp_path / "own_helper_f.py", "from own_helper_g import b as a\n")
    written(tmp_path / "own_helper_h.py", "from own_helper_g import b\n")
    helper = written(tmp_path / "own_helper_g.py", "b = 1\n")
    assert load_module(first).a == 1
    written(helper, "b = 22\n")
    assert load_module(second).b == 22, "the file was never loaded before, and the module was"
    made = load_module(first)
    assert made.a == 22, "a module that has not changed uses the changed one"
    assert made.own_helper_g is sys.modules["own_helper_g"]
    assert load_module(second).own_helper_f is sys.modules["own_helper_f"], "both files share what they import"
    written(helper, "b = 333\n")
    assert (load_module(first).a, load_module(second).own_helper_h.b) == (333, 333)


def test_a_module_mended_after_the_file_failed_to_import_is_imported_anew(tmp_path: Path) -> None:
    file = written(tmp_path / "f.py", "from own_helper_i import y\n")
    helper = written(tmp_path / "own_helper_i.py", "x = 1\n")
    with pytest.raises(ConfigError, match="cannot import name 'y'"):
        load_module(file)
    written(helper, "y = 2\n")
    assert load_module(file).y == 2


def test_what_a_package_imports_by_a_relative_name_is_known(tmp_path: Path) -> None:
    file = written(tmp_path / "f.py", "from own_package_b import p\n")
    written(tmp_path / "own_package_b/__init__.py", "from .inner.part import p\n")
    written(tmp_path / "own_package_b/inner/__init__.py", "")
    written(tmp_path / "own_package_b/inner/part.py", "from ..other import p\nfrom .. import more\n")
    written(tmp_path / "own_package_b/more.py", "")
    other = written(tmp_path / "own_package_b/other.py", "p = 1\n")
    assert load_module(file).p == 1
    names = {str(Path(each).relative_to(tmp_path / "own_package_b")) for each in files_of(str(file)) if "own_p" in each}
    assert names == {"__init__.py", "inner/__init__.py", "inner/part.py", "other.py", "more.py"}
    written(other, "p = 22\n")
    assert load_module(file).p == 22


def test_a_mere_folder_elsewhere_hides_no_module_beside_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "sub/f.py", "from own_helper_j import x\n")
    written(tmp_path / "sub/own_helper_j.py", "x = 1\n")
    (tmp_path / "own_helper_j").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_module(file).x == 1


def test_a_module_that_has_moved_to_another_folder_is_found_there(tmp_path: Path) -> None:
    written(tmp_path / "a/own_helper_k.py", "x = 1\n")
    load_module(written(tmp_path / "a/f.py", "from own_helper_k import x\n"))
    second = written(tmp_path / "b/f.py", "from own_helper_k import x\n")
    (tmp_path / "a/own_helper_k.py").unlink()
    written(tmp_path / "b/own_helper_k.py", "x = 22\n")
    assert load_module(second).x == 22


def test_a_change_that_does_not_import_leaves_the_module_that_did(tmp_path: Path) -> None:
    file = written(tmp_path / "f.py", "class A: pass\n")
    made = load_module(file)
    written(file, "class A(\n")
    with pytest.raises(ConfigError, match="does not import"):
        load_module(file)
    written(file, "class A: pass\n")
    assert load_module(file) is made
    assert type(pickle.loads(pickle.dumps(made.A()))) is made.A


def test_a_files_own_path_is_the_one_that_it_is_named_by(tmp_path: Path) -> None:
    file = written(tmp_path / "real/f.py", "KEPT = {}\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    made = load_module(tmp_path / "link/f.py")
    assert made.__file__ == str(tmp_path / "link/f.py")
    assert load_module(file) is made


def test_two_folders_with_a_module_of_one_name_are_not_confused(tmp_path: Path) -> None:
    first = written(tmp_path / "a/f.py", "from own_helper_e import x\n")
    second = written(tmp_path / "b/g.py", "def later():\n    from own_helper_e import x\n    return x\n")
    written(tmp_path / "a/own_helper_e.py", "x = 1\n")
    written(tmp_path / "b/own_helper_e.py", "x = 2\n")
    assert load_module(first).x == 1
    with pytest.raises(ConfigError, match=r"/b' imports its own_helper_e, and one in '.*/a' .*: rename one of the two"):
        load_module(second)
    (tmp_path / "a").rename(tmp_path / "gone")
    assert load_module(second).later() == 2


def test_a_file_that_failed_to_import_is_tried_again(tmp_path: Path) -> None:
    file = written(
        tmp_path / "f.py", "import os\nif not os.path.exists(__file__ + '.ready'):\n    raise ValueError('not yet')\n"
    )
    with pytest.raises(ConfigError, match="does not import: ValueError: not yet"):
        load_module(file)
    Path(f"{file}.ready").touch()
    assert load_module(file).__file__ == str(file)


def test_the_scorer_of_a_described_benchmark_is_the_one_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = written(tmp_path / "sub/b.toml", DESCRIBED)
    written(tmp_path / "sub/t.csv", "q,a\none,1\n")
    written(tmp_path / "mine.py", "def own(task, trace): return 0.25\n")
    monkeypatch.chdir(tmp_path)
    for name in (str(described), "sub/b.toml"):
        with pytest.raises(ConfigError, match=r"no file '.*sub/mine.py'.*begins at the folder of that file"):
            catalog.benchmark(name)
        assert {Path(each).name for each in files_of(name)} == {"b.toml"}
    mine = written(tmp_path / "sub/mine.py", "def own(task, trace): return 1.0\n")
    for name in (str(described), "sub/b.toml"):
        assert catalog.benchmark(name).scorers[0](None, None) == 1.0  # type: ignore[arg-type]
        assert str(mine.relative_to(tmp_path) if name == "sub/b.toml" else mine) in files_of(name)
    monkeypatch.chdir(tmp_path / "sub")
    assert catalog.benchmark("b.toml").scorers[0](None, None) == 1.0  # type: ignore[arg-type]
    assert [*files_of("b.toml")] == ["b.toml", "mine.py"]
    written(described, DESCRIBED.replace("mine.py", str(tmp_path / "mine.py")))
    assert catalog.benchmark("b.toml").scorers[0](None, None) == 0.25  # type: ignore[arg-type]
