//! Killing every process of a container, those that fork while it goes on included.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Cgroup, Error, Group, Version, is_gone, pids_of};

/// How often the list of processes is read again for those that were born in between.
const ROUNDS: u32 = 100;

/// How long the kernel's own killing may take before we look for survivors.
const MOMENT: Duration = Duration::from_millis(500);

impl Cgroup {
    /// Sends SIGKILL to every process in the container's cgroup and below it. It returns when each has been sent the
    /// signal, which is before they are gone: [`Cgroup::wait_empty`] waits for that.
    ///
    /// On v2 the kernel does it (`cgroup.kill`, Linux 5.14). Otherwise the cgroup is frozen, so that none forks and no
    /// number is given to somebody else, its processes are killed and it is thawed. A frozen container is thawed too.
    ///
    /// # Errors
    /// [`Error::Kill`] and [`Error::Read`]; a cgroup without processes, or none at all, is no error.
    pub fn kill(&self) -> Result<(), Error> {
        if let Some(group) = self.unified() {
            match group.dir.write("cgroup.kill", "1") {
                Ok(()) if self.location.version == Version::V2 => return Ok(()),
                // On a hybrid host a container may have processes that left this hierarchy, but not the others: look once
                // the killed ones are out of the way.
                Ok(()) => {
                    super::remove::wait_unpopulated(group.dir.path(), MOMENT);
                }
                Err(e) if is_gone(&e) => {}
                Err(source) => {
                    let path = group.dir.path().join("cgroup.kill");
                    return Err(Error::Write { path, value: "1".to_owned(), source });
                }
            }
        }
        let Some(group) = self.tracking_group() else { return Ok(()) };
        if pids_of(group.dir.path(), true)?.is_empty() {
            return Ok(());
        }
        // Without a freezer it is a race, which the rounds win unless processes fork faster than we kill.
        let frozen = self.freeze().is_ok();
        let result = kill_all(group, frozen);
        match self.thaw() {
            // No freezer, or the cgroup went in between.
            Err(Error::Unavailable { .. }) => result,
            Err(Error::Write { source, .. }) if is_gone(&source) => result,
            Err(e) => result.and(Err(e)),
            Ok(()) => result,
        }
    }

    /// Waits until no living process is left in the container's cgroup; false if one still is after `timeout_ms`.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn wait_empty(&self, timeout_ms: u64) -> Result<bool, Error> {
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        let mut pause = Duration::from_micros(200);
        let unified = self.unified().filter(|_| self.location.version == Version::V2);
        loop {
            let events =
                unified.and_then(|g| g.dir.open_file("cgroup.events", rustix::fs::OFlags::RDONLY).ok());
            // The event file has to be read through the descriptor that is waited on, or a change is missed.
            let populated = match &events {
                Some(file) => super::file::read_short(file).is_ok_and(|t| t.contains("populated 1")),
                None => self.is_populated()?,
            };
            if !populated {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            match &events {
                Some(file) => {
                    super::remove::wait_event(file, left);
                }
                None => {
                    std::thread::sleep(pause.min(left));
                    pause = (pause * 2).min(Duration::from_millis(20));
                }
            }
        }
    }
}

fn kill_all(group: &Group, frozen: bool) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    let mut result = Ok(());
    for _ in 0..ROUNDS {
        let mut pids = pids_of(group.dir.path(), true)?;
        pids.retain(|pid| seen.insert(*pid));
        if pids.is_empty() {
            break;
        }
        for &pid in &pids {
            if let Err(e) = kill_one(group, pid, frozen) {
                result = Err(e);
            }
        }
    }
    result
}

fn kill_one(group: &Group, pid: i32, frozen: bool) -> Result<(), Error> {
    // 0 stands for a process of a pid namespace above ours.
    let Some(target) = Pid::from_raw(pid) else { return Ok(()) };
    let sent = match pidfd_open(target, PidfdFlags::empty()) {
        Ok(fd) => {
            // A running process may have gone and its number passed to another between reading and opening it.
            if !frozen && !pids_of(group.dir.path(), true)?.contains(&pid) {
                return Ok(());
            }
            pidfd_send_signal(&fd, Signal::KILL)
        }
        // Kernels before 5.3.
        Err(Errno::NOSYS) => rustix::process::kill_process(target, Signal::KILL),
        Err(e) => Err(e),
    };
    match sent {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(e) => Err(Error::Kill { pid, path: group.dir.path().to_path_buf(), source: e.into() }),
    }
}
