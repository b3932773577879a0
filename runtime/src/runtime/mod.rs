//! The operations on containers, as one type: [`Runtime`]. Every verb of the command line is a method of it.
//!
//! Each method opens the container's directory, takes its lock if it changes anything, and leaves a state that
//! the next call understands, whatever kills it in between.

mod checkpoint;
mod create;
mod delete;
mod exec;
mod mounts;
mod query;
mod resources;
mod restore;
mod types;

pub use exec::Container;
pub use types::{
    CgroupsMode, CheckpointOptions, CreateOptions, ExecOptions, Rdt, RestoreOptions, Running, Status,
};

use crate::cgroup::{Cgroup, Driver, Layout};
use crate::compile::Host;
use crate::config;
use crate::error::Error;
use crate::state::{ContainerDir, Record, is_alive};
use crate::sys;
use oci_spec::runtime::Spec;
use serde_json::json;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The containers below one state directory.
#[derive(Clone, Debug, Default)]
pub struct Runtime {
    /// Where the state of each container is kept, absolute.
    pub root: PathBuf,
    /// Cgroups are made by systemd.
    pub systemd_cgroup: bool,
    /// No cgroups are made at all.
    pub no_cgroups: bool,
    /// Ignore cgroup permission errors; `None`: as the user and its namespace demand.
    pub rootless: Option<bool>,
    /// Refuse what would let processes of a container see the caller's binary on a writable mount
    /// ([`Error::NotSealed`]): `exec`, and containers whose pid namespace is not new or that have hooks inside. A
    /// program that is not [`crate::seal`]ed and leaves this off gives such containers a way to its own file.
    pub require_sealed: bool,
}

/// Whether the caller is root of the initial user namespace.
fn is_privileged() -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    // The initial namespace maps everything onto itself.
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
}

/// Whether the caller lives in another user namespace than the initial one, whose inode number is fixed.
fn in_user_namespace() -> bool {
    const INITIAL: &[u8] = b"user:[4026531837]";
    rustix::fs::readlink("/proc/self/ns/user", Vec::new()).is_ok_and(|name| name.as_bytes() != INITIAL)
}

impl Runtime {
    /// The caller's binary is out of reach, or nobody asked for that.
    fn check_seal(&self) -> Result<(), Error> {
        if self.require_sealed && !crate::seal::is_sealed() { Err(Error::NotSealed) } else { Ok(()) }
    }

    fn driver(&self) -> Driver {
        if self.systemd_cgroup { Driver::Systemd } else { Driver::Cgroupfs }
    }

    /// What this host can do, as far as `spec` makes it matter.
    fn host(
        &self,
        spec: &Spec,
        process: Option<&oci_spec::runtime::Process>,
        with_cgroups: bool,
    ) -> Result<Host, Error> {
        use oci_spec::runtime::LinuxNamespaceType as Type;
        let linux = spec.linux().as_ref();
        let user_namespace = linux
            .and_then(|l| l.namespaces().as_ref())
            .is_some_and(|l| l.iter().any(|n| n.typ() == Type::User));
        let process = process.or(spec.process().as_ref());
        let labelled = process.is_some_and(|p| p.selinux_label().is_some() || p.apparmor_profile().is_some())
            || linux.is_some_and(|l| l.mount_label().is_some());
        Ok(Host {
            cgroups: if with_cgroups { Some(Layout::probe().map_err(Error::CgroupLayout)?) } else { None },
            privileged: user_namespace && is_privileged(),
            in_user_namespace: with_cgroups && in_user_namespace(),
            permitted: sys::permitted_capabilities(),
            selinux: labelled && Path::new("/sys/fs/selinux/enforce").exists(),
            apparmor: labelled
                && std::fs::read("/sys/module/apparmor/parameters/enabled")
                    .is_ok_and(|t| t.first() == Some(&b'Y')),
        })
    }

    /// Opens a container for a change: locked, with its record.
    fn locked(&self, id: &str) -> Result<(ContainerDir, Record), Error> {
        let dir = ContainerDir::open(&self.root, id)?;
        dir.lock()?;
        let record = dir.record()?.ok_or_else(|| Error::NotFound { id: id.to_owned() })?;
        Ok((dir, record))
    }

