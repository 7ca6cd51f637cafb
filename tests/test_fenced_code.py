"""Fenced code in what a model wrote is found in one place."""

import pytest

from firsthand.patterns.code_act import parse_code
from firsthand.patterns.parts.fenced_code import CodeBlock, fenced_code, first_action, later_actions, prose_of
from firsthand.patterns.parts.self_tests import code_in
from firsthand.scorers.code import answered_code


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("no code", []),
        ("```python\nx = 1\n```", [("python", "x = 1\n", True)]),
        ("a\n```\nx\n```\nb\n```Py title=t\ny\n``` c", [("", "x\n", True), ("py", "y\n", True)]),
        ("```python\ncut off", [("python", "cut off", False)]),
        ("```\n```", [("", "", True)]),
        ("inline ```x``` and\n```x``` there", []),
        (
            "1. So:\n   ```python\n   def f():\n       return 1\n\n   ```\n2.",
            [("python", "def f():\n    return 1\n\n", True)],
        ),
        ("~~~python\nx = '''\n```\n'''\n~~~", [("python", "x = '''\n```\n'''\n", True)]),
        ("````\n```\nx\n```\n````", [("", "```\nx\n```\n", True)]),
        (
            '```python\n"""\n    ```\n    f()\n    ```\n"""\n```',
            [("python", '"""\n    ```\n    f()\n    ```\n"""\n', True)],
        ),
        ("```python\nx = 1\n   ```\ny", [("python", "x = 1\n", True)]),
        ("  ```py\n\tx\n y\nz\n     ```\n", [("py", "x\ny\nz\n", True)]),
        ("```python\nx = 1\n```python\n```", [("python", "x = 1\n```python\n", True)]),
        ("```python\r\nx = 1\r\n```\r\n", [("python", "x = 1\r\n", True)]),
        ("```py\nx\n`````\ny", [("py", "x\n", True)]),
        ("x\n```", []),
    ],
)
def test_blocks_have_their_language_their_code_and_their_end(text: str, blocks: list[tuple[str, str, bool]]) -> None:
    assert [(each.language, each.code, each.is_closed) for each in fenced_code(text)] == blocks
    assert all(text[each.start :].lstrip().startswith(("```", "~~~")) for each in fenced_code(text))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Thought\n```python\nprint(1)\n```", CodeBlock("python", "print(1)", 8, True)),
        ("  ```\nprint(1)\n  ```", CodeBlock("python", "print(1)", 0, True)),
        ("<execute>print(1)</execute>", CodeBlock("python", "print(1)", 0, True)),
        ("```python\nprint(1)", CodeBlock("python", "", 0, False)),
        ("print(1)", None),
    ],
)
def test_an_action_may_be_indented_or_between_tags_and_must_be_closed(text: str, found: CodeBlock | None) -> None:
    assert first_action(text) == found
    assert parse_code(text) == (None if found is None else found.code, None)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("```python\na\n```", 0),
        ("```python\na\n```\n```py\nb\n```\nand\n```Python3\nc\n```", 2),
        ("```python\na\n```\nIt prints\n```\n5\n```", 0),
        ("```\na\n```\n```\nb\n```", 1),
        ("```python\na\n```\n```json\n{}\n```\n```python\ncut off", 0),
        ("```sh\na\n```\n```python\nb\n```\n```python\nc\n```", 1),
        ("```python\n'<execute>b</execute>'\n```", 0),
        ("<execute>a</execute> <EXECUTE>b</execute>\n<execute>b</execute>\n<execute>c", 1),
        ("<execute>\n```python\na\n```\n</execute>", 0),
        ("<execute>a</execute>\n```python\nb\n```\n```\nc\n```", 1),
        ("```python\na\n```\n<execute>b</execute>", 1),
    ],
)
def test_blocks_behind_the_first_action_are_counted(text: str, count: int) -> None:
    first = first_action(text)
    assert first is not None and later_actions(text, first) == count


def test_scorer_and_self_tests_read_the_same_block() -> None:
    text = "Draft:\n```python\ndef f(): return 1\n```\nUse it:\n```python title=demo\nf()\n```"
    assert code_in(text, "f") == "def f(): return 1" == answered_code(text, entry_point="f").rstrip()


def test_the_prose_of_a_text_is_what_stands_around_and_behind_its_blocks() -> None:
    assert prose_of("Hi\n```py\na\n```\nthere\n```\nb\n```\nend") == "Hi\nthere\nend"
    assert prose_of("Hi\n```py\nnot closed") == "Hi\n" and prose_of("no code") == "no code"
