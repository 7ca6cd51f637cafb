"""Applies a patch in a workplace, and finds in the tree what it changed and what of that decides how the tests run.

Two programs that read a patch may take different file names from it. So the names come from git's raw diff of the working
copy, before and after, with an index, objects and attributes that the patch cannot reach. Where git does not take a patch,
`patch` gets it written anew from what we parsed, in a folder that holds the named files alone.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from firsthand.errors import DataError, SandboxError
from firsthand.sandbox.repository_workspace import ROOT, Workplace
from firsthand.sandbox.sandbox import Outcome
from firsthand.sandbox.sandbox_limits import RunLimits
from firsthand.scorers.patches.hidden_files import HiddenFiles, take_hidden_files
from firsthand.scorers.patches.patch import Change, read_patch, rewritten, touched

MACHINERY = ("conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "setup.cfg",
             "pyproject.toml", "runtests.py", "noxfile.py", "entry_points.txt", ".gitattributes")  # fmt: skip
"""Files that decide how tests run. A patch that changes one is scored like any other; the score's detail names it."""
RUNNERS = frozenset(("unittest", "pytest", "_pytest", "py", "pluggy", "iniconfig", "sitecustomize", "usercustomize"))
"""Modules and packages that run tests, or that Python imports before them."""
TEST_FOLDERS = ("test", "tests", "testing")
_TEST_FILE = re.compile(r"test_.*\.py|.*_tests?\.py")
_IMPORTED = (".py", ".pyc", ".pyd", ".so")
_NO_PATCH, _IN_THE_WAY, _NO_FILES = 95, 96, 94
_READY = "ready"
_FILE_MODES = (b"000000", b"100644", b"100755")


class PatchRefused(DataError):
    """The patch does not apply, or blocks the hidden tests."""


@dataclass(frozen=True)
class AppliedPatch:
    """A patch in the tree."""

    how: str
    """`git apply`, or the laxer command that accepted the patch where git did not."""
    changes: tuple[Change, ...] = ()
    """Changes of the tree; a moved file is one that is deleted and one that is made."""
    machinery: tuple[str, ...] = ()
    """Changed files that decide how the tests run, those included that were removed again."""
    hidden: HiddenFiles = field(default_factory=HiddenFiles)
    """Files of the hidden tests, to be put in place when these begin."""


@dataclass(frozen=True)
class Intrusions:
    """Files of a patch that Python or a runner would take in place of what the tests need."""

    hiding: tuple[str, ...]
    """New files that would be imported in place of a hidden test, or of what runs it."""
    packages: tuple[str, ...]
    """New `__init__` files of folders on the way to a hidden test."""
    machinery: tuple[str, ...]
    """All files that decide how the tests run, helpers and data in the folder of a hidden test among them."""


async def apply_patch(
    place: Workplace, patch: str, *, base_commit: str, test_patch: str, reference: str = "", command: str = "",
    limits: RunLimits,
) -> AppliedPatch:  # fmt: skip
    """Apply the patch (none if empty), remove what hides the hidden tests or is replaced by them, and check these.

    PatchRefused if the patch does not apply; DataError if the test patch does not apply even to the commit itself.
    """
    hidden = await take_hidden_files(place, base_commit, test_patch, limits=limits)
    how, changes, found = "", tuple[Change, ...](), Intrusions((), (), ())
    if patch:
        script = _APPLY.format(root=ROOT, base=shlex.quote(place.base))
        names = "".join(f"{path}\n" for path in touched(patch))
        files = {"model.patch": patch, "plain.patch": rewritten(patch), "named": names}
        how, changes = _told(await place.shell(script, files=files, limits=limits))
        found = intrusions(changes, hidden.changes, made_by(reference), command)
    script = _room(base_commit, hidden, found, keep_new_folders=not reference)
    outcome = await place.shell(script, limits=limits)
    if not outcome.ok:
        raise _failure(outcome)
    return AppliedPatch(how, changes, found.machinery, hidden)


def made_by(reference: str) -> frozenset[str]:
    """Return the files that the reference patch makes; none without one."""
    changes = read_patch(reference) if reference else ()
    return frozenset(change.after for change in changes if change.before is None and change.after)


