"""Compiled templates of the Studio are kept beside them, and made anew where they are not what they should be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader, UndefinedError
from jinja2.bccache import bc_magic

from firsthand.studio import rendering
from firsthand.studio.compiled_templates import CompiledTemplates


def shown(folder: Path, **values: object) -> str:
    environment = Environment(
        loader=FileSystemLoader(folder), bytecode_cache=CompiledTemplates(folder), autoescape=True
    )
    return environment.get_template("a.html").render(**values)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    (tmp_path / "a.html").write_text("one {{ x }}")
    return tmp_path


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "__pycache__").glob("*"))


def test_a_compiled_template_is_kept_and_read(folder: Path) -> None:
    assert shown(folder, x="<") == "one &lt;"
    (file,) = kept(folder)
    file.write_bytes(file.read_bytes().replace(b"one ", b"two "))  # as if the compiler had said so
    assert shown(folder, x="<") == "two &lt;", "it was compiled again"


def test_a_folder_of_compiled_files_that_is_not_there_yet_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = folder / "not" / "there"
    monkeypatch.setattr(sys, "pycache_prefix", str(prefix))
    for x in (1, 2):
        assert shown(folder, x=x) == f"one {x}"
    (file,) = (each for each in prefix.rglob("*") if each.is_file())
    assert file.parent == prefix / folder.relative_to("/") and not kept(folder)


def test_what_is_stale_or_damaged_is_compiled_again(folder: Path) -> None:
    shown(folder, x=1)
    (file,) = kept(folder)
    whole = file.read_bytes()
    start = whole.index(bc_magic) + len(bc_magic)
    (folder / "a.html").write_text("three {{ x }}")
    assert shown(folder, x=1) == "three 1"
    for damaged in (
        b"",
        whole[:40],
        whole[:-9],
        b"firsthand 0.0.1, jinja2 1.0\n" + whole.partition(b"\n")[2],
        b"\0" * 99,
        whole[:start],  # EOFError
        whole[:start] + b"\0" + whole[start + 1 :],  # pickle.UnpicklingError
        whole[:start] + b"cnowhere\nat_all\n.",  # ModuleNotFoundError
    ):
        file.write_bytes(damaged.replace(b"one ", b"two "))
        (folder / "a.html").write_text("one {{ x }}")
        assert shown(folder, x=1) == "one 1"
    assert kept(folder) == [file], "nothing half-written stays"


def test_where_nothing_can_be_written_pages_are_shown_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "__pycache__").write_text("a file in the way")
    assert shown(folder, x=1) == "one 1"
    (folder / "__pycache__").unlink()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert shown(folder, x=1) == "one 1" and not kept(folder)


@pytest.fixture
def compiled_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The Studio's templates as they are compiled now, whatever is kept of them."""
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "compiled"))
    rendering._environment.cache_clear()
    yield
    rendering._environment.cache_clear()


def test_pages_are_compiled_with_escapes_and_without_the_lines_of_their_marks(compiled_here: None) -> None:
    attempt = {"title": "<t>\u202e", "lines": ["a & b", "\u200b", "last"]}
    assert rendering.render("parts/under_way", attempts=[attempt], most=2) == (
        "<h2>Under way</h2>\n"
        '<details class="under-way" open><summary>&lt;t&gt;\\u202e <small>3 steps, last: last</small></summary>\n'
        '<p class="soft">1 step before these</p>'
        "<pre>\\u200b\nlast\n</pre></details>\n"
    )
    none = {"title": "t", "lines": []}
    assert rendering.render("parts/under_way", attempts=[none, none], most=2) == (
        "<h2>Under way</h2>\n"
        + '<details class="under-way"><summary>t <small>0 steps</small></summary>\n<pre></pre></details>\n' * 2
    )
    assert rendering.render("parts/under_way", attempts=[], most=2) == ""
    with pytest.raises(UndefinedError):
        rendering.render("parts/under_way", attempts=[attempt])
