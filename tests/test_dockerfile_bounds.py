"""Dockerfiles of strangers that have no end, or whose reading takes more time than their length."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from firsthand.errors import ConfigError
from firsthand.sandbox.dockerfile import MAX_PATH_CHARS, MAX_STEPS, MAX_TEXT_BYTES, Built, read_dockerfile


def read(folder: Path, text: str) -> Built:
    (folder / "Dockerfile").write_text(text)
    return read_dockerfile(folder / "Dockerfile", folder, re.compile("x"))


def test_a_pipe_a_device_and_a_text_without_end_are_no_dockerfiles(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(ConfigError, match=rf"{name}' cannot be read: it is no ordinary file but a (pipe|device), "):
            read_dockerfile(tmp_path / name, tmp_path, re.compile("x"))
    (tmp_path / "link").symlink_to("Dockerfile")
    comment = "#" * (MAX_TEXT_BYTES - len("FROM x\n"))
    assert read(tmp_path, f"FROM x\n{comment}").lacks == []
    assert read_dockerfile(tmp_path / "link", tmp_path, re.compile("x")).lacks == []
    with pytest.raises(ConfigError, match=r"has more than 1,048,576 bytes: is it the right file\?$"):
        read(tmp_path, f"FROM x\n{comment}#")


def test_instructions_commands_and_the_working_directory_are_bounded(tmp_path: Path) -> None:
    assert len(read(tmp_path, "RUN x\n" * MAX_STEPS).steps) == MAX_STEPS
    assert len(read(tmp_path, "FROM x\nRUN pip install" + ";a" * (MAX_STEPS - 2)).steps) == MAX_STEPS - 2
    for text in (
        "RUN x\n" * (MAX_STEPS + 1),
        "FROM x\nRUN pip install" + ";a" * (MAX_STEPS - 1),
        "WORKDIR a\n" * 20_000,
    ):
        with pytest.raises(ConfigError, match=r"has more than 1,000 instructions and commands: shorten it$"):
            read(tmp_path, text)
    assert len(read(tmp_path, f"WORKDIR {'a' * (MAX_PATH_CHARS - 1)}\n").folder) == MAX_PATH_CHARS
    with pytest.raises(ConfigError, match=r"sets a WORKDIR of more than 4,096 characters: shorten it$"):
        read(tmp_path, f"WORKDIR {'a' * 3000}\nWORKDIR {'a' * 1096}\n")


def copied(folder: Path, line: str) -> tuple[list[str], list[str]]:
    built = read(folder, f"FROM x\n{line}\n")
    return sorted(path for step in built.steps for path, _, _ in step.files), built.lacks


def test_a_link_out_of_the_folder_is_refused_before_what_lies_behind_it_is_searched(tmp_path: Path) -> None:
    context, outside = tmp_path / "context", tmp_path / "outside"
    context.mkdir(), (outside / "in" / "deep").mkdir(parents=True)
    (context / "link").symlink_to(outside)
    for source in ("link/*", "link/*/*/*", "l*/gone/*", "link"):
        assert copied(context, f"COPY {source} /x") == (
            [], [f"COPY {source} /x: {source} leads out of the folder"],
        )  # fmt: skip
    (context / "file").symlink_to("/etc/hostname")
    (context / "link").unlink(), (context / "sub").mkdir(), (context / "sub" / "a.txt").write_text("a")
    assert copied(context, "COPY */a.txt /x") == (["/x"], []), "a file beside the way may be a link to anywhere"


def test_links_within_the_folder_are_followed_and_loops_of_them_searched_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(), (tmp_path / "real" / "a.txt").write_text("a")
    (tmp_path / "near").symlink_to("real")
    assert copied(tmp_path, "COPY near/*.txt /x/") == (["/x/a.txt"], [])
    assert copied(tmp_path, "COPY ./real/a.* /x/") == (["/x/a.txt"], [])
    for number in range(30):
        (tmp_path / f"l{number}").symlink_to(".")
    assert copied(tmp_path, f"COPY {'l*/' * 50}real/a.txt /x/") == (["/x/a.txt"], []), "30 ** 50 ways lead there"


def test_a_source_that_no_file_can_be_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text(""), (tmp_path / "b").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for line in (r'COPY ["\u0000", "/x"]', f"COPY {'n' * 5000} /x", "COPY loop/* /x", "COPY loop /x"):
        files, lacks = copied(tmp_path, line)
        assert files == [] and len(lacks) == 1, line[:30]
    for most, told in ((2, False), (1, True)):
        monkeypatch.setattr("firsthand.sandbox.dockerfile.MAX_FILES", most)
        assert bool(copied(tmp_path, "COPY a b /x/")[1]) is told
