//! Namespaces of a test's own, in which daemons and their containers cannot outlive it.
//!
//! A sandbox is a pid, mount, network and IPC namespace, held by one small process (tini, which also reaps what daemons
//! leave behind). Its standard input is a pipe from the test: when the test ends, however it ends, the holder reads
//! end of file, exits, and the kernel kills every process of the pid namespace and drops every mount with it. Nothing
//! stays but cgroups, which [`Sandbox`] removes by their tag when it is dropped.
//!
//! The scratch directories are the same inside and outside, so a client outside can connect to a socket of a daemon
//! inside.
//!
//! # Cgroup views
//! On a machine whose controllers are on cgroup v1 with an empty v2 tree beside them (hybrid), crun and podman find
//! neither of the two layouts they know. The mount namespace gives them one, leaving the machine's mounts alone.

use crate::command::{Output, run};
use crate::leftovers;
use crate::scratch::Scratch;
use crate::skip::missing_program;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// What is mounted on /sys/fs/cgroup in a [`Sandbox`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupView {
    /// As on the machine.
    Host,
    /// Version 1 only: the v2 tree of a hybrid layout is unmounted.
    V1,
    /// Version 2 only: the machine's v2 tree, whatever controllers it has.
    V2,
}

/// How the machine mounts cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupLayout {
    /// One v2 tree on /sys/fs/cgroup.
    Unified,
    /// v1 controllers, and a v2 tree on /sys/fs/cgroup/unified.
    Hybrid,
    /// v1 controllers only.
    Legacy,
}

/// The machine's cgroup layout, from the mounts.
pub fn cgroup_layout() -> CgroupLayout {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        CgroupLayout::Unified
    } else if Path::new("/sys/fs/cgroup/unified/cgroup.controllers").exists() {
        CgroupLayout::Hybrid
    } else {
        CgroupLayout::Legacy
    }
}

/// A set of namespaces and the scratch directory that goes with them.
#[derive(Debug)]
pub struct Sandbox {
    scratch: Scratch,
    holder: Child,
    /// Pid of the namespace's init, as this process sees it.
    init_pid: u32,
    stdin: Option<ChildStdin>,
}

/// The programs that a sandbox needs.
pub const PROGRAMS: [&str; 5] = ["unshare", "nsenter", "tini", "ip", "mount"];

