"""An encoder's expected speed from measurements, by hand; and the members of a wheel, which are checked before they move."""

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from firsthand.errors import DownloadError
from firsthand.hub.encoder_planner import plan_encoder
from firsthand.hub.inspection import Inspection
from firsthand.hub.wheel import WheelMember, _checked
from firsthand.measure.measurements import EMBEDDED, EMBEDDED_TOKENS, Measured
from test_commands_bench import SPEEDS, result


def test_members_of_a_wheel_are_checked_before_any_is_moved_into_place(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as made:
        made.writestr("p/a", "aaa")
        made.writestr("p/b", "bb")
    sha = {name: hashlib.sha256(body).hexdigest() for name, body in (("a", b"aaa"), ("b", b"bb"))}
    part = _checked(tmp_path / "w.whl", WheelMember("p/a", tmp_path / "t", sha["a"], 3), tmp_path / "part", "w==1")
    assert part.read_bytes() == b"aaa" and not (tmp_path / "t").exists()
    with pytest.raises(DownloadError, match=r"p/b in w==1 gave"):
        _checked(tmp_path / "w.whl", WheelMember("p/b", tmp_path / "t", sha["a"], 2), tmp_path / "part2", "w==1")


def test_what_an_encoder_is_expected_to_do_follows_from_the_nearest_measurement():
    facts = Inspection(
        path=Path("/m"), architecture="bert", is_encoder=True, parameters=3000, active_parameters=3000, file_bytes=9,
        tensor_types={}, weight_bytes={}, kv_bytes={}, kv_bytes_per_token=None, window=None, window_share=0.0,
        decode_parameters=2000, block_bytes=None, head_parameters=None, attention_width=60, context=512, vocabulary=9,
        has_chat_template=False, licence=None,
    )  # fmt: skip
    made = plan_encoder(facts, SPEEDS, [], "m")
    # products of 16-bit integers are half as fast as those of 8 bits
    bound = 200 / ((2 * 2000 + 4 * 60 * 128) / 1e9)
    assert made.tokens_per_text == 128 and made.texts == pytest.approx(bound / 128) and made.expected is None
    assert made.notes == () and not made.is_busy and made.to_json()["tokens_per_text"] == 128
    assert plan_encoder(replace(facts, attention_width=None), SPEEDS, [], "m").texts is None
    assert plan_encoder(replace(facts, decode_parameters=0), SPEEDS, [], "m").texts is None
    figures = (
        Measured(EMBEDDED, "texts/s", "documents", (10.0, 20.0, 30.0)),
        Measured(EMBEDDED_TOKENS, "tokens/s", "documents", (1e6, 2e6, 3e6)),
    )
    measured = result(figures=figures, parameters=1000, prefill_gflop=1e-5, model="n")
    found = plan_encoder(facts, SPEEDS, [measured], "m").expected
    assert found is not None and (found.measured_model, found.is_same, found.texts) == ("n", False, None)
    assert found.share == pytest.approx(2e6 * 1e-5 / 200) and found.tokens == pytest.approx(found.share * bound)
    same = plan_encoder(facts, SPEEDS, [measured], "n").expected
    assert same is not None and (same.is_same, same.tokens, same.texts) == (True, 2e6, 20.0)
    assert plan_encoder(facts, SPEEDS, [replace(measured, quick=True)], "n").expected is None
    assert plan_encoder(facts, SPEEDS, [result(model="n")], "n").expected is None
    # only what measured texts, tokens and nothing else missing tells what to expect
    for kept in (figures[:1], figures[1:], ()):
        lacking = replace(measured, figures=kept)
        assert plan_encoder(facts, SPEEDS, [lacking], "n").expected is None, kept
        assert plan_encoder(facts, SPEEDS, [lacking], "m").expected is None, kept
    assert plan_encoder(replace(facts, attention_width=None), SPEEDS, [measured], "n").expected is None
