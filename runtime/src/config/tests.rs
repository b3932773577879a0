//! Tests of parsing and of the rules, on whole files.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::*;

/// A configuration without a mistake that has most of what the rules look at.
fn good() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "hostname": "box",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "cwd": "/",
            "args": ["sh"],
            "env": ["PATH=/bin"],
            "capabilities": {"permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data", "source": "data", "options": ["rbind", "ro"]},
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
            ],
            "maskedPaths": ["/proc/kcore"],
            "sysctl": {"net.core.somaxconn": "1"},
        },
    })
}

/// Parses and checks, as [`Bundle::load`] does.
fn examine(value: &Value) -> Config {
    let mut config = parse(value.to_string().as_bytes()).expect("repairable");
    let mut found = Vec::new();
    check(&config.spec, &config.mistakes, &mut found, &mut config.warnings);
    config.mistakes.extend(found);
    config
}

fn pointers(mistakes: &[Mistake]) -> Vec<&str> {
    mistakes.iter().map(|m| m.pointer.as_str()).collect()
}

/// Sets the value at a pointer, whose parent must exist.
fn set(value: &mut Value, pointer: &str, to: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match value.pointer_mut(parent).unwrap() {
        Value::Object(map) => drop(map.insert(name.replace("~1", "/"), to)),
        Value::Array(array) => array[name.parse::<usize>().unwrap()] = to,
        other => panic!("{other} has no members"),
    }
}

#[test]
fn a_good_file_has_no_mistakes_and_takes_the_fast_way() {
    let config = examine(&good());
    assert_eq!(config.mistakes, []);
    assert_eq!(config.warnings, []);
    assert!(serde_json::from_slice::<Spec>(good().to_string().as_bytes()).is_ok());
}

#[test]
fn all_mistakes_of_all_kinds_at_once() {
    let mut value = good();
    set(&mut value, "/process/cwd", json!("tmp"));
    set(&mut value, "/process/args", json!("sh"));
    set(&mut value, "/process/rlimits/0/type", json!("RLIMIT_NOPE"));
    set(&mut value, "/process/rlimits/0/soft", json!(-1));
    set(&mut value, "/process/env", json!(["PATH=/bin", 7, "X"]));
    set(&mut value, "/linux/namespaces/4/type", json!("utz"));
    set(&mut value, "/linux/resources", json!({"memory": {"limit": "1G", "swappiness": -1}}));
    set(&mut value, "/linux/devices", json!([{"path": "/dev/x", "major": 1, "minor": 3}]));
    set(&mut value, "/mounts/1", json!({"source": "data", "options": ["bind"]}));
    let config = examine(&value);
    let mut found = pointers(&config.mistakes);
    found.sort();
    assert_eq!(
        found,
        [
            "/linux/devices/0/type",
            "/linux/namespaces/4/type",
            "/linux/resources/memory/limit",
            "/linux/resources/memory/swappiness",
            "/mounts/1/destination",
            "/process/args",
            "/process/cwd",
            "/process/env/1",
            "/process/env/2",
            "/process/rlimits/0/soft",
            "/process/rlimits/0/type",
        ]
    );
    let message = |p: &str| config.mistakes.iter().find(|m| m.pointer == p).unwrap().message.clone();
    assert_eq!(message("/process/args"), "expected an array, found \"sh\"");
    assert_eq!(
        message("/process/rlimits/0/soft"),
        "expected an integer from 0 to 18446744073709551615, found -1"
    );
    assert_eq!(message("/mounts/1/destination"), "is required and missing");
    assert!(message("/linux/namespaces/4/type").starts_with("\"utz\" is not one of \"mount\", \"cgroup\""));
}

#[test]
fn objects_and_arrays_in_each_others_place() {
    let value = json!({
        "ociVersion": 1, "root": [], "process": ["x"], "mounts": {}, "linux": {"namespaces": "all"},
    });
    let config = examine(&value);
    let mut found = pointers(&config.mistakes);
    found.sort();
    assert_eq!(found, ["/linux/namespaces", "/mounts", "/ociVersion", "/process", "/root"]);
}

