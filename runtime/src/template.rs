//! The configuration that `dhow-runtime spec` writes, to be edited by a person.
//!
//! It has the shape of runc's: members in the order of the specification's types. The masked paths are those
//! that the threat model (class I) names. For a rootless container there is a user namespace with the
//! caller's ids mapped to root, the host's network and its /sys, and no resources.

use serde::Serialize;

use crate::config::SPEC_VERSION;

/// The ids that the root of a rootless container has outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rootless {
    uid: u32,
    gid: u32,
}

const CAPABILITIES: &[&str] = &["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

const READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const MOUNTS: &[Mount<'static>] = &[
    Mount { destination: "/proc", typ: "proc", source: "proc", options: &["nosuid", "nodev", "noexec"] },
    Mount {
        destination: "/dev",
        typ: "tmpfs",
        source: "tmpfs",
        options: &["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    Mount {
        destination: "/dev/pts",
        typ: "devpts",
        source: "devpts",
        options: &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    Mount {
        destination: "/dev/shm",
        typ: "tmpfs",
        source: "shm",
        options: &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
    Mount {
        destination: "/dev/mqueue",
        typ: "mqueue",
        source: "mqueue",
        options: &["nosuid", "noexec", "nodev"],
    },
    Mount {
        destination: "/sys",
        typ: "sysfs",
        source: "sysfs",
        options: &["nosuid", "noexec", "nodev", "ro"],
    },
    Mount {
        destination: "/sys/fs/cgroup",
        typ: "cgroup",
        source: "cgroup",
        options: &["nosuid", "noexec", "nodev", "relatime", "ro"],
    },
];

/// A configuration to start from; serializes in the order of the specification's types.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Template<'a> {
    oci_version: &'a str,
    process: Process<'a>,
    root: Root<'a>,
    hostname: &'a str,
    mounts: Vec<MountEntry<'a>>,
    linux: Linux<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Process<'a> {
    terminal: bool,
    user: User,
    args: &'a [&'a str],
    env: &'a [&'a str],
    cwd: &'a str,
    capabilities: Capabilities<'a>,
    rlimits: [Rlimit<'a>; 1],
    no_new_privileges: bool,
}

#[derive(Serialize)]
struct User {
    uid: u32,
    gid: u32,
}

#[derive(Serialize)]
struct Capabilities<'a> {
    bounding: &'a [&'a str],
    effective: &'a [&'a str],
    permitted: &'a [&'a str],
}

#[derive(Serialize)]
struct Rlimit<'a> {
    #[serde(rename = "type")]
    typ: &'a str,
    hard: u64,
    soft: u64,
}

#[derive(Serialize)]
struct Root<'a> {
    path: &'a str,
    readonly: bool,
}

struct Mount<'a> {
    destination: &'a str,
    typ: &'a str,
    source: &'a str,
    options: &'a [&'a str],
}

#[derive(Serialize)]
struct MountEntry<'a> {
    destination: &'a str,
    #[serde(rename = "type")]
    typ: &'a str,
    source: &'a str,
    options: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid_mappings: Option<[IdMapping; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid_mappings: Option<[IdMapping; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Resources<'a>>,
    namespaces: Vec<Namespace<'a>>,
    masked_paths: &'a [&'a str],
    readonly_paths: &'a [&'a str],
}

#[derive(Serialize)]
struct IdMapping {
    #[serde(rename = "containerID")]
    container_id: u32,
    #[serde(rename = "hostID")]
    host_id: u32,
    size: u32,
}

#[derive(Serialize)]
struct Resources<'a> {
    devices: [DeviceRule<'a>; 1],
}

#[derive(Serialize)]
struct DeviceRule<'a> {
    allow: bool,
    access: &'a str,
}

#[derive(Serialize)]
struct Namespace<'a> {
    #[serde(rename = "type")]
    typ: &'a str,
}

/// The configuration of a shell in a root filesystem beside it, or, with `rootless`, of the same for a container
/// that the calling user runs.
pub fn default_spec(rootless: bool) -> Template<'static> {
    let caller =
        || Rootless { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    template(rootless.then(caller))
}

