"""
Metrics in Prometheus' text format. The names are part of the contract: dashboards exist.

Every label has a small, fixed set of values: routes by their pattern, methods that nobody knows as ``OTHER``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

M = TypeVar("M", bound=MetricWrapperBase)
T = TypeVar("T")

FileOperation = Literal["create", "read", "update", "delete", "move"]
LinkConsumption = Literal["success", "expired", "invalid", "not_found"]
ReplicationStatus = Literal["made", "failed"]
SweepFinding = Literal["unnamed", "condemned", "set_aside", "put_back", "purged"]

KNOWN_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"}
    | {"PROPFIND", "MKCOL", "COPY", "MOVE"}
)
OTHER_METHOD = "OTHER"

# Seconds. A request may be a transfer of hours; a point read in SQLite takes microseconds.
REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
BACKEND_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
METADATA_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
LOCK_BUCKETS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)


class _Children(dict[tuple[str, ...], M], Generic[M]):
    """The children of a labelled metric, so that the library's locked and checked look-up happens once for each."""

    def __init__(self, parent: M) -> None:
        super().__init__()
        self._parent = parent

    def __missing__(self, labels: tuple[str, ...]) -> M:
        child = self[labels] = self._parent.labels(*labels)
        return child


class _WithoutCreated(Collector):
    """What a registry collects, less the ``_created`` series, without touching the library's global switch."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        """Every metric of the registry."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if sample.name != metric.name + "_created"]
            yield metric


