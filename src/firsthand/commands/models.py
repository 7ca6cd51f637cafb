"""List, pull, inspect, plan, look into, quantize or remove models."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass, field
from typing import Literal

from firsthand.config import refuse_given
from firsthand.errors import ConfigError
from firsthand.hub import model_lookup
from firsthand.hub.encoder_planner import EncoderPlan, ExpectedTexts, plan_encoder
from firsthand.hub.fetch_model import fetch_model
from firsthand.hub.inspection import Inspection, inspect
from firsthand.hub.planner import Expected, ModelPlan
from firsthand.hub.planner import plan as make_plan
from firsthand.message import Json
from firsthand.system.terminal import console, print_as_json, print_table

EXAMPLES = """
firsthand models
firsthand models pull smollm2
firsthand models inspect smollm2
firsthand models inspect path/to/model.gguf --json
firsthand models pull hf:HuggingFaceTB/SmolLM2-360M-Instruct
firsthand models quantize smollm2 --to Q4_K_M --out smollm2-q4.gguf
firsthand models plan llama-3-70b --machine h100 --dtype int4
firsthand models plan smollm2 --train qlora
firsthand models look smollm2 "The capital of France is" --out look.html
firsthand models remove hf:HuggingFaceTB/SmolLM2-360M-Instruct
"""


@dataclass(frozen=True)
class Config:
    """The action, and the model."""

    action: Literal["list", "pull", "inspect", "plan", "look", "quantize", "remove"] = field(
        default="list", metadata={"positional": True}
    )
    """list, pull, inspect, plan, look, quantize or remove"""
    model: str | None = field(default=None, metadata={"positional": True})
    """The model: a known name or hf:ORG/NAME[@REVISION][:FILE.gguf]; a file or folder, too, except with pull and remove."""
    text: str | None = field(default=None, metadata={"positional": True})
    """With look: a text of 2 to 128 tokens, whose attention heads and next tokens by layer are shown on an HTML page."""
    plan: bool = True
    """With inspect: estimate speed on this machine. The first time, its speeds are measured in a few seconds."""
    pull: bool = False
    """With inspect: download a model that is not on disk without asking."""
    to: str = ""
    """With quantize: the type of the file, such as Q4_K_M, Q8_0 or F16; GPTQ or AWQ for a folder of 4-bit safetensors."""
    out: str = ""
    """With quantize: the file (.gguf), or the folder, to write. With look: the HTML file, by default look.html."""
    calibration: str = ""
    """With quantize --to GPTQ or AWQ: a text file like those that the model will read."""
    machine: str = ""
    """With plan: a machine, such as h100, or GB/s and TFLOP/s and GB of memory, such as 3350:990:80; without, this one."""
    dtype: str = "bfloat16"
    """With plan: the type of the weights: float32, bfloat16, int8, int4 or nf4."""
    train: Literal["", "full", "lora", "qlora"] = ""
    """With plan: the memory and compute of training, too."""
    context: int = 0
    """With plan: tokens of a conversation or training sequence; 0 is the model's own, at most 4,096."""
    batch: int = 1
    """With plan: conversations or training sequences at a time."""
    rank: int = 16
    """With plan --train lora or qlora: the adapter's rank."""
    json: bool = False
    """Print JSON for programs."""

    def __post_init__(self) -> None:
        if self.action == "quantize" and not (self.to and self.out):
            raise ConfigError(
                "quantize needs a type and a file: firsthand models quantize MODEL --to Q4_K_M --out FILE"
            )
        if self.action != "quantize" and (self.to or self.calibration or (self.out and self.action != "look")):
            raise ConfigError("--to, --out and --calibration belong to quantize: leave them out")
        if (self.action == "look") != (self.text is not None):
            raise ConfigError('a text belongs to look, and look needs one: firsthand models look MODEL "some text"')
        if self.action != "plan" and (self.machine or self.train):
            raise ConfigError("--machine and --train belong to plan: leave them out")
        if self.text is not None and not self.text.strip():
            raise ConfigError("the text is empty: give 2 to 128 tokens to look at")
        if self.context < 0:
            raise ConfigError(f"context is {self.context}: give 0 or more tokens")
        if self.batch < 1:
            raise ConfigError(f"batch is {self.batch}: give 1 or more sequences")
        if self.action == "plan":
            from firsthand.hub.resource_plan import bits_of

            bits_of(self.dtype)  # before the machine is measured, which takes half a minute
        if self.action == "list" and self.model is not None:
            raise ConfigError(f"list takes no model: `firsthand models inspect {shlex.quote(self.model)}` looks at one")
        if self.action != "list" and self.model is None:
            raise ConfigError(f"{self.action} needs a model, as in: firsthand models {self.action} smollm2")


