"""The parts of a Dockerfile's reader, each called alone: instructions, copies, commands, and what they install."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from firsthand.sandbox import dockerfile
from firsthand.sandbox.dockerfile import (
    MAX_BYTES,
    BuildStep,
    _bare,
    _commands,
    _copied,
    _installed,
    _joined,
    _lacking,
    _lines,
    _names,
    _pairs,
    _plain,
    _python_packages,
    _required,
)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A folder of files with 1, 2, 3, 4 and 5 bytes."""
    root = tmp_path / "context"
    for name, size, mode in (
        ("a", 1, 0o644),
        ("b.txt", 2, 0o755),
        ("d/c", 3, 0o611),
        ("d/e/f", 4, 0o744),
        ("z.tar.gz", 5, 0o644),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name[-1:].encode() * size)
        (root / name).chmod(mode)
    return root


def test_files_are_copied_to_where_the_last_word_says(context: Path) -> None:
    a, b, c, f = b"a", b"tt", b"ccc", b"ffff"
    for rest, folder, files in (
        ("a /x", "/w", [("/x", a, False)]), ("a /x/", "/w", [("/x/a", a, False)]), ("a .", "/w", [("/w/a", a, False)]),
        ("a ./", "/w", [("/w/a", a, False)]), ("a x", "/w", [("/w/x", a, False)]),
        ("/a ../y", "/w/v", [("/w/v/../y", a, False)]),
        ("a b.txt /x", "/w", [("/x/a", a, False), ("/x/b.txt", b, True)]),
        ("d /x", "/w", [("/x/c", c, False), ("/x/e/f", f, True)]),
        ("d/ x/", "/w", [("/w/x/c", c, False), ("/w/x/e/f", f, True)]),
        ("d/e/f b.txt x", "/", [("/x/f", f, True), ("/x/b.txt", b, True)]),
        ("[ab]* /x", "/w", [("/x/a", a, False), ("/x/b.txt", b, True)]),
        ("d/* /x", "/w", [("/x/c", c, False), ("/x/f", f, True)]),
        ('["d/c", "/a b"]', "/w", [("/a b", c, False)]), ("--chmod=1 --chown=x:y 'b.txt' '/p q'", "/w", [("/p q", b, True)]),
        ('--chown=me --link ["d/c", "/y"]', "/w", [("/y", c, False)]),
        ("z.tar.gz /x/", "/w", [("/x/z.tar.gz", b"zzzzz", False)]),
    ):  # fmt: skip
        assert _copied("COPY", rest, context, folder, 99) == (BuildStep(files=tuple(files)), ""), rest
    whole, why = _copied("COPY", ". /app", context, "/w", 99)
    assert why == "" and [path for path, _, _ in whole.files] == [
        "/app/a", "/app/b.txt", "/app/d/c", "/app/d/e/f", "/app/z.tar.gz",
    ]  # fmt: skip
    assert _copied("COPY", "./ /app", context, "/w", 99) == _copied("COPY", "/ /app", context, "/w", 99) == (whole, "")
    assert _copied("ADD", "a /x", context, "/w", 99) == _copied("COPY", "a /x", context, "/w", 99)


