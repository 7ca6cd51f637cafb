"""arena-rank's ratings of a file of votes: `PYTHON run_arena_rank.py VOTES.npz RESULT.json [exact]`. Run by ../arena.py.

With "exact", "optimum" holds its ratings after its optimiser has run to the end.
"""

import json
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
from arena_rank.models.bradley_terry import BradleyTerry
from arena_rank.utils.data_utils import PairDataset

votes = np.load(sys.argv[1])
frame = pd.DataFrame({name: votes[name].astype(object) for name in ("model_a", "model_b", "winner")})
seconds = []
for _ in range(2):  # the second is without compilation
    start = time.process_time()
    dataset = PairDataset.from_pandas(frame)
    model = BradleyTerry(n_competitors=len(dataset.competitors))
    found = model.compute_ratings_and_cis(dataset, significance_level=0.05)
    seconds.append(time.process_time() - start)


def told(fitted: BradleyTerry, result: dict) -> dict:
    """Ratings and half-widths by name, and the mean loss per vote."""
    half = (np.asarray(result["rating_upper"]) - np.asarray(result["rating_lower"])) / 2
    data = {name: jnp.asarray(value) for name, value in dataset.as_dict().items()}
    return {
        "ratings": dict(zip(result["competitors"], map(float, result["ratings"]), strict=True)),
        "half": dict(zip(result["competitors"], half.tolist(), strict=True)),
        "loss": float(fitted.loss_function(fitted.params, data)),
    }


result = {"seconds": seconds, **told(model, found)}
if "exact" in sys.argv:
    exact = BradleyTerry(n_competitors=len(dataset.competitors), ftol=0, gtol=1e-15, max_iter=5000)
    result["optimum"] = told(exact, exact.compute_ratings_and_cis(dataset, significance_level=0.05))
Path(sys.argv[2]).write_text(json.dumps(result))
