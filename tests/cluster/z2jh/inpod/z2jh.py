"""Values of the release, as the chart's module of this name hands them to configuration files."""

import json
from functools import cache
from pathlib import Path

_SECRET = Path(__file__).parent / "secret"
_MISSING = object()


@cache
def _values():
    # JSON, which is YAML.
    return json.loads((_SECRET / "values.yaml").read_text())


def get_config(key, default=None):
    """Return the value at a path of keys with dots."""
    value = _values()
    for level in key.split("."):
        if not isinstance(value, dict) or level not in value:
            return default
        value = value[level]
    return value


def get_secret_value(key, default=_MISSING):
    """Return what the release's secret has for a key."""
    path = _SECRET / key
    if not path.exists() and default is not _MISSING:
        return default
    return path.read_text()


def set_config_if_not_none(section, trait, key):
    """Set a trait where the values have something for it."""
    if (value := get_config(key)) is not None:
        setattr(section, trait, value)
