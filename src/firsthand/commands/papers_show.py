"""Print an entry of the reading list: summary, source, code, documentation, command, claims, and what is not implemented."""

from __future__ import annotations

from dataclasses import dataclass, field

from firsthand.errors import ConfigError

EXAMPLES = """
firsthand papers show react
firsthand papers show 2310.11511
firsthand papers show "Attention Is All You Need" --json
"""


@dataclass(frozen=True)
class Config:
    """The entries to print."""

    names: tuple[str, ...] = field(default=(), metadata={"positional": True})
    """Ids, arXiv ids, DOIs or titles, each one word or in quotes."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if not self.names:
            raise ConfigError("show which entry? For example: firsthand papers show react")


def run(config: Config) -> int:
    """Print the entries. UnknownName for a name that is none."""
    from firsthand.reading.entry_documents import rendered
    from firsthand.reading.reading_list import entry_named
    from firsthand.system.terminal import console, print_as_json

    entries = [entry_named(name) for name in config.names]
    if config.json:
        print_as_json([each.to_json() for each in entries])
        return 0
    for entry in entries:
        console().print(rendered(entry), markup=False, highlight=False, soft_wrap=True)
    return 0
