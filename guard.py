"""Import this before transformers: it keeps our folder `kernels/` from being taken for Hugging Face's `kernels`.

transformers asks `is_kernels_available()`, which finds whatever `kernels` is on the path (ours, when a script starts in
this folder) and trusts the version of an installed distribution of that name. With both present its integrations
run `from kernels import ...` on our folder and fail. nanoPUMA uses nothing of that package: the answer is always no.
"""

import transformers.utils
from transformers.utils import import_utils


def _kernels_are_not_hugging_faces(*args: object, **kwargs: object) -> bool:
    return False


for _module in (import_utils, transformers.utils):
    _module.is_kernels_available = _kernels_are_not_hugging_faces
