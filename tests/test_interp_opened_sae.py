"""Autoencoders on the shelf and opened with their model: which features, texts and models they show, in whole values."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from firsthand.errors import ConfigError, DataError, ModelFileError, UnknownName
from firsthand.interp.activations import read_activations, run_with_edits
from firsthand.interp.feature_files import FEATURES, FeatureDashboard, read_features, write_features
from firsthand.interp.feature_reports import FeatureSurvey, shaded
from firsthand.interp.opened_sae import MOST_FEATURES, FiringFeature, OpenedSae, TextReading
from firsthand.interp.sae_shelf import SaeShelf, ShelvedSae
from firsthand.interp.saes.sae_files import SavedSae, save_sae
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sae_run import SaeRun, corpora, held_out_pieces, write_run
from firsthand.interp.steered_texts import _adding, steered_texts
from firsthand.nn import weights
from firsthand.tokens import pretrained
from tiny import write_model

torch.set_num_threads(1)
SITE = "blocks.0.resid.post"
TEXT = "What is 12 + 30? The answer is 42. "


def home_of(folder: Path, *, latents: int = 48) -> tuple[Path, Path, Path]:
    """A model, a folder of an autoencoder that names it, and two folders of texts below this folder."""
    model = write_model(folder / "model")
    sae = sae_of("relu", 32, latents, seed=5)
    with torch.no_grad():
        sae.encoder_bias.copy_(torch.linspace(-0.5, 0.2, latents))
        sae.encoder.mul_(torch.linspace(0.5, 2, latents)[:, None])
    place = save_sae(SavedSae(sae, str(model), SITE), folder / "saes" / "small")
    for name in ("one", "two"):
        (folder / name).mkdir()
        for number in range(5):
            (folder / name / f"{number}.txt").write_text(f"{name} {number} {TEXT} {number * 7} " * 12)
    write_run(SaeRun("m", SITE, texts=(str(folder / "one"),), context=16, batch=64, tokens=6400), place)
    return model, place, folder


@pytest.mark.slow
def test_a_dashboard_has_the_features_of_the_held_out_texts_and_some_of_them_steered(tmp_path: Path) -> None:
    path, place, folder = home_of(tmp_path)
    model, tokenizer = weights.load(path), pretrained.load(path)
    opened = OpenedSae(place, pieces=14, shown=False)
    assert opened.path == path and opened.folder == place
    for texts in ((), (str(folder / "two"),)):
        plan = SaeRun("m", SITE, texts=texts or (str(folder / "one"),), context=16, batch=64, tokens=64,
                      held_out_texts=14)  # fmt: skip
        pieces = held_out_pieces(plan, corpora(plan, tokenizer)[1])
        assert len(pieces) == 14
        assert OpenedSae(place, pieces=14, texts=texts, shown=False)._held_out() == pieces
    survey = FeatureSurvey(opened.saved, model, tokenizer, opened._held_out())
    found = opened.dashboard(count=5, ablate=1, steer=2, prompt="42 +")
    reports = survey.reports(survey.spaced(5), ablate=1)
    chosen = [(reports[place].index, reports[place].maximum) for place in (0, 2)]
    (texts_of,) = steered_texts(opened.saved, model, tokenizer, chosen[1:], "42 +")
    # As texts: NaN equals itself there, which a dataclass's == denies from Python 3.13 on.
    assert repr(found) == repr(FeatureDashboard(48, 224, reports, "42 +", found.steered))
    assert list(found.steered) == [index for index, _ in chosen] and found.steered[chosen[1][0]] == texts_of
    assert found.steered[chosen[0][0]] != texts_of
    bare = opened.dashboard(count=2, ablate=0, steer=0)
    assert bare == FeatureDashboard(48, 224, survey.reports(survey.spaced(2), ablate=0), "I went to the", {})
    assert opened.report(reports[3].index) == survey.reports([reports[3].index])[0]
    (place / "run.json").unlink()
    big = folder / "big.txt"
    big.write_text("".join(f"{number} {TEXT}\n" for number in range(300)))
    plan = SaeRun("m", SITE, texts=(str(big),), tokens=2048, held_out_texts=3)
    pieces = held_out_pieces(plan, corpora(plan, tokenizer)[1])
    assert [len(each) for each in pieces] == [128] * 3
    assert OpenedSae(place, texts=(str(big),), pieces=3, shown=False)._held_out() == pieces


def test_a_text_is_read_in_whole_values_and_up_to_its_limits(tmp_path: Path) -> None:
    path, place, _ = home_of(tmp_path, latents=150)
    model, tokenizer = weights.load(path), pretrained.load(path)
    opened = OpenedSae(place, shown=False)
    ids = tokenizer.encode(TEXT)
    rows = read_activations(model, ids, SITE)[SITE]
    with torch.no_grad():
        z = opened.saved.sae.encode(rows)
        later, rebuilt = rows[1:], opened.saved.sae(rows)[1:]
    z[0] = 0
    explained = 1 - float((later - rebuilt).square().sum() / (later - later.mean(0)).square().sum())
    words = [tokenizer.decode([id], skip_special=False) for id in ids]
    for at in (None, 1, len(ids) - 1):
        strengths = z.amax(0) if at is None else z[at]
        order = strengths.argsort(descending=True).tolist()[: int((strengths > 0).sum())]
        features = [
            FiringFeature(
                index, float(strengths[index]), int((z[:, index] > 0).sum()),
                shaded(words, z[:, index].tolist(), float(z[:, index].max()), int(z[:, index].argmax())),
            )
            for index in order[:60]
        ]  # fmt: skip
        found = opened.read_text(TEXT, at)
        assert found == TextReading(
            words, (z > 0).sum(1).tolist(), len(order), features, pytest.approx(explained, abs=1e-5)
        )
        assert len(order) < 60 or len(features) == 60 == MOST_FEATURES
    assert int((z.amax(0) > 0).sum()) > 60 and found.counts[0] == 0
    for word, count in (("!", 256), ("!", 257), ("!", 2), ("!", 1)):
        text = word * count
        assert len(tokenizer.encode(text)) == count
        if 2 <= count <= 256:
            read = opened.read_text(text)
            assert len(read.words) == count and math.isnan(read.explained) == (count == 2)
            continue
        with pytest.raises(DataError) as refused:
            opened.read_text(text)
        assert str(refused.value) == f"the text has {count} tokens: give 2 to 256, of which the first is not shown"
    for at in (0, -1, len(ids)):
        with pytest.raises(DataError) as refused:
            opened.read_text(TEXT, at)
        assert str(refused.value) == (f"token {at} was asked for: give 1 to {len(ids) - 1}, the first being left out")


def test_an_autoencoder_is_opened_with_the_model_that_is_named_or_its_own(tmp_path: Path) -> None:
    path, place, _ = home_of(tmp_path)
    other = write_model(tmp_path / "other", seed=3)
    assert OpenedSae(place, str(other), shown=False).path == other
    save_sae(SavedSae(sae_of("relu", 32, 4), "", SITE), place)
    with pytest.raises(ConfigError) as refused:
        OpenedSae(place, shown=False)
    assert str(refused.value) == f"{place} does not say which model it is for: name it with --model"
    assert OpenedSae(place, str(path), shown=False).path == path
    save_sae(SavedSae(sae_of("relu", 32, 4), str(path), "blocks.2.resid.post"), place)
    with pytest.raises(
        ConfigError, match=r"the autoencoder is for 'blocks\.2\.resid\.post', which this model does not"
    ):
        OpenedSae(place, shown=False)


def test_continuations_are_of_the_prompt_with_the_row_times_its_maximum_added_at_each_strength(tmp_path: Path) -> None:
    _, place, _ = home_of(tmp_path)
    opened = OpenedSae(place, shown=False)
    model, tokenizer, row = opened._model, opened._tokenizer, opened.saved.sae.decoder
    ids = tokenizer.encode("The answer")
    pushes = [(3, 20.0), (7, 9.0)]
    found = steered_texts(opened.saved, model, tokenizer, pushes, "The answer", tokens=3, strengths=(-1.5, 0.0))
    for each, (feature, maximum) in zip(found, pushes, strict=True):
        assert [text.strength for text in each] == [-1.5, 0.0]
        for text in each:
            sampled: list[int] = []
            for _ in range(3):
                added = text.strength * maximum * row[feature].detach()
                taps = {SITE: lambda values, added=added: values + added}
                sampled.append(int(run_with_edits(model, [*ids, *sampled], taps)[-1].argmax()))
                if sampled[-1] in tokenizer.eos_ids:
                    break
            assert text.text == tokenizer.decode(sampled, skip_special=False)
    assert found[0][1] == found[1][1] and found[0][0] != found[1][0]
    ended: Any = tokenizer
    first = int(run_with_edits(model, ids, {})[-1].argmax())
    ended.eos_ids = frozenset({first})
    ((short,),) = steered_texts(opened.saved, model, ended, [(3, 1.0)], "The answer", tokens=3, strengths=(0.0,))
    assert short.text == tokenizer.decode([first], skip_special=False)
    wrong = SavedSae(sae_of("relu", 31, 4), "", SITE)
    with pytest.raises(ConfigError, match="it is for another model"):
        steered_texts(wrong, model, tokenizer, [(0, 1.0)], "x")
    with pytest.raises(DataError) as refused:
        steered_texts(opened.saved, model, tokenizer, [(0, 1.0)], "")
    assert str(refused.value) == "the prompt to steer has no tokens: give a few words"
    heads = torch.zeros(2, 2, 3, dtype=torch.bfloat16)
    added = _adding(torch.arange(6.0))(heads, range(2), 0)
    assert added is not None and added.dtype == torch.bfloat16
    assert added.tolist() == [[[0, 1, 2], [3, 4, 5]]] * 2


# -- the shelf --


def test_a_shelf_lists_folders_and_those_below_by_names_that_tell_them_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, place, folder = home_of(tmp_path)
    for name in ("a/x", "b/x", "c/b/x", "c/b/lone", "home/mine"):
        shutil.copytree(place, folder / name)
    (folder / "c" / "b" / "empty").mkdir()
    (folder / "c" / "b" / "zeros").mkdir()
    (folder / "c" / "b" / "zeros" / "sae_weights.safetensors").touch()
    other = write_model(tmp_path / "other", seed=3)
    monkeypatch.setenv("HOME", str(folder / "home"))
    shelf = SaeShelf([
        f"{folder / 'a' / 'x'}:model={other}", str(folder / "a"), str(folder / "b"), str(folder / "c" / "b"), "~/mine",
        str(folder / "c"), str(folder / "none"),
    ])  # fmt: skip
    found = shelf.all()
    assert [(each.name, each.folder.relative_to(folder.resolve()).as_posix()) for each in found] == [
        ("a-x", "a/x"), ("b-x", "b/x"), ("b-x-2", "c/b/x"), ("c", "c"), ("lone", "c/b/lone"), ("mine", "home/mine"),
        ("none", "none"), ("zeros", "c/b/zeros"),
    ]  # fmt: skip
    assert {each.name: each.model for each in found if each.model} == {
        "a-x": str(other), **dict.fromkeys(("b-x", "b-x-2", "lone", "mine"), str(model)),
    }  # fmt: skip
    problems = {each.name: each.problem for each in found if each.problem}
    assert list(problems) == ["c", "none", "zeros"]
    assert problems["none"] == f"there is no folder {str(folder / 'none')!r}"
    assert "cfg.json" in problems["c"] and "cfg.json" in problems["zeros"]
    with pytest.raises(UnknownName) as refused:
        shelf.get("lonely" + "y" * 300)
    assert f"'lonely{'y' * 194}'" in str(refused.value) and "`the list of autoencoders` shows all" in str(refused.value)
    for spec, option in (("f:model=x:site=y", "site"), ("f:zeta=1:alpha=2", "alpha")):
        with pytest.raises(ConfigError) as told:
            SaeShelf([spec])
        known = "FOLDER, FOLDER:model=MODEL, FOLDER:texts=TEXTS or FOLDER:trust=true"
        assert str(told.value) == f"{spec!r} has the option {option!r}: write {known}"
    assert SaeShelf([]).all() == []
    (nobody,) = SaeShelf(["~nobody-here/x"]).all()
    assert nobody.problem.startswith("there is no folder ") and nobody.problem.endswith("/~nobody-here/x'")


def test_why_features_could_not_be_gathered_is_told_until_they_are_gathered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, place, _ = home_of(tmp_path)
    shelf = SaeShelf([str(place)])
    with monkeypatch.context() as broken:
        broken.setattr(shelf, "_open", lambda name: [][0])
        shelf.gather("small")
        shelf._working["small"].join()
    assert shelf.problems == {"small": "the features could not be gathered: IndexError: list index out of range"}
    shelf.problems["other"] = "another one's"
    monkeypatch.setattr(shelf, "_gather", lambda name: None)
    shelf.gather("small")
    shelf._working["small"].join()
    assert shelf.problems == {"other": "another one's"} and not shelf.is_gathering("small")


def test_a_shelved_autoencoder_has_the_facts_of_its_own_file_first(tmp_path: Path) -> None:
    model, place, _ = home_of(tmp_path)
    name, resolved = "small", place.resolve()
    body = json.loads((place / "cfg.json").read_text())
    own = {"kind": "relu", "settings": {"l1": 5.0}, "site": SITE}
    assert SaeShelf([str(place)]).all() == [
        ShelvedSae(name, resolved, str(model), SITE, "relu", 48, 32, own, "", False, False)
    ]
    theirs = {
        "architecture": "standard", "d_sae": "many", "d_in": 32, "hook_name": "blocks.7.hook_z", "model_name": "outer",
        "metadata": {"hook_name": "blocks.3.hook_resid_post", "model_name": "small/other", "firsthand": [1]},
    }  # fmt: skip
    (place / "cfg.json").write_text(json.dumps(theirs))
    shutil.copytree(model, place.parent / "small" / "other")
    told = f"the model 'small/other' of {resolved} is not here: pull it, or give --sae {resolved}:model=MODEL"
    (shelved,) = SaeShelf([str(place)]).all()
    beside = str(resolved.parent / "small/other")
    assert shelved == ShelvedSae(name, resolved, beside, "blocks.3.hook_resid_post", "standard", 0, 32, {}, "")
    shutil.rmtree(place.parent / "small" / "other")
    (shelved,) = SaeShelf([str(place)]).all()
    assert (shelved.model, shelved.problem) == ("small/other", told)
    (place / "cfg.json").write_text(json.dumps({**theirs, "metadata": None}))
    (shelved,) = SaeShelf([str(place)]).all()
    assert (shelved.model, shelved.site) == ("outer", "blocks.7.hook_z")
    (place / "cfg.json").write_text(
        json.dumps({**body, "metadata": {"firsthand": {"site": "s" * 400, "kind": "k" * 200}}})
    )
    (shelved,) = SaeShelf([str(place)]).all()
    assert (shelved.site, shelved.kind, shelved.model) == ("s" * 300, "k" * 100, "")
    assert shelved.problem == f"{resolved} does not say which model it is for: give --sae {resolved}:model=MODEL"
    for model_name in ("smollm2", "hf:nobody/nothing", "hf:", "x\0y", "~nobody-here/x"):
        (shelved,) = SaeShelf([f"{place}:model={model_name}"]).all()
        if model_name != "smollm2":
            assert shelved.problem == told.replace("'small/other'", repr(model_name)) and shelved.model == model_name
    (place / "cfg.json").write_text(json.dumps(body))
    (place / FEATURES).write_text("{}")
    os.utime(place / FEATURES, (1000, 1000))
    for time, outdated in ((1001, True), (1000, False), (999, False)):
        os.utime(place / "sae_weights.safetensors", (time, time))
        (shelved,) = SaeShelf([str(place)]).all()
        assert (shelved.is_gathered, shelved.is_outdated) == (True, outdated)
    (place / "sae_weights.safetensors").unlink()
    (shelved,) = SaeShelf([str(place)]).all()
    weights_file = resolved / "sae_weights.safetensors"
    assert shelved == ShelvedSae(
        name, resolved, str(model), SITE, "relu", 48, 32, own,
        f"{weights_file} is missing: copy it there, or train the autoencoder again", True, False,
    )  # fmt: skip


def test_one_autoencoder_is_open_at_a_time_with_its_own_texts_or_those_of_the_folder_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[Any, ...]] = []
    reported: list[tuple[str, int]] = []

    class Opening:
        def __init__(self, folder: Path, model: str, **given: Any):
            self.name = folder.name
            opened.append((folder.name, model, given))

        def read_text(self, text: str, at: int | None = None) -> tuple[str, str, int | None]:
            return self.name, text, at

        def report(self, index: int) -> tuple[str, int, int]:
            reported.append((self.name, index))
            return self.name, index, len(reported)

    monkeypatch.setattr("firsthand.interp.opened_sae.OpenedSae", Opening)
    (tmp_path / "model").mkdir()
    for name in ("one", "two"):
        (tmp_path / "saes" / name).mkdir(parents=True)
        (tmp_path / "saes" / name / "cfg.json").write_text(json.dumps({"model_name": str(tmp_path / "model")}))
        (tmp_path / "saes" / name / "sae_weights.safetensors").touch()
    shelf: Any = SaeShelf([f"{tmp_path}/saes/../saes:texts=/books", f"{tmp_path}/saes/two:trust=true"])
    assert [shelf.read_text("one", "hi", 3), shelf.read_text("one", "ho")] == [("one", "hi", 3), ("one", "ho", None)]
    assert [shelf.report("one", index) for index in (5, 5, 6)] == [("one", 5, 1), ("one", 5, 1), ("one", 6, 2)]
    assert shelf.report("two", 5) == ("two", 5, 3) and shelf.report("one", 5) == ("one", 5, 4)
    first = ("one", str(tmp_path / "model"), {"texts": ("/books",), "shown": False, "trust": False})
    second = ("two", str(tmp_path / "model"), {"texts": (), "shown": False, "trust": True})
    assert opened == [first, second, first]


@pytest.mark.slow
def test_a_shelf_gathers_reports_and_reads_one_autoencoder_at_a_time(tmp_path: Path) -> None:
    _, place, folder = home_of(tmp_path)
    second = shutil.copytree(place, place.parent / "wide")
    config = json.loads((place / "cfg.json").read_text())
    save_sae(SavedSae(sae_of("relu", 32, 40, seed=9), config["metadata"]["model_name"], SITE), second)
    (place.parent / "broken").mkdir()
    (place.parent / "broken" / "cfg.json").write_text("{")
    shelf = SaeShelf([str(place.parent)])
    assert [each.name for each in shelf.all()] == ["broken", "small", "wide"]
    small, wide = (OpenedSae(each, shown=False) for each in (place, second))
    assert shelf.read_text("small", TEXT, 3) == small.read_text(TEXT, 3) != small.read_text(TEXT)
    opened = shelf._opened
    assert opened is not None and opened[0] == "small" and shelf.read_text("small", TEXT) == small.read_text(TEXT)
    assert shelf._opened is opened
    index, other = (each.index for each in small.read_text(TEXT).features[:2])
    for number in (index, other):
        assert shelf.report("small", number) == small.report(number)
    assert set(shelf._extra) == {("small", index), ("small", other)}
    both = next(each.index for each in wide.read_text(TEXT).features if each.index < 40)
    assert shelf.report("wide", both) == wide.report(both) and set(shelf._extra) == {("wide", both)}
    gathered = small.dashboard(count=3, ablate=0, steer=0)
    write_features(gathered, place)
    assert shelf.dashboard("small") == gathered and shelf.dashboard("wide") is None
    assert small._surveyed() is small._surveyed()
    shown = {each.index for each in gathered.reports}
    firing = [each.index for each in small.read_text(TEXT).features if each.index not in shown]
    between = next(index for index in firing if index < max(shown))
    assert shelf.report("small", between) == small.report(between)
    for kept in gathered.reports:
        assert shelf.report("small", kept.index) == kept and ("small", kept.index) not in shelf._extra
    shelf.read_text("wide", TEXT)
    for asked in (shelf.gather, lambda name: shelf.read_text(name, TEXT), lambda name: shelf.report(name, 0)):
        with pytest.raises(ModelFileError, match="does not hold JSON"):
            asked("broken")
    with pytest.raises(UnknownName, match="no autoencoder 'tall'"):
        shelf.gather("tall")
    assert not shelf.is_gathering("small") and shelf.problems == {}
    with shelf._lock:  # as long as it is held, the thread waits
        shelf.gather("small")
        assert shelf.is_gathering("small") and not shelf.is_gathering("wide")
        with pytest.raises(ConfigError) as refused:
            shelf.gather("small")
        assert str(refused.value) == "the features of small are being gathered: wait until they are there"
        write_run(SaeRun("m", SITE, texts=(str(folder / "nowhere"),)), place)
    shelf._working["small"].join(60)
    assert not shelf.is_gathering("small") and list(shelf.problems) == ["small"]
    assert shelf.problems["small"].startswith(f"there is no file or folder {folder / 'nowhere'}: ")
    assert read_features(place) == gathered
    shelf._open = lambda name: [][0]  # type: ignore[method-assign]
    shelf._gather("small")
    assert shelf.problems == {"small": "the features could not be gathered: IndexError: list index out of range"}
    asked: list[Any] = []
    shelf._open = lambda name: Gathering(asked, name, second, gathered)  # type: ignore[assignment, method-assign, return-value]
    with shelf._lock:
        shelf.gather("small")
        assert shelf.problems == {}, "what was wrong before is forgotten"
    shelf._working["small"].join(60)
    assert asked == [("small", (), {})] and read_features(second) == gathered and shelf.problems == {}


class Gathering(NamedTuple):
    """An opened autoencoder that notes how its page is asked for: with the defaults."""

    asked: list[Any]
    name: str
    folder: Path
    found: FeatureDashboard

    def dashboard(self, *args: Any, **more: Any) -> FeatureDashboard:
        self.asked.append((self.name, args, more))
        return self.found
