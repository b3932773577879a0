//! Each member of config.json as it shows inside a real container (docs/spec-conformance.md names these tests).
//! As root; each test has its own container and leaves nothing.

mod devices;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod rootfs;
mod seccomp;
mod sys;
mod user_namespace;

use dhow_tests::{Container, Output};
use std::process::Command;

/// Ends the test where there is no root.
#[macro_export]
macro_rules! needs_root {
    () => {
        if !dhow_tests::skip::is_root() {
            dhow_tests::skip!("not root");
        }
    };
}

/// Checks that a command failed with this in its message.
#[track_caller]
pub fn refused(output: &Output, message: &str) {
    assert!(!output.success(), "{output}");
    assert!(output.stderr.contains(message), "expected {message:?}: {output}");
}

/// `run` in the foreground by a shell that has done `prepare` first, below unshare(1) with these options. In the script
/// `$BUNDLE` is the bundle's directory.
#[track_caller]
pub fn run_below(c: &mut Container, unshare: &[&str], prepare: &str, script: &str) -> Output {
    c.bundle.shell(script).write();
    let line = format!(r#"set -e; {prepare}; exec "$BINARY" --root "$ROOT" run -b "$BUNDLE" "$ID""#);
    dhow_tests::run(
        Command::new("unshare")
            .args(unshare)
            .args(["sh", "-c", &line])
            .env("BINARY", c.runtime.binary())
            .env("ROOT", c.runtime.root())
            .env("BUNDLE", c.bundle.path())
            .env("ID", &c.id),
    )
}
