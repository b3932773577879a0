//! User and group id mappings: user namespaces for id-mapped mounts, and the maps of a container's own.
//!
//! A mapping is written by this process if it may do so, otherwise by `newuidmap` and `newgidmap`, which
//! consult `/etc/subuid` and `/etc/subgid`. A caller who maps just their own id needs no helper: then
//! `setgroups` is denied in the namespace, which is what the kernel demands (user_namespaces(7)).
//!
//! Specification: config-linux.md, "User namespace mappings"; config.md, `uidMappings` of mounts.

mod sys;

use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};

/// The kernel takes a map in one write of less than a page.
const MAX_MAP_BYTES: usize = 4095;

/// The most that is read of `/etc/subuid` and `/etc/passwd`, for the text of an error.
const MAX_TABLE_BYTES: u64 = 1 << 20;

/// Which ids a map is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// User ids.
    Users,
    /// Group ids.
    Groups,
}

impl Ids {
    fn map_file(self) -> &'static str {
        match self {
            Ids::Users => "uid_map",
            Ids::Groups => "gid_map",
        }
    }

    fn helper(self) -> &'static str {
        match self {
            Ids::Users => "newuidmap",
            Ids::Groups => "newgidmap",
        }
    }

    fn table(self) -> &'static str {
        match self {
            Ids::Users => "/etc/subuid",
            Ids::Groups => "/etc/subgid",
        }
    }
}

/// Why ids could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No process with a new user namespace could be made.
    #[error("make a user namespace")]
    Clone(#[source] io::Error),
    /// The user namespace of the helper process cannot be opened.
    #[error("open the user namespace {}", path.display())]
    Open {
        /// The namespace file.
        path: PathBuf,
        /// What the kernel said.
        source: rustix::io::Errno,
    },
    /// A map has no entries, so that nothing would be mapped.
    #[error("{map} of process {pid} would be empty", map = ids.map_file())]
    Empty {
        /// Which map.
        ids: Ids,
        /// The process.
        pid: u32,
    },
    /// A map is longer than what the kernel takes in one write.
    #[error("{map} has {bytes} bytes, more than the {MAX_MAP_BYTES} that the kernel takes", map = ids.map_file())]
    TooLong {
        /// Which map.
        ids: Ids,
        /// Its length in bytes.
        bytes: usize,
    },
    /// The kernel refused a map, or that `setgroups` is denied.
    #[error("write {} ({})", path.display(), content.trim_end().replace('\n', ", "))]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        content: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// More than the caller's own id is to be mapped, and the helper that may do so is not installed.
    #[error(
        "{program} is not in PATH: without it an unprivileged user can map nothing but their own id ({count} \
         entries in the mapping)"
    )]
    NoHelper {
        /// The name of the helper.
        program: &'static str,
        /// The number of entries in the mapping.
        count: usize,
    },
    /// The helper could not be run.
    #[error("run {}", program.display())]
    Helper {
        /// The helper's path.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The helper refused the mapping.
    #[error("{} refused the mapping: {message} ({allowed})", program.display())]
    Refused {
        /// The helper's path.
        program: PathBuf,
        /// What it wrote.
        message: String,
        /// What `/etc/subuid` or `/etc/subgid` allows.
        allowed: Allowed,
    },
}

/// Ranges that a table of subordinate ids gives to the caller.
#[derive(Debug)]
pub struct Allowed {
    table: &'static str,
    user: u32,
    ranges: Vec<(u64, u64)>,
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ranges.is_empty() {
            return write!(f, "{} has nothing for user {}", self.table, self.user);
        }
        write!(f, "{} allows user {}", self.table, self.user)?;
        for (i, (first, count)) in self.ranges.iter().enumerate() {
            let separator = if i == 0 { " " } else { ", " };
            write!(f, "{separator}{first} to {}", first.saturating_add(count.saturating_sub(1)))?;
        }
        Ok(())
    }
}

/// A user namespace with the given mappings and no process in it, as `mount_setattr(2)` takes it for an
/// id-mapped mount. For a mount, `containerID` is the id on the filesystem and `hostID` the one that is seen.
///
/// A child process exists for the time of the call. It may be called by a thread of a threaded program.
///
/// # Errors
/// See [`Error`]; the caller needs the capability to map these ids.
pub fn user_namespace(uid: &[LinuxIdMapping], gid: &[LinuxIdMapping]) -> Result<OwnedFd, Error> {
    let holder = sys::Holder::new().map_err(Error::Clone)?;
    write_map(Ids::Users, holder.pid(), uid)?;
    write_map(Ids::Groups, holder.pid(), gid)?;
    let path = PathBuf::from(format!("/proc/{}/ns/user", holder.pid()));
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|source| Error::Open { path, source })
}

