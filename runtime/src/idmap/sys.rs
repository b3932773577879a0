//! A process that does nothing but keep a new user namespace alive.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

/// Wait also for a child that sends no signal when it ends.
const WALL: u32 = 0x4000_0000;

/// The child that is the only member of a new user namespace. It is killed and reaped on drop, and ends by
/// itself when this process does, since then its pipe has no writer any more.
pub(super) struct Holder {
    pid: u32,
    pidfd: OwnedFd,
    _gate: OwnedFd,
}

impl Holder {
    /// Its process id, which is not used again before the holder is dropped.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Clones a child with `CLONE_NEWUSER`.
    pub(super) fn new() -> io::Result<Holder> {
        let (wait, gate) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut pidfd: i32 = -1;
        // SAFETY: clone_args is plain data, for which zero bytes are valid and mean "not used".
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        // Handlers of the calling program must not run in the child. Without an exit signal the child's end
        // is invisible to a program that handles SIGCHLD or waits for any child.
        let clear_sighand = 0x1_0000_0000;
        args.flags = (libc::CLONE_NEWUSER | libc::CLONE_PIDFD) as u64 | clear_sighand;
        args.pidfd = &raw mut pidfd as u64;
        // SAFETY: `args` is as long as said, and `pidfd` lives beyond the call. Without CLONE_VM and with no
        // stack given, the child goes on in a copy of this thread; `hold` makes system calls only, which is
        // all that a child of a threaded program may do.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => hold(wait.as_fd()),
            pid => Ok(Holder {
                pid: pid as u32,
                // SAFETY: the kernel has just made this descriptor for us.
                pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
                _gate: gate,
            }),
        }
    }
}

/// The child: waits for the end of the parent, if it is not killed before. It keeps no other descriptor, so
/// that no lock or connection of the parent lives on in it.
fn hold(wait: BorrowedFd<'_>) -> ! {
    // SAFETY: raw system calls on descriptors of this process and a buffer of one byte. The descriptors have
    // their owners in the other process's copy of this memory; here nothing uses them any more.
    unsafe {
        if wait.as_raw_fd() != 0 {
            libc::syscall(libc::SYS_dup3, wait.as_raw_fd(), 0, 0);
        }
        libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0);
        let mut byte = 0u8;
        while libc::syscall(libc::SYS_read, 0, &raw mut byte, 1) == -1 {}
        loop {
            libc::syscall(libc::SYS_exit_group, 0);
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Both can only fail if the child is gone already, which is what is wanted.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(WALL);
        while waitid(WaitId::PidFd(self.pidfd.as_fd()), options).err() == Some(rustix::io::Errno::INTR) {}
    }
}
