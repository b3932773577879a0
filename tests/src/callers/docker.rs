//! Docker Engine: a dockerd of a test's own, with the runtime under test added as `dhow`.
//!
//! dockerd starts its own containerd, which calls the runtime through containerd's runc shim. The engine's default
//! runtime stays runc; each container asks for `dhow`.
//!
//! The storage driver is overlay2 on the scratch directory's tmpfs. On a hybrid cgroup layout Docker uses v1, as it
//! does on such a host, so the usual view is the machine's own.

use super::{busybox_tar, quote, with_terminal};
use crate::command::{DEADLINE, Output, run, run_with, wait_for};
use crate::runtime;
use crate::sandbox::{CgroupView, Daemon, Sandbox};
use crate::skip::{find_program, missing_program};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A running Docker Engine with an image `busybox`.
#[derive(Debug)]
pub struct Docker {
    daemon: Daemon,
    sandbox: Sandbox,
    client: PathBuf,
}

impl Docker {
    /// Starts it.
    ///
    /// # Errors
    /// Why this machine cannot: a reason to skip.
    ///
    /// # Panics
    /// If it is installed but does not come up.
    pub fn start(view: CgroupView) -> Result<Docker, String> {
        Docker::start_with(view, None)
    }

    /// Starts it with `--userns-remap`: containers run in a user namespace whose ids begin at `first_id`, of which
    /// there are 65536. The user that Docker wants for it exists only in the sandbox.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_remapped(first_id: u32) -> Result<Docker, String> {
        Docker::start_with(CgroupView::Host, Some(first_id))
    }

    fn start_with(view: CgroupView, first_id: Option<u32>) -> Result<Docker, String> {
        if let Some(program) =
            missing_program(&["dockerd", "docker", "containerd", "runc", "iptables", "tar"])
        {
            return Err(format!("{program} is not installed"));
        }
        // A missing binary is one failure of the test, not one of each step.
        runtime::binary();
        let sandbox = Sandbox::new(view)?;
        // The machine's own settings must not get in.
        fs::write(sandbox.join("daemon.json"), "{}").expect("write daemon.json");
        let mut command = sandbox.command(find_program("dockerd").expect("found above"));
        for (option, name) in [
            ("--config-file", "daemon.json"),
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "docker.pid"),
        ] {
            command.arg(option).arg(sandbox.join(name));
        }
        command.arg("--host").arg(format!("unix://{}", sandbox.join("docker.sock").display()));
        command.arg("--add-runtime").arg(format!("dhow={}", runtime::binary().display()));
        command.arg("--cgroup-parent").arg(format!("/{}", sandbox.tag()));
        if let Some(first_id) = first_id {
            // Docker takes root's name as no mapping at all.
            let lines = format!("nobody:{first_id}:65536\nnogroup:{first_id}:65536\n");
            for file in ["subuid", "subgid"] {
                let copy = sandbox.join(file);
                fs::write(&copy, &lines).expect("write an account file");
                let bound = sandbox.shell(&format!("mount --bind {} /etc/{file}", copy.display()));
                if !bound.success() {
                    return Err(format!("no ranges of ids can be given: {bound}"));
                }
            }
            command.arg("--userns-remap=nobody:nogroup");
        }
        let daemon = sandbox.spawn("dockerd", &mut command);
        let client = find_program("docker").expect("found above");
        let mut docker = Docker { daemon, sandbox, client };
        let up = wait_for(Duration::from_secs(60), || {
            (docker.call(["version"]).success() || !docker.daemon.is_alive())
                .then(|| docker.daemon.is_alive())
        });
        assert!(up == Some(true), "dockerd does not come up:\n{}", docker.daemon.log_tail(20));
        let tar = busybox_tar(&docker.sandbox);
        docker.call(["import", &tar.display().to_string(), "busybox"]).ok();
        Ok(docker)
    }

    /// The daemon's sandbox.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The end of the daemon's log.
    pub fn log_tail(&self) -> String {
        self.daemon.log_tail(30)
    }

    /// `docker <args>`, not started.
    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(&self.client);
        command.arg("--host").arg(format!("unix://{}", self.sandbox.join("docker.sock").display()));
        // The client's own settings must not get in either.
        command.env("DOCKER_CONFIG", self.sandbox.join("client")).env_remove("DOCKER_HOST");
        command.env_remove("DOCKER_CONTEXT").args(args);
        command
    }

    /// Runs `docker <args>`.
    pub fn call<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        run(&mut self.command(args))
    }

    /// Runs `docker run --runtime dhow <options> busybox <args>`.
    pub fn run(&self, options: &[&str], args: &[&str]) -> Output {
        self.call(Self::run_args(options, args))
    }

    /// The same with input.
    pub fn run_with_input(&self, options: &[&str], args: &[&str], input: &[u8]) -> Output {
        run_with(&mut self.command(Self::run_args(options, args)), input, DEADLINE)
    }

    fn run_args<'a>(options: &[&'a str], args: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["run", "--runtime", "dhow"];
        all.extend(options);
        all.push("busybox");
        all.extend(args);
        all
    }

    /// Runs `docker <args>` on a terminal, after the shell commands `before` on the same terminal.
    pub fn call_on_terminal(&self, before: &str, args: &[&str]) -> Output {
        let command = self.command(args.iter().copied());
        let words = command.get_args().map(|a| quote(&a.to_string_lossy()));
        let line: Vec<String> =
            std::iter::once(quote(&self.client.display().to_string())).chain(words).collect();
        let mut script = with_terminal(&format!("{before} {}", line.join(" ")));
        run(script.env("DOCKER_CONFIG", self.sandbox.join("client")).env_remove("DOCKER_HOST"))
    }

    /// `docker inspect --format <template> <container>`, trimmed.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn inspect(&self, container: &str, template: &str) -> String {
        self.call(["inspect", "--format", template, container]).ok().text().to_owned()
    }

    /// Waits until `docker inspect` with this template says `expected`.
    ///
    /// # Panics
    /// If it does not within `seconds`.
    #[track_caller]
    pub fn wait_inspect(&self, container: &str, template: &str, expected: &str, seconds: u64) {
        let reached = wait_for(Duration::from_secs(seconds), || {
            (self.inspect(container, template) == expected).then_some(())
        });
        let now = self.inspect(container, template);
        assert!(reached.is_some(), "{template} of {container} is {now:?}, not {expected:?}");
    }

    /// Removes a container, whatever state it is in.
    pub fn remove(&self, container: &str) {
        self.call(["rm", "--force", "--volumes", container]);
    }

    /// What runtimes still have in their root directories: dockerd 20.10 gives all of them the same,
    /// `<exec-root>/runtime-runc/moby`.
    pub fn runtime_entries(&self) -> Vec<String> {
        let roots = fs::read_dir(self.sandbox.join("exec")).into_iter().flatten().flatten();
        let roots = roots.filter(|e| e.file_name().to_string_lossy().starts_with("runtime-"));
        roots.flat_map(|e| crate::leftovers::entries(&e.path().join("moby"))).collect()
    }
}
