"""Each law of a source of commands catches the one that breaks it, and no other law does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from backendai.spec import hookimpl
from backendai.spec.cli_v10 import Command

sys.path.insert(0, str(Path(__file__).parent))  # for broken: pytest's importlib mode adds nothing itself
import broken

SPEC = "cli_v10"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--loud", action="store_true", help="say it in capitals")


def run(options: argparse.Namespace) -> int:
    return 0


GREET = Command("greet", "Say hello.", arguments, run)


class Good:
    @hookimpl
    def commands(self) -> Sequence[Command]:
        return (GREET,)


class Silent(Good):
    @hookimpl
    def commands(self) -> Any:
        return (GREET, "greet")


class Spaced(Good):
    @hookimpl
    def commands(self) -> Sequence[Command]:
        return (replace(GREET, name="say hello"),)


class Taker(Good):
    @hookimpl
    def commands(self) -> Sequence[Command]:
        return (replace(GREET, name="run"),)


class Mute(Good):
    @hookimpl
    def commands(self) -> Sequence[Command]:
        return (replace(GREET, help=" "),)


def twice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json")


class Clasher(Good):
    @hookimpl
    def commands(self) -> Sequence[Command]:
        return (replace(GREET, arguments=twice),)


def percent(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--share").help = "up to 100%"  # a newer argparse looks when it is added


class Percent(Good):
    @hookimpl
    def commands(self) -> Sequence[Command]:
        return (replace(GREET, arguments=percent),)


class Printer(Good):
    @hookimpl
    def commands(self) -> Sequence[Command]:
        print("hello")  # noqa: T201 - the crime
        return (GREET,)


class Importer(Good):
    @hookimpl
    def commands(self) -> Sequence[Command]:
        sys.modules.update({f"heavy{number}{len(sys.modules)}": sys for number in range(101)})
        return (GREET,)


class Waverer(Good):
    def __init__(self) -> None:
        self.count = 0

    @hookimpl
    def commands(self) -> Sequence[Command]:
        self.count += 1
        return (replace(GREET, name=f"greet{self.count}"),)


MUTANTS = broken.general(SPEC, Good) | {
    "test_it_returns_commands": Silent,
    "test_names_are_words": Spaced,
    "test_names_are_its_own": Taker,
    "test_each_has_a_line_of_help": Mute,
    "test_arguments_fit_a_parser": Clasher,
    "test_help_can_be_printed": Percent,
    "test_listing_is_silent": Printer,
    "test_listing_imports_nothing_heavy": Importer,
    "test_it_lists_the_same_again": Waverer,
}


@pytest.fixture(autouse=True)
def forget_modules() -> Any:
    yield
    for name in [name for name in sys.modules if name.startswith("heavy")]:
        del sys.modules[name]


@pytest.mark.parametrize(("law", "mutant"), broken.cases(SPEC, MUTANTS))
def test_a_law_catches_its_mutant(law: str, mutant: Any) -> None:
    broken.breaks_only(SPEC, law, mutant)


def test_a_good_one_holds_all() -> None:
    broken.holds_all(SPEC, Good)
