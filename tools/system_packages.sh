#!/usr/bin/env bash
# Installs the Debian packages that some tests need, where it may: as root, with apt-get.
# Elsewhere those tests are skipped by name, with the reason.
#
#   strace: kills a process at its N-th system call (crash-safety of the run directory)
set -euo pipefail

missing=()
for package in strace; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
done 2>/dev/null
((${#missing[@]})) || exit 0
if ((EUID != 0)) || ! command -v apt-get > /dev/null; then
  echo "Not installed: ${missing[*]} (needs root on Debian); the tests that need it are skipped by name"
  exit 0
fi
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
if ! said=$({ apt-get update -qq && apt-get install -qq -y --no-install-recommends "${missing[@]}"; } 2>&1); then
  tail -n 5 <<< "$said" >&2
  echo "apt-get can't install ${missing[*]}; the tests that need it are skipped by name"
fi
