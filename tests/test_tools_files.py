"""Files under a root: what a model can do with them, and that nothing leads out."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firsthand import catalog
from firsthand.errors import ConfigError, ToolError
from firsthand.tool import Tool
from firsthand.tools import files as module
from firsthand.tools.files import files
from firsthand.tools.folders.rooted import Rooted

SECRET = "the secret outside"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a few files, beside a secret."""
    (tmp_path / "secret.txt").write_text(SECRET)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text(SECRET)
    inside = tmp_path / "root"
    (inside / "deep" / "er").mkdir(parents=True)
    (inside / "a.txt").write_text("one\ntwo\nthree\n")
    (inside / "deep" / "b.py").write_text("def two():\n    return 2\n")
    (inside / "deep" / "er" / "c.txt").write_text("TWO again\n")
    return inside


@lru_cache(2)
def tools_of(root: Path) -> dict[str, Tool]:
    return {each.name: each for each in files(str(root), write=True)}


def call(root: Path, name: str, **arguments: Any) -> str:
    return asyncio.run(tools_of(root)[name](arguments))


def refused(root: Path, name: str, **arguments: Any) -> str:
    with pytest.raises(ToolError) as error:
        call(root, name, **arguments)
    assert SECRET not in str(error.value)
    return str(error.value)


# -- what they are for --


def test_folders_are_listed_files_read_and_searched(root: Path) -> None:
    assert call(root, "list_files") == "a.txt  14 bytes\ndeep/"
    assert call(root, "read_file", path="a.txt") == "one\ntwo\nthree\n"
    assert call(root, "read_file", path="a.txt", start=2, lines=1) == "two\n[there is more: go on with start=3]"
    assert call(root, "read_file", path="a.txt", start=9) == "(the file has 3 lines)"
    assert call(root, "find_files", text="two").splitlines() == [
        "a.txt:2: two", "deep/b.py:1: def two():", "deep/er/c.txt:1: TWO again",
    ]  # fmt: skip
    assert call(root, "find_files", names="*.txt", path="deep") == "deep/er/c.txt"
    assert call(root, "find_files", text="nowhere") == "(nothing was found)"


def test_files_are_written_edited_and_overwritten(root: Path) -> None:
    call(root, "write_file", path="new/er/d.txt", text="a b a")
    assert (root / "new/er/d.txt").read_text() == "a b a"
    assert "is there already" in refused(root, "write_file", path="a.txt", text="x")
    call(root, "edit_file", path="a.txt", old="two", new="2")
    assert (root / "a.txt").read_text() == "one\n2\nthree\n"
    assert "occurs 2 times" in refused(root, "edit_file", path="new/er/d.txt", old="a", new="x")
    assert "nearest line is 'three'" in refused(root, "edit_file", path="a.txt", old="threee", new="x")
    assert "occurs 0 times" in refused(root, "edit_file", path="a.txt", old="", new="x")
    (root / "a.txt").chmod(0o640)
    call(root, "overwrite_file", path="a.txt", text="all new")
    assert (root / "a.txt").read_text() == "all new" and (root / "a.txt").stat().st_mode & 0o777 == 0o640
    assert not list(root.glob(".firsthand*"))


def test_line_ends_survive_an_edit(root: Path) -> None:
    (root / "dos.txt").write_bytes(b"one\r\ntwo\r\n")
    call(root, "edit_file", path="dos.txt", old="one\ntwo", new="1\n2")
    assert (root / "dos.txt").read_bytes() == b"1\r\n2\r\n"


def test_effects_say_what_a_call_changes(root: Path) -> None:
    reads = {"list_files": "read", "read_file": "read", "find_files": "read"}
    changes = {"write_file": "external", "edit_file": "external", "overwrite_file": "irreversible"}
    assert {each.name: each.effect for each in files(str(root))} == reads
    assert {each.name: each.effect for each in files(str(root), write=True)} == reads | changes
    own = files(str(root), write=True, scratch=True)
    assert {each.name: each.effect for each in own} == reads | dict.fromkeys(changes, "write")
    assert {each.origin for each in files(str(root))} == {"files in root"}


