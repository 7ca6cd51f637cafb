"""What `firsthand models inspect` expects of a model here, against arithmetic by hand and the engine's own sizes."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from engine_tiny import tiny_model
from firsthand.cli import main
from firsthand.commands.models import expectation
from firsthand.engine.core.engine import Engine
from firsthand.engine.core.engine_config import EngineConfig
from firsthand.hub.inspection import inspect
from firsthand.hub.planner import PROMPT, nearest, plan, prefill_gflop
from firsthand.measure import machine_speeds
from firsthand.measure.machine import describe
from firsthand.measure.machine_speeds import Speeds, is_below
from firsthand.measure.measurements import Measured, save_result
from firsthand.measure.speed_bounds import benchmarked_speeds, speed_limits
from firsthand.measure.workloads import weights_read
from firsthand.nn import weights
from firsthand.nn.architecture import Architecture
from test_commands_bench import SPEEDS, result
from tiny import write_model


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


def matrices(a: Architecture) -> int:
    """Weights of all layers' matrices."""
    heads = (2 * a.num_heads + 2 * a.num_kv_heads) * a.head_dim
    return a.num_layers * (a.hidden_size * heads + 3 * a.hidden_size * a.intermediate_size)


@pytest.mark.parametrize("tied", [True, False])
def test_a_header_tells_what_a_step_reads_and_computes(tmp_path: Path, tied: bool) -> None:
    model = tiny_model(tied=tied)
    a = model.architecture
    weights.save(model, tmp_path)
    facts = inspect(tmp_path)
    norms = a.hidden_size * (2 * a.num_layers + 1)
    assert facts.head_parameters == a.vocab_size * a.hidden_size
    assert facts.decode_parameters == matrices(a) + facts.head_parameters + norms
    assert facts.attention_width == a.num_layers * a.num_heads * a.head_dim
    assert facts.kv_bytes_per_token == a.kv_bytes_per_token(2) and facts.block_bytes is None


def test_bounds_follow_from_bytes_and_operations(tmp_path: Path) -> None:
    weights.save(tiny_model(), tmp_path)
    facts = inspect(tmp_path)
    made = plan(facts, SPEEDS, 1 << 20, [], "m")
    by_kind = {bound.weights: bound for bound in made.bounds}
    assert set(by_kind) == {"float16", "int8"}
    half, whole = by_kind["float16"], by_kind["int8"]
    assert half.read_bytes == 2 * facts.decode_parameters
    assert half.decode == pytest.approx(20e9 / half.read_bytes) and whole.decode > 1.8 * half.decode
    head, width = facts.head_parameters, facts.attention_width
    assert head and width and facts.kv_bytes_per_token
    gflop = prefill_gflop(facts.decode_parameters, head, width)
    assert half.prefill == pytest.approx(100 / gflop) and whole.prefill == pytest.approx(400 / gflop)
    assert made.kv_tokens == (1 << 20) // facts.kv_bytes_per_token
    assert made.kv_bytes == {count: count * 2048 * facts.kv_bytes_per_token for count in (1, 8, 32)}
    assert made.expected is None and "firsthand bench MODEL" in expectation(None)
    assert json.loads(json.dumps(made.to_json()))["kv_bytes"]["32"] == made.kv_bytes[32]


def test_operations_of_a_prompt_are_counted_pair_by_pair() -> None:
    layers, heads, dim, body = 2, 6, 16, 1000
    pairs = sum(position + 1 for position in range(PROMPT))  # a token sees itself and those before it
    by_hand = (2 * body * PROMPT + 4 * layers * heads * dim * pairs) / PROMPT / 1e9
    assert prefill_gflop(body + 300, 300, layers * heads * dim) == pytest.approx(by_hand)


def test_a_measurement_of_the_same_model_is_what_to_expect(tmp_path: Path) -> None:
    weights.save(tiny_model(), tmp_path)
    facts = inspect(tmp_path)
    for same in (result(model="m"), result(model="other", path=str(tmp_path.resolve()))):
        expected = plan(facts, SPEEDS, 1 << 20, [result(model="c"), same], "m").expected
        assert expected is not None and expected.is_same
        assert (expected.decode, expected.prefill) == (100.0, 800.0)
        assert expected.decode_share == pytest.approx(100 * 100_000_000 / 20e9)
        assert expected.prefill_share == pytest.approx(800 * 0.25 / 400)
        assert "Measured on 2026-11-25 with weights in int8: 100 tokens/s decoding, 800 in prefill" in expectation(
            expected
        )


