//! checkpoint: CRIU writes a container to images, and ends it.

use super::{CheckpointOptions, Runtime, cgroup_error, kept_config, open_cgroup, status_of};
use crate::cgroup::Version;
use crate::checkpoint::{self, Criu, Feature, Images, Kind, Notification, Options, Start, Stop};
use crate::error::Error;
use crate::state::Record;
use oci_spec::runtime::Spec;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;

const LOG: &str = "dump.log";
/// The first CRIU that tells by a notification when pages can be fetched.
const STATUS_READY: u32 = 31_500;
/// The first CRIU that knows the freezer of cgroup v2.
const UNIFIED_FREEZER: u32 = 31_400;

impl Runtime {
    /// Writes a running container to images with CRIU. As with runc it is deleted then, so that its id can be
    /// restored, unless `leave_running` or `pre_dump` is given.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] where it does not run; [`Error::Checkpoint`] where CRIU is missing, too old, or fails: then
    /// the container goes on.
    pub fn checkpoint(&self, id: &str, options: &CheckpointOptions) -> Result<(), Error> {
        let (dir, record) = self.locked(id)?;
        let status = if record.pid == 0 { "stopped" } else { status_of(&dir, &record)? };
        if matches!(status, "created" | "stopped") {
            let message = format!("Container cannot be checkpointed in {status} state");
            return Err(Error::WrongStatus { message });
        }
        let spec = kept_config(&dir)?;
        dump(&record, &spec, options)?;
        if !options.leave_running && !options.pre_dump {
            // The images are complete, and that is what was asked for: what cannot be removed, or a hook that fails,
            // leaves a stopped container, which the next delete finishes.
            let init = super::delete::init_of(&record)?;
            drop(self.finish(&dir, &record, init));
        }
        Ok(())
    }
}

fn dump(record: &Record, spec: &Spec, options: &CheckpointOptions) -> Result<(), Error> {
    let images = Images::create(&options.image_path)?;
    let work = options.work_path.as_deref().map(Images::create).transpose()?;
    let mut status = options.status_fd.filter(|_| options.lazy_pages).map(status_file).transpose()?;
    let config_file = checkpoint::config_file(&record.annotations)?;
    let mut criu = Criu::start(Start { keep: Vec::new(), own_streams: false })?;
    let version = criu.checked_version()?;
    checkpoint::check_version(spec, version)?;
    if options.pre_dump {
        criu.require(Feature::MemoryTracking)?;
    }
    if options.lazy_pages {
        criu.require(Feature::LazyPages)?;
    }
    let mut wanted = Options {
        images_dir_fd: images.fd.as_raw_fd(),
        work_dir_fd: work.as_ref().map(|w| w.fd.as_raw_fd()),
        pid: Some(record.pid),
        leave_running: options.leave_running,
        ext_unix_sk: options.ext_unix_sk,
        tcp_established: options.tcp_established,
        tcp_skip_in_flight: options.tcp_skip_in_flight,
        shell_job: options.shell_job,
        file_locks: options.file_locks,
        link_remap: options.link_remap,
        auto_dedup: options.auto_dedup,
        lazy_pages: options.lazy_pages,
        log_file: LOG,
        page_server: options.page_server.clone(),
        root: record.rootfs.as_os_str().as_bytes().to_vec(),
        parent_images: options.parent_path.as_ref().map(|p| p.as_os_str().as_bytes().to_vec()),
        cgroup_mode: Some(checkpoint::cgroup_mode(options.manage_cgroups_mode, record.cgroup.is_some())),
        external: checkpoint::external(spec)?,
        empty_namespaces: if options.empty_network_ns { libc::CLONE_NEWNET as u32 } else { 0 },
        freeze_cgroup: freezer(record, version),
        status_fd: options.status_fd.filter(|_| status.is_some() && version < STATUS_READY),
        config_file,
        ..Options::default()
    };
    if !options.pre_dump {
        let bound = checkpoint::bound(spec, &record.bundle, record.cgroup.as_ref());
        wanted.external_mounts = checkpoint::of_running(record.pid, &bound, &checkpoint::masked(spec))?;
        let pids = match open_cgroup(record)? {
            Some(cgroup) => cgroup.pids(true).map_err(cgroup_error(&record.id))?,
            None => vec![record.pid],
        };
        let streams = checkpoint::of_container(record.pid, &pids);
        images.save_descriptors(&streams.names)?;
        wanted.external.extend(streams.external);
    }
    let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
    let notified = |event: Notification| -> Result<(), Stop> {
        if event.script == "status-ready" {
            // Nobody may read it any more; the pages are served all the same.
            drop(status.take().map(|mut file| file.write_all(&[0])));
        }
        Ok(())
    };
    let done = criu.work(kind, &wanted, notified);
    done.map(drop).map_err(|stop: Stop| stop.explain(kind, work.as_ref().unwrap_or(&images), LOG))
}

/// A description of its own of what the descriptor is, for writing.
fn status_file(fd: i32) -> Result<File, Error> {
    let opened = OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}"));
    opened.map_err(|source| checkpoint::Error::StatusFd { fd, source }.into())
}

/// The cgroup by which CRIU stops the container; without one it stops each process by ptrace.
fn freezer(record: &Record, version: u32) -> Option<Vec<u8>> {
    let location = record.cgroup.as_ref()?;
    let controller = match location.version() {
        Version::V2 if version < UNIFIED_FREEZER => return None,
        Version::V2 => "",
        Version::V1 | Version::Hybrid => "freezer",
    };
    let (_, path) = location.paths().find(|(name, _)| *name == controller)?;
    Some(path.as_os_str().as_bytes().to_vec())
}
