"""Reads configs, frozen dataclasses beside their users, from flags and TOML.

A field is a flag: `budget_tokens` is `--budget-tokens`, its default is the flag's default, and the sentence under it is the
flag's help. A field that is itself such a dataclass adds its fields as flags, which may be dotted (`optimizer.lr=3e-4`) and
stand in a table of its name in TOML. A field with `metadata={"positional": True}`
takes the words without a flag, which may stand before, between and after flags; with `metadata={"bare": value}` its flag may
stand alone and then means `value`. A flag for several words takes them between commas, or is given several times; with
`metadata={"repeated": True}` each time is one word, commas and all. The word after a flag that needs
a value is its value even if it begins with a dash, unless it is itself a flag. Unknown flags and keys are errors that name
the nearest one there is.
"""

from __future__ import annotations

import argparse
import ast
import copy
import dataclasses
import inspect
import math
import re
import textwrap
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from firsthand.errors import ConfigError, nearest, reason_of
from firsthand.system.bounded_toml import read_toml_file
from firsthand.system.help_formatter import EXAMPLES, HelpFormatter

C = TypeVar("C")
LARGEST_INT = 2**63 - 1
"""The largest whole number that a setting may have: what SQLite stores."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ConfigError."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError with the message that argparse would print."""
        raise ConfigError(f"{message}; `{self.prog} --help` shows what it takes")


def parse(config_class: type[C], argv: Sequence[str], *, prog: str, description: str = "", examples: str = "") -> C:
    """The config described by a command line; `--config FILE.toml` gives defaults that flags override."""
    values = given_values(config_class, argv, prog=prog, description=description, examples=examples)
    if missing := _without_value(config_class, values):
        raise ConfigError(f"{prog} needs {', '.join(map(flag_of, missing))}: `{prog} --help` shows what it takes")
    made = build(config_class, values)
    object.__setattr__(made, _GIVEN, frozenset(values))
    return made


_GIVEN = "_given"


def given_in(config: Any) -> frozenset[str]:
    """The settings that the command line or file of a parsed config gives, at their defaults too.

    Of a config that was made otherwise: those that differ from their defaults.
    """
    if (given := getattr(config, _GIVEN, None)) is not None:
        return frozenset(given)
    found, made = settings_of(type(config)), _default_parts(type(config))
    own = (each.field for each in found if each.part is None and each.field.default_factory is dataclasses.MISSING)
    given = {field.name for field in own if getattr(config, field.name) != field.default}
    parts = ((each.field.name, each.part) for each in found if each.part in made)
    given |= {name for name, part in parts if getattr(getattr(config, part), name) != getattr(made[part], name)}
    return frozenset(given)


def refuse_given(config: Any, names: Iterable[str], reason: str) -> None:
    """ConfigError with a reason if any of these settings was given, since it would have no effect."""
    flags = {each.field.name: flag_of(each.field) for each in settings_of(type(config))}
    if given := [flags[name] for name in flags if name in {*names} & given_in(config)]:
        raise ConfigError(f"{' and '.join(given)}: {reason}")


def given_values(
    config_class: type[Any], argv: Sequence[str], *, prog: str, description: str = "", examples: str = ""
) -> dict[str, Any]:
    """The settings that a command line gives, its `--config` file included, without those left to their defaults."""
    parser = make_parser(config_class, prog=prog, description=description, examples=examples)
    flags = {flag: action for action in parser._actions for flag in action.option_strings}
    written, argv = argv, [_without_part(word, config_class) for word in argv]
    end = list(argv).index("--") if "--" in argv else len(argv)
    kinds: dict[bool, set[str]] = {True: set(), False: set()}  # a flag that comes again in one form is the last one
    for before, word in zip(written[:end], argv, strict=False):
        kinds[before == word].add(word.partition("=")[0])
    if twice := kinds[True] & kinds[False]:
        raise ConfigError(f"{min(twice)} is given twice, by itself and with a dot: give it once")
    no_flags = argv[
        end + 1 :
    ]  # argparse forgets the dashes between its two passes, so these words stand in as NUL + word
    words = _with_values_joined(argv[:end], flags) + [f"\0{word}" for word in no_flags]
    known, surplus = parser.parse_known_intermixed_args(words)
    if surplus:
        surplus = [word.removeprefix("\0") for word in surplus]
        flag = surplus[0].split("=")[0]
        if elsewhere := getattr(config_class, "ELSEWHERE", {}).get(flag):
            raise ConfigError(f"{prog} does not take {flag}: {elsewhere}")
        close = nearest(flag.lstrip("-"), [each.lstrip("-") for each in flags if each.startswith("--")])
        hint = f" did you mean --{close}?" if close and surplus[0].startswith("-") else ""
        raise ConfigError(f"{prog} does not take {surplus[0]!r};{hint} `{prog} --help` shows what it takes")
    given = {name: _plain(value) for name, value in vars(known).items() if value not in (None, [])}
    for each in settings_of(config_class):
        if _is_list(each) and each.field.name in given:
            given[each.field.name] = [word for text in given[each.field.name] for word in split_list(text)]
        values = given.get(each.field.name)
        if isinstance(values, list) and each.field.default != () and not any(value.strip() for value in values):
            raise ConfigError(f"{each.field.name} is empty: `{prog} --help` shows what it takes")
    path = given.pop("config", None)
    from_file = read_toml(config_class, path) if path else {}
    _expect_known(config_class, from_file, path or "")
    return {**from_file, **given}