def test_no_bound_is_below_what_was_reached(tmp_path: Path) -> None:
    weights.save(tiny_model(), tmp_path)
    facts = inspect(tmp_path)
    # decode 1 at best 120 x 0.1 GB, prompts at best 900 x 0.25: beside a busy core both were measured lower
    kept = result(model="m", speeds=replace(SPEEDS, read_gb_s=3.0, int8_gop_s=67.0))
    wrong = replace(SPEEDS, read_gb_s=5.0, int8_gop_s=67.0, load=1e3)
    assert benchmarked_speeds([kept]) == {"read_gb_s": pytest.approx(12.0), "int8_gop_s": pytest.approx(225.0)}
    assert is_below(wrong, benchmarked_speeds([kept])) and not is_below(SPEEDS, benchmarked_speeds([kept]))
    made = plan(facts, wrong, 1 << 20, [kept], "m")
    half, whole = ({bound.weights: bound for bound in made.bounds}[name] for name in ("float16", "int8"))
    head, width = facts.head_parameters, facts.attention_width
    assert head and width and whole.prefill and made.expected
    gflop = prefill_gflop(facts.decode_parameters, head, width)
    assert whole.prefill == pytest.approx(225 / gflop) and half.prefill == pytest.approx(100 / gflop)
    assert whole.decode == pytest.approx(12e9 / whole.read_bytes)
    assert made.expected.decode_share == pytest.approx(100 / 120)
    assert made.expected.prefill_share == pytest.approx(800 / 900)
    said = " ".join(made.notes)
    assert "beside other programs" not in said, "the benchmark's own measurement was a quiet one"
    assert "12.0 GB" in said and "225 x 10^9" in said and "float16 are bounded by what a benchmark here read" in said
    assert plan(facts, SPEEDS, 1 << 20, [kept], "m").notes == ()
    doubtful = plan(facts, replace(SPEEDS, load=1e3), 1 << 20, [], "m")
    [busy] = doubtful.notes
    assert doubtful.is_busy and not made.is_busy
    assert "beside other programs (load 1000.0)" in busy


def test_a_small_models_reading_says_nothing_of_a_larger_one() -> None:
    small = result(weight_bytes=1_000, figures=(Measured("decode 1", "tokens/s", "", (1e9,)),))
    most = speed_limits(SPEEDS, [small])
    assert most.read_gb_s(1_000) == 1_000 and most.read_gb_s(1_001) == SPEEDS.read_gb_s


@pytest.mark.slow
def test_inspect_measures_again_what_a_kept_figure_disproves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_model(tmp_path / "model")
    here = describe()
    path = tmp_path / "home" / "machine" / f"{here.key}-{here.cores}.json"
    machine_speeds._write(path, here, Speeds(here.cores, 1e-6, 1e-6, 1e-6, 1e-6, load=1e3))
    save_result(
        result(path=str(folder.resolve()), machine=here.to_json(), speeds=Speeds(here.cores, 1e-6, 1e-6, load=1e3))
    )
    assert main(["models", "inspect", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "beside other programs (load 1000.0)" in printed and "at most" not in printed
    os.utime(path, (0, 0))
    assert main(["models", "inspect", str(folder), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["plan"]
    assert made["speeds"]["read_gb_s"] > 0.01 and made["speeds"]["float32_gflop_s"] > 0.01
    assert made["expected"]["decode_share"] <= 1 and made["expected"]["prefill_share"] <= 1


def test_without_one_the_model_nearest_in_size_tells_the_share(tmp_path: Path) -> None:
    weights.save(tiny_model(), tmp_path)
    facts = inspect(tmp_path)
    near, far = result(model="near", parameters=10**6), result(model="far", parameters=10**9, weights="float16")
    expected = plan(
        facts, SPEEDS, 1 << 20, [far, near, result(model="quick", parameters=10**5, quick=True)], "m"
    ).expected
    assert expected is not None and not expected.is_same and expected.measured_model == "near"
    bound = next(each for each in plan(facts, SPEEDS, 1 << 20, [], "m").bounds if each.weights == "int8")
    assert expected.decode == pytest.approx(0.5 * bound.decode) and bound.prefill is not None
    assert expected.prefill == pytest.approx(0.5 * bound.prefill)
    assert expectation(expected).startswith("Expect ") and "near, with weights in int8" in expectation(expected)
    floats = plan(facts, SPEEDS, 1 << 20, [far], "m").expected
    assert floats is not None and floats.decode == pytest.approx(0.5 * 20e9 / (2 * facts.decode_parameters))


@pytest.mark.parametrize(
    ("sizes", "closest"),
    [((2.0, 3.0), 2.0), ((0.25, 3.0), 3.0), ((0.4, 3.0), 0.4), ((3.0, 0.01), 3.0), ((100.0, 0.5), 0.5)],
)
def test_the_nearest_in_size_is_that_of_the_smallest_ratio_either_way(
    tmp_path: Path, sizes: tuple[float, ...], closest: float
) -> None:
    weights.save(tiny_model(), tmp_path)
    facts = inspect(tmp_path)
    results = [result(model=str(size), parameters=int(size * facts.decode_parameters)) for size in sizes]
    for order in (results, results[::-1]):
        found, is_same = nearest(order, facts, "another")
        assert found is not None and (found.model, is_same) == (str(closest), False)
    assert nearest(results, facts, str(sizes[1])) == (results[1], True) and nearest([], facts, "m") == (None, False)


@pytest.mark.slow
def test_inspect_prints_the_plan_and_can_do_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_model(tmp_path / "model")
    assert main(["models", "inspect", str(folder), "--no-plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"] is None
    assert not (tmp_path / "home" / "machine").exists()
    assert main(["models", "inspect", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "tokens/s on this machine" in printed and "GB/s read" in printed and "32 conversations" in printed
    assert (tmp_path / "home" / "machine").exists()


@pytest.mark.weights
def test_the_header_tells_how_many_bytes_the_engine_keeps(smollm2: Path) -> None:
    facts = inspect(smollm2)
    engine = Engine(weights.load(smollm2, keep_blocks=True), EngineConfig(kv_memory_bytes=1 << 24))
    _, size_bytes = weights_read(engine)
    assert facts.block_bytes == size_bytes
