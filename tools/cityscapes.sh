#!/usr/bin/env bash
# Gets the scripts of the Cityscapes benchmark into a folder of the user's cache, with the old numpy
# that they need: ${XDG_CACHE_HOME:-~/.cache}/clusterseg/cityscapes/KEY. 25 MB to fetch, pinned in
# tools/cityscapes.lock. Only tests use them; where they can't be had, those are skipped by name.
#
#   tools/cityscapes.sh        get them; `make test` and `make proof` call it
#   tools/cityscapes.sh path   where they are (or would be); exit code 1 where they are not there
#
# They are run by FOLDER/python -S with FOLDER/packages as the only place to import from.
source "$(dirname "$0")/apart.sh"

# The last numpy before 2 has wheels up to Python 3.12.
apart cityscapes "the scripts of the Cityscapes benchmark" '>=3.11,<3.13' "$@"
