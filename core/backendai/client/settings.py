"""Which manager to talk to, and as whom: the file that ``bai login`` and ``bai up`` write, and the variables that come before it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from backendai.model.errors import Failure

URL, TOKEN = "BACKENDAI_URL", "BACKENDAI_TOKEN"


@dataclass(frozen=True, slots=True)
class Login:
    """A manager and an account there. cluster: its id, empty when it is not known."""

    url: str
    token: str = field(repr=False)
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything in the file. current: the url that is used. logins: by url."""

    current: str = ""
    logins: Mapping[str, Login] = field(default_factory=dict)

    def add(self, login: Login) -> Settings:
        """Return the settings with *login* used from now on; another address of the same cluster is forgotten."""
        kept = {url: old for url, old in self.logins.items() if not login.cluster or old.cluster != login.cluster}
        return Settings(login.url, {**kept, login.url: login})

    def use(self, url: str) -> Settings:
        """Return the settings with *url* used from now on; raise ``Failure('not-found')`` when it is not there."""
        if url not in self.logins:
            raise Failure("not-found", f"You are not logged in at {url}; write `bai login {url}`.")
        return replace(self, current=url)

    def remove(self, url: str) -> Settings:
        """Return the settings without *url*; raise ``Failure('not-found')`` when it is not there."""
        if url not in self.logins:
            raise Failure("not-found", f"You are not logged in at {url}; see `bai config ls`.")
        kept = {other: login for other, login in self.logins.items() if other != url}
        return Settings(self.current if self.current != url else next(iter(kept), ""), kept)


def settings_path() -> Path:
    """Return where the file is."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "backendai" / "settings.json"


def load_settings() -> Settings:
    """Read the file; an absent one is empty. Raise ``Failure('invalid-request')`` when it cannot be read."""
    path = settings_path()
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        return Settings(given["current"], {url: Login(**login) for url, login in given["logins"].items()})
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure("invalid-request", f"{path} cannot be read ({error}); mend or remove it, then log in anew.") from error


def save_settings(settings: Settings) -> None:
    """Replace the file as a whole; only its owner may read it, because it holds tokens."""
    path = settings_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".settings-")  # made with mode 600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(settings), file, indent=2)
            file.write("\n")
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_url(text: str) -> str:
    """Return a manager's address in its one form; raise ``Failure('invalid-request')`` when it is none."""
    text = text.strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        good = bool(parts.scheme in ("http", "https") and parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username or parts.query or parts.fragment or not text.isprintable() or " " in text:
        raise Failure("invalid-request", f"{text!r} is not the address of a manager; write http://HOST:PORT.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def check_token(text: str) -> str:
    """Return a token as it is sent; raise ``Failure('unauthenticated')`` when it can be none."""
    token = text.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Failure("unauthenticated", "That is no token: a token is one word of letters, digits, - and _, such as bai_...")
    return token


def find_login(url: str | None = None, token: str | None = None) -> Login:
    """Return whom to talk to: what is given, else the variables, else the file.

    Raise ``Failure('unauthenticated')`` when nobody is logged in. An address without a token uses the token stored for it.
    """
    url, token = url or os.environ.get(URL) or "", check_token(token or os.environ.get(TOKEN) or "")
    if url and token:
        return Login(check_url(url), token)
    settings = load_settings()
    found = settings.logins.get(check_url(url) if url else settings.current)
    if found is None and url:
        raise Failure("unauthenticated", f"There is no token for {url}; write `bai login {url}`, or set {TOKEN}.")
    if found is None:
        raise Failure("unauthenticated", "You are logged in nowhere; start a platform here with `bai up`, or write `bai login URL`.")
    return replace(found, token=token or found.token)
