"""Normalises how mathematical answers are written before they are parsed: Unicode, LaTeX spacing, delimiters, wrappers."""

from __future__ import annotations

import re

from firsthand.system.normalised_text import normalised_text

MAX_CHARS = 500

_SYMBOLS = {
    "−": "-", "‐": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "➖": "-",
    "×": "*", "·": "*", "⋅": "*", "∙": "*", "÷": "/", "⁄": "/", "≤": "\\le ", "≥": "\\ge ",
    "≠": "\\ne ", "≈": "\\approx ", "∪": "\\cup ", "∩": "\\cap ", "∅": "\\emptyset ", "°": "\\degree ", "±": "\\pm ",
    "∓": "\\mp ", "∈": "\\in ", "∞": "\\infty ", "π": "\\pi ", "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ",
    "γ": "\\gamma ", "λ": "\\lambda ", "μ": "\\mu ", "ω": "\\omega ", "φ": "\\phi ", "∠": "\\angle ",
    "€": "\\euro ", "£": "\\sterling ", "∖": "\\setminus ", "“": "", "”": "",
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_REPLACED = (
    ("\\left.", ""), ("\\right.", ""), ("\\left", ""), ("\\right", ""), ("\\!", ""), ("\\;", " "), ("\\:", " "),
    ("\\ ", " "), ("~", " "), ("\\qquad", " "), ("\\quad", " "), ("\\displaystyle", ""), ("\\limits", ""),
    ("dfrac", "frac"), ("tfrac", "frac"), ("cfrac", "frac"), ("dbinom", "binom"), ("tbinom", "binom"),
    ("{,}", ""), ("\\lbrace", "\\{"), ("\\rbrace", "\\}"), ("\\lvert", "|"), ("\\rvert", "|"), ("\\vert", "|"),
    ("\\leqslant", "\\le "), ("\\geqslant", "\\ge "), ("\\leq", "\\le "), ("\\geq", "\\ge "), ("\\neq", "\\ne "),
    ("<=", "\\le "), (">=", "\\ge "), ("\\lt ", "<"), ("\\gt ", ">"), ("\\varnothing", "\\emptyset "),
    ("\\{\\}", "\\emptyset "), ("\\(", ""), ("\\)", ""), ("\\[", ""), ("\\]", ""), ("\\backslash", "\\setminus "),
    ("\\cdot", "*"), ("\\times", "*"), ("\\ast", "*"), ("\\div", "/"),
)  # fmt: skip
_BIG = re.compile(r"\\[bB]igg?[lrm]?(?![A-Za-z])")
_BOX = re.compile(r"\s*\\(?:boxed|fbox)\s*\{(.*)\}\s*", re.DOTALL)
_BOXES = re.compile(r"\\(?:mathbf|boldsymbol|bm|underline)\s*\{([^{}]*)\}")
_UPRIGHT = re.compile(
    r"\\(?:mathrm|operatorname|rm|mathit)\s*\{\s*([A-Za-z]|sin|cos|tan|ln|log|arcsin|arccos|arctan)\s*\}"
)
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mathrm|mbox|hbox|operatorname|rm)\s*\{([^{}]*)\}")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))")
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_VULGAR = re.compile(r"(?<=\d)\s*(?=[¼-¾⅐-⅞])")


def plain(text: str) -> str:
    """Return the answer in ASCII LaTeX without delimiters, sizes and thin spaces; `\\text{...}` stays, in one form."""
    text = _unicode(text.strip()).strip()
    text = text.replace("\\$", " \\dollar ").replace("$", "").replace("\\%", "%").strip()
    text = _BOX.sub(r"\1", text)
    text = re.sub(r",\\!\s*(?=\d{3})", "", text)
    text = re.sub(r"(?<=\d)\\,(?=\d{3}(?!\d))", "", text).replace("\\,", " ")
    text = re.sub(r"(?<!\\)\\\\(?=\\end|\s*$)", "", text) if "\\end" not in text else text
    text = _BIG.sub("", text)
    # A doubled backslash ends a matrix row, so `\\ ` and `\\[` of a row are not a space or a delimiter.
    rows = text.split("\\\\")
    for old, new in _REPLACED:
        rows = [row.replace(old, new) for row in rows]
    text = _DEGREES.sub(r"\\degree ", "\\\\".join(rows))
    text = _BOXES.sub(r"\1", _UPRIGHT.sub(r" \1 ", text))
    text = _TEXT.sub(_wrapped, text)
    text = re.sub(
        r"^(?:\\text\{)?the (?:final )?answer is:?\}?", "", " ".join(text.split()), flags=re.IGNORECASE
    ).strip()
    return text if text.endswith("..") else text.removesuffix(".").strip()


def text_key(text: str) -> str:
    """Return a text in lower case, without wrappers, for comparing what is not read."""
    return spaceless(" ".join(_TEXT.sub(r" \1 ", plain(text)).casefold().split())).rstrip(".")


def spaceless(text: str) -> str:
    """Return the text without spaces, save between two digits or letters."""
    return re.sub(r"(?<!\w) | (?!\w)", "", text)


def _unicode(text: str) -> str:
    if text.isascii():
        return text
    text = _RAISED.sub(lambda found: f"^{{{found.group().translate(_SUPERSCRIPTS)}}}", text)
    text = re.sub(r"√\s*(\d+(?:\.\d+)?|[A-Za-z])", r"\\sqrt{\1}", text).replace("√", "\\sqrt ")
    text = normalised_text("NFKC", _VULGAR.sub(" ", text.replace("ℝ", "\\mathbb{R}")))  # which makes ℝ an R
    return "".join(_SYMBOLS.get(sign, sign) for sign in text)


def _wrapped(found: re.Match[str]) -> str:
    """Return wrapped mathematics without its wrapper and words in `\\text{...}`, trimmed."""
    content = found.group(1).strip()
    if not content.strip(" .") or re.search(r"[\d\\]", content):
        return f" {content.strip('.')} "
    return f"\\text{{{content}}}"
