"""What administrators are told holds: every claim of the security model names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "administrators.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def test_every_test_that_is_named_exists():
    missing = [
        f"{path}::{name}" for path, name in NAMED if not re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.M)
    ]
    assert missing == []


def test_every_line_of_the_security_model_names_a_test():
    table = PAGE.partition("## Security")[2].partition("\n\n|")[2].partition("\n\n")[0]
    lines = table.splitlines()[2:]
    assert len(lines) > 15
    assert [line for line in lines if not re.search(r"\| `tests/[\w/]+\.py::\w+`", line)] == []


def test_files_that_are_linked_exist():
    links = re.findall(r"\]\((\.\./[^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