_DOTTED = re.compile(r"(--)?([a-z]\w*)\.([a-z][\w-]*)(=.*)?", re.DOTALL)


def _without_part(word: str, config_class: type[Any]) -> str:
    """The flag that a dotted word means: `--lr=3e-4` for `optimizer.lr=3e-4` and `--optimizer.lr=3e-4`.

    Words of another form, or about no dataclass of the config, stay as they are. ConfigError for an unknown setting.
    """
    found = _DOTTED.fullmatch(word)
    parts = {each.part for each in settings_of(config_class)} - {None}
    if found is None or found[2] not in parts or not (found[1] or found[4]):
        return word
    fields = {flag_of(each.field): each for each in settings_of(config_class) if each.part == found[2]}
    flag, value = "--" + found[3].replace("_", "-"), found[4] or ""
    if flag not in fields:
        close = nearest(flag, fields)
        hint = f"did you mean {close[2:]!r}?" if close else f"it takes {', '.join(each[2:] for each in fields)}"
        raise ConfigError(f"{found[2]} has no setting {found[3]!r}; {hint}")
    if fields[flag].hint is bool and value in ("=true", "=false"):
        return flag if value == "=true" else f"--no-{flag[2:]}"
    return flag + value


def _plain(value: Any) -> Any:
    """A value of argparse without the mark of words that followed `--`."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.removeprefix("\0") if isinstance(value, str) else value


def _is_list(setting: ConfigField) -> bool:
    """True if the flag takes words between commas."""
    kinds = typing.get_args(setting.hint) if _is_union(setting.hint) else (setting.hint,)
    is_tuple = any(typing.get_origin(kind) is tuple for kind in kinds)
    return is_tuple and not (setting.field.metadata.get("positional") or setting.field.metadata.get("repeated"))


def flag_of(field: dataclasses.Field[Any]) -> str:
    """The flag of a field: `--with` for `with_`, a keyword of Python."""
    return "--" + field.name.rstrip("_").replace("_", "-")


def _with_values_joined(argv: Sequence[str], flags: Mapping[str, argparse.Action]) -> list[str]:
    """The words, with `--flag=VALUE` for a flag and a value that begins with a dash, which argparse takes for a flag."""
    words: list[str] = []
    for word in argv:
        before = flags.get(words[-1]) if words else None
        needs_value = before is not None and before.nargs is None
        if needs_value and word.startswith("-") and word.partition("=")[0] not in flags:
            words[-1] = f"{words[-1]}={word}"
        else:
            words.append(word)
    return words


def make_parser(config_class: type[Any], *, prog: str, description: str = "", examples: str = "") -> Parser:
    """A parser with a flag for each field of the dataclass."""
    epilog = f"{EXAMPLES}{textwrap.indent(examples.strip(), '  ')}" if examples else None
    parser = Parser(
        prog=prog, description=description, epilog=epilog, allow_abbrev=False, formatter_class=HelpFormatter
    )
    for each in settings_of(config_class):
        _add_flag(parser, each.field, each.hint, each.doc)
    parser.add_argument("--config", metavar="FILE", help="A TOML file with any of these settings; flags override it.")
    return parser


def build(config_class: type[C], values: Mapping[str, Any], *, source: str = "") -> C:
    """The dataclass with these values, converted to its fields' types. A ConfigError names the `source` of the values."""
    _expect_known(config_class, values, source)
    if missing := _without_value(config_class, values):
        names = ", ".join(field.name for field in missing)
        raise ConfigError(f"{source or config_class.__name__} has no {names}: a value is needed")
    try:
        return _build(config_class, values)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") if source else error from None


