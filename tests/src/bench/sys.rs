//! The system calls of the benchmark that std has no safe form of: mounts of a private view, reaping of orphans, ptrace.

use std::ffi::{CString, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::ptr::{null, null_mut};

// ptrace(2), linux/ptrace.h; named here because not every libc of Rust has them.
const PTRACE_GET_SYSCALL_INFO: libc::c_uint = 0x420e;
const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

/// Gives this process a mount namespace of its own, from which nothing reaches the machine's.
///
/// # Errors
/// What unshare(2) and mount(2) report; the process must have one thread.
pub fn private_mounts() -> io::Result<()> {
    // SAFETY: unshare takes no pointer.
    check(c_long::from(unsafe { libc::unshare(libc::CLONE_NEWNS) }))?;
    mount(None, Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE)
}

/// mount(2), without data.
///
/// # Errors
/// What mount(2) reports, or a NUL byte in a path.
pub fn mount(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: libc::c_ulong,
) -> io::Result<()> {
    let source = source.map(c_path).transpose()?;
    let target = c_path(target)?;
    let kind = kind.map(CString::new).transpose()?;
    let or_null = |s: &Option<CString>| s.as_ref().map_or(null(), |s| s.as_ptr());
    // SAFETY: each pointer is null or a NUL-terminated string that lives until the call returns.
    let result = unsafe { libc::mount(or_null(&source), target.as_ptr(), or_null(&kind), flags, null()) };
    check(c_long::from(result)).map(drop)
}

/// Takes the mount at `path` with all below it out of this mount namespace.
///
/// # Errors
/// What umount2(2) reports.
pub fn unmount(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the string lives until the call returns.
    check(c_long::from(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) })).map(drop)
}

/// A detached copy of the mounts at `path` and below.
///
/// # Errors
/// What open_tree(2) reports.
pub fn clone_tree(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the string lives until the call returns.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a detached tree at `path`.
///
/// # Errors
/// What move_mount(2) reports.
pub fn attach_tree(tree: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH;
    // SAFETY: both strings live until the call returns, and the descriptor is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
        )
    };
    check(result).map(drop)
}

/// Makes `root`, which must be a mount point, the root of this mount namespace, and drops the old one.
///
/// # Errors
/// What chdir(2), pivot_root(2) and umount2(2) report.
pub fn pivot_root(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    let here = c".";
    // SAFETY: the string is static.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, here.as_ptr(), here.as_ptr()) })?;
    unmount(Path::new("."))?;
    std::env::set_current_dir("/")
}

/// From now on orphans below this process become its children, so that it can wait for a container's init.
///
/// # Errors
/// What prctl(2) reports.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes no pointer.
    check(c_long::from(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })).map(drop)
}

/// Reaps one dead child, if there is any.
#[must_use]
pub fn reap_one() -> Option<i32> {
    // SAFETY: a null status pointer is allowed.
    let pid = unsafe { libc::waitpid(-1, null_mut(), libc::WNOHANG | libc::__WALL) };
    (pid > 0).then_some(pid)
}

/// Whether a process of this id exists, be it a zombie.
#[must_use]
pub fn exists(pid: i32) -> bool {
    // SAFETY: kill takes no pointer; signal 0 is only a check.
    unsafe { libc::kill(pid, 0) == 0 }
}

/// Sends SIGKILL; that the process is already gone is no error.
pub fn kill(pid: i32) {
    // SAFETY: kill takes no pointer.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// The hard limit of open files of this process.
///
/// # Errors
/// What getrlimit(2) reports.
pub fn hard_nofile() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live rlimit.
    check(c_long::from(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }))?;
    Ok(limit.rlim_max)
}

/// Whether this process may raise its hard limit of locked memory, or need not.
///
/// # Errors
/// What getrlimit(2) reports, or /proc/self/status cannot be read.
pub fn memlock_is_free() -> io::Result<bool> {
    const CAP_SYS_RESOURCE: u32 = 24;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live rlimit.
    check(c_long::from(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) }))?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let effective =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    Ok(limit.rlim_max == libc::RLIM_INFINITY
        || effective.is_some_and(|caps| caps >> CAP_SYS_RESOURCE & 1 == 1))
}

