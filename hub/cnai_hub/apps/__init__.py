"""Apps: published notebooks, each served by a named server `app-<slug>` of its author.

The server's name and the store of releases (`$CNAI_HOME/apps`) determine what it runs, never user options.
"""
