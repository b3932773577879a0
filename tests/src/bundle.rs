//! OCI bundles made of busybox-static, and a `config.json` like the one Docker writes.
//!
//! The root filesystem is a real directory on tmpfs with one static binary and a symbolic link per applet, so every
//! test has its own and may change it.

use crate::command::run;
use crate::runtime::Runtime;
use crate::scratch::Scratch;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A bundle directory: `config.json`, `rootfs/`, and beside them `state/` for the runtime's `--root`.
/// Removed when dropped.
#[derive(Debug)]
pub struct Bundle {
    scratch: Scratch,
    config: Value,
}

impl Bundle {
    /// Makes a bundle whose container runs `true`, and writes its `config.json`.
    ///
    /// # Panics
    /// If busybox-static is not installed or the files cannot be written.
    pub fn busybox() -> Bundle {
        let scratch = Scratch::new();
        busybox_rootfs(&scratch.dir("rootfs"));
        scratch.dir("state");
        let config = docker_config(scratch.tag());
        let bundle = Bundle { scratch, config };
        bundle.write();
        bundle
    }

    /// The bundle's directory.
    pub fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// The root filesystem's directory on the host.
    pub fn rootfs(&self) -> PathBuf {
        self.scratch.join("rootfs")
    }

    /// A name that occurs in the bundle's path, its cgroup's path and its container's environment.
    pub fn tag(&self) -> &str {
        self.scratch.tag()
    }

    /// The bundle's scratch directory, for files beside `config.json`.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// A runtime whose `--root` is in this bundle's directory, so that [`Self::tag`] is in its command line.
    pub fn runtime(&self) -> Runtime {
        Runtime::with_root(self.scratch.join("state"))
    }

    /// The configuration as it will be written.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The configuration, to change it; [`Self::write`] puts it on disk.
    pub fn config_mut(&mut self) -> &mut Value {
        &mut self.config
    }

    /// Sets `process.args`.
    pub fn args<const N: usize>(&mut self, args: [&str; N]) -> &mut Bundle {
        self.config["process"]["args"] = json!(args.as_slice());
        self
    }

    /// Sets `process.args` to a shell that runs `script`.
    pub fn shell(&mut self, script: &str) -> &mut Bundle {
        self.args(["/bin/sh", "-c", script])
    }

    /// Sets `process.terminal`.
    pub fn terminal(&mut self, terminal: bool) -> &mut Bundle {
        self.config["process"]["terminal"] = json!(terminal);
        self
    }

    /// Sets the value at a JSON pointer (RFC 6901), with the objects on its way.
    ///
    /// # Panics
    /// If the way goes through something that is not an object, or through an array's end.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Bundle {
        let mut at = &mut self.config;
        for part in pointer.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            at = match part.parse::<usize>() {
                Ok(index) if at.is_array() => &mut at[index],
                _ => &mut at[part],
            };
        }
        *at = value;
        self
    }

    /// Adds a mount to the end of `mounts`.
    pub fn mount(&mut self, mount: Value) -> &mut Bundle {
        self.config["mounts"].as_array_mut().expect("mounts is an array").push(mount);
        self
    }

    /// Removes the namespace of this type from `linux.namespaces`: the container then shares the caller's.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Bundle {
        let all = self.config["linux"]["namespaces"].as_array_mut().expect("namespaces is an array");
        all.retain(|n| n["type"] != kind);
        self
    }

    /// Writes `config.json`.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn write(&self) {
        let text = serde_json::to_vec_pretty(&self.config).expect("a JSON value can be written");
        fs::write(self.scratch.join("config.json"), text).expect("write config.json");
    }
}

/// Fills `dir` with busybox: `bin/busybox` and a link for each applet, and the directories and files programs expect.
///
/// # Panics
/// If busybox-static is not installed or a file cannot be written.
pub fn busybox_rootfs(dir: &Path) {
    for d in ["bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr", "var"] {
        fs::create_dir_all(dir.join(d)).expect("make a directory of the root filesystem");
    }
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod /tmp");
    let busybox = dir.join("bin/busybox");
    // By a program: a descriptor of this process that is open for writing could be in a child that another thread
    // has just forked, and the file could not be executed then (ETXTBSY).
    run(Command::new("install").args(["-m", "755", "/bin/busybox"]).arg(&busybox)).ok();
    for applet in applets() {
        symlink("busybox", dir.join("bin").join(applet)).expect("link an applet");
    }
    let files = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        ("etc/hosts", "127.0.0.1 localhost\n"),
    ];
    for (name, text) in files {
        fs::write(dir.join(name), text).expect("write a file of the root filesystem");
    }
}

