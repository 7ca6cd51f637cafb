"""Models by name on disk: progress that is not shown, locks of names that begin alike, links, relative paths, windows."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from firsthand.errors import ModelFileError
from firsthand.formats.model_files import TensorInfo
from firsthand.hub import model_lookup
from firsthand.hub.fetch_model import fetch_model, fetch_named
from firsthand.hub.inspection import Inspection, _Form, _form_of_config, _inspection, _kv_bytes
from firsthand.hub.model_lookup import _exclusive
from firsthand.hub.planner import nearest
from firsthand.hub.wheel import folder_size
from firsthand.measure.machine_speeds import Speeds
from firsthand.measure.measurements import BenchResult
from firsthand.system.lock import is_held
from hub_site import BODY, hub, known, use_home
from loopback import Site


class Screen(io.StringIO):
    """A terminal's stand-in."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_home(tmp_path / "home", monkeypatch)


@pytest.fixture
def site(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setitem(model_lookup.KNOWN, "tiny", known())
    with hub(monkeypatch) as here:
        here.files["/o/n/resolve/r1/m.gguf"] = BODY
        yield here


@pytest.mark.slow
@pytest.mark.parametrize("shown", [True, False, None])
def test_a_bar_is_on_the_terminal_only_where_it_is_asked_for(
    shown: bool | None, site: Site, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fetch in (fetch_model, fetch_named):
        (home / "models" / "tiny" / "m.gguf").unlink(missing_ok=True)
        screen = Screen()
        monkeypatch.setattr("sys.stderr", screen)
        found = fetch("tiny") if shown is None else fetch("tiny", shown=shown)
        assert found in (home / "models" / "tiny" / "m.gguf", None)
        assert (home / "models" / "tiny" / "m.gguf").read_bytes() == BODY
        assert ("fetching tiny" in screen.getvalue()) is (shown is not False)
        assert (screen.getvalue() == "") is (shown is False)
    assert len(site.asked) == 2


def test_models_whose_names_begin_or_end_alike_have_locks_of_their_own(home: Path) -> None:
    names = ["hf:org/model-1b", "hf:org/model-2b", "hf:org/model", "gf:org/model", "tiny", "tiny2", "tin", ""]
    locks = home / "models" / ".locks"
    for number, name in enumerate(names, 1):
        with _exclusive(name):
            assert sum(is_held(each) for each in locks.iterdir()) == 1
        with _exclusive(name):
            assert len(list(locks.iterdir())) == number, "the second time it is the same lock"
    assert {len(each.name) for each in locks.iterdir()} == {16} and not any(is_held(each) for each in locks.iterdir())
    with _exclusive(names[0]), _exclusive(names[1]):
        assert sum(is_held(each) for each in locks.iterdir()) == 2
    with pytest.raises(ModelFileError), _exclusive("tiny"):
        raise ModelFileError("x")
    assert not any(is_held(each) for each in locks.iterdir())


FACTS = Inspection(
    path=Path("/m"), architecture="x", is_encoder=False, parameters=3000, active_parameters=2500, file_bytes=99,
    tensor_types={}, weight_bytes={}, kv_bytes={}, kv_bytes_per_token=40, window=None, window_share=0.0,
    decode_parameters=2000, block_bytes=None, head_parameters=300, attention_width=60, context=9000, vocabulary=11,
    has_chat_template=True, licence=None,
)  # fmt: skip


def measured(path: str, model: str = "n", parameters: int = 900) -> BenchResult:
    return BenchResult(
        model=model, path=path, date="2026-11-25", command="c", machine={}, machine_line="",
        speeds=Speeds(2, 20.0, 100.0, 200.0, 400.0), weights="int8", weight_bytes=1000, parameters=parameters,
        prefill_gflop=1e-5, figures=(),
    )  # fmt: skip


def test_a_result_is_found_by_a_relative_path_or_a_link_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = tmp_path / "real" / "m.gguf", tmp_path / "here"
    model.parent.mkdir()
    model.touch()
    folder.mkdir()
    (folder / "link.gguf").symlink_to(model)
    monkeypatch.chdir(folder)
    other, mine = measured(str(tmp_path / "x"), parameters=2000), measured(str(model))
    for path in (
        model,
        Path("link.gguf"),
        folder / "link.gguf",
        Path("../real/m.gguf"),
        tmp_path / "here/../real/m.gguf",
    ):
        facts = Inspection(**{**vars(FACTS), "path": path})
        assert nearest([other, mine], facts, "elsewhere") == (mine, True), path
        assert nearest([other], facts, "elsewhere") == (other, False) == nearest([measured("y"), other], facts, "e")
        assert nearest([], facts, "n") == (None, False)
    facts = Inspection(**{**vars(FACTS), "path": Path("m.gguf")})
    assert nearest([mine, other], facts, "elsewhere") == (other, False), "another file of that name"
    assert nearest([mine, other], facts, "n") == (mine, True) == nearest([mine, mine], facts, "n")


def test_links_count_as_themselves_and_what_lies_behind_them_not_at_all(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    (outside / "deep").mkdir(parents=True)
    (outside / "large").write_bytes(bytes(5000))
    (outside / "deep" / "larger").write_bytes(bytes(70_000))
    (folder / "a" / "b").mkdir(parents=True)
    assert folder_size(folder) == 0 == folder_size(folder / "none")
    (folder / "a" / "b" / "x").write_bytes(bytes(7))
    (folder / "a" / "y").write_bytes(bytes(30))
    (folder / "empty").touch()
    assert folder_size(folder) == 37 and folder_size(folder / "a" / "b") == 7
    links = {"file": outside / "large", "folder": outside, "gone": tmp_path / "no", "round": folder}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    told = sum(len(str(links[name])) for name in ("file", "gone"))  # links to folders are no files
    assert folder_size(folder) == 37 + told == 37 + sum(os.lstat(folder / name).st_size for name in ("file", "gone"))
    assert folder_size(folder / "empty") == 0, "a file is no folder"


def test_a_window_keeps_its_positions_also_where_it_has_none() -> None:
    for each, tokens, window, share, kept in (
        (None, 5, 3, 0.5, None), (None, 5, None, 0.0, None), (8, 5, None, 0.0, 40), (8, 0, None, 0.0, 0),
        (8, 5, 0, 1.0, 0), (8, 5, 0, 0.5, 20), (8, 5, 5, 1.0, 40), (8, 5, 6, 1.0, 40), (8, 5, 4, 1.0, 32),
        (8, 5, 4, 0.5, 36), (8, 5, 4, 0.0, 40), (0, 5, None, 0.0, 0), (3, 3, 1, 0.25, 8),
    ):  # fmt: skip
        assert _kv_bytes(each, tokens, window, share) == kept, (each, tokens, window, share)


def test_layers_have_a_window_where_their_types_say_so() -> None:
    config = {"num_attention_heads": 4, "hidden_size": 32, "num_hidden_layers": 4, "sliding_window": 7}
    sliding, full = "sliding_attention", "full_attention"
    for types, window, share in (
        ([sliding, full, full, full], 7, 0.25), ([sliding] * 4, 7, 1.0), ([full] * 4, None, 0.0), (None, None, 0.0),
        ([full] * 4 + [sliding], None, 0.0), ([sliding] * 2, 7, 0.5), ([], None, 0.0), (sliding, None, 0.0),
    ):  # fmt: skip
        found = _form_of_config({**config, "layer_types": types})
        assert found == _Form(None, None, 16, 16, 8, 8, window, share), types
    for change in (
        {"sliding_window": None},
        {"sliding_window": 0},
        {"sliding_window": "7"},
        {"num_hidden_layers": None},
    ):
        assert _form_of_config({**config, "layer_types": [sliding] * 4, **change}).window is None, change
    facts = _inspection(
        Path("/m"),
        "x",
        [TensorInfo("w", (2, 3), "F32", 0, 24)],
        0,
        _Form(3000, 5, 16, 16, 8, 8, 7, 0.25),
        has_chat_template=False,
        licence=None,
    )
    # 2 bytes x 16 heads x 16 values
    assert facts.kv_bytes == {2048: 512 * 1536 + 128 * 7, 3000: 512 * 2250 + 128 * 7}
    assert facts.keys_and_values(4) == 2048 and facts.keys_and_values(11) == round(512 * (0.75 * 11 + 0.25 * 7))
    body = json.loads(json.dumps(facts.to_json()))
    assert body["kv_bytes"] == {"2048": facts.kv_bytes[2048], "3000": facts.kv_bytes[3000]} and body["path"] == "/m"
