"""What lmms-eval looks for in a package that LMMS_EVAL_PLUGINS names: {module here: class in it}."""

AVAILABLE_MODELS = {"nanopuma": "NanoPuma"}
