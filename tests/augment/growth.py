"""How a function's time grows with its input: what meets foreign text is linear."""

import time
from collections.abc import Callable

MOST = 2.6  # 2 is linear, 4 is quadratic


def growth(function: Callable[[str], object], text: Callable[[int], str], seconds: float = 0.02) -> float:
    """Time of 2n over time of n, best of five each, at the first n that takes more than `seconds`; about 2 is linear.

    text: makes an input of about n characters. A function that is quick on 4 MB counts as linear. The processor's time
    is taken, and a bad result is taken again, for a busy machine makes bad ones too.
    """

    def best(size: int) -> float:
        value, times = text(size), []
        for _ in range(5):
            start = time.process_time()
            function(value)
            times.append(time.process_time() - start)
        return min(times)

    size = 500
    while best(size) < seconds:
        size *= 2
        if size > 4_000_000:
            return 0.0
    ratios = []
    while not ratios or (ratios[-1] > MOST and len(ratios) < 4):
        ratios.append(best(2 * size) / best(size))
    return min(ratios)
