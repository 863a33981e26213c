#!/usr/bin/env bash
# Makes or updates the environment .venv from a committed lock; `make setup` and `make test` call it.
#
#   tools/setup.sh runtime|dev
#
# Where no uv is on the PATH, a pinned one is fetched into .tools/. Nothing is done when the
# environment already fits the lock; one whose making was interrupted is made again.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:?usage: tools/setup.sh runtime|dev}
case $profile in
  runtime) lock=requirements.lock ;;
  dev) lock=requirements-dev.lock ;;
  *) echo "tools/setup.sh: no profile '$profile'" >&2; exit 2 ;;
esac
stamp=.venv/.clusterseg-$profile
unfinished=.tools/unfinished # stands while .venv is being made

main() {
  local key uv python
  key=$(cat "$lock" pyproject.toml <(pwd) | sha256sum | cut -d' ' -f1)
  if [[ ! -e $unfinished ]] && works .venv/bin/python && [[ $(cat "$stamp" 2>/dev/null) == "$key" ]]; then
    return
  fi
  python=$(find_python)
  mkdir -p .tools
  uv=$(tools/find_uv.sh "$python")
  if [[ -e $unfinished ]] || ! works .venv/bin/python || moved; then
    touch "$unfinished"
    echo "Making .venv with $("$python" --version) ($python)"
    "$uv" venv --quiet --clear --python "$python" .venv
  fi
  touch "$unfinished"
  echo "Installing the packages of $lock (the first time some 650 MB are fetched)"
  local progress=()
  [[ -t 2 ]] || progress=(--quiet)
  "$uv" pip install "${progress[@]}" --python .venv/bin/python --require-hashes -r "$lock"
  drop_strange_tests
  # The build tools are in the lock, so nothing unpinned is fetched to build it.
  "$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
  echo "$key" > "$stamp"
  rm "$unfinished"
  echo "Ready: .venv/bin/clusterseg"
}

# tf2onnx's wheel brings its own tests, as a package `tests` at the top: where this repository's
# folder is not the first on the path, `import tests` would find that one.
drop_strange_tests() {
  local site
  for site in .venv/lib/python3*/site-packages; do
    if grep -q '^tests/' "$site"/tf2onnx-*.dist-info/RECORD 2>/dev/null; then
      rm -rf "$site/tests"
    fi
  done
}

# Whether $1 is a Python that runs, and one that TensorFlow 2.21 has wheels for.
works() {
  [[ -x $(command -v "$1") ]] &&
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# Whether .venv was made at another place: its scripts name that place.
moved() {
  [[ -e .venv/bin/clusterseg ]] && ! grep -q "^#!.*$PWD/.venv/bin/python\|^'''exec' .*$PWD/.venv" .venv/bin/clusterseg
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if works "$candidate"; then
      # Not the Python of an activated environment, but the one that it was made with.
      "$candidate" -c 'import sys; print(sys._base_executable)'
      return
    fi
  done
  {
    echo "error: clusterseg needs Python 3.11, 3.12 or 3.13 (those that TensorFlow 2.21 has wheels for)."
    echo "found: ${PYTHON:-python3}, $("${PYTHON:-python3}" --version 2>&1 || true)"
    echo "help: install one of them, or name it: make setup PYTHON=/path/to/python3.12"
  } >&2
  return 1
}

main
