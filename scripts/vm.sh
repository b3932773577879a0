#!/bin/sh
# Runs integration tests of dhow-tests with the release runtime in guests (tests/src/bin/vm):
#   scripts/vm.sh full  TEST... [-- FILTER...]   pure cgroup v2, v1, and v2 on Linux 6.1
#   scripts/vm.sh short TEST... [-- FILTER...]   pure cgroup v2 alone, for CI
# DHOW_RUNTIME names the runtime; the musl release build is the default.
set -u
cd "$(dirname "$0")/.." || exit

form=${1:?full or short}
shift
tests=
while [ $# -gt 0 ]; do
	case $1 in
	--)
		shift
		break
		;;
	*) tests="$tests --test $1" ;;
	esac
	shift
done

built=${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-musl/release/dhow-runtime
DHOW_RUNTIME=$(realpath "${DHOW_RUNTIME:-$built}") || exit
export DHOW_RUNTIME

worst=0
guest() {
	# shellcheck disable=SC2086 # the tests are words
	cargo run --quiet --package dhow-tests --bin vm -- "$@" $tests -- --test-threads=1 $filters
	status=$?
	[ $worst -ne 0 ] || worst=$status
}

filters=$*
case $form in
full)
	guest --cgroup v2 --kernel backports --timeout "${DHOW_VM_TIMEOUT:-1800}"
	guest --cgroup v1 --timeout "${DHOW_VM_TIMEOUT:-1800}"
	guest --cgroup v2 --kernel 6.1 --timeout "${DHOW_VM_TIMEOUT:-1800}"
	;;
short)
	guest --cgroup v2 --kernel backports --timeout "${DHOW_VM_TIMEOUT:-240}"
	;;
*)
	echo "vm.sh: full or short, not $form" >&2
	exit 2
	;;
esac
exit $worst
