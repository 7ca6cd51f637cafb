"""Whose folders may hold compiled code: bits, owners and groups one by one, and what the hash of the sources covers."""

import hashlib
import logging
import os
import stat
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

code_cache = pytest.importorskip("firsthand.kernels.code_cache")
ME = os.geteuid()


def keeps(mode: int, user: int = ME, group: int = 70) -> bool:
    return bool(code_cache._keeps_its_entries(os.stat_result((mode, 0, 0, 0, user, group, 0, 0, 0, 0))))


def test_a_group_of_the_users_own_is_trusted_only_while_nobody_else_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {
        70: SimpleNamespace(gr_name="ada", gr_mem=[]),
        71: SimpleNamespace(gr_name="ada", gr_mem=["ada"]),
        72: SimpleNamespace(gr_name="ada", gr_mem=["ada", "eve"]),
        73: SimpleNamespace(gr_name="ada", gr_mem=["eve"]),
        74: SimpleNamespace(gr_name="staff", gr_mem=[]),
        75: SimpleNamespace(gr_name="staff", gr_mem=["ada"]),
    }
    asked = []

    def user(number: int) -> SimpleNamespace:
        asked.append(number)
        return SimpleNamespace(pw_name="ada")

    monkeypatch.setattr(code_cache.grp, "getgrgid", groups.__getitem__)
    monkeypatch.setattr(code_cache.pwd, "getpwuid", user)
    assert [code_cache._is_alone_in(group) for group in range(70, 77)] == [
        True,
        True,
        False,
        False,
        False,
        False,
        False,
    ]
    assert set(asked) == {ME}
    assert [keeps(0o775, group=group) for group in range(70, 77)] == [True, True, False, False, False, False, False]
    assert [keeps(mode, group=72) for mode in (0o755, 0o775, 0o757, 0o1775, 0o1777)] == [True, False, False, True, True]
    assert [keeps(mode, group=70) for mode in (0o777, 0o775, 0o772, 0o722)] == [False, True, False, False]
    assert [keeps(0o755, user=user) for user in (0, ME, ME + 1)] == [True, True, False]
    assert not keeps(0o1777, user=ME + 1)


def test_a_folder_is_ours_if_it_is_one_of_ours_and_nobody_else_can_write_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    found = {}
    for mode in (0o700, 0o755, 0o775, 0o757, 0o1777):
        folder.chmod(mode)
        found[mode] = code_cache._is_ours(folder)
    assert found == {0o700: True, 0o755: True, 0o775: False, 0o757: False, 0o1777: False}
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(folder)
    folder.chmod(0o700)
    assert not code_cache._is_ours(tmp_path / "file")
    assert not code_cache._is_ours(tmp_path / "link")
    assert code_cache._is_safe(tmp_path / "link")  # what it leads to is
    assert not code_cache._is_safe(tmp_path / "nowhere")
    monkeypatch.setattr(code_cache, "_keeps_its_entries", lambda about: about.st_ino != tmp_path.stat().st_ino)
    assert not code_cache._is_ours(folder)


def test_only_folders_without_use_for_more_than_sixty_days_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(code_cache.time, "time", lambda: now)
    for name, age in (("old", 60 * 86_400 + 2), ("young", 60 * 86_400 - 2), ("file", 90 * 86_400)):
        path = tmp_path / name
        if name == "file":
            path.write_text("")
        else:
            (path / "inner").mkdir(parents=True)
        os.utime(path, (now, now - age))
    code_cache._delete_unused(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "young"]


def test_the_folder_is_named_by_the_versions_and_the_sources_and_lies_in_the_cache_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    versions = (
        f"{code_cache.numba.__version__} {code_cache.llvmlite.__version__} {code_cache.sys.implementation.cache_tag}"
    )
    room = Path(code_cache.__file__).parent
    digest = hashlib.sha256()
    for source in sorted(room.rglob("*.py")):
        digest.update(f"{source.relative_to(room)}\0{hashlib.sha256(source.read_bytes()).hexdigest()}\0".encode())
    assert code_cache.sources_digest() == digest.hexdigest()
    outside = tmp_path / "other_kernel.py"
    outside.write_bytes(b"def f(): ...")
    digest.update(b"def f(): ...")
    assert code_cache.sources_digest(outside) == digest.hexdigest()
    assert code_cache.sources_digest(tmp_path / "gone.py") == code_cache.sources_digest()
    name = hashlib.sha256(f"{versions} {code_cache.sources_digest()}".encode()).hexdigest()[:16]
    made = code_cache.shared_folder.__wrapped__()
    assert made == tmp_path / ".cache" / "firsthand" / "kernels" / name
    assert [stat.S_IMODE(each.stat().st_mode) for each in (made, made.parent, made.parent.parent)] == [0o700] * 3
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert code_cache.shared_folder.__wrapped__() == tmp_path / "other" / "firsthand" / "kernels" / name
    monkeypatch.setenv("NUMBA_CACHE_DIR", "anything")
    assert code_cache.shared_folder.__wrapped__() is None


def test_saved_code_is_named_by_its_contents_and_locks_are_given_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code_cache._tell_once.cache_clear()
    one = code_cache.CodeFiles(str(tmp_path / "new"), "step[1].py311", "today")
    with caplog.at_level(logging.INFO, logger="firsthand"):
        assert one.load("float32") is None
        assert one.load("int8") is None
    assert caplog.messages == ["compiling kernels for this machine: once, for about half a minute"]
    lock = os.open(tmp_path / "new" / "step[1].py311.lock", os.O_RDWR)
    assert not code_cache._locked(lock)
    (tmp_path / "new" / "step[1].py311.stale.nbc").write_text("")
    (tmp_path / "new" / "step1.py311.other.nbc").write_text("")
    one.save("float32", "code")
    assert code_cache._locked(lock)
    os.close(lock)
    one.save("int8", "more")
    names = {
        f"step[1].py311.{hashlib.sha256(repr((one._version, 'today', key)).encode()).hexdigest()[:24]}.nbc"
        for key in ("float32", "int8")
    }
    expected = {*names, "step[1].py311.lock", "step[1].py311.nbi", "step1.py311.other.nbc"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == expected
    assert (one.load("float32"), one.load("int8")) == ("code", "more")
    assert one.load("float16") is None  # it has the right to compile now, until another's code is there
    code_cache.CodeFiles(str(tmp_path / "new"), "step[1].py311", "today").save("float16", "of another")
    assert one.load("float16") == "of another"
    lock = os.open(tmp_path / "new" / "step[1].py311.lock", os.O_RDWR)
    assert code_cache._locked(lock)
    os.close(lock)
    assert code_cache.CodeFiles(str(tmp_path / "new"), "step[1].py311", "tomorrow").load("float32") is None
