"""Models: one definition for serving, scoring, training and interpretability."""
