//! exec: a process in a container that runs.

use super::{ExecOptions, Running, Runtime, cgroup_error, kept_config, open_cgroup, state_json};
use crate::cgroup::{Cgroup, Driver, Version};
use crate::compile::{self, ProcessOptions};
use crate::error::Error;
use crate::launch::{Given, Parent, launch};
use crate::state::Record;
use crate::sys;
use oci_spec::runtime::{Process, Spec};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// A container with the config it was created with, read once.
pub struct Container<'a> {
    runtime: &'a Runtime,
    record: Record,
    spec: Spec,
}

impl Runtime {
    /// Opens a container to start processes in it.
    ///
    /// # Errors
    /// [`Error::NotFound`], or where its state cannot be read.
    pub fn container(&self, id: &str) -> Result<Container<'_>, Error> {
        let (dir, record) = self.opened(id)?;
        let spec = kept_config(&dir)?;
        Ok(Container { runtime: self, record, spec })
    }

    /// Starts a process in a running container.
    ///
    /// # Errors
    /// As [`Container::exec`].
    pub fn exec(&self, id: &str, options: &ExecOptions) -> Result<Running, Error> {
        self.container(id)?.exec(options)
    }
}

impl Container<'_> {
    /// The process that the container was created for, if its config has one.
    pub fn process(&self) -> Option<&Process> {
        self.spec.process().as_ref()
    }

    /// Starts a process in the container.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] where the container does not run or is paused; [`Error::Exec`] where the process
    /// cannot be set up.
    pub fn exec(&self, options: &ExecOptions) -> Result<Running, Error> {
        let Container { runtime, record, spec } = self;
        runtime.check_seal()?;
        let id = record.id.as_str();
        runtime.check_seal()?;
        let wrong = |message: &str| Err(Error::WrongStatus { message: message.into() });
        let Some(init) = super::delete::init_of(record)? else {
            return wrong("cannot exec in a stopped container");
        };
        let cgroup = open_cgroup(record)?.filter(|cgroup| !cgroup.is_empty());
        if !options.ignore_paused {
            if let Some(cgroup) = &cgroup {
                if cgroup.is_frozen().map_err(cgroup_error(id))? {
                    return wrong("cannot exec in a paused container (use --ignore-paused to override)");
                }
            }
        }
        // Whoever made it: an id of -1, for one, would mean "stay root" to the kernel.
        let mut mistakes = Vec::new();
        crate::config::check_process(&options.process, "", &[], &mut mistakes, &mut Vec::new());
        if !mistakes.is_empty() {
            return Err(Error::Config { path: PathBuf::from("process"), mistakes });
        }
        let host = runtime.host(spec, Some(&options.process), false)?;
        let unified = cgroup.as_ref().is_some_and(|c| {
            c.location().version() == Version::V2 && c.location().driver() == Driver::Cgroupfs
        });
        let choices = compile::Options {
            id: id.to_owned(),
            preserve_fds: options.preserve_fds,
            console_socket: options.terminal_socket.is_some(),
            starts_in_cgroup: unified || cgroup.is_none(),
            ..compile::Options::default()
        };
        let process = ProcessOptions {
            process: options.process.clone(),
            console_socket: options.terminal_socket.is_some(),
        };
        let plan = compile::compile_exec(spec, &record.bundle, &host, &choices, &process)
            .map_err(|mistakes| Error::Config { path: PathBuf::from("process"), mistakes })?;
        let console = options
            .terminal_socket
            .as_deref()
            .map(|path| super::connect(path, "connecting to the console socket"))
            .transpose()?;
        let group = match &cgroup {
            Some(cgroup) => target_cgroup(cgroup, record, options)?,
            None => Target::default(),
        };
        let mut given = Given {
            console_socket: console.as_ref().map(AsFd::as_fd),
            init: Some(init.as_fd()),
            own_binary: sys::own_binary(),
            cgroup: group.clone_into.as_ref().map(AsFd::as_fd),
            until_exec: true,
            ..Given::default()
        };
        let mut host = ExecSide { options, record, spec, cgroup, target: &group, pidfd: None };
        let mut launched = launch(&plan, &given, &mut host, Error::Exec);
        if is_busy(&launched) {
            // A container that gave controllers to cgroups below its own takes no process there: the new one
            // goes where init is.
            let inner = host.cgroup.as_ref().map(|c| c.cgroup_of_process(record.pid)).transpose();
            let inner = inner.map_err(cgroup_error(id))?.flatten();
            given.cgroup = inner.as_ref().map(AsFd::as_fd);
            launched = launch(&plan, &given, &mut host, Error::Exec);
        }
        let launched = launched?;
        Ok(Running {
            pid: launched.pid,
            pidfd: launched.pidfd,
            console: launched.console,
            notify: None,
            warnings: Vec::new(),
        })
    }
}