    /// Opens a container to look at it.
    fn opened(&self, id: &str) -> Result<(ContainerDir, Record), Error> {
        let dir = ContainerDir::open(&self.root, id)?;
        let record = dir.record()?.ok_or_else(|| Error::NotFound { id: id.to_owned() })?;
        Ok((dir, record))
    }
}

/// The config a container was created with.
fn kept_config(dir: &ContainerDir) -> Result<Spec, Error> {
    let bytes = dir.config()?;
    config::parse(&bytes)
        .map(|config| config.spec)
        .map_err(|mistakes| Error::Config { path: dir.config_path(), mistakes })
}

fn open_cgroup(record: &Record) -> Result<Option<Cgroup>, Error> {
    let Some(location) = &record.cgroup else { return Ok(None) };
    let opened = Cgroup::open(location).map_err(|source| Error::Cgroup { id: record.id.clone(), source })?;
    // Rootless without delegation: as good as none.
    Ok(Some(opened).filter(|cgroup| !cgroup.is_empty()))
}

fn cgroup_error(id: &str) -> impl Fn(crate::cgroup::Error) -> Error {
    let id = id.to_owned();
    move |source| Error::Cgroup { id: id.clone(), source }
}

/// What a container is doing, as the specification names it, with `paused` as runc does.
fn status_of(dir: &ContainerDir, record: &Record) -> Result<&'static str, Error> {
    if record.pid == 0 {
        // Its creator holds the lock as long as it works on it.
        return Ok(if dir.is_locked() { "creating" } else { "stopped" });
    }
    if !is_alive(record.pid, record.start_time_ticks)? {
        return Ok("stopped");
    }
    if dir.has_gate() {
        return Ok("created");
    }
    let frozen = match open_cgroup(record)? {
        Some(cgroup) => cgroup.is_frozen().map_err(cgroup_error(&record.id))?,
        None => false,
    };
    Ok(if frozen { "paused" } else { "running" })
}

/// The specification's state, as hooks and agents get it.
fn state_json(record: &Record, status: &str, pid: i32) -> serde_json::Value {
    let mut state = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "status": status,
        "bundle": record.bundle,
        "annotations": record.annotations,
    });
    if pid != 0 {
        state["pid"] = pid.into();
    }
    state
}

fn connect(path: &Path, action: &'static str) -> Result<OwnedFd, Error> {
    sys::connect(path).map_err(|source| Error::File { action, path: path.to_path_buf(), source })
}

/// Writes a pid for the caller: to a temporary name first, since callers watch for the file to appear.
fn write_pid_file(path: &Path, pid: i32) -> Result<(), Error> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(name);
    std::fs::write(&temporary, pid.to_string())
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|source| Error::File { action: "writing the pid file", path: path.to_path_buf(), source })
}

/// Sends a pidfd to the socket of the caller (`--pidfd-socket`).
fn send_pidfd(path: &Path, pidfd: BorrowedFd<'_>) -> Result<(), Error> {
    let socket = connect(path, "connecting to the pidfd socket")?;
    sys::send_with_fd(&socket, b"pidfd", pidfd).map_err(|source| Error::File {
        action: "sending the pidfd to",
        path: path.to_path_buf(),
        source,
    })
}

fn set_oom_score(pid: i32, adjustment: i32) -> Result<(), Error> {
    let path = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
    std::fs::write(&path, adjustment.to_string()).map_err(|source| Error::File {
        action: "writing process.oomScoreAdj to",
        path,
        source,
    })
}

/// Hands the listener of a filter with `SCMP_ACT_NOTIFY` to the agent, with the container process state of the
/// specification.
fn send_listener(
    spec: &Spec,
    oci_version: &str,
    pid: i32,
    listener: BorrowedFd<'_>,
    state: &serde_json::Value,
) -> Result<(), Error> {
    let Some(profile) = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()) else { return Ok(()) };
    let Some(path) = profile.listener_path() else { return Ok(()) };
    let socket = connect(path, "connecting to the seccomp agent")?;
    let message = json!({
        "ociVersion": oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": profile.listener_metadata().as_deref().unwrap_or(""),
        "state": state,
    });
    sys::send_with_fd(&socket, message.to_string().as_bytes(), listener).map_err(|source| Error::File {
        action: "sending the seccomp listener to",
        path: path.clone(),
        source,
    })
}