#[test]
fn no_object_at_all() {
    for text in ["[]", "7", "\"x\""] {
        let mistakes = parse(text.as_bytes()).unwrap_err();
        assert_eq!(pointers(&mistakes), [""], "{text}");
    }
    // Go takes null for an empty object, whose mistakes are those of what is missing.
    assert_eq!(pointers(&examine(&Value::Null).mistakes), ["/ociVersion", "/root", "/process"]);
}

#[test]
fn syntax_errors_have_line_and_column() {
    let mistakes = parse(b"{\n  \"root\": {,}\n}").unwrap_err();
    assert_eq!(mistakes.len(), 1);
    assert_eq!(mistakes[0].pointer, "");
    assert!(mistakes[0].message.ends_with("at line 2 column 12"), "{}", mistakes[0].message);
    assert!(parse(b"").is_err());
    assert!(parse(b"{} x").is_err());
    assert!(parse(b"{\"hostname\": \"\xff\"}").is_err());
}

#[test]
fn depth_is_limited_where_the_tree_is_built() {
    let nest = |depth: usize| format!("{{\"hooks\": 1, \"x\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(nest(63).as_bytes()).is_ok());
    let mistakes = parse(nest(64).as_bytes()).unwrap_err();
    assert!(mistakes[0].message.contains("64 deep"), "{}", mistakes[0].message);
    assert!(parse("[".repeat(1 << 20).as_bytes()).is_err());
}

#[test]
fn null_is_the_zero_value_as_in_go() {
    let mut value = good();
    for pointer in [
        "/mounts/0/options",
        "/process/terminal",
        "/process/env",
        "/process/user/gid",
        "/process/capabilities/ambient",
        "/process/rlimits/0/soft",
        "/hostname",
        "/hooks",
        "/annotations",
        "/linux/resources",
        "/linux/seccomp",
        "/linux/sysctl",
    ] {
        set(&mut value, pointer, Value::Null);
    }
    set(&mut value, "/annotations", json!({"a": null}));
    let config = examine(&value);
    assert_eq!(config.mistakes, []);
    assert_eq!(config.spec.annotations().as_ref().unwrap()["a"], "");
    assert_eq!(config.spec.process().as_ref().unwrap().rlimits().as_ref().unwrap()[0].soft(), 0);
}

#[test]
fn null_is_no_enumeration_value() {
    let mut value = good();
    set(&mut value, "/linux/namespaces/0/type", Value::Null);
    assert_eq!(pointers(&examine(&value).mistakes), ["/linux/namespaces/0/type"]);
}

#[test]
fn process_without_user_is_root() {
    let mut value = good();
    value["process"].as_object_mut().unwrap().remove("user");
    let config = examine(&value);
    assert_eq!(config.mistakes, []);
    assert_eq!(config.spec.process().as_ref().unwrap().user().uid(), 0);
}

#[test]
fn unknown_capabilities_are_dropped_with_a_warning() {
    let mut value = good();
    set(&mut value, "/process/capabilities/bounding", json!(["CAP_NEW", "CAP_KILL", "CAP_NEWER", 7]));
    let config = examine(&value);
    assert_eq!(pointers(&config.mistakes), ["/process/capabilities/bounding/3"]);
    let at = "/process/capabilities/bounding";
    assert_eq!(pointers(&config.warnings), [format!("{at}/0"), format!("{at}/2")]);
    let process = config.spec.process().as_ref().unwrap();
    let sets = process.capabilities().as_ref().unwrap();
    assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
}

#[test]
fn every_scheduler_flag_of_the_specification() {
    let mut value = good();
    let flags = [
        "SCHED_FLAG_RESET_ON_FORK",
        "SCHED_FLAG_RECLAIM",
        "SCHED_FLAG_DL_OVERRUN",
        "SCHED_FLAG_KEEP_POLICY",
        "SCHED_FLAG_KEEP_PARAMS",
        "SCHED_FLAG_UTIL_CLAMP_MIN",
        "SCHED_FLAG_UTIL_CLAMP_MAX",
    ];
    set(&mut value, "/process/scheduler", json!({"policy": "SCHED_OTHER", "flags": flags}));
    let config = examine(&value);
    assert_eq!(config.mistakes, []);
    let process = config.spec.process().as_ref().unwrap();
    assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), flags.len());
}

