//! External mounts: what config.json mounts from the host, which CRIU can neither save nor make by itself.
//!
//! In a dump each is named by its mount point, as runc does, and a masked file by `/dev/null`. In a restore exactly
//! the mounts of config.json are offered to CRIU under those names, and an image that wants another one, or one of
//! them elsewhere or with more rights, is refused before CRIU sees it.

use super::error::Error;
use super::images::ImageMount;
use super::message::External;
use crate::cgroup::Location;
use crate::compile::relative;
use crate::mount_options;
use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, statx};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// `STATX_ATTR_MOUNT_ROOT`.
const MOUNT_ROOT: u64 = 0x2000;
/// The name of masked files.
const NULL: &[u8] = b"/dev/null";
/// Devices that every container has; with a user namespace they are mounted.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
/// `MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC`, which the mount attributes of the same names equal.
const RESTRICTIONS: u64 = 0xf;

/// A mount from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// The path in the container, with a leading slash.
    pub destination: Vec<u8>,
    /// The path on the host.
    pub source: PathBuf,
    /// Flags that the mount has at least.
    pub restrictions: u32,
}

fn absolute(path: &Path) -> Vec<u8> {
    let mut out = b"/".to_vec();
    out.extend(relative(path));
    out
}

/// The source of a bind mount; nothing for other mounts.
fn bind_source(mount: &Mount, bundle: &Path) -> Option<PathBuf> {
    let parsed = mount_options::parse(mount.options().as_deref().unwrap_or(&[]));
    let is_bind = mount.typ().as_deref() == Some("bind") || parsed.bind.is_some();
    if !is_bind || parsed.remount {
        return None;
    }
    mount.source().as_ref().map(|source| bundle.join(source))
}

/// What config.json mounts from the host.
pub(crate) fn bound(spec: &Spec, bundle: &Path, location: Option<&Location>) -> Vec<Bound> {
    let mut out = Vec::new();
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|l| l.namespaces().as_deref()).unwrap_or(&[]);
    let has = |kind| namespaces.iter().find(|n| n.typ() == kind);
    let own_cgroups = has(LinuxNamespaceType::Cgroup).is_some_and(|n| n.path().is_none());
    for mount in spec.mounts().iter().flatten() {
        let destination = absolute(mount.destination());
        let parsed = mount_options::parse(mount.options().as_deref().unwrap_or(&[]));
        if let Some(source) = bind_source(mount, bundle) {
            let restrictions = (parsed.attr_set & RESTRICTIONS) as u32;
            out.push(Bound { destination, source, restrictions });
        } else if matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2")) && !own_cgroups {
            // Its own directories: the only one where it is mounted, or one for each hierarchy below.
            for (mounted, directory) in location.into_iter().flat_map(Location::mounts) {
                let source = directory.to_path_buf();
                let restrictions = (parsed.attr_set & RESTRICTIONS) as u32;
                if let Some(name) = mounted.file_name() {
                    let below = [destination.as_slice(), b"/", name.as_bytes()].concat();
                    out.push(Bound { destination: below, source: source.clone(), restrictions });
                }
                if location.is_some_and(|l| l.version() == crate::cgroup::Version::V2) {
                    out.push(Bound { destination: destination.clone(), source, restrictions });
                }
            }
        }
    }
    if has(LinuxNamespaceType::User).is_some() {
        let given = linux.and_then(|l| l.devices().as_deref()).unwrap_or(&[]).iter();
        let paths = DEVICES.iter().map(Path::new).chain(given.map(|d| d.path().as_path()));
        for path in paths {
            let destination = absolute(path);
            if out.iter().all(|known| known.destination != destination) {
                out.push(Bound { destination, source: path.to_path_buf(), restrictions: 0 });
            }
        }
    }
    out
}

/// The masked paths of config.json.
pub(crate) fn masked(spec: &Spec) -> Vec<Vec<u8>> {
    let paths = spec.linux().as_ref().and_then(|l| l.masked_paths().as_deref()).unwrap_or(&[]);
    paths.iter().map(|path| absolute(Path::new(path))).collect()
}

