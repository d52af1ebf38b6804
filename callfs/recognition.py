"""That the parts of a node belong together: the metadata store, the root folder, the bucket."""

from __future__ import annotations

from twisted.logger import Logger

from callfs.backends.identity import Verdict, recognise
from callfs.config.rules import guessed_url_warning
from callfs.config.schema import Config
from callfs.deferreds import returns_deferred
from callfs.model import S3Placement
from callfs.node import Node
from callfs.node_storage import LocalDisk
from callfs.readiness import ReadinessChecks

_PAGE = 1000

_log = Logger()


class CannotStart(Exception):
    """The node can't run; the message is for the operator: what is wrong and what to do."""


class Recognition:
    """
    Looks at the parts before anything in them is judged, written or deleted.

    :param checks: told which root folder it is.
    """

    def __init__(self, node: Node, config: Config, checks: ReadinessChecks) -> None:
        self._node = node
        self._config = config
        self._checks = checks

    def refuse_lost_database(self) -> None:
        """Where a folder knows its store, a missing database is a mistake: an empty one isn't made in its place."""
        disk, database = self._node.disk, self._config.metadata_store.sqlite_path
        if disk is None or self._config.metadata_store.type != "sqlite" or self._node.membership is not None:
            return
        if disk.root.identity() is not None and not database.exists():
            raise CannotStart(
                f"the root folder {disk.root.path} belongs to a metadata store, but the database {database} "
                "doesn't exist. Correct metadata_store.sqlite_path, or restore the database from a backup"
            )

    @returns_deferred
    async def recognise_root(self) -> None:
        """Nothing is judged, written or deleted before the store and the folder are known to belong together."""
        disk, store = self._node.disk, self._node.store
        if disk is None:
            return
        instances = await store.instances()
        identity = disk.root.identity()
        decision = recognise(
            store_was_empty=store.was_empty,
            store_id=store.store_id,
            instance_id=self._node.instance_id,
            registered={instance.id: instance.root_id for instance in instances},
            identity=identity,
            root_has_blobs=disk.root.has_blobs(),
        )
        if decision.verdict is Verdict.REFUSE:
            raise CannotStart(f"{decision.message} ({self._places(disk)})")
        self._checks.identity = identity or disk.root.adopt(store.store_id)

    def _places(self, disk: LocalDisk) -> str:
        store = self._config.metadata_store
        kind = "raft" if self._node.membership is not None else store.type
        database = f"database {store.sqlite_path}" if kind == "sqlite" else f"metadata in {kind}"
        return f"root folder {disk.root.path}, {database}"

    @returns_deferred
    async def recognise_bucket(self) -> None:
        """The same for what is shared; until it is done nothing there can be reached."""
        store, bucket = self._node.store, self._node.bucket
        if bucket is not None:
            await bucket.bucket.recognise(store.store_id, store.was_empty, self._names_shared_blobs)
            bucket.gate.admit()

    async def _names_shared_blobs(self) -> bool:
        """Whether any copy of any file is in the bucket; looks through all names until one is."""
        after = ""
        while page := await self._node.store.list_blobs(after, _PAGE):
            if any(isinstance(blob.placement, S3Placement) for blob, _ in page):
                return True
            after = page[-1][0].id
        return False

    @returns_deferred
    async def see_others(self) -> None:
        """Say it when other nodes are told a URL of this one that can't be right."""
        if not self._config.is_url_guessed:
            return
        others = [instance.id for instance in await self._node.store.instances()]
        if set(others) - {self._node.instance_id}:
            _log.warn("{warning}", event="external_url_guessed", warning=guessed_url_warning(self._config))
