"""``bai serve``: the manager or an agent as a process of its own."""

from __future__ import annotations

import asyncio
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from backendai.cli import roles, setting
from backendai.model.errors import Failure

TOKEN = "BACKENDAI_AGENT_TOKEN"


def arguments(parser: ArgumentParser) -> None:
    """Add the two roles."""
    commands = parser.add_subparsers(dest="role", required=True, metavar="ROLE")
    manager = commands.add_parser("manager", help="the API, the queue and the database")
    roles.add_options(manager, "info")
    manager.add_argument("--listen", metavar="HOST:PORT", help=f"{setting.LISTEN} when left out; port 0 for any free one")
    manager.add_argument("--db", metavar="URL", help="postgresql://USER:PASSWORD@HOST/NAME; SQLite in --data when left out")
    manager.add_argument("--scheduler", help="the plugin that says who is next")
    manager.add_argument("--selector", help="the plugin that says where")
    agent = commands.add_parser("agent", help="this machine, lent to a manager")
    roles.add_options(agent, "info")
    agent.add_argument("--manager", required=True, metavar="URL", help="where the manager is")
    agent.add_argument("--token", help=f"made by `bai token create --agent NAME`; better given in {TOKEN}, which no process list shows")
    agent.add_argument("--name", help="unique in the cluster; the machine's own when left out")
    agent.add_argument("--runtime", metavar="auto|docker|sandbox", help="as for `bai up`")
    agent.add_argument("--label", action="append", metavar="NAME=VALUE", help="what to say of this machine, such as zone=r1")
    agent.add_argument("--address", metavar="ADDRESS", help="by which other agents' machines reach this one; found out when left out")
    agent.add_argument("--mount-root", action="append", metavar="DIR", help="a folder below which sessions may mount")


def run(options: Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    data = (options.data or setting.default_data() / options.role).absolute()
    file = setting.read_file(options.config)
    serve = _manager if options.role == "manager" else _agent
    roles.set_up_logging(options)
    try:
        return roles.run_until_told(lambda end: serve(options, file, data, end))
    except PermissionError as error:
        raise Failure("invalid-request", f"{error.filename} cannot be used ({error.strerror}); choose another --data.") from error


async def _manager(options: Namespace, file: setting.File, data: Path, end: asyncio.Event) -> None:
    from backendai.manager.config import ManagerConfig
    from backendai.manager.serve import serve_manager

    config = setting.shape(file, "manager", ManagerConfig, {
        "data": data, **setting.where(options.listen, file), "db_url": options.db, "scheduler": options.scheduler,
        "selector": options.selector})
    async with serve_manager(config) as serving:
        print(f"The manager serves {serving.url}")
        if serving.first_admin_token is not None:
            print(f"The administrator's token, shown this once: {serving.first_admin_token}")
            print(f"Use it:  bai login {serving.url}")
        print("Add machines:  bai token create --agent NAME", flush=True)
        await end.wait()


def read_labels(given: list[str] | None) -> dict[str, str] | None:
    """Read ``NAME=VALUE`` words; None where there is none, so that the file's hold."""
    pairs = [word.partition("=") for word in given or ()]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise Failure("invalid-request", f"--label {name}{equals}: write NAME=VALUE, such as zone=r1.")
    return {name: value for name, _, value in pairs} or None


async def _agent(options: Namespace, file: setting.File, data: Path, end: asyncio.Event) -> None:
    from backendai.agent.config import AgentConfig
    from backendai.agent.serve import serve_agent
    from backendai.client.settings import check_url

    token = options.token or os.environ.pop(TOKEN, "")
    if not token:
        raise Failure("invalid-request", f"A token is needed, made by `bai token create --agent NAME`; give it in {TOKEN} or as --token.")
    config = setting.shape(file, "agent", AgentConfig, {
        "data": data, "manager_url": check_url(options.manager), "token": token, "name": options.name, "runtime": options.runtime,
        "mount_roots": options.mount_root, "labels": read_labels(options.label), "address": options.address})
    async with serve_agent(config) as handle:
        print(f"The agent {handle.name} runs containers with {handle.runtime}", flush=True)
        stop = asyncio.create_task(end.wait())
        joined = asyncio.create_task(handle.link.joined.wait())
        await asyncio.wait([stop, joined], return_when=asyncio.FIRST_COMPLETED)
        if joined.done():
            print(f"It has joined {config.manager_url}", flush=True)
        await stop
        joined.cancel()
