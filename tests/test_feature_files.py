"""The file of a dashboard's features, its shades and windows, the rules that explain features, and the shelf of folders."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from firsthand.errors import ConfigError, DataError, ModelFileError, UnknownName
from firsthand.hub.model_lookup import pull
from firsthand.interp.feature_files import (
    FEATURES,
    FeatureDashboard,
    FeatureReport,
    ShadedToken,
    SteeredText,
    read_features,
    write_features,
)
from firsthand.interp.feature_reports import _Contexts, shaded
from firsthand.interp.rule_explanations import RuleExplanation, explain
from firsthand.interp.sae_shelf import SaeShelf, _model_here
from firsthand.stats.intervals import Interval
from hub_site import BODY, COMMIT, hub, use_home
from same_values import same

REPORT = FeatureReport(
    3, 0.25, 4.5, (1, 0, 0, 0, 0, 0, 0, 0, 0, 2),
    {"top": [[ShadedToken("a", 0, False), ShadedToken("b", 9, True)]], "random tokens": []},
    ["up"], ["down"], [(5, 0.5), (7, -0.25)], RuleExplanation("the token is 'b'", 0.875, 0.5),
    Interval(0.5, 0.25, 0.75, 4, "bootstrap"), None,
)  # fmt: skip
DASHBOARD = FeatureDashboard(48, 900, [REPORT], "I went", {3: [SteeredText(-1.0, " home"), SteeredText(0.5, " out")]})


def test_features_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    assert read_features(tmp_path) is None
    assert write_features(DASHBOARD, tmp_path) == tmp_path / "features.json"
    assert same(read_features(tmp_path), DASHBOARD)
    bare = replace(DASHBOARD, reports=[replace(REPORT, rule=None, ablation=None)], steered={}, prompt="")
    write_features(bare, tmp_path)
    assert read_features(tmp_path) == bare and [each.name for each in tmp_path.iterdir()] == ["features.json"]


def test_a_large_file_in_any_script_comes_back_and_both_intervals_of_an_ablation_stay_apart(tmp_path: Path) -> None:
    null = Interval(-0.125, -0.5, 0.0, 3, "t")
    window = [ShadedToken(f"töken {number} \u4e2d", number % 10, number == 7) for number in range(2500)]
    report = replace(REPORT, bands={"top": [window], "lower half": [window[:2], []]}, ablation_null=null)
    large = replace(DASHBOARD, latents=0, tokens=0, reports=[report, REPORT], prompt="ja \U0001f600")
    assert write_features(large, tmp_path).stat().st_size > 100_000
    assert same(read_features(tmp_path), large)


def test_features_that_cannot_be_written_leave_no_half_of_a_file(tmp_path: Path) -> None:
    (tmp_path / FEATURES).mkdir()
    with pytest.raises(ConfigError, match=r"features\.json cannot be written: Is a directory"):
        write_features(DASHBOARD, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == [FEATURES]
    with pytest.raises(ConfigError, match=r"away/features\.json cannot be written: No such file or directory"):
        write_features(DASHBOARD, tmp_path / "away")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"latents": -1}, "a count was expected, and '-1' came"),
        ({"tokens": True}, "a count was expected, and 'True' came"),
        ({"tokens": 1.0}, "a count was expected, and '1.0' came"),
        ({"prompt": 3}, "a text was expected, and '3' came"),
        ({"reports": 3}, "features.json is damaged"),
        ({"steered": []}, "features.json is damaged"),
        ({"steered": {"3": [{"strength": "x", "text": ""}]}}, "could not convert string to float"),
        ({"steered": {"3": [{"strength": 10**400, "text": ""}]}}, "int too large to convert to float"),
        ({"steered": {"3": [{"strength": 1.0, "text": None}]}}, "a text was expected, and 'None' came"),
    ],
)
def test_a_file_of_features_that_is_damaged_says_where(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    body = json.loads(write_features(DASHBOARD, tmp_path).read_text())
    (tmp_path / FEATURES).write_text(json.dumps(body | change))
    with pytest.raises(ModelFileError, match=told) as caught:
        read_features(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / FEATURES} is damaged (")
    assert str(caught.value).endswith("): gather the features again")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bands": {"top": []}}, "a feature has no top contexts"),
        ({"bands": {"lower half": [[]]}}, "a feature has no top contexts"),
        ({"bands": {"top": [[{"text": "a", "shade": 10, "is_peak": True}]]}}, "shade 10 is above 9"),
        ({"bands": {"top": [[{"text": "a", "shade": -1, "is_peak": True}]]}}, "a count was expected, and '-1' came"),
        ({"bands": {"top": [[{"text": 1, "shade": 1, "is_peak": True}]]}}, "a text was expected, and '1' came"),
        ({"histogram": [0] * 10}, "a feature fires nowhere"),
        ({"histogram": [1, -1]}, "a count was expected, and '-1' came"),
        ({"index": "3"}, "a count was expected, and '3' came"),
        ({"density": "much"}, "a number was expected, and 'much' came"),
        ({"density": True}, "a number was expected, and 'True' came"),
        ({"density": 10**400}, "int too large to convert to float"),
        ({"ablation": {"value": 10**400, "low": 0, "high": 2, "n": 4, "method": "m"}}, "int too large to convert to float"),
        ({"maximum": float("inf")}, "a number was expected, and 'inf' came"),
        ({"promoted": [1]}, "a text was expected, and '1' came"),
        ({"suppressed": [None]}, "a text was expected, and 'None' came"),
        ({"neighbours": [[1, float("nan")]]}, "a number was expected, and 'nan' came"),
        ({"neighbours": [[-1, 0.5]]}, "a count was expected, and '-1' came"),
        ({"rule": {"rule": 1, "balanced_accuracy": 1, "null": 1}}, "a text was expected, and '1' came"),
        ({"rule": {"rule": "r", "balanced_accuracy": 1, "null": "x"}}, "a number was expected, and 'x' came"),
        ({"ablation": {"value": 1, "low": 0, "high": 2, "n": -4, "method": "m"}}, "a count was expected, and '-4' came"),
        ({"ablation_null": {"value": 1, "low": 0, "high": 2, "n": 4, "method": 9}}, "a text was expected, and '9' came"),
    ],
)  # fmt: skip
def test_a_feature_that_is_damaged_is_refused(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    body = json.loads(write_features(DASHBOARD, tmp_path).read_text())
    body["reports"][0] |= change
    (tmp_path / FEATURES).write_text(json.dumps(body))
    with pytest.raises(ModelFileError, match=told):
        read_features(tmp_path)


def test_a_shade_is_a_ninth_of_the_top_begun() -> None:
    strengths = [0.0, 0.1, 1.2, 5.0, 9.5, 10.0, 20.0, -3.0]
    found = shaded("abcdefgh", strengths, 10.0, 4)
    assert [each.shade for each in found] == [0, 1, 2, 5, 9, 9, 9, 0]
    assert "".join(each.text for each in found) == "abcdefgh"
    assert [each.is_peak for each in found] == [place == 4 for place in range(8)]
    assert [each.shade for each in shaded("ab", [0.0, 0.0], 0.0, 0)] == [0, 0]


def test_a_window_stays_in_its_text_and_a_text_has_one_peak() -> None:
    reader = _Contexts([[0] * 20, [0] * 30], [str(place) for place in range(50)])
    assert reader.span_of(0) == (0, 0, 20) and reader.span_of(19) == (0, 0, 20) and reader.span_of(20) == (1, 20, 50)
    z = torch.zeros(50)
    z[5], z[15], z[22] = 1.0, 2.0, 3.0
    assert reader.peaks(z, 6) == [22, 15] and reader.peaks(z, 1) == [22]
    assert reader.peaks(torch.zeros(50), 6) == []
    for at, first, last in ((15, 3, 20), (22, 20, 27), (40, 28, 45)):
        window = reader.window(z, at)
        assert [each.text for each in window] == [str(place) for place in range(first, last)]
        assert [each.text for each in window if each.is_peak] == [str(at)]
    assert {each.text: each.shade for each in reader.window(z, 15) if each.shade} == {"5": 3, "15": 6}


def test_the_bands_are_the_halves_of_the_firing_tokens_and_any_tokens() -> None:
    reader = _Contexts([[0] * 50], [str(place) for place in range(50)])
    z = torch.zeros(50)
    z[[8, 18, 28, 38]] = torch.tensor([1.0, 2.0, 3.0, 4.0])

    def peaks_of(count: int) -> dict[str, list[str]]:
        bands = reader.bands(z, [38], count, torch.Generator().manual_seed(0))
        return {name: [t.text for window in each for t in window if t.is_peak] for name, each in bands.items()}

    found = peaks_of(8)
    assert list(found) == ["top", "upper half", "lower half", "random tokens"] and found["top"] == ["38"]
    assert sorted(found["upper half"]) == ["28", "38"] and sorted(found["lower half"]) == ["18", "8"]
    assert len(set(found["random tokens"])) == 4
    assert [len(each) for each in peaks_of(5).values()] == [1, 2, 2, 2]
    assert [len(each) for each in peaks_of(1).values()] == [1, 1, 1, 1]


def cycle(*texts: str, count: int = 200) -> list[str]:
    return [texts[place % len(texts)] for place in range(count)]


def found_rule(tokens: list[str], fires: list[bool]) -> tuple[str, float]:
    found = explain(tokens, fires)
    assert found is not None and 0.3 < found.null < 0.7
    return found.rule, round(found.balanced_accuracy, 6)


def test_the_rule_of_one_half_is_scored_on_the_other() -> None:
    tokens = cycle("a", "b", "c", "d")
    fires = [token == "c" for token in tokens]
    assert found_rule(tokens, fires) == ("the token is 'c'", 1.0)
    for number in range(5):  # of the second half: five c fall silent, and five d fire
        fires[102 + 4 * number], fires[103 + 4 * number] = False, True
    assert found_rule(tokens, fires) == ("the token is 'c'", round((20 / 25 + 70 / 75) / 2, 6))
    fires = [place % 4 == 3 and place % 8 == 7 for place in range(200)]
    tokens = ["x" if place % 8 == 6 else "y" for place in range(200)]
    assert found_rule(tokens, fires) == ("the token before is 'x'", 1.0)


@pytest.mark.parametrize(
    ("marks", "others", "name"),
    [
        ([f" {number}" for number in range(10, 18)], ["a1", "b"], "digits"),
        (["ab", "cd", "ef", "gh", " ij", "kl", "mn", "op"], ["7", "8."], "letters"),
        (["Ab", "CD", "Ef", "Gh", " Ij", "Kl", "M", "Op"], ["ab", "aB"], "an upper-case first letter"),
        (["AB", "CD", "EF", "GH", " IJ", "KL", "M1", "OP"], ["A", "Bc"], "upper case"),
        ([",", ".", ";", " :", "!", "?", "--", "("], [" ", "\n"], "punctuation"),
    ],
)
def test_tokens_of_a_class_are_explained_by_the_class(marks: list[str], others: list[str], name: str) -> None:
    tokens = [marks[place // 4 % 8] if place % 4 == 0 else others[place % 2] for place in range(200)]
    assert found_rule(tokens, [place % 4 == 0 for place in range(200)]) == (f"the token is {name}", 1.0)
    if others[0].strip():  # what follows a mark is like other tokens, so only the mark explains it
        tokens = [marks[place // 4 % 8] if place % 4 == 0 else others[0] for place in range(200)]
        assert found_rule(tokens, [place % 4 == 1 for place in range(200)]) == (f"the token before is {name}", 1.0)


def test_a_feature_that_fires_seldom_has_no_rule_and_few_tokens_are_refused() -> None:
    tokens = cycle("a", "b")
    fires = [place % 2 == 1 and (place < 10 or place >= 190) for place in range(200)]
    assert sum(fires[:100]) == sum(fires[100:]) == 5 and explain(tokens, fires) is not None
    for place in (1, 191):
        assert explain(tokens, [fire and number != place for number, fire in enumerate(fires)]) is None
    for count, labels in ((199, 199), (200, 201)):
        with pytest.raises(DataError, match=f"{count} tokens with {labels} labels came: .* 200 or more"):
            explain(["a"] * count, [True] * labels)


def shelved(folder: Path, **body: Any) -> Path:
    """A folder with the two files of an autoencoder, of which only the first is read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(body))
    (folder / "sae_weights.safetensors").write_bytes(b"")
    return folder


