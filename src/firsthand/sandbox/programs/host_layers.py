"""Covers the host's folders with layers of the worker's own, then becomes the worker. Standard library only.

A layer is an overlay without a place to write to: the same files with inodes of their own. So a lock, a lease or a watch on
a file reaches neither the host nor another worker, and the list of mounts names no folder of the host. As root the devices
are made anew too. What a kernel does not allow stays as bubblewrap has mounted it, read-only.
"""

import ctypes
import os
import stat
import struct
import sys

RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, MOVE = 1, 2, 4, 8, 32, 4096, 8192
DETACH = 2
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
SPARE = "/tmp"
"""An empty folder where nothing is mounted yet."""

_libc = ctypes.CDLL(None, use_errno=True)


def main(settings: str, root: bool, places: list[str]) -> None:
    """Cover the places, and start the worker with its settings. Whatever is imported here delays every worker."""
    for place in places:
        try:  # noqa: SIM105
            cover(place)
        except OSError:  # it stays as it is
            pass
    for way in (make_devices, keep_devices) if root else (keep_devices,):
        try:
            way()
            break
        except OSError:
            continue
    if not root:  # nothing that comes later needs the capability to mount
        check(_libc.prctl(47, *map(ctypes.c_ulong, (4, 0, 0, 0))))  # no ambient capabilities
        check(_libc.capset(struct.pack("=II", 0x20080522, 0), bytes(24)))
    os.execv(sys.orig_argv[0], [*sys.orig_argv[: sys.orig_argv.index("/host_layers.py")], "/worker.py", settings])


def cover(place: str) -> None:
    """Mount a layer in place of a folder, unless other file systems are mounted inside it, which a layer would not show."""
    with open("/proc/self/mountinfo", "rb") as file:
        points = [line.split()[4].decode("unicode_escape").encode("latin-1") for line in file]
    if any(point.startswith(os.fsencode(place) + b"/") for point in points):
        return
    os.chdir(place)
    try:
        mount("layer", SPARE, "overlay", RDONLY | NOSUID | NODEV, f"lowerdir=.:{SPARE},redirect_dir=nofollow")
    finally:
        os.chdir("/")
    move(place)


def make_devices() -> None:
    """Mount devices that share no inode with the host's, and the same links."""
    links = {name: os.readlink(f"/dev/{name}") for name in os.listdir("/dev") if os.path.islink(f"/dev/{name}")}
    mount("tmpfs", SPARE, "tmpfs", NOSUID | NOEXEC, "mode=755")
    try:
        for name, numbers in DEVICES.items():
            os.mknod(f"{SPARE}/{name}", stat.S_IFCHR | 0o666, os.makedev(*numbers))
            os.chmod(f"{SPARE}/{name}", 0o666)
            os.close(os.open(f"{SPARE}/{name}", os.O_RDONLY))
        for name, target in links.items():
            os.symlink(target, f"{SPARE}/{name}")
        mount("tmpfs", SPARE, "tmpfs", RDONLY | NOSUID | NOEXEC | REMOUNT, "")
    except OSError:
        _libc.umount2(os.fsencode(SPARE), DETACH)
        raise
    move("/dev")


def keep_devices() -> None:
    """Remount the host's devices read-only: what is written to a device passes all the same, and its times cannot be set."""
    for name in DEVICES:
        mount("none", f"/dev/{name}", "", RDONLY | NOSUID | NOEXEC | REMOUNT | BIND, "")


def move(place: str) -> None:
    """Put the mount at the spare folder in place of another; beneath it, if the other cannot be taken away."""
    _libc.umount2(os.fsencode(place), DETACH)
    mount(SPARE, place, "", MOVE, "")


def mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    words = [os.fsencode(word) for word in (source, target, kind)]
    check(_libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(data)))


def check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "root", sys.argv[3:])
