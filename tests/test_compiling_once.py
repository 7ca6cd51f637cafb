"""Parts of compiling once: the lock on a function, waiting for it, numba's options for kernels and what they call."""

import logging
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

code_cache = pytest.importorskip("firsthand.kernels.code_cache")
from numba import types  # noqa: E402
from numba.core.codegen import JITCodeLibrary  # noqa: E402

from firsthand.kernels import jit, linked_code  # noqa: E402


def test_a_lock_is_one_s_own_and_a_file_system_without_locks_gives_it_to_all(tmp_path: Path) -> None:
    one, other = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    assert [code_cache._locked(one), code_cache._locked(other), code_cache._locked(one)] == [True, False, True]
    os.close(one)
    assert code_cache._locked(other)
    os.close(other)
    assert code_cache._locked(other)  # no such file: an error that is not somebody else's lock


def test_whoever_waits_says_so_and_takes_the_lock_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    code_cache._tell_of_waiting.cache_clear()
    monkeypatch.setattr(code_cache, "WAIT_S", 0.06)
    one, other = (code_cache.CodeFiles(str(tmp_path / "a" / "b"), "step", "today") for _ in range(2))
    with caplog.at_level(logging.INFO, logger="firsthand"):
        assert one._took_turn() and one._held is not None and caplog.messages == []
        held = one._held
        assert not one._took_turn() and one._held == held  # it has the right already
        open_files = len(list(Path("/dev/fd").iterdir()))
        assert other._took_turn() and other._held is None  # in vain
        assert other._took_turn()
    assert caplog.messages == ["another process compiles the kernels: waiting for it"]
    assert len(list(Path("/dev/fd").iterdir())) == open_files
    assert stat.S_IMODE((tmp_path / "a" / "b" / "step.lock").stat().st_mode) == 0o600
    monkeypatch.setattr(code_cache, "WAIT_S", 30)
    monkeypatch.setattr(code_cache.time, "sleep", lambda seconds: one._release())
    assert other._took_turn() and other._held is not None and one._held is None
    other._release()
    other._release()
    assert other._held is None and one._took_turn()
    one._release()
    file = tmp_path / "file"
    file.write_text("")
    assert not code_cache.CodeFiles(str(file), "step", "today")._took_turn()  # no folder can be made there


