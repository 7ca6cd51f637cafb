"""Compiled kernels are kept in one folder per user, whole, never stale, and compiled by one of several processes."""

import grp
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

code_cache = pytest.importorskip("firsthand.kernels.code_cache")

from firsthand.kernels import jit  # noqa: E402


def test_compiled_code_lies_on_disk_before_the_index_names_it_and_old_code_goes(tmp_path: Path) -> None:
    class Watched(code_cache.CodeFiles):
        def _save_index(self, overloads: dict[str, str]) -> None:
            assert all((tmp_path / name).exists() for name in overloads.values())
            super()._save_index(overloads)

    one, other = (Watched(str(tmp_path), "run-1.py311", "today") for _ in range(2))  # two processes
    one.save("float32", b"code for float32")
    other.save("int8", b"code for int8")
    assert one.load("int8") == b"code for int8" and other.load("float32") == b"code for float32"
    assert len(list(tmp_path.glob("*.nbc"))) == 2
    new = Watched(str(tmp_path), "run-1.py311", "tomorrow")
    assert new.load("float32") is None, "code of another day is not run"
    new.save("float32", b"new code")
    assert new.load("float32") == b"new code" and len(list(tmp_path.glob("*.nbc"))) == 1


class Gone:
    """A class that cached code of an older version names."""


def test_a_cache_that_names_a_class_which_is_gone_is_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = code_cache.CodeFiles(str(tmp_path), "run-1.py311", "today")
    files.save((Gone,), b"code")
    assert files.load((Gone,)) == b"code"
    monkeypatch.delattr(sys.modules[__name__], "Gone")
    assert files.load("int8") is None
    files.save("int8", b"new code")
    assert files.load("int8") == b"new code"