fn is_busy<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::System { source, .. }) if source.raw_os_error() == Some(libc::EBUSY))
}

/// Where the process goes.
#[derive(Default)]
struct Target {
    /// On v2: the directory to clone into.
    clone_into: Option<OwnedFd>,
    /// On v1: hierarchy directories other than the container's own, by controller.
    below: Vec<PathBuf>,
}

fn target_cgroup(cgroup: &Cgroup, record: &Record, options: &ExecOptions) -> Result<Target, Error> {
    let failed = cgroup_error(&record.id);
    if options.cgroup.is_empty() {
        let fd = match cgroup.location().version() {
            Version::V2 => cgroup.clone_into().map(|fd| fd.try_clone_to_owned()).transpose(),
            Version::V1 | Version::Hybrid => Ok(None),
        };
        let clone_into = fd.map_err(|source| Error::System { action: "copying a descriptor", source })?;
        return Ok(Target { clone_into, below: Vec::new() });
    }
    let mut target = Target::default();
    for (controller, below) in &options.cgroup {
        if cgroup.location().version() == Version::V2 {
            target.clone_into = Some(cgroup.open_below(below).map_err(&failed)?);
        } else {
            target.below.push(cgroup.path_below(controller, below).map_err(&failed)?);
        }
    }
    Ok(target)
}

struct ExecSide<'a> {
    options: &'a ExecOptions,
    record: &'a Record,
    spec: &'a Spec,
    cgroup: Option<Cgroup>,
    target: &'a Target,
    pidfd: Option<OwnedFd>,
}

impl Parent for ExecSide<'_> {
    fn cloned(&mut self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<(), Error> {
        if self.options.pidfd_socket.is_some() {
            let copy = pidfd.try_clone_to_owned();
            self.pidfd = Some(copy.map_err(|source| Error::System { action: "copying a pidfd", source })?);
        }
        if self.target.clone_into.is_none() {
            if let Some(cgroup) = &mut self.cgroup {
                cgroup.attach(pid).map_err(cgroup_error(&self.record.id))?;
            }
            for directory in &self.target.below {
                let path = directory.join("cgroup.procs");
                std::fs::write(&path, pid.to_string()).map_err(|source| Error::File {
                    action: "attaching to",
                    path,
                    source,
                })?;
            }
        }
        Ok(())
    }

    fn map_ids(&mut self, _pid: i32) -> Result<(), Error> {
        Ok(())
    }

    fn host_hooks(&mut self, _pid: i32) -> Result<(), Error> {
        Ok(())
    }

    fn seccomp_listener(&mut self, pid: i32, listener: OwnedFd) -> Result<(), Error> {
        let state = state_json(self.record, "running", self.record.pid);
        super::send_listener(self.spec, &self.record.oci_version, pid, listener.as_fd(), &state)
    }

    fn ready(&mut self, pid: i32) -> Result<(), Error> {
        if let Some(path) = &self.options.pid_file {
            super::write_pid_file(path, pid)?;
        }
        if let (Some(path), Some(pidfd)) = (&self.options.pidfd_socket, &self.pidfd) {
            super::send_pidfd(path, pidfd.as_fd())?;
        }
        Ok(())
    }
}
