"""List the known patterns, benchmarks with their protocols, scorers, tools, guards, memories, models, chunkers or boards."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from firsthand import catalog
from firsthand.boards.board_spec import board_names
from firsthand.errors import DataError, DownloadError, FirsthandError
from firsthand.hub.offline import offline
from firsthand.system.first_rows import first_rows
from firsthand.system.terminal import print_as_json, print_table

EXAMPLES = """
firsthand list
firsthand list patterns
firsthand list benchmarks --json
"""

What = Literal[
    "all", "patterns", "benchmarks", "scorers", "tools", "guards", "memories", "models", "chunkers", "boards"
]


@dataclass(frozen=True)
class Config:
    """The kind to list."""

    what: What = field(default="all", metadata={"positional": True})
    """patterns, benchmarks, scorers, tools, guards, memories, models, chunkers, boards or all"""
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
        "chunkers": chunker_names(),
        "boards": board_names(),
    }
    chosen: dict[str, dict[str, str]] = kinds if config.what == "all" else {config.what: kinds[config.what]}
    if config.json:
        body: dict[str, Any] = dict(chosen)
        if "benchmarks" in chosen:
            body["data"] = {name: asdict(data_of(name)) for name in catalog.names("benchmark")}
        if "benchmarks" in chosen or "patterns" in chosen:
            body["options"] = {
                kind: {name: catalog.options(_KIND[kind], name) for name in catalog.names(_KIND[kind])}
                for kind in ("patterns", "benchmarks")
                if kind in chosen
            }
        print_as_json(body)
        return 0
    for kind, found in chosen.items():
        if kind == "tools":
            print_tools(found)
            continue
        if kind == "benchmarks" and config.what != "all":
            print_benchmarks(found)
            continue
        if kind == "patterns" and config.what != "all":
            rows = [[name, line, _options("pattern", name)] for name, line in found.items()]
            print_table("patterns", ["name", "description", "options"], rows)
            continue
        print_table(kind, ["name", "description"], [[name, line] for name, line in found.items()])
    return 0


_KIND: dict[str, Literal["pattern", "benchmark"]] = {"patterns": "pattern", "benchmarks": "benchmark"}
State = Literal["generated", "packaged", "here", "hub", "missing", "named by you"]


@dataclass(frozen=True)
class DataState:
    """The location of a benchmark's data."""

    state: State
    """`here`: on this machine, or generated where no file is given. `hub`: fetched when first run. `named by you`: it needs
    an option that says what to run."""
    how: str = ""
    """A command that fetches missing data, or the option that names it."""


def data_of(name: str) -> DataState:
    """The location of a benchmark's data, found by making the benchmark of its first rows without a network."""
    if name not in _ADAPTERS and not {"data", "folder"} & catalog.options("benchmark", name).keys():
        return DataState("generated")
    try:
        with offline():
            try:
                with first_rows(_ROWS):
                    made = catalog.benchmark(name)
            except DownloadError:
                raise
            except (FirsthandError, LookupError, ValueError):  # it may need more of them
                made = catalog.benchmark(name)
    except DownloadError as error:
        return DataState("hub", str(error))
    except DataError as error:
        return DataState("missing", str(error))
    except FirsthandError as error:
        return DataState("named by you", str(error))
    return DataState("packaged" if "packaged" in (made.protocol or "") else "here")


_ADAPTERS = ("inspect", "lm_eval")
_ROWS = 10


def print_benchmarks(found: dict[str, str]) -> None:
    """Print the benchmarks with their protocols, options, and where their data is."""
    rows = []
    for name, line in found.items():
        state = DataState("here", "") if "@" in name else data_of(name)
        data = "" if "@" in name else state.state
        needs = "" if state.state == "hub" else state.how
        rows.append([name, data, line, "" if "@" in name else _options("benchmark", name), needs])
    print_table("benchmarks", ["name", "data", "description", "options", "needs"], rows)
    print(
        "data: `hub` is fetched from the Hugging Face hub when it is first run, or read from data=FOLDER; the rest is here"
    )
    print("is here unless it says what it needs. FIRSTHAND_OFFLINE=1 has nothing fetched.")


def _options(kind: Literal["pattern", "benchmark"], name: str) -> str:
    found = catalog.options(kind, name)
    return ", ".join(f"{key}={value}" if value not in ("", "...") else key for key, value in found.items())


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


def chunker_names() -> dict[str, str]:
    """The chunkers of documents, each with its options and their defaults."""
    from firsthand.retrieval.chunking.chunkers import CHUNKERS, default_text

    return {default_text(name): (make.__doc__ or "").split("\n")[0] for name, make in CHUNKERS.items()}


def model_names() -> dict[str, str]:
    """The models known by name, and the other forms of a model's name."""
    from firsthand.hub.model_lookup import KNOWN

    known = {name: entry.description for name, entry in KNOWN.items()}
    return known | {
        "PATH.gguf": "a GGUF file",
        "FOLDER": "a Hugging Face folder: config.json, tokenizer.json, *.safetensors",
        "hf:ORG/NAME": "a repository on the Hugging Face hub, pulled on first use",
        "openai:NAME@URL": "any OpenAI-compatible endpoint; without @URL, OpenAI's own",
        "anthropic:NAME": "a model of Anthropic's, by its own API",
        "google:NAME": "a Gemini model of Google's, by its own API",
        "ollama:NAME": "a model that Ollama serves, here or at ollama:NAME@URL",
        "scripted:FILE.json": "a scripted model, for tests and demos",
        "cassette:FILE.jsonl": "recorded replies, played again; anything else is an error",
        "sim:game24": "plays the game of 24 with stated error rates: sim:game24:error=0.2:seed=1",
        "sim:sessions": "reads the benchmark sessions without a mistake: measures what a memory shows it",
    }
