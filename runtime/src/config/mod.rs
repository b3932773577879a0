//! The bundle and its `config.json`: read once, parsed, and searched for mistakes.
//!
//! A correct file is parsed by one pass of `serde_json` straight into [`Spec`]. Only a file that this pass
//! refuses, or that has one of the few members `oci-spec` cannot represent, goes through [`document`]: there
//! the file becomes a tree, what Go's decoder (and so every caller of runc) would accept is put into the form
//! that `oci-spec` accepts, and each value of a wrong type is recorded with its JSON pointer and replaced by a
//! legal one, so that the search goes on and [`check()`] and the compiler can report their mistakes as well.
//!
//! What differs from Go's `encoding/json`, on purpose: names of members are compared with their case, bytes
//! that are not UTF-8 and lone surrogates are refused in what is read (not in what is skipped), and so is
//! anything after the document. A member that
//! stands twice counts by its last value, as in Go, with a warning. Limits: [`MAX_CONFIG_BYTES`],
//! [`MAX_DEPTH`]. The fast pass needs no limit on depth: it recurses as deep as the types do, and skips what
//! it does not know without recursion.
//!
//! Specification: config.md, config-linux.md and bundle.md of runtime-spec 1.3.0.

mod check;
mod document;
pub mod sysctl;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Process, Spec};
use rustix::fs::{FileType, Mode, OFlags};

use crate::error::Mistake;

pub use check::{MIN_VERSION, SPEC_VERSION, check, check_process, device_name_is_valid, parse_list};

/// The largest `config.json` that is read, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// How deep a `config.json` that has to be searched for mistakes may be nested.
pub const MAX_DEPTH: usize = 64;

/// Why a bundle could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bundle directory cannot be opened.
    #[error("bundle directory {}", path.display())]
    Directory {
        /// The directory as it was given.
        path: PathBuf,
        /// What the kernel said.
        source: rustix::io::Errno,
    },
    /// The bundle has no `config.json`.
    #[error("JSON specification file config.json not found in bundle {}", bundle.display())]
    NoConfig {
        /// The bundle directory.
        bundle: PathBuf,
    },
    /// `config.json` cannot be opened or read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// `config.json` is a directory, a FIFO, a socket or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// `config.json` is larger than [`MAX_CONFIG_BYTES`].
    #[error("{} has {size_bytes} bytes, more than the {MAX_CONFIG_BYTES} that are read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// `config.json` is no JSON, or so wrong that no specification could be made of it.
    #[error("{}: {}", path.display(), List(mistakes))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that was found.
        mistakes: Vec<Mistake>,
    },
}

/// Mistakes one after the other, as a single line.
struct List<'a>(&'a [Mistake]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            if mistake.pointer.is_empty() {
                f.write_str(&mistake.message)?;
            } else {
                write!(f, "{mistake}")?;
            }
        }
        Ok(())
    }
}

/// A parsed `config.json` with what was found in it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The specification. Strings that are present but empty count as absent, as they do in Go. With
    /// [`mistakes`](Config::mistakes), values of a wrong type were replaced by legal ones, so that it serves
    /// for finding more mistakes and for nothing else.
    pub spec: Spec,
    /// Why a container must not be made of it; empty if it may.
    pub mistakes: Vec<Mistake>,
    /// What is ignored or deprecated, to be logged.
    pub warnings: Vec<Mistake>,
}

impl Config {
    /// Adds a mistake that a later stage found, unless it only follows from a value that is already known to
    /// be wrong.
    pub fn add(&mut self, mistake: Mistake) {
        if !is_covered(&mistake.pointer, &self.mistakes) {
            self.mistakes.push(mistake);
        }
    }
}

/// Whether a mistake at `pointer` is already named by one of `known`, at the same place or around it.
fn is_covered(pointer: &str, known: &[Mistake]) -> bool {
    known.iter().any(|m| match pointer.strip_prefix(m.pointer.as_str()) {
        Some(rest) => rest.is_empty() || (rest.starts_with('/') && !m.pointer.is_empty()),
        None => false,
    })
}

/// A bundle: the directory with `config.json` and, usually, the root filesystem.
#[derive(Debug)]
pub struct Bundle {
    /// The directory, absolute and free of symbolic links.
    pub dir: PathBuf,
    /// The directory itself (`O_PATH`, close-on-exec); relative paths of the configuration start here.
    pub dir_fd: OwnedFd,
    /// The bytes of its `config.json`.
    pub bytes: Vec<u8>,
    /// Its configuration.
    pub config: Config,
}

