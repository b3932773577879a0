//! The runtime binary under test, run as a caller runs it: one process per command.

use crate::bundle::Bundle;
use crate::command::{DEADLINE, Output, run, run_with, wait_for};
use crate::scratch::{Scratch, fresh_tag};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A runtime binary with a `--root` of its own.
///
/// When dropped it does `delete --force` for each container that is still below that root.
#[derive(Debug)]
pub struct Runtime {
    binary: PathBuf,
    root: PathBuf,
    globals: Vec<String>,
    _scratch: Option<Scratch>,
}

impl Runtime {
    /// The binary under test with a new, empty root directory.
    ///
    /// # Panics
    /// If there is no binary; see [`binary`].
    pub fn from_env() -> Runtime {
        let scratch = Scratch::new();
        let root = scratch.dir("state");
        Runtime { binary: binary(), root, globals: Vec::new(), _scratch: Some(scratch) }
    }

    /// The binary under test with this root directory.
    ///
    /// # Panics
    /// If there is no binary; see [`binary`].
    pub fn with_root(root: PathBuf) -> Runtime {
        Runtime { binary: binary(), root, globals: Vec::new(), _scratch: None }
    }

    /// Another binary in place of the one under test (a peer, for comparison).
    pub fn using(mut self, binary: impl Into<PathBuf>) -> Runtime {
        self.binary = binary.into();
        self
    }

    /// Adds a global option, which stands before the command: `--debug`, `--log=...`.
    pub fn global(mut self, option: &str) -> Runtime {
        self.globals.push(option.to_owned());
        self
    }

    /// The binary's path.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The directory given as `--root`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// True if the binary is dhow's own, not a peer's: a few tests go beyond what the peers do.
    pub fn is_dhow(&self) -> bool {
        is_dhow()
    }

    /// A container id that nobody else uses.
    pub fn fresh_id(&self) -> String {
        fresh_tag()
    }

    /// The process of `<binary> --root <root> <args>`, not started: for other input, environment or wrappers.
    pub fn command<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root).args(&self.globals).args(args);
        command
    }

    /// Runs `<binary> --root <root> <args>` to its end.
    pub fn call<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Output {
        run(&mut self.command(args))
    }

    /// Runs `<binary> --root <root> <args>` with input.
    pub fn call_with_input<I: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = I>,
        input: &[u8],
    ) -> Output {
        run_with(&mut self.command(args), input, DEADLINE)
    }

    /// `run --bundle <bundle> <id>`, in the foreground.
    pub fn run(&self, id: &str, bundle: &Bundle) -> Output {
        self.call([OsStr::new("run"), OsStr::new("--bundle"), bundle.path().as_os_str(), OsStr::new(id)])
    }

    /// `run --detach --bundle <bundle> <id>`.
    pub fn run_detached(&self, id: &str, bundle: &Bundle) -> Output {
        let path = bundle.path().as_os_str();
        self.call([OsStr::new("run"), OsStr::new("--detach"), OsStr::new("--bundle"), path, OsStr::new(id)])
    }

    /// `create --bundle <bundle> <id>`.
    pub fn create(&self, id: &str, bundle: &Bundle) -> Output {
        self.call([OsStr::new("create"), OsStr::new("--bundle"), bundle.path().as_os_str(), OsStr::new(id)])
    }

    /// `start <id>`.
    pub fn start(&self, id: &str) -> Output {
        self.call(["start", id])
    }

    /// `exec <id> <args>`.
    pub fn exec(&self, id: &str, args: &[&str]) -> Output {
        self.call(["exec", id].iter().chain(args))
    }

    /// `kill <id> <signal>`.
    pub fn kill(&self, id: &str, signal: &str) -> Output {
        self.call(["kill", id, signal])
    }

    /// `delete <id>`.
    pub fn delete(&self, id: &str) -> Output {
        self.call(["delete", id])
    }

    /// `delete --force <id>`.
    pub fn delete_force(&self, id: &str) -> Output {
        self.call(["delete", "--force", id])
    }

    /// `state <id>`, parsed.
    ///
    /// # Panics
    /// If the command fails or prints no JSON.
    #[track_caller]
    pub fn state(&self, id: &str) -> Value {
        self.call(["state", id]).ok().json()
    }

    /// The container's `status`, or `None` if `state` fails: it does not exist.
    pub fn status(&self, id: &str) -> Option<String> {
        let out = self.call(["state", id]);
        out.success().then(|| out.json()["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until `state` says `status`.
    ///
    /// # Panics
    /// If it does not within ten seconds.
    #[track_caller]
    pub fn wait_status(&self, id: &str, status: &str) {
        let reached =
            wait_for(Duration::from_secs(10), || (self.status(id).as_deref() == Some(status)).then_some(()));
        assert!(reached.is_some(), "{id} is {:?}, not {status}", self.status(id));
    }

    /// The ids below the root directory, whatever state they are in.
    pub fn ids_on_disk(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for id in self.ids_on_disk() {
            self.delete_force(&id);
        }
    }
}

/// The binary under test: `DHOW_RUNTIME`, else the static release build, else the debug build.
///
/// # Panics
/// If there is none, with what to do.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("DHOW_RUNTIME") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "DHOW_RUNTIME={} is not a file", path.display());
        return path;
    }
    let target = target_dir();
    let arch = std::env::consts::ARCH;
    let builds = [format!("{arch}-unknown-linux-musl/release"), "debug".to_owned()];
    let found = builds.iter().map(|b| target.join(b).join("dhow-runtime")).find(|p| p.is_file());
    found.unwrap_or_else(|| {
        panic!("no dhow-runtime in {}: build it first, or set DHOW_RUNTIME", target.display())
    })
}

/// True if the binary under test is dhow's own, not a peer's.
pub fn is_dhow() -> bool {
    binary().file_name().is_some_and(|n| n.to_string_lossy().contains("dhow"))
}

/// Cargo's target directory, which this test's own executable is in.
fn target_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR") {
        return dir.into();
    }
    let exe = std::env::current_exe().expect("path of the test executable");
    // Cargo marks the top of the target directory; with --target the executable is one level deeper.
    let top = exe.ancestors().find(|d| d.join("CACHEDIR.TAG").is_file());
    top.expect("the test executable is in a target directory").to_path_buf()
}