/// Writes the maps of the user namespace of process `pid`, a child of the caller that has not been reaped.
///
/// `privileged` says that the caller has CAP_SETUID and CAP_SETGID in the parent of that namespace. Without
/// that, a map of just the caller's own id is written directly, and any other by `newuidmap` or `newgidmap`.
///
/// # Errors
/// See [`Error`].
pub fn write_maps(
    pid: u32,
    uid: &[LinuxIdMapping],
    gid: &[LinuxIdMapping],
    privileged: bool,
) -> Result<(), Error> {
    let path = std::env::var_os("PATH");
    write_maps_with(pid, uid, gid, privileged, path.as_deref().unwrap_or(OsStr::new("/usr/bin:/bin")))
}

fn write_maps_with(
    pid: u32,
    uid: &[LinuxIdMapping],
    gid: &[LinuxIdMapping],
    privileged: bool,
    search: &OsStr,
) -> Result<(), Error> {
    if privileged {
        write_map(Ids::Users, pid, uid)?;
        return write_map(Ids::Groups, pid, gid);
    }
    if is_own(uid, rustix::process::geteuid().as_raw()) {
        write_map(Ids::Users, pid, uid)?;
    } else {
        run_helper(Ids::Users, pid, uid, search)?;
    }
    if is_own(gid, rustix::process::getegid().as_raw()) {
        write_file(format!("/proc/{pid}/setgroups").into(), "deny".to_owned())?;
        write_map(Ids::Groups, pid, gid)
    } else {
        run_helper(Ids::Groups, pid, gid, search)
    }
}

/// Whether a mapping is of a single id, the caller's.
fn is_own(mappings: &[LinuxIdMapping], id: u32) -> bool {
    matches!(mappings, [only] if only.size() == 1 && only.host_id() == id)
}

fn write_map(ids: Ids, pid: u32, mappings: &[LinuxIdMapping]) -> Result<(), Error> {
    if mappings.is_empty() {
        return Err(Error::Empty { ids, pid });
    }
    let mut content = String::new();
    for m in mappings {
        content.push_str(&format!("{} {} {}\n", m.container_id(), m.host_id(), m.size()));
    }
    if content.len() > MAX_MAP_BYTES {
        return Err(Error::TooLong { ids, bytes: content.len() });
    }
    write_file(format!("/proc/{pid}/{}", ids.map_file()).into(), content)
}

fn write_file(path: PathBuf, content: String) -> Result<(), Error> {
    let written =
        OpenOptions::new().write(true).open(&path).and_then(|mut f| f.write_all(content.as_bytes()));
    written.map_err(|source| Error::Write { path, content, source })
}

fn run_helper(ids: Ids, pid: u32, mappings: &[LinuxIdMapping], search: &OsStr) -> Result<(), Error> {
    if mappings.is_empty() {
        return Err(Error::Empty { ids, pid });
    }
    let program =
        find(ids.helper(), search).ok_or(Error::NoHelper { program: ids.helper(), count: mappings.len() })?;
    let mut command = Command::new(&program);
    command.arg(pid.to_string()).env_clear().stdin(Stdio::null());
    for m in mappings {
        command.args([m.container_id().to_string(), m.host_id().to_string(), m.size().to_string()]);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(source) => return Err(Error::Helper { program, source }),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let message = if said.trim().is_empty() { output.status.to_string() } else { said.trim().to_owned() };
    Err(Error::Refused { program, message, allowed: allowed(ids) })
}

/// The first executable of that name in the absolute directories of a search path.
fn find(name: &str, search: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(search).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(|path| {
        path.is_file() && rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
    })
}

/// What the table of subordinate ids has for the caller, for the text of an error.
fn allowed(ids: Ids) -> Allowed {
    let user = rustix::process::getuid().as_raw();
    let name = table(Path::new("/etc/passwd")).and_then(|passwd| user_name(&passwd, user));
    let ranges = table(Path::new(ids.table()))
        .map(|text| sub_id_ranges(&text, user, name.as_deref()))
        .unwrap_or_default();
    Allowed { table: ids.table(), user, ranges }
}

fn table(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(MAX_TABLE_BYTES).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn user_name(passwd: &str, user: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then(|| name.to_owned())
    })
}

