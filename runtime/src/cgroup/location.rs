//! Where a container's cgroups are: worked out before anything is made, and kept in its state file.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::systemd::{self, Unit};
use super::{Error, Layout, Version};

/// Who makes the cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// dhow makes directories in the cgroup filesystem.
    Cgroupfs,
    /// systemd makes a scope or slice, asked over D-Bus.
    Systemd,
}

/// A cgroup in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The controllers of the hierarchy; none for the cgroup2 one.
    pub(super) controllers: Vec<String>,
    /// Where the hierarchy is mounted: nothing above is ever touched.
    pub(super) mount: PathBuf,
    /// The container's directory.
    pub(super) dir: PathBuf,
}

impl Place {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// Where a container's cgroups are, in every hierarchy that it takes part in. Nothing of it needs to exist: it is stored
/// before the first directory is made, so that whatever a crash leaves behind can be found and removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    pub(super) version: Version,
    pub(super) driver: Driver,
    /// The caller may lack the rights to make cgroups: a container without limits then goes without them.
    pub(super) rootless: bool,
    /// `linux.cgroupsPath` was given, so that it is an error if it cannot be had.
    pub(super) explicit: bool,
    pub(super) places: Vec<Place>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<Unit>,
}

impl Location {
    /// Works out where the cgroup of container `id` is, as runc does.
    ///
    /// With the cgroupfs driver an absolute `cgroups_path` is below the mount point of each hierarchy, a relative one
    /// below the caller's own cgroup (v1) or beside it (v2, where a cgroup with processes cannot have children with
    /// controllers); without one it is the relative path `id`. With the systemd driver it is `slice:prefix:name`.
    ///
    /// See [cgroupsPath](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#cgroups-path).
    ///
    /// # Errors
    /// [`Error::NotMounted`] and [`Error::NoDevices`] where the host lacks what a container needs (not when rootless),
    /// [`Error::CgroupsPath`] and [`Error::Slice`] for a path that the driver does not understand, and errors of D-Bus
    /// for a rootless systemd scope, whose place only the user's systemd knows.
    pub fn resolve(
        layout: &Layout,
        cgroups_path: Option<&str>,
        id: &str,
        driver: Driver,
        rootless: bool,
    ) -> Result<Location, Error> {
        let given = cgroups_path.filter(|p| !p.is_empty());
        let mut location = Location {
            version: layout.version(),
            driver,
            rootless,
            explicit: given.is_some(),
            places: Vec::new(),
            unit: None,
        };
        match driver {
            Driver::Cgroupfs => {
                let inner = clean(given.unwrap_or(id));
                if inner == Path::new("/") || inner.as_os_str().is_empty() {
                    return Err(Error::CgroupsPath {
                        path: given.unwrap_or(id).to_owned(),
                        wanted: "/parent/name: a container cannot have the root cgroup",
                    });
                }
                location.place_at(layout, |controller, mount, root| {
                    Ok(match inner.strip_prefix("/") {
                        Ok(below) => mount.join(below),
                        Err(_) => {
                            let own = layout.own_dir(controller, mount, root)?;
                            let base = match layout.version() {
                                Version::V2 if own != mount => own.parent().unwrap_or(mount).to_path_buf(),
                                _ => own,
                            };
                            base.join(&inner)
                        }
                    })
                })?;
            }
            Driver::Systemd => {
                let unit = Unit::parse(given, id, rootless)?;
                let slice = systemd::slice_path(&unit.slice)?;
                let base = match rootless {
                    true => systemd::user_manager_cgroup()?,
                    false => PathBuf::new(),
                };
                let inner = base.join(slice).join(&unit.name);
                location.place_at(layout, |_, mount, _| Ok(mount.join(&inner)))?;
                location.unit = Some(unit);
            }
        }
        if location.places.is_empty() && !rootless {
            return Err(Error::NotMounted);
        }
        if location.version != Version::V2 && !rootless && !location.places.iter().any(|p| p.has("devices")) {
            return Err(Error::NoDevices);
        }
        Ok(location)
    }

    fn place_at(
        &mut self,
        layout: &Layout,
        dir: impl Fn(&str, &Path, &Path) -> Result<PathBuf, Error>,
    ) -> Result<(), Error> {
        for hierarchy in layout.container_hierarchies() {
            self.places.push(Place {
                dir: dir(&hierarchy.controllers[0], &hierarchy.mount_point, &hierarchy.root)?,
                mount: hierarchy.mount_point.clone(),
                controllers: hierarchy.controllers.clone(),
            });
        }
        if let Some(unified) = layout.unified() {
            self.places.push(Place {
                dir: dir("", &unified.mount_point, &unified.root)?,
                mount: unified.mount_point.clone(),
                controllers: Vec::new(),
            });
        }
        Ok(())
    }

