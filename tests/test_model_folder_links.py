"""Files of a model folder that are links: their content goes into no folder that is made of it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from firsthand.errors import ModelFileError
from firsthand.hub.quantize_model import quantize_folder
from firsthand.nn import weights
from firsthand.tokens import pretrained
from firsthand.train.model_folder import TOKENIZER_FILES, save_model
from firsthand.train.vocabulary import train_vocabulary
from tiny import write_model

if sys.platform == "win32":
    pytest.skip("links need a right there", allow_module_level=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("whole"))


def with_link(whole: Path, folder: Path, name: str) -> Path:
    """A copy of the model in which one of its files is a link to a file elsewhere."""
    shutil.copytree(whole, folder)
    secret = folder.parent / f"secret of {Path(name).name}"
    (folder / name).parent.mkdir(exist_ok=True)
    if (folder / name).exists():
        (folder / name).rename(secret)
    else:
        secret.write_text('{"secret": "AWS_SECRET=abc"}')
    (folder / name).symlink_to(secret)
    return folder


@pytest.mark.parametrize("name", [name for name in TOKENIZER_FILES if not name.endswith(".jinja")])
def test_a_quantised_folder_takes_no_file_that_a_link_leads_out_to(whole: Path, tmp_path: Path, name: str) -> None:
    folder = with_link(whole, tmp_path / "model", name)
    with pytest.raises(ModelFileError) as refused:
        quantize_folder(folder, tmp_path / "out", "GPTQ", "What is 12 + 30? " * 60)
    assert str(refused.value).startswith(f"{folder / name} is a link to ") and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name in TOKENIZER_FILES if not name.endswith(".jinja")])
def test_a_trained_model_is_saved_without_what_links_lead_out_to(whole: Path, tmp_path: Path, name: str) -> None:
    folder = with_link(whole, tmp_path / "model", name)
    tokenizer = pretrained.load(folder)
    saved = save_model(weights.load(folder), tokenizer, tmp_path / "out", base=folder)
    assert not any(b"AWS_SECRET" in file.read_bytes() for file in saved.iterdir())
    again = pretrained.load(saved)
    assert again.encode("What is 12 + 30?") == tokenizer.encode("What is 12 + 30?")
    assert (again.chat_template, again.eos_ids) == (tokenizer.chat_template, tokenizer.eos_ids)


def test_links_of_the_hubs_cache_and_of_the_folder_itself_are_copied_as_files(whole: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0f", tmp_path / "models--a--b" / "blobs"
    shutil.copytree(whole, snapshot)
    blobs.mkdir()
    for at, file in enumerate(sorted(snapshot.iterdir())):
        shutil.move(file, blobs / str(at))
        file.symlink_to(f"../../blobs/{at}")
    (tmp_path / "named").symlink_to(snapshot)
    for base in (snapshot, tmp_path / "named"):
        out = tmp_path / f"of {base.name}"
        saved = save_model(weights.load(base), pretrained.load(base), out, base=base)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            assert (saved / name).read_bytes() == (whole / name).read_bytes() and not (saved / name).is_symlink()


def linked_away(folder: Path, *names: str) -> Path:
    """A folder in which each name is a link to a note of the user's, in a folder `mine` beside it."""
    mine = folder.parent / "mine"
    mine.mkdir()
    folder.mkdir()
    for name in names:
        (mine / name).write_text("my notes")
        (folder / name).symlink_to(mine / name)
    return mine


@pytest.mark.parametrize("method", ["GPTQ", "AWQ"])
def test_a_quantised_model_is_written_through_no_link_of_the_folder_that_was_named(
    whole: Path, tmp_path: Path, method: str
) -> None:
    weights_of = "model.safetensors"
    names = ("tokenizer.json", "tokenizer_config.json", weights_of, f"{weights_of}.part", "config.json.part")
    mine = linked_away(tmp_path / "out", *names)
    (tmp_path / "out" / "config.json").symlink_to(tmp_path / "nothing yet")
    size = quantize_folder(whole, tmp_path / "out", method, "What is 12 + 30? " * 60)
    assert {each.read_text() for each in mine.iterdir()} == {"my notes"} and not (tmp_path / "nothing yet").exists()
    assert not any(each.is_symlink() for each in (tmp_path / "out").iterdir())
    assert (tmp_path / "out" / weights_of).stat().st_size == size
    assert pretrained.load(tmp_path / "out").encode("12") == pretrained.load(whole).encode("12")
    weights.load(tmp_path / "out")


def test_weights_are_saved_through_no_link_beside_them(whole: Path, tmp_path: Path) -> None:
    mine = linked_away(tmp_path / "out", "config.json", "config.json.part", "model.safetensors.part")
    model = weights.load(whole)
    for _ in range(2):
        weights.save(model, tmp_path / "out")
    assert {each.read_text() for each in mine.iterdir()} == {"my notes"}
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]


def test_a_trained_vocabulary_is_written_through_no_link(tmp_path: Path) -> None:
    mine = linked_away(tmp_path / "v", "tokenizer.json", "tokenizer_config.json", "tokenizer.json.part")
    for _ in range(2):  # over an older one too
        made = train_vocabulary(["abab " * 30], tmp_path / "v", vocab_size=258, cut="gpt-2")
        assert pretrained.load(tmp_path / "v").encode("abab") == made.encode("abab")
    assert {each.read_text() for each in mine.iterdir()} == {"my notes"}
    assert sorted(each.name for each in (tmp_path / "v").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
