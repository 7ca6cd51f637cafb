"""Python in a folder that a Box keeps: whatever lies in its way, the next command has it at its own place."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from firsthand.sandbox.box import KEPT, Box
from firsthand.sandbox.programs import keeping
from namespaces import WHY_NOT

PYTHON = Path(sys.base_prefix)
IS_KEPT = any(PYTHON.is_relative_to(folder) for folder in KEPT)
needs_box = pytest.mark.skipif(WHY_NOT is not None or not IS_KEPT, reason="no sandbox, or this Python is not kept")


def mounted(place: Path, found: Path) -> list[tuple[str, str]]:
    """What is mounted where, if a folder is at `place` until the kept one, which has what is in `found`, is bound."""
    top, made = place.parent, []

    def mount(source: str, target: str, kind: str, flags: int) -> None:
        if source.endswith("/0"):
            top.rename(top.with_name("covered"))
            found.rename(top)
        else:
            made.append((str(Path(source).readlink()), str(Path(target).readlink())))

    place.mkdir(parents=True)
    keeping.show(mount, "store", [str(top)], [str(place)])
    return made


@pytest.mark.parametrize("there", ["link", "magic link", "loop", "file", "folder", "nothing"])
def test_python_is_mounted_at_its_place_and_never_where_a_link_leads(tmp_path: Path, there: str) -> None:
    place, found, elsewhere = tmp_path / "root" / "python", tmp_path / "found", tmp_path / "elsewhere"
    found.mkdir()
    elsewhere.mkdir()
    links = {"link": str(elsewhere), "magic link": "/proc/self/cwd", "loop": "python"}
    if there in links:
        (found / "python").symlink_to(links[there])
    elif there == "file":
        (found / "python").write_text("x")
    elif there == "folder":
        (found / "python").mkdir()
    assert mounted(place, found) == [(str(tmp_path / "covered" / "python"), str(place))]
    assert place.is_dir() and not place.is_symlink() and not list(elsewhere.iterdir())


def test_a_link_above_the_place_is_replaced_too(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "python").mkdir(parents=True)
    (tmp_path / "above").symlink_to("elsewhere")
    opened = keeping.real_folder(str(tmp_path / "above" / "python"))
    assert Path(f"/proc/self/fd/{opened}").readlink() == tmp_path / "above" / "python"
    os.close(opened)
    assert not (tmp_path / "above").is_symlink() and (tmp_path / "elsewhere" / "python").is_dir()


@needs_box
@pytest.mark.slow
def test_a_commands_links_in_the_way_of_python_change_nothing_for_the_next_one() -> None:
    top = Path(*PYTHON.parts[:3])
    script = f"""
mv {top} {top}.was && mkdir -p {PYTHON.parent} /workspace/bin
printf '#!/bin/sh\\necho FORGED\\n' > /workspace/bin/python3; chmod +x /workspace/bin/python3
echo made > /workspace/result.txt; ln -s "$0" {PYTHON}
"""

    async def run() -> None:
        async with Box() as box:
            for target in ("/proc", "/proc/self/cwd", "/usr", "/workspace"):
                assert (await box.exec(["sh", "-c", f"rm -rf {top}.was; {script}", target])).ok, target
                outcome = await box.exec(["python3", "-I", "-c", "import sys; print(sys.prefix)"])
                assert (outcome.stdout, outcome.stderr) == (f"{PYTHON}\n", ""), target
                assert await box.read("/workspace/result.txt") == b"made\n", target

    asyncio.run(run())


@needs_box
@pytest.mark.slow
def test_what_a_command_leaves_beside_python_is_kept() -> None:
    async def run() -> None:
        async with Box() as box:
            beside = PYTHON.parent / "beside"
            assert (await box.exec(["sh", "-c", f"mkdir {beside} && ln -s {PYTHON}/bin/python3 {beside}/py"])).ok
            outcome = await box.exec([str(beside / "py"), "-c", "print(6 * 7)"])
            assert (outcome.stdout, outcome.stderr) == ("42\n", "")

    asyncio.run(run())
