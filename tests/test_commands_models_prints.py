"""What `firsthand models` prints of a model, its speeds here and its needs elsewhere, and the words it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firsthand.commands import models, models_plan
from firsthand.commands.models import encoder_expectation, expectation, print_inspection, print_plan
from firsthand.errors import ConfigError
from firsthand.hub.encoder_planner import EncoderPlan, ExpectedTexts
from firsthand.hub.inspection import Inspection
from firsthand.hub.planner import Bound, Expected, ModelPlan
from firsthand.hub.resource_plan import MachineSpec, ServingPlan, TrainingNeeds
from firsthand.measure.machine_speeds import Speeds
from printed_tables import widen, words

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tables have all their columns side by side, and runs a home of their own."""
    widen(monkeypatch)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))


# -- models --

SPEEDS = Speeds(2, 20.0, 100.0)
FACTS: dict[str, Any] = {
    "path": Path("m.gguf"),
    "architecture": "llama",
    "is_encoder": False,
    "parameters": 134_500_000,
    "active_parameters": 134_500_000,
    "file_bytes": 90_000_000,
    "tensor_types": {"F32": 61, "Q4_1": 211},
    "weight_bytes": {"float32": 538_000_000, "int8": 134_500_000},
    "kv_bytes": {2048: 47_000_000},
    "kv_bytes_per_token": 23_000,
    "window": None,
    "window_share": 0.0,
    "decode_parameters": 1,
    "block_bytes": None,
    "head_parameters": None,
    "attention_width": None,
    "context": 8192,
    "vocabulary": 49152,
    "has_chat_template": True,
    "licence": "apache-2.0",
}


def test_the_facts_of_a_model_and_its_speeds_here(capsys: pytest.CaptureFixture[str]) -> None:
    expected = Expected("smollm2", "2025-01-02T03:04", True, "float32", 0.5, 0.25, 40.0, 400.0)
    plan = ModelPlan(
        1_000_000_000,
        45_000,
        {1: 47_000_000, 8: 376_000_000},
        SPEEDS,
        (Bound("float32", 538_000_000, 37.4, None), Bound("int8", 134_500_000, 1148.6, 371.7)),
        expected,
        False,
        ("A note.",),
    )
    print_inspection("smollm2", Inspection(**FACTS), plan, as_json=False)
    out = words(capsys.readouterr().out)
    assert out[:11] == [
        "smollm2",
        "property value",
        "folder m.gguf",
        "architecture llama",
        "parameters 134.5 million",
        "size on disk 90.0 MB",
        "tensors 61 F32, 211 Q4_1",
        "context 8,192 tokens",
        "vocabulary 49,152 tokens",
        "chat template yes",
        "licence apache-2.0",
    ]
    assert out[11:20] == [
        "memory",
        "item memory",
        "weights in float32 538.0 MB",
        "weights in int8 134.5 MB",
        "KV cache, 2,048 tokens 47.0 MB",
        "KV cache, one token 23.0 kB",
        "8 conversations of 2,048 tokens 376.0 MB",
        "int8 and 4-bit without their scales; KV cache in float16, as in firsthand's engine",
        "tokens/s on this machine",
    ]
    assert out[20:] == [
        "weights in read per token decoding, at most 512-token prompt, at most",
        "float32 538.0 MB 37 unknown",
        "int8 134.5 MB 1,149 372",
        f"This machine, {SPEEDS.line()}.",
        "A note.",
        "The engine's default KV cache of 1.0 GB holds 45,000 tokens of one conversation.",
        "Measured on 2025-01-02 with weights in float32: 40 tokens/s decoding, 400 in prefill; that is 50% of the limit of "
        "memory and 25% of the limit of matrix products.",
    ]
    print_plan(replace(plan, kv_tokens=0, notes=()))
    assert " holds 0 tokens of one conversation." in capsys.readouterr().out
    print_plan(replace(plan, is_busy=True, kv_tokens=None, notes=(), expected=None))
    out = words(capsys.readouterr().out)
    assert out[1] == "weights in read per token decoding, about 512-token prompt, about" and out[4:] == [
        f"This machine, {SPEEDS.line()}.",
        "Nothing has been measured here yet: run `firsthand bench MODEL` to get an estimate.",
    ]
    bare = FACTS | {
        "architecture": None,
        "is_encoder": True,
        "active_parameters": 30_000_000,
        "context": None,
        "vocabulary": None,
        "has_chat_template": False,
        "licence": None,
        "kv_bytes": {},
        "kv_bytes_per_token": None,
    }
    print_inspection("e", Inspection(**bare), EncoderPlan(SPEEDS, 256, 1234.5, None, True, ()), as_json=False)
    out = words(capsys.readouterr().out)
    assert out[3:5] == [
        "architecture not stated (an encoder: texts to vectors)",
        "parameters 134.5 million, 30.0 million for each token",
    ]
    assert out[7:11] == ["context not stated", "vocabulary not stated", "chat template no", "licence not stated"]
    assert out[-2:] == [
        "Texts of 256 tokens: about 1,234 a second, the limit of matrix products.",
        "No encoder has been measured here yet: run `firsthand bench MODEL` to get an estimate.",
    ]
    encoded = EncoderPlan(SPEEDS, 256, 1234.5, None, True, ("a note",))
    for given in (encoded, plan):
        print_inspection("e", Inspection(**bare), given, as_json=True)
        body = json.loads(capsys.readouterr().out)
        told = {"model": "e", **Inspection(**bare).to_json(), "plan": given.to_json()}
        assert given.to_json() and body == json.loads(json.dumps(told))
    print_inspection("m", Inspection(**FACTS), None, as_json=True)
    body = json.loads(capsys.readouterr().out)
    assert body["model"] == "m" and body["plan"] is None and body["parameters"] == 134_500_000


