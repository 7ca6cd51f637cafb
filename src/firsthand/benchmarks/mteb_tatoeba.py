"""Tatoeba, MTEB's type bitext mining: the English sentence nearest to each sentence of another language (Artetxe, 2019).

firsthand run mteb_tatoeba:language=fra --model embedder:minilm --pattern embed
"""

from __future__ import annotations

from firsthand.benchmark import Benchmark
from firsthand.benchmarks.mteb.labelled_texts import spec_with
from firsthand.benchmarks.sources.datasets import contents, located
from firsthand.errors import ConfigError, DataError
from firsthand.message import Json
from firsthand.scorers.embedded import bitext_figures, bitext_weighted_f1
from firsthand.task import Task

PUBLISHED = {
    "all-MiniLM-L6-v2": {"cmn": 0.0192, "fra": 0.0817, "jpn": 0.0097, "rus": 0.0007, "spa": 0.0563, "swh": 0.0580}
}
"""Weighted F1 by language, from MTEB's results."""


def mteb_tatoeba(*, language: str = "fra", data: str = "") -> Benchmark:
    """Return the sentences of a language. `data` is a folder with tatoeba.LANGUAGE-eng.LANGUAGE and .eng."""
    sources, targets = _lines(language, language, data), _lines(language, "eng", data)
    if len(sources) != len(targets):
        raise DataError(f"Tatoeba's {language}-eng has {len(sources)} and {len(targets)} lines: one file is truncated")
    spec = spec_with("mteb_tatoeba", language=language, data=data)
    tasks = [
        Task(
            id=f"{language}-{at:04d}",
            prompt=text,
            metadata={"embedding": {"type": "nearest", "text": text, "shared": spec}},
            secret={"place": at},
        )
        for at, text in enumerate(sources)
    ]
    return Benchmark(
        name=f"mteb_tatoeba:language={language}",
        tasks=lambda seed: tasks,
        scorers=(bitext_weighted_f1,),
        description=f"Translations found by nearest vector, {language} to English (Artetxe and Schwenk, 2019).",
        protocol=f"MTEB Tatoeba {language}-eng, {len(tasks):,} sentences: nearest of all English sentences, F1 weighted",
        licence="CC-BY-2.0-FR",
        figures=bitext_figures,
        options={"language": language},
    )


def shared(*, language: str = "fra", data: str = "") -> Json:
    """Return the English sentences, among which the nearest is looked for."""
    return {"texts": _lines(language, "eng", data)}


def _lines(language: str, side: str, data: str) -> list[str]:
    if not (language.isascii() and language.isalpha()):
        raise ConfigError(f"language is {language!r}: give a code of three letters, such as fra")
    path = located(f"embed/tatoeba/tatoeba.{language}-eng.{side}", data)
    if path is None:
        raise DataError(
            f"Tatoeba's {language}-eng is not on this machine: fetch data/tatoeba/v1 of github.com/facebookresearch/LASER, "
            "and give its folder, as in data=FOLDER"
        )
    return contents(path).decode("utf-8", "replace").strip("\n").split("\n")
