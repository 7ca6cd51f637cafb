"""Writes minilm.json and minilm.npy: texts, and the vectors that sentence-transformers gives them.

python make_minilm.py FOLDER     # all-MiniLM-L6-v2, with sentence-transformers 6.2.0 and torch 2.13.0 on a CPU
"""

import json
import sys
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).parent
WORDS = (HERE / "dickens_1859.txt").read_text(encoding="utf-8").split()
TEXTS = [" ".join(WORDS[start : start + count]) for start, count in enumerate(range(1, 200, 8))] + [
    "", " ", "\n", "a", "!", "...", "I don't know.", "Not at all.", "Ünïcödé straße ẞ", "a\u0301e\u0301 combining",
    "漢字とかな", "మంచిది", "Привет, как дела?", "🙂🙃", "\u200b", "nul\0nul", "x" * 3000, "word " * 600,
    " ".join(WORDS[:900]),
]  # fmt: skip

if __name__ == "__main__":
    vectors = SentenceTransformer(sys.argv[1], device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.save(HERE / "minilm.npy", vectors.astype(np.float32))
    (HERE / "minilm.json").write_text(json.dumps(TEXTS, indent=0) + "\n")
