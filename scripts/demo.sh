#!/bin/sh
# Shows the platform once, on a data folder of its own and a free port, and removes everything again: demo.sh FOLDER-OF-BAI.
set -eu
PATH="$(cd "$1" && pwd):$PATH"
box=$(mktemp -d "${TMPDIR:-/tmp}/bai-demo.XXXXXX")
export HOME="$box/home" XDG_CONFIG_HOME="$box/home/.config" XDG_STATE_HOME="$box/home/.state" XDG_CACHE_HOME="$box/home/.cache"
mkdir -p "$HOME"
unset BACKENDAI_URL BACKENDAI_TOKEN
up=

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '$ bai %s\n' "$*"; bai "$@"; }

clean() {
    status=$?
    trap - EXIT INT TERM HUP
    if [ -n "$up" ] && kill -0 "$up" 2>/dev/null; then
        bai rm --force lab hello >/dev/null 2>&1 || true
        kill -TERM "$up"
        wait "$up" || true
    fi
    if [ "$status" -ne 0 ] && [ "$status" -ne 130 ]; then
        echo "The demo did not work (exit status $status). What the platform said:" >&2
        tail -n 30 "$box/up.log" >&2 || true
    fi
    rm -rf "$box"
    exit "$status"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
trap 'exit 141' PIPE

say "1. One command starts the platform: manager, agent and database in one process."
echo "$ bai up --data $box/data --listen 127.0.0.1:0"
bai up --data "$box/data" --listen 127.0.0.1:0 >"$box/up.log" 2>&1 &
up=$!
tries=0
until grep -q "is ready" "$box/up.log" 2>/dev/null; do
    kill -0 "$up" 2>/dev/null || { up=; exit 1; }
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || exit 1
    sleep 0.1
done
sed "/^In another/,\$d" "$box/up.log"
run agents

say "2. A batch session: its output comes as it is written, and its exit code is the command's."
run run --name hello -- sh -c 'echo "Hello from $(hostname), process $$."; id'

say "3. An interactive session stays until you stop it; commands in it answer live."
run start --name lab
run exec lab -- sh -c 'for step in 1 2 3; do echo "step $step of 3"; sleep 0.3; done'

say "4. What ran, and how it went."
run ps -a

say "5. Nothing is left behind."
run stop lab
run rm lab hello
run ps -a
say "That was it. Start it for yourself with .venv/bin/bai up"
