"""Runs whose making, opening or writing is broken off: nothing half stays, no file stays open, and the next use works."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from firsthand.errors import FirsthandError, StoreError
from firsthand.runs import database, store, track


class Interrupts:
    """A value that is interrupted while it is written as text."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


def still_open(folder: Path) -> list[str]:
    """The names of files below a folder that this process has open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(each.readlink()))
        except OSError:  # that of the listing itself
            continue
    return [path for path in found if path.startswith(f"{folder}/")]


def test_an_interrupted_write_is_rolled_back_and_the_next_one_works(tmp_path: Path) -> None:
    with store.create(tmp_path, {}, "a", command=[]) as run:
        for error in (KeyboardInterrupt(), ValueError("x")):
            with pytest.raises(type(error)), run.database.write() as connection:
                connection.execute("UPDATE run SET planned = 7")
                raise error
            assert run.database.read("SELECT planned FROM run") == [(None,)]
            with database.Database(run.database.path).write() as other:
                other.execute("UPDATE run SET status = 'x'")


def test_nothing_is_left_of_a_run_whose_making_is_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        store.create(tmp_path, {}, "a", command=["a"], reducers={"r": Interrupts()})  # type: ignore[dict-item]
    assert list((tmp_path / "runs").iterdir()) == []
    mine = tmp_path / "deep" / "mine"
    mine.mkdir(parents=True)
    (mine / "notes").touch()
    with pytest.raises(KeyboardInterrupt):
        store.create(tmp_path, {}, "a", command=["a"], reducers={"r": Interrupts()}, at=mine)  # type: ignore[dict-item]
    assert not list(mine.glob(f"{store.DATABASE}*")) and (mine / "notes").exists()
    store.create(tmp_path, {}, "a", command=[], at=tmp_path / "not" / "yet" / "there").close()
    assert (tmp_path / "not" / "yet" / "there" / store.DATABASE).is_file()
    assert still_open(tmp_path / "not") == []


def test_a_file_that_is_refused_is_closed(tmp_path: Path) -> None:
    foreign, garbage = tmp_path / "foreign.sqlite", tmp_path / "garbage.sqlite"
    with sqlite3.connect(foreign) as made:
        made.execute("CREATE TABLE t (a)")
    made.close()
    garbage.write_bytes(b"no database at all" * 100)
    for path in (foreign, garbage):
        with pytest.raises(StoreError) as refused:  # its frames hold the connection
            database.Database(path)
        assert (still_open(tmp_path), bool(refused)) == ([], True), path


@pytest.mark.slow
def test_a_track_that_another_one_writes_is_refused_and_left_closed(tmp_path: Path) -> None:
    first = track.start("a", home=tmp_path)
    first.log({"x": 1.5}, step=0)
    with pytest.raises(FirsthandError) as refused:  # its frames hold the second one
        track.start("a", home=tmp_path, resume=first.run.id)
    first.finish()
    assert (still_open(tmp_path), bool(refused)) == ([], True)
    again = track.start("a", home=tmp_path, resume=first.run.id)
    assert again.run.id == first.run.id
    again.finish(KeyboardInterrupt())
    assert again.run.info.status == "interrupted"
    again.run.close()
