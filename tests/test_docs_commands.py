"""Every `firsthand ...` of README.md and docs parses: its command, flags and values, and what a run names, exist.

Blocks that `test_docs` runs are among them; those that no test runs, and commands within sentences, are checked here alone.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from firsthand import catalog
from firsthand.commands.run import Config as RunConfig
from firsthand.config import convert, flag_of, given_values, settings_of
from firsthand.errors import ConfigError, FirsthandError, UnknownName
from firsthand.system.option_spec import parse_spec
from test_docs import PAGES, ROOT


def _command_lines(text: str) -> Iterator[str]:
    """Every `firsthand ...` of a page, in blocks that are not run and within sentences."""
    blocks = "\n".join(re.findall(r"```(?:text|bash).*?\n(.*?)```", text, flags=re.DOTALL))
    for line in re.sub(r"\\\n\s*", "", blocks).splitlines():
        if line.startswith("firsthand ") and not line.startswith("firsthand: "):
            for part in re.split(r" && | \| | ; ", re.sub(r"\s+# .*", "", line)):
                if part.startswith("firsthand "):
                    yield part
    yield from (
        " ".join(each.split())
        for each in re.findall(r"`(firsthand [a-z][^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    )


def _configs_of(words: list[str]) -> list[type] | None:
    """The dataclasses whose fields are a command's flags; None if no command has the name."""
    return _configs(words[0], tuple(each for each in words[1:] if not each.startswith("-"))[:1])


@cache
def _configs(name: str, rest: tuple[str, ...]) -> list[type] | None:
    if not catalog.is_ours("command", name):
        return None
    kinds = [importlib.import_module(f"firsthand.commands.{name}").Config]
    if name == "train" and rest and rest[0] == "doctor":
        kinds = [importlib.import_module("firsthand.commands.train").DoctorConfig]
    elif name == "train" and rest and catalog.is_ours("recipe", rest[0]):
        kinds.append(inspect.getmodule(catalog.find("recipe", rest[0])).Config)  # type: ignore[union-attr]
    elif name == "train":  # settings of the loop, after --resume
        kinds.append(importlib.import_module("firsthand.train.recipes.sft").Config)
    elif rest and rest[0] in getattr(importlib.import_module(f"firsthand.commands.{name}"), "subcommands", dict)():
        kinds = [importlib.import_module(f"firsthand.commands.{name}").subcommand(rest[0]).Config]
    return kinds


def _flags_of(words: list[str]) -> set[str] | None:
    """The flags that a command takes; None if no command has the name."""
    if (kinds := _configs_of(words)) is None:
        return None
    flags = {flag_of(each.field) for kind in kinds for each in settings_of(kind)}
    return {"--help", "--config"} | flags | {flag.replace("--", "--no-", 1) for flag in flags}


def _words(line: str) -> list[str]:
    return [word for word in shlex.split(line.split(" > ")[0])[1:] if word != "&"]


def _is_placeholder(value: str) -> bool:
    return "..." in value or bool(re.search(r"\b[A-Z]+\b|^$", value))


def wrong_values(words: list[str]) -> list[str]:
    """The flags with a value that the command would refuse: no number, or none of the words that it takes."""
    settings = {flag_of(each.field): each for kind in _configs_of(words) or () for each in settings_of(kind)}
    found = []
    for word, after in pairwise([*words, ""]):
        flag, equals, value = word.partition("=")
        value = value if equals else after
        if flag in settings and settings[flag].hint is not bool and not _is_placeholder(value):
            bare = "bare" in settings[flag].field.metadata
            try:
                convert(value, settings[flag].hint, flag)
            except ConfigError as error:
                found += [] if bare else [str(error)]
    return found


