"""Test whether a model, or a corpus, holds a benchmark's items, and say what the tests cannot see."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from firsthand import catalog
from firsthand.config import refuse_given
from firsthand.errors import ConfigError
from firsthand.model import close
from firsthand.system import interruption
from firsthand.system.terminal import console, print_as_json, print_table

EXAMPLES = """
firsthand contamination gsm8k --model smollm2 --limit 40
firsthand contamination gsm8k --model tuned/model --reference smollm2      # a reference that cannot have seen it
firsthand contamination arc_challenge --corpus pretraining/                # overlap of 13-grams with the texts of a folder
firsthand contamination arc_challenge --corpus pretraining/ --build-index pretraining.index
firsthand contamination mmlu --index pretraining.index --json
"""


@dataclass(frozen=True)
class Config:
    """The benchmark, and the model or corpus in question."""

    benchmark: str = field(metadata={"positional": True})
    """The benchmark, with its options, or a Python file of your own."""
    model: str = ""
    """The model in question; without one only the corpus is searched."""
    reference: str = ""
    """A model that cannot have seen the benchmark: what it finds natural too is no sign of a leak."""
    corpus: str = ""
    """A folder of texts (.txt, .md, .jsonl, .gz), or one file, to search for the items' n-grams."""
    index: str = ""
    """An index that --build-index made, to search in place of a corpus."""
    build_index: str = ""
    """Index the corpus in this new folder, for later searches."""
    tests: tuple[str, ...] = ()
    """Only these tests: n-grams, min-k%, min-k%++, order, canary, completion, options."""
    canary: str = ""
    """The benchmark's canary: its GUID, alone or in its sentence."""
    guided: bool = False
    """Ask for completions by an instruction that names the benchmark, for models that follow instructions."""
    limit: int | None = None
    """Only the first N items; a corpus is searched for all in any case."""
    device: str = "cpu"
    """Device for models that run here: cpu, cuda, cuda:N, or auto."""
    seed: int = 0
    """Seed of twins, orders and random canaries."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if not (self.model or self.corpus or self.index):
            raise ConfigError("nothing is in question: give --model, or --corpus or --index")
        if self.corpus and self.index:
            raise ConfigError("corpus and index do not go together: an index stands in place of its corpus")
        if self.build_index and not self.corpus:
            raise ConfigError("build_index needs a corpus: name its folder with --corpus")
        if self.reference and not self.model:
            raise ConfigError("reference is a control for a model: name it with --model")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}: give 1 or more")


def main(config: Config) -> int:
    """Run the tests and print the evidence and the verdict; exit code 3 if the items were found."""
    if not config.model:
        asked = {"canary", "guided", "device"}
        refuse_given(config, asked, "it is for tests of a model: name one with --model, or leave it out")
    from firsthand.contamination.contamination_tests import TESTS, contamination
    from firsthand.contamination.leak_evidence import report
    from firsthand.contamination.ngram_overlap import CorpusIndex, overlap_evidence

    if unknown := [each for each in config.tests if each not in TESTS]:
        raise ConfigError(f"tests names {unknown[0]!r}: give {', '.join(TESTS)}")
    if config.tests and not config.model and "n-grams" not in config.tests:
        raise ConfigError(f"the test {config.tests[0]} asks a model: name one with --model")
    if config.tests == ("n-grams",) and not (config.corpus or config.index):
        raise ConfigError("the test n-grams searches texts: give --corpus or --index")
    chosen = tuple(each for each in TESTS if not config.tests or each in config.tests)
    benchmark = catalog.benchmark(config.benchmark)
    tasks = list(benchmark.tasks(config.seed))
    overlap = None
    index = Path(config.index) if config.index else None
    if config.build_index:
        index = Path(config.build_index)
        CorpusIndex.build(Path(config.corpus), index)
    if "n-grams" in chosen and (config.corpus or index):
        overlap = overlap_evidence(tasks, corpus=Path(config.corpus) if config.corpus else None, index=index)
    models = [catalog.model(name, device=config.device) for name in (config.model, config.reference) if name]
    try:
        made = interruption.run(
            contamination(
                benchmark.name,
                tasks[: config.limit],
                models[0] if models else None,
                reference=models[1] if len(models) > 1 else None,
                canary=config.canary,
                guided=config.guided,
                tests=[each for each in chosen if each != "n-grams"],
                seed=config.seed,
            )
        )
    finally:
        close(*models)
    evidence = [*([overlap] if overlap else []), *made.evidence]
    full = report(benchmark.name, made.model, evidence, corpus=config.corpus or config.index)
    if config.json:
        print_as_json(full.to_json())
    else:
        rows = [
            [
                each.test,
                "-" if each.p_value is None else f"{each.p_value:.3g}",
                "-" if each.test not in full.corrected else f"{full.corrected[each.test]:.3g}",
                each.detail,
            ]
            for each in full.evidence
        ]
        title = " and ".join(each for each in (full.model, full.corpus) if each)
        print_table(
            f"{benchmark.name}: {title}", ["test", "p", "p corrected", "evidence"], rows, right=("p", "p corrected")
        )
        console().print(full.words, soft_wrap=True, markup=False)
        limits = dict.fromkeys(each.limits for each in full.evidence if each.ran and each.limits)
        if limits:
            console().print("\nLimits:", *(f"- {each}" for each in limits), sep="\n", soft_wrap=True, markup=False)
    return 3 if full.verdict in ("leaked", "overlap") else 0
