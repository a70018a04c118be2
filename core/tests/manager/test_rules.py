"""The table of who may do what, on its own: no server, no database."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from backendai.manager.access import SCOPES, Caller, Rank, Thing, check_scopes, may, narrower, needed_scope, require, standings
from backendai.manager.rules import RULES, As, Verb
from backendai.model.errors import Failure
from backendai.spec.hook_v20 import User
from hypothesis import given
from hypothesis import strategies as st

CORE = Path(__file__).parents[2] / "backendai"
PAGE = Path(__file__).parents[3] / "docs" / "ownership.md"
SHORT = {As.EVERYONE: "everyone", As.GUEST: "whom it is open to", As.FELLOW: "users of its domain", As.OWNER: "its owner",
         As.VIEWER: "viewers", As.MEMBER: "members", As.INSIDER: "its owner, as a member", As.PROJECT_ADMIN: "project admins",
         As.DOMAIN_ADMIN: "domain admins"}


def table() -> str:
    """Return the page's table as the code has it."""
    lines = ["| | " + " | ".join(Verb) + " |", "|---" * (len(Verb) + 1) + "|"]
    for kind, verbs in RULES.items():
        cells = (", ".join(SHORT[who] for who in verbs[verb]) or "-" if verb in verbs else "" for verb in Verb)
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_page_shows_the_table_as_it_is() -> None:
    assert table() in PAGE.read_text(), f"docs/ownership.md must hold:\n{table()}"


def test_the_page_names_every_scope() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)) == SCOPES.keys()


def test_no_part_of_the_manager_asks_for_a_kind_that_the_table_has_not() -> None:
    source = "".join(path.read_text() for path in (CORE / "manager").rglob("*.py"))
    asked = set(re.findall(r'(?:Thing|\.thing|thing_of_user|_thing)\((?:row, |r, )?"([a-z ]+)"', source))
    assert {"session", "user", "token"} <= asked and asked <= RULES.keys()


USERS = {
    "stranger": Caller(User("u1", "s", "user"), domain_id="blue", project_id="b"),
    "fellow": Caller(User("u2", "f", "user"), domain_id="red", project_id="x", projects={"x": Rank.ADMIN}),
    "viewer": Caller(User("u3", "v", "user"), domain_id="red", projects={"p": Rank.VIEWER}),
    "member": Caller(User("u4", "m", "user"), domain_id="red", projects={"p": Rank.MEMBER}),
    "owner": Caller(User("u5", "o", "user"), domain_id="red", projects={"p": Rank.MEMBER}),
    "former": Caller(User("u5", "o", "user"), domain_id="red"),
    "chief": Caller(User("u6", "c", "user"), domain_id="red", projects={"p": Rank.ADMIN}),
    "ruler": Caller(User("u7", "r", "domain-admin"), domain_id="red", domains=frozenset({"red"})),
    "other ruler": Caller(User("u8", "q", "domain-admin"), domain_id="blue", domains=frozenset({"blue"})),
    "superadmin": Caller(User("u9", "a", "superadmin")),
}
SESSION, PROJECT = Thing("session", "u5", "p", "red"), Thing("project", None, "p", "red")
MAY = {  # r: see, c: make one there, w: stop, x: enter; of a session. R, C, W of its project
    "stranger": "", "fellow": "", "viewer": "rR", "member": "rcR", "owner": "rcwxR", "former": "rw", "chief": "rcwR", "ruler": "rcwRCW",
    "other ruler": "", "superadmin": "rcwxRCW",
}


@pytest.mark.parametrize("who", USERS)
def test_what_each_may_do_with_a_session_and_its_project(who: str) -> None:
    verbs = {"r": Verb.READ, "c": Verb.CREATE, "w": Verb.CHANGE, "x": Verb.EXEC}
    new = Thing("session", None, "p", "red")
    found = "".join(letter for letter, verb in verbs.items() if may(USERS[who], verb, new if verb is Verb.CREATE else SESSION))
    found += "".join(letter.upper() for letter in "rcw" if may(USERS[who], verbs[letter], PROJECT))
    assert found == MAY[who]


