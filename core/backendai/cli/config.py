"""``bai config``: the platforms that you are logged in at."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from backendai.cli.screen import show_json, show_table
from backendai.client.settings import check_url, load_settings, save_settings, settings_path


def arguments(parser: ArgumentParser) -> None:
    """Add the commands below this one."""
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    commands.add_parser("ls", help="list them; the star is the one in use")
    use = commands.add_parser("use", help="use another one from now on")
    use.add_argument("url")
    remove = commands.add_parser("rm", help="forget one and the token for it")
    remove.add_argument("url")
    commands.add_parser("path", help="print where this is kept")


def run(options: Namespace) -> int:
    """Show or change the settings."""
    if options.verb == "path":
        print(settings_path())
        return 0
    settings = load_settings()
    if options.verb == "ls":
        rows = [{"url": url, "cluster": login.cluster, "current": url == settings.current} for url, login in settings.logins.items()]
        if options.json:
            return show_json({"items": rows})
        show_table(("", "URL", "CLUSTER"), [("*" if row["current"] else "", str(row["url"]), str(row["cluster"])) for row in rows])
        return 0
    url = check_url(options.url)
    settings = settings.use(url) if options.verb == "use" else settings.remove(url)
    save_settings(settings)
    return show_json({"current": settings.current}) if options.json else 0
