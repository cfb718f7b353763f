"""What a user can cause ends in one clear line, never in a traceback."""

import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

try:
    import fcntl  # noqa: F401  (files are locked with it; who imports it does so after this file)
except ImportError:
    sys.exit("error: nanoPUMA runs on Linux and macOS; on Windows, run it inside WSL")


class UserError(Exception):
    """A mistake in the input, the flags or the environment. Its message names the file, the row and the remedy."""


def loader_process_died(error: BaseException) -> UserError | None:
    """What to tell the user where torch reports the death of a DataLoader process; None for any other error.

    torch raises it from a signal handler: whatever line the main thread is at, inside the loader or far from it.
    """
    what = str(error).partition("\n")[0]
    if not isinstance(error, RuntimeError) or not what.startswith(("DataLoader worker", "Pin memory thread")):
        return None
    return UserError(f"a loader process died ({what}); for want of memory, or of shared memory (/dev/shm)? "
                     "lower --num_workers, or give the container more (docker --shm-size)")


def explain(error: Exception) -> UserError | None:
    """What to tell the user where a GPU's memory ran out (torch.OutOfMemoryError), gloo reports that another rank is
    gone, or a DataLoader process died; None for any other error.
    """
    if type(error).__name__ == "OutOfMemoryError":  # by its name: this file stays free of torch
        remedy = "add --activation_checkpointing, lower --pack_tokens or use more GPUs (see python -m bench.plan)"
        return UserError(f"{str(error).partition('. GPU ')[0]}; {remedy}")
    if found := re.search(r"Connection (closed|reset) by peer", str(error)):
        return UserError(f"another rank has ended ({found.group()}); its own error, or torchrun's report, says why")
    return loader_process_died(error)


def write_trouble(error: BaseException, path: Path) -> str:
    """Why `path` (or something below it) could not be written, and the remedy."""
    folder = next((folder for folder in (path, *path.parents) if folder.is_dir()), Path("."))
    free = shutil.disk_usage(folder).free
    # torch's zip writer and safetensors report a short write as errors of their own
    short_write = not isinstance(error, OSError) and free < 16 << 20
    if short_write or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({free / 1e9:.2f} GB free); free some space"
    return str(error).partition("\n")[0] + "; fix that"


@contextmanager
def writing(path: str | Path, then: str = "the same command goes on") -> Iterator[None]:
    """Turn a failure to write `path` into a UserError. then: what becomes possible when the trouble is over."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {write_trouble(error, Path(path))}, then {then}") from error


def leave_to_first_rank(error: UserError) -> NoReturn:
    """Raise an error that every rank has found on the first rank alone; end the others quietly."""
    if int(os.environ.get("RANK", 0)) == 0:
        raise error
    time.sleep(3)  # The first rank says what is wrong. An earlier exit here would make torchrun kill it before it has.
    sys.exit(1)


def run_main(main: Callable[[], None], resumes: bool = True) -> None:
    """Call `main`; turn a UserError, what `explain` knows and a file that the system refuses into one line on stderr
    and exit code 1, Ctrl-C into one line and exit code 130. resumes: whether the same command goes on from what was
    saved. Once training has begun, Ctrl-C saves (runtime.StopRequest) and does not come here.
    """
    try:
        main()
    except (UserError, RuntimeError, OSError) as error:
        told = error if isinstance(error, UserError) else explain(error)
        if told is None and getattr(error, "filename", None) is not None:
            told = f"{error.filename}: {error.strerror}; fix that, then give the same command again"
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr, flush=True)
        sys.exit(1)
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from what was saved" if resumes else ""
        print(f"\ninterrupted{goes_on}", file=sys.stderr, flush=True)
        sys.exit(130)
