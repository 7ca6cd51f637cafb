"""`contamination` on a benchmark of two items and a folder of texts: evidence, verdict, limits and exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand import catalog
from firsthand.commands import contamination
from firsthand.commands.contamination import Config
from firsthand.contamination import contamination_tests
from firsthand.contamination.leak_evidence import ContaminationReport, Evidence
from firsthand.contamination.ngram_overlap import LIMITS, CorpusIndex
from firsthand.errors import ConfigError
from printed_tables import right_cells, widen, words

LEAKED = "the quick brown fox jumps over the lazy dog while seventeen small birds sing loudly in the old oak tree"
CLEAN = "a slow green turtle crawls under the eager cat until eighteen large fish swim quietly in the new pine pond"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file of a benchmark of two items, beside a folder with one of them."""
    monkeypatch.chdir(tmp_path)
    widen(monkeypatch, contamination)
    Path("own.py").write_text(
        "from firsthand.benchmark import Benchmark\nfrom firsthand.task import Task\n\n\ndef own() -> Benchmark:\n"
        f"    return Benchmark('own', lambda seed: [Task('a', {CLEAN!r}), Task('b', {LEAKED!r})], ())\n"
    )
    Path("texts").mkdir()
    Path("texts/one.txt").write_text(f"Before. {LEAKED}. After.")
    return str(tmp_path / "own.py")


def test_items_that_stand_in_a_folder_or_its_index_are_told_with_their_file(
    own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert contamination.main(Config(own, corpus="texts", limit=1)) == 3, "all items are searched for"
    told = words(capsys.readouterr().out)
    assert told[:2] == ["own: texts", "test p p corrected evidence"]
    assert told[2].startswith("n-grams - - 1 of 2 items in 0.0 MB (texts); b has 8 of 8 n-grams there, in ")
    assert told[-2:] == ["Limits:", f"- {LIMITS}"]
    assert contamination.main(Config(own, corpus="texts", build_index="made", json=True)) == 3
    body = json.loads(capsys.readouterr().out)
    assert (body["verdict"], body["corpus"], body["model"]) == ("overlap", "texts", "")
    [evidence] = body["evidence"]
    assert evidence["test"] == "n-grams" and evidence["flagged"] == ["b"] and "an index of texts" in evidence["detail"]
    assert CorpusIndex(Path("made")).source == "texts"
    Path("texts/one.txt").write_text("nothing of it")
    assert contamination.main(Config(own, index="made", json=True)) == 3
    body = json.loads(capsys.readouterr().out)
    assert body["corpus"] == "made" and body["evidence"][0]["flagged"] == ["b"]
    assert contamination.main(Config(own, corpus="texts", tests=("n-grams",))) == 0
    assert words(capsys.readouterr().out)[2].startswith("n-grams - - 0 of 2 items")
    assert contamination.main(Config(own, corpus="texts", tests=("order", "n-grams"))) == 0, (
        "the one of two that can be"
    )
    assert [line.split()[0] for line in words(capsys.readouterr().out)[2:3]] == ["n-grams"]


def test_the_overlap_stands_before_the_models_tests_and_models_are_closed_in_any_case(
    own: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(
        catalog,
        "model",
        lambda name, device: SimpleNamespace(name=f"{name}@{device}", close=lambda: closed.append(name)),
    )
    asked: list[Any] = []
    found = [Evidence("order", "asks", 1.0, 0.04, 9, "8 of 9", limits="Not paraphrases."),
             Evidence("min-k%", "asks", 1.0, 0.03, 9, "5 of 9", limits=LIMITS),
             Evidence("canary", "asks", limits="x")]  # fmt: skip

    async def study(*given: Any, **named: Any) -> ContaminationReport:
        asked.append((given, named))
        if not found:
            raise ConfigError("it broke")
        return ContaminationReport("own", "the model", tuple(found))

    monkeypatch.setattr(contamination_tests, "contamination", study)
    config = Config(own, "m", "r", "texts", device="cuda", limit=1, seed=4, canary="C", guided=True)
    assert contamination.main(config) == 3
    out = capsys.readouterr().out
    told = words(out)
    assert right_cells(out, "p") == ["-", "0.04", "0.03", "-"] and right_cells(out, "p corrected")[:2] == ["-", "0.06"]
    # Holm: the smaller of two p-values is doubled, and the larger is no smaller than that
    assert told[0] == "own: the model and texts" and told[2].startswith("n-grams - - 1 of 2 items")
    assert told[3:6] == ["order 0.04 0.06 8 of 9", "min-k% 0.03 0.06 5 of 9", "canary - -"]
    assert told[-3:] == ["Limits:", f"- {LIMITS}", "- Not paraphrases."] and closed == ["m", "r"]
    (name, tasks, model), named = asked[0]
    assert (name, [task.id for task in tasks], model.name) == ("own", ["a"], "m@cuda")
    order = [each for each in contamination_tests.TESTS if each != "n-grams"]
    assert named["reference"].name == "r@cuda" and {**named, "reference": None} == {
        "reference": None, "canary": "C", "guided": True, "tests": order, "seed": 4,
    }  # fmt: skip
    some = replace(config, tests=("options", "order"), reference="")
    contamination.main(some)
    assert (
        asked[1][1]["tests"] == [each for each in order if each in ("order", "options")]
        and not asked[1][1]["reference"]
    )
    assert "n-grams" not in capsys.readouterr().out and closed[2:] == ["m"]
    contamination.main(replace(some, corpus="", tests=("n-grams", "options")))
    assert asked.pop()[1]["tests"] == ["options"] and closed.pop() == "m", "without texts, the one that can be"
    Path("many.py").write_text(Path(own).read_text().replace("own", "many").replace("[Task", "50 * [Task"))
    contamination.main(replace(some, benchmark=str(Path("many.py").absolute()), limit=None))
    assert len(asked[2][0][1]) == 100 and closed.pop() == "m"
    found.clear()
    with pytest.raises(ConfigError, match="it broke"):
        contamination.main(config)
    assert closed[3:] == ["m", "r"]


def test_nothing_in_question_and_tests_without_their_subject_are_refused(own: str, refusal: Callable[..., str]) -> None:
    for given, told in (
        ({}, "nothing is in question: give --model, or --corpus or --index"),
        (
            {"corpus": "c", "index": "i", "model": "m"},
            "corpus and index do not go together: an index stands in place of its corpus",
        ),
        ({"index": "i", "build_index": "b"}, "build_index needs a corpus: name its folder with --corpus"),
        ({"corpus": "c", "reference": "r"}, "reference is a control for a model: name it with --model"),
        ({"model": "m", "limit": 0}, "limit is 0: give 1 or more"),
    ):
        assert refusal(lambda given=given: Config(own, **given)) == told
    Config(own, corpus="c", build_index="b", limit=1, model="m", reference="r")
    every = ", ".join(contamination_tests.TESTS)
    for config, told in (
        (Config(own, "m", tests=("order", "psychic")), f"tests names 'psychic': give {every}"),
        (Config(own, corpus="texts", tests=("order",)), "the test order asks a model: name one with --model"),
        (Config(own, "m", tests=("n-grams",)), "the test n-grams searches texts: give --corpus or --index"),
    ):
        assert refusal(lambda config=config: contamination.main(config)) == told


@pytest.fixture
def refusal() -> Callable[..., str]:
    """The sentence that a call is refused with."""

    def told(call: Callable[[], object]) -> str:
        with pytest.raises(ConfigError) as refused:
            call()
        return str(refused.value)

    return told
