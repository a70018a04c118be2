"""Start the real parts and keep them until Ctrl-C, for tests run by hand: ``python -m tests.parts.serve``."""

from __future__ import annotations

import signal
from contextlib import ExitStack

from tests.parts import docker, image, postgres
from tests.parts.absent import Absent


def serve(stack: ExitStack) -> tuple[dict[str, str], list[str]]:
    """Start what can be had; return the environment that names it, and the reasons for what cannot."""
    named, absent = {}, []
    try:
        engine = stack.enter_context(docker.docker_engine())
        named["BACKENDAI_TEST_DOCKER"] = engine.url
        named["BACKENDAI_TEST_IMAGE"] = image.base_image(engine)
    except Absent as why:
        absent.append(str(why))
    try:
        named["BACKENDAI_TEST_PG"] = stack.enter_context(postgres.postgres_server())
    except Absent as why:
        absent.append(str(why))
    return named, absent


def main() -> None:
    with ExitStack() as stack:
        named, absent = serve(stack)
        for why in absent:
            print(f"# {why}")
        for name, value in named.items():
            print(f"export {name}='{value}'", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("# stopping")


if __name__ == "__main__":
    main()