/// The external mounts of a running container, as its mount table has them.
pub(crate) fn of_running(pid: i32, bound: &[Bound], masked: &[Vec<u8>]) -> Result<Vec<External>, Error> {
    let file = |action, path: &str| {
        let path = PathBuf::from(path);
        move |source| Error::File { action, path, source }
    };
    let table = format!("/proc/{pid}/mountinfo");
    let table = std::fs::read(&table).map_err(file("reading", &table))?;
    let mountpoints = mountpoints(&table);
    let root = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&root, flags, Mode::empty());
    let fd = fd.map_err(|e| file("opening", &root)(e.into()))?;
    let mut out: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let find = |path: &[u8], device_only: bool| -> Result<Option<Vec<u8>>, Error> {
        let failed = |e: Errno| Error::File {
            action: "looking at the container's",
            path: OsStr::from_bytes(path).into(),
            source: e.into(),
        };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = match openat2(&fd, &path[1..], OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how) {
            Ok(found) => found,
            // Unmounted, covered, or never there: a masked path may be missing.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        let wanted = StatxFlags::MNT_ID | StatxFlags::TYPE;
        let stat = statx(&found, c"", AtFlags::EMPTY_PATH, wanted).map_err(failed)?;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        if stat.stx_attributes.bits() & MOUNT_ROOT == 0 || (device_only && kind != FileType::CharacterDevice)
        {
            return Ok(None);
        }
        Ok(mountpoints.get(&stat.stx_mnt_id).cloned())
    };
    for path in masked {
        if let Some(mountpoint) = find(path, true)? {
            out.insert(mountpoint, NULL.to_vec());
        }
    }
    for mount in bound {
        if let Some(mountpoint) = find(&mount.destination, false)? {
            out.insert(mountpoint.clone(), mountpoint);
        }
    }
    Ok(out.into_iter().map(|(key, value)| External { key, value }).collect())
}

/// Mount points by id, of a mountinfo file.
fn mountpoints(table: &[u8]) -> BTreeMap<u64, Vec<u8>> {
    let line = |line: &[u8]| {
        let mut fields = line.split(|&b| b == b' ');
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        Some((id, unescape(fields.nth(3)?)))
    };
    table.split(|&b| b == b'\n').filter_map(line).collect()
}

/// `\040` and the like are bytes.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        if let [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', more @ ..] = rest {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = more;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

/// The names a path of config.json can have in images: as it stands, and with the links of the root filesystem
/// followed, as the mount point was when it was mounted.
fn names(root: BorrowedFd<'_>, path: &[u8]) -> BTreeSet<Vec<u8>> {
    BTreeSet::from([path.to_vec(), follow(root, path)])
}

/// Follows the links of a path inside a root; what does not exist is taken as it stands.
fn follow(root: BorrowedFd<'_>, path: &[u8]) -> Vec<u8> {
    const MOST_LINKS: usize = 40;
    let parts = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|&b| b == b'/').filter(|p| !p.is_empty() && *p != b".").map(<[u8]>::to_vec).rev().collect()
    };
    let mut todo = parts(path);
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == b".." {
            done.pop();
            continue;
        }
        let target = if links < MOST_LINKS { link_in(root, &done.join(&b'/'), &part) } else { None };
        match target {
            Some(target) => {
                links += 1;
                if target.starts_with(b"/") {
                    done.clear();
                }
                todo.extend(parts(&target));
            }
            None => done.push(part),
        }
    }
    let mut out = b"/".to_vec();
    out.extend(done.join(&b'/'));
    out
}

/// What the link `name` in a directory below `root`, a path without links, points to; nothing if it is none.
fn link_in(root: BorrowedFd<'_>, directory: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = if directory.is_empty() { b"." } else { directory };
    let fd = openat2(root, directory, flags, Mode::empty(), how).ok()?;
    rustix::fs::readlinkat(&fd, name, Vec::new()).ok().map(|target| target.into_bytes())
}