def test_kernels_are_compiled_without_the_gil_and_keep_only_caches_that_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[dict[str, Any]] = []

    def njit_with(error: str | None) -> Any:
        def njit(**options: Any) -> Any:
            made.append(options)

            def compiled(function: Any) -> Any:
                if error and options["cache"]:
                    raise RuntimeError(error)
                return function

            return compiled

        return njit

    told: list[bool] = []
    monkeypatch.setattr(jit, "tell_of_no_cache", lambda: told.append(True))
    always = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": True}
    always["pipeline_class"] = jit.KernelCompiler
    monkeypatch.setattr(jit, "_njit", njit_with(None))
    assert jit._compiled(abs, cache=True) is abs
    assert (made, told) == ([{"cache": True, **always}], [])
    made.clear()
    monkeypatch.setattr(jit, "_njit", njit_with("cannot cache function: no locator available for file"))
    assert jit._compiled(abs, cache=True) is abs
    assert (made, told) == ([{"cache": True, **always}, {"cache": False, **always}], [True])
    monkeypatch.setattr(jit, "_njit", njit_with("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        jit._compiled(abs, cache=True)
    assert told == [True]
    made.clear()
    monkeypatch.setattr(jit, "fits", lambda: False)
    monkeypatch.setattr(jit, "_njit", njit_with(None))
    jit._compiled(abs, cache=False)
    assert "pipeline_class" not in made[0] and made[0]["cache"] is False


def test_functions_that_kernels_call_have_no_code_for_python_and_one_version_a_type() -> None:
    def more(x: Any) -> Any:
        return x + 1

    for make, counts in ((jit.called, False), (jit.allocating, True)):
        made = make(jit.named(f"more_{counts}")(more))
        options = made.targetoptions
        wanted = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        wanted |= {"_nrt": counts}
        assert {name: options[name] for name in wanted} == wanted
        assert made._compiler.pipeline_class is jit.LinkedCompiler
    assert jit.inlined(more).targetoptions["inline"] == "always"
    seen: list[Any] = []
    compiled = SimpleNamespace(get_call_template=lambda args, kwargs: seen.append((list(args), kwargs)) or "template")
    number = types.literal(7)
    assert jit._for_any_number(compiled) is compiled
    assert compiled.get_call_template((number, types.float32), {"k": number}) == "template"
    assert seen == [([types.int64, types.float32], {"k": types.int64})]
    assert jit.named("another")(more) is more and (more.__name__, more.__qualname__) == ("another", "another")


def test_linked_code_fits_a_numba_that_has_all_that_it_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert linked_code.fits() and all(hasattr(JITCodeLibrary, name) for name in linked_code.OVERRIDDEN)
    for library in (linked_code.LinkedLibrary, linked_code.KernelLibrary):
        own = {name for name in vars(library) if name in linked_code.OVERRIDDEN}
        assert own and own <= set(linked_code.OVERRIDDEN)
    monkeypatch.setattr(linked_code, "OVERRIDDEN", (*linked_code.OVERRIDDEN, "_renamed"))
    assert not linked_code.fits()


def test_linked_code_hands_its_environments_and_those_of_its_callees_on() -> None:
    class Codegen:
        other = "of the code generator"

    libraries = [object.__new__(linked_code.LinkedLibrary) for _ in range(3)]
    for place, library in enumerate(libraries):
        library.outside = linked_code._OutsideEngine(Codegen())
        library._linking_libraries = []
        library.outside.set_env(f"env{place}", f"table {place}")
    libraries[1].outside.set_env("env0", "a later table")
    libraries[0]._linking_libraries = [libraries[1], object()]  # a kernel's own library has none to hand on
    libraries[1]._linking_libraries = [libraries[2]]
    assert libraries[0].environments() == {"env0": "a later table", "env1": "table 1", "env2": "table 2"}
    assert libraries[0].outside.environments == {"env0": "table 0"}
    assert libraries[0].codegen is libraries[0].outside and libraries[0].codegen.other == "of the code generator"


def test_a_kernel_enters_the_environments_that_are_still_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: dict[str, Any] = {}
    engine = SimpleNamespace(get_global_value_address=lambda name: {"used": 8}.get(name, 0))
    codegen = SimpleNamespace(_engine=engine, set_env=lambda name, value: entered.update({name: value}))
    finalized: list[Any] = []
    monkeypatch.setattr(JITCodeLibrary, "_finalize_specific", lambda self: finalized.append(self))
    linked = object.__new__(linked_code.LinkedLibrary)
    linked.outside = linked_code._OutsideEngine(codegen)
    linked._linking_libraries = []
    linked.outside.environments.update(used="table", optimised_away="none")
    kernel = object.__new__(linked_code.KernelLibrary)
    kernel._codegen, kernel._linking_libraries = codegen, [object(), linked]
    kernel._finalize_specific()
    assert entered == {"used": "table"} and finalized == [kernel]
    steps: list[str] = []
    for name in ("_finalize_dynamic_globals", "_verify_declare_only_symbols", "_ensure_finalized"):
        monkeypatch.setattr(JITCodeLibrary, name, lambda self, name=name: steps.append(name))
    linked._finalized = False
    linked._finalize_final_module()
    assert steps == ["_finalize_dynamic_globals", "_verify_declare_only_symbols"] and linked._finalized
    assert linked.get_pointer_to_function("any") == 0 and steps[2:] == ["_ensure_finalized"]


def adder(x: Any) -> Any:
    return x + 1


def test_a_dispatcher_keeps_its_code_in_our_files_if_it_has_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_cache, "shared_folder", lambda: tmp_path / "ours")

    def kept(function: Any, **parts: Any) -> Any:
        cache = SimpleNamespace(_cache_path=str(tmp_path), _impl=SimpleNamespace(filename_base="base"), **parts)
        compiled = SimpleNamespace(_cache=cache)
        code_cache.keep_code(compiled, function)
        assert compiled._cache is cache
        return vars(cache).get("_cache_file")

    assert kept(adder) is None  # another numba, without the attribute
    bare = SimpleNamespace()
    code_cache.keep_code(bare, adder)
    assert vars(bare) == {}
    tmp_path.chmod(0o700)
    outside = kept(adder, _cache_file=None)
    inside = kept(code_cache.sources_digest.__wrapped__, _cache_file=None)
    assert [(each._cache_path, each._base) for each in (outside, inside)] == [
        (str(tmp_path), "base"), (str(tmp_path / "ours"), "base")
    ]  # fmt: skip
    here = Path(__file__).resolve()
    assert outside._source_stamp == code_cache.sources_digest(here) != code_cache.sources_digest()
    assert inside._source_stamp == code_cache.sources_digest()


def test_a_folder_in_use_is_marked_and_one_that_others_can_write_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    find = code_cache.shared_folder.__wrapped__
    folder = find()
    stale = folder.parent / "stale"
    stale.mkdir()
    for each in (folder, stale):
        os.utime(each, (0, 0))
    assert find() == folder and folder.stat().st_mtime > 1e9  # used now
    assert stale.is_dir()  # only a new folder makes room
    folder.chmod(0o777)
    assert find() is None
    folder.rmdir()
    assert find() == folder and not stale.exists()
