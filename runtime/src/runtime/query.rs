//! state, list and ps: what is known of containers.

use super::{Runtime, Status, open_cgroup, status_of};
use crate::error::Error;
use crate::state::{ContainerDir, Record};

impl Runtime {
    /// The state of a container.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn state(&self, id: &str) -> Result<Status, Error> {
        let (dir, record) = self.opened(id)?;
        status(&dir, record)
    }

    /// The states of all containers, by id. One that goes away meanwhile is left out.
    ///
    /// # Errors
    /// Where the state directory cannot be read.
    pub fn list(&self) -> Result<Vec<Status>, Error> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::File { action: "reading", path: self.root.clone(), source }),
        };
        let mut out = Vec::new();
        for entry in entries {
            let entry =
                entry.map_err(|source| Error::File { action: "reading", path: self.root.clone(), source })?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match self.state(&name) {
                Ok(status) => out.push(status),
                Err(Error::NotFound { .. } | Error::InvalidId { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        out.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(out)
    }

    /// The pids of a container's processes, in the caller's pid namespace.
    ///
    /// # Errors
    /// [`Error::NotFound`], or where its cgroup cannot be read.
    pub fn processes(&self, id: &str) -> Result<Vec<i32>, Error> {
        let (_, record) = self.opened(id)?;
        match open_cgroup(&record)? {
            Some(cgroup) if !cgroup.is_empty() => cgroup.pids(true).map_err(super::cgroup_error(id)),
            // Without a cgroup only init is known to be the container's.
            _ => Ok(super::delete::init_of(&record)?.map(|_| record.pid).into_iter().collect()),
        }
    }
}

fn status(dir: &ContainerDir, record: Record) -> Result<Status, Error> {
    let word = status_of(dir, &record)?;
    let pid = if word == "stopped" { 0 } else { record.pid };
    Ok(Status {
        oci_version: record.oci_version,
        id: record.id,
        pid,
        status: word.to_owned(),
        bundle: record.bundle,
        rootfs: record.rootfs,
        created: record.created,
        annotations: record.annotations,
        owner: user_name(record.owner_uid),
    })
}

/// The name of a user of the host, from /etc/passwd: the runtime is static, so there is no nss. Empty if unknown.
fn user_name(uid: u32) -> String {
    if uid == 0 {
        return "root".into();
    }
    let Ok(passwd) = std::fs::read_to_string("/etc/passwd") else { return String::new() };
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    found.unwrap_or_default()
}