impl Sandbox {
    /// Makes a sandbox.
    ///
    /// # Errors
    /// Why this machine cannot: no root, a program or a cgroup version that is not there. A reason to skip.
    pub fn new(view: CgroupView) -> Result<Sandbox, String> {
        if !crate::skip::is_root() {
            return Err("not root".to_owned());
        }
        if let Some(program) = missing_program(&PROGRAMS) {
            return Err(format!("{program} is not installed"));
        }
        let change_view = match (view, cgroup_layout()) {
            (CgroupView::Host, _)
            | (CgroupView::V2, CgroupLayout::Unified)
            | (CgroupView::V1, CgroupLayout::Legacy) => "",
            (CgroupView::V1, CgroupLayout::Hybrid) => "umount /sys/fs/cgroup/unified",
            (CgroupView::V2, CgroupLayout::Hybrid) => "mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup",
            (view, layout) => return Err(format!("the cgroup layout is {layout:?}, not usable as {view:?}")),
        };
        let scratch = Scratch::new();
        // Mounts propagate inside the sandbox, as they do on a machine that systemd has started, but not to outside.
        // /run is the sandbox's own: engines put locks and sockets there whatever roots they are given.
        let setup = format!(
            "set -e; ip link set lo up; mount --make-rshared /; mount -t tmpfs -o mode=755 run /run; mkdir /run/lock; {change_view}\n\
             echo ready; exec cat >/dev/null"
        );
        let mut holder = Command::new("unshare")
            .args(["--pid", "--mount", "--net", "--ipc", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "tini", "--", "sh", "-c", &setup])
            .env("DHOW_TEST", scratch.tag())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("unshare: {e}"))?;
        let stdin = holder.stdin.take();
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("stdout is piped");
        let _ = BufReader::new(stdout).read_line(&mut line);
        // From here on, dropping the value cleans up.
        let mut sandbox = Sandbox { scratch, holder, init_pid: 0, stdin };
        if line.trim() != "ready" {
            return Err("its namespaces or mounts cannot be made here".to_owned());
        }
        let unshare = sandbox.holder.id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
        let pid = children.ok().and_then(|c| c.split_whitespace().next().and_then(|p| p.parse().ok()));
        sandbox.init_pid = pid.ok_or("the namespace's init has gone")?;
        Ok(sandbox)
    }

    /// The sandbox's directory on tmpfs, the same inside and outside.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The tag that everything in the sandbox should carry: names of cgroups above all.
    pub fn tag(&self) -> &str {
        self.scratch.tag()
    }

    /// A path below the sandbox's directory.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.scratch.join(name)
    }

    /// A program that will run inside. `nsenter` passes its exit code on.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init_pid)).args(["--mount", "--net", "--ipc", "--pid", "--"]);
        command.arg(program.as_ref()).env("DHOW_TEST", self.tag()).current_dir("/");
        command
    }

    /// Runs a program inside to its end.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Output {
        run(self.command(program).args(args))
    }

    /// Runs a shell script inside to its end.
    #[track_caller]
    pub fn shell(&self, script: &str) -> Output {
        self.run("sh", ["-c", script])
    }

    /// Starts a daemon inside, its two outputs in the file `<name>.log` of the scratch directory.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Daemon {
        let path = self.join(format!("{name}.log"));
        let log = fs::File::create(&path).expect("make a log file");
        let err = log.try_clone().expect("duplicate a file");
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        Daemon { child, log: path }
    }

    /// Kills everything inside and waits until it is gone.
    fn stop(&mut self) {
        drop(self.stdin.take());
        // The holder's end comes from the end of file; the signal is for one that is stuck.
        let gone = crate::command::wait_for(std::time::Duration::from_secs(5), || {
            self.holder.try_wait().is_ok_and(|s| s.is_some()).then_some(())
        });
        if gone.is_none() {
            let _ = self.holder.kill();
            let _ = self.holder.wait();
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.stop();
        leftovers::remove_cgroups(self.scratch.tag());
    }
}

/// A daemon in a [`Sandbox`]; it dies with the sandbox at the latest.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// True while it runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// The last `lines` lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SIGTERM to nsenter does not reach the daemon; the sandbox's end does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outlives_a_sandbox() {
        let sandbox = match Sandbox::new(CgroupView::Host) {
            Ok(sandbox) => sandbox,
            Err(reason) => crate::skip!("{reason}"),
        };
        assert_eq!(sandbox.shell("ip -o link | wc -l").ok().text(), "1");
        assert_eq!(sandbox.shell("exit 7").code, 7);
        sandbox.shell("setsid sleep 100 >/dev/null 2>&1 &").ok();
        let tag = sandbox.tag().to_owned();
        assert!(leftovers::find(&tag).iter().any(|l| l.ends_with(" sleep")));
        drop(sandbox);
        leftovers::assert_none(&tag, None);
    }

    #[test]
    fn a_view_shows_one_version() {
        if cgroup_layout() != CgroupLayout::Hybrid {
            crate::skip!("the cgroup layout is not hybrid");
        }
        for (view, expected) in [(CgroupView::V1, "tmpfs"), (CgroupView::V2, "cgroup2fs")] {
            let sandbox = match Sandbox::new(view) {
                Ok(sandbox) => sandbox,
                Err(reason) => crate::skip!("{reason}"),
            };
            let out = sandbox.run("stat", ["-f", "-c", "%T", "/sys/fs/cgroup"]).ok();
            assert_eq!(out.text(), expected);
            assert!(!sandbox.shell("test -e /sys/fs/cgroup/unified/cgroup.procs").success());
        }
    }
}