#[test]
fn hugepage_limits_are_unsigned() {
    let mut value = good();
    set(&mut value, "/linux/resources", json!({"hugepageLimits": [{"pageSize": "2MB", "limit": u64::MAX}]}));
    let config = examine(&value);
    assert_eq!(config.mistakes, []);
    let linux = config.spec.linux().as_ref().unwrap();
    let limits = linux.resources().as_ref().unwrap().hugepage_limits().as_ref().unwrap();
    assert_eq!(limits[0].limit(), i64::MAX);
}

#[test]
fn pids_without_a_limit_is_not_a_limit_of_zero() {
    let limit = |pids: Value| {
        let mut value = good();
        set(&mut value, "/linux/resources", json!({"pids": pids}));
        let config = examine(&value);
        assert_eq!(config.mistakes, []);
        let linux = config.spec.linux().clone().unwrap();
        linux.resources().as_ref().unwrap().pids().as_ref().map(|p| p.limit())
    };
    assert_eq!(limit(json!({})), None);
    assert_eq!(limit(json!({"limit": null})), None);
    assert_eq!(limit(json!({"limit": 0})), Some(0));
    assert_eq!(limit(json!({"limit": -1})), Some(-1));
}

#[test]
fn seccomp_without_action_and_rules_is_none() {
    let mut value = good();
    for seccomp in
        [json!({}), json!({"defaultAction": "", "architectures": ["SCMP_ARCH_X86"], "syscalls": null})]
    {
        set(&mut value, "/linux/seccomp", seccomp);
        let config = examine(&value);
        assert_eq!(config.mistakes, []);
        assert!(config.spec.linux().as_ref().unwrap().seccomp().is_none());
    }
    set(&mut value, "/linux/seccomp", json!({"syscalls": [{"names": ["read"], "action": "SCMP_ACT_NO"}]}));
    let config = examine(&value);
    let mut found = pointers(&config.mistakes);
    found.sort();
    assert_eq!(found, ["/linux/seccomp/defaultAction", "/linux/seccomp/syscalls/0/action"]);
}

#[test]
fn a_member_that_stands_twice_counts_by_its_last_value() {
    let text = good().to_string().replacen('{', "{\"hostname\": \"first\",", 1);
    // serde_json writes members sorted, so the other one comes later.
    let config = parse(text.as_bytes()).unwrap();
    assert_eq!(pointers(&config.warnings), ["/hostname"]);
    assert_eq!(config.spec.hostname().as_deref(), Some("box"));
    assert_eq!(config.mistakes, []);
}

#[test]
fn empty_strings_are_absent() {
    let mut value = good();
    set(&mut value, "/hostname", json!(""));
    set(&mut value, "/linux/namespaces/0/path", json!(""));
    set(&mut value, "/linux/cgroupsPath", json!(""));
    set(&mut value, "/linux/resources", json!({"devices": [{"allow": false, "type": "", "access": "rwm"}]}));
    set(&mut value, "/process/execCPUAffinity", json!({"initial": "0", "final": ""}));
    set(&mut value, "/process/apparmorProfile", json!(""));
    let config = examine(&value);
    assert_eq!(config.mistakes, []);
    assert_eq!(config.spec.hostname(), &None);
    assert_eq!(config.spec.process().as_ref().unwrap().apparmor_profile(), &None);
    let linux = config.spec.linux().as_ref().unwrap();
    assert_eq!(linux.cgroups_path(), &None);
    assert_eq!(linux.namespaces().as_ref().unwrap()[0].path(), &None);
}

