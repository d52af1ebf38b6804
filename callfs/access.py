"""
Who may do what, as the API contract says it under "Who may do what".

Administrators may do everything, the owner may read, write and delete. For everybody else a directory may be
listed and given new children, not deleted; a file may be read, not written or deleted. So reading, and creating
where nothing is, need no rule but the path's own: every authenticated principal may.
"""

from __future__ import annotations

from callfs.model import Inode, Principal


def may_read(principal: Principal, inode: Inode) -> bool:
    """Whether the content of a file, or the list of a directory, may be read: by all."""
    return True


def may_add_child(principal: Principal, directory: Inode) -> bool:
    """Whether something new may be put into ``directory``: by all, also where it belongs to another."""
    return True


def may_write(principal: Principal, inode: Inode) -> bool:
    """Whether a file's content, or the attributes of a file or directory, may be changed."""
    return owns(principal, inode.owner)


def may_delete(principal: Principal, inode: Inode) -> bool:
    """Whether a file or directory may be removed, overwritten, or moved away from where it is."""
    return owns(principal, inode.owner)


def may_change_owner(principal: Principal) -> bool:
    """Whether a resource may be given to another user: by administrators alone."""
    return principal.is_admin


def owns(principal: Principal, owner: str) -> bool:
    """Whether the principal has an owner's rights on what belongs to ``owner``."""
    return principal.is_admin or principal.user == owner


def may_delete_foreign(principal: Principal) -> bool:
    """Whether what belongs to others may be removed along with a tree of one's own: by administrators alone."""
    return principal.is_admin
