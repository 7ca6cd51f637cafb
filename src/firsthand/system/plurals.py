"""Writes a number and its noun, which agree: `1 task`, `2 tasks`."""

from __future__ import annotations


def count_of(number: int, noun: str, form: str = "") -> str:
    """The number, by the format spec `form`, and the noun in the singular or, by adding an s, in the plural."""
    return f"{number:{form}} {noun}" if number == 1 else f"{number:{form}} {noun}s"
