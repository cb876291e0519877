"""Commands on click: help in sections, flags as one object, texts printed unchanged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import SimpleNamespace

import click

from cli.errors import UsageError
from cli.server_flags import given_server_flags, server_flags
from cli.usage import completed, explained, first_example

Args = SimpleNamespace  # one member for each flag

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Base(click.Command):
    """Prints descriptions unchanged and flags in sections; explains what it cannot parse."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; raise `UsageError` that says what to do instead."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            raise completed(error, ctx) from None
        except click.UsageError as error:
            raise completed(explained(error, ctx), ctx) from None

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the description with its examples."""
        formatter.write(f"\n{(self.help or '').strip()}\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the flags, each section under its title."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                sections.setdefault(getattr(param, "section", "help"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog."""
        if self.epilog:
            formatter.write(f"\n{self.epilog.strip()}\n")


class Command(_Base):
    """A command. ``run`` gets all flags, also those of the server, and returns the exit code."""

    def __init__(
        self,
        name: str,
        run: Callable[[Args], int],
        *,
        summary: str,
        text: str,
        params: Iterable[click.Parameter] = (),
    ) -> None:
        """``summary`` is the line in the list of commands, ``text`` the description."""
        super().__init__(
            name,
            params=[*params, *server_flags()],
            short_help=summary,
            help=text,
            options_metavar="[flags]",
            context_settings={"allow_extra_args": True},
        )
        self._run = run

    def invoke(self, ctx: click.Context) -> int:
        """Run the command; raise `UsageError` for an argument that it does not take."""
        if ctx.args:
            words = ctx.command_path.partition(" ")[2]
            raise UsageError(f"{words}: unexpected argument {ctx.args[0]!r}", first_example(self))
        args = Args(**ctx.params, **given_server_flags(ctx))
        # gRPC's own log would appear between the lines; our errors contain its information.
        os.environ.setdefault("GRPC_VERBOSITY", "DEBUG" if args.debug else "NONE")
        try:
            return self._run(args)
        except UsageError as error:
            raise completed(error, ctx) from None


class Group(_Base, click.Group):
    """A command with commands, each found in a module that is imported when it is needed."""

    def __init__(
        self,
        name: str,
        modules: Mapping[str, str],
        *,
        summary: str,
        text: str,
        epilog: str = "",
        aliases: Mapping[str, str] | None = None,
        params: Iterable[click.Parameter] = (),
    ) -> None:
        """``modules`` has ``module:attribute`` by the command's name."""
        super().__init__(
            name,
            params=[*params, *server_flags()],
            short_help=summary,
            help=text,
            epilog=epilog,
            options_metavar="",
            subcommand_metavar="COMMAND [flags]",
            invoke_without_command=True,
            callback=_needs_command,
            context_settings=_SETTINGS,
        )
        self._modules = modules
        self._aliases = aliases or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, then the flags."""
        self.format_commands(ctx, formatter)
        _Base.format_options(self, ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first argument names; raise `UsageError`."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise explained(error, ctx) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, without aliases."""
        return [*self._modules]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, imported; None if there is none of this name."""
        place = self._modules.get(self._aliases.get(cmd_name, cmd_name))
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


def _needs_command(**params: object) -> None:
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is not None:
        return
    if ctx.parent is None:
        click.echo(ctx.get_help())
        ctx.exit()
    assert isinstance(ctx.command, Group)
    raise UsageError(
        f"{ctx.info_name}: {'|'.join(ctx.command.list_commands(ctx))} is missing",
        first_example(ctx.command),
    )
