"""Reads the user's files of code: the source of functions, and the names and fields that their functions fill.

Equal source gives equal digests under any version of Python: neither the text of `ast.unparse` nor byte code does.
"""

from __future__ import annotations

import ast
import hashlib
import linecache
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType

from firsthand.system.ordinary_file import read_ordinary_text

MAX_SOURCE_BYTES = 1 << 24
_FILLS = frozenset(
    "add append appendleft clear discard extend insert pop popitem remove setdefault update".split()  # noqa: SIM905
)
_BEGINS = ("__init__", "__post_init__", "__new__")
_OF_PROCESS = frozenset(
    "environ getenv getpid gethostname getuser cpu_count gettempdir mkdtemp mkstemp uuid1 uuid4 urandom token_hex "  # noqa: SIM905
    "now utcnow today time time_ns perf_counter monotonic".split()
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_NO_CODE = ("ctx", "kind", "type_comment", "type_ignores")


@dataclass
class _File:
    """A file's functions by the line they begin in, its statements, and the names and fields that its functions fill."""

    tree: ast.Module
    functions: dict[int, list[ast.AST]] = field(default_factory=dict)
    filled: set[str] = field(default_factory=set)
    """Global names that a function writes into or assigns, such as a cache or a counter."""
    fields: set[str] = field(default_factory=set)
    """Fields of objects that a method fills while it works; those that are set when the object is made alone are not."""


class Sources:
    """The files that were read, each once."""

    def __init__(self) -> None:
        self.files: dict[str, _File | None] = {}

    def function(self, code: CodeType) -> str | None:
        """A digest of the function's source without its docstring; several lambdas of one line are one. None without it."""
        file = self._file(code.co_filename)
        begun = file.functions.get(code.co_firstlineno, ()) if file is not None else ()
        found = [each for each in begun if getattr(each, "name", "<lambda>") == code.co_name]
        return ",".join(map(written, found)) or None

    def module(self, path: str) -> str:
        """A digest of all of a file; "" where it cannot be read."""
        return "" if (file := self._file(path)) is None else written(file.tree)

    def is_filled(self, path: str, name: str) -> bool:
        """True for a global whose value tells of the process, or of what was computed before, rather than of the code."""
        return (file := self._file(path)) is not None and name in file.filled

    def is_filled_field(self, path: str, name: str) -> bool:
        """The same for a field of an object of a class in that file."""
        return (file := self._file(path)) is not None and name in file.fields

    def statements(self, path: str, name: str) -> list[str]:
        """Digests of the statements of a file, outside of its functions and classes, that have that name."""
        file = self._file(path)
        return [] if file is None else [written(each) for each in _plain(file.tree) if name in _names(each)]

    def _file(self, path: str) -> _File | None:
        if path not in self.files:
            try:
                self.files[path] = _read(path)
            except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
                self.files[path] = None
        return self.files[path]


def written(node: ast.AST) -> str:
    """Sixteen hexadecimal digits that stand for code, whatever its layout and the version of Python."""
    found = hashlib.sha256()
    left: list[object] = [node]
    while left:
        each = left.pop()
        if isinstance(each, list):
            found.update(f"[{len(each)}".encode())
            left += reversed(each)
        elif isinstance(each, ast.AST):
            parts = [(name, _part(each, name)) for name in each._fields if name not in _NO_CODE]
            parts = [(name, value) for name, value in parts if value is not None and value != []]
            found.update(f"({type(each).__name__} {' '.join(name for name, _ in parts)})".encode())
            left += [value for _, value in reversed(parts)]
        else:
            text = hex(each) if type(each) is int else repr(each)
            found.update(f"{type(each).__name__} {len(text)} {text}".encode("utf-8", "backslashreplace"))
    return found.hexdigest()[:16]


def _part(node: ast.AST, name: str) -> object:
    value = getattr(node, name, None)
    if isinstance(node, ast.Constant) and value is None:
        return "None"
    if isinstance(node, ast.JoinedStr):  # versions of Python differ in empty pieces
        return [each for each in node.values if not (isinstance(each, ast.Constant) and each.value == "")]
    return value


def _read(path: str) -> _File:
    kept = "".join(linecache.getlines(path)) if path not in linecache.cache or not Path(path).exists() else ""
    tree = ast.parse(kept if not Path(path).exists() else read_ordinary_text(Path(path), MAX_SOURCE_BYTES))
    if not tree.body:
        raise ValueError(f"no source of {path}")
    file = _File(tree)
    for each in ast.walk(tree):
        _drop_docstring(each)
        if isinstance(each, _FUNCTIONS):
            lines = [each.lineno, *(one.lineno for one in getattr(each, "decorator_list", ()))]
            file.functions.setdefault(min(lines), []).append(each)
        if isinstance(each, ast.Global):
            file.filled.update(each.names)
        if isinstance(each, ast.ClassDef):
            file.fields |= _filled_fields(each)
    for function in (each for nodes in file.functions.values() for each in nodes):
        file.filled |= {base.id for base in _filled(function) if isinstance(base, ast.Name)}
    for statement in _plain(tree):
        if isinstance(statement, ast.Assign | ast.AnnAssign) and _names(statement) & _OF_PROCESS:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            file.filled.update(each.id for one in targets for each in ast.walk(one) if isinstance(each, ast.Name))
    return file


def _filled(function: ast.AST) -> Iterator[ast.expr]:
    """Yield the values that a function writes into: `x` of `x[k] = v` and of `x.append(v)`."""
    for each in ast.walk(function):
        if isinstance(each, ast.Subscript) and not isinstance(each.ctx, ast.Load):
            yield each.value
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr in _FILLS:
            yield each.func.value


def _filled_fields(made: ast.ClassDef) -> set[str]:
    methods = [each for each in made.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    found: set[str] = set()
    begun: dict[str, bool] = {}
    for method in methods:
        if method.name in _BEGINS:
            for each in ast.walk(method):
                if isinstance(each, ast.Assign | ast.AnnAssign):
                    targets = each.targets if isinstance(each, ast.Assign) else [each.target]
                    begun |= {
                        one.attr: isinstance(each.value, ast.Constant)
                        for one in targets
                        if isinstance(one, ast.Attribute)
                    }
            continue
        if any(getattr(each, "id", getattr(each, "attr", "")) == "cached_property" for each in method.decorator_list):
            found.add(method.name)
        found |= {base.attr for base in _filled(method) if isinstance(base, ast.Attribute)}
        for each in ast.walk(method):
            if isinstance(each, ast.AugAssign) and isinstance(each.target, ast.Attribute):
                found.add(each.target.attr)
    stored = {
        each.attr
        for method in methods
        if method.name not in _BEGINS
        for each in ast.walk(method)
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)
    }
    return found | {name for name in stored if begun.get(name, True)}


def _plain(tree: ast.Module) -> list[ast.stmt]:
    others = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    return [each for each in tree.body if not isinstance(each, others)]


def _names(node: ast.AST) -> set[str]:
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}


def _drop_docstring(node: ast.AST) -> None:
    """Take the docstring out of a function or a class."""
    match node:
        case (
            ast.FunctionDef(body=[ast.Expr(value=ast.Constant(value=str())), _, *_])
            | ast.AsyncFunctionDef(body=[ast.Expr(value=ast.Constant(value=str())), _, *_])
            | ast.ClassDef(body=[ast.Expr(value=ast.Constant(value=str())), _, *_])
            | ast.Module(body=[ast.Expr(value=ast.Constant(value=str())), _, *_])
        ):
            del node.body[0]