/// Checks the mounts of the images against those of config.json, and returns the latter under all their names.
pub(crate) fn for_restore(
    root: BorrowedFd<'_>,
    bound: &[Bound],
    masked: &[Vec<u8>],
    images: &[ImageMount],
    directory: &Path,
) -> Result<Vec<External>, Error> {
    let mut offered: BTreeMap<Vec<u8>, &Bound> = BTreeMap::new();
    for mount in bound {
        for name in names(root, &mount.destination) {
            // Of two mounts on one place the last one is seen.
            offered.insert(name, mount);
        }
    }
    let masked: BTreeSet<Vec<u8>> = masked.iter().flat_map(|path| names(root, path)).collect();
    for mount in images {
        let Some(key) = &mount.key else { continue };
        let refuse = |what| {
            Err(Error::ExternalMount {
                path: directory.join(&mount.image),
                key: String::from_utf8_lossy(key).into_owned(),
                mountpoint: String::from_utf8_lossy(&mount.mountpoint).into_owned(),
                what,
            })
        };
        if key == NULL && masked.contains(&mount.mountpoint) {
            continue;
        }
        let Some(known) = offered.get(key) else {
            return refuse("is none of the mounts of config.json");
        };
        if *key != mount.mountpoint {
            return refuse("is not where config.json mounts it");
        }
        if mount.flags & known.restrictions != known.restrictions {
            return refuse("lacks a restriction (ro, nosuid, nodev or noexec) that config.json has");
        }
    }
    let path = |path: &Path| path.as_os_str().as_bytes().to_vec();
    let mut out: Vec<External> =
        offered.into_iter().map(|(key, mount)| External { key, value: path(&mount.source) }).collect();
    if !masked.is_empty() && out.iter().all(|mount| mount.key != NULL) {
        out.push(External { key: NULL.to_vec(), value: NULL.to_vec() });
    }
    Ok(out)
}

/// Makes the mount points that are missing in the root filesystem, which may be another copy of it than the one
/// of the checkpoint. What lies on a filesystem that CRIU restores is in its images.
pub(crate) fn make_targets(root: BorrowedFd<'_>, spec: &Spec, bundle: &Path) -> Result<(), Error> {
    let mounts = spec.mounts().as_deref().unwrap_or(&[]);
    for (index, mount) in mounts.iter().enumerate() {
        if matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2")) {
            continue;
        }
        let target = absolute(mount.destination());
        let below = |outer: &Mount| {
            let outer = absolute(outer.destination());
            target.strip_prefix(outer.as_slice()).filter(|rest| rest.starts_with(b"/")).map(<[u8]>::to_vec)
        };
        let around = mounts[..index].iter().rev().find_map(|outer| Some((outer, below(outer)?)));
        let source = bind_source(mount, bundle);
        let is_file = match &source {
            Some(source) => !std::fs::metadata(source)
                .map_err(|e| Error::File { action: "mounting", path: source.clone(), source: e })?
                .is_dir(),
            None => false,
        };
        let made = match around {
            None => make_target(root, &target, is_file),
            Some((outer, rest)) => match bind_source(outer, bundle) {
                None => continue,
                Some(source) => {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    rustix::fs::open(&source, flags, Mode::empty()).and_then(|fd| {
                        use std::os::fd::AsFd;
                        make_target(fd.as_fd(), &rest, is_file)
                    })
                }
            },
        };
        made.map_err(|e| Error::File {
            action: "making mount point",
            path: std::ffi::OsString::from_vec(target.clone()).into(),
            source: e.into(),
        })?;
    }
    Ok(())
}

