//! `linux.namespaces`, `timeOffsets`, `hostname`, `domainname`, `sysctl`, `netDevices`.

use crate::{needs_root, refused, run_below};
use dhow_tests::Container;
use serde_json::{Value, json};
use std::fs;

/// The type in config.json and the name in /proc.
const KINDS: [(&str, &str); 8] = [
    ("pid", "pid"),
    ("network", "net"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

fn own(file: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{file}")).unwrap().to_str().unwrap().to_owned()
}

pub fn add_namespace(c: &mut Container, namespace: Value) {
    c.bundle.without_namespace(namespace["type"].as_str().unwrap());
    c.bundle.config_mut()["linux"]["namespaces"].as_array_mut().unwrap().push(namespace);
}

/// A user namespace with the ids from 100000 on, whose root can use the root filesystem.
pub fn add_user_namespace(c: &mut Container) {
    add_namespace(c, json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    c.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
}

#[test]
fn a_namespace_is_new_if_it_is_listed_and_the_hosts_if_not() {
    needs_root!();
    let see = "for n in pid net mnt ipc uts user cgroup time; do readlink /proc/self/ns/$n; done";
    let mut c = Container::new();
    add_namespace(&mut c, json!({ "type": "time" }));
    add_user_namespace(&mut c);
    let inside = c.see(see);
    for ((kind, file), link) in KINDS.iter().zip(inside.lines()) {
        assert_ne!(own(file), link, "{kind} is new");
    }
    for (kind, file) in KINDS {
        if kind == "mount" {
            continue; // below
        }
        let mut c = Container::new();
        c.bundle.without_namespace(kind);
        if kind == "network" {
            // sysfs belongs to a network namespace that this container's user does own, but shows the host's.
            c.bundle.config_mut()["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "sysfs");
        }
        if kind == "uts" {
            c.bundle.config_mut().as_object_mut().unwrap().remove("hostname");
        }
        assert_eq!(c.see(&format!("readlink /proc/self/ns/{file}")), own(file), "{kind} is the host's");
    }
}

#[test]
fn without_a_mount_namespace_the_root_is_changed_only() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.without_namespace("mount").without_namespace("pid");
    c.set("/mounts", json!([])).set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    assert_eq!(
        c.see("ls -d /bin /proc; ls /proc | wc -l; cat /etc/hosts"),
        "/bin\n/proc\n0\n127.0.0.1 localhost"
    );
    // Other tests mount as well, but in namespaces of their own.
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(), before);
}

#[test]
fn namespaces_are_joined_by_path() {
    needs_root!();
    let mut first = Container::new();
    add_namespace(&mut first, json!({ "type": "time" }));
    first.set("/linux/timeOffsets", json!({ "boottime": { "secs": 1_000_000 } }));
    first.start(":");
    let pid = first.pid();
    for (kind, file) in KINDS {
        if matches!(kind, "mount" | "user") {
            continue; // its own tests
        }
        let path = format!("/proc/{pid}/ns/{file}");
        let mut c = Container::new();
        add_namespace(&mut c, json!({ "type": kind, "path": path }));
        if kind == "uts" {
            c.bundle.config_mut().as_object_mut().unwrap().remove("hostname");
        }
        let joined = fs::read_link(&path).unwrap();
        let seen =
            c.see(&format!("readlink /proc/self/ns/{file}; cut -d. -f1 /proc/uptime; cat /proc/1/cmdline"));
        let mut lines = seen.lines();
        assert_eq!(lines.next(), joined.to_str(), "{kind}");
        let uptime: u64 = lines.next().unwrap().parse().unwrap();
        assert_eq!(uptime > 1_000_000, kind == "time", "{kind}: {uptime}");
        if kind == "pid" {
            assert!(lines.next().unwrap().contains("mkfifo /tmp/wait"), "its init is the other container's");
        }
    }
    // All at once, as a pod does.
    let mut c = Container::new();
    for (kind, file) in KINDS {
        if !matches!(kind, "mount" | "user") {
            add_namespace(&mut c, json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") }));
        }
    }
    c.bundle.config_mut().as_object_mut().unwrap().remove("hostname");
    let seen = c.see("for n in pid net ipc uts cgroup time; do readlink /proc/self/ns/$n; done");
    for (file, link) in ["pid", "net", "ipc", "uts", "cgroup", "time"].iter().zip(seen.lines()) {
        assert_eq!(fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap().to_str(), Some(link));
    }
    // exec goes where the container is.
    c.start(":");
    assert_eq!(
        c.exec("readlink /proc/self/ns/pid"),
        fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap().to_str().unwrap()
    );
}

#[test]
fn a_user_namespace_is_joined_with_those_it_owns() {
    needs_root!();
    let mut first = Container::new();
    add_user_namespace(&mut first);
    first.start(":");
    let pid = first.pid();
    let mut c = Container::new();
    for (kind, file) in [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        add_namespace(&mut c, json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") }));
    }
    c.bundle.config_mut().as_object_mut().unwrap().remove("hostname");
    let seen = c.see("id -u; for n in user net ipc uts; do readlink /proc/self/ns/$n; done; hostname; tr -s ' ' </proc/self/uid_map");
    let mut lines = seen.lines();
    assert_eq!(lines.next(), Some("0"));
    for file in ["user", "net", "ipc", "uts"] {
        assert_eq!(lines.next(), fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap().to_str());
    }
    assert_eq!(lines.next(), Some("dhow-test"));
    assert_eq!(lines.next(), Some(" 0 100000 65536"));
    c.start(":");
    assert_eq!(
        c.exec("id -u; readlink /proc/self/ns/user"),
        format!("0\n{}", fs::read_link(format!("/proc/{pid}/ns/user")).unwrap().display())
    );
}

#[test]
fn a_wrong_namespace_path_is_named() {
    needs_root!();
    let mut c = Container::new();
    add_namespace(&mut c, json!({ "type": "network", "path": "/proc/self/ns/uts" }));
    refused(&c.run("true"), "/proc/self/ns/uts is not a network namespace");
    add_namespace(&mut c, json!({ "type": "network", "path": "/etc/hosts" }));
    refused(&c.run("true"), "/etc/hosts is not a network namespace");
    add_namespace(&mut c, json!({ "type": "network", "path": "/no/such/namespace" }));
    refused(&c.run("true"), "/no/such/namespace");
}

#[test]
fn time_offsets_move_both_clocks() {
    needs_root!();
    let mut c = Container::new();
    add_namespace(&mut c, json!({ "type": "time" }));
    c.set(
        "/linux/timeOffsets",
        json!({ "monotonic": { "secs": 172_800, "nanosecs": 5 }, "boottime": { "secs": 604_800 } }),
    );
    let seen = c.see("cut -d. -f1 /proc/uptime; tr -s ' ' </proc/self/timens_offsets");
    let (uptime, offsets) = seen.split_once('\n').unwrap();
    let own = fs::read_to_string("/proc/uptime").unwrap();
    let own: u64 = own.split('.').next().unwrap().parse().unwrap();
    let uptime: u64 = uptime.parse().unwrap();
    assert!((604_800 + own - 10..604_800 + own + 60).contains(&uptime), "{uptime}");
    assert_eq!(offsets, "monotonic 172800 5\nboottime 604800 0");
    // A new namespace without offsets is one too.
    let mut c = Container::new();
    add_namespace(&mut c, json!({ "type": "time" }));
    assert_ne!(c.see("readlink /proc/self/ns/time"), self::own("time"));
}

#[test]
fn host_and_domain_names_are_the_containers() {
    needs_root!();
    let mut c = Container::new();
    c.set("/hostname", json!("name.of.host")).set("/domainname", json!("name.of.domain"));
    assert_eq!(c.see("hostname; cat /proc/sys/kernel/domainname"), "name.of.host\nname.of.domain");
    assert_ne!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), "name.of.host");
}

#[test]
fn sysctls_of_the_containers_namespaces_are_set() {
    needs_root!();
    let mut c = Container::new();
    c.set(
        "/linux/sysctl",
        json!({
            "net.ipv4.ip_forward": "1", "net/ipv4/ip_default_ttl": "77", "kernel.msgmax": "7777",
            "fs.mqueue.msg_max": "17", "kernel.shm_rmid_forced": "1"
        }),
    );
    let files =
        "net/ipv4/ip_forward net/ipv4/ip_default_ttl kernel/msgmax fs/mqueue/msg_max kernel/shm_rmid_forced";
    assert_eq!(c.see(&format!("cd /proc/sys; cat {files}")), "1\n77\n7777\n17\n1");
    assert_ne!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap().trim(), "7777");

    c.set("/linux/sysctl", json!({ "kernel.panic": "5", "net.no.such": "1" }));
    refused(&c.run("true"), "/linux/sysctl/kernel.panic");
    c.set("/linux/sysctl", json!({ "net.no.such": "1" }));
    refused(&c.run("true"), "/linux/sysctl");
    c.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    add_namespace(&mut c, json!({ "type": "network", "path": "/proc/self/ns/net" }));
    refused(&c.run("true"), "would change the host");
}

#[test]
fn the_loopback_device_is_up_in_a_new_network_namespace() {
    needs_root!();
    let mut c = Container::new();
    assert_eq!(c.see("ip -o addr show lo | grep -c 127.0.0.1; ls /sys/class/net"), "1\nlo");
}

#[test]
fn network_devices_are_moved_with_their_addresses() {
    needs_root!();
    if let Some(program) = dhow_tests::skip::missing_program(&["ip"]) {
        dhow_tests::skip!("{program} is not installed");
    }
    let mut c = Container::new();
    c.set("/linux/netDevices", json!({ "dhowa": { "name": "eth7" }, "dhowb": {} }));
    let prepare = "ip link add dhowa type veth peer name dhowa-peer; ip link add dhowb type veth peer name dhowb-peer; \
                   ip addr add 192.0.2.7/24 dev dhowa; ip link set dhowa up; ip link set dhowa-peer up";
    let see =
        "ls /sys/class/net; ip -o -4 addr show eth7 | grep -o 'inet [^ ]*'; cat /sys/class/net/eth7/flags";
    let out = run_below(&mut c, &["--net"], prepare, see);
    if out.stderr.contains("Unknown device type") {
        dhow_tests::skip!("no veth here");
    }
    let out = out.ok();
    let lines: Vec<_> = out.stdout.lines().collect();
    assert_eq!(lines[..4], ["dhowb", "eth7", "lo", "inet 192.0.2.7/24"], "{out}");
    assert_eq!(u32::from_str_radix(lines[4].trim_start_matches("0x"), 16).unwrap() & 1, 1, "up");
    c.set("/linux/netDevices", json!({ "no-such-dev": {} }));
    refused(&run_below(&mut c, &["--net"], ":", "true"), "no-such-dev");
}

#[test]
fn the_cgroup_namespace_begins_at_the_containers_cgroup() {
    needs_root!();
    let mut c = Container::new();
    let own = c.see("cut -d: -f3 /proc/self/cgroup | sort -u");
    assert_eq!(own, "/");
    c.bundle.without_namespace("cgroup");
    let host = c.see("cut -d: -f3 /proc/self/cgroup | sort -u");
    assert!(host.contains(&c.id), "{host}");
}
