//! What each field of `linux.resources` becomes, and in which order it reaches the files.

use serde_json::json;

use super::super::fake::Tree;
use super::super::file::Dir;
use super::super::location::Place;
use super::super::{Driver, Group};
use super::*;

fn compile(value: serde_json::Value, version: Version) -> Result<Limits, Vec<Mistake>> {
    Limits::compile(Some(&serde_json::from_value(value).unwrap()), version)
}

/// The writes as `file=value`, with marks: `?` may be missing, `~` is tried again, `<` comes before the process.
fn writes(value: serde_json::Value, version: Version) -> Vec<String> {
    let mark = |w: &Write| {
        let missing = match &w.missing {
            Missing::Fail => String::new(),
            Missing::Skip => "?".into(),
            Missing::Else(file, value) => format!(" or {file}={value}"),
        };
        let (retry, early) = (if w.retry { "~" } else { "" }, if w.early { "<" } else { "" });
        format!("{early}{}={}{retry}{missing}", w.file, w.value)
    };
    compile(value, version).unwrap().writes.iter().map(mark).collect()
}

fn pointers(value: serde_json::Value, version: Version) -> Vec<String> {
    let mistakes = compile(value, version).unwrap_err();
    mistakes.into_iter().map(|m| m.pointer.strip_prefix("/linux/resources").unwrap().to_owned()).collect()
}

