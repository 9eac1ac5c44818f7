"""Publish: pack a notebook with what it needs, try it, send it to the hub's apps service, list what is there.

The package has the name of a verb. Python sets `cnai.publish` to this module as soon as anything imports it, so the
module itself can be called, with the signature of `cnai.publish.apps.publish`.
"""

import sys
from types import ModuleType

from cnai.publish.apps import publish


class _Verb(ModuleType):
    """A module that is the function `publish`, too."""

    __call__ = staticmethod(publish)
    __wrapped__ = staticmethod(publish)  # where inspect looks for the signature; `__call__` would lose its first word


sys.modules[__name__].__class__ = _Verb
