"""RFC 9110, section 13, as far as changes go."""

from __future__ import annotations

import msgspec
import pytest

from callfs.errors import PreconditionFailed
from callfs.metadata.preconditions import check_preconditions
from callfs.model import ROOT_INODE, Inode, InodeType, Preconditions

SECOND = 1_000_000
FILE: Inode = msgspec.structs.replace(
    ROOT_INODE, type=InodeType.FILE, path="/f", content_id="abc", mtime=1_000 * SECOND + 999_999
)

HOLD = {
    "no condition, nothing there": (None, Preconditions()),
    "If-Match with the current tag": (FILE, Preconditions(if_match=('"x"', '"abc"'))),
    "If-Match: *": (FILE, Preconditions(if_match=("*",))),
    "If-Match: * on a directory": (ROOT_INODE, Preconditions(if_match=("*",))),
    "If-None-Match with other tags": (FILE, Preconditions(if_none_match=('"x"', 'W/"y"'))),
    "If-None-Match: * where nothing is": (None, Preconditions(if_none_match=("*",))),
    "If-None-Match with a tag where nothing is": (None, Preconditions(if_none_match=('"abc"',))),
    "If-None-Match with a tag on a directory": (ROOT_INODE, Preconditions(if_none_match=('"abc"',))),
    "If-Unmodified-Since, the same second": (FILE, Preconditions(if_unmodified_since=1_000 * SECOND)),
    "If-Unmodified-Since where nothing is": (None, Preconditions(if_unmodified_since=0)),
    "If-Unmodified-Since doesn't count beside If-Match": (
        FILE,
        Preconditions(if_match=('"abc"',), if_unmodified_since=0),
    ),
}
FAIL = {
    "If-Match with other tags": (FILE, Preconditions(if_match=('"x"', '"ABC"'))),
    "If-Match with a weak tag: the comparison is strong": (FILE, Preconditions(if_match=('W/"abc"',))),
    "If-Match with no tag at all": (FILE, Preconditions(if_match=())),
    "If-Match: * where nothing is": (None, Preconditions(if_match=("*",))),
    "If-Match with a tag where nothing is": (None, Preconditions(if_match=('"abc"',))),
    "If-Match with a tag on a directory": (ROOT_INODE, Preconditions(if_match=('"abc"',))),
    "If-None-Match with the current tag": (FILE, Preconditions(if_none_match=('"x"', '"abc"'))),
    "If-None-Match with the weak current tag": (FILE, Preconditions(if_none_match=('W/"abc"',))),
    "If-None-Match: *": (FILE, Preconditions(if_none_match=("*",))),
    "If-None-Match: * on a directory": (ROOT_INODE, Preconditions(if_none_match=("*",))),
    "If-Unmodified-Since, a second before": (FILE, Preconditions(if_unmodified_since=1_000 * SECOND - 1)),
    "one that holds and one that doesn't": (FILE, Preconditions(if_match=("*",), if_none_match=("*",))),
}


@pytest.mark.parametrize("name", HOLD)
def test_conditions_that_hold(name: str) -> None:
    """These let the change happen."""
    check_preconditions(*HOLD[name])


@pytest.mark.parametrize("name", FAIL)
def test_conditions_that_fail(name: str) -> None:
    """These refuse it."""
    with pytest.raises(PreconditionFailed):
        check_preconditions(*FAIL[name])
