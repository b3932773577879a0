//! What commands print on standard output, in the shape that runc's callers parse.

pub mod list;
pub mod ps;

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use super::error::CliError;

/// Writes `bytes` to standard output.
pub fn print(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|source| CliError::Output { source })
}

/// Writes `value` as JSON on one line.
pub fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_vec(value).map_err(|error| CliError::Output { source: error.into() })?;
    text.push(b'\n');
    print(&text)
}

/// Writes `value` as JSON on several lines, each level moved in by `indent`.
pub fn print_pretty(value: &impl Serialize, indent: &str) -> Result<(), CliError> {
    let mut text = pretty(value, indent).map_err(|error| CliError::Output { source: error.into() })?;
    text.push(b'\n');
    print(&text)
}

/// `value` as JSON on several lines, each level moved in by `indent`.
pub fn pretty(value: &impl Serialize, indent: &str) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = Vec::new();
    let formatter = PrettyFormatter::with_indent(indent.as_bytes());
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))?;
    Ok(text)
}