def intrusions(
    changes: Sequence[Change], test_changes: Sequence[Change], expected: Iterable[str] = (), command: str = ""
) -> Intrusions:
    """Sort out the files of a patch that change how the hidden tests run; a file of `expected` may be made."""
    hidden = {PurePosixPath(change.after) for change in test_changes if change.after and change.after.endswith(".py")}
    files = {path.with_suffix("") for path in hidden}
    folders = {folder for path in hidden for folder in path.parents}
    words = {word.removeprefix("./") for word in command.split()}
    root = PurePosixPath()
    run_from = folders | {root} | {PurePosixPath(word).parent for word in words}

    def module(path: PurePosixPath) -> PurePosixPath:
        """Return the module, without a suffix; a package's `__init__` stands for its folder."""
        return path.parent if path.name.partition(".")[0] == "__init__" else path.with_name(path.name.partition(".")[0])

    given = {PurePosixPath(change.path) for change in test_changes}
    rooms = {room for path in given if (room := _tests_folder(path))}

    def helps(change: Change) -> bool:
        """True for what is changed in the folder of hidden tests, and for a module that is made there and is no test."""
        path = PurePosixPath(change.path)
        is_test, beside = _TEST_FILE.fullmatch(path.name) is not None, path.parent in {each.parent for each in hidden}
        if path in given or not (rooms & {*path.parents} or (is_test and beside)):
            return False
        return change.before is not None or (path in importable and not is_test)

    def hides(path: PurePosixPath) -> bool:
        whole = module(path)
        if whole.name in RUNNERS and whole.parent in run_from:
            return True
        if whole.parent == root and whole.name in sys.stdlib_module_names:
            return True
        return whole in (files if path.name.startswith("__init__.") else files | folders)

    new, changed = [change.after for change in changes if change.before is None], [change.path for change in changes]
    importable = [
        path for path in map(PurePosixPath, changed)
        if path.suffix in _IMPORTED and path.name.partition(".")[0] and path not in hidden
    ]  # fmt: skip
    hiding = [str(path) for path in importable if hides(path)]
    inits = [str(path) for path in importable if path.name.startswith("__init__.") and path.parent in folders - {root}]
    runners = {str(path) for path in importable if module(path).name in RUNNERS}
    named = runners | {*hiding, *inits} | {path for path in changed if PurePosixPath(path).name in MACHINERY}
    named |= {change.path for change in changes if helps(change)}
    named |= {path for path in changed if path in words and PurePosixPath(path) not in hidden}
    made = {path for path in new if path} - set(expected)
    return Intrusions(
        tuple(path for path in hiding if path in made),
        tuple(path for path in inits if path in made and path not in hiding),
        tuple(path for path in changed if path in named),
    )


def _tests_folder(path: PurePosixPath) -> PurePosixPath | None:
    """Return the uppermost folder of a file that is named for tests, if one is."""
    return next((folder for folder in reversed(path.parents) if folder.name in TEST_FOLDERS), None)


_RAW = "* -text -ident !eol !filter !working-tree-encoding"
"""Attributes with which git reads files as they are; those in a git folder's `info` count before those of the tree."""
_APPLY = f"""
export GIT_CONFIG_NOSYSTEM=1
git() {{{{ command git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c safe.directory='*' "$@"; }}}}
tree() {{{{
  GIT_INDEX_FILE=/tmp/work/index GIT_OBJECT_DIRECTORY=/tmp/work/objects GIT_ALTERNATE_OBJECT_DIRECTORIES={{base}}/objects \\
    git --git-dir=/tmp/work/git --work-tree={{root}} "$@"
}}}}
others() {{{{ tree ls-files -z --others >/tmp/work/listed && LC_ALL=C sort -z /tmp/work/listed >"$1"; }}}}
lax() {{{{
  command -v patch >/dev/null && mkdir /tmp/work/patched || return 1
  top=$(pwd -P)
  while IFS= read -r path; do
    [ "$(readlink -m -- "$path")" = "$top/$path" ] || return 1
    [ -f "$path" ] || continue
    mkdir -p -- "/tmp/work/patched/$(dirname -- "$path")" && cp -p -- "$path" "/tmp/work/patched/$path" || return 1
  done </tmp/work/named
  patch -d /tmp/work/patched --batch --fuzz=5 -u -p1 --no-backup-if-mismatch -r - -i /tmp/work/plain.patch || return 1
  while IFS= read -r path; do
    rm -f -- "$path" || return 1
    [ -f "/tmp/work/patched/$path" ] || continue
    mkdir -p -- "$(dirname -- "$path")" && cp -p -- "/tmp/work/patched/$path" "$path" || return 1
  done </tmp/work/named
}}}}
cd {{root}} && mkdir -p /tmp/work/objects /tmp/work/git/info /tmp/work/git/objects /tmp/work/git/refs || exit 1
head=$(git --git-dir={{base}} rev-parse --verify HEAD) && printf '%s\\n' "$head" >/tmp/work/git/HEAD || exit 1
cp {{base}}/config /tmp/work/git/config && printf '%s\\n' '{_RAW}' >/tmp/work/git/info/attributes || exit 1
cp {{base}}/index /tmp/work/index 2>/dev/null || cp .git/index /tmp/work/index 2>/dev/null ||
  tree read-tree "$head" || exit 1
tree add -A . && before=$(tree write-tree) && others /tmp/work/before || exit 1
echo {_READY}
if git apply /tmp/work/model.patch 2>/tmp/work/said; then echo 'git apply'
elif lax >/dev/null 2>&1; then echo 'patch --fuzz=5'
else head -c 2000 /tmp/work/said >&2; exit {_NO_PATCH}
fi
tree add -u . && others /tmp/work/after && LC_ALL=C comm -z -13 /tmp/work/before /tmp/work/after >/tmp/work/new || exit 1
tree update-index --add -z --stdin </tmp/work/new || exit {_NO_FILES}
tree diff-index --cached --raw -z --no-renames --abbrev=40 "$before" >/tmp/work/changed || exit 1
[ "$(wc -c </tmp/work/changed)" -lt 500000 ] || {{{{ echo 'it changes too many files' >&2; exit {_NO_FILES}; }}}}
base64 </tmp/work/changed
"""
"""Prints `ready` when the patch is next, the command that accepted it, and git's raw diff of the tree in base64."""


