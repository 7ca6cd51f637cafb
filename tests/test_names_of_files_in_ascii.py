"""File names that an encoding other than UTF-8 cannot write are told as such, and not as faults of a file's content."""

import os
import subprocess
import sys

import pytest

from firsthand.errors import reason_of

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
REASON = "its name cannot be written in ascii, the encoding of file names here: set PYTHONUTF8=1"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "arithmetic", "--model", "scripted:s é.json"], "the script 's \\xe9.json' cannot be read ("),
        (["memory", "list", "b é.db"], "the file 'b \\xe9.db' cannot be opened: "),
        (["run", "--config=b é.toml"], "the file 'b \\xe9.toml' cannot be opened: "),
    ],
)  # fmt: skip
def test_a_name_that_ascii_cannot_write_is_told(words, told, tmp_path):
    for name in ("s é.json", "b é.db", "b é.toml"):
        (tmp_path / name).write_text('["yes"]')
    environment = os.environ | ASCII | {"FIRSTHAND_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "firsthand", *words], capture_output=True, cwd=tmp_path, env=environment, timeout=60
    )
    assert done.returncode == 2 and done.stderr.decode("ascii").startswith(f"firsthand: {told}{REASON}"), done.stderr


def test_a_text_that_utf_8_cannot_write_is_no_file_name():
    with pytest.raises(UnicodeEncodeError) as raised:
        "\ud800".encode()
    assert reason_of(raised.value).endswith("surrogates not allowed")
    with pytest.raises(UnicodeEncodeError) as raised:
        "é".encode("ascii")
    assert "ordinal not in range" in reason_of(raised.value)
