"""What the hub's names, lists and answers lead to: files chosen, messages given, and what counts as one file."""

import hashlib
import json
import os

import httpx
import pytest

from firsthand.errors import ConfigError, DownloadError, ModelFileError, UnknownName
from firsthand.hub import hf_repository, model_lookup
from firsthand.hub.content_hash import content_hash, model_files
from firsthand.hub.download import (
    DiskError,
    _check_status,
    _expect_safe,
    _is_continuation,
    _total,
    disk_errors,
    download,
    get_json_bytes,
    verify,
)
from firsthand.hub.encoder_planner import TOKENS, encoder_gflop
from firsthand.hub.hf_repository import HubFile, Repo, _listed, choose_files, file_url, headers, parse_repo, read_marker
from firsthand.hub.offline import is_local
from firsthand.hub.planner import prefill_gflop
from firsthand.hub.wheel import reason
from loopback import serve

COMMIT = "c" * 40


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def test_a_repository_s_name_has_a_revision_and_a_file(tmp_path):
    whole = parse_repo("hf:Org-1/Na.me_x@refs/pr.1:a-b.gguf")
    assert (
        whole == Repo("Org-1/Na.me_x", "refs/pr.1", "a-b.gguf") and whole.name == "hf:Org-1/Na.me_x@refs/pr.1:a-b.gguf"
    )
    assert whole.folder(tmp_path) == tmp_path / "hf" / "Org-1" / "Na.me_x@refs%2Fpr.1+a-b.gguf"
    plain = parse_repo("hf:o/n")
    assert plain == Repo("o/n", "main", None) and plain.name == "hf:o/n" == parse_repo("hf:o/n@main").name
    assert plain.folder(tmp_path) == tmp_path / "hf" / "o" / "n@main"
    assert parse_repo(f"hf:{'a' * 96}/{'b' * 96}").id == f"{'a' * 96}/{'b' * 96}"
    for wrong in (
        "hf:o",
        "o/n",
        "hf:o/n@",
        "hf:o/n:x.bin",
        "hf:o/n..x",
        f"hf:{'a' * 97}/n",
        f"hf:{'a' * 96}/{'b' * 96}@main-1",
        " hf:o/n",
    ):
        with pytest.raises(
            ConfigError, match="is not a repository: expected hf:ORG/NAME, optionally with @REVISION and"
        ):
            parse_repo(wrong)


def files(*names):
    return [HubFile(name, 1, None, None) for name in names]


def chosen(*names, file=None):
    return [each.name for each in choose_files(Repo("o/n", file=file), files(*names))]


def test_the_files_of_a_repository_are_its_weights_with_their_companions():
    everything = (
        "a.gguf", "config.json", "x.jinja", "tokenizer.model", "other.model", "LICENSE", "LICENSE.md", "README.md", "m.py",
        "consolidated.safetensors", "model-1.safetensors", "weights.safetensors", "pytorch_model.bin",
    )  # fmt: skip
    assert chosen(*everything) == [
        "config.json", "x.jinja", "tokenizer.model", "LICENSE", "LICENSE.md", "model-1.safetensors", "weights.safetensors",
    ]  # fmt: skip
    assert chosen("config.json", "consolidated.safetensors") == ["config.json", "consolidated.safetensors"]
    assert chosen("config.json", "a.gguf", "LICENSE") == ["a.gguf", "LICENSE"]
    assert chosen(*everything, file="a.gguf") == ["a.gguf", "LICENSE", "LICENSE.md"]
    assert chosen("a.gguf", "b.gguf", file="b.gguf") == ["b.gguf"]
    for names, file, said in (
        (("a.gguf", "b.gguf"), None, "hf:o/n holds 2 GGUF files: choose one, such as hf:o/n:a.gguf"),
        (("a.gguf", "b.gguf"), "c.gguf", "hf:o/n has no file 'c.gguf'; its GGUF files: a.gguf, b.gguf"),
        (tuple(f"{n}.gguf" for n in range(9)), "c.gguf",
         "its GGUF files: 0.gguf, 1.gguf, 2.gguf, 3.gguf, 4.gguf, 5.gguf, 6.gguf, 7.gguf, ..."),
        (tuple(f"{n}.gguf" for n in range(8)), "c.gguf", "5.gguf, 6.gguf, 7.gguf"),
        (("x.json",), "c.gguf", "hf:o/n has no file 'c.gguf'; its GGUF files: none"),
        (("model.safetensors",), None, "hf:o/n has no config.json: only models in transformers' layout are supported"),
        (("config.json", "m.bin"), None, "hf:o/n has only pickles, which are never read: look for a safetensors revision"),
        (("config.json",), None, "hf:o/n holds no safetensors and no GGUF file in its top folder"),
    ):  # fmt: skip
        with pytest.raises(DownloadError) as raised:
            chosen(*names, file=file)
        assert str(raised.value).endswith(said), said


