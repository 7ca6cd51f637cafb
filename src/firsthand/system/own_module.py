"""Loads a user's own Python file as a module, once as long as it stays as it is, and what it imports from its folder.

A module beside the file is imported only if nothing installed has its name. A folder is on no search path: names that the
files in it import, as their source states, are all that is found there. So what is imported is what `imported_beside` lists.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import NoReturn

from firsthand.errors import ConfigError
from firsthand.system.ordinary_file import read_ordinary

MAX_SOURCE_BYTES = 1 << 24
MAX_IMPORTED = 200
"""At most so many modules beside a file are read."""
_LOCK = RLock()  # a file that is loaded may load another
_LOADED: dict[Path, tuple[Mapping[Path, str], ModuleType]] = {}
"""Path -> hashes of the file and of what it imports from its folder, and the module that they made."""
_SEEN: dict[Path, str] = {}
"""Path of a module beside a file -> hash of it and of all that it imports there, as of the last time it was offered."""


class _Beside:
    """Finds modules in the folders of users' files that nobody else finds.

    It is the first of `sys.meta_path`, for a mere folder of a module's name, as in the folder that one works in, is found
    as a package without files by the others.
    """

    def __init__(self) -> None:
        self.folders: dict[str, Path] = {}
        """Folder of a module, by its name."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module that a user's file imports from its folder; None for any other, and for one in a package."""
        folder = self.folders.get(name) if path is None else None
        if folder is None or _is_found(name):
            return None
        spec = PathFinder.find_spec(name, [str(folder)], target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _FromSource(spec.loader.name, spec.loader.path)
        return spec


class _FromSource(SourceFileLoader):
    """Loads a module from its source, never from bytecode: that of an edit within a second and of one size is old."""

    def path_stats(self, path: str) -> NoReturn:
        """OSError, by which Python neither reads nor writes bytecode."""
        raise OSError("no bytecode is kept")


_BESIDE = _Beside()


def load_module(path: Path) -> ModuleType:
    """The module of a Python file: the same one as before if neither the file nor what it imports beside it has changed.

    ConfigError if it cannot be read or imported, or imports a module whose name another folder's module has already.
    """
    shown, path = path.absolute(), path.parent.resolve() / path.name
    with _LOCK:
        try:
            content = read_ordinary(path, MAX_SOURCE_BYTES)
        except OSError as error:
            raise ConfigError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
        beside = imported_beside(path, content)
        now = {path: _digest(content)} | {each: _digest(inner) for each, inner in beside.items()}
        before, module = _LOADED.get(path, ({}, None))
        if module is not None and before == now:
            return module
        _offer(path.parent, {each.relative_to(path.parent).parts[0].removesuffix(".py") for each in beside})
        whole = _whole(beside, path.parent)
        _forget({each for each, digest in whole.items() if _SEEN.get(each, digest) != digest}, path.parent)
        _SEEN.update(whole)
        made = _executed(path, shown, content)
        _LOADED[path] = now, made
        return made


def imported_beside(file: Path, content: bytes) -> dict[Path, bytes]:
    """Path -> content of the modules in the file's folder that it imports, and of those that they import in turn."""
    found: dict[Path, bytes] = {}
    left = [(file, content)]
    while left and len(found) < MAX_IMPORTED:
        for path in _modules(*left.pop(), file.parent):
            if path in found or path == file or (inner := source_of(path)) is None:
                continue
            found[path] = inner
            left.append((path, inner))
    return found


def _whole(beside: Mapping[Path, bytes], folder: Path) -> dict[Path, str]:
    """A hash of each module, and of all those that it imports, directly or not."""
    uses = {path: {each for each in _modules(path, inner, folder) if each in beside} for path, inner in beside.items()}
    digests = {path: _digest(inner) for path, inner in beside.items()}
    found = {}
    for path in beside:
        reached, left = {path}, [path]
        while left:
            new = uses[left.pop()] - reached
            reached |= new
            left += new
        found[path] = _digest("".join(sorted(digests[each] for each in reached)).encode())
    return found


def source_of(path: Path) -> bytes | None:
    """The content of a file; None if it cannot be read."""
    try:
        return read_ordinary(path, MAX_SOURCE_BYTES)
    except (OSError, ValueError):  # ValueError: a null character in the path
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _offer(folder: Path, names: set[str]) -> None:
    """Let modules of these names be found in a folder, unless others find them: an installed one, or one in `sys.path`.

    ConfigError for a name that a file of another folder has for another module.
    """
    if _BESIDE not in sys.meta_path:
        sys.meta_path.insert(0, _BESIDE)
    importlib.invalidate_caches()
    for name in sorted(names):
        held = _BESIDE.folders.get(name)
        if held == folder or (held is None and name in sys.modules) or _is_found(name):
            continue
        if held is not None and PathFinder.find_spec(name, [str(held)]) is not None:
            raise ConfigError(
                f"a file in {str(folder)!r} imports its {name}, and one in {str(held)!r} has imported another {name}: "
                "rename one of the two modules, or use the files in two processes"
            )
        _drop(name)
        _BESIDE.folders[name] = folder


def _is_found(name: str) -> bool:
    """True if anybody but us finds a module of that name; a folder without `__init__.py` is none, as in Python."""
    for finder in [each for each in sys.meta_path if each is not _BESIDE]:
        spec = finder.find_spec(name, None) if hasattr(finder, "find_spec") else None
        if spec is not None and (spec.loader is not None or spec.origin is not None):
            return True
    return False


def _forget(changed: set[Path], folder: Path) -> None:
    """Let modules of a folder be imported again of which a file has changed."""
    firsts = {each.relative_to(folder).parts[0].removesuffix(".py") for each in changed}
    for name in firsts:
        if _BESIDE.folders.get(name) == folder:
            _drop(name)


def _drop(name: str) -> None:
    """Let a module that was found beside a file be imported again, with the modules in it."""
    importlib.invalidate_caches()
    if name in _BESIDE.folders:
        for each in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
            del sys.modules[each]


def _executed(path: Path, shown: Path, content: bytes) -> ModuleType:
    """The module that a file's source makes; `sys.modules` has it, where dataclasses and pickle look for it.

    `shown` is the path as it was named, which is the module's `__file__`. If it fails, `sys.modules` is as it was.
    """
    name = f"firsthand_file_{path.stem}"
    if (there := sys.modules.get(name)) is not None and getattr(there.__spec__, "origin", None) != str(path):
        name += f"_{_digest(str(path).encode('utf-8', 'surrogateescape'))[:8]}"
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(shown)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        run: Callable[..., object] = exec
        run(loader.source_to_code(content, str(shown)), module.__dict__)
    except BaseException as error:
        sys.modules.pop(name, None)
        if before is not None:
            sys.modules[name] = before
        if not isinstance(error, Exception | SystemExit):
            raise
        raise ConfigError(f"{str(path)!r} does not import: {type(error).__name__}: {error}") from error
    return module


def _modules(file: Path, content: bytes, folder: Path) -> Iterator[Path]:
    """The files in a folder that the imports of a Python file, which lies there or in a package there, may load."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for each in ast.walk(tree):
        base, names = folder, []
        if isinstance(each, ast.ImportFrom):
            if each.level:
                base = file.parents[min(each.level, len(file.parents)) - 1]
                if base == folder or not base.is_relative_to(folder):  # no package: such an import fails
                    continue
            stem = [each.module] if each.module else []
            names = stem + [".".join([*stem, alias.name]) for alias in each.names]
        elif isinstance(each, ast.Import):
            names = [alias.name for alias in each.names]
        for name in names:
            parts = name.split(".")
            for count in range(1, len(parts) + 1):
                path = base.joinpath(*parts[:count])
                yield from (path.with_name(f"{path.name}.py"), path / "__init__.py")
