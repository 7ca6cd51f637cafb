"""git as it is called on a stranger's repository: its words, its whole environment, its failures, and what is kept."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, DataError
from firsthand.sandbox import git_repository
from firsthand.sandbox.git_repository import CONFIG, blob, commit_alone, git, prune

GIT = """#!/bin/sh
for word; do printf '%s|' "$word"; done
echo; pwd; cat; echo; cat "$GIT_CONFIG_GLOBAL"; echo "--"
env | sort
"""


def program(folder: Path, text: str) -> None:
    path = folder / "git"
    path.write_text(text)
    path.chmod(0o755)


def test_git_sees_our_settings_and_nothing_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, GIT)
    path = f"{tmp_path}:/usr/bin:/bin"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("GIT_DIR", "/evil")
    monkeypatch.setenv("SECRET", "x")
    said = git("log", "a b", folder=Path("/re po"), stdin=b"given\xff").split(b"\n--\n")
    assert said[0] == b"--git-dir=/re po|log|a b|\n/\ngiven\xff\n" + CONFIG.encode().rstrip(b"\n")
    seen = dict(line.split("=", 1) for line in said[1].decode().splitlines())
    config = seen.pop("GIT_CONFIG_GLOBAL")
    assert config.endswith(".gitconfig") and not Path(config).exists(), "it is removed"
    assert {name: value for name, value in seen.items() if name not in ("PWD", "OLDPWD", "SHLVL", "_")} == {
        "PATH": path, "HOME": "/dev/null", "LC_ALL": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": "file", "GIT_NO_LAZY_FETCH": "1", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
    }  # fmt: skip
    assert git("x").startswith(b"x|\n/\n\n")


def test_a_git_that_fails_is_told_by_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def failed(script: str) -> str:
        program(tmp_path, f"#!/bin/sh\n{script}\n")
        with pytest.raises(DataError) as error:
            git("fetch", "word", folder=tmp_path)
        return str(error.value)

    said = failed(r"printf 'first\nfatal: \303\251 \377 last\n \n' >&2; exit 128")
    assert said == "git fetch failed: fatal: é \ufffd last", "its names need not be UTF-8"
    assert failed("exit 3") == "git fetch failed: exit status 3" == failed("echo out; echo ' ' >&2; exit 3")
    assert failed("printf x >&2; head -c 300 /dev/zero | tr '\\0' y >&2; exit 1") == f"git fetch failed: x{'y' * 299}"
    for given, size in (("", 20e9), ("1.5", 1.5e9), ("0", 0.0), ("inf", float("inf"))):
        monkeypatch.setenv(git_repository.LIMIT, given)
        assert git_repository._limit_bytes() == size
    for given in ("nan", "-1", "x", "-0.1"):
        monkeypatch.setenv(git_repository.LIMIT, given)
        with pytest.raises(ConfigError) as error:
            git_repository._limit_bytes()
        assert str(error.value) == (f"FIRSTHAND_REPOSITORIES_GB is {given!r}: give a number of gigabytes, such as 20")
    monkeypatch.delenv(git_repository.LIMIT)
    assert git_repository._limit_bytes() == 20e9
    assert failed("kill -9 $$") == "git fetch failed: exit status -9"
    program(tmp_path, r"printf 'warning \377' >&2; printf 'out\377\n '".join(["#!/bin/sh\n", "\n"]))
    assert git("status") == b"out\xff\n ", "what it warns of is no failure"
    monkeypatch.setattr(git_repository, "FETCH_S", 0.05)
    assert failed("exec sleep 5") == "git fetch did not finish within 0.05 s"
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"^git was not found: install it \(Debian, Ubuntu: apt install git\)$"):
        git("status")


def test_a_blob_is_text_of_a_bounded_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert git_repository.MAX_BLOB_BYTES == 4 * 2**20
    monkeypatch.setattr(git_repository, "MAX_BLOB_BYTES", 6)

    def found(script: str) -> str | None:
        size = f'[ "$3" != -s ] || {{ ( {script} ) | wc -c; exit 0; }}'
        program(tmp_path, f'#!/bin/sh\necho "$@" >> {tmp_path}/log\n{size}\n{script}\n')
        return blob(tmp_path / "b", "c0", "d/é.py")

    assert found("printf 'é1234'") == "é1234" and found("printf 'é12345'") is None, "bytes, not characters"
    assert found("printf ''") == "" and found("printf 'a\\0b'") is None and found("printf '\\377'") is None
    assert found("echo no >&2; exit 128") is None
    asked = [line.split()[2] for line in (tmp_path / "log").read_text().splitlines()]
    assert asked == ["-s", "blob", "-s", *["-s", "blob"] * 4], (
        "the size is asked first, and too large a file is not read"
    )
    assert (tmp_path / "log").read_text().endswith(f"--git-dir={tmp_path}/b cat-file blob c0:d/é.py\n")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A repository of two commits, with a home of ours."""
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FIRSTHAND_REPOSITORIES_GB", raising=False)
    repo = tmp_path / "repo"
    repo.mkdir()
    who = {f"GIT_{role}_{what}": "a" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull}
    script = (
        "git init -q && echo one > f && git add f && git commit -qm 1 && echo two > f && git commit -qam 2 && git tag v"
    )
    subprocess.run(
        ["sh", "-c", f"{script} && git bundle create -q ../b.bundle --all"], cwd=repo, check=True, env=environment
    )
    log = subprocess.run(["git", "rev-list", "HEAD"], cwd=repo, check=True, capture_output=True, text=True)
    return repo, log.stdout.split()


