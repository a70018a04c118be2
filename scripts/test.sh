#!/bin/sh
# Sets up what the tests need, runs all of them, and cleans up. With root on Debian or Ubuntu it installs what is missing.
set -eu
cd "$(dirname "$0")/.."

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    missing=
    for package in bubblewrap debootstrap docker.io docker-registry gcc iproute2 iptables libc6-dev podman postgresql procps python3-venv slirp4netns uidmap util-linux; do
        dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
    done
    command -v docker >/dev/null || missing="$missing docker-cli"  # a package of its own from Debian 13 on
    if [ -n "$missing" ]; then
        echo "Installing$missing ..."
        quiet=/usr/sbin/policy-rc.d  # keeps packages from starting services of their own
        if [ ! -e $quiet ]; then
            printf '#!/bin/sh\nexit 101\n' >$quiet && chmod +x $quiet
            trap 'rm -f $quiet' EXIT
        fi
        export DEBIAN_FRONTEND=noninteractive
        { apt-get -qq update && for package in $missing; do apt-get -qq -y install --no-install-recommends "$package" || true; done; } \
            >/dev/null || echo "apt-get did not install everything; the tests will say what is missing."
        rm -f $quiet
        trap - EXIT
    fi
fi
make --no-print-directory setup-test
exec .venv/bin/python -m tests.parts
