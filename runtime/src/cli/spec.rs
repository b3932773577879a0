//! `spec` and `features`: documents that need no container.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::args::Flags;
use super::error::CliError;
use super::{Session, absolute, output};
use dhow_runtime::features::{Features, SeccompNames};
use dhow_runtime::seccomp;
use dhow_runtime::template::Rootless;

/// `spec`.
pub fn spec(_: &Session, flags: &Flags, _: &[OsString]) -> Result<u8, CliError> {
    const NAME: &str = "config.json";
    let path = absolute(flags.filled("bundle").map_or(Path::new("."), Path::new))?.join(NAME);
    let owner =
        || Rootless { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let text = dhow_runtime::template::config_json(flags.is_on("rootless").then(owner));
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
    let names = SeccompNames {
        actions: seccomp::known_actions(),
        operators: seccomp::known_operators(),
        archs: seccomp::known_archs(),
        known_flags: seccomp::known_flags(),
        supported_flags: seccomp::known_flags(),
    };
    output::print(Features::new(env!("CARGO_PKG_VERSION"), names).to_json().as_bytes())?;
    Ok(0)
}
