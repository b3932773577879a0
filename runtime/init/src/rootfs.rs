//! Paths inside the container's root: the one module that resolves and makes them.
//!
//! Whatever the image, or another process that shares its files, puts there - links to the host's files,
//! magic links, `..`, FIFOs, a swap between two calls - a path is resolved by openat2 with the root as `/`,
//! and what is missing is made component by component relative to a descriptor that was resolved before.

use crate::step::Op;
use crate::sys::{self, Fault, O_PATH, Outcome, done};
use core::ffi::CStr;

/// Longest path in bytes, with its NUL.
const PATH_MAX: usize = 4096;

/// How many symbolic links to directories that do not exist yet are followed.
const MAX_DANGLING: usize = 40;

/// A path being put together, NUL-terminated.
struct PathBuffer {
    bytes: [u8; PATH_MAX],
    len: usize,
}

impl PathBuffer {
    fn new() -> Self {
        PathBuffer { bytes: [0; PATH_MAX], len: 0 }
    }

    fn set(&mut self, path: &[u8]) -> Outcome {
        self.len = 0;
        self.push(path)
    }

    fn push(&mut self, part: &[u8]) -> Outcome {
        let end = self.len + part.len();
        if end >= PATH_MAX {
            return Err(Fault::new(Op::PathTooLong, libc::ENAMETOOLONG));
        }
        self.bytes[self.len..end].copy_from_slice(part);
        self.bytes[end] = 0;
        self.len = end;
        Ok(())
    }

    fn as_c_str(&self) -> Outcome<&CStr> {
        CStr::from_bytes_until_nul(&self.bytes).map_err(|_| Fault::new(Op::PathTooLong, libc::EINVAL))
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A component as a C string.
fn component<'a>(bytes: &[u8], buffer: &'a mut [u8; 256]) -> Outcome<&'a CStr> {
    if bytes.len() > 255 {
        return Err(Fault::new(Op::PathTooLong, libc::ENAMETOOLONG));
    }
    buffer[..bytes.len()].copy_from_slice(bytes);
    buffer[bytes.len()] = 0;
    CStr::from_bytes_until_nul(buffer).map_err(|_| Fault::new(Op::PathTooLong, libc::EINVAL))
}

/// What is made when the last component is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Directory,
    File,
}

/// Opens `path` (O_PATH), making it and the directories above it when missing.
pub(crate) fn open_or_make(root: i32, path: &CStr, missing: Missing) -> Outcome<i32> {
    match sys::open_in_root(root, path, O_PATH) {
        Err(fault) if fault.errno == libc::ENOENT => {}
        other => return other,
    }
    // Most often only the last component is missing, in a directory that is there.
    match make_last(root, path.to_bytes(), missing) {
        Err(fault) if matches!(fault.errno, libc::ENOENT | libc::EEXIST) => {
            make(root, path.to_bytes(), missing)
        }
        other => other,
    }
}

/// Makes the last component of a path whose directory exists.
fn make_last(root: i32, path: &[u8], missing: Missing) -> Outcome<i32> {
    let at = path.iter().rposition(|&b| b == b'/').map_or(0, |n| n + 1);
    let (parent, name) = path.split_at(at);
    if matches!(name, b"" | b"." | b"..") {
        return Err(Fault::new(Op::Openat2, libc::ENOENT));
    }
    let mut buffer = [0; 256];
    let name = component(name, &mut buffer)?;
    let directory = if parent.is_empty() {
        root
    } else {
        let mut path = PathBuffer::new();
        path.set(parent)?;
        sys::open_in_root(root, path.as_c_str()?, O_PATH | libc::O_DIRECTORY)?
    };
    let made = make_here(directory, name, missing)
        .and_then(|()| sys::openat(directory, name, O_PATH | libc::O_NOFOLLOW, 0));
    if directory != root {
        done(directory);
    }
    made
}

/// Makes a directory or an empty file; one that exists, of whatever kind, is EEXIST.
fn make_here(directory: i32, name: &CStr, missing: Missing) -> Outcome {
    match missing {
        Missing::Directory => sys::mkdirat(directory, name, 0o755),
        // Not by open: a writer on the root filesystem would keep it from becoming read-only.
        Missing::File => sys::mknodat(directory, name, libc::S_IFREG | 0o644, 0),
    }
}

