import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from firsthand import catalog
from firsthand.cli import main
from firsthand.errors import ModelFileError, UnknownName
from firsthand.hub import model_lookup
from firsthand.hub.fetch_model import fetch_model
from firsthand.hub.inspection import inspect


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def write_gguf(path: Path, **more: Any) -> Path:
    """A GGUF file of 2 layers, 4 heads of 8, 2 of them for keys and values, and one tensor of 6 x 32 in Q8_0."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(4096)
    writer.add_feed_forward_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_embedding_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv(more.get("head_count_kv", 2))
    writer.add_token_list(["a", "b", "c", "d", "e", "f"])
    writer.add_license("mit")
    if window := more.get("window"):
        writer.add_sliding_window(window)
    if template := more.get("template"):
        writer.add_chat_template(template)
    values = np.zeros((6, 32), dtype=np.float32)
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("token_embd.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.zeros(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_folder(path: Path, config: dict[str, Any]) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    header = json.dumps({"w": {"dtype": "BF16", "shape": [3, 4], "data_offsets": [0, 24]}}).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(24))
    return path


def test_a_gguf_file_says_what_it_is(tmp_path: Path) -> None:
    facts = inspect(write_gguf(tmp_path / "m.gguf", template="{{ messages }}"))
    assert (facts.architecture, facts.parameters, facts.context, facts.vocabulary) == ("llama", 224, 4096, 6)
    assert facts.tensor_types == {"Q8_0": 1, "F32": 1} and facts.licence == "mit" and facts.has_chat_template
    assert facts.weight_bytes == {"float32": 896, "float16": 448, "int8": 224, "4-bit": 112}
    each = 2 * 2 * 2 * 8 * 2  # keys and values, layers, heads, head_dim, float16
    assert facts.kv_bytes == {2048: 2048 * each, 4096: 4096 * each}
    assert json.loads(json.dumps(facts.to_json()))["kv_bytes"] == {"2048": 2048 * each, "4096": 4096 * each}


def test_layers_may_differ_in_their_heads(tmp_path: Path) -> None:
    facts = inspect(write_gguf(tmp_path / "m.gguf", head_count_kv=[1, 2]))
    assert facts.kv_bytes[2048] == 2048 * 2 * (1 + 2) * 8 * 2 and not facts.has_chat_template


def test_a_folder_says_what_it_is(tmp_path: Path) -> None:
    inner = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "max_position_embeddings": 512}
    folder = write_folder(tmp_path / "a", {"model_type": "gemma3", "text_config": inner | {"vocab_size": 9}})
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    (folder / "LICENSE").write_text("\n  Apache License\nVersion 2.0")
    facts = inspect(folder)
    assert (facts.architecture, facts.parameters, facts.context, facts.vocabulary) == ("gemma3", 12, 512, 9)
    assert facts.tensor_types == {"BF16": 1} and facts.licence == "Apache License" and facts.has_chat_template
    assert facts.kv_bytes == {512: 512 * 2 * 2 * 4 * 8 * 2}


WINDOWED = {
    "num_hidden_layers": 6, "num_attention_heads": 4, "hidden_size": 32, "max_position_embeddings": 8192, "vocab_size": 9,
    "intermediate_size": 64, "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "head_dim": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "windowed"),
    [
        ({"model_type": "mistral", "sliding_window": 1024}, 6),
        ({"model_type": "mistral", "sliding_window": None}, 0),
        ({"model_type": "gemma3_text", "sliding_window": 1024}, 5),
        ({"model_type": "gemma3_text", "sliding_window": 1024, "sliding_window_pattern": 2}, 3),
        ({"model_type": "x", "sliding_window": 1024, "layer_types": ["sliding_attention"] + ["full_attention"] * 5}, 1),
        ({"model_type": "qwen2", "sliding_window": 1024, "use_sliding_window": False}, 0),
        ({"model_type": "qwen2", "sliding_window": 1024, "use_sliding_window": True, "max_window_layers": 4}, 2),
        ({"model_type": "mistral", "sliding_window": "wide"}, 0),
    ],
)
def test_windowed_layers_keep_their_window(tmp_path: Path, more: dict[str, Any], windowed: int) -> None:
    facts = inspect(write_folder(tmp_path / "a", WINDOWED | more))
    a_layer = 2 * 4 * 8 * 2
    for tokens in (2048, 8192):
        assert facts.kv_bytes[tokens] == facts.keys_and_values(tokens)
        assert facts.kv_bytes[tokens] == a_layer * ((6 - windowed) * tokens + windowed * 1024)
    assert facts.keys_and_values(100) == a_layer * 6 * 100
    room = facts.keys_and_values(5000)
    assert room and facts.tokens_in(room) == (8192 if windowed == 6 else 5000)
    assert facts.tokens_in(a_layer * 6 * 100) == 100
    if more["model_type"] != "x" and "wide" not in more.values():
        from firsthand.nn.model_config import architecture_of

        windows = architecture_of(tmp_path / "a").windows
        assert sum(window is not None for window in windows) == windowed, "the loader sees other windows"


def test_a_gguf_file_has_windows_too(tmp_path: Path) -> None:
    facts = inspect(write_gguf(tmp_path / "m.gguf", window=1024))
    each = 2 * 2 * 2 * 8 * 2
    assert facts.kv_bytes == {2048: 1024 * each, 4096: 1024 * each}


def test_what_a_file_does_not_say_is_none(tmp_path: Path) -> None:
    odd = {"model_type": 3, "num_hidden_layers": -1, "hidden_size": "x", "license": ["a"], "text_config": 1}
    facts = inspect(write_folder(tmp_path / "a", odd))
    assert (facts.architecture, facts.context, facts.vocabulary, facts.licence) == (None, None, None, None)
    assert facts.kv_bytes == {}


def test_a_folder_that_lacks_a_weight_file_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", {})
    index = {"weight_map": {"w": "model.safetensors", "v": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match=r"lacks 1 of 2 weight files, such as 'model-2.safetensors'"):
        inspect(folder)


def test_every_truncation_of_a_file_is_refused(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "m.gguf").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            inspect(tmp_path / "cut.gguf")


@pytest.mark.slow
def test_inspecting_needs_no_torch() -> None:
    code = "import sys, firsthand.commands.models; print('torch' in sys.modules, 'httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False False\n"


def test_models_are_listed_whether_here_or_not(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert main(["models", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["home"] == str(home / "models") and [each["name"] for each in said["models"]] == list(
        model_lookup.KNOWN
    )
    assert said["models"][0]["path"] is None
    there = write_folder(home / "models" / "hf" / "org" / "name@main", {})
    sizes = {"model.safetensors": (there / "model.safetensors").stat().st_size}
    (there / "firsthand.json").write_text(json.dumps({"name": "hf:org/name", "commit": "a" * 40, "files": sizes}))
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "pulled on first use" in out and "hf:org/name" in out and "hf:ORG/NAME[@REVISION][:FILE.gguf]" in out


@pytest.mark.slow
def test_a_file_is_inspected_by_its_path(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    assert fetch_model(str(path)) == path
    assert main(["models", "inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 224
    assert main(["models", "inspect", str(path)]) == 0
    assert "1 Q8_0" in capsys.readouterr().out


def test_mistakes_are_sentences(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"x")
    for words, code, message in (
        (["pull"], 2, "pull needs a model"),
        (["pull", "smolm2"], 2, "did you mean 'smollm2'"),
        (["remove", "smollm2"], 2, "not on disk"),
        (["remove", str(tmp_path)], 2, "not pulled by firsthand"),
        (["inspect", str(tmp_path / "m.bin")], 1, "pickle"),
        (["inspect", "hf:a"], 2, "is not a repository"),
    ):
        assert main(["models", *words]) == code
        assert message in capsys.readouterr().err


@pytest.mark.weights
def test_smollm2_is_what_its_architecture_says(smollm2: Path) -> None:
    from firsthand.nn.matrices import num_parameters
    from firsthand.nn.weights import architecture_of

    facts, architecture = inspect(smollm2), architecture_of(smollm2)
    assert facts.parameters == num_parameters(architecture) == 134_515_008
    assert facts.kv_bytes[8192] == 8192 * architecture.kv_bytes_per_token(2)
    assert (facts.vocabulary, facts.context) == (architecture.vocab_size, architecture.max_position)


@pytest.mark.parametrize("name", ["smollm2", "minilm", "hf:org/name"])
def test_inspect_downloads_nothing_by_itself(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    for words in ([], ["--json"]):
        assert main(["models", "inspect", name, *words]) == 2
        err = capsys.readouterr().err
        assert f"{name} is not on disk" in err and f"firsthand models pull {name}" in err and "--pull" in err
    assert not (tmp_path / "home" / "models").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("llama3.2:3b", "write ollama:llama3.2:3b;"),
        ("claude:claude-x", "write anthropic:claude-x"),
        ("gemini:gemini-x", "write google:gemini-x"),
        ("vllm:", "openai:NAME@http://localhost:8000/v1"),
        ("gpt-x", "write openai:gpt-x, with the key in OPENAI_API_KEY"),
        ("o9", "write openai:o9, with the key"),
        ("claude-x", "if it is Anthropic's, write anthropic:claude-x, with the key in ANTHROPIC_API_KEY"),
        ("gemini-x", "if it is Google's, write google:gemini-x, with the key in GOOGLE_API_KEY"),
        ("qwen3", "write ollama:qwen3;"),
        ("smollm3", "did you mean 'smollm2'"),
        ("nonsense", "no model 'nonsense'"),
        ("nonsense:x", "no model provider 'nonsense'"),
        ("smollm2+loar:x", "'smollm2+loar:x' adds 'loar' to a model: expected +lora:, +adapter:"),
    ],
)
def test_the_name_of_a_hosted_model_says_how_to_reach_it(name: str, says: str) -> None:
    with pytest.raises(UnknownName) as caught:
        catalog.model(name)
    assert says in str(caught.value)
