"""
A small file system of its own for a daemon: a tmpfs in a private mount namespace. It needs no mount outside,
goes away with its last process, and works without root where user namespaces are allowed.
"""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

from tests.support.forking import die_with_parent
from tests.support.waiting import eventually


class SmallDisk:
    """
    A tmpfs of a fixed size.

    :param folder: where processes inside the namespace see it; must exist.
    :param size_bytes: what it holds.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        as_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        script = f'mount -t tmpfs -o size={size_bytes},mode=0755 tmpfs "$1" && echo ready && exec sleep 100000'
        self._holder = subprocess.Popen(
            ["unshare", *as_user, "--mount", "sh", "-c", script, "sh", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            preexec_fn=die_with_parent,
        )
        assert self._holder.stdout is not None
        line = self._holder.stdout.readline()
        assert line == b"ready\n", "this test mounts a tmpfs: run it as root, or allow user namespaces"

    @property
    def wrapper(self) -> list[str]:
        """The command that puts another into the namespace."""
        as_user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self._holder.pid), *as_user, "--mount"]

    @property
    def inside(self) -> Path:
        """The disk's files as seen from outside of the namespace."""
        return Path(f"/proc/{self._holder.pid}/root") / self.folder.relative_to("/")

    def free_bytes(self) -> int:
        """What can still be written."""
        status = os.statvfs(self.inside)
        return status.f_bavail * status.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Put a ballast on it that leaves so much room."""
        with (self.inside / "ballast").open("wb") as ballast:

            def filled() -> bool:
                # Who else writes there may take some of the room between the question and the answer.
                try:
                    os.posix_fallocate(ballast.fileno(), 0, self.free_bytes() - leave_bytes)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    os.ftruncate(ballast.fileno(), 0)
                    return False
                return True

            eventually(filled, what="the ballast")

    def free(self) -> None:
        """Take the ballast away."""
        (self.inside / "ballast").unlink()

    def make_read_only(self) -> None:
        """Nothing can be written from now on; nobody may have a file open for writing."""

        def remounted() -> bool:
            command = [*self.wrapper, "mount", "-o", "remount,ro", str(self.folder)]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0

        eventually(remounted, what="the read-only mount")

    def close(self) -> None:
        """Let go of the namespace."""
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()