#[test]
fn old_rdt_members_are_warned_about() {
    let mut value = good();
    set(&mut value, "/linux/intelRdt", json!({"closID": "x", "enableCMT": true, "enableMBM": false}));
    let config = examine(&value);
    assert_eq!(config.mistakes, []);
    assert_eq!(pointers(&config.warnings), ["/linux/intelRdt/enableCMT"]);
}

#[test]
fn too_many_mistakes_end() {
    let mut value = good();
    let wrong: Vec<Value> = (0..500).map(Value::from).collect();
    set(&mut value, "/process/args", json!(wrong));
    let mistakes = parse(value.to_string().as_bytes()).unwrap_err();
    assert_eq!(mistakes.len(), 201);
    assert_eq!(mistakes[199].pointer, "/process/args/199");
    assert_eq!(mistakes[200].pointer, "");
}

#[test]
fn pointers_are_escaped() {
    let mut value = good();
    value["linux"]["sysctl"] = json!({"net/core/a~b": 1, "kernel/core_pattern": "|x"});
    let config = examine(&value);
    assert_eq!(
        pointers(&config.mistakes),
        ["/linux/sysctl/net~1core~1a~0b", "/linux/sysctl/kernel~1core_pattern"]
    );
}

/// Each rule: what is set where in a good configuration, and the pointers of the mistakes that follow.
#[test]
fn rules() {
    let long = "x".repeat(65);
    let cases: &[(&str, Value, &[&str])] = &[
        ("/ociVersion", json!(""), &["/ociVersion"]),
        ("/ociVersion", json!("1.0"), &["/ociVersion"]),
        ("/ociVersion", json!("2.0.0"), &["/ociVersion"]),
        ("/ociVersion", json!("1.0.2-dev"), &[]),
        ("/root", Value::Null, &["/root"]),
        ("/root/path", json!(""), &["/root/path"]),
        ("/root/path", json!("a\0b"), &["/root/path"]),
        ("/process", Value::Null, &["/process"]),
        ("/process/cwd", json!(""), &["/process/cwd"]),
        ("/process/args", json!([]), &["/process/args"]),
        ("/process/args", json!(["a", "b\0"]), &["/process/args/1"]),
        (
            "/process/env",
            json!(["A=", "=B", "C", "D=\0"]),
            &["/process/env/1", "/process/env/2", "/process/env/3"],
        ),
        ("/process/user/uid", json!(u32::MAX), &["/process/user/uid"]),
        ("/process/user/additionalGids", json!([1, u32::MAX]), &["/process/user/additionalGids/1"]),
        ("/process/user/umask", json!(0o10000), &["/process/user/umask"]),
        ("/process/capabilities/effective", json!(["CAP_CHOWN"]), &["/process/capabilities/effective"]),
        ("/process/capabilities/ambient", json!(["CAP_KILL"]), &[]),
        ("/process/rlimits/0/soft", json!(21), &["/process/rlimits/0/soft"]),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}, {"type": "RLIMIT_CPU", "soft": 1, "hard": 1}]),
            &["/process/rlimits/1/type"],
        ),
        ("/process/oomScoreAdj", json!(-1001), &["/process/oomScoreAdj"]),
        ("/process/selinuxLabel", json!("a\0"), &["/process/selinuxLabel"]),
        ("/process/consoleSize", json!({"height": 70000, "width": 1}), &[]),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
            &["/process/ioPriority/priority"],
        ),
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 20}), &["/process/scheduler/nice"]),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO"}), &["/process/scheduler/priority"]),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 99}), &[]),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_IDLE", "priority": 1}),
            &["/process/scheduler/priority"],
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_BATCH", "runtime": 1}),
            &["/process/scheduler/runtime"],
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_DEADLINE", "runtime": 5000, "deadline": 4000, "period": 3000}),
            &["/process/scheduler/deadline", "/process/scheduler/period"],
        ),
        ("/process/execCPUAffinity", json!({"initial": "3-1"}), &["/process/execCPUAffinity/initial"]),
        (
            "/process/execCPUAffinity",
            json!({"initial": "0-3,7", "final": "x"}),
            &["/process/execCPUAffinity/final"],
        ),
        ("/hostname", json!(long), &["/hostname"]),
        ("/domainname", json!("a\0"), &["/domainname"]),
        ("/linux/namespaces/4", json!({"type": "time"}), &["/hostname"]),
        ("/linux/namespaces/4/type", json!("pid"), &["/hostname", "/linux/namespaces/4/type"]),
        ("/linux/namespaces/0/path", json!("proc/1/ns/pid"), &["/linux/namespaces/0/path"]),
        ("/linux/namespaces/2/type", json!("cgroup"), &["/linux/maskedPaths"]),
        ("/linux/namespaces/1/type", json!("cgroup"), &["/linux/sysctl/net.core.somaxconn"]),
        ("/linux/namespaces/3/type", json!("user"), &["/linux/uidMappings", "/linux/gidMappings"]),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}]), &["/linux/uidMappings"]),
        ("/linux/sysctl", json!({"kernel.hostname": "x"}), &["/linux/sysctl/kernel.hostname"]),
        (
            "/linux/sysctl",
            json!({"user.max_cgroup_namespaces": "1"}),
            &["/linux/sysctl/user.max_cgroup_namespaces"],
        ),
        ("/linux/sysctl", json!({"net/../vm/swappiness": "1"}), &["/linux/sysctl/net~1..~1vm~1swappiness"]),
        ("/linux/sysctl", json!({"kernel.sem": "1\0"}), &["/linux/sysctl/kernel.sem"]),
        ("/linux/maskedPaths", json!(["proc/kcore"]), &["/linux/maskedPaths/0"]),
        ("/linux/maskedPaths", json!(["/a", "b"]), &["/linux/maskedPaths/1"]),
        ("/linux/readonlyPaths", json!(["/a", "b", ""]), &["/linux/readonlyPaths/2"]),
        ("/linux/rootfsPropagation", json!("rslave"), &[]),
        ("/linux/rootfsPropagation", json!("public"), &["/linux/rootfsPropagation"]),
        (
            "/linux/devices",
            json!([{"path": "dev/x", "type": "c", "major": 4096, "minor": -1}, {"path": "/f", "type": "p"}]),
            &["/linux/devices/0/path", "/linux/devices/0/major", "/linux/devices/0/minor"],
        ),
        ("/linux/devices", json!([{"path": "/dev/x", "type": "a"}]), &["/linux/devices/0/type"]),
        (
            "/linux/devices",
            json!([
                {"path": "/dev/x", "type": "c", "major": 1, "minor": 3},
                {"path": "/dev/x", "type": "b", "major": 1, "minor": 3},
            ]),
            &["/linux/devices/1/path"],
        ),
        (
            "/linux/devices",
            json!([
                {"path": "/dev/x", "type": "c", "major": 1, "minor": 3},
                {"path": "/dev/y", "type": "u", "major": 1, "minor": 3},
                {"path": "/dev/y", "type": "c", "major": 1, "minor": 3},
            ]),
            &[],
        ),
        ("/linux/netDevices", json!({"eth0": {}, "a b": {}}), &["/linux/netDevices/a b"]),
        (
            "/linux/netDevices",
            json!({"eth0": {"name": "x"}, "eth1": {"name": "x"}}),
            &["/linux/netDevices/eth1/name"],
        ),
        ("/linux/netDevices", json!({"eth0": {"name": "x%d"}, "eth1": {"name": "x%d"}}), &[]),
        (
            "/linux/netDevices",
            json!({"eth0": {"name": "0123456789abcdef"}}),
            &["/linux/netDevices/eth0/name"],
        ),
        ("/linux/intelRdt", json!({"closID": "/"}), &[]),
        ("/linux/intelRdt", json!({"closID": "a/b"}), &["/linux/intelRdt/closID"]),
        ("/linux/intelRdt", json!({"closID": ".."}), &["/linux/intelRdt/closID"]),
        ("/linux/intelRdt", json!({"memBwSchema": "L3:0=1"}), &["/linux/intelRdt/memBwSchema"]),
        ("/linux/intelRdt", json!({"l3CacheSchema": "L3:0=1\nMB:0=1"}), &["/linux/intelRdt/l3CacheSchema"]),
        ("/linux/intelRdt", json!({"schemata": ["L3:0=1", "a\n"]}), &["/linux/intelRdt/schemata/1"]),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND"}), &["/linux/memoryPolicy/nodes"]),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "x"}), &["/linux/memoryPolicy/nodes"]),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_LOCAL", "nodes": "0"}), &["/linux/memoryPolicy/nodes"]),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_PREFERRED", "nodes": ""}), &[]),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
            &["/linux/memoryPolicy/flags"],
        ),
        ("/linux/personality", json!({"domain": "LINUX64"}), &["/linux/personality/domain"]),
        ("/linux/timeOffsets", json!({"boottime": {"secs": 1}}), &["/linux/timeOffsets"]),
        (
            "/linux/resources",
            json!({"hugepageLimits": [{"pageSize": "2M", "limit": 1}], "unified": {"a/b.c": "1", "pids": "1"}}),
            &[
                "/linux/resources/hugepageLimits/0/pageSize",
                "/linux/resources/unified/a~1b.c",
                "/linux/resources/unified/pids",
            ],
        ),
        ("/mounts/0/destination", json!(""), &["/mounts/0/destination"]),
        ("/mounts/0/destination", json!("proc"), &[]),
        ("/mounts/0/type", Value::Null, &["/mounts/0/type"]),
        ("/mounts/1/source", Value::Null, &["/mounts/1/source"]),
        ("/mounts/1/options", json!(["bind", "ro", "size=1"]), &[]),
        ("/mounts/1/options", json!(["bind", "idmap"]), &["/mounts/1/options"]),
        (
            "/mounts/0/options",
            json!(["idmap", "a\0"]),
            &["/mounts/0/options/1", "/mounts/0/options", "/mounts/0/options"],
        ),
        (
            "/mounts/1/uidMappings",
            json!([{"containerID": 0, "hostID": 1, "size": 1}]),
            &["/mounts/1/gidMappings"],
        ),
        (
            "/mounts/1/uidMappings",
            json!([
                {"containerID": 0, "hostID": 0, "size": 0},
                {"containerID": 0, "hostID": u32::MAX - 1, "size": 2},
                {"containerID": 1, "hostID": 7, "size": 1},
                {"containerID": 9, "hostID": 7, "size": 1},
            ]),
            &[
                "/mounts/1/uidMappings/0/size",
                "/mounts/1/uidMappings/1/hostID",
                "/mounts/1/uidMappings/2/containerID",
                "/mounts/1/uidMappings/3/hostID",
                "/mounts/1/gidMappings",
            ],
        ),
        (
            "/hooks",
            json!({"prestart": [{"path": "x"}, {"args": []}]}),
            &["/hooks/prestart/1/path", "/hooks/prestart/0/path"],
        ),
        ("/hooks", json!({"poststop": [{"path": "/x", "timeout": 0}]}), &["/hooks/poststop/0/timeout"]),
        ("/annotations", json!({"": "x"}), &["/annotations/"]),
    ];
    for (pointer, to, expected) in cases {
        let mut value = good();
        set(&mut value, pointer, to.clone());
        let config = examine(&value);
        assert_eq!(pointers(&config.mistakes), *expected, "{pointer} = {to}: {:?}", config.mistakes);
    }
}

