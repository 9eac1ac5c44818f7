"""`python -m cnai_hub.apps.server <folder of the app>`: the program that a spawner starts."""

from __future__ import annotations

from cnai_hub.apps.server.voila import main

if __name__ == "__main__":
    main()
