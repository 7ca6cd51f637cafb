"""Finds patterns, benchmarks, tools and models by name: the pattern `react` is the function `react` in `patterns/react.py`.

Outside names come from entry points of installed packages (groups `firsthand.patterns`, `.benchmarks`, `.tools`) and from
files, named by path: `my_pattern.py` or `my_pattern.py:other_name`. Options follow a name (see `option_spec`); a benchmark
may name its protocol, `mmlu@cloze`, and a tool its arguments, `files:notes`. Nothing is imported before it is used, not even
for listings.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from firsthand.agent import Pattern
from firsthand.benchmark import Benchmark, Scorer
from firsthand.errors import ConfigError, UnknownName, unknown
from firsthand.guard import BORDERS, Guard, check_guard
from firsthand.memory import Memory, check_memory
from firsthand.model import Model
from firsthand.system.address_secrets import with_secrets, without_secrets
from firsthand.system.hosted_models import name_hint, provider_hint
from firsthand.system.option_spec import Spec, bind_options, keywords_of, parse_spec
from firsthand.system.own_module import MAX_SOURCE_BYTES, load_module
from firsthand.system.source_definitions import constants, defined, description, first_text, keyword_defaults
from firsthand.tool import Effect, Tool
from firsthand.tool_source import ToolLike

Kind = Literal["pattern", "benchmark", "tool", "guard", "memory", "provider", "command", "recipe"]
_ROOMS: dict[Kind, str] = {
    "pattern": "patterns",
    "benchmark": "benchmarks",
    "tool": "tools",
    "guard": "safety",
    "memory": "memories",
    "provider": "providers",
    "command": "commands",
    "recipe": "train/recipes",
}
_FURTHER: dict[Kind, tuple[str, ...]] = {
    "pattern": ("retrieval/rag",),
    "tool": ("retrieval/tools", "tools/mcp", "messaging/tools"),
}
"""Folders of other rooms that hold things of that kind."""


def names(kind: Kind) -> dict[str, str]:
    """Known names of a kind -> one-line description, read without importing anything."""
    ours = {path.stem: _description(kind, path) for path in _files(kind)}
    found = {name: line for name, line in ours.items() if line is not None}
    for entry in _installed(kind):
        found.setdefault(entry.name, f"from {entry.value}")
    return found


def is_ours(kind: Kind, name: str) -> bool:
    """True if a file of this package defines that name; reads no other file."""
    path = _file(kind, name)
    return path is not None and _description(kind, path) is not None


def _description(kind: Kind, path: Path) -> str | None:
    """The first docstring line of a file that defines a thing of that kind; None if it defines none."""
    return description(path, {"provider": "open_model", "command": "main"}.get(kind, path.stem))


def _files(kind: Kind) -> list[Path]:
    """The files that may define a thing of that kind, by name."""
    folders = (_ROOMS[kind], *_FURTHER.get(kind, ()))
    found = (path for folder in folders for path in (Path(__file__).parent / folder).glob("[a-z]*.py"))
    return sorted(found, key=lambda path: path.stem)


def _file(kind: Kind, name: str) -> Path | None:
    """The file of this package that is named for that thing; None if there is none."""
    if not name.isidentifier() or name.startswith("_"):
        return None
    places = (Path(__file__).parent / folder / f"{name}.py" for folder in (_ROOMS[kind], *_FURTHER.get(kind, ())))
    return next((path for path in places if _exists(path)), None)


def _installed(kind: Kind) -> EntryPoints:
    """Entry points of a kind in installed packages."""
    group = f"firsthand.{_ROOMS[kind].replace('/', '.')}"
    found: EntryPoints = _entry_points(tuple(sys.path)).select(group=group)
    return found


@cache
def _entry_points(search_path: tuple[str, ...]) -> Any:  # its type differs between versions of Python
    """All entry points on a search path, cached because a lookup reads a file of each package."""
    found: Any = entry_points()  # before Python 3.12 of another type with the same `select`
    return cast(EntryPoints, found)


def find(kind: Kind, name: str) -> Any:
    """The object of that name from this package, an installed package, or a file; UnknownName if there is none."""
    if ".py" in name:
        return from_file(kind, name)
    if (file := _file(kind, name)) is not None:
        module = ".".join(file.relative_to(Path(__file__).parent.parent).with_suffix("").parts)
        thing = getattr(importlib.import_module(module), name, None)
        if thing is not None:
            return thing
    for entry in _installed(kind):
        if entry.name == name:
            return entry.load()
    see = {"guard": "firsthand list guards", "recipe": "firsthand train --help"}
    raise unknown(kind, name, names(kind), see=see.get(kind, f"firsthand list {_ROOMS[kind]}"))


def has_module_attribute(kind: Kind, name: str, attribute: str) -> bool:
    """True if the module of the object of that name has the attribute."""
    return hasattr(sys.modules[find(kind, name).__module__], attribute)


def module_attribute(kind: Kind, name: str, attribute: str) -> Any:
    """The module attribute beside the object of that name, such as a benchmark's `thoughts`."""
    module = sys.modules[find(kind, name).__module__]
    if not has_module_attribute(kind, name, attribute):
        raise ConfigError(f"the {kind} {name!r} has no {attribute!r} in its module: define it in {module.__file__}")
    return getattr(module, attribute)