def test_what_the_hub_lists_is_believed_in_form_alone():
    sha, git = "a" * 64, "b" * 40
    assert _listed({"rfilename": "x", "size": 0, "blobId": git}) == HubFile("x", 0, None, git)
    assert _listed({"rfilename": 7, "size": (1 << 50) - 1, "blobId": git, "lfs": {"sha256": sha}}) == HubFile(
        "7", (1 << 50) - 1, sha, None
    )
    for size in (-1, 1 << 50, True, "3", None, 1.5):
        assert _listed({"rfilename": "x", "size": size}).size_bytes is None
    for stated in ({"sha256": "A" * 64}, {"oid": sha}, {"oid": f"sha256:{sha}"}, {"sha256": sha, "oid": "b" * 64}):
        assert _listed({"rfilename": "x", "lfs": stated, "blobId": git}) == HubFile("x", None, sha, None)
    assert _listed({"rfilename": "x", "blobId": "B" * 40}) == HubFile("x", None, None, git)
    for digest in ("a" * 63, "a" * 65, 7, "g" * 64, git, "x\n" + "a" * 200):
        file = _listed({"rfilename": "x", "lfs": {"sha256": digest}, "blobId": git})
        assert (file.sha256, file.git_hash, file.odd_hash) == (None, None, repr(digest)[:100])
    for stated in (sha, "A" * 64, f"sha256:{sha}"):
        assert _listed({"rfilename": "x", "lfs": None, "blobId": stated}) == HubFile("x", None, None, sha)
    for digest in ("a" * 63, "a" * 65, "b" * 39, "b" * 41, "g" * 64, "b" * 40 + "\n"):
        assert _listed({"rfilename": "x", "blobId": digest}).odd_hash == repr(digest)
    for none in ({}, {"lfs": {}}, {"blobId": None}, {"blobId": ""}, {"lfs": {"size": 3}, "blobId": git}):
        assert _listed({"rfilename": "x", **none}) == HubFile("x", None, None, None)