#[test]
fn memory_on_both_versions() {
    let all = json!({"memory": {
        "limit": 100, "reservation": 50, "swap": 300, "kernel": 1, "kernelTCP": 1, "swappiness": 60,
        "disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true,
    }});
    assert_eq!(
        writes(all.clone(), Version::V1),
        [
            "memory.limit_in_bytes=100~",
            "memory.memsw.limit_in_bytes=300",
            "memory.soft_limit_in_bytes=50",
            "memory.swappiness=60",
            "memory.oom_control=1",
        ]
    );
    assert_eq!(writes(all.clone(), Version::V2), ["memory.swap.max=200", "memory.max=100", "memory.low=50"]);
    let ignored = |version| {
        let limits = compile(all.clone(), version).unwrap();
        limits.ignored().iter().map(|m| m.pointer.rsplit('/').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ignored(Version::V1), ["kernel"]);
    assert_eq!(ignored(Version::V2), ["kernel", "swappiness", "disableOOMKiller"]);
}

#[test]
fn unlimited_and_unset_memory() {
    let of = |memory: serde_json::Value, version| writes(json!({ "memory": memory }), version);
    assert_eq!(
        of(json!({"limit": -1}), Version::V1),
        ["memory.memsw.limit_in_bytes=-1?", "memory.limit_in_bytes=-1"]
    );
    assert_eq!(of(json!({"limit": -1}), Version::V2), ["memory.swap.max=max?", "memory.max=max"]);
    assert_eq!(of(json!({"limit": 5, "swap": 5}), Version::V2), ["memory.swap.max=0?", "memory.max=5"]);
    assert_eq!(of(json!({"limit": 5, "swap": -1}), Version::V2), ["memory.swap.max=max?", "memory.max=5"]);
    assert_eq!(of(json!({"limit": -1, "swap": 7}), Version::V2), ["memory.swap.max=7", "memory.max=max"]);
    for version in [Version::V1, Version::V2] {
        assert_eq!(of(json!({"limit": 0, "swap": 0, "reservation": 0}), version), [""; 0]);
    }
    // What a caller sends that has an unsigned -1 for "not set".
    assert_eq!(of(json!({"swappiness": u64::MAX}), Version::V1), [""; 0]);
}

#[test]
fn cpu_on_both_versions() {
    let all = json!({"cpu": {
        "shares": 512, "quota": 2000, "period": 10_000, "burst": 1000, "realtimeRuntime": 5, "realtimePeriod": 7,
        "cpus": "0-1,3", "mems": "0", "idle": 0,
    }});
    assert_eq!(
        writes(all.clone(), Version::Hybrid),
        [
            "<cpuset.cpus=0-1,3",
            "<cpuset.mems=0",
            "<cpu.rt_period_us=7~",
            "<cpu.rt_runtime_us=5",
            "cpu.shares=512~",
            "cpu.idle=0",
            "cpu.cfs_period_us=10000~",
            "cpu.cfs_burst_us=1000~?",
            "cpu.cfs_quota_us=2000",
        ]
    );
    assert_eq!(
        writes(all, Version::V2),
        [
            "cpuset.cpus=0-1,3",
            "cpuset.mems=0",
            "cpu.weight=59~",
            "cpu.idle=0",
            "cpu.max.burst=1000~",
            "cpu.max=2000 10000"
        ]
    );
    assert_eq!(writes(json!({"cpu": {"quota": -1}}), Version::V2), ["cpu.max=max 100000"]);
    assert_eq!(writes(json!({"cpu": {"period": 5000}}), Version::V2), ["cpu.max=max 5000"]);
}

#[test]
fn shares_become_weights_on_the_agreed_curve() {
    // The minimum, the default and the maximum, and what runc 1.4 and crun 1.24 make of values between.
    for (shares, weight) in [(2, 1), (1024, 100), (262_144, 10_000), (512, 59), (2048, 174), (100, 17)] {
        assert_eq!(weight_from_shares(shares), weight, "{shares}");
    }
    let mut last = 0;
    for shares in 2..20_000 {
        let weight = weight_from_shares(shares);
        assert!(weight >= last && (1..=10_000).contains(&weight));
        last = weight;
    }
}

#[test]
fn pids_block_io_huge_pages_network_and_rdma() {
    let pids = |n: i64, v| writes(json!({"pids": {"limit": n}}), v);
    assert_eq!(pids(-1, Version::V1), ["pids.max=max"]);
    assert_eq!(pids(0, Version::V2), ["pids.max=1"]);
    assert_eq!(pids(9, Version::V2), ["pids.max=9"]);
    let io = json!({"blockIO": {
        "weight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}, {"major": 8, "minor": 16, "rate": 0}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 300}],
    }});
    assert_eq!(
        writes(io.clone(), Version::V1),
        [
            "blkio.weight=10 or blkio.bfq.weight=10",
            "blkio.weight_device=8:0 1000 or blkio.bfq.weight_device=8:0 1000",
            "blkio.throttle.read_bps_device=8:0 600",
            "blkio.throttle.read_bps_device=8:16 0",
            "blkio.throttle.write_iops_device=8:16 300",
        ]
    );
    assert_eq!(
        writes(io, Version::V2),
        [
            "io.bfq.weight=10 or io.weight=1",
            "io.bfq.weight=8:0 1000 or io.weight=8:0 10000",
            "io.max=8:0 rbps=600",
            "io.max=8:16 rbps=max",
            "io.max=8:16 wiops=300",
        ]
    );
    let huge = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4096}]});
    assert_eq!(
        writes(huge.clone(), Version::V1),
        ["hugetlb.2MB.limit_in_bytes=4096", "hugetlb.2MB.rsvd.limit_in_bytes=4096?"]
    );
    assert_eq!(writes(huge, Version::V2), ["hugetlb.2MB.max=4096", "hugetlb.2MB.rsvd.max=4096?"]);
    let network = json!({"network": {"classID": 7, "priorities": [{"name": "eth0", "priority": 5}]}});
    assert_eq!(writes(network.clone(), Version::V1), ["net_cls.classid=7", "net_prio.ifpriomap=eth0 5"]);
    assert_eq!(compile(network, Version::V2).unwrap().ignored().len(), 1);
    let rdma = json!({"rdma": {"mlx5": {"hcaHandles": 3, "hcaObjects": 10}, "ib0": {"hcaObjects": 1}}});
    assert_eq!(
        writes(rdma, Version::V1),
        ["rdma.max=ib0 hca_object=1", "rdma.max=mlx5 hca_handle=3 hca_object=10"]
    );
}

#[test]
fn unified_is_for_v2_alone() {
    let unified = json!({"unified": {"memory.high": "5", "hugetlb.1GB.max": "0"}});
    assert_eq!(writes(unified.clone(), Version::V2), ["hugetlb.1GB.max=0", "memory.high=5"]);
    assert_eq!(pointers(unified, Version::Hybrid), ["/unified/hugetlb.1GB.max", "/unified/memory.high"]);
    let wrong = json!({"unified": {"a/b.c": "1", "nodot": "1", ".x": "1", "cgroup.procs": "1"}});
    assert_eq!(
        pointers(wrong, Version::V2),
        ["/unified/.x", "/unified/a~1b.c", "/unified/cgroup.procs", "/unified/nodot"]
    );
}

