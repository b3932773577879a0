//! Counts what a command does: processes, execs, system calls, and its peak resident memory, by ptrace.
//!
//! The memory is each process image's own high-water mark, read when the image ends (at an exec or at exit): the maximum
//! that wait4(2) reports would contain the image of whoever spawned the command.

use crate::bench::bundle::PAYLOADS;
use crate::bench::sys;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::process::Command;

/// What a command did, with its whole descent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Exit code of the command, or 128 and the signal that ended it.
    pub status: i32,
    /// System calls of all processes, from after the command's own exec.
    pub calls: u64,
    /// Those among them that the container's program made after its exec.
    pub payload_calls: u64,
    /// Processes, the command's first among them; threads are not counted.
    pub processes: u64,
    /// Threads besides each process's first.
    pub threads: u64,
    /// Successful execs, without the one that started the command.
    pub execs: u64,
    /// Highest resident memory of any process, in KiB, the container's program left out.
    pub peak_kib: u64,
}

struct Task {
    payload: bool,
    /// Not stopped yet: its first stop is ptrace's own SIGSTOP.
    fresh: bool,
}

/// Runs a command to the end of all its processes.
///
/// # Errors
/// Spawning fails, or ptrace is not allowed.
pub fn run(command: &mut Command) -> io::Result<Tally> {
    let root = sys::spawn_traced(command)?.id() as i32;
    let mut tally = Tally { processes: 1, ..Tally::default() };
    sys::wait(root).ok_or_else(io::Error::last_os_error)?;
    sys::trace_everything(root)?;
    let mut tasks = HashMap::from([(root, Task { payload: false, fresh: false })]);
    sys::resume(root, 0);

    while !tasks.is_empty() {
        let Some((pid, status)) = sys::wait_any() else { break };
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            tasks.remove(&pid);
            if pid == root {
                tally.status = if libc::WIFEXITED(status) {
                    libc::WEXITSTATUS(status)
                } else {
                    128 + libc::WTERMSIG(status)
                };
            }
            continue;
        }
        // A child may stop for the first time before its parent's event says that it is there.
        let task = tasks.entry(pid).or_insert(Task { payload: false, fresh: true });
        if task.fresh {
            task.fresh = false;
            if status_field(pid, "Tgid:") == Some(pid as u64) {
                tally.processes += 1;
            } else {
                tally.threads += 1;
            }
            sys::resume(pid, 0);
            continue;
        }
        let payload = task.payload;
        let mut signal = 0;
        match (status >> 16, libc::WSTOPSIG(status)) {
            (libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE, _) => {
                let child = sys::event_message(pid)?;
                tasks.entry(child).or_insert(Task { payload, fresh: true }).payload = payload;
            }
            (libc::PTRACE_EVENT_EXEC, _) => {
                tally.execs += 1;
                task.payload = is_payload(pid);
            }
            (libc::PTRACE_EVENT_EXIT, _) if !payload => tally.peak_kib = tally.peak_kib.max(peak_kib(pid)),
            (0, stop) if stop == libc::SIGTRAP | 0x80 => {
                if let Some(number) = sys::entering(pid) {
                    tally.calls += 1;
                    if payload {
                        tally.payload_calls += 1;
                    } else if number == libc::SYS_execve || number == libc::SYS_execveat {
                        tally.peak_kib = tally.peak_kib.max(peak_kib(pid));
                    }
                }
            }
            (0, stop) => signal = stop,
            _ => {}
        }
        sys::resume(pid, signal);
    }
    Ok(tally)
}

/// Whether a process has become the container's program.
fn is_payload(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| {
        exe.file_name().and_then(|name| name.to_str()).is_some_and(|name| PAYLOADS.contains(&name))
    })
}

fn peak_kib(pid: i32) -> u64 {
    status_field(pid, "VmHWM:").unwrap_or(0).max(status_field(pid, "VmRSS:").unwrap_or(0))
}

fn status_field(pid: i32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
