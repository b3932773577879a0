//! Staying with a process until it ends: `run`, `exec` and `restore` without `--detach`.
//!
//! Every signal this process gets goes to the container's process, except SIGCHLD (reap), SIGWINCH (resize its terminal)
//! and SIGURG. Signals are blocked only after the process was started, so a start that hangs can be interrupted. One
//! `ppoll` waits for signals, the end of the process and, with a terminal, for bytes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use dhow_runtime::Running;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitOptions};

use super::error::CliError;
use super::log::Log;
use super::relay::{Interest, Relay};
use super::sys;

/// Makes orphans of the container's process children of this one, so that they can be reaped.
pub fn become_subreaper(log: &Log) {
    // Any pid means yes.
    if let Err(errno) = rustix::process::set_child_subreaper(Some(rustix::process::Pid::INIT)) {
        log.warn(&format!("become a subreaper: {}", io::Error::from(errno)));
    }
}

/// Waits for the end of `running`, relaying signals and its terminal. The result is what this command should exit with:
/// the status of the process, or 128 and the number of the signal that ended it.
pub fn wait(running: Running, log: &Log) -> Result<u8, CliError> {
    let failed = |what| move |source| CliError::Foreground { what, source };
    let Running { pid, pidfd, console, notify, .. } = running;
    let signals = sys::take_signals().map_err(failed("take signals"))?;
    let mut relay = console.map(Relay::new).transpose().map_err(failed("set up the terminal"))?;
    let code = loop {
        let ready = poll(signals.as_fd(), pidfd.as_fd(), notify.as_ref().map(AsFd::as_fd), relay.as_ref())
            .map_err(failed("wait for the process"))?;
        // Before its end counts: the last words of a container may be that it is ready.
        if let (Some(notify), true) = (&notify, ready.said) {
            // This process stays with the container, so it is the one to watch.
            if let Err(error) = notify.forward(std::process::id() as i32) {
                log.warn(&format!("tell NOTIFY_SOCKET that the container is ready: {error}"));
            }
        }
        if ready.ended {
            break end_of(pidfd.as_fd()).map_err(failed("get the exit status of the process"))?;
        }
        if let (Some(relay), Some(interest)) = (&mut relay, &ready.relay) {
            relay.turn(interest);
        }
        if ready.signal {
            while let Some(signal) = sys::next_signal(&signals).map_err(failed("read a signal"))? {
                on_signal(signal, pidfd.as_fd(), relay.as_ref(), log);
            }
            // A reaped child may be the one waited for, if it ended after the wait.
            if let Some(code) = reap(pid) {
                break code;
            }
        }
    };
    if let Some(relay) = relay {
        relay.finish();
    }
    Ok(code)
}

fn on_signal(signal: i32, pidfd: BorrowedFd<'_>, relay: Option<&Relay>, log: &Log) {
    match signal {
        libc::SIGCHLD | libc::SIGURG => {}
        libc::SIGWINCH => relay.into_iter().for_each(Relay::resize),
        signal => {
            if log.is_debug() {
                log.debug(&format!("forwarding signal {signal}"));
            }
            match sys::send_signal(pidfd, signal) {
                Ok(()) => {}
                // It has ended meanwhile, as the next wait will tell.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => log.warn(&format!("forward signal {signal}: {error}")),
            }
        }
    }
}

struct Ready {
    signal: bool,
    ended: bool,
    said: bool,
    relay: Option<Interest>,
}

