//! Namespaces that a container shares: CRIU leaves network and pid namespaces alone and is handed their
//! descriptors in a restore; the others it joins by path.

use super::error::Error;
use oci_spec::runtime::{LinuxNamespaceType as Type, Spec};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How CRIU names the kinds.
fn name(kind: Type) -> &'static str {
    match kind {
        Type::Mount => "mnt",
        Type::Cgroup => "cgroup",
        Type::Uts => "uts",
        Type::Ipc => "ipc",
        Type::User => "user",
        Type::Pid => "pid",
        Type::Network => "net",
        Type::Time => "time",
    }
}

/// The name of an external namespace in images: runc's.
fn key(kind: Type) -> Option<&'static str> {
    match kind {
        Type::Network => Some("extRootNetNS"),
        Type::Pid => Some("extRootPidNS"),
        _ => None,
    }
}

/// The first CRIU that can leave a namespace of this kind alone.
fn first_version(kind: Type) -> (u32, &'static str) {
    match kind {
        Type::Pid => (31_500, "a container in an existing pid namespace"),
        _ => (31_100, "a container in an existing network namespace"),
    }
}

fn joined(spec: &Spec) -> impl Iterator<Item = (Type, &Path)> {
    let list = spec.linux().as_ref().and_then(|l| l.namespaces().as_deref()).unwrap_or(&[]);
    list.iter().filter_map(|n| {
        let path = n.path().as_deref().filter(|p| !p.as_os_str().is_empty())?;
        Some((n.typ(), path))
    })
}

/// Fails where this CRIU cannot leave alone a namespace that the container joins.
pub(crate) fn check_version(spec: &Spec, version: u32) -> Result<(), Error> {
    for (kind, _) in joined(spec).filter(|(kind, _)| key(*kind).is_some()) {
        let (wanted, purpose) = first_version(kind);
        super::require_version(version, wanted, purpose)?;
    }
    Ok(())
}

/// What a dump leaves alone: `net[INODE]:NAME`.
pub(crate) fn external(spec: &Spec) -> Result<Vec<String>, Error> {
    let mut out = Vec::new();
    for (kind, path) in joined(spec) {
        let Some(key) = key(kind) else { continue };
        let stat = rustix::fs::stat(path).map_err(|e| Error::File {
            action: "looking at namespace",
            path: path.to_path_buf(),
            source: e.into(),
        })?;
        out.push(format!("{}[{}]:{key}", name(kind), stat.st_ino));
    }
    Ok(out)
}

/// What a restore is given.
#[derive(Default)]
pub(crate) struct Joined {
    pub fds: Vec<OwnedFd>,
    pub inherit: Vec<(String, i32)>,
    pub by_path: Vec<(&'static str, Vec<u8>)>,
}

/// The namespaces that a restored container joins.
pub(crate) fn for_restore(spec: &Spec) -> Result<Joined, Error> {
    let mut out = Joined::default();
    for (kind, path) in joined(spec) {
        let Some(key) = key(kind) else {
            if matches!(kind, Type::Cgroup | Type::Mount) {
                return Err(Error::Namespace { kind: name(kind) });
            }
            out.by_path.push((name(kind), path.as_os_str().as_bytes().to_vec()));
            continue;
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::File {
            action: "opening namespace",
            path: path.to_path_buf(),
            source: e.into(),
        })?;
        out.inherit.push((key.to_owned(), fd.as_raw_fd()));
        out.fds.push(fd);
    }
    Ok(out)
}