def _build(config_class: type[C], values: Mapping[str, Any]) -> C:
    known = {each.field.name: each for each in settings_of(config_class)}
    own: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        part = known[key].part
        (own if part is None else parts.setdefault(part, {}))[key] = convert(value, known[key].hint, key)
    hints, made = typing.get_type_hints(config_class), _default_parts(config_class)
    built = {
        part: dataclasses.replace(made[part], **given) if part in made else hints[part](**given)
        for part, given in parts.items()
    }
    return config_class(**own, **built)


def _without_value(config_class: type[Any], values: Mapping[str, Any]) -> list[dataclasses.Field[Any]]:
    """The fields that have no default, and no value here."""
    own = [each.field for each in settings_of(config_class) if each.part is None and each.field.name not in values]
    nothing = dataclasses.MISSING
    return [field for field in own if field.default is nothing and field.default_factory is nothing]


def _expect_known(config_class: type[Any], values: Mapping[str, Any], source: str = "") -> None:
    """ConfigError, which names the `source` of the values, for a name that the config does not have."""
    known = [each.field.name for each in settings_of(config_class)]
    for key in values:
        if key not in known:
            close = nearest(key, known)
            hint = f" did you mean {close!r}?" if close else f" it takes {', '.join(known)}"
            raise ConfigError(f"{source or config_class.__name__} has no setting {key!r};{hint}")


def _default_parts(config_class: type[Any]) -> dict[str, Any]:
    """The dataclasses that are default values of a config's fields."""
    return {
        field.name: field.default_factory()
        for field in dataclasses.fields(config_class)
        if field.default_factory is not dataclasses.MISSING and dataclasses.is_dataclass(field.default_factory())
    }


class ConfigField(NamedTuple):
    """A field of a config, or of a dataclass that is a field of it."""

    field: dataclasses.Field[Any]
    hint: Any
    doc: str
    part: str | None = None
    """The config's field whose dataclass it belongs to; None for a field of the config itself."""


_settings: dict[type[Any], tuple[ConfigField, ...]] = {}
"""The settings that were read, for reading them takes some milliseconds: a class's sentences are in its source."""


def settings_of(config_class: type[Any]) -> tuple[ConfigField, ...]:
    """The settings of a config in their order, those of its dataclasses among them."""
    if config_class not in _settings:
        _settings[config_class] = _read_settings(config_class)
    return _settings[config_class]


def _read_settings(config_class: type[Any]) -> tuple[ConfigField, ...]:
    hints, docs = typing.get_type_hints(config_class), field_docs(config_class)
    found: list[ConfigField] = []
    made = _default_parts(config_class)
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            for each in settings_of(hint):
                inner = copy.copy(each.field)
                if field.name in made:
                    inner.default = getattr(made[field.name], inner.name)
                found.append(each._replace(field=inner, part=field.name))
        else:
            found.append(ConfigField(field, hint, docs.get(field.name, "")))
    return tuple(found)


def read_toml(config_class: type[Any], path: str | Path) -> dict[str, Any]:
    """The settings in a TOML file; dashes in names are read as underscores. ConfigError if it cannot be read."""
    try:
        body = read_toml_file(Path(path))
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path)!r} is not valid TOML: {reason_of(error)}") from None
    return flat_settings(config_class, body)


