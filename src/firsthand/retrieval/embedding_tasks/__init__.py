"""Tasks about vectors: what MTEB's task types ask of an embedder, computed once for all attempts that share it."""
