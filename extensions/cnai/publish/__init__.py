"""Publish: packs, tries and sends a notebook to the hub's apps service, and lists the apps there.

The package has the name of a verb. Python sets `cnai.publish` to this module as soon as any code imports it, so the
module itself is callable, with the signature of `cnai.publish.apps.publish`.
"""

import sys
from types import ModuleType

from cnai.publish.apps import publish


class _Verb(ModuleType):
    """A module that can be called like the function `publish`."""

    __call__ = staticmethod(publish)
    __wrapped__ = staticmethod(publish)  # for inspect, which would drop the first parameter of `__call__`


sys.modules[__name__].__class__ = _Verb
