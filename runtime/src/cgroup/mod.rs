//! A container's cgroups, on v1, v2 and hybrid hosts, behind one type.
//!
//! The order of work is: [`Layout::probe`] once, [`Location::resolve`] (pure; stored before anything is made),
//! [`Limits::compile`] (pure; every mistake with its JSON pointer), [`Cgroup::create`], the process by
//! [`Cgroup::clone_into`] or [`Cgroup::restrict`] and [`Cgroup::attach`], [`Cgroup::apply`], and at the end [`Cgroup::kill`] and [`Cgroup::remove`].
//! `attach` and `apply` are apart because the first move of a process on v1 waits for an RCU grace period, which other
//! work can overlap.
//!
//! Nothing above a hierarchy's mount point is touched, no process-wide state changes, and nothing is kept in memory that
//! the next command could not find again from the [`Location`].

mod below;
mod create;
mod dbus;

mod devices;
mod error;
#[cfg(test)]
mod fake;
mod file;
mod freezer;
mod kill;
mod layout;
mod limits;
mod location;
mod oom;
mod remove;
pub mod stats;
mod sys;
mod systemd;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use self::file::Dir;
use self::location::Place;

pub use self::dbus::BusError;
pub use self::error::Error;
pub use self::layout::{Hierarchy, Layout, Unified, Version};
pub use self::limits::Limits;
pub use self::location::{Driver, Location};
pub use self::oom::{OomEvent, OomWatch};
pub use self::stats::Stats;
pub use self::systemd::UnitProperties;

/// The container's directory in one hierarchy.
#[derive(Debug)]
struct Group {
    place: Place,
    dir: Dir,
    /// Made by us just now, so that nothing can be in it.
    fresh: bool,
}

impl Group {
    fn is_unified(&self) -> bool {
        self.place.controllers.is_empty()
    }
}

/// The cgroups of one container, made or found.
#[derive(Debug)]
pub struct Cgroup {
    location: Location,
    /// In the order of the location's places; without those that a rootless container had to go without.
    groups: Vec<Group>,
    /// With the systemd driver, until the unit has been started.
    pending: Option<Box<systemd::Pending>>,
    /// The device rules have been written by [`Cgroup::restrict`].
    restricted: bool,
}

impl Cgroup {
    /// Opens the cgroups of a container that was created before. Hierarchies in which the container has no directory are
    /// left out: it was rootless, or is being deleted.
    ///
    /// # Errors
    /// [`Error::Open`] where the cgroup2 directory cannot be opened for another reason than not being there, and
    /// [`Error::NotCgroup`] where it is something else.
    pub fn open(location: &Location) -> Result<Cgroup, Error> {
        let mut groups = Vec::with_capacity(location.places.len());
        for place in &location.places {
            let dir = if place.controllers.is_empty() {
                match create::open_unified(&place.dir) {
                    Ok(dir) => dir,
                    Err(Error::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                }
            } else {
                Dir::at(place.dir.clone())
            };
            groups.push(Group { place: place.clone(), dir, fresh: false });
        }
        Ok(Cgroup { location: location.clone(), groups, pending: None, restricted: false })
    }

    /// Where the container's cgroups are.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The location without the hierarchies that a rootless container had to go without.
    pub fn location_made(&self) -> Location {
        let places = self.groups.iter().map(|group| group.place.clone()).collect();
        Location { places, ..self.location.clone() }
    }

    /// The descriptor for `CLONE_INTO_CGROUP`: a process cloned into it needs [`Cgroup::attach_rest`] on a hybrid host and
    /// nothing more on v2. `None` on v1, and for a systemd unit that has not been started, which needs a process first.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.unified().and_then(|group| group.dir.fd())
    }

    /// Moves process `pid` into the container's cgroup of every hierarchy. With the systemd driver the first process
    /// brings the unit into being.
    ///
    /// # Errors
    /// [`Error::Attach`], and D-Bus errors with the systemd driver. A rootless container that was not given a path goes
    /// without the hierarchies that do not permit it.
    pub fn attach(&mut self, pid: i32) -> Result<(), Error> {
        if self.pending.is_some() {
            self.start_unit(pid)?;
        }
        self.attach_where(pid, |_| true)
    }

    /// Moves process `pid`, which was cloned into [`Cgroup::clone_into`], into the v1 hierarchies. No system call on v2.
    ///
    /// # Errors
    /// As [`Cgroup::attach`].
    pub fn attach_rest(&self, pid: i32) -> Result<(), Error> {
        self.attach_where(pid, |group| !group.is_unified())
    }

    fn attach_where(&self, pid: i32, wanted: impl Fn(&Group) -> bool) -> Result<(), Error> {
        for group in self.groups.iter().filter(|g| wanted(g)) {
            if let Err(source) = attach_to(&group.dir, pid) {
                let refused = is_refusal(&source);
                if refused && self.location.unit.is_some() {
                    // Moving out of a session's scope needs rights above both, which systemd has.
                    self.attach_by_systemd(pid)?;
                } else if !(refused && self.location.may_go_without()) {
                    return Err(Error::Attach { pid, path: group.dir.path().to_path_buf(), source });
                }
            }
        }
        Ok(())
    }

