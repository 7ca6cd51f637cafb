"""Features of sparse autoencoders in the Studio: gathered, searched, live on a text; hostile, broken and foreign folders."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from starlette.testclient import TestClient

from firsthand.errors import ConfigError, DataError, ModelFileError
from firsthand.interp.activations import read_activations
from firsthand.interp.feature_files import FEATURES, SteeredText, read_features, write_features
from firsthand.interp.opened_sae import MAX_TOKENS, OpenedSae
from firsthand.interp.sae_shelf import SaeShelf
from firsthand.interp.saes.sae_files import CONFIG, WEIGHTS, SavedSae, read_sae, save_sae
from firsthand.interp.saes.sae_kinds import sae_of
from firsthand.interp.saes.sae_run import SaeRun, write_run
from firsthand.nn import weights
from firsthand.studio.access import Access
from firsthand.studio.accounts import needed_role
from firsthand.studio.studio_app import create_app
from firsthand.studio.views.feature_views import features_page
from firsthand.tokens import pretrained
from same_values import same
from tiny import write_model

PORT = 8124
SITE = "blocks.0.resid.post"
TEXT = "What is 12 + 30? <script>alert(1)</script> The answer is 42."


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, texts, and an autoencoder of its own in `saes/small` whose features were gathered."""
    folder = tmp_path_factory.mktemp("features")
    model = write_model(folder / "model")
    width = weights.load(model).architecture.hidden_size
    facts = {"measures": {"fvu": 0.25, "loss_recovered": 0.5, "l0": 4.0}, "training_tokens": 1234}
    save_sae(SavedSae(sae_of("topk", width, 48, k=4), str(model), SITE, facts), folder / "saes" / "small")
    (folder / "texts").mkdir()
    for number in range(3):
        (folder / "texts" / f"{number}.txt").write_text(f"{TEXT} What is {number}? The answer is {number + 30}. " * 60)
    opened = OpenedSae(folder / "saes" / "small", texts=(str(folder / "texts"),), pieces=3, shown=False)
    found = opened.dashboard(count=5, ablate=1, steer=0)
    steered = {found.reports[0].index: [SteeredText(-1.0, "<i>less</i>"), SteeredText(1.0, "more")]}
    write_features(replace(found, prompt="What is", steered=steered), folder / "saes" / "small")
    return folder


@pytest.fixture
def saes(made: Path, tmp_path: Path) -> Path:
    """A copy of the folder of autoencoders that a test may change."""
    return shutil.copytree(made / "saes", tmp_path / "saes")


def client_of(home: Path, *folders: object) -> TestClient:
    access = Access()
    access.port = PORT
    app = create_app(home, access, pages=[features_page(SaeShelf([str(each) for each in folders]))])
    client = TestClient(app, base_url=f"http://127.0.0.1:{PORT}")
    client.get("/enter", params={"code": access.new_code()})
    return client


@pytest.fixture
def client(tmp_path: Path, saes: Path) -> Iterator[TestClient]:
    yield client_of(tmp_path, saes)


@pytest.mark.slow
def test_autoencoders_are_listed_with_their_measures(client: TestClient) -> None:
    page = client.get("/features").text
    row = re.search(r"<tr data-row>.*?</tr>", page, re.DOTALL)
    assert row is not None and "/features/small" in row[0] and SITE in row[0] and "topk" in row[0]
    assert (
        ">48<" in row[0] and ">1,234<" in row[0] and ">0.500<" in row[0] and ">4.0<" in row[0] and "gathered" in row[0]
    )


def test_without_autoencoders_the_page_says_the_lines_that_fill_it(tmp_path: Path) -> None:
    page = client_of(tmp_path).get("/features").text
    assert "firsthand interp sae smollm2" in page and "firsthand studio --sae sae" in page and "<table" not in page


def test_features_are_shown_searched_and_ordered(client: TestClient, made: Path) -> None:
    kept = read_features(made / "saes" / "small")
    assert kept is not None and len(kept.reports) == 5
    page = client.get("/features/small").text
    shown = re.findall(r'/features/small/(\d+)"', page)
    assert [int(each) for each in shown] == [each.index for each in kept.reports] and "5 of 48 features" in page
    by_effect = sorted(kept.reports, key=lambda each: each.ablation.value if each.ablation else 0, reverse=True)
    found = re.findall(r'/features/small/(\d+)"', client.get("/features/small?sort=ablation").text)
    assert [int(each) for each in found] == [each.index for each in by_effect]
    number = kept.reports[2].index
    part = client.get(f"/features/small?filter={number}", headers={"hx-request": "true"}).text
    assert f"/features/small/{number}" in part and "<html" not in part
    assert "0 features found" in client.get("/features/small?filter=nowhere-at-all").text
    assert client.get("/features/small?sort=size").status_code == 400


