//! `spec` and `features`: documents that need no container.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use dhow_runtime::features::{Features, SeccompNames};
use dhow_runtime::seccomp;
use dhow_runtime::template::{self, Rootless};

use super::args::Flags;
use super::error::CliError;
use super::{Session, absolute, output, sys};

/// `spec`.
pub fn spec(_: &Session, flags: &Flags, _: &[OsString]) -> Result<u8, CliError> {
    const NAME: &str = "config.json";
    let path = absolute(flags.filled("bundle").map_or(Path::new("."), Path::new))?.join(NAME);
    let rootless = flags.is_on("rootless").then(|| Rootless {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    });
    let text = template::config_json(rootless);

    // Never over a file that somebody may have worked on.
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(|source| {
        if source.kind() == ErrorKind::AlreadyExists {
            CliError::SpecExists { name: NAME }
        } else {
            CliError::Open { path: path.clone(), source }
        }
    })?;
    file.write_all(text.as_bytes()).map_err(|source| CliError::Write { path, source })?;
    Ok(0)
}

/// `features`.
pub fn features(_: &Session, _: &Flags, _: &[OsString]) -> Result<u8, CliError> {
    let known_flags = seccomp::known_flags();
    let supported: Vec<&str> =
        known_flags.iter().copied().filter(|flag| sys::has_filter_flag(flag)).collect();
    let names = SeccompNames {
        actions: seccomp::known_actions(),
        operators: seccomp::known_operators(),
        archs: seccomp::known_archs(),
        known_flags,
        supported_flags: &supported,
    };
    output::print(Features::new(env!("CARGO_PKG_VERSION"), names).to_json().as_bytes())?;
    Ok(0)
}
