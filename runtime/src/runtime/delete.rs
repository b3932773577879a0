//! kill and delete: ending a container, and leaving nothing of it.
//!
//! The order is: processes, hooks, cgroups, directory. Every step accepts that its work is done already, so the
//! next delete finishes one that was killed.

use super::{Runtime, cgroup_error, kept_config, open_cgroup, state_json, status_of};
use crate::cgroup::Cgroup;
use crate::error::Error;
use crate::hooks;
use crate::state::{ContainerDir, Record, is_alive};
use crate::sys;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long a killed container may take to go: processes in uninterruptible sleep take their time.
const PATIENCE_MS: u64 = 10_000;

/// A pidfd of the container's init, if that very process still lives.
///
/// # Errors
/// That it cannot be told, for want of descriptors, memory or the call. What is not known to be dead is not dead.
pub(super) fn init_of(record: &Record) -> Result<Option<OwnedFd>, Error> {
    let Some(pid) = Pid::from_raw(record.pid) else { return Ok(None) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // EINVAL: the number is that of a thread now.
        Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
        // That it is dead can be told without.
        Err(_) if !is_alive(record.pid, record.start_time_ticks)? => return Ok(None),
        Err(Errno::NOSYS) => return Err(Error::MissingCall { call: "pidfd_open" }),
        Err(e) => {
            return Err(Error::System { action: "pidfd_open of the container's init", source: e.into() });
        }
    };
    // Checked after the pidfd exists: now the number cannot go to another process unnoticed.
    Ok(is_alive(record.pid, record.start_time_ticks)?.then_some(pidfd))
}

