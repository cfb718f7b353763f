"""The data engine: what designs, draws, solves, checks and writes problems; problems/families/ holds the families."""
