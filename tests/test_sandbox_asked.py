"""What boxes, sandboxes and workplaces keep of what they are given, and ask of what is below them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("the sandbox is for Linux", allow_module_level=True)

from firsthand.errors import ConfigError, SandboxError
from firsthand.sandbox import sandbox as sandboxes
from firsthand.sandbox.box import KEPT, LIMITS, Box
from firsthand.sandbox.bubblewrap import Report, SandboxRun
from firsthand.sandbox.git_repository import CONFIG
from firsthand.sandbox.repository_workspace import ContainerPlace, SandboxPlace
from firsthand.sandbox.sandbox import Outcome, Sandbox, _Pool
from firsthand.sandbox.sandbox_limits import RunLimits, Workspace

DONE = {"killed": None, "status": 0, "cpu_s": 0.25, "peak_bytes": 3, "wall_s": 0.5}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder of packages; bwrap is found, and would not start."""
    folder = tmp_path / "packages"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


@pytest.fixture(autouse=True)
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bwrap").touch(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")


def test_a_box_keeps_its_folders_variables_limits_and_packages(packages: Path) -> None:
    limits = RunLimits(wall_s=7)
    box = Box(
        folder="/work/x", folders=("/data/a", "/own/b", "/own", "/own"), environment={"A": "1", "HOME": "/h"}, limits=limits,
        size_bytes=55, packages=[str(packages)],
    )  # fmt: skip
    pool, kept = box._sandbox._pool, (*KEPT, "/own")
    assert (box.folder, box.limits, box.environment, box.kept) == ("/work/x", limits, {"HOME": "/h", "A": "1"}, kept)
    assert (pool.tier, pool.packages, pool.workspace) == (
        "bubblewrap", [packages], Workspace(size_bytes=55, folders=kept),
    )  # fmt: skip
    assert (box._sandbox.limits, box._sandbox._folder, box._sandbox._begin) == (limits, "/testbed", "/")
    assert not box._gate.locked() and not pool.idle and not pool.opened, "nothing starts before it is needed"
    asyncio.run(box.close())
    assert pool.closing.is_set()
    plain = Box()
    assert (plain.folder, plain.limits, plain.environment, plain.kept) == (
        "/workspace",
        LIMITS,
        {"HOME": "/root"},
        KEPT,
    )
    assert plain._sandbox._pool.workspace == Workspace(size_bytes=2**30, folders=KEPT)
    asyncio.run(plain.close())
    assert Box(folder="/elsewhere").kept == (*KEPT, "/elsewhere")
    for folder in ("/usr/x", "/etc"):
        with pytest.raises(ConfigError, match=f"^'{folder}' cannot be kept: give a folder such as /root"):
            Box(folder=folder)


