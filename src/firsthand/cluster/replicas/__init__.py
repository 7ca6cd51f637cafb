"""One model in several processes, here or on a Ray cluster, as one model: routing, replacing, going on after a loss."""
