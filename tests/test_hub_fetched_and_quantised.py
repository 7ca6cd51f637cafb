"""A model fetched by name, also when it is interrupted, and a folder quantised on a calibration text."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from firsthand.cli import main
from firsthand.errors import ConfigError, DownloadError, UnknownName
from firsthand.hub import model_lookup
from firsthand.hub.fetch_model import fetch_model, fetch_named
from firsthand.hub.model_lookup import KnownModel
from firsthand.hub.quantize_model import _sequences, quantize_file, quantize_folder
from hub_site import BODY as TEN
from hub_site import COMMIT, hub, refused, sha, tree, use_home
from tiny import write_model

BODY = b"GGUF012345"


class Interrupting(dict[str, bytes]):
    """Files of a server that has the main thread interrupted when one is asked for."""

    def __contains__(self, path: object) -> bool:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return super().__contains__(path)


def test_a_model_is_pulled_unless_it_is_here_and_interrupted_it_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = use_home(tmp_path / "home", monkeypatch)
    tiny = KnownModel("tiny", "MIT", sha(BODY), 10, "o/n", "r1", "m.gguf", "tiny==1.0", "pkg/m.gguf")
    monkeypatch.setitem(model_lookup.KNOWN, "tiny", tiny)
    part = home / "models" / "tiny" / "m.gguf.part"
    with hub(monkeypatch) as site:
        address = "/o/n/resolve/r1/m.gguf"
        site.files[address] = BODY
        path = home / "models" / "tiny" / "m.gguf"
        assert fetch_model("tiny", shown=False) == path and path.read_bytes() == BODY
        fetch_named("tiny")
        assert fetch_model(str(path)) == path and len(site.asked) == 1
        path.unlink()
        fetch_named("tiny", shown=False)
        assert path.read_bytes() == BODY and len(site.asked) == 2
        fetch_named("no-such-model")
        fetch_named(str(tmp_path / "none.gguf"))
        with pytest.raises(UnknownName):
            fetch_model("no-such-model")
        assert len(site.asked) == 2 and capsys.readouterr() == ("", "")
        for kept, told in ((b"", ""), (bytes(1_250_000), "1.2 MB of tiny are kept: ")):
            path.unlink(missing_ok=True)
            part.write_bytes(kept)
            size = len(kept) + 10
            monkeypatch.setitem(model_lookup.KNOWN, "tiny", KnownModel(**{**vars(tiny), "size_bytes": size}))
            site.files = Interrupting({address: bytes(size)})
            with pytest.raises(KeyboardInterrupt):
                fetch_model("tiny", shown=False)
            said = f"\nfirsthand: {told}`firsthand models pull` goes on from there\n" if told else ""
            assert capsys.readouterr() == ("", said)


def test_a_damaged_file_is_refused_however_its_hash_is_written_and_files_without_one_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    use_home(tmp_path / "home", monkeypatch)
    names = ["m.gguf", *(f"LICENSE-{name}" for name in "ABCDEF")]
    with hub(monkeypatch) as site:

        def listed(*entries: dict[str, Any]) -> None:
            body = {"sha": COMMIT, "siblings": [{"rfilename": each, "size": 10} for each in names]}
            for file, entry in zip(body["siblings"], entries, strict=False):
                file |= entry
            site.files["/api/models/o/n/revision/main"] = json.dumps(body).encode()

        site.files |= {f"/o/n/resolve/{COMMIT}/{each}": BODY for each in names}
        for stated in ({"sha256": sha(TEN).upper()}, {"oid": f"sha256:{sha(TEN)}"}):
            listed({"lfs": stated})
            assert f"SHA-256 {sha(BODY)}: {sha(TEN)} was expected" in refused(DownloadError, fetch_model, "hf:o/n")
        asked = len(site.asked)
        listed({"lfs": {"sha256": "no hash"}})
        assert refused(DownloadError, fetch_model, "hf:o/n") == (
            f"{site.url} states 'no hash' as the hash of m.gguf, which is no SHA-256 or git hash, so the file could not be "
            "checked: set HF_ENDPOINT to another mirror"
        )
        assert len(site.asked) == asked + 1, "no file was downloaded"
        assert caplog.messages == []
        listed({"lfs": {"sha256": sha(BODY).upper()}}, {"blobId": "", "lfs": None})
        path = fetch_model("hf:o/n", shown=False)
        advice = "so damage would go unseen: pull from another mirror if you can"
        few = "LICENSE-A, LICENSE-B, LICENSE-C, LICENSE-D, LICENSE-E"
        assert caplog.messages == [f"the hub states no hash of {few} and 1 more, {advice}"]
        folder = path.parent
        assert json.loads((folder / "firsthand.json").read_text())["unverified"] == names[1:]
        assert fetch_model("hf:o/n", shown=False) == path and len(caplog.messages) == 1, "told once, after the pull"
        model_lookup.remove("hf:o/n")
        names[5:] = []
        listed({"blobId": hashlib.sha1(b"blob 10\0" + BODY).hexdigest()})
        assert model_lookup.resolve("hf:o/n") == path
        assert caplog.messages[1:] == [f"the hub states no hash of {', '.join(names[1:])}, {advice}"]
        model_lookup.remove("hf:o/n")
        assert main(["tokens", "a", "--model", "hf:o/n"]) != 0 and path.exists()
        assert f"firsthand: the hub states no hash of {', '.join(names[1:])}, {advice}\n" in capsys.readouterr().err
        model_lookup.remove("hf:o/n")
        caplog.clear()
        listed(*({"blobId": hashlib.sha1(b"blob 10\0" + BODY).hexdigest()} for _ in names))
        assert model_lookup.pull("hf:o/n") == path and caplog.messages == []


def test_a_blob_of_a_repository_with_sha_256_is_checked_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_home(tmp_path / "home", monkeypatch)
    git = hashlib.sha256(b"blob 10\0" + BODY).hexdigest()
    with hub(monkeypatch) as site:
        commit = COMMIT + 24 * "0"
        site.files[f"/o/n/resolve/{commit}/m.gguf"] = BODY
        for stated, is_right in ((git, True), (sha(BODY), True), (sha(TEN), False), (git[:-1] + "g", False)):
            sibling = {"rfilename": "m.gguf", "size": 10, "blobId": stated}
            body = {"sha": commit, "siblings": [sibling]}
            site.files["/api/models/o/n/revision/main"] = json.dumps(body).encode()
            if is_right:
                assert model_lookup.pull("hf:o/n").read_bytes() == BODY
                model_lookup.remove("hf:o/n")
            else:
                assert "m.gguf" in refused(DownloadError, model_lookup.pull, "hf:o/n")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_model(tmp_path_factory.mktemp("source"))
    (folder / "chat_template.jinja").write_text("é")
    (folder / "generation_config.json").write_text('{"temperature": 0.5}')
    (folder / "special_tokens_map.json").write_text("{}")
    (folder / "notes.txt").write_text("not of the model")
    return folder


def test_a_calibration_text_is_cut_into_128_sequences_of_512() -> None:
    ids = list(range(65_537))
    assert (
        _sequences(ids[:5], []) == [ids[:5]]
        and _sequences([], []) == []
        and _sequences(ids[:5], [7]) == [[7, *ids[:5]]]
    )
    assert _sequences(ids[:1025], []) == [ids[:512], ids[512:1024], [1024]]
    assert _sequences(ids, []) == _sequences(ids[:65_536], []) == [ids[512 * n : 512 * n + 512] for n in range(128)]


@pytest.mark.slow
def test_a_folder_is_rounded_on_the_text_and_keeps_its_tokenizer(source: Path, tmp_path: Path) -> None:
    from firsthand.nn.calibrated_rounding import round_model, save_rounded
    from firsthand.nn.weights import load
    from firsthand.tokens.pretrained import load as load_tokenizer

    folder = tmp_path / "made" / "gptq"
    text = "What is 12 + 30? The answer is 42. " * 60
    told: list[Any] = []
    size = quantize_folder(source, folder, "GPTQ", text, told=lambda *each: told.append(each))
    ids = load_tokenizer(source).encode(text)
    assert len(ids) > 512
    model = load(source)
    rounded, group = round_model(model, [ids[:512], ids[512:]], "gptq")
    save_rounded(model, rounded, group, "gptq", tmp_path / "expected")
    kept = (
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
        "chat_template.jinja",
    )  # fmt: skip
    expected = tree(tmp_path / "expected")
    assert tree(folder) == {**expected, **{name: (source / name).read_bytes() for name in kept}}
    assert size == len(expected["model.safetensors"]) and told[-1][0] == told[-1][1] == len(told)
    assert json.loads(expected["config.json"])["quantization_config"]["quant_method"] == "gptq"
    with pytest.raises(ConfigError) as there:
        quantize_folder(source, folder, "AWQ", text)
    assert str(there.value) == f"{folder} holds a model: give another name, or remove it first"
    with pytest.raises(ConfigError) as file:
        quantize_folder(source / "config.json", tmp_path / "x", "AWQ", text)
    assert str(file.value) == (
        f"{source / 'config.json'} is a file: AWQ takes a folder with config.json and safetensors"
    )  # fmt: skip
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("no model")
    for empty in (tmp_path / "empty", tmp_path / "there"):
        with pytest.raises(ConfigError, match="the calibration text is empty"):
            quantize_folder(source, empty, "AWQ", "")


def test_a_file_is_quantised_with_its_vocabulary_and_tells_its_bytes(source: Path, tmp_path: Path) -> None:
    from firsthand.formats.gguf_file import read_gguf
    from firsthand.tokens.vocab_export import vocabulary_metadata

    told: list[Any] = []
    made = quantize_file(source, tmp_path / "m.gguf", "Q8_0", told=lambda *each: told.append(each))
    metadata = read_gguf(tmp_path / "m.gguf").metadata
    assert made.path == tmp_path / "m.gguf" and told[-1][0] == told[-1][1] > 0
    tokens = vocabulary_metadata(source)["tokenizer.ggml.tokens"]
    assert metadata["tokenizer.ggml.tokens"] == list(tokens) and metadata["general.file_type"] == 7
    with pytest.raises(ConfigError, match="exists: give another name"):
        quantize_file(source, tmp_path / "m.gguf", "Q8_0")
