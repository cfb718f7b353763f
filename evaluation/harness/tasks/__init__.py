"""No tasks of our own: lmms-eval asks a package that LMMS_EVAL_PLUGINS names for this folder and fails without it."""
