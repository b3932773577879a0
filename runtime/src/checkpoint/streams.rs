//! The standard streams of a container that lead outside: pipes, and files of the host. A restore replaces them by
//! the caller's streams, or by the null device if they were that.
//!
//! In `descriptors.json` a pipe is `pipe:[INODE]`, as in runc's, and a file `file[MOUNT:INODE]:PATH` with CRIU's name
//! for it; all else is a path that nobody needs. CRIU insists that a regular file has the size it had, so a container
//! that writes to one is restored only with that same file, opened for appending.

use super::error::Error;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, readlinkat, statat};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

const NULL: &str = "/dev/null";

/// The streams of a container in a dump.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    /// For `descriptors.json`.
    pub names: [String; 3],
    /// What CRIU must not look for in the container.
    pub external: BTreeSet<String>,
}

/// A stream that a restore gives to CRIU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inherited {
    /// Its name in the images.
    pub key: String,
    /// The caller's stream; none for the null device.
    pub number: Option<u8>,
}

/// What descriptors 0, 1 and 2 of init are. A pipe of which the container has both ends is its own affair, and empty
/// here: CRIU keeps it.
pub(crate) fn of_container(init: i32, pids: &[i32]) -> Streams {
    let mut names = [0, 1, 2].map(|fd| link(init, &fd.to_string()).unwrap_or_default());
    if names.iter().any(|name| name.starts_with("pipe:")) {
        let ends = pipe_ends(pids);
        for name in &mut names {
            if ends.get(name) == Some(&(READ | WRITE)) {
                name.clear();
            }
        }
    }
    let mut external = BTreeSet::new();
    let mounts = mounts_of(init);
    for (number, name) in names.iter_mut().enumerate() {
        if let Some(key) = outside_file(init, number, &mounts) {
            *name = format!("{key}:{name}");
            external.insert(key);
        }
    }
    Streams { names, external }
}

const READ: u32 = 0o400;
const WRITE: u32 = 0o200;

fn link(pid: i32, fd: &str) -> Option<String> {
    let target = readlinkat(CWD, format!("/proc/{pid}/fd/{fd}"), Vec::new()).ok()?;
    target.into_string().ok()
}

/// Which ends of pipes these processes have. The permissions of /proc's links are those of the descriptors.
/// Processes that end meanwhile have none.
fn pipe_ends(pids: &[i32]) -> BTreeMap<String, u32> {
    let mut ends = BTreeMap::new();
    for &pid in pids {
        let Ok(list) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for fd in list.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let Some(name) = link(pid, &fd).filter(|name| name.starts_with("pipe:")) else { continue };
            let path = format!("/proc/{pid}/fd/{fd}");
            if let Ok(stat) = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
                *ends.entry(name).or_default() |= stat.st_mode & (READ | WRITE);
            }
        }
    }
    ends
}

/// The ids of the mounts that a process has.
fn mounts_of(pid: i32) -> BTreeSet<u64> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
}

/// CRIU's name of a file on a mount that the container does not have. Terminals and sockets are none of these.
fn outside_file(pid: i32, number: usize, mounts: &BTreeSet<u64>) -> Option<String> {
    let stat = rustix::fs::stat(format!("/proc/{pid}/fd/{number}")).ok()?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        // Null, zero and their like.
        FileType::CharacterDevice if rustix::fs::major(stat.st_rdev) == 1 => {}
        _ => return None,
    }
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    (!mounts.contains(&mount)).then(|| format!("file[{mount:x}:{:x}]", stat.st_ino))
}

/// What a line of `descriptors.json`, which may be anybody's, wants for a stream: names that are exactly of the two
/// forms, since they become part of a table of CRIU's.
pub(crate) fn inherited(number: u8, name: &str) -> Option<Inherited> {
    let bounded = |text: &str| (1..=20).contains(&text.len());
    if let Some(inode) = name.strip_prefix("pipe:[").and_then(|rest| rest.strip_suffix(']')) {
        let good = bounded(inode) && inode.bytes().all(|b| b.is_ascii_digit());
        return good.then(|| Inherited { key: name.to_owned(), number: Some(number) });
    }
    let (id, path) = name.strip_prefix("file[")?.split_once("]:")?;
    let (mount, inode) = id.split_once(':')?;
    let hex = |text: &str| bounded(text) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let number = (path != NULL).then_some(number);
    (hex(mount) && hex(inode)).then(|| Inherited { key: format!("file[{id}]"), number })
}

impl Inherited {
    /// A descriptor of it.
    pub(crate) fn open(&self) -> Result<OwnedFd, Error> {
        let stream = match self.number {
            None => {
                let flags = OFlags::RDWR | OFlags::CLOEXEC;
                return rustix::fs::open(NULL, flags, Mode::empty()).map_err(|e| Error::File {
                    action: "opening",
                    path: NULL.into(),
                    source: e.into(),
                });
            }
            Some(0) => rustix::stdio::stdin(),
            Some(1) => rustix::stdio::stdout(),
            Some(_) => rustix::stdio::stderr(),
        };
        stream.try_clone_to_owned().map_err(|source| Error::File {
            action: "copying the descriptor of",
            path: "a standard stream".into(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn pipes_to_outside_are_told_from_inner_ones() {
        let mut child = Command::new("sleep")
            .arg("1000")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (pid, own) = (child.id() as i32, std::process::id() as i32);
        let outside = of_container(pid, &[pid]);
        let inside = of_container(pid, &[pid, own]);
        let elsewhere = outside_file(pid, 0, &BTreeSet::new());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(outside.names[0], "/dev/null");
        assert!(outside.names[1].starts_with("pipe:["), "{outside:?}");
        assert!(outside.external.is_empty());
        assert_eq!(inside.names[1], "");
        let name = format!("{}:/dev/null", elsewhere.unwrap());
        let stream = inherited(0, &name).unwrap();
        assert_eq!(stream.number, None);
        assert!(name.starts_with(&stream.key));
    }

    #[test]
    fn names_of_images_are_of_two_forms() {
        let key = |name| inherited(1, name).map(|stream| (stream.key, stream.number));
        assert_eq!(key("pipe:[12]"), Some(("pipe:[12]".into(), Some(1))));
        assert_eq!(key("file[1f:a0]:/var/log/x"), Some(("file[1f:a0]".into(), Some(1))));
        assert_eq!(key("file[1f:a0]:/dev/null"), Some(("file[1f:a0]".into(), None)));
        for name in ["", "/dev/null", "pipe:[]", "pipe:[1]x", "pipe:[x]", "extRootNetNS", "file[1:g]:/x"] {
            assert_eq!(key(name), None, "{name}");
        }
    }
}
