//! containerd, driven by `ctr`: its own shim (`io.containerd.runc.v2`) calls the runtime under test, which it is given
//! by the shim's BinaryName option (`ctr run --runc-binary`).
//!
//! The containerd namespace is the sandbox's tag, because containerd puts a container's cgroup below a cgroup of that
//! name. The snapshotter is overlayfs on the scratch directory's tmpfs.

use super::{busybox_oci_archive, quote, with_terminal};
use crate::command::{DEADLINE, Output, run, run_with, wait_for};
use crate::runtime;
use crate::sandbox::{CgroupView, Daemon, Sandbox};
use crate::skip::{find_program, missing_program};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The image's name.
pub const IMAGE: &str = "dhow.test/busybox:latest";

/// A running containerd with the image [`IMAGE`].
#[derive(Debug)]
pub struct Containerd {
    daemon: Daemon,
    sandbox: Sandbox,
}

impl Containerd {
    /// Starts it.
    ///
    /// # Errors
    /// Why this machine cannot: a reason to skip.
    ///
    /// # Panics
    /// If it is installed but does not come up.
    pub fn start() -> Result<Containerd, String> {
        let programs = ["containerd", "containerd-shim-runc-v2", "ctr", "tar", "sha256sum"];
        if let Some(program) = missing_program(&programs) {
            return Err(format!("{program} is not installed"));
        }
        // A missing binary is one failure of the test, not one of each step.
        runtime::binary();
        let sandbox = Sandbox::new(CgroupView::Host)?;
        let config = sandbox.join("containerd.toml");
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{0}/containerd.sock\"\n[ttrpc]\naddress = \"{0}/containerd.sock.ttrpc\"\n",
            sandbox.scratch().path().display()
        );
        fs::write(&config, text).expect("write containerd.toml");
        let mut command = sandbox.command(find_program("containerd").expect("found above"));
        let daemon = sandbox.spawn("containerd", command.arg("--config").arg(config));
        let mut containerd = Containerd { daemon, sandbox };
        let up = wait_for(Duration::from_secs(60), || {
            let up = containerd.ctr(["version"]).success();
            (up || !containerd.daemon.is_alive()).then_some(up)
        });
        assert!(up == Some(true), "containerd does not come up:\n{}", containerd.daemon.log_tail(20));
        let archive = busybox_oci_archive(&containerd.sandbox, IMAGE).display().to_string();
        containerd.ctr(["image", "import", &archive]).ok();
        Ok(containerd)
    }

    /// The daemon's sandbox.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The directory that the shim gives the runtime as `--root`.
    pub fn runtime_root(&self) -> PathBuf {
        self.sandbox.join("runtime-root").join(self.sandbox.tag())
    }

    /// `ctr <args>` in the test's namespace, not started. It runs inside, since it makes FIFOs in /run.
    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.sandbox.command("ctr");
        command.arg("--address").arg(self.sandbox.join("containerd.sock"));
        command.arg("--namespace").arg(self.sandbox.tag()).args(args);
        command
    }

    /// Runs `ctr <args>`.
    pub fn ctr<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        run(&mut self.command(args))
    }

    /// `ctr run` with the runtime under test, `options`, the image, `id` and `args`, not started.
    pub fn run_command(&self, options: &[&str], id: &str, args: &[&str]) -> Command {
        let mut command = self.command(["run", "--runtime", "io.containerd.runc.v2", "--runc-binary"]);
        command.arg(runtime::binary()).arg("--runc-root").arg(self.sandbox.join("runtime-root"));

        command.args(options).arg(IMAGE).arg(id).args(args);
        command
    }

    /// Runs `ctr run --rm <options> <image> <id> <args>` in the foreground.
    pub fn run(&self, options: &[&str], id: &str, args: &[&str]) -> Output {
        self.run_with_input(options, id, args, b"")
    }

    /// The same with input.
    pub fn run_with_input(&self, options: &[&str], id: &str, args: &[&str], input: &[u8]) -> Output {
        let all = [&["--rm"], options].concat();
        run_with(&mut self.run_command(&all, id, args), input, DEADLINE)
    }

    /// Runs `ctr run --detach <options> <image> <id> <args>`.
    pub fn run_detached(&self, options: &[&str], id: &str, args: &[&str]) -> Output {
        run(&mut self.run_command(&[&["--detach"], options].concat(), id, args))
    }

    /// Runs a `ctr` command on a terminal, after the shell commands `before` on the same terminal.
    pub fn on_terminal(&self, before: &str, command: &Command) -> Output {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line: Vec<String> = words.map(|w| quote(&w.to_string_lossy())).collect();
        run(&mut with_terminal(&format!("{before} {}", line.join(" "))))
    }

    /// Runs `ctr task exec <options> <id> <args>`.
    pub fn exec(&self, options: &[&str], id: &str, args: &[&str]) -> Output {
        let exec_id = crate::scratch::fresh_tag();
        let mut all = vec!["task", "exec", "--exec-id", &exec_id];
        all.extend(options);
        all.push(id);
        all.extend(args);
        self.ctr(all)
    }

    /// The task's status in `ctr task list`: `RUNNING`, `PAUSED`, `STOPPED`; `None` if there is no such task.
    pub fn status(&self, id: &str) -> Option<String> {
        let list = self.ctr(["task", "list"]).ok();
        list.stdout.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(id)).then(|| words.nth(1).unwrap_or_default().to_owned())
        })
    }

    /// Waits until the task's status is `status`.
    ///
    /// # Panics
    /// If it is not within ten seconds.
    #[track_caller]
    pub fn wait_status(&self, id: &str, status: &str) {
        let reached =
            wait_for(Duration::from_secs(10), || (self.status(id).as_deref() == Some(status)).then_some(()));
        assert!(reached.is_some(), "{id} is {:?}, not {status}", self.status(id));
    }

    /// Kills and removes a task and its container.
    pub fn remove(&self, id: &str) {
        self.ctr(["task", "kill", "--signal", "KILL", "--all", id]);
        self.ctr(["task", "delete", "--force", id]);
        self.ctr(["container", "delete", id]);
    }
}
