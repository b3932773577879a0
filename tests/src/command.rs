//! Running a program to its end: input, both outputs, exit code, deadline.
//!
//! A program that hangs is a finding, not a reason to hang the suite: after the deadline it gets SIGKILL and the
//! output says so.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Seconds a program may run unless the caller says otherwise: far above the slowest on an emulated machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// What came of a program.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; 128 + the signal's number if a signal ended it, as a shell says it.
    pub code: i32,
    /// Standard output, bytes that are not UTF-8 replaced.
    pub stdout: String,
    /// Standard error, bytes that are not UTF-8 replaced.
    pub stderr: String,
    /// True if it was killed at the deadline.
    pub timed_out: bool,
}

impl Output {
    /// True if the exit code is 0.
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// Returns itself if the exit code is 0.
    ///
    /// # Panics
    /// If it is not, with the command line and both outputs.
    #[track_caller]
    pub fn ok(self) -> Output {
        assert!(self.success(), "{self}");
        self
    }

    /// Returns itself if the exit code is `code`.
    ///
    /// # Panics
    /// If it is not, with the command line and both outputs.
    #[track_caller]
    pub fn code(self, code: i32) -> Output {
        assert!(self.code == code, "expected exit code {code}: {self}");
        self
    }

    /// Standard output without white space around it.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {self}"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ended with {}", self.command, self.code)?;
        if self.timed_out {
            write!(f, " (killed at its deadline)")?;
        }
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                write!(f, "\n  {name}: {}", text.trim_end().replace('\n', "\n          "))?;
            }
        }
        Ok(())
    }
}

/// Runs `command` with empty input and the usual deadline.
///
/// # Panics
/// If the program cannot be started.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    run_with(command, b"", DEADLINE)
}

/// Runs `command` with `input` on its standard input, for at most `deadline`.
///
/// The outputs are read until the program has ended, not until their end of file: a process that it left in the
/// background (a detached container that inherited the pipe) does not hold up the caller.
///
/// # Panics
/// If the program cannot be started.
#[track_caller]
pub fn run_with(command: &mut Command, input: &[u8], deadline: Duration) -> Output {
    let line = describe(command);
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start `{line}`: {e}"));

    if let Some(mut pipe) = child.stdin.take() {
        let input = input.to_vec();
        std::thread::spawn(move || {
            let _ = pipe.write_all(&input);
        });
    }
    let out = drain(child.stdout.take().expect("stdout is piped"));
    let err = drain(child.stderr.take().expect("stderr is piped"));

    let pid = child.id();
    let (ended, wait_end) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let status = child.wait();
        let _ = ended.send(());
        status
    });
    let timed_out = wait_end.recv_timeout(deadline).is_err();
    if timed_out {
        kill_process(pid, libc::SIGKILL);
    }
    let status = waiter.join().expect("waiter does not panic").expect("own child can be waited for");
    Output {
        command: line,
        code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        stdout: out.finish(),
        stderr: err.finish(),
        timed_out,
    }
}

/// Sends `signal` to a process that this test started (by `/bin/kill`: this package has no `unsafe`).
pub fn kill_process(pid: u32, signal: i32) {
    let _ = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).stderr(Stdio::null()).status();
}

/// Calls `probe` until it returns something or `deadline` is over.
pub fn wait_for<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = std::time::Instant::now() + deadline;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if std::time::Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The command line as one would type it.
fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// A thread that reads a pipe, and hands over what it has read so far when asked.
struct Drain {
    chunks: mpsc::Receiver<Vec<u8>>,
}

fn drain(mut pipe: impl Read + Send + 'static) -> Drain {
    let (send, chunks) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 16384];
        while let Ok(n @ 1..) = pipe.read(&mut buffer) {
            if send.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    Drain { chunks }
}

impl Drain {
    /// All that was written before the program ended. Nothing marks that point in a pipe that somebody else still
    /// holds open, so there the answer comes after a quarter of a second of silence.
    fn finish(self) -> String {
        let mut all = Vec::new();
        while let Ok(chunk) = self.chunks.recv_timeout(Duration::from_millis(250)) {
            all.extend(chunk);
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_input_and_code_come_through() {
        let out = run_with(Command::new("sh").args(["-c", "cat; echo no >&2; exit 3"]), b"yes", DEADLINE);
        assert_eq!((out.code, out.stdout.as_str(), out.stderr.as_str()), (3, "yes", "no\n"));
        let out = run(Command::new("sh").args(["-c", "kill -9 $$"]));
        assert_eq!(out.code, 137);
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let out = run_with(Command::new("sleep").arg("60"), b"", Duration::from_millis(100));
        assert!(out.timed_out);
        assert_eq!(out.code, 137);
    }

    #[test]
    fn a_background_process_does_not_hold_up_the_caller() {
        let out =
            run_with(Command::new("sh").args(["-c", "sleep 20 & echo done"]), b"", Duration::from_secs(5));
        assert_eq!((out.text(), out.timed_out), ("done", false));
    }
}
