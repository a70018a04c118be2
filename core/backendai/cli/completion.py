"""``bai completion``: what makes a shell complete ``bai``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

HOW = {
    "bash": "bai completion bash >> ~/.bash_completion",
    "zsh": "bai completion zsh > ~/.zfunc/_bai (with ~/.zfunc in fpath)",
    "fish": "bai completion fish > ~/.config/fish/completions/bai.fish",
}


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=sorted(HOW))
    parser.epilog = "To install it: " + "; ".join(HOW.values())


def run(options: Namespace) -> int:
    """Print the script for a shell."""
    from argcomplete.shell_integration import shellcode

    sys.stdout.write(shellcode(["bai"], shell=options.shell))
    return 0
