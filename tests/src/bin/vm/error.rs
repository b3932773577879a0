//! What can go wrong on the way to a guest's exit status.

use std::io;
use std::path::{Path, PathBuf};

/// An error of `vm` itself, never of the command in the guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line makes no sense.
    #[error("{0} (see vm --help)")]
    Usage(String),
    /// An operation on a file failed.
    #[error("cannot {what} {}", path.display())]
    File {
        /// The operation, a verb.
        what: &'static str,
        /// Its object.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}")]
    Start {
        /// The program's name.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A program failed.
    #[error("{program} failed: {why}")]
    Failed {
        /// The program's name, with the argument that tells what it was for.
        program: String,
        /// Its exit status or its own words.
        why: String,
    },
    /// The machine cannot hold such a guest.
    #[error("{0}")]
    Unsupported(String),
    /// A file is not what its name says.
    #[error("{}: {why}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The guest ended, or never came to the command, without telling the command's status.
    #[error("no end of the command came out of the guest; its console's last lines:\n{console}")]
    Lost {
        /// The end of what the kernel and init wrote.
        console: String,
    },
    /// The time was up.
    #[error("no end after {seconds} s; the guest was stopped; its console's last lines:\n{console}")]
    Timeout {
        /// The limit.
        seconds: u64,
        /// The end of what the kernel and init wrote.
        console: String,
    },
}

impl Error {
    /// An error of an operation on a file, for `map_err`.
    pub fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    /// The status `vm` ends with: as `timeout` and `env` have it, apart from common ones of commands.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Timeout { .. } => 124,
            Self::Usage(_) => 2,
            _ => 125,
        }
    }
}
