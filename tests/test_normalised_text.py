"""Text of strangers is normalised as Unicode says, in time that grows with its length."""

import re
import unicodedata
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

import firsthand
from cpu_time import at_most_cpu_s
from firsthand import catalog
from firsthand.errors import DownloadError, TemplateError
from firsthand.hub.download import _joined
from firsthand.patterns.parts.parsed_python import parsable
from firsthand.patterns.parts.self_tests import _parses
from firsthand.retrieval.chunking.code_chunks import _python
from firsthand.safety.plans.plan_program import PlanError, parse_plan
from firsthand.safety.rules.policies import path_inside
from firsthand.sandbox.monty import _is_python
from firsthand.system.normalised_text import _WIDE, MAX_MARKS, has_long_marks, normalised_text
from firsthand.task import Task
from firsthand.tokens.templates.template_sandbox import SandboxedTemplate
from firsthand.tools.mcp.tool_search import ranked
from firsthand.tools.web.html import to_text

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
MARKS = (
    "\u0301\u0316\u0323\u0308\u0345\u0344\u0f71\u0f72\u0f73\u0f75\u0f81\u3099\u309a\uff9e\uff9f\u05b0\u0e38\U0001d165"
)
LETTERS = "aé ǖᾂかがｶ한각ᄀ\u1161\u11a8中①ﬁ\ufdfa\ufb2c\U0001d15e¨\u0dd9\u0dcf\ud800\u0e01б"
PAIRS = ["\u0301\u0316", "\u0316\u0301", "\u0344\u0316", "\u0f73\u0f71", "\u0f75\u0f81", "\uff9e\u0334"]
LONG = "a" + "\u0301" * 20_000 + "\u0316" * 20_000


@pytest.mark.parametrize("form", FORMS)
def test_any_text_becomes_what_unicodedata_makes_of_it(form: Any) -> None:
    rng = Random(form)
    for _ in range(400):
        parts = []
        for _ in range(rng.randint(1, 5)):
            parts += rng.choices(LETTERS, k=rng.randint(0, 3))
            parts += rng.choices(rng.sample(MARKS, rng.randint(1, 6)), k=rng.choice((0, 2, 29, 30, 31, 32, 90)))
        text = "".join(parts)
        assert normalised_text(form, text) == unicodedata.normalize(form, text), ascii(text)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("marks", PAIRS, ids=ascii)
@pytest.mark.parametrize("letter", ["a", "é", "ᾂ", "が"])
def test_marks_without_end_are_normalised_in_linear_time(form: Any, marks: str, letter: str) -> None:
    for text in (letter + marks[0] * 20_000 + marks[1] * 20_000, letter + marks * 20_000):
        with at_most_cpu_s(0.5):
            made = normalised_text(form, text)
        assert len(made) >= 40_000 and unicodedata.is_normalized(form, made)


def test_every_run_of_marks_that_is_longer_than_thirty_is_looked_at() -> None:
    for each in map(chr, [*range(0x3100), *range(0x3400, 0xA000), *range(0xAC00, 0xE000), *range(0xFF00, 0x10000)]):
        classes = [unicodedata.combining(part) for part in unicodedata.normalize("NFKD", each)]
        assert _WIDE.search(each * 31) or (classes[0] == 0 and sum(map(bool, classes)) <= 3), ascii(each)
    assert not _WIDE.search("\u0301" * 30)


def test_ordinary_text_is_left_as_it_is_without_a_look_at_each_letter() -> None:
    text = "😀" * 1_000_000
    with at_most_cpu_s(0.1):
        assert normalised_text("NFC", text) == text


def test_letters_of_writing_with_few_spaces_make_no_wide_runs() -> None:
    for ends in [
        "กะ",
        "าำ",
        "เๆ",
        "कह",
        "\u0958\u0961",
        "ກຂ",
        "ວະ",
        "ເໄ",
        "ཀཇ",
        "ကဪ",
        "កឳ",
        "─▟",
        "ぁゖ",
        "ァヺ",
        "㐀鿿",
        "가힣",
    ]:
        assert not _WIDE.search(ends * 31), ends


def test_nothing_else_normalises() -> None:
    root = Path(firsthand.__file__).parent
    using = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(r"unicodedata\.(is_)?normalize|from unicodedata", path.read_text("utf-8"))
    ]
    assert using == ["system/normalised_text.py"]


def test_a_search_among_tools_takes_linear_time_for_descriptions_of_marks() -> None:
    spec = SimpleNamespace(description=f"ﬁnds mail {LONG}")
    tools: Any = {name: SimpleNamespace(spec=spec) for name in ("read_mail", "send_mail")}
    with at_most_cpu_s(0.5):
        assert ranked("read finds", tools, 1) == ["read_mail"]


def test_a_path_of_marks_is_judged_in_linear_time() -> None:
    case: Any = SimpleNamespace(whole={"path": LONG}, declares=SimpleNamespace(paths=("path",)))
    with at_most_cpu_s(0.5):
        assert path_inside(case) is None


@pytest.mark.parametrize("spec", ["normalised", "exact", "token_f1", "contains_words", "numeric", "boxed"])
def test_an_answer_of_marks_is_scored_in_linear_time(spec: str) -> None:
    scorer, trace = catalog.scorer(spec), SimpleNamespace(answer=f"The answer is 7 {LONG}", nodes=(), calls=())
    with at_most_cpu_s(1):
        scorer(Task("i", "q", secret={"answer": "7"}), trace)  # type: ignore[arg-type]


def test_marks_are_too_many_beyond_two_hundred_on_a_letter() -> None:
    for most in (
        "a" + "\u0301" * MAX_MARKS,
        "a" + "\uff9e" * MAX_MARKS,
        ("a" + "\u0301" * 150) * 9,
        "😀" * 900,
        "a" * 900,
    ):
        assert not has_long_marks(most) and parsable(most) == most
    for marks in ("\u0301", "\u0316", "\uff9e"):
        assert has_long_marks(f"x = 1\nbб{marks * (MAX_MARKS + 1)} = 2")
    assert has_long_marks("a" + "\u0f73" * (MAX_MARKS // 2 + 1)), "each is two marks"


def test_python_with_names_of_marks_is_no_python_to_any_parser_here() -> None:
    code = f"{LONG} = 1"
    with at_most_cpu_s(0.5):
        with pytest.raises(SyntaxError, match="combining marks"):
            parsable(code)
        assert not _parses(code) and not _is_python(code) and _python(code) is None
        with pytest.raises(PlanError, match="combining marks"):
            parse_plan(code[:20_001][-7_000:], ())


def test_a_template_with_names_of_marks_is_refused() -> None:
    with at_most_cpu_s(0.5), pytest.raises(TemplateError, match="combining marks"):
        SandboxedTemplate(f"{{% set {LONG} = 1 %}}")


def test_an_address_of_marks_is_no_address() -> None:
    host = f"http://{LONG}/"
    with at_most_cpu_s(0.5), pytest.raises(DownloadError, match="not a valid URL"):
        _joined("https://h.example/x", host)
    with at_most_cpu_s(0.5):
        links = "".join(f"<a href='http://a{number}{LONG[18_250:21_750]}/'>here</a>" for number in range(60))
        assert "http" not in to_text(links, "https://h.example/")
