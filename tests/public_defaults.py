"""Lists what a user gets without asking: defaults of functions and settings, and limits, private ones too.

python tests/public_defaults.py > tests/data/public_defaults.txt
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import firsthand

PACKAGE = Path(firsthand.__file__).parent


def public_defaults(package: Path = PACKAGE) -> dict[str, str]:
    """Name -> the default or limit, as the source writes it, of each plain value."""
    found: dict[str, str] = {}
    for path in sorted(package.rglob("*.py")):
        module = path.relative_to(package).with_suffix("").as_posix()
        for name, value in named(ast.parse(path.read_text(encoding="utf-8")).body):
            if is_plain(value):
                found[f"{module}:{name}"] = ast.unparse(value)
    return found


def named(body: list[ast.stmt], within: str = "") -> Iterator[tuple[str, ast.expr]]:
    """Names of a module or class with what they are given."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            places = [*given.posonlyargs, *given.args][-len(given.defaults) :] if given.defaults else []
            pairs = [*zip(places, given.defaults, strict=True), *zip(given.kwonlyargs, given.kw_defaults, strict=True)]
            yield from ((f"{within}{node.name}({each.arg})", value) for each, value in pairs if value is not None)
        elif isinstance(node, ast.ClassDef):
            yield from named(node.body, f"{within}{node.name}.")
        elif isinstance(node, ast.AnnAssign | ast.Assign) and node.value is not None:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and (within or target.id.isupper()):
                yield f"{within}{target.id}", node.value


def is_plain(value: ast.expr) -> bool:
    """True for numbers, truth values, tuples and arithmetic of them: texts are read by people."""
    return all(
        isinstance(each, ast.BinOp | ast.UnaryOp | ast.operator | ast.unaryop | ast.Tuple | ast.Load)
        or (isinstance(each, ast.Constant) and isinstance(each.value, int | float))
        for each in ast.walk(value)
    )


if __name__ == "__main__":
    for name, value in public_defaults().items():
        print(name, "=", value)