def test_the_catalog_makes_them_of_a_folder(root: Path) -> None:
    assert [each.name for each in catalog.tools(f"files:{root}")] == ["list_files", "read_file", "find_files"]
    assert len(catalog.tools(f"files:{root}:write=true")) == 6
    for text, said in [
        ("files", "write files:ROOT"),
        (f"files:{root}:writ=true", "did you mean 'write'"),
        ("files:/no/such/folder", "is no folder"),
        ("calculator:x", "takes none"),
    ]:
        with pytest.raises(ConfigError, match=said):
            catalog.tools(text)


# -- ways out --

OUTWARD = [
    "../secret.txt", "deep/../../secret.txt", "deep/er/../../../secret.txt", "./.././secret.txt", "/etc/passwd",
    "//etc/passwd", "/proc/self/environ", "/proc/self/root/etc/passwd", "..", "../", "../root/../secret.txt",
    "up/secret.txt", "upup/secret.txt", "absolute", "absolute_folder/secret.txt", "relative", "chain3", "circle",
    "circle/x", "deep/up2/secret.txt", "into_proc/environ", "a.txt/../../secret.txt", "nothing/../../secret.txt", "\0",
    "a.txt\0.png", "x" * 5000, "\ud800", "~/secret.txt", "~root", "$HOME", "file:///etc/passwd", "..\\secret.txt",
    "%2e%2e/secret.txt", "․․/secret.txt",
]  # fmt: skip


@pytest.fixture
def hostile(root: Path) -> Path:
    """The folder with links of all kinds in it."""
    out = root.parent
    (root / "up").symlink_to("..")
    (root / "upup").symlink_to("deep/../..")
    (root / "absolute").symlink_to(out / "secret.txt")
    (root / "absolute_folder").symlink_to(out / "outside")
    (root / "relative").symlink_to("../secret.txt")
    (root / "chain1").symlink_to("../secret.txt")
    (root / "chain2").symlink_to("chain1")
    (root / "chain3").symlink_to("deep/../chain2")
    (root / "circle").symlink_to("circle")
    (root / "deep" / "up2").symlink_to("../..")
    (root / "into_proc").symlink_to("/proc/self")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("path", OUTWARD, ids=lambda path: ascii(path)[:40])
def test_no_path_leads_out(hostile: Path, path: str) -> None:
    before = sorted(str(each) for each in hostile.parent.rglob("*") if not each.is_symlink())
    refused(hostile, "read_file", path=path)
    refused(hostile, "edit_file", path=path, old=SECRET, new="x")
    for name in ("write_file", "overwrite_file", "list_files", "find_files"):
        rest: dict[str, Any] = {"text": "x"} if name != "list_files" else {}
        try:
            shown = call(hostile, name, path=path, **rest)
        except ToolError:
            continue
        assert "secret.txt" not in shown or "secret.txt has been" in shown.replace(path, "secret.txt")
    outside = sorted(str(each) for each in hostile.parent.rglob("*") if not each.is_symlink())
    assert [each for each in outside if not each.startswith(str(hostile))] == [
        each for each in before if not each.startswith(str(hostile))
    ]
    assert (hostile.parent / "secret.txt").read_text() == SECRET


def test_a_search_does_not_follow_links(hostile: Path) -> None:
    assert call(hostile, "find_files", text="secret") == "(nothing was found)"
    assert "secret" not in call(hostile, "find_files", names="secret*")
    assert "absolute  (a link)" in call(hostile, "list_files")


def test_links_that_stay_inside_are_followed(root: Path) -> None:
    (root / "link").symlink_to("deep/er")
    (root / "deep" / "back").symlink_to("../a.txt")
    assert call(root, "read_file", path="link/c.txt") == "TWO again\n"
    assert call(root, "read_file", path="deep/back") == "one\ntwo\nthree\n"
    assert call(root, "read_file", path="link/../b.py").startswith(
        "def two"
    )  # the link's own parent, as the system has it
    assert call(root, "read_file", path=str(root / "a.txt")) == "one\ntwo\nthree\n"


def test_nothing_is_written_through_a_link_that_stays_inside(hostile: Path) -> None:
    (hostile / "inner").symlink_to("deep/er/target.txt")
    said = refused(hostile, "write_file", path="inner", text="x")
    assert "link to 'deep/er/target.txt'" in said and not (hostile / "deep/er/target.txt").exists()


