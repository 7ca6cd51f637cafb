"""A chat template that is a symbolic link: read where it stays with the model, refused where it leaves it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from firsthand.errors import ModelFileError
from firsthand.system.folder_links import links_out, own_files
from firsthand.tokens.pretrained import TOOL_TEMPLATE, _folder_template, _tool_template

if sys.platform == "win32":
    pytest.skip("links need a right there", allow_module_level=True)


def linked(folder: Path, target: Path | str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chat_template.jinja").symlink_to(target)
    return folder


def test_a_template_that_links_out_of_its_model_folder_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("of the host")
    (tmp_path / "sub").symlink_to(tmp_path)
    away = tmp_path / "repository" / "blobs"  # a layout of the hub whose blobs are a link themselves
    away.parent.mkdir()
    away.symlink_to(tmp_path)
    for folder in (
        linked(tmp_path / "absolute", secret), linked(tmp_path / "relative", "../secret.txt"),
        linked(tmp_path / "steps", "../sub/secret.txt"),
        linked(tmp_path / "up", tmp_path / "absolute/x/../../secret.txt"),
        linked(tmp_path / "repository/snapshots/rev", "../../blobs/secret.txt"),
        linked(tmp_path / "other/snapshots/rev", "../../../secret.txt"), linked(tmp_path / "snapshot/rev", "../../blobs/a"),
    ):  # fmt: skip
        (tmp_path / "absolute" / "x").mkdir(exist_ok=True)
        (tmp_path / "blobs").mkdir(exist_ok=True)
        (tmp_path / "blobs" / "a").write_text("of another folder")
        with pytest.raises(ModelFileError) as refused:
            _folder_template(folder, {})
        path = folder / "chat_template.jinja"
        assert str(refused.value) == (
            f"{path} is a link to {path.resolve()}, outside of the model's folder, and is not followed: put a copy of the "
            "file in its place if it belongs to the model"
        )


def test_a_template_that_links_within_its_folder_or_to_the_blobs_of_its_repository_is_read(tmp_path: Path) -> None:
    within = linked(tmp_path / "within", "templates/own.jinja")
    (within / "templates").mkdir()
    (within / "templates" / "own.jinja").write_text("own")
    hub = linked(tmp_path / "hub" / "models--a--b" / "snapshots" / "0f", "../../blobs/5d41")
    (hub.parent.parent / "blobs").mkdir()
    (hub.parent.parent / "blobs" / "5d41").write_text("blob")
    (tmp_path / "named").symlink_to(hub)  # a person's own name for the folder
    (tmp_path / "to").symlink_to(within)
    found = [_folder_template(each, {}) for each in (within, hub, tmp_path / "named", tmp_path / "to")]
    assert found == ["own", "blob", "blob", "own"]


def test_a_template_for_tools_is_read_from_the_hubs_blobs_and_never_through_a_linked_folder(tmp_path: Path) -> None:
    revision, blobs = tmp_path / "models--a--b" / "snapshots" / "0f", tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "1").write_text("T")
    (revision / TOOL_TEMPLATE).parent.mkdir(parents=True)
    (revision / TOOL_TEMPLATE).symlink_to("../../../blobs/1")
    assert _tool_template(revision, {}) == "T" and own_files(revision, [TOOL_TEMPLATE])
    elsewhere, model = tmp_path / "elsewhere", tmp_path / "model"
    elsewhere.mkdir()
    model.mkdir()
    (elsewhere / "tool_use.jinja").write_text("of the host")
    (model / TOOL_TEMPLATE).parent.symlink_to(elsewhere)
    assert links_out(model / TOOL_TEMPLATE, model)
    with pytest.raises(ModelFileError, match="outside of the model's folder"):
        _tool_template(model, {})
    with pytest.raises(ModelFileError, match="outside of the model's folder"):
        own_files(model, [TOOL_TEMPLATE])