def test_a_relative_model_is_looked_for_where_the_command_runs_and_then_beside_the_autoencoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, here, beside = tmp_path / "saes/one", tmp_path / "work/m", tmp_path / "saes/m"
    for each in (folder, here, beside):
        each.mkdir(parents=True)
    monkeypatch.chdir(here.parent)
    assert _model_here("m", folder) == ("m", "")
    here.rmdir()
    assert _model_here("m", folder) == (str(beside), "") and _model_here(str(beside), folder) == (str(beside), "")
    beside.rmdir()
    told = f"the model 'm' of {folder} is not here: pull it, or give --sae {folder}:model=MODEL"
    assert _model_here("m", folder) == ("m", told)
    assert _model_here("", folder) == (
        "", f"{folder} does not say which model it is for: give --sae {folder}:model=MODEL",
    )  # fmt: skip


def test_a_shelf_lists_folders_and_those_right_below_with_names_of_their_own(tmp_path: Path) -> None:
    for place in ("one/small", "two/small", "x/two/small", "y/two/small", "one/big", "alone"):
        shelved(tmp_path / place)
    (tmp_path / "one/empty").mkdir()
    places = [str(tmp_path / place) for place in ("one", "two", "x/two", "y/two", "alone", "one", "away")]
    found = SaeShelf(places).all()
    assert [(each.name, each.folder) for each in found] == [
        ("alone", tmp_path / "alone"), ("away", tmp_path / "away"), ("big", tmp_path / "one/big"),
        ("one-small", tmp_path / "one/small"), ("two-small", tmp_path / "two/small"),
        ("two-small-2", tmp_path / "x/two/small"), ("two-small-3", tmp_path / "y/two/small"),
    ]  # fmt: skip
    assert found[1].problem == f"there is no folder {str(tmp_path / 'away')!r}"
    assert found[0].problem.startswith(f"{tmp_path / 'alone'} does not say which model it is for: give --sae ")


