//! restore: CRIU makes a container's processes out of images, in a directory and cgroups made as for create.

use super::create::Prepared;
use super::{CreateOptions, RestoreOptions, Running, Runtime};
use crate::checkpoint::{self, Criu, Images, Kind, Notification, Options, Place, Placed, Start, Stop};
use crate::error::Error;
use crate::state::{ContainerDir, Record, start_time_ticks};
use crate::sys;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

const LOG: &str = "restore.log";
/// The first CRIU that restores with another security profile.
const LSM: u32 = 31_600;
/// What the message with the terminal's master says, as runc's does.
const MASTER: &[u8] = b"orphan-pts-master";

impl Runtime {
    /// Makes a container out of the images of a checkpoint, running.
    ///
    /// # Errors
    /// Those of [`Runtime::create`] for the bundle; [`Error::Checkpoint`] where CRIU is missing, too old, or fails, or
    /// where the images want of the host what `config.json` does not give. Then nothing is left of the container.
    pub fn restore(
        &self,
        id: &str,
        options: &RestoreOptions,
        create: &CreateOptions,
    ) -> Result<Running, Error> {
        crate::state::check_id(id)?;
        let images = Images::open(&options.image_path)?;
        images.check_entries()?;
        let work = options.work_path.as_deref().map(Images::create).transpose()?;
        let prepared = self.prepare(id, create, false)?;
        let console_socket = create
            .terminal_socket
            .as_deref()
            .map(|path| super::connect(path, "connecting to the console socket"))
            .transpose()?;
        let rootfs = prepared.rootfs();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&rootfs, flags, Mode::empty()).map_err(|e| Error::File {
            action: "opening",
            path: rootfs.clone(),
            source: e.into(),
        })?;
        let job =
            Restoring { prepared: &prepared, options, create, images, work, rootfs, root, console_socket };
        let wanted = job.options()?;
        let dir = ContainerDir::claim(&self.root, id)?;
        let result = job.restore(self, &dir, wanted);
        if result.is_err() {
            // The first error is the one that counts; what cannot be removed now is found by the next delete.
            self.undo(&dir).unwrap_or(());
        }
        result
    }
}

struct Restoring<'a> {
    prepared: &'a Prepared,
    options: &'a RestoreOptions,
    create: &'a CreateOptions,
    images: Images,
    work: Option<Images>,
    rootfs: PathBuf,
    root: OwnedFd,
    console_socket: Option<OwnedFd>,
}

