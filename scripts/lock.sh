#!/bin/sh
# Writes requirements.lock (what runs) and requirements-test.lock (what tests it): hashes, no hosts, Python 3.11 and newer.
set -eu
cd "$(dirname "$0")/.."
compile() {
    out=$1; shift
    { echo "# Locked by \`make lock\`; hashes of every wheel and source archive."
      uv pip compile "$@" --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
          --no-emit-package backendai; } > "$out.new"
    mv "$out.new" "$out"
}
PATH="$PWD/.venv/bin:$PATH"
command -v uv >/dev/null || { echo "make lock needs uv: .venv/bin/pip install uv"; exit 1; }
compile requirements.lock core/pyproject.toml plugins/*/pyproject.toml --group build
compile requirements-test.lock --group test --constraints requirements.lock
