#!/usr/bin/env bash
# Prints the path of a uv: the one on the PATH if it is new enough, else a pinned one in .tools/,
# fetched there with the Python given as $1 and checked against the hashes of requirements-uv.lock.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
oldest=0.8

main() {
  local pinned
  pinned=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements-uv.lock)
  if new_enough "$(version uv)" "$oldest"; then
    command -v uv
  elif [[ $(version .tools/uv) == "$pinned" ]]; then
    echo "$PWD/.tools/uv"
  else
    echo "Fetching uv $pinned into .tools/" >&2
    fetch >&2
    echo "$PWD/.tools/uv"
  fi
}

version() { "$1" --version 2>/dev/null | cut -d' ' -f2 || true; }

# Whether version $1 is there and not older than $2.
new_enough() { [[ -n $1 && $(printf '%s\n' "$2" "$1" | sort -V | head -n1) == "$2" ]]; }

# uv is one self-contained program: whatever pip puts around it is thrown away.
fetch() {
  mkdir -p .tools
  work=$(mktemp -d .tools/fetch.XXXXXX)
  trap 'rm -rf "$work"' EXIT
  local options=(--quiet --disable-pip-version-check --root-user-action=ignore
    --no-deps --require-hashes -r requirements-uv.lock)
  if "$python" -m venv "$work/venv" >"$work/log" 2>&1; then
    "$work/venv/bin/python" -m pip install "${options[@]}"
    mv "$work/venv/bin/uv" .tools/uv
  elif "$python" -m pip --version >>"$work/log" 2>&1; then
    # Debian without python3-venv has venv but not ensurepip.
    "$python" -m pip install --target "$work/target" "${options[@]}"
    mv "$work/target/bin/uv" .tools/uv
  else
    cat "$work/log"
    echo "error: $python has neither a working venv nor pip, so uv can't be fetched."
    echo "help: install uv, or python3-venv (Debian), or python3-pip."
    return 1
  fi
}

main
