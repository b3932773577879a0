#!/bin/sh
# Prints the target triple for the static binaries: musl where the toolchain has it or can add it, else glibc.
set -eu
arch=$(uname -m)
musl=$arch-unknown-linux-musl
if [ -d "$(rustc --print sysroot)/lib/rustlib/$musl/lib" ] || rustup target add "$musl" >/dev/null 2>&1; then
    echo "$musl"
else
    echo "$arch-unknown-linux-gnu"
fi
