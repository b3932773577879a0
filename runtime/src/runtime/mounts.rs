//! `mounts add` and `mounts remove`: changing the mounts of a container that runs.
//!
//! A short-lived child joins the container's mount namespace and does what the same entry in config.json would
//! have done at create, inside the container's root.

use super::{Runtime, kept_config};
use crate::compile::{self, MountChange};
use crate::error::Error;
use crate::launch::{Given, Parent, launch};
use crate::sys;
use oci_spec::runtime::Mount;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

impl Runtime {
    /// Mounts something in a running container.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; mistakes in the mount; those of mounting.
    pub fn add_mount(&self, id: &str, mount: &Mount) -> Result<(), Error> {
        self.change(id, MountChange::Add(mount))
    }

    /// Takes a mount of a running container away.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; those of unmounting, as where nothing is mounted there.
    pub fn remove_mount(&self, id: &str, target: &Path) -> Result<(), Error> {
        self.change(id, MountChange::Remove(target))
    }

    fn change(&self, id: &str, change: MountChange<'_>) -> Result<(), Error> {
        let (dir, record) = self.locked(id)?;
        let init = super::delete::init_of(&record)?.ok_or_else(|| Error::NotRunning { id: id.to_owned() })?;
        let spec = kept_config(&dir)?;
        let host = self.host(&spec, None, true)?;
        let plan = compile::compile_mount(&spec, &record.bundle, &host, &change)
            .map_err(|mistakes| Error::Config { path: PathBuf::from("mount"), mistakes })?;
        let given = Given {
            init: Some(init.as_fd()),
            own_binary: sys::own_binary(),
            until_exec: true,
            close: vec![dir.raw_fd()],
            ..Given::default()
        };
        let done = launch(&plan, &given, &mut Bystander, Error::Mounting)?;
        let waited = waitid(WaitId::PidFd(done.pidfd.as_fd()), WaitIdOptions::EXITED);
        waited.map(|_| ()).map_err(|e| Error::System { action: "waiting for the mount", source: e.into() })
    }
}

/// Nothing is asked of the parent.
struct Bystander;

impl Parent for Bystander {
    fn cloned(&mut self, _pid: i32, _pidfd: BorrowedFd<'_>) -> Result<(), Error> {
        Ok(())
    }
    fn map_ids(&mut self, _pid: i32) -> Result<(), Error> {
        Ok(())
    }
    fn host_hooks(&mut self, _pid: i32) -> Result<(), Error> {
        Ok(())
    }
    fn seccomp_listener(&mut self, _pid: i32, _listener: OwnedFd) -> Result<(), Error> {
        Ok(())
    }
    fn ready(&mut self, _pid: i32) -> Result<(), Error> {
        Ok(())
    }
}
