"""Settings from flags and environment: ``--log-level`` overrides ``TETRA_LOG_LEVEL``."""

from __future__ import annotations

import os
import re
import sys
from argparse import Action, RawDescriptionHelpFormatter
from typing import Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from chassis.errors import SettingsError

S = TypeVar("S", bound=BaseSettings)

ENV_PREFIX = "TETRA_"
# pydantic looks through all installed packages for plugins and would run them: none is meant.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

# Every base of a service's settings has this style: that of the last base would hold otherwise.
STYLE = SettingsConfigDict(
    env_prefix=ENV_PREFIX,
    defer_build=True,  # a service builds the validator of its own settings only
    populate_by_name=True,
    cli_kebab_case=True,
    cli_implicit_flags=True,
    cli_avoid_json=True,
    cli_hide_none_type=True,
)

_NO_DEFAULT = re.compile(r"\s*\(default: (None|null)?\)|\s*\(default factory: [^)]*\)")


# What a value is, by how its setting is named, else by its Python type.
_BY_NAME = {
    "_dir": "FOLDER", "_file": "FILE", "_address": "HOST:PORT", "_url": "URL", "_socket": "SOCKET",
    "_bytes": "BYTES", "_mb": "MB", "_ms": "MILLISECONDS", "_s": "SECONDS", "_port": "PORT",
}  # fmt: skip
_BY_TYPE = {
    "str": "TEXT", "int": "NUMBER", "float": "NUMBER", "Path": "PATH",
    "dict[str,str]": "KEY=VALUE[,...]", "Rate": "COUNT,TIME",
}  # fmt: skip


class _HelpFormatter(RawDescriptionHelpFormatter):
    """Names values in words, and leaves out the default of a flag that has none: None, "", {}."""

    def _get_help_string(self, action: Action) -> str | None:
        return _NO_DEFAULT.sub("", action.help) if action.help else action.help

    def _format_args(self, action: Action, default_metavar: str) -> str:
        if isinstance(action.metavar, str):
            named = action.option_strings[-1].replace("-", "_")
            by_type = _BY_TYPE.get(action.metavar, action.metavar)
            endings = (word for ending, word in _BY_NAME.items() if named.endswith(ending))
            action.metavar = by_type if by_type == action.metavar else next(endings, by_type)
        return super()._format_args(action, default_metavar)


class ServiceSettings(BaseSettings):
    """Settings of every service."""

    model_config = STYLE

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="lowest level that is logged"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, else one JSON object a line"
    )
    scheduling: Literal["batch", "normal"] = Field(
        "batch",
        description="batch: a wake-up of this service does not take the CPU from another program "
        "(SCHED_BATCH); normal: it may",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take settings from flags and environment only."""
        return init_settings, env_settings


def from_flags(settings: type[S], argv: list[str] | None) -> S:
    """Return settings from flags and environment; raise pydantic's `ValidationError`.

    ``argv`` are the flags; None takes those of this process.
    """
    source: CliSettingsSource[S] = CliSettingsSource(settings, formatter_class=_HelpFormatter)
    return CliApp.run(settings, cli_args=argv, cli_settings_source=source)


def load(settings: type[S], service: str, argv: list[str] | None = None) -> S:
    """Return the settings of ``tetra-<service>``; raise `SettingsError` naming what is wrong.

    ``argv`` are the flags; None takes those of this process.
    """
    flags = sys.argv[1:] if argv is None else argv
    try:
        if not flags:
            return settings()  # without the parser of flags, which takes 8 ms
        return from_flags(_with_flags(settings, service), flags)
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]) or "settings"
        field = settings.model_fields.get(name)
        env = (
            field.validation_alias
            if field and isinstance(field.validation_alias, str)
            else ENV_PREFIX + name.upper()
        )
        message = first["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        raise SettingsError(f"settings: {env} (--{name.replace('_', '-')}): {message}") from None


def _with_flags(settings: type[S], service: str) -> type[S]:
    """Return the settings with what `--help` says of the service."""
    return type(
        settings.__name__,
        (settings,),
        {
            "__module__": settings.__module__,
            "__doc__": f"Each --flag is also an environment variable: --log-level is "
            f"{ENV_PREFIX}LOG_LEVEL.",
            "model_config": SettingsConfigDict(cli_prog_name=f"tetra-{service}"),
        },
    )
