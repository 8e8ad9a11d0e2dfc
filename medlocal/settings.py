"""Where medlocal keeps its files and whether it may use the network: one frozen object.

Values come, later ones winning, from the defaults, `config.toml` in the home folder, and the
environment (`MEDLOCAL_HOME`, `MEDLOCAL_OFFLINE`, `MEDLOCAL_THREADS`; `HF_HUB_OFFLINE` is respected
too). This module knows nothing about models, runs or data sets.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from medlocal.errors import UsageError, unknown_name

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})
_CONFIG_KEYS: dict[str, tuple[type[int], str]] = {
    "offline": (bool, "true or false"),
    "threads": (int, "a whole number from 0 up"),
}


@dataclass(frozen=True)
class Settings:
    """What holds for one process of medlocal."""

    home: Path = field(default_factory=lambda: default_home(os.environ))
    """The workspace: weights, the run store, reports."""
    offline: bool = False
    """True: no socket is opened, by anything."""
    threads: int = 0
    """CPU threads for the engine; 0 = the cores this process may use."""

    @cached_property
    def store_path(self) -> Path:
        """The one SQLite file of the workspace."""
        return self.home / "medlocal.db"

    @cached_property
    def models_dir(self) -> Path:
        """One folder per pulled model."""
        return self.home / "models"

    @cached_property
    def data_dir(self) -> Path:
        """One folder per data set that was pulled or imported."""
        return self.home / "data"

    @cached_property
    def reports_dir(self) -> Path:
        """Markdown reports, one per run."""
        return self.home / "reports"

    @property
    def num_threads(self) -> int:
        """CPU threads that the engine really uses."""
        return self.threads or len(os.sched_getaffinity(0))


def default_home(environ: Mapping[str, str]) -> Path:
    """The home folder that the environment names: `MEDLOCAL_HOME`, else the XDG data folder."""
    if explicit := environ.get("MEDLOCAL_HOME"):
        return Path(explicit).expanduser().absolute()
    data = environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser().absolute() / "medlocal"


def load_settings(
    environ: Mapping[str, str] | None = None, *, offline: bool | None = None
) -> Settings:
    """Read the settings of this process.

    Args:
        environ: the environment; None = the process's own.
        offline: what the command line said; None = it said nothing.

    Raises:
        UsageError: the configuration file or a variable holds something that cannot be meant.
    """
    env = os.environ if environ is None else environ
    home = default_home(env)
    values = _read_config(home / "config.toml")
    for variable in ("HF_HUB_OFFLINE", "MEDLOCAL_OFFLINE"):
        if variable in env:
            values["offline"] = _boolean(variable, env[variable])
    if threads := env.get("MEDLOCAL_THREADS"):
        values["threads"] = _whole_number("MEDLOCAL_THREADS", threads)
    if offline is not None:
        values["offline"] = offline
    return Settings(home=home, **values)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}", hint="mend the file or move it away") from error
    for key, value in values.items():
        if key not in _CONFIG_KEYS:
            raise unknown_name(f"setting (in {path})", key, _CONFIG_KEYS)
        kind, meant = _CONFIG_KEYS[key]
        # Not isinstance: for Python, true is a whole number.
        if type(value) is not kind or value < 0:
            raise UsageError(f"{path}: {key} must be {meant}, not {value!r}", hint="mend the file")
    return values


def _boolean(variable: str, text: str) -> bool:
    if (word := text.strip().lower()) in _TRUE | _FALSE:
        return word in _TRUE
    raise UsageError(f"{variable}={text!r} is neither yes nor no", hint="use 1 or 0")


def _whole_number(variable: str, text: str) -> int:
    hint = "use 0 for the cores this process may use"
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise UsageError(f"{variable}={text!r} is not a whole number from 0 up", hint=hint)
    return number