def unknown_names(words: list[str]) -> list[str]:
    """The benchmarks, patterns, tools, guards and memories of a `run` that do not exist, or not with these options."""
    if any("..." in word for word in words) or "--help" in words:
        return []
    if "--config" in words:
        at = words.index("--config")
        words = words[:at] + words[at + 2 :]
    try:
        given = given_values(RunConfig, words[1:], prog="run")
    except FirsthandError as error:
        return [] if "expected one argument" in str(error) else [str(error)]  # a flag that a sentence names alone
    found = []
    for kind, key in (
        ("benchmark", "benchmarks"), ("pattern", "pattern"), ("tool", "tools"), ("guard", "guard"), ("memory", "memory"),
    ):  # fmt: skip
        texts = given.get(key, [])
        for text in [texts] if isinstance(texts, str) else texts:
            name = parse_spec(text).name
            if _is_placeholder(name) or re.search(r"\.(py|toml)\b", text) or (kind, name) == ("tool", "none"):
                continue
            try:
                found += _unknown(kind, text)
            except UnknownName as error:
                found.append(str(error))
            except ConfigError as error:
                found += [str(error)] if kind == "pattern" and " option " in str(error) else []
    return found


def _unknown(kind: Any, text: str) -> list[str]:
    spec = parse_spec(text)
    name, at, protocol = spec.name.partition("@")
    name = name.partition(":")[0]
    if kind == "pattern":
        catalog.pattern(text)
        return []
    if not catalog.is_ours(kind, name):
        return [f"no {kind} {name!r}"]
    if kind != "benchmark":
        return []
    taken = {*catalog.options("benchmark", name)} - {"protocol"}
    wrong = [] if not at or protocol in catalog.protocols(name) else [f"{name} has no protocol {protocol!r}"]
    return wrong + [f"{name} has no option {each!r}" for each in spec.options if taken and each not in taken]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_names_has_the_flags_that_it_gives(page: str) -> None:
    for line in _command_lines((ROOT / page).read_text(encoding="utf-8")):
        words = re.findall(r"[^\s'\"]+|'[^']*'|\"[^\"]*\"", line)[1:]
        if not re.fullmatch(r"[a-z]+", words[0]):
            continue
        flags = _flags_of(words)
        assert flags is not None, f"{page}: there is no command {words[0]!r}: {line}"
        for word in words[1:]:
            if re.match(r"--[a-z]", word):
                assert word.partition("=")[0].rstrip(".,;:)") in flags, f"{page}: {line}"


def test_a_flag_that_is_gone_is_noticed() -> None:
    assert list(_command_lines("Try `firsthand run A --limit 1`.\n```text\nfirsthand show last   # x\n```\n")) == [
        "firsthand show last", "firsthand run A --limit 1",
    ]  # fmt: skip
    assert _flags_of(["nothing"]) is None and "--oout" not in (_flags_of(["train", "sft"]) or ())


REFUSED = {"arc_easy@olmes_rc", "cot:shot=3", "direct(cot)"}
"""Names that a page shows to be refused."""


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_the_commands_of_a_page_name_exists_and_their_values_are_taken(page: str) -> None:
    for line in _command_lines((ROOT / page).read_text(encoding="utf-8")):
        words = _words(line)
        if not words or not re.fullmatch(r"[a-z]+", words[0]):
            continue
        assert not wrong_values(words), f"{page}: {line}"
        if words[0] == "run" and not REFUSED & set(words):
            assert not unknown_names(words), f"{page}: {line}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run arithmetik", "no benchmark 'arithmetik'"), ("run arithmetic:level=1", "arithmetic has no option 'level'"),
        ("run gsm8k@nope", "gsm8k has no protocol 'nope'"), ("run arithmetic --pattern cott", "no pattern 'cott'"),
        ("run arithmetic --pattern cot:shot=3", "cot has no option 'shot'"), ("run a --tools calcul", "no tool 'calcul'"),
        ("run arithmetic --guard redakt:pattern=x", "no guard 'redakt'"),
        ("run arithmetic --memory note", "no memory 'note'"),
    ],
)  # fmt: skip
def test_a_name_that_is_gone_is_noticed(line: str, said: str) -> None:
    assert any(each.startswith(said) for each in unknown_names(line.split()))


def test_a_value_that_is_refused_is_noticed() -> None:
    assert wrong_values(["run", "A", "--limit=few"]) == ["--limit is 'few': a whole number was expected"]
    assert wrong_values(["data", "last", "--as", "foo"])
    assert not wrong_values(["run", "A", "--limit", "N", "--equal-budget", "--seed", "1"])
