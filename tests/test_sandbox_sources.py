"""What a sandbox is made of: Dockerfiles, repositories, cgroups, Monty and boxes, each with its limits."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import os
import re
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, DataError, SandboxError
from firsthand.sandbox import (
    git_repository,
    memory_cgroup,
    monty,
)
from firsthand.sandbox.box import KEPT, LIMITS, Box, _decoded, outermost
from firsthand.sandbox.bubblewrap import SandboxRun
from firsthand.sandbox.dockerfile import BuildStep, Built, _commands, _lacking, _names, _pairs, _plain, read_dockerfile
from firsthand.sandbox.sandbox_limits import RunLimits, Workspace
from namespaces import WHY_NOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the program inside is for Linux")
needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


# -- Dockerfiles --


def test_a_dockerfile_is_read_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_SANDBOX_PACKAGES", "")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("a")
    (tmp_path / "src" / "a.py").chmod(0o755)
    (tmp_path / "needs.txt").write_text("# list\nno_such.Package==1 ; x\n-r other\n\nanother-missing # why\n")
    file = tmp_path / "Dockerfile"
    file.write_text("""
# comment
FROM --platform=x debian:12@sha256:1
ENV A=1 B="two words"
ENV old style value
WORKDIR /work
WORKDIR sub
COPY src needs.txt /opt/
RUN make \\
  all && true
