//! Hooks that run in the runtime's namespaces: prestart, createRuntime, poststart, poststop.
//!
//! The environment is the hook's own and nothing else; the directory is the bundle; standard input is the
//! container's state; what it prints is kept for the error message; a hook that is over its time is killed.

use crate::error::Error;
use oci_spec::runtime::Hook;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// A memory file for the state or the output of hooks.
pub(crate) fn memory_file(name: &'static str) -> Result<OwnedFd, Error> {
    memfd_create(name, MemfdFlags::CLOEXEC)
        .map_err(|e| Error::System { action: "making a memory file", source: e.into() })
}

/// A wait status in words.
pub(crate) fn status_text(raw: i32) -> String {
    let status = ExitStatus::from_raw(raw);
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => format!("ended with wait status {raw:#x}"),
    }
}

/// Runs a list of hooks in order; the first that fails ends it. `state` is the JSON of the specification's state.
pub(crate) fn run(list: &[Hook], pointer: &str, state: &[u8], bundle: &Path) -> Result<(), Error> {
    each(list, pointer, state, bundle).collect()
}

/// Runs a list of hooks in order, whatever comes of each; returns the errors.
pub(crate) fn run_all(list: &[Hook], pointer: &str, state: &[u8], bundle: &Path) -> Vec<Error> {
    each(list, pointer, state, bundle).filter_map(Result::err).collect()
}

fn each(
    list: &[Hook],
    pointer: &str,
    state: &[u8],
    bundle: &Path,
) -> impl Iterator<Item = Result<(), Error>> {
    list.iter().enumerate().map(move |(index, hook)| {
        one(hook, state, bundle).map_err(|(how, output)| Error::Hook {
            pointer: format!("{pointer}/{index}"),
            path: hook.path().clone(),
            how,
            output,
        })
    })
}

fn one(hook: &Hook, state: &[u8], bundle: &Path) -> Result<(), (String, String)> {
    let plain = |what: &str| {
        let what = what.to_owned();
        move |e: std::io::Error| (format!("could not be run: {what}: {e}"), String::new())
    };
    let input = memory_file("hook-state").map_err(|e| (e.to_string(), String::new()))?;
    let output = memory_file("hook-output").map_err(|e| (e.to_string(), String::new()))?;
    let mut file = File::from(input);
    file.write_all(state).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(plain("its input"))?;
    let copy = || output.try_clone().map_err(plain("its output"));
    let mut command = Command::new(hook.path());
    if let Some(args) = hook.args().as_ref().filter(|args| !args.is_empty()) {
        command.arg0(&args[0]).args(&args[1..]);
    }
    // The bundle, as with runc; a poststop hook may come when it has gone already.
    if bundle.is_dir() {
        command.current_dir(bundle);
    }
    command.env_clear();
    for entry in hook.env().iter().flatten() {
        if let Some((name, value)) = entry.split_once('=') {
            command.env(name, value);
        }
    }
    command.stdin(file).stdout(Stdio::from(copy()?)).stderr(Stdio::from(copy()?));
    let mut child = command.spawn().map_err(|e| (format!("could not be started: {e}"), String::new()))?;
    let limit = hook.timeout().and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
    if let Some(seconds) = limit {
        let ended = wait_until(&child, Duration::from_secs(seconds)).map_err(plain("waiting"))?;
        if !ended {
            child.kill().and_then(|()| child.wait()).map_err(plain("killing it"))?;
            return Err((format!("took longer than {seconds} s"), crate::launch::tail(output.as_fd())));
        }
    }
    let status = child.wait().map_err(plain("waiting"))?;
    if status.success() {
        return Ok(());
    }
    Err((status_text(status.into_raw()), crate::launch::tail(output.as_fd())))
}

fn wait_until(child: &std::process::Child, limit: Duration) -> std::io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pid = rustix::process::Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    let deadline = std::time::Instant::now() + limit;
    loop {
        let rest = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec { tv_sec: rest.as_secs() as i64, tv_nsec: i64::from(rest.subsec_nanos()) };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(n) => return Ok(n > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
