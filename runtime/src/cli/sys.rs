//! The system calls of the foreground that rustix has no safe form of.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Signals that the kernel raises for a fault of this very program: blocked, they would kill it anyway.
const FAULTS: [i32; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];

/// Blocks every signal but faults for the calling thread, and returns a descriptor that they are read from.
pub fn take_signals() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the whole set, and the others are given that set.
    let fd = unsafe {
        libc::sigfillset(set.as_mut_ptr());
        for fault in FAULTS {
            libc::sigdelset(set.as_mut_ptr(), fault);
        }
        let error = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: signalfd has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next signal of `signals`, `None` when there is none.
pub fn next_signal(signals: impl AsFd) -> io::Result<Option<i32>> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(signals, &mut info) {
        // The number of the signal is the first field, a u32.
        Ok(_) => Ok(Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))),
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends `signal` to the process of `pidfd`. Any number goes, real-time signals too.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is borrowed for the call; a null siginfo makes the kernel fill in one.
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, info, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The wait status of the ended process of `pidfd`, which need not be a child. `None` if the kernel does not keep it
/// (before Linux 6.15).
pub fn status_of_other(pidfd: impl AsFd) -> Option<i32> {
    /// `struct pidfd_info`, in its first version with an exit code.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup_id: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    /// `_IOWR(0xff, 11, struct pidfd_info)`
    const PIDFD_GET_INFO: libc::c_ulong =
        3 << 30 | (size_of::<Info>() as libc::c_ulong) << 16 | 0xff << 8 | 11;
    let mut info = Info { mask: PIDFD_INFO_EXIT, ..Info::default() };
    // SAFETY: the request carries the size of Info, so the kernel writes no more than that.
    let got = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO as _, &mut info) };
    (got == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Whether the kernel knows a seccomp filter flag, by its name in the specification.
pub fn has_filter_flag(name: &str) -> bool {
    /// Without it the kernel refuses WAIT_KILLABLE_RECV.
    const NEW_LISTENER: libc::c_ulong = 1 << 3;
    let flags: libc::c_ulong = match name {
        "SECCOMP_FILTER_FLAG_TSYNC" => 1,
        "SECCOMP_FILTER_FLAG_LOG" => 1 << 1,
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 1 << 2,
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 1 << 5 | NEW_LISTENER,
        _ => return false,
    };
    let nothing = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: flags are looked at before the filter, and a filter at address 0 cannot be read: nothing is installed.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, nothing) };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}
