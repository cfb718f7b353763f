"""What a user can cause ends in one clear line, never in a traceback."""

import re
import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in the input, the flags or the environment. Its message names the file, the row and the remedy."""


def loader_process_died(error: BaseException) -> UserError | None:
    """What to tell the user where torch reports the death of a DataLoader process; None for any other error.

    torch raises it from a signal handler: whatever line the main thread is at, inside the loader or far from it.
    """
    what = str(error).partition("\n")[0]
    if not isinstance(error, RuntimeError) or not what.startswith(("DataLoader worker", "Pin memory thread")):
        return None
    return UserError(
        f"a loader process died ({what}); for want of memory, or of shared memory (/dev/shm)? "
        "lower --num_workers, or give the container more (docker --shm-size)"
    )


def rank_lost(error: BaseException) -> UserError | None:
    """What to tell the user where gloo reports that another rank is gone; None for any other error."""
    found = re.search(r"Connection (closed|reset) by peer", str(error))
    if not isinstance(error, RuntimeError) or not found:
        return None
    return UserError(f"another rank has ended ({found.group()}); its own error, or torchrun's report, says why")


def run_main(main: Callable[[], None], resumes: bool = True) -> None:
    """Call `main`; turn a UserError, or the death of a loader process or of another rank, into one line on stderr and
    exit code 1, Ctrl-C into one line and exit code 130. resumes: whether the same command, given again, goes on.
    """
    try:
        main()
    except (UserError, RuntimeError) as error:
        told = error if isinstance(error, UserError) else loader_process_died(error) or rank_lost(error)
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr, flush=True)
        sys.exit(1)
    except KeyboardInterrupt:
        goes_on = "; the same command goes on where it stopped" if resumes else ""
        print(f"\ninterrupted{goes_on}", file=sys.stderr, flush=True)
        sys.exit(130)
