//! The system calls of the foreground that rustix has no safe form of.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// The allocator of this program.
#[global_allocator]
static ARENA: super::arena::Arena = super::arena::Arena::new();

/// The program's entry: what of Rust's own start-up is needed, and the command.
#[cfg(not(test))]
// SAFETY: no other symbol of the program is called `main`; the C library calls it once, with its own arguments.
#[unsafe(no_mangle)]
extern "C" fn main(count: libc::c_int, arguments: *const *const libc::c_char) -> libc::c_int {
    use std::os::unix::ffi::OsStringExt;
    keep_standard_streams();
    // SAFETY: sets a disposition; writes to a pipe without reader are errors, not the end of a half-made container.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let arguments = (0..usize::try_from(count).unwrap_or(0)).map(|n| {
        // SAFETY: `arguments` has `count` pointers to C strings, which live as long as the program.
        let text = unsafe { std::ffi::CStr::from_ptr(*arguments.add(n)) };
        std::ffi::OsString::from_vec(text.to_bytes().to_vec())
    });
    let code = super::main(arguments.collect());
    // Not a return: this way what is buffered for standard output is written.
    std::process::exit(code.into())
}

/// Opens the null device for each standard stream that is closed: the next file that is opened would become it.
#[cfg(not(test))]
fn keep_standard_streams() {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: three entries, as it says.
    let found = unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) };
    if found <= 0 {
        return;
    }
    for stream in streams {
        if stream.revents & libc::POLLNVAL != 0 {
            // SAFETY: a path that is a C string; the lowest free number, which is this stream's.
            unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        }
    }
}

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
