"""The settings file, and what comes before it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from backendai.client import settings
from backendai.client.settings import (
    Login,
    Settings,
    check_url,
    find_login,
    load_settings,
    save_settings,
    settings_path,
)
from backendai.model.errors import Failure

HERE, THERE = Login("http://here:1", "one", "C1"), Login("https://there", "two", "C2")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, and no variables of the user's."""
    for name in ("BACKENDAI_URL", "BACKENDAI_TOKEN", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def both() -> Settings:
    return Settings().add(HERE).add(THERE)


def test_the_file_is_in_the_user_s_configuration(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_path() == home / ".config" / "backendai" / "settings.json"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "x"))
    assert settings_path() == home / "x" / "backendai" / "settings.json"


def test_what_is_saved_is_loaded() -> None:
    save_settings(both())
    assert load_settings() == both()
    assert load_settings().current == "https://there"


def test_no_file_is_no_login() -> None:
    assert load_settings() == Settings()


def test_only_its_owner_may_read_it() -> None:
    old = os.umask(0)
    try:
        save_settings(both())
    finally:
        os.umask(old)
    assert settings_path().stat().st_mode & 0o777 == 0o600
    assert settings_path().parent.stat().st_mode & 0o777 == 0o700
    settings_path().chmod(0o644)
    save_settings(both())
    assert settings_path().stat().st_mode & 0o777 == 0o600


def test_it_is_replaced_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has it open reads the old one to its end, and a failure in the middle changes nothing."""
    save_settings(both())
    before = settings_path().read_text()
    with settings_path().open() as reader:
        save_settings(Settings().add(HERE))
        assert reader.read() == before
    before = settings_path().read_text()

    def fill_up(_: object, file: object, **__: object) -> None:
        file.write('{"curr')  # type: ignore[attr-defined]  # a file
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(settings.json, "dump", fill_up)
    with pytest.raises(OSError):
        save_settings(both())
    assert settings_path().read_text() == before
    assert [path.name for path in settings_path().parent.iterdir()] == ["settings.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"current": ""}', '{"current": "", "logins": []}',
                                  '{"current": "", "logins": {"u": 3}}', '{"current": "", "logins": {"u": {"address": "x"}}}', "\udcff"])
def test_a_file_that_cannot_be_read_is_said_with_its_path(text: str) -> None:
    settings_path().parent.mkdir(parents=True)
    settings_path().write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(Failure) as refused:
        load_settings()
    assert refused.value.code == "invalid-request"
    assert str(settings_path()) in refused.value.message and "log in" in refused.value.message


def test_a_login_s_token_is_not_shown_by_accident() -> None:
    assert "one" not in repr(both()).replace("None", "")


def test_adding_uses_it_and_forgets_the_cluster_s_old_address() -> None:
    moved = both().add(Login("http://here:2", "three", "C1"))
    assert moved.current == "http://here:2"
    assert set(moved.logins) == {"https://there", "http://here:2"}
    unknown = Settings().add(Login("http://a", "t")).add(Login("http://b", "t"))
    assert set(unknown.logins) == {"http://a", "http://b"}


def test_using_another_one() -> None:
    assert both().use("http://here:1").current == "http://here:1"
    with pytest.raises(Failure) as refused:
        both().use("http://nowhere")
    assert (refused.value.code, "bai login http://nowhere" in refused.value.message) == ("not-found", True)


def test_removing_one() -> None:
    assert both().remove("http://here:1") == Settings("https://there", {"https://there": THERE})
    assert both().remove("https://there").current == "http://here:1"
    assert both().remove("https://there").remove("http://here:1") == Settings()
    with pytest.raises(Failure):
        both().remove("http://nowhere")


@pytest.mark.parametrize(("text", "url"), [
    ("http://h:1", "http://h:1"), ("h:1", "http://h:1"), (" http://h:1\n", "http://h:1"), ("https://h/", "https://h"), ("https://h/base/", "https://h/base"),
    ("localhost", "http://localhost"), ("http://[::1]:80", "http://[::1]:80")])
def test_an_address_has_one_form(text: str, url: str) -> None:
    assert check_url(text) == url == check_url(url)


@pytest.mark.parametrize("text", ["", "ftp://h", "http://", "http://h:x", "http://h:99999", "http://u:p@h", "http://h?x=1", "http://h#x",
                                  "http://h:0", "http://[::1", "http://a b", "http://h\tx", "http://h/a b"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Failure) as refused:
        check_url(text)
    assert (refused.value.code, "http://HOST:PORT" in refused.value.message) == ("invalid-request", True)


def test_what_is_given_comes_before_the_variables_and_these_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    save_settings(both())
    assert find_login() == THERE
    assert find_login("http://here:1") == HERE
    monkeypatch.setenv("BACKENDAI_URL", "http://here:1/")
    assert find_login() == HERE
    monkeypatch.setenv("BACKENDAI_TOKEN", "mine")
    assert find_login() == Login("http://here:1", "mine")
    assert find_login("http://x") == Login("http://x", "mine")
    assert find_login("http://x", "yours") == Login("http://x", "yours")
    monkeypatch.delenv("BACKENDAI_URL")
    assert find_login() == Login("https://there", "mine", "C2")


def test_the_variables_need_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    settings_path().parent.mkdir(parents=True)
    settings_path().write_text("{")
    monkeypatch.setenv("BACKENDAI_URL", "http://x")
    monkeypatch.setenv("BACKENDAI_TOKEN", "mine")
    assert find_login() == Login("http://x", "mine")


def test_a_token_is_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else there is would break the request, or add a line to it."""
    assert find_login("http://x", " mine\n").token == "mine"
    for odd in ("a b", "a\nX-Evil: 1", "ü"):
        with pytest.raises(Failure) as refused:
            find_login("http://x", odd)
        assert refused.value.code == "unauthenticated"
    monkeypatch.setenv("BACKENDAI_TOKEN", "two words")
    with pytest.raises(Failure):
        find_login("http://x")


def test_nobody_logged_in_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failure) as refused:
        find_login()
    assert refused.value.code == "unauthenticated"
    assert "bai up" in refused.value.message and "bai login" in refused.value.message
    monkeypatch.setenv("BACKENDAI_URL", "http://x")
    with pytest.raises(Failure) as refused:
        find_login()
    assert "bai login http://x" in refused.value.message and "BACKENDAI_TOKEN" in refused.value.message


def test_the_file_is_for_people_to_read() -> None:
    save_settings(both())
    text = settings_path().read_text()
    assert json.loads(text)["logins"]["http://here:1"]["cluster"] == "C1"
    assert text.count("\n") > 5 and text.endswith("}\n")
