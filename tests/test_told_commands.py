"""Commands that messages tell can be pasted into a shell, whatever a user's files are named."""

import re
import shlex
from pathlib import Path

import pytest

import firsthand
from firsthand import catalog
from firsthand.errors import StoreError, UnknownName
from firsthand.memories.keeping.cut_file import refuse_cut_short

SAFE = {
    "step.number", "needed.number", "made.id", "run.id", "run", "run_id", "run_a.id", "runs[0].id", "baseline.id",
    "trace.id",
    "entry.id", "claim.name", "found.run", "path.name", "prefix", "_MODEL",
    "models", "word",  # quoted above
    "base[:200]", "count", "model", "name",  # names of models, which are checked: no blanks and no signs of a shell
}  # fmt: skip
"""What a command may hold as it is: ids and names of ours."""


def test_what_a_told_command_names_is_quoted():
    """A new line here is a command with a path: put it in `shlex.quote`."""
    found = set()
    for path in Path(firsthand.__file__).parent.rglob("*.py"):
        text = path.read_text()
        commands = re.findall(r"`(?:firsthand|grep|ls|sqlite3) [^`\n]*`", text) + re.findall(
            r'see=f"((?!there are)[^"\n]*)"', text
        )
        commands += re.findall(r'[.:] (firsthand [^"`\n]*\{(?:\w+\.)*(?:path|folder|file)\}[^"`\n]*)",', text)
        held = {each for command in commands for each in re.findall(r"\{([^{}]+)\}", command)}
        found |= {f"{path.stem}: {each}" for each in held - SAFE if "shlex." not in each}
    assert not found


def words_of(raised):
    """The words of the command in a message, as a shell reads them."""
    return shlex.split(re.search(r"`([^`]+)`", str(raised.value))[1])


def test_a_file_or_index_with_blanks_and_quotes_in_its_name_is_one_word(tmp_path):
    odd = tmp_path / "my bench's $HOME.py"
    odd.write_text("x = 1\n")
    with pytest.raises(UnknownName) as raised:
        catalog.from_file("benchmark", str(odd))
    assert words_of(raised) == ["grep", "-n", "def ", str(odd)]
    cut = tmp_path / "my notes;x.db"
    cut.write_bytes(b"SQLite format 3\0" + b"\x10\0" + b"\1" * 10 + b"\0\0\0\x05" + b"\0" * 100)
    with pytest.raises(StoreError) as raised:
        refuse_cut_short(cut)
    assert words_of(raised) == ["firsthand", "memory", "export", str(cut), "--salvage"]