/// Makes a path below `root` whose links stay inside.
fn make_target(root: BorrowedFd<'_>, path: &[u8], is_file: bool) -> Result<(), Errno> {
    let open = |path: &[u8]| {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
    };
    let path = path.strip_prefix(b"/").unwrap_or(path);
    match open(path) {
        Err(Errno::NOENT) => {}
        other => return other.map(drop),
    }
    let mut directory: OwnedFd = open(b".")?;
    let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
    let mut start = 0;
    for end in ends.chain([path.len()]) {
        let name = &path[start..end];
        start = end + 1;
        directory = match open(&path[..end]) {
            Ok(fd) => fd,
            Err(Errno::NOENT) if end == path.len() && is_file => {
                // Exclusive: a link that leads nowhere is not followed.
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                openat(&directory, name, flags, Mode::from_raw_mode(0o644))?
            }
            Err(Errno::NOENT) => {
                rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755))?;
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(&directory, name, flags, Mode::empty())?
            }
            Err(e) => return Err(e),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    struct Root {
        path: PathBuf,
        fd: OwnedFd,
    }

    impl Root {
        fn new(name: &str) -> Root {
            let path = std::env::temp_dir().join(format!("dhow-test-mounts-{name}-{}", std::process::id()));
            drop(std::fs::remove_dir_all(&path));
            std::fs::create_dir_all(path.join("root/run")).unwrap();
            std::fs::create_dir_all(path.join("root/var")).unwrap();
            std::os::unix::fs::symlink("/run", path.join("root/var/run")).unwrap();
            std::os::unix::fs::symlink("../../../..", path.join("root/up")).unwrap();
            std::os::unix::fs::symlink("/loop", path.join("root/loop")).unwrap();
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let fd = rustix::fs::open(path.join("root"), flags, Mode::empty()).unwrap();
            Root { path, fd }
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.path));
        }
    }

    #[test]
    fn links_stay_in_the_root() {
        let root = Root::new("links");
        let follow = |path: &str| String::from_utf8(follow(root.fd.as_fd(), path.as_bytes())).unwrap();
        assert_eq!(follow("/var/run/secrets/x"), "/run/secrets/x");
        assert_eq!(follow("/up/etc"), "/etc");
        assert_eq!(follow("/missing/../a"), "/a");
        assert_eq!(follow("/loop/x"), "/loop/x");
    }

    #[test]
    fn targets_stay_in_the_root() {
        let root = Root::new("targets");
        make_target(root.fd.as_fd(), b"/var/run/a/b", false).unwrap();
        assert!(root.path.join("root/run/a/b").is_dir());
        make_target(root.fd.as_fd(), b"/up/c/file", true).unwrap();
        assert!(root.path.join("root/c/file").is_file());
        make_target(root.fd.as_fd(), b"/c/file", true).unwrap();
        // A link that leads nowhere is not made good.
        let outside = root.path.join("outside");
        std::os::unix::fs::symlink(&outside, root.path.join("root/bad")).unwrap();
        assert_eq!(make_target(root.fd.as_fd(), b"/bad", true), Err(Errno::EXIST));
        assert_eq!(make_target(root.fd.as_fd(), b"/bad/x", false), Err(Errno::EXIST));
        assert!(!outside.exists());
    }

    #[test]
    fn tables() {
        let table = b"20 1 0:5 / / rw - ext4 /dev/x rw\n21 20 0:6 / /a\\040b\\134 rw master:1 - tmpfs t rw\n";
        let found = mountpoints(table);
        assert_eq!(found[&20], b"/");
        assert_eq!(found[&21], b"/a b\\");
    }

    fn image(mountpoint: &str, key: &str, flags: u32) -> ImageMount {
        ImageMount {
            image: "mountpoints-1.img".into(),
            mountpoint: mountpoint.into(),
            key: Some(key.into()),
            flags,
        }
    }

    #[test]
    fn images_get_what_the_config_has_and_nothing_else() {
        let root = Root::new("images");
        let mount = |destination: &str, restrictions| Bound {
            destination: destination.into(),
            source: "/host".into(),
            restrictions,
        };
        let bound = [mount("/data", 1), mount("/var/run/s", 0)];
        let masked = [b"/proc/keys".to_vec()];
        let check = |images: &[ImageMount]| {
            for_restore(root.fd.as_fd(), &bound, &masked, images, Path::new("/i")).map_err(|e| e.to_string())
        };
        let good = [
            image("/data", "/data", 0x1001),
            image("/run/s", "/run/s", 0),
            image("/var/run/s", "/var/run/s", 0),
            image("/proc/keys", "/dev/null", 0),
            ImageMount { mountpoint: b"/proc".to_vec(), ..ImageMount::default() },
        ];
        let offered = check(&good).unwrap();
        let keys: Vec<_> = offered.iter().map(|m| String::from_utf8(m.key.clone()).unwrap()).collect();
        assert_eq!(keys, ["/data", "/run/s", "/var/run/s", "/dev/null"]);
        let refused = |mount, what: &str| {
            let error = check(&[mount]).unwrap_err();
            assert!(error.contains(what), "{error}");
        };
        refused(image("/etc", "/etc", 0), "none of the mounts");
        refused(image("/data", "/dat", 1), "none of the mounts");
        refused(image("/data", "/data/../data", 1), "none of the mounts");
        refused(image("/bin", "/data", 1), "not where");
        refused(image("/data", "/data", 0), "lacks a restriction");
        refused(image("/etc/passwd", "/dev/null", 0), "none of the mounts");
        refused(image("/x", "", 0), "none of the mounts");
    }
}
