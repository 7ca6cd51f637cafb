"""Model families: how each one writes its config, and what its architecture is."""
