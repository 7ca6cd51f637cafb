"""HTML's rules for where elements end: tags that close a paragraph, and end tags that reach no element further out.

After the parsing rules of the HTML standard, for start and end tags alone: what a browser hides stays hidden up to its end.
"""

from __future__ import annotations

import re

BLOCKS = re.compile(
    r"address|article|aside|blockquote|body|br|caption|center|dd|details|div|dl|dt|fieldset|figcaption|figure|footer|form|h[1-6]|"
    r"header|hr|html|legend|li|main|nav|ol|option|p|pre|section|summary|table|tbody|tfoot|thead|title|tr|ul"
)
"""Elements that stand on lines of their own."""
_ENDS_PARAGRAPH = re.compile(
    r"address|article|aside|blockquote|center|dd|details|dialog|dir|div|dl|dt|fieldset|figcaption|figure|footer|form|h[1-6]|"
    r"header|hgroup|hr|li|listing|main|menu|nav|ol|p|plaintext|pre|search|section|summary|table|ul|xmp"
)
_ENDED_BY = {
    "li": ("li",), "dt": ("dt", "dd"), "dd": ("dt", "dd"), "option": ("option",), "optgroup": ("option", "optgroup"),
    "rt": ("rt", "rp"), "rp": ("rt", "rp"),
}  # fmt: skip
"""Elements whose end tag may be missing, by the one that begins behind them."""
END_ALONE = ("dd", "dt", "li", "optgroup", "option", "p")
PARTS_ENDED_BY = {
    **dict.fromkeys(("td", "th"), ("td", "th", "caption")), "tr": ("td", "th", "tr", "caption"),
    **dict.fromkeys(("thead", "tbody", "tfoot"), ("td", "th", "tr", "thead", "tbody", "tfoot", "caption")),
}  # fmt: skip
"""Parts of a table that end, with all that is open in them, where another part of that table begins."""
_SPECIAL = re.compile("applet|button|dir|hgroup|listing|marquee|menu|search|select|textarea|xmp")
"""Elements that the end tag of an inline element does not close, beside the blocks."""
_SCOPES = re.compile("applet|marquee|template|textarea")
_OTHER_SCOPES = {"p": ("button",), "li": ("ol", "ul")}
TABLE = re.compile("caption|table|tbody|td|tfoot|th|thead|tr")


def ended_by(name: str, *, in_quirks_mode: bool) -> tuple[str, ...]:
    """Names of the elements that end where this one begins; in quirks mode a table may stand in a paragraph."""
    ends_paragraph = _ENDS_PARAGRAPH.fullmatch(name) and not (in_quirks_mode and name == "table")
    return (*_ENDED_BY.get(name, ()), *(("p",) if ends_paragraph else ()))


def is_beyond(name: str, within: str) -> bool:
    """True if an end tag of this name in an open element does not reach one that was opened outside of it."""
    if name == "template" or (name == "datalist" and within == "option"):
        return False
    if TABLE.fullmatch(name):
        return within == "template"
    if TABLE.fullmatch(within) or _SCOPES.fullmatch(within) or within in _OTHER_SCOPES.get(name, ()):
        return True
    return not BLOCKS.fullmatch(name) and bool(BLOCKS.fullmatch(within) or _SPECIAL.fullmatch(within))