def test_the_facts_of_a_shelved_autoencoder_are_those_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    own = {"kind": "topk", "site": "blocks.1.resid.post", "training_tokens": 5}
    ours = shelved(
        tmp_path / "ours", d_sae=48, d_in=8, architecture="topk",
        metadata={"model_name": "model", "hook_name": "blocks.1.hook_resid_post", "firsthand": own},
    )  # fmt: skip
    theirs = shelved(
        tmp_path / "theirs", architecture="standard", model_name="nowhere", hook_name="hook_embed", d_in="8"
    )
    shelf = SaeShelf([str(ours), f"{theirs}:model={tmp_path / 'model'}"])
    one, two = shelf.all()
    assert (one.model, one.site, one.kind, one.latents, one.width) == (
        str(tmp_path / "model"), "blocks.1.resid.post", "topk", 48, 8
    )  # fmt: skip
    assert one.facts == own and one.problem == "" and not one.is_gathered and not one.is_outdated
    assert (two.model, two.site, two.kind, two.latents, two.width, two.problem) == (
        str(tmp_path / "model"), "hook_embed", "standard", 0, 0, ""
    )  # fmt: skip
    (alone,) = SaeShelf([str(theirs)]).all()
    assert alone.model == "nowhere"
    assert alone.problem == (
        f"the model 'nowhere' of {theirs} is not here: pull it, or give --sae {theirs}:model=MODEL"
    )
    (theirs / "cfg.json").write_text("[")
    assert "does not hold JSON" in SaeShelf([str(theirs)]).all()[0].problem
    (ours / "sae_weights.safetensors").unlink()
    assert shelf.get("ours").problem.startswith(f"{ours / 'sae_weights.safetensors'} is missing: copy it there")
    with pytest.raises(ModelFileError, match="is missing: copy it there, or train the autoencoder again"):
        shelf.gather("ours")
    with pytest.raises(UnknownName, match="autoencoder 'our'"):
        shelf.get("our")
    with pytest.raises(ConfigError, match="has the option 'site': write FOLDER, FOLDER:model=MODEL"):
        SaeShelf([f"{ours}:site=embed"])