def flat_settings(config_class: type[Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their own names, out of a mapping in which those of a part may stand in a mapping of its name.

    ConfigError for one that is given twice.
    """
    parts = {each.part for each in settings_of(config_class)} - {None}
    flat: dict[str, Any] = {}
    for key, value in body.items():
        is_part = key in parts and isinstance(value, dict)
        for written, each in (value if is_part else {key: value}).items():
            name = written.replace("-", "_")
            if name in flat:
                raise ConfigError(f"{name} is given twice: give it once")
            flat[name] = each
    return flat


def convert(value: Any, hint: Any, name: str) -> Any:
    """`value` converted to `hint`: str, int, float, bool, Path, a Literal, a tuple of str, or any of those or None."""
    options = [each for each in typing.get_args(hint) if each is not type(None)] if _is_union(hint) else [hint]
    name = name.rstrip("_")  # of a field that is named like a keyword
    if value is None and len(options) < len(typing.get_args(hint)):
        return None
    kind = options[0]
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, str | list | tuple):
            raise ConfigError(f"{name} is {value!r}: a list of words was expected")
        items = split_list(value) if isinstance(value, str) else value
        return tuple(str(item).strip() for item in items if str(item).strip())
    if typing.get_origin(kind) is typing.Literal:
        if value not in typing.get_args(kind):
            known = ", ".join(str(each) for each in typing.get_args(kind) if each != "")
            raise ConfigError(f"{name} is {value!r}: one of {known} was expected")
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{name} is {value!r}: true or false was expected")
        return value
    if kind is str and (isinstance(value, bool) or not isinstance(value, str | int | float)):
        raise ConfigError(f"{name} is {_cut(str(value))}: a text was expected")
    try:
        if kind is int and (isinstance(value, bool) or (isinstance(value, float) and not value.is_integer())):
            raise ValueError
        converted = kind(value)
    except (TypeError, ValueError, OverflowError):
        expected = {int: "a whole number", float: "a number"}.get(kind, f"a {getattr(kind, '__name__', kind)}")
        raise ConfigError(f"{name} is {value!r}: {expected} was expected") from None
    if kind is int and abs(converted) > LARGEST_INT:
        raise ConfigError(f"{name} is {_cut(str(value))}: at most {LARGEST_INT:,} is taken")
    return converted


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"


def split_list(text: str) -> list[str]:
    """The words between commas outside parentheses: `route(direct,react),cot` is two words.

    A parenthesis that is never closed is an ordinary character.
    """
    words, depth = [""], 0
    for char in text:
        depth = max(0, depth + {"(": 1, ")": -1}.get(char, 0))
        if char == "," and depth == 0:
            words.append("")
        else:
            words[-1] += char
    return words if depth == 0 else text.split(",")


def field_docs(config_class: type[Any]) -> dict[str, str]:
    """Field -> the sentence under it, read from the source of the dataclass and of those it inherits from."""
    docs: dict[str, str] = {}
    for each in reversed([base for base in config_class.__mro__ if dataclasses.is_dataclass(base)]):
        definition = _classes_in(inspect.getsourcefile(each) or "")[each.__qualname__]
        for field, after in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
                docs[field.target.id] = " ".join(str(ast.literal_eval(after.value)).split())
    return docs


@cache
def _classes_in(file: str) -> dict[str, ast.ClassDef]:
    """Qualified name -> definition, of the classes in a source file. inspect would read the file again for each class."""
    found: dict[str, ast.ClassDef] = {}

    def walk(node: ast.AST, place: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                found[place + child.name] = child
                walk(child, f"{place}{child.name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                walk(child, f"{place}{child.name}.<locals>.")
            else:
                walk(child, place)

    walk(ast.parse(Path(file).read_bytes()), "")
    return found


def share(text: str, name: str) -> float:
    """The fraction written as `2%` or `0.02`; `name` is for the ConfigError."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{name} is {text!r}: a fraction was expected, such as 2% or 0.02")
    return value


def confidence(text: str) -> float:
    """The confidence level written as `95%` or `0.95`, from 0.5 to below 1."""
    value = share(text, "confidence")
    if not 0.5 <= value < 1:
        raise ConfigError(f"confidence is {text!r}: give a level from 50% to below 100%, such as 95%")
    return value


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _add_flag(parser: Parser, field: dataclasses.Field[Any], hint: Any, doc: str) -> None:
    inner = next((each for each in typing.get_args(hint) if each is not type(None)), hint) if _is_union(hint) else hint
    flag = flag_of(field)
    default = None if field.default is dataclasses.MISSING else field.default
    shown = ",".join(default) if isinstance(default, tuple) else default
    help_text = doc if shown in (None, "", False) else f"{doc} [default: {shown}]"
    help_text = help_text.replace("%", "%%")
    if field.metadata.get("positional"):
        many = typing.get_origin(inner) is tuple
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        nargs = ("+" if needed else "*") if many else (None if needed else "?")
        parser.add_argument(field.name, nargs=nargs, metavar=field.name.upper(), help=help_text)
    elif inner is bool:
        parser.add_argument(flag, dest=field.name, action=argparse.BooleanOptionalAction, default=None, help=help_text)
    elif typing.get_origin(inner) is tuple:
        metavar = "TEXT" if field.metadata.get("repeated") else "A,B"
        parser.add_argument(flag, dest=field.name, metavar=metavar, action="append", default=None, help=help_text)
    else:
        names = typing.get_args(inner) if typing.get_origin(inner) is typing.Literal else None
        bare = field.metadata.get("bare")
        metavar = "{" + ",".join(str(each) for each in names if each != "") + "}" if names else _metavar(inner)
        nargs = "?" if bare else None
        parser.add_argument(
            flag, dest=field.name, metavar=metavar, nargs=nargs, const=bare, default=None, help=help_text
        )


def _metavar(kind: Any) -> str:
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")
