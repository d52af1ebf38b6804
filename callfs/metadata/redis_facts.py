"""What a decision asks of the Redis store, answered beforehand by one script in one view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from callfs import paths
from callfs.errors import Conflict
from callfs.metadata.commands import (
    Command,
    ConsumeLink,
    CreateFile,
    ForgetInstance,
    Move,
    PutFile,
    RegisterInstance,
    Relocate,
)
from callfs.metadata.facts import Holdings, TreeFacts
from callfs.metadata.importing import BeginImport, FinishImport, ImportRecords
from callfs.metadata.redis_records import inode_from, instance_from, link_from, place_text, unframed
from callfs.model import Inode, Instance, Link, LocalPlacement

TREE_LIMIT = 100_000
"""How many entries a tree may have that one script moves or removes; ``TREE_LIMIT`` of ``common.lua``."""

Question = tuple[str | bytes, ...]


class Unasked(Exception):
    """The decision wants to know something that wasn't asked; it is begun anew with that too."""

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        self.question = question


class KnownFacts:
    """
    Answers that are there already.

    :param answers: to each question, as ``questions.lua`` gives them.
    :ivar used: the questions that the decision rests on, each once, in the order they came up.
    """

    def __init__(self, answers: Mapping[Question, bytes]) -> None:
        self._answers = answers
        self.used: dict[Question, None] = {}

    def _answer(self, *question: str | bytes) -> bytes:
        if question not in self._answers:
            raise Unasked(question)
        self.used[question] = None
        return self._answers[question]

    def inode(self, inode_id: str) -> Inode | None:
        """The inode with this id."""
        parts = unframed(self._answer("inode", inode_id))
        return inode_from(inode_id, parts[0].decode(), parts[1]) if parts else None

    def chain(self, path: str) -> Sequence[Inode]:
        """What exists of ``path`` and its ancestors."""
        return chain_from(path, self._answer("chain", path))

    def has_children(self, directory_id: str) -> bool:
        """Whether anything is in the directory."""
        return self._answer("children", directory_id) == b"1"

    def tree(self, directory: str, user: str) -> TreeFacts:
        """
        What lies below ``directory``.

        :raises callfs.errors.Conflict: more than one script may go through.
        """
        count, foreign = map(int, _unless_large(directory, self._answer("tree", directory, user)).split())
        return TreeFacts(count, foreign)

    def longest_path_bytes(self, directory: str) -> int:
        """
        The length of the longest path below ``directory``.

        :raises callfs.errors.Conflict: more than one script may go through.
        """
        return int(_unless_large(directory, self._answer("longest", directory)))

    def check_size(self, directory: str) -> None:
        """
        Check that one script may go through ``directory``.

        :raises callfs.errors.Conflict: more is in it than that.
        """
        _unless_large(directory, self._answer("size", directory))

    def any_condemned(self, blob_ids: Sequence[str]) -> bool:
        """Whether one of the blobs is condemned."""
        return self._answer(*condemned_question(blob_ids)) == b"1"

    def link(self, token_hash: bytes) -> Link | None:
        """The link with this hash."""
        record = self._answer("link", token_hash)
        return link_from(token_hash, record) if record else None

    def instance(self, instance_id: str) -> Instance | None:
        """The node with this id."""
        record = self._answer("instance", instance_id)
        return instance_from(instance_id, record) if record else None

    def holdings(self, instance_id: str) -> Holdings:
        """What there is on the node, or waits for it."""
        copies, waiting, garbage = map(int, self._answer(*holdings_question(instance_id)).split())
        return Holdings(copies > 0, waiting > 0, garbage)

    def unfinished_import(self) -> str | None:
        """The import that was begun and not finished."""
        return self._answer("import").decode() or None

    def is_empty(self) -> bool:
        """Whether nothing but the root is there."""
        return self._answer("empty") == b"1"


def first_questions(command: Command[object]) -> tuple[Question, ...]:
    """What a decision about the command asks in any case, so that mostly one view is enough."""
    match command:
        case CreateFile() | PutFile():
            return ("chain", command.path), condemned_question([copy.id for copy in command.blob.copies()])
        case Relocate():
            new_ids = {copy.id for copy in command.blob.copies()} - set(command.expected_blob_ids)
            return ("inode", command.inode_id), condemned_question(sorted(new_ids))
        case ForgetInstance():
            return (holdings_question(command.instance_id),)
        case Move() if command.source != command.destination:
            return ("chain", command.source), ("chain", command.destination)
        case ConsumeLink():
            return (("link", command.token_hash),)
        case RegisterInstance():
            return ("import",), ("instance", command.instance_id)
        case BeginImport():
            return ("import",), ("empty",)
        case ImportRecords() | FinishImport():
            return (("import",),)
        case Move():
            return (("chain", command.source),)
    path: str | None = getattr(command, "path", None)
    return () if path is None else (("chain", path),)


def condemned_question(blob_ids: Sequence[str]) -> Question:
    """Whether one of the blobs is condemned."""
    return ("condemned", str(len(blob_ids)), *blob_ids)


def holdings_question(instance_id: str) -> Question:
    """What there is on a node, or waits for it."""
    return "holdings", instance_id, place_text(LocalPlacement(instance_id))


def chain_from(path: str, answer: bytes) -> Sequence[Inode]:
    """The inodes in the answer to the question ``chain``."""
    parts = unframed(answer)
    every = (*paths.ancestors(path), path)
    return [
        inode_from(inode_id.decode(), at, record)
        for at, inode_id, record in zip(every, parts[::2], parts[1::2], strict=False)
    ]


def _unless_large(directory: str, answer: bytes) -> bytes:
    if answer == b"large":
        raise Conflict(
            f"more than {TREE_LIMIT:,} entries are below {directory}: too many for one step, take it in parts"
        )
    return answer
