"""The configuration of a `clusterhub.ClusterHub`: the settings that the chart would make, then ours."""

import json
import os
from pathlib import Path

from cnai_hub.kubernetes import configure
from cnai_hub.local import proxy

c = get_config()  # noqa: F821 - traitlets defines it
given = json.loads(os.environ["CLUSTERHUB"])
home, address, ports = Path(os.environ["CNAI_HOME"]), given["address"], given["ports"]

c.JupyterHub.bind_url = f"http://127.0.0.1:{os.environ['CNAI_PORT']}/"
c.JupyterHub.hub_ip = c.JupyterHub.hub_connect_ip = address
c.JupyterHub.hub_port = ports["hub"]
c.JupyterHub.db_url = f"sqlite:///{home / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(home / "cookie_secret")
# A hub in a pod leaves servers running when it stops.
c.JupyterHub.cleanup_servers = False
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.load_groups = {name: {"users": users} for name, users in given["groups"].items()}
c.DummyAuthenticator.password = given["password"]
c.Authenticator.allow_all = True
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{ports['proxy']}"
c.ConfigurableHTTPProxy.command = proxy.command()
c.ConfigurableHTTPProxy.pid_file = str(home / "proxy.pid")
c.ConfigurableHTTPProxy.log_level = "error"

configure(c, given["settings"])