def test_features_older_than_the_weights_are_outdated_and_kept_ones_are_reported(tmp_path: Path) -> None:
    folder = shelved(tmp_path / "small")
    shelf = SaeShelf([str(folder)])
    assert shelf.dashboard("small") is None and not shelf.is_gathering("small")
    write_features(DASHBOARD, folder)
    os.utime(folder / FEATURES, (1000, 1000))
    os.utime(folder / "sae_weights.safetensors", (1000, 1000))
    assert (shelf.get("small").is_gathered, shelf.get("small").is_outdated) == (True, False)
    os.utime(folder / "sae_weights.safetensors", (1001, 1001))
    assert (shelf.get("small").is_gathered, shelf.get("small").is_outdated) == (True, True)
    assert same(shelf.report("small", 3), REPORT) and same(shelf.dashboard("small"), DASHBOARD)


def test_a_folder_whose_facts_have_another_form_is_shelved_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "saes/model").mkdir(parents=True)
    facts = {"model_name": "model", "hook_name": "embed", "architecture": "topk", "d_sae": 4, "d_in": 2}
    odd: list[Any] = [["a"], "text", 7, True, None, {}, [], {"firsthand": "no"}, {"firsthand": ["x"]},
                      {"firsthand": None}]  # fmt: skip
    for number, metadata in enumerate(odd):
        shelved(tmp_path / f"saes/s{number}", **facts, metadata=metadata)
    found = SaeShelf([str(tmp_path / "saes")]).all()
    assert [each.name for each in found] == sorted(f"s{number}" for number in range(len(odd)))
    for each in found:
        assert (each.model, each.site, each.kind, each.latents, each.width, each.facts, each.problem) == (
            str(tmp_path / "saes/model"), "embed", "topk", 4, 2, {}, "",
        ), each.name  # fmt: skip


def test_a_model_of_a_repository_is_here_once_it_was_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_home(tmp_path / "home", monkeypatch)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sae"
    told = f"the model 'hf:o/n' of {folder} is not here: pull it, or give --sae {folder}:model=MODEL"
    assert _model_here("hf:o/n", folder) == ("hf:o/n", told)
    with hub(monkeypatch) as site:
        files = {"config.json": b"{}", "model.safetensors": BODY}
        listed = [{"rfilename": name, "size": len(body)} for name, body in files.items()]
        site.files["/api/models/o/n/revision/main"] = json.dumps({"sha": COMMIT, "siblings": listed}).encode()
        site.files |= {f"/o/n/resolve/{COMMIT}/{name}": body for name, body in files.items()}
        pull("hf:o/n")
    assert _model_here("hf:o/n", folder) == ("hf:o/n", "")
    assert _model_here("hf:o/m", folder)[1] == told.replace("o/n", "o/m"), "another one is not"
    for wrong in ("hf:", "hf:o", "hf:o/n/x"):
        assert _model_here(wrong, folder) == (wrong, told.replace("hf:o/n", wrong))
