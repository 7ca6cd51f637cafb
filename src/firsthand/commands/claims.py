"""Test the claims of the reading list here: list them with their last verdicts; `firsthand claims NAME --help` shows flags.

`claims run` is `commands/claims_run.py`, and so on: a file with a docstring, a frozen dataclass `Config`, `EXAMPLES`, and
`run(config) -> int`. A file is found by its name; nothing needs registering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType

from firsthand.commands.subcommands import listed_subcommands, subcommand_of, subcommands_of
from firsthand.config import parse

EXAMPLES = """
firsthand claims                                 # every claim, by section, with its last verdict
firsthand claims architecture                    # one section; a claim's name shows its words and its last number
firsthand claims run kv_cache_cost               # measure one
firsthand claims run all --budget 10m            # what fits into ten minutes of CPU
firsthand claims table patterns --model smollm2  # the list's table of patterns, measured for a model
"""


@dataclass(frozen=True)
class Config:
    """The claims to list."""

    names: tuple[str, ...] = field(default=("all",), metadata={"positional": True})
    """Claims or sections; by default all. `run` and `table` are subcommands, with flags of their own."""
    json: bool = False
    """Print JSON for programs."""


def dispatch(words: Sequence[str]) -> int:
    """Read the words of a subcommand, or of the list itself, and run it; returns the exit code."""
    if words and words[0] in subcommands():
        name, *rest = words
        module = subcommand(name)
        prog, about = f"firsthand claims {name}", module.__doc__ or ""
        config = parse(module.Config, rest, prog=prog, description=about, examples=module.EXAMPLES)
        code: int = module.run(config)
        return code
    return main(parse(Config, words, prog="firsthand claims", description=_overview(), examples=EXAMPLES))


def main(config: Config) -> int:
    """Print the claims of each section with their last verdicts."""
    from firsthand.claims.all_claims import chosen_claims
    from firsthand.claims.claim_run import last_outcomes
    from firsthand.claims.claim_text import claim_json, print_claim, print_sections
    from firsthand.system.home import data_home
    from firsthand.system.terminal import print_as_json

    claims = chosen_claims(config.names or ("all",))
    outcomes = last_outcomes(data_home())
    if config.json:
        print_as_json([claim_json(each, outcomes.get(each.name)) for each in claims])
    elif [each.name for each in claims] == list(config.names):
        for each in claims:
            print_claim(each, outcomes.get(each.name))
    else:
        print_sections(claims, outcomes)
    return 0


def subcommands() -> dict[str, str]:
    """Subcommand -> its one-line description, read without importing."""
    return subcommands_of("claims")


def subcommand(name: str) -> ModuleType:
    """The module of a subcommand. UnknownName if there is none."""
    return subcommand_of("claims", name)


def _overview() -> str:
    return listed_subcommands("claims", __doc__ or "")
