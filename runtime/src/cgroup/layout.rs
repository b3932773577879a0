//! What cgroup hierarchies this host mounts and in which cgroup of each the calling process is.
//!
//! A host whose `/sys/fs/cgroup` is a cgroup2 filesystem costs one statfs(2); only others cost a read of
//! `/proc/self/mountinfo`. The caller's own cgroups are read when a relative path first asks for them.

use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::Error;
use super::file::read_whole;

const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
const DEFAULT_MOUNT: &str = "/sys/fs/cgroup";

/// Which cgroup interface a host offers to containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// Controllers each in a hierarchy of their own.
    V1,
    /// One hierarchy with every controller.
    V2,
    /// v1 controllers, and beside them a cgroup2 filesystem for tracking processes.
    Hybrid,
}

/// One mounted v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The controllers bound to it, such as `cpu`, `cpuacct`; a named hierarchy has `name=systemd` here.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Which cgroup of the hierarchy is visible at the mount point, as mountinfo gives it.
    pub root: PathBuf,
}

impl Hierarchy {
    /// The name of a hierarchy that has no controller, such as `systemd`.
    pub fn name(&self) -> Option<&str> {
        self.controllers.iter().find_map(|c| c.strip_prefix("name="))
    }

    fn joined_by_containers(&self) -> bool {
        const KNOWN: [&str; 15] = [
            "blkio",
            "cpu",
            "cpuacct",
            "cpuset",
            "devices",
            "freezer",
            "hugetlb",
            "memory",
            "misc",
            "name=systemd",
            "net_cls",
            "net_prio",
            "perf_event",
            "pids",
            "rdma",
        ];
        self.controllers.iter().any(|c| KNOWN.contains(&c.as_str()))
    }
}

/// The cgroup2 filesystem of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unified {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Which cgroup is visible at the mount point; `/` where it was not asked for.
    pub root: PathBuf,
}

/// The cgroup mounts of this host, and the calling process's place in them.
#[derive(Debug)]
pub struct Layout {
    version: Version,
    unified: Option<Unified>,
    hierarchies: Vec<Hierarchy>,
    own: OnceLock<String>,
}

