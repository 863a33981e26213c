#!/usr/bin/env bash
# Gets QONNX' own tools, as FPGA tools use them, into a folder of the user's cache, with the packages
# that they want: ${XDG_CACHE_HOME:-~/.cache}/clusterseg/qonnx/KEY. 213 MB there, pinned in
# tools/qonnx.lock. Only a test uses them; where they can't be had, it is skipped by name.
#
#   tools/qonnx.sh        get them; `make proof` calls it
#   tools/qonnx.sh path   where they are (or would be); exit code 1 where they are not there
#
# They are run by FOLDER/python -S with FOLDER/packages as the only place to import from.
source "$(dirname "$0")/apart.sh"

apart qonnx "QONNX' own tools" '>=3.11,<3.15' "$@"
