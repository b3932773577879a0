//! Reading and writing the small files of a cgroup with as few system calls as can be.
//!
//! No file is ever created and no symbolic link followed: a name that is not there is an error, not a new file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

/// A cgroup directory: by descriptor where one is open, by path otherwise.
#[derive(Debug)]
pub(super) struct Dir {
    path: PathBuf,
    fd: Option<OwnedFd>,
}

impl Dir {
    /// A directory that is reached by its path. No system call.
    pub(super) fn at(path: PathBuf) -> Dir {
        Dir { path, fd: None }
    }

    /// Opens the directory.
    pub(super) fn open(path: &Path) -> io::Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Dir { path: path.to_path_buf(), fd: Some(fd) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn open_file(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match &self.fd {
            Some(fd) => rustix::fs::openat(fd, name, flags, Mode::empty())?,
            None => rustix::fs::openat(CWD, self.path.join(name), flags, Mode::empty())?,
        };
        Ok(fd)
    }

    /// Writes `value` in one write(2), as the kernel's cgroup files want it.
    pub(super) fn write(&self, name: &str, value: &str) -> io::Result<()> {
        write_all_at_once(&self.open_file(name, OFlags::WRONLY)?, value)
    }

    /// Reads a file of any length.
    pub(super) fn read(&self, name: &str) -> io::Result<String> {
        read_to_end(&self.open_file(name, OFlags::RDONLY)?)
    }

    /// Reads a file whose content is one short line: one read(2), no second one for the end of file.
    pub(super) fn read_line(&self, name: &str) -> io::Result<String> {
        read_short(&self.open_file(name, OFlags::RDONLY)?)
    }

    /// The directories below, in the order the kernel gives them.
    pub(super) fn children(&self) -> io::Result<Vec<PathBuf>> {
        use std::os::unix::ffi::OsStrExt;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match &self.fd {
            Some(fd) => rustix::fs::openat(fd, ".", flags, Mode::empty())?,
            None => rustix::fs::openat(CWD, &self.path, flags, Mode::empty())?,
        };
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::new(fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if entry.file_type() == rustix::fs::FileType::Directory && name != b"." && name != b".." {
                found.push(self.path.join(std::ffi::OsStr::from_bytes(name)));
            }
        }
        Ok(found)
    }
}

pub(super) fn write_all_at_once(fd: &OwnedFd, value: &str) -> io::Result<()> {
    loop {
        match rustix::io::write(fd, value.as_bytes()) {
            // cgroup files take a write whole or not at all.
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Reads what one read(2) gives: enough for a file of one line that is shorter than 4 KiB.
pub(super) fn read_short(fd: &OwnedFd) -> io::Result<String> {
    let mut buffer = [0_u8; 4096];
    loop {
        match rustix::io::read(fd, &mut buffer) {
            Ok(n) => return text(buffer[..n].to_vec()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn read_to_end(fd: &OwnedFd) -> io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        bytes.reserve(4096);
        match rustix::io::read(fd, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => return text(bytes),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Reads a file outside of the cgroup filesystem.
pub(super) fn read_whole(path: &Path) -> io::Result<String> {
    read_to_end(&rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}
