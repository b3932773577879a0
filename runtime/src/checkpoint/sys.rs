//! Starting `criu swrk` with descriptors and, for a restore, in a mount namespace of its own.

use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags};
use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where CRIU finds the container's root: it has to be a mount whose parent nothing covers. Both are made in a
/// mount namespace that goes with the process, so that nothing of it is ever seen on the host.
pub(crate) struct RootMount {
    /// A directory to cover with a filesystem in memory.
    pub cover: CString,
    /// The directory to make in it.
    pub root: CString,
    /// The detached clone of the root filesystem that is attached there.
    pub tree: RawFd,
}

impl RootMount {
    /// Runs in the forked child: system calls only.
    fn make(&self) -> io::Result<()> {
        // SAFETY: the namespace is that of the child alone, which has one thread and shares no filesystem state
        // with the parent after fork.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", slave)?;
        rustix::mount::mount(
            c"tmpfs",
            self.cover.as_c_str(),
            c"tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
            c"mode=700",
        )?;
        rustix::fs::mkdir(self.root.as_c_str(), rustix::fs::Mode::from_raw_mode(0o755))?;
        // SAFETY: the number is of a descriptor that the parent holds open until spawn has returned, and a fork
        // has the same ones.
        let tree = unsafe { BorrowedFd::borrow_raw(self.tree) };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(tree, c"", rustix::fs::CWD, self.root.as_c_str(), flags)?;
        Ok(())
    }
}

/// Makes the command keep these descriptors, under the numbers they have here, and the mount if one is given.
pub(crate) fn prepare(command: &mut Command, keep: Vec<RawFd>, root: Option<RootMount>) {
    let setup = move || {
        for &raw in &keep {
            // SAFETY: the caller of spawn holds these descriptors open, and a fork has the same ones.
            let fd = unsafe { BorrowedFd::borrow_raw(raw) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        root.as_ref().map_or(Ok(()), RootMount::make)
    };
    // SAFETY: the closure makes system calls only, on values that were made before the fork: it allocates
    // nothing and takes no lock.
    unsafe { command.pre_exec(setup) };
}