#[test]
fn every_mistake_is_found_at_once() {
    let wrong = json!({
        "memory": {"limit": 100, "swap": 50, "reservation": -5, "swappiness": 101},
        "cpu": {"quota": 999, "period": 999, "burst": 5000, "idle": 2, "cpus": "3-1", "mems": "x", "shares": 1},
        "blockIO": {"weight": 9, "weightDevice": [{"major": 1, "minor": 1}]},
        "hugepageLimits": [{"pageSize": "2M", "limit": 1}],
        "rdma": {"a b": {"hcaHandles": 1}, "c": {}},
        "devices": [{"allow": true, "access": "x"}],
    });
    assert_eq!(
        pointers(wrong, Version::V1),
        [
            "/devices/0/access",
            "/cpu/cpus",
            "/cpu/mems",
            "/memory/reservation",
            "/memory/swap",
            "/memory/swappiness",
            "/cpu/period",
            "/cpu/quota",
            "/cpu/burst",
            "/cpu/idle",
            "/cpu/shares",
            "/blockIO/weight",
            "/blockIO/weightDevice/0",
            "/hugepageLimits/0/pageSize",
            "/rdma/a b",
            "/rdma/c",
        ]
    );
    assert_eq!(pointers(json!({"memory": {"swap": 50}}), Version::V2), ["/memory/swap"]);
}

fn v2_cgroup(tree: &Tree, files: &[(&str, &str)]) -> Cgroup {
    let path = tree.make("c", files);
    let place = Place { controllers: Vec::new(), mount: tree.path().into(), dir: path.clone() };
    let location = Location {
        version: Version::V2,
        driver: Driver::Cgroupfs,
        rootless: true,
        explicit: false,
        places: vec![place.clone()],
        unit: None,
    };
    let groups = vec![Group { place, dir: Dir::at(path), fresh: true }];
    Cgroup { location, groups, pending: None, restricted: false }
}

#[test]
fn limits_are_written_and_a_missing_file_names_field_and_controller() {
    let tree = Tree::new();
    let cgroup =
        v2_cgroup(&tree, &[("pids.max", ""), ("io.weight", ""), ("cgroup.controllers", "pids io\n")]);
    let set = |value: serde_json::Value| {
        let update = Limits::compile_update(&serde_json::from_value(value).unwrap(), Version::V2).unwrap();
        cgroup.update(&update)
    };
    set(json!({"pids": {"limit": 7}, "blockIO": {"weight": 1000}})).unwrap();
    assert_eq!((tree.read("c/pids.max").as_str(), tree.read("c/io.weight").as_str()), ("7", "10000"));
    let error = set(json!({"memory": {"limit": 5}})).unwrap_err();
    assert_eq!(error.to_string(), "/linux/resources/memory/limit: the cgroup has no memory controller");
    let error = set(json!({"unified": {"pids.nonsense": "1"}})).unwrap_err();
    assert!(
        error.to_string().starts_with("/linux/resources/unified/pids.nonsense: cannot write \"1\""),
        "{error}"
    );
    // A limit that is none needs no file.
    set(json!({"memory": {"limit": -1}})).unwrap_err();
    let tables = tree.make("c", &[("io.max", ""), ("io.bfq.weight", "")]);
    set(json!({"blockIO": {"weight": 500}})).unwrap();
    assert_eq!(std::fs::read_to_string(tables.join("io.bfq.weight")).unwrap(), "500");
}

#[test]
fn check_before_update_refuses_what_is_in_use() {
    let tree = Tree::new();
    let cgroup =
        v2_cgroup(&tree, &[("memory.current", "1000\n"), ("memory.max", ""), ("memory.swap.max", "")]);
    let set = |limit: i64, check: bool| {
        let value = json!({"memory": {"limit": limit, "checkBeforeUpdate": check}});
        let update = Limits::compile_update(&serde_json::from_value(value).unwrap(), Version::V2).unwrap();
        cgroup.update(&update)
    };
    assert!(matches!(set(1000, true), Err(Error::MemoryInUse { usage_bytes: 1000, .. })));
    assert_eq!(tree.read("c/memory.max"), "");
    set(1001, true).unwrap();
    set(10, false).unwrap();
}

#[test]
fn a_controller_that_is_not_mounted_is_a_mistake_of_its_field() {
    let layout = super::super::Layout::from_mountinfo(
        "36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n36 31 0:33 / /m rw - cgroup cgroup rw,pids\n",
    );
    let at = |rootless| Location::resolve(&layout, Some("/c"), "c", Driver::Cgroupfs, rootless).unwrap();
    let value = json!({"pids": {"limit": 1}, "memory": {"limit": -1}, "cpu": {"idle": 0}});
    let limits = compile(value, Version::V1).unwrap();
    let found: Vec<String> = limits.unavailable(&at(false)).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "/linux/resources/memory/limit: this host mounts no memory cgroup",
            "/linux/resources/cpu/idle: this host mounts no cpu cgroup",
        ]
    );
    assert!(limits.unavailable(&at(true)).is_empty());
}
