"""Lays out `--help`: on a terminal, the lines of a description are folded at words; examples stay whole to be copied."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap

EXAMPLES = "examples:\n"
"""The beginning of a text that is left as it is."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a description, and folds those that are longer than the terminal is wide."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(EXAMPLES) or not sys.stdout.isatty():
            return super()._fill_text(text, width, indent)
        return "\n".join(_folded(indent + line, width) for line in text.splitlines())


def _folded(line: str, width: int) -> str:
    """A line in pieces of at most `width`; what follows a name and two blanks goes on below its beginning."""
    if len(line) <= width:
        return line
    beginning = re.match(r" *(\S+ {2,})?", line)
    assert beginning is not None
    hanging = " " * min(beginning.end(), width // 2)
    words = line.lstrip(" ")
    return textwrap.fill(
        words, width, initial_indent=line[: len(line) - len(words)], subsequent_indent=hanging,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
