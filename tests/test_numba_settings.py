"""numba takes no settings from a file of the current folder."""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

code_cache = pytest.importorskip("firsthand.kernels.code_cache")
import numba  # noqa: E402

from firsthand.kernels.numba_settings import FILE, SettingsFinder, ignore_settings_file  # noqa: E402


def loaded(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    """numba's module of settings, loaded once more in that folder as the finder has it."""
    monkeypatch.chdir(folder)
    spec = SettingsFinder().find_spec("numba.core.config", numba.core.__path__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_settings_file_of_the_current_folder_chooses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    (tmp_path / FILE).write_text(f"cache_dir: {tmp_path / 'evil'}\ndisable_jit: 1\n")
    config = loaded(monkeypatch, tmp_path)
    assert (config.CACHE_DIR, config.DISABLE_JIT) == ("", 0)
    monkeypatch.setenv("NUMBA_OPT", "1")  # as a change of the environment, it is read again with the file
    config.reload_config()
    assert (config.CACHE_DIR, config.DISABLE_JIT, config.OPT) == ("", 0, 1)


def test_variables_of_the_environment_choose_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine"))
    assert str(tmp_path / "mine") == loaded(monkeypatch, tmp_path).CACHE_DIR


def test_numba_is_imported_by_the_finder_in_this_room(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "numba.core.config")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    ignore_settings_file()
    ignore_settings_file()
    assert [isinstance(each, SettingsFinder) for each in sys.meta_path].count(True) == 1
    first = [type(each) for each in sys.meta_path].index(SettingsFinder)
    assert first < sys.meta_path.index(PathFinder), "another library may have put its own before both"
    assert SettingsFinder().find_spec("json") is None


def test_numba_of_this_process_reads_no_file():
    assert numba.core.config._config_fname == os.devnull


def test_a_folder_of_code_that_only_a_settings_file_names_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)

    def cache() -> object:
        kept = SimpleNamespace(_cache_file=None, _cache_path=str(tmp_path), _impl=SimpleNamespace(filename_base="f"))
        compiled = SimpleNamespace(_cache=kept)
        code_cache.keep_code(compiled, cache)
        return compiled._cache if compiled._cache is not kept else kept._cache_file

    tmp_path.chmod(0o700)
    assert isinstance(cache(), code_cache.CodeFiles)
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))  # as in a program that imported numba before us
    assert isinstance(cache(), code_cache.NullCache)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert isinstance(cache(), code_cache.CodeFiles)
