//! The benchmark's container: a root filesystem of static programs on tmpfs, and the config.json that Docker writes by
//! default. tests/floor/floor.c makes the same container; what is changed here is changed there.

use serde_json::{Value, json};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

/// What the programs in the root filesystem are called.
pub const PAYLOADS: [&str; 3] = ["true", "pause", "pilot"];

/// The container's hostname.
pub const HOSTNAME: &str = "bench";

/// Docker's default capabilities.
const CAPABILITIES: [&str; 14] = [
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

/// What differs between the benchmark's containers.
#[derive(Debug, Clone)]
pub struct Container<'a> {
    /// The program, one of [`PAYLOADS`].
    pub program: &'a str,
    /// The root filesystem.
    pub rootfs: &'a Path,
    /// linux.cgroupsPath.
    pub cgroup: &'a str,
    /// The controllers that there are to set limits by.
    pub controllers: &'a [String],
    /// linux.seccomp.
    pub seccomp: &'a Value,
    /// Hard limit of open files.
    pub nofile: u64,
    /// Memory limit in bytes; Docker's own default has none, the benchmark's has 512 MiB.
    pub memory_bytes: u64,
}

/// Makes the root filesystem at `dir` with `payload` as its only program, under all its names.
///
/// # Errors
/// A file or directory cannot be made.
pub fn make_rootfs(dir: &Path, payload: &Path) -> io::Result<()> {
    for sub in ["proc", "dev", "sys", "etc", "tmp", "run"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    for name in PAYLOADS {
        fs::copy(payload, dir.join(name))?;
    }
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/:/true\n")?;
    fs::write(dir.join("etc/group"), "root:x:0:\n")?;
    symlink("/proc/mounts", dir.join("etc/mtab"))
}

/// Makes the bundle directory `dir`.
///
/// # Errors
/// A file or directory cannot be made.
pub fn make(dir: &Path, container: &Container<'_>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("config.json"), serde_json::to_vec(&config(container))?)
}

fn config(container: &Container<'_>) -> Value {
    let has = |name: &str| container.controllers.iter().any(|c| c.split(',').any(|c| c == name));
    let oom_score_adj: i64 =
        fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|s| s.trim().parse().ok()).unwrap_or(0);
    let mut resources = json!({ "devices": [
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 9, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 8, "access": "rwm" },
        { "allow": true, "type": "c", "major": 5, "minor": 0, "access": "rwm" },
        { "allow": true, "type": "c", "major": 5, "minor": 1, "access": "rwm" },
        { "allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm" },
    ] });
    if has("memory") {
        resources["memory"] = json!({ "limit": container.memory_bytes });
    }
    if has("pids") {
        resources["pids"] = json!({ "limit": 1024 });
    }
    if has("cpu") {
        resources["cpu"] = json!({ "shares": 1024, "quota": 200_000, "period": 100_000 });
    }
    let strict = ["nosuid", "noexec", "nodev"];
    let read_only = ["nosuid", "noexec", "nodev", "ro"];
    let program = format!("/{}", container.program);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": [program],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", format!("HOSTNAME={HOSTNAME}")],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": container.nofile, "soft": container.nofile }],
            "oomScoreAdj": oom_score_adj,
        },
        "root": { "path": container.rootfs },
        "hostname": HOSTNAME,
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": strict },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": read_only },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": read_only },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": strict },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
        ],
        "linux": {
            "cgroupsPath": container.cgroup,
            "resources": resources,
            "namespaces": [
                { "type": "mount" }, { "type": "network" }, { "type": "uts" }, { "type": "pid" }, { "type": "ipc" },
                { "type": "cgroup" },
            ],
            "seccomp": container.seccomp,
            "maskedPaths": [
                "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// linux.seccomp out of a profile file: either that itself, or an engine's template (with `archMap`), which is resolved
/// as engines do for the container's capabilities and an x86_64 or aarch64 machine.
///
/// # Errors
/// The file cannot be read or is no JSON.
pub fn seccomp(file: &Path) -> io::Result<Value> {
    let profile: Value = serde_json::from_slice(&fs::read(file)?)?;
    Ok(if profile["archMap"].is_array() { resolve(&profile) } else { profile })
}

fn resolve(template: &Value) -> Value {
    let (engine_name, audit_name) = if cfg!(target_arch = "aarch64") {
        ("arm64", "SCMP_ARCH_AARCH64")
    } else {
        ("amd64", "SCMP_ARCH_X86_64")
    };
    let list = |value: &Value| -> Vec<Value> { value.as_array().cloned().unwrap_or_default() };
    let mut architectures = Vec::new();
    for entry in list(&template["archMap"]).iter().filter(|entry| entry["architecture"] == audit_name) {
        architectures.push(entry["architecture"].clone());
        architectures.extend(list(&entry["subArchitectures"]));
    }
    let granted = |cap: &Value| cap.as_str().is_some_and(|cap| CAPABILITIES.contains(&cap));
    let mut syscalls = Vec::new();
    for rule in list(&template["syscalls"]) {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        let included_arches = list(&includes["arches"]);
        // A minimum kernel below this benchmark's (it needs Linux 5.7 at least) always holds.
        let applies = list(&includes["caps"]).iter().all(granted)
            && (included_arches.is_empty() || included_arches.iter().any(|arch| arch == engine_name))
            && !list(&excludes["caps"]).iter().any(granted)
            && !list(&excludes["arches"]).iter().any(|arch| arch == engine_name);
        if !applies {
            continue;
        }
        let mut resolved = json!({ "names": rule["names"], "action": rule["action"] });
        if rule["errnoRet"].is_u64() {
            resolved["errnoRet"] = rule["errnoRet"].clone();
        }
        if !list(&rule["args"]).is_empty() {
            resolved["args"] = rule["args"].clone();
        }
        syscalls.push(resolved);
    }
    let mut profile = json!({
        "defaultAction": template["defaultAction"], "architectures": architectures, "syscalls": syscalls,
    });
    if template["defaultErrnoRet"].is_u64() {
        profile["defaultErrnoRet"] = template["defaultErrnoRet"].clone();
    }
    profile
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_resolved_for_the_granted_capabilities() {
        let template = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
            "archMap": [
                { "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"] },
                { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"] },
            ],
            "syscalls": [
                { "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [] },
                { "names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_CHROOT"] } },
                { "names": ["reboot"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_BOOT"] } },
                { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22,
                  "excludes": { "caps": ["CAP_AUDIT_WRITE"] } },
                { "names": ["s390_only"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["s390x"] } },
            ],
        });
        let profile = resolve(&template);
        let names: Vec<_> =
            profile["syscalls"].as_array().unwrap().iter().map(|s| s["names"][0].clone()).collect();
        assert_eq!(names, ["read", "chroot"]);
        assert_eq!(profile["architectures"].as_array().unwrap().len(), 2);
        assert_eq!(profile["defaultErrnoRet"], 1);
        assert!(profile["syscalls"][0].get("args").is_none());
    }
}
