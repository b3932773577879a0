//! Making a container's cgroups: directories, the cpuset values that v1 does not inherit, the controllers that v2 does
//! not enable by itself.

use std::io;
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::file::Dir;
use super::location::{Driver, Place};
use super::systemd::{Pending, UnitProperties};
use super::{Cgroup, Error, Group, Limits, Location, Version, freezer, is_gone, is_refusal, pids_of};

const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
const MODE: Mode = Mode::from_raw_mode(0o755);

impl Cgroup {
    /// Makes the container's cgroup in every hierarchy and writes those of `limits` that have to be there before a
    /// process is (cpuset and realtime values on v1). Cgroups that exist are taken over if they are empty and not frozen.
    /// When it fails, the directories made by this call are removed again; others are left as they were.
    ///
    /// With the systemd driver only the check for an existing cgroup is made: the unit is started by
    /// [`Cgroup::attach`], with the process.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] and [`Error::Frozen`] for a cgroup that is in use, [`Error::Make`] and [`Error::Open`] from the
    /// filesystem, [`Error::Limit`] from the early limits. A rootless container without an explicit path goes without the
    /// hierarchies that the host refuses.
    pub fn create(location: &Location, limits: &Limits) -> Result<Cgroup, Error> {
        let mut cgroup = Cgroup {
            location: location.clone(),
            groups: Vec::with_capacity(location.places.len()),
            pending: None,
            restricted: false,
        };
        let result = match location.driver {
            Driver::Cgroupfs => cgroup.make_all(limits),
            Driver::Systemd => {
                let pending = Pending { limits: limits.clone(), properties: UnitProperties::default() };
                cgroup.pending = Some(Box::new(pending));
                location.places.iter().try_for_each(|place| check_unused(&place.dir))
            }
        };
        match result {
            Ok(()) => Ok(cgroup),
            Err(e) => {
                for group in cgroup.groups.iter().filter(|g| g.fresh) {
                    // The first error is the one to report; what could not be removed is found through the location.
                    let _ = rustix::fs::unlinkat(
                        rustix::fs::CWD,
                        group.dir.path(),
                        rustix::fs::AtFlags::REMOVEDIR,
                    );
                }
                Err(e)
            }
        }
    }

    fn make_all(&mut self, limits: &Limits) -> Result<(), Error> {
        for place in &self.location.places {
            let fresh = match make(place) {
                Ok(fresh) => fresh,
                Err(Error::Make { source, .. }) if is_refusal(&source) && self.location.may_go_without() => {
                    continue;
                }
                Err(e) => return Err(e),
            };
            // Listed before anything else can fail, so that it is removed again then.
            self.groups.push(Group { place: place.clone(), dir: Dir::at(place.dir.clone()), fresh });
            if !fresh {
                check_unused(&place.dir)?;
            }
            let dir = self.prepare(place, limits)?;
            if let Some(group) = self.groups.last_mut() {
                group.dir = dir;
            }
        }
        self.apply_early(limits)
    }

    /// Writes the device rules of v1, before [`Cgroup::attach`]: they are taken one by one, beginning with nothing
    /// allowed, and a process that is in there already could not make its own devices meanwhile. v2 takes one program
    /// at once, and systemd's units begin with their process: both are left to [`Cgroup::apply`].
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub fn restrict(&mut self, limits: &Limits) -> Result<(), Error> {
        if self.location.version == Version::V2 || self.location.driver == Driver::Systemd {
            return Ok(());
        }
        if let Some(policy) = &limits.devices {
            self.restrict_devices(policy)?;
            self.restricted = true;
        }
        Ok(())
    }

    /// Makes those directories of a systemd unit that systemd does not, and opens what it has made.
    pub(super) fn make_beside_unit(&mut self, limits: &Limits) -> Result<(), Error> {
        for place in &self.location.places {
            let fresh = make(place)?;
            let dir = self.prepare(place, limits)?;
            self.groups.push(Group { place: place.clone(), dir, fresh });
        }
        self.apply_early(limits)
    }