@pytest.mark.parametrize(
    "path", [".git/config", "deep/.git/hooks/x", ".GIT/config", "linked/config", ".gitmodules", ".git"]
)
def test_gits_own_folder_is_read_and_not_written_to(root: Path, path: str) -> None:
    """Its settings name programs that git runs at the next `git status` of whoever the repository belongs to."""
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("[core]")
    (root / "linked").symlink_to(".git")
    rooted = Rooted(root)
    for write in (rooted.create, rooted.replace):
        with pytest.raises(ToolError, match=r"belongs to git|a link to '\.git/config'"):
            write(path, b"[core]\nfsmonitor = ./evil")
    with rooted.open(".git/config") as file:
        assert file.read() == b"[core]"
    rooted.create(".gitignore", b"x")
    rooted.create("deep/my.git", b"x")


def test_a_hard_link_to_a_file_outside_is_broken_by_a_write(root: Path) -> None:
    os.link(root.parent / "secret.txt", root / "hard.txt")
    call(root, "overwrite_file", path="hard.txt", text="mine")
    call(root, "edit_file", path="hard.txt", old="mine", new="ours")
    assert (root.parent / "secret.txt").read_text() == SECRET and (root / "hard.txt").read_text() == "ours"


names = st.sampled_from(
    ["..", ".", "", "deep", "er", "up", "upup", "chain1", "relative", "absolute_folder", "secret.txt", "a.txt"]
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(names, max_size=7).map("/".join))
def test_whatever_is_read_lies_inside(hostile: Path, path: str) -> None:
    """Against the system's own idea of where a path leads."""
    try:
        with Rooted(hostile).open(path) as file:
            content = file.read()
    except ToolError:
        return
    real = Path(os.path.realpath(hostile / path))
    assert real.is_relative_to(hostile) and real.read_bytes() == content


def test_a_link_swapped_in_just_before_a_file_is_opened_leads_nowhere(root: Path) -> None:
    """An audit hook is told of each open before it happens: there the path is swapped, at the worst moment there is."""
    swaps: dict[str, Path] = {}

    def swap(event: str, given: Any) -> None:
        target = swaps.pop(str(given[0]), None) if event == "open" and swaps else None
        if target is not None:
            here = root / str(given[0]) if (root / str(given[0])).exists() else root / "deep" / str(given[0])
            here.rename(root / "aside")
            here.symlink_to(target)

    sys.addaudithook(swap)  # it stays, and does nothing once `swaps` is empty
    rooted = Rooted(root)
    for name, path, target in [
        ("a.txt", "a.txt", root.parent / "secret.txt"),
        ("deep", "deep/b.py", root.parent / "outside"),
        ("er", "deep/er/secret.txt", root.parent / "outside"),
    ]:
        swaps[name] = target
        with pytest.raises(ToolError, match=r"changed while it was looked at|no folder"), rooted.open(path) as file:
            assert file.read() != SECRET.encode()
        assert not swaps
        (root / "aside").rename(root / f"aside-{name}")
        link = root / name if (root / name).is_symlink() else root / "deep" / name
        link.unlink()
        (root / f"aside-{name}").rename(link)

    def plant(event: str, given: Any) -> None:
        if event == "open" and given[0] == "planted.txt" and not (root / "planted.txt").is_symlink():
            (root / "planted.txt").symlink_to(root.parent / "planted.txt")

    sys.addaudithook(plant)
    with pytest.raises(ToolError):
        rooted.create("planted.txt", b"x")
    assert not (root.parent / "planted.txt").exists()


@pytest.mark.parametrize("swapped", ["folder", "file"])
def test_a_link_swapped_in_during_the_call_leads_nowhere(root: Path, swapped: str) -> None:
    """A process swaps an ordinary folder (or file) and a link out of the root, as fast as it can, while we read."""
    out = root.parent
    (root / "spot").mkdir()
    (root / "spot" / "secret.txt").write_text("inside")
    (root / "good.txt").write_text("inside")
    (root / "link").symlink_to(out / "outside" if swapped == "folder" else out / "secret.txt")
    (root / "climb").symlink_to("../outside" if swapped == "folder" else "../secret.txt")
    target = root / ("spot" if swapped == "folder" else "good.txt")
    path = "spot/secret.txt" if swapped == "folder" else "good.txt"
    (root / "swap.py").write_text(SWAP)
    command = [sys.executable, str(root / "swap.py"), str(target), *(str(root / name) for name in ("link", "climb"))]
    swapping = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE)
    rooted, seen = Rooted(root), dict.fromkeys(("inside", "refused", "out"), 0)
    try:
        assert swapping.stdout is not None and swapping.stdout.readline() == b"swapping\n"
        for tries in range(200_000):  # a busy machine may leave the swapper aside for a while
            if tries >= 1500 and seen["inside"] and seen["refused"]:
                break
            try:
                with rooted.open(path) as file:
                    seen["inside" if file.read() == b"inside" else "out"] += 1
            except ToolError:
                seen["refused"] += 1
    finally:
        swapping.kill()
        swapping.communicate()
    assert seen["out"] == 0 and seen["inside"] and seen["refused"], seen


