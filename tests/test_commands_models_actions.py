"""`firsthand models`: each action gets its own flags, a quantised or looked-at model is told, questions before downloads."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.commands import models, models_look, models_plan, models_quantize
from firsthand.engine.core import engine_config
from firsthand.errors import ConfigError
from firsthand.hub import model_lookup, quantize_model
from firsthand.interp import model_look, opened_model
from firsthand.interp.model_look import HeadLook, LensCell, ModelLook
from firsthand.measure import machine, machine_speeds, measurements, speed_bounds
from firsthand.measure.machine_speeds import Speeds
from firsthand.nn.gguf_quantizer import Quantised
from firsthand.show import look_page
from printed_tables import widen, words

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    widen(monkeypatch, models, models_look, models_quantize, models_plan)
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- the actions --


def test_each_action_gets_what_its_flags_say(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    asked: list[Any] = []

    def told(name: str, gives: Any = None) -> Callable[..., Any]:
        return lambda *given, **more: asked.append((name, *given, more)) or gives

    monkeypatch.setattr(models, "fetch_model", told("fetch", Path("/m")))
    monkeypatch.setattr(models, "expect_on_disk", told("expect"))
    monkeypatch.setattr(models, "inspect", told("inspect", "facts"))
    monkeypatch.setattr(models, "plan_here", told("plan_here", "planned"))
    monkeypatch.setattr(models, "print_inspection", told("print"))
    monkeypatch.setattr(models, "print_models", told("list"))
    monkeypatch.setattr(models_quantize, "quantize", told("quantize"))
    monkeypatch.setattr(models_look, "write_look", told("look"))
    monkeypatch.setattr(models_plan, "print_plan_of", told("plan"))
    monkeypatch.setattr(model_lookup, "remove", told("remove", Path("/gone")))

    def run(*line: str) -> tuple[str, list[Any]]:
        asked.clear()
        code, out, err = cli("models", *line)
        assert code == 0, err
        return out, list(asked)

    assert run("pull", "m") == ("/m\n", [("fetch", "m", {"shown": True})])
    out, found = run("pull", "m", "--json")
    assert json.loads(out) == {"model": "m", "path": "/m"} and found == [("fetch", "m", {"shown": False})]
    fetched = ("fetch", "m", {"shown": True})
    assert run("inspect", "m")[1] == [
        ("expect", "m", {"may_ask": True}), fetched, ("inspect", Path("/m"), {}), ("plan_here", "m", "facts", {}),
        ("print", "m", "facts", "planned", {"as_json": False}),
    ]  # fmt: skip
    assert run("inspect", "m", "--pull", "--no-plan", "--json")[1] == [
        ("fetch", "m", {"shown": False}), ("inspect", Path("/m"), {}), ("print", "m", "facts", None, {"as_json": True}),
    ]  # fmt: skip
    assert run("inspect", "m", "--json")[1][0] == ("expect", "m", {"may_ask": False})
    assert run("quantize", "m", "--to", "GPTQ", "--out", "o", "--calibration", "c")[1] == [
        ("quantize", "m", "GPTQ", "o", "c", {"as_json": False})]  # fmt: skip
    flags = ("--machine", "h100", "--dtype", "int4", "--train", "lora", "--context", "7", "--batch", "3", "--rank", "5")
    assert run("plan", "m", *flags, "--json")[1] == [("plan", "m", {
        "machine": "h100", "dtype": "int4", "train": "lora", "context": 7, "batch": 3, "rank": 5, "as_json": True,
    })]  # fmt: skip
    assert run("plan", "m")[1] == [("plan", "m", {
        "machine": "", "dtype": "bfloat16", "train": "", "context": 0, "batch": 1, "rank": 16, "as_json": False,
    })]  # fmt: skip
    look = ("look", "m", " a text\n", "o.html", {"as_json": False})
    assert run("look", "m", " a text\n", "--out", "o.html")[1] == [look], "blanks at the ends are tokens too"
    assert run("remove", "m") == ("removed /gone\n", [("remove", "m", {})])
    assert json.loads(run("remove", "m", "--json")[0]) == {"model": "m", "removed": "/gone"}
    assert run()[1] == [("list", {"as_json": False})] and run("list", "--json")[1] == [("list", {"as_json": True})]


def test_a_person_is_asked_before_a_model_is_downloaded_and_a_program_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, read = {"mine"}, io.StringIO()
    monkeypatch.setattr(model_lookup, "is_here", here.__contains__)
    models.expect_on_disk("mine", may_ask=True)
    known = model_lookup.KNOWN["smollm2"]
    much = models.size(known.all_bytes)

    def typed(text: str, terminal: bool = True) -> None:
        nonlocal read
        read = io.StringIO(text)
        read.isatty = lambda: terminal  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdin", read)

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for answer in ("y\n", " YES \n"):
        typed(answer)
        models.expect_on_disk("smollm2", may_ask=True)
        assert capsys.readouterr().err == f"smollm2 is not on disk ({much}). Download it? [y/N] "
    refused = "{0} is not on disk{1}, and inspect downloads nothing by itself: "
    refused += "`firsthand models pull {0}` first, or add --pull"
    for answer, ask, terminal, name in (
        ("n\n", True, True, "smollm2"), ("\n", True, True, "smollm2"), ("yep\n", True, True, "hf:a/b"),
        ("y\n", False, True, "smollm2"), ("y\n", True, False, "hf:a/b"),
    ):  # fmt: skip
        typed(answer, terminal)
        with pytest.raises(ConfigError) as told:
            models.expect_on_disk(name, may_ask=ask)
        assert str(told.value) == refused.format(name, f" ({much})" if name == "smollm2" else "")
        asked = f"{name} is not on disk{f' ({much})' if name == 'smollm2' else ''}. Download it? [y/N] "
        assert capsys.readouterr().err == (asked if ask and terminal else "")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ConfigError, match="downloads nothing by itself"):
        models.expect_on_disk("hf:a/b", may_ask=True)


def test_models_are_listed_with_what_is_on_disk_and_others_last(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    first, *_, last = model_lookup.KNOWN
    found = [model_lookup.Installed("hf:a/b", Path("/hf/ab"), 1_234_567), model_lookup.Installed(last, Path("/x/y"), 5)]
    monkeypatch.setattr(model_lookup, "installed", lambda: found)
    rows = models.list_models()
    assert [row["name"] for row in rows] == [*model_lookup.KNOWN, "hf:a/b"]
    entry = model_lookup.KNOWN[last]
    assert rows[-2] == {
        "name": last, "description": entry.description, "licence": entry.licence, "size_bytes": entry.size_bytes,
        "path": "/x/y",
    } and rows[0]["path"] is None and rows[0]["name"] == first  # fmt: skip
    assert rows[-1] == {
        "name": "hf:a/b", "description": "from the Hugging Face hub", "licence": None, "size_bytes": 1_234_567,
        "path": "/hf/ab",
    }  # fmt: skip
    told = words(cli("models")[1])
    assert told[:2] == ["models", "name description size on disk"]
    assert told[2].startswith(f"{first} ") and told[2].endswith(" pulled on first use")
    assert told[len(rows) + 1] == "hf:a/b from the Hugging Face hub 1.2 MB yes" and told[len(rows)].endswith(" yes")
    assert told[-1] == f"Models are stored in {model_lookup.models_home()}"
    body = json.loads(cli("models", "--json")[1])
    assert body == {"home": str(model_lookup.models_home()), "models": rows}


def test_a_plan_on_this_machine_is_of_its_speeds_its_memory_and_its_measurements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[Any] = []

    def told(name: str, gives: Any) -> Callable[..., Any]:
        return lambda *given, **more: order.append((name, *given, more)) or gives

    monkeypatch.setattr(engine_config, "default_kv_bytes", told("kv", 77))
    monkeypatch.setattr(machine, "describe", told("describe", SimpleNamespace(key="K")))
    monkeypatch.setattr(measurements, "saved_results", told("saved", ["results"]))
    monkeypatch.setattr(speed_bounds, "benchmarked_speeds", told("benched", "least"))
    monkeypatch.setattr(machine_speeds, "speeds", told("speeds", "here"))
    monkeypatch.setattr(models, "plan_encoder", told("encoder", "an encoder's plan"))
    monkeypatch.setattr(models, "make_plan", told("decoder", "a decoder's plan"))
    facts: Any = SimpleNamespace(is_encoder=False)
    assert models.plan_here("m", facts) == "a decoder's plan"
    begun = [
        ("kv", {}),
        ("describe", {}),
        ("saved", "K", {}),
        ("benched", ["results"], {}),
        ("speeds", {"at_least": "least"}),
    ]
    assert order == [*begun, ("decoder", facts, "here", 77, ["results"], "m", {})]
    order.clear()
    facts = SimpleNamespace(is_encoder=True)
    assert models.plan_here("m", facts) == "an encoder's plan"
    assert order[5:] == [("encoder", facts, "here", ["results"], "m", {})]
    monkeypatch.setattr(machine_speeds, "speeds", lambda: Speeds(2, 20.0, 1500.0))
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 5_000_000}.__getitem__)
    spec = models_plan.this_machine()
    assert (spec.name, spec.read_gb_s, spec.tflop_s, spec.memory_gb) == ("this machine", 20.0, 1.5, 20.48)
    monkeypatch.delattr("os.sysconf")
    assert models_plan.this_machine().memory_gb == 16.0


def test_names_of_models_become_paths_where_they_are_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_lookup, "is_here", lambda name: name == "hf:a/b")
    monkeypatch.setattr(model_lookup, "resolve", lambda name: Path("/at") / name)
    assert (
        models_plan._path_or_name("llama-3-8b") == "llama-3-8b" and models_plan._path_or_name("hf:a/b") == "/at/hf:a/b"
    )
    for name in ("smollm2", "hf:c/d"):
        with pytest.raises(ConfigError) as told:
            models_plan._path_or_name(name)
        assert (
            str(told.value) == f"{name} is not on disk: `firsthand models pull {name}` first, or give its config.json"
        )


def test_a_plan_of_training_takes_the_context_that_the_model_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {"machine": "100:10:50", "dtype": "bfloat16", "train": "lora", "batch": 2, "as_json": True}
    bodies = []
    for context, rank in ((0, 16), (300, 16), (300, 32)):
        models_plan.print_plan_of("llama-3-8b", **given, context=context, rank=rank)
        bodies.append(json.loads(capsys.readouterr().out))
    assert [body["context"] for body in bodies] == [4096, 300, 300] and bodies[0]["batch"] == 2
    trained = [body["training"]["trained_parameters"] for body in bodies]
    assert trained[0] == trained[1] == trained[2] / 2 and bodies[0]["training"]["method"] == "lora"
    assert bodies[0]["training"]["activation_bytes"] > bodies[1]["training"]["activation_bytes"]
    models_plan.print_plan_of("llama-3-8b", **given | {"batch": 4}, context=300, rank=16)
    wider = json.loads(capsys.readouterr().out)["training"]
    assert wider["activation_bytes"] == 2 * bodies[1]["training"]["activation_bytes"]
    models_plan.print_plan_of("llama-65b", **given | {"train": ""}, context=0, rank=16)
    assert json.loads(capsys.readouterr().out)["context"] == 2048, "no more than the model has"
    assert bodies[0]["machine"] == {
        "name": bodies[0]["machine"]["name"],
        "read_gb_s": 100,
        "tflop_s": 10,
        "memory_gb": 50,
    }
    models_plan.print_plan_of("llama-3-8b", **{**given, "train": "", "as_json": False}, context=300, rank=16)
    out = capsys.readouterr().out
    assert "training" not in out and "weights in bfloat16 " in out and "llama-3-8b: serving" in out
    models_plan.print_plan_of("llama-3-8b", **{**given, "train": "full", "as_json": False}, context=300, rank=16)
    assert "training (full), 2 x 300 tokens" in capsys.readouterr().out


# -- quantize --


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What progress bars and the fetching of a model are asked."""
    asked: list[Any] = []

    class Bar:
        def __init__(self, *given: Any, **more: Any) -> None:
            asked.append((*given, more))

        def __enter__(self) -> Callable[..., None]:
            return lambda *given, **more: asked.append((*given, more))

        def __exit__(self, *given: object) -> None:
            asked.append("end")

    monkeypatch.setattr(models_quantize, "progress", Bar)
    monkeypatch.setattr(
        models_quantize, "fetch_model", lambda name, shown: asked.append((name, shown)) or f"/at/{name}"
    )
    return asked


