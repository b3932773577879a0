//! The systemd driver: a container's cgroup as a transient scope or slice, asked for over D-Bus.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Error;

/// The transient unit of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    /// Such as `docker-4f2e.scope`.
    pub(super) name: String,
    /// The slice it is in, such as `system.slice`.
    pub(super) slice: String,
}

impl Unit {
    /// Reads `slice:prefix:name`; without a path the scope is `dhow-<id>.scope` in the usual slice.
    pub(super) fn parse(path: Option<&str>, id: &str, rootless: bool) -> Result<Unit, Error> {
        let usual = if rootless { "user.slice" } else { "system.slice" };
        let Some(path) = path else {
            return Ok(Unit { name: format!("dhow-{id}.scope"), slice: usual.to_owned() });
        };
        let wrong = || Error::CgroupsPath { path: path.to_owned(), wanted: "slice:prefix:name" };
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, prefix, name] = parts[..] else { return Err(wrong()) };
        if name.is_empty() || path.contains('/') {
            return Err(wrong());
        }
        // A name that is a slice already is taken as it is.
        let name = match name.ends_with(".slice") {
            true => name.to_owned(),
            false => format!("{prefix}-{name}.scope"),
        };
        Ok(Unit { name, slice: if slice.is_empty() { usual } else { slice }.to_owned() })
    }
}

/// The path of a slice in the hierarchy, where `a-b.slice` is `a.slice/a-b.slice`.
pub(super) fn slice_path(slice: &str) -> Result<PathBuf, Error> {
    let wrong = || Error::Slice { name: slice.to_owned() };
    let stem =
        slice.strip_suffix(".slice").filter(|s| !s.is_empty() && !s.contains('/')).ok_or_else(wrong)?;
    let mut path = PathBuf::new();
    if stem == "-" {
        return Ok(path);
    }
    let mut prefix = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return Err(wrong());
        }
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
        prefix.push('-');
    }
    Ok(path)
}

/// The cgroup of the user's systemd, below which its slices are.
pub(super) fn user_manager_cgroup() -> Result<PathBuf, Error> {
    Err(Error::NoSystemd)
}

impl Unit {
    pub(super) fn stop(&self, _rootless: bool) -> Result<(), Error> {
        Err(Error::NoSystemd)
    }
}

impl super::Cgroup {
    pub(super) fn unit_missing(&self) -> bool {
        self.location.unit.is_some() && self.groups.is_empty()
    }

    pub(super) fn start_unit(&mut self, _pid: i32) -> Result<(), Error> {
        Err(Error::NoSystemd)
    }

    pub(super) fn attach_by_systemd(&self, _pid: i32) -> Result<(), Error> {
        Err(Error::NoSystemd)
    }

    pub(super) fn apply_unit_properties(&self, _limits: &super::Limits) -> Result<(), Error> {
        match self.location.unit {
            Some(_) => Err(Error::NoSystemd),
            None => Ok(()),
        }
    }
}
