"""Every command against a platform, as people see it and as ``--json``."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from backendai.client import Client, calls
from backendai.client.settings import Login, Settings, load_settings, save_settings

if TYPE_CHECKING:
    from conftest import Bai
    from tests.parts.inside import Inside

SMALL = ("-r", "cpu=0.01,mem=1m")
WORDS = "one\n!two\nthree\n"


@pytest.fixture
def rest(inside: Inside) -> Any:
    """Return what GET of a path answers."""
    with Client(inside.url, inside.token) as client:
        yield client.get


# --- running ---


def test_run_passes_output_and_exit_status_through(here: Bai) -> None:
    said = here("run", *SMALL, "-e", f"SAY={WORDS}", "--name", "r1", "--", "exit", "7", code=7)
    assert said.out == "one\nthree\n"
    assert said.err.splitlines()[0] == "!two" and said.err.splitlines()[1].startswith("bai: r1: ")
    assert here("run", *SMALL, "-e", f"SAY={WORDS}", "--", "true").err == "!two\n", "of success nothing is said"


def test_run_as_json_is_the_session(here: Bai, rest: Any) -> None:
    said = here("run", *SMALL, "-e", f"SAY={WORDS}", "--json", "--", "exit", "7", code=7)
    assert said.json == rest(f"/v1/sessions/{said.json['id']}")
    assert (said.json["state"], said.json["exit_code"]) == ("TERMINATED", 7)


def test_run_in_the_background_prints_the_id_alone(here: Bai, rest: Any) -> None:
    said = here("run", *SMALL, "-d", "--", "true")
    assert rest(f"/v1/sessions/{said.out.strip()}")["id"] + "\n" == said.out
    assert said.err == ""
    assert here("run", *SMALL, "-d", "--json", "--", "true").json.keys() == rest(f"/v1/sessions/{said.out.strip()}").keys()


def test_run_and_forget(here: Bai) -> None:
    here("run", *SMALL, "--rm", "--name", "gone", "--", "true")
    assert here("info", "gone", code=66).err.startswith("bai: ")
    assert "--rm" in here("run", "--rm", "-d", "--", "true", code=2).err


def test_every_option_of_a_session_arrives(here: Bai, rest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "yes=no")
    said = here("run", "-d", "-i", "img:1", "-r", "cpu=0.5, mem=512m", "-e", "A=1=2", "-e", "MINE", "-e", "EMPTY=", "--name", "all",
                "--timeout", "1m30s", "--grace", "0", "-v", "/data:/mnt/d:ro", "-v", "/x:/mnt/x", "-w", "/tmp", "--network", "outward",
                "--priority", "0", "--tag", "a", "--tag", "b", "--json", "--", "echo", "--name", "x").json
    assert (said["image"], said["slots"]) == ("img:1", {"cpu": 0.5, "mem": 512 << 20})
    assert said["env"] == {"A": "1=2", "MINE": "yes=no", "EMPTY": ""}
    assert (said["time_limit_s"], said["priority"], said["network"], said["tags"]) == (90.0, 0, "outward", ["a", "b"])
    assert said["mounts"] == [{"source": "/data", "target": "/mnt/d", "readonly": True},
                              {"source": "/x", "target": "/mnt/x", "readonly": False}]
    assert said["command"] == ["echo", "--name", "x"]
    here("rm", "-f", "all")


@pytest.mark.parametrize(("words", "code", "said"), [
    (("-r", "cpu"), 65, "-r cpu=1,mem=512m"), (("-r", "=1"), 65, "NAME=AMOUNT"), (("-r", "cpu=much"), 65, "cpu"),
    (("-e", "NO_SUCH_VARIABLE"), 2, "NO_SUCH_VARIABLE"), (("--timeout", "soon"), 2, "--timeout"), (("--timeout", "0"), 2, "time_limit_s"),
    (("-v", "x"), 65, "SOURCE:TARGET"), (("-v", "/a:/b:rx"), 65, ":ro"), (("--name", ""), 65, "name"),
    (("--priority", "101"), 2, "priority"), (("-r", "cpu=99999"), 65, "cpu"), (("--name", "1x"), 65, "1x"),
    (("-w", "relative"), 2, "workdir")])
def test_what_cannot_be_asked_for_is_said_and_makes_nothing(here: Bai, rest: Any, words: tuple[str, ...], code: int, said: str) -> None:
    before = rest("/v1/sessions?all=true")["items"]
    refused = here("run", *words, "--", "true", code=code)
    assert said in refused.err and refused.out == ""
    assert [session["id"] for session in rest("/v1/sessions?all=true")["items"]] == [session["id"] for session in before]


def test_what_could_not_be_run_is_said(here: Bai) -> None:
    said = here("run", "-i", "nothing.invalid/x:1", "--name", "unrunnable", "--", "true", code=70)
    assert "nothing.invalid/x:1" in said.err and said.out == ""
    assert here("start", "-i", "nothing.invalid/x:1", code=70).out == ""


def test_start_prints_the_id_once_it_runs(here: Bai, rest: Any) -> None:
    said = here("start", *SMALL, "--name", "s1")
    assert rest(f"/v1/sessions/{said.out.strip()}")["state"] == "RUNNING"
    assert "s1 runs on box" in said.err and "bai exec -it s1 -- sh" in said.err
    assert here("start", *SMALL, "--name", "s2", "--json").json["state"] == "RUNNING"
    assert here("start", *SMALL, "--name", "s2", code=75).err.startswith("bai: ")
    here("rm", "-f", "s1", "s2")


# --- looking ---


def test_ps_lists_what_is_active_and_with_a_all(here: Bai, rest: Any, lab: str) -> None:
    here("run", *SMALL, "--name", "ended", "--", "exit", "5", code=5)
    shown = here("ps").out.splitlines()
    assert shown[0].split() == ["NAME", "ID", "TYPE", "STATE", "EXIT", "IMAGE", "AGENT", "SLOTS", "AGE", "WHY"]
    row = next(line for line in shown if line.startswith(lab))
    assert "RUNNING" in row and "cpu=0.01,mem=1m" in row and "box" in row
    assert not any(line.startswith("ended ") for line in shown)
    assert any(re.match(r"ended .* TERMINATED +5 ", line) for line in here("ps", "-a").out.splitlines())
    assert here("ps", "--json").json == rest("/v1/sessions?limit=200")
    assert here("ps", "-a", "--json").json == rest("/v1/sessions?all=true&limit=50")


def test_ps_of_a_few_says_that_there_are_more(here: Bai) -> None:
    for _ in range(3):
        here("run", *SMALL, "--", "true")
    said = here("ps", "-a", "-n", "2")
    assert len(said.out.splitlines()) == 3 and "newest 2" in said.err
    assert len(here("ps", "-a", "-n", "2", "--json").json["items"]) == 2
    assert "-n" in here("ps", "-n", "0", code=2).err


def test_ps_prints_ids_alone_and_nothing_where_there_is_none(here: Bai, lab: str, rest: Any) -> None:
    assert here("ps", "-q").out.split() == [session["id"] for session in rest("/v1/sessions")["items"]]
    here("rm", "-f", *here("ps", "-q").out.split())
    assert here("ps", "-q").out == ""


def test_info_says_it_in_full(here: Bai, rest: Any) -> None:
    here("run", *SMALL, "-e", "X=a b", "--name", "full", "--tag", "t", "--", "exit", "3", code=3)
    said = here("info", "full").out
    for line in (r"name +full", r"state +TERMINATED", r"result +failure", r"exit code +3", r"command +exit 3", r"environment +X='a b'",
                 r"slots +cpu=0.01,mem=1m", r"agent +box", r"tags +t", r"created +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(\d+s ago\)"):
        assert re.search(f"^{line}", said, re.MULTILINE), line
    assert here("info", "full", "--json").json == rest("/v1/sessions/full")
    assert here("info", "admin/full", "--json").json["name"] == "full"


def test_a_session_that_waits_says_why(here: Bai) -> None:
    here("start", "-d", "-r", "cpu=0.01,mem=1m", "--name", "waits", "--json")
    total = here("agents", "box", "--json").json["capacity"]
    here("run", "-d", "-r", f"cpu={total['cpu']},mem=1m", "--name", "big", "--", "true")
    until(lambda: here("info", "big", "--json").json["hold"])
    said = here("info", "big").out
    assert re.search(r"^waits for +\S+", said, re.MULTILINE)
    assert re.search(r"^big .* PENDING .*cpu", here("ps").out, re.MULTILINE)
    here("rm", "-f", "big", "waits")


def until(condition: Any) -> None:
    import time

    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_logs_are_what_was_written(here: Bai) -> None:
    here("run", *SMALL, "-e", f"SAY={WORDS}", "--name", "writer", "--", "true")
    for words in ((), ("-f",)):
        said = here("logs", *words, "writer")
        assert (said.out, said.err) == ("one\nthree\n", "!two\n")
    assert here("logs", "--tail", "1", "writer").out == "three\n"
    assert here("logs", "-f", "--tail", "1", "writer").out == "three\n"
    assert here("logs", "--json", "writer").json == {"stdout": "one\nthree\n", "stderr": "!two\n"}
    assert "--follow" in here("logs", "-f", "--json", "writer", code=2).err
    assert "--tail" in here("logs", "--tail", "-1", "writer", code=2).err


def test_stats(here: Bai, lab: str, rest: Any) -> None:
    shown = here("stats", lab).out.splitlines()
    assert shown[0].startswith("SESSION") and shown[1].startswith(f"{lab}  box")
    assert here("stats", lab, "--json").json["session"] == rest(f"/v1/sessions/{lab}/stats")["session"]
    assert lab in here("stats").out
    assert [stats["session"] for stats in here("stats", "--json").json["items"]] == [here("info", lab, "--json").json["id"]]


def test_events_tell_what_happened(here: Bai, rest: Any) -> None:
    id = here("run", *SMALL, "--name", "seen", "--json", "--", "true").json["id"]
    lines = [line for line in here("events").out.splitlines() if "seen" in line]
    assert lines[0].split()[3] == "session.created" and lines[-1].split()[3] == "session.terminated"
    events = [json.loads(line) for line in here("events", "--json").out.splitlines()]
    assert events == sorted(events, key=lambda event: event["id"])
    first = next(event["id"] for event in events if event["subject"] == id)
    since = [json.loads(line) for line in here("events", "--since", str(first), "--json").out.splitlines()]
    assert since == [event for event in events if event["id"] > first]


# --- inside ---


def test_exec_returns_output_and_status(here: Bai, lab: str) -> None:
    said = here("exec", "-e", "X=y", lab, "--", "sh", "-c", "echo $X; echo err >&2; exit 9", code=9)
    assert (said.out, said.err) == ("y\n", "err\n")
    said = here("exec", "--json", lab, "--", "sh", "-c", "echo $0; echo err >&2; exit 9", "x", code=9)
    assert said.json == {"exit_code": 9, "stdout": "x\n", "stderr": "err\n"}
    assert here("exec", "-w", "/home", lab, "pwd").out.endswith("/home\n")


@pytest.mark.parametrize(("words", "said"), [(("lab",), "bai exec -it lab -- sh"), (("-t", "lab", "--", "sh"), "terminal"),
                                             (("-i", "--json", "lab", "--", "sh"), "--json")])
def test_exec_says_what_is_wrong_with_its_arguments(here: Bai, words: tuple[str, ...], said: str) -> None:
    assert said in here("exec", *words, code=2).err


def test_exec_where_nothing_runs(here: Bai) -> None:
    assert "no-such" in here("exec", "no-such", "--", "true", code=66).err
    here("run", *SMALL, "--name", "over", "--", "true")
    assert here("exec", "over", "--", "true", code=75).err.startswith("bai: ")


def test_cp_goes_both_ways(here: Bai, lab: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = os.urandom(50_000)
    for name in ("a", "b"):
        Path(name).write_bytes(data)
    assert here("cp", "a", f"{lab}:sub").out == ""
    assert here("cp", "a", "b", f"{lab}:/home/work/", "--json").json["bytes"] > 2 * len(data)
    here("cp", f"{lab}:sub", "back")
    assert Path("back").read_bytes() == data
    Path("folder").mkdir()
    here("cp", f"{lab}:a", f"{lab}:b", "folder")
    assert {path.name for path in Path("folder").iterdir()} == {"a", "b"}
    Path("od:d").write_text("x")
    here("cp", "./od:d", f"{lab}:")
    assert here("exec", lab, "--", "cat", "od:d").out == "x"


@pytest.mark.parametrize(("words", "code", "said"), [
    (("a", "b"), 2, "SESSION:PATH"), (("x:a", "y:b"), 2, "SESSION:PATH"), (("a", "x:b", "c"), 2, "All sources"),
    (("a", "x:b", "y:c"), 2, "SESSION:PATH"),
    (("x:a", "x:b", "no-folder"), 2, "no-folder"), (("no-such", "LAB:"), 66, "no-such"), (("LAB:no-such", "."), 66, "/home/work/no-such"),
    (("LAB:x", "no/such/folder"), 66, "no/such"), (("a", "no-such-session:"), 66, "no-such-session")])
def test_cp_says_what_is_wrong(here: Bai, lab: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int,
                               said: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("x")
    assert said in here("cp", *(word.replace("LAB", lab) for word in words), code=code).err


# --- ending ---


def test_stop_waits_for_the_end_and_rm_forgets(here: Bai) -> None:
    for name in ("e1", "e2", "e3"):
        here("start", *SMALL, "--name", name)
    assert here("stop", "e1").out == "e1\n"
    assert here("info", "e1", "--json").json["state"] == "TERMINATED"
    assert here("stop", "--grace", "0s", "e2", "--json").json["items"][0]["state"] == "TERMINATED"
    assert here("rm", "e1").out == "e1\n"
    assert here("rm", "-f", "e3", "e2", "--json").json == {"removed": ["e3", "e2"]}
    assert here("info", "e3", code=66)


def test_what_goes_wrong_with_one_keeps_nothing_from_the_others(here: Bai) -> None:
    here("start", *SMALL, "--name", "f1")
    said = here("rm", "-f", "no-such", "f1", code=66)
    assert said.out == "f1\n" and said.err == "bai: You have no session 'no-such'; see `bai ps -a`.\n"
    said = here("rm", "--json", "no-such", "f1", code=66)
    assert said.json == {"removed": []} and [json.loads(line)["code"] for line in said.err.splitlines()] == ["not-found"] * 2
    said = here("stop", "--json", "no-such", code=66)
    assert said.json == {"items": []} and json.loads(said.err)["code"] == "not-found"


# --- the cluster ---


def test_agents(here: Bai, rest: Any) -> None:
    shown = here("agents").out.splitlines()
    assert shown[0].startswith("NAME") and re.match(r"box +default +healthy +local +null 1 +cpu ", shown[1])

    def still(agent: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in agent.items() if name != "last_seen"}

    assert [still(agent) for agent in here("agents", "--json").json["items"]] == [still(agent) for agent in rest("/v1/agents")["items"]]
    assert re.search(r"^capacity +cpu=", here("agents", "box").out, re.MULTILINE)
    assert still(here("agents", "box", "--json").json) == still(rest("/v1/agents/box"))
    assert "no-such" in here("agents", "no-such", code=66).err


def test_images(here: Bai, rest: Any, tmp_path: Path) -> None:
    assert re.search(r"^nothing:latest +box", here("image", "ls").out, re.MULTILINE)
    assert here("image", "ls", "--json").json == rest("/v1/images")
    for words in (("pull", "x:1"), ("rm", "x:1", "--agent", "box")):
        said = here("image", *words, code=None)
        assert said.code in (65, 69) and said.err.startswith("bai: ") and said.out == ""
    said = here("image", "build", str(tmp_path), code=None)
    assert said.code in (2, 66) and str(tmp_path) in said.err


def test_users_and_tokens(here: Bai, rest: Any, inside: Inside) -> None:
    made = here("user", "create", "ada", "--email", "a@example.org", "--uid", "1001", "--gid", "1001")
    assert re.search(r"^ada +user +a@example.org +1001:1001 +default +default +yes", made.out, re.MULTILINE)
    assert "bai token create --user ada" in made.err
    assert here("user", "show", "ada", "--json").json == rest("/v1/users/ada")
    assert here("user", "ls", "--json").json == rest("/v1/users")
    assert "ada" in here("user", "ls").out
    assert here("user", "set", "ada", "--role", "superadmin", "--json").json["role"] == "superadmin"
    token = here("token", "create", "hers", "--user", "ada", "--expires", "1d")
    assert token.out.startswith("bai_") and len(token.out.split()) == 1 and "once" in token.err
    agent = here("token", "create", "node7", "--agent")
    assert "bai serve agent --manager" in agent.err and "--name node7" in agent.err
    listed = here("token", "ls", "--json").json
    assert listed == rest("/v1/tokens") and token.out.strip() not in json.dumps(listed)
    assert re.search(r"hers +ada", here("token", "ls").out) and re.search(r"node7 +an agent", here("token", "ls").out)
    ids = [item["id"] for item in listed["items"] if item["name"] in ("hers", "node7")]
    assert here("token", "rm", *ids).out.split() == ids
    assert here("token", "create", "j", "--json").json["token"].startswith("bai_")
    assert here("user", "rm", "ada", "nobody", "--json", code=66).json == {"removed": ["ada"]}
    assert here("user", "show", "ada", "--json").json["active"] is False
    assert here("user", "set", "ada", "--active", "yes", "--json").json["active"] is True


def test_whoami(here: Bai, rest: Any, inside: Inside) -> None:
    said = here("whoami").out
    assert re.search(r"^name +admin$", said, re.MULTILINE) and inside.url in said
    assert here("whoami", "--json").json == rest("/v1/whoami")


# --- which platform ---


def test_logging_in_elsewhere(bai: Bai, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    said = bai("login", inside.url, "--token", inside.token)
    assert "You are admin" in said.err and said.out == "" and inside.token not in said.err
    assert load_settings() == Settings().add(Login(inside.url, inside.token, inside.cluster))
    assert bai("whoami", "--json").json["name"] == "admin"
    assert bai("login", inside.url, "--token", inside.token, "--json").json == {
        "url": inside.url, "name": "admin", "cluster": inside.cluster}


def test_a_login_that_fails_changes_nothing(bai: Bai, inside: Inside) -> None:
    save_settings(Settings().add(Login("http://old", "t")))
    assert bai("login", inside.url, "--token", "bai_wrong", code=77).err.startswith("bai: ")
    assert bai("login", "http://127.0.0.1:1", "--token", "t", code=69).err.startswith("bai: ")
    assert bai("login", "not an address", "--token", "t", code=2).err.startswith("bai: ")
    assert load_settings() == Settings().add(Login("http://old", "t"))


def test_config(bai: Bai, home: Path) -> None:
    save_settings(Settings().add(Login("http://one", "secret1", "C1")).add(Login("http://two", "secret2", "C2")))
    shown = bai("config", "ls").out
    assert re.search(r"^ +http://one +C1$", shown, re.MULTILINE) and re.search(r"^\* +http://two +C2$", shown, re.MULTILINE)
    listed = bai("config", "ls", "--json")
    assert listed.json["items"][1] == {"url": "http://two", "cluster": "C2", "current": True}
    assert "secret" not in shown + listed.out
    bai("config", "use", "one")
    assert load_settings().current == "http://one"
    assert bai("config", "rm", "http://one", "--json").json == {"current": "http://two"}
    assert "http://three" in bai("config", "use", "http://three", code=66).err
    assert bai("config", "path").out == f"{home}/.config/backendai/settings.json\n"


def test_without_a_platform_it_says_what_to_do(bai: Bai) -> None:
    assert "bai up" in bai("ps", code=77).err
    save_settings(Settings().add(Login("http://127.0.0.1:1", "t")))
    for words in (("ps",), ("run", "--", "true"), ("events",), ("agents",), ("exec", "x", "--", "true")):
        said = bai(*words, code=69)
        assert "127.0.0.1:1" in said.err and "refused" in said.err and "bai up" in said.err and len(said.err.splitlines()) == 1, words


def test_what_a_session_is_called_cannot_drive_the_terminal(here: Bai, inside: Inside) -> None:
    with Client(inside.url, inside.token) as client:
        new = calls.NewSession(command=["\x1b]0;owned\x07"], env={"X": "\x1b[2J"}, slots={"cpu": 0.01, "mem": "1m"}, name="esc")
        client.wait(client.create(new).id)
    for words in (("ps", "-a"), ("info", "esc"), ("events",)):
        assert "\x1b" not in here(*words).out and "\x07" not in here(*words).out
    assert "\x1b" not in here("run", "-i", "a\x1b[2J", "--", "true", code=None).err


def test_what_a_hint_says_can_be_typed(here: Bai, lab: str) -> None:
    said = here("exec", lab, code=2).err
    command = re.search(r"`(bai [^`]+)`", said)
    assert command is not None and shlex.split(command[1])[:4] == ["bai", "exec", "-it", lab]
