//! Intel RDT: the class of service and the monitoring group of a container, in the resctrl filesystem.
//!
//! On disk a group is a directory of that filesystem: `<closID>/` or `<container id>/`, below it
//! `mon_groups/<container id>/`. [`Resctrl::plan`] only looks, so that what it says can be recorded before
//! [`Group::create`] makes anything; [`Group::remove`] then undoes a creation that was interrupted anywhere.
//! Nothing here is locked: the kernel serialises changes, and names of containers are the caller's to claim.
//!
//! Specification: config-linux.md, "IntelRdt"; the kernel's Documentation/filesystems/resctrl.rst.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

/// `f_type` of resctrl (`RDTGROUP_SUPER_MAGIC`).
const RESCTRL_MAGIC: u64 = 0x0765_5821;

/// Where the kernel offers a mount point.
const DEFAULT_ROOT: &str = "/sys/fs/resctrl";

/// Why a container could not be given its class of service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No resctrl filesystem is mounted.
    #[error("intelRdt is set, and no resctrl filesystem is mounted")]
    NotMounted,
    /// The mount table cannot be read.
    #[error("look for resctrl in /proc/self/mountinfo")]
    MountTable(#[source] io::Error),
    /// The class of service has to exist already, since the configuration has no schema for it.
    #[error("class of service {} does not exist, and the configuration has no schema to create it with", path.display())]
    NoClass {
        /// Its directory.
        path: PathBuf,
    },
    /// The machine does not have what a schema is about.
    #[error("{field} is set, and this machine cannot control it: {} does not exist", path.display())]
    Unsupported {
        /// The member of `intelRdt`.
        field: &'static str,
        /// The directory that would be there.
        path: PathBuf,
    },
    /// An existing class of service has another schema than the configuration says.
    #[error("{field} is {wanted:?}, but {} has {found:?}", path.display())]
    Mismatch {
        /// The member of `intelRdt`.
        field: &'static str,
        /// Its value.
        wanted: String,
        /// The line of the file, empty if there is none.
        found: String,
        /// The schemata file.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("{action} {}{}", path.display(), status.as_deref().map(|s| format!(" ({s})")).unwrap_or_default())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's explanation in `info/last_cmd_status`.
        status: Option<String>,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A mounted resctrl filesystem.
#[derive(Clone, Debug)]
pub struct Resctrl {
    root: PathBuf,
}

/// The groups of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// The root of the filesystem.
    root: PathBuf,
    /// The class of service.
    class: PathBuf,
    /// Whether the class of service is the container's own, and goes with it.
    own: bool,
    /// Whether the directory of the class has to be made.
    new: bool,
    /// The monitoring group, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    monitoring: Option<PathBuf>,
}

impl Resctrl {
    /// Finds the filesystem: where the kernel offers to mount it, or else the first in the mount table.
    ///
    /// # Errors
    /// [`Error::NotMounted`], [`Error::MountTable`].
    pub fn find() -> Result<Resctrl, Error> {
        if rustix::fs::statfs(DEFAULT_ROOT).is_ok_and(|s| s.f_type as u64 == RESCTRL_MAGIC) {
            return Ok(Resctrl::at(DEFAULT_ROOT));
        }
        let table = fs::read("/proc/self/mountinfo").map_err(Error::MountTable)?;
        mount_point(&table).map(Resctrl::at).ok_or(Error::NotMounted)
    }

    /// The filesystem mounted at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Resctrl {
        Resctrl { root: root.into() }
    }

    /// Works out the groups of container `id`, and checks what the specification demands of those that exist.
    /// Changes nothing.
    ///
    /// # Errors
    /// [`Error::NoClass`], [`Error::Unsupported`], [`Error::Mismatch`], [`Error::Io`].
    pub fn plan(&self, rdt: &LinuxIntelRdt, id: &str) -> Result<Group, Error> {
        let named = rdt.clos_id().as_deref().filter(|name| !name.is_empty());
        let class = match named {
            Some("/") => self.root.clone(),
            Some(name) => self.root.join(name),
            None => self.root.join(id),
        };
        let exists = class.is_dir();
        let has_schema =
            rdt.l3_cache_schema().is_some() || rdt.mem_bw_schema().is_some() || !lines(rdt).is_empty();
        if named.is_some() && !exists && !has_schema {
            return Err(Error::NoClass { path: class });
        }
        self.require("l3CacheSchema", rdt.l3_cache_schema().is_some(), &["L3", "L3CODE", "L3DATA"])?;
        self.require("memBwSchema", rdt.mem_bw_schema().is_some(), &["MB"])?;
        if named.is_some() && exists {
            let path = class.join("schemata");
            compare("l3CacheSchema", rdt.l3_cache_schema().as_deref(), &path)?;
            compare("memBwSchema", rdt.mem_bw_schema().as_deref(), &path)?;
        }
        let monitoring = (rdt.enable_monitoring() == &Some(true)).then(|| class.join("mon_groups").join(id));
        Ok(Group {
            root: self.root.clone(),
            class,
            own: named.is_none() && !exists,
            new: !exists,
            monitoring,
        })
    }

    fn require(&self, field: &'static str, set: bool, info: &[&str]) -> Result<(), Error> {
        let paths = || info.iter().map(|name| self.root.join("info").join(name));
        if set && !paths().any(|path| path.exists()) {
            return Err(Error::Unsupported { field, path: paths().next().unwrap_or_default() });
        }
        Ok(())
    }
}

