"""The models themselves: one definition for serving, scoring, training and looking inside."""
