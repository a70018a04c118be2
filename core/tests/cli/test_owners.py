"""``bai domain``, ``bai project``, and what of them other commands show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from backendai.client import Client

if TYPE_CHECKING:
    from conftest import Bai
    from tests.parts.inside import Inside

SMALL = ("-r", "cpu=0.01,mem=1m")


@pytest.fixture
def rest(inside: Inside) -> Any:
    """Return what GET of a path answers."""
    with Client(inside.url, inside.token) as client:
        yield client.get


def test_a_domain_from_its_beginning_to_its_end(here: Bai, rest: Any) -> None:
    made = here("domain", "create", "bio", "--weight", "2")
    assert re.search(r"^bio +2 +no +yes", made.out, re.MULTILINE)
    assert here("domain", "set", "bio", "--borrow", "yes", "--json").json["borrow"] is True
    assert here("domain", "ls", "--json").json == rest("/v1/domains")
    assert here("domain", "show", "bio", "--json").json == rest("/v1/domains/bio")
    assert "choose another name" in here("domain", "create", "bio", code=75).err
    assert here("domain", "rm", "bio", "no-such", "default", "--json", code=66).json == {"removed": ["bio"]}
    assert "bio" not in here("domain", "ls").out and re.search(r"^bio .* no ", here("domain", "ls", "-a").out, re.MULTILINE)
    here("domain", "set", "bio", "--active", "yes")
    assert "bio" in here("domain", "ls").out


def test_a_project_and_its_members(here: Bai, rest: Any, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    here("domain", "create", "chem")
    assert re.search(r"^acids +chem +1 +0 +yes", here("project", "create", "acids", "--domain", "chem").out, re.MULTILINE)
    for name in ("marie", "irene"):
        here("user", "create", name, "--domain", "chem", "--project", "acids")
    assert here("project", "add", "chem/acids", "marie", "nobody", "--role", "admin", "--json", code=66).json == {
        "items": [{"user": "marie", "role": "admin", "email": ""}]}
    assert here("project", "members", "chem/acids", "--json").json == rest("/v1/projects/chem%2Facids/members")
    assert re.search(r"^irene +member", here("project", "members", "chem/acids").out, re.MULTILINE)
    listed = here("user", "ls", "--domain", "chem").out
    assert re.search(r"^marie +user +1000:1000 +chem +acids \(admin\), default +yes", listed, re.MULTILINE)
    assert "admin" not in here("user", "ls", "--project", "chem/acids").out.split()
    token = here("token", "create", "hers", "--user", "marie", "--scope", "sessions,project:chem/acids", "--expires", "30d").out.strip()
    assert re.search(r"hers +marie +sessions project:chem/acids", here("token", "ls").out)
    monkeypatch.setenv("BACKENDAI_TOKEN", token)
    said = here("whoami").out
    assert re.search(r"^domain +chem$", said, re.MULTILINE) and re.search(r"^projects +acids \(admin\), default$", said, re.MULTILINE)
    assert re.search(r"^token for +sessions, project:chem/acids$", said, re.MULTILINE)
    assert "This token" in here("project", "add", "acids", "irene", "--role", "viewer", code=77).err
    assert here("run", *SMALL, "--json", "--name", "brew", "--", "true").json["project"] == "acids"
    monkeypatch.setenv("BACKENDAI_TOKEN", inside.token)
    here("project", "remove", "chem/acids", "irene")
    assert "irene" not in here("project", "members", "chem/acids").out
    here("project", "rm", "chem/acids")
    assert "no project" not in here("project", "show", "chem/acids").out


def test_ps_shows_as_much_as_is_asked_for(here: Bai, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    here("user", "create", "bob")
    bob = here("token", "create", "his", "--user", "bob").out.strip()
    monkeypatch.setenv("BACKENDAI_TOKEN", bob)
    here("start", *SMALL, "-e", "SECRET=x", "--name", "bobs")
    assert "bobs" in here("ps").out and "OWNER" not in here("ps").out
    monkeypatch.setenv("BACKENDAI_TOKEN", inside.token)
    here("start", *SMALL, "--name", "admins")
    assert "bobs" not in here("ps").out
    for words in (("-A",), ("--user", "bob"), ("--project", "default")):
        assert "bobs" in here("ps", *words).out, words
    assert re.search(r"^NAME +OWNER", here("ps", "-A").out) and "admins" not in here("ps", "--user", "bob").out
    monkeypatch.setenv("BACKENDAI_TOKEN", bob)
    assert "admins" in here("ps", "-A").out, "they are members of the same project"
    assert here("info", "admin/admins", "--json").json["owner"] == "admin"
    assert "Only its owner" in here("exec", "admin/admins", "--", "id", code=77).err
    assert "Only its owner" in here("stop", "admin/admins", code=77).err
    monkeypatch.setenv("BACKENDAI_TOKEN", inside.token)
    here("rm", "-f", "admins", "bob/bobs")


def test_a_project_with_active_sessions_is_not_closed(here: Bai) -> None:
    here("project", "create", "busy")
    here("start", *SMALL, "--name", "stays", "--project", "busy")
    said = here("project", "rm", "busy", code=75).err
    assert "1 session in the project default/busy has not ended" in said and "bai ps -A" in said
    here("rm", "-f", "stays")
    here("project", "rm", "busy")
    assert "not in use any more" in here("run", *SMALL, "--project", "busy", "--", "true", code=75).err
    assert "cannot be closed" in here("project", "rm", "default", code=75).err
    assert "cannot be closed" in here("domain", "rm", "default", code=75).err


def test_what_the_page_shows_works_in_order(here: Bai) -> None:
    page = (Path(__file__).parents[3] / "docs" / "ownership.md").read_text()
    shown = [shlex.split(line[2:]) for block in re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
             for line in block.splitlines()]
    assert len(shown) > 8
    for _, *words in shown:
        here(*words)