    /// Whether the caller may lack the rights to make cgroups.
    pub fn is_rootless(&self) -> bool {
        self.rootless
    }

    /// The interface the container uses.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Who makes the cgroup.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// The systemd unit of the container, with the systemd driver.
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_ref().map(|u| u.name.as_str())
    }

    /// Each hierarchy's mount point with the container's directory below it.
    pub fn mounts(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.places.iter().map(|place| (place.mount.as_path(), place.dir.as_path()))
    }

    /// Each controller with the container's directory in its hierarchy; the cgroup2 one has the controller `""`. The form
    /// of runc's `cgroup_paths`.
    pub fn paths(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.places.iter().flat_map(|place| {
            let names: &[String] = &place.controllers;
            let unified = names.is_empty().then_some("");
            unified.into_iter().chain(names.iter().map(String::as_str)).map(|c| (c, place.dir.as_path()))
        })
    }
}

/// Resolves `.` and `..` lexically, so that a path cannot leave what it is joined to; absolute stays absolute.
fn clean(path: &str) -> PathBuf {
    let mut out = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::RootDir => out.push("/"),
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
";
    const UNIFIED: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const V2: &str = "50 23 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    fn layout(mountinfo: &str) -> Layout {
        Layout::from_mountinfo(mountinfo)
            .with_own_cgroups("4:memory:/own\n3:devices:/\n2:cpu,cpuacct:/\n0::/user.slice/session.scope\n")
    }

    fn paths(mountinfo: &str, path: Option<&str>, driver: Driver) -> Vec<(String, String)> {
        let location = Location::resolve(&layout(mountinfo), path, "c1", driver, false).unwrap();
        location.paths().map(|(c, p)| (c.to_owned(), p.display().to_string())).collect()
    }

    #[test]
    fn absolute_paths_are_below_each_mount_point() {
        let found = paths(&[V1, UNIFIED].concat(), Some("/a/../docker/c1"), Driver::Cgroupfs);
        let want = [
            ("memory", "/sys/fs/cgroup/memory/docker/c1"),
            ("devices", "/sys/fs/cgroup/devices/docker/c1"),
            ("cpu", "/sys/fs/cgroup/cpu,cpuacct/docker/c1"),
            ("cpuacct", "/sys/fs/cgroup/cpu,cpuacct/docker/c1"),
            ("", "/sys/fs/cgroup/unified/docker/c1"),
        ];
        assert_eq!(found, want.map(|(c, p)| (c.to_owned(), p.to_owned())));
    }

    #[test]
    fn relative_and_missing_paths_are_below_the_own_cgroup_on_v1_and_beside_it_on_v2() {
        assert_eq!(paths(V1, None, Driver::Cgroupfs)[0].1, "/sys/fs/cgroup/memory/own/c1");
        assert_eq!(paths(V1, Some("x/y"), Driver::Cgroupfs)[1].1, "/sys/fs/cgroup/devices/x/y");
        assert_eq!(paths(V2, None, Driver::Cgroupfs)[0].1, "/sys/fs/cgroup/user.slice/c1");
    }

    #[test]
    fn dotdot_cannot_leave_the_hierarchy() {
        assert_eq!(paths(V2, Some("/../../etc"), Driver::Cgroupfs)[0].1, "/sys/fs/cgroup/etc");
        assert_eq!(paths(V2, Some("../../etc"), Driver::Cgroupfs)[0].1, "/sys/fs/cgroup/user.slice/etc");
        assert!(Location::resolve(&layout(V2), Some("/a/.."), "c", Driver::Cgroupfs, false).is_err());
    }

    #[test]
    fn systemd_paths_follow_the_slice_hierarchy() {
        let path = Some("a-b.slice:docker:c1");
        assert_eq!(paths(V2, path, Driver::Systemd)[0].1, "/sys/fs/cgroup/a.slice/a-b.slice/docker-c1.scope");
        assert_eq!(paths(V2, None, Driver::Systemd)[0].1, "/sys/fs/cgroup/system.slice/dhow-c1.scope");
    }

    #[test]
    fn a_host_without_devices_controller_is_refused_unless_rootless() {
        let memory = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let get =
            |text: &str, rootless| Location::resolve(&layout(text), None, "c", Driver::Cgroupfs, rootless);
        assert!(matches!(get(memory, false), Err(Error::NoDevices)));
        assert!(matches!(get("", false), Err(Error::NotMounted)));
        assert_eq!(get("", true).unwrap().paths().count(), 0);
    }

    #[test]
    fn survives_the_state_file() {
        let location =
            Location::resolve(&layout(V2), Some("s.slice:p:n"), "c", Driver::Systemd, false).unwrap();
        let text = serde_json::to_string(&location).unwrap();
        assert_eq!(serde_json::from_str::<Location>(&text).unwrap(), location);
    }
}
