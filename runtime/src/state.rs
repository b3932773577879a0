//! A container's state on disk: `<root>/<id>/` with `state.json`, `config.json` and `start.fifo`.
//!
//! The directory is made first: mkdir claims the id. `state.json` is written to a temporary name and renamed; it
//! names the cgroups before any of them is made, so that a delete after a crash at any point finds everything.
//! `config.json` is the bundle's as it was at create. `start.fifo` is there as long as the container waits for
//! `start`. The directory lies on a tmpfs (a reboot cleans it), so nothing is synced.
//!
//! Lock rule: whoever changes a container holds an exclusive flock on the directory itself; readers hold none,
//! since a rename is all they can see.

use crate::cgroup::Location;
use crate::error::Error;
use crate::notify::{self, Notify};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, mkdir, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Version of `state.json`.
const VERSION: u32 = 1;
const STATE: &str = "state.json";
const STATE_NEW: &str = ".state.json.new";
/// The bundle's config as it was at create.
const CONFIG: &str = "config.json";
/// The gate between create and start.
pub(crate) const FIFO: &str = "start.fifo";
/// How long a verb waits for another one that works on the same container.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// What is remembered of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// `ociVersion` of the state: the version of the specification that the runtime keeps to.
    pub oci_version: String,
    /// The id.
    pub id: String,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The root filesystem, absolute.
    pub rootfs: PathBuf,
    /// When it was created: RFC 3339.
    pub created: String,
    /// The user who created it.
    pub owner_uid: u32,
    /// Annotations of the config.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Pid of its init in the runtime's pid namespace; 0 before there is one.
    pub pid: i32,
    /// When that process started, in clock ticks since boot: together with the pid it is never used again.
    pub start_time_ticks: u64,
    /// Where its cgroups are, or will be.
    pub cgroup: Option<Location>,
    /// Whether the container has a pid namespace of its own: then the end of its init is the end of all.
    pub own_pid_namespace: bool,
    /// Whether start has hooks to run.
    pub has_poststart: bool,
    /// Whether delete has hooks to run.
    pub has_poststop: bool,
    /// The step of its plan that is the first startContainer hook, if there is one: start waits for these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_start_hook: Option<u32>,
    /// Its groups in resctrl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<crate::rdt::Group>,
}

/// A container's directory, opened.
pub(crate) struct ContainerDir {
    id: String,
    path: PathBuf,
    fd: OwnedFd,
}

/// Whether `id` can name a container: runc's characters, and a name that a directory can have.
pub(crate) fn check_id(id: &str) -> Result<(), Error> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    let only_dots = id.chars().all(|c| c == '.');
    if id.is_empty() || id.len() > 255 || only_dots || !id.chars().all(legal) {
        return Err(Error::InvalidId { id: id.to_owned() });
    }
    Ok(())
}

impl ContainerDir {
    fn file_error(&self, action: &'static str, name: &str) -> impl Fn(Errno) -> Error {
        let path = self.path.join(name);
        move |e| Error::File { action, path: path.clone(), source: e.into() }
    }