#[test]
fn options_without_effect_on_a_bind_mount() {
    let mut value = good();
    set(&mut value, "/mounts/1/options", json!(["bind", "mode=755", "ro", "size=1"]));
    let config = examine(&value);
    assert_eq!(pointers(&config.mistakes), [] as [&str; 0]);
    assert_eq!(pointers(&config.warnings), ["/mounts/1/options/1", "/mounts/1/options/3"]);
}

#[test]
fn time_offsets_in_a_time_namespace() {
    let mut value = good();
    set(&mut value, "/linux/namespaces/0/type", json!("time"));
    set(
        &mut value,
        "/linux/timeOffsets",
        json!({"monotonic": {"secs": -1, "nanosecs": 1_000_000_000}, "x": {}}),
    );
    let expected = ["/linux/timeOffsets/monotonic/nanosecs", "/linux/timeOffsets/x"];
    assert_eq!(pointers(&examine(&value).mistakes), expected);
    set(&mut value, "/linux/timeOffsets", json!({"boottime": {"nanosecs": 1}}));
    assert_eq!(pointers(&examine(&value).mistakes), [""; 0]);
    set(&mut value, "/linux/namespaces/0/path", json!("/proc/1/ns/time"));
    assert_eq!(pointers(&examine(&value).mistakes), ["/linux/timeOffsets"]);
}

