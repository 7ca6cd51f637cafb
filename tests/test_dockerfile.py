"""A Dockerfile as steps for a sandbox, read without running anything: files, variables, commands and what is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from firsthand.sandbox import dockerfile
from firsthand.sandbox.dockerfile import Built, read_dockerfile

PLAIN = re.compile(r"debian(:.*)?|python(:.*)?")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A folder with two texts, a program, and a folder of two more."""
    for name, text in (
        ("a.txt", "one"),
        ("b.txt", "two"),
        ("run.sh", "exit"),
        ("src/m.py", "m"),
        ("src/deep/n.py", "n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644)
    (tmp_path / "run.sh").chmod(0o744)  # its owner alone may run it
    return tmp_path


def read(context: Path, *lines: str) -> Built:
    file = context / "Dockerfile"
    file.write_text("\n".join(("FROM debian", *lines)) + "\n")
    return read_dockerfile(file, context, PLAIN)


def put(built: Built) -> dict[str, tuple[str, bool]]:
    """Every copied file: its content, and whether it is executable."""
    return {path: (content.decode(), runs) for step in built.steps for path, content, runs in step.files}


@pytest.mark.parametrize(
    ("line", "paths"),
    [
        ("COPY a.txt /opt/renamed", ["/opt/renamed"]),
        ("COPY a.txt /opt/", ["/opt/a.txt"]),
        ("COPY a.txt .", ["/work/a.txt"]),
        ("COPY a.txt here", ["/work/here"]),
        ("COPY a.txt b.txt /opt", ["/opt/a.txt", "/opt/b.txt"]),
        ("COPY *.txt /opt", ["/opt/a.txt", "/opt/b.txt"]),
        ("COPY src /opt", ["/opt/deep/n.py", "/opt/m.py"]),
        ('COPY ["a.txt", "/opt/with space"]', ["/opt/with space"]),
        ("COPY --chown=me:me a.txt /opt/", ["/opt/a.txt"]),
        ("add a.txt /opt/", ["/opt/a.txt"]),
    ],
)
def test_copied_files_lie_where_docker_puts_them(context: Path, line: str, paths: list[str]) -> None:
    built = read(context, "WORKDIR /work", line)
    assert built.lacks == [] and sorted(put(built)) == paths
    assert set(built.folders) == {"/work", *(str(Path(path).parent) for path in paths)}


def test_contents_are_kept_and_the_owners_right_to_run_them(context: Path) -> None:
    found = put(read(context, "COPY . /all/"))
    assert found["/all/a.txt"] == ("one", False) and found["/all/src/deep/n.py"] == ("n", False)
    assert found["/all/run.sh"] == ("exit", True)


@pytest.mark.parametrize("lines", [("COPY a.txt b.txt /opt/",), ("COPY a.txt /opt/", "COPY b.txt /opt/")])
def test_all_copied_files_together_have_one_limit(
    context: Path, lines: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dockerfile, "MAX_BYTES", 6)
    assert read(context, *lines).lacks == []
    monkeypatch.setattr(dockerfile, "MAX_BYTES", 5)
    [lack] = read(context, *lines).lacks
    assert "more than 5 bytes" in lack


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("COPY --from=builder /x /y", "only files beside the Dockerfile"),
        ("COPY a.txt", "only files beside the Dockerfile"),
        ('COPY ["a.txt", 3]', "only files beside the Dockerfile"),
        ("ADD pack.tar.gz /opt/", "archives are not unpacked"),
        ("COPY gone.txt /opt/", "gone.txt is not there"),
        ("HEALTHY yes", "says 'HEALTHY yes'"),
        ("USER 1000", "says 'USER 1000'"),
        ("FROM python", "several stages"),
    ],
)
def test_each_thing_that_cannot_be_followed_is_named_once(context: Path, line: str, why: str) -> None:
    (context / "pack.tar.gz").write_bytes(b"")
    built = read(context, "RUN true", line)
    assert len(built.lacks) == 1 and why in built.lacks[0]
    assert put(read(context, "COPY pack.tar.gz /opt/")) == {"/opt/pack.tar.gz": ("", False)}  # copied as it is


def test_a_command_has_the_folder_and_the_variables_of_its_place(context: Path) -> None:
    built = read(
        context, "RUN first", "WORKDIR /work", "ENV A=1 B='two words'", "WORKDIR sub", "RUN second", "ENV C three four",
        "ENV A=5", "USER root", "USER 0:0", "LABEL x=y", "EXPOSE 80", "RUN third",
    )  # fmt: skip
    told = [(step.command, step.folder, step.environment) for step in built.steps]
    before = {"A": "1", "B": "two words"}
    after = {**before, "A": "5", "C": "three four"}
    assert told == [("first", "/", {}), ("second", "/work/sub", before), ("third", "/work/sub", after)]
    assert built.environment == after and built.folder == "/work/sub" and built.lacks == []
    assert built.folders == ("/work", "/work/sub")


