#!/bin/sh
# Makes a Debian 13 root with the runtimes and tools that dhow is measured and tested against,
# once: a finished root is kept, an interrupted one is made anew. Needs root and mmdebstrap.
#
#   scripts/debian13-root.sh            prints the directory of the root
#
# DHOW_DEBIAN13=DIR           where the root goes (default /var/cache/dhow-test/debian13)
# DHOW_DEBIAN13_MIRROR=URI    the mirror (default: the one this machine's apt is set up with)
# DHOW_DEBIAN13_PACKAGES=...  the packages, separated by commas
set -eu

root=${DHOW_DEBIAN13:-/var/cache/dhow-test/debian13}
packages=${DHOW_DEBIAN13_PACKAGES:-crun,runc,criu,podman,buildah,containerd,conmon}

say() { echo "debian13-root: $*" >&2; }

# Written last, and holds what the root was made of: another list of packages is another root.
mark=$root/etc/dhow-test-root
finished() { [ -f "$mark" ] && [ "$(cat "$mark")" = "$packages" ]; }

if finished; then
    echo "$root"
    exit 0
fi

[ "$(id -u)" = 0 ] || { say "must be run as root"; exit 1; }
command -v mmdebstrap >/dev/null || { say "mmdebstrap is not installed"; exit 1; }

mkdir -p "$(dirname "$root")"
exec 9>"$root.lock"
flock 9
if finished; then
    echo "$root"
    exit 0
fi

# The archive proper is the one whose label is "Debian"; "Debian-Security" and others are not.
mirror=${DHOW_DEBIAN13_MIRROR:-$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' |
    sed -n 's/^Debian|Debian|//p' | head -n 1)}
[ -n "$mirror" ] || { say "apt knows no Debian mirror; set DHOW_DEBIAN13_MIRROR"; exit 1; }

proxy=$(apt-config dump --format '%v' Acquire::http::Proxy)
set -- ${proxy:+"--aptopt=Acquire::http::Proxy \"$proxy\""}

building=$root.building
rm -rf --one-file-system "$building" "$root"
say "making $root from $mirror"
mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
    --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$@" trixie "$building" "$mirror" >&2
printf '%s\n' "$packages" >"$building/etc/dhow-test-root"
mv "$building" "$root"
echo "$root"
