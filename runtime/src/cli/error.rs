//! What can go wrong in the command line itself, and how an error and its causes become one message.
//!
//! Callers decide by parts of that message. These must stay as they are, whoever writes them (the library's own errors
//! included; all are compared as substrings, unless noted):
//!
//! | text | written when | read by |
//! |---|---|---|
//! | `container does not exist` | no such container | containerd's shim (`does not exist`: kill and delete count as done), podman `state` (`does not exist`) |
//! | `container with given ID already exists` | `create`, `run` of an id in use | people, tests of engines |
//! | `container not running` | `kill` of a stopped container; `update`, `pause` and the like too | containerd's shim, CRI-O (counts as done) |
//! | `process already finished` | a process ended meanwhile (containerd wants `os: process already finished`) | containerd's shim |
//! | `no such process` | errno ESRCH, any case | containerd's shim; CRI-O in lower case |
//! | `exec: "foo": executable file not found in $PATH` | no such program on PATH | dockerd: exit code 127 if the message also has the command's name; podman (`executable file not found in`): 127 |
//! | `exec: "/foo": stat /foo: no such file or directory` | no such program by path | dockerd and podman (`no such file or directory`): 127 |
//! | `permission denied` | errno EACCES; podman also `operation not permitted` | dockerd: 126; podman: 126 |
//! | `not a directory` | errno ENOTDIR, such as a directory mounted on a file | dockerd: 127 and a hint |
//! | `cannot start a container that has stopped` | `start` | people |
//! | `cannot start an already running container` | `start` | people |
//! | `cannot exec in a stopped container` | `exec` | people, dockerd's tests |
//! | `cannot exec in a paused container (use --ignore-paused to override)` | `exec` | people |
//! | `cannot delete container ID that is not stopped: STATUS` | `delete` without force | people |
//! | `cannot allocate tty if runc will detach without setting console socket` (with our name) | a terminal, detached, no socket | people |
//! | `cannot use console socket if runc will not detach or allocate tty` (with our name) | a socket that is of no use | people |
//! | `flag needs an argument` | a flag without its value | podman: whether `restore` knows `--lsm-mount-context` |
//! | `unknown signal "X"` | `kill` | people |
//! | `File config.json exists. Remove it first` | `spec` | people |
//!
//! dockerd compares in lower case, podman ignores case, containerd and CRI-O do not: errno texts are best written in lower
//! case, as Go does. A message that contains `permission denied` or `no such file or directory` for another reason than the
//! container's program makes engines report 126 or 127, as it does with runc.
//!
//! podman reads `--log` as one JSON object, containerd takes the last line of level `error`. `exec` exits with 255 after an
//! error of its own, an unknown command with 3, all else with 1.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use dhow_runtime::Error;
use rustix::io::Errno;

use super::args::ArgError;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CliError {
    #[error(transparent)]
    Args(#[from] ArgError),
    #[error(transparent)]
    Runtime(#[from] Error),
    #[error("container id cannot be empty")]
    EmptyId,
    #[error("container id {id:?} is not UTF-8")]
    IdNotText { id: String },
    #[error("Option --root argument should not be set to /")]
    RootIsSlash,
    #[error("cannot tell the current directory")]
    CurrentDirectory { source: io::Error },
    #[error("create {path}, where $XDG_RUNTIME_DIR says that state belongs")]
    StateDirectory { path: PathBuf, source: io::Error },
    #[error("unknown signal {signal:?}")]
    UnknownSignal { signal: String },
    #[error("open {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("create directory {path}")]
    MakeDirectory { path: PathBuf, source: io::Error },
    #[error("parse {path}")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("File {name} exists. Remove it first")]
    SpecExists { name: &'static str },
    #[error("write to standard output")]
    Output { source: io::Error },
    #[error("exec args cannot be empty")]
    NoCommand,
    #[error("argument {argument:?} is not UTF-8, which a process of a container cannot have")]
    ArgumentNotText { argument: String },
    #[error("config.json of container {id} has no process to take defaults from")]
    NoProcess { id: String },
    #[error("{what} of the process must {must}")]
    Process { what: &'static str, must: &'static str },
    #[error("invalid --cgroup argument: {argument} ({reason})")]
    Cgroup { argument: String, reason: &'static str },
    #[error("invalid --cgroup argument(s): controller {controller} specified multiple times")]
    CgroupTwice { controller: String },
    #[error("container with id {id} is not running")]
    NotRunning { id: String },
    #[error("run ps")]
    Ps { source: io::Error },
    #[error("ps failed: {output}")]
    PsFailed { output: String },
    #[error("couldn't find PID field in ps output")]
    PsTitle,
    #[error("--parent-path must be relative")]
    AbsoluteParentPath,
    #[error("invalid --parent-path: {path} is not a directory")]
    ParentPath { path: PathBuf },
    #[error("namespace {name:?} is not supported")]
    EmptyNamespace { name: String },
    #[error("unknown command {action:?} of mounts: add or remove expected")]
    MountsAction { action: String },
    #[error("execute the runtime again from a read-only mount of its binary")]
    Seal { source: io::Error },
    #[error("{what}")]
    Foreground { what: &'static str, source: io::Error },
}

/// The message of `error` with those of its causes, each once.
pub fn message(error: &CliError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Causes that are errno come from std with a number that says nothing to a person, and in upper case.
        let part = match (error.downcast_ref::<io::Error>(), error.downcast_ref::<Errno>()) {
            (Some(error), _) => errno_text(error),
            (_, Some(errno)) => errno_text(&(*errno).into()),
            _ => error.to_string(),
        };
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

/// `No such file or directory (os error 2)` as `no such file or directory`: the form that callers compare with.
fn errno_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = match error.raw_os_error() {
        Some(_) => text.split(" (os error").next().unwrap_or(&text),
        None => return text,
    };
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        // Not of an abbreviation such as `RPC`.
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_in_the_case_that_callers_compare() {
        let error = CliError::Open { path: "/x".into(), source: io::Error::from_raw_os_error(libc::ENOENT) };
        assert_eq!(message(&error), "open /x: no such file or directory");
        let error = CliError::Ps { source: io::Error::from_raw_os_error(libc::ESRCH) };
        assert_eq!(message(&error), "run ps: no such process");
        let error = CliError::Ps { source: io::Error::other("Own words") };
        assert_eq!(message(&error), "run ps: Own words");
    }

    #[test]
    fn an_error_of_the_library_stands_for_itself() {
        let error = CliError::from(Error::NotFound { id: "x".into() });
        assert_eq!(message(&error), "container does not exist");
    }
}
