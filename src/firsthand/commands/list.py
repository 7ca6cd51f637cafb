"""List the known patterns, benchmarks with their protocols, scorers, tools, guards, memories or models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from firsthand import catalog
from firsthand.system.terminal import print_as_json, print_table

EXAMPLES = """
firsthand list
firsthand list patterns
firsthand list benchmarks --json
"""

What = Literal["all", "patterns", "benchmarks", "scorers", "tools", "guards", "memories", "models"]


@dataclass(frozen=True)
class Config:
    """The kind to list."""

    what: What = field(default="all", metadata={"positional": True})
    """patterns, benchmarks, scorers, tools, guards, memories, models or all"""
    json: bool = False
    """Print JSON for programs."""


def main(config: Config) -> int:
    """Print the names with their one-line descriptions."""
    kinds: dict[str, dict[str, str]] = {
        "patterns": catalog.names("pattern"),
        "benchmarks": benchmark_names(),
        "scorers": {name: line for name, (_, line) in catalog.scorers().items()},
        "tools": catalog.names("tool"),
        "guards": catalog.names("guard"),
        "memories": catalog.names("memory"),
        "models": model_names(),
    }
    chosen = kinds if config.what == "all" else {config.what: kinds[config.what]}
    if config.json:
        print_as_json(chosen)
        return 0
    for kind, found in chosen.items():
        if kind == "tools":
            print_tools(found)
            continue
        print_table(kind, ["name", "description"], [[name, line] for name, line in found.items()])
    return 0


def print_tools(found: dict[str, str]) -> None:
    """Print the tools as they are written after `--tools`, with their effects."""
    forms = catalog.tool_forms()
    rows = [[*forms.get(name, (name, "as declared")), line] for name, line in found.items()]
    print_table("tools", ["name", "effects", "description"], rows)


def benchmark_names() -> dict[str, str]:
    """The benchmarks, each followed by its protocols; the first protocol is the default."""
    found: dict[str, str] = {}
    for name, line in catalog.names("benchmark").items():
        found[name] = line
        found |= {f"{name}@{protocol}": reproduces for protocol, reproduces in catalog.protocols(name).items()}
    return found


def model_names() -> dict[str, str]:
    """The models known by name, and the other forms of a model's name."""
    from firsthand.hub.model_lookup import KNOWN

    known = {name: entry.description for name, entry in KNOWN.items()}
    return known | {
        "PATH.gguf": "a GGUF file",
        "FOLDER": "a Hugging Face folder: config.json, tokenizer.json, *.safetensors",
        "hf:ORG/NAME": "a repository on the Hugging Face hub, pulled on first use",
        "openai:NAME@URL": "any OpenAI-compatible endpoint; without @URL, OpenAI's own",
        "scripted:FILE.json": "a scripted model, for tests and demos",
        "cassette:FILE.jsonl": "recorded replies, played again; anything else is an error",
        "sim:game24": "plays the game of 24 with stated error rates: sim:game24:error=0.2:seed=1",
    }
