//! Removing a container's cgroups, whatever state they are in: every step takes "already gone" for done.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, OFlags};

use super::file::{Dir, read_short};
use super::{Cgroup, Error, Location, is_gone, is_refusal};

/// How long a directory may stay busy: processes that were just killed are still on their way out.
const PATIENCE: Duration = Duration::from_secs(5);

impl Cgroup {
    /// Removes the container's cgroups if nothing is in them or below them: one call of rmdir(2) for each hierarchy, which
    /// is all that an ended container needs. False if one is in use, or if systemd has to be asked: then
    /// [`Cgroup::kill`] and [`Cgroup::remove`] are the way.
    pub fn try_remove(location: &Location) -> bool {
        location.unit.is_none() && location.places.iter().all(|place| rmdir(&place.dir).is_ok())
    }

    /// Removes the container's cgroups and those that the container made below them; stops its unit first with the
    /// systemd driver. Has nothing to do for what is already gone, so that it can finish what a crash interrupted. Waits
    /// up to 5 seconds for processes that are dying; it kills none (see [`Cgroup::kill`]).
    ///
    /// # Errors
    /// [`Error::Remove`] with EBUSY when a process stays. The other hierarchies have been removed all the same.
    pub fn remove(location: &Location) -> Result<(), Error> {
        let stopped = match &location.unit {
            Some(unit) => unit.stop(location.rootless),
            None => Ok(()),
        };
        let deadline = Instant::now() + PATIENCE;
        let mut first = None;
        for place in &location.places {
            let result = remove_tree(&place.dir, place.controllers.is_empty(), deadline);
            if let Err(source) = result {
                let refused = is_refusal(&source) && location.may_go_without();
                // A read-only mount refuses the removal even of what is not there.
                if !refused && !is_absent(&place.dir) {
                    first.get_or_insert(Error::Remove { path: place.dir.clone(), source });
                }
            }
        }
        match (first, stopped) {
            (Some(e), _) => Err(e),
            // systemd was not needed where the directories are gone.
            (None, Err(_)) if location.places.iter().all(|p| is_absent(&p.dir)) => Ok(()),
            (None, stopped) => stopped,
        }
    }
}

fn is_absent(dir: &Path) -> bool {
    rustix::fs::access(dir, rustix::fs::Access::EXISTS) == Err(rustix::io::Errno::NOENT)
}

fn rmdir(path: &Path) -> io::Result<()> {
    match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Removes a cgroup and those below it, children first.
fn remove_tree(path: &Path, unified: bool, deadline: Instant) -> io::Result<()> {
    // Nearly always there is nothing below and nothing in it.
    match rmdir(path) {
        Err(e) if is_busy(&e) => {}
        other => return other,
    }
    let children = match Dir::at(path.to_path_buf()).children() {
        Ok(children) => children,
        Err(e) if is_gone(&e) => return Ok(()),
        Err(e) => return Err(e),
    };
    for child in children {
        remove_tree(&child, unified, deadline)?;
    }
    let mut pause = Duration::from_micros(500);
    loop {
        match rmdir(path) {
            Err(e) if is_busy(&e) => {
                let now = Instant::now();
                if now >= deadline {
                    return Err(e);
                }
                if !(unified && wait_unpopulated(path, deadline - now)) {
                    std::thread::sleep(pause.min(deadline - now));
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
            }
            other => return other,
        }
    }
}

/// ENOTEMPTY is what an ordinary filesystem says, EBUSY what a cgroup one does.
fn is_busy(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY))
}

/// Waits until a cgroup2 directory has no living process any more. False if it cannot tell, or if there was nothing to
/// wait for: the caller then sleeps instead of turning in a circle.
pub(super) fn wait_unpopulated(path: &Path, patience: Duration) -> bool {
    let dir = Dir::at(path.to_path_buf());
    let deadline = Instant::now() + patience;
    let Ok(file) = dir.open_file("cgroup.events", OFlags::RDONLY) else { return false };
    let mut waited = false;
    loop {
        match read_short(&file) {
            Ok(text) if text.contains("populated 1") => {}
            _ => return waited,
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return waited;
        }
        if !wait_event(&file, left) || rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).is_err() {
            return waited;
        }
        waited = true;
    }
}

/// Waits for a change of an event file of cgroup2, at most `patience`. False when it timed out or cannot be waited for.
pub(super) fn wait_event(file: impl AsFd, patience: Duration) -> bool {
    let timeout = Timespec::try_from(patience).ok();
    let mut fds = [PollFd::new(&file, PollFlags::PRI)];
    loop {
        match poll(&mut fds, timeout.as_ref()) {
            Ok(n) => return n > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
