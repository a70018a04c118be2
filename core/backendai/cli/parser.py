"""Arguments that cannot be read are a ``Failure`` like any other."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import NoReturn

from backendai.model.errors import Failure


class Parser(ArgumentParser):
    """A parser that says what is wrong in one sentence, instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Raise ``Failure('invalid-request')``."""
        takes_command = any(action.dest == "words" for action in self._actions)
        hint = " What belongs to the command stands behind `--`." if "unrecognized" in message and takes_command else ""
        raise Failure("invalid-request", f"{message[:1].upper()}{message[1:]}; see `{self.prog} --help`.{hint}")