SWAP = """
import itertools, os, sys
target, *links = sys.argv[1:]
print("swapping", flush=True)
for link in itertools.cycle(links):
    os.rename(target, "aside")
    os.rename(link, target)
    os.rename(target, link)
    os.rename("aside", target)
"""


# -- what is no text file --


def test_devices_pipes_and_sockets_are_not_opened(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "s"))
        assert refused(root, "read_file", path="pipe") == "'pipe' is a pipe: only ordinary files can be read"
        assert "is a socket" in refused(root, "read_file", path="s")
        assert "is a folder" in refused(root, "read_file", path="deep")
        assert "no ordinary file" in refused(root, "overwrite_file", path="pipe", text="x")
        assert "pipe  (a pipe)" in call(root, "list_files")
        assert call(root, "find_files", text="two").count("\n") == 2
    if os.geteuid() == 0:
        try:
            os.mknod(root / "zero", 0o600 | 0o020000, os.makedev(1, 5))
        except OSError:
            return
        assert "is a device" in refused(root, "read_file", path="zero")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "(the file is empty)"),
        (b"caf\xe9\n", "caf\ufffd\n"),
        (b"no end", "no end"),
        (b"a\x1b[31m\n", "a\x1b[31m\n"),
        ("\ufeffbom\n".encode(), "\ufeffbom\n"),
    ],
)
def test_hard_to_decode_files_are_shown_as_far_as_can_be(root: Path, content: bytes, expected: str) -> None:
    (root / "x").write_bytes(content)
    assert call(root, "read_file", path="x") == expected


@pytest.mark.parametrize("content", [b"\0\1\2", "text".encode("utf-16"), b"%PDF" + b"\0" * 10])
def test_what_is_no_text_is_refused(root: Path, content: bytes) -> None:
    (root / "x").write_bytes(content)
    assert "is no UTF-8 text" in refused(root, "read_file", path="x")
    found = call(root, "find_files", text="text", names="x")
    assert found.removesuffix("\n[not searched, for they are not in UTF-8: x]") == "(nothing was found)"


def test_an_edit_does_not_spoil_what_is_no_utf8(root: Path) -> None:
    (root / "x").write_bytes(b"caf\xe9 two")
    assert "is not UTF-8" in refused(root, "edit_file", path="x", old="two", new="2")
    assert (root / "x").read_bytes() == b"caf\xe9 two"


def test_huge_files_are_read_a_page_at_a_time(root: Path) -> None:
    with (root / "huge").open("wb") as file:
        file.write(b"first\nsecond\n")
        file.truncate(300_000_000)  # a hole: one line without an end
    with (root / "lines").open("w") as text:
        text.writelines(f"line {n}\n" for n in range(100_000))
    page = call(root, "read_file", path="lines", start=50_001)
    assert page.startswith("line 50000\n") and page.endswith("]") and len(page) < 15_000
    again = call(root, "read_file", path="lines", start=int(page.rsplit("=", 1)[1][:-1]), lines=2)
    assert again.splitlines()[0] == f"line {int(page.splitlines()[-2].split()[1]) + 1}"
    (root / "line").write_text("x" * 1_000_000 + "\nend\n")
    long = call(root, "read_file", path="line")
    assert long.endswith("x [the line goes on]\nend\n") and len(long) < 15_000
    assert "at most" in refused(root, "edit_file", path="huge", old="first", new="1")
    assert "at most" in refused(root, "write_file", path="big", text="x" * (module.MAX_BYTES + 1))


def test_folders_with_very_many_entries_and_finds_are_cut(root: Path) -> None:
    (root / "many").mkdir()
    for n in range(module.MAX_ENTRIES + 5):
        (root / "many" / f"f{n:04}").write_text("two")
    assert call(root, "list_files", path="many").endswith("[and 5 more]")
    for n in range(5):
        (root / "many" / f"f{n:04}").unlink()
    listed = call(root, "list_files", path="many").splitlines()
    assert len(listed) == module.MAX_ENTRIES and listed[-1].startswith(f"f{module.MAX_ENTRIES + 4:04}")
    (root / "many" / "f0000").write_text("two")
    found = call(root, "find_files", path="many", text="two").splitlines()
    assert len(found) == module.MAX_ENTRIES + 1 and found[-1].startswith("[stopped when 500 were found")