def test_long_lines_comments_and_lists_are_one_command(context: Path) -> None:
    built = read(
        context, "# RUN not", "RUN one \\", "  # why", "  && two", "", 'RUN ["echo", "a b"]', "RUN --mount=type=cache x; y",
        "RUN last \\",
    )  # fmt: skip
    assert [" ".join(step.command.split()) for step in built.steps] == ["one && two", "echo 'a b'", "x; y", "last"]


@pytest.fixture
def packages(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of packages with `Ruamel.Yaml` in it, which the sandbox may import from."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "Ruamel.Yaml-1.0.dist-info").mkdir()
    (folder / "Ruamel.Yaml-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: Ruamel.Yaml\n")
    monkeypatch.setenv("FIRSTHAND_SANDBOX_PACKAGES", str(folder))


@pytest.mark.parametrize(
    ("command", "needs"),
    [
        ("pip install ruamel.yaml", ""),
        ("pip3 install --no-cache-dir 'RUAMEL_yaml>=0.1' pip setuptools wheel", ""),
        ("python3 -m pip install -i https://host/simple ruamel-yaml", ""),
        ("pip install ruamel-yaml gone-a==1 gone-b", "needs the Python packages gone-a==1, gone-b"),
        ("pip install -r wants.txt", "needs the Python packages gone-c>=2"),
        ("pip install -r elsewhere.txt", "needs the Python packages elsewhere.txt"),
        ("apt-get update", ""),
        ("apt-get install -y --no-install-recommends sh", ""),  # a program of that name is here
        ("sudo apt install sh no-such-debian", "needs the Debian packages no-such-debian"),
        (
            "DEBIAN_FRONTEND=noninteractive apt-get install -y no-such-debian",
            "needs the Debian packages no-such-debian",
        ),
        ("rm -rf /var/lib/apt/lists/*", ""),
        ("npm install x", "runs `npm install x`"),
        ("useradd me", "runs `useradd me`"),
    ],
)
def test_installing_is_looked_up_and_never_run(context: Path, packages: None, command: str, needs: str) -> None:
    (context / "wants.txt").write_text(
        "# a comment\n-i https://host\nRuamel.YAML ; python_version > '3'\n\ngone-c>=2 # x\n"
    )
    built = read(context, "COPY wants.txt /tmp/", f"RUN {command}")
    assert built.lacks == ([needs] if needs else []) and not any(step.command for step in built.steps)


def test_what_stands_beside_an_installation_is_run(context: Path, packages: None) -> None:
    built = read(context, "RUN apt-get update && mkdir -p /x && pip install ruamel-yaml; touch /x/y || true")
    assert [step.command for step in built.steps] == ["mkdir -p /x", "touch /x/y"] and built.lacks == []
    whole = read(context, "RUN mkdir -p /x && touch /x/y || true")  # without one it stands as it is
    assert [step.command for step in whole.steps] == ["mkdir -p /x && touch /x/y || true"]


@pytest.mark.parametrize(
    ("line", "lacks"),
    [
        ("FROM --platform=linux/amd64 python:3.12", []),
        ("FROM other/image@sha256:1", ["is built from the image 'other/image'"]),
        ("FROM debianx", ["is built from the image 'debianx'"]),
        ("FROM my/debian", ["is built from the image 'my/debian'"]),
        ("FROM debian AS base", ["builds in several stages"]),
    ],
)
def test_the_image_is_one_that_this_machine_stands_in_for(context: Path, line: str, lacks: list[str]) -> None:
    (context / "Dockerfile").write_text(line)
    assert read_dockerfile(context / "Dockerfile", context, PLAIN).lacks == lacks


@pytest.mark.parametrize("source", ["../x", "../../**/*", "**/*", "src/../../*", "src/**"])
def test_a_copy_searches_neither_outside_nor_every_folder(context: Path, source: str) -> None:
    built = read(context, f"COPY {source} /opt/")
    assert not put(built) and "leads out of the folder" in built.lacks[0]


def test_lists_nested_without_end_are_no_lists(context: Path) -> None:
    built = read(context, f"RUN {'[' * 100_000}", f"COPY {'[' * 100_000} /opt")
    assert built.steps[0].command == "[" * 100_000 and not put(built)
