//! Starting `criu swrk` with descriptors, and a mount namespace for one thread.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes the command keep these descriptors, under the numbers they have here.
pub(crate) fn keep(command: &mut Command, fds: Vec<RawFd>) {
    let setup = move || {
        for &raw in &fds {
            // SAFETY: the caller of spawn holds these descriptors open, and a fork has the same ones.
            let fd = unsafe { BorrowedFd::borrow_raw(raw) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only, on numbers that were there before the fork: it allocates
    // nothing and takes no lock.
    unsafe { command.pre_exec(setup) };
}

/// Gives the calling thread a mount namespace of its own (and with it a root and a working directory): to be called
/// by a thread that was made for it.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: descriptors stay shared; what is taken apart is the mount namespace and the filesystem state, of which
    // no other thread notices anything.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?)
}
