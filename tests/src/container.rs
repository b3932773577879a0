//! One container for one test: a bundle, a runtime with its own root, and an id, with everything gone at the end.

use crate::bundle::Bundle;
use crate::command::{Output, wait_for};
use crate::leftovers;
use crate::runtime::Runtime;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A container whose id is its bundle's tag.
///
/// When dropped it deletes the container by force, and panics if a process, cgroup, mount or directory of it is left,
/// unless the test has failed already.
#[derive(Debug)]
pub struct Container {
    /// Its bundle; changes count from the next [`Container::run`] or [`Container::start`] on.
    pub bundle: Bundle,
    /// The runtime, with a root directory in the bundle's.
    pub runtime: Runtime,
    /// Its id.
    pub id: String,
}

impl Default for Container {
    fn default() -> Container {
        Container::new()
    }
}

impl Container {
    /// A container that does not exist yet, of a busybox bundle.
    ///
    /// # Panics
    /// As [`Bundle::busybox`] and [`crate::runtime::binary`].
    pub fn new() -> Container {
        let bundle = Bundle::busybox();
        let runtime = bundle.runtime();
        let id = bundle.tag().to_owned();
        Container { bundle, runtime, id }
    }

    /// Sets a member of `config.json` by its JSON pointer.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Container {
        self.bundle.set(pointer, value);
        self
    }

    /// `run` in the foreground of a shell with this script.
    #[track_caller]
    pub fn run(&mut self, script: &str) -> Output {
        self.bundle.shell(script).write();
        self.runtime.run(&self.id, &self.bundle)
    }

    /// The standard output, without white space around it, of [`Container::run`], which must succeed.
    #[track_caller]
    pub fn see(&mut self, script: &str) -> String {
        self.run(script).ok().text().to_owned()
    }

    /// `run --detach` of a shell that runs `script` and then waits to be killed.
    #[track_caller]
    pub fn start(&mut self, script: &str) {
        // No end of its own, and no child process that the test would have to tell from its own.
        let script = format!("{script}\nwhile :; do read line <&9; done");
        self.bundle
            .args(["/bin/sh", "-c", &format!("mkfifo /tmp/wait; exec 9<>/tmp/wait; {script}")])
            .write();
        self.runtime.run_detached(&self.id, &self.bundle).ok();
    }

    /// `exec` of a shell with this script; its standard output without white space around it.
    #[track_caller]
    pub fn exec(&self, script: &str) -> String {
        self.runtime.exec(&self.id, &["/bin/sh", "-c", script]).ok().text().to_owned()
    }

    /// The pid of the container's first process on the host.
    ///
    /// # Panics
    /// If there is no such container.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let pid = self.runtime.state(&self.id)["pid"].as_u64().expect("a pid");
        u32::try_from(pid).expect("a pid of 32 bits")
    }

    /// A file on the host, in the bundle's directory.
    pub fn host_path(&self, name: &str) -> PathBuf {
        self.bundle.path().join(name)
    }

    /// Writes a file into the root filesystem.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.bundle.rootfs().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("make directories");
        fs::write(&path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }

    /// Writes a program into the root filesystem, by another process for the reason that is in
    /// [`crate::bundle::busybox_rootfs`].
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write_program(&self, name: &str, text: &str) {
        let script = r#"printf %s "$1" >"$2" && chmod 755 "$2""#;
        let path = self.bundle.rootfs().join(name);
        crate::run(Command::new("sh").args(["-c", script, "sh", text]).arg(path)).ok();
    }

    /// Waits until a file of the root filesystem is there, and returns what is in it.
    ///
    /// # Panics
    /// If it is not there after ten seconds.
    #[track_caller]
    pub fn wait_file(&self, name: &str) -> String {
        let path = self.bundle.rootfs().join(name);
        let text =
            wait_for(Duration::from_secs(10), || fs::read_to_string(&path).ok().filter(|t| !t.is_empty()));
        text.unwrap_or_else(|| panic!("{} did not appear", path.display()))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let deleted = self.runtime.delete_force(&self.id);
        let left = leftovers::remaining(self.bundle.tag(), Some(self.runtime.root()));
        if !std::thread::panicking() {
            assert!(deleted.success(), "{deleted}");
            assert!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_runs_and_is_gone() {
        if !crate::skip::is_root() {
            crate::skip!("not root");
        }
        let mut container = Container::new();
        assert_eq!(container.see("echo $((6 * 7))"), "42");
        container.start("echo up >/tmp/up");
        assert_eq!(container.wait_file("tmp/up"), "up\n");
        assert_eq!(container.exec("cat /proc/1/comm"), "sh");
    }
}
