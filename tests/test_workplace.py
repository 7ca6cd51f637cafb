"""Workplaces: a workspace in the sandbox, and a container by a stand-in for docker that truly runs what it is given."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from firsthand import catalog
from firsthand.agent import Agent
from firsthand.context import Context
from firsthand.errors import ConfigError, DataError, SandboxError, ToolError
from firsthand.message import ToolCall
from firsthand.providers.scripted import Scripted
from firsthand.rollout import rollout
from firsthand.sandbox import git_repository
from firsthand.sandbox.git_repository import blob, commit_alone, prune
from firsthand.sandbox.repository_workspace import ContainerPlace, work
from firsthand.sandbox.sandbox import Sandbox
from firsthand.sandbox.sandbox_limits import RunLimits, Workspace
from firsthand.task import Task
from namespaces import WHY_NOT
from swe_local import git, make_record, make_repository, write

needs_bwrap = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
SMALL = RunLimits(wall_s=10, memory_bytes=2**29)

# -- the sandbox's workspace --


@pytest.mark.slow
@needs_bwrap
def test_a_workspace_is_kept_between_runs_and_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "given").write_text("from the base")

    async def main() -> None:
        async with Sandbox(SMALL, workspace=Workspace(tmp_path / "base", size_bytes=2**20, files=50)) as sandbox:
            kept = "echo kept > x; echo lost > ~/y; echo lost > /tmp/z; echo no > /base/q"
            first = await sandbox.shell(f"pwd; cat /base/given; {kept}")
            assert first.stdout == "/testbed\nfrom the base" and "Read-only" in first.stderr
            assert (await sandbox.shell("ls . ~ /tmp")).stdout == ".:\nx\n\n/tmp:\nshm\nwork\n\n/tmp/work:\n"
            assert "No space" in (await sandbox.shell("head -c 9000000 /dev/zero > big")).stderr
            assert (await sandbox.shell("rm big; i=0; while :; do i=$((i+1)); : > f$i; done")).ended == "memory"
            assert (await sandbox.shell("rm f*; ls")).stdout == "x\n"  # what is too full may be emptied
            assert (await sandbox.shell("ln -s /etc/passwd l; cat l; (sleep 600 &) ; kill -9 $$")).ended == "killed"
            assert (await sandbox.shell("ps x 2>/dev/null | grep -c sleep; cat x")).stdout.endswith("kept\n")
            assert (await sandbox.python("print(open('/testbed/x').read())")).stdout == "kept\n\n"
            [worker] = sandbox._pool.idle
            subprocess.run(["kill", "-9", str(worker.pid)], check=True)
            while worker.alive:
                await asyncio.sleep(0.01)
            with pytest.raises(SandboxError, match="gone, and the workspace with it"):
                await sandbox.shell("ls")

    asyncio.run(main())
    assert [path.name for path in (tmp_path / "base").iterdir()] == ["given"]


@pytest.mark.slow
@needs_bwrap
def test_without_a_workspace_there_is_none() -> None:
    async def main() -> None:
        async with Sandbox(SMALL) as sandbox:
            assert (await sandbox.shell("ls /testbed /base; pwd")).stdout == "/tmp/work\n"

    asyncio.run(main())
    with pytest.raises(ConfigError, match="numbers above 0"):
        Workspace(size_bytes=0)
    with pytest.raises(SandboxError, match="a workspace needs bubblewrap"):
        Sandbox(tier="docker", workspace=Workspace())


# -- repositories that are not trusted --


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path


def test_one_commit_is_copied_without_what_came_before_or_after(home: Path) -> None:
    commit = make_repository(home / "calc")
    base = commit_alone(home / "calc", commit)
    assert git(base, "log", "--all", "--format=%s") == "begin" and commit_alone(home / "calc", commit) == base
    fix = git(home / "calc", "rev-parse", "HEAD")
    with pytest.raises(DataError):
        git_repository.git("cat-file", "-e", fix, folder=base)
    assert (blob(base, commit, "calc/__init__.py") or "").startswith("def half") and blob(base, commit, "x") is None


@pytest.mark.slow
def test_a_bundle_and_a_bare_repository_serve_too(home: Path) -> None:
    commit = make_repository(home / "calc")
    git(home / "calc", "bundle", "create", "--quiet", str(home / "calc.bundle"), "--all")
    git(home, "clone", "--quiet", "--bare", "calc", "bare.git")
    for source in ("calc.bundle", "bare.git"):
        assert blob(commit_alone(home / source, commit), commit, "tests/test_calc.py")


def test_what_a_hostile_repository_would_run_is_not_run(home: Path) -> None:
    repo, ran = home / "calc", home / "RAN"
    commit = make_repository(repo)
    script = repo / "evil"
    script.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    script.chmod(0o755)
    for name in ("post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc", "fsmonitor-watchman"):
        (repo / ".git" / "hooks" / name).write_text(script.read_text())
        (repo / ".git" / "hooks" / name).chmod(0o755)
    for key in ("core.fsmonitor", "core.sshCommand", "filter.x.smudge", "filter.x.clean", "diff.external", "diff.x.textconv",
                "uploadpack.packObjectsHook", "core.pager", "core.editor", "core.alternateRefsCommand"):  # fmt: skip
        git(repo, "config", key, str(script))
    git(repo, "config", "core.hooksPath", str(repo / ".git" / "hooks"))
    (repo / ".git" / "info" / "attributes").write_text("* filter=x diff=x\n")
    ran.unlink(missing_ok=True)
    base = commit_alone(repo, commit)
    assert blob(base, commit, "calc/__init__.py") and not ran.exists()
    assert not (base / "hooks").exists()


@pytest.mark.slow
def test_repositories_past_the_limit_are_removed_by_last_use(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = home / "home" / "repositories"
    made = {}
    for age_h, name in ((50, "oldest"), (40, "older"), (1, "new")):
        folder = home / name
        commit = make_repository(folder)
        made[name] = commit_alone(folder, commit)
        os.utime(made[name], (time.time() - 3600 * age_h,) * 2)
    (kept / ".making-left").mkdir()
    os.utime(kept / ".making-left", (0, 0))
    size = sum(path.lstat().st_size for path in made["new"].rglob("*"))
    assert prune(kept, 10 * size) == 0 and not (kept / ".making-left").exists()
    assert prune(kept, 2.5 * size) > 0
    assert {path.name for path in kept.iterdir()} == {made["older"].name, made["new"].name}
    assert prune(kept, 0) > 0 and list(kept.iterdir()) == [made["new"]]  # it may be in use
    monkeypatch.setenv("FIRSTHAND_REPOSITORIES_GB", "much")
    with pytest.raises(ConfigError, match="FIRSTHAND_REPOSITORIES_GB is 'much'"):
        prune(kept)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "commit", "reason"),
    [
        ("nothing", "0" * 40, "is not there"),
        ("folder", "0" * 40, "git fetch failed"),
        ("file", "0" * 40, "git fetch failed"),
        ("repository", "0" * 40, "git fetch failed"),
        ("repository", "main", "all 40 digits"),
        ("repository", "--upload-pack=touch RAN", "all 40 digits"),
    ],
)
def test_what_is_no_repository_or_no_commit_is_told(home: Path, make: str, commit: str, reason: str) -> None:
    place = home / "thing"
    if make == "repository":
        make_repository(place)
    elif make == "folder":
        place.mkdir()
    elif make == "file":
        place.write_bytes(b"# v2 git bundle\nnot one\n")
    with pytest.raises(DataError, match=reason):
        commit_alone(place, commit)
    assert not list((home / "home").rglob(".making-*")) and not list(home.rglob("RAN"))


# -- containers --

DOCKER = """#!{python}
import json, os, shutil, subprocess, sys
home, words = {home!r}, sys.argv[1:]
with open(home + "/log", "a") as log:
    log.write(json.dumps(words) + "\\n")
