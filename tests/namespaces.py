"""Whether this machine lets bubblewrap open namespaces, and mounts overlays: asked without any of our code."""

import shutil
import subprocess
import sys

_PROBE = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "true"]


def _why_not() -> str | None:
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    done = subprocess.run(_PROBE, capture_output=True, text=True)
    return None if done.returncode == 0 else f"bubblewrap cannot open namespaces here: {done.stderr.strip()}"


WHY_NOT = _why_not()

_OVERLAY = """
import ctypes, os, tempfile
libc = ctypes.CDLL(None, use_errno=True)
uid = os.getuid()
folder = tempfile.mkdtemp()
try:
    if libc.unshare(0x10000000 * (uid != 0) | 0x20000) == 0:
        maps = {"setgroups": "deny", "uid_map": f"1000 {uid} 1", "gid_map": f"1000 {os.getgid()} 1"}
        for name in maps if uid else ():
            open(f"/proc/self/{name}", "w").write(maps[name])
        libc.mount(b"none", b"/", None, 0x44000, None)
        if libc.mount(b"x", folder.encode(), b"overlay", 1, f"lowerdir=/usr:{folder}".encode()) == 0:
            libc.umount2(folder.encode(), 2)
            print("mounted")
finally:
    os.rmdir(folder)
"""


def _no_overlay() -> str | None:
    done = subprocess.run([sys.executable, "-c", _OVERLAY], capture_output=True, text=True)
    return None if done.stdout == "mounted\n" else f"no overlay can be mounted here: {done.stderr.strip()[-200:]}"


NO_OVERLAY = WHY_NOT or _no_overlay()
