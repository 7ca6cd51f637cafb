"""Which files of tasks are the installed harness's own, and which are a user's, whatever links lead to them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.bridges.lm_eval.task_loading import _check
from firsthand.errors import ConfigError

if importlib.util.find_spec("lm_eval") is None:
    pytest.skip("needs pip install 'firsthand[lm-eval]'", allow_module_level=True)

import lm_eval

CODE = "task: t\nclass: x.Y\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the installed harness."""
    folder = tmp_path / "site" / "lm_eval"
    (folder / "tasks").mkdir(parents=True)
    monkeypatch.setattr(lm_eval, "__file__", str(folder / "__init__.py"))
    return folder


def refused(files: Mapping[str, Path | str | None], *, trust: bool = False, **tags: list[str]) -> str:
    """The file that is refused when the first task of the index is checked, or nothing."""
    index = {name: SimpleNamespace(yaml_path=path, tags=set(tags.get(name, ()))) for name, path in files.items()}
    manager: Any = SimpleNamespace(task_index=index)
    try:
        _check(next(iter(files)), manager, trust)
    except ConfigError as error:
        assert " runs code of its author with your rights: class: a Python class (" in str(error)
        assert str(error).endswith(".yaml). Read it, then add :trust=true to run it")
        return str(error).split()[0]
    return ""


def test_a_file_of_the_harness_may_hold_code_by_whichever_link_it_is_reached(package: Path, tmp_path: Path) -> None:
    own = package / "tasks" / "own.yaml"
    own.write_text(CODE)
    (tmp_path / "link").symlink_to(package.parent)
    (tmp_path / "one.yaml").symlink_to(own)
    for path in (
        own,
        tmp_path / "link" / "lm_eval" / "tasks" / "own.yaml",
        tmp_path / "one.yaml",
        package / "tasks" / ".." / "tasks" / "own.yaml",
    ):
        assert refused({"t": path}) == "", path


def test_a_file_outside_is_a_users_though_a_link_or_a_name_lies_within_the_harness(
    package: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(CODE)
    (package / "tasks" / "linked.yaml").symlink_to(mine)
    beside = package.parent / "lm_eval_more"
    beside.mkdir()
    for folder in (beside, package.parent):
        (folder / "t.yaml").write_text(CODE)
    for path, name in (
        (mine, "mine.yaml"),
        (package / "tasks" / "linked.yaml", "linked.yaml"),
        (package / ".." / "t.yaml", "t.yaml"),
        (beside / "t.yaml", "t.yaml"),
        (package.parent / "t.yaml", "t.yaml"),
    ):
        found = refused({"t": path})
        assert found == name, path
        assert refused({"t": path}, trust=True) == "", path


def test_a_harness_that_is_itself_reached_by_a_link_knows_its_files(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, mine = package / "own.yaml", tmp_path / "mine.yaml"
    own.write_text(CODE)
    mine.write_text(CODE)
    (tmp_path / "env").symlink_to(package.parent)
    monkeypatch.setattr(lm_eval, "__file__", str(tmp_path / "env" / "lm_eval" / "__init__.py"))
    assert refused({"t": own}) == refused({"t": tmp_path / "env" / "lm_eval" / "own.yaml"}) == ""
    assert refused({"t": mine}) == "mine.yaml"


def test_every_file_behind_a_tag_or_a_group_is_looked_at_once_and_those_of_the_harness_lead_to_others(
    package: Path, tmp_path: Path
) -> None:
    group, bad, plain = package / "group.yaml", tmp_path / "bad.yaml", tmp_path / "plain.yaml"
    group.write_text("group: g\ntask: [plain, g, nowhere, bad]\n")
    bad.write_text(CODE)
    plain.write_text("task: plain\n")
    files: dict[str, Path | None] = {"g": group, "plain": plain, "bad": bad}
    assert refused(files) == "bad.yaml", "the harness's group names a user's task"
    assert refused(files, trust=True) == "" == refused({"g": group, "plain": plain})
    for tagged in (["bad"], ["plain", "bad"], ["bad", "tag", "plain"], ["g"]):
        assert refused({"tag": None, **files}, tag=tagged) == "bad.yaml", tagged
    assert refused({"tag": None, **files}, tag=["plain", "tag", "nowhere"]) == refused({"tag": None}) == ""
    assert refused({"plain": plain, **files}, plain=["bad"]) == "", "a file's own tags name no tasks"
    assert refused({"nowhere": tmp_path / "plain.yaml"}) == ""


def test_a_task_file_of_the_user_that_a_group_names_has_its_data_in_its_folder_or_in_the_one_allowed(
    package: Path, tmp_path: Path
) -> None:
    tasks, data = tmp_path / "tasks", tmp_path / "data"
    tasks.mkdir()
    data.mkdir()
    for folder in (tasks, data):
        (folder / "rows.json").write_text("[]")
    group, mine, own = tasks / "group.yaml", tasks / "mine.yaml", package / "tasks" / "own.yaml"
    group.write_text("group: g\ntask: [mine, own]\n")
    body = "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: %s}\n"
    own.write_text(body % (data / "rows.json"))
    index = {
        name: SimpleNamespace(yaml_path=path, tags=set()) for name, path in (("g", group), ("mine", mine), ("own", own))
    }
    manager: Any = SimpleNamespace(task_index=index)
    mine.write_text(body % (data / "rows.json"))
    with pytest.raises(ConfigError) as refused_data:
        _check("g", manager, False)
    assert str(refused_data.value) == (
        f"mine.yaml names the data {str(data / 'rows.json')!r}, outside of its folder, and is not read: if you want it "
        "sent to the model, allow its folder as in lm_eval:task=mine.yaml:data=FOLDER"
    )
    with pytest.raises(ConfigError, match="outside of its folder"):
        _check("g", manager, True, str(package))
    _check("g", manager, False, str(data))
    mine.write_text(body % (tasks / "rows.json"))
    _check("g", manager, False)
