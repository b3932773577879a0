//! Stopping and continuing every process of a container at once.

use std::io;
use std::time::{Duration, Instant};

use super::file::{Dir, read_short};
use super::remove::wait_event;
use super::{Cgroup, Error, Group, is_gone};

/// A v1 cgroup in which processes keep appearing may never freeze, and a v2 one waits for processes in the kernel.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Freezes the container and returns when every process of it has stopped. A cgroup that does not freeze is thawed
    /// again.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without a freezer, [`Error::Write`], [`Error::Read`], [`Error::FreezeTimeout`].
    pub fn freeze(&self) -> Result<(), Error> {
        let group = self.freezer_group().ok_or(Error::Unavailable { controller: "freezer" })?;
        let result = match group.is_unified() {
            true => freeze_v2(&group.dir),
            false => freeze_v1(&group.dir),
        };
        if result.is_err() {
            // A container that is half frozen could not even be killed; the first error is the one to report.
            let _ = set(group, false);
        }
        result
    }

    /// Lets the container's processes run again.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without a freezer, [`Error::Write`].
    pub fn thaw(&self) -> Result<(), Error> {
        let group = self.freezer_group().ok_or(Error::Unavailable { controller: "freezer" })?;
        set(group, false)
    }

    /// Whether the container itself is frozen; not if only a cgroup above it is. One without a freezer never is.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn is_frozen(&self) -> Result<bool, Error> {
        self.freezer_group().map_or(Ok(false), |group| is_frozen_at(&group.dir))
    }

    pub(super) fn freezer_group(&self) -> Option<&Group> {
        self.group("freezer").or_else(|| self.unified())
    }
}

/// The file that commands the freezer and what to write to it.
fn command(unified: bool, freeze: bool) -> (&'static str, &'static str) {
    match (unified, freeze) {
        (true, true) => ("cgroup.freeze", "1"),
        (true, false) => ("cgroup.freeze", "0"),
        (false, true) => ("freezer.state", "FROZEN"),
        (false, false) => ("freezer.state", "THAWED"),
    }
}

fn set(group: &Group, freeze: bool) -> Result<(), Error> {
    write(&group.dir, command(group.is_unified(), freeze))
}

fn write(dir: &Dir, (file, value): (&str, &str)) -> Result<(), Error> {
    dir.write(file, value).map_err(|source| Error::Write {
        path: dir.path().join(file),
        value: value.to_owned(),
        source,
    })
}

fn timeout(dir: &Dir) -> Error {
    Error::FreezeTimeout { path: dir.path().to_path_buf(), timeout_ms: PATIENCE.as_millis() as u64 }
}

fn freeze_v2(dir: &Dir) -> Result<(), Error> {
    let unreadable = |source: io::Error| Error::Read { path: dir.path().join("cgroup.events"), source };
    let events = dir.open_file("cgroup.events", rustix::fs::OFlags::RDONLY).map_err(unreadable)?;
    write(dir, command(true, true))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if read_short(&events).map_err(unreadable)?.contains("frozen 1") {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || !wait_event(&events, left) {
            return Err(timeout(dir));
        }
        rustix::fs::seek(&events, rustix::fs::SeekFrom::Start(0)).map_err(|e| unreadable(e.into()))?;
    }
}

fn freeze_v1(dir: &Dir) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(50);
    for attempt in 1_u32.. {
        // Writing the state again makes the kernel look again for processes that it has missed.
        write(dir, command(false, true))?;
        let state = dir
            .read_line("freezer.state")
            .map_err(|source| Error::Read { path: dir.path().join("freezer.state"), source })?;
        match state.trim() {
            "FROZEN" => return Ok(()),
            "FREEZING" => {}
            other => {
                return Err(Error::Format {
                    path: dir.path().join("freezer.state"),
                    content: other.to_owned(),
                });
            }
        }
        if Instant::now() >= deadline {
            break;
        }
        if attempt % 50 == 0 {
            // A process that forks all the time gets ahead of the freezer; a fresh start helps.
            write(dir, command(false, false))?;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Err(timeout(dir))
}

/// Whether the cgroup at `dir`, of either version, is frozen by a command of its own.
pub(super) fn is_frozen_at(dir: &Dir) -> Result<bool, Error> {
    for (file, frozen) in [("freezer.self_freezing", "1"), ("cgroup.freeze", "1")] {
        match dir.read_line(file) {
            Ok(text) => return Ok(text.trim() == frozen),
            Err(e) if is_gone(&e) => {}
            Err(source) => return Err(Error::Read { path: dir.path().join(file), source }),
        }
    }
    Ok(false)
}
