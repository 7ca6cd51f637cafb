"""Files of the system room: whose end is not known, bounded TOML, forged journals, the commit, the seal, locks."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import json
import os
import re
import runpy
import socket
import subprocess
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import FirsthandError, StoreError
from firsthand.system import bounded_toml, lock, ordinary_file
from firsthand.system.bounded_toml import MAX_PARTS, parse_toml, read_toml_file
from firsthand.system.home_seal import KEY, is_ours, seal_of
from firsthand.system.ordinary_file import open_ordinary, read_bounded_text
from firsthand.system.source_commit import commit_of, source_commit
from firsthand.system.sqlite_journal import forged_journal

COMMITS = ["0123456789abcdef" * 2 + digit * 8 for digit in "12345"]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


PIPE = "it is no ordinary file but a pipe, which may have no end: write it to a file, and give that"


def test_only_ordinary_files_are_opened_and_none_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\n")
    os.mkfifo(tmp_path / "pipe")
    before = open_files()
    with open_ordinary(tmp_path / "file") as file:
        assert file.read() == b"\xff\n"
    for name, said in (("", "Is a directory"), ("pipe", PIPE)):
        with pytest.raises(OSError) as refused:
            open_ordinary(tmp_path / name)
        assert (refused.value.errno, refused.value.strerror) == (errno.EINVAL, said)
    with pytest.raises(FileNotFoundError):
        open_ordinary(tmp_path / "none")
    assert open_files() == before


def test_a_named_pipe_is_refused_at_once_and_a_file_s_handle_is_not_passed_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    told: list[str] = []

    def opens() -> None:
        try:
            open_ordinary(tmp_path / "pipe")
        except OSError as error:
            told.append(str(error))

    thread = threading.Thread(target=opens, daemon=True)
    thread.start()
    thread.join(3)
    if thread.is_alive():  # whoever waits for a writer gets one
        os.close(os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK))
        thread.join(3)
        pytest.fail("it waited for somebody to write")
    assert told == [f"[Errno {errno.EINVAL}] {PIPE}"]
    (tmp_path / "file").write_bytes(b"ab")
    (tmp_path / "link").symlink_to("file")
    with open_ordinary(tmp_path / "link") as file:
        assert file.read() == b"ab" and not os.get_inheritable(file.fileno()) and not file.writable()


def test_a_text_is_read_up_to_its_bound_from_a_file_or_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "text"
    monkeypatch.setattr(ordinary_file, "MAX_TEXT_BYTES", 2 << 20)
    file.write_text("é" * (1 << 20), encoding="utf-8")
    assert read_bounded_text(file) == "é" * (1 << 20)
    with file.open("a") as more:
        more.write("x")
    with pytest.raises(OSError) as refused:
        read_bounded_text(file)
    found = refused.value
    assert (found.errno, found.strerror, found.filename) == (errno.EFBIG, "it is larger than 2 MiB", str(file))
    monkeypatch.setattr(ordinary_file, "MAX_TEXT_BYTES", 9)
    for size in (9, 10):
        reading, writing = os.pipe()
        os.write(writing, b"x" * size)
        os.close(writing)
        if size == 9:
            assert read_bounded_text(Path(f"/proc/self/fd/{reading}")) == "x" * 9
        else:
            with pytest.raises(OSError, match="it is larger than 9 bytes"):
                read_bounded_text(Path(f"/proc/self/fd/{reading}"))
        os.close(reading)
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        read_bounded_text(tmp_path / "latin")


def dotted(parts: int, part: str = "a") -> str:
    return " . ".join([part] * parts)


def test_toml_is_read_within_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PARTS == 64 and parse_toml(f"{dotted(64)} = 1")["a"]["a"] and parse_toml(f"[{dotted(64)}]\nb = 1")
    assert parse_toml(f'a = "{dotted(99)}"') == {"a": dotted(99)}
    quoted, literal = dotted(65, '"x y"'), dotted(65, "'é.'")
    for text in (
        f"{dotted(65)} = 1",
        f"b = 1\n  {quoted} = 1",
        f"[{literal}]",
        f"a = {{{dotted(65)} = 1}}",
        f"a = {{b = 1,\t{dotted(65, 'k-1')} = 1}}",
    ):
        with pytest.raises(tomllib.TOMLDecodeError, match=r"^it has a key of more than 64 parts$"):
            parse_toml(text)
    for text, said in (
        (f"a = {'1' * 5000}", "4300 digits"),
        (f"a = {'[' * 100000}", "nested too deep"),
        ("a = ", "Invalid value"),
    ):
        with pytest.raises(tomllib.TOMLDecodeError, match=said):
            parse_toml(text)
    monkeypatch.setattr(bounded_toml, "MAX_BYTES", 1005)
    assert parse_toml("a = 1".ljust(1005)) == {"a": 1}
    with pytest.raises(tomllib.TOMLDecodeError, match=r"^it has more than 1,005 bytes$"):
        parse_toml("a = 1".ljust(1006))
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbfa = '\xc3\xa9'")
    assert read_toml_file(tmp_path / "t") == {"a": "é"}
    (tmp_path / "t").write_bytes(b"a = 1".ljust(1006))
    with pytest.raises(tomllib.TOMLDecodeError, match=r"^it has more than 1,005 bytes$"):
        read_toml_file(tmp_path / "t")


def test_a_journal_that_names_another_file_or_cannot_be_looked_into_is_forged(tmp_path: Path) -> None:
    magic = bytes.fromhex("d9d505f920a163d7")  # https://www.sqlite.org/fileformat.html, section 3
    database, journal = tmp_path / "d.sqlite", tmp_path / "d.sqlite-journal"
    before = open_files()
    assert forged_journal(database) is None
    for content, is_forged in (
        (b"", False),
        (magic, True),
        (b"x" * 99 + magic, True),
        (magic + b"x", False),
        (magic[1:], False),
        (b"\0" * 8, False),
    ):
        journal.write_bytes(content)
        assert forged_journal(database) == (journal if is_forged else None)
    (tmp_path / "link").symlink_to(database)
    journal.write_bytes(magic)
    assert forged_journal(tmp_path / "link") == journal
    journal.unlink()
    journal.mkdir()
    assert forged_journal(database) == journal
    journal.rmdir()
    journal.symlink_to(journal)
    assert forged_journal(database) == journal, "a link to itself cannot be opened"
    journal.unlink()
    os.mkfifo(journal)
    assert forged_journal(database) == journal
    assert open_files() == before


def test_the_commit_of_a_checkout_is_that_of_its_head_or_its_branch(tmp_path: Path) -> None:
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    head = git / "HEAD"
    one, other, packed, worktree, own = COMMITS
    head.write_text(f"{one}\n")
    assert commit_of(tmp_path) == one
    head.write_text(f"{one}{'0' * 24}\n")
    assert commit_of(tmp_path) == one + "0" * 24, "a repository of SHA-256"
    for wrong in (one[:39], one + "0" * 25, one[:39] + "g", f"{one} x", one.upper(), f"ref:{one}", ""):
        head.write_text(wrong)
        assert commit_of(tmp_path) == ""
    head.write_text("ref: refs/heads/main\n")
    assert commit_of(tmp_path) == ""
    (git / "packed-refs").write_text(
        f"# pack-refs with: peeled\n{other} refs/heads/main2\n{worktree} refs/original/refs/heads/main\n"
        f"{own} xrefs/heads/main\n{packed} refs/heads/main\n^{one}\n{other} refs/heads/main/x\n"
    )
    assert commit_of(tmp_path) == packed
    (git / "refs" / "heads" / "main").write_text(f"{other}\n")
    assert commit_of(tmp_path) == other

    tree, named = tmp_path / "tree", git / "worktrees" / "tree"
    named.mkdir(parents=True)
    tree.mkdir()
    (tree / ".git").write_text("gitdir: ../.git/worktrees/tree\n")
    (named / "HEAD").write_text("ref: refs/heads/topic\n")
    (named / "commondir").write_text("../..\n")
    assert commit_of(tree) == ""
    (git / "packed-refs").write_text(f"{packed} refs/heads/topic\n")
    assert commit_of(tree) == packed
    (git / "refs" / "heads" / "topic").write_text(f"{worktree}\n")
    assert commit_of(tree) == worktree
    (named / "refs" / "heads").mkdir(parents=True)
    (named / "refs" / "heads" / "topic").write_text(f"{own}\n")
    assert commit_of(tree) == own, "what a worktree has of its own goes first"
    head.write_bytes(b"\xff")
    assert commit_of(tmp_path) == commit_of(tmp_path / "nowhere") == ""


def test_a_package_has_a_commit_where_it_lies_in_the_sources_of_a_checkout(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(COMMITS[0])
    for folder, commit in (("src", COMMITS[0]), ("lib", "")):
        copy = tmp_path / folder / "firsthand" / "system" / "source_commit.py"
        copy.parent.mkdir(parents=True)
        copy.write_text(Path(source_commit.__wrapped__.__code__.co_filename).read_text())
        found = runpy.run_path(str(copy))["source_commit"]
        assert found() == commit == found()


def test_the_commit_of_this_checkout_is_gits() -> None:
    root = Path(__file__).parents[1]
    told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    is_here = Path(source_commit.__wrapped__.__code__.co_filename).resolve().is_relative_to(root / "src")
    assert source_commit() == (told.stdout.strip() if is_here and (root / ".git").exists() else "")


def test_a_seal_is_made_with_the_key_that_this_home_keeps_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "new" / "home"
    monkeypatch.setenv("FIRSTHAND_HOME", str(home))
    seal = seal_of("é\ud800", "figures")
    key = home / KEY
    kept = key.read_bytes()
    assert [each.name for each in home.iterdir()] == [KEY] and len(kept) == 32 and key.stat().st_mode & 0o777 == 0o600
    message = b"figures\0" + "é".encode() + b"\xed\xa0\x80"
    assert seal == hmac.new(kept, message, hashlib.sha256).hexdigest()
    assert seal_of("é\ud800", "figures") == seal and key.read_bytes() == kept
    assert is_ours("é\ud800", seal, "figures") and not is_ours("é\ud800", seal, "run")
    assert not is_ours("é", seal, "figures") and not is_ours("é\ud800", seal[:-1], "figures")
    assert not is_ours("é\ud800", "\ud800", "figures") and not is_ours("é\ud800", None, "figures")
    assert not any(is_ours("é\ud800", none, "figures") for none in (5, 0.5, True, b"", seal.encode(), [seal], {}, ""))
    older = hmac.new(kept, b"{}", hashlib.sha256).hexdigest()  # as before 0.14
    assert is_ours("{}", older, "run") and is_ours("{}", older, "sweep") and not is_ours("[]", older, "run")
    assert not is_ours("{}", older, "decision") and not is_ours("{}", older, "undo")
    for cut in (kept[:31], kept + b"x", b""):
        key.write_bytes(cut)
        own = seal_of("{}", "run")
        assert own != hmac.new(cut, b"run\0{}", hashlib.sha256).hexdigest(), "a key of another length is none"
        assert is_ours("{}", own, "run") and key.read_bytes() == cut, "one of this process holds until it ends"
    key.unlink()
    key.mkdir()
    assert is_ours("{}", seal_of("{}", "run"), "run") and not is_ours("{}", older, "run")
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "other"))
    assert not is_ours("{}", older, "run")


def counted(monkeypatch: pytest.MonkeyPatch, name: str, looks: list[int]) -> None:
    """Count the calls of a function of the lock's module, from now on."""
    whole = getattr(lock, name)

    def look(*given: Any) -> Any:
        looks[0] += 1
        return whole(*given)

    monkeypatch.setattr(lock, name, look)


