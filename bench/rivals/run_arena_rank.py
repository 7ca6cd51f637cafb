"""arena-rank's ratings of a file of votes: `PYTHON run_arena_rank.py VOTES.npz RESULT.json`. Run by ../arena.py."""

import json
import sys
import time
from pathlib import Path

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
half = (np.asarray(found["rating_upper"]) - np.asarray(found["rating_lower"])) / 2
result = {
    "seconds": seconds,
    "ratings": dict(zip(found["competitors"], map(float, found["ratings"]), strict=True)),
    "half": dict(zip(found["competitors"], half.tolist(), strict=True)),
}
Path(sys.argv[2]).write_text(json.dumps(result))