/// From now on, setting the limit of locked memory does nothing and succeeds, in this process and all it starts.
///
/// # Errors
/// What seccomp(2) reports.
pub fn forgive_memlock() -> io::Result<()> {
    const NUMBER: u32 = 0;
    const RESOURCE: u32 = 16 + 8;
    const NEW_LIMIT: u32 = 16 + 2 * 8;
    let load = |offset| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: offset };
    let unless_equal = |k, skip| libc::sock_filter { code: 0x15, jt: 0, jf: skip, k };
    let if_equal = |k, skip| libc::sock_filter { code: 0x15, jt: skip, jf: 0, k };
    let give = |k| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k };
    // A prlimit64 that sets has a pointer with a low half other than 0, but for one in 2^32.
    let mut filter = [
        load(NUMBER),
        unless_equal(libc::SYS_prlimit64 as u32, 5),
        load(RESOURCE),
        unless_equal(libc::RLIMIT_MEMLOCK, 3),
        load(NEW_LIMIT),
        if_equal(0, 1),
        give(libc::SECCOMP_RET_ERRNO),
        give(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the pointer is to a program that describes a live array of instructions.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
        .map(drop)
}

/// Starts a command that stops, traced by this process, just after its exec.
///
/// # Errors
/// What spawning reports.
pub fn spawn_traced(command: &mut Command) -> io::Result<Child> {
    let trace_me = || {
        // SAFETY: PTRACE_TRACEME ignores its other arguments.
        check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, null_mut::<c_void>(), null_mut::<c_void>()) })
            .map(drop)
    };
    // SAFETY: the closure makes one system call and allocates only if that fails, in a child of a one-threaded process.
    unsafe { command.pre_exec(trace_me) }.spawn()
}

/// Waits for any child or tracee: its id and its status as of waitpid(2); `None` when there are no more.
#[must_use]
pub fn wait_any() -> Option<(i32, i32)> {
    wait(-1)
}

/// As [`wait_any`], for one process.
#[must_use]
pub fn wait(pid: i32) -> Option<(i32, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live integer.
        let pid = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
        if pid > 0 {
            return Some((pid, status));
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

fn request(what: libc::c_uint, pid: i32, address: usize, data: *mut c_void) -> io::Result<c_long> {
    // SAFETY: every caller in this module passes what its request wants: a number in place of a pointer, or a pointer to
    // as many bytes as it says.
    check(unsafe { libc::ptrace(what, pid, address as *mut c_void, data) })
}

/// Sets what a stopped tracee and its descendants report: births, execs, ends, and system calls told from signals.
///
/// # Errors
/// What ptrace(2) reports.
pub fn trace_everything(pid: i32) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_TRACEEXIT
        | libc::PTRACE_O_EXITKILL;
    request(libc::PTRACE_SETOPTIONS, pid, 0, options as usize as *mut c_void).map(drop)
}

/// Lets a stopped tracee go on to its next system call stop, with a signal if that is not 0.
pub fn resume(pid: i32, signal: i32) {
    // A tracee that was killed meanwhile is no error: its end is reported next.
    let _ = request(libc::PTRACE_SYSCALL, pid, 0, signal as usize as *mut c_void);
}

/// The number that came with the event that a tracee is stopped at: the new process's id.
///
/// # Errors
/// What ptrace(2) reports.
pub fn event_message(pid: i32) -> io::Result<i32> {
    let mut message: libc::c_ulong = 0;
    request(libc::PTRACE_GETEVENTMSG, pid, 0, (&raw mut message).cast())?;
    Ok(message as i32)
}

/// The number of the system call that a stopped tracee is entering; `None` where it leaves one.
#[must_use]
pub fn entering(pid: i32) -> Option<i64> {
    /// The head of struct ptrace_syscall_info, up to entry.nr.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        op: u8,
        pad: [u8; 3],
        arch: u32,
        instruction_pointer: u64,
        stack_pointer: u64,
        number: u64,
    }
    const ENTRY: u8 = 1;
    let mut info = Info::default();
    request(PTRACE_GET_SYSCALL_INFO, pid, size_of::<Info>(), (&raw mut info).cast()).ok()?;
    (info.op == ENTRY).then_some(info.number as i64)
}

/// The newest seccomp filter of a running process, as bytes of struct sock_filter.
///
/// # Errors
/// What ptrace(2) reports: the caller needs CAP_SYS_ADMIN, and the process a filter.
pub fn seccomp_filter(pid: i32) -> io::Result<Vec<u8>> {
    const INSTRUCTION: usize = 8;
    request(libc::PTRACE_SEIZE, pid, 0, null_mut())?;
    request(libc::PTRACE_INTERRUPT, pid, 0, null_mut())?;
    wait(pid).ok_or_else(io::Error::last_os_error)?;
    let mut newest = Err(io::Error::from(io::ErrorKind::NotFound));
    // The kernel counts from the oldest.
    for index in 0.. {
        let filter = request(PTRACE_SECCOMP_GET_FILTER, pid, index, null_mut()).and_then(|count| {
            let mut filter = vec![0; count as usize * INSTRUCTION];
            request(PTRACE_SECCOMP_GET_FILTER, pid, index, filter.as_mut_ptr().cast()).map(|_| filter)
        });
        if index == 0 || filter.is_ok() {
            newest = filter;
        } else {
            break;
        }
        if newest.is_err() {
            break;
        }
    }
    request(libc::PTRACE_DETACH, pid, 0, null_mut())?;
    newest
}
