"""Foreign forms: names for kinds of JSON that other projects define, so that signatures are readable.

The owner of a format validates it; a copy of its definition here would only be another version. The facts that we read
from such objects are records.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Manifest: TypeAlias = dict[str, Any]
"""A Kubernetes object, or a part of one; the API server validates it."""

Traits: TypeAlias = dict[str, Any]
"""Configuration of JupyterHub or a spawner: values by trait name, or an entry of a trait's list, such as a role."""

Notebook: TypeAlias = dict[str, Any]
"""A notebook, or one of its cells or outputs; nbformat validates it."""

Message: TypeAlias = dict[str, Any]
"""A message between a page and a kernel, or its content; Jupyter's protocol defines it."""
