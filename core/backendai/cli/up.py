"""``bai up``: manager and agent in one process, on one machine."""

from __future__ import annotations

import asyncio
import shutil
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backendai.cli import roles, setting
from backendai.cli.agents import runs_on
from backendai.cli.screen import show_json, slots
from backendai.client.settings import Login, load_settings, save_settings, settings_path
from backendai.model.errors import Failure

if TYPE_CHECKING:
    from backendai.agent.config import AgentConfig
    from backendai.manager.config import ManagerConfig
    from backendai.manager.serve import ManagerHandle

TOKEN_NAME = "bai up"
NODE = "box"
SANDBOX = "runtime_v10.sandbox"


def arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    roles.add_options(parser, "warning")
    parser.add_argument("--listen", metavar="HOST:PORT", help=f"{setting.LISTEN} when left out; port 0 for any free one")
    parser.add_argument("--runtime", default=None, metavar="auto|docker|sandbox",
                        help="what runs containers: auto takes docker when its engine answers, else the sandbox; or another plugin's name")


def run(options: Namespace) -> int:
    """Serve until Ctrl-C. Sessions go on without it, and are taken over at the next start."""
    data = (options.data or setting.default_data()).absolute()
    manager, agent = configure(options, data)
    load_settings()  # a file that cannot be read is said before anything is begun
    try:
        data.mkdir(parents=True, exist_ok=True)
        data.chmod(0o711)  # containers mount from below, and nobody else may look
    except OSError as error:
        raise Failure("invalid-request", f"{data} cannot be used ({error.strerror}); choose another --data.") from error
    roles.set_up_logging(options)
    return roles.run_until_told(lambda end: _serve(manager, agent, end, options.json))


def configure(options: Namespace, data: Path) -> tuple[ManagerConfig, AgentConfig]:
    """Return both roles' configurations; the sandbox shows neither's files, nor the user's token, to any session."""
    from backendai.agent.config import AgentConfig
    from backendai.manager.config import ManagerConfig

    file = setting.read_file(options.config)
    manager = setting.shape(file, "manager", ManagerConfig, {"data": data / "manager", **setting.where(options.listen, file)})
    agent = setting.shape(file, "agent", AgentConfig, {
        "data": data / "agent", "manager_url": "", "token": "", "name": None if "name" in file.agent else NODE, "runtime": options.runtime})
    given = agent.plugins.options.get(SANDBOX, {})
    hidden = [*given.get("hide", ()), str(data), str(settings_path().parent)]
    own = {**agent.plugins.options, SANDBOX: {**given, "hide": hidden}}
    return manager, replace(agent, plugins=replace(agent.plugins, options=own))


async def _serve(manager: ManagerConfig, agent: AgentConfig, end: asyncio.Event, as_json: bool) -> None:
    from backendai.agent.serve import serve_agent
    from backendai.manager.serve import serve_manager

    async with serve_manager(manager) as serving:
        login = await _log_in(serving)
        token = await serving.make_agent_token(TOKEN_NAME)
        async with serve_agent(replace(agent, manager_url=serving.url, token=token)) as handle:
            await handle.joined()
            await _greet(login, manager.data.parent, as_json)
            await end.wait()


async def _log_in(serving: ManagerHandle) -> Login:
    """Return the user's login at this platform; where there is none that works, make one and keep it."""
    settings = load_settings()
    known = [login for login in settings.logins.values() if login.cluster == serving.cluster]
    token = serving.first_admin_token
    for login in known:
        if token is None and await serving.knows_token(login.token):
            token = login.token
    login = Login(serving.url, token or await serving.make_admin_token(TOKEN_NAME), serving.cluster)
    save_settings(load_settings().add(login))
    return login


async def _greet(login: Login, data: Path, as_json: bool) -> None:
    """Say that it is ready, and what to type next."""
    from backendai.client.aio import AsyncClient
    from backendai.client.calls import list_agents

    async with AsyncClient(login.url, login.token) as client:
        agent = (await client.do(list_agents()))[0]
    if as_json:
        show_json({"url": login.url, "token": login.token, "data": str(data), "runtime": agent.runtime, "cluster": login.cluster})
        sys.stdout.flush()
        return
    bai = "bai" if shutil.which("bai") else sys.argv[0]
    facts: dict[str, Any] = {"address": login.url, "token": f"{login.token}  (kept for you in {settings_path()})",
                             "runtime": runs_on(agent.runtime, agent.engine), "capacity": slots(agent.capacity), "data": data}
    print("The platform is ready.\n" if agent.healthy else f"The platform is up, but it can run nothing yet: {agent.why}\n")
    for name, value in facts.items():
        print(f"  {name:10}{value}")
    print(f"\nIn another terminal:  {bai} run -- echo hello\n\nCtrl-C stops it; sessions go on, and are taken over at the next start.",
          flush=True)
