//! The document that `dhow-runtime features` prints: what the runtime implements, whatever the host can do.
//!
//! Specification: features.md and features-linux.md of runtime-spec 1.3.0. Every list comes from the table
//! that the implementing module itself works with, as far as it has one.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::{MIN_VERSION, SPEC_VERSION};
use crate::{mount_options, seccomp};

/// The kinds of hooks, in the order in which they run.
pub const HOOKS: &[&str] =
    &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The namespace types of `linux.namespaces`, sorted.
pub const NAMESPACES: &[&str] = &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// The modes of `linux.memoryPolicy`.
pub const MEMORY_POLICY_MODES: &[&str] = &[
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

/// The flags of `linux.memoryPolicy`.
pub const MEMORY_POLICY_FLAGS: &[&str] =
    &["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// Annotations of a configuration that change what the runtime does; one that ends with a dot is a prefix.
pub const UNSAFE_ANNOTATIONS: &[&str] = &["org.criu.config", "org.systemd.property."];

/// The features document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features<'a> {
    oci_version_min: &'a str,
    oci_version_max: &'a str,
    hooks: &'a [&'a str],
    mount_options: Vec<&'a str>,
    linux: Linux<'a>,
    annotations: BTreeMap<&'a str, &'a str>,
    potentially_unsafe_config_annotations: &'a [&'a str],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux<'a> {
    namespaces: &'a [&'a str],
    capabilities: Vec<String>,
    cgroup: Cgroup,
    seccomp: Seccomp<'a>,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy<'a>,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp<'a> {
    enabled: bool,
    actions: &'a [&'a str],
    operators: &'a [&'a str],
    archs: &'a [&'a str],
    known_flags: &'a [&'a str],
    supported_flags: &'a [&'a str],
}

#[derive(Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Debug, Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Debug, Serialize)]
struct MemoryPolicy<'a> {
    modes: &'a [&'a str],
    flags: &'a [&'a str],
}

#[derive(Debug, Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

/// The document of this runtime, to be printed with an indentation of four spaces as runc's is.
pub fn document() -> Features<'static> {
    // Callers look for the second one by runc's name to know whether they may offer checkpoints.
    let annotations = BTreeMap::from([
        ("org.dhow.runtime.version", env!("CARGO_PKG_VERSION")),
        ("org.opencontainers.runc.checkpoint.enabled", "true"),
    ]);
    let yes = || Enabled { enabled: true };
    Features {
        oci_version_min: MIN_VERSION,
        oci_version_max: SPEC_VERSION,
        hooks: HOOKS,
        mount_options: mount_options::known().collect(),
        linux: Linux {
            namespaces: NAMESPACES,
            capabilities: capabilities(),
            cgroup: Cgroup { v1: true, v2: true, systemd: true, systemd_user: true, rdma: true },
            seccomp: Seccomp {
                enabled: true,
                actions: seccomp::known_actions(),
                operators: seccomp::known_operators(),
                archs: seccomp::known_archs(),
                known_flags: seccomp::known_flags(),
                // The flags are this runtime's own doing, with no library between it and the kernel.
                supported_flags: seccomp::known_flags(),
            },
            apparmor: yes(),
            selinux: yes(),
            intel_rdt: IntelRdt { enabled: true, schemata: true, monitoring: true },
            memory_policy: MemoryPolicy { modes: MEMORY_POLICY_MODES, flags: MEMORY_POLICY_FLAGS },
            mount_extensions: MountExtensions { idmap: yes() },
            net_devices: yes(),
        },
        annotations,
        potentially_unsafe_config_annotations: UNSAFE_ANNOTATIONS,
    }
}

/// The names of all capabilities in the order of their numbers.
fn capabilities() -> Vec<String> {
    let mut all: Vec<caps::Capability> = caps::all().into_iter().collect();
    all.sort_by_key(caps::Capability::index);
    all.iter().map(caps::Capability::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxMemoryPolicy, LinuxNamespace, LinuxSeccomp};
    use serde_json::{Value, json};

    #[test]
    fn names_of_the_specification() {
        let document: Value = serde_json::to_value(document()).unwrap();
        assert_eq!(document["ociVersionMin"], "1.0.0");
        assert_eq!(document["ociVersionMax"], "1.3.0");
        assert_eq!(document["linux"]["cgroup"]["systemdUser"], true);
        assert_eq!(document["linux"]["mountExtensions"], json!({"idmap": {"enabled": true}}));
        assert!(document["linux"]["seccomp"]["knownFlags"].is_array());
        assert_eq!(document["linux"]["intelRdt"]["monitoring"], true);
        assert_eq!(document["linux"]["netDevices"]["enabled"], true);
        assert!(document["potentiallyUnsafeConfigAnnotations"].is_array());
        let options = document["mountOptions"].as_array().unwrap();
        assert!(options.contains(&json!("rro")) && options.contains(&json!("tmpcopyup")));
    }

    #[test]
    fn capabilities_by_number() {
        let all = capabilities();
        assert_eq!(all.len(), 41);
        assert_eq!((all[0].as_str(), all[40].as_str()), ("CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"));
    }

    #[test]
    fn every_name_is_accepted_in_a_configuration() {
        for name in NAMESPACES {
            serde_json::from_value::<LinuxNamespace>(json!({"type": name})).expect(name);
        }
        for mode in MEMORY_POLICY_MODES {
            let policy = json!({"mode": mode, "flags": MEMORY_POLICY_FLAGS});
            serde_json::from_value::<LinuxMemoryPolicy>(policy).expect(mode);
        }
        for action in seccomp::known_actions() {
            let arg = |op| json!({"index": 0, "value": 0, "op": op});
            let args: Vec<_> = seccomp::known_operators().iter().map(arg).collect();
            let profile = json!({
                "defaultAction": action,
                "architectures": seccomp::known_archs(),
                "flags": seccomp::known_flags(),
                "syscalls": [{"names": ["read"], "action": action, "args": args}],
            });
            serde_json::from_value::<LinuxSeccomp>(profile).expect(action);
        }
        for name in HOOKS {
            let spec = json!({"ociVersion": "1.3.0", "hooks": {*name: [{"path": "relative"}]}});
            let config = crate::config::parse(spec.to_string().as_bytes()).unwrap();
            let mut found = Vec::new();
            crate::config::check(&config.spec, &[], &mut found, &mut Vec::new());
            let pointer = format!("/hooks/{name}/0/path");
            assert!(found.iter().any(|m| m.pointer == pointer), "{name} is not read");
        }
    }
}