def test_a_sandbox_keeps_its_tier_folders_and_number_of_workers(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(**given: Any) -> tuple[Any, ...]:
        with Sandbox(**given) as made:
            pool = made._pool
            return made.limits, made.tier, made._folder, made._begin, pool.packages, pool.executor._max_workers

    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    own = RunLimits(wall_s=3)
    assert kept() == (RunLimits(), "bubblewrap", "", "", [], 5)
    assert kept(limits=own, workers=3, packages=[str(packages)], tier="docker") == (
        own,
        "docker",
        "",
        "",
        [packages],
        3,
    )
    assert kept(workers=3, workspace=Workspace()) == (RunLimits(), "bubblewrap", "/testbed", "", [], 1)
    assert kept(workspace=Workspace(packages, folders=("/root",)))[2:4] == ("/testbed", "/")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert kept(tier="gvisor")[-1] == 1
    file = tmp_path / "file"
    file.touch()
    for given in ({"packages": [packages, file]}, {"workspace": Workspace(file)}):
        with pytest.raises(ConfigError) as error:
            Sandbox(**given)  # type: ignore[arg-type]
        assert str(error.value) == (f"packages names {str(file)!r}, which is no folder: give one such as site-packages")
    with pytest.raises(
        SandboxError, match=r"^a workspace needs bubblewrap, and the tier is gvisor: install it \(Debian"
    ):
        Sandbox(tier="gvisor", workspace=Workspace())
    for mode, refused in ((0o750, True), (0o701, True), (0o704, True), (0o705, False)):
        packages.chmod(mode)
        for user in (0, 1000):
            monkeypatch.setattr(os, "geteuid", lambda user=user: user)
            for given in ({"packages": [packages]}, {"workspace": Workspace(packages)}):
                if refused and user == 0:
                    with pytest.raises(ConfigError) as error:
                        Sandbox(**given)  # type: ignore[arg-type]
                    assert str(error.value) == (
                        f"{str(packages)!r} is closed to other users, and under root code runs as nobody: chmod o+rx it"
                    )
                else:
                    Sandbox(**given).close()  # type: ignore[arg-type]


class Runner:
    """Keeps the runs that it is given."""

    alive = True

    def __init__(self, stdout: str = "", status: int = 0) -> None:
        self.runs: list[SandboxRun] = []
        self.stdout, self.status, self.closed = stdout, status, 0

    def run(self, run: SandboxRun) -> Report:
        self.runs.append(run)
        proof = json.loads(run.stdin)["proof"] if run.kind == "check" and self.stdout == "proof" else self.stdout
        return Report(f"before{proof}".encode(), b"e", False, DONE | {"status": self.status})

    def close(self) -> None:
        self.closed += 1


def over(runner: Runner, **given: Any) -> Sandbox:
    """A sandbox whose only worker this is."""
    made = Sandbox(**given)
    made._pool.idle.append(runner)
    return made


def test_runs_in_a_workspace_begin_where_it_says_and_have_what_they_are_given() -> None:
    runner, own = Runner(), RunLimits(wall_s=2)
    limits = RunLimits(cpu_s=4)
    with over(runner, limits=limits, workspace=Workspace(folders=("/root",))) as box:
        for doing in (
            box.python("p", cell=True, name="n", files={"f": "x"}), box.python("p", limits=own, ours=True, cell=True),
            box.shell("s", stdin="in", files={"g": "y"}, limits=own), box.shell("s"),
        ):  # fmt: skip
            outcome = asyncio.run(doing)
            assert outcome == Outcome("done", 0, "before", "e", 0.5, 0.25, 3, "bubblewrap") and outcome.ok
    assert [(each.kind, each.code, each.limits, each.stdin, each.files, each.name, each.folder) for each in runner.runs] == [
        ("cell", "p", limits, "", {"f": "x"}, "n", "/"), ("program", "p", own, "", {}, "<python>", "/"),
        ("shell", "s", own, "in", {"g": "y"}, "<python>", "/testbed"),
        ("shell", "s", limits, "", {}, "<python>", "/testbed"),
    ]  # fmt: skip
    assert runner.closed == 1
    for files in ({"/a": ""}, {"ok": "", "../b": ""}):
        with pytest.raises(ConfigError, match=r"^a file is named "), over(Runner(), tier="docker") as box:
            asyncio.run(box.shell("s", files=files))


def test_a_check_passes_only_with_its_proof_and_pure_code_is_tried_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[SandboxRun] = []
    answers: list[Outcome | None] = []

    async def on_monty(run: SandboxRun) -> Outcome | None:
        tried.append(run)
        return answers.pop(0)

    monkeypatch.setattr(sandboxes, "_on_monty", on_monty)  # the package is not everywhere
    quick = Outcome("done", 0, "q", "", 0.1, None, None, "monty")

    def checked(runner: Runner, answer: str = "x = 1", **more: Any) -> Outcome:
        with over(runner, tier="docker") as box:
            return asyncio.run(box.check(answer, "assert x", **more))

    assert checked(Runner("proof")) == Outcome("done", 0, "before", "e", 0.5, 0.25, 3, "docker")
    assert checked(Runner("no")) == Outcome(
        "error", 0, "beforeno", "ethe tests did not run to their last line\n", 0.5, 0.25, 3, "docker"
    )
    assert checked(Runner("no", 1 << 8)) == Outcome("error", 1, "beforeno", "e", 0.5, 0.25, 3, "docker")
    twice = Outcome("error", 3, "aPbPc", "", 1, 1, 1, "docker")
    assert sandboxes._proved(twice, "P").stdout == "aPbc", "the last one is the tests' own"
    runner = Runner()
    with over(runner, tier="docker") as box:
        answers[:] = [quick]
        assert asyncio.run(box.python("1", pure=True)) == quick and runner.runs == [] and tried.pop().kind == "python"
        answers[:] = [None]
        assert asyncio.run(box.python("1", pure=True)).tier == "docker"
        for more in ({"stdin": "a"}, {"files": {"f": ""}}, {"pure": False}):
            asyncio.run(box.python("1", **{"pure": True, **more}))  # type: ignore[arg-type]
    assert len(runner.runs) == 4 and len(tried) == 1


def test_a_pool_opens_the_runner_of_its_tier(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tier, gvisor in (("docker", False), ("gvisor", True)):
        pool = _Pool(tier, [packages], 1)  # type: ignore[arg-type]
        made: Any = pool.open()
        assert (type(made).__name__, made.gvisor, made.packages, made.docker) == (
            "Container",
            gvisor,
            [packages],
            "docker",
        )
        assert pool.open() is not made and pool.opened
        pool.close()
    monkeypatch.setattr(sandboxes.bubblewrap, "WarmWorker", lambda *given: given)
    workspace = Workspace()
    kept, plain = _Pool("bubblewrap", [packages], 1, workspace), _Pool("bubblewrap", [packages], 1)
    assert kept.open() == ([packages], workspace) and plain.open() == plain.open() == ([packages], None)
    with pytest.raises(SandboxError) as error:
        kept.open()
    assert str(error.value) == "the worker that held this workspace is gone, and the workspace with it: begin again"
    for pool in (kept, plain):
        pool.close()


def test_the_shared_sandbox_is_one_for_a_process_and_its_packages(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandboxes._shared.cache_clear()
    monkeypatch.delenv("FIRSTHAND_SANDBOX_PACKAGES", raising=False)
    try:
        first = sandboxes.shared_sandbox()
        assert sandboxes.shared_sandbox() is first and first._pool.packages == []
        monkeypatch.setenv("FIRSTHAND_SANDBOX_PACKAGES", f":{packages}:")
        second = sandboxes.shared_sandbox()
        assert second is not first and second._pool.packages == [packages] and sandboxes.shared_sandbox() is second
        monkeypatch.setenv("FIRSTHAND_SANDBOX_PACKAGES", f"~{os.pathsep}{packages}")
        monkeypatch.setenv("HOME", str(packages))
        assert sandboxes.shared_packages() == (packages, packages)
        me = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: me + 1)
        monkeypatch.setenv("FIRSTHAND_SANDBOX_PACKAGES", "")
        forked = sandboxes.shared_sandbox()
        assert forked is not first
        for each in (first, second, forked):
            each.close()
    finally:
        sandboxes._shared.cache_clear()


def test_a_workplace_in_the_sandbox_holds_the_repository_and_its_own_git_settings(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, own = RunLimits(wall_s=6), RunLimits(wall_s=8)
    repository = packages / "repository"
    repository.mkdir()
    repository.chmod(0o755)

    async def main() -> None:
        place = SandboxPlace(repository, packages=[packages], limits=limits)
        pool = place._sandbox._pool
        assert (place.base, pool.tier, pool.packages, pool.workspace) == (
            "/base", "bubblewrap", [packages], Workspace(repository),
        )  # fmt: skip
        assert place._sandbox.limits == limits
        runner = Runner()
        pool.idle.append(runner)
        await place.open()
        await place.shell("s", stdin="in", files={"f": "x", ".gitconfig": "mine"}, limits=own)
        assert (await place.shell("t")).stdout == "before" and not place._gate.locked()
        opening, second, third = runner.runs
        assert (opening.limits, opening.kind, opening.files, opening.folder) == (
            RunLimits(wall_s=120, cpu_s=120, memory_bytes=2**31), "shell", {".gitconfig": CONFIG}, "/testbed",
        )  # fmt: skip
        assert opening.code.splitlines() == [
            "set -e", "cp -r /base .git", "rm -f .git/shallow.lock", "git config core.bare false",
            "git reset --quiet --hard HEAD",
        ]  # fmt: skip
        assert (second.code, second.stdin, second.files, second.limits) == (
            "s",
            "in",
            {".gitconfig": "mine", "f": "x"},
            own,
        )
        assert (third.stdin, third.files, third.limits) == ("", {".gitconfig": CONFIG}, limits)
        runner.status = 3 << 8
        with pytest.raises(SandboxError, match=r"^the repository could not be checked out in the sandbox: e$"):
            await place.open()
        await place.close()
        assert pool.closing.is_set() and runner.closed == 1

    asyncio.run(main())
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    monkeypatch.setattr(sandboxes, "available", lambda: "docker")
    with pytest.raises(SandboxError, match=r"^a workspace needs bubblewrap, and the tier is docker"):
        SandboxPlace(repository)


def test_a_workplace_in_a_container_knows_its_image_engine_and_limits() -> None:
    place = ContainerPlace("img:1", network=True, engine="podman")
    assert (place.base, place.image, place.network, place.limits, place.engine) == (
        "/firsthand.git", "img:1", True, RunLimits(), "podman",
    )  # fmt: skip
    other = ContainerPlace("img:1", engine="podman")
    assert other.name != place.name and not other.network and place._process is None
