"""A small base image without a registry: bootstrapped from the distribution's packages once, then kept in .cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.parts.absent import Absent
from tests.parts.docker import Engine

ROOT = Path(__file__).resolve().parents[2]
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")  # tools in the image need it to fetch anything over TLS


def base_image(engine: Engine) -> str:
    """Return the name of a minimal Debian or Ubuntu image on *engine*, made if it is not there yet."""
    if name := os.environ.get("BACKENDAI_TEST_IMAGE"):
        return name
    suite = _release().get("VERSION_CODENAME", "bookworm")
    name = "debian:bookworm-slim" if suite == "bookworm" else f"backendai-test-base:{suite}"
    if engine.run("image", "ls", "-q", name).strip():
        return name
    engine.run("import", "--change", 'CMD ["/bin/sh"]', str(_archive(suite)), name, timeout_s=300)
    return name


def _archive(suite: str) -> Path:
    kept = ROOT / ".cache" / f"base-{suite}.tar"
    if kept.is_file():
        return kept
    if os.geteuid() != 0:
        raise Absent("a base image needs root to be made; or name one in BACKENDAI_TEST_IMAGE")
    if shutil.which("debootstrap") is None:
        raise Absent("debootstrap is not installed (apt-get install debootstrap)")
    kept.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bai-test-base-", dir=kept.parent) as folder:
        tree = Path(folder) / "root"
        try:
            subprocess.run(["debootstrap", "--variant=minbase", suite, str(tree), *_mirror(suite)], check=True, capture_output=True,
                           text=True)
        except subprocess.CalledProcessError as error:
            raise Absent(f"debootstrap failed: {(error.stderr or error.stdout).strip()[-200:]}") from None
        if CERTIFICATES.is_file():
            target = tree / CERTIFICATES.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CERTIFICATES, target)
        fresh = Path(folder) / "base.tar"
        subprocess.run(["tar", "-C", str(tree), "--exclude=./var/cache/apt/archives/*.deb", "-cf", str(fresh), "."], check=True)
        fresh.rename(kept)
    return kept


def _release() -> dict[str, str]:
    pairs = (line.partition("=") for line in Path("/etc/os-release").read_text().splitlines())
    return {key: value.strip('"') for key, _, value in pairs}


def _mirror(suite: str) -> list[str]:
    """Return the address that this machine's own apt uses for *suite*, or nothing for debootstrap's own choice."""
    command = ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    try:
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    sites = [site for site, release, component in map(str.split, listed.splitlines()) if (release, component) == (suite, "main")]
    return sites[:1]
