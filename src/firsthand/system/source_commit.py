"""Finds the git commit that this package is run from, where it is run from a checkout."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path


@cache
def source_commit() -> str:
    """The commit of the checkout that holds this package, 40 hex digits; empty for an installed one. Reads files only."""
    root = Path(__file__).resolve().parents[3]
    is_checkout = (root / "src" / "firsthand").resolve() == Path(__file__).resolve().parents[1]
    return commit_of(root) if is_checkout else ""


def commit_of(checkout: Path) -> str:
    """The commit that a checkout or worktree is at; empty if its files do not tell."""
    git = checkout / ".git"
    try:
        if git.is_file():  # a worktree names its own folder
            git = (checkout / git.read_text(encoding="utf-8").partition("gitdir:")[2].strip()).resolve()
        return _commit(git, (git / "HEAD").read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return ""


def _commit(git: Path, head: str) -> str:
    """The commit that HEAD is, or that its branch is at."""
    if not head.startswith("ref: "):
        return head if re.fullmatch("[0-9a-f]{40,64}", head) else ""
    name = head.removeprefix("ref: ")
    common = git / "commondir"
    shared = (git / common.read_text(encoding="utf-8").strip()).resolve() if common.is_file() else git
    for folder in (git, shared):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8").strip()
    packed = shared / "packed-refs"
    lines = packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), "")
