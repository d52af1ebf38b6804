"""
What commands share: the ``-c/--config`` option, and loading the configuration that it names.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any] | click.Command)

USAGE_STATUS = 2
"""The exit status for wrong usage or configuration."""


def _remember(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    # A context hands its object down to those of the commands inside it, which are parsed later: so the option
    # counts before and after a command's name, and the last one wins.
    if value is not None:
        ctx.obj = Path(value)


def config_option(function: F) -> F:
    """Give a command the option ``-c/--config``; :func:`config_path` has its value."""
    return click.option(
        "-c",
        "--config",
        metavar="PATH",
        expose_value=False,
        callback=_remember,
        help="The configuration file, YAML or JSON by its ending.",
    )(function)


def config_path() -> Path | None:
    """The path given with ``-c/--config``, before or after the name of the running command."""
    path: Path | None = click.get_current_context().obj
    return path


def loaded_configuration(path: Path | None, *, warn: bool = True) -> Any:
    """
    Load the configuration for a command.

    Ends the command with status 2, after listing the problems, when it can't be used.

    :param path: as :func:`config_path` has it.
    :param warn: tell its warnings on standard error; the daemon has them in its log.
    :return: a :class:`callfs.config.loader.Loaded`.
    """
    from callfs.config.loader import load
    from callfs.config.problems import ConfigurationError

    try:
        loaded = load(path, os.environ, Path.cwd())
    except ConfigurationError as error:
        count = len(error.problems)
        click.echo(f"The configuration has {count} problem{'s' if count > 1 else ''}:", err=True)
        for problem in error.problems:
            click.echo(f"  {problem}", err=True)
        sys.exit(USAGE_STATUS)
    for warning in loaded.warnings if warn else ():
        click.echo(f"Warning: {warning}", err=True)
    return loaded
