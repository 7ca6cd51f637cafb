"""What `interp steer`, `contrast`, `patch`, `dashboard` and `toy` ask of their studies, and print of given results.

The studies are tested in the tests of `interp`; here they are replaced by results whose numbers are known.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from firsthand.commands import interp, interp_contrast, interp_dashboard, interp_patch, interp_steer, interp_toy
from firsthand.errors import ConfigError, UnknownName
from firsthand.interp import answer_pairs, feature_files, opened_model, opened_sae, steering
from firsthand.interp.circuits import patching
from firsthand.interp.circuits.patching import Patch
from firsthand.interp.saes import toy_superposition
from firsthand.interp.saes.toy_superposition import Recovery
from firsthand.interp.steering import Answered, Pair, SteeringRow
from firsthand.show import feature_page
from firsthand.stats.intervals import Interval
from printed_tables import widen, words


class Tokenizer:
    """A token for each letter, and one before an answer that continues no prompt."""

    def encode(self, text: str, *, continuing: bool = False) -> list[int]:
        return [*([] if continuing or text not in ("yes", "no") else [0]), *map(ord, text)]

    def encode_prompt(self, text: str) -> list[int]:
        return self.encode(text)

    def decode(self, ids: list[int], *, skip_special: bool) -> str:
        return "".join(map(chr, ids))


MODEL = SimpleNamespace(architecture=SimpleNamespace(max_position=77))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What was asked for; the terminal is wide, and a model opens at once."""
    told: list[Any] = []

    def opened(name: str, **given: Any) -> Any:
        told.append(("open", name, given))
        return MODEL, Tokenizer(), None

    monkeypatch.setattr(opened_model, "open_for_interp", opened)
    monkeypatch.chdir(tmp_path)
    widen(monkeypatch, interp_steer, interp_patch, interp_dashboard, interp_toy)
    return told


def interval(value: float) -> Interval:
    return Interval(value, value - 0.25, value + 0.5, 4, "t")


STUDY = [SteeringRow(0.5, interval(1), interval(2), interval(3), interval(4)),
         SteeringRow(10, interval(-1), interval(0), interval(0.0625), interval(9))]  # fmt: skip
TABLE = [
    "a title", "strength effect a random vector's cost, nats a token a random vector's cost",
    "0.5 +1.000 [+0.750, +1.500] +2.000 [+1.750, +2.500] +3.000 [+2.750, +3.500] +4.000 [+3.750, +4.500]",
    "10 -1.000 [-1.250, -0.500] +0.000 [-0.250, +0.500] +0.062 [-0.188, +0.562] +9.000 [+8.750, +9.500]",
    "An effect counts where it is outside of the random vector's; the cost is that on unrelated texts.",
]  # fmt: skip