def pattern(text: str) -> tuple[Pattern, dict[str, Any]]:
    """The pattern that a text names, and its options, converted to the types of the pattern's keywords.

    Inner patterns of a composed one are bound to it already.
    """
    return _pattern(parse_spec(with_secrets(text)))


def _pattern(spec: Spec) -> tuple[Pattern, dict[str, Any]]:
    function = find("pattern", spec.name)
    if not callable(function):
        raise ConfigError(f"{spec.name!r} is a {type(function).__name__}: write it as async def name(task, ctx) -> str")
    if misplaced := [value for value in spec.options.values() if value.endswith(")") and "(" in value]:
        raise ConfigError(
            f"{misplaced[0]!r} is given as an option: options follow the parentheses, as in name(pattern):key=value"
        )
    _check_is_pattern(spec.name, function)
    options = bind_options(spec, function)
    if not spec.parts:
        return function, options
    parts = tuple(partial(part, **given) if given else part for part, given in map(_pattern, spec.parts))
    keywords = keywords_of(function)
    if "patterns" in keywords:
        return partial(function, patterns=parts), options
    if "pattern" not in keywords:
        raise ConfigError(f"{spec.name} leads no other pattern: write {spec.name} alone, without parentheses")
    if len(parts) > 1:
        raise ConfigError(f"{spec.name} leads one pattern and was given {len(parts)}: name one between the parentheses")
    return partial(function, pattern=parts[0]), options


def _check_is_pattern(name: str, function: Any) -> None:
    """Refuse what would fail in every attempt: a function that is not async, or that takes no task and context.

    A function may give back the coroutine of another: one that states no type, or that of a coroutine, is believed.
    """
    if not inspect.isfunction(function):
        return
    returned = str(function.__annotations__.get("return", "Any"))
    may_wait = any(each in returned for each in ("Any", "Awaitable", "Coroutine", "Future", "Task"))
    if not (may_wait or inspect.iscoroutinefunction(inspect.unwrap(function))):
        raise ConfigError(f"the pattern {name} is no async function: write it as async def name(task, ctx) -> str")
    try:
        inspect.signature(function).bind_partial(None, None)
    except TypeError:
        raise ConfigError(
            f"the pattern {name} does not take a task and a context: write it as async def name(task, ctx) -> str"
        ) from None


@cache
def protocols(name: str) -> Mapping[str, str]:
    """Protocols of one of this package's benchmarks -> the source of the number each reproduces, the default first."""
    path = Path(__file__).parent / _ROOMS["benchmark"] / f"{name}.py"
    if not path.is_file():
        return {}
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
        if "PROTOCOLS" in defined(statement) and isinstance(value, ast.Dict):
            keys = [key.value for key in value.keys if isinstance(key, ast.Constant)]
            texts = {str(key): first_text(call) for key, call in zip(keys, value.values, strict=True)}
            return MappingProxyType(texts)
    return {}