    /// For a process that is to join a running container on v2, whose own cgroup refuses it (EBUSY) because the container
    /// delegates controllers to children: the cgroup of the container's process `init`, if it is below the container's.
    ///
    /// # Errors
    /// [`Error::Read`] where `/proc` has no such process, [`Error::Open`] where its cgroup is not below the container's
    /// or cannot be opened.
    pub fn cgroup_of_process(&self, init: i32) -> Result<Option<OwnedFd>, Error> {
        let Some(group) = self.unified() else { return Ok(None) };
        let path = PathBuf::from(format!("/proc/{init}/cgroup"));
        let text = file::read_whole(&path).map_err(|source| Error::Read { path, source })?;
        let Some(inner) = text.lines().find_map(|l| l.strip_prefix("0::/")) else { return Ok(None) };
        let full = group.place.mount.join(inner);
        let open = |below: &Path| match below.as_os_str().is_empty() {
            true => group.dir.open_file(".", OFlags::RDONLY | OFlags::DIRECTORY),
            false => {
                let how = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let fd = group.dir.fd().ok_or(Errno::BADF)?;
                Ok(rustix::fs::openat2(fd, below, flags, rustix::fs::Mode::empty(), how)?)
            }
        };
        let below = full.strip_prefix(&group.place.dir).map_err(|_| io::Error::from(Errno::XDEV));
        match below.and_then(open) {
            Ok(fd) => Ok(Some(fd)),
            Err(source) => Err(Error::Open { path: full, source }),
        }
    }

    /// Moves process `pid` into a cgroup2 directory that is open, such as [`Cgroup::cgroup_of_process`] gives.
    ///
    /// # Errors
    /// [`Error::Attach`].
    pub fn attach_at(&self, directory: BorrowedFd<'_>, pid: i32) -> Result<(), Error> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, "cgroup.procs", flags, rustix::fs::Mode::empty());
        let result = file.map_err(io::Error::from).and_then(|file| write_pid(&file, pid));
        result.map_err(|source| {
            let path = self.tracking_group().map_or(PathBuf::new(), |g| g.dir.path().to_path_buf());
            Error::Attach { pid, path, source }
        })
    }

    /// Whether no hierarchy has a cgroup of this container: it is rootless without delegation, or it is gone.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    fn unified(&self) -> Option<&Group> {
        self.groups.iter().find(|g| g.is_unified())
    }

    /// The group that has `controller`: on v2 that is the only one, whether the controller is enabled or not.
    fn group(&self, controller: &str) -> Option<&Group> {
        match self.location.version {
            Version::V2 => self.groups.first(),
            Version::V1 | Version::Hybrid => self.groups.iter().find(|g| g.place.has(controller)),
        }
    }

    /// The group whose process list stands for the container's: every hierarchy has the same processes.
    fn tracking_group(&self) -> Option<&Group> {
        ["devices", "freezer", "pids"]
            .iter()
            .find_map(|c| self.group(c))
            .or_else(|| self.unified())
            .or_else(|| self.groups.first())
    }

    /// The processes in the container's cgroup, with `recursive` also those in cgroups below it.
    ///
    /// # Errors
    /// [`Error::Read`]; a cgroup that is gone has no processes.
    pub fn pids(&self, recursive: bool) -> Result<Vec<i32>, Error> {
        match self.tracking_group() {
            Some(group) => pids_of(group.dir.path(), recursive),
            None => Ok(Vec::new()),
        }
    }

    /// Whether a living process is in the container's cgroup or below it.
    ///
    /// # Errors
    /// [`Error::Read`]; a cgroup that is gone has no processes.
    pub fn is_populated(&self) -> Result<bool, Error> {
        if let Some(group) = self.unified().filter(|_| self.location.version == Version::V2) {
            return match group.dir.read_line("cgroup.events") {
                Ok(events) => Ok(events.contains("populated 1")),
                Err(e) if is_gone(&e) => Ok(false),
                Err(source) => Err(Error::Read { path: group.dir.path().join("cgroup.events"), source }),
            };
        }
        Ok(!self.pids(true)?.is_empty())
    }
}

/// Writes a pid to the `cgroup.procs` of a directory.
fn attach_to(dir: &Dir, pid: i32) -> io::Result<()> {
    write_pid(&dir.open_file("cgroup.procs", OFlags::WRONLY)?, pid)
}

fn write_pid(file: &OwnedFd, pid: i32) -> io::Result<()> {
    let text = pid.to_string();
    for attempt in 1.. {
        match file::write_all_at_once(file, &text) {
            // A process that clone(2) is still making cannot be moved for a moment.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && attempt < 5 => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            other => return other,
        }
    }
    Ok(())
}

/// The processes of the cgroup at `path`, and of those below it.
fn pids_of(path: &Path, recursive: bool) -> Result<Vec<i32>, Error> {
    let mut found = Vec::new();
    let mut todo = vec![path.to_path_buf()];
    while let Some(path) = todo.pop() {
        let dir = Dir::at(path);
        let text = match dir.read("cgroup.procs") {
            // A threaded cgroup refuses to list processes.
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => dir.read("cgroup.threads"),
            other => other,
        };
        match text {
            Ok(text) => {
                for line in text.lines() {
                    let pid = line.parse().map_err(|_| Error::Format {
                        path: dir.path().join("cgroup.procs"),
                        content: line.to_owned(),
                    })?;
                    found.push(pid);
                }
            }
            Err(e) if is_gone(&e) => continue,
            Err(source) => return Err(Error::Read { path: dir.path().join("cgroup.procs"), source }),
        }
        if recursive {
            match dir.children() {
                Ok(children) => todo.extend(children),
                Err(e) if is_gone(&e) => {}
                Err(source) => return Err(Error::Read { path: dir.path().to_path_buf(), source }),
            }
        }
    }
    Ok(found)
}

/// The cgroup is not there any more: ENODEV comes from files that were open when it went.
fn is_gone(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// The host does not let this user do it.
fn is_refusal(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

impl Location {
    /// Whether a hierarchy that cannot be used is to be left out instead of being an error.
    fn may_go_without(&self) -> bool {
        self.rootless && !self.explicit
    }
}
