"""Imports run downhill, and nothing but the tensor rooms needs torch."""

import ast
import subprocess
import sys
from pathlib import Path

import firsthand

ROOT = Path(firsthand.__file__).parent

NOUNS = [
    "errors",
    "message",
    "grammar",
    "sampling",
    "model",
    "tool",
    "task",
    "journal",
    "trace",
    "protection",
    "listener",
    "budget",
    "benchmark",
    "approval",
    "agent",
    "attempt",
    "tool_call",
    "context",
    "rollout",
]
ANYWHERE = [
    "asker", "config", "catalog", "concurrency", "home", "kinds", "lock", "modelfile", "spec", "terminal", "traceparent",
]  # fmt: skip
LAYERS = [
    ["nn", "tokens"],
    ["engine"],
    ["providers", "tools", "runs"],
    ["replicas"],
    ["patterns", "memory", "retrieval", "safety"],
    ["evals"],
    ["benchmarks"],
    ["train", "interp"],
    ["serve", "claims"],
    ["commands"],
    ["cli"],
    ["__main__"],
]
ROOMS = [room for layer in LAYERS for room in layer]
TENSOR_ROOMS = ("nn", "tokens", "engine", "train", "interp")


def imports_of(file: Path) -> set[str]:
    """The firsthand modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "firsthand" and "." in name}


def room_of(module: str) -> str:
    return module.split(".")[1]


def files() -> list[tuple[str, Path]]:
    return [(".".join(p.relative_to(ROOT.parent).with_suffix("").parts), p) for p in sorted(ROOT.rglob("*.py"))]


def height(room: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if room in layer)


def test_every_file_has_its_place_in_the_house():
    known = {"__init__", *NOUNS, *ANYWHERE, *ROOMS}
    assert {room_of(name) for name, _ in files()} <= known


def test_imports_run_downhill():
    uphill = []
    for name, path in files():
        room = room_of(name)
        for imported in imports_of(path):
            target = room_of(imported)
            if target == room or target in ANYWHERE or target == "__version__":
                continue
            if room in ROOMS:
                fine = target in NOUNS or height(target) < height(room)
            elif room in NOUNS:
                fine = target in NOUNS and NOUNS.index(target) < NOUNS.index(room)
            else:
                fine = target in NOUNS
            if not fine:
                uphill.append(f"{name} imports {imported}")
    assert uphill == []


def test_relative_imports_do_not_hide_an_edge():
    hidden = [
        name
        for name, path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert hidden == []


def test_only_tensor_rooms_import_torch():
    for name, path in files():
        imported = {
            alias.name if isinstance(node, ast.Import) else node.module
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        if any(module and module.split(".")[0] == "torch" for module in imported):
            assert room_of(name) in TENSOR_ROOMS or name == "firsthand.providers.local", f"{name} imports torch"


def test_everything_else_imports_without_torch():
    light = [
        name.removesuffix(".__init__")
        for name, _ in files()
        if room_of(name) not in (*TENSOR_ROOMS, "__main__") and name != "firsthand.providers.local"
    ]
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch': raise ImportError('torch is blocked')\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "import importlib\n"
        f"for name in {light!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_and_its_help_import_nothing_heavy():
    heavy = "torch numpy scipy pydantic rich numba httpx jinja2 tokenizers sqlite3"
    code = (
        "import sys, firsthand, firsthand.cli\n"
        "firsthand.cli.main(['--help'])\n"
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]"), done.stdout[-300:] + done.stderr