def benchmark(text: str) -> Benchmark:
    """The benchmark a text names, under the protocol it names, made with the options it gives."""
    spec = parse_spec(with_secrets(text))
    if spec.parts:
        raise ConfigError(f"{text!r} has parentheses, and a benchmark leads no pattern: name patterns with --pattern")
    name, at, protocol = spec.name.rpartition("@")
    if at and not {"/", "."} & set(protocol) and not _exists(Path(spec.name)):
        spec = Spec(name, {**spec.options, "protocol": protocol})
    if spec.name.endswith(".toml"):
        read = importlib.import_module("firsthand.benchmarks.sources.own").read_benchmark
        described: Benchmark = read(Path(spec.name), **bind_options(spec, read))
        return described
    if (
        at
        and "protocol" in spec.options
        and is_ours("benchmark", name)
        and "protocol" not in options("benchmark", name)
    ):
        raise ConfigError(f"{name} has no protocols: leave @{protocol} out")
    if Path(spec.name).suffix in (".csv", ".tsv", ".jsonl", ".json", ".parquet") and _exists(Path(spec.name)):
        raise ConfigError(
            f"{spec.name} is a table: describe it in a TOML file with data, prompt, target and scorer, and run that "
            "(docs/benchmarks.md, a benchmark of your own)"
        )
    factory = find("benchmark", spec.name)
    made = factory(**bind_options(spec, factory)) if callable(factory) else factory
    if not isinstance(made, Benchmark):
        raise ConfigError(f"{spec.name!r} gives a {type(made).__name__}: write it as def name() -> Benchmark")
    return made


def guards(texts: Sequence[str]) -> tuple[Guard, ...]:
    """The guards that texts name, such as `redact:pattern=SECRET:borders=prompt+result`, or FILE.py with options.

    A list of borders may have been split at its commas: a border's name goes on the list before it. So does what closes
    a brace or bracket of a pattern, as in `\\d{3,5}`.
    """
    whole: list[str] = []
    for text in texts:
        if text in BORDERS and whole:
            whole[-1] += f"+{text}"
        elif whole and _splits_pattern(whole[-1], text):
            whole[-1] += f",{text}"
        else:
            whole.append(text)
    return tuple(map(_guard, whole))


def _splits_pattern(before: str, text: str) -> bool:
    """True if the comma between both stands in the braces of a repetition or in a class of characters."""
    if re.search(r"\{\d{0,9}$", before):
        return re.match(r"\d{0,9}\}", text) is not None
    return "[" in before.rpartition("]")[2].replace("\\[", "") and "]" in text


def _guard(text: str) -> Guard:
    made = _made("guard", text)
    check_guard(made)
    guard: Guard = made
    return guard


