"""
YAML, strictly: nothing is there twice, every fault and every value has its line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

Steps = tuple[str | int, ...]
# A section, a key, an entry of it, an item of that: deeper there is nothing to tell the line of.
_DEEPEST = 4


class InvalidYaml(Exception):
    """
    The text is no YAML that can be used.

    :param line: where, from 1; 0 when it can't be told.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def parse_yaml(text: str) -> tuple[Any, dict[Steps, int]]:
    """
    Read a YAML text of one document; anchors, aliases and merge keys are allowed.

    :return: the value, ``None`` for an empty text, and the lines, from 1, of what is in it, by the steps to it.
    :raises InvalidYaml: it is none, names something twice, or has a tag of its own.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        _refuse_repeated_names(node)
        value = loader.construct_document(node)
        return value, dict(_lines(node, ()))
    except yaml.MarkedYAMLError as error:
        raise InvalidYaml(_described(error), _line(error.problem_mark or error.context_mark)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InvalidYaml(f"the character U+{ord(text[error.position]):04X} isn't allowed", line) from None
    except RecursionError:
        raise InvalidYaml("nested too deeply") from None
    except ValueError:
        # A number of thousands of digits, or a date that isn't one.
        raise InvalidYaml("a number or date that can't be read; put text in quotes") from None


def _described(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "not understood"
    if "'\\t'" in problem:
        return "a tab where only blanks are allowed: indent with blanks"
    if "could not determine a constructor" in problem:
        return "tags such as !name aren't allowed"
    return problem


def _line(mark: Any) -> int:
    return 0 if mark is None else mark.line + 1


def _refuse_repeated_names(top: yaml.Node) -> None:
    """Before merge keys are resolved: what is merged in may be named again."""
    open_nodes, seen = [top], set()
    while open_nodes:
        node = open_nodes.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _refuse_repeated_names_in(node)
            open_nodes += [value for _, value in node.value]
        else:
            open_nodes += node.value


def _refuse_repeated_names_in(node: yaml.MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise InvalidYaml("a name must be plain text", _line(key.start_mark))
        if first := lines.get((key.tag, key.value)):
            raise InvalidYaml(f"{key.value!r} is there twice, first in line {first}", _line(key.start_mark))
        lines[key.tag, key.value] = _line(key.start_mark)


def _lines(node: yaml.Node, steps: Steps) -> Iterator[tuple[Steps, int]]:
    """Merged entries come first, so that an entry of the map's own decides."""
    if len(steps) >= _DEEPEST:
        return
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*steps, key.value), _line(key.start_mark)
            yield from _lines(value, (*steps, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield (*steps, i), _line(value.start_mark)
            yield from _lines(value, (*steps, i))
