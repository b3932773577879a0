//! Rules for `linux` (config-linux.md).

use std::collections::HashMap;
use std::path::Path;

use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxDeviceType, LinuxIntelRdt, LinuxMemoryPolicy, LinuxNamespaceType,
    LinuxNetDevice, LinuxResources, LinuxTimeOffset, MemoryPolicyFlagType, MemoryPolicyModeType,
};

use super::{Check, Namespaces};
use crate::config::document::escape;
use crate::config::sysctl;

/// Longest name of a network interface, in bytes (`IFNAMSIZ` without its NUL).
const MAX_INTERFACE_BYTES: usize = 15;

impl Check<'_> {
    pub(super) fn linux(&mut self, linux: &Linux, namespaces: &Namespaces<'_>) {
        self.namespaces(linux, namespaces);
        self.sysctls(linux, namespaces);
        for (i, device) in linux.devices().iter().flatten().enumerate() {
            let earlier = &linux.devices().as_deref().unwrap_or_default()[..i];
            self.device(device, earlier, &format!("/linux/devices/{i}"));
        }
        if let Some(devices) = linux.net_devices() {
            self.net_devices(devices, namespaces);
        }
        if let Some(path) = linux.cgroups_path() {
            self.no_nul_path("/linux/cgroupsPath", path);
        }
        if let Some(resources) = linux.resources() {
            self.resources(resources);
        }
        if let Some(value) = linux.rootfs_propagation() {
            let values = ["shared", "slave", "private", "unbindable"];
            // runc also takes the recursive forms of the mount options, and Docker writes them.
            if !values.contains(&value.strip_prefix('r').unwrap_or(value)) {
                self.mistake(
                    "/linux/rootfsPropagation",
                    format!("{value:?} is not one of shared, slave, private, unbindable"),
                );
            }
        }
        for (name, paths) in
            [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())]
        {
            let paths = paths.as_deref().unwrap_or_default();
            if !paths.is_empty() && namespaces.lacks(LinuxNamespaceType::Mount) {
                let message = "needs a mount namespace in /linux/namespaces";
                self.mistake(format_args!("/linux/{name}"), message);
            }
            for (i, path) in paths.iter().enumerate() {
                let pointer = format_args!("/linux/{name}/{i}");
                // What shall be hidden must be found; what shall be read-only is looked for from the root, as in runc.
                if name == "readonlyPaths" && !path.is_empty() && !path.starts_with('/') {
                    self.no_nul(pointer, path.as_bytes());
                } else {
                    self.absolute(pointer, Path::new(path));
                }
            }
        }
        if let Some(label) = linux.mount_label() {
            self.no_nul("/linux/mountLabel", label.as_bytes());
        }
        if let Some(rdt) = linux.intel_rdt() {
            self.intel_rdt(rdt);
        }
        if let Some(policy) = linux.memory_policy() {
            self.memory_policy(policy);
        }
        if linux.personality().iter().flat_map(|p| p.flags()).any(|flags| !flags.is_empty()) {
            let message = "ignored: the specification supports no flags";
            self.warning("/linux/personality/flags", message);
        }
        if let Some(offsets) = linux.time_offsets() {
            self.time_offsets(offsets, namespaces);
        }
    }

    fn namespaces(&mut self, linux: &Linux, namespaces: &Namespaces<'_>) {
        for (i, namespace) in namespaces.list.iter().enumerate() {
            if namespaces.trusted && namespaces.list[..i].iter().any(|n| n.typ() == namespace.typ()) {
                let message = format!("{} stands twice in the list", type_name(namespace.typ()));
                self.mistake(format_args!("/linux/namespaces/{i}/type"), message);
            }
            if let Some(path) = namespace.path() {
                self.absolute(format_args!("/linux/namespaces/{i}/path"), path);
            }
        }
        let uid = linux.uid_mappings().as_deref().unwrap_or_default();
        let gid = linux.gid_mappings().as_deref().unwrap_or_default();
        self.id_mappings("/linux/uidMappings".to_owned(), uid);
        self.id_mappings("/linux/gidMappings".to_owned(), gid);
        if !namespaces.trusted {
            return;
        }
        let user = namespaces.get(LinuxNamespaceType::User);
        for (name, mappings) in [("uidMappings", uid), ("gidMappings", gid)] {
            let pointer = format!("/linux/{name}");
            match user {
                None if !mappings.is_empty() => {
                    self.mistake(pointer, "needs a user namespace in /linux/namespaces");
                }
                Some(user) if user.path().is_none() && mappings.is_empty() => {
                    self.mistake(pointer, "is required for a new user namespace");
                }
                Some(user) if user.path().is_some() && !mappings.is_empty() => {
                    // containerd and CRI-O write both. The compiler compares the two.
                    let message = "is not needed with a path: the namespace has its mapping already";
                    self.warning(pointer, message);
                }
                _ => {}
            }
        }
    }

    fn sysctls(&mut self, linux: &Linux, namespaces: &Namespaces<'_>) {
        let Some(sysctls) = linux.sysctl() else { return };
        // Sorted, so that one file gives one message.
        let mut names: Vec<&String> = sysctls.keys().collect();
        names.sort();
        for name in names {
            let pointer = format!("/linux/sysctl/{}", escape(name));
            self.no_nul(&pointer, sysctls[name].as_bytes());
            let Some(components) = sysctl::components(name) else {
                self.mistake(pointer, "is not the name of a kernel parameter");
                continue;
            };
            let (typ, needed) = match sysctl::owner(&components) {
                Some(sysctl::Owner::Ipc) => (LinuxNamespaceType::Ipc, "an ipc"),
                Some(sysctl::Owner::Network) => (LinuxNamespaceType::Network, "a network"),
                Some(sysctl::Owner::Uts) => (LinuxNamespaceType::Uts, "a uts"),
                Some(sysctl::Owner::User) => (LinuxNamespaceType::User, "a user"),
                Some(sysctl::Owner::Hostname) => {
                    self.mistake(pointer, "is not allowed: /hostname sets it");
                    continue;
                }
                None => {
                    self.mistake(pointer, "is not allowed: it is not in a namespace of its own");
                    continue;
                }
            };
            if namespaces.lacks(typ) {
                self.mistake(pointer, format!("needs {needed} namespace in /linux/namespaces"));
            }
        }
    }

    fn device(&mut self, device: &LinuxDevice, earlier: &[LinuxDevice], at: &str) {
        if device.path().as_os_str().is_empty() {
            self.mistake(format_args!("{at}/path"), "is required");
        } else {
            self.absolute(format_args!("{at}/path"), device.path());
        }
        if device.typ() == LinuxDeviceType::A {
            self.mistake(format_args!("{at}/type"), "\"a\" is not one of c, b, u, p");
        }
        if device.typ() != LinuxDeviceType::P {
            // Linux packs a device number into 12 and 20 bits.
            for (name, number, bits) in [("major", device.major(), 12), ("minor", device.minor(), 20)] {
                if !(0..1 << bits).contains(&number) {
                    let message = format!("{number} is not between 0 and {}", (1 << bits) - 1);
                    self.mistake(format_args!("{at}/{name}"), message);
                }
            }
        }
        for id in [("uid", device.uid()), ("gid", device.gid())] {
            if let (name, Some(u32::MAX)) = id {
                self.mistake(format_args!("{at}/{name}"), format!("{} is not a valid id", u32::MAX));
            }
        }
        if !self.trusted("/linux/devices") {
            return;
        }
        let number = |d: &LinuxDevice| (node_type(d.typ()), d.major(), d.minor());
        let same_number =
            |d: &&LinuxDevice| number(d) == number(device) && device.typ() != LinuxDeviceType::P;
        if let Some(other) = earlier.iter().find(|d| d.path() == device.path()) {
            if number(other) == number(device) {
                self.warning(format_args!("{at}/path"), "stands twice in the list");
            } else {
                self.mistake(format_args!("{at}/path"), "stands twice in the list, for different devices");
            }
        } else if let Some(other) = earlier.iter().find(same_number) {
            let message = format!("the same device as {:?}", other.path());
            self.warning(at, message);
        }
    }

    fn net_devices(&mut self, devices: &HashMap<String, LinuxNetDevice>, namespaces: &Namespaces<'_>) {
        if !devices.is_empty() && namespaces.lacks(LinuxNamespaceType::Network) {
            self.mistake("/linux/netDevices", "needs a network namespace in /linux/namespaces");
        }
        let mut names: Vec<&String> = devices.keys().collect();
        names.sort();
        let mut taken: Vec<&str> = Vec::with_capacity(names.len());
        for name in names {
            let at = format!("/linux/netDevices/{}", escape(name));
            if !device_name_is_valid(name) {
                self.mistake(&at, format!("{name:?} is not the name of a network interface"));
            }
            let inside = devices[name].name().as_deref().unwrap_or(name);
            if inside != name && (!device_name_is_valid(inside) || inside.matches('%').count() > 1) {
                self.mistake(
                    format_args!("{at}/name"),
                    format!("{inside:?} is not the name of a network interface"),
                );
            }
            if !inside.contains("%d") && taken.contains(&inside) {
                self.mistake(format_args!("{at}/name"), format!("{inside:?} stands twice"));
            }
            taken.push(inside);
        }
    }

    fn resources(&mut self, resources: &LinuxResources) {
        for (i, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
            if !page_size_is_valid(limit.page_size()) {
                let message = format!("{:?} is not a page size such as 64KB, 2MB or 1GB", limit.page_size());
                self.mistake(format_args!("/linux/resources/hugepageLimits/{i}/pageSize"), message);
            }
        }
        let mut keys: Vec<&String> = resources.unified().iter().flat_map(HashMap::keys).collect();
        keys.sort();
        for key in keys {
            let pointer = format!("/linux/resources/unified/{}", escape(key));
            if key.contains('/') || key.contains('\0') {
                self.mistake(pointer, "must be the name of a file, without /");
            } else if !key
                .split_once('.')
                .is_some_and(|(controller, rest)| !controller.is_empty() && !rest.is_empty())
            {
                self.mistake(pointer, "is not of the form CONTROLLER.PARAMETER");
            }
        }
    }

    fn intel_rdt(&mut self, rdt: &LinuxIntelRdt) {
        if let Some(id) = rdt.clos_id() {
            self.no_nul("/linux/intelRdt/closID", id.as_bytes());
            if id == "." || id == ".." || id.contains('\n') || (id != "/" && id.contains('/')) {
                let message = format!("{id:?} is not the name of a directory, nor \"/\"");
                self.mistake("/linux/intelRdt/closID", message);
            }
        }
        if let Some(schema) = rdt.l3_cache_schema() {
            if schema.contains('\n') {
                self.mistake("/linux/intelRdt/l3CacheSchema", "contains a newline");
            }
            // L3CODE: and L3DATA: are as good as L3: where code and data are kept apart.
            if !schema.starts_with("L3") {
                self.warning("/linux/intelRdt/l3CacheSchema", "does not start with \"L3:\"");
            }
        }
        if rdt.mem_bw_schema().as_ref().is_some_and(|s| s.contains('\n') || !s.starts_with("MB:")) {
            self.mistake("/linux/intelRdt/memBwSchema", "must start with \"MB:\" and have no newline");
        }
        for (i, line) in rdt.schemata().iter().flatten().enumerate() {
            if line.contains('\n') {
                self.mistake(format_args!("/linux/intelRdt/schemata/{i}"), "contains a newline");
            }
        }
    }

    fn memory_policy(&mut self, policy: &LinuxMemoryPolicy) {
        use MemoryPolicyFlagType::{MpolFNumaBalancing, MpolFRelativeNodes, MpolFStaticNodes};
        use MemoryPolicyModeType::{MpolBind, MpolDefault, MpolLocal, MpolPreferred, MpolPreferredMany};
        if !self.trusted("/linux/memoryPolicy") {
            return;
        }
        let mode = policy.mode();
        let nodes = policy.nodes().as_deref();
        match (mode, nodes) {
            // CONFIG_NODES_SHIFT is at most 10.
            (_, Some(list)) if super::parse_list(list, 1024).is_none() => {
                self.mistake("/linux/memoryPolicy/nodes", "is not a list of nodes such as 0-3,7");
            }
            (MpolDefault | MpolLocal, Some(_)) => {
                self.mistake("/linux/memoryPolicy/nodes", format!("{mode} takes no nodes"));
            }
            (MpolDefault | MpolLocal | MpolPreferred, None) => {}
            (_, None) => self.mistake("/linux/memoryPolicy/nodes", format!("{mode} needs at least one node")),
            _ => {}
        }
        let flags = policy.flags().as_deref().unwrap_or_default();
        if flags.contains(&MpolFStaticNodes) && flags.contains(&MpolFRelativeNodes) {
            let message = "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other";
            self.mistake("/linux/memoryPolicy/flags", message);
        }
        if flags.contains(&MpolFNumaBalancing) && !matches!(mode, MpolBind | MpolPreferredMany) {
            let message = "MPOL_F_NUMA_BALANCING needs MPOL_BIND or MPOL_PREFERRED_MANY";
            self.mistake("/linux/memoryPolicy/flags", message);
        }
    }

    fn time_offsets(&mut self, offsets: &HashMap<String, LinuxTimeOffset>, namespaces: &Namespaces<'_>) {
        if namespaces.trusted && !offsets.is_empty() {
            match namespaces.get(LinuxNamespaceType::Time) {
                None => self.mistake("/linux/timeOffsets", "needs a time namespace in /linux/namespaces"),
                Some(time) if time.path().is_some() => {
                    self.mistake("/linux/timeOffsets", "cannot be set in a time namespace that is joined");
                }
                Some(_) => {}
            }
        }
        let mut clocks: Vec<&String> = offsets.keys().collect();
        clocks.sort();
        for clock in clocks {
            let at = format!("/linux/timeOffsets/{}", escape(clock));
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                self.mistake(&at, "is not a clock with an offset: those are monotonic and boottime");
            }
            if let Some(nanosecs) = offsets[clock].nanosecs().filter(|&n| n >= 1_000_000_000) {
                self.mistake(
                    format_args!("{at}/nanosecs"),
                    format!("{nanosecs} is not less than 1000000000"),
                );
            }
        }
    }
}

/// The name of a namespace type in a configuration; `Display` of the type gives that of `/proc/self/ns`.
fn type_name(typ: LinuxNamespaceType) -> String {
    match typ {
        LinuxNamespaceType::Mount => "mount".to_owned(),
        LinuxNamespaceType::Network => "network".to_owned(),
        other => other.to_string(),
    }
}

/// `u` is `c` under another name, as in mknod(1).
fn node_type(typ: LinuxDeviceType) -> LinuxDeviceType {
    if typ == LinuxDeviceType::U { LinuxDeviceType::C } else { typ }
}

/// Whether the kernel would take `name` for a network interface (`dev_valid_name`).
pub fn device_name_is_valid(name: &str) -> bool {
    let good = |b: u8| b != b'/' && b != b':' && b != 0 && !b.is_ascii_whitespace() && b != 0x0b;
    !name.is_empty()
        && name.len() <= MAX_INTERFACE_BYTES
        && name != "."
        && name != ".."
        && name.bytes().all(good)
}

fn page_size_is_valid(size: &str) -> bool {
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    number.is_some_and(|n| {
        n.bytes().all(|b| b.is_ascii_digit()) && n.starts_with(|c: char| ('1'..='9').contains(&c))
    })
}
