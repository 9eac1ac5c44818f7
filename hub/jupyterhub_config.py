"""JupyterHub's configuration for one machine: `jupyterhub -f hub/jupyterhub_config.py`."""

import cnai_hub

cnai_hub.configure(get_config())  # noqa: F821 - JupyterHub provides it
