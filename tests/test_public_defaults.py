"""A default or limit that changes silently changes results: each is written down once more, beside the tests."""

from __future__ import annotations

import ast
from pathlib import Path

from public_defaults import is_plain, named, public_defaults

KEPT = Path(__file__).parent / "data" / "public_defaults.txt"


def test_no_public_default_or_limit_changed_unless_it_is_written_down() -> None:
    kept = dict(line.split(" = ", 1) for line in KEPT.read_text(encoding="utf-8").splitlines())
    now = public_defaults()
    changed = {name: (value, now[name]) for name, value in kept.items() if name in now and now[name] != value}
    assert not changed, "run `python tests/public_defaults.py > tests/data/public_defaults.txt` if this is meant"
    assert len(kept.keys() & now.keys()) > 0.9 * len(kept)


def test_defaults_of_functions_settings_and_limits_are_found() -> None:
    source = (
        "MAX_A = 2**20\n_B = 1\nc = 2\ndef f(a, b=1, /, *, d=-0.5, e, g='x'): ...\ndef _g(a=1): ...\n"
        "class S:\n    size: int = 3\n    on = True\n    def m(self, deep=4): ...\n"
    )
    found = {name: ast.unparse(value) for name, value in named(ast.parse(source).body) if is_plain(value)}
    assert found == {
        "MAX_A": "2 ** 20",
        "f(b)": "1",
        "f(d)": "-0.5",
        "S.size": "3",
        "S.on": "True",
        "S.m(deep)": "4",
    } | {"_B": "1", "_g(a)": "1"}
