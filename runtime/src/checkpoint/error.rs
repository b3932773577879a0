//! What can go wrong between the runtime and CRIU.

use super::protobuf::Malformed;
use std::io;
use std::path::PathBuf;

/// A checkpoint or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `criu`.
    #[error("criu not found in PATH; install package criu")]
    Missing,
    /// `criu` cannot be run.
    #[error("run criu")]
    Run {
        /// Why.
        source: io::Error,
    },
    /// The version is too old for what is wanted.
    #[error("CRIU version {found} must be {wanted} or higher for {purpose}")]
    TooOld {
        /// major * 10000 + minor * 100 + sublevel.
        found: u32,
        /// The same of the version needed.
        wanted: u32,
        /// What it is needed for.
        purpose: &'static str,
    },
    /// CRIU or the kernel lacks a feature.
    #[error("CRIU, or this kernel, lacks {feature}")]
    MissingFeature {
        /// Its name.
        feature: &'static str,
    },
    /// The conversation with CRIU broke.
    #[error("{action}{}", said(output))]
    Talk {
        /// What was being done.
        action: &'static str,
        /// The end of what CRIU printed.
        output: String,
        /// Why.
        source: io::Error,
    },
    /// CRIU ended without an answer.
    #[error("criu ended without an answer to {request}{}", said(output))]
    Ended {
        /// The request.
        request: &'static str,
        /// The end of its log, or of what it printed.
        output: String,
    },
    /// CRIU sent what is not a message of its protocol.
    #[error("the answer of criu cannot be understood")]
    Answer {
        /// What is wrong.
        source: Malformed,
    },
    /// CRIU sent a message that does not fit.
    #[error("criu answered {request} with message type {kind}")]
    Unexpected {
        /// The request.
        request: &'static str,
        /// The number of the type.
        kind: u64,
    },
    /// CRIU failed.
    #[error("criu failed: type {request} errno {errno}{}{}", said(message), log_text(log, output))]
    Failed {
        /// The request.
        request: &'static str,
        /// errno as CRIU says it; 0 if there is none.
        errno: i32,
        /// Its message.
        message: String,
        /// Its log.
        log: PathBuf,
        /// The lines of it that tell the error.
        output: String,
    },
    /// A directory or a file of the checkpoint, or of the container, cannot be used.
    #[error("{action} {path}")]
    File {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// What CRIU would open in the images is no regular file.
    #[error("{path} is {what}: images that cannot be trusted are not restored")]
    ImageEntry {
        /// The entry.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// An image cannot be understood.
    #[error("image {path}: {what}")]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// An image is no message of its format.
    #[error("image {path}")]
    ImageMessage {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Malformed,
    },
    /// The images want an external mount that config.json does not have, or has otherwise.
    #[error("image {path}: external mount {key:?} on {mountpoint:?} {what}")]
    ExternalMount {
        /// The file.
        path: PathBuf,
        /// The mount's name in the image.
        key: String,
        /// Where the image puts it.
        mountpoint: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A namespace that CRIU cannot join.
    #[error("/linux/namespaces: CRIU cannot restore into an existing {kind} namespace")]
    Namespace {
        /// Its type.
        kind: &'static str,
    },
    /// The annotation `org.criu.config`.
    #[error(
        "/annotations/org.criu.config: {path:?} is not below /etc/criu, and such a file can run programs as root"
    )]
    ConfigFile {
        /// The file.
        path: String,
    },
    /// The descriptor for the status is no good.
    #[error("invalid --status-fd argument {fd}")]
    StatusFd {
        /// The number.
        fd: i32,
        /// Why.
        source: io::Error,
    },
}

fn said(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(": {}", output.trim_end()) }
}

fn log_text(log: &std::path::Path, output: &str) -> String {
    let mut text = format!("\nlog file: {}", log.display());
    for line in output.lines() {
        text.push_str("\n  ");
        text.push_str(line);
    }
    text
}