impl Layout {
    /// Looks at the host. Reads `/proc/self/mountinfo` unless `/sys/fs/cgroup` is a cgroup2 filesystem.
    ///
    /// # Errors
    /// [`Error::Read`] where `/proc` cannot be read. A host without any cgroup mount is not an error here but in
    /// [`Location::resolve`](super::Location::resolve).
    pub fn probe() -> Result<Layout, Error> {
        if let Ok(fs) = rustix::fs::statfs(DEFAULT_MOUNT) {
            if fs.f_type as u64 == CGROUP2_SUPER_MAGIC {
                let unified = Unified { mount_point: PathBuf::from(DEFAULT_MOUNT), root: PathBuf::from("/") };
                return Ok(Layout {
                    version: Version::V2,
                    unified: Some(unified),
                    hierarchies: Vec::new(),
                    own: OnceLock::new(),
                });
            }
        }
        let path = Path::new("/proc/self/mountinfo");
        let mountinfo =
            read_whole(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        Ok(Layout::from_mountinfo(&mountinfo))
    }

    /// Builds the layout from the text of a mountinfo file. The calling process's own cgroups are read from `/proc`
    /// when they are first needed; [`Layout::with_own_cgroups`] gives them instead.
    pub fn from_mountinfo(mountinfo: &str) -> Layout {
        let mut unified: Option<Unified> = None;
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        let mut top_is_cgroup2 = false;
        for line in mountinfo.lines() {
            let Some(mount) = Mount::parse(line) else { continue };
            let at_default = mount.point == Path::new(DEFAULT_MOUNT);
            if at_default {
                // A later mount on the same point hides the earlier ones, and what was below them.
                top_is_cgroup2 = mount.fs_type == "cgroup2";
            }
            match mount.fs_type {
                "cgroup2" if unified.is_none() || at_default => {
                    unified = Some(Unified { mount_point: mount.point, root: mount.root });
                }
                "cgroup" => {
                    let controllers: Vec<String> = mount.controllers().map(str::to_owned).collect();
                    let under_default = mount.point.starts_with(DEFAULT_MOUNT);
                    let found = Hierarchy { controllers, mount_point: mount.point, root: mount.root };
                    match hierarchies.iter_mut().find(|h| h.controllers == found.controllers) {
                        None => hierarchies.push(found),
                        // The same hierarchy can be mounted twice; the usual place is the one others look at.
                        Some(known) => {
                            if under_default && !known.mount_point.starts_with(DEFAULT_MOUNT) {
                                *known = found;
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        let version = if top_is_cgroup2 || (hierarchies.is_empty() && unified.is_some()) {
            hierarchies.clear();
            Version::V2
        } else if unified.is_some() {
            Version::Hybrid
        } else {
            Version::V1
        };
        Layout { version, unified, hierarchies, own: OnceLock::new() }
    }

    /// Sets the text of `/proc/self/cgroup` instead of reading it.
    #[must_use]
    pub fn with_own_cgroups(self, text: &str) -> Layout {
        Layout { own: OnceLock::from(text.to_owned()), ..self }
    }

    /// Which interface the host offers.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The cgroup2 filesystem, on v2 and hybrid hosts.
    pub fn unified(&self) -> Option<&Unified> {
        self.unified.as_ref()
    }

    /// Every mounted v1 hierarchy in mount order, named ones too: what the `cgroup` mount type shows in a container.
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// The v1 hierarchies that a container gets a cgroup in.
    pub(super) fn container_hierarchies(&self) -> impl Iterator<Item = &Hierarchy> {
        self.hierarchies.iter().filter(|h| h.joined_by_containers())
    }

    /// The calling process's cgroup in the hierarchy that has `controller` (`""` for cgroup2), as `/proc/self/cgroup`
    /// gives it.
    ///
    /// # Errors
    /// [`Error::Read`] where `/proc/self/cgroup` cannot be read.
    pub fn own_cgroup(&self, controller: &str) -> Result<Option<&Path>, Error> {
        let text = match self.own.get() {
            Some(text) => text,
            None => {
                let path = Path::new("/proc/self/cgroup");
                let text =
                    read_whole(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
                self.own.get_or_init(|| text)
            }
        };
        Ok(text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            names.split(',').any(|n| n == controller).then(|| Path::new(path))
        }))
    }

    /// The directory at which the calling process's own cgroup can be reached through `mount_point`.
    pub(super) fn own_dir(
        &self,
        controller: &str,
        mount_point: &Path,
        root: &Path,
    ) -> Result<PathBuf, Error> {
        let own = self.own_cgroup(controller)?.unwrap_or(Path::new("/"));
        // Seen from a cgroup namespace, a cgroup outside of it starts with "/..": nothing of it can be reached, and
        // the mount point is the best there is.
        let inner = own
            .strip_prefix(root)
            .ok()
            .filter(|p| p.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)));
        Ok(match inner {
            Some(inner) if !inner.as_os_str().is_empty() => mount_point.join(inner),
            _ => mount_point.to_path_buf(),
        })
    }
}

/// One line of mountinfo: see proc_pid_mountinfo(5).
struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    fs_type: &'a str,
    super_options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Mount<'a>> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let (root, point) = (left.nth(3)?, left.next()?);
        let mut right = right.split(' ');
        let (fs_type, _source, super_options) = (right.next()?, right.next()?, right.next()?);
        Some(Mount { root: unescape(root), point: unescape(point), fs_type, super_options })
    }

    /// The controllers among the superblock's options.
    fn controllers(&self) -> impl Iterator<Item = &'a str> {
        const OTHER: [&str; 7] =
            ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "favordynmods"];
        self.super_options.split(',').filter(|option| {
            !option.is_empty()
                && !OTHER.contains(option)
                && !option.starts_with("release_agent=")
                && !option.starts_with("nsdelegate")
        })
    }
}

