//! What the verbs take and give.

use crate::error::Mistake;
use crate::notify::Notify;
use oci_spec::runtime::Process;
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Rows and columns of a terminal, if there is one.
pub type AskSize = fn() -> Option<(u16, u16)>;

/// How a container is created.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// The directory of `config.json`, absolute.
    pub bundle: PathBuf,
    /// Where to send the master of the terminal.
    pub terminal_socket: Option<PathBuf>,
    /// The caller stays; it gets the master of the terminal.
    pub foreground: bool,
    /// How to ask for the rows and columns of the caller's terminal, in place of `process.consoleSize`; asked only for
    /// a container with a terminal.
    pub console_size: Option<AskSize>,
    /// Where to write the pid.
    pub pid_file: Option<PathBuf>,
    /// Where to send a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// How many descriptors after stdio and `listen_fds` to pass on.
    pub preserve_fds: u32,
    /// Use MS_MOVE and chroot.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors from 3 on are sockets of systemd.
    pub listen_fds: u32,
    /// The `NOTIFY_SOCKET` of the caller.
    pub notify_socket: Option<PathBuf>,
}

/// How a process is started in a container.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// The process, complete.
    pub process: Process,
    /// The caller does not wait.
    pub detach: bool,
    /// Where to send the master of the terminal.
    pub terminal_socket: Option<PathBuf>,
    /// The caller stays; it gets the master of the terminal.
    pub foreground: bool,
    /// Where to write the pid.
    pub pid_file: Option<PathBuf>,
    /// Where to send a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// How many descriptors after stdio to pass on.
    pub preserve_fds: u32,
    /// Cgroups below the container's own, by controller; on version 2 the controller is the empty string.
    pub cgroup: BTreeMap<String, String>,
    /// Also in a frozen container.
    pub ignore_paused: bool,
}

/// A process that was started.
#[derive(Debug)]
pub struct Running {
    /// Its pid in the caller's namespace.
    pub pid: i32,
    /// It, whatever happens to the number.
    pub pidfd: OwnedFd,
    /// The master of its terminal, in the foreground.
    pub console: Option<OwnedFd>,
    /// The proxy of sd_notify(3): the caller has to forward or wait.
    pub notify: Option<Notify>,
    /// What of the config is ignored or deprecated.
    pub warnings: Vec<Mistake>,
}

/// What is known of a container.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the specification.
    pub oci_version: String,
    /// Its id.
    pub id: String,
    /// Pid of its first process, 0 when stopped.
    pub pid: i32,
    /// creating, created, running, paused or stopped.
    pub status: String,
    /// The bundle.
    pub bundle: PathBuf,
    /// The root filesystem.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The annotations of its config.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The user who owns the state.
    pub owner: String,
}

/// What `update` changes beside cgroups.
#[derive(Clone, Debug, Default)]
pub struct Rdt {
    /// The `L3:` lines.
    pub l3_cache_schema: Option<String>,
    /// The `MB:` line.
    pub mem_bw_schema: Option<String>,
}

/// How cgroups are treated by CRIU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupsMode {
    /// Restore properties of those that CRIU made.
    Soft,
    /// Restore all, those that exist too.
    Full,
    /// Restore all, fail if one exists.
    Strict,
    /// Leave them alone.
    Ignore,
}

/// How a checkpoint is taken.
#[derive(Clone, Debug, Default)]
pub struct CheckpointOptions {
    /// Where the images go.
    pub image_path: PathBuf,
    /// Where logs go.
    pub work_path: Option<PathBuf>,
    /// Images of an earlier pre-dump, relative to `image_path`.
    pub parent_path: Option<PathBuf>,
    /// Do not stop the container.
    pub leave_running: bool,
    /// Open TCP connections are allowed.
    pub tcp_established: bool,
    /// Connections in the making are left out.
    pub tcp_skip_in_flight: bool,
    /// Unlinked files are linked back.
    pub link_remap: bool,
    /// External Unix sockets are allowed.
    pub ext_unix_sk: bool,
    /// Shell jobs are allowed.
    pub shell_job: bool,
    /// Pages are served later.
    pub lazy_pages: bool,
    /// CRIU writes a zero byte here when it is ready to serve pages.
    pub status_fd: Option<i32>,
    /// Address and port of a page server.
    pub page_server: Option<(String, u16)>,
    /// File locks are kept.
    pub file_locks: bool,
    /// Memory only; the container goes on.
    pub pre_dump: bool,
    /// Cgroups.
    pub manage_cgroups_mode: Option<CgroupsMode>,
    /// Network namespaces are made empty.
    pub empty_network_ns: bool,
    /// Memory images are deduplicated.
    pub auto_dedup: bool,
}

/// How a checkpoint is restored.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// Where the images are.
    pub image_path: PathBuf,
    /// Where logs go.
    pub work_path: Option<PathBuf>,
    /// Open TCP connections are allowed.
    pub tcp_established: bool,
    /// External Unix sockets are allowed.
    pub ext_unix_sk: bool,
    /// Shell jobs are allowed.
    pub shell_job: bool,
    /// File locks are kept.
    pub file_locks: bool,
    /// Cgroups.
    pub manage_cgroups_mode: Option<CgroupsMode>,
    /// Network namespaces are made empty.
    pub empty_network_ns: bool,
    /// Memory images are deduplicated.
    pub auto_dedup: bool,
    /// Pages are fetched later.
    pub lazy_pages: bool,
    /// `TYPE:NAME` of a security profile.
    pub lsm_profile: Option<String>,
    /// SELinux context of mounts.
    pub lsm_mount_context: Option<String>,
}
