#!/bin/sh
# Makes a busybox bundle, runs a container from it and shows its output. Argument: the dhow-runtime binary.
set -eu
runtime=$1
command -v busybox >/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1 || {
    apt-get install -y -qq --no-install-recommends busybox-static >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends busybox-static >/dev/null; }
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/rootfs/bin" && cd "$work"
cp "$(command -v busybox)" rootfs/bin/busybox
for applet in sh echo hostname id ps cat ls sleep; do ln -s busybox "rootfs/bin/$applet"; done
"$runtime" spec
sed -i 's/"terminal": true/"terminal": false/; s/"sh"$/"sh", "-c", "echo hello from $(hostname), as $(id -u), with these processes:; ps; ls \/"/' config.json
echo "--- dhow-runtime run demo"
"$runtime" --root "$work/state" run demo
echo "--- create, state, start, and its output in a file: what an engine does"
sed -i 's/"echo hello.*"/"echo started; sleep 1; echo done"/' config.json
"$runtime" --root "$work/state" create demo >"$work/log" 2>&1 </dev/null
"$runtime" --root "$work/state" state demo | grep -E '"(id|status)"'
"$runtime" --root "$work/state" start demo
while "$runtime" --root "$work/state" state demo | grep -q running; do sleep 0.2; done
"$runtime" --root "$work/state" delete demo
echo "--- its log"
cat "$work/log"
