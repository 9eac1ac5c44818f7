"""The login of an organization, as configured in helm-values.production.yaml: JupyterHub itself accepts the result."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml
from traitlets.config import Config

pytest.importorskip("oauthenticator", reason="the extra `kubernetes` is not installed")

from jupyterhub import orm
from jupyterhub.app import JupyterHub
from jupyterhub.crypto import CryptKeeper

from cnai_hub.kubernetes.configuration import configure

PRODUCTION = Path(__file__).parents[3] / "helm-values.production.yaml"
CATALOG = {
    "image": [{"name": "torch", "title": "PyTorch", "reference": "registry.example/torch@sha256:" + "0" * 64}],
    "flavor": [{"name": "small", "title": "Small", "cpu": 1, "memory_gib": 2}],
}


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTERHUB_CRYPT_KEY", "0" * 64)  # the chart generates one
    c = Config(yaml.safe_load(PRODUCTION.read_text())["hub"]["config"])
    configure(c, {"catalog": CATALOG, "creators": "staff"}, environment={"CNAI_HOME": str(tmp_path)})
    app = JupyterHub(config=c, db_url="sqlite:///:memory:")
    yield app
    app.db.close()
    JupyterHub.clear_instance()
    CryptKeeper.clear_instance()


def test_groups_come_from_there_and_give_rights_here(app):
    asyncio.run(_begin(app))
    assert app.authenticator.manage_groups
    assert "creator" in {role.name for role in orm.Group.find(app.db, "staff").roles}


async def _begin(app):
    """JupyterHub, initialized up to its users and their roles."""
    app.init_secrets()
    app.init_db()
    app.init_hub()
    app.init_proxy()
    app.init_oauth()
    app.authenticator = app.authenticator_class(parent=app, _deprecated_db_session=app.db)
    await app.init_role_creation()
    await app.init_users()
    await app.init_groups()
    app.init_services()
    await app.init_role_assignment()
