"""`python -m cnai_hub.apps.service`: the process that the hub starts."""

from __future__ import annotations

from cnai_hub.apps.service.process import main

if __name__ == "__main__":
    main()
