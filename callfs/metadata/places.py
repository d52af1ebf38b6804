"""Where a path leads: what is there, what is above it, and what would have to be created on the way."""

from __future__ import annotations

import msgspec

from callfs import paths
from callfs.errors import FileAlreadyExists, FileNotFound, NotADirectory, ParentNotADirectory
from callfs.metadata.facts import AddInode, Effect, Facts, TouchDirectory
from callfs.model import DIRECTORY_MODE, Inode, InodeType, LocalPlacement


class Place(msgspec.Struct, frozen=True):
    """
    A path and what exists of it.

    :param inode: what is there, ``None`` where nothing is.
    :param above: the deepest ancestor that exists; of the root, itself.
    :param missing: the ancestors that don't exist, the highest first.
    """

    path: str
    inode: Inode | None
    above: Inode
    missing: tuple[str, ...] = ()


def find_place(facts: Facts, path: str) -> Place:
    """Where ``path`` leads."""
    chain = facts.chain(path)
    if chain[-1].path == path:
        return Place(path, chain[-1], chain[-2] if len(chain) > 1 else chain[-1])
    existing = len(chain)
    missing = () if existing == paths.depth(path) else tuple(paths.ancestors(path))[existing:]
    return Place(path, None, chain[-1], missing)


def existing_inode(facts: Facts, path: str, directory_expected: bool = False) -> tuple[Inode, Inode]:
    """
    What is at ``path``, and the directory that holds it.

    :raises callfs.errors.FileNotFound: nothing is there, also where an ancestor is a file.
    :raises callfs.errors.NotADirectory: ``directory_expected`` and it is a file.
    """
    place = find_place(facts, path)
    if place.inode is None:
        raise FileNotFound(f"nothing is at {path}")
    if directory_expected and not place.inode.is_directory:
        raise NotADirectory(f"{path} is a file: ask for it without the trailing slash")
    return place.inode, place.above


def check_parents(place: Place) -> None:
    """
    Check that nothing but directories is above the path.

    :raises callfs.errors.ParentNotADirectory: an ancestor is a file.
    """
    if not place.above.is_directory:
        raise ParentNotADirectory(f"{place.above.path} is a file, so nothing can be below it")


def already_there(inode: Inode) -> FileAlreadyExists:
    """The refusal that names what is in the way, and for a file where its bytes are."""
    details = {"existing_path": inode.path}
    if inode.blob is not None:
        placement = inode.blob.placement
        if isinstance(placement, LocalPlacement):
            details |= {"backend_type": "localfs", "instance_id": placement.instance_id}
        else:
            details |= {"backend_type": "s3"}
    return FileAlreadyExists(f"a {inode.type.value} is at {inode.path} already", **details)


def new_parents(place: Place, parent_ids: tuple[str, ...], owner: str, at: int) -> tuple[tuple[Effect, ...], str]:
    """
    Create the missing ancestors, and touch the directory that gets the first new child.

    :param parent_ids: ids for the new directories, the highest first.
    :param owner: to whom they belong.
    :return: the effects, and the id of the directory that shall hold the path itself.
    """
    parent_id = place.above.id
    effects: list[Effect] = [TouchDirectory(parent_id, at)]
    for inode_id, path in zip(parent_ids, place.missing, strict=False):
        effects.append(AddInode(new_directory(path, inode_id, parent_id, owner, at)))
        parent_id = inode_id
    return tuple(effects), parent_id


def new_directory(path: str, inode_id: str, parent_id: str, owner: str, at: int) -> Inode:
    """A directory as it begins."""
    return Inode(
        id=inode_id,
        path=path,
        parent_id=parent_id,
        type=InodeType.DIRECTORY,
        mode=DIRECTORY_MODE,
        owner=owner,
        mtime=at,
        ctime=at,
        created_at=at,
    )