class Busy(FirsthandError):
    """Raised for a lock that another holds."""


def test_a_lock_is_held_once_and_its_note_names_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.05)
    path, note = tmp_path / "a.lock", tmp_path / "a.lock.holder"
    victim = tmp_path / "victim"
    victim.write_text("whole")
    (tmp_path / "a.lock.holder.new").symlink_to(victim)
    assert not lock.is_held(path) and not path.exists()
    with pytest.raises(ZeroDivisionError), lock.claimed(path, Busy):
        found = json.loads(note.read_text())
        assert (found["pid"], found["host"]) == (os.getpid(), socket.gethostname())
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", found["since"]) and note.read_text().endswith("}\n")
        assert lock.is_held(path) and sorted(each.name for each in tmp_path.iterdir()) == [
            "a.lock",
            note.name,
            "victim",
        ]
        looks, began = [0], time.monotonic()
        counted(monkeypatch, "_flock", looks)
        with pytest.raises(Busy) as refused, lock.claimed(path, Busy):
            raise AssertionError
        took = time.monotonic() - began
        assert took >= 0.05 and 1 < looks[0] <= took / lock._POLL_S + 2, "it waits, and does not spin"
        words = f"process {os.getpid()} on {socket.gethostname()} since {found['since']}"
        assert str(refused.value) == words == lock.holder(path) and note.exists()
        raise ZeroDivisionError
    assert not lock.is_held(path) and not note.exists() and path.read_bytes() == b"" and victim.read_text() == "whole"
    with lock.claimed(path, Busy), lock.held(tmp_path / "b.lock"):
        assert note.exists() and lock.is_held(tmp_path / "b.lock")
    (note / "full").mkdir(parents=True)  # as on a full disk: no note can be written
    monkeypatch.setattr(lock, "_NOTE_S", 0.0)
    with lock.claimed(path, Busy), pytest.raises(Busy) as refused, lock.claimed(path, Busy):
        raise AssertionError
    assert str(refused.value) == "another process, which left no note of itself"
    assert not lock.is_held(path) and (note / "full").is_dir()