def _told(outcome: Outcome) -> tuple[str, tuple[Change, ...]]:
    """Return how a patch was applied and its changes; PatchRefused if one is no change of an ordinary file."""
    if not outcome.ok:
        raise _failure(outcome)
    how, _, encoded = outcome.stdout.removeprefix(_READY).strip().partition("\n")
    try:
        fields = base64.b64decode(encoded).split(b"\0")[:-1]
    except binascii.Error:
        raise SandboxError(f"the changes of the patch could not be listed: {encoded[:100]!r} is no base64") from None
    changes = []
    for told, name in zip(fields[::2], fields[1::2], strict=True):
        before, after = told[1:].split()[:2]
        path = os.fsdecode(name)
        if after not in _FILE_MODES:
            raise PatchRefused(f"the patch makes {path[:80]!r}, which is no ordinary file: only such may be changed")
        changes.append(Change(None if before == b"000000" else path, None if after == b"000000" else path))
    return how.strip(), tuple(changes)


def _room(base_commit: str, hidden: HiddenFiles, found: Intrusions, *, keep_new_folders: bool) -> str:
    """Return the script that makes room for the hidden tests. With `keep_new_folders`, new packages stay in new folders.

    Old test files are set back for the record's own script; git may write them in another way (`hidden_files.py`).
    """
    new = [shlex.quote(change.after) for change in hidden.changes if change.before is None and change.after]
    old = [shlex.quote(change.before) for change in hidden.changes if change.before is not None]
    removed = [f"rm -f -- {shlex.quote(path)}" for path in found.hiding]
    for path in found.packages:
        folder = shlex.quote(f"{base_commit}:{PurePosixPath(path).parent}")
        known = f"git cat-file -e {folder} 2>/dev/null && " if keep_new_folders else ""
        removed.append(f"{known}rm -f -- {shlex.quote(path)}")
    room = "\n".join(
        [
            *removed,
            *(f"rm -rf -- {path}" for path in new),
            *([f"git checkout -q {shlex.quote(base_commit)} -- {' '.join(old)}"] if old else []),
        ]
    )
    return f"""
export GIT_CONFIG_NOSYSTEM=1
git() {{ command git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c safe.directory='*' "$@"; }}
cd {ROOT} || exit 1
{room}
{hidden.making_room} || exit {_IN_THE_WAY}
"""


def _failure(outcome: Outcome) -> DataError | SandboxError:
    """Return the error for a command that failed: PatchRefused from the moment on when the patch is next."""
    said = outcome.stderr.strip()[:500]
    if outcome.exit_status == _NO_PATCH:
        return PatchRefused(f"the patch does not apply: {said}")
    if outcome.exit_status == _NO_FILES:
        return PatchRefused(f"the patch changes more than ordinary files: {said}")
    if outcome.exit_status == _IN_THE_WAY:
        return PatchRefused(f"the patch conflicts with the tests: {said}")
    if outcome.stdout.startswith(_READY):
        return PatchRefused(f"the patch was not applied to its end ({outcome.ended}): {said}")
    return SandboxError(f"the patch could not be applied ({outcome.ended}): {said}")
