"""What is counted, and under which names."""

from __future__ import annotations

import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from callfs.metrics import Metrics

CONTRACT = {
    "callfs_http_requests_total": {"method", "path", "status_code"},
    "callfs_http_request_duration_seconds_bucket": {"method", "path", "le"},
    "callfs_internal_requests_total": {"method", "path", "status_code"},
    "callfs_backend_ops_total": {"backend_type", "operation"},
    "callfs_backend_op_duration_seconds_bucket": {"backend_type", "operation", "le"},
    "callfs_metadata_db_queries_total": {"operation"},
    "callfs_metadata_db_query_duration_seconds_bucket": {"operation", "le"},
    "callfs_single_use_link_generations_total": set(),
    "callfs_single_use_link_consumptions_total": {"status"},
    "callfs_lock_operations_total": {"operation", "status"},
    "callfs_lock_operation_duration_seconds_bucket": {"operation", "le"},
    "callfs_active_locks": set(),
    "callfs_file_operations_total": {"operation", "backend_type"},
    "callfs_errors_total": {"component", "error_type"},
}


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels, as Prometheus reads them."""
    content_type, body = metrics.render()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """One sample's value."""
    return samples(metrics)[name, tuple(sorted(labels.items()))]


@pytest.fixture
def metrics() -> Metrics:
    """Metrics of which everything was counted once."""
    metrics = Metrics()
    metrics.http_request("GET", "/v1/files/{path}", 200, 0.003)
    metrics.internal_request("PUT", "/v1/internal/blobs/{id}", 201)
    metrics.request_started()
    metrics.request_started()
    metrics.request_ended(3, 4)
    metrics.connections(5)
    metrics.connection_refused()
    metrics.rate_limited("download")
    metrics.upload_started()
    metrics.upload_started()
    metrics.upload_ended()
    metrics.websocket_opened()
    metrics.websocket_opened()
    metrics.websocket_closed()
    metrics.file_operation("create", "localfs")
    metrics.backend_operation("localfs", "commit", 0.02)
    metrics.stored(11, 12, 13)
    metrics.metadata_query("get", 0.0002)
    metrics.metadata_group_commit()
    metrics.lock_operation("acquire", "success", 0.0)
    metrics.active_locks(2)
    metrics.link_generated()
    metrics.link_consumed("success")
    metrics.error("backend", "OSError")
    metrics.garbage_queue_length(7)
    metrics.garbage_deleted("localfs", 3)
    metrics.garbage_failed("localfs")
    metrics.staged_removed("localfs", 2)
    metrics.links_purged(4)
    metrics.sweep_passed(6, "localfs")
    metrics.sweep_blobs("condemned", 5)
    metrics.sweep_alarm(True, "localfs")
    metrics.replicated("made")
    metrics.replication_backlog(8, 2, 60.5)
    metrics.ready(True)
    metrics.build_info("1.0", "n1")
    return metrics


class TestNames:
    def test_contract(self, metrics: Metrics) -> None:
        """The metrics of the contract have their exact names and labels."""
        found = {name: {label for label, _ in labels} for name, labels in samples(metrics) if name in CONTRACT}
        assert found == CONTRACT

    def test_no_created_series(self, metrics: Metrics) -> None:
        """There is no ``_created`` series, and the library's own switch isn't touched."""
        assert b"_created" not in metrics.render()[1]
        assert b"_created" not in metrics.render()[1]

    def test_style(self, metrics: Metrics) -> None:
        """All of ours begin alike; the process and the interpreter are described as well."""
        names = {name for name, _ in samples(metrics)}
        assert {name.split("_")[0] for name in names} == {"callfs", "process", "python"}

    def test_no_shared_state(self) -> None:
        """Two nodes in one process count apart."""
        one, other = Metrics(), Metrics()
        one.link_generated()
        assert value(one, "callfs_single_use_link_generations_total") == 1
        assert value(other, "callfs_single_use_link_generations_total") == 0


