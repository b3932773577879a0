//! Making cgroups in ordinary directories that have the files of cgroup ones.

use std::path::PathBuf;

use serde_json::json;

use super::super::fake::Tree;
use super::*;

fn location(tree: &Tree, version: Version, controllers: &[&str], dir: &str) -> Location {
    Location {
        version,
        driver: Driver::Cgroupfs,
        rootless: false,
        explicit: true,
        places: vec![Place {
            controllers: controllers.iter().map(|&c| c.to_owned()).collect(),
            mount: tree.path().to_path_buf(),
            dir: tree.path().join(dir),
        }],
        unit: None,
    }
}

fn limits(value: serde_json::Value, version: Version) -> Limits {
    Limits::compile(Some(&serde_json::from_value(value).unwrap()), version).unwrap()
}

/// A v2 hierarchy with the container's cgroup at `a/c`.
fn v2_tree(kind: &str, container_has: &str) -> Tree {
    let tree = Tree::new();
    tree.make("", &[("cgroup.controllers", "cpu memory\n"), ("cgroup.subtree_control", "cpu\n")]);
    tree.make("a", &[("cgroup.controllers", "cpu\n"), ("cgroup.subtree_control", "")]);
    tree.make("a/c", &[("cgroup.controllers", container_has), ("cgroup.type", kind), ("cgroup.procs", "")]);
    tree
}

#[test]
fn directories_are_made_below_the_mount_point_and_removed_again_on_failure() {
    let tree = Tree::new();
    let mut location = location(&tree, Version::V1, &["devices"], "x/y/z");
    let none = limits(json!({}), Version::V1);
    let cgroup = Cgroup::create(&location, &none).unwrap();
    assert!(cgroup.groups[0].fresh && tree.path().join("x/y/z").is_dir());
    // The second hierarchy cannot be made: the first one's directory goes again.
    std::fs::remove_dir(tree.path().join("x/y/z")).unwrap();
    tree.make("", &[("file", "")]);
    let mut second = location.places[0].clone();
    second.dir = tree.path().join("file/c");
    location.places.push(second);
    let error = Cgroup::create(&location, &none).unwrap_err();
    assert!(matches!(error, Error::Make { .. }), "{error}");
    assert!(!tree.path().join("x/y/z").exists());
}

#[test]
fn a_cgroup_with_processes_is_refused_and_left_alone() {
    let tree = Tree::new();
    tree.make("c", &[("cgroup.procs", "")]);
    tree.make("c/below", &[("cgroup.procs", "17\n18\n")]);
    let location = location(&tree, Version::V1, &["devices"], "c");
    let error = Cgroup::create(&location, &limits(json!({}), Version::V1)).unwrap_err();
    assert!(matches!(error, Error::NotEmpty { processes: 2, .. }), "{error}");
    assert!(tree.path().join("c/below/cgroup.procs").exists());
}

#[test]
fn frozen_cgroups_of_both_versions_are_refused() {
    for (version, controllers, file) in
        [(Version::V1, &["freezer"][..], "freezer.self_freezing"), (Version::V2, &[], "cgroup.freeze")]
    {
        let tree = Tree::new();
        tree.make("c", &[("cgroup.procs", ""), (file, "1\n")]);
        let location = location(&tree, version, controllers, "c");
        let error = Cgroup::create(&location, &limits(json!({}), version)).unwrap_err();
        assert!(matches!(error, Error::Frozen { .. }), "{error}");
    }
}

#[test]
fn cpuset_values_come_down_to_new_cgroups() {
    let tree = Tree::new();
    tree.make("", &[("cpuset.cpus", "0-3\n"), ("cpuset.mems", "0\n")]);
    for dir in ["a", "a/b", "a/b/c"] {
        tree.make(dir, &[("cpuset.cpus", ""), ("cpuset.mems", ""), ("cgroup.procs", "")]);
    }
    let location = location(&tree, Version::V1, &["cpuset"], "a/b/c");
    Cgroup::create(&location, &limits(json!({"cpu": {"cpus": "1"}}), Version::V1)).unwrap();
    for dir in ["a", "a/b"] {
        assert_eq!(tree.read(&format!("{dir}/cpuset.cpus")), "0-3");
        assert_eq!(tree.read(&format!("{dir}/cpuset.mems")), "0");
    }
    // The container has its own limit before a process comes.
    assert_eq!(tree.read("a/b/c/cpuset.cpus"), "1");
    assert_eq!(tree.read("a/b/c/cpuset.mems"), "0");
}

#[test]
fn controllers_are_enabled_from_the_mount_point_down() {
    let tree = v2_tree("domain", "");
    let location = location(&tree, Version::V2, &[], "a/c");
    Cgroup::create(&location, &limits(json!({}), Version::V2)).unwrap();
    // What was written last; the kernel adds to what is enabled.
    assert!(tree.read("cgroup.subtree_control").starts_with("+memory"));
    assert_eq!(tree.read("a/cgroup.subtree_control"), "+cpu +memory");
    // With every controller there already, nothing is written.
    let tree = v2_tree("domain", "cpu memory\n");
    let location: Location = Location {
        places: vec![Place {
            controllers: Vec::new(),
            mount: tree.path().into(),
            dir: tree.path().join("a/c"),
        }],
        ..location
    };
    Cgroup::create(&location, &limits(json!({}), Version::V2)).unwrap();
    assert_eq!(tree.read("a/cgroup.subtree_control"), "");
}

#[test]
fn threaded_cgroups_take_processes_but_no_memory_limit() {
    let memory = json!({"memory": {"limit": 5}});
    for (kind, resources, refused) in [
        ("domain invalid\n", json!({"pids": {"limit": 5}}), false),
        ("domain invalid\n", memory.clone(), true),
        ("threaded\n", memory.clone(), true),
        ("domain\n", memory, false),
    ] {
        let tree = v2_tree(kind, "cpu\n");
        let location = location(&tree, Version::V2, &[], "a/c");
        let result = Cgroup::create(&location, &limits(resources, Version::V2));
        assert_eq!(matches!(result, Err(Error::Threaded { .. })), refused, "{kind} {result:?}");
        let threaded = kind == "domain invalid\n" && !refused;
        assert_eq!(tree.read("a/c/cgroup.type").starts_with("threaded"), threaded || kind == "threaded\n");
    }
}

#[test]
fn paths_of_a_location_are_where_directories_are_made() {
    let tree = Tree::new();
    let location = location(&tree, Version::V1, &["pids", "devices"], "c");
    let paths: Vec<PathBuf> = location.paths().map(|(_, dir)| dir.to_path_buf()).collect();
    Cgroup::create(&location, &limits(json!({}), Version::V1)).unwrap();
    assert!(paths.len() == 2 && paths.iter().all(|dir| dir.is_dir()));
}
