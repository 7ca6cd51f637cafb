"""A hub and a cache folder that mean harm: nothing is written outside, no token goes elsewhere, no file is another one."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from firsthand.errors import DownloadError, ModelFileError
from firsthand.hub import hf_repository, model_lookup
from firsthand.hub.content_hash import content_hash, model_files
from firsthand.hub.download import download
from loopback import CERTIFICATE, Site, serve
from test_providers_hub import API, BODY, COMMIT, FOLDER, home, publish, visible

assert home  # a fixture

SHA = hashlib.sha256(BODY).hexdigest()
STAGING = f".name@main.{COMMIT[:12]}.part"


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with serve() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        publish(found, FOLDER)
        yield found


def listed(site: Site, change: Any) -> None:
    """Change what the hub lists."""
    body = json.loads(site.files[API])
    change(body["siblings"])
    site.files[API] = json.dumps(body).encode()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["../x.json", "/etc/x.json", "..\\x.json", "%2e%2e%2fx.json", "a/../../x.json", "x\0.json", "x.json\n", "C:x.json",
     ".x.json", "-x.json", "．．/x.json", "x\u202e.json", "a" * 97 + ".json", "model.safetensors.part", "LICENSE.part",
     "config.json.part",
    "LICENSE/../../x", "firsthand.json", "x.py", "x.bin"],
)  # fmt: skip
def test_names_that_are_no_plain_files_are_never_asked_for(site: Site, home: Path, name: str) -> None:
    publish(site, {name: b"x", **FOLDER})
    folder = model_lookup.pull("hf:org/name")
    assert visible(folder) == {*FOLDER, "firsthand.json"} and folder.parent.parent.parent == home / "models"
    assert len(site.asked) == 1 + len(FOLDER)


def test_a_list_of_too_many_files_is_refused_before_the_first(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_repository, "MAX_FILES", 50)
    listed(site, lambda files: files.extend({"rfilename": f"{n}.json", "size": 1} for n in range(60)))
    with pytest.raises(DownloadError, match="lists 63 files to download: at most 50"):
        model_lookup.pull("hf:org/name")
    assert site.paths() == [API]


def test_a_name_that_is_listed_twice_must_be_the_same_file(site: Site) -> None:
    listed(site, lambda files: files.append({"rfilename": "config.json", "size": 5, "blobId": "0" * 40}))
    with pytest.raises(DownloadError, match="instead of 5"):
        model_lookup.pull("hf:org/name")
    assert model_lookup.installed() == []


def test_a_small_file_must_have_the_git_hash_of_the_list(site: Site) -> None:
    def damaged(files: list[dict[str, Any]]) -> None:
        (small,) = [each for each in files if each["rfilename"] == "config.json"]
        small.pop("lfs", None)
        small["blobId"] = "0" * 40

    listed(site, damaged)
    with pytest.raises(DownloadError, match=r"config\.json"):
        model_lookup.pull("hf:org/name")
    assert model_lookup.installed() == []


@pytest.mark.slow
@pytest.mark.parametrize("size", [True, -1, 1.5, "9", 2**60, None])
def test_a_size_that_is_none_is_not_believed(site: Site, size: Any) -> None:
    listed(site, lambda files: files[0].update(size=size))
    assert (model_lookup.pull("hf:org/name") / "config.json").read_bytes() == FOLDER["config.json"]


@pytest.mark.slow
@pytest.mark.parametrize("link", ["the folder being filled", "a part", "a finished file", "the model's folder"])
def test_links_in_the_cache_folder_are_replaced_and_not_followed(site: Site, home: Path, link: str) -> None:
    outside, victim = home / "outside", home / "outside" / "victim"
    outside.mkdir(parents=True)
    victim.write_text("mine")
    models = home / "models" / "hf" / "org"
    where, target = {
        "the folder being filled": (models / STAGING, outside),
        "a part": (models / STAGING / "config.json.part", victim),
        "a finished file": (models / STAGING / "config.json", victim),
        "the model's folder": (models / "name@main", outside),
    }[link]
    where.parent.mkdir(parents=True)
    where.symlink_to(target)
    folder = model_lookup.pull("hf:org/name")
    assert not folder.is_symlink() and not any(file.is_symlink() for file in folder.iterdir())
    assert {name: (folder / name).read_bytes() for name in FOLDER} == FOLDER
    assert visible(outside) == {"victim"} and victim.read_text() == "mine"


def test_what_lies_in_the_folder_being_filled_is_checked_before_it_is_kept(site: Site, home: Path) -> None:
    staging = home / "models" / "hf" / "org" / STAGING
    staging.mkdir(parents=True)
    (staging / "config.json").write_bytes(b'{"model_type": "evil"}')
    (staging / "LICENSE").write_bytes(FOLDER["LICENSE"])
    assert (model_lookup.pull("hf:org/name") / "config.json").read_bytes() == FOLDER["config.json"]
    assert not any(path.endswith("LICENSE") for path in site.paths())


@pytest.mark.slow
def test_a_file_in_place_of_the_folder_being_filled_is_replaced(site: Site, home: Path) -> None:
    models = home / "models" / "hf" / "org"
    models.mkdir(parents=True)
    (models / STAGING).write_text("")
    assert model_lookup.remove("hf:org/name") and not (models / STAGING).exists()
    (models / STAGING).write_text("")
    assert visible(model_lookup.pull("hf:org/name")) == {*FOLDER, "firsthand.json"}


@pytest.mark.slow
def test_a_model_that_is_a_link_is_not_removed(site: Site, home: Path) -> None:
    folder = model_lookup.pull("hf:org/name")
    elsewhere = folder.rename(home / "elsewhere")
    folder.symlink_to(elsewhere)
    with pytest.raises(DownloadError, match="symbolic link"):
        model_lookup.remove("hf:org/name")
    assert (elsewhere / "config.json").exists()


@pytest.mark.slow
def test_a_part_that_nobody_asked_for_is_no_whole_file(tmp_path: Path) -> None:
    with serve() as site:
        site.files["/f"] = BODY
        site.partial = 1000
        with pytest.raises(DownloadError, match="broke off"):
            download(f"{site.url}/f", tmp_path / "f")
    assert not (tmp_path / "f").exists()


@pytest.mark.slow
def test_halves_of_two_versions_are_never_joined(tmp_path: Path) -> None:
    with serve() as site:
        site.files["/f"] = bytes(len(BODY))
        site.cut_after = [1000] * 4
        with pytest.raises(DownloadError, match="broke off 4 times"):
            download(f"{site.url}/f", tmp_path / "f", sha256=SHA)
        assert (tmp_path / "f.part").stat().st_size > 0
        site.files["/f"] = BODY
        assert download(f"{site.url}/f", tmp_path / "f", sha256=SHA).read_bytes() == BODY


@pytest.mark.slow
def test_https_never_leads_to_plain_http_and_a_token_stays_with_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    secret = {"Authorization": "Bearer secret"}
    with serve(tls=True) as hub, serve(tls=True) as other, serve() as plain:
        for each in (hub, other, plain):
            each.files["/f"] = BODY
        hub.redirects = {"/same": "/f", "/other": f"{other.url}/f", "/plain": f"{plain.url}/f",
                         "/back": f"{other.url}/back"}  # fmt: skip
        other.redirects = {"/back": f"{hub.url}/f"}
        for path in ("/f", "/same", "/other"):
            assert download(hub.url + path, tmp_path / path[1:], sha256=SHA, headers=secret).read_bytes() == BODY
        with pytest.raises(DownloadError, match="is not https"):
            download(f"{hub.url}/plain", tmp_path / "plain", sha256=SHA, headers=secret)
        assert plain.asked == [] and {token for _, _, token in hub.asked} == {"Bearer secret"}
        assert {token for _, _, token in other.asked} == {None}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["f", "other", "same"]


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    with serve(tls=True) as hub:
        hub.files["/f"] = BODY
        with pytest.raises(DownloadError, match="cannot be reached"):
            download(f"{hub.url}/f", tmp_path / "f", sha256=SHA)
        assert hub.asked == []


def test_a_part_of_a_file_of_another_size_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(BODY[:1000])
    with serve() as site:
        site.files["/f"], site.range_total = BODY, len(BODY) + 1
        assert download(f"{site.url}/f", tmp_path / "f", sha256=SHA, size_bytes=len(BODY)).read_bytes() == BODY
        assert [span for _, span, _ in site.asked] == ["bytes=1000-", None]


def test_a_file_of_unknown_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as site:
        site.files["/f"], site.lengths = BODY, False
        for most in (len(BODY) - 1, len(BODY)):
            monkeypatch.setattr("firsthand.hub.download.MAX_UNKNOWN_BYTES", most)
            if most < len(BODY):
                with pytest.raises(DownloadError, match=f"more than the {most} bytes expected"):
                    download(f"{site.url}/f", tmp_path / "f", sha256=SHA)
            else:
                assert download(f"{site.url}/f", tmp_path / "f", sha256=SHA).read_bytes() == BODY


@pytest.mark.slow
@pytest.mark.parametrize("change", [b"", b"x", b"xx"])
def test_a_file_that_grew_or_shrank_makes_its_model_incomplete(site: Site, change: bytes) -> None:
    folder = model_lookup.pull("hf:org/name")
    (folder / "LICENSE").write_bytes(
        FOLDER["LICENSE"][: len(change)] if len(change) < 2 else FOLDER["LICENSE"] + change
    )
    assert model_lookup.locate("hf:org/name") is None and model_lookup.installed() == []


@pytest.mark.slow
def test_weights_that_are_there_twice_are_pulled_once(site: Site) -> None:
    publish(site, {**FOLDER, "consolidated.safetensors": BODY})
    assert visible(model_lookup.pull("hf:org/name")) == {*FOLDER, "firsthand.json"}
    model_lookup.remove("hf:org/name")
    alone = {name: body for name, body in FOLDER.items() if name != "model.safetensors"}
    publish(site, {**alone, "consolidated.safetensors": BODY})
    assert "consolidated.safetensors" in visible(model_lookup.pull("hf:org/name"))


def test_a_file_written_again_has_another_hash(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    for number, body in enumerate((b"one", b"two")):
        file.write_bytes(body)
        os.utime(file, ns=(number, number))
        assert content_hash(file) == content_hash(file) == hashlib.sha256(body).hexdigest()


def test_a_hash_is_of_the_content_and_known_again_only_while_the_file_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    file = tmp_path / "m.gguf"
    for number, body in enumerate((b"one", b"two", b"three")):  # two of one size
        file.write_bytes(body)
        os.utime(file, ns=(number, 10**18 + number))
        assert content_hash(file) == content_hash(file) == hashlib.sha256(body).hexdigest()
    for kept in (tmp_path / "home" / "hashes").iterdir():
        kept.write_text("cut short")  # by a full disk
    assert content_hash(file) == hashlib.sha256(b"three").hexdigest()


def test_a_models_files_are_all_that_decide_its_answers(tmp_path: Path) -> None:
    names = ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.model"]
    for name in [*names, "README.md", "pytorch_model.bin", "notes.txt"]:
        (tmp_path / name).write_text("x")
    assert [file.name for file in model_files(tmp_path)] == names
    assert model_files(tmp_path / "config.json") == [tmp_path / "config.json"]
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", tmp_path / "gone"):
        with pytest.raises(ModelFileError, match=r"neither a \.gguf file nor a folder with a model"):
            model_files(nothing)