def inside(word, name):
    place = os.path.join(home, "running", name)
    for path in ("/testbed", "/firsthand.git", "/tmp/work"):
        word = word.replace(path, place + path)
    return word
if words[0] == "run":
    name = words[words.index("--name") + 1]
    image, command = words[words.index("--workdir") + 2], words[words.index("--workdir") + 3:]
    if not os.path.isdir(os.path.join(home, "images", image)):
        sys.exit("docker: no such image: " + image)
    shutil.copytree(os.path.join(home, "images", image), os.path.join(home, "running", name, "testbed"))
    os.execvp(command[0], command)
elif words[0] == "exec":
    name, command = words[words.index("--workdir") + 2], words[words.index("--workdir") + 3:]
    place = os.path.join(home, "running", name)
    if not os.path.isdir(place):
        sys.exit("no such container")
    data = sys.stdin.buffer.read()
    data = inside(data.decode("utf-8", "surrogateescape"), name).encode("utf-8", "surrogateescape")
    done = subprocess.run([inside(word, name) for word in command], cwd=place + "/testbed", input=data)
    sys.exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)
elif words[0] == "rm":
    shutil.rmtree(os.path.join(home, "running", words[-1]), ignore_errors=True)
"""


@pytest.fixture
def docker(home: Path) -> Path:
    """A program that takes docker's place: an image is a folder, a container a copy of it, and commands run there, truly."""
    program = home / "docker"
    program.write_text(DOCKER.format(python=sys.executable, home=str(home)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    record = make_record(home, image="calc-image")
    git(home / "calc", "reset", "--quiet", "--hard", record["base_commit"])
    with (home / "calc" / "calc" / "__init__.py").open("a") as file:
        file.write("# as the image was built, not committed\n")
    (home / "calc" / "built.txt").write_text("made when the image was built")
    (home / "images").mkdir()
    shutil.move(home / "calc", home / "images" / "calc-image")
    write(home, {**record, "repo": "somebody/calc"})
    return program


@pytest.mark.slow
def test_a_task_with_an_image_is_worked_on_and_judged_in_containers_of_it(docker: Path, home: Path) -> None:
    async def working(task: Task, ctx: Context) -> str:
        for name, arguments in (
            ("view", {"path": "calc/__init__.py"}),
            ("edit", {"path": "calc/__init__.py", "old": "x // 2", "new": "x / 2"}),
            ("shell", {"command": "echo 1 > note.txt; ls; exit 2"}),
        ):
            result = await ctx.call(ToolCall("1", name, arguments))
            assert not result.is_error, result.content
        assert "note.txt" in result.content and "[exit status 2]" in result.content
        return "done"

    benchmark = catalog.benchmark(f"swe_records:data={home / 'tasks.jsonl'}:engine={docker}")
    task = benchmark.tasks(0)[0]
    trace = asyncio.run(rollout(Agent("a", Scripted([]), working), task, benchmark=benchmark))
    assert trace.error is None and trace.scores[0].value == 1.0, (trace.error, trace.scores)
    diff = trace.final_state["diff"]
    assert trace.scores[0].detail["tier"] == "docker" and "+++ b/note.txt" in diff
    assert "built.txt" not in diff and "+# as the image" not in diff
    commands = [json.loads(line) for line in (home / "log").read_text().splitlines()]
    runs = [words for words in commands if words[0] == "run"]
    assert len(runs) == 2 and not list((home / "running").iterdir())  # one to work in, one to judge in, none left
    for words in runs:
        line = " ".join(words)
        for part in ("--rm --interactive --init", "--network none", "--cap-drop ALL", "no-new-privileges",
                     "--pids-limit 512", "--memory 4294967296", "--workdir /testbed calc-image"):  # fmt: skip
            assert part in line


@pytest.mark.slow
def test_a_container_has_a_network_only_if_asked_and_one_that_does_not_start_is_an_error(docker: Path) -> None:
    assert "--network" not in ContainerPlace("i", network=True, engine=str(docker)).command()

    async def main() -> None:
        place = ContainerPlace("nowhere", engine=str(docker))
        with pytest.raises(SandboxError, match="no container of nowhere starts: docker: no such image"):
            await place.open()
        await place.close()

    asyncio.run(main())


@pytest.mark.slow
def test_commands_in_a_container_are_bounded(docker: Path) -> None:
    async def main() -> None:
        place = ContainerPlace("calc-image", engine=str(docker), limits=RunLimits(wall_s=1, output_bytes=10_000))
        await place.open()
        try:
            assert (await place.shell("sleep 30")).ended == "timeout"
            flood = await place.shell("yes")
            assert flood.ended == "output" and len(flood.stdout) == 10_000
            assert (await place.shell("cat; cat /tmp/work/a/b", stdin="in ", files={"a/b": "é"})).stdout == "in é"
            assert (await place.shell("exit 7")).exit_status == 7
            with pytest.raises(ToolError, match="not inside"):
                await work(place, "view", path="/etc/passwd", start=1, lines=1, most=10)
            with pytest.raises(ConfigError, match="give a path inside"):
                await place.shell("true", files={"../x": ""})
            assert place._process is not None
            place._process.kill()
            place._process.wait()
            with pytest.raises(SandboxError, match="is gone"):
                await place.shell("true")
        finally:
            await place.close()

    asyncio.run(main())


@pytest.mark.slow
def test_the_container_goes_when_we_do(docker: Path, home: Path) -> None:
    place = ContainerPlace("calc-image", engine=str(docker))
    asyncio.run(place.open())
    assert place._process is not None and place._process.stdin is not None
    place._process.stdin.close()  # as when this process is killed
    assert place._process.wait(10) == 0
    asyncio.run(place.close())


# -- limits, and what is kept --


@pytest.mark.parametrize("name", [each.name for each in fields(RunLimits)])
def test_every_limit_of_a_run_is_above_zero(name: str) -> None:
    for value in (0, -1, float("nan")):
        with pytest.raises(ConfigError, match=f"{name} is {value}"):
            RunLimits(**{name: value})
    assert getattr(RunLimits(**{name: 2**26}), name) == 2**26  # of memory the least there may be: 64 MiB
    with pytest.raises(ConfigError, match="memory_bytes is 67108863: Python itself needs 64 MiB"):
        RunLimits(memory_bytes=2**26 - 1)


@pytest.mark.parametrize("folder", ["/root", "/tmp", "/home/me", "/var/lib", "/basement"])
def test_folders_of_ones_own_may_be_kept(folder: str) -> None:
    assert Workspace(folders=(folder,)).folders == (folder,)


@pytest.mark.parametrize(
    "folder", ["/", "", "root", "/usr", "/usr/local", "/etc/x", "/base", "/packages/y", "/root/../etc", "/a/..", "/.."]
)
def test_folders_of_the_system_and_ways_out_are_not_kept(folder: str) -> None:
    with pytest.raises(ConfigError, match="cannot be kept"):
        Workspace(folders=("/root", folder))


@pytest.mark.parametrize("sizes", [{"size_bytes": 0}, {"files": 0}])
def test_a_workspace_has_room(sizes: dict[str, int]) -> None:
    Workspace(**{name: 1 for name in sizes})
    with pytest.raises(ConfigError, match="give numbers above 0"):
        Workspace(**sizes)


@pytest.mark.parametrize(
    ("limit", "left"),
    [(600, ["a", "b", "c"]), (599, ["b", "c"]), (500, ["b", "c"]), (499, ["c"]), (300, ["c"]), (299, []), (0, [])],
)
def test_repositories_are_removed_from_the_longest_unused_until_the_rest_fits(
    tmp_path: Path, limit: int, left: list[str]
) -> None:
    now = time.time()
    for name, size, age in (
        ("c", 300, 1000),
        ("a", 100, 3000),
        ("b", 200, 2000),
        (".making-x", 50, 500),
        ("new", 70, 0),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pack").write_bytes(b"x" * size)
        os.utime(tmp_path / name, (now - age, now - age))
    shutil.rmtree(tmp_path / "new")
    freed = prune(tmp_path, limit + 50, spare_s=100)
    # the half-made one is the last in time, so it still counts while the others are looked at
    assert sorted(path.name for path in tmp_path.iterdir()) == left
    assert freed == 650 - sum({"a": 100, "b": 200, "c": 300}[name] for name in left)


def test_a_repository_in_use_stays_whatever_it_takes(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "pack").write_bytes(b"x" * 100)
    assert prune(tmp_path, 0, spare_s=1000) == 0 and (tmp_path / "used" / "pack").exists()


def test_a_file_of_exactly_the_most_bytes_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "--quiet")
    for name, content in (("five", b"12345"), ("six", b"123456"), ("nul", b"1\0"), ("latin", b"\xe9"), ("none", b"")):
        (tmp_path / name).write_bytes(content)
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "x")
    monkeypatch.setattr(git_repository, "MAX_BLOB_BYTES", 5)
    found = {name: blob(tmp_path / ".git", "HEAD", name) for name in ("five", "six", "nul", "latin", "none", "gone")}
    assert found == {"five": "12345", "six": None, "nul": None, "latin": None, "none": "", "gone": None}