impl Group {
    /// Makes the directories and writes the schemata that `rdt`, the same as for [`Resctrl::plan`], asks for.
    ///
    /// # Errors
    /// [`Error::Io`]; what was made so far is undone.
    pub fn create(&self, rdt: &LinuxIntelRdt) -> Result<(), Error> {
        let created = self.create_all(rdt);
        if created.is_err() {
            // The first error is the one that tells what is wrong.
            let _ = self.remove();
            if self.new && !self.own {
                let _ = fs::remove_dir(&self.class);
            }
        }
        created
    }

    fn create_all(&self, rdt: &LinuxIntelRdt) -> Result<(), Error> {
        if self.new {
            self.make_dir(&self.class)?;
        }
        // In a class that existed, the first two are as they should be: `plan` compared them.
        let named = rdt.clos_id().as_deref().is_some_and(|name| !name.is_empty());
        let compared = named && !self.new;
        let first = [rdt.l3_cache_schema().as_deref(), rdt.mem_bw_schema().as_deref()];
        let mut text = String::new();
        for line in first.into_iter().flatten().filter(|_| !compared).chain(lines(rdt)) {
            text.push_str(line);
            text.push('\n');
        }
        if !text.is_empty() {
            self.write("write the schemata to", &self.class.join("schemata"), &text)?;
        }
        match &self.monitoring {
            Some(path) => self.make_dir(path),
            None => Ok(()),
        }
    }

