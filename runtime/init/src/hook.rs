//! A hook in the container's namespaces: fork, execve, wait with a limit.

use crate::step::Op;
use crate::sys::{self, CloneArgs, Fault, Outcome, close};
use core::ffi::CStr;

/// One hook, with everything resolved.
pub(crate) struct Hook<'a> {
    pub path: &'a CStr,
    pub argv: *const *const libc::c_char,
    pub envp: *const *const libc::c_char,
    pub timeout_ms: u32,
    pub state: i32,
    pub output: i32,
    /// Where it starts, if not in the current directory.
    pub directory: Option<i32>,
}

/// Runs the hook and waits; anything but exit status 0 within the limit is a fault.
pub(crate) fn run(hook: &Hook<'_>) -> Outcome {
    const PIDFD: u64 = 0x1000;
    let mut pidfd = -1i32;
    let args = CloneArgs {
        flags: PIDFD,
        pidfd: &mut pidfd as *mut i32 as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    sys::rewind(hook.state)?;
    // SAFETY: this process has one thread, and the child makes system calls only.
    let pid = unsafe { sys::clone3(&args) }?;
    if pid == 0 {
        sys::exit(child(hook));
    }
    // The pidfd becomes readable when the hook has ended.
    let ended = sys::poll_readable(pidfd, hook.timeout_ms)?;
    if !ended {
        sys::kill_pidfd(pidfd, libc::SIGKILL)?;
    }
    let status = sys::wait(pid);
    close(pidfd);
    let status = status?;
    if !ended {
        return Err(Fault { op: Op::HookTimeout, errno: 0, argument: i64::from(hook.timeout_ms) });
    }
    if status != 0 {
        return Err(Fault { op: Op::HookStatus, errno: 0, argument: i64::from(status) });
    }
    Ok(())
}

/// The hook's process; returns its exit status if execve failed, as a shell would.
fn child(hook: &Hook<'_>) -> i32 {
    let streams = [(hook.state, 0), (hook.output, 1), (hook.output, 2)];
    for (fd, stream) in streams {
        if sys::dup_onto(fd, stream).is_err() {
            return 126;
        }
    }
    if hook.directory.is_some_and(|directory| sys::fchdir(directory).is_err()) {
        return 126;
    }
    if sys::close_range(3, u32::MAX, true).is_err() {
        return 126;
    }
    let fault = sys::execve(hook.path, hook.argv, hook.envp);
    if fault.errno == libc::ENOENT { 127 } else { 126 }
}
