"""``callfs config``: check the configuration, show it, or write a first one."""

from __future__ import annotations

import click

from callfs.cli.newconfig import init
from callfs.cli.options import config_option, config_path, loaded_configuration
from callfs.config.display import shown


@click.group()
@config_option
def config() -> None:
    """Check the configuration, show it, or write a first one."""


config.add_command(init)


@config.command()
@config_option
def validate() -> None:
    """
    Check the configuration.

    Says that it is valid and shows the effective settings, secrets masked; or lists every problem, exit status 2.
    """
    loaded = loaded_configuration(config_path())
    click.echo("Configuration is valid")
    click.echo(shown(loaded.config), nl=False)


@config.command()
@config_option
def show() -> None:
    """
    Print the effective configuration as YAML, each value with where it came from, secrets masked.
    """
    loaded = loaded_configuration(config_path())
    click.echo(shown(loaded.config, loaded.sources), nl=False)