def test_a_study_of_steering_is_a_table_and_the_use_of_its_file(
    asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    interp_steer.print_study(STUDY, "a title", "m", None, as_json=False)
    assert words(capsys.readouterr().out) == TABLE
    interp_steer.print_study(STUDY, "a title", "m", Path("v.safetensors"), as_json=False)
    assert words(capsys.readouterr().out) == [
        *TABLE, "Written to v.safetensors: m+steer:v.safetensors@0.5 adds half of it at every token."
    ]  # fmt: skip
    interp_steer.print_study(STUDY, "a title", "m", Path("v"), as_json=True)
    names = ("effect", "random_effect", "cost", "random_cost")
    values = ((0.5, (1, 2, 3, 4)), (10, (-1, 0, 0.0625, 9)))
    assert json.loads(capsys.readouterr().out) == [
        {"strength": strength, **{name: interval(n).to_json() for name, n in zip(names, each, strict=True)}}
        for strength, each in values
    ]


@pytest.fixture
def steered(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The parts of a study, told in their order."""

    def part(name: str, given_back: Any) -> Any:
        def made(*given: Any, **named: Any) -> Any:
            asked.append((name, given, named))
            return given_back(*given) if callable(given_back) else given_back

        return made

    for name, found in (
        ("steering_vector", "VECTOR"), ("contrast_vector", "VECTOR"), ("save_vector", None), ("steering_study", STUDY),
        ("choice_effect", lambda _, prompt, metric: ("effect", prompt, metric)), ("margin_effect", lambda _, pair: pair),
    ):  # fmt: skip
        monkeypatch.setattr(steering, name, part(name, found))
    monkeypatch.setattr(patching, "logit_difference", part("logit_difference", "METRIC"))
    return asked


def ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_every_option_of_steering_reaches_its_study(steered: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("to", "ab\n \ncd\n"), ("from", "e\n"), ("p", "fg\n\nhi"), ("u", "j\nklm\n")):
        Path(name).write_text(text)
    config = interp_steer.Config("m", Path("to"), Path("from"), Path("p"), "yes", "no", Path("u"), layer=3, seed=7,
                                 strengths=("0.5", "10"), out=Path("v"))  # fmt: skip
    assert interp_steer.run(config) == 0
    site = "blocks.3.resid.post"
    told = words(capsys.readouterr().out)
    assert told[0] == f"steering at {site}: logit('yes') - logit('no'), 95% CI" and told[1:5] == TABLE[1:]
    assert told[5].startswith("Written to v: m+steer:v@0.5")
    assert steered == [
        ("open", "m", {"shown": True, "sites": (site,)}),
        ("steering_vector", (MODEL, site, [ids("ab"), ids("cd")], [ids("e")]), {}),
        ("save_vector", ("VECTOR", site, Path("v")), {}),
        ("logit_difference", (ord("y"), ord("n")), {}),
        ("choice_effect", (MODEL, ids("fg"), "METRIC"), {}), ("choice_effect", (MODEL, ids("hi"), "METRIC"), {}),
        ("steering_study",
         (MODEL, site, "VECTOR", [("effect", ids(each), "METRIC") for each in ("fg", "hi")], [ids("klm")]),
         {"strengths": [0.5, 10.0], "seed": 7}),
    ]  # fmt: skip
    steered.clear()
    assert interp_steer.run(replace(config, out=None, layer=8, site="blocks.1.hook_mlp_out", json=True)) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert steered[0] == ("open", "m", {"shown": False, "sites": ("blocks.1.hook_mlp_out",)}) and len(steered) == 6
    Path("u").write_text("j\nk\n")
    with pytest.raises(ConfigError) as refused:
        interp_steer.run(config)
    assert str(refused.value) == "p and u hold no texts: give one or more lines in each"
    for name in ("to", "from", "p", "u"):
        text = Path(name).read_text()
        Path(name).write_text(" \n")
        with pytest.raises(ConfigError, match=f"^{name} holds no texts: give one or more lines$"):
            interp_steer.run(config)
        Path(name).write_text(text)


def test_settings_of_steering_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f").write_text("x")
    files = {name: Path("f") for name in ("towards", "away", "prompts", "unrelated")}
    for given, told in (
        *(({name: Path("no")}, "no file 'no': give one with a text on each line") for name in files),
        ({"layer": -1}, "layer is -1 and strengths are ('0.5', '1', '2'): give 0 or more, and one or more"),
        ({"strengths": ()}, "layer is 8 and strengths are (): give 0 or more, and one or more"),
        ({"out": Path("no/v")}, "no folder 'no' for the vector's file: make it first"),
    ):
        with pytest.raises(ConfigError) as refused:
            interp_steer.Config(**{"model": "m", "answer": "a", "other": "b", **files, **given})  # type: ignore[arg-type]
        assert str(refused.value) == told
    interp_steer.Config("m", answer="a", other="b", layer=0, out=Path("v"), **files)
    assert interp_steer.multiples(("0.5", "-1", "2e1")) == [0.5, -1.0, 20.0]
    with pytest.raises(ConfigError, match=r"^strengths are 1,x: give numbers, as in 0\.5,1,2$"):
        interp_steer.multiples(("1", "x"))
    interp_steer.check_out(None)
    for given, told in (
        ({"pairs": Path("no")}, "no file 'no': give one that can be read"), ({"unrelated": Path("no")}, "no file 'no'"),
        ({"layer": -1}, "layer is -1, strengths are 0.5,1,2 and holdout is 0.3: give a layer from 0, one strength or"),
        ({"strengths": ()}, "layer is 8, strengths are  and holdout is 0.3"), ({"holdout": 0.0}, "and holdout is 0.0"),
        ({"holdout": 1.0}, "and holdout is 1.0"), ({"out": Path("no/v")}, "no folder 'no' for the vector's file"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            interp_contrast.Config(**{"model": "m", "pairs": Path("f"), "unrelated": Path("f"), **given})  # type: ignore[arg-type]
        assert told in str(refused.value)


def test_a_contrast_is_made_from_pairs_that_its_effect_is_not_measured_on(
    steered: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("u").write_text("j\nklm\n\nop\n")
    Path("p").write_text("")
    counts = iter((5, 10, 4, 4, 3))

    def pair(n: int) -> Pair:
        return Pair(Answered([1, n], 1), Answered([2, n], 1))

    def read(file: Path, tokenizer: Any, context: int) -> list[Pair]:
        steered.append(("read_pairs", file, context))
        found = [pair(n) for n in range(next(counts))]
        return [*found, *found[1:]]  # equal pairs are used once

    monkeypatch.setattr(answer_pairs, "read_pairs", read)
    config = interp_contrast.Config("m", Path("p"), Path("u"), layer=2, strengths=("2",), seed=6, out=Path("v"))
    assert interp_contrast.run(config) == 0
    site = "blocks.2.resid.post"
    order = [pair(n) for n in range(5)]
    Random(6).shuffle(order)
    assert words(capsys.readouterr().out)[0] == (
        f"steering at {site}: log p(chosen) - log p(rejected) of 2 held-out pairs, 95% CI"
    )
    assert steered == [
        ("open", "m", {"shown": True, "sites": (site,)}), ("read_pairs", Path("p"), 77),
        ("contrast_vector", (MODEL, site, order[2:]), {}), ("save_vector", ("VECTOR", site, Path("v")), {}),
        ("margin_effect", (MODEL, order[0]), {}), ("margin_effect", (MODEL, order[1]), {}),
        ("steering_study", (MODEL, site, "VECTOR", order[:2], [ids("klm"), ids("op")]), {"strengths": [2.0], "seed": 6}),
    ]  # fmt: skip
    # of ten, 4.7 are five held out; of four, two at the least and two at the most
    for holdout, held in ((0.47, 5), (0.01, 2), (0.99, 2)):
        steered.clear()
        assert (
            interp_contrast.run(replace(config, holdout=holdout, out=None, layer=8, site="blocks.0.mlp.out", json=True))
            == 0
        )
        assert len(json.loads(capsys.readouterr().out)) == 2
        assert steered[0][2] == {"shown": False, "sites": ("blocks.0.mlp.out",)}
        assert sum(each[0] == "margin_effect" for each in steered) == held
        assert not any(each[0] == "save_vector" for each in steered)
    with pytest.raises(ConfigError) as refused:
        interp_contrast.run(config)
    assert str(refused.value) == (
        "p has 3 pairs and u 2 texts of two tokens or more: give four pairs and one text or more"
    )


def test_patches_are_listed_by_what_they_restore(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        Patch("s1", None, None, 0.25),
        Patch("s2", 3, None, -0.75),
        Patch("s3", 0, 1, 0.5),
        Patch("s4", None, 0, 0.125),
    ]

    def patches(*given: Any, **named: Any) -> list[Patch]:
        asked.append((given, named))
        return found

    monkeypatch.setattr(patching, "activation_patches", patches)
    monkeypatch.setattr(patching, "logit_difference", lambda *given: given)
    config = interp_patch.Config("m", "AB", "CD", "yes", "no", sites=("a.*", "b"), by_head=True, top=3)
    assert interp_patch.run(config) == 0
    assert words(capsys.readouterr().out) == [
        "share of logit('yes') - logit('no') that a clean activation restores", "site head position restored",
        "s2 3 -0.750", "s3 0 1 'B' +0.500", "s1 +0.250", "1 brings the clean behaviour back, 0 changes nothing.",
    ]  # fmt: skip
    assert asked == [
        ("open", "m", {"shown": True, "sites": ("a.*", "b")}),
        ((MODEL, ids("AB"), ids("CD"), (ord("y"), ord("n")), ("a.*", "b")), {"by_head": True, "by_position": False}),
    ]  # fmt: skip
    assert interp_patch.run(replace(config, by_head=False, by_position=True, json=True)) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"site": f"s{n}", "head": head, "position": position, "restored": restored}
        for n, head, position, restored in (
            (1, None, None, 0.25),
            (2, 3, None, -0.75),
            (3, 0, 1, 0.5),
            (4, None, 0, 0.125),
        )
    ]
    assert asked[2][2]["shown"] is False and asked[3][1] == {"by_head": False, "by_position": True}
    assert interp_patch.run(replace(config, top=9)) == 0
    assert words(capsys.readouterr().out)[5] == "s4 0 'A' +0.125", "the first position is one"
    with pytest.raises(ConfigError) as refused:
        interp_patch.run(replace(config, answer="no"))
    assert str(refused.value) == "'no' and 'no' begin with the same token: give words that differ there"
    for given, told in (
        ({"top": 0}, "top is 0: give 1 or more"),
        *(({name: ""}, f"{name} is empty: give a text") for name in ("clean", "corrupted", "answer", "other")),
    ):
        with pytest.raises(ConfigError) as refused:
            replace(config, **given)  # type: ignore[arg-type]
        assert str(refused.value) == told
    assert replace(config, top=1).sites == ("a.*", "b")


def test_a_dashboard_is_written_with_its_features_beside_it(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    reports = [SimpleNamespace(index=4), SimpleNamespace(index=2)]
    made = SimpleNamespace(reports=reports, latents=8, tokens=99, prompt="P", steered={4: []})
    saved = SimpleNamespace(model="a/tiny.gguf", site="s", facts={"measures": {"fvu": 0.5}},
                            sae=SimpleNamespace(kind="topk", d_sae=12345))  # fmt: skip

    class Opened:
        def __init__(self, *given: Any, **named: Any) -> None:
            asked.append((given, named))
            self.saved = saved

        def dashboard(self, **named: Any) -> Any:
            asked.append(named)
            return made

    def page(*given: Any, **named: Any) -> str:
        asked.append((given, named))
        return "PÄGE"

    monkeypatch.setattr(opened_sae, "OpenedSae", Opened)
    monkeypatch.setattr(feature_page, "feature_page", page)
    monkeypatch.setattr(feature_files, "write_features", lambda *given: asked.append(given))
    folder = tmp_path / "sae"
    folder.mkdir()
    config = interp_dashboard.Config(
        folder, model="m", texts=("t",), features=5, pieces=6, ablate=7, steer=8, prompt="go"
    )
    assert interp_dashboard.run(config) == 0
    assert capsys.readouterr().out == f"2 features in {folder / 'features.html'}\n"
    assert (folder / "features.html").read_bytes() == "PÄGE".encode()
    assert asked == [
        ((folder, "m"), {"texts": ("t",), "pieces": 6, "shown": True, "trust": False}),
        {"count": 5, "ablate": 7, "steer": 8, "prompt": "go"},
        (("tiny: s, topk of 12,345 latents", reports),
         {"latents": 8, "tokens": 99, "measures": [("fvu", "0.500")], "prompt": "P", "steered": {4: []}}),
        (made, folder),
    ]  # fmt: skip
    saved.model = ""
    out = tmp_path / "other.html"
    assert interp_dashboard.run(replace(config, out=out, json=True, model="x/other")) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(out), "features": [4, 2], "bytes": 5}
    assert asked[4][1]["shown"] is False and asked[6][0][0].startswith("other: s, ") and asked[7] == (made, tmp_path)
    with pytest.raises(ConfigError) as refused:
        interp_dashboard.run(replace(config, out=tmp_path / "no" / "x.html"))
    assert str(refused.value) == f"the folder of '{tmp_path}/no/x.html' does not exist: make it, or name another file"
    for given, told in (
        ({"features": 0}, "features is 0: give 1 or more"), ({"pieces": 1}, "pieces is 1: give 2 or more"),
        ({"ablate": -1}, "ablate is -1: give 0 or more"), ({"steer": -1}, "steer is -1: give 0 or more"),
        ({"prompt": " "}, "the prompt to steer is empty: give a few words, or --steer 0"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            replace(config, **given)  # type: ignore[arg-type]
        assert str(refused.value) == told
    assert replace(config, features=1, pieces=2, ablate=0, steer=0, prompt="").prompt == ""


@pytest.mark.parametrize(
    ("kinds", "passing", "code"),
    [
        (("relu", "topk"), "no", 0),
        (("batch_topk",), "no", 1),
        (("matryoshka", "relu"), "first", 1),
        (("matryoshka",), "all", 0),
    ],
)
def test_toy_features_are_counted_and_the_kinds_with_a_goal_must_reach_it(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    kinds: tuple[str, ...], passing: str, code: int,
) -> None:  # fmt: skip
    found = Recovery(0.96, 0.975, 0.8765, 0.5, 3.25, 0.125, 0.0625)
    null = replace(found, mmcs=0.25, above=0.0)

    def study(kind: str, **given: Any) -> Any:
        asked.append((kind, given))
        passes = passing == "all" or (passing == "first" and given["seed"] == 0)
        return SimpleNamespace(found=found, null=null, passes=passes)

    monkeypatch.setattr(toy_superposition, "toy_study", study)
    config = interp_toy.Config(kinds, seeds=2, steps=5, features=6, dimensions=7, width=8, l0=2.6)
    assert interp_toy.run(config) == code
    sizes = {"steps": 5, "num_features": 6, "dimensions": 7, "width": 8, "l0": 2.6}
    assert asked == [(kind, {"seed": seed, **sizes, **({"l1": 0.3} if kind == "relu" else {"k": 3})})
                     for kind in kinds for seed in (0, 1)]  # fmt: skip
    told = words(capsys.readouterr().out)
    verdicts = {"no": ("no", "no"), "first": ("yes", "no"), "all": ("yes", "yes")}[passing]
    assert told[:2] == [
        "6 features in 7 dimensions, 8 latents", "kind seed MMCS null above .9 null unique F1 L0 FVU dead passes"
    ]  # fmt: skip
    assert told[2:-1] == [
        f"{kind} {seed} 0.960 0.250 0.975 0.000 0.876 0.500 3.25 0.125 0.06 {verdicts[seed]}"
        for kind in kinds
        for seed in (0, 1)
    ]
    assert interp_toy.run(replace(config, json=True, l0=0.2)) == code and asked[-1][1].get("k", 1) == 1
    body = json.loads(capsys.readouterr().out)
    assert body[1] == {"kind": kinds[0], "seed": 1, "passes": verdicts[1] == "yes", **vars(found), "null": vars(null)}
    for given, said in (
        ({"seeds": 0}, "seeds is 0: give 1 or more"), ({"steps": 0}, "steps is 0: give 1 or more"),
        ({"kinds": ()}, "kinds is empty: name one or more, such as batch_topk"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as refused:
            interp_toy.Config(**given)  # type: ignore[arg-type]
        assert str(refused.value) == said


def test_words_of_interp_are_a_subcommand_and_its_flags(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(interp_toy, "run", lambda config: given.append(config) or 7)
    assert interp.dispatch(["toy", "--seeds", "4", "--json"]) == 7 and interp.main(interp.Config("toy")) == 7
    assert given == [interp_toy.Config(seeds=4, json=True), interp_toy.Config()]
    assert interp.subcommand("patch") is interp_patch and {"toy", "steer", "contrast"} < set(interp.subcommands())
    with pytest.raises(UnknownName, match="did you mean 'toy'"):
        interp.dispatch(["tou"])
    with pytest.raises(
        ConfigError, match=r"^'--config=.*' came before a subcommand: it is the first word, as in `firsthand"
    ):
        Path("c.toml").write_text("")
        interp.dispatch(["--config=c.toml", "toy"])
    for line, told in (([], "firsthand interp"), (["toy", "--help"], "firsthand interp toy")):
        with pytest.raises(SystemExit):
            interp.dispatch(line)
        assert told in capsys.readouterr().out
