//! Checkpoint and restore through CRIU's RPC: the conversation, the images, and what CRIU is told of a container.
//!
//! [`Runtime::checkpoint`](crate::Runtime::checkpoint) and [`Runtime::restore`](crate::Runtime::restore) are in
//! `runtime/checkpoint.rs` and `runtime/restore.rs`. `criu` is looked up in PATH and run once per verb as `criu swrk`.
//! Names in the images and `descriptors.json` are runc's, so that an image of one can be restored by the other.

mod error;
mod images;
mod message;
mod mounts;
mod namespaces;
mod place;
mod protobuf;
mod rpc;
mod streams;
mod sys;

pub use error::Error;
pub use protobuf::Malformed;

pub(crate) use images::Images;
pub(crate) use message::{CgroupMode, Feature, Kind, Options};
pub(crate) use mounts::{bound, for_restore as mounts_for_restore, make_targets, masked, of_running};
pub(crate) use namespaces::{check_version, external, for_restore as namespaces_for_restore};
pub(crate) use place::{Place, Placed};
pub(crate) use rpc::{Criu, Notification, Start};
pub(crate) use streams::of_container;

use crate::runtime::CgroupsMode;
use rpc::Failure;
use std::path::Path;

/// The first CRIU that answers what version it has, and has everything that is not asked for separately.
const FIRST_VERSION: u32 = 30_000;
/// Settings for containers, which override ours: the file that runc has, too.
const CONFIG_FILE: &str = "/etc/criu/runc.conf";
const CONFIG_DIRECTORY: &str = "/etc/criu";
const CONFIG_ANNOTATION: &str = "org.criu.config";

/// Fails where CRIU is older than `wanted`.
pub(crate) fn require_version(found: u32, wanted: u32, purpose: &'static str) -> Result<(), Error> {
    if found >= wanted { Ok(()) } else { Err(Error::TooOld { found, wanted, purpose }) }
}

impl Criu {
    /// Its version, if that is one that can be worked with.
    pub(crate) fn checked_version(&self) -> Result<u32, Error> {
        let version = self.version()?;
        require_version(version, FIRST_VERSION, "checkpoints of containers")?;
        Ok(version)
    }
}

/// The configuration file that CRIU shall read: as for runc the one that the annotation `org.criu.config` names, none if
/// that is empty, else the usual one. Since it can name programs that CRIU runs as root, and annotations may stem
/// from images, it has to be below `/etc/criu`.
pub(crate) fn config_file<'a>(
    annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Option<String>, Error> {
    let given = annotations.into_iter().find(|(key, _)| *key == CONFIG_ANNOTATION);
    let Some((_, path)) = given else { return Ok(Some(CONFIG_FILE.to_owned())) };
    if path.is_empty() {
        return Ok(None);
    }
    let inside = Path::new(path).starts_with(CONFIG_DIRECTORY)
        && Path::new(path).components().all(|part| part != std::path::Component::ParentDir);
    if inside { Ok(Some(path.clone())) } else { Err(Error::ConfigFile { path: path.clone() }) }
}

/// CRIU's mode for the one given; without any, CRIU's own choice, or nothing at all where the container has no
/// cgroup.
pub(crate) fn cgroup_mode(given: Option<CgroupsMode>, has_cgroup: bool) -> CgroupMode {
    match given {
        None if has_cgroup => CgroupMode::Default,
        None | Some(CgroupsMode::Ignore) => CgroupMode::Ignore,
        Some(CgroupsMode::Soft) => CgroupMode::Soft,
        Some(CgroupsMode::Full) => CgroupMode::Full,
        Some(CgroupsMode::Strict) => CgroupMode::Strict,
    }
}

/// Why [`Criu::work`] ended early: CRIU's fault, or that of a notification's work.
pub(crate) enum Stop {
    /// CRIU's.
    Criu(Failure),
    /// That of what a notification asked for.
    Work(crate::error::Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Criu(failure)
    }
}

impl From<crate::error::Error> for Stop {
    fn from(error: crate::error::Error) -> Stop {
        Stop::Work(error)
    }
}

impl Stop {
    /// The error, with what the log says.
    pub(crate) fn explain(self, kind: Kind, logs: &Images, log: &str) -> crate::error::Error {
        let failed = |errno, message, printed| {
            let lines = logs.log_lines(log);
            Error::Failed {
                request: kind.name(),
                errno,
                // Its first error, which the log has with what came of it.
                message: if lines.is_empty() { message } else { String::new() },
                log: logs.path.join(log),
                output: if lines.is_empty() { printed } else { lines },
            }
        };
        let error = match self {
            Stop::Work(error) => return error,
            Stop::Criu(Failure::Talk(error)) => error,
            Stop::Criu(Failure::Ended { printed }) => failed(0, "it ended without an answer".into(), printed),
            Stop::Criu(Failure::Refused { errno, message, printed }) => failed(errno, message, printed),
        };
        error.into()
    }
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        crate::error::Error::Checkpoint(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_files() {
        let file = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            config_file(pairs.iter().map(|(k, v)| (k, v))).map_err(|e| e.to_string())
        };
        assert_eq!(file(&[]), Ok(Some(CONFIG_FILE.to_owned())));
        assert_eq!(file(&[("a", "b"), (CONFIG_ANNOTATION, "")]), Ok(None));
        assert_eq!(file(&[(CONFIG_ANNOTATION, "/etc/criu/a.conf")]), Ok(Some("/etc/criu/a.conf".into())));
        for path in ["/tmp/a", "/etc/criu/../../tmp/a", "/etc/criux", "etc/criu/a"] {
            assert!(file(&[(CONFIG_ANNOTATION, path)]).unwrap_err().contains("below /etc/criu"), "{path}");
        }
    }

    #[test]
    fn cgroup_modes() {
        assert_eq!(cgroup_mode(None, true), CgroupMode::Default);
        assert_eq!(cgroup_mode(None, false), CgroupMode::Ignore);
        assert_eq!(cgroup_mode(Some(CgroupsMode::Strict), false), CgroupMode::Strict);
    }
}