fn template(rootless: Option<Rootless>) -> Template<'static> {
    let map = |host_id| Some([IdMapping { container_id: 0, host_id, size: 1 }]);
    let namespaces: &[&str] = match rootless {
        None => &["pid", "network", "ipc", "uts", "mount", "cgroup"],
        Some(_) => &["pid", "ipc", "uts", "mount", "cgroup", "user"],
    };
    Template {
        oci_version: SPEC_VERSION,
        process: Process {
            terminal: true,
            user: User { uid: 0, gid: 0 },
            args: &["sh"],
            env: &["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            cwd: "/",
            capabilities: Capabilities {
                bounding: CAPABILITIES,
                effective: CAPABILITIES,
                permitted: CAPABILITIES,
            },
            rlimits: [Rlimit { typ: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
            no_new_privileges: true,
        },
        root: Root { path: "rootfs", readonly: true },
        hostname: "dhow",
        mounts: MOUNTS.iter().map(|mount| entry(mount, rootless.is_some())).collect(),
        linux: Linux {
            uid_mappings: rootless.and_then(|ids| map(ids.uid)),
            gid_mappings: rootless.and_then(|ids| map(ids.gid)),
            resources: rootless
                .is_none()
                .then_some(Resources { devices: [DeviceRule { allow: false, access: "rwm" }] }),
            namespaces: namespaces.iter().map(|typ| Namespace { typ }).collect(),
            masked_paths: MASKED_PATHS,
            readonly_paths: READONLY_PATHS,
        },
    }
}

fn entry<'a>(mount: &Mount<'a>, rootless: bool) -> MountEntry<'a> {
    // A sysfs belongs to a network namespace, and the host's can only be bound.
    if rootless && mount.destination == "/sys" {
        let options = vec!["rbind", "nosuid", "noexec", "nodev", "ro"];
        return MountEntry { destination: "/sys", typ: "none", source: "/sys", options };
    }
    // With one id mapped there is no group 5 to own terminals.
    let of_an_id = |option: &&&str| option.starts_with("gid=") || option.starts_with("uid=");
    let options = mount.options.iter().filter(|o| !(rootless && of_an_id(o))).copied().collect();
    MountEntry { destination: mount.destination, typ: mount.typ, source: mount.source, options }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config_json(rootless: Option<Rootless>) -> String {
        serde_json::to_string_pretty(&template(rootless)).unwrap()
    }

    fn check(text: &str) -> oci_spec::runtime::Spec {
        let config = config::parse(text.as_bytes()).unwrap();
        let (mut mistakes, mut warnings) = (Vec::new(), config.warnings);
        config::check(&config.spec, &config.mistakes, &mut mistakes, &mut warnings);
        assert_eq!((mistakes, warnings), (vec![], vec![]));
        config.spec
    }

    #[test]
    fn the_template_has_no_mistakes() {
        let spec = check(&config_json(None));
        assert_eq!(spec.mounts().as_ref().unwrap().len(), MOUNTS.len());
        assert!(spec.linux().as_ref().unwrap().uid_mappings().is_none());
    }

    #[test]
    fn members_are_in_order() {
        let text = config_json(None);
        assert!(
            text.starts_with("{\n  \"ociVersion\": \"1.3.0\",\n  \"process\": {\n    \"terminal\": true,\n")
        );
        let names = ["\"process\"", "\"root\"", "\"hostname\"", "\"mounts\"", "\"linux\"", "\"namespaces\""];
        let places: Vec<usize> = names.iter().map(|n| text.find(n).unwrap()).collect();
        assert!(places.is_sorted());
    }

    #[test]
    fn the_rootless_template() {
        let text = config_json(Some(Rootless { uid: 1000, gid: 100 }));
        let spec = check(&text);
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.uid_mappings().as_ref().unwrap()[0].host_id(), 1000);
        assert_eq!(linux.gid_mappings().as_ref().unwrap()[0].host_id(), 100);
        assert!(linux.resources().is_none());
        assert!(!text.contains("gid=5"));
        assert!(!text.contains("\"network\""));
        assert!(text.contains("\"rbind\""));
    }
}