impl Bundle {
    /// Opens `dir` and parses its `config.json`, which may be a symbolic link and must be a regular file.
    ///
    /// # Errors
    /// See [`Error`]. Mistakes in a file that is JSON are no error here: they are in
    /// [`Config::mistakes`], together with those that [`check()`] finds.
    pub fn load(dir: &Path) -> Result<Bundle, Error> {
        let directory = |source| Error::Directory { path: dir.to_owned(), source };
        let dir_fd = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(directory)?;
        let dir = resolve(dir, &dir_fd).map_err(directory)?;
        let path = dir.join("config.json");
        let bytes = read(&dir_fd, &path)?;
        let mut config = parse(&bytes).map_err(|mistakes| Error::Invalid { path, mistakes })?;
        let mut found = Vec::new();
        check(&config.spec, &config.mistakes, &mut found, &mut config.warnings);
        config.mistakes.append(&mut found);
        Ok(Bundle { dir, dir_fd, bytes, config })
    }
}

/// The canonical path of an open directory: one readlink instead of one for each component, and no race
/// between the path and the descriptor.
fn resolve(dir: &Path, fd: &OwnedFd) -> rustix::io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStringExt;
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    match rustix::fs::readlink(link, Vec::new()) {
        Ok(path) => Ok(PathBuf::from(std::ffi::OsString::from_vec(path.into_bytes()))),
        // Without /proc (`--version` works there, and so should an error message of ours).
        Err(_) => std::fs::canonicalize(dir)
            .map_err(|e| rustix::io::Errno::from_io_error(&e).unwrap_or(rustix::io::Errno::IO)),
    }
}

fn read(dir_fd: &OwnedFd, path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source: rustix::io::Errno| Error::Read { path: path.to_owned(), source: source.into() };
    // O_NONBLOCK: a FIFO must be an error, not a wait. It means nothing for a regular file.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match rustix::fs::openat(dir_fd.as_fd(), "config.json", flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => {
            let bundle = path.parent().unwrap_or(path).to_owned();
            return Err(Error::NoConfig { bundle });
        }
        other => other.map_err(failed)?,
    };
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
    if size_bytes > MAX_CONFIG_BYTES {
        return Err(Error::TooLarge { path: path.to_owned(), size_bytes });
    }
    let mut file = File::from(fd);
    let mut bytes = vec![0; size_bytes as usize];
    let result = if size_bytes > 0 {
        file.read_exact(&mut bytes)
    } else {
        // Some filesystems do not know a size beforehand.
        file.take(MAX_CONFIG_BYTES).read_to_end(&mut bytes).map(|_| ())
    };
    result.map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// Parses a `config.json`.
///
/// # Errors
/// The mistakes of a file that is no JSON, or of which no specification can be made. All other mistakes are
/// in [`Config::mistakes`].
pub fn parse(bytes: &[u8]) -> Result<Config, Vec<Mistake>> {
    let mut config = match serde_json::from_slice::<Spec>(bytes) {
        Ok(spec) if is_object(bytes) && !needs_document(&spec) => {
            Config { spec, mistakes: Vec::new(), warnings: Vec::new() }
        }
        _ => {
            let parsed = document::parse::<Spec>(bytes, document::Kind::Spec)?;
            Config { spec: parsed.value, mistakes: parsed.mistakes, warnings: parsed.warnings }
        }
    };
    document::drop_empty_strings(&mut config.spec);
    Ok(config)
}

/// Serde's structures can be read from arrays too; a configuration is an object.
fn is_object(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"{")
}

/// Whether the file may hold something that parsing it into [`Spec`] loses without a word.
fn needs_document(spec: &Spec) -> bool {
    let Some(linux) = spec.linux() else { return false };
    let pids = linux.resources().as_ref().and_then(|r| r.pids().as_ref());
    // `"pids": {}` leaves the limit alone, `"limit": 0` allows no process: both are 0 in oci-spec.
    pids.is_some_and(|pids| pids.limit() == 0) || linux.intel_rdt().is_some()
}

/// Parses the process object of `exec --process`, and checks it.
///
/// # Errors
/// All mistakes, with pointers relative to the file.
pub fn parse_process(bytes: &[u8]) -> Result<(Process, Vec<Mistake>), Vec<Mistake>> {
    let mut parsed = document::parse::<Process>(bytes, document::Kind::Process)?;
    document::drop_empty_process_strings(&mut parsed.value);
    let mut found = Vec::new();
    check_process(&parsed.value, "", &parsed.mistakes, &mut found, &mut parsed.warnings);
    parsed.mistakes.append(&mut found);
    if parsed.mistakes.is_empty() { Ok((parsed.value, parsed.warnings)) } else { Err(parsed.mistakes) }
}

/// Parses the resources object of `update --resources`.
///
/// # Errors
/// All values of a wrong type, with pointers relative to the file.
pub fn parse_resources(bytes: &[u8]) -> Result<LinuxResources, Vec<Mistake>> {
    let parsed = document::parse::<LinuxResources>(bytes, document::Kind::Resources)?;
    if parsed.mistakes.is_empty() { Ok(parsed.value) } else { Err(parsed.mistakes) }
}

#[cfg(test)]
mod tests;