def folder_of(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path | None:
    """The folder of compiled code where a user's cache folder is `cache`."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    code_cache.shared_folder.cache_clear()
    try:
        return code_cache.shared_folder()
    finally:
        code_cache.shared_folder.cache_clear()


def test_every_environment_of_a_user_has_one_folder_and_other_sources_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = folder_of(monkeypatch, tmp_path)
    assert first and first.parent == tmp_path / "firsthand" / "kernels" and first.stat().st_mode & 0o777 == 0o700
    assert folder_of(monkeypatch, tmp_path) == first
    monkeypatch.setattr(code_cache, "sources_digest", lambda file=None: "of an edited kernel")
    second = folder_of(monkeypatch, tmp_path)
    assert second and second != first and first.is_dir()
    monkeypatch.setattr(code_cache.numba, "__version__", "another")
    assert folder_of(monkeypatch, tmp_path) not in (first, second)


def test_code_that_nobody_used_for_two_months_goes_when_a_new_folder_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "firsthand" / "kernels"
    for name, days in (("old", 61), ("young", 59)):
        (root / name).mkdir(parents=True)
        os.utime(root / name, (time.time() - days * 86400,) * 2)
    used = folder_of(monkeypatch, tmp_path)
    assert used and {path.name for path in root.iterdir()} == {"young", used.name}
    os.utime(used, (0, 0))
    assert folder_of(monkeypatch, tmp_path) == used and used.stat().st_mtime > 0, "opening it is use"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720])
def test_a_folder_that_others_can_write_is_not_used(mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "firsthand" / "kernels"
    root.mkdir(parents=True)
    root.chmod(mode)
    assert folder_of(monkeypatch, tmp_path) is None
    root.chmod(0o755)
    assert folder_of(monkeypatch, tmp_path) is not None


def test_a_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.geteuid()
    assert folder_of(monkeypatch, tmp_path) is not None
    monkeypatch.setattr(code_cache.os, "geteuid", lambda: own + 1)
    assert folder_of(monkeypatch, tmp_path) is None


def test_a_link_in_place_of_the_folder_deletes_nothing_that_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever could make the parent first had the home of another user emptied of folders two months old."""
    mine, caches = tmp_path / "mine", tmp_path / "caches"
    (mine / "letters").mkdir(parents=True)
    os.utime(mine / "letters", (0, 0))
    for linked in ("firsthand/kernels", "firsthand"):
        shutil.rmtree(caches, ignore_errors=True)
        (caches / linked).parent.mkdir(parents=True)
        (caches / linked).symlink_to(mine)
        found = folder_of(monkeypatch, caches)
        assert (mine / "letters").is_dir() and (found is None or found.parent != mine)
    others = os.geteuid() + 1
    if os.geteuid() == 0:
        os.lchown(caches / "firsthand", others, others)
        assert folder_of(monkeypatch, caches) is None, "a link of somebody else can be led elsewhere later"


@pytest.mark.parametrize(("mode", "is_used"), [(0o777, False), (0o1777, True), (0o755, True), (0o722, False)])
def test_a_folder_that_others_can_put_another_in_place_of_is_not_used(
    mode: int, is_used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for parent in (tmp_path / "shared", tmp_path / "other" / "firsthand"):
        parent.mkdir(parents=True)
        parent.chmod(mode)
    for place in ("shared", "other"):
        assert (folder_of(monkeypatch, tmp_path / place) is not None) == is_used


def test_a_parent_of_another_user_or_of_a_group_of_several_keeps_no_folder(tmp_path: Path) -> None:
    def of(mode: int, user: int, group: int) -> bool:
        return code_cache._keeps_its_entries(os.stat_result((mode, 0, 0, 0, user, group, 0, 0, 0, 0)))

    me = os.geteuid()
    assert of(0o700, me, 0) and of(0o755, 0, 0)
    assert not of(0o700, me + 1, 0), "who owns a folder renames what is in it"
    assert not of(0o1777, me + 1, 0)
    assert not of(0o775, me, 2**31 - 5), "a group that nobody knows"
    own = pwd.getpwuid(me).pw_name
    alone = [each.gr_gid for each in grp.getgrall() if each.gr_name == own and set(each.gr_mem) <= {own}]
    several = [each.gr_gid for each in grp.getgrall() if each.gr_name != own]
    assert all(of(0o775, me, group) for group in alone) and not any(of(0o775, me, group) for group in several)


def test_numbas_own_folder_is_used_where_nobody_else_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    (tmp_path / "shared" / "numba").mkdir(parents=True)
    (tmp_path / "shared").chmod(0o777)

    def kept_in(folder: Path) -> object:
        cache = SimpleNamespace(_cache_file=None, _cache_path=str(folder), _impl=SimpleNamespace(filename_base="f"))
        compiled = SimpleNamespace(_cache=cache)
        code_cache.keep_code(compiled, kept_in)
        return compiled._cache if compiled._cache is not cache else cache._cache_file

    assert isinstance(kept_in(tmp_path / "shared" / "numba"), code_cache.NullCache)
    assert isinstance(kept_in(tmp_path / "missing"), code_cache.NullCache)
    (tmp_path / "own").mkdir(mode=0o700)
    assert isinstance(kept_in(tmp_path / "own"), code_cache.CodeFiles)
    assert isinstance(kept_in(Path(__file__).resolve().parent / "__pycache__"), code_cache.CodeFiles), (
        "beside the source"
    )
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "shared"))
    assert isinstance(kept_in(tmp_path / "shared" / "numba"), code_cache.CodeFiles), "the user's choice"


