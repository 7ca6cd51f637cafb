"""The claims that look at what is here: families of models, benchmarks of a suite, and published shapes."""

import sys
from types import SimpleNamespace

import pytest

from firsthand import catalog
from firsthand.claims import live_bytes
from firsthand.claims.architecture import (
    cached_users,
    cost_by_length,
    flash_attention_memory,
    fp32_70b_memory,
    gqa_saves_cache,
    kv_memory_formula,
    llama_70b_on_a_mac,
    mixtral_parameters,
    rope_families,
    sliding_window_cache,
    vocabulary_sizes,
    work_without_cache,
)
from firsthand.claims.benchmarks import mteb_datasets
from firsthand.claims.claim import Measurement
from firsthand.claims.lab import Lab
from firsthand.claims.papers import agentbench_environments, transformer_ancestry
from firsthand.claims.patterns import working_memory_window
from firsthand.hub import resource_plan
from firsthand.hub.model_shapes import KNOWN_SHAPES
from firsthand.kernels.attention import flash_attention
from firsthand.nn import families


def test_a_loader_uses_alibi_if_it_names_slopes_and_else_rope_in_whatever_case(tmp_path, monkeypatch):
    texts = {
        "llama": "uses RoPE", "mixtral": "alibi_slopes and rope", "qwen": "learned", "gemma": "rope",
        "bloom": "alibi_slopes", "mpt": "an alibi, Rope",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(f"# {text} é\n", encoding="utf-8")
    monkeypatch.setattr(families, "__file__", str(tmp_path / "__init__.py"))
    assert rope_families.measure(Lab(0)) == Measurement(
        0.5,
        "share of the families whose loader uses what the list says",
        columns=("family", "list", "loader"),
        rows=(
            ("llama", "RoPE", "RoPE"), ("mixtral", "RoPE", "ALiBi"), ("qwen", "RoPE", "other"),
            ("gemma", "RoPE", "RoPE"), ("bloom", "ALiBi", "ALiBi"), ("mpt", "ALiBi", "RoPE"),
        ),
    )  # fmt: skip


def test_families_are_the_loaders_without_their_shared_parts(tmp_path, monkeypatch):
    for name in ("zeta", "alpha", "rope_config", "shared_fields", "deepseek_gguf", "__init__", "Beta", "mamba"):
        (tmp_path / f"{name}.py").write_text("num_heads = 1\n" if name in ("zeta", "rope_config") else "x = 1\n")
    (tmp_path / "notes.txt").write_text("num_heads")
    monkeypatch.setattr(families, "__file__", str(tmp_path / "__init__.py"))
    assert transformer_ancestry.measure(Lab(0)) == Measurement(
        3,
        "families that our decoder loads, all of them Transformers",
        columns=("family", "heads"),
        rows=(("alpha", "built on another family"), ("mamba", "built on another family"), ("zeta", "attention")),
    )


def test_environments_are_the_benchmarks_of_the_suites_name(monkeypatch):
    asked = []
    names = ["agentbench_os", "agentbench", "agentbench_db", "not_agentbench_x", "gsm8k"]
    monkeypatch.setattr(catalog, "names", lambda kind: asked.append(kind) or names)
    assert agentbench_environments.measure(Lab(0)) == Measurement(
        2,
        "environments of AgentBench that run here",
        columns=("benchmark",),
        rows=(("agentbench_db",), ("agentbench_os",)),
    )
    assert asked == ["benchmark"]


def values(name, length):
    """Keys and values of a sequence of a model without a window."""
    shape = KNOWN_SHAPES[name]
    return 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * length


def test_caches_of_published_shapes_are_counted_in_mebibytes():
    names = ("llama-3-8b", "llama-3-70b", "mistral-7b", "qwen2.5-7b", "smollm2-135m")
    rows = []
    for name in names:
        group = KNOWN_SHAPES[name].num_heads / KNOWN_SHAPES[name].num_kv_heads
        mebibytes = 2 * values(name, 4096) / 2**20
        rows.append((name, mebibytes * group, mebibytes, group))
    found = gqa_saves_cache.measure(Lab(0))
    assert found.rows == tuple(rows) and found.value == 4.0 and found.columns[1:] == (
        "MiB with all heads, 4,096 tokens", "MiB with GQA", "times smaller",
    )  # fmt: skip
    lengths = (1024, 2048, 4096, 8192, 32_768)
    windows = tuple(
        (str(n), values("mistral-7b", n) / 2**19, values("mistral-7b", min(n, 4096)) / 2**19) for n in lengths
    )
    assert sliding_window_cache.measure(Lab(0)) == Measurement(
        1.0,
        "cache of Mistral 7B at 32,768 tokens over that at 4,096",
        columns=("tokens", "MiB without window", "MiB with window 4,096"),
        rows=windows,
        curves={
            "no window": [(float(n), row[1]) for n, row in zip(lengths, windows, strict=True)],
            "window 4,096": [(float(n), row[2]) for n, row in zip(lengths, windows, strict=True)],
        },
        axes=("tokens", "MiB"),
    )
    sizes = (64, 128, 512)
    assert kv_memory_formula.measure(Lab(4)) == Measurement(
        1.0,
        "values kept over the formula's",
        columns=("tokens", "values kept", "formula", "bytes at float16"),
        rows=tuple((str(n), 3.0 * 2 * n * 2 * 16, 3.0 * 2 * n * 2 * 16, 2 * 3.0 * 2 * n * 2 * 16) for n in sizes),
    )


def test_windows_and_vocabularies_are_those_of_the_shapes():
    rows = tuple((name, float(s.max_position), float(s.max_position // 200)) for name, s in KNOWN_SHAPES.items())
    second = list(KNOWN_SHAPES)[1]
    assert second.startswith("smollm2")
    assert working_memory_window.measure(Lab(0)) == Measurement(
        rows[1][2],
        "turns of 200 tokens that SmolLM2's window holds",
        columns=("model", "window", "turns"),
        rows=rows,
    )
    entries = tuple((name, float(s.vocab_size)) for name, s in KNOWN_SHAPES.items())
    assert vocabulary_sizes.measure(Lab(0)) == Measurement(
        128_256,
        "entries of Llama 3's vocabulary",
        columns=("model", "entries"),
        rows=(("cl100k_base (published rank file)", 100_261.0), *entries),
    )


def test_a_steps_cache_and_weights_are_even_at_the_weights_over_the_cache_of_a_token():
    found = cost_by_length.measure(Lab(0))
    lengths = (1024, 8192, 131_072, 1_048_576)
    rows, lines = [], {}
    for name in ("llama-2-7b", "llama-3-8b", "llama-3-70b"):
        for batch in (1, 32):
            weights = KNOWN_SHAPES[name].read_parameters(batch)
            shares = [batch * values(name, n) / (batch * values(name, n) + weights) for n in lengths]
            arm = f"{name}, {batch} at once"
            rows.append(
                (arm, float(round(weights / (batch * values(name, 1)))), *(round(share, 3) for share in shares))
            )
            lines[arm] = [(float(n), share) for n, share in zip(lengths, shares, strict=True)]
    assert found == Measurement(
        rows[2][1],
        "tokens of context at which a step of Llama 3 8B reads as much cache as weights, one sequence at a time",
        unit="tokens",
        columns=(
            "model, sequences", "tokens for an even share", "cache at 1,024", "cache at 8,192", "cache at 131,072",
            "cache at 1,048,576",
        ),
        rows=tuple(rows),
        curves={name: lines[name] for name in ("llama-3-8b, 1 at once", "llama-3-8b, 32 at once")},
        axes=("tokens of context", "share of the bytes read"),
    )  # fmt: skip


def test_compute_without_a_cache_is_that_of_all_tokens_so_far():
    shape = KNOWN_SHAPES["llama-3-8b"]
    flops, rows = resource_plan.forward_flops, []
    for length in (10, 100, 1000, 10_000):
        step = max(1, length // 64)
        again = step * sum(flops(shape, seen) for seen in range(1, length + 1, step))
        room = (80e9 - 2 * shape.parameters) / (2 * values("llama-3-8b", length))
        rows.append((str(length), pytest.approx(again / flops(shape, length)), pytest.approx(room)))
    found = cached_users.measure(Lab(0))
    assert (list(found.rows), found.value) == (rows, found.rows[2][1])
    assert 900 < found.value < 1100, "the length"


def test_memory_of_70b_models_is_of_the_type_that_is_named(monkeypatch):
    asked = []

    class Plan:
        def __init__(self, dtype):
            number = ("float32", "float16", "int8", "nf4", "int4").index(dtype) + 1
            self.weight_bytes, self.total_bytes = number * 3e9, number * 5e9

    def plan_serving(shape, dtype, **more):
        asked.append((shape is KNOWN_SHAPES["llama-2-70b"], shape is KNOWN_SHAPES["llama-3-70b"], dtype, more))
        return Plan(dtype)

    monkeypatch.setattr(resource_plan, "plan_serving", plan_serving)
    assert fp32_70b_memory.measure(Lab(0)) == Measurement(
        3.0,
        "bytes of the weights of Llama 2 70B in float32",
        unit="GB",
        columns=("weights", "GB with 4,096 tokens of cache"),
        rows=(("float32", 5.0), ("float16", 10.0), ("int8", 15.0), ("nf4", 20.0)),
    )
    assert {each[:2] for each in asked} == {(True, False)} and {len(each[3]) for each in asked} == {0}
    asked.clear()
    assert llama_70b_on_a_mac.measure(Lab(0)) == Measurement(
        25.0,
        "Llama 3 70B at int4 with 8,192 tokens of cache",
        unit="GB",
        columns=("weights", "GB"),
        rows=(("int4", 25.0), ("int8", 15.0), ("float16", 10.0)),
    )
    assert asked == [(False, True, dtype, {"context": 8192}) for dtype in ("int4", "int8", "float16")]


def test_tokens_through_a_layer_are_counted_with_and_without_a_cache(monkeypatch):
    monkeypatch.setattr(work_without_cache, "LENGTHS", (2, 4, 8))
    found = work_without_cache.measure(Lab(3))
    rows = (("2", 3.0, 2.0), ("4", 10.0, 4.0), ("8", 36.0, 8.0))
    assert found == Measurement(
        pytest.approx(1.7925, abs=1e-4),  # log(12) / log(4)
        "exponent of the work without a cache in the length (with it: 1.00)",
        columns=("tokens", "tokens through a layer, no cache", "with cache"),
        rows=rows,
        curves={
            "no cache": [(float(row[0]), row[1]) for row in rows], "cache": [(float(row[0]), row[2]) for row in rows],
        },
        axes=("tokens generated", "tokens through a layer"),
    )  # fmt: skip


def test_the_packages_datasets_are_counted_where_it_is_installed_and_knows_the_board(monkeypatch):
    asked = []

    class Board:
        tasks = (1, 2, 3)

    def get_benchmark(name):
        asked.append(name)
        return Board()

    monkeypatch.setitem(sys.modules, "mteb", SimpleNamespace(get_benchmark=get_benchmark))
    assert mteb_datasets._in_the_package() == 3 and asked == ["MTEB(eng, v1)"]
    monkeypatch.setitem(sys.modules, "mteb", SimpleNamespace())
    assert mteb_datasets._in_the_package() is None
    monkeypatch.setitem(sys.modules, "mteb", None)
    assert mteb_datasets._in_the_package() is None


def test_the_growth_of_memory_is_from_the_second_length_to_the_last(monkeypatch):
    monkeypatch.setattr(flash_attention_memory, "LENGTHS", (8, 16, 32, 64))
    full, tiled, asked = iter((3, 2, 5, 32)), iter((9, 1, 7, 4)), []

    def peak_bytes(call):
        asked.append(([tuple(each.shape) for each in call.args], call.keywords))
        call()
        return float(next(tiled if call.keywords else full)) * 2**20

    monkeypatch.setattr(live_bytes, "peak_bytes", peak_bytes)
    found = flash_attention_memory.measure(Lab(3))
    assert [row[:3] for row in found.rows] == [
        (str(length), a * 2.0**20, b * 2.0**20)
        for length, a, b in zip((8, 16, 32, 64), (3, 2, 5, 32), (9, 1, 7, 4), strict=True)
    ]
    assert all(0 <= row[3] < 1e-5 for row in found.rows), "both compute the same"
    assert found == Measurement(
        pytest.approx(1.0),  # four times the bytes at four times the length
        "exponent of the tiled kernel's peak memory in the length (in full: 2.00)",
        columns=("tokens", "peak bytes in full", "peak bytes tiled", "largest difference"),
        rows=found.rows,
        curves={
            "scores in full": [(8.0, 3.0), (16.0, 2.0), (32.0, 5.0), (64.0, 32.0)],
            "tiled": [(8.0, 9.0), (16.0, 1.0), (32.0, 7.0), (64.0, 4.0)],
        },
        axes=("tokens", "peak MiB"),
    )
    scale = {"scale": 32**-0.5}
    assert [(shapes[0], more) for shapes, more in asked] == [
        ((1, 2, length, 32), more and pytest.approx(more)) for length in (8, 16, 32, 64) for more in ({}, scale)
    ]


def test_the_largest_difference_counts_on_either_side(monkeypatch):
    monkeypatch.setattr(flash_attention_memory, "LENGTHS", (2, 3, 4, 5))
    monkeypatch.setattr(live_bytes, "peak_bytes", lambda call: 1.0)
    true, off = flash_attention.flash_attention, iter(((0.75, -0.25), (0.25, -0.75), (-0.5, -0.5), (0.0, 0.0)))

    def wrong(q, k, v, *, scale):
        made = true(q, k, v, scale=scale)
        made[0, 0, 0, 0], made[0, 1, -1, -1] = (
            value + more for value, more in zip((made[0, 0, 0, 0], made[0, 1, -1, -1]), next(off), strict=True)
        )
        return made

    monkeypatch.setattr(flash_attention, "flash_attention", wrong)
    found = flash_attention_memory.measure(Lab(3))
    assert found.rows == tuple(
        (str(length), 1.0, 1.0, pytest.approx(gap, abs=1e-5))
        for length, gap in zip((2, 3, 4, 5), (0.75, 0.75, 0.5, 0.0), strict=True)
    )
    assert found.value == 0.0


def test_experts_and_active_parameters_of_mixtral_are_counted_from_its_config():
    attention, norms = 4096 * (2 * 4096 + 2 * 1024), 2 * 4096
    expert, router = 3 * 4096 * 14_336, 8 * 4096
    total = 2 * 32_000 * 4096 + 4096 + 32 * (attention + norms + 8 * expert + router)
    active = total - 32 * 6 * expert
    assert mixtral_parameters.measure(Lab(0)) == Measurement(
        total / 1e9,
        "parameters of the model built from its config (12.9 active)",
        unit="B",
        columns=("part", "B"),
        rows=(("total", total / 1e9), ("active per token", active / 1e9), ("one expert of a layer", expert / 1e9)),
    )
