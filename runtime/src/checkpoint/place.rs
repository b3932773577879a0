//! The mount namespace in which CRIU restores.
//!
//! CRIU wants the root of the container to be a mount whose parent nothing covers. Both are made in a mount
//! namespace that only CRIU has, so nothing of it is ever seen on the host, or left there by a crash. A thread
//! makes it, since a mount namespace belongs to a thread; the directories that CRIU works in are opened by that
//! thread again, since CRIU mounts below them, and a mount can only be made in its own namespace.

use super::error::Error;
use super::images::Images;
use super::sys;
use rustix::fs::{CWD, Mode, mkdir};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, mount, mount_change, move_mount};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What the namespace is made of.
pub(crate) struct Place<'a> {
    /// A directory that may be covered: the container's own below the runtime's root.
    pub cover: &'a Path,
    /// A detached clone of the root filesystem.
    pub tree: OwnedFd,
    pub images: &'a Images,
    pub work: Option<&'a Images>,
}

/// The namespace, held by its directories.
pub(crate) struct Placed {
    pub images: Images,
    pub work: Option<Images>,
}

impl Place<'_> {
    /// Where the root is.
    pub(crate) fn root(&self) -> PathBuf {
        self.cover.join("root")
    }

    /// Moves the calling thread into the namespace.
    pub(crate) fn enter(&self) -> Result<Placed, Error> {
        let at = |action: &'static str, path: &Path| {
            let path = path.to_path_buf();
            move |e: Errno| Error::File { action, path, source: e.into() }
        };
        sys::unshare_mounts().map_err(|source| Error::File {
            action: "unsharing the mount namespace for criu at",
            path: self.root(),
            source,
        })?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", slave).map_err(at("making all mounts slaves below", Path::new("/")))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(c"tmpfs", self.cover, c"tmpfs", flags, c"mode=700")
            .map_err(at("mounting a tmpfs on", self.cover))?;
        let root = self.root();
        mkdir(&root, Mode::from_raw_mode(0o755)).map_err(at("making", &root))?;
        let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&self.tree, c"", CWD, &root, empty)
            .map_err(at("mounting the root filesystem on", &root))?;
        Ok(Placed { images: again(self.images)?, work: self.work.map(again).transpose()? })
    }
}

/// The same directory, on the mount of this namespace.
fn again(images: &Images) -> Result<Images, Error> {
    let opened = Images::open(&images.path)?;
    let id = |images: &Images| {
        let stat = rustix::fs::fstat(&images.fd).map_err(|e| Error::File {
            action: "checking",
            path: images.path.clone(),
            source: e.into(),
        })?;
        Ok::<_, Error>((stat.st_dev, stat.st_ino))
    };
    if id(&opened)? == id(images)? {
        Ok(opened)
    } else {
        Err(Error::ImageEntry { path: opened.path, what: "another directory than before" })
    }
}