def test_a_quantised_file_is_told_by_its_share_of_the_source_and_its_tensors(
    bars: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Quantised(Path("o.gguf"), 1_500_000, 6_000_000, {"Q4_K": 7, "F32": 3}, False)

    def quantize_file(source: Path, path: Path, kind: str, *, told: Any) -> Quantised:
        told(3, 9)
        bars.append((source, path, kind))
        return made

    monkeypatch.setattr(quantize_model, "quantize_file", quantize_file)
    models_quantize.quantize("m", "Q4_K_M", "o.gguf", "", as_json=False)
    assert capsys.readouterr().out == "o.gguf: 1.5 MB, 25% of the source; tensors: 7 Q4_K, 3 F32.\n"
    assert bars == [
        ("m", True), ("m to Q4_K_M", None, {"unit": "bytes", "shown": True}), (3, {"total": 9}),
        (Path("/at/m"), Path("o.gguf"), "Q4_K_M"), "end",
    ]  # fmt: skip
    made = replace(made, twice=True, source_bytes=0, size_bytes=2, types={})
    models_quantize.quantize("m", "Q8_0", "o.gguf", "", as_json=False)
    assert capsys.readouterr().out == (
        "o.gguf: 2 bytes, 200% of the source; tensors: .\n"
        "The source was quantised already, so its weights were rounded twice: a float source loses less.\n"
    )
    made = replace(made, types={"Q4_K": 7})
    models_quantize.quantize("m", "Q8_0", "other.gguf", "", as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "path": "o.gguf",
        "size_bytes": 2,
        "types": {"Q4_K": 7},
        "type": "Q8_0",
    }
    assert bars[-5] == ("m", False) and bars[-4][2]["shown"] is False
    with pytest.raises(ConfigError) as told:
        models_quantize.quantize("m", "Q8_0", "o", "c.txt", as_json=True)
    assert str(told.value) == "Q8_0 takes no calibration text: leave --calibration out, or write --to GPTQ or AWQ"


def test_a_quantised_folder_is_made_with_its_calibration_text(
    home: Path, bars: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def quantize_folder(source: Path, folder: Path, method: str, text: str, *, told: Any) -> int:
        told(1, 2)
        bars.append((source, folder, method, text))
        return 2_345_678

    monkeypatch.setattr(quantize_model, "quantize_folder", quantize_folder)
    (home / "c.txt").write_text("Texts é.\n", encoding="utf-8")
    models_quantize.quantize("m", "gptq", "out", "c.txt", as_json=False)
    assert capsys.readouterr().out == "out: 2.3 MB of weights.\n"
    assert bars == [
        ("m", True), ("m to gptq", None, {"shown": True}), (1, {"total": 2}),
        (Path("/at/m"), Path("out"), "GPTQ", "Texts é.\n"), "end",
    ]  # fmt: skip
    models_quantize.quantize("m", "awq", "out", "c.txt", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"path": "out", "size_bytes": 2_345_678, "type": "AWQ"}
    assert bars[5:] == [
        ("m", False), ("m to awq", None, {"shown": False}), (1, {"total": 2}),
        (Path("/at/m"), Path("out"), "AWQ", "Texts é.\n"), "end",
    ]  # fmt: skip
    (home / "empty.txt").write_text(" \n")
    (home / "bad.txt").write_bytes(b"\xff")
    for given, said in (
        ("", "AWQ rounds by what the model reads: add --calibration FILE, a text like that"),
        ("empty.txt", "empty.txt, the calibration text, is empty: give one of some thousand words"),
        ("bad.txt", "bad.txt cannot be read as UTF-8 text: "), ("no.txt", "no.txt cannot be read as UTF-8 text: "),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as told:
            models_quantize.quantize("m", "AWQ", "out", given, as_json=True)
        assert str(told.value).startswith(said)
    (home / "long.txt").write_text("a" * ((1 << 22) + 5))
    assert len(models_quantize._calibration(home / "long.txt")) == 1 << 22


# -- look --


def test_a_look_names_the_sharpest_head_and_the_likeliest_next_tokens(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = [
        HeadLook(layer, head, entropy, 0.0, 0.0, "")
        for layer, head, entropy in ((0, 0, 0.9), (1, 2, 0.456), (1, 3, 0.5))
    ]
    top = [("a", 0.5), ("b ", 0.25), ("'", 0.125), ("d", 0.0625)]
    wrong = LensCell([("x", 1.0)], 0.0)
    found = ModelLook(["one", "two"], heads, [[wrong, wrong], [wrong, LensCell(top, 1.0)]], 2)
    asked: list[Any] = []
    opened = SimpleNamespace(model="M", tokenizer=SimpleNamespace(encode_prompt=lambda text: [text, 1, 2]))
    monkeypatch.setattr(opened_model, "open_for_interp", lambda name, shown: asked.append((name, shown)) or opened)
    monkeypatch.setattr(model_look, "look_at", lambda *given: asked.append(given) or found)
    monkeypatch.setattr(look_page, "look_page", lambda title, look: f"{title} é {look is found}")
    text = "t" * 90
    assert models_look.write_look("dir/m.gguf", text, "", as_json=False) == Path("look.html")
    assert Path("look.html").read_text(encoding="utf-8") == f"m: {'t' * 80} é True"
    assert capsys.readouterr().out == (
        "3 heads on 3 tokens in look.html. Next: 'a' 50.0%, 'b ' 25.0%, \"'\" 12.5%. The sharpest head is 1.2 (entropy 0.46 "
        "nats).\n"
    )
    assert asked == [("dir/m.gguf", True), ("M", opened.tokenizer, [text, 1, 2])]
    assert models_look.write_look("m", text, "o.html", as_json=True) == Path("o.html") and asked[2] == ("m", False)
    assert json.loads(capsys.readouterr().out) == {
        "path": "o.html", "tokens": ["one", "two"], "layers": 2, "heads": 3,
        "next": [{"token": token, "probability": p} for token, p in top],
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"the folder of 'no/o\.html' does not exist: make it, or name another file"):
        models_look.write_look("m", text, "no/o.html", as_json=True)
