from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest

from firsthand.config import build, confidence, field_docs, make_parser, parse, settings_of, share, split_list
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
        (["--helm", "5"], "did you mean --help"),
        (["--hxxp", "5"], r"does not take '--hxxp'; `.*` shows"),
        (["--limit", "many"], "limit is 'many': a whole number was expected"),
        (["--limit", "1.5"], "a whole number"),
        (["--temperature", "hot"], "temperature is 'hot': a number was expected"),
        (["--mode", "medium"], "mode is 'medium': one of fast, slow was expected"),
        (["--limit"], "expected one argument"),
        (["--config", "nowhere.toml"], "'nowhere.toml' cannot be read: No such file or directory"),
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


def test_a_setting_that_is_given_in_two_ways_is_refused(tmp_path: Path) -> None:
    for words in (["--most", "4", "bounds.most=5"], ["--bounds.most=5", "--most=4"], ["bounds.most=4", "--most", "4"]):
        with pytest.raises(ConfigError, match=r"^--most is given twice, by itself and with a dot: give it once$"):
            parse(WithBounds, words, prog="x")
    for words in (["--most", "4", "--most", "5"], ["bounds.most=4", "bounds.most=5"]):
        assert parse(WithBounds, words, prog="x").bounds.most == 5, "the last of equal flags, as of any program"
    file = tmp_path / "c.toml"
    file.write_text('task = "t"\nmost = 4\n[bounds]\nmost = 5\n')
    with pytest.raises(ConfigError, match="most is given twice: give it once"):
        parse(WithBounds, ["--config", str(file)], prog="x")
    file.write_text('task = "t"\n[bounds]\nmost = 5\n')
    assert parse(WithBounds, ["--config", str(file), "--most", "6"], prog="x").bounds.most == 6


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("95%", 0.95), ("0.95", 0.95), ("50%", 0.5), ("0.5", 0.5), ("99.9%", 0.999),
        ("49.9%", None), ("0.499", None), ("100%", None), ("1", None), ("95", None), ("-95%", None), ("nan", None),
        ("inf%", None), ("", None), ("%", None), ("95%%", None), ("high", None),
    ],
)  # fmt: skip
def test_a_confidence_is_a_share_from_a_half_to_below_one(text: str, value: float | None) -> None:
    if value is not None:
        assert confidence(text) == pytest.approx(value) and share(text, "x") == pytest.approx(value)
    else:
        with pytest.raises(ConfigError, match=r"^confidence is "):
            confidence(text)
    assert share("2%", "x") == 0.02 and share("-0.5", "x") == -0.5 and share("150%", "x") == 1.5
    with pytest.raises(ConfigError, match=r"^effect is 'much': a fraction was expected"):
        share("much", "effect")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", [""]), ("a", ["a"]), ("a,b", ["a", "b"]), ("a,,b", ["a", "", "b"]), ("f(a,b),c", ["f(a,b)", "c"]),
        ("f(g(a,b),c),d", ["f(g(a,b),c)", "d"]), ("f(a,b", ["f(a", "b"]), ("a),b(c", ["a)", "b(c"]), ("a)b,c", ["a)b", "c"]),
        ("f(a,b),g(c,d", ["f(a", "b)", "g(c", "d"]),
    ],
)  # fmt: skip
def test_commas_part_words_outside_parentheses_that_are_closed(text: str, words: list[str]) -> None:
    assert split_list(text) == words and ",".join(words) == text


def test_flags_go_before_the_file_and_the_file_before_defaults(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('limit = 3\nmode = "slow"\nnames = ["x"]\nthings = ["f"]\njson = true\n')
    from_file = Settings(("f",), 3, 0.0, ("x",), "slow", True)
    assert read("--config", str(file)) == from_file
    assert read("--config", str(file), "--limit", "5", "--no-json", "y") == replace(
        from_file, limit=5, json=False, things=("y",)
    )


@pytest.mark.parametrize(
    ("key", "value", "made"),
    [
        ("limit", 5, 5),
        ("limit", 5.0, 5),
        ("limit", "5", 5),
        ("limit", None, None),
        ("limit", 5.5, ConfigError),
        ("limit", "five", ConfigError),
        ("temperature", 1, 1.0),
        ("temperature", "0.5", 0.5),
        ("temperature", "x", ConfigError),
        ("temperature", None, ConfigError),
        ("json", True, True),
        ("json", "true", ConfigError),
        ("json", 1, ConfigError),
        ("mode", "slow", "slow"),
        ("mode", "Slow", ConfigError),
        ("names", "a, b", ("a", "b")),
        ("names", ["a", " "], ("a",)),
        ("names", 5, ConfigError),
        ("names", [], ()),
        ("nmaes", "a", ConfigError),
        ("resume", None, None),
    ],
)
def test_a_value_is_converted_to_its_fields_type_or_refused_by_name(key: str, value: object, made: object) -> None:
    if made is ConfigError:
        with pytest.raises(ConfigError, match=key):
            build(Settings, {key: value})
    else:
        found = getattr(build(Settings, {key: value}), key)
        assert found == made and type(found) is type(made)


class Outer:
    """Holds a config, as a command's file may."""

    @dataclass(frozen=True)
    class Config:
        """A config inside a class."""

        port: int = 1
        """The port of the inner one."""


def test_sentences_are_those_of_the_class_itself_wherever_it_is_defined() -> None:
    def made() -> type:
        @dataclass(frozen=True)
        class Config:
            """A config inside a function."""

            port: int = 2
            """The port of the local one."""

        return Config

    assert field_docs(Outer.Config) == {"port": "The port of the inner one."}
    assert field_docs(made()) == {"port": "The port of the local one."}
    assert [each.doc for each in settings_of(Outer.Config)] == ["The port of the inner one."]


@dataclass(frozen=True)
class Needs:
    """A config of which two settings have no default."""

    towards: str
    away_from: str
    layer: int = 8
    names: tuple[str, ...] = field(default_factory=tuple)


def test_settings_without_a_default_are_named_where_they_are_missing() -> None:
    with pytest.raises(ConfigError, match=r"steer needs --away-from: `steer --help`"):
        parse(Needs, ["--towards", "a"], prog="steer")
    with pytest.raises(ConfigError, match=r"needs.toml has no towards, away_from: a value is needed"):
        build(Needs, {"layer": 3}, source="needs.toml")
    assert build(Needs, {"towards": "a", "away_from": "b"}) == Needs("a", "b")
