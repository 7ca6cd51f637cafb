"""Tests of the file tools: no folder becomes a repository whose settings name programs."""

from pathlib import Path

import pytest

from firsthand.errors import ToolError
from firsthand.tools.folders.rooted import Rooted

BARE = ("config", "objects/info/x", "refs/heads/x.txt", "HEAD")


def _write(root: Path, paths: tuple[str, ...]) -> list[str]:
    refused = []
    for path in paths:
        try:
            Rooted(root).create(path, b"x")
        except ToolError as error:
            assert "belongs to git" in str(error)
            refused.append(path)
    return refused


@pytest.mark.parametrize("head", ["HEAD", "head", "docs/HEAD", "docs/objects/../HEAD", "HE\u200bAD", "HEAD/."])
def test_no_head_of_a_repository_is_written(tmp_path: Path, head: str) -> None:
    assert _write(tmp_path, (head,)) == [head]


@pytest.mark.parametrize("order", [BARE, BARE[::-1], (BARE[3], *BARE[:3])])
def test_a_bare_repository_is_not_written_in_any_order(tmp_path: Path, order: tuple[str, ...]) -> None:
    assert "HEAD" in _write(tmp_path, order)
    assert not (tmp_path / "HEAD").exists()


@pytest.mark.parametrize("path", ["objects/info/x", "refs/heads/x", "commondir", "Refs/x", "in/../refs/x"])
def test_a_folder_that_holds_a_head_is_not_completed(tmp_path: Path, path: str) -> None:
    (tmp_path / "HEAD").write_text("ref: refs/heads/main\n")
    assert _write(tmp_path, (path,)) == [path]
    assert _write(tmp_path, ("config", "notes.md")) == []


@pytest.mark.parametrize("mark", ["objects", "refs", "commondir"])
def test_a_repository_without_a_work_tree_is_not_written_to(tmp_path: Path, mark: str) -> None:
    bare = tmp_path / "server.git"
    (bare / mark).mkdir(parents=True)
    (bare / "HEAD").symlink_to("refs/heads/main")
    (bare / "config").write_text("[core]")
    (tmp_path / "linked").symlink_to("server.git")
    rooted = Rooted(tmp_path)
    for path in ("server.git/config", "server.git/hooks/post-checkout", "linked/config.worktree", "server.git/HEAD"):
        for write in (rooted.create, rooted.replace):
            with pytest.raises(ToolError, match=r"belongs to git|a link to 'server\.git/config"):
                write(path, b"x")
    with pytest.raises(ToolError, match="belongs to git"):
        rooted.remove("server.git/config")
    with rooted.open("server.git/config") as file:
        assert file.read() == b"[core]"


@pytest.mark.parametrize(
    ("path", "system"),
    [(".hg/hgrc", "Mercurial"), (".HG/hgrc", "Mercurial"), ("d/.sl/config", "Sapling"), (".jj/repo/config.toml", "Jujutsu"),
     (".g\u200cit/config", "git"), (".git\ufeff/config", "git")],
)  # fmt: skip
def test_settings_of_other_version_control_are_not_written(tmp_path: Path, path: str, system: str) -> None:
    with pytest.raises(ToolError, match=f"belongs to {system}, or would"):
        Rooted(tmp_path).create(path, b"x")


def test_ordinary_names_near_those_of_a_repository_are_written(tmp_path: Path) -> None:
    rooted = Rooted(tmp_path)
    paths = (
        "config",
        "objects/a.json",
        "refs/b.bib",
        "HEAD/notes.md",
        "head.html",
        "docs/HEADER",
        ".gitignore",
        ".hgignore",
    )
    for path in paths:
        rooted.create(path, b"x")
    rooted.create("config.worktree", b"x")
    assert all((tmp_path / path).is_file() for path in paths)
