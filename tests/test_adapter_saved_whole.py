"""An adapter that is saved over another: a kill or a reader in between never joins new weights with old settings."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from firsthand.errors import ModelFileError
from firsthand.nn.lora import CONFIG, WEIGHTS, Adapter, LowRankUpdate, read_adapter
from firsthand.train.adapters.save_adapter import write_adapter
from lora_tiny import base

OURS = "layers.1.attention.k_proj.weight"
MODEL = base()


def adapter(value: float, scale: float, rank: int = 3) -> Adapter:
    update = LowRankUpdate(torch.full((rank, 32), value), torch.full((16, rank), value), scale)
    return Adapter(Path(), {OURS: update})


def saved(folder: Path, value: float, scale: float, rank: int = 3) -> Path:
    write_adapter(adapter(value, scale, rank), MODEL, folder)
    return folder


def found(folder: Path) -> tuple[float, float] | str:
    """Value and scale of the adapter that is read, or why it is not."""
    try:
        update = read_adapter(folder, MODEL).deltas[OURS]
    except ModelFileError as error:
        return str(error)
    return float(update.a[0, 0]), update.scale


def on_event(name: str, act: Callable[[str], None]) -> Callable[[], None]:
    """Act on each audited event of that name with its first argument; returns what ends that."""
    is_on = [True]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if is_on and event == name:
            act(str(arguments[0]))

    sys.addaudithook(hook)  # it stays, and does nothing once `is_on` is empty
    return is_on.clear


def after_each_kill(folder: Path, copies: Path, save: Callable[[], None]) -> list[tuple[float, float] | str]:
    """What is read of the folder as it is before each rename of a save, and at its end."""
    end = on_event("os.rename", lambda source: shutil.copytree(folder, copies / str(len(list(copies.iterdir())))))
    copies.mkdir()
    try:
        save()
    finally:
        end()
    every = [copies / str(number) for number in range(len(list(copies.iterdir())))]
    return [said.replace(str(each), "F") if isinstance(said := found(each), str) else said for each in every] + [
        found(folder)
    ]


def test_a_save_that_is_killed_leaves_the_old_adapter_the_new_one_or_none_that_can_be_read(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", 1.0, 8.0)
    refused = f"F/{CONFIG} is empty, as it is while an adapter is saved: load it again, or save it again if that was "
    refused += "interrupted"
    old, new = (1.0, 8.0), (2.0, 0.5)
    read = after_each_kill(folder, tmp_path / "copies", lambda: saved(folder, *new) and None)
    assert list(dict.fromkeys(read)) == [old, refused, new] and read.count(refused) == 2
    assert sorted(each.name for each in folder.iterdir()) == [CONFIG, WEIGHTS]


def test_settings_that_the_saver_cannot_read_count_as_other_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    folder = saved(tmp_path / "a", 1.0, 8.0)
    monkeypatch.setattr("firsthand.train.adapters.save_adapter.read_ordinary", refuse)
    read = after_each_kill(folder, tmp_path / "copies", lambda: saved(folder, 2.0, 0.5) and None)
    assert read[0] == (1.0, 8.0) and read[-1] == (2.0, 0.5) and (2.0, 8.0) not in read


def test_weights_that_cannot_be_replaced_keep_their_settings(tmp_path: Path) -> None:
    """As on a share that lets nobody replace a file that is open elsewhere."""
    folder = saved(tmp_path / "a", 1.0, 8.0)
    before = {each.name: each.read_bytes() for each in folder.iterdir()}

    def refuse(source: str) -> None:
        if source.endswith(f"{WEIGHTS}.part"):
            sizes.extend(each.stat().st_size for each in folder.glob(CONFIG))
            raise PermissionError(13, "Permission denied", source)

    sizes: list[int] = []
    end = on_event("os.rename", refuse)
    try:
        with pytest.raises(PermissionError):
            saved(folder, 2.0, 0.5)
        assert {each.name: each.read_bytes() for each in folder.iterdir()} == before
        (folder / CONFIG).unlink()
        with pytest.raises(PermissionError):
            saved(folder, 2.0, 0.5)
    finally:
        end()
    assert sizes == [0] and [each.name for each in folder.iterdir()] == [WEIGHTS]


def test_a_save_with_equal_settings_can_be_read_at_any_moment(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", 1.0, 8.0)
    read = after_each_kill(folder, tmp_path / "copies", lambda: saved(folder, 2.0, 8.0) and None)
    assert list(dict.fromkeys(read)) == [(1.0, 8.0), (2.0, 8.0)]


def test_a_first_save_that_is_killed_leaves_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    read = after_each_kill(tmp_path / "a", tmp_path / "copies", lambda: saved(tmp_path / "a", 2.0, 0.5) and None)
    assert list(dict.fromkeys(read)) == [f"F has no {CONFIG}", (2.0, 0.5)]


def test_a_save_goes_over_what_a_kill_left_or_settings_of_another_hand_and_keeps_the_mode(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", 1.0, 8.0)
    for content in (b"", b"\xff{", b"{}" * 40_000):
        (folder / CONFIG).write_bytes(content)
        (folder / CONFIG).chmod(0o640)
        assert found(saved(folder, 2.0, 0.5)) == (2.0, 0.5)
        assert stat.S_IMODE((folder / CONFIG).stat().st_mode) == 0o640


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_an_adapter_that_is_saved_anew_while_it_is_read_is_refused(tmp_path: Path, name: str) -> None:
    folder, other = saved(tmp_path / "a", 1.0, 8.0), saved(tmp_path / "b", 2.0, 0.5)
    assert found(folder) == (1.0, 8.0)
    said = f"{folder} was saved anew while it was read: load it again"
    before = (folder / name).stat()

    def replace(source: str) -> None:
        if source == str(folder / WEIGHTS) and not taken:
            taken.append(source)
            (other / name).replace(folder / name)
            os.utime(folder / name, ns=(before.st_atime_ns, before.st_mtime_ns))

    def touch(source: str) -> None:
        if source == str(folder / WEIGHTS) and not taken:
            taken.append(source)
            os.utime(folder / name, ns=(before.st_atime_ns, before.st_mtime_ns + 1))

    for change in (touch, replace):
        taken: list[str] = []
        end = on_event("open", change)
        try:
            assert found(folder) == said
        finally:
            end()
        assert taken and json.loads((folder / CONFIG).read_text())["r"] == 3
        before = (folder / name).stat()


def test_an_adapter_whose_file_is_deleted_while_it_is_read_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", 1.0, 8.0)

    def delete(source: str) -> None:
        if source == str(folder / WEIGHTS):
            (folder / CONFIG).unlink(missing_ok=True)

    end = on_event("open", delete)
    try:
        assert found(folder) == f"{folder / CONFIG} cannot be read: No such file or directory"
    finally:
        end()