def test_a_copy_that_cannot_be_followed_copies_nothing(context: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("s")
    (context / "link").symlink_to(tmp_path / "outside")
    (context / "inner").mkdir()
    (context / "inner" / "leads").symlink_to(tmp_path / "outside" / "secret")
    beside = "only files beside the Dockerfile are copied"
    for name, rest, left, why in (
        ("COPY", "--from=build a /x", 99, beside), ("COPY", "a", 99, beside), ("COPY", "", 99, beside),
        ("COPY", "'a /x", 99, beside),
        ("COPY", "[1, 2]", 99, beside), ("COPY", '["a"]', 99, beside), ("COPY", "[a /x", 99, "[a is not there"),
        ("COPY", "../a /x", 99, "../a leads out of the folder, or everywhere in it"),
        ("COPY", "a d/../a /x", 99, "d/../a leads out of the folder, or everywhere in it"),
        ("COPY", "d/** /x", 99, "d/** leads out of the folder, or everywhere in it"),
        ("COPY", "link /x", 99, "link leads out of the folder"),
        ("COPY", "a link/secret /x", 99, "link/secret leads out of the folder"),
        ("COPY", "inner /x", 99, "leads leads out of the folder"), ("COPY", "none /x", 99, "none is not there"),
        ("COPY", "a q* /x", 99, "q* is not there"), ("ADD", "z.tar.gz /x", 99, "archives are not unpacked"),
        ("COPY", "a b.txt /x", 2, f"more than {MAX_BYTES} bytes"), ("COPY", "d /x", 6, f"more than {MAX_BYTES} bytes"),
    ):  # fmt: skip
        assert _copied(name, rest, context, "/w", left) == (BuildStep(), why), rest
    assert (
        len(_copied("COPY", "a b.txt /x", context, "/w", 3)[0].files)
        == 2
        == len(_copied("COPY", "d /x", context, "/w", 7)[0].files)
    )
    for name, unpacked in (
        ("x.tgz", True),
        ("x.tar", True),
        ("x.tar.zst", True),
        ("x.tar.d.gz", False),
        ("tar", False),
        ("x.gz", False),
    ):
        (context / name).write_text("x")
        why = _copied("ADD", f"{name} /x", context, "/w", 9)[1]
        assert (why == "archives are not unpacked") is unpacked, name
        assert _copied("COPY", f"{name} /x", context, "/w", 9)[1] == ""


def test_instructions_are_whole_lines_and_variables_pairs() -> None:
    text = "# c\nFROM x\n\n  RUN a \\\n\n# within\n  b \\\\\n c\\\n\td\nENV A=1\\\n"
    assert list(_lines(text)) == ["FROM x", "RUN a    b \\  c \td", "ENV A=1"]
    for blanks in ("", " ", "   ", "\t", " \t "):
        assert list(_lines(f"RUN a\\{blanks}\nb \\{blanks}\n c{blanks}\nENV A=1\\{blanks}")) == [
            "RUN a b   c",
            "ENV A=1",
        ]
    assert list(_lines("RUN a\\ b\nRUN c\\\\\nd\r\nUSER e")) == ["RUN a\\ b", "RUN c\\ d", "USER e"]
    assert list(_lines("")) == [] == list(_lines("\n# only\n")) and list(_lines("RUN \\\n\\\n")) == ["RUN"]
    assert [_joined(*each) for each in (("", "a"), ("", "/a"), ("/w", "a/b"), ("/w", "/x"), ("/w", "."))] == [
        "/a", "/a", "/w/a/b", "/x", "/w",
    ]  # fmt: skip
    assert [_pairs(each) for each in ("A=1 B='2 3'", "A 1  2", "A", "A=", "A=b=c D", "", 'A="x', "A B=1", "é=ü")] == [
        {"A": "1", "B": "2 3"}, {"A": "1 2"}, {"A": ""}, {"A": ""}, {"A": "b=c"}, {}, {"A": '"x'}, {"A": "B=1"}, {"é": "ü"},
    ]  # fmt: skip


def test_commands_are_taken_apart_only_where_one_of_them_installs() -> None:
    for rest, commands in (
        ("make && make test; x", ["make && make test; x"]), ("a && pip install x", ["a", "pip install x"]),
        ("apt-get update ;apt install -y x||true && y", ["apt-get update", "apt install -y x", "y"]),
        ("A=1 pip3 install x && ", ["A=1 pip3 install x"]), ("echo pip install x", ["echo pip install x"]),
        ("--network=none --mount=type=x make", ["make"]), ("--security make", ["make"]), ('["a b", "c", 1]', ["'a b' c 1"]),
        ("[ -f x ] && y", ["[ -f x ] && y"]), ("wget http://x; y", ["wget http://x", "y"]),
        ("python -m pip install -q x; z", ["python -m pip install -q x", "z"]), ("pip download x; y", ["pip download x; y"]),
    ):  # fmt: skip
        assert _commands(rest) == commands, rest
    bare = {"  sudo A=1 B_C= x y ": "x y", "sudo  pip": "pip", "a=1 x": "a=1 x", "A=1": "A=1", "export A=1": "",
            "export A=1 x": "export A=1 x", "x A=1 y": "x A=1 y"}  # fmt: skip
    assert {each: _bare(each) for each in bare} == bare


def test_what_an_installation_lacks_is_told_by_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Some_Pkg", "other.one"):
        (tmp_path / f"{name}-1.0.dist-info").mkdir()
        (tmp_path / f"{name}-1.0.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
    assert _python_packages((tmp_path,)) == {"some-pkg", "other-one"} and _python_packages(()) == frozenset()
    monkeypatch.setenv("FIRSTHAND_SANDBOX_PACKAGES", str(tmp_path))
    monkeypatch.setattr(dockerfile, "_installed", lambda package: package in ("sh", "git=1"))
    for command, lack in (
        ("make all", None), ("echo apt-get install x", None), ("pip list", None), ("rm -rf /opt", None),
        ("pip install some.pkg==2 OTHER_one[x]>=1", ""),
        ("pip install -U some-pkg new absent>1", "needs the Python packages new, absent>1"),
        ("sudo python3 -m pip --quiet install new", "needs the Python packages new"),
        ("pip3 install -i http://x some_pkg", ""),
        ("apt-get -qq install -y sh git=1", ""), ("apt install sh bash curl", "needs the Debian packages bash, curl"),
        ("apt-get update -y", ""), ("apt autoremove", ""), ("apt-get clean", ""),
        ("rm -rf /var/lib/apt/lists/* /var/cache/x /tmp/y", ""),
        ("apk add  x", "runs `apk add x`"), ("git clone http://x", "runs `git clone http://x`"),
        ("curl " + "y" * 70, "runs `curl " + "y" * 55 + "`"), (" \nsudo  rm -rf /var/lib/apt/lists/*", ""),
        ("A=1 rm  -rf  /var/lib/apt", ""), ("A=x sudo apt-get -y install sh new", "needs the Debian packages new"),
        ("apt-get upgrade", ""), ("apt autoclean", ""), ("apt-get remove x", None), ("apt-getx install y", None),
        ("rm -r /var/lib/apt", None), ("rm -rf /var/cache", None), ("A=1 yum x", "runs `A=1 yum x`"),
        ("dnf x", "runs `dnf x`"),
        ("npm  i\n x", "runs `npm i x`"), ("cargo x", "runs `cargo x`"), ("conda x", "runs `conda x`"),
        ("wget x", "runs `wget x`"), ("useradd x", "runs `useradd x`"), ("adduser x", "runs `adduser x`"),
        ("git pull", None), ("wget", None), ("python -m pip install", ""), ("pip install -r absent.txt -c other.txt",
        "needs the Python packages absent.txt, other.txt"), ("apt install -t stable sh", ""), ("apt-get install", ""),
    ):  # fmt: skip
        assert _lacking(command, ()) == lack, command
    lines = b"a==1 # why\n# all\n\n b[x] ; python_version<'3'\n-e .\n--index-url u\nc\xff\n"
    steps = (
        BuildStep(files=(("/w/needs.txt", b"old", False), ("/w/other", b"x", False))), BuildStep(command="x"),
        BuildStep(files=(("/v/needs.txt", lines, False),)),
    )  # fmt: skip
    assert _required("some/needs.txt", steps) == ["a==1", "b[x]", "c\ufffd"] and _required("needs.txt", steps[:1]) == [
        "old"
    ]
    assert _required("none.txt", steps) == ["none.txt"] and _required("", ()) == ["-r"]
    assert _names("-r needs.txt x --requirement other -c none 'y z' --target t --no-cache w", steps) == [
        "a==1", "b[x]", "c\ufffd", "x", "x", "none", "y z", "w",
    ]  # fmt: skip
    assert _names("pip setuptools wheel pipx -t", ()) == ["pipx"] and _names("a 'b", ()) == ["a", "'b"]
    assert _names("-r", ()) == ["-r"] and _names(
        "--timeout 5 --retries 3 --trusted-host h --extra-index-url u --index-url v k", ()
    ) == ["k"]
    assert [_plain(each) for each in ("A.b__C--1>=2", "x", "x ; y", "?", "1a")] == ["a-b-c-1", "x", "x", "?", "1a"]
    assert _lacking("pip install -r needs.txt", steps) == "needs the Python packages a==1, b[x], c\ufffd"


def test_a_debian_package_is_there_as_a_program_or_by_dpkg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = tmp_path / "dpkg-query"
    query.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/log\ncase "$4" in\n'
        "here) printf 'install ok installed';;\nonce) printf 'deinstall ok config-files';;\n"
        "*) printf 'ok installed'; printf ' not' ;;\nesac\n"
    )
    query.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    _installed.cache_clear()
    try:
        found = [
            _installed(each)
            for each in ("sh", "sh=1.2", "here", "here=2", "once", "no-such-thing-x", "-x", "", "a b", "=1")
        ]
        assert found == [True, True, True, True, False, False, False, False, False, False]
        asked = (tmp_path / "log").read_text().splitlines()
        assert asked == [f"-W -f ${{Status}} {name}" for name in ("here", "here", "once", "no-such-thing-x")]
        query.unlink()
        _installed.cache_clear()
        assert not _installed("here") and _installed("sh") and os.environ["PATH"] == str(tmp_path)
    finally:
        _installed.cache_clear()


def test_a_dockerfile_is_told_shortly_and_its_folders_once(context: Path) -> None:
    file = context / "Dockerfile"
    long = "y" * 70
    file.write_text(
        f"""FROM --platform=a debian
WORKDIR 'w x'
WORKDIR "sub"
WORKDIR /
COPY a /
COPY a /o/p/
WORKDIR /o/p
COPY {long} /x
STRANGE {long}
USER 0:5
USER rooty
ENV A=1
RUN one
ENV A=2 B=3
RUN two
FROM debian
"""
    )
    built = dockerfile.read_dockerfile(file, context, re.compile("debian"))
    assert (built.folder, built.folders, built.environment) == (
        "/o/p",
        ("/w x", "/w x/sub", "/o/p"),
        {"A": "2", "B": "3"},
    )
    assert built.lacks == [
        f"COPY {'y' * 60}: {long} is not there", f"says 'STRANGE {'y' * 52}'", "says 'USER rooty'",
        "builds in several stages",
    ]  # fmt: skip
    assert built.steps == (
        BuildStep(files=(("/a", b"a", False),)), BuildStep(files=(("/o/p/a", b"a", False),)), BuildStep(),
        BuildStep(command="one", folder="/o/p", environment={"A": "1"}),
        BuildStep(command="two", folder="/o/p", environment={"A": "2", "B": "3"}),
    )  # fmt: skip
