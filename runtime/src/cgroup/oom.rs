//! Being told when the OOM killer strikes in a container.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, inotify};
use rustix::io::Errno;

use super::{Cgroup, Error, Version};

/// What a wake-up of an [`OomWatch`] meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomEvent {
    /// The OOM killer has struck, or on v1 has found memory short with the killer disabled.
    Oom,
    /// Something else changed.
    Nothing,
    /// The cgroup is gone or has no process left: there will be no more.
    Gone,
}

/// A descriptor that becomes readable when the container runs out of memory or its cgroup goes.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    /// The file that counts: `memory.oom_control` on v1, `memory.events` on v2.
    file: PathBuf,
    version: Version,
    /// v1 ties the notification to this descriptor.
    _control: Option<OwnedFd>,
    seen: u64,
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Cgroup {
    /// Begins to watch for the OOM killer in a container that has a process. Poll the result for reading, then call [`OomWatch::next_event`].
    ///
    /// # Errors
    /// [`Error::Unavailable`] without the memory controller, [`Error::OomWatch`] and those of [`Cgroup::oom_kills`].
    pub fn oom_watch(&self) -> Result<OomWatch, Error> {
        let group = self.group("memory").ok_or(Error::Unavailable { controller: "memory" })?;
        let name = match self.location.version {
            Version::V2 => "memory.events",
            Version::V1 | Version::Hybrid => "memory.oom_control",
        };
        let file = group.dir.path().join(name);
        let fail = |source: io::Error| match source.raw_os_error() {
            Some(libc::ENOENT) => Error::Unavailable { controller: "memory" },
            _ => Error::OomWatch { path: file.clone(), source },
        };
        let seen = self.oom_kills()?;
        if self.location.version == Version::V2 {
            let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
            let fd = inotify::init(flags).map_err(|e| fail(e.into()))?;
            // The second tells of the end of the last process.
            let mask = inotify::WatchFlags::MODIFY;
            for path in [file.clone(), group.dir.path().join("cgroup.events")] {
                inotify::add_watch(&fd, &path, mask).map_err(|e| fail(e.into()))?;
            }
            return Ok(OomWatch { fd, file, version: Version::V2, _control: None, seen });
        }
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| fail(e.into()))?;
        let control = group.dir.open_file(name, OFlags::RDONLY).map_err(fail)?;
        let request = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
        group.dir.write("cgroup.event_control", &request).map_err(fail)?;
        Ok(OomWatch { fd, file, version: self.location.version, _control: Some(control), seen })
    }
}

impl OomWatch {
    /// Takes what made the descriptor readable and says what it was. Does not block. Call it again until there is
    /// [`OomEvent::Nothing`] or [`OomEvent::Gone`]: one wake-up can stand for several events.
    ///
    /// # Errors
    /// [`Error::OomWatch`].
    pub fn next_event(&mut self) -> Result<OomEvent, Error> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let woken = loop {
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(_) => break true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break false,
                Err(e) => return Err(self.fail(e.into())),
            }
        };
        let text = match super::file::read_whole(&self.file) {
            Ok(text) => text,
            Err(e) if super::is_gone(&e) => return Ok(OomEvent::Gone),
            Err(e) => return Err(self.fail(e)),
        };
        let count = |key: &str| -> Option<u64> {
            text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
        };
        let kills = count("oom_kill").unwrap_or(0);
        let more = kills > self.seen;
        self.seen = self.seen.max(kills);
        // v1 wakes for nothing else, and before the kill is counted.
        if self.version != Version::V2 {
            return Ok(if woken { OomEvent::Oom } else { OomEvent::Nothing });
        }
        if more {
            return Ok(OomEvent::Oom);
        }
        // The removal of a cgroup wakes nobody, the end of its last process does.
        match super::file::read_whole(&self.file.with_file_name("cgroup.events")) {
            Ok(text) if text.contains("populated 0") => Ok(OomEvent::Gone),
            Err(e) if super::is_gone(&e) => Ok(OomEvent::Gone),
            Ok(_) => Ok(OomEvent::Nothing),
            Err(e) => Err(self.fail(e)),
        }
    }

    fn fail(&self, source: io::Error) -> Error {
        Error::OomWatch { path: self.file.clone(), source }
    }
}
