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
