//! tmpcopyup: fills a new filesystem with what the container's image has at the same path.
//!
//! Runs without an allocator: one directory buffer a level, and a bound on the depth. Regular files,
//! directories, symbolic links and device nodes come along with mode, owner and modification time;
//! extended attributes do not (a tmpfs may refuse them).

use crate::step::Op;
use crate::sys::{self, Fault, Outcome, close};
use core::ffi::CStr;

/// Deepest directory that is copied; one deeper is an error.
const MAX_DEPTH: usize = 64;

/// Copies what is in `from` into `to`, both open directories.
pub(crate) fn tree(from: i32, to: i32, depth: usize) -> Outcome {
    if depth > MAX_DEPTH {
        return Err(Fault::new(Op::PathTooLong, libc::ELOOP));
    }
    let mut buffer = [0u8; 2048];
    loop {
        let filled = sys::getdents(from, &mut buffer)?;
        if filled == 0 {
            return Ok(());
        }
        let mut at = 0;
        while at + 19 < filled {
            // struct linux_dirent64: inode, offset, record length, type, name.
            let length = usize::from(u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]]));
            let Some(record) = buffer.get(at + 19..at + length) else {
                return Err(Fault::new(Op::Read, libc::EIO));
            };
            let name = CStr::from_bytes_until_nul(record).map_err(|_| Fault::new(Op::Read, libc::EIO))?;
            if name != c"." && name != c".." {
                entry(from, to, name, depth)?;
            }
            at += length;
        }
    }
}

fn entry(from: i32, to: i32, name: &CStr, depth: usize) -> Outcome {
    let facts = sys::facts(from, name)?;
    match facts.kind() {
        libc::S_IFDIR => {
            let source = sys::openat(from, name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?;
            sys::mkdirat(to, name, 0o700)?;
            let made = sys::openat(to, name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?;
            let result = tree(source, made, depth + 1).and_then(|()| finish(made, &facts));
            close(source);
            close(made);
            result
        }
        libc::S_IFREG => {
            let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let source = sys::openat(from, name, flags, 0)?;
            let made = sys::openat(to, name, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o600)?;
            let result = content(source, made).and_then(|()| finish(made, &facts));
            close(source);
            close(made);
            result
        }
        libc::S_IFLNK => {
            let mut buffer = [0u8; 4096];
            let length = sys::readlinkat(from, name, &mut buffer[..4095])?;
            buffer[length] = 0;
            let target =
                CStr::from_bytes_until_nul(&buffer).map_err(|_| Fault::new(Op::Readlink, libc::EIO))?;
            sys::symlinkat(target, to, name)?;
            sys::fchownat(to, name, facts.uid, facts.gid, libc::AT_SYMLINK_NOFOLLOW)
        }
        _ => {
            let device = libc::makedev(facts.device.0 as _, facts.device.1 as _);
            sys::mknodat(to, name, facts.mode, device as u64)?;
            sys::fchownat(to, name, facts.uid, facts.gid, libc::AT_SYMLINK_NOFOLLOW)
        }
    }
}

fn content(from: i32, to: i32) -> Outcome {
    let mut buffer = [0u8; 16384];
    loop {
        let filled = sys::read(from, &mut buffer)?;
        if filled == 0 {
            return Ok(());
        }
        let mut written = 0;
        while written < filled {
            written += sys::write(to, &buffer[written..filled])?;
        }
    }
}

/// Owner before mode: a change of owner clears the setuid bits.
fn finish(fd: i32, facts: &sys::Facts) -> Outcome {
    sys::fchownat(fd, c"", facts.uid, facts.gid, sys::AT_EMPTY_PATH)?;
    sys::fchmod(fd, facts.mode & 0o7777)?;
    sys::set_mtime(fd, facts.mtime)
}

/// The root of the new filesystem gets the mode and owner of the directory it covers.
pub(crate) fn root(from: i32, to: i32) -> Outcome {
    let facts = sys::facts(from, c"")?;
    tree(from, to, 0)?;
    finish(to, &facts)
}
