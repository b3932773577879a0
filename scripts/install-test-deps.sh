#!/bin/sh
# Installs the Debian packages that the tests and benchmarks use. Starts no service: while packages are installed, a
# policy-rc.d says no to every start, unless the machine has one of its own. Fast when all is there.
set -eu

packages="aardvark-dns bsdutils buildah busybox-static catatonit conmon containerd containernetworking-plugins cpio
crun dbus docker.io fuse-overlayfs gcc iproute2 iptables jq kmod libc6-dev libcap2-bin libseccomp2 mmdebstrap netavark
nftables passt podman procps runc slirp4netns strace tini uidmap util-linux"

missing=
for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "not root; these packages are missing:$missing" >&2
    exit 1
fi

policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
echo "installing:$missing"
# shellcheck disable=SC2086
install() { apt-get install -y -qq --no-install-recommends $missing; }
# The lists may be missing or old: fetch them, and only then ask again.
apt-get update -qq || echo "apt-get update failed; going on with the lists there are" >&2
install >/dev/null
