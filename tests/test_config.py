from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from firsthand.config import build, make_parser, parse
from firsthand.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Settings of a test."""

    things: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """What to take."""
    limit: int | None = None
    """At most 100% of it."""
    temperature: float = 0.0
    """How hot."""
    names: tuple[str, ...] = ("a", "b")
    """Who."""
    mode: Literal["fast", "slow"] = "fast"
    """How."""
    json: bool = False
    """For programs."""
    resume: str | None = field(default=None, metadata={"bare": "last"})
    """Which."""


def read(*words: str) -> Settings:
    return parse(Settings, words, prog="firsthand test", examples="firsthand test a b")


def test_flags_are_fields():
    settings = read("x", "y", "--limit", "5", "--temperature", "0.5", "--names", "c,d", "--mode", "slow", "--json")
    assert settings == Settings(("x", "y"), 5, 0.5, ("c", "d"), "slow", True)
    assert read() == Settings()
    assert read("--no-json").json is False
    assert read("--resume").resume == "last" and read("--resume", "r1").resume == "r1"


def test_words_may_stand_between_flags():
    expected = Settings(("x", "y"), 5, names=("c", "d"), json=True)
    for words in (
        "x y --limit 5 --names c,d --json",
        "--limit 5 x --names c,d y --json",
        "--json x --limit=5 --names c --names d y",
    ):
        assert read(*words.split()) == expected, words
    assert read("--limit", "5", "a", "--", "--json", "--", "-x").things == ("a", "--json", "--", "-x")


def test_the_word_after_a_flag_that_needs_a_value_is_its_value():
    assert read("--limit", "-5").limit == -5
    assert read("--temperature", "-1e-3").temperature == -0.001
    assert read("--temperature", "-inf", "x").things == ("x",)
    assert read("--names", "-a,b").names == ("-a", "b")
    with pytest.raises(ConfigError, match="expected one argument"):
        read("--limit", "--json")
    with pytest.raises(ConfigError, match="expected one argument"):
        read("--limit", "--names=c")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--limits", "5"], "did you mean --limit"),
        (["--limit", "many"], "limit is 'many': a whole number was expected"),
        (["--limit", "1.5"], "a whole number"),
        (["--temperature", "hot"], "temperature is 'hot': a number was expected"),
        (["--mode", "medium"], "mode is 'medium': one of fast, slow was expected"),
        (["--limit"], "expected one argument"),
        (["--config", "nowhere.toml"], "cannot read the config file 'nowhere.toml'"),
    ],
)
def test_wrong_words_are_one_sentence(words, message):
    with pytest.raises(ConfigError, match=message):
        read(*words)


def test_help_shows_each_field_its_default_and_the_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        read("--help")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for expected in ("At most 100% of it.", "--limit N", "[default: a,b]", "{fast,slow}", "firsthand test a b"):
        assert expected in shown


def test_toml_gives_defaults_that_flags_override(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('things = ["x"]\nlimit = 3\nnames = ["q"]\n')
    assert read("--config", str(file), "--limit", "9") == Settings(("x",), 9, names=("q",))
    file.write_text("limmit = 3\n")
    with pytest.raises(ConfigError, match="no setting 'limmit'; did you mean 'limit'"):
        read("--config", str(file))
    file.write_text("limit = [unclosed\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read("--config", str(file))
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read("--config", str(file))


def test_build_takes_what_json_gives_back():
    assert build(Settings, {"things": ["x"], "limit": None, "temperature": 1}) == Settings(("x",), None, 1.0)
    with pytest.raises(ConfigError, match="true or false"):
        build(Settings, {"json": "yes"})


@dataclass(frozen=True)
class Bounds:
    """A part of a config."""

    most: int = 3
    """Most of them."""
    names: tuple[str, ...] = ()
    """Their names."""

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ConfigError(f"most is {self.most}: give 1 or more")


@dataclass(frozen=True)
class WithBounds:
    """A config with a part."""

    task: str = ""
    """The task."""
    bounds: Bounds = field(default_factory=Bounds)


def test_a_part_of_a_config_has_its_fields_as_flags_and_as_keys_of_the_file(tmp_path: Path) -> None:
    assert parse(WithBounds, [], prog="x") == WithBounds()
    assert parse(WithBounds, ["--most", "7", "--task", "t"], prog="x") == WithBounds("t", Bounds(7))
    file = tmp_path / "c.toml"
    file.write_text('most = 9\nnames = ["a", "b"]\n')
    assert parse(WithBounds, ["--config", str(file), "--most", "4"], prog="x").bounds == Bounds(4, ("a", "b"))
    with pytest.raises(ConfigError, match="did you mean 'most'"):
        build(WithBounds, {"mosts": 1})
    with pytest.raises(ConfigError, match="most is 0: give 1 or more"):
        parse(WithBounds, ["--most", "0"], prog="x")
    with pytest.raises(ConfigError, match="most is 'many': a whole number was expected"):
        parse(WithBounds, ["--most", "many"], prog="x")
    shown = " ".join(make_parser(WithBounds, prog="x").format_help().split())
    assert "Most of them. [default: 3]" in shown and "--bounds" not in shown
