"""
What a transaction knows of the tree: what it has read and what it has changed since, so that it asks for nothing
twice.

Many commands of one transaction put something into the same few directories. The times and the generation that a
directory gets by that are kept here and written once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from callfs.model import Inode


class Known:
    """The inodes at some paths, as they are inside a transaction; also where it is known that nothing is."""

    def __init__(self) -> None:
        self._at: dict[str, Inode | None] = {}
        self._paths: dict[str, str] = {}
        self._touched: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._at)

    def unknown(self, wanted: Iterable[str]) -> list[str]:
        """Those of some paths of which nothing is known."""
        return [path for path in wanted if path not in self._at]

    def chain(self, wanted: Iterable[str]) -> list[Inode]:
        """
        What exists of a path and its ancestors.

        :param wanted: all of them, the root first.
        :raises KeyError: nothing is known of one that matters.
        """
        chain: list[Inode] = []
        for path in wanted:
            inode = self._at[path]
            if inode is None:
                break
            chain.append(inode)
        return chain

    def by_id(self, inode_id: str) -> Inode | None:
        """The inode with this id; ``None`` when nothing is known of it."""
        path = self._paths.get(inode_id)
        return None if path is None else self._at[path]

    def learn_nothing(self, paths: Iterable[str]) -> None:
        """Nothing is at these paths."""
        self._at.update(dict.fromkeys(paths))

    def learn(self, inode: Inode) -> None:
        """The inode is this from now on, at its path and nowhere else; what is below it isn't spoken of."""
        path = self._paths.get(inode.id)
        if path is not None and path != inode.path:
            self._at[path] = None
        self._at[inode.path] = inode
        self._paths[inode.id] = inode.path

    def remove(self, inode: Inode) -> None:
        """The inode is gone."""
        self._at[inode.path] = None
        self._paths.pop(inode.id, None)
        self._touched.pop(inode.id, None)

    def touch(self, directory_id: str, at: int) -> bool:
        """
        Touch a directory, to be written later; see :class:`callfs.metadata.facts.TouchDirectory`.

        :return: whether the directory is known; if not, nothing was done.
        """
        directory = self.by_id(directory_id)
        if directory is None:
            return False
        self._at[directory.path] = msgspec.structs.replace(
            directory, mtime=at, ctime=at, generation=directory.generation + 1
        )
        self._touched[directory_id] = None
        return True

    def take_touched(self) -> list[Inode]:
        """The directories whose new times and generation are to be written now."""
        touched, self._touched = self._touched, {}
        return [inode for inode in map(self.by_id, touched) if inode is not None]

    def forget(self) -> None:
        """Know nothing any more; what was touched has been written."""
        self._at.clear()
        self._paths.clear()
