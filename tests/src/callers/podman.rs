//! podman (and the storage settings that buildah shares with it), as root and as an ordinary user.
//!
//! # What the machine asks for
//! - podman wants one cgroup version. On a hybrid layout the sandbox shows it one: v1, where the limits work, or the
//!   v2 tree, which may have no controllers; there its default pids limit is turned off.
//! - podman raises its containers' nofile and nproc limits by default, which a process without CAP_SYS_RESOURCE cannot;
//!   the settings name this process's own hard limits instead.
//! - The cgroup driver is cgroupfs, containers are put below a cgroup of the sandbox's name, and events go to a file:
//!   no systemd is needed.
//!
//! # The ordinary user
//! That of [`crate::sailor`], with a /dev/net/tun that a user may open, which slirp4netns needs.

use super::{busybox_tar, quote, with_terminal};
use crate::command::{DEADLINE, Output, run, run_with, wait_for};
use crate::runtime;
use crate::sailor;
use crate::sandbox::{CgroupLayout, CgroupView, Sandbox, cgroup_layout};
use crate::skip::{is_root, missing_program};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// The image's name.
pub const IMAGE: &str = "localhost/busybox:latest";

/// Who runs podman.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Root.
    Root,
    /// An ordinary user with ranges of subordinate ids.
    Sailor,
}

pub use crate::sailor::{SAILOR_ID, SAILOR_SUBIDS};

/// A storage of podman's own with the image [`IMAGE`], in a sandbox.
#[derive(Debug)]
pub struct Podman {
    sandbox: Sandbox,
    user: User,
    view: CgroupView,
}

impl Podman {
    /// Makes the sandbox and imports the image.
    ///
    /// # Errors
    /// Why this machine cannot: a reason to skip.
    ///
    /// # Panics
    /// If podman is installed but the image cannot be imported.
    pub fn start(user: User, view: CgroupView) -> Result<Podman, String> {
        let podman = Podman::without_image("podman", user, view)?;
        let tar = busybox_tar(&podman.sandbox).display().to_string();
        podman.call(["import", &tar, IMAGE]).ok();
        Ok(podman)
    }

