"""Whether this machine lets bubblewrap open namespaces at all: asked with bubblewrap alone, none of our code."""

import shutil
import subprocess

_PROBE = ["bwrap", "--unshare-user", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/", "true"]


def _why_not() -> str | None:
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    done = subprocess.run(_PROBE, capture_output=True, text=True)
    return None if done.returncode == 0 else f"bubblewrap cannot open namespaces here: {done.stderr.strip()}"


WHY_NOT = _why_not()