def test_a_list_names_its_commit_and_leaves_out_what_is_no_file_of_a_model(home, monkeypatch):
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url + "/")
        where = "/api/models/o/n/revision/refs%2Fpr"
        names = ["a.json", "firsthand.json", "b.part", "sub/c.json", ".d", "e" * 97, "f.gguf"]
        body = {"sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
        site.files[where] = json.dumps(body).encode()
        commit, listed = hf_repository.listing(Repo("o/n", "refs/pr"))
        assert (commit, [each.name for each in listed]) == (COMMIT, ["a.json", "f.gguf"])
        for wrong, said in (
            ({**body, "sha": "C" * 40}, "does not say which commit it lists"), ({"sha": COMMIT}, "gave no list of files"),
            ([], "gave no list of files"), ({**body, "siblings": [{}]}, "gave no list of files"),
        ):  # fmt: skip
            site.files[where] = json.dumps(wrong).encode()
            with pytest.raises(DownloadError, match=f"{said}: the hub's JSON was expected; check HF_ENDPOINT"):
                hf_repository.listing(Repo("o/n", "refs/pr"))
        assert file_url("o/n", "refs/pr", "a b.json") == f"{site.url}/o/n/resolve/refs%2Fpr/a%20b.json"
    monkeypatch.setenv("HF_ENDPOINT", "")
    assert file_url("o/n", "main", "x") == "https://huggingface.co/o/n/resolve/main/x" and headers() == {}
    monkeypatch.setenv("HF_TOKEN", " hf_x! \n")
    assert headers() == {"Authorization": "Bearer hf_x!"}
    for wrong in ("a b", "é"):
        monkeypatch.setenv("HF_TOKEN", wrong)
        with pytest.raises(ConfigError, match="HF_TOKEN has blanks or invalid characters: copy it again"):
            headers()


def test_the_pooling_of_an_embedder_is_pulled_and_a_folder_without_it_is_not_whole(home, monkeypatch):
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [{"type": f"a.{kind}", "path": path} for kind, path in kinds.items()]
    bodies = {
        "config.json": b"{}", "modules.json": json.dumps(modules).encode(), "model.safetensors": b"x",
        "1_Pooling/config.json": b'{"word_embedding_dimension": 1}',
    }  # fmt: skip
    others = (
        "onnx/config.json",
        "1_Pooling/x/config.json",
        "1_../config.json",
        "../1_Pooling/config.json",
        "1_P/a.json",
    )
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        siblings = [{"rfilename": name} for name in (*others, *bodies)]
        site.files["/api/models/o/n/revision/main"] = json.dumps({"sha": COMMIT, "siblings": siblings}).encode()
        site.files.update({f"/o/n/resolve/{COMMIT}/{name}": body for name, body in bodies.items()})
        folder = model_lookup.pull("hf:o/n")
    found = {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()}
    assert found == {*bodies, "firsthand.json"}
    assert read_marker(folder)["files"] == {name: len(body) for name, body in bodies.items()}
    assert chosen("config.json", "m.safetensors", "1_Pooling/config.json") == ["config.json", "m.safetensors"]
    marker = {"name": "hf:o/n", "commit": COMMIT, "files": {"config.json": 2}}
    (folder / "firsthand.json").write_text(json.dumps(marker))
    assert read_marker(folder) == marker
    (folder / "1_Pooling" / "config.json").unlink()
    assert read_marker(folder) is None, "as pulled before 0.30.0"
    for other in (b"{", b'[{"type": "a.Pooling", "path": "../1_Pooling"}]', b"[" * 100_000, b"[]"):
        (folder / "modules.json").write_bytes(other)
        assert read_marker(folder) == marker


def test_a_pooling_that_the_hub_does_not_have_is_told_once_and_not_pulled_again(home, monkeypatch, caplog):
    modules = [{"type": "a.Pooling", "path": "1_Pooling"}]
    bodies = {"config.json": b"{}", "modules.json": json.dumps(modules).encode(), "model.safetensors": b"x"}
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        siblings = [{"rfilename": name, "size": len(body)} for name, body in bodies.items()]
        site.files["/api/models/o/n/revision/main"] = json.dumps({"sha": COMMIT, "siblings": siblings}).encode()
        site.files.update({f"/o/n/resolve/{COMMIT}/{name}": body for name, body in bodies.items()})
        folder = model_lookup.pull("hf:o/n")
        told = [each.getMessage() for each in caplog.records if "1_Pooling" in each.getMessage()]
        assert told == [
            "hf:o/n names 1_Pooling/config.json in its modules.json, and the hub has no such file: it cannot be opened as "
            "an embedder"
        ]
        site.files.clear()
        assert model_lookup.pull("hf:o/n") == folder, "the hub is not asked again"
    marker = read_marker(folder)
    assert marker["absent"] == ["1_Pooling/config.json"]
    assert [each.name for each in model_lookup.installed()] == ["hf:o/n"]
    for absent in (None, 7, {"1_Pooling/config.json": 1}, "1_Pooling/config.json", [], ["2_Pooling/config.json", []]):
        (folder / "firsthand.json").write_text(json.dumps(marker | {"absent": absent}))
        assert read_marker(folder) is None, "as pulled before 0.30.0"


def test_a_pull_counts_the_bytes_of_all_files_and_marks_the_folder_whole(home, monkeypatch):
    bodies = {"config.json": b"{}", "LICENSE": b"", "model.safetensors": b"x" * 70, "tokenizer.json": b"[1]"}
    seen = []
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        siblings = [{"rfilename": name, "size": len(body)} for name, body in bodies.items()]
        site.files["/api/models/o/n/revision/main"] = json.dumps({"sha": COMMIT, "siblings": siblings}).encode()
        site.files.update({f"/o/n/resolve/{COMMIT}/{name}": body for name, body in bodies.items()})
        folder = model_lookup.pull("hf:o/n", on_progress=lambda done, total: seen.append((done, total)))
    assert folder == home / "models" / "hf" / "o" / "n@main" and seen[-1] == (75, 75)
    assert {total for _, total in seen} == {75} and [done for done, _ in seen] == sorted(done for done, _ in seen)
    sizes = {name: len(body) for name, body in bodies.items()}
    named = ["config.json", "tokenizer.json", "LICENSE", "model.safetensors"]
    assert read_marker(folder) == {"name": "hf:o/n", "commit": COMMIT, "files": sizes, "unverified": named}
    assert model_lookup.installed() == [model_lookup.Installed("hf:o/n", folder, 75)]
    assert model_lookup.is_here("hf:o/n") and not model_lookup.is_here("hf:o/m") and model_lookup.is_here("/any/path")
    for spoil in ({"name": 7}, {"files": {"config.json": 3}}, {"files": []}, {"files": {"none": 0}}):
        (folder / "firsthand.json").write_text(
            json.dumps({"name": "hf:o/n", "commit": COMMIT, "files": sizes, **spoil})
        )
        assert read_marker(folder) is None and model_lookup.installed() == [] and model_lookup.locate("hf:o/n") is None
    staging = folder.parent / f".n@main.{'d' * 12}.part"
    staging.mkdir()
    (staging / "a").write_bytes(b"12345")
    (folder.parent / f".n@main2.{'d' * 12}.part").mkdir()
    assert hf_repository.partial_folders(folder) == [staging] and model_lookup.partial_bytes("hf:o/n") == 5
    assert model_lookup.remove("hf:o/n") == folder and not folder.exists() and not staging.exists()
    with pytest.raises(UnknownName, match="hf:o/n is not on disk: `firsthand models` shows what is"):
        model_lookup.remove("hf:o/n")
    with pytest.raises(ConfigError, match="'/x/y' was not pulled by firsthand: delete the file yourself"):
        model_lookup.remove("/x/y")
    assert (hf_repository.model_in(folder.parent), model_lookup.partial_bytes("x")) == (folder.parent, 0)


def test_a_known_model_is_its_file_or_a_folder_with_its_extra_files(home):
    one, many = model_lookup.KNOWN["smollm2"], model_lookup.KNOWN["minilm"]
    assert (
        many.all_bytes == many.size_bytes + 612 + 349 + 53 + 190 + 466_247 + 350 + 112
        and one.all_bytes == one.size_bytes
    )
    assert (
        model_lookup.card_sampling(home / one.file) == dict(one.sampling)
        and model_lookup.card_sampling(home / "x") == {}
    )
    file = home / "models" / "smollm2" / one.file
    file.parent.mkdir(parents=True)
    (file.parent / f"{one.file}.part").write_bytes(b"123")
    assert model_lookup.partial_bytes("smollm2") == 3 and model_lookup.locate("smollm2") is None
    with file.open("wb") as made:
        made.truncate(one.size_bytes)
    assert model_lookup.locate("smollm2") == file == model_lookup.resolve("smollm2")
    folder = home / "models" / "minilm"
    for name, size in [(each.path, each.size_bytes) for each in many.extra_files] + [(many.file, many.size_bytes)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("wb") as made:
            made.truncate(size)
    assert model_lookup.locate("minilm") == folder
    assert [(each.name, each.size_bytes) for each in model_lookup.installed()] == [
        ("smollm2", one.size_bytes), ("minilm", many.all_bytes),
    ]  # fmt: skip
    os.truncate(folder / "modules.json", 348)
    assert model_lookup.locate("minilm") is None
    with pytest.raises(UnknownName, match="smollm3"):
        model_lookup.locate("smollm3")


def refused(text):
    with pytest.raises((UnknownName, ModelFileError)) as raised:
        model_lookup.resolve(str(text))
    return str(raised.value)


def test_a_path_that_is_no_model_says_why(home, tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUFx")
    assert model_lookup.resolve(str(tmp_path / "x.gguf")) == tmp_path / "x.gguf"
    (tmp_path / "e.gguf").write_bytes(b"")
    (tmp_path / "r.json").write_bytes(b"[1, 2]")
    (tmp_path / "w.SAFETENSORS").write_bytes(b"x")
    (tmp_path / "n.gguf").write_bytes(b"abc")
    assert refused(tmp_path / "e.gguf") == f"{tmp_path}/e.gguf is empty: fetch it again, or give another file"
    assert refused(tmp_path / "n.gguf").endswith(
        "n.gguf is no model: it starts with b'abc', where b'GGUF' was expected"
    )
    assert refused(tmp_path / "r.json").endswith(f"was expected; for its replies write scripted:{tmp_path}/r.json")
    assert refused(tmp_path / "w.SAFETENSORS").endswith(
        "holds weights only: give its folder, with config.json and the tokenizer"
    )
    assert refused(tmp_path) == f"{tmp_path} has no config.json: give the file, {str(tmp_path / 'e.gguf')!r}"
    folder = tmp_path / "f"
    folder.mkdir()
    assert refused(folder) == f"{folder} has no config.json: a Hugging Face folder has one beside the weights"
    (folder / "config.json").write_text("{}")
    assert refused(folder) == f"{folder} has no .safetensors file: give a Hugging Face folder or a .gguf file"
    (folder / "m.safetensors").write_bytes(b"")
    assert model_lookup.resolve(str(folder)) == folder
    assert refused("org/name") == (
        "there is no file or folder 'org/name'. For a repository on the Hugging Face hub write 'hf:org/name'"
    )
    assert refused("/no/such/file") == (
        "there is no file or folder '/no/such/file': give a .gguf file, a model's folder, or hf:ORG/NAME"
    )
    assert refused("x.GGUF").startswith("there is no file or folder 'x.GGUF'") and "smollm2" in refused("smolm2")


def answer(status=200, **headers):
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_only_200_and_206_are_content_and_only_as_it_is():
    for status in (200, 206):
        _check_status(answer(status), "u")
        _check_status(answer(status, content_encoding="identity"), "u")
    for status, hint in {
        201: "try again later", 204: "try again later", 304: "try again later", 302: "try again later",
        500: "try again later",
        401: "it needs a login: set HF_TOKEN", 429: "too many requests: try again later",
        403: "access denied: set HF_TOKEN, and accept the model's terms on its page",
        404: "there is no such model, file or revision (or it is private: set HF_TOKEN)",
    }.items():  # fmt: skip
        with pytest.raises(DownloadError) as raised:
            _check_status(answer(status), "u")
        assert str(raised.value) == f"u answered {status}: {hint}"
    for encoding in ("gzip", "br", "deflate", "zstd", "x-gzip", "gzip, identity", ""):
        with pytest.raises(DownloadError) as raised:
            _check_status(answer(206, content_encoding=encoding), "u")
        assert str(raised.value) == "u sent compressed content that was not requested: check the proxy"


def test_a_part_goes_on_where_it_ended_in_a_file_of_the_same_size():
    def goes_on(text, have=5, size=9):
        return _is_continuation(answer(206, content_range=text), have, size)

    assert goes_on("bytes 5-8/9") and goes_on("bytes 5-8/*") and goes_on("bytes 5-8/10", size=None)
    for text in ("bytes 4-8/9", "bytes 5-8/10", "bytes 6-8/9", "5-8/9", "bytes 5-8/9 ", ""):
        assert not goes_on(text), text
    assert _total(answer(content_length="4"), "u", 5, 9) == 9 and _total(answer(content_length="4"), "u", 5, None) == 9
    assert _total(answer(), "u", 5, 9) == 9 and _total(answer(content_length="x4"), "u", 5, None) is None
    with pytest.raises(
        DownloadError, match=r"^u offers 9 bytes instead of 8, so it is another file and was not downloaded"
    ):
        _total(answer(content_length="4"), "u", 5, 8)


def test_addresses_are_https_or_this_machine():
    for url, first in (
        ("https://a.org/x", "https"),
        ("http://127.0.0.1/x", "http"),
        ("http://localhost:9/", "http"),
        ("https://a", "http"),
    ):
        _expect_safe(url, first)
    for url, first in (
        ("http://a.org/x", "http"), ("http://127.0.0.1/x", "https"), ("ftp://a.org", "ftp"),
        ("https:///x", "https"), ("a.org", ""),
    ):  # fmt: skip
        with pytest.raises(DownloadError, match="is not https, so nothing is downloaded from there"):
            _expect_safe(url, first)
    with pytest.raises(DownloadError, match="is not a valid URL"):
        _expect_safe("https://[x", "https")
    assert [is_local(host) for host in ("localhost", "::1", "127.9.9.9", "127.0.0.1.org", "128.0.0.1", "", "127.0.0")] == [
        True, True, True, False, False, False, False,
    ]  # fmt: skip


def test_a_file_has_its_size_and_one_of_its_hashes(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    sha, git = hashlib.sha256(b"abc").hexdigest(), hashlib.sha1(b"blob 3\0abc").hexdigest()
    verify(file, sha256=sha, git_hash="x", size_bytes=3, what="w")
    verify(file, sha256=None, git_hash=git, size_bytes=None, what="w")
    verify(file, sha256=None, size_bytes=None, what="w")
    for size in (0, 2, 4):
        with pytest.raises(DownloadError, match=rf"^w gave 3 bytes instead of {size}: try again$"):
            verify(file, sha256=sha, size_bytes=size, what="w")
    with pytest.raises(
        DownloadError, match=f"^w gave a file with SHA-256 {sha}: {git} was expected, so it was not kept$"
    ):
        verify(file, sha256=git, size_bytes=3, what="w")
    with pytest.raises(DownloadError, match=r"^w gave a file that is not the one the hub lists, so it was not kept$"):
        verify(file, sha256=None, git_hash=git[::-1], size_bytes=3, what="w")


def test_a_target_that_is_there_is_kept_and_a_wrong_one_is_fetched_anew(tmp_path):
    with serve() as site:
        site.files["/f"] = b"abc"
        url, sha = f"{site.url}/f", hashlib.sha256(b"abc").hexdigest()
        (tmp_path / "f").write_bytes(b"abc")
        assert download(url, tmp_path / "f", sha256=sha, size_bytes=3).read_bytes() == b"abc" and site.asked == []
        (tmp_path / "f").write_bytes(b"abd")
        seen = []
        download(url, tmp_path / "f", sha256=sha, size_bytes=3, on_progress=lambda *each: seen.append(each))
        assert (tmp_path / "f").read_bytes() == b"abc" and len(site.asked) == 1 and seen[-1] == (3, 3)
        (tmp_path / "g.part").write_bytes(b"ab")
        download(url, tmp_path / "g", sha256=sha, size_bytes=3)
        assert site.asked[-1][1] == "bytes=2-" and not (tmp_path / "g.part").exists()
        assert get_json_bytes(url, headers={}, max_bytes=3) == b"abc"
        with pytest.raises(DownloadError, match="gave more than 2 bytes: a short list was expected"):
            get_json_bytes(url, headers={}, max_bytes=2)


def test_errors_of_the_disk_say_what_to_do(tmp_path):
    import errno

    full, closed = "free some space and try again", "make it writable, or set FIRSTHAND_HOME to a place that is"
    for number, hint in ((errno.ENOSPC, full), (errno.EDQUOT, full), (errno.EFBIG, full), (errno.EACCES, closed)):
        with pytest.raises(DiskError) as raised, disk_errors(tmp_path):
            raise OSError(number, "why")
        assert str(raised.value) == f"{tmp_path} cannot be written (why): {hint}"


def test_pip_s_last_error_is_its_reason():
    assert reason(["WARNING: x", "ERROR: one", "  ERROR", "note"], 1).endswith("ERROR: one")
    assert reason(["a", "b"], 1).endswith("b") and reason([], 7).endswith("it ended with 7")
    assert reason(["OSError: late", "ValueError: later", "z"], 1).endswith("ValueError: later")


def test_operations_of_texts_and_prompts():
    assert encoder_gflop(1000, 60, 10) == (2000 + 2400) / 1e9 and TOKENS == 128
    assert prefill_gflop(1000, 300, 60, 9) == (1400 + 4 * 60 * 5) / 1e9


def test_the_files_of_a_model_and_their_hashes(home, tmp_path):
    for name in ("b.json", "a.jinja", "c.safetensors", "d.model", "e.txt", "f.bin"):
        (tmp_path / name).write_text(name)
    assert [each.name for each in model_files(tmp_path)] == ["a.jinja", "b.json", "c.safetensors", "d.model"]
    assert model_files(tmp_path / "e.txt") == [tmp_path / "e.txt"]
    with pytest.raises(ModelFileError, match=r"none is neither a \.gguf file nor a folder with a model in it"):
        model_files(tmp_path / "none")
    digest = hashlib.sha256(b"e.txt").hexdigest()
    assert content_hash(tmp_path / "e.txt") == digest
    (kept,) = (home / "hashes").iterdir()
    assert kept.read_text() == digest
    kept.write_text("f" * 64)
    assert content_hash(tmp_path / "e.txt") == "f" * 64
    kept.write_text("f" * 63)
    assert content_hash(tmp_path / "e.txt") == digest == kept.read_text()
