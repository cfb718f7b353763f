"""Thin adapters: our checkpoints in lmms-eval (models/nanopuma.py) and in VLMEvalKit (vlmevalkit.py)."""
