//! The two ioctls of a seccomp agent.

use std::os::fd::{AsRawFd, BorrowedFd};

const RECV: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;

/// A call that waits for the agent.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Notification {
    /// To answer it.
    pub id: u64,
    /// Who calls.
    pub pid: u32,
    flags: u32,
    /// Its number.
    pub number: i32,
    arch: u32,
    instruction_pointer: u64,
    /// Its arguments.
    pub args: [u64; 6],
}

#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// Waits for the next call.
pub fn receive(listener: BorrowedFd<'_>) -> std::io::Result<Notification> {
    let mut notification = Notification::default();
    // SAFETY: the kernel fills a structure of the size that is in the request's number.
    match unsafe { libc::ioctl(listener.as_raw_fd(), RECV as _, &raw mut notification) } {
        0 => Ok(notification),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Lets a call fail with `errno`, or return `value` for 0.
pub fn answer(listener: BorrowedFd<'_>, id: u64, value: i64, errno: i32) -> std::io::Result<()> {
    let answer = Answer { id, value, error: -errno, flags: 0 };
    // SAFETY: the kernel reads a structure of the size that is in the request's number.
    match unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw const answer) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
