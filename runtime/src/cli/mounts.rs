//! `mounts`: mounts added to, and removed from, a running container.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use oci_spec::runtime::Mount;

use super::Session;
use super::args::Flags;
use super::error::CliError;

/// `mounts add` and `mounts remove`. The file has an array of mounts as `config.json` has.
pub fn mounts(session: &Session, _: &Flags, operands: &[OsString]) -> Result<u8, CliError> {
    let add = match operands[0].to_str() {
        Some("add") => true,
        Some("remove") => false,
        _ => return Err(CliError::MountsAction { action: operands[0].to_string_lossy().into_owned() }),
    };
    let id = session.id(&operands[1..])?;
    let path = Path::new(&operands[2]);
    let text = fs::read(path).map_err(|source| CliError::Open { path: path.into(), source })?;
    // The whole file is read before the first mount is made.
    let mounts: Vec<Mount> =
        serde_json::from_slice(&text).map_err(|source| CliError::Parse { path: path.into(), source })?;
    for mount in &mounts {
        if add {
            session.runtime.add_mount(id, mount)?;
        } else {
            session.runtime.remove_mount(id, mount.destination())?;
        }
    }
    Ok(0)
}
