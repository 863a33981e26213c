#!/usr/bin/env bash
# Gets the scripts of the Cityscapes benchmark into a folder of the user's cache, with the old numpy
# that they need: ${XDG_CACHE_HOME:-~/.cache}/clusterseg/cityscapes/KEY. 25 MB to fetch, pinned in
# tools/cityscapes.lock. Only tests use them; where they can't be had, those are skipped by name.
#
#   tools/cityscapes.sh        get them; `make test` and `make proof` call it
#   tools/cityscapes.sh path   where they are (or would be); exit code 1 where they are not there
#
# They are run by FOLDER/python -S with FOLDER/packages as the only place to import from.
set -euo pipefail
cd "$(dirname "$0")/.."
store=${XDG_CACHE_HOME:-$HOME/.cache}/clusterseg/cityscapes

main() {
  local place
  place=$store/$(sha256sum < tools/cityscapes.lock | cut -c-12)
  if [[ ${1-} == path ]]; then
    echo "$place"
    [[ -d $place ]]
  elif [[ ! -d $place ]]; then
    get "$place"
  fi
}

# Made beside its place and renamed, so that what is there is whole.
get() {
  local place=$1 said code=0
  echo "Fetching the scripts of the Cityscapes benchmark into $place"
  if ! mkdir -p "$store" 2> /dev/null || [[ ! -w $store ]]; then
    not_there "$store can't be written"
    return
  fi
  sweep
  work=$store/.get.$$
  trap 'rm -rf "$work"' EXIT
  set +e # tested by its code, as in a condition its own failures would count for nothing
  said=$(set -e; install "$work" 2>&1)
  code=$?
  set -e
  if ((code)); then
    not_there "$said"
  elif ! said=$(mv -T "$work" "$place" 2>&1) && [[ ! -d $place ]]; then
    not_there "$said"
  fi
  rm -rf "$work"
}

# The last numpy before 2 has wheels up to Python 3.12.
install() {
  local uv python
  uv=$(tools/find_uv.sh .venv/bin/python)
  python=$("$uv" python find --no-project --no-python-downloads --system '>=3.11,<3.13')
  mkdir -p "$1"
  "$uv" pip install --quiet --python "$python" --target "$1/packages" --no-deps --require-hashes \
    --only-binary :all: -r tools/cityscapes.lock
  ln -s "$python" "$1/python"
}

not_there() {
  echo "Not there: the scripts of the Cityscapes benchmark; the tests that need them are skipped by name"
  grep '[^ ]' <<< "$1" | tail -n 3 | sed 's/^ */  /' || true
}

sweep() {
  local left
  for left in "$store"/.get.*; do
    if [[ -e $left && ! -e /proc/${left##*.} ]]; then rm -rf "$left"; fi
  done
}

main "$@"