/// The ranges, first id and count, that a table in the format of subuid(5) has for a user.
fn sub_id_ranges(table: &str, user: u32, name: Option<&str>) -> Vec<(u64, u64)> {
    let number = user.to_string();
    let entry = |line: &str| {
        let (owner, range) = line.split_once(':')?;
        let (first, count) = range.split_once(':')?;
        (Some(owner) == name || owner == number).then(|| first.parse().ok().zip(count.trim().parse().ok()))?
    };
    table.lines().filter_map(entry).collect()
}

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIdMappingBuilder;
    use std::os::fd::AsRawFd;

    fn mapping(container: u32, host: u32, size: u32) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build().unwrap()
    }

    /// Whether the test may go on; tells what is skipped if not.
    fn root(test: &str) -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            eprintln!("SKIPPED {test}: needs root");
        }
        root
    }

    /// What a process inside a user namespace reads from its map.
    fn seen_inside(namespace: &OwnedFd, file: &str) -> String {
        let path = format!("--user=/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        let output =
            Command::new("nsenter").args([&path, "--preserve-credentials", "cat", file]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn namespace_with_maps_and_nothing_left() {
        if !root("namespace_with_maps_and_nothing_left") {
            return;
        }
        let uid = [mapping(0, 1000, 10), mapping(10, 5000, 1)];
        let namespace = user_namespace(&uid, &[mapping(0, 2000, 3)]).unwrap();
        assert_eq!(seen_inside(&namespace, "/proc/self/uid_map"), "0 1000 10 10 5000 1");
        assert_eq!(seen_inside(&namespace, "/proc/self/gid_map"), "0 2000 3");
    }

    #[test]
    fn from_many_threads_that_allocate() {
        if !root("from_many_threads_that_allocate") {
            return;
        }
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        std::hint::black_box(vec![0u8; 10_000]);
                    }
                });
            }
            let makers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..25 {
                            user_namespace(&[mapping(0, 7, 1)], &[mapping(0, 7, 1)]).unwrap();
                        }
                    })
                })
                .collect();
            let results: Vec<_> = makers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(results.iter().all(Result::is_ok));
        });
    }

    #[test]
    fn a_dropped_holder_is_reaped() {
        let holder = sys::Holder::new().unwrap();
        let pid = holder.pid();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(holder);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn own_id_without_helper_denies_setgroups() {
        let holder = sys::Holder::new().unwrap();
        let pid = holder.pid();
        let uid = [mapping(0, rustix::process::geteuid().as_raw(), 1)];
        let gid = [mapping(0, rustix::process::getegid().as_raw(), 1)];
        write_maps_with(pid, &uid, &gid, false, OsStr::new("")).unwrap();
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        assert_eq!(read("setgroups").trim(), "deny");
        assert_eq!(read("uid_map").split_whitespace().last(), Some("1"));
    }

    #[test]
    fn helpers_get_pid_and_triples() {
        let dir = std::env::temp_dir().join(format!("dhow-test-idmap-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let log = dir.join("log");
        // Written by another process: a file that some thread's child still has open cannot be executed.
        let install = |name: &str, script: &str| {
            let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" >\"$1\" && chmod 755 \"$1\"";
            let path = dir.join(name);
            let status = Command::new("sh").args(["-c", write, "sh"]).arg(path).arg(script).status().unwrap();
            assert!(status.success());
        };
        install("newuidmap", &format!("echo newuidmap \"$@\" >>{}", log.display()));
        install("newgidmap", &format!("echo newgidmap \"$@\" >>{}", log.display()));
        let holder = sys::Holder::new().unwrap();
        let pid = holder.pid();
        let uid = [mapping(0, 1000, 1), mapping(1, 100_000, 65_536)];
        write_maps_with(pid, &uid, &[mapping(0, 5, 2)], false, dir.as_os_str()).unwrap();
        let said = std::fs::read_to_string(&log).unwrap();
        assert_eq!(said, format!("newuidmap {pid} 0 1000 1 1 100000 65536\nnewgidmap {pid} 0 5 2\n"));

        install("newgidmap", "echo not allowed >&2; exit 1");
        let refused = write_maps_with(pid, &uid, &[mapping(0, 5, 2)], false, dir.as_os_str()).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("newgidmap refused the mapping: not allowed (/etc/subgid"), "{text}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_missing_helper_is_named() {
        let two = [mapping(0, 0, 1), mapping(1, 1, 1)];
        let missing = write_maps_with(1, &two, &two, false, OsStr::new("relative:/nonexistent")).unwrap_err();
        assert!(missing.to_string().starts_with("newuidmap is not in PATH"), "{missing}");
    }

    #[test]
    fn maps_that_cannot_be() {
        assert!(matches!(write_map(Ids::Users, 1, &[]), Err(Error::Empty { .. })));
        let many = vec![mapping(1_000_000, 1_000_000, 1_000_000); 300];
        assert!(matches!(write_map(Ids::Groups, 1, &many), Err(Error::TooLong { .. })));
        let refused = user_namespace(&[mapping(0, 0, 2), mapping(1, 5, 1)], &[mapping(0, 0, 1)]).unwrap_err();
        assert!(refused.to_string().ends_with("uid_map (0 0 2, 1 5 1)"), "{refused}");
    }

    #[test]
    fn tables() {
        let passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(user_name(passwd, 7), None);
        let table = "# comment\nann:100000:65536\n1000:300000:10\nbob:1:1\nann:x:1\n";
        let ranges = sub_id_ranges(table, 1000, Some("ann"));
        assert_eq!(ranges, [(100_000, 65_536), (300_000, 10)]);
        let allowed = Allowed { table: "/etc/subuid", user: 1000, ranges };
        assert_eq!(allowed.to_string(), "/etc/subuid allows user 1000 100000 to 165535, 300000 to 300009");
    }
}
