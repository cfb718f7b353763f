"""What must hold before any test module is imported."""

import os

import torch

from llm_server import serve  # noqa: F401  (a fixture)

# Triton reads this while it is imported, and many modules import it (torch's compiler, the dry run): whichever test
# comes first would otherwise decide whether the kernels run here. With a GPU they are compiled and run on it.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