    /// Makes the sandbox and its settings for `program`, with an empty storage.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn without_image(program: &str, user: User, view: CgroupView) -> Result<Podman, String> {
        let mut programs = vec![program, "conmon", "tar", "setpriv"];
        if user == User::Sailor {
            programs.extend(["newuidmap", "slirp4netns"]);
        }
        if let Some(program) = missing_program(&programs) {
            return Err(format!("{program} is not installed"));
        }
        if !is_root() {
            return Err("not root".to_owned());
        }
        // A missing binary is one failure of the test, not one of each step.
        runtime::binary();
        let sandbox = Sandbox::new(view)?;
        let podman = Podman { sandbox, user, view };
        podman.write_settings();
        if user == User::Sailor {
            podman.enlist_sailor()?;
        }
        Ok(podman)
    }

    fn write_settings(&self) {
        let top = self.sandbox.scratch();
        let limit = |name: &str, most: u64| {
            let limits = fs::read_to_string("/proc/self/limits").expect("this process's limits");
            let line = limits.lines().find(|l| l.starts_with(name)).expect("a limit that Linux has");
            let hard = line[name.len()..].split_whitespace().nth(1).and_then(|w| w.parse().ok());
            hard.unwrap_or(most).min(most)
        };
        let (files, processes) = (limit("Max open files", 20_000), limit("Max processes", 30_000));
        let pids = if self.has_limits() { "" } else { "pids_limit = 0\n" };
        let caps = crate::bundle::DOCKER_CAPABILITIES;
        let containers = format!(
            "[containers]\ndefault_ulimits = [\"nofile={files}:{files}\", \"nproc={processes}:{processes}\"]\n\
             default_capabilities = {caps:?}\n{pids}[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n"
        );
        let path = top.path().display();
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{path}/graph\"\nrunroot = \"{path}/run\"\n\
             rootless_storage_path = \"{path}/home/storage\"\n"
        );
        fs::write(top.join("containers.conf"), containers).expect("write containers.conf");
        fs::write(top.join("storage.conf"), storage).expect("write storage.conf");
        // The default policy file is in another package.
        fs::write(top.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
            .expect("write policy.json");
        top.dir("home");
        top.dir("xdg");
    }

    /// Makes the ordinary user in the sandbox, with what rootless podman wants besides.
    fn enlist_sailor(&self) -> Result<(), String> {
        sailor::enlist(&self.sandbox)?;
        let tun = self.sandbox.join("tun");
        let script =
            format!("set -e\nmknod -m 666 {0} c 10 200; mount --bind {0} /dev/net/tun\n", tun.display());
        let out = self.sandbox.shell(&script);
        if out.success() { Ok(()) } else { Err(format!("no tun device for a user can be made: {out}")) }
    }

    /// The sandbox.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Who runs podman.
    pub fn user(&self) -> User {
        self.user
    }

    /// True if this user's containers can have memory, cpu and pids limits in this view.
    pub fn has_limits(&self) -> bool {
        let controllers = cgroup_layout() == CgroupLayout::Unified || self.view != CgroupView::V2;
        self.user == User::Root && controllers
    }

    /// A program inside, as the user, with the settings in its environment.
    pub fn program(&self, program: &str) -> Command {
        let mut command = match self.user {
            User::Root => self.sandbox.command(program),
            User::Sailor => sailor::command(&self.sandbox, program),
        };
        for (name, value) in [
            ("CONTAINERS_CONF", "containers.conf"),
            ("CONTAINERS_STORAGE_CONF", "storage.conf"),
            ("HOME", "home"),
            ("XDG_RUNTIME_DIR", "xdg"),
            ("TMPDIR", "tmp"),
        ] {
            command.env(name, self.sandbox.join(value));
        }
        let tmp = self.sandbox.scratch().dir("tmp");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        fs::set_permissions(tmp, open).expect("chmod of a directory of our own");
        for name in ["DBUS_SESSION_BUS_ADDRESS", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "CONTAINER_HOST"] {
            command.env_remove(name);
        }
        command
    }

    /// `podman --runtime <under test> <args>`, not started.
    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.program("podman");
        command.arg("--runtime").arg(runtime::binary()).args(["--log-level", "error"]);
        if self.user == User::Root {
            command.arg("--tmpdir").arg(self.sandbox.join("libpod"));
        }
        command.args(args);
        command
    }

    /// Runs `podman <args>`.
    pub fn call<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        run(&mut self.command(args))
    }

    /// The arguments of `podman run` up to the image.
    fn run_args(&self, options: &[&str], args: &[&str]) -> Vec<String> {
        let mut all = vec!["run".to_owned(), "--pull=never".to_owned()];
        if self.user == User::Root && !options.contains(&"--pod") {
            all.push(format!("--cgroup-parent=/{}", self.sandbox.tag()));
        }
        all.extend(options.iter().map(|o| (*o).to_owned()));
        all.push(IMAGE.to_owned());
        all.extend(args.iter().map(|a| (*a).to_owned()));
        all
    }

    /// Runs `podman run <options> <image> <args>`.
    pub fn run(&self, options: &[&str], args: &[&str]) -> Output {
        self.run_with_input(options, args, b"")
    }

    /// The same with input.
    pub fn run_with_input(&self, options: &[&str], args: &[&str], input: &[u8]) -> Output {
        let all = self.run_args(options, args);
        run_with(&mut self.command(all.iter().map(String::as_str)), input, DEADLINE)
    }

    /// The same on a terminal, after the shell commands `before` on the same terminal.
    pub fn run_on_terminal(&self, before: &str, options: &[&str], args: &[&str]) -> Output {
        let all = self.run_args(options, args);
        self.on_terminal(before, &self.command(all.iter().map(String::as_str)))
    }

    /// Runs a command made by [`Self::command`] on a terminal.
    pub fn on_terminal(&self, before: &str, command: &Command) -> Output {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line: Vec<String> = words.map(|w| quote(&w.to_string_lossy())).collect();
        let mut script = with_terminal(&format!("{before} {}", line.join(" ")));
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        run(&mut script)
    }

    /// Runs `podman pod create --name <name> <options>`.
    pub fn create_pod(&self, name: &str, options: &[&str]) -> Output {
        let parent = format!("--cgroup-parent=/{}", self.sandbox.tag());
        let mut all = vec!["pod", "create", "--name", name];
        if self.user == User::Root {
            all.push(&parent);
        }
        all.extend(options);
        self.call(all)
    }

    /// `podman inspect --format <template> <container>`, trimmed.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn inspect(&self, container: &str, template: &str) -> String {
        self.call(["inspect", "--format", template, container]).ok().text().to_owned()
    }

    /// Waits until `podman inspect` with this template says `expected`.
    ///
    /// # Panics
    /// If it does not within ten seconds.
    #[track_caller]
    pub fn wait_inspect(&self, container: &str, template: &str, expected: &str) {
        let reached = wait_for(Duration::from_secs(10), || {
            (self.inspect(container, template) == expected).then_some(())
        });
        let now = self.inspect(container, template);
        assert!(reached.is_some(), "{template} of {container} is {now:?}, not {expected:?}");
    }

    /// Waits until the container has printed exactly `expected`, white space around it left out.
    ///
    /// # Panics
    /// If it does not within ten seconds.
    #[track_caller]
    pub fn wait_logs(&self, container: &str, expected: &str) {
        let logs = || self.call(["logs", container]).text().to_owned();
        let reached = wait_for(Duration::from_secs(10), || (logs() == expected).then_some(()));
        assert!(reached.is_some(), "{container} printed {:?}, not {expected:?}", logs());
    }

    /// Removes a container, whatever state it is in.
    pub fn remove(&self, container: &str) {
        self.call(["rm", "--force", "--time", "0", "--volumes", container]);
    }

    /// What the runtime under test has in the root directories that podman lets it choose.
    pub fn runtime_entries(&self) -> Vec<String> {
        let script = "for d in /run/runc /run/crun /run/dhow/runtime \"$XDG_RUNTIME_DIR\"/runc \
                      \"$XDG_RUNTIME_DIR\"/crun \"$XDG_RUNTIME_DIR\"/dhow/runtime; do \
                      test -d $d && find $d -mindepth 1 -maxdepth 1; done; true";
        let found = run(self.program("sh").args(["-c", script]));
        found.stdout.lines().map(str::to_owned).collect()
    }
}
