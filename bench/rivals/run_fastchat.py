"""FastChat's ratings of votes with 100 bootstraps: `PYTHON run_fastchat.py RATING_SYSTEMS.py VOTES.npz RESULT.json`.

RATING_SYSTEMS.py is fastchat/serve/monitor/rating_systems.py of lm-sys/FastChat: the package on PyPI is older than
it. Run by ../arena.py.
"""

import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd


def spent() -> float:
    """Processor seconds of this process and of the workers it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    sys.path.insert(0, str(Path(sys.argv[1]).parent))  # its workers unpickle functions of the module by name
    rating_systems = importlib.import_module("rating_systems")
    votes = np.load(sys.argv[2])
    frame = pd.DataFrame({name: votes[name].astype(object) for name in ("model_a", "model_b", "winner")})
    start = spent()
    ratings = rating_systems.compute_bt(frame)
    once = spent() - start
    boots = rating_systems.compute_bootstrap_bt(frame, 100, num_cpu=1)
    low, high = boots.quantile(0.025), boots.quantile(0.975)
    result = {
        "seconds": [spent() - start, once],
        "ratings": ratings.to_dict(),
        "half": ((high - low) / 2).to_dict(),
    }
    Path(sys.argv[3]).write_text(json.dumps(result))
