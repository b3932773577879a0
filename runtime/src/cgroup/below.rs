//! Cgroups below the container's own, which the container made: where exec can be told to put a process.

use super::{Cgroup, Error};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// The part of `path` below the container's cgroup; `/` and `/a` are relative to it as well.
fn below(path: &str) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(out)
}

impl Cgroup {
    /// The directory of a cgroup below the container's, on v2, for `CLONE_INTO_CGROUP`.
    ///
    /// # Errors
    /// [`Error::Open`] where there is none, or where `path` leads out of the container's.
    pub fn open_below(&self, path: &str) -> Result<OwnedFd, Error> {
        let opened = |path: PathBuf, e: Errno| Error::Open { path, source: io::Error::from(e) };
        let Some(group) = self.unified() else { return Err(Error::Unavailable { controller: "" }) };
        let relative = below(path).ok_or_else(|| opened(path.into(), Errno::XDEV))?;
        let full = group.dir.path().join(&relative);
        let fd = group.dir.fd().ok_or_else(|| opened(full.clone(), Errno::BADF))?;
        let relative = if relative.as_os_str().is_empty() { PathBuf::from(".") } else { relative };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(fd, &relative, flags, Mode::empty(), how).map_err(|e| opened(full, e))
    }

    /// The directory of a cgroup below the container's in the v1 hierarchy of `controller`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without that hierarchy, [`Error::Open`] where `path` leads out of the container's.
    pub fn path_below(&self, controller: &str, path: &str) -> Result<PathBuf, Error> {
        let group =
            self.groups.iter().find(|g| g.place.has(controller) || (controller.is_empty() && g.is_unified()));
        let Some(group) = group else {
            return Err(Error::NoHierarchy { controller: controller.to_owned() });
        };
        let relative = below(path)
            .ok_or_else(|| Error::Open { path: path.into(), source: io::Error::from(Errno::XDEV) })?;
        Ok(group.dir.path().join(relative))
    }
}
