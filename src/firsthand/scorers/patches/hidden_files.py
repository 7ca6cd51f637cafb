"""Takes the files of a test patch from the commit before anything else is applied, and puts them in place byte for byte.

git writes a file as the tree's `.gitattributes` and the configuration say: in another encoding, with other line ends, or
through a filter. So the files are read from the commit as it was, kept on our side, and written without git just before the
tests begin.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from firsthand.errors import DataError, SandboxError
from firsthand.sandbox.repository_workspace import Workplace
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.scorers.patches.patch import Change, read_patch

ARCHIVE = "hidden.tar.base64"
MAX_BYTES = 32 * 2**20
"""Size limit of the archive."""
_NO_TESTS = 97
_NOT_PLACED = 98


@dataclass(frozen=True)
class HiddenFiles:
    """The files that a test patch changes, as they are after it."""

    changes: tuple[Change, ...] = ()
    archive: str = ""
    """A tar file of them in base64; "" if the patch only deletes files."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the paths of the files, in order, each once."""
        return tuple(dict.fromkeys(change.after for change in self.changes if change.after))

    @property
    def placing(self) -> tuple[str, ...]:
        """Return the commands, run in the tree, that write the files; they end the script where that fails."""
        named = [path for change in self.changes for path in (change.before, change.after) if path]
        removed = f"rm -rf -- {_words(dict.fromkeys(named))}"
        if not self.paths:
            return (removed,)
        tar = "/tmp/work/hidden.tar"  # not in a pipe, of which `sh` tells the last command's status alone
        unpacked = f"base64 -d /tmp/work/{ARCHIVE} >{tar} && tar -xm --no-same-owner -f {tar} && rm {tar}"
        return removed, f"{{ {unpacked}; }} || exit {_NOT_PLACED}"

    @property
    def making_room(self) -> str:
        """Return the command that makes the folders of the files; it fails where something else has the name of one."""
        return f"mkdir -p -- {_words(dict.fromkeys(['.', *(str(PurePosixPath(path).parent) for path in self.paths)]))}"


async def take_hidden_files(place: Workplace, base_commit: str, test_patch: str, *, limits: RunLimits) -> HiddenFiles:
    """Return the files of the test patch, taken in a workplace that is as it was opened.

    DataError if the patch does not apply to the commit.
    """
    hidden = HiddenFiles(read_patch(test_patch))
    script = _TAKE.format(base=shlex.quote(place.base), commit=shlex.quote(base_commit), paths=_words(hidden.paths))
    bounds = replace(limits, output_bytes=MAX_BYTES)
    outcome = await place.shell(script, files={"test.patch": test_patch}, limits=bounds)
    said = outcome.stderr.strip()[:500]
    if outcome.exit_status == _NO_TESTS:
        raise DataError(f"the test patch does not apply to the commit: {said}")
    if outcome.ended == "output":
        raise DataError(f"the files of the test patch have more than {MAX_BYTES:,} bytes: leave large files out of it")
    if not outcome.ok:
        raise SandboxError(f"the hidden tests could not be read ({outcome.ended}): {said}")
    return replace(hidden, archive=outcome.stdout)


def _words(paths: Sequence[str] | dict[str, None]) -> str:
    return " ".join(shlex.quote(path) for path in paths)


_TAKE = f"""
export GIT_CONFIG_NOSYSTEM=1
tree() {{{{
  GIT_INDEX_FILE=/tmp/work/index GIT_OBJECT_DIRECTORY=/tmp/work/objects GIT_ALTERNATE_OBJECT_DIRECTORIES={{base}}/objects \\
    command git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c safe.directory='*' \\
    --git-dir={{base}} --work-tree=/tmp/work/hidden "$@"
}}}}
mkdir -p /tmp/work/objects /tmp/work/hidden && cd /tmp/work/hidden && tree read-tree {{commit}} || exit 1
tree apply --cached /tmp/work/test.patch || exit {_NO_TESTS}
set -- {{paths}}
[ $# -eq 0 ] && exit 0
tree checkout-index -q -f -- "$@" && tar -c -f /tmp/work/hidden.tar -- "$@" && base64 /tmp/work/hidden.tar
"""
"""Prints the files as the commit's own attributes have them, in an archive in base64."""
