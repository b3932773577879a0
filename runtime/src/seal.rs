//! The runtime's own binary, out of reach of containers (CVE-2019-5736).
//!
//! A process of a container can open the file that another one executes through `/proc/<pid>/exe`, and write to it as
//! soon as nobody executes it any more. It must therefore never see the runtime's binary on a writable mount:
//!
//! - The container's own program is not the runtime's file: the child compares before execve.
//! - Where other processes of the container can look at the child while it is still the runtime (`exec`, a pid
//!   namespace that others share, hooks inside), the program first executes itself again from a detached read-only
//!   mount of its file ([`reexecute`]): nobody can remount what is attached nowhere.
//! - Where they cannot (a new pid namespace), the child's program may still turn out to be the runtime at execve, by
//!   an interpreter `#!/proc/self/exe`. That process is pid 1 and runs a file of a foreign mount namespace:
//!   [`runs_inside_a_container`] tells, and it has to end without doing anything.

use crate::sys;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, StatxFlags, open, statvfs, statx};
use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

const OWN: &str = "/proc/self/exe";

/// Whether the file this process executes cannot be written to through `/proc/<pid>/exe`: its mount is read-only, or
/// it is a sealed memory file.
#[must_use]
pub fn is_sealed() -> bool {
    let read_only = statvfs(OWN).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY));
    read_only || {
        let own = open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let seals = own.and_then(rustix::fs::fcntl_get_seals);
        seals.is_ok_and(|seals| seals.contains(rustix::fs::SealFlags::WRITE))
    }
}

/// Executes this program again, with its arguments and environment, from a file that is sealed: a detached read-only
/// mount of it, or a copy in memory where the caller may not mount. Does nothing if it is sealed already.
///
/// This replaces the process: for programs, before they have started threads or opened anything.
///
/// # Errors
/// Those of the copy and of execveat(2). On success it returns only if nothing had to be done.
pub fn reexecute() -> io::Result<()> {
    if is_sealed() {
        return Ok(());
    }
    let file = match read_only_mount() {
        Ok(file) => file,
        Err(_) => sealed_copy()?,
    };
    match execute(&file)? {}
}

fn read_only_mount() -> io::Result<OwnedFd> {
    let file = sys::detached_clone(OWN.as_ref(), false)?;
    sys::set_read_only(file.as_fd())?;
    Ok(file)
}

fn sealed_copy() -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know EXEC, and give execute permission without it.
    let copy = memfd_create("dhow-runtime", flags | MemfdFlags::EXEC)
        .or_else(|_| memfd_create("dhow-runtime", flags))?;
    let mut copy = std::fs::File::from(copy);
    io::copy(&mut std::fs::File::open(OWN)?, &mut copy)?;
    fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(copy.into())
}

fn execute(file: &OwnedFd) -> io::Result<Infallible> {
    let strings = |all: Vec<Vec<u8>>| -> io::Result<Vec<CString>> {
        all.into_iter().map(|s| CString::new(s).map_err(io::Error::from)).collect()
    };
    // Not from std::env: a program with a `main` of C's has no arguments there on every C library.
    let line = std::fs::read("/proc/self/cmdline")?;
    let line = line.strip_suffix(b"\0").unwrap_or(&line);
    let arguments = strings(line.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect())?;
    let environment = std::env::vars_os().map(|(key, value)| {
        let mut entry = key.into_vec();
        entry.push(b'=');
        entry.append(&mut value.into_vec());
        entry
    });
    Err(sys::execute_file(file.as_fd(), &arguments, &strings(environment.collect())?))
}

/// Whether this process is the program of a container that got hold of the runtime's file: it is pid 1, and executes a
/// file that is not on a mount of its own mount namespace.
#[must_use]
pub fn runs_inside_a_container() -> bool {
    if std::process::id() != 1 {
        return false;
    }
    // Without /proc there is no link by which the file could have been reached.
    let Ok(own) = statx(CWD, OWN, AtFlags::empty(), StatxFlags::MNT_ID) else { return false };
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return false };
    let id = own.stx_mnt_id.to_string();
    let known = mounts.lines().any(|line| line.split(' ').next() == Some(&id));
    !known && !is_sealed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_in_memory_cannot_be_written() {
        let copy = sealed_copy().unwrap();
        let error = rustix::io::write(&copy, b"x").unwrap_err();
        assert_eq!(error, rustix::io::Errno::PERM);
        assert_eq!(
            std::fs::metadata(OWN).unwrap().len(),
            std::fs::File::from(copy).metadata().unwrap().len()
        );
    }

    #[test]
    fn an_ordinary_process_is_not_inside() {
        assert!(!runs_inside_a_container());
    }
}
