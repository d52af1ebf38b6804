"""When so many blobs look unnamed that the store of names is to be doubted, and not the blobs."""

from __future__ import annotations

HANDFUL = 10


def is_alarming(judged: int, unnamed: int) -> bool:
    """
    Whether too many blobs look unnamed to be what crashes leave behind.

    More than 1 % is too many; only a handful among at least as many that have a name is always believed, for
    otherwise a small store could never be cleaned. A store in which nearly nothing has a name is never believed.

    :param judged: how many blobs were old enough to be judged, all in all.
    :param unnamed: how many of these nothing names, those condemned lately included.
    """
    if unnamed * 100 <= judged:
        return False
    return unnamed > HANDFUL or unnamed * 2 > judged