def refuse_unused(config: Config) -> None:
    """ConfigError for flags that have no effect on the action."""
    if config.action != "inspect":
        refuse_given(config, {"plan", "pull"}, f"it is for inspect, not for {config.action}")
    if config.action != "plan":
        refuse_given(config, {"dtype", "context", "batch", "rank"}, f"it is for plan, not for {config.action}")
    elif config.train not in ("lora", "qlora"):
        refuse_given(config, {"rank"}, "it goes with --train lora or qlora")


def main(config: Config) -> int:
    """Carry out the action."""
    refuse_unused(config)
    match config.action, config.model:
        case "pull", str(model):
            path = str(fetch_model(model, shown=not config.json))
            print(json.dumps({"model": model, "path": path}) if config.json else path)
        case "inspect", str(model):
            if not config.pull:
                expect_on_disk(model, may_ask=not config.json)
            facts = inspect(fetch_model(model, shown=not config.json))
            planned = plan_here(model, facts) if config.plan else None
            print_inspection(model, facts, planned, as_json=config.json)
        case "quantize", str(model):
            from firsthand.commands.models_quantize import quantize

            quantize(model, config.to, config.out, config.calibration, as_json=config.json)
        case "plan", str(model):
            from firsthand.commands.models_plan import print_plan_of

            print_plan_of(
                model, machine=config.machine, dtype=config.dtype, train=config.train, context=config.context,
                batch=config.batch, rank=config.rank, as_json=config.json,
            )  # fmt: skip
        case "look", str(model):
            from firsthand.commands.models_look import write_look

            write_look(model, config.text or "", config.out, as_json=config.json)
        case "remove", str(model):
            path = str(model_lookup.remove(model))
            print(json.dumps({"model": model, "removed": path}) if config.json else f"removed {path}")
        case _:
            print_models(as_json=config.json)
    return 0


def expect_on_disk(model: str, *, may_ask: bool) -> None:
    """ConfigError for a model that would have to be downloaded, unless a person at the terminal agrees to it."""
    if model_lookup.is_here(model):
        return
    known = model_lookup.KNOWN.get(model)
    much = f" ({size(known.all_bytes)})" if known else ""
    if may_ask and sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        print(f"{model} is not on disk{much}. Download it? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise ConfigError(
        f"{model} is not on disk{much}, and inspect downloads nothing by itself: `firsthand models pull {model}` first, "
        "or add --pull"
    )


def print_models(*, as_json: bool) -> None:
    """Print the models that have a name or are on disk, and the other forms of a model's name."""
    models = list_models()
    if as_json:
        print_as_json({"home": str(model_lookup.models_home()), "models": models})
        return
    rows = [
        [each["name"], each["description"], size(each["size_bytes"]), "yes" if each["path"] else "pulled on first use"]
        for each in models
    ]
    print_table("models", ["name", "description", "size", "on disk"], rows)
    console().print(
        "Other models: the path of a .gguf file or of a Hugging Face folder, or hf:ORG/NAME[@REVISION][:FILE.gguf].\n"
        f"Models are stored in {model_lookup.models_home()}",
        markup=False,
        soft_wrap=True,
    )


def list_models() -> list[Json]:
    """The models that have a name, on disk or not, then the others on disk."""
    here = {each.name: each for each in model_lookup.installed()}
    known = [
        {
            "name": name,
            "description": entry.description,
            "licence": entry.licence,
            "size_bytes": entry.size_bytes,
            "path": str(here[name].path) if name in here else None,
        }
        for name, entry in model_lookup.KNOWN.items()
    ]
    return known + [
        {
            "name": each.name,
            "description": "from the Hugging Face hub",
            "licence": None,
            "size_bytes": each.size_bytes,
            "path": str(each.path),
        }
        for each in here.values()
        if each.name not in model_lookup.KNOWN
    ]


def plan_here(model: str, facts: Inspection) -> ModelPlan | EncoderPlan:
    """Estimated memory and speed of the model on this machine."""
    from firsthand.engine.core.engine_config import default_kv_bytes
    from firsthand.measure.machine import describe
    from firsthand.measure.machine_speeds import speeds
    from firsthand.measure.measurements import saved_results
    from firsthand.measure.speed_bounds import benchmarked_speeds

    kv_memory_bytes = default_kv_bytes()  # before measuring, which takes memory for a moment
    results = saved_results(describe().key)
    here = speeds(at_least=benchmarked_speeds(results))
    if facts.is_encoder:
        return plan_encoder(facts, here, results, model)
    return make_plan(facts, here, kv_memory_bytes, results, model)


def _active(facts: Inspection) -> str:
    """The parameters that one token of a mixture of experts uses."""
    is_sparse = facts.active_parameters < facts.parameters
    return f", {facts.active_parameters / 1e6:,.1f} million for each token" if is_sparse else ""


