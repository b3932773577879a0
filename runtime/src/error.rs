//! What can go wrong, each error naming what was being done to which object.

use std::fmt;

/// One mistake in a `config.json`: where it stands and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// RFC 6901 JSON pointer of the field, such as `/linux/seccomp/syscalls/3/names/0`.
    pub pointer: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Mistake {
    /// A mistake at `pointer`.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Mistake { pointer: pointer.into(), message: message.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pointer, self.message)
    }
}

use std::path::PathBuf;

/// Why a container's process could not be set up: the step of the plan, in the words of the caller.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The program is not in any directory of PATH.
    #[error("exec: {name:?}: executable file not found in $PATH")]
    NotInPath {
        /// `args[0]`.
        name: String,
    },
    /// The program cannot be executed.
    #[error("exec: {name:?}: {}", reason(*errno))]
    Program {
        /// `args[0]`.
        name: String,
        /// Why.
        errno: i32,
    },
    /// The program is the runtime's own binary, which a container must not get hold of.
    #[error("exec: {name:?}: permission denied: it is the runtime's own binary (CVE-2019-5736)")]
    OwnBinary {
        /// `args[0]`.
        name: String,
    },
    /// The working directory is not inside the container.
    #[error(
        "{origin}: the working directory is outside of the container's root (CVE-2024-21626): give one inside"
    )]
    CwdOutside {
        /// The field.
        origin: String,
    },
    /// A hook failed.
    #[error("{origin}: hook {path} {how}{}", output_suffix(output))]
    Hook {
        /// The field.
        origin: String,
        /// The hook's program.
        path: String,
        /// `exited with status 1`, `took longer than 500 ms`.
        how: String,
        /// The end of what it printed.
        output: String,
    },
    /// A system call, or a check of the executor, failed.
    #[error("{what} ({origin}): {operation}: {}", reason(*errno))]
    Step {
        /// The step in words.
        what: String,
        /// Where it comes from.
        origin: String,
        /// The system call or the check.
        operation: String,
        /// errno; 0 for a check.
        errno: i32,
    },
    /// The child ended without a word: killed from outside, or by its seccomp filter or memory limit.
    #[error(
        "the container's process ended before it was set up ({status}): killed, out of memory, or stopped by its own seccomp filter"
    )]
    Died {
        /// Its wait status in words.
        status: String,
    },
}

fn output_suffix(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(": {}", output.trim_end()) }
}

/// An errno in the words that callers of runc look for.
fn reason(errno: i32) -> String {
    match errno {
        0 => "refused".into(),
        libc::ENOENT => "no such file or directory".into(),
        libc::EACCES => "permission denied".into(),
        libc::EISDIR => "is a directory".into(),
        libc::ENOEXEC => "exec format error".into(),
        other => {
            let text = std::io::Error::from_raw_os_error(other).to_string();
            match text.find(" (os error") {
                Some(at) => text[..at].to_string(),
                None => text,
            }
        }
    }
}

/// What a verb of the runtime can fail with. The texts of the first ones are those that callers of runc
/// (containerd's shim, dockerd, podman, CRI-O) look for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such container.
    #[error("container does not exist")]
    NotFound {
        /// The id that was asked for.
        id: String,
    },
    /// The id is taken.
    #[error("container with given ID already exists")]
    Exists {
        /// The id.
        id: String,
    },
    /// The id is not one.
    #[error(
        "invalid container ID format {id:?}: use 1 to 1024 letters, digits and the characters _ + - . (not only dots)"
    )]
    InvalidId {
        /// What was given.
        id: String,
    },
    /// The container is not running.
    #[error("container not running")]
    NotRunning {
        /// The id.
        id: String,
    },
    /// The verb does not fit the container's status.
    #[error("{message}")]
    WrongStatus {
        /// In runc's words.
        message: String,
    },
    /// Mistakes in config.json.
    #[error("{path}: {}", mistakes_text(mistakes))]
    Config {
        /// The file.
        path: PathBuf,
        /// All of them.
        mistakes: Vec<Mistake>,
    },
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(crate::config::Error),
    /// The id maps of the container's user namespace cannot be written.
    #[error("id mappings")]
    IdMap(#[source] crate::idmap::Error),
    /// A file operation on the container's state, or something a plan names.
    #[error("{action} {path}")]
    File {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The container's recorded state cannot be understood.
    #[error("the state of container {id} in {path} cannot be read")]
    State {
        /// The container.
        id: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Another process is working on the container.
    #[error("container {id} is being changed by another process")]
    Busy {
        /// The container.
        id: String,
    },
    /// A system call that is about no file.
    #[error("{action}")]
    System {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A descriptor the plan needs cannot be had.
    #[error("{origin}: {action} {path}")]
    Prepare {
        /// The field of config.json.
        origin: String,
        /// What was being done.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The path of a namespace leads to something else.
    #[error("{path} is not a {expected} namespace")]
    WrongNamespace {
        /// The path.
        path: PathBuf,
        /// What it should be.
        expected: String,
    },
    /// The container's process could not be set up.
    #[error("unable to start container process: {0}")]
    Start(StepError),
    /// The same for exec.
    #[error("exec failed: unable to start container process: {0}")]
    Exec(StepError),
    /// The mounts of a running container could not be changed.
    #[error("changing the container's mounts: {0}")]
    Mounting(StepError),
    /// The resctrl group of the container.
    #[error(transparent)]
    Rdt(crate::rdt::Error),
    /// A network device could not be moved.
    #[error("moving network device {name} into the container (config.json /linux/netDevices)")]
    NetDevice {
        /// The device on the host.
        name: String,
        /// Why.
        source: crate::netdev::Error,
    },
    /// A hook of the runtime namespace failed.
    #[error("{pointer}: hook {path} {how}{}", output_suffix(output))]
    Hook {
        /// Where it stands in config.json.
        pointer: String,
        /// The program.
        path: PathBuf,
        /// What happened.
        how: String,
        /// The end of what it printed.
        output: String,
    },
    /// Processes of the container survived SIGKILL for ten seconds.
    #[error(
        "container {id} still has processes ten seconds after SIGKILL: they wait in the kernel, try again later"
    )]
    StillAlive {
        /// The container.
        id: String,
    },
    /// A cgroup operation failed.
    #[error("cgroup of container {id}")]
    Cgroup {
        /// The container.
        id: String,
        /// Why.
        source: crate::cgroup::Error,
    },
    /// The cgroup mounts of this host cannot be understood.
    #[error("cgroups of this host")]
    CgroupLayout(#[source] crate::cgroup::Error),
    /// Processes of the container could write to the caller's binary, which is not [`crate::seal`]ed.
    #[error(
        "processes of the container could reach this program's own binary, which is not on a read-only mount"
    )]
    NotSealed,
    /// The kernel lacks what dhow needs.
    #[error(
        "this kernel, or a seccomp filter around dhow, lacks {call}: dhow-runtime needs Linux 5.12 or newer"
    )]
    MissingCall {
        /// The system call.
        call: &'static str,
    },
}

fn mistakes_text(mistakes: &[Mistake]) -> String {
    match mistakes {
        [one] => one.to_string(),
        many => {
            let mut out = format!("{} mistakes", many.len());
            for mistake in many {
                out.push_str("\n  ");
                out.push_str(&mistake.to_string());
            }
            out
        }
    }
}
