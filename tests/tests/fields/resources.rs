//! `linux.resources` as the container sees it through its own cgroup mount. What every field becomes on either version is in
//! `cgroup::limits::tests`; what the kernel makes of it in tests/cgroup.rs.

use crate::{needs_root, refused};
use dhow_tests::sandbox::{CgroupLayout, cgroup_layout};
use dhow_tests::{Container, Output};
use serde_json::{Value, json};

/// Pointer below `/linux/resources`, value, controller and file on v1 with what is in it, the same on v2.
type Row = (&'static str, Value, (&'static str, &'static str, &'static str), (&'static str, &'static str));

fn rows() -> Vec<Row> {
    vec![
        (
            "memory",
            json!({ "limit": 67_108_864 }),
            ("memory", "limit_in_bytes", "67108864"),
            ("memory.max", "67108864"),
        ),
        (
            "memory",
            json!({ "limit": 67_108_864, "swap": 134_217_728 }),
            ("memory", "memsw.limit_in_bytes", "134217728"),
            ("memory.swap.max", "67108864"),
        ),
        (
            "memory",
            json!({ "reservation": 33_554_432 }),
            ("memory", "soft_limit_in_bytes", "33554432"),
            ("memory.low", "33554432"),
        ),
        ("cpu", json!({ "shares": 512 }), ("cpu", "shares", "512"), ("cpu.weight", "59")),
        (
            "cpu",
            json!({ "quota": 20_000, "period": 50_000 }),
            ("cpu", "cfs_quota_us", "20000"),
            ("cpu.max", "20000 50000"),
        ),
        (
            "cpu",
            json!({ "quota": 20_000, "burst": 10_000 }),
            ("cpu", "cfs_burst_us", "10000"),
            ("cpu.max.burst", "10000"),
        ),
        ("cpu", json!({ "idle": 1 }), ("cpu", "idle", "1"), ("cpu.idle", "1")),
        ("cpu", json!({ "cpus": "0" }), ("cpuset", "cpus", "0"), ("cpuset.cpus", "0")),
        ("cpu", json!({ "mems": "0" }), ("cpuset", "mems", "0"), ("cpuset.mems", "0")),
        ("pids", json!({ "limit": 77 }), ("pids", "max", "77"), ("pids.max", "77")),
        ("pids", json!({ "limit": -1 }), ("pids", "max", "max"), ("pids.max", "max")),
    ]
}

/// Whether a run failed because this host's cgroups have no such controller.
fn lacks_controller(output: &Output) -> bool {
    !output.success() && output.stderr.contains(" controller")
}

#[test]
fn limits_show_in_the_containers_own_cgroup() {
    needs_root!();
    let unified = cgroup_layout() == CgroupLayout::Unified;
    for (member, value, (controller, v1, on_v1), (v2, on_v2)) in rows() {
        let (file, expected) = match unified {
            true => (format!("/sys/fs/cgroup/{v2}"), on_v2),
            false => (format!("/sys/fs/cgroup/{controller}/{controller}.{v1}"), on_v1),
        };
        let mut c = Container::new();
        c.set(&format!("/linux/resources/{member}"), value.clone());
        let out = c.run(&format!("cat {file}"));
        if lacks_controller(&out) {
            dhow_tests::skip_part!("no controller {controller}");
            continue;
        }
        assert_eq!(out.ok().text(), expected, "{member} {value}");
    }
}

#[test]
fn a_container_that_takes_too_much_memory_is_killed() {
    needs_root!();
    let mut c = Container::new();
    c.set("/linux/resources/memory", json!({ "limit": 16_777_216, "swap": 16_777_216 }));
    // tail keeps the whole line, which has no end.
    c.bundle.args(["/bin/tail", "/dev/zero"]).write();
    let out = c.runtime.run(&c.id, &c.bundle);
    if lacks_controller(&out) {
        dhow_tests::skip!("no memory controller");
    }
    assert_eq!(out.code, 137, "{out}");
}

#[test]
fn only_devices_that_are_allowed_can_be_used() {
    needs_root!();
    let mut c = Container::new();
    // No driver has this number: who may use the device hears that there is none.
    let see =
        "mknod /tmp/device c 240 9 && echo made; (exec 3</tmp/device) 2>&1; (exec 3>/tmp/device) 2>&1; true";
    let lines = |seen: &str| {
        seen.lines().map(|l| l.rsplit(": ").next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    // Any node may be made, as with runc; using it is another matter.
    assert_eq!(lines(&c.see(see)), ["made", "Operation not permitted", "Operation not permitted"]);
    std::fs::remove_file(c.bundle.rootfs().join("tmp/device")).unwrap();
    c.bundle.config_mut()["linux"]["resources"]["devices"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "allow": true, "type": "c", "major": 240, "minor": 9, "access": "r" }));
    assert_eq!(lines(&c.see(see)), ["made", "No such device or address", "Operation not permitted"]);
    c.set("/linux/resources/devices/0/type", json!("x"));
    refused(&c.run("true"), "/linux/resources/devices/0/type");
}