fn poll(
    signals: BorrowedFd<'_>,
    pidfd: BorrowedFd<'_>,
    notify: Option<BorrowedFd<'_>>,
    relay: Option<&Relay>,
) -> io::Result<Ready> {
    let readable = PollFlags::IN;
    let entry = |fd, flags| PollFd::from_borrowed_fd(fd, flags);
    let mut fds = [
        entry(signals, readable),
        entry(pidfd, readable),
        // Without a terminal and a supervisor these four are left out of the slice.
        entry(pidfd, PollFlags::empty()),
        entry(pidfd, PollFlags::empty()),
        entry(pidfd, PollFlags::empty()),
        entry(pidfd, PollFlags::empty()),
    ];
    // A stream without interest is left out too: its hang-up would end every wait at once.
    let mut used = 2;
    let mut at = [None; 3];
    let said = notify.map(|fd| {
        fds[used] = entry(fd, readable);
        used += 1;
        used - 1
    });
    if let Some(relay) = relay {
        let interest = relay.interest();
        let wanted = [
            (rustix::stdio::stdin(), interest.stdin),
            (relay.master(), interest.master),
            (rustix::stdio::stdout(), interest.stdout),
        ];
        for (index, (fd, flags)) in wanted.into_iter().enumerate() {
            if !flags.is_empty() {
                fds[used] = entry(fd, flags);
                at[index] = Some(used);
                used += 1;
            }
        }
    }
    loop {
        match rustix::event::poll(&mut fds[..used], None) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let revents = |index: Option<usize>| index.map_or(PollFlags::empty(), |index| fds[index].revents());
    Ok(Ready {
        signal: !fds[0].revents().is_empty(),
        ended: !fds[1].revents().is_empty(),
        said: !revents(said).is_empty(),
        relay: relay.map(|_| Interest {
            stdin: revents(at[0]),
            master: revents(at[1]),
            stdout: revents(at[2]),
        }),
    })
}

/// Reaps the process of `pidfd`, which has ended.
fn end_of(pidfd: BorrowedFd<'_>) -> io::Result<u8> {
    match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
        Ok(status) => {
            let status = status.as_ref();
            Ok(code(status.and_then(|s| s.exit_status()), status.and_then(|s| s.terminating_signal())))
        }
        // Somebody else's child, as after a restore by another parent: the kernel may still know its status.
        Err(Errno::CHILD) => {
            let status = sys::status_of_other(pidfd).ok_or(Errno::CHILD)?;
            let exited = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
            Ok(code(exited, libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Reaps every child that has ended; the code of `pid` if it was among them.
fn reap(pid: i32) -> Option<u8> {
    let mut found = None;
    while let Ok(Some((child, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if child.as_raw_pid() == pid {
            found = Some(code(status.exit_status(), status.terminating_signal()));
        }
    }
    found
}

/// The exit code that stands for a status.
fn code(status: Option<i32>, signal: Option<i32>) -> u8 {
    match (status, signal) {
        (Some(status), _) => (status & 0xff) as u8,
        (None, Some(signal)) => 128u8.saturating_add(signal as u8),
        // Neither exited nor killed cannot be asked for; it is no success.
        (None, None) => 255,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        assert_eq!(code(Some(0), None), 0);
        assert_eq!(code(Some(3), None), 3);
        assert_eq!(code(Some(255), None), 255);
        assert_eq!(code(None, Some(9)), 137);
        assert_eq!(code(None, Some(64)), 192);
        assert_eq!(code(None, None), 255);
    }

    fn running(pid: rustix::process::Pid, pidfd: std::os::fd::OwnedFd) -> Running {
        Running { pid: pid.as_raw_pid(), pidfd, console: None, notify: None, warnings: Vec::new() }
    }

    /// One test for everything that waits: `reap` takes any child of this process.
    #[test]
    #[allow(clippy::zombie_processes, reason = "`wait` reaps it by its pidfd")]
    fn the_status_of_a_process_is_ours() {
        let log = Log::new(None, super::super::log::Format::Text, super::super::log::Level::Error);
        let run = |script: &str| {
            let child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
            let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
            wait(running(pid, pidfd), &log).unwrap()
        };
        assert_eq!(run("exit 0"), 0);
        assert_eq!(run("exit 42"), 42);
        assert_eq!(run("kill -9 $$"), 137);
        // A process that somebody else has reaped: the kernel still knows.
        let mut child = std::process::Command::new("sh").args(["-c", "exit 9"]).spawn().unwrap();
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        if sys::status_of_other(&pidfd).is_some() {
            assert_eq!(wait(running(pid, pidfd), &log).unwrap(), 9);
        }
    }
}