impl Runtime {
    /// Sends a signal to the container's init, or with `all` to every process of it.
    ///
    /// # Errors
    /// [`Error::NotRunning`] where there is no process that could get it.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), Error> {
        let (_, record) = self.opened(id)?;
        let not_running = || Error::NotRunning { id: id.to_owned() };
        if all {
            let Some(cgroup) = open_cgroup(&record)? else { return self.signal_init(&record, signal) };
            return signal_all(&record, &cgroup, signal);
        }
        if init_of(&record)?.is_none() {
            return Err(not_running());
        }
        if signal == libc::SIGKILL {
            if let Some(cgroup) = open_cgroup(&record)? {
                // Without a pid namespace of its own, the end of init ends nobody else.
                if !record.own_pid_namespace {
                    return signal_all(&record, &cgroup, signal);
                }
                self.signal_init(&record, signal)?;
                // A v1 freezer holds even SIGKILL back.
                let failed = cgroup_error(id);
                if cgroup.is_frozen().map_err(&failed)? {
                    cgroup.thaw().map_err(&failed)?;
                }
                return Ok(());
            }
        }
        self.signal_init(&record, signal)
    }

    fn signal_init(&self, record: &Record, signal: i32) -> Result<(), Error> {
        let not_running = || Error::NotRunning { id: record.id.clone() };
        let pidfd = init_of(record)?.ok_or_else(not_running)?;
        sys::send_signal(pidfd.as_fd(), signal).map_err(|source| match source.raw_os_error() {
            Some(libc::ESRCH) => not_running(),
            _ => Error::System { action: "sending a signal", source },
        })
    }

    /// Removes a container. With `force` one that runs is killed first, and one that does not exist is no error.
    /// Returns what poststop hooks failed with, which keeps nothing from going on
    /// ([lifecycle](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/runtime.md#lifecycle), step 14).
    ///
    /// # Errors
    /// [`Error::WrongStatus`] where it runs and `force` is not given.
    pub fn delete(&self, id: &str, force: bool) -> Result<Vec<Error>, Error> {
        let dir = match ContainerDir::open(&self.root, id).and_then(|dir| dir.lock().map(|()| dir)) {
            Err(Error::NotFound { .. }) if force => return Ok(Vec::new()),
            other => other?,
        };
        let Some(record) = dir.record()? else {
            // Its creator died between the directory and the record: there is nothing else.
            return dir.remove().map(|()| Vec::new());
        };
        let init = init_of(&record)?;
        if !force && init.is_some() {
            let status = status_of(&dir, &record)?;
            if status != "created" {
                let message = format!("cannot delete container {id} that is not stopped: {status}");
                return Err(Error::WrongStatus { message });
            }
        }
        self.finish(&dir, &record, init)
    }

    /// Ends a container, whose init is the given one if it lives, and leaves nothing of it.
    pub(super) fn finish(
        &self,
        dir: &ContainerDir,
        record: &Record,
        init: Option<OwnedFd>,
    ) -> Result<Vec<Error>, Error> {
        self.end(record, init)?;
        let warnings = self.poststop(dir, record);
        self.remove_groups(record)?;
        dir.remove()?;
        Ok(warnings)
    }

    /// Runs every poststop hook; returns what failed.
    fn poststop(&self, dir: &ContainerDir, record: &Record) -> Vec<Error> {
        if !record.has_poststop {
            return Vec::new();
        }
        let spec = match kept_config(dir) {
            Ok(spec) => spec,
            Err(error) => return vec![error],
        };
        let Some(list) = spec.hooks().as_ref().and_then(|h| h.poststop().as_ref()) else { return Vec::new() };
        let state = state_json(record, "stopped", 0).to_string();
        hooks::run_all(list, "/hooks/poststop", state.as_bytes(), &record.bundle)
    }

    /// Ends every process of the container, whose init is the given one if it lives.
    pub(super) fn end(&self, record: &Record, init: Option<OwnedFd>) -> Result<(), Error> {
        let failed = cgroup_error(&record.id);
        // Every process of a pid namespace ends with its init, those that joined by exec too.
        if init.is_none() && record.own_pid_namespace && record.pid != 0 {
            return Ok(());
        }
        if let Some(pidfd) = &init {
            // ESRCH: it went by itself.
            pidfd_send_signal(pidfd, Signal::KILL).unwrap_or(());
        }
        if let Some(cgroup) = open_cgroup(record)? {
            if cgroup.is_populated().map_err(&failed)? {
                cgroup.kill().map_err(&failed)?;
                if !cgroup.wait_empty(PATIENCE_MS).map_err(&failed)? {
                    return Err(Error::StillAlive { id: record.id.clone() });
                }
            }
        }
        match init {
            Some(pidfd) if !gone(record, &pidfd) => Err(Error::StillAlive { id: record.id.clone() }),
            _ => Ok(()),
        }
    }

    /// Removes the container's cgroups and its groups in resctrl.
    fn remove_groups(&self, record: &Record) -> Result<(), Error> {
        if let Some(group) = &record.resctrl {
            group.remove().map_err(Error::Rdt)?;
        }
        match &record.cgroup {
            Some(location) => Cgroup::remove(location).map_err(cgroup_error(&record.id)),
            None => Ok(()),
        }
    }

    /// Undoes a create that failed.
    pub(super) fn undo(&self, dir: &ContainerDir) -> Result<(), Error> {
        if let Some(record) = dir.record()? {
            self.end(&record, init_of(&record)?)?;
            self.remove_groups(&record)?;
        }
        dir.remove()
    }
}

/// Waits until the process has ended: its pidfd becomes readable.
fn gone(record: &Record, pidfd: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Duration::from_millis(PATIENCE_MS);
    let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: 0 };
    match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
        Ok(n) => n > 0,
        Err(_) => is_alive(record.pid, record.start_time_ticks).is_ok_and(|alive| !alive),
    }
}

fn signal_all(record: &Record, cgroup: &Cgroup, signal: i32) -> Result<(), Error> {
    let failed = cgroup_error(&record.id);
    if signal == libc::SIGKILL {
        return cgroup.kill().map_err(&failed);
    }
    for pid in cgroup.pids(true).map_err(&failed)? {
        let Some(pid) = Pid::from_raw(pid) else { continue };
        let sent = pidfd_open(pid, PidfdFlags::empty())
            .map_err(std::io::Error::from)
            .and_then(|pidfd| sys::send_signal(pidfd.as_fd(), signal));
        match sent {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            Err(source) => return Err(Error::System { action: "sending a signal", source }),
        }
    }
    Ok(())
}
