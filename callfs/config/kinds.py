"""
What a value may be: the base of all kinds.

A kind reads what was given, whether as YAML or JSON, as text from the environment, or as the content of a
``{file: path}``, and makes the parsed value or says what would have been allowed.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeGuard

from callfs.config.given import Origin, OutsideText, UnreadableFile, described, refuse
from callfs.config.problems import ConfigurationError, Problem


class Kind:
    """What a value may be."""

    allowed: str = ""
    secret: bool = False

    def read(self, key: str, value: object, origin: Origin) -> Any:
        """
        Make the parsed value of what was given.

        :param key: the full key, for messages.
        :raises callfs.config.problems.ConfigurationError: it isn't allowed; with every problem inside it.
        """
        return self.check(key, self.plain(key, value, origin), origin)

    def plain(self, key: str, value: object, origin: Origin) -> object:
        """What was given, after reading the file that it names and the text that came from outside."""
        if is_file_reference(value):
            value = _content(key, value["file"], origin, self.secret)
        return self.from_text(key, value, origin) if isinstance(value, OutsideText) else value

    def from_text(self, key: str, outside: OutsideText, origin: Origin) -> object:
        """What text from outside stands for; by default itself."""
        return outside.text

    def check(self, key: str, value: object, origin: Origin) -> Any:
        """Make the parsed value of a plain one."""
        raise NotImplementedError

    def refuse(self, key: str, value: object, origin: Origin, allowed: str | None = None) -> NoReturn:
        """Say what was given and what is allowed."""
        refuse(key, value, self.allowed if allowed is None else allowed, origin, self.secret)


def is_file_reference(value: object) -> TypeGuard[dict[str, str | OutsideText]]:
    """Whether a value is ``{file: path}``."""
    return isinstance(value, dict) and value.keys() == {"file"} and isinstance(value["file"], str | OutsideText)


def _content(key: str, path: str | OutsideText, origin: Origin, secret: bool) -> OutsideText:
    name = path.text if isinstance(path, OutsideText) else path
    # Somebody may have put the secret itself where its file's path belongs.
    shown = "its file" if secret and "/" not in name else f"the file {described(name)[5:]}"
    try:
        return OutsideText(origin.read_text(origin.base / name), from_file=True)
    except (UnreadableFile, ValueError) as error:
        raise ConfigurationError([Problem(key, f"{shown} can't be read: {error}", str(origin))]) from None
