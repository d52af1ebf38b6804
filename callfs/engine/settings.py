"""What an operator can set of the engine, and the periods of its background work."""

from __future__ import annotations

from dataclasses import dataclass

_HOUR_SECONDS = 3600.0
_DAY_SECONDS = 24 * _HOUR_SECONDS

MICROSECONDS = 1_000_000


def microseconds(seconds: float) -> int:
    """A duration in the unit of instants."""
    return int(seconds * MICROSECONDS)


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """
    Settings of the engine; the defaults are the documented ones.

    :param instance_id: ``instance_discovery.instance_id``: who this node is in placements.
    :param default_backend: ``backend.default_backend``: where new files go.
    :param file_op_timeout_seconds: ``server.file_op_timeout``: waiting for a lock, or for a blob to open.
    :param garbage_delay_seconds: ``backend.garbage_delay``: how long bytes that aren't on a local disk outlive
        their file.
    :param replica_backend: ``ha.replica_backend`` when ``ha.replication_enabled``: where second copies go; of a
        file whose first copy is on such a backend there is none.
    :param require_replica_success: ``ha.require_replica_success``: a write makes the second copy itself, and fails
        when it can't.
    """

    instance_id: str
    default_backend: str = "localfs"
    file_op_timeout_seconds: float = 10.0
    garbage_delay_seconds: float = _HOUR_SECONDS
    replica_backend: str | None = None
    require_replica_success: bool = False


@dataclass(frozen=True, kw_only=True)
class JanitorSettings:
    """
    Periods of the background work; none is shorter than what safety needs.

    :param instance_id: the node whose blobs are looked after.
    :param garbage_interval_seconds: how often the garbage queue is looked at without being told: so long do bytes
        stay on a disk that were removed through another node.
    :param statistics_interval_seconds: how often the store is asked what it holds, which takes it a while.
    :param link_purge_interval_seconds: how often spent links are forgotten.
    :param used_link_age_seconds: how long a used link is remembered as used.
    :param staging_interval_seconds: how often abandoned staged blobs are looked for.
    :param staged_age_seconds: a staged blob not written to for so long is abandoned.
    :param sweep_interval_seconds: the time between two passes over all blobs, and before the first.
    :param sweep_grace_seconds: a blob younger than this is never judged, and two passes that condemn a blob are
        at least this far apart.
    :param set_aside_seconds: how long condemned bytes are kept before they are deleted.
    """

    instance_id: str
    garbage_interval_seconds: float = 10.0
    statistics_interval_seconds: float = 300.0
    link_purge_interval_seconds: float = 300.0
    used_link_age_seconds: float = _DAY_SECONDS
    staging_interval_seconds: float = _HOUR_SECONDS
    staged_age_seconds: float = _DAY_SECONDS
    sweep_interval_seconds: float = 6 * _HOUR_SECONDS
    sweep_grace_seconds: float = _HOUR_SECONDS
    set_aside_seconds: float = 7 * _DAY_SECONDS