/// The slow path of [`open_or_make`]: walks the components and makes those that are missing.
///
/// A symbolic link whose target does not exist (`/var/run -> /run` in an image without `/run`) is followed
/// by hand: its content takes the place of what was walked, and the walk begins again.
fn make(root: i32, path: &[u8], missing: Missing) -> Outcome<i32> {
    let mut wanted = PathBuffer::new();
    wanted.set(path)?;
    for _ in 0..MAX_DANGLING {
        match walk(root, &wanted, missing)? {
            Walk::Opened(fd) => return Ok(fd),
            Walk::Link { replacement } => wanted = replacement,
        }
    }
    Err(Fault::new(Op::TooManyLinks, libc::ELOOP))
}

#[allow(clippy::large_enum_variant)] // no allocator: it lives on the child's stack
enum Walk {
    Opened(i32),
    Link { replacement: PathBuffer },
}

fn walk(root: i32, wanted: &PathBuffer, missing: Missing) -> Outcome<Walk> {
    let bytes = wanted.as_bytes();
    let mut directory = sys::open_in_root(root, c".", O_PATH | libc::O_DIRECTORY)?;
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes[at..].iter().position(|&b| b == b'/').map_or(bytes.len(), |n| at + n);
        let name = &bytes[at..end];
        if name.is_empty() || name == b"." {
            at = end + 1;
            continue;
        }
        let rest_is_empty = bytes[end..].iter().all(|&b| b == b'/');
        let result = step_into(root, directory, &bytes[..end], name, rest_is_empty, missing);
        done(directory);
        match result? {
            Walk::Opened(next) => directory = next,
            Walk::Link { mut replacement } => {
                replacement.push(&bytes[end..])?;
                return Ok(Walk::Link { replacement });
            }
        }
        at = end + 1;
    }
    Ok(Walk::Opened(directory))
}

/// Opens the prefix that ends with `name`, or makes `name` in `directory`.
fn step_into(
    root: i32,
    directory: i32,
    prefix: &[u8],
    name: &[u8],
    last: bool,
    missing: Missing,
) -> Outcome<Walk> {
    let mut path = PathBuffer::new();
    path.set(prefix)?;
    let flags = if last { O_PATH } else { O_PATH | libc::O_DIRECTORY };
    match sys::open_in_root(root, path.as_c_str()?, flags) {
        Ok(fd) => return Ok(Walk::Opened(fd)),
        Err(fault) if fault.errno == libc::ENOENT => {}
        Err(fault) => return Err(fault),
    }
    if name == b".." {
        // Only after a component that does not exist, which the line above would have made.
        return Err(Fault::new(Op::Openat2, libc::ENOENT));
    }
    let mut buffer = [0; 256];
    let name_c = component(name, &mut buffer)?;
    let made = make_here(directory, name_c, if last { missing } else { Missing::Directory });
    match made {
        Ok(()) => {}
        Err(fault) if fault.errno == libc::EEXIST => {
            if let Some(replacement) = dangling(directory, prefix, name, name_c)? {
                return Ok(Walk::Link { replacement });
            }
        }
        Err(fault) => return Err(fault),
    }
    Ok(Walk::Opened(sys::openat(directory, name_c, flags | libc::O_NOFOLLOW, 0)?))
}

/// If `name` is a symbolic link, the path that it stands for.
fn dangling(directory: i32, prefix: &[u8], name: &[u8], name_c: &CStr) -> Outcome<Option<PathBuffer>> {
    let mut content = [0u8; PATH_MAX];
    let length = match sys::readlinkat(directory, name_c, &mut content) {
        Ok(length) => length,
        // Not a link: somebody else made the directory at the same time.
        Err(fault) if fault.errno == libc::EINVAL => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let content = &content[..length];
    let mut path = PathBuffer::new();
    if content.first() != Some(&b'/') {
        path.set(&prefix[..prefix.len() - name.len()])?;
    }
    path.push(content)?;
    Ok(Some(path))
}

/// The magic number of procfs.
pub(crate) const PROC_MAGIC: u64 = 0x9fa0;
/// The magic number of devpts.
pub(crate) const DEVPTS_MAGIC: u64 = 0x1cd1;