RUN apt-get update && apt-get install -y sh no-such-package-x=1 && rm -rf /var/lib/apt/lists/* && make it
RUN pip install -r needs.txt --timeout 5 pip
RUN ["echo", "a b"]
USER root:0
EXPOSE 80
USER me
run curl http://x | sh
""")
    built = read_dockerfile(file, tmp_path, re.compile("debian:12"))
    variables = {"A": "1", "B": "two words", "old": "style value"}
    files = (("/opt/a.py", b"a", True), ("/opt/needs.txt", (tmp_path / "needs.txt").read_bytes(), False))
    here: Any = {"folder": "/work/sub", "environment": variables}
    assert built == Built(
        "/work/sub", ("/work", "/work/sub", "/opt"), variables,
        (
            BuildStep(files=files), BuildStep(command="make    all && true", **here), BuildStep(command="make it", **here),
            BuildStep(command="echo 'a b'", **here),
        ),
        [
            "is built from the image 'debian:12'", "needs the Debian packages no-such-package-x=1",
            "needs the Python packages no_such.Package==1, another-missing", "says 'USER me'", "runs `curl http://x | sh`",
        ],
    )  # fmt: skip
    assert read_dockerfile(file, tmp_path, re.compile(r"debian:12@sha256:\d")).lacks[0].startswith("needs the Debian")
    assert [_pairs(text) for text in ("A=1 B", "A b c", "A='x y' B=", "A='x")] == [
        {"A": "1"},
        {"A": "b c"},
        {"A": "x y", "B": ""},
        {"A": "'x"},
    ]
    assert [_plain(text) for text in ("A_b.C--d>=1", "x[extra]", "?")] == ["a-b-c-d", "x", "?"]
    assert _names("-y --timeout 5 a 'b c' -i url wheel d", ()) == ["a", "b c", "d"]
    assert _names("-r none.txt x", ()) == ["none.txt", "x"]
    assert _commands("a; b || true") == ["a; b || true"]
    assert _commands("pip install x; a && b || true") == ["pip install x", "a", "b"]
    assert _commands("--mount=type=cache,x a b") == ["a b"] and _commands('["a", "b c"]') == ["a 'b c'"]
    assert _commands("[x") == ["[x"]
    done = ("apt update", "rm -rf /var/lib/apt/lists", "sudo A=1 pip install setuptools")
    assert _lacking("make", ()) is None and [_lacking(text, ()) for text in done] == ["", "", ""]
    (tmp_path / "x").symlink_to("/etc")
    for line, why in (
        ("COPY none /a", "none is not there"), ("COPY --from=x a /a", "only files beside the Dockerfile are copied"),
        ("COPY ../a /a", "../a leads out of the folder, or everywhere in it"), ("COPY x /a", "x leads out of the folder"),
        ("ADD a.tar.gz /a", "archives are not unpacked"), ("COPY a", "only files beside the Dockerfile are copied"),
    ):  # fmt: skip
        (tmp_path / "a.tar.gz").touch()
        file.write_text(f"FROM debian\n{line}\n")
        assert read_dockerfile(file, tmp_path, re.compile("debian")).lacks == [f"{line[:60]}: {why}"]
    file.write_text("FROM debian\nFROM other AS two\n")
    assert read_dockerfile(file, tmp_path, re.compile("debian")).lacks == ["builds in several stages"]
    with pytest.raises(ConfigError, match=r"the Dockerfile '.*none' cannot be read: No such file or directory"):
        read_dockerfile(tmp_path / "none", tmp_path, re.compile("x"))


# -- repositories --


def test_one_commit_of_a_repository_is_kept_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    names = {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    repo = tmp_path / "repo"
    repo.mkdir()

    def git(*words: str) -> str:
        made = {**os.environ, **names, "GIT_CONFIG_GLOBAL": os.devnull}
        return subprocess.run(
            ["git", *words], cwd=repo, check=True, capture_output=True, text=True, env=made
        ).stdout.strip()

    git("init", "-q")
    commits = []
    for text in ("one", "two"):
        (repo / "f").write_text(text)
        (repo / "bin").write_bytes(b"\0" + text.encode())
        git("add", ".")
        git("commit", "-qm", text)
        commits.append(git("rev-parse", "HEAD"))
    kept = git_repository.commit_alone(repo, commits[0])
    assert kept.parent == tmp_path / "home" / "repositories" and git_repository.blob(kept, commits[0], "f") == "one"
    assert git_repository.git("rev-list", "--all", folder=kept).split() == [commits[0].encode()]
    assert git_repository.blob(kept, commits[0], "none") is None
    assert git_repository.blob(kept, commits[0], "bin") is None
    assert git_repository.blob(kept, commits[1], "f") is None, "what came after it is not there"
    os.utime(kept, (5, 5))
    assert git_repository.commit_alone(repo, commits[0]) == kept and kept.stat().st_mtime > 5, "it was used"
    assert git_repository.commit_alone(repo, commits[1]) != kept
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in kept.rglob("*"))
    for commit, where, said in (
        (commits[0][:39], repo, "give all 40 digits of its hash"), (commits[0].upper(), repo, "give all 40 digits"),
        ("0" * 40, repo, "git fetch failed: "),
        (commits[0], tmp_path / "none", "is not there: the folder of a git repository"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=said):
            git_repository.commit_alone(where, commit)
    with pytest.raises(DataError, match="git no-such failed: git: 'no-such' is not a git command"):
        git_repository.git("no-such")
    blob_id = hashlib.sha1(b"blob 1\0x").hexdigest()
    assert git_repository.git("hash-object", "--stdin", stdin=b"x") == f"{blob_id}\n".encode()
    config = git_repository.git("config", "--list")
    assert b"core.hookspath=/dev/null" in config and b"user." not in config and b"protocol.allow=never" in config


def test_what_was_not_used_for_longest_is_removed_until_the_rest_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(**ages: float) -> None:
        for name, age in ages.items():
            folder = tmp_path / name.replace("dot_", ".")
            folder.mkdir()
            (folder / "f").write_bytes(bytes(1_000))
            at = time.time() - age
            os.utime(folder, (at, at))

    made(a=500, b=400, c=300, d=10, dot_making=600)
    (tmp_path / "file").write_bytes(bytes(9_000))

    def left() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    assert git_repository.prune(tmp_path, 4_000, spare_s=100) == 1_000 and left() == ["a", "b", "c", "d", "file"], (
        "half made"
    )
    assert git_repository.prune(tmp_path, 4_000, spare_s=100) == 0
    assert git_repository.prune(tmp_path, 3_999, spare_s=100) == 1_000
    assert left() == ["b", "c", "d", "file"] and git_repository.prune(tmp_path, 0, spare_s=100) == 2_000
    assert left() == ["d", "file"]
    for given, size in (("", 20e9), ("0.5", 5e8), ("0", 0.0)):
        monkeypatch.setenv("FIRSTHAND_REPOSITORIES_GB", given)
        assert git_repository._limit_bytes() == size
    for given in ("x", "-1", "nan"):
        monkeypatch.setenv("FIRSTHAND_REPOSITORIES_GB", given)
        with pytest.raises(ConfigError, match=f"FIRSTHAND_REPOSITORIES_GB is '{given}': give a number of gigabytes"):
            git_repository._limit_bytes()


# -- memory, Monty, boxes --


def test_cgroups_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    gone = 2**22 + 1  # above the largest process id
    for name, age in (
        (f"firsthand-{gone}-0", 11),
        (f"firsthand-{gone}-1", 5),
        (f"firsthand-{os.getpid()}-0", 99),
        ("other", 99),
    ):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    memory_cgroup._remove_left(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"firsthand-{gone}-1", f"firsthand-{os.getpid()}-0", "other"}
    made = memory_cgroup.MemoryCgroup(tmp_path / "own", 2)
    made.close()
    made.folder.mkdir()
    made.close()
    assert not made.folder.exists() and made.entering(["a", "b"])[3:] == [str(made.folder / "cgroup.procs"), "a", "b"]


def test_a_cgroup_that_cannot_be_set_up_is_removed_and_the_next_place_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / name for name in ("missing", "first", "second", "third")]
    for place in places[1:]:
        place.mkdir()
    tried: list[tuple[Path, int]] = []

    def set_up(made: memory_cgroup.MemoryCgroup) -> None:
        tried.append((made.folder.parent, made.version))
        if len(tried) < 3:
            raise (ValueError, PermissionError)[len(tried) - 1]

    monkeypatch.setattr(memory_cgroup, "_set_up", set_up)
    monkeypatch.setattr(memory_cgroup, "_parents", lambda: list(zip(places, (2, 1, 2, 1), strict=True)))
    made = memory_cgroup.open_cgroup()
    assert made is not None and tried == [(places[1], 1), (places[2], 2), (places[3], 1)]
    assert [len(list(place.iterdir())) for place in places[1:]] == [0, 0, 1] and made.folder.is_dir()
    monkeypatch.setattr(memory_cgroup, "_parents", lambda: [(places[0], 2)])
    assert memory_cgroup.open_cgroup() is None


def test_monty_decides_only_what_ends_well() -> None:
    pool = monty._pool(os.getpid())
    if pool is None:
        pytest.skip("pydantic-monty is not installed, or its program is not found")

    def tried(code: str, kind: str = "python", **limits: Any) -> str | None:
        found = monty._attempt(pool, SandboxRun(kind, code, RunLimits(**limits)))
        return None if found is None else found.stdout

    assert tried("print(6 * 7)\nprint('é')") == "42\né\n" and tried("6 * 7", "cell") is None
    assert tried("print(1)", "cell") is None
    assert tried("1 / 0") is None and tried("import socket") is None
    assert tried("print('x' * 99)", output_bytes=50) is None
    assert tried("pass") == "" and tried("6 * 7", "program") == ""


def test_the_folders_and_words_of_a_box_are_plain() -> None:
    assert outermost(["/a/b", "/a", "/c/", "/a", "/ab"]) == ("/a", "/c", "/ab") and outermost([]) == ()
    packed = base64.b64encode(zlib.compress(b"x")).decode()
    assert _decoded(packed, 1) == b"x"
    bomb = base64.b64encode(zlib.compress(bytes(1000))).decode()
    assert _decoded(bomb, 1000) == bytes(1000) and _decoded(base64.b64encode(zlib.compress(b"")).decode(), 0) == b""
    with pytest.raises(SandboxError, match="a file could not be read"):
        _decoded(bomb, 999)
    for wrong in ("!", "é", packed[:-4], base64.b64encode(b"no").decode()):
        with pytest.raises(SandboxError, match="a file could not be read"):
            _decoded(wrong, 100)
    assert (LIMITS.wall_s, LIMITS.memory_bytes, LIMITS.output_bytes, "/workspace" in KEPT) == (
        600,
        2**31,
        10 * 2**20,
        True,
    )
    for sizes in ({"memory_bytes": 2**26 - 1}, {"wall_s": 0}, {"processes": -1}):
        with pytest.raises(ConfigError):
            RunLimits(**sizes)  # type: ignore[arg-type]
    assert RunLimits(memory_bytes=2**26).memory_bytes == 2**26
    for folders in (("/usr/x",), ("relative",), ("/",), ("/a/../b",), ("/base",)):
        with pytest.raises(ConfigError, match="cannot be kept: give a folder such as /root"):
            Workspace(folders=folders)
    for size in ({"size_bytes": 0}, {"files": 0}):
        with pytest.raises(ConfigError, match="give numbers above 0"):
            Workspace(**size)


def test_a_box_reads_with_room_for_the_packed_answer() -> None:
    asked: list[tuple[Any, ...]] = []

    class Asked(Box):
        async def _told(self, do: str, given: Any, stdin: bytes, limits: RunLimits, path: str) -> str:
            asked.append((do, given, stdin, limits.output_bytes, limits.wall_s, path))
            return f"whole:{base64.b64encode(zlib.compress(b'x')).decode()}"

    async def main() -> None:
        box = Asked(folder="/work")
        for most in (5, 2**19, 2**19 + 1):
            assert await box.read("f", most=most) == b"x"
        await box.close()

    asyncio.run(main())
    assert asked == [
        ("read", {"path": "/work/f", "most": most}, b"", room, LIMITS.wall_s, "f")
        for most, room in ((5, 2**20), (2**19, 2**20), (2**19 + 1, 2**20 + 2))
    ]


@pytest.mark.slow
@needs_bwrap
def test_a_box_runs_commands_and_keeps_files_between_them() -> None:
    async def main() -> None:
        async with Box(folder="/work/here", folders=("/extra",), environment={"A": "1", "HOME": "/home"}) as box:
            assert box.kept == (*KEPT, "/extra")
            assert (box._at(""), box._at("x"), box._at("/y")) == ("/work/here", "/work/here/x", "/y")
            await box.write("f", b"\0\xff")
            assert await box.read("/work/here/f", most=2) == b"\0\xff"
            with pytest.raises(ValueError, match="'f' has 2 bytes: at most 1 are read"):
                await box.read("f", most=1)
            with pytest.raises(OSError) as error:
                await box.read("none")
            assert (error.value.errno, error.value.filename) == (errno.ENOENT, "none")
            before = await box.seen()
            words = ["sh", "-c", 'echo "$PWD $A $B $HOME"; cat; exit 5']
            done = await box.exec(words, stdin=b"in\xff", folder="/extra", environment={"A": "2", "B": "3"})
            assert (done.exit_status, done.stdout) == (5, "/extra 2 3 /home\nin\ufffd")
            assert (await box.exec(["sleep", "9"], wall_s=0.05)).ended == "timeout"
            assert (await box.exec(["yes"], output_bytes=10)).ended == "output"
            await box.exec(["sh", "-c", "echo new > g; rm f"])
            kept = await box.snapshot(before)
            with pytest.raises(ValueError, match="what was left in the sandbox is more than 1 bytes, compressed"):
                await box.snapshot(before, most=1)
            await box.exec(["sh", "-c", "rm g; echo x > f"])
            await box.restore(kept)
            assert (await box.exec(["sh", "-c", "ls; cat g"])).stdout == "g\nnew\n"

    asyncio.run(main())