class Metrics:
    """
    All that a node counts, in a registry of its own. Safe to call from any thread.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._make_request_metrics()
        self._make_storage_metrics()
        self._make_upkeep_metrics()

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def _counters(self, name: str, text: str, *labels: str) -> _Children[Counter]:
        return _Children(Counter(name, text, labels, registry=self.registry))

    def _gauges(self, name: str, text: str, *labels: str) -> _Children[Gauge]:
        return _Children(Gauge(name, text, labels, registry=self.registry))

    def _histograms(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> _Children[Histogram]:
        return _Children(Histogram(name, text, labels, buckets=buckets, registry=self.registry))

    def _make_request_metrics(self) -> None:
        self._http_requests = self._counters(
            "callfs_http_requests_total", "Requests that have ended.", "method", "path", "status_code"
        )
        self._http_seconds = self._histograms(
            "callfs_http_request_duration_seconds",
            "From a request's headers to the end of its response.",
            REQUEST_BUCKETS,
            "method",
            "path",
        )
        self._internal_requests = self._counters(
            "callfs_internal_requests_total", "Requests of peers that have ended.", "method", "path", "status_code"
        )
        self._open_requests = self._gauge("callfs_http_requests_in_progress", "Requests under way.")
        self._connections = self._gauge("callfs_http_connections", "Open client connections.")
        self._refused_connections = self._counter(
            "callfs_http_connections_refused_total", "Connections refused because of limits.max_connections."
        )
        self._received_bytes = self._counter("callfs_http_received_bytes_total", "Bytes of request bodies.")
        self._sent_bytes = self._counter("callfs_http_sent_bytes_total", "Bytes of response bodies.")
        self._rate_limited = self._counters("callfs_rate_limited_total", "Requests refused with 429.", "limit")
        self._open_uploads = self._gauge("callfs_open_uploads", "Uploads under way.")
        self._open_websockets = self._gauge("callfs_open_websockets", "Open WebSocket transfers.")
        self._link_generations = self._counter(
            "callfs_single_use_link_generations_total", "Single-use links issued."
        )
        self._link_consumptions = self._counters(
            "callfs_single_use_link_consumptions_total", "Attempts to use a single-use link.", "status"
        )

    def _make_storage_metrics(self) -> None:
        self._backend_operations = self._counters(
            "callfs_backend_ops_total", "Operations on backends.", "backend_type", "operation"
        )
        self._backend_seconds = self._histograms(
            "callfs_backend_op_duration_seconds",
            "How long operations on backends took.",
            BACKEND_BUCKETS,
            "backend_type",
            "operation",
        )
        self._metadata_queries = self._counters(
            "callfs_metadata_db_queries_total", "Operations on the metadata store.", "operation"
        )
        self._metadata_seconds = self._histograms(
            "callfs_metadata_db_query_duration_seconds",
            "How long operations on the metadata store took.",
            METADATA_BUCKETS,
            "operation",
        )
        self._metadata_commits = self._counter(
            "callfs_metadata_group_commits_total",
            "Transactions of the metadata writer, each of one or more commands.",
        )
        self._lock_operations = self._counters(
            "callfs_lock_operations_total", "Operations on locks.", "operation", "status"
        )
        self._lock_seconds = self._histograms(
            "callfs_lock_operation_duration_seconds",
            "How long operations on locks took, the waiting included.",
            LOCK_BUCKETS,
            "operation",
        )
        self._active_locks = self._gauge("callfs_active_locks", "Locks held by this node.")
        self._file_operations = self._counters(
            "callfs_file_operations_total", "What was done with files.", "operation", "backend_type"
        )
        self._errors = self._counters(
            "callfs_errors_total", "Errors by where they arose.", "component", "error_type"
        )

    def _make_upkeep_metrics(self) -> None:
        self._files = self._gauge("callfs_files", "Files, counted every few minutes.")
        self._directories = self._gauge("callfs_directories", "Directories, counted every few minutes.")
        self._file_bytes = self._gauge("callfs_file_bytes", "Bytes of all files, counted every few minutes.")
        self._garbage_queued = self._gauge("callfs_garbage_queue_length", "Blobs that wait for their deletion.")
        self._garbage_deleted = self._counters(
            "callfs_garbage_deleted_total", "Blobs deleted from the garbage queue.", "backend_type"
        )
        self._garbage_failures = self._counters(
            "callfs_garbage_failures_total", "Deletions that failed and are tried again.", "backend_type"
        )
        self._staged_removed = self._counters(
            "callfs_staged_removed_total", "Left-over staged blobs removed.", "backend_type"
        )
        self._links_purged = self._counter("callfs_single_use_links_purged_total", "Expired and used links purged.")
        self._sweep_passes = self._counter("callfs_sweep_passes_total", "Complete passes of the sweep.")
        self._sweep_blobs = self._counters(
            "callfs_sweep_blobs_total", "Blobs that the sweep acted upon, by what it did.", "finding"
        )
        self._sweep_unnamed = self._gauges(
            "callfs_sweep_unnamed_blobs", "Blobs without a name in the sweep's last pass.", "backend_type"
        )
        self._sweep_alarm = self._gauges(
            "callfs_sweep_alarm", "1 while the sweep is stopped: too many blobs look unnamed.", "backend_type"
        )
        self._replications = self._counters(
            "callfs_replications_total", "Second copies made in the background, or tried.", "status"
        )
        self._replication_backlog = self._gauge(
            "callfs_replication_backlog", "Second copies that this node has to make."
        )
        self._replication_failing = self._gauge(
            "callfs_replication_failing", "Those of them that failed before and are tried again."
        )
        self._replication_age = self._gauge(
            "callfs_replication_oldest_age_seconds", "How long the oldest of them has been waiting."
        )
        self._ready = self._gauge("callfs_ready", "1 while the node is ready.")
        self._info = Gauge(
            "callfs_build_info", "Always 1; what is running.", ["version", "instance_id"], registry=self.registry
        )

    # Requests

    def http_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """
        A request has ended.

        :param route: the route's pattern, never the raw path.
        :param seconds: from its headers to the end of the response.
        """
        method = bounded_method(method)
        self._http_requests[method, route, str(status)].inc()
        self._http_seconds[method, route].observe(seconds)

    def internal_request(self, method: str, route: str, status: int) -> None:
        """A peer's request has ended, by its route's pattern."""
        self._internal_requests[bounded_method(method), route, str(status)].inc()

    def request_started(self) -> None:
        """A request's headers are there."""
        self._open_requests.inc()

    def request_ended(self, received_bytes: int, sent_bytes: int) -> None:
        """A started request is over, with the bytes of its two bodies."""
        self._open_requests.dec()
        self._received_bytes.inc(received_bytes)
        self._sent_bytes.inc(sent_bytes)

    def connections(self, count: int) -> None:
        """How many client connections are open."""
        self._connections.set(count)

    def connection_refused(self) -> None:
        """A connection over ``limits.max_connections``."""
        self._refused_connections.inc()

    def rate_limited(self, limit: str) -> None:
        """A request was refused by the limit of this name (``link_generate``, ``download``)."""
        self._rate_limited[limit,].inc()

    def upload_started(self) -> None:
        """A body begins to flow into a stage."""
        self._open_uploads.inc()

    def upload_ended(self) -> None:
        """A started upload is over, however."""
        self._open_uploads.dec()

    def websocket_opened(self) -> None:
        """A WebSocket transfer begins."""
        self._open_websockets.inc()

    def websocket_closed(self) -> None:
        """An opened WebSocket transfer is over."""
        self._open_websockets.dec()

    # Files, backends, metadata, locks, links

    def file_operation(self, operation: FileOperation, backend_type: str) -> None:
        """Something was done with a file whose bytes are on ``backend_type``."""
        self._file_operations[operation, backend_type].inc()

    def backend_operation(self, backend_type: str, operation: str, seconds: float) -> None:
        """A backend did, or failed to do, something."""
        self._backend_operations[backend_type, operation].inc()
        self._backend_seconds[backend_type, operation].observe(seconds)

    def metadata_query(self, operation: str, seconds: float) -> None:
        """The metadata store did, or failed to do, something."""
        self._metadata_queries[operation,].inc()
        self._metadata_seconds[operation,].observe(seconds)

    def metadata_group_commit(self) -> None:
        """The metadata writer committed a group of commands."""
        self._metadata_commits.inc()

    def lock_operation(self, operation: str, status: str, seconds: float) -> None:
        """
        A lock operation has ended.

        :param operation: ``acquire`` or ``release``.
        :param status: ``success``, ``timeout``, ``cancelled`` or ``error``.
        """
        self._lock_operations[operation, status].inc()
        self._lock_seconds[operation,].observe(seconds)

    def active_locks(self, count: int) -> None:
        """How many locks this node holds."""
        self._active_locks.set(count)

    def link_generated(self) -> None:
        """A single-use link was issued."""
        self._link_generations.inc()

    def link_consumed(self, status: LinkConsumption) -> None:
        """Somebody came with a link; ``expired`` also stands for one that was used before."""
        self._link_consumptions[status,].inc()

    def error(self, component: str, error_type: str) -> None:
        """
        Something went wrong.

        :param component: the part of CallFS (``http``, ``backend``, ``metadata``, ``locks``, ``janitor`` ...).
        :param error_type: an error code or the name of an exception's class, never its message.
        """
        self._errors[component, error_type].inc()

    # Garbage and the sweep

    def stored(self, files: int, directories: int, size: int) -> None:
        """What the metadata store names, and the bytes of all files."""
        self._files.set(files)
        self._directories.set(directories)
        self._file_bytes.set(size)

    def garbage_queue_length(self, count: int) -> None:
        """How many blobs are in the garbage queue."""
        self._garbage_queued.set(count)

    def garbage_deleted(self, backend_type: str, count: int = 1) -> None:
        """Blobs from the garbage queue are gone."""
        self._garbage_deleted[backend_type,].inc(count)

    def garbage_failed(self, backend_type: str) -> None:
        """A blob from the garbage queue couldn't be deleted just now."""
        self._garbage_failures[backend_type,].inc()

    def staged_removed(self, backend_type: str, count: int) -> None:
        """Staged blobs that nobody works on were removed."""
        self._staged_removed[backend_type,].inc(count)

    def links_purged(self, count: int) -> None:
        """Expired and used links were purged."""
        self._links_purged.inc(count)

    def sweep_passed(self, unnamed: int, backend_type: str) -> None:
        """The sweep has looked at every blob of a backend and found so many without a name."""
        self._sweep_passes.inc()
        self._sweep_unnamed[backend_type,].set(unnamed)

    def sweep_blobs(self, finding: SweepFinding, count: int) -> None:
        """What the sweep did with so many blobs."""
        self._sweep_blobs[finding,].inc(count)

    def sweep_alarm(self, raised: bool, backend_type: str) -> None:
        """Whether the sweep of a backend is stopped because too many blobs look unnamed."""
        self._sweep_alarm[backend_type,].set(int(raised))

    # Second copies

    def replicated(self, status: ReplicationStatus) -> None:
        """A second copy was made in the background, or couldn't be made just now."""
        self._replications[status,].inc()

    def replication_backlog(self, waiting: int, failing: int, oldest_age_seconds: float) -> None:
        """The second copies that this node has to make, and how long the oldest has been waiting."""
        self._replication_backlog.set(waiting)
        self._replication_failing.set(failing)
        self._replication_age.set(oldest_age_seconds)

    # The node

    def ready(self, is_ready: bool) -> None:
        """Whether the node is ready."""
        self._ready.set(int(is_ready))

    def build_info(self, version: str, instance_id: str) -> None:
        """What is running; called once."""
        self._info.labels(version, instance_id).set(1)

    def render(self) -> tuple[str, bytes]:
        """The content type, and every series in Prometheus' text format 0.0.4."""
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(_WithoutCreated(self.registry))


def bounded_method(method: str) -> str:
    """The method if it is a known one, else ``OTHER``: a client must not be able to make series."""
    return method if method in KNOWN_METHODS else OTHER_METHOD
