"""Foreign forms: one name for each kind of JSON that others define, so that a signature tells what it takes.

The owner of a form checks it, and a copy of it here would only be another version of it. The facts that we take out of
such an object are records.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Manifest: TypeAlias = dict[str, Any]
"""An object of Kubernetes, or a part of one; the API server checks it."""

Traits: TypeAlias = dict[str, Any]
"""Configuration of JupyterHub or a spawner: values by the name of a trait, or an entry of a trait's list, as a role."""

Notebook: TypeAlias = dict[str, Any]
"""A notebook, or a cell or an output of one; nbformat checks it."""

Message: TypeAlias = dict[str, Any]
"""A message between a page and a kernel, or the content of one; Jupyter's protocol defines it."""
