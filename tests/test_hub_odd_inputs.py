"""Names, documents and folders as a hub seldom has them: several at once, none at all, other letter case, exact limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import ConfigError, DownloadError, ModelFileError, UnknownName
from firsthand.hub import model_lookup
from firsthand.hub.download import _fetch, download, get_json_bytes
from firsthand.hub.fetch_model import fetch_model, fetch_named
from firsthand.hub.hf_repository import (
    HubFile,
    Repo,
    choose_files,
    endpoint,
    fetch_repo,
    file_url,
    headers,
    listing,
    parse_repo,
    read_marker,
)
from firsthand.hub.model_lookup import ExtraFile, Installed, card_sampling
from hub_site import BODY, COMMIT, hub, known, refused, sha, tree, use_home
from loopback import Site


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path / "home", monkeypatch)


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with hub(monkeypatch) as here:
        yield here


@pytest.mark.slow
def test_the_limit_of_a_document_is_for_all_of_its_pieces_together(site: Site, tmp_path: Path) -> None:
    site.files |= {"/d": b"12345", "/empty": b""}
    site.drip = True
    assert get_json_bytes(f"{site.url}/d", headers={}, max_bytes=5) == b"12345"
    assert refused(DownloadError, get_json_bytes, f"{site.url}/d", headers={}, max_bytes=4) == (
        f"{site.url}/d gave more than 4 bytes: a short list was expected"
    )
    assert get_json_bytes(f"{site.url}/empty", headers={}, max_bytes=0) == b""
    part, told = tmp_path / "d.part", list[Any]()
    site.lengths = False
    with pytest.raises(DownloadError, match=r"/d gives more than the 3 bytes expected$"):
        _fetch(f"{site.url}/d", part, 3, {}, 9.0, lambda *each: told.append(each))
    assert told == [(1, 3), (2, 3), (3, 3)] and part.read_bytes() == b"", "what came before is of another file too"
    site.drip, site.cut_after, site.lengths = False, [3], True
    assert refused(DownloadError, get_json_bytes, f"{site.url}/d", headers={}) == (
        f"{site.url.removeprefix('http://')} cannot be reached (RemoteProtocolError): check the network or the proxy"
    )


def test_an_empty_file_is_downloaded_checked_and_kept(site: Site, tmp_path: Path) -> None:
    site.files["/e"] = b""
    told: list[Any] = []
    (tmp_path / "e.part").write_bytes(b"left")
    for _ in range(2):
        made = download(
            f"{site.url}/e", tmp_path / "e", sha256=sha(b""), size_bytes=0, on_progress=lambda *each: told.append(each)
        )
    assert tree(tmp_path) == {"e": b""} and made == tmp_path / "e" and site.asked == [("/e", None, None)] and told == []
    (tmp_path / "e").write_bytes(b"x")
    assert download(f"{site.url}/e", tmp_path / "e", size_bytes=0).read_bytes() == b"" and len(site.asked) == 2
    (tmp_path / "e").write_bytes(b"anything")
    assert download(f"{site.url}/e", tmp_path / "e").read_bytes() == b"anything", "nothing says that it is another"
    site.files["/f"] = BODY
    assert refused(DownloadError, download, f"{site.url}/f", tmp_path / "f", size_bytes=0) == (
        f"{site.url}/f offers 10 bytes instead of 0, so it is another file and was not downloaded"
    )


def listed(*names: str) -> list[HubFile]:
    return [HubFile(name, 1, None, None) for name in names]


def test_a_licence_is_a_text_and_never_weights_code_or_a_pickle() -> None:
    taken = ["LICENSE", "LICENSE.txt", "LICENSE.TXT", "LICENSE.md", "LICENSE.rst", "LICENSE-MIT", "LICENSE_MODEL.txt",
             "LICENSE-APACHE-2.0", "LICENSE-CC-BY-4.0.md"]  # fmt: skip
    left = [f"LICENSE.{ending}" for ending in ("gguf", "safetensors", "pkl", "py", "bin", "pt", "so", "sh", "html", "txt.py",
            "gguf.0.py", "2.0.pkl")] + ["LICENSE-1.gguf", "MY_LICENSE.txt", "license.py"]  # fmt: skip
    for weights, file in (("a.gguf", "a.gguf"), ("a.gguf", None)):
        names = taken + (left if file else [each for each in left if not each.endswith((".gguf", ".safetensors"))])
        found = [each.name for each in choose_files(Repo("o/n", file=file), listed(weights, *names))]
        assert found == [weights, *taken]
    found = [each.name for each in choose_files(Repo("o/n"), listed("config.json", "w.safetensors", *taken, *left))]
    assert found == ["config.json", *taken, "w.safetensors", "LICENSE.safetensors"], "weights are weights, once"


def test_what_is_taken_of_a_repository_follows_from_all_of_its_names() -> None:
    def chosen(file: str | None, *names: str) -> list[str]:
        return [each.name for each in choose_files(Repo("o/n", file=file), listed(*names))]

    assert chosen(None, "z.gguf", "LICENSE-B", "config.json", "LICENSE", "LICENCE", "README.md") == [
        "z.gguf", "LICENSE-B", "LICENSE",
    ]  # fmt: skip
    mixed = ("b.gguf", "model.safetensors", "consolidated.safetensors", "config.json", "LICENSE", "tokenizer.model",
             "x.jinja", "tokenizer.model.v3", "a.bin", "model.bin", "modelling.py", "a.SAFETENSORS")  # fmt: skip
    assert chosen(None, *mixed) == ["config.json", "tokenizer.model", "x.jinja", "LICENSE", "model.safetensors"]
    assert chosen("b.gguf", *mixed) == ["b.gguf", "LICENSE"]
    alone = ("consolidated.safetensors", "config.json", "model.json", "xmodel.safetensors")
    assert chosen(None, *alone) == ["config.json", "model.json", "consolidated.safetensors", "xmodel.safetensors"]
    nine = [f"q{n}.gguf" for n in range(9)]
    few = ", ".join(nine[:8])
    for file, names, said in (
        ("q.gguf", nine, f"hf:o/n has no file 'q.gguf'; its GGUF files: {few}, ..."),
        ("q.gguf", nine[:8], f"hf:o/n has no file 'q.gguf'; its GGUF files: {few}"),
        ("q.gguf", ["LICENSE"], "hf:o/n has no file 'q.gguf'; its GGUF files: none"),
        (None, nine[1:3], "hf:o/n holds 2 GGUF files: choose one, such as hf:o/n:q1.gguf"),
        (None, ["a.safetensors", "a.gguf"], "hf:o/n has no config.json: only models in transformers' layout are supported"),
        (None, ["a.pickle", "config.json"],
         "hf:o/n has only pickles, which are never read: look for a safetensors revision"),
        (None, [], "hf:o/n holds no safetensors and no GGUF file in its top folder"),
    ):  # fmt: skip
        assert refused(DownloadError, chosen, file, *names) == said


@pytest.mark.slow
def test_a_revision_with_a_folder_in_it_is_one_part_of_every_address(site: Site, home: Path) -> None:
    repo = parse_repo("hf:o/n@refs/pr/1:m.gguf")
    assert repo == Repo("o/n", "refs/pr/1", "m.gguf") and repo.name == "hf:o/n@refs/pr/1:m.gguf"
    assert repo.folder(home) == home / "hf" / "o" / "n@refs%2Fpr%2F1+m.gguf"
    assert parse_repo("hf:o/n@main") == Repo("o/n") and Repo("o/n", "main", "f.gguf").name == "hf:o/n:f.gguf"
    assert file_url("o/n", "refs/pr/1", "a b#.gguf") == f"{site.url}/o/n/resolve/refs%2Fpr%2F1/a%20b%23.gguf"
    entries = [
        {"rfilename": name, "size": size, **more}
        for name, size, more in (
            ("m.gguf", 10, {"lfs": {"sha256": sha(BODY)}, "blobId": "f" * 40}), ("firsthand.json", 1, {}), ("x.part", 1, {}),
            ("sub/y.gguf", 1, {}), ("LICENSE", None, {"lfs": None, "blobId": "short"}), ("n.gguf", -1, {"blobId": "e" * 40}),
            ("o.gguf", True, {"lfs": {}, "blobId": "d" * 40}),
        )
    ]  # fmt: skip
    path = "/api/models/o/n/revision/refs%2Fpr%2F1"
    site.files[path] = json.dumps({"sha": COMMIT, "siblings": entries}).encode()
    assert listing(repo) == (COMMIT, [
        HubFile("m.gguf", 10, sha(BODY), None), HubFile("LICENSE", None, None, None, "'short'"),
        HubFile("n.gguf", None, None, "e" * 40), HubFile("o.gguf", None, None, "d" * 40),
    ])  # fmt: skip
    assert site.asked == [(path, None, None)]
    for body, said in (
        ({"sha": "C" * 40, "siblings": []}, "does not say which commit it lists"),
        ({"siblings": []}, "gave no list of files"), ({"sha": COMMIT, "siblings": [{"size": 1}]}, "gave no list of files"),
        ([], "gave no list of files"),
        ({"sha": COMMIT, "siblings": ["m.gguf"]}, "gave no list of files"),
    ):  # fmt: skip
        site.files[path] = json.dumps(body).encode()
        assert refused(DownloadError, listing, repo) == (
            f"{site.url}{path}?blobs=true {said}: the hub's JSON was expected; check HF_ENDPOINT"
        )


def test_a_pull_of_files_without_sizes_has_no_total_and_keeps_other_commits_parts_until_it_is_whole(
    site: Site, home: Path
) -> None:
    entries = [{"rfilename": "m.gguf", "lfs": {"sha256": sha(BODY)}}, {"rfilename": "LICENSE"}]
    site.files |= {
        "/api/models/o/n/revision/main": json.dumps({"sha": COMMIT, "siblings": entries}).encode(),
        f"/o/n/resolve/{COMMIT}/m.gguf": BODY, f"/o/n/resolve/{COMMIT}/LICENSE": b"MIT",
    }  # fmt: skip
    folder = home / "hf" / "o" / "n@main"
    for name in (f".n@main.{'a' * 12}.part", f".n@main.{'g' * 12}.part", f".m@main.{'a' * 12}.part"):
        (folder.parent / name).mkdir(parents=True)
    folder.write_text("in its place")
    told: list[Any] = []
    assert fetch_repo(Repo("o/n"), folder, on_progress=lambda *each: told.append(each)) == folder
    assert told == [(10, None), (13, None)] and sorted(each.name for each in folder.parent.iterdir()) == [
        f".m@main.{'a' * 12}.part", f".n@main.{'g' * 12}.part", "n@main",
    ]  # fmt: skip
    marker = {"name": "hf:o/n", "commit": COMMIT, "files": {"m.gguf": 10, "LICENSE": 3}, "unverified": ["LICENSE"]}
    assert json.loads((folder / "firsthand.json").read_text()) == marker == read_marker(folder)
    for wrong in ({"files": {}}, {"name": 5, "files": {}}, {"name": "x"}, {"name": "x", "files": []}, [], "x",
                  {"name": "x", "files": {"m.gguf": 10, "LICENSE": 4}}, {"name": "x", "files": {"none": 0}}):  # fmt: skip
        (folder / "firsthand.json").write_text(json.dumps(wrong))
        assert read_marker(folder) is None, wrong
    (folder / "firsthand.json").write_text('{"name": "", "files": {}}')
    assert read_marker(folder) == {"name": "", "files": {}} and read_marker(home) is None


def test_a_token_and_an_endpoint_are_as_the_variables_say_less_blanks_and_slashes(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token, found in (("", {}), (" \n", {}), (" hf_~! ", {"Authorization": "Bearer hf_~!"})):
        monkeypatch.setenv("HF_TOKEN", token)
        assert headers() == found
    for token in ("a b", "hf_é", "a\x7f"):
        monkeypatch.setenv("HF_TOKEN", token)
        assert refused(ConfigError, headers) == "HF_TOKEN has blanks or invalid characters: copy it again"
    for given, url in (("", "https://huggingface.co"), ("https://a.b/c//", "https://a.b/c"), ("http://x/", "http://x")):
        monkeypatch.setenv("HF_ENDPOINT", given)
        assert endpoint() == url
    for name in ("hf:", "hf:o", "hf:o/n@", "hf:o/n:", "hf:o/n:m.GGUF", "hf:o/n:m.gguf@main", "hf:o/n/m", " hf:o/n",
                 "hf:o/n ", "HF:o/n", "hf:o/n@a..b", "hf:-o/n", f"hf:o/{'n' * 97}", f"hf:o/n@{'r' * 65}",
                 "hf:o/n\n"):  # fmt: skip
        assert refused(ConfigError, parse_repo, name) == (
            f"{name!r} is not a repository: expected hf:ORG/NAME, optionally with @REVISION and :FILE.gguf"
        )
    most = f"hf:{'o' * 96}/{'n' * 96}@{'r' * 4}"
    assert len(most) == 201 and parse_repo(most[:-1]).revision == "rrr"
    assert refused(ConfigError, parse_repo, most).startswith(f"{most[:200]!r} is not a repository")


def test_a_text_is_a_model_by_its_name_or_path_whatever_its_letter_case(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    resolve = model_lookup.resolve
    (tmp_path / "GGUF").write_bytes(b"GGUF")
    (tmp_path / "m.gguf").write_bytes(b"GGUFrest")
    assert resolve("~/m.gguf") == tmp_path / "m.gguf" and resolve("GGUF") == Path("GGUF")
    assert refused(UnknownName, resolve, "") == "no model ''; `firsthand models` shows all"
    for text in ("none.GGUF", "none.SafeTensors", "none.PT", "none.pickle"):
        assert refused(UnknownName, resolve, text) == (
            f"there is no file or folder {text!r}: give a .gguf file, a model's folder, or hf:ORG/NAME"
        )
    assert refused(UnknownName, resolve, "o/n") == (
        "there is no file or folder 'o/n'. For a repository on the Hugging Face hub write 'hf:o/n'"
    )
    assert refused(UnknownName, resolve, "smolm2") == (
        "no model 'smolm2'; did you mean 'smollm2'? `firsthand models` shows all"
    )
    assert refused(UnknownName, resolve, "ollama:qwen3") == "'ollama:qwen3' is Ollama's to fetch: `ollama pull qwen3`"
    assert refused(UnknownName, resolve, "QWEN3:4b") == (
        "no model 'QWEN3:4b' runs here; if Ollama serves it here, write ollama:QWEN3:4b; `firsthand models` shows those "
        "that do"
    )
    assert refused(UnknownName, resolve, "x" * 5_000) == f"{'x' * 200!r} cannot be accessed: File name too long"
    shapes = {"no": [], "two": [f"{sign}.gguf" for sign in "hcgaebdf"], "bare": ["config.json", "a.gguf"]}
    for name, files in shapes.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    for text, said in (
        ("no", "no has no config.json: a Hugging Face folder has one beside the weights"),
        ("two", "two has no config.json: give the file, 'two/a.gguf'"),
        ("bare", "bare has no .safetensors file: give a Hugging Face folder or a .gguf file"),
    ):
        assert refused(ModelFileError, resolve, text) == said
    (tmp_path / "bare" / "w.bin").touch()
    assert resolve("bare") == Path("bare")
    for name, body, said in (
        ("W.SAFETENSORS", b"GGUF", "holds weights only: give its folder, with config.json and the tokenizer"),
        ("e.gguf", b"", "is empty: fetch it again, or give another file"),
        ("s.gguf", b"GGU", "is no model: it starts with b'GGU', where b'GGUF' was expected"),
        ("r.json", b"{}", "is no model: it starts with b'{}', where b'GGUF' was expected; for its replies write "
         "scripted:r.json"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(body)
        assert refused(ModelFileError, resolve, name) == f"{name} {said}"
    here = {name: model_lookup.is_here(name) for name in ("smollm2", "hf:o/n", "none", "", "SmolLM2")}
    assert here == {"smollm2": False, "hf:o/n": False, "none": True, "": True, "SmolLM2": True}
    assert refused(UnknownName, model_lookup.locate, "minilm2") == (
        "no model 'minilm2'; did you mean 'minilm'? `firsthand models` shows all"
    )


def test_a_known_model_is_whole_only_with_every_file_and_its_card_s_settings_are_copies(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = (ExtraFile("a.json", sha(b"1"), 1), ExtraFile("d/b.json", sha(b"22"), 2))
    monkeypatch.setitem(model_lookup.KNOWN, "tiny", known(extra_files=extra, sampling={"top_p": 0.5}))
    monkeypatch.setitem(model_lookup.KNOWN, "one", known(file="one.gguf"))
    assert model_lookup.KNOWN["tiny"].all_bytes == 13 and model_lookup.KNOWN["one"].all_bytes == 10
    folder = home / "models" / "tiny"
    files = {"a.json": b"1", "d/b.json": b"22", "m.gguf": BODY}
    (folder / "d").mkdir(parents=True)
    for name, body in files.items():
        assert model_lookup.locate("tiny") is None
        (folder / name).write_bytes(body)
    assert model_lookup.locate("tiny") == folder and model_lookup.is_here("tiny")
    assert model_lookup.installed() == [Installed("tiny", folder, 13)]
    for name, body in files.items():
        (folder / name).write_bytes(body + b"x")
        assert model_lookup.locate("tiny") is None and model_lookup.installed() == []
        (folder / name).write_bytes(body)
    (home / "models" / "one").mkdir()
    (home / "models" / "one" / "one.gguf").write_bytes(bytes(10))
    assert model_lookup.locate("one") == home / "models" / "one" / "one.gguf"
    found = card_sampling(Path("/any/m.gguf"))
    found["top_p"] = 9.0
    assert card_sampling(Path("m.gguf")) == {"top_p": 0.5} and card_sampling(Path("/m.gguf/x")) == {}
    (folder / "m.gguf").unlink()
    (folder / "m.gguf.part").write_bytes(b"1234")
    (home / "models" / "one" / "one.gguf.part").mkdir()
    assert model_lookup.partial_bytes("tiny") == 4 and model_lookup.partial_bytes("one") == 0
    assert model_lookup.remove("tiny") == folder and not folder.exists()
    assert model_lookup.remove("one") == home / "models" / "one" and model_lookup.installed() == []


@pytest.mark.slow
def test_a_repository_is_fetched_by_its_name_once_and_counted_while_it_is_in_part(site: Site, home: Path) -> None:
    entries = [{"rfilename": "m.gguf", "size": 10, "lfs": {"sha256": sha(BODY)}}]
    site.files |= {
        "/api/models/o/n/revision/v1": json.dumps({"sha": COMMIT, "siblings": entries}).encode(),
        f"/o/n/resolve/{COMMIT}/m.gguf": BODY,
    }  # fmt: skip
    name, folder = "hf:o/n@v1", home / "models" / "hf" / "o" / "n@v1"
    part = folder.with_name(f".n@v1.{COMMIT[:12]}.part")
    (part / "sub").mkdir(parents=True)
    (part / "m.gguf.part").write_bytes(BODY[:7])
    (part / "LICENSE").write_bytes(b"12")
    assert (model_lookup.partial_bytes(name), model_lookup.partial_bytes("hf:o/n"), model_lookup.is_here(name)) == (
        9,
        0,
        False,
    )
    fetch_named("o/n@v1", shown=False)
    assert not folder.exists() and site.asked == []
    fetch_named(name, shown=False)
    assert [path for path, _, _ in site.asked] == ["/api/models/o/n/revision/v1", f"/o/n/resolve/{COMMIT}/m.gguf"]
    assert site.asked[1][1] == "bytes=7-" and model_lookup.is_here(name) and model_lookup.partial_bytes(name) == 0
    assert fetch_model(name, shown=False) == folder / "m.gguf" == model_lookup.pull(name) and len(site.asked) == 2
    assert model_lookup.installed() == [Installed(name, folder / "m.gguf", 10)]
    assert model_lookup.remove(name) == folder and model_lookup.installed() == [] and not model_lookup.is_here(name)
    told: list[Any] = []
    assert model_lookup.resolve(name, on_progress=lambda *each: told.append(each)) == folder / "m.gguf"
    assert told == [(10, 10)] and len(site.asked) == 4 and model_lookup.remove(name) == folder
    assert refused(UnknownName, model_lookup.remove, name) == f"{name} is not on disk: `firsthand models` shows what is"
    assert refused(ConfigError, model_lookup.remove, str(folder)) == (
        f"{str(folder)!r} was not pulled by firsthand: delete the file yourself, or name a model that was"
    )