impl Restoring<'_> {
    /// What can be said before anything is made: here the images are held against config.json.
    fn options(&self) -> Result<Options, Error> {
        let Prepared { bundle, location, .. } = self.prepared;
        let spec = &bundle.config.spec;
        let given = self.options;
        let bound = checkpoint::bound(spec, &bundle.dir, location.as_ref());
        let external_mounts = checkpoint::mounts_for_restore(
            self.root.as_fd(),
            &bound,
            &checkpoint::masked(spec),
            &self.images.mounts()?,
            &self.images.path,
        )?;
        Ok(Options {
            ext_unix_sk: given.ext_unix_sk,
            tcp_established: given.tcp_established,
            evasive_devices: true,
            shell_job: given.shell_job,
            file_locks: given.file_locks,
            auto_dedup: given.auto_dedup,
            lazy_pages: given.lazy_pages,
            log_file: LOG,
            external_mounts,
            cgroup_mode: Some(checkpoint::cgroup_mode(given.manage_cgroups_mode, location.is_some())),
            restore_as_sibling: true,
            empty_namespaces: if given.empty_network_ns { libc::CLONE_NEWNET as u32 } else { 0 },
            config_file: checkpoint::config_file(spec.annotations().iter().flatten())?,
            lsm_profile: given.lsm_profile.clone(),
            lsm_mount_context: given.lsm_mount_context.clone(),
            ..Options::default()
        })
    }

    fn restore(&self, runtime: &Runtime, dir: &ContainerDir, mut wanted: Options) -> Result<Running, Error> {
        let bundle = &self.prepared.bundle;
        let spec = &bundle.config.spec;
        let mut record = self.prepared.record(dir.id());
        let mut cgroup = self.prepared.begin(dir, &mut record)?;
        checkpoint::make_targets(self.root.as_fd(), spec, &bundle.dir)?;

        let tree = sys::detached_clone(&self.rootfs, true).map_err(|source| Error::File {
            action: "cloning the mount of",
            path: self.rootfs.clone(),
            source,
        })?;
        let cover = runtime.root.join(dir.id());
        let cover = cover.canonicalize().map_err(|source| Error::File {
            action: "resolving",
            path: cover.clone(),
            source,
        })?;
        let place = Place { cover: &cover, tree, images: &self.images, work: self.work.as_ref() };
        wanted.root = place.root().as_os_str().as_bytes().to_vec();
        let mut streams = Vec::new();
        for inherited in self.images.streams()? {
            let stream = inherited.open()?;
            wanted.inherit_fds.push((inherited.key, stream.as_raw_fd()));
            streams.push(stream);
        }
        let joined = checkpoint::namespaces_for_restore(spec)?;
        wanted.inherit_fds.extend(joined.inherit);
        wanted.join_namespaces = joined.by_path;

        let keep = streams.iter().chain(&joined.fds).map(AsFd::as_fd).collect();
        let start = Start { keep, own_streams: self.options.shell_job };
        let (mut criu, placed) = start_in(&place, start)?;
        wanted.images_dir_fd = placed.images.fd.as_raw_fd();
        wanted.work_dir_fd = placed.work.as_ref().map(|w| w.fd.as_raw_fd());
        let version = criu.checked_version()?;
        checkpoint::check_version(spec, version)?;
        if self.options.lsm_profile.is_some() || self.options.lsm_mount_context.is_some() {
            checkpoint::require_version(version, LSM, "--lsm-profile and --lsm-mount-context")?;
        }
        // CRIU is in the container's cgroup while it makes the processes: so are they, from the start.
        self.prepared.enter(cgroup.as_mut(), &record, criu.pid())?;
        if cgroup.is_some() {
            wanted.cgroup_roots = cgroups_of(criu.pid())?;
        }

        let mut console = None;
        let notified = |event: Notification| -> Result<(), Stop> {
            match event.script.as_str() {
                "setup-namespaces" => super::create::host_hooks(spec, &record, event.pid)?,
                // Its processes are there, and still stopped.
                "post-restore" => {
                    record.pid = event.pid;
                    record.start_time_ticks = start_time_ticks(event.pid)?;
                    dir.save(&record)?;
                }
                "orphan-pts-master" => match (&self.console_socket, event.fd) {
                    (Some(socket), Some(master)) => send_master(socket, master.as_fd())?,
                    (None, master) => console = master,
                    (Some(_), None) => {}
                },
                _ => {}
            }
            Ok(())
        };
        let logs = self.work.as_ref().unwrap_or(&self.images);
        let answer = criu
            .work(Kind::Restore, &wanted, notified)
            .map_err(|stop: Stop| stop.explain(Kind::Restore, logs, LOG))?;
        drop(criu);
        let pid = answer.restored.unwrap_or(record.pid);
        self.settle(dir, &mut record, pid, console)
    }

    /// The container runs: its pid is told to everybody who asked.
    fn settle(
        &self,
        dir: &ContainerDir,
        record: &mut Record,
        pid: i32,
        console: Option<OwnedFd>,
    ) -> Result<Running, Error> {
        let system = |e: rustix::io::Errno| Error::System { action: "opening a pidfd", source: e.into() };
        let process =
            rustix::process::Pid::from_raw(pid).ok_or(Error::NotRunning { id: record.id.clone() })?;
        let pidfd =
            rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty()).map_err(system)?;
        if record.pid != pid {
            record.pid = pid;
            record.start_time_ticks = start_time_ticks(pid)?;
            dir.save(record)?;
        }
        self.note_time_namespace(dir, pid)?;
        if let Some(path) = &self.create.pid_file {
            super::write_pid_file(path, pid)?;
        }
        if let Some(path) = &self.create.pidfd_socket {
            super::send_pidfd(path, pidfd.as_fd())?;
        }
        let console = console.filter(|_| self.create.foreground);
        let Prepared { bundle, limits, .. } = self.prepared;
        let mut warnings = bundle.config.warnings.clone();
        warnings.extend_from_slice(limits.ignored());
        Ok(Running { pid, pidfd, console, notify: None, warnings })
    }

    /// CRIU restores into a time namespace, so that clocks go on from where they were: a later exec has to join it.
    fn note_time_namespace(&self, dir: &ContainerDir, pid: i32) -> Result<(), Error> {
        use oci_spec::runtime::LinuxNamespaceType;
        let namespaces =
            self.prepared.bundle.config.spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
        if namespaces.into_iter().flatten().any(|n| n.typ() == LinuxNamespaceType::Time) {
            return Ok(());
        }
        let inode = |who: &str| rustix::fs::stat(format!("/proc/{who}/ns/time")).map(|stat| stat.st_ino);
        match (inode(&pid.to_string()), inode("self")) {
            (Ok(its), Ok(ours)) if its != ours => {}
            // The same, or a kernel without them.
            _ => return Ok(()),
        }
        let mut config: serde_json::Value = match serde_json::from_slice(&self.prepared.bundle.bytes) {
            Ok(config) => config,
            // It has been parsed before.
            Err(_) => return Ok(()),
        };
        if let Some(list) = config.pointer_mut("/linux/namespaces").and_then(|l| l.as_array_mut()) {
            list.push(serde_json::json!({ "type": "time" }));
            dir.save_config(config.to_string().as_bytes())?;
        }
        Ok(())
    }
}

/// Starts CRIU in a mount namespace of its own.
fn start_in(place: &Place<'_>, start: Start<'_>) -> Result<(Criu, Placed), Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .spawn_scoped(scope, || {
                let placed = place.enter()?;
                Ok::<_, checkpoint::Error>((Criu::start(start)?, placed))
            })
            .map_err(|source| Error::System { action: "starting a thread", source })?;
        match thread.join() {
            Ok(started) => started.map_err(Error::from),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Controller and path of each cgroup of a process.
fn cgroups_of(pid: i32) -> Result<Vec<(String, String)>, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text =
        std::fs::read_to_string(&path).map_err(|source| Error::File { action: "reading", path, source })?;
    let lines = text.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        Some(controllers.split(',').map(|c| (c.to_owned(), path.to_owned())))
    });
    Ok(lines.flatten().collect())
}

fn send_master(socket: &OwnedFd, master: BorrowedFd<'_>) -> Result<(), Error> {
    sys::send_with_fd(socket, MASTER, master)
        .map_err(|source| Error::System { action: "sending the terminal to the console socket", source })
}
