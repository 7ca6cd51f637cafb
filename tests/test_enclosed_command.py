"""A program of a database's server: as a user of its own, in bubblewrap, with one folder to write in and bounded memory."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from firsthand.errors import SandboxError
from firsthand.worlds.database import enclosed_command
from firsthand.worlds.database.enclosed_command import enclosed, give_away, process_options


@pytest.fixture
def folders() -> Iterator[tuple[Path, Path]]:
    """A folder to write in and one to read, whose parent any user may reach."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name, "own").mkdir(mode=0o700)
        Path(name, "empty").mkdir()
        yield Path(name, "own"), Path(name, "empty")


def printed(script: str, own: Path, empty: Path, user: int | None) -> str:
    command = enclosed(["/bin/sh", "-c", script], user, own, empty)
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=20, **process_options(user, own)).stdout


def test_root_gives_the_folder_to_a_user_that_nobody_else_is(folders, monkeypatch) -> None:
    own, empty = folders
    user = give_away(own)
    if os.geteuid() != 0:
        assert user is None
        return
    if user is None:
        pytest.skip("root cannot become somebody else here")
    assert own.stat().st_uid == own.stat().st_gid == user != 0
    assert stat.S_IMODE(own.parent.stat().st_mode) == 0o711
    assert printed("id -u; id -g; id -G", own, empty, user).split() == [str(user)] * 3
    monkeypatch.setattr(enclosed_command, "own_id", lambda: None)
    assert give_away(own) is None


def test_a_folder_that_the_user_cannot_reach_is_told_with_what_to_do(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    own = closed / "server" / "own"
    own.mkdir(parents=True)
    closed.chmod(0o700)
    try:
        assert give_away(own) is None
    except SandboxError as error:
        assert str(error) == (
            f"{own.parent} cannot be reached by a user who is not root: set TMPDIR to a folder that can"
        )
    else:
        assert os.geteuid() != 0 or enclosed_command.own_id() is None


def test_root_that_may_not_become_somebody_else_keeps_the_folder(folders, monkeypatch) -> None:
    own, _ = folders

    def refused(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(enclosed_command, "own_id", lambda: 54_321)
    monkeypatch.setattr(enclosed_command.subprocess, "run", refused)
    assert give_away(own) is None and own.stat().st_uid == os.geteuid()


def test_the_program_writes_in_its_folder_alone_and_sees_nothing_of_the_machine(folders, monkeypatch) -> None:
    own, empty = folders
    if not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    monkeypatch.setenv("FIRSTHAND_TEST_KEY", "secret")
    user = give_away(own)
    beside = own.parent / "beside"
    beside.mkdir()
    beside.chmod(0o777)
    Path(beside, "private").write_text("private")
    script = f"""
        echo in > {own}/in && echo own; for each in {beside} {empty} /tmp /var/tmp /etc /usr /; do
        echo out > $each/firsthand-out && echo $each; done; cat {beside}/private /etc/passwd; ls -a {empty}; env; ls /proc"""
    told = printed(script, own, empty, user).split("\n")
    wrapped = enclosed(["/bin/sh"], user, own, empty)
    assert wrapped[4] == "/bin/sh" or {"--unshare-pid", "--unshare-net", "--remount-ro", "ALL"} <= set(wrapped)
    if enclosed(["/bin/sh"], user, own, empty)[4] == "/bin/sh":
        pytest.skip("bubblewrap may make no namespaces here")
    assert [each for each in told if not each.isdecimal()][:3] == ["own", ".", ".."]
    assert not [each for each in told if "secret" in each or "private" in each]
    assert len([each for each in told if each.isdecimal()]) < 8, "no process of others"
    assert (own / "in").read_text() == "in\n"
    assert not list(beside.glob("*out"))


def test_memory_is_bounded_and_a_core_is_not_written(folders) -> None:
    own, empty = folders
    user = give_away(own)
    assert printed("ulimit -v; ulimit -c", own, empty, user).split() == [str(4 * 2**20), "0"]
    assert "ulimit -c 0" in enclosed(["/bin/sh"], user, own, empty)[2]


def test_without_bubblewrap_the_program_runs_as_it_is(folders, monkeypatch) -> None:
    own, empty = folders
    monkeypatch.setenv("PATH", str(empty))
    assert enclosed(["/bin/sh", "x"], None, own, empty)[4:] == ["/bin/sh", "x"]
    assert process_options(None, own)["env"]["PATH"] == str(empty)
    assert process_options(54_321, own)["extra_groups"] == []
    (empty / "bwrap").write_text("#!/bin/sh\nexit 1\n")
    (empty / "bwrap").chmod(0o755)
    assert enclosed(["/bin/sh", "x"], None, own, empty)[4:] == ["/bin/sh", "x"], "it may make no namespaces"


def test_the_folder_that_a_program_was_installed_in_is_shown(folders, monkeypatch) -> None:
    own, empty = folders
    monkeypatch.setattr(enclosed_command, "_runs", lambda *_: True)
    elsewhere = own.parent / "conda"
    (elsewhere / "bin").mkdir(parents=True)
    command = enclosed([str(elsewhere / "bin" / "mariadbd")], None, own, empty)
    assert [str(elsewhere)] * 2 in [command[place : place + 2] for place in range(len(command))]
    assert str(elsewhere) not in enclosed(["/usr/sbin/mariadbd"], None, own, empty)