    /// Makes a directory able to take processes, and opens it where that is of use.
    fn prepare(&self, place: &Place, limits: &Limits) -> Result<Dir, Error> {
        if !place.controllers.is_empty() {
            if place.has("cpuset") {
                fill_cpuset(place, limits)?;
            }
            return Ok(Dir::at(place.dir.clone()));
        }
        let dir = open_unified(&place.dir)?;
        if self.location.version == Version::V2 {
            enable_controllers(place, &dir, limits)?;
        }
        Ok(dir)
    }

    /// Gives the container's cgroup to host user `uid`, as the specification wants it for a container with a cgroup
    /// namespace of its own and a writable cgroup mount: v2 only, the directory and the files that the kernel lists for
    /// delegation. Does nothing on v1 and hybrid, where delegation is not safe.
    ///
    /// See [Cgroup ownership](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#cgroup-ownership).
    ///
    /// # Errors
    /// [`Error::Chown`]; listed files that this cgroup does not have are no error.
    pub fn delegate(&self, uid: u32) -> Result<(), Error> {
        if self.location.version != Version::V2 {
            return Ok(());
        }
        let Some(group) = self.unified() else { return Ok(()) };
        let listed = super::file::read_whole(Path::new("/sys/kernel/cgroup/delegate"))
            .unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned());
        let Some(fd) = group.dir.fd() else { return Ok(()) };
        for name in std::iter::once(".").chain(listed.lines().filter(|n| !n.contains('/'))) {
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            match rustix::fs::chownat(fd, name, Some(rustix::fs::Uid::from_raw(uid)), None, flags) {
                Ok(()) => {}
                Err(Errno::NOENT) if name != "." => {}
                Err(source) => {
                    let path = group.dir.path().join(name);
                    return Err(Error::Chown { path, uid, source: source.into() });
                }
            }
        }
        Ok(())
    }
}

/// Makes the directory of `place`, with those above it as far as they are missing; false if it was there.
fn make(place: &Place) -> Result<bool, Error> {
    let fail =
        |path: &Path, source: Errno| Err(Error::Make { path: path.to_path_buf(), source: source.into() });
    match rustix::fs::mkdir(&place.dir, MODE) {
        Ok(()) => return Ok(true),
        Err(Errno::EXIST) => return Ok(false),
        Err(Errno::NOENT) => {}
        Err(e) => return fail(&place.dir, e),
    }
    let above: Vec<&Path> = place
        .dir
        .ancestors()
        .skip(1)
        .take_while(|dir| dir.starts_with(&place.mount) && *dir != place.mount)
        .collect();
    for dir in above.into_iter().rev() {
        match rustix::fs::mkdir(dir, MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return fail(dir, e),
        }
    }
    match rustix::fs::mkdir(&place.dir, MODE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => fail(&place.dir, e),
    }
}

impl Location {
    /// Refuses a place where somebody else's processes are. To be called before the location is stored as a container's
    /// own: from then on a delete kills whatever is there. One system call where nothing is there yet.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] and [`Error::Frozen`], and [`Error::Read`] where it cannot be told.
    pub fn check_unused(&self) -> Result<(), Error> {
        // A container is in every hierarchy, so that one shows whether it is worth looking at the others.
        let tracking = self.places.iter().find(|p| p.has("devices")).or_else(|| self.places.last());
        match tracking.map(|place| rustix::fs::access(&place.dir, rustix::fs::Access::EXISTS)) {
            None | Some(Err(_)) => Ok(()),
            Some(Ok(())) => self.places.iter().try_for_each(|place| check_unused(&place.dir)),
        }
    }
}

/// Refuses a cgroup that exists and that somebody uses.
fn check_unused(path: &Path) -> Result<(), Error> {
    let processes = pids_of(path, true)?.len();
    if processes > 0 {
        return Err(Error::NotEmpty { path: path.to_path_buf(), processes });
    }
    if freezer::is_frozen_at(&Dir::at(path.to_path_buf()))? {
        return Err(Error::Frozen { path: path.to_path_buf() });
    }
    Ok(())
}