    /// Claims the id: makes its directory, locked.
    pub(crate) fn claim(root: &Path, id: &str) -> Result<ContainerDir, Error> {
        check_id(id)?;
        let path = root.join(id);
        let failed = |action, e: Errno| Error::File { action, path: path.clone(), source: e.into() };
        let mode = Mode::from_raw_mode(0o700);
        let mut made = mkdir(&path, mode);
        if made == Err(Errno::NOENT) {
            std::fs::DirBuilder::recursive(&mut std::fs::DirBuilder::new(), true)
                .create(root)
                .map_err(|source| Error::File { action: "making", path: root.to_path_buf(), source })?;
            rustix::fs::chmod(root, mode).map_err(|e| failed("making", e))?;
            made = mkdir(&path, mode);
        }
        match made {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Error::Exists { id: id.to_owned() }),
            Err(e) => return Err(failed("making", e)),
        }
        let dir = ContainerDir::open(root, id)?;
        dir.lock()?;
        Ok(dir)
    }

    /// Opens the directory of an existing container.
    pub(crate) fn open(root: &Path, id: &str) -> Result<ContainerDir, Error> {
        check_id(id)?;
        let path = root.join(id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => Ok(ContainerDir { id: id.to_owned(), path, fd }),
            // What is no directory is no container.
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Error::NotFound { id: id.to_owned() }),
            Err(e) => Err(Error::File { action: "opening", path, source: e.into() }),
        }
    }

    /// Takes the lock; held until the directory is closed.
    pub(crate) fn lock(&self) -> Result<(), Error> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(Errno::WOULDBLOCK) => return Err(Error::Busy { id: self.id.clone() }),
                Err(Errno::INTR) => {}
                Err(e) => return Err(self.file_error("locking", "")(e)),
            }
        }
        // Whoever held it may have removed the directory.
        let links = rustix::fs::fstat(&self.fd).map_err(self.file_error("checking", ""))?.st_nlink;
        if links == 0 { Err(Error::NotFound { id: self.id.clone() }) } else { Ok(()) }
    }

    /// Whether somebody works on the container right now.
    pub(crate) fn is_locked(&self) -> bool {
        match flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
            // Given back at once: a question must not keep a verb waiting.
            Ok(()) => flock(&self.fd, FlockOperation::Unlock).is_err(),
            Err(e) => e == Errno::WOULDBLOCK,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Makes the directory of the socket of sd_notify.
    pub(crate) fn make_notify(&self) -> Result<(), Error> {
        notify::make_directory(self.fd.as_fd(), &self.path)
    }

    /// The proxy of sd_notify, if the container was created with one.
    pub(crate) fn open_notify(&self, supervisor: &Path) -> Result<Option<Notify>, Error> {
        Notify::open(self.fd.as_fd(), &self.path, supervisor)
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(self.file_error("opening", name)(e)),
        };
        let mut bytes = Vec::new();
        let mut chunk = [0u8; 16384];
        loop {
            match rustix::io::read(&fd, &mut chunk) {
                // Written whole under another name and renamed: a short read is the end.
                Ok(n) if n < chunk.len() => {
                    bytes.extend_from_slice(&chunk[..n]);
                    return Ok(Some(bytes));
                }
                Ok(n) => bytes.extend_from_slice(&chunk[..n]),
                Err(Errno::INTR) => {}
                Err(e) => return Err(self.file_error("reading", name)(e)),
            }
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.fd, name, flags, Mode::from_raw_mode(0o600))
            .map_err(self.file_error("making", name))?;
        File::from(fd).write_all(bytes).map_err(|source| Error::File {
            action: "writing",
            path: self.path.join(name),
            source,
        })
    }

    /// The record; nothing if its creator died before it wrote one.
    pub(crate) fn record(&self) -> Result<Option<Record>, Error> {
        let Some(bytes) = self.read(STATE)? else { return Ok(None) };
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).map_err(|source| Error::State {
            id: self.id.clone(),
            path: self.path.join(STATE),
            source,
        })
    }

    /// Writes the record.
    pub(crate) fn save(&self, record: &Record) -> Result<(), Error> {
        let bytes = serde_json::to_vec(record).map_err(|source| Error::State {
            id: self.id.clone(),
            path: self.path.join(STATE),
            source,
        })?;
        self.write(STATE_NEW, &bytes)?;
        renameat(&self.fd, STATE_NEW, &self.fd, STATE).map_err(self.file_error("renaming", STATE))
    }

    /// Keeps the config for exec, update and the hooks of delete: the bundle may change or go.
    pub(crate) fn save_config(&self, bytes: &[u8]) -> Result<(), Error> {
        self.write(CONFIG, bytes)
    }

    /// The config that was kept.
    pub(crate) fn config(&self) -> Result<Vec<u8>, Error> {
        self.read(CONFIG)?.ok_or_else(|| self.file_error("reading", CONFIG)(Errno::NOENT))
    }

    /// Where it is, for messages.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// Makes the gate and opens it for the child: for reading and writing, so that a wait for a byte is a read
    /// that blocks, and so that `start` finds a reader exactly as long as the child lives.
    pub(crate) fn make_gate(&self) -> Result<OwnedFd, Error> {
        crate::sys::make_fifo(self.fd.as_fd(), FIFO, 0o600).map_err(|source| Error::File {
            action: "making",
            path: self.path.join(FIFO),
            source,
        })?;
        openat(&self.fd, FIFO, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(self.file_error("opening", FIFO))
    }

    /// Whether the container still waits for start.
    pub(crate) fn has_gate(&self) -> bool {
        rustix::fs::statat(&self.fd, FIFO, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Lets the child go on. False if nobody waits behind the gate: the child is dead, or has passed it.
    pub(crate) fn open_gate(&self) -> Result<bool, Error> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match openat(&self.fd, FIFO, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NXIO) => return Ok(false),
            Err(e) => return Err(self.file_error("opening", FIFO)(e)),
        };
        rustix::io::write(&fd, b"s").map_err(self.file_error("writing", FIFO))?;
        Ok(true)
    }

    /// The gate's other end, for [`hear_gate`]: opened before the child is let through.
    pub(crate) fn listen_at_gate(&self) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.fd, FIFO, flags, Mode::empty()).map_err(self.file_error("opening", FIFO))
    }

    /// Takes the gate away: the container is running.
    pub(crate) fn remove_gate(&self) -> Result<(), Error> {
        self.unlink(FIFO)
    }

    fn unlink(&self, name: &str) -> Result<(), Error> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.file_error("removing", name)(e)),
        }
    }

    /// The socket of sd_notify and its directory.
    fn unlink_notify(&self) -> Result<(), Error> {
        match unlinkat(&self.fd, notify::SOCKET, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(self.file_error("removing", notify::SOCKET)(e)),
        }
        match unlinkat(&self.fd, notify::DIRECTORY, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.file_error("removing", notify::DIRECTORY)(e)),
        }
    }

    /// Removes everything; the directory last, which frees the id.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        self.unlink(CONFIG)?;
        self.unlink(STATE)?;
        let mut removed = rustix::fs::rmdir(&self.path);
        if removed == Err(Errno::NOTEMPTY) {
            self.unlink(FIFO)?;
            self.unlink(STATE_NEW)?;
            self.unlink_notify()?;
            removed = rustix::fs::rmdir(&self.path);
        }
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.file_error("removing", "")(e)),
        }
    }
}