class TestValues:
    @pytest.mark.parametrize(
        ("name", "labels", "expected"),
        [
            ("callfs_http_requests_total", {"method": "GET", "path": "/v1/files/{path}", "status_code": "200"}, 1),
            ("callfs_http_request_duration_seconds_count", {"method": "GET", "path": "/v1/files/{path}"}, 1),
            (
                "callfs_http_request_duration_seconds_bucket",
                {"method": "GET", "path": "/v1/files/{path}", "le": "0.0025"},
                0,
            ),
            (
                "callfs_http_request_duration_seconds_bucket",
                {"method": "GET", "path": "/v1/files/{path}", "le": "0.005"},
                1,
            ),
            (
                "callfs_internal_requests_total",
                {"method": "PUT", "path": "/v1/internal/blobs/{id}", "status_code": "201"},
                1,
            ),
            ("callfs_http_requests_in_progress", {}, 1),
            ("callfs_http_received_bytes_total", {}, 3),
            ("callfs_http_sent_bytes_total", {}, 4),
            ("callfs_http_connections", {}, 5),
            ("callfs_http_connections_refused_total", {}, 1),
            ("callfs_rate_limited_total", {"limit": "download"}, 1),
            ("callfs_open_uploads", {}, 1),
            ("callfs_open_websockets", {}, 1),
            ("callfs_file_operations_total", {"operation": "create", "backend_type": "localfs"}, 1),
            ("callfs_backend_ops_total", {"operation": "commit", "backend_type": "localfs"}, 1),
            ("callfs_backend_op_duration_seconds_sum", {"operation": "commit", "backend_type": "localfs"}, 0.02),
            ("callfs_files", {}, 11),
            ("callfs_directories", {}, 12),
            ("callfs_file_bytes", {}, 13),
            ("callfs_metadata_db_queries_total", {"operation": "get"}, 1),
            ("callfs_metadata_db_query_duration_seconds_sum", {"operation": "get"}, 0.0002),
            ("callfs_metadata_group_commits_total", {}, 1),
            ("callfs_lock_operations_total", {"operation": "acquire", "status": "success"}, 1),
            ("callfs_lock_operation_duration_seconds_count", {"operation": "acquire"}, 1),
            ("callfs_active_locks", {}, 2),
            ("callfs_single_use_link_generations_total", {}, 1),
            ("callfs_single_use_link_consumptions_total", {"status": "success"}, 1),
            ("callfs_errors_total", {"component": "backend", "error_type": "OSError"}, 1),
            ("callfs_garbage_queue_length", {}, 7),
            ("callfs_garbage_deleted_total", {"backend_type": "localfs"}, 3),
            ("callfs_garbage_failures_total", {"backend_type": "localfs"}, 1),
            ("callfs_staged_removed_total", {"backend_type": "localfs"}, 2),
            ("callfs_single_use_links_purged_total", {}, 4),
            ("callfs_sweep_passes_total", {}, 1),
            ("callfs_sweep_unnamed_blobs", {"backend_type": "localfs"}, 6),
            ("callfs_sweep_blobs_total", {"finding": "condemned"}, 5),
            ("callfs_sweep_alarm", {"backend_type": "localfs"}, 1),
            ("callfs_replications_total", {"status": "made"}, 1),
            ("callfs_replication_backlog", {}, 8),
            ("callfs_replication_failing", {}, 2),
            ("callfs_replication_oldest_age_seconds", {}, 60.5),
            ("callfs_ready", {}, 1),
            ("callfs_build_info", {"version": "1.0", "instance_id": "n1"}, 1),
        ],
    )
    def test_counted(self, metrics: Metrics, name: str, labels: dict[str, str], expected: float) -> None:
        """Each method counts what it says."""
        assert value(metrics, name, **labels) == expected

    def test_unknown_methods(self) -> None:
        """A client can't make series: methods that nobody knows are one."""
        metrics = Metrics()
        for method in ("BREW", "get", "X" * 1000, "\x00"):
            metrics.http_request(method, "/health", 405, 0.0)
            metrics.internal_request(method, "/health", 405)
        assert value(metrics, "callfs_http_requests_total", method="OTHER", path="/health", status_code="405") == 4
        assert (
            value(metrics, "callfs_internal_requests_total", method="OTHER", path="/health", status_code="405") == 4
        )

    def test_threads(self) -> None:
        """Nothing is lost when threads count at once."""
        metrics = Metrics()

        def count() -> None:
            for _ in range(2000):
                metrics.backend_operation("localfs", "read", 0.001)

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert value(metrics, "callfs_backend_ops_total", operation="read", backend_type="localfs") == 8000
