"""``callfs metadata export`` on a node that keeps its metadata with others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from callfs.cluster.interfaces import SnapshotMeta
from callfs.raft.membership import NOBODY
from tests.cli.test_cluster import as_node
from tests.cli.test_recover import OLD, write_state
from tests.support.forking import run


def exported(folder: Path, data_dir: Path, *to: str) -> subprocess.CompletedProcess[str]:
    """Export what a node has."""
    config = as_node(folder, data_dir=str(data_dir))
    return run([sys.executable, "-m", "callfs", "metadata", "export", "-c", str(config), *to])


def test_it_says_how_far_the_copy_goes(tmp_path: Path) -> None:
    """What a node hasn't heard of yet isn't in its copy: one that is behind mustn't be taken for the cluster."""
    write_state(tmp_path / "raft", SnapshotMeta(12, 2, OLD))
    export = tmp_path / "all.jsonl"
    done = exported(tmp_path, tmp_path / "raft", str(export))
    assert done.returncode == 0
    assert "node n3's own copy, up to entry 12 of the metadata cluster's log" in done.stderr
    assert "Exported 1 files and directories" in done.stderr
    assert export.exists()


def test_a_node_that_was_never_in_a_cluster_is_refused(tmp_path: Path) -> None:
    """Its empty copy isn't the metadata of anybody."""
    write_state(tmp_path / "raft", SnapshotMeta(0, 0, NOBODY))
    export = tmp_path / "all.jsonl"
    done = exported(tmp_path, tmp_path / "raft", str(export))
    assert (done.returncode, done.stdout) == (1, "")
    assert "node n3 has nothing of a metadata cluster" in done.stderr
    assert not export.exists()


def test_a_node_without_a_copy_is_refused(tmp_path: Path) -> None:
    """Nothing is made up, and no folder is made."""
    done = exported(tmp_path, tmp_path / "none")
    assert (done.returncode, "there is no copy of the metadata" in done.stderr) == (1, True)
    assert not (tmp_path / "none").exists()