    /// Moves process `pid`, and with it all that it will start, into the groups.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn attach(&self, pid: u32) -> Result<(), Error> {
        self.write("add the container's process to", &self.class.join("tasks"), &pid.to_string())?;
        match &self.monitoring {
            Some(group) => {
                self.write("add the container's process to", &group.join("tasks"), &pid.to_string())
            }
            None => Ok(()),
        }
    }

    /// Writes other schemata, as lines of `L3:` and of `MB:`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn update(&self, l3_cache: Option<&str>, memory_bandwidth: Option<&str>) -> Result<(), Error> {
        let lines: Vec<&str> =
            l3_cache.into_iter().chain(memory_bandwidth).filter(|l| !l.is_empty()).collect();
        if lines.is_empty() {
            return Ok(());
        }
        let text = lines.join("\n") + "\n";
        self.write("write the schemata to", &self.class.join("schemata"), &text)
    }

    /// Removes what was made for the container alone. What is gone already is no error.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(&self) -> Result<(), Error> {
        let own = self.own.then_some(&self.class);
        for path in self.monitoring.iter().chain(own) {
            match fs::remove_dir(path) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(self.failed("remove", path, e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The directory of the class of service, for statistics.
    pub fn class(&self) -> &Path {
        &self.class
    }

    /// The directory of the monitoring group, for statistics.
    pub fn monitoring(&self) -> Option<&Path> {
        self.monitoring.as_deref()
    }

    fn make_dir(&self, path: &Path) -> Result<(), Error> {
        match fs::create_dir(path) {
            // Of a container of this id that was not deleted in full.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other.map_err(|e| self.failed("create", path, e)),
        }
    }

    fn write(&self, action: &'static str, path: &Path, text: &str) -> Result<(), Error> {
        // One write, as the kernel takes all lines of one or none.
        let written =
            OpenOptions::new().write(true).open(path).and_then(|mut f| f.write_all(text.as_bytes()));
        written.map_err(|e| self.failed(action, path, e))
    }

    fn failed(&self, action: &'static str, path: &Path, source: io::Error) -> Error {
        let status = fs::read_to_string(self.root.join("info/last_cmd_status")).ok();
        let status = status.map(|s| s.trim().to_owned()).filter(|s| !s.is_empty() && s != "ok");
        Error::Io { action, path: path.to_owned(), status, source }
    }
}

/// The lines of `schemata` that have something in them.
fn lines(rdt: &LinuxIntelRdt) -> Vec<&str> {
    rdt.schemata().iter().flatten().map(String::as_str).filter(|line| !line.is_empty()).collect()
}

/// Compares a schema with the line of the same resource in a schemata file: each domain that the schema names
/// must have that value. The kernel writes values in its own way, so numbers are compared and not text.
fn compare(field: &'static str, wanted: Option<&str>, path: &Path) -> Result<(), Error> {
    let Some(wanted) = wanted else { return Ok(()) };
    let text = fs::read_to_string(path).map_err(|source| Error::Io {
        action: "read",
        path: path.to_owned(),
        status: None,
        source,
    })?;
    let schema = parse_schema(wanted);
    let found = text.lines().find(|line| {
        parse_schema(line).zip(schema.as_ref()).is_some_and(|(line, schema)| line.0 == schema.0)
    });
    let same = found.and_then(parse_schema).zip(schema.as_ref()).is_some_and(|(found, schema)| {
        schema.1.iter().all(|(domain, value)| found.1.get(domain) == Some(value))
    });
    if same {
        return Ok(());
    }
    Err(Error::Mismatch {
        field,
        wanted: wanted.to_owned(),
        found: found.unwrap_or_default().trim().to_owned(),
        path: path.to_owned(),
    })
}

/// The resource and, by domain, the value of a line such as `L3:0=7f0;1=1f` or `MB:0=20;1=70`.
fn parse_schema(line: &str) -> Option<(&str, BTreeMap<u64, u64>)> {
    let (resource, domains) = line.trim().split_once(':')?;
    let radix = if resource == "MB" { 10 } else { 16 };
    let domain = |text: &str| -> Option<(u64, u64)> {
        let (id, value) = text.trim().split_once('=')?;
        Some((
            id.trim().parse().ok()?,
            u64::from_str_radix(value.trim().trim_start_matches("0x"), radix).ok()?,
        ))
    };
    let domains = domains.split(';').filter(|d| !d.trim().is_empty()).map(domain).collect::<Option<_>>()?;
    Some((resource, domains))
}

/// The mount point of the first resctrl filesystem in the text of `/proc/self/mountinfo`.
fn mount_point(table: &[u8]) -> Option<PathBuf> {
    table.split(|&b| b == b'\n').find_map(|line| {
        let mut fields = line.split(|&b| b == b' ');
        let path = fields.nth(4)?;
        let mut after = fields.skip_while(|&field| field != b"-");
        (after.nth(1)? == b"resctrl").then(|| PathBuf::from(OsString::from_vec(unescape(path))))
    })
}

/// Undoes the octal escapes of the mount table (`\040` for a space).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|d| byte == b'\\' && d.iter().all(|d| (b'0'..=b'7').contains(d)));
        match digits {
            Some(d) => {
                plain.push((d[0] - b'0').wrapping_mul(64).wrapping_add((d[1] - b'0') * 8 + d[2] - b'0'));
                rest = &tail[3..];
            }
            None => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A directory that looks like resctrl. Files do not appear by themselves in new directories, so tests
    /// make those that a step is going to write.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str) -> Fake {
            let root = std::env::temp_dir().join(format!("dhow-test-rdt-{name}-{}", std::process::id()));
            for dir in ["info/L3", "info/MB", "mon_groups"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            let fake = Fake(root);
            fake.files("");
            fake
        }

        fn files(&self, group: &str) {
            fs::create_dir_all(self.0.join(group).join("mon_groups")).unwrap();
            fs::write(self.0.join(group).join("tasks"), "").unwrap();
            fs::write(self.0.join(group).join("schemata"), "    L3:0=ff;1=ff\n    MB:0=100;1=100\n").unwrap();
        }

        fn resctrl(&self) -> Resctrl {
            Resctrl::at(&self.0)
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap()
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn rdt(value: serde_json::Value) -> LinuxIntelRdt {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_class_of_its_own_is_made_and_removed() {
        let fake = Fake::new("own");
        let rdt = rdt(json!({}));
        let group = fake.resctrl().plan(&rdt, "box").unwrap();
        assert!(!fake.0.join("box").exists(), "plan only looks");
        group.create(&rdt).unwrap();
        assert!(fake.0.join("box").is_dir());
        // Through the state on disk.
        let group: Group = serde_json::from_str(&serde_json::to_string(&group).unwrap()).unwrap();
        group.remove().unwrap();
        assert!(!fake.0.join("box").exists());
        group.remove().unwrap();
    }

    #[test]
    fn a_directory_of_that_name_stays_if_it_was_there() {
        let fake = Fake::new("was-there");
        fs::create_dir(fake.0.join("box")).unwrap();
        let rdt = rdt(json!({}));
        let group = fake.resctrl().plan(&rdt, "box").unwrap();
        group.create(&rdt).unwrap();
        group.remove().unwrap();
        assert!(fake.0.join("box").is_dir());
    }

    #[test]
    fn schemata_in_order_with_schemata_last() {
        let fake = Fake::new("order");
        fake.files("box");
        let rdt = rdt(json!({
            "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "schemata": ["L2:0=1", "", "L3:0=7"],
        }));
        let group = fake.resctrl().plan(&rdt, "box").unwrap();
        group.create(&rdt).unwrap();
        let text = fake.read("box/schemata");
        assert!(text.starts_with("L3:0=f\nMB:0=20\nL2:0=1\nL3:0=7\n"), "{text}");
    }

    #[test]
    fn nothing_is_written_without_a_schema() {
        let fake = Fake::new("silent");
        fake.files("gold");
        let before = fake.read("gold/schemata");
        let rdt = rdt(json!({"closID": "gold"}));
        let group = fake.resctrl().plan(&rdt, "box").unwrap();
        group.create(&rdt).unwrap();
        group.attach(42).unwrap();
        group.remove().unwrap();
        assert_eq!(fake.read("gold/schemata"), before);
        assert_eq!(fake.read("gold/tasks"), "42");
    }

    #[test]
    fn a_named_class_without_schema_must_exist() {
        let fake = Fake::new("missing");
        let error = fake.resctrl().plan(&rdt(json!({"closID": "gold"})), "box").unwrap_err();
        assert!(matches!(error, Error::NoClass { .. }), "{error}");
    }

    #[test]
    fn a_named_class_with_schema_is_made_and_stays() {
        let fake = Fake::new("named");
        let rdt = rdt(json!({"closID": "gold", "schemata": ["L3:0=1"]}));
        let group = fake.resctrl().plan(&rdt, "box").unwrap();
        // The kernel makes the files with the directory; here there are none, so writing must fail, and the
        // directory must go again.
        let error = group.create(&rdt).unwrap_err();
        assert!(error.to_string().starts_with("write the schemata to"), "{error}");
        assert!(!fake.0.join("gold").exists());
        fake.files("gold");
        group.create(&rdt).unwrap();
        group.remove().unwrap();
        assert!(fake.0.join("gold").is_dir());
    }

    #[test]
    fn an_existing_class_must_match() {
        let fake = Fake::new("match");
        fake.files("gold");
        let plan = |value| fake.resctrl().plan(&rdt(value), "box");
        let good = json!({"closID": "gold", "l3CacheSchema": "L3:1=0FF;0=00ff", "memBwSchema": "MB:1=100"});
        let group = plan(good.clone()).unwrap();
        let before = fake.read("gold/schemata");
        group.create(&rdt(good)).unwrap();
        assert_eq!(fake.read("gold/schemata"), before, "what matches is not written");
        for bad in [
            json!({"closID": "gold", "l3CacheSchema": "L3:0=f"}),
            json!({"closID": "gold", "memBwSchema": "MB:0=10"}),
            json!({"closID": "gold", "memBwSchema": "MB:7=100"}),
            json!({"closID": "gold", "l3CacheSchema": "L3CODE:0=f"}),
        ] {
            let error = plan(bad).unwrap_err();
            assert!(matches!(error, Error::Mismatch { .. }), "{error}");
        }
    }

    #[test]
    fn the_root_class_is_never_removed() {
        let fake = Fake::new("root");
        let rdt = rdt(json!({"closID": "/", "enableMonitoring": true}));
        let group = fake.resctrl().plan(&rdt, "box").unwrap();
        assert_eq!(group.class(), fake.0);
        group.create(&rdt).unwrap();
        let monitoring = fake.0.join("mon_groups/box");
        assert_eq!(group.monitoring(), Some(monitoring.as_path()));
        assert!(monitoring.is_dir());
        fs::write(monitoring.join("tasks"), "").unwrap();
        group.attach(7).unwrap();
        assert_eq!((fake.read("tasks"), fake.read("mon_groups/box/tasks")), ("7".to_owned(), "7".to_owned()));
        fs::remove_file(monitoring.join("tasks")).unwrap();
        group.remove().unwrap();
        assert!(!monitoring.exists() && fake.0.join("schemata").exists());
    }

    #[test]
    fn what_the_machine_lacks_is_named() {
        let fake = Fake::new("lacks");
        fs::remove_dir(fake.0.join("info/MB")).unwrap();
        let error = fake.resctrl().plan(&rdt(json!({"memBwSchema": "MB:0=1"})), "box").unwrap_err();
        assert!(error.to_string().starts_with("memBwSchema is set"), "{error}");
    }

    #[test]
    fn the_kernels_explanation_is_in_the_error() {
        let fake = Fake::new("status");
        fs::write(fake.0.join("info/last_cmd_status"), "Unknown domain 9\n").unwrap();
        let group = fake.resctrl().plan(&rdt(json!({})), "box").unwrap();
        let error = group.attach(1).unwrap_err();
        assert!(error.to_string().ends_with("box/tasks (Unknown domain 9)"), "{error}");
    }

    #[test]
    fn without_the_filesystem() {
        assert!(matches!(Resctrl::find(), Err(Error::NotMounted)) || Path::new(DEFAULT_ROOT).exists());
    }

    #[test]
    fn mount_tables() {
        let table = b"23 1 0:5 / /proc rw shared:1 - proc proc rw\n\
            30 23 0:9 / /mnt/a\\040b rw - resctrl resctrl rw\n";
        assert_eq!(mount_point(table), Some(PathBuf::from("/mnt/a b")));
        assert_eq!(mount_point(b"23 1 0:5 / /resctrl rw - proc resctrl rw\n\n"), None);
    }
}