def test_a_lock_that_the_file_system_refuses_is_an_error_and_not_a_lock_of_another(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.touch()
    with os.fdopen(os.open(path, os.O_PATH), "rb") as file, pytest.raises(StoreError) as refused:
        lock._flock(file, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    words = "cannot be locked (Bad file descriptor): use a folder on a file system that has locks"
    assert str(refused.value) == f"{path} {words}"

    class Refusing:
        """A file on a file system whose answer to a lock is an error."""

        def __init__(self, code: int) -> None:
            self.code = code

        def fileno(self) -> int:
            raise OSError(self.code, os.strerror(self.code))

    for code in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES):
        words = f"cannot be locked ({os.strerror(code)}): use a folder on a file system that has locks"
        with pytest.raises(StoreError) as refused:
            lock._flock(Refusing(code), path, fcntl.LOCK_EX)  # type: ignore[arg-type]
        assert str(refused.value) == f"{path} {words}"
    assert lock._flock(Refusing(errno.EAGAIN), path, fcntl.LOCK_EX) is False  # type: ignore[arg-type]
    with path.open("ab") as first, path.open("ab") as second:
        assert lock._flock(first, path, fcntl.LOCK_EX) is True
        assert lock._flock(second, path, fcntl.LOCK_EX | fcntl.LOCK_NB) is False


def test_two_that_look_at_a_lock_do_not_take_each_other_for_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with path.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert not lock.is_held(path)
        fcntl.flock(looking, fcntl.LOCK_EX)
        assert lock.is_held(path)
        with lock._ordinary(path, os.O_RDONLY) as other:
            assert not os.get_inheritable(other.fileno()) and other.mode == "rb"
    assert not lock.is_held(path)


def test_one_that_waits_gets_the_lock_when_its_holder_ends(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", list[str]()

    def wait() -> None:
        with lock.held(path):
            order.append("second")

    def claim() -> None:
        with lock.claimed(path, Busy):  # within its patience
            order.append("third")

    threads = [threading.Thread(target=wait), threading.Thread(target=claim)]
    with lock.held(path):
        threads[0].start()
        threads[0].join(0.05)
        order.append("first")
    threads[0].join()
    with lock.held(path):
        threads[1].start()
        threads[1].join(0.05)
        assert order == ["first", "second"]
    threads[1].join()
    assert order == ["first", "second", "third"]


@pytest.mark.slow
def test_the_holder_is_told_from_its_note_if_it_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_NOTE_S", 0.02)
    path, note = tmp_path / "lock", tmp_path / "lock.holder"
    unknown = "another process, which left no note of itself"
    ended = subprocess.Popen(["true"])
    ended.wait()
    here, since = socket.gethostname(), "2026-01-02 03:04:05 UTC"
    assert lock.holder(path) == unknown
    for pid, host, told in (
        (os.getpid(), here, f"process {os.getpid()} on {here} since {since}"),
        (ended.pid, "elsewhere", f"process {ended.pid} on elsewhere since {since}"),
        (ended.pid, here, f"a process begun by process {ended.pid} on {here} since {since}, which has ended itself"),
        (1 << 70, here, f"process {1 << 70} on {here} since {since}"),
    ):
        note.write_text(json.dumps({"pid": pid, "host": host, "since": since}))
        assert lock.holder(path) == told
    whole = json.dumps({"pid": 1, "host": "elsewhere", "since": since})
    for text in (
        "",
        "[]",
        "{}",
        whole[:-1],
        "[" * 9000,
        '{"pid": "x", "host": "a", "since": "b"}',
        whole.ljust(4097, " ") + "x",
    ):
        note.write_text(text)
        assert (lock.holder(path) == unknown) is (text[-1:] != "x"), "no more than 4096 bytes are read"
    for size, told in ((4096, f"process 1 on elsewhere since {since}"), (4097, unknown)):
        note.write_text(whole[:-1].ljust(size - 1) + "}")
        assert lock.holder(path) == told
    note.unlink()
    monkeypatch.setattr(lock, "_NOTE_S", 5.0)
    stale = json.dumps({"pid": ended.pid, "host": here, "since": "2025-01-01 00:00:00 UTC"})
    looks, began = [0], time.monotonic()
    counted(monkeypatch, "_noted", looks)
    for before in (None, stale, "half a no"):
        note.write_text(before) if before else note.unlink(missing_ok=True)
        writer = threading.Timer(0.02, lambda: Path(f"{note}.new").replace(note))
        Path(f"{note}.new").write_text(whole)
        writer.start()
        assert lock.holder(path) == f"process 1 on elsewhere since {since}", "the note of a live process is waited for"
        writer.join()
    assert 3 < looks[0] <= (time.monotonic() - began) / lock._POLL_S + 6, "it waits, and does not spin"
    note.unlink()
    monkeypatch.setattr(lock, "_NOTE_S", 0.02)
    (tmp_path / "real").write_text(whole)
    note.symlink_to(tmp_path / "real")
    assert lock.holder(path) == unknown, "a link is none of ours"


def test_a_lock_that_was_deleted_before_it_was_taken_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, take, deleted = tmp_path / "lock", lock._flock, []

    def late(file: Any, where: Path, operation: int) -> bool:
        if not deleted:
            where.unlink()
            deleted.append(where)
        return take(file, where, operation)

    monkeypatch.setattr(lock, "_flock", late)
    with lock.claimed(path, Busy):
        assert deleted and lock.is_held(path)
    assert not lock.is_held(path)


def test_a_lock_that_cannot_be_is_told_with_its_folder(tmp_path: Path) -> None:
    before = open_files()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name, reason in (
        ("pipe", "No such device or address"),
        ("link", "Too many levels of symbolic links"),
        ("none/lock", "No such file or directory"),
    ):
        path = tmp_path / name
        said = f"{path.parent} cannot be written ({reason}): make the folder writable, or copy it to a place that is"
        for hold in (lock.held(path), lock.claimed(path, Busy)):
            with pytest.raises(StoreError) as refused, hold:
                raise AssertionError
            assert str(refused.value) == said
        assert not lock.is_held(path)
    with pytest.raises(OSError, match="it is no ordinary file"):
        lock._ordinary(Path("/dev/null"), os.O_RDONLY)
    assert open_files() == before and not (tmp_path / "real").exists()


def test_a_holder_on_another_host_or_of_a_number_that_cannot_be_asked_for_counts_as_alive(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    for pid, host in ((2**31 - 1, "elsewhere.example"), (10**30, socket.gethostname())):
        note = {"pid": pid, "host": host, "since": "2026-01-01 00:00:00 UTC"}
        path.with_name("a.lock.holder").write_text(json.dumps(note))
        began = time.monotonic()
        assert lock.holder(path) == f"process {pid} on {host} since 2026-01-01 00:00:00 UTC"
        assert time.monotonic() - began < lock._NOTE_S, "nobody waits for it"


def test_a_bound_of_a_whole_mebibyte_is_told_as_one(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate((1 << 20) + 1)
    for most, told in ((1 << 20, "larger than 1 MiB"), ((1 << 20) - 1, "larger than 1,048,575 bytes")):
        with pytest.raises(OSError, match=told):
            ordinary_file.read_ordinary(tmp_path / "a", most)


def test_bytes_of_no_text_are_refused_or_replaced_as_a_reader_asks(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a\xff\r\nb")
    with pytest.raises(UnicodeDecodeError):
        ordinary_file.read_ordinary_text(tmp_path / "a")
    assert ordinary_file.read_ordinary_text(tmp_path / "a", errors="replace") == "a\ufffd\nb"
