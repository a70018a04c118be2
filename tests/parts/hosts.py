"""Several hosts on one machine: network namespaces on a switch of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

from tests.parts.absent import Absent

HERE = "198.51.100.100"  # this machine, where it takes part (RFC 5737)


def ip(*words: str) -> str:
    """Run ``ip`` and return what it prints."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Hosts:
    """So many hosts with an address each. spaces: their namespaces. They are gone at the end of the block."""

    def __init__(self, count: int) -> None:
        self.tag = f"{os.getpid() % 100000:05d}"
        self.switch = f"sw{self.tag}"
        self.spaces = [f"bai-test-{self.tag}-{number}" for number in range(count)]
        self.addresses = [f"198.51.100.{number + 1}" for number in range(count)]
        self._uplink = ""

    def __enter__(self) -> Hosts:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            raise Absent("several hosts on one machine need root and ip (apt-get install iproute2)")
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
        ip("-n", self.switch, "link", "set", "br0", "up")
        for number, (space, address) in enumerate(zip(self.spaces, self.addresses, strict=True)):
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
            ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", f"p{number}", "netns", self.switch)
            ip("-n", self.switch, "link", "set", f"p{number}", "master", "br0", "up")
            ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
        return self

    def __exit__(self, *why: object) -> None:
        if self._uplink:
            subprocess.run(["ip", "link", "delete", self._uplink], check=False)
        for space in (*self.spaces, self.switch):
            subprocess.run(["ip", "netns", "delete", space], check=False)

    def take_part(self) -> str:
        """Plug this machine into the switch, too, and return its address there."""
        self._uplink = f"up{self.tag}"
        ip("link", "add", self._uplink, "type", "veth", "peer", "name", "uplink", "netns", self.switch)
        ip("-n", self.switch, "link", "set", "uplink", "master", "br0", "up")
        ip("address", "add", f"{HERE}/24", "dev", self._uplink)
        ip("link", "set", self._uplink, "up")
        return HERE

    def links(self, number: int) -> list[str]:
        """Return the interfaces of a host but for its own."""
        found = json.loads(ip("-n", self.spaces[number], "-json", "link") or "[]")
        return [link["ifname"] for link in found if link["ifname"] not in ("lo", "eth0")]

    @staticmethod
    def inside(space: str) -> list[str]:
        """Return what runs a command on a host."""
        return ["nsenter", f"--net=/run/netns/{space}", "--"]