def test_hidden_is_not_found_and_seen_is_forbidden_with_who_may() -> None:
    for who, verb, code, said in (("stranger", Verb.CHANGE, "not-found", "no such session"), ("viewer", Verb.READ, "", ""),
                                  ("viewer", Verb.CHANGE, "forbidden", "Only its owner or an administrator of its project"),
                                  ("chief", Verb.EXEC, "forbidden", "its owner as a member"), ("former", Verb.EXEC, "forbidden", "member")):
        try:
            require(USERS[who], verb, SESSION)
            got, words = "", ""
        except Failure as failure:
            got, words = failure.code, failure.message
        assert got == code and said in words, (who, verb)


def test_what_stands_in_no_table_is_for_superadmins() -> None:
    odd = Thing("something new", "u5", "p", "red")
    assert [who for who, caller in USERS.items() if may(caller, Verb.READ, odd)] == ["superadmin"]


def test_what_is_open_to_somebody_is_theirs_to_use_and_no_more() -> None:
    for scope, users in (("*", set(USERS)), ("red", {"fellow", "viewer", "member", "owner", "former", "chief", "ruler", "superadmin"}),
                         ("p", {"viewer", "member", "owner", "chief", "superadmin"}), ("u5", {"owner", "former", "superadmin"})):
        group = Thing("group", open_to=frozenset({scope}))
        assert {who for who, caller in USERS.items() if may(caller, Verb.USE, group)} == users
        assert {who for who, caller in USERS.items() if may(caller, Verb.CHANGE, group)} == {"superadmin"}


KINDS, VERBS = st.sampled_from([*RULES, "unheard of"]), st.sampled_from(list(Verb))
SOME = st.sampled_from(["p", "x", "b", None])
THINGS = st.builds(Thing, KINDS, st.sampled_from(["u1", "u5", "u9", None]), SOME, st.sampled_from(["red", "blue", None]),
                   st.frozensets(st.sampled_from(["*", "red", "p", "u5"])))
TOKENS = st.lists(st.sampled_from([*SCOPES, "project:p", "project:x"]), max_size=4, unique=True).map(tuple)


@given(caller=st.sampled_from(list(USERS.values())), scopes=TOKENS, verb=VERBS, thing=THINGS)
def test_a_token_never_may_more_than_its_user(caller: Caller, scopes: tuple[str, ...], verb: Verb, thing: Thing) -> None:
    held = replace(caller, scopes=scopes)
    if may(held, verb, thing):
        assert may(caller, verb, thing)
        assert needed_scope(verb, thing.kind) == "read" or held.may_use(needed_scope(verb, thing.kind))
        if held.within and thing.project_id not in held.within:
            open_to = {As.EVERYONE, As.GUEST} & set(RULES[thing.kind][verb])
            assert open_to & standings(held, thing)


@given(inner=TOKENS, outer=TOKENS, caller=st.sampled_from(list(USERS.values())), verb=VERBS, thing=THINGS)
def test_a_narrower_token_does_nothing_that_the_wider_cannot(inner: tuple[str, ...], outer: tuple[str, ...], caller: Caller, verb: Verb,
                                                            thing: Thing) -> None:
    if narrower(inner, outer) and may(replace(caller, scopes=inner), verb, thing):
        assert may(replace(caller, scopes=outer), verb, thing)


def test_scopes_are_a_closed_set() -> None:
    assert check_scopes(["read", "project:a/b", "read"]) == ("read", "project:a/b")
    for wrong in ("write", "project:", "READ", ""):
        with pytest.raises(Failure, match="read, sessions, exec, admin"):
            check_scopes([wrong])
    assert narrower((), ()) and not narrower((), ("read",)) and narrower(("read",), ("exec",)) and not narrower(("exec",), ("sessions",))
    assert not narrower(("read",), ("project:p",)) and narrower(("read", "project:p"), ("project:p", "project:x"))
