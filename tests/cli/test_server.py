"""What ``callfs server`` does before there is a node."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.forking import run

PROGRAM = """
import atexit, gc, sys
from callfs.cli import main
atexit.register(lambda: print("callfs.node" in sys.modules, gc.isenabled(), gc.get_freeze_count() > 50_000))
main(["server", "-c", sys.argv[1]])
"""


def test_modules_are_no_garbage(tmp_path: Path) -> None:
    """Garbage is collected, and what modules are made of isn't looked at for it."""
    done = run([sys.executable, "-c", PROGRAM, str(tmp_path / "nowhere.yaml")], fresh=True)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "True True True\n"
