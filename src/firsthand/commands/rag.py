"""Answer questions from your own documents: index a folder, look at the index, ask; `firsthand rag NAME --help` shows flags.

`rag index` is `commands/rag_index.py`, and so on: a file with a docstring, a frozen dataclass `Config`, `EXAMPLES`, and
`run(config) -> int`. A file is found by its name; nothing needs registering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType

from firsthand.commands.subcommands import listed_subcommands, subcommand_of, subcommands_of
from firsthand.config import parse
from firsthand.errors import ConfigError

EXAMPLES = """
firsthand rag index docs                    # read a folder into an index; again: only what has changed
firsthand rag index docs --model none       # without vectors: terms alone, and no model is needed
firsthand rag status
"""


@dataclass(frozen=True)
class Config:
    """The subcommand."""

    action: str | None = field(default=None, metadata={"positional": True})
    """The subcommand, followed by its own words."""


def dispatch(words: Sequence[str]) -> int:
    """Read the words of a subcommand and run it; returns the exit code."""
    if not words or words[0].startswith("-"):
        parse(Config, words or ["--help"], prog="firsthand rag", description=_overview(), examples=EXAMPLES)
        raise ConfigError(f"{words[0]!r} came before a subcommand: it is the first word, as in `firsthand rag index`")
    name, *rest = words
    module = subcommand(name)
    description = module.__doc__ or ""
    config = parse(module.Config, rest, prog=f"firsthand rag {name}", description=description, examples=module.EXAMPLES)
    code: int = module.run(config)
    return code


def main(config: Config) -> int:
    """Run a subcommand that takes no words."""
    return dispatch([config.action] if config.action else [])


def subcommands() -> dict[str, str]:
    """Subcommand -> its one-line description, read without importing."""
    return subcommands_of("rag")


def subcommand(name: str) -> ModuleType:
    """The module of a subcommand. UnknownName if there is none."""
    return subcommand_of("rag", name)


def _overview() -> str:
    return listed_subcommands("rag", __doc__ or "")