def test_sentences_on_measured_and_expected_speeds() -> None:
    other = Expected("big", "2025-01-02T03", False, "int8", 0.5, None, 1234.5, None)
    assert expectation(other) == (
        "Expect about 1,234 tokens/s decoding: on 2025-01-02 big, with weights in int8, reached 50% of the limit of memory."
    )
    decoding = "1,234 tokens/s decoding: on 2025-01-02 big, with weights in int8, reached 50% of the limit of memory."
    for share, prefill in ((None, 800.0), (0.25, None)):
        assert expectation(replace(other, prefill_share=share, prefill=prefill)) == f"Expect about {decoding}"
    both = replace(other, prefill_share=0.25, prefill=8000.4, is_same=True)
    assert expectation(both) == (
        "Measured on 2025-01-02 with weights in int8: 1,234 tokens/s decoding, 8,000 in prefill; that is 50% of the limit "
        "of memory and 25% of the limit of matrix products."
    )
    assert expectation(None).startswith("Nothing has been measured here yet")
    assert encoder_expectation(ExpectedTexts("e", "2025-01-02T03", True, 0.4, 5000.0, 20.4)) == (
        "Measured on 2025-01-02: 20 documents of mixed length a second, 5,000 tokens/s; that is 40% of the limit of "
        "matrix products."
    )
    assert encoder_expectation(ExpectedTexts("e", "2025-01-02T03", False, 0.4, 5000.0, None)) == (
        "Expect about 5,000 tokens/s: on 2025-01-02 e reached 40% of the limit of matrix products."
    )


def test_what_a_model_takes_on_a_machine(capsys: pytest.CaptureFixture[str]) -> None:
    serving = ServingPlan(
        8_030_000_000,
        7_000_000_000,
        16_060_000_000,
        131_072,
        4_294_967_296,
        1.7e10,
        20_354_967_296,
        True,
        123.45,
        6789.0,
    )
    spec = MachineSpec("h100", 3350, 989, 80)
    models_plan._print_serving("m", "bfloat16", spec, 4096, 8, serving)
    assert words(capsys.readouterr().out) == [
        "m: serving",
        "item amount",
        "parameters 8.03 billion",
        "active for a token 7.00 billion",
        "weights in bfloat16 16.06 GB",
        "KV cache, one token 131.1 kB",
        "KV cache, 8 x 4,096 tokens 4.29 GB",
        "operations for a token 17.00 GFLOP",
        "h100: 3,350 GB/s, 989.0 TFLOP/s, 80 GB. 20.35 GB fits.",
        "At most 123.5 tokens/s decoding and 6,789 in prefill: the limits of memory and of products, which "
        "no engine reaches.",
    ]
    for unknown in ({"decode_tokens_s": None}, {"prefill_tokens_s": None}):
        models_plan._print_serving("m", "bfloat16", spec, 4096, 8, replace(serving, **unknown))
        assert "At most" not in capsys.readouterr().out
    needs = TrainingNeeds(
        "lora",
        41_900_000,
        16 * 10**9,
        84 * 10**6,
        335 * 10**6,
        50 * 10**9,
        5 * 10**9,
        1e11,
        66 * 10**9,
        21 * 10**9,
        False,
        4321.0,
    )
    models_plan._print_training(spec, 2048, 4, needs)
    assert words(capsys.readouterr().out) == [
        "training (lora), 4 x 2,048 tokens",
        "item memory",
        "trained parameters 41.9 million",
        "weights 16.00 GB",
        "gradients 0.08 GB",
        "optimizer (AdamW) 0.34 GB",
        "activations, all kept 50.00 GB",
        "activations, layers computed again 5.00 GB",
        "total, all kept 66.00 GB",
        "total, layers computed again 21.00 GB",
        "With layers computed again it does not fit h100; at most 4,321 tokens/s.",
    ]
    models_plan.print_plan_of(
        "8B", machine="100:10:50", dtype="int8", train="", context=0, batch=2, rank=16, as_json=True
    )
    body = json.loads(capsys.readouterr().out)
    assert (body["context"], body["batch"], body["training"], body["machine"]["read_gb_s"]) == (4096, 2, None, 100)
    with pytest.raises(ConfigError, match="8B is a number of parameters: training needs a configuration"):
        models_plan.print_plan_of(
            "8B", machine="h100", dtype="int8", train="lora", context=0, batch=1, rank=16, as_json=True
        )


def test_words_of_models_that_do_not_go_together(tmp_path: Path, cli: Cli) -> None:
    for line, told in (
        ("quantize m", "quantize needs a type and a file"),
        ("pull m --to F16", "belong to quantize: leave them out"),
        ("inspect m --out x", "belong to quantize"),
        ("look m", "look needs one"),
        ("plan m text", "a text belongs to look"),
        ("inspect m --machine h100", "--machine and --train belong to plan"),
        ("plan m --context=-1", "context is -1"),
        ("plan m --batch 0", "batch is 0"),
        ("list m", "list takes no model"),
        ("pull", "pull needs a model"),
        ("plan m --dtype float7", "float7"),
        ("inspect smollm2-none-such", "no model"),
    ):
        code, _, err = cli("models", *line.split())
        assert code in (1, 2) and told in err, (line, err)
    code, _, err = cli("models", "inspect", "hf:org/name")
    assert (
        code == 2
        and "hf:org/name is not on disk, and inspect downloads nothing by itself: `firsthand models pull" in err
    )
    assert models.Config("look", "m", "t", out="x.html").out == "x.html"