/// Opens a cgroup2 directory and makes sure that it is one.
pub(super) fn open_unified(path: &Path) -> Result<Dir, Error> {
    // The unit tests' trees are ordinary directories.
    const CHECK: bool = cfg!(not(test));
    let open = |source: io::Error| Error::Open { path: path.to_path_buf(), source };
    let dir = Dir::open(path).map_err(open)?;
    if let (true, Some(fd)) = (CHECK, dir.fd()) {
        let fs = rustix::fs::fstatfs(fd).map_err(|e| open(e.into()))?;
        if fs.f_type as u64 != CGROUP2_SUPER_MAGIC {
            return Err(Error::NotCgroup { path: path.to_path_buf() });
        }
    }
    Ok(dir)
}

/// Copies `cpuset.cpus` and `cpuset.mems` down to a v1 cgroup, which starts without any and then takes no process. What
/// `limits` is going to set anyway is not copied.
fn fill_cpuset(place: &Place, limits: &Limits) -> Result<(), Error> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let set_later = limits.sets("cpuset", file);
        let mut todo: Vec<&Path> = Vec::new();
        let mut dir = place.dir.as_path();
        if set_later {
            // Only the directories above have to have a value then.
            dir = dir.parent().unwrap_or(&place.mount);
        } else {
            todo.push(dir);
            dir = dir.parent().unwrap_or(&place.mount);
        }
        let value = loop {
            let read = Dir::at(dir.to_path_buf())
                .read_line(file)
                .map_err(|source| Error::Read { path: dir.join(file), source })?;
            let value = read.trim();
            if !value.is_empty() || dir == place.mount || !dir.starts_with(&place.mount) {
                break value.to_owned();
            }
            todo.push(dir);
            dir = dir.parent().unwrap_or(&place.mount);
        };
        for dir in todo.into_iter().rev() {
            Dir::at(dir.to_path_buf()).write(file, &value).map_err(|source| Error::Write {
                path: dir.join(file),
                value: value.clone(),
                source,
            })?;
        }
    }
    Ok(())
}

/// Enables in every cgroup from the mount point down to the container's parent the controllers that the root has, so
/// that the container's cgroup has them. One that refuses (because it has processes, or is not ours) is left as it is: if a
/// limit needs it, setting that limit says so.
fn enable_controllers(place: &Place, dir: &Dir, limits: &Limits) -> Result<(), Error> {
    let list = |dir: &Dir| match dir.read_line("cgroup.controllers") {
        Ok(text) => Ok(text),
        // Nothing to enable where nothing can be read; whatever a limit needs will be missed there.
        Err(e) if is_gone(&e) || is_refusal(&e) => Ok(String::new()),
        Err(source) => Err(Error::Read { path: dir.path().join("cgroup.controllers"), source }),
    };
    let root = Dir::at(place.mount.clone());
    let wanted = list(&root)?;
    let has = list(dir)?;
    let missing = |has: &str| {
        let has: Vec<&str> = has.split_whitespace().collect();
        let names: Vec<String> =
            wanted.split_whitespace().filter(|c| !has.contains(c)).map(|c| format!("+{c}")).collect();
        names
    };
    if missing(&has).is_empty() {
        return Ok(());
    }
    let mut above: Vec<&Path> =
        place.dir.ancestors().skip(1).take_while(|d| d.starts_with(&place.mount)).collect();
    above.reverse();
    for path in above {
        let parent = Dir::at(path.to_path_buf());
        let enabled = parent.read_line("cgroup.subtree_control").unwrap_or_default();
        let names = missing(&enabled);
        if !names.is_empty() && parent.write("cgroup.subtree_control", &names.join(" ")).is_err() {
            for name in names {
                let _ = parent.write("cgroup.subtree_control", &name);
            }
        }
    }
    // Still without some: the cgroup may be below a threaded one, or below one with processes.
    let kind = dir.read_line("cgroup.type").unwrap_or_default();
    match kind.trim() {
        "domain invalid" | "threaded" | "domain threaded" if limits.needs_domain() => {
            Err(Error::Threaded { path: place.dir.clone(), kind: kind.trim().to_owned() })
        }
        // The only way in which it can take a process at all.
        "domain invalid" => dir.write("cgroup.type", "threaded").map_err(|source| Error::Write {
            path: place.dir.join("cgroup.type"),
            value: "threaded".to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
