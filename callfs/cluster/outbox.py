"""What waits for a peer: bounded in number and bytes, so that a slow peer loses messages and never takes memory."""

from __future__ import annotations

from collections import deque

from callfs.cluster.wire import Message, Question

MAX_WAITING = 4096
MAX_WAITING_BYTES = 32 * 1024 * 1024


class Outbox:
    """
    Frames in the order of their coming.

    :param most: how many may wait.
    :param most_bytes: how long their payloads may be together; a single longer one may wait alone.
    """

    def __init__(self, most: int = MAX_WAITING, most_bytes: int = MAX_WAITING_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._frames: deque[Message | Question] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Message | Question) -> bool:
        """Let a frame wait; false when there is no room for it."""
        size = len(frame.payload)
        if self._frames and (len(self._frames) >= self._most or self._bytes + size > self._most_bytes):
            return False
        self._frames.append(frame)
        self._bytes += size
        return True

    def take(self) -> Message | Question | None:
        """The next frame."""
        if not self._frames:
            return None
        frame = self._frames.popleft()
        self._bytes -= len(frame.payload)
        return frame

    def withdraw(self, number: int) -> bool:
        """Take back a question that waits; false when it isn't here, so may have been sent."""
        for frame in self._frames:
            if isinstance(frame, Question) and frame.number == number:
                self._frames.remove(frame)
                self._bytes -= len(frame.payload)
                return True
        return False

    def clear(self) -> list[int]:
        """Throw everything away; the numbers of the questions among it."""
        questions = [frame.number for frame in self._frames if isinstance(frame, Question)]
        self._frames.clear()
        self._bytes = 0
        return questions