def test_a_feature_has_the_card_of_the_dashboard_and_no_markup_of_its_texts(client: TestClient, made: Path) -> None:
    kept = read_features(made / "saes" / "small")
    assert kept is not None
    each = kept.reports[0]
    page = client.get(f"/features/small/{each.index}").text
    for wanted in ("Nearest features", "Raises", "top", "lower half", "random tokens", f"{each.maximum:.2f}"):
        assert wanted in page
    assert page.count('class="context"') >= sum(map(len, each.bands.values())) and " style=" not in page
    assert "<script>alert" not in page and "steered, in multiples" in page and "&lt;i&gt;less" in page
    part = client.get(f"/features/small/{each.index}", headers={"hx-request": "true"}).text
    assert "<html" not in part and f">Feature {each.index}</a>" in part


def test_the_features_of_a_text_are_those_that_the_autoencoder_computes(client: TestClient, made: Path) -> None:
    saved, model = read_sae(made / "saes" / "small"), made / "model"
    ids = pretrained.load(model).encode(TEXT)
    rows = read_activations(weights.load(model), ids, SITE)[SITE].flatten(1).float()
    with torch.no_grad():
        z = saved.sae.encode(rows)
        rebuilt = saved.sae.decode(z)
    z[0] = 0
    page = client.get("/features/small/live", params={"text": TEXT}).text
    order = z.amax(0).argsort(descending=True)[: int((z.amax(0) > 0).sum())].tolist()
    assert [int(each) for each in re.findall(r'<a href="/features/small/(\d+)" hx-get', page)] == order[:60]
    assert f"<h2>{len(order)} features fire" in page and "<script>alert" not in page
    counts = [int(each) for each in re.findall(r"<small>(\d+)</small></a>", page)]
    assert counts == (z > 0).sum(1).tolist()[1:], "the first token is left out"
    error, later = (rows - rebuilt)[1:], rows[1:]
    explained = 1 - float(error.square().sum() / (later - later.mean(0)).square().sum())
    assert f"explains {100 * explained:.0f}%" in page
    two = client.get("/features/small/live", params={"text": "?!"}).text
    assert "choose a token to see those alone.</p>" in two and two.count('class="token"') == 2, "one has no variance"
    at = client.get("/features/small/live", params={"text": TEXT, "at": "3"}).text
    firing = z[3].argsort(descending=True)[: int((z[3] > 0).sum())].tolist()
    assert [int(each) for each in re.findall(r'<a href="/features/small/(\d+)" hx-get', at)] == firing
    assert 'aria-current="true"' in at


@pytest.mark.slow
def test_texts_and_tokens_that_cannot_be_read_are_one_sentence(client: TestClient) -> None:
    for query, words in (
        ({"text": "a"}, "give 2 to"),
        ({"text": "4 2? " * 390}, f"2 to {MAX_TOKENS}"),
        ({"text": "x" * 2001}, "at most 2,000"),
        ({"text": TEXT, "at": "0"}, "the first being left out"),
        ({"text": TEXT, "at": "999"}, "token 999 was asked for"),
        ({"text": TEXT, "at": "two"}, "a whole number was expected"),
    ):
        answer = client.get("/features/small/live", params=query)
        assert answer.status_code == 400 and words in answer.text, query
    assert client.get("/features/small/live").status_code == 200, "an empty text asks nothing of the model"
    for path in ("/features/nosuch", "/features/nosuch/1", "/features/%2e%2e", "/features/nosuch/live?text=ab"):
        assert client.get(path).status_code == 404, path
    assert client.get("/features/small/live/48").status_code == 400
    assert client.get(f"/features/small/live/{1 << 40}").status_code == 400