/// Undoes mountinfo's octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let octal = (bytes[i] == b'\\')
            .then(|| bytes.get(i + 1..i + 4))
            .flatten()
            .filter(|d| d.iter().all(|b| (b'0'..=b'7').contains(b)) && d[0] <= b'3');
        match octal {
            Some(d) => {
                out.push((d[0] - b'0') * 64 + (d[1] - b'0') * 8 + (d[2] - b'0'));
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TMPFS: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n";
    const MEMORY: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
    const CPU: &str =
        "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct,clone_children\n";
    const NAMED: &str =
        "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd\n";
    const UNIFIED: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
    const V2: &str = "50 23 0:38 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn hybrid_v1_and_v2_are_told_apart() {
        let hybrid = Layout::from_mountinfo(&[TMPFS, MEMORY, CPU, NAMED, UNIFIED].concat());
        assert_eq!(hybrid.version(), Version::Hybrid);
        assert_eq!(hybrid.hierarchies().len(), 3);
        assert_eq!(hybrid.hierarchies()[1].controllers, ["cpu", "cpuacct"]);
        assert_eq!(hybrid.hierarchies()[2].name(), Some("systemd"));
        assert_eq!(hybrid.unified().unwrap().mount_point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(Layout::from_mountinfo(&[TMPFS, MEMORY].concat()).version(), Version::V1);
        assert_eq!(Layout::from_mountinfo(V2).version(), Version::V2);
    }

    #[test]
    fn cgroup2_mounted_over_the_v1_mounts_hides_them() {
        let layout = Layout::from_mountinfo(&[TMPFS, MEMORY, UNIFIED, V2].concat());
        assert_eq!(layout.version(), Version::V2);
        assert!(layout.hierarchies().is_empty());
        assert_eq!(layout.unified().unwrap().mount_point, Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn the_usual_mount_of_a_hierarchy_wins_over_a_second_one() {
        let other = "90 1 0:32 / /mnt/memory rw - cgroup cgroup rw,memory\n";
        let layout = Layout::from_mountinfo(&[other, TMPFS, MEMORY].concat());
        assert_eq!(layout.hierarchies().len(), 1);
        assert_eq!(layout.hierarchies()[0].mount_point, Path::new("/sys/fs/cgroup/memory"));
    }

    #[test]
    fn hierarchies_without_a_known_controller_are_left_alone() {
        let other = "90 1 0:32 / /sys/fs/cgroup/elogind rw - cgroup cgroup rw,name=elogind\n";
        let layout = Layout::from_mountinfo(&[TMPFS, MEMORY, other].concat());
        assert_eq!(layout.hierarchies().len(), 2);
        assert_eq!(layout.container_hierarchies().count(), 1);
    }

    #[test]
    fn escapes_in_mount_points_are_undone() {
        assert_eq!(unescape(r"/a\040b\134\0"), Path::new("/a b\\\\0"));
        assert_eq!(unescape(r"/x\777"), Path::new(r"/x\777"));
    }

    #[test]
    fn own_directory_is_relative_to_what_is_mounted() {
        let layout = Layout::from_mountinfo(&[TMPFS, MEMORY].concat())
            .with_own_cgroups("4:memory:/docker/abc/x\n3:cpu,cpuacct:/y\n0::/z\n");
        let at = |c: &str, root: &str| layout.own_dir(c, Path::new("/m"), Path::new(root)).unwrap();
        assert_eq!(at("memory", "/docker/abc"), Path::new("/m/x"));
        assert_eq!(at("memory", "/docker/abc/x"), Path::new("/m"));
        assert_eq!(at("memory", "/elsewhere"), Path::new("/m"));
        assert_eq!(at("cpuacct", "/"), Path::new("/m/y"));
        assert_eq!(at("", "/"), Path::new("/m/z"));
        let outside = Layout::from_mountinfo(TMPFS).with_own_cgroups("4:memory:/../../etc\n");
        assert_eq!(outside.own_dir("memory", Path::new("/m"), Path::new("/")).unwrap(), Path::new("/m"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "(.|\n){0,80}", line in "[0-9a-z :/,.\\\\=-]{0,80}") {
            for text in [text.as_str(), line.as_str(), &format!("1 2 0:3 {line} - cgroup x {line}")] {
                let layout = Layout::from_mountinfo(text).with_own_cgroups(text);
                let _ = layout.own_dir("memory", Path::new("/m"), Path::new("/"));
            }
        }
    }
}
