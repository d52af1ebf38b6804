"""When so many blobs look unnamed that the store of names is to be doubted, and not the blobs."""

from __future__ import annotations

import enum

HANDFUL = 10


class Verdict(enum.Enum):
    """What the share of unnamed blobs says about the store."""

    SOUND = "sound"
    """Few enough to be what crashes leave behind: the sweep may act."""

    DOUBTFUL = "doubtful"
    """
    Too large a share, but so few that a crash in a small store explains them as well as an old copy of the store
    does: nobody is alarmed, and nothing is touched until the share is small.
    """

    ALARMING = "alarming"
    """The store may be empty, an old copy, or another one: nothing is touched, and the operator is called."""


def judge(judged: int, unnamed: int) -> Verdict:
    """
    Judge the store by its blobs; more than 1 % without a name is too many.

    :param judged: how many blobs were old enough to be judged, all in all.
    :param unnamed: how many of these nothing names.
    """
    if unnamed * 100 <= judged:
        return Verdict.SOUND
    return Verdict.DOUBTFUL if unnamed <= HANDFUL else Verdict.ALARMING
