//! `spec` and `features`: documents that need no container.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::args::Flags;
use super::error::CliError;
use super::{Session, absolute, output};

/// `spec`.
pub fn spec(_: &Session, flags: &Flags, _: &[OsString]) -> Result<u8, CliError> {
    const NAME: &str = "config.json";
    let path = absolute(flags.filled("bundle").map_or(Path::new("."), Path::new))?.join(NAME);
    let spec = dhow_runtime::template::default_spec(flags.is_on("rootless"));
    let text =
        output::pretty(&spec, "\t").map_err(|source| CliError::Parse { path: path.clone(), source })?;
    // Never over a file that somebody may have worked on.
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(|source| {
        if source.kind() == ErrorKind::AlreadyExists {
            CliError::SpecExists { name: NAME }
        } else {
            CliError::Open { path: path.clone(), source }
        }
    })?;
    file.write_all(&text).map_err(|source| CliError::Write { path, source })?;
    Ok(0)
}

/// `features`.
pub fn features(_: &Session, _: &Flags, _: &[OsString]) -> Result<u8, CliError> {
    output::print_pretty(&dhow_runtime::features::document(), "    ")?;
    Ok(0)
}
