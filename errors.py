"""What a user can cause ends in one clear line, never in a traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in the input, the flags or the environment. Its message names the file, the row and the remedy."""


def run_main(main: Callable[[], None]) -> None:
    """Call `main`; turn a UserError into one line on stderr and exit code 1, Ctrl-C into one line and exit code 130."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where it stopped", file=sys.stderr, flush=True)
        sys.exit(130)
