"""Apps: published notebooks, each served by a named server `app-<slug>` of its author.

What such a server starts is fixed by its name and the store of releases (`$CNAI_HOME/apps`), never by user options.
"""