def test_names_cannot_drive_a_terminal_or_pose_as_two(root: Path) -> None:
    (root / "evil\x1b[2J\nname").write_text("two")
    assert "evil\\x1b[2J\\nname" in call(root, "list_files")


def test_a_file_changed_in_the_meantime_is_not_overwritten_by_an_edit(root: Path) -> None:
    rooted = Rooted(root)
    before = (root / "a.txt").stat()
    (root / "a.txt").write_text("somebody else's work")
    with pytest.raises(ToolError, match="changed by somebody else"):
        rooted.replace("a.txt", b"mine", unless_changed_from=before)
    assert (root / "a.txt").read_text() == "somebody else's work"

    before = (root / "a.txt").stat()
    (root / "a.txt").write_text("somebody else's play")  # as long, in the same file
    os.utime(root / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(ToolError, match="changed by somebody else"):
        rooted.replace("a.txt", b"mine", unless_changed_from=before)
    rooted.replace("a.txt", b"mine", unless_changed_from=(root / "a.txt").stat())
    assert (root / "a.txt").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open descriptors in /proc")
def test_descriptors_are_closed(hostile: Path) -> None:
    made = {each.name: each.function for each in files(str(hostile), write=True)}
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in [*OUTWARD, "a.txt", "deep/er/c.txt"]:
        for name, rest in (("read_file", {}), ("find_files", {"text": "x"}), ("edit_file", {"old": "zz", "new": "y"})):
            with suppress(ToolError):
                made[name](path=path, **rest)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_results_are_text_for_json_too(root: Path) -> None:
    assert json.loads(json.dumps(call(root, "read_file", path="a.txt"))) == "one\ntwo\nthree\n"


@pytest.mark.parametrize("links", [1, 40, 41, 200])
def test_a_path_goes_through_40_links_at_most(tmp_path: Path, links: int) -> None:
    (tmp_path / "link-0").write_text("x")
    for number in range(1, links + 1):
        (tmp_path / f"link-{number}").symlink_to(f"link-{number - 1}")
    rooted = Rooted(tmp_path)
    if links <= 40:
        with rooted.open(f"link-{links}") as file:
            assert file.read() == b"x"
        return
    with (
        pytest.raises(ToolError, match="a link that leads out of the folder, or in a circle"),
        rooted.open(f"link-{links}"),
    ):
        pass


def test_a_search_finds_accents_of_both_forms_and_names_files_that_are_not_in_utf8(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("caf\xe9 costs\n".encode("cp1252"))
    (tmp_path / "u16").write_bytes("hello caf\xe9".encode("utf-16"))
    (tmp_path / "nfd").write_bytes(b"x" * 65_532 + "cafe\u0301".encode())  # over a border of pieces
    (tmp_path / "e\u0301").write_text("")
    note = "[not searched, for they are not in UTF-8: latin, u16]"
    found = call(tmp_path, "find_files", text="CAF\xe9").splitlines()
    assert len(found) == 2 and found[0].endswith("xcaf\xe9") and found[1] == note
    assert call(tmp_path, "find_files", text="zz\xe9") == f"(nothing was found)\n{note}"
    assert call(tmp_path, "find_files", text="costs").splitlines()[1] == note.replace("latin, ", "")
    assert call(tmp_path, "find_files", names="\xe9") == "e\u0301"


def test_a_search_shows_the_text_around_a_match_in_a_long_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("  " + "\xdf" * 20_000 + "needle" + "y" * 300)
    sharp = "\xdf" * 80
    assert call(tmp_path, "find_files", text="Needle") == f"a:1: ... {sharp}needle{'y' * 114}"
    (tmp_path / "a").write_text("  " + "x" * 194 + "needle" + "y" * 300)
    assert call(tmp_path, "find_files", text="needle") == f"a:1: {'x' * 194}needle"
    (tmp_path / "a").write_text("x" * 195 + "needle")
    assert call(tmp_path, "find_files", text="needle") == f"a:1: ... {'x' * 80}needle"