impl Record {
    /// The current version's record.
    pub(crate) fn version() -> u32 {
        VERSION
    }
}

/// Waits until the child's end of the gate is closed, by its execve or its end. Returns the failure that it left there:
/// the step and what went wrong. `start`'s own byte, if it is still there, means that the child was killed before.
pub(crate) fn hear_gate(gate: &OwnedFd) -> Result<Option<(u32, dhow_init::Fault)>, Error> {
    use rustix::event::{PollFd, PollFlags, poll};
    let failed = |e: Errno| Error::System { action: "waiting for startContainer hooks", source: e.into() };
    loop {
        // No readiness is asked for: what is in the gate is the child's to read. A hang-up comes in any case.
        match poll(&mut [PollFd::new(gate, PollFlags::empty())], None) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    let mut bytes = [0; dhow_init::MESSAGE_BYTES];
    let length = match rustix::io::read(gate, &mut bytes) {
        Ok(length) => length,
        Err(Errno::AGAIN) => 0,
        Err(e) => return Err(failed(e)),
    };
    match dhow_init::Message::decode(&bytes[..length]) {
        Some(dhow_init::Message::Failed { step, fault }) => Ok(Some((step, fault))),
        _ => Ok(None),
    }
}

/// A process as it is now: its state letter and start time, from `/proc/PID/stat`. Nothing if there is none.
///
/// # Errors
/// That it cannot be told: a process that cannot be looked at is not a process that has ended.
pub(crate) fn process_stat(pid: i32) -> Result<Option<(u8, u64)>, Error> {
    if pid <= 0 {
        return Ok(None);
    }
    let path = format!("/proc/{pid}/stat");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut buffer = [0u8; 1024];
    let read = rustix::io::retry_on_intr(|| rustix::fs::open(&path, flags, Mode::empty()))
        .and_then(|fd| rustix::io::retry_on_intr(|| rustix::io::read(&fd, &mut buffer[..])));
    let failed = |source| Error::File { action: "reading", path: path.clone().into(), source };
    let length = match read {
        Ok(length) => length,
        Err(Errno::NOENT | Errno::SRCH) => return Ok(None),
        Err(e) => return Err(failed(e.into())),
    };
    match parse_stat(&buffer[..length]) {
        Some(found) => Ok(Some(found)),
        None => Err(failed(std::io::ErrorKind::InvalidData.into())),
    }
}

fn parse_stat(text: &[u8]) -> Option<(u8, u64)> {
    // The second field is the program's name in parentheses, which may hold anything.
    let after = text.iter().rposition(|&b| b == b')')? + 2;
    let mut fields = text.get(after..)?.split(|&b| b == b' ');
    let state = *fields.next()?.first()?;
    let start = std::str::from_utf8(fields.nth(18)?).ok()?.parse().ok()?;
    Some((state, start))
}

/// The start time of a process that is known to be there.
///
/// # Errors
/// As [`process_stat`], and if it is not there.
pub(crate) fn start_time_ticks(pid: i32) -> Result<u64, Error> {
    let found = process_stat(pid)?.map(|(_, start)| start);
    found.ok_or_else(|| Error::File {
        action: "reading",
        path: format!("/proc/{pid}/stat").into(),
        source: std::io::ErrorKind::NotFound.into(),
    })
}

/// Whether the process with this pid is still the one that started then, and is more than a zombie.
///
/// # Errors
/// As [`process_stat`].
pub(crate) fn is_alive(pid: i32, start_time_ticks: u64) -> Result<bool, Error> {
    let found = process_stat(pid)?;
    Ok(found.is_some_and(|(state, start)| start == start_time_ticks && !matches!(state, b'Z' | b'X')))
}