/// The names of busybox's applets, read once.
fn applets() -> &'static [String] {
    static APPLETS: OnceLock<Vec<String>> = OnceLock::new();
    APPLETS.get_or_init(|| {
        let list = run(Command::new("/bin/busybox").arg("--list")).ok();
        list.stdout.lines().filter(|a| *a != "busybox").map(str::to_owned).collect()
    })
}

/// The capabilities that Docker leaves to a container.
pub const DOCKER_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A configuration with what Docker gives a container by default, except seccomp (see [`default_seccomp`]).
///
/// `tag` names its cgroup (`/<tag>`), its host name, and stands in its environment.
pub fn docker_config(tag: &str) -> Value {
    let caps = DOCKER_CAPABILITIES;
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", format!("DHOW_TEST={tag}")],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "noNewPrivileges": false,
            "oomScoreAdj": 0
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "dhow-test",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["ro", "nosuid", "noexec", "nodev"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"] }
        ],
        "linux": {
            "cgroupsPath": format!("/{tag}"),
            "namespaces": [
                { "type": "mount" }, { "type": "network" }, { "type": "uts" },
                { "type": "pid" }, { "type": "ipc" }, { "type": "cgroup" }
            ],
            "resources": {
                "devices": [
                    { "allow": false, "access": "rwm" },
                    { "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm" },
                    { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
                    { "allow": true, "type": "c", "major": 1, "minor": 9, "access": "rwm" },
                    { "allow": true, "type": "c", "major": 1, "minor": 8, "access": "rwm" },
                    { "allow": true, "type": "c", "major": 5, "minor": 0, "access": "rwm" },
                    { "allow": true, "type": "c", "major": 5, "minor": 1, "access": "rwm" },
                    { "allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm" }
                ]
            },
            "maskedPaths": [
                "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// The default seccomp profile that the machine's container packages install, as `linux.seccomp` for a container on
/// x86_64 with [`DOCKER_CAPABILITIES`]; `None` where there is none.
///
/// The installed file is in the engines' own form, in which a rule may depend on the architecture and on capabilities.
pub fn default_seccomp() -> Option<Value> {
    let text = fs::read("/usr/share/containers/seccomp.json").ok()?;
    let profile: Value = serde_json::from_slice(&text).ok()?;
    let holds = |condition: &Value| {
        let has = |key: &str, known: &dyn Fn(&str) -> bool| match condition[key].as_array() {
            Some(list) => list.iter().filter_map(Value::as_str).any(known),
            None => false,
        };
        let arch = has("arches", &|a| a == "amd64" || a == "x86" || a == "x32");
        let caps = has("caps", &|c| DOCKER_CAPABILITIES.contains(&c));
        (arch, caps)
    };
    let mut rules = Vec::new();
    for rule in profile["syscalls"].as_array()? {
        let (arch, caps) = holds(&rule["includes"]);
        let wants = |key: &str| rule["includes"][key].as_array().is_some_and(|l| !l.is_empty());
        let (not_arch, not_caps) = holds(&rule["excludes"]);
        if (wants("arches") && !arch) || (wants("caps") && !caps) || not_arch || not_caps {
            continue;
        }
        let mut out = json!({ "names": rule["names"], "action": rule["action"] });
        for key in ["args", "errnoRet"] {
            if rule[key].as_array().is_some_and(|a| !a.is_empty()) || rule[key].is_u64() {
                out[key] = rule[key].clone();
            }
        }
        rules.push(out);
    }
    Some(json!({
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"].as_u64().unwrap_or(1),
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_makes_its_way() {
        let mut bundle = Bundle::busybox();
        bundle.set("/linux/resources/memory/limit", json!(512));
        bundle.set("/mounts/0/options", json!([]));
        bundle.set("/linux/sysctl/a~1b", json!("1"));
        bundle.write();
        let text = fs::read(bundle.path().join("config.json")).unwrap();
        let read: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(read["linux"]["resources"]["memory"]["limit"], 512);
        assert_eq!(read["mounts"][0]["options"], json!([]));
        assert_eq!(read["linux"]["sysctl"]["a/b"], "1");
        assert!(bundle.rootfs().join("bin/sh").exists());
    }

    #[test]
    fn the_default_profile_has_no_conditions_left() {
        let Some(profile) = default_seccomp() else { crate::skip!("no /usr/share/containers/seccomp.json") };
        let rules = profile["syscalls"].as_array().unwrap();
        assert!(rules.len() > 5);
        assert!(rules.iter().all(|r| r.get("includes").is_none() && r["names"].is_array()));
        let allowed = |name: &str| {
            rules.iter().any(|r| {
                r["action"] == "SCMP_ACT_ALLOW" && r["names"].as_array().unwrap().iter().any(|n| n == name)
            })
        };
        assert!(allowed("read") && allowed("chroot") && !allowed("init_module"));
    }
}
