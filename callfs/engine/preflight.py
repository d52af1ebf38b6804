"""
What a move would be refused with, before any bytes travel for it.

The rules are the command's own: here they are asked about what was read from the store a moment ago, and the
command asks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from callfs.access import may_delete
from callfs.engine.ports import Ports
from callfs.errors import PermissionDenied
from callfs.metadata.commands import Move
from callfs.metadata.facts import Facts
from callfs.metadata.places import existing_inode
from callfs.metadata.preconditions import check_preconditions
from callfs.metadata.renaming import move
from callfs.model import Inode

_PAGE = 1000


class _Read:
    """Those of the facts that a move asks for, read beforehand."""

    def __init__(self, chains: dict[str, Sequence[Inode]], with_children: set[str], longest: int) -> None:
        self._chains = chains
        self._with_children = with_children
        self._longest = longest

    def chain(self, path: str) -> Sequence[Inode]:
        """See :class:`callfs.metadata.facts.Facts`."""
        return self._chains[path]

    def has_children(self, directory_id: str) -> bool:
        """See :class:`callfs.metadata.facts.Facts`."""
        return directory_id in self._with_children

    def longest_path_bytes(self, _directory: str) -> int:
        """See :class:`callfs.metadata.facts.Facts`."""
        return self._longest


async def check_move(ports: Ports, command: Move) -> None:
    """
    Decide whether a move is allowed as things are; in its place, whether the file's owner and state allow a change.

    :raises callfs.errors.CallFSError: as :class:`callfs.metadata.commands.Move`.
    """
    facts = cast(Facts, await _facts(ports, command))
    if command.destination != command.source or command.attributes.any():
        move(command, facts)
        return
    inode, _ = existing_inode(facts, command.source, command.directory_expected)
    if not may_delete(command.principal, inode):
        raise PermissionDenied(f"{command.source} belongs to another user")
    check_preconditions(inode, command.preconditions)


async def _facts(ports: Ports, command: Move) -> _Read:
    chains = {path: await ports.metadata.get_chain(path) for path in (command.source, command.destination)}
    source, destination = (chains[path][-1] for path in (command.source, command.destination))
    with_children: set[str] = set()
    if destination.is_directory and await ports.metadata.list_children(destination.id, limit=1):
        with_children.add(destination.id)
    return _Read(chains, with_children, await _longest(ports, source))


async def _longest(ports: Ports, directory: Inode) -> int:
    after, longest = "", 0
    while directory.is_directory and (page := await ports.metadata.walk(directory.path, after, limit=_PAGE)):
        longest = max(longest, *(len(inode.path.encode()) for inode in page))
        after = page[-1].path
    return longest
