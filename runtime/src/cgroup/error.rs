//! What can go wrong with a cgroup: each error names the file, directory or unit, and what was done to it.

use std::io;
use std::path::PathBuf;

use super::BusError;

/// A failure in the work on a container's cgroup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The container has no cgroup in a hierarchy of this name.
    #[error("no cgroup hierarchy {controller:?}")]
    NoHierarchy {
        /// The controller that was asked for.
        controller: String,
    },
    /// A file of the host's could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A cgroup file has content that its format does not allow.
    #[error("{} holds {content:?}, which is not of its format", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The line that could not be understood.
        content: String,
    },
    /// This host mounts no cgroup hierarchy.
    #[error("no cgroup filesystem is mounted")]
    NotMounted,
    /// This host has v1 hierarchies, but none with the devices controller: device access could not be restricted.
    #[error(
        "no cgroup hierarchy with the devices controller is mounted, so device access cannot be restricted"
    )]
    NoDevices,
    /// `linux.cgroupsPath` is not of the form that the driver wants.
    #[error("cgroupsPath {path:?} is not of the form {wanted}")]
    CgroupsPath {
        /// The value of the field.
        path: String,
        /// The form that the driver wants.
        wanted: &'static str,
    },
    /// A slice name that systemd would not accept.
    #[error("{name:?} is not the name of a systemd slice")]
    Slice {
        /// The name.
        name: String,
    },
    /// The cgroup's directory could not be made.
    #[error("cannot make the cgroup {}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cgroup's directory could not be opened.
    #[error("cannot open the cgroup {}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory is not on a cgroup filesystem.
    #[error("{} is not on a cgroup filesystem", path.display())]
    NotCgroup {
        /// The directory.
        path: PathBuf,
    },
    /// The cgroup was there before, and it has processes.
    #[error("the container's cgroup {} is not empty: it has {processes} process(es)", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// How many processes are in it.
        processes: usize,
    },
    /// The cgroup was there before, and it is frozen: the container's first process would hang.
    #[error("the container's cgroup {} is frozen", path.display())]
    Frozen {
        /// The directory.
        path: PathBuf,
    },
    /// The cgroup is in a threaded subtree (v2), where a controller that was asked for does not work.
    #[error("the cgroup {} is {kind}: limits on memory, io, cpu or huge pages cannot be set in it", path.display())]
    Threaded {
        /// The directory.
        path: PathBuf,
        /// The content of `cgroup.type`.
        kind: String,
    },
    /// A cgroup file could not be written.
    #[error("cannot write {value:?} to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A limit of config.json could not be set.
    #[error("{pointer}: cannot write {value:?} to {}", path.display())]
    Limit {
        /// JSON pointer of the field.
        pointer: String,
        /// What was written.
        value: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A limit of config.json needs a controller that this cgroup has not: it is not mounted, or not delegated.
    #[error("{pointer}: the cgroup has no {controller} controller")]
    NoController {
        /// JSON pointer of the field.
        pointer: String,
        /// The controller.
        controller: String,
    },
    /// A memory limit is lower than what the container uses now.
    #[error("{pointer}: {limit_bytes} bytes is not more than the {usage_bytes} bytes in use")]
    MemoryInUse {
        /// JSON pointer of the field.
        pointer: String,
        /// The limit asked for.
        limit_bytes: u64,
        /// What the container uses.
        usage_bytes: u64,
    },
    /// A process could not be put into the cgroup.
    #[error("cannot move process {pid} into the cgroup {}", path.display())]
    Attach {
        /// The process.
        pid: i32,
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program that filters device access could not be loaded, attached or found.
    #[error("cannot {action} the device filter of the cgroup {}", path.display())]
    DeviceFilter {
        /// What was being done: load, attach, query, detach.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cgroup did not freeze in time.
    #[error("the cgroup {} did not freeze within {timeout_ms} ms", path.display())]
    FreezeTimeout {
        /// The directory.
        path: PathBuf,
        /// How long was waited.
        timeout_ms: u64,
    },
    /// What was asked for needs a controller or a hierarchy that the cgroup has not.
    #[error("the container's cgroup has no {controller} controller")]
    Unavailable {
        /// The controller.
        controller: &'static str,
    },
    /// A process of the cgroup could not be killed.
    #[error("cannot kill process {pid} of the cgroup {}", path.display())]
    Kill {
        /// The process.
        pid: i32,
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cgroup's directory could not be removed.
    #[error("cannot remove the cgroup {}", path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cgroup could not be given to the container's user.
    #[error("cannot give {} to user {uid}", path.display())]
    Chown {
        /// The directory or file.
        path: PathBuf,
        /// The new owner.
        uid: u32,
        /// Why.
        source: io::Error,
    },
    /// OOM notifications could not be set up or read.
    #[error("cannot watch {} for out-of-memory events", path.display())]
    OomWatch {
        /// The file watched.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// systemd could not be reached, or refused.
    #[error("cannot {action} {unit}")]
    Systemd {
        /// What was asked of it: start, stop, change.
        action: &'static str,
        /// The unit.
        unit: String,
        /// Why.
        source: BusError,
    },
    /// systemd tried, and failed.
    #[error("cannot {action} {unit}: systemd's job ended as {result:?}")]
    Job {
        /// What was asked of it: start, stop.
        action: &'static str,
        /// The unit.
        unit: String,
        /// The result of the job, such as `failed` or `timeout`.
        result: String,
    },
}

impl Error {
    /// Whether the cgroup is somebody else's, so that it must neither be killed nor removed after this error.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Error::NotEmpty { .. } | Error::Frozen { .. })
    }
}
