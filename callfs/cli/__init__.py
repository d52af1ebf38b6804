"""
The command line: ``callfs``.

Each command is in a module of its own, imported when it is used, so that ``callfs --version`` needn't wait for
the daemon's imports.
"""

from __future__ import annotations

from importlib import import_module

import click

from callfs import __version__
from callfs.cli.options import config_option

COMMANDS = {
    "server": ("callfs.cli.server", "server", "Run the daemon; so does callfs alone."),
    "config": ("callfs.cli.config", "config", "Check the configuration, show it, or write a first one."),
    "metadata": ("callfs.cli.metadata", "metadata", "Move the metadata to another store."),
    "cluster": (
        "callfs.cli.cluster",
        "cluster",
        "The nodes that keep the metadata: join, status, remove, recover.",
    ),
    "node": ("callfs.cli.node", "node", "Take a node away."),
    "replication": ("callfs.cli.replication", "replication", "Second copies: what waits, and what is missing."),
    "fsck": ("callfs.cli.fsck", "fsck", "Check that names and bytes fit together."),
}
"""Every command: its module, its name there, and its line in the help text."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; ``None`` if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "--version", prog_name="callfs", message="%(prog)s %(version)s")
@config_option
@click.pass_context
def main(ctx: click.Context) -> None:
    """
    CallFS: a file system behind a REST API.

    Without a command the daemon is started, as by `callfs server`. Without -c the configuration is config.yaml,
    config.yml or config.json in the working directory, else /etc/callfs/config.yaml; environment variables
    (CALLFS_SERVER__LISTEN_ADDR=:8080) win over it.

    Exit status: 0 good, 1 findings or failure, 2 wrong usage or configuration.
    """
    if ctx.invoked_subcommand is None:
        command = main.get_command(ctx, "server")
        if command is not None:
            ctx.invoke(command)
