"""Segments of received traces: only files that we name, in folders of our own, are read or removed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from firsthand.errors import StoreError
from firsthand.ingest.cold_segments import drop_segment, read_sealed, remove_orphans
from firsthand.ingest.retention import remove_beyond, remove_older
from firsthand.ingest.trace_store import TraceStore

NAME = "day=2020-01-01/01577836800000-0123abcd.parquet"


def entered(store: TraceStore, *names: str) -> None:
    with store.database.write() as connection:
        for name in names:
            connection.execute("INSERT INTO segments VALUES (?, 1, 10, 1.0, 2.0)", (name,))
            connection.execute("INSERT INTO sealed VALUES ('t', ?)", (name,))


def files(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of the user, with a file whose name could be ours."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("sales.parquet", "x.part", Path(NAME).name, "tmpabcd_123.part", f"tmp_{Path(NAME).stem}.part"):
        (folder / name).write_text("mine")
    return folder


def test_a_day_that_is_a_link_is_neither_tidied_up_nor_emptied_nor_read(tmp_path: Path, mine: Path) -> None:
    before = files(mine)
    store = TraceStore(tmp_path / "home", create=True)
    segments = store.folder / "segments"
    segments.mkdir()
    (segments / "day=2020-01-01").symlink_to(mine)
    assert remove_orphans(store) == 0
    entered(store, NAME)
    with pytest.raises(StoreError, match="is a link"):
        read_sealed(store, "t")
    assert remove_older(store, 1.0) == 0
    assert files(mine) == before and store.database.read("SELECT count(*) FROM segments")[0][0] == 0
    store.close()


@pytest.mark.parametrize("place", ["traces", "traces/segments"])
def test_a_link_in_the_place_of_the_folder_of_traces_or_segments_is_refused(tmp_path: Path, place: str) -> None:
    own = TraceStore(tmp_path / "own", create=True)
    (own.folder / "segments").mkdir()
    own.close()
    home = tmp_path / "home"
    (home / place).parent.mkdir(parents=True)
    (home / place).symlink_to(tmp_path / "own" / place)
    with pytest.raises(StoreError, match=r"is a link.*FIRSTHAND_HOME"):
        TraceStore(home, create=True)


@pytest.mark.parametrize(
    "name",
    [
        "day=2020-01-01/../../../../mine/sales.parquet",
        "../../../mine/sales.parquet",
        "day=2020-01-01/../../../../mine/01577836800000-0123abcd.parquet",
        "day=2020-01-01/*.parquet",
        f"{NAME}\n",
        f"x{NAME}",
        f"/{NAME}",
    ],
)
def test_a_row_that_names_another_file_than_a_segment_removes_and_reads_none(
    tmp_path: Path, mine: Path, name: str
) -> None:
    before = files(mine)
    store = TraceStore(tmp_path / "home", create=True)
    day = store.folder / "segments" / "day=2020-01-01"
    day.mkdir(parents=True)
    (day / Path(NAME).name).write_text("ours")
    entered(store, name)
    with pytest.raises(StoreError, match="names a file that is no segment"):
        read_sealed(store, "t")
    assert remove_beyond(store, 0) == 0
    assert files(mine) == before and files(day) == [Path(NAME).name]
    assert store.database.read("SELECT count(*) FROM segments")[0][0] == 0
    store.close()


def test_what_was_never_entered_goes_and_what_is_not_ours_stays(tmp_path: Path, mine: Path) -> None:
    store = TraceStore(tmp_path / "home", create=True)
    segments = store.folder / "segments"
    day = segments / "day=2020-01-01"
    shutil.copytree(mine, day)
    shutil.copytree(mine, segments / "day=mine")
    known, part = "day=2020-01-01/01577836800001-0123abcd.parquet", day / "01577836800002-0123abcd.part"
    (segments / known).write_text("ours")
    part.write_text("ours")
    (day / "01577836800003-0123abcd.parquet").symlink_to(mine / "sales.parquet")
    entered(store, known)
    assert remove_orphans(store) == 4
    assert files(day) == [Path(known).name, "01577836800003-0123abcd.parquet", "sales.parquet", "x.part"]
    assert files(segments / "day=mine") == files(mine)
    drop_segment(store, known)
    assert Path(known).name not in files(day)
    for each in day.iterdir():
        each.unlink()
    (segments / known).write_text("ours")
    drop_segment(store, known)
    assert not day.exists()  # the last segment of a day takes its folder along
    store.close()
