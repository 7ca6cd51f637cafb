"""`firsthand bench` and `models inspect` of an encoder: a tiny real one, and arithmetic by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from embedder_tiny import write_embedder
from firsthand.cli import main
from firsthand.commands.bench_encoder import mean_attended
from firsthand.commands.models import encoder_expectation
from firsthand.hub.encoder_planner import TOKENS, encoder_gflop, plan_encoder
from firsthand.hub.inspection import inspect
from firsthand.measure.measurements import BenchResult, Measured
from firsthand.measure.speed_bounds import benchmarked_speeds, known_products, speed_limits
from test_commands_bench import SPEEDS, result

HIDDEN, INNER, LAYERS = 64, 128, 2
MATRICES = LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedder(tmp_path_factory.mktemp("encoder") / "model")


def embedded(**changes: object) -> BenchResult:
    """A result of an encoder: 2,000 tokens/s at best, of 0.01 x 10^9 operations each."""
    figures = (
        Measured("embeddings", "texts/s", "", (9.0, 10.0, 20.0)),
        Measured("embeddings: tokens", "tokens/s", "", (900.0, 1000.0, 2000.0)),
    )
    return result(**{"model": "e", "weights": "int16", "prefill_gflop": 0.01, "figures": figures, **changes})


def test_a_token_attends_to_its_own_text_so_that_long_ones_weigh_more() -> None:
    assert mean_attended([2, 4]) == (4 + 16) / 6 and mean_attended([3]) == 3


@pytest.mark.slow
def test_an_encoder_is_measured_by_documents_of_mixed_length(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "b.json"
    assert main(["bench", str(encoder), "--quick", "--threads", "1", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    found = BenchResult.from_json(json.loads(file.read_text()))
    by_name = {figure.name: figure.median for figure in found.figures}
    assert set(by_name) == {"embeddings", "embeddings: tokens", "memory: model"}
    assert 4 * by_name["embeddings"] < by_name["embeddings: tokens"] < 100 * by_name["embeddings"]
    assert found.is_encoder and found.quick and found.parameters == MATRICES
    assert found.weight_bytes == MATRICES * {"int16": 2, "float32": 4}[found.weights]
    attention = found.prefill_gflop - 2 * MATRICES / 1e9
    assert 4 < attention * 1e9 / (4 * LAYERS * HIDDEN) <= 32  # texts are cut to 32 tokens
    assert "read for each pack of texts" in printed and "documents of 4-60 words" in printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "decode"], "no figure has such a word in its name; there are embeddings"),
        (["--weights", "int8"], "weights is 'int8'"),
        (["--kv-cache", "float16"], "kv_cache is 'float16'"),
        (["--device", "cuda"], "device is 'cuda'"),
    ],
)
def test_what_an_encoder_does_not_have_is_refused(
    encoder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["bench", str(encoder), "--quick", *words]) == 2
    assert said in capsys.readouterr().err


def test_texts_are_bounded_by_their_operations(encoder: Path) -> None:
    facts = inspect(encoder)
    assert (facts.decode_parameters, facts.attention_width) == (MATRICES, LAYERS * HIDDEN)
    made = plan_encoder(facts, SPEEDS, [], "e")
    # each of the tokens sees all: scores and sums, two operations each, for every pair and channel
    operations = 2 * MATRICES * TOKENS + 4 * TOKENS * TOKENS * LAYERS * HIDDEN
    assert made.texts == pytest.approx(200e9 / operations)  # numbers of 16 bits: half of int8's 400
    assert made.expected is None and made.notes == () and not made.is_busy
    assert "No encoder has been measured here" in encoder_expectation(None)
    assert json.loads(json.dumps(made.to_json()))["tokens_per_text"] == TOKENS
    doubtful = plan_encoder(facts, replace(SPEEDS, load=1e3), [], "e")
    assert doubtful.is_busy and "load 1000.0" in doubtful.notes[0]


def test_a_measured_encoder_says_what_to_expect_and_raises_a_wrong_bound(encoder: Path) -> None:
    facts = inspect(encoder)
    generator, far = result(), embedded(model="far", parameters=10**9)
    made = plan_encoder(facts, SPEEDS, [generator, far, embedded()], "e")
    expected = made.expected
    assert expected is not None and expected.is_same and (expected.texts, expected.tokens) == (10.0, 1000.0)
    assert expected.share == pytest.approx(1000 * 0.01 / 200)
    assert "10 documents of mixed length a second, 1,000 tokens/s" in encoder_expectation(expected)
    other = plan_encoder(facts, SPEEDS, [generator, embedded(model="near", parameters=MATRICES), far], "e").expected
    assert other is not None and not other.is_same and other.measured_model == "near" and other.texts is None
    assert other.tokens == pytest.approx(0.05 * 200 / encoder_gflop(MATRICES, LAYERS * HIDDEN, TOKENS))
    assert encoder_expectation(other).startswith("Expect about ")
    slow = replace(SPEEDS, float32_gflop_s=3.0, int8_gop_s=8.0)
    raised = plan_encoder(facts, slow, [embedded(speeds=slow)], "e")
    assert raised.expected is not None and raised.expected.share == pytest.approx(0.5)  # 1,000 of the 2,000 at best
    assert "20 x 10^9" in raised.notes[0] and benchmarked_speeds([embedded()])["int8_gop_s"] == pytest.approx(20)


def test_kinds_of_weights_have_products_of_their_own() -> None:
    kinds = ("float32", "float16", "int16", "int8", "the file's blocks")
    assert [known_products(SPEEDS, kind) for kind in kinds] == [100, 100, 200, 400, 400]
    assert {known_products(replace(SPEEDS, int8_gop_s=None), kind) for kind in kinds} == {100}
    most = speed_limits(SPEEDS, [embedded(prefill_gflop=1.0)])
    assert [most.products_gop_s(kind) for kind in kinds] == [100, 100, 2000, 400, 400]
    assert math.isclose(embedded().products_gop_s, 20.0) and embedded().read_gb_s == 0


@pytest.mark.slow
def test_inspect_prints_an_encoders_prospects(encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "inspect", str(encoder)]) == 0
    printed = capsys.readouterr().out
    assert "Texts of 128 tokens" in printed and "No encoder has been measured here" in printed
    assert main(["models", "inspect", str(encoder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["texts"] > 0


def test_each_figure_has_its_row_however_often_it_was_measured() -> None:
    figures = (
        Measured("one", "s", "once", (5.0,)), Measured("two", "s", "twice", (5.0, 7.0)),
        Measured("same", "s", "alike", (0.5, 0.5)),
    )  # fmt: skip
    rows = [line for line in embedded(figures=figures).markdown().splitlines() if line.startswith("|")]
    assert rows == [
        "| figure | median (range) | what it is |", "| --- | --- | --- |", "| one | 5 s | once |",
        "| two | 6 (5-7) s | twice |", "| same | 0.50 s | alike |",
    ]  # fmt: skip
