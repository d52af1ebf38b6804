"""The table "Who may do what" of the API contract."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from callfs import access
from callfs.model import ROOT_INODE, Inode, InodeType, Principal

DIRECTORY: Inode = msgspec.structs.replace(ROOT_INODE, path="/d", owner="alice")
FILE: Inode = msgspec.structs.replace(ROOT_INODE, path="/f", owner="alice", type=InodeType.FILE)
OWNER, OTHER, ADMIN = Principal("alice"), Principal("bob"), Principal("carol", is_admin=True)

RULES: list[tuple[Callable[[Principal, Inode], bool], Inode, tuple[bool, bool, bool]]] = [
    # the rule, of what                 owner  other  administrator
    (access.may_read, FILE, (True, True, True)),
    (access.may_read, DIRECTORY, (True, True, True)),
    (access.may_add_child, DIRECTORY, (True, True, True)),
    (access.may_write, FILE, (True, False, True)),
    (access.may_write, DIRECTORY, (True, False, True)),
    (access.may_delete, FILE, (True, False, True)),
    (access.may_delete, DIRECTORY, (True, False, True)),
]


@pytest.mark.parametrize(("rule", "inode", "expected"), RULES)
def test_who_may(rule: Callable[[Principal, Inode], bool], inode: Inode, expected: tuple[bool, bool, bool]) -> None:
    """Owner, others and administrators may do what the contract says."""
    assert tuple(rule(principal, inode) for principal in (OWNER, OTHER, ADMIN)) == expected


def test_administrators_alone_change_owners() -> None:
    """Nobody gives a file away but an administrator."""
    assert [access.may_change_owner(who) for who in (OWNER, OTHER, ADMIN)] == [False, False, True]


def test_administrators_alone_delete_what_is_anothers() -> None:
    """A tree that holds what belongs to others can be removed by an administrator alone."""
    assert [access.may_delete_foreign(who) for who in (OWNER, OTHER, ADMIN)] == [False, False, True]


def test_the_name_root_gives_no_rights() -> None:
    """Rights come with the authenticated principal, not with a name that looks important."""
    assert not access.may_delete(Principal("root"), FILE)