def memory(text: str) -> Memory:
    """The memory that a text names, such as `notes`, `notes:lifetime=run` or `semantic:facts.db:owner=ann`: a new one."""
    spec = parse_spec(with_secrets(text))
    parts = re.fullmatch(r"(.*?\.py(?::\w+)?|[^:]*)(?::(.*))?", spec.name, re.DOTALL)
    assert parts is not None
    made = find("memory", parts[1])
    given = [parts[2]] if parts[2] else []
    if callable(made):
        keyed = [p for p in inspect.signature(made).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        if len(given) > len(keyed):
            raise ConfigError(f"{text!r} gives {parts[1]} a file, and it keeps none: write {parts[1]}")
        bound = bind_options(spec, made, led=())
        lacking = [p.name for p in keyed[len(given) :] if p.default is p.empty and p.name not in bound]
        if lacking and not given:
            raise ConfigError(f"{text!r} gives no {lacking[0]}: write {parts[1]}:{lacking[0].upper()}")
        if lacking:
            raise ConfigError(f"{text!r} gives no {lacking[0]}: give it a default, for a text names one argument")
        made = made(*given, **bound)
    elif given or spec.options:
        raise ConfigError(f"{text!r} gives {parts[1]} options, and it takes none: write {parts[1]}")
    check_memory(made)
    found: Memory = made
    return found


def _made(kind: Kind, text: str) -> Any:
    """Call the function or class of that name with the text's options; return any other object unchanged."""
    spec = parse_spec(with_secrets(text))
    found = find(kind, spec.name)
    if callable(found):
        return found(**bind_options(spec, found, led=()))
    if spec.options:
        raise ConfigError(f"{text!r} gives {spec.name} options, and it takes none: write {spec.name}")
    return found


def tool(text: str) -> Tool:
    """The tool that a text names; ConfigError if it names several."""
    found = tools(text)
    if len(found) != 1:
        raise ConfigError(
            f"{text!r} names {len(found)} tools, {', '.join(each.name for each in found)}: one was expected"
        )
    return found[0]


def options(kind: Literal["pattern", "benchmark"], name: str) -> dict[str, str]:
    """Option -> its default as text, `...` for one without. Nothing of ours is imported; what is installed is."""
    path = _file(kind, name)
    if path is None or not is_ours(kind, name):
        keyed = [
            each for each in inspect.signature(find(kind, name)).parameters.values() if each.kind is each.KEYWORD_ONLY
        ]
        return {each.name: "..." if each.default is each.empty else str(each.default) for each in keyed}
    return dict(keyword_defaults(path, name))


def tools(text: str) -> tuple[Tool, ...]:
    """The tools that a text names: `calculator` is one; `files:notes:write=true` calls `files("notes", write=True)`.

    ConfigError for `mcp:SERVER`: its tools are known once it is opened, so `tools_and_sources` gives a source of them.
    """
    if text.partition(":")[0] == "mcp":
        raise ConfigError(
            f"{without_secrets(text)!r} names MCP servers, which are opened for attempts, and here is none: leave it out"
        )
    spec = parse_spec(with_secrets(text))
    parts = re.fullmatch(r"(.*?\.py(?::\w+)?|[^:]*)(?::(.*))?", spec.name, re.DOTALL)
    assert parts is not None
    found = find("tool", parts[1])
    given = [parts[2]] if parts[2] else []
    if isinstance(found, Tool):
        if given or spec.options:
            raise ConfigError(f"{text!r} gives {found.name} options, and it takes none: write {parts[1]}")
        return (found,)
    made: Any = None
    if callable(found):
        keyed = [p for p in inspect.signature(found).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        needed = [p.name for p in keyed if p.default is p.empty]
        if not len(needed) <= len(given) <= len(keyed):
            form = ":".join([parts[1], *(p.name.upper() for p in keyed)])
            own = ", or decorate the function with @tool(effect=...)" if ".py" in parts[1] else ""
            raise ConfigError(f"{text!r} gives {', '.join(given) or 'nothing'}: write {form}{own}")
        made = found(*given, **bind_options(spec, found))
    made = (made,) if isinstance(made, Tool) else tuple(made) if isinstance(made, list) else made
    if not (isinstance(made, tuple) and made and all(isinstance(each, Tool) for each in made)):
        kind = type(found if made is None else made).__name__
        raise ConfigError(f"{text!r} is a {kind}: decorate a function with @tool(effect=...), or return such tools")
    return made


def tools_and_sources(text: str) -> tuple[ToolLike, ...]:
    """The tools that a text names, or the sources of tools of the servers of `mcp:SERVER`."""
    name = text.partition(":")[0]
    if name != "mcp":
        return tools(text)
    found: tuple[ToolLike, ...] = find("tool", name)(with_secrets(text).partition(":")[2])
    return found


@cache
def tool_forms() -> Mapping[str, tuple[str, str]]:
    """Tool -> how it is written, required arguments included, and its declared effects; nothing is imported."""
    found: dict[str, tuple[str, str]] = {}
    for path in _files("tool"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for made in tree.body:
            if isinstance(made, ast.FunctionDef | ast.AsyncFunctionDef) and made.name == path.stem:
                is_tool = bool(made.decorator_list)
                needed = made.args.args[: len(made.args.args) - len(made.args.defaults)]
                form = made.name if is_tool else ":".join([made.name, *(each.arg.upper() for each in needed)])
                found[path.stem] = (form, ", ".join(_effects(tree)) or "as declared")
    return MappingProxyType(found)


def _effects(tree: ast.AST) -> list[str]:
    """The declared effects of a file's tools, the mildest first."""
    named = constants(tree, "effect")
    return [effect for effect in typing.get_args(Effect) if effect in named]


@cache  # the package's files stay as they are while it runs
def scorers() -> Mapping[str, tuple[str, str]]:
    """Scorer -> its module in `scorers/` and its one-line description, read without importing.

    A scorer is a function of (task, trace) that returns a Score, or of options alone that returns a Scorer.
    """
    found: dict[str, tuple[str, str]] = {}
    for path in sorted((Path(__file__).parent / "scorers").glob("[a-z]*.py")):
        for made in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(made, ast.FunctionDef | ast.AsyncFunctionDef) or made.name.startswith("_"):
                continue
            given = [each.arg for each in made.args.args]
            gives = ast.unparse(made.returns) if made.returns is not None else ""
            if (given == ["task", "trace"] and gives == "Score") or (not given and gives == "Scorer"):
                found.setdefault(made.name, (path.stem, (ast.get_docstring(made) or "").split("\n")[0]))
    return MappingProxyType(found)


def scorer(text: str, folder: Path = Path()) -> Scorer:
    """The scorer that a text names, such as `exact`, `rubric:judge=smollm2`, or `FILE.py:function` below `folder`."""
    spec = parse_spec(with_secrets(text))
    if ".py" in spec.name:
        found = from_file("scorer", spec.name, folder)
    else:
        known = scorers()
        if spec.name not in known:
            raise unknown("scorer", spec.name, known, see="firsthand list scorers")
        found = getattr(importlib.import_module(f"firsthand.scorers.{known[spec.name][0]}"), spec.name)
    if [p.name for p in inspect.signature(found).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]:
        if spec.options:
            raise ConfigError(f"{text!r} gives {spec.name} options, and it takes none: write {spec.name}")
        plain: Scorer = found
        return plain
    made: Scorer = found(**bind_options(spec, found, led=()))
    return made


def model(text: str, *, device: str = "cpu", weights: str = "auto") -> Model:
    """The model that a text names: `smollm2`, a .gguf file or a folder, `hf:org/name`, `openai:name@url`, `scripted:file`.

    A local model may have an adapter, merged into its weights (`smollm2+lora:FOLDER`) or beside them
    (`smollm2+adapter:FOLDER`), a steering vector (`smollm2+steer:FILE@0.5`), a monitor of activations
    (`smollm2+monitor:FILE`), and a `device` other than the CPU: `cuda`, `cuda:N` or `auto`. `weights` is the format of its
    linear layers; see `EngineConfig.weights`. In an address, here and in the options of all names, `${NAME}` in place of a
    password or token is that variable of the environment.
    """
    text = with_secrets(text)
    prefix, colon, rest = text.partition(":")
    providers = names("provider")
    is_adapted = prefix not in providers and any(
        mark in text for mark in ("+lora:", "+adapter:", "+steer:", "+monitor:")
    )
    if not colon or prefix == "hf" or is_adapted or _exists(Path(text)):
        prefix, rest = "local", text
    module = importlib.import_module(f"firsthand.providers.{prefix}") if prefix in providers else None
    opener: Callable[[str], Model] | None = getattr(module, "open_model", None)
    if opener is None and (hint := provider_hint(prefix, rest) or name_hint(text)):
        raise UnknownName(f"no model provider {prefix!r}; {hint}; `firsthand list models` shows all")
    if opener is None and "+" in prefix:
        part = prefix.rpartition("+")[2]
        raise UnknownName(f"{text!r} adds {part!r} to a model: expected +lora:, +adapter:, +steer: or +monitor:")
    if opener is None:
        raise unknown("model provider", prefix, [*providers, "hf"], see="firsthand list models")
    opened = opener(rest)
    if device != "cpu":
        put_on: Callable[[str], None] | None = getattr(opened, "put_on", None)
        if put_on is None:
            raise ConfigError(f"device is {device!r}, and {text} does not run here: a device is for local models")
        put_on(device)
    if weights != "auto":
        hold_weights_in: Callable[[str], None] | None = getattr(opened, "hold_weights_in", None)
        if hold_weights_in is None:
            raise ConfigError(f"weights is {weights!r}, and {text} does not run here: a format is for local models")
        hold_weights_in(weights)
    return opened


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name longer than a file name may be
        return False


def from_file(kind: str, name: str, folder: Path = Path()) -> Any:
    """The object in a user's file that is named after the file, or after the colon; a relative path begins at `folder`."""
    file, colon, wanted = name.partition(".py:")
    path = folder / (file + ".py" if colon else name)
    wanted = wanted or path.stem
    if not (_exists(path) and path.is_file()):
        place = "" if folder == Path() else "; a path in a TOML file begins at the folder of that file"
        raise ConfigError(f"no file {str(path)!r}: give the path of the Python file that defines the {kind}{place}")
    if (size := path.stat().st_size) > MAX_SOURCE_BYTES:
        raise ConfigError(
            f"{str(path)!r} has {size:,} bytes, and a Python file of at most {MAX_SOURCE_BYTES:,} is read"
        )
    module = load_module(path)
    if not hasattr(module, wanted):
        defined = [each for each in vars(module) if not each.startswith("_")]
        raise unknown(kind, wanted, defined, see=f"grep -n 'def ' {shlex.quote(str(path))}")
    return getattr(module, wanted)