@pytest.mark.slow
def test_features_are_gathered_in_the_background_and_kept(tmp_path: Path, saes: Path, made: Path) -> None:
    (saes / "small" / FEATURES).unlink()
    run = SaeRun(str(made / "model"), SITE, texts=(str(made / "texts"),), context=16, held_out_texts=4)
    write_run(run, saes / "small")
    client = client_of(tmp_path, saes)
    assert "No features are gathered yet" in client.get("/features/small").text
    own = {"origin": f"http://127.0.0.1:{PORT}"}
    assert client.post("/features/small").status_code == 403, "another site cannot start it"
    assert "being gathered" in client.post("/features/small", headers=own).text
    end = time.monotonic() + 60
    while client.get("/features/small/gathering").headers.get("hx-refresh") != "true" and time.monotonic() < end:
        time.sleep(0.3)
    page = client.get("/features/small").text
    kept = read_features(saes / "small")
    assert kept is not None and f"{len(kept.reports)} of 48 features" in page and "Gather features again" in page
    os.utime(saes / "small" / WEIGHTS)
    assert "newer than these features" in client.get("/features/small").text


@pytest.mark.slow
def test_a_feature_that_was_not_gathered_is_reported_when_it_is_asked_for(
    tmp_path: Path, saes: Path, made: Path
) -> None:
    run = SaeRun(str(made / "model"), SITE, texts=(str(made / "texts"),), context=16, held_out_texts=4)
    write_run(run, saes / "small")
    client, kept = client_of(tmp_path, saes), read_features(saes / "small")
    assert kept is not None
    reading = OpenedSae(saes / "small", shown=False).read_text(TEXT * 2)
    other = next(each.index for each in reading.features if each.index not in {r.index for r in kept.reports})
    answer = client.get(f"/features/small/{other}")
    assert answer.url.path == f"/features/small/live/{other}" and f"Feature {other}" in answer.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no cfg", "cannot be read"),
        ("cfg of no JSON", "does not hold JSON"),
        ("no weights", "is missing: copy it there"),
        ("no model", "does not say which model it is for"),
        ("model elsewhere", "is not here: pull it"),
        ("other model", "it is for another model"),
        ("site", "which this model does not have"),
        ("nan", "not finite"),
        ("short", "cannot be read|is damaged|bytes"),
        ("dead", "the dictionary is dead here"),
    ],
)  # fmt: skip
def test_a_broken_or_foreign_folder_is_one_sentence(
    tmp_path: Path, saes: Path, made: Path, name: str, words: str
) -> None:
    folder = saes / "small"
    (folder / FEATURES).unlink()
    config, tensors = json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
    if name == "other model":
        wide = sae_of("topk", 2 * config["d_in"], 48, k=4)
        save_sae(SavedSae(wide, str(made / "model"), SITE), folder)
    elif name == "dead":
        tensors["b_enc"].fill_(-1e6)
    elif name == "nan":
        tensors["W_enc"][0, 0] = float("nan")
    elif name == "site":
        config["metadata"]["firsthand"]["site"] = "blocks.9.resid.post"
    elif name in ("no model", "model elsewhere"):
        config["metadata"]["model_name"] = "" if name == "no model" else "hf:nobody/nothing"
    if name != "other model":
        (folder / CONFIG).write_text(json.dumps(config))
        save_file(tensors, folder / WEIGHTS)
    if name == "cfg of no JSON":
        (folder / CONFIG).write_text("{")
    elif name in ("no cfg", "no weights"):
        (folder / (CONFIG if name == "no cfg" else WEIGHTS)).unlink()
    elif name == "short":
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])
    run = SaeRun(str(made / "model"), SITE, texts=(str(made / "texts"),), context=16, held_out_texts=4)
    write_run(run, folder)
    client = client_of(tmp_path, saes)
    assert client.get("/features").status_code == 200
    client.post("/features/small", headers={"origin": f"http://127.0.0.1:{PORT}"})
    end = time.monotonic() + 60
    while client.get("/features/small/gathering").headers.get("hx-refresh") != "true" and time.monotonic() < end:
        time.sleep(0.05)
    answer = client.get("/features/small" if name == "dead" else "/features/small/live?text=What+is+this")
    assert re.search(words, answer.text) and "Traceback" not in answer.text and answer.status_code in (200, 400)