def print_inspection(model: str, facts: Inspection, plan: ModelPlan | EncoderPlan | None, *, as_json: bool) -> None:
    """Print the facts and the plan as tables, or as JSON."""
    if as_json:
        body = {"model": model, **facts.to_json(), "plan": plan.to_json() if plan else None}
        print_as_json(body)
        return
    rows = [
        ["file" if facts.path.is_file() else "folder", str(facts.path)],
        ["architecture", (facts.architecture or "not stated") + " (an encoder: texts to vectors)" * facts.is_encoder],
        ["parameters", f"{facts.parameters / 1e6:,.1f} million{_active(facts)}"],
        ["size on disk", size(facts.file_bytes)],
        ["tensors", ", ".join(f"{count} {name}" for name, count in facts.tensor_types.items())],
        ["context", f"{facts.context:,} tokens" if facts.context else "not stated"],
        ["vocabulary", f"{facts.vocabulary:,} tokens" if facts.vocabulary else "not stated"],
        ["chat template", "yes" if facts.has_chat_template else "no"],
        ["licence", facts.licence or "not stated"],
    ]
    print_table(model, ["property", "value"], rows)
    memory = [[f"weights in {name}", size(count)] for name, count in facts.weight_bytes.items()]
    memory += [[f"KV cache, {length:,} tokens", size(count)] for length, count in facts.kv_bytes.items()]
    if facts.kv_bytes_per_token:
        memory.append(["KV cache, one token", size(facts.kv_bytes_per_token)])
    if isinstance(plan, ModelPlan):
        many = [(count, taken) for count, taken in plan.kv_bytes.items() if count > 1]
        memory += [[f"{count} conversations of 2,048 tokens", size(taken)] for count, taken in many]
    print_table("memory", ["item", "memory"], memory)
    console().print("int8 and 4-bit without their scales; KV cache in float16, as in firsthand's engine")
    if isinstance(plan, ModelPlan):
        print_plan(plan)
    elif plan:
        print_encoder_plan(plan)


def print_plan(plan: ModelPlan) -> None:
    """Print estimated speeds on this machine."""
    rows = [
        [
            each.weights,
            size(each.read_bytes),
            f"{each.decode:,.0f}",
            f"{each.prefill:,.0f}" if each.prefill else "unknown",
        ]
        for each in plan.bounds
    ]
    limit = "about" if plan.is_busy else "at most"
    header = ["weights in", "read per token", f"decoding, {limit}", f"512-token prompt, {limit}"]
    print_table("tokens/s on this machine", header, rows)
    lines = [f"This machine, {plan.speeds.line()}.", *plan.notes]
    if plan.kv_tokens is not None:
        room = size(plan.kv_memory_bytes)
        lines.append(f"The engine's default KV cache of {room} holds {plan.kv_tokens:,} tokens of one conversation.")
    lines.append(expectation(plan.expected))
    console().print("\n".join(lines), markup=False, soft_wrap=True)


def print_encoder_plan(plan: EncoderPlan) -> None:
    """Print the estimated speed of an encoder on this machine."""
    limit = "about" if plan.is_busy else "at most"
    lines = [f"This machine, {plan.speeds.line()}.", *plan.notes]
    if plan.texts is not None:
        lines.append(
            f"Texts of {plan.tokens_per_text} tokens: {limit} {plan.texts:,.0f} a second, the limit of matrix products."
        )
    lines.append(encoder_expectation(plan.expected))
    console().print("\n".join(lines), markup=False, soft_wrap=True)


def encoder_expectation(expected: ExpectedTexts | None) -> str:
    """A sentence on the speed measured or estimated for an encoder."""
    if expected is None:
        return "No encoder has been measured here yet: run `firsthand bench MODEL` to get an estimate."
    day, share = expected.measured_on[:10], f"{expected.share:.0%} of the limit of matrix products"
    if expected.texts is not None:
        speed = f"{expected.texts:,.0f} documents of mixed length a second, {expected.tokens:,.0f} tokens/s"
        return f"Measured on {day}: {speed}; that is {share}."
    return f"Expect about {expected.tokens:,.0f} tokens/s: on {day} {expected.measured_model} reached {share}."


def expectation(expected: Expected | None) -> str:
    """A sentence on the speed measured or estimated for a decoder."""
    if expected is None:
        return "Nothing has been measured here yet: run `firsthand bench MODEL` to get an estimate."
    shares = f"{expected.decode_share:.0%} of the limit of memory"
    speeds = f"{expected.decode:,.0f} tokens/s decoding"
    if expected.prefill and expected.prefill_share:
        shares += f" and {expected.prefill_share:.0%} of the limit of matrix products"
        speeds += f", {expected.prefill:,.0f} in prefill"
    day = expected.measured_on[:10]
    if expected.is_same:
        return f"Measured on {day} with weights in {expected.weights}: {speeds}; that is {shares}."
    other = f"{expected.measured_model}, with weights in {expected.weights},"
    return f"Expect about {speeds}: on {day} {other} reached {shares}."


def size(count: int) -> str:
    """A number of bytes for people: 98.4 MB."""
    from rich import filesize

    return filesize.decimal(count)
