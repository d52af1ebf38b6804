"""
The tree as a plain dict: what every request must do to it, decided in the simplest way.

It knows the contract's rules of existence and permission, nothing of disks or transactions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

ROOT = "/"


@dataclass(frozen=True)
class Node:
    """A file (with content) or a directory (without)."""

    owner: str
    content: bytes | None = None

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.content is None


def parent_of(path: str) -> str:
    """The directory a path is in."""
    return path.rpartition("/")[0] or ROOT


def joined(directory: str, name: str) -> str:
    """The path of a name in a directory."""
    return f"/{name}" if directory == ROOT else f"{directory}/{name}"


class Tree:
    """
    Every node by its path. Each change returns the statuses that the API may answer with, and has done what
    the request does if they mean success.

    :param admins: the users who may do everything.
    :param top: a directory that stands for the root: all paths are below it, it is never changed.
    """

    def __init__(self, admins: frozenset[str], top: str, owner: str) -> None:
        self.admins = admins
        self.top = top
        self.nodes: dict[str, Node] = {top: Node(owner)}

    # questions

    def get(self, path: str) -> Node | None:
        """What is at a path."""
        return self.nodes.get(path)

    def below(self, path: str) -> dict[str, Node]:
        """Everything inside a directory, at any depth."""
        return {other: node for other, node in self.nodes.items() if other.startswith(path + "/")}

    def children(self, path: str) -> list[str]:
        """The paths right inside a directory, in order of their bytes."""
        return sorted((other for other in self.below(path) if parent_of(other) == path), key=str.encode)

    def files(self) -> list[str]:
        """The paths of all files."""
        return sorted(path for path, node in self.nodes.items() if not node.is_directory)

    def directories(self) -> list[str]:
        """The paths of all directories, the top included."""
        return sorted(path for path, node in self.nodes.items() if node.is_directory)

    def _owns(self, user: str, node: Node) -> bool:
        return user == node.owner or user in self.admins

    def _blocked(self, path: str) -> bool:
        """Whether a file stands where one of the path's parents must be."""
        while (path := parent_of(path)) not in (ROOT, self.top):
            node = self.get(path)
            if node is not None and not node.is_directory:
                return True
        return False

    def _make_parents(self, user: str, path: str) -> None:
        missing = parent_of(path)
        while missing not in self.nodes:
            self.nodes[missing] = Node(user)
            missing = parent_of(missing)

    # changes: each gives the statuses that the API may answer with; more than one where several refusals
    # apply and the contract doesn't order them

    def create(self, user: str, path: str, content: bytes) -> frozenset[int]:
        """POST of a file."""
        if self._blocked(path) or path in self.nodes:
            return frozenset({409})
        self._make_parents(user, path)
        self.nodes[path] = Node(user, content)
        return frozenset({201})

    def create_directory(self, user: str, path: str) -> frozenset[int]:
        """POST of a directory."""
        there = self.get(path)
        if there is not None:
            return frozenset({200 if there.is_directory else 409})
        if self._blocked(path):
            return frozenset({409})
        self._make_parents(user, path)
        self.nodes[path] = Node(user)
        return frozenset({201})

    def put(self, user: str, path: str, content: bytes) -> frozenset[int]:
        """PUT of a file."""
        there = self.get(path)
        if there is None:
            return self.create(user, path, content)
        refusals = {400} if there.is_directory else set()
        if not self._owns(user, there):
            refusals.add(403)
        if not refusals:
            self.nodes[path] = replace(there, content=content)
        return frozenset(refusals or {200})

    def copy(self, user: str, source: str, destination: str) -> frozenset[int]:
        """POST with ``copy_from``."""
        node = self.get(source)
        refusals = {409} if self._blocked(destination) or destination in self.nodes else set()
        if node is None:
            refusals.add(404)
        elif node.content is None:
            refusals.add(400)
        elif not refusals:
            return self.create(user, destination, node.content)
        return frozenset(refusals)

    def delete(self, user: str, path: str, *, recursive: bool) -> frozenset[int]:
        """DELETE."""
        node = self.get(path)
        if node is None:
            return frozenset({404})
        inside = self.below(path)
        refusals = {409} if inside and not recursive else set()
        if not all(self._owns(user, other) for other in (node, *(inside.values() if recursive else ()))):
            refusals.add(403)
        if not refusals:
            for gone in (path, *inside):
                del self.nodes[gone]
        return frozenset(refusals or {204})

    def move(
        self, user: str, source: str, destination: str, *, overwrite: bool, create_parents: bool
    ) -> frozenset[int]:
        """PATCH with ``destination``."""
        node = self.get(source)
        if node is None:
            return frozenset({404, 400} if destination == source else {404})
        refusals = self._move_refusals(
            user, source, destination, overwrite=overwrite, create_parents=create_parents
        )
        if not refusals:
            self._make_parents(user, destination)
            self.nodes.pop(destination, None)
            for old, moved in {source: node, **self.below(source)}.items():
                del self.nodes[old]
                self.nodes[destination + old[len(source) :]] = moved
        return frozenset(refusals or {200})

    def _move_refusals(
        self, user: str, source: str, destination: str, overwrite: bool, create_parents: bool
    ) -> set[int]:
        node, there = self.nodes[source], self.get(destination)
        refusals: set[int] = set()
        if destination == source or destination.startswith(source + "/"):
            refusals.add(400)
        if not self._owns(user, node):
            refusals.add(403)
        if self._blocked(destination):
            refusals |= {400, 409}
        if parent_of(destination) not in self.nodes and not create_parents:
            refusals.add(400)
        if there is not None and destination != source:
            if not overwrite or there.is_directory != node.is_directory or self.below(destination):
                refusals.add(409)
            if overwrite and not self._owns(user, there):
                refusals.add(403)
        return refusals