def test_a_cache_folder_that_cannot_be_made_leaves_the_choice_to_numba(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    assert folder_of(monkeypatch, tmp_path / "file") is None
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    code_cache.shared_folder.cache_clear()
    assert code_cache.shared_folder() is None
    code_cache.shared_folder.cache_clear()


def test_an_edit_of_any_kernel_or_of_a_file_outside_the_room_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "kernels"
    shutil.copytree(Path(code_cache.__file__).parent, room, ignore=shutil.ignore_patterns("__pycache__"))
    outside = tmp_path / "mask_kernel.py"
    outside.write_text("one")
    monkeypatch.setattr(code_cache, "__file__", str(room / "code_cache.py"))
    digest = code_cache.sources_digest.__wrapped__
    before, of_outside = digest(), digest(outside)
    assert digest(room / "jit.py") == before != of_outside
    outside.write_text("two")
    assert digest() == before and digest(outside) != of_outside
    (room / "step" / "phases.py").write_text("# edited")
    assert digest() != before
    os.utime(room / "jit.py", (0, 0))
    edited = digest()
    (room / "step" / "phases.py").rename(room / "step" / "other.py")
    assert digest() != edited, "names count, times do not"


@pytest.mark.slow
def test_of_two_processes_one_compiles_and_the_other_gets_its_code(tmp_path: Path) -> None:
    one, other = (code_cache.CodeFiles(str(tmp_path), "run-1.py311", "today") for _ in range(2))
    assert one.load("float32") is None
    started = subprocess.Popen([sys.executable, "-c", WAITING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert started.stdout and started.stdout.readline() == "asks\n"
    one.save("float32", "code")
    assert started.communicate(timeout=60)[0] == "got code\n"
    assert other.load("int8") is None, "what nobody has compiled is compiled at once"
    other.save("int8", "more")
    assert one.load("int8") == "more"


def test_code_that_is_saved_after_a_look_and_before_the_turn_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (code_cache.CodeFiles(str(tmp_path), "run-1.py311", "today") for _ in range(2))
    assert one.load("float32") is None
    locked = code_cache._locked

    def late(lock: int) -> bool:
        one.save("float32", "code")
        return locked(lock)

    monkeypatch.setattr(code_cache, "_locked", late)
    assert other.load("float32") == "code" and other._held is None


@pytest.mark.slow
def test_a_process_that_dies_while_it_compiles_holds_nobody_up(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout and holder.stdout.readline() == "compiles\n"
    waiting = subprocess.Popen([sys.executable, "-c", WAITING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert waiting.stdout and waiting.stdout.readline() == "asks\n"
    holder.send_signal(signal.SIGKILL)
    assert waiting.communicate(timeout=60)[0] == "got None\n"
    holder.wait()


def test_who_has_waited_long_enough_compiles_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_cache, "WAIT_S", 0.1)
    one, other = (code_cache.CodeFiles(str(tmp_path), "run-1.py311", "today") for _ in range(2))
    assert one.load("float32") is None and one.load("int8") is None, "a process waits for no lock of its own"
    assert other.load("float32") is None
    other.save("float32", "code")
    assert one.load("float32") == "code"


OPEN = """
import sys
from firsthand.kernels.code_cache import CodeFiles
files = CodeFiles(sys.argv[1], "run-1.py311", "today")
"""
HOLDING = (
    OPEN
    + """
assert files.load("float32") is None
print("compiles", flush=True)
sys.stdin.read()
import time
time.sleep(600)
"""
)
WAITING = (
    OPEN
    + """
print("asks", flush=True)
print("got", files.load("float32"))
"""
)


SIBLINGS = """
import sys
from firsthand.kernels import jit

def make(number):
    @jit.called
    @jit.named(f"add_{number}")
    def add(x):
        total = x
        for i in range(1000):
            for j in range(i, 1000):  # too much for LLVM to put it in place of its calls
                if total > i * j + x:
                    total = total // 3 + j + number
                elif total < -i:
                    total = total * 5 - j
        return total * 1000000 + x * 1000 + number
    return add

one, two = make(1), make(2)

@jit.kernel
def use_one(x):
    return one(x)

@jit.kernel
def use_two(x):
    return two(x)

print(*(globals()[name](10) for name in sys.argv[1:]))
"""


@pytest.mark.slow
def test_code_from_the_cache_of_another_process_calls_its_own_siblings(tmp_path: Path) -> None:
    """The second process compiles `two` as the first compiled `one`: first of all. Only names can tell them apart."""
    (tmp_path / "siblings.py").write_text(SIBLINGS)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run(*names: str) -> str:
        command = [sys.executable, "siblings.py", *names]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    [alone] = run("use_one").split()
    two, one = run("use_two", "use_one").split()
    assert one == alone and two != one


def test_functions_of_a_factory_must_be_named() -> None:
    def nameless(x: int) -> int:
        return x

    for make in (jit.called, jit.kernel):
        with pytest.raises(AssertionError, match="needs a name of its own"):
            make(nameless)
    jit.called(jit.named("a_name_of_its_own")(nameless))


def test_a_kernel_that_cannot_be_cached_is_compiled_all_the_same(caplog):
    there: dict = {}
    code_cache.tell_of_no_cache.cache_clear()
    exec(compile("def doubled_without_a_file(x):\n    return 2 * x\n", "<no file>", "exec"), there)
    with caplog.at_level("INFO", logger="firsthand"):
        assert jit.kernel(there["doubled_without_a_file"])(21) == 42
    assert "set NUMBA_CACHE_DIR" in caplog.text
