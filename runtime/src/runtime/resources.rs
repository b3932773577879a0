//! pause, resume, update, stats and the watch for memory exhaustion: what the cgroup does after create.

use super::{Rdt, Runtime, cgroup_error, open_cgroup};
use crate::cgroup::{Cgroup, Limits, OomWatch, Stats};
use crate::error::Error;
use crate::state::Record;
use oci_spec::runtime::LinuxResources;
use std::path::PathBuf;

impl Runtime {
    fn cgroup_of(&self, record: &Record) -> Result<Cgroup, Error> {
        match open_cgroup(record)? {
            Some(cgroup) if !cgroup.is_empty() => Ok(cgroup),
            _ => Err(Error::WrongStatus {
                message: format!(
                    "container {} has no cgroup, so there is nothing that could be done",
                    record.id
                ),
            }),
        }
    }

    fn running(&self, id: &str) -> Result<Record, Error> {
        let (_, record) = self.opened(id)?;
        match super::delete::init_of(&record)? {
            Some(_) => Ok(record),
            None => Err(Error::NotRunning { id: id.to_owned() }),
        }
    }

    /// Freezes every process of the container.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; those of the freezer.
    pub fn pause(&self, id: &str) -> Result<(), Error> {
        let record = self.running(id)?;
        self.cgroup_of(&record)?.freeze().map_err(cgroup_error(id))
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] where it is not paused.
    pub fn resume(&self, id: &str) -> Result<(), Error> {
        let record = self.running(id)?;
        let cgroup = self.cgroup_of(&record)?;
        if !cgroup.is_frozen().map_err(cgroup_error(id))? {
            return Err(Error::WrongStatus { message: "container not paused".into() });
        }
        cgroup.thaw().map_err(cgroup_error(id))
    }

    /// Changes the limits of a container: what `resources` leaves out stays as it is.
    ///
    /// # Errors
    /// All mistakes in `resources`, with pointers below `/linux/resources`; those of the kernel.
    pub fn update(&self, id: &str, resources: &LinuxResources, rdt: &Rdt) -> Result<(), Error> {
        let (_dir, record) = self.locked(id)?;
        if super::delete::init_of(&record)?.is_none() {
            return Err(Error::NotRunning { id: id.to_owned() });
        }
        let cgroup = self.cgroup_of(&record)?;
        let limits = Limits::compile_update(resources, cgroup.location().version())
            .map_err(|mistakes| Error::Config { path: PathBuf::from("resources"), mistakes })?;
        cgroup.update(&limits).map_err(cgroup_error(id))?;
        if let Some(group) = &record.resctrl {
            let (l3, memory) = (rdt.l3_cache_schema.as_deref(), rdt.mem_bw_schema.as_deref());
            group.update(l3, memory).map_err(Error::Rdt)?;
        } else if rdt.l3_cache_schema.is_some() || rdt.mem_bw_schema.is_some() {
            return Err(Error::WrongStatus {
                message: format!(
                    "container {id} was created without linux.intelRdt, so it has no schema to update"
                ),
            });
        }
        Ok(())
    }

    /// What the container uses, in the form of runc's `events --stats`.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; those of reading the cgroup.
    pub fn stats(&self, id: &str) -> Result<Stats, Error> {
        let record = self.running(id)?;
        self.cgroup_of(&record)?.stats().map_err(cgroup_error(id))
    }

    /// A watch for memory exhaustion of the container.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; those of the memory controller.
    pub fn oom_events(&self, id: &str) -> Result<OomWatch, Error> {
        let record = self.running(id)?;
        self.cgroup_of(&record)?.oom_watch().map_err(cgroup_error(id))
    }
}