@pytest.mark.slow
def test_a_commit_is_kept_under_its_source_from_a_folder_or_a_bundle(
    repository: tuple[Path, list[str]], tmp_path: Path
) -> None:
    repo, (second, first) = repository
    kept = tmp_path / "home" / "repositories"
    made = commit_alone(repo / ".." / "repo", first)
    assert made == kept / hashlib.sha256(f"{repo.resolve()}\0{first}".encode()).hexdigest()[:24]
    assert (made / "HEAD").read_text() == f"{first}\n" and blob(made, "HEAD", "f") == "one\n"
    assert [path.name for path in kept.iterdir()] == [made.name], "nothing half made is left"
    for path in [made, *made.rglob("*")]:
        wanted = 0o055 if path.is_dir() else 0o044
        assert stat.S_IMODE(path.stat().st_mode) & wanted == wanted, path
    assert (
        git("for-each-ref", folder=made) == b"" and git("rev-parse", "--is-bare-repository", folder=made) == b"true\n"
    )
    assert git("rev-list", "--all", "HEAD", folder=made) == f"{first}\n".encode()
    bundled = commit_alone(tmp_path / "b.bundle", second)
    assert bundled == kept / hashlib.sha256(f"{tmp_path.resolve()}/b.bundle\0{second}".encode()).hexdigest()[:24]
    assert (blob(bundled, "HEAD", "f"), blob(bundled, first, "f")) == ("two\n", None)
    assert git("rev-list", "--count", "HEAD", folder=bundled) == b"1\n", "without its history"
    own = commit_alone(repo, second)
    assert own != bundled and git("for-each-ref", folder=own) == git("for-each-ref", folder=bundled) == b"", "no tags"
    marker = made / "marker"
    marker.touch()
    os.utime(made, (9, 9))
    assert commit_alone(repo, first) == made and marker.exists() and time.time() - made.stat().st_mtime < 60
    for commit, where, said in (
        (first[:39], repo, f"the commit is {first[:39]!r}: give all 40 digits of its hash"),
        ("A" * 71, repo, f"the commit is {'A' * 70!r}: give all 40 digits of its hash"),
        (f"{first}\n", repo, f"the commit is {first + chr(10)!r}: give all 40 digits of its hash"),
        ("a" * 41, repo, f"the commit is {'a' * 41!r}: give"), ("a" * 63, repo, f"the commit is {'a' * 63!r}: give"),
        ("g" * 40, repo, f"the commit is {'g' * 40!r}: give"),
        (first, tmp_path / "no", f"{str(tmp_path / 'no')!r} is not there: the folder of a git repository"),
        ("a" * 64, repo, "git fetch failed: "), ("0" * 40, repo, "git fetch failed: "),
        (first, tmp_path / "home", "git fetch failed"),
    ):  # fmt: skip
        with pytest.raises(DataError) as error:
            commit_alone(where, commit)
        assert str(error.value).startswith(said)
    assert sorted(path.name for path in kept.iterdir()) == sorted([made.name, bundled.name, own.name])


