"""What must hold before any test module is imported: no test leans on what the session or the shell hands down."""

import os
import signal
from pathlib import Path

# A job, a launcher or a hook around the tests must not speak through its variables, nor a user's settings of git.
FOREIGN = ("HF_", "TRANSFORMERS_", "TORCH_", "TORCHELASTIC_", "SLURM_", "GIT_", "WANDB_", "OMP_")
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "COLUMNS",
         "FORCE_COLOR", "PYTHONPATH", "PYTHONWARNINGS", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
for name in list(os.environ):
    if name.startswith(FOREIGN) or name.upper() in NAMES:
        del os.environ[name]
# Small matrices: threads only wait for each other. Numbers that must agree bit for bit want one as well.
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C.UTF-8"}
os.chdir(Path(__file__).resolve().parents[1])
os.umask(0o022)
# `nohup make test &` leaves SIGINT ignored, and children inherit that; others block signals.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())

import torch  # noqa: E402  (reads OMP_NUM_THREADS)

from llm_server import serve  # noqa: E402, F401  (a fixture)

# Triton reads this while it is imported, and many modules import it (torch's compiler, the dry run): whichever test
# comes first would otherwise decide whether the kernels run here. With a GPU they are compiled and run on it.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
