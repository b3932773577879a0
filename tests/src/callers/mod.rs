//! The real programs that dhow-runtime is a drop-in for, each started from the distribution's package.
//!
//! Every caller lives in a [`crate::Sandbox`] with data roots of its own. A daemon takes seconds to start, so there is
//! one test per caller, made of named [`Steps`]: a step that fails does not stop the others, and the test fails at the
//! end with all that went wrong.

pub mod buildah;
pub mod containerd;
pub mod docker;
pub mod podman;

use crate::bundle::busybox_rootfs;
use crate::command::run;
use crate::sandbox::Sandbox;
use serde_json::json;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The steps of one caller's test.
///
/// `DHOW_STEP` in the environment runs only the steps whose name contains it.
#[derive(Debug)]
pub struct Steps {
    caller: &'static str,
    only: Option<String>,
    passed: usize,
    failed: Vec<String>,
}

impl Steps {
    /// Begins the steps of `caller`.
    pub fn new(caller: &'static str) -> Steps {
        Steps { caller, only: std::env::var("DHOW_STEP").ok(), passed: 0, failed: Vec::new() }
    }

    /// Runs one step; it fails by panicking.
    pub fn step(&mut self, name: &str, body: impl FnOnce()) {
        if self.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            return;
        }
        let start = Instant::now();
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(()) => {
                self.passed += 1;
                self.say(&format!("{}: ok   {name} ({} ms)", self.caller, start.elapsed().as_millis()));
            }
            Err(payload) => {
                // The panic itself has been printed, with its place.
                drop(payload);
                self.say(&format!("{}: FAIL {name}", self.caller));
                self.failed.push(name.to_owned());
            }
        }
    }

    /// Ends the steps.
    ///
    /// # Panics
    /// If a step failed, with the names of all that did.
    #[track_caller]
    pub fn finish(self) {
        let (failed, all) = (self.failed.len(), self.failed.len() + self.passed);
        assert!(
            self.failed.is_empty(),
            "{}: {failed} of {all} steps failed (see above):\n  {}",
            self.caller,
            self.failed.join("\n  ")
        );
        assert!(self.passed > 0, "no step of {} ran", self.caller);
    }

    /// Progress, captured by the test harness unless the test fails.
    #[allow(clippy::print_stderr)]
    fn say(&self, line: &str) {
        eprintln!("{line}");
    }
}

/// Writes a tar archive of a busybox root filesystem below the sandbox's directory and returns its path.
///
/// # Panics
/// If busybox-static or tar is missing.
pub fn busybox_tar(sandbox: &Sandbox) -> PathBuf {
    let tar = sandbox.join("busybox.tar");
    if !tar.exists() {
        let rootfs = sandbox.scratch().dir("image-rootfs");
        busybox_rootfs(&rootfs);
        // Callers keep what is below /proc, /sys and /dev for themselves.
        let mut command = Command::new("tar");
        command.arg("-C").arg(&rootfs).args(["--owner=0", "--group=0", "-cf"]).arg(&tar).arg(".");
        run(&mut command).ok();
        fs::remove_dir_all(&rootfs).expect("remove a directory of our own");
    }
    tar
}

/// Writes an OCI image layout of busybox, named `reference`, as one tar archive, and returns its path.
///
/// # Panics
/// If busybox-static, tar or sha256sum is missing.
pub fn busybox_oci_archive(sandbox: &Sandbox, reference: &str) -> PathBuf {
    let layout = sandbox.scratch().dir("oci-layout");
    let blobs = sandbox.scratch().dir("oci-layout/blobs/sha256");
    let layer = put_blob(&blobs, &fs::read(busybox_tar(sandbox)).expect("read the layer"));
    let config = json!({
        "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", _ => "amd64" },
        "os": "linux",
        "config": { "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": [layer.digest] },
        "history": [{ "created_by": "dhow-tests" }]
    });
    let config = put_blob(&blobs, config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")]
    });
    let manifest = put_blob(&blobs, manifest.to_string().as_bytes());
    let mut entry = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
    entry["annotations"] = json!({
        "org.opencontainers.image.ref.name": reference.rsplit_once(':').map_or("latest", |(_, tag)| tag),
        "io.containerd.image.name": reference
    });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(layout.join("index.json"), index.to_string()).expect("write index.json");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write oci-layout");
    let archive = sandbox.join("busybox-oci.tar");
    run(Command::new("tar").arg("-C").arg(&layout).arg("-cf").arg(&archive).arg(".")).ok();
    fs::remove_dir_all(&layout).expect("remove a directory of our own");
    archive
}

struct Blob {
    digest: String,
    size_bytes: usize,
}

impl Blob {
    fn descriptor(&self, media_type: &str) -> serde_json::Value {
        json!({ "mediaType": media_type, "digest": self.digest, "size": self.size_bytes })
    }
}

/// Stores a blob under its digest.
fn put_blob(dir: &Path, bytes: &[u8]) -> Blob {
    let path = dir.join("new");
    fs::write(&path, bytes).expect("write a blob");
    let sum = run(Command::new("sha256sum").arg(&path)).ok();
    let hex = sum.stdout.split_whitespace().next().expect("sha256sum prints the digest").to_owned();
    fs::rename(&path, dir.join(&hex)).expect("name a blob");
    Blob { digest: format!("sha256:{hex}"), size_bytes: bytes.len() }
}

/// `script(1)` around a shell command line: gives it a terminal for standard input and output, and passes on its exit
/// code. What the terminal shows comes on standard output, with `\r\n`.
pub fn with_terminal(line: &str) -> Command {
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", line, "/dev/null"]).env("TERM", "xterm");
    command
}

/// Quotes an argument for a shell.
pub fn quote(arg: &str) -> String {
    format!("'{}'", arg.replace('\'', r"'\''"))
}