def test_a_repository_is_kept_in_a_home_that_is_not_there_yet_and_used_where_its_time_cannot_be_set(
    repository: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, (second, first) = repository
    home = tmp_path / "not" / "there"
    monkeypatch.setenv("FIRSTHAND_HOME", str(home))
    made = commit_alone(repo, first)
    assert made.parent == home / "repositories"

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refused)
    assert commit_alone(repo, first) == made
    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(PermissionError):
        commit_alone(repo, second)


def test_what_is_kept_too_long_goes_with_the_next_commit(
    repository: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, (second, _) = repository
    kept = tmp_path / "home" / "repositories"
    (kept / "old").mkdir(parents=True)
    (kept / "old" / "f").write_bytes(bytes(2_000))
    os.utime(kept / "old", (5, 5))
    monkeypatch.setenv("FIRSTHAND_REPOSITORIES_GB", "0.000001")
    mask = os.umask(0o077)
    try:
        made = commit_alone(repo, second)
    finally:
        os.umask(mask)
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in made.rglob("*") if path.is_dir()} == {0o055}
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in made.rglob("*") if path.is_file()} == {0o044}
    assert [path.name for path in kept.iterdir()] == [made.name], "what was used today stays"
    assert (
        git_repository._used_at(tmp_path / "none") == float("inf")
        and git_repository._size_bytes(tmp_path / "none") == 0
    )
    os.utime(made, (7, 7))
    assert git_repository._used_at(made) == 7
    (tmp_path / "sizes" / "deep").mkdir(parents=True)
    (tmp_path / "sizes" / "deep" / "f").write_bytes(bytes(11))
    (tmp_path / "sizes" / "l").symlink_to("deep/f")
    folder = (tmp_path / "sizes" / "deep").lstat().st_size
    assert git_repository._size_bytes(tmp_path / "sizes") == 11 + len("deep/f") + folder


def test_every_ref_of_a_bundle_is_fetched_not_its_branches_alone(tmp_path: Path) -> None:
    repo, bundle = tmp_path / "r", tmp_path / "r.bundle"
    git("init", "--quiet", "--bare", "--template=", str(repo))
    tree = git("mktree", folder=repo).decode().strip()
    made = {}
    for ref in ("heads/main", "tags/v1", "notes/far"):
        words = ("-c", "user.name=a", "-c", "user.email=a@b")
        made[ref] = git(*words, "commit-tree", tree, "-m", ref, folder=repo).decode().strip()
        git("update-ref", f"refs/{ref}", made[ref], folder=repo)
    git("bundle", "create", "--quiet", str(bundle), "--all", folder=repo)
    into = git_repository._unbundled(bundle, tmp_path / "whole")
    assert into == tmp_path / "whole" and len(set(made.values())) == 3
    told = git("for-each-ref", "--format=%(refname) %(objectname)", folder=into).decode().splitlines()
    assert told == sorted(f"refs/bundled/{ref} {commit}" for ref, commit in made.items())
    for commit in made.values():
        assert git("cat-file", "-t", commit, folder=into) == b"commit\n"


def test_those_that_were_not_used_for_longest_go_first_and_only_as_many_as_must(tmp_path: Path) -> None:
    def made(**ages: Any) -> int:
        for name, age in ages.items():
            folder = tmp_path / name.replace("dot_", ".")
            folder.mkdir()
            (folder / "f").write_bytes(bytes(100 * len(name)))
            os.utime(folder, (time.time() - age,) * 2)
        return sum((path / "f").stat().st_size for path in tmp_path.iterdir())

    assert made(new=50, a=3_000, older=4_000, dot_gone=200, dot_young=50) == 300 + 100 + 500 + 800 + 900
    assert prune(tmp_path, 2_600, spare_s=100) == 800, "what was left half made goes though there is room"
    assert prune(tmp_path, 1_800, spare_s=100) == 0 and prune(tmp_path, 1_799, spare_s=100) == 500
    assert sorted(path.name for path in tmp_path.iterdir()) == [".young", "a", "new"]
    assert prune(tmp_path, 0) == 0, "a day is spared"
    assert (
        prune(tmp_path, 0, spare_s=100) == 100
        and prune(tmp_path, 0, spare_s=10) == 1_200
        and not list(tmp_path.iterdir())
    )


def test_what_was_used_exactly_as_long_ago_as_is_spared_may_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_700_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    for name, age in (("at", 100), ("within", 99)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_bytes(bytes(7))
        os.utime(tmp_path / name, (now - age,) * 2)
    assert prune(tmp_path, 0, spare_s=100) == 7 and [path.name for path in tmp_path.iterdir()] == ["within"]