#[test]
fn a_joined_user_namespace_with_mappings_is_a_warning() {
    let mut value = good();
    set(&mut value, "/linux/namespaces/0", json!({"type": "user", "path": "/proc/1/ns/user"}));
    set(&mut value, "/linux/uidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}]));
    let config = examine(&value);
    assert_eq!(config.mistakes, []);
    assert_eq!(pointers(&config.warnings), ["/linux/uidMappings"]);
}

#[test]
fn process_files_have_pointers_of_their_own() {
    let (process, warnings) = parse_process(br#"{"cwd": "/", "args": ["a"]}"#).unwrap();
    assert_eq!(process.user().uid(), 0);
    assert_eq!(warnings, []);
    let mistakes =
        parse_process(br#"{"cwd": "x", "args": [1], "capabilities": {"bounding": [2]}}"#).unwrap_err();
    assert_eq!(pointers(&mistakes), ["/capabilities/bounding/0", "/args/0", "/cwd"]);
}

#[test]
fn resources_files() {
    let resources = parse_resources(br#"{"pids": {}, "memory": {"limit": 5}, "blockIO": null}"#).unwrap();
    assert_eq!(resources.memory().unwrap().limit(), Some(5));
    assert_eq!(resources.pids(), &None);
    let mistakes = parse_resources(br#"{"cpu": {"shares": -2, "quota": "x"}}"#).unwrap_err();
    assert_eq!(pointers(&mistakes), ["/cpu/quota", "/cpu/shares"]);
}

/// The pointers of all values of a document.
fn all_pointers(value: &Value, at: String, pointers: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter()
                .for_each(|(name, v)| all_pointers(v, format!("{at}/{}", document::escape(name)), pointers));
        }
        Value::Array(array) => {
            array.iter().enumerate().for_each(|(i, v)| all_pointers(v, format!("{at}/{i}"), pointers));
        }
        _ => {}
    }
    pointers.push(at);
}

#[test]
fn both_ways_to_read_agree() {
    let mut value = good();
    set(
        &mut value,
        "/linux/resources",
        json!({"memory": {"limit": 1, "disableOOMKiller": true}, "unified": {"a.b": "c"}}),
    );
    set(&mut value, "/linux/timeOffsets", json!({"boottime": {"secs": 1}}));
    set(&mut value, "/hooks", json!({"poststop": [{"path": "/x", "timeout": 1}]}));
    let mut pointers = Vec::new();
    all_pointers(&value, String::new(), &mut pointers);
    let (mut accepted, mut refused) = (0, 0);
    for pointer in &pointers {
        for other in
            [json!(""), json!("x"), json!(0), json!(-1), json!(1.5), json!(true), json!({}), json!(u64::MAX)]
        {
            let mut mutant = value.clone();
            *mutant.pointer_mut(pointer).unwrap() = other;
            let text = mutant.to_string();
            let fast = serde_json::from_str::<Spec>(&text);
            let slow = document::parse::<Spec>(text.as_bytes(), document::Kind::Spec);
            match (fast, slow) {
                (Ok(fast), Ok(slow)) => {
                    assert_eq!(slow.mistakes, [], "{text}");
                    assert_eq!(slow.value, fast, "{text}");
                    accepted += 1;
                }
                (Err(e), Ok(slow)) => {
                    // Mistakes at the place of the change or just below it (a missing member), nowhere else.
                    assert!(!slow.mistakes.is_empty() || !slow.warnings.is_empty(), "{e}: {text}");
                    for m in slow.mistakes {
                        assert!(m.pointer.starts_with(pointer.as_str()), "{} for {text}", m.pointer);
                    }
                    refused += 1;
                }
                (Err(_), Err(mistakes)) => assert!(!mistakes.is_empty(), "{text}"),
                (Ok(_), Err(mistakes)) => panic!("{mistakes:?}: {text}"),
            }
        }
    }
    assert!(accepted > 50 && refused > 200, "{accepted} {refused}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..proptest::prelude::ProptestConfig::with_cases(200) })]

    /// Whatever the bytes, parsing ends with a configuration or with mistakes, and never with both empty hands.
    #[test]
    fn any_bytes(edits in proptest::collection::vec((0usize..2000, 0u8..=255, 0usize..3), 1..6)) {
        let mut bytes = good().to_string().into_bytes();
        for (at, byte, kind) in edits {
            let at = at % bytes.len();
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        match parse(&bytes) {
            Ok(mut config) => {
                check(&config.spec, &config.mistakes, &mut Vec::new(), &mut config.warnings);
                // What is accepted is JSON to others as well; in members that are skipped, nobody looks at
                // the encoding.
                if config.mistakes.is_empty() && std::str::from_utf8(&bytes).is_ok() {
                    proptest::prop_assert!(serde_json::from_slice::<Value>(&bytes).is_ok());
                }
            }
            Err(mistakes) => proptest::prop_assert!(!mistakes.is_empty()),
        }
    }
}

#[test]
fn bundles() {
    let dir = std::env::temp_dir().join(format!("dhow-test-bundle-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let file = dir.join("config.json");

    assert!(matches!(Bundle::load(&dir.join("none")), Err(Error::Directory { .. })));
    let missing = Bundle::load(&dir).unwrap_err();
    assert!(missing.to_string().starts_with("JSON specification file config.json not found"));
    std::fs::create_dir(&file).unwrap();
    assert!(matches!(Bundle::load(&dir), Err(Error::NotAFile { .. })));
    std::fs::remove_dir(&file).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &file, FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert!(matches!(Bundle::load(&dir), Err(Error::NotAFile { .. })));
    std::fs::remove_file(&file).unwrap();
    File::create(&file).unwrap().set_len(MAX_CONFIG_BYTES + 1).unwrap();
    assert!(matches!(Bundle::load(&dir), Err(Error::TooLarge { .. })));
    std::fs::write(&file, "{").unwrap();
    let invalid = Bundle::load(&dir).unwrap_err().to_string();
    assert!(invalid.contains("config.json: EOF while parsing"), "{invalid}");

    std::fs::remove_file(&file).unwrap();
    std::fs::write(dir.join("real.json"), good().to_string()).unwrap();
    symlink("real.json", &file).unwrap();
    symlink(&dir, dir.join("link")).unwrap();
    let bundle = Bundle::load(&dir.join("link")).unwrap();
    assert_eq!(bundle.config.mistakes, []);
    assert_eq!(bundle.dir, dir.canonicalize().unwrap());
    std::fs::remove_dir_all(&dir).unwrap();
}
