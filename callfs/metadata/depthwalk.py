"""How a page of a tree is walked to a certain depth only, whatever the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from callfs import paths

Row = Sequence[Any]
"""Of an inode, its path second."""

_FIRST_STEP = 64
_STEP_AFTER_LEAP = 8


def rows_to_depth(
    fetch: Callable[[str, str, int], Sequence[Row]], start: str, end: str, deepest: int, limit: int
) -> list[Row]:
    """
    Read on in growing steps; at the first path that is too deep, leap over the whole subtree that it is in.

    So what is too deep costs one leap for each directory at the limit, not its number of files. The leap can't be
    taken from the directory itself: names with a character below ``/`` sort between it and what is in it.

    :param fetch: the rows from a path (inclusive) to another (exclusive), at most so many, by path.
    :param deepest: the depth of the deepest path to be shown.
    """
    found: list[Row] = []
    step = _FIRST_STEP
    while len(found) < limit:
        asked = min(step, limit - len(found))
        rows = fetch(start, end, asked)
        shown = next((n for n, row in enumerate(rows) if paths.depth(row[1]) > deepest), len(rows))
        found += rows[:shown]
        if shown < len(rows):
            start = paths.subtree_end(_ancestor(rows[shown][1], deepest))
            step = _STEP_AFTER_LEAP
        elif len(rows) < asked:
            break
        else:
            start = just_after(rows[-1][1])
            step *= 2
    return found


def just_after(path: str) -> str:
    """A lower bound, inclusive, of all paths after ``path``: none has a control character."""
    return path + "\x01"


def _ancestor(path: str, depth: int) -> str:
    """The ancestor of ``path`` that has ``depth`` segments."""
    return "/".join(path.split("/", depth + 1)[: depth + 1])