@pytest.mark.slow
def test_a_damaged_file_of_features_is_one_sentence_and_markup_in_it_is_text(client: TestClient, saes: Path) -> None:
    file = saes / "small" / FEATURES
    body = json.loads(file.read_text())
    hostile = "<img src=x onerror=alert(1)>\u202e\x00"
    report = body["reports"][0]
    report["bands"]["top"][0][0]["text"] = report["promoted"][0] = hostile
    report["rule"] = {"rule": hostile, "balanced_accuracy": 0.5, "null": 0.5}
    file.write_text(json.dumps(body))
    for path in ("/features/small", f"/features/small/{report['index']}"):
        page = client.get(path).text
        assert "<img" not in page and "&lt;img" in page and "\u202e" not in page
    for change in (
        {"shade": 10}, {"density": float("nan")}, {"histogram": [0] * 10}, {"index": -1}, {"bands": {"top": []}},
        {"rule": 3},
    ):  # fmt: skip
        wrong = json.loads(json.dumps(body))
        if "shade" in change:
            wrong["reports"][0]["bands"]["top"][0][0] |= change
        else:
            wrong["reports"][0] |= change
        file.write_text(json.dumps(wrong))
        answer = client.get("/features/small")
        assert answer.status_code == 400 and "gather the features again" in answer.text, change
    file.write_text("[" * 100_000)
    assert client.get("/features/small").status_code == 400


def test_names_of_folders_are_escaped_and_equal_names_told_apart(tmp_path: Path, saes: Path) -> None:
    odd = shutil.copytree(saes / "small", tmp_path / "one" / "<b onclick=x>'\"{{7*7}} ?#")
    shutil.copytree(saes / "small", tmp_path / "one" / "small")
    client = client_of(tmp_path, saes, tmp_path / "one")
    page = client.get("/features").text
    assert "<b onclick" not in page and "{{7*7}}" in page
    links = re.findall(r'href="(/features/[^"]+)"', page)
    assert (
        len(links) == 3 and any("saes-small" in each for each in links) and any("one-small" in each for each in links)
    )
    assert all(client.get(each).status_code == 200 for each in links)
    with pytest.raises(ConfigError, match="FOLDER:model=MODEL"):
        SaeShelf([f"{odd.parent}:modle=x"])


def test_a_model_is_named_for_a_folder_that_names_none(tmp_path: Path, saes: Path, made: Path) -> None:
    config = json.loads((saes / "small" / CONFIG).read_text())
    config["metadata"]["model_name"] = "gone/away"
    (saes / "small" / CONFIG).write_text(json.dumps(config))
    assert SaeShelf([str(saes)]).get("small").problem
    shelf = SaeShelf([f"{saes}:model={made / 'model'}"])
    assert not shelf.get("small").problem and shelf.read_text("small", TEXT).active > 0


def test_what_runs_a_model_takes_an_editor() -> None:
    assert needed_role("GET", "/features/small/live") == needed_role("GET", "/features/small/live/3") == "editor"
    assert needed_role("GET", "/features/small/3") == needed_role("GET", "/features/live") == "viewer"
    assert needed_role("POST", "/features/small") == "editor"


def test_a_folder_that_cannot_be_written_says_so(made: Path, tmp_path: Path) -> None:
    kept = read_features(made / "saes" / "small")
    assert kept is not None and read_features(tmp_path) is None
    with pytest.raises(ConfigError, match="cannot be written"):
        write_features(kept, tmp_path / "nowhere")
    write_features(kept, tmp_path)
    assert same(read_features(tmp_path), kept) and [each.name for each in tmp_path.iterdir()] == [FEATURES]


def test_activations_that_are_not_finite_are_refused(made: Path) -> None:
    opened = OpenedSae(made / "saes" / "small", shown=False)
    with torch.no_grad():
        next(opened._model.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match="not finite"):
        opened.read_text(TEXT)


@pytest.mark.slow
def test_the_shelf_is_listed_without_torch(saes: Path) -> None:
    script = (
        "import sys\nfrom firsthand.interp.sae_shelf import SaeShelf\n"
        f"print(SaeShelf([{str(saes)!r}]).dashboard('small') is not None, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_shelf_reports_a_folder_that_went_away(saes: Path) -> None:
    shelf = SaeShelf([str(saes)])
    shutil.rmtree(saes)
    assert [each.problem != "" for each in shelf.all()] == [True]
    with pytest.raises(ModelFileError, match="there is no folder"):
        shelf.read_text("saes", TEXT)
