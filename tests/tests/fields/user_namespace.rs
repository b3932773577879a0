//! `uidMappings` and `gidMappings`: of the container, and of a mount.

use crate::namespaces::add_user_namespace;
use crate::{needs_root, refused, run_below};
use dhow_tests::Container;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

#[test]
fn ids_are_mapped_as_configured() {
    needs_root!();
    let mut c = Container::new();
    add_user_namespace(&mut c);
    c.set(
        "/linux/uidMappings",
        json!([
            { "containerID": 0, "hostID": 200_000, "size": 1000 },
            { "containerID": 1000, "hostID": 300_000, "size": 10 }
        ]),
    );
    c.set("/linux/gidMappings", json!([{ "containerID": 0, "hostID": 400_000, "size": 2000 }]));
    fs::create_dir(c.bundle.rootfs().join("work")).unwrap();
    chown(c.bundle.rootfs().join("work"), Some(200_000), Some(400_000)).unwrap();
    let see = "tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map; id -u; touch /work/root; \
               touch /work/user; chown 1005:1500 /work/user; stat -c '%u:%g' /work/root /work/user /etc/passwd";
    assert_eq!(c.see(see), "0 200000 1000\n 1000 300000 10\n 0 400000 2000\n0\n0:0\n1005:1500\n65534:65534");
    let owner = |name: &str| {
        let facts = fs::metadata(c.bundle.rootfs().join("work").join(name)).unwrap();
        (facts.uid(), facts.gid())
    };
    assert_eq!(owner("root"), (200_000, 400_000));
    assert_eq!(owner("user"), (300_005, 401_500));
}

#[test]
fn a_container_with_a_user_namespace_has_all_its_parts() {
    needs_root!();
    let mut c = Container::new();
    add_user_namespace(&mut c);
    c.set("/process/user", json!({ "uid": 5, "gid": 6, "additionalGids": [7] }));
    c.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    let see = "id -u; id -g; id -G; cat /proc/sys/net/ipv4/ip_forward; hostname; cat /proc/1/comm; ls /sys/fs/cgroup | head -n1 | wc -l; \
               head -c 1 /proc/timer_list | wc -c";
    assert_eq!(c.see(see), "5\n6\n6 7\n1\ndhow-test\nsh\n1\n0");
}

#[test]
fn a_user_namespace_without_mappings_or_mappings_without_it_are_mistakes() {
    needs_root!();
    let mut c = Container::new();
    c.set("/linux/uidMappings", json!([{ "containerID": 0, "hostID": 1, "size": 1 }]));
    refused(&c.run("true"), "/linux/uidMappings");
}

/// A directory on tmpfs with files of the users 0, 1000 and 100000.
fn owned_files(c: &Container) -> PathBuf {
    let dir = c.bundle.scratch().dir("volume");
    // The container's root may be nobody on this filesystem, who could not make it.
    fs::create_dir(c.bundle.rootfs().join("mnt")).unwrap();
    for uid in [0u32, 1000, 100_000] {
        let path = dir.join(uid.to_string());
        fs::write(&path, "").unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
    }
    dir
}

fn bind(source: &std::path::Path, options: &[&str], maps: Option<Value>) -> Value {
    let mut mount = json!({ "destination": "/mnt", "type": "bind", "source": source, "options": options });
    if let Some(maps) = maps {
        mount["uidMappings"] = maps.clone();
        mount["gidMappings"] = maps;
    }
    mount
}

const OWNERS: &str = "cd /mnt; stat -c '%n %u:%g' 0 1000 100000";

#[test]
fn a_mount_with_mappings_of_its_own_shows_other_owners() {
    needs_root!();
    for options in [&["bind", "idmap"][..], &["rbind", "ridmap"], &["bind"]] {
        let mut c = Container::new();
        let dir = owned_files(&c);
        // Who is containerID on disk is hostID on the host, and so in a container without a user namespace.
        let maps = json!([{ "containerID": 1000, "hostID": 0, "size": 1 }, { "containerID": 0, "hostID": 5000, "size": 1 }]);
        c.bundle.mount(bind(&dir, options, Some(maps)));
        assert_eq!(c.see(OWNERS), "0 5000:5000\n1000 0:0\n100000 65534:65534", "{options:?}");
        c.run("touch /mnt/new").ok();
        assert_eq!(fs::metadata(dir.join("new")).unwrap().uid(), 1000, "made by root, who is 1000 there");
    }
}

#[test]
fn idmap_without_mappings_takes_the_containers() {
    needs_root!();
    let mut c = Container::new();
    add_user_namespace(&mut c);
    let dir = owned_files(&c);
    c.bundle.mount(bind(&dir, &["bind", "idmap"], None));
    // On disk 0 is the container's 0: no chown of the volume is needed.
    assert_eq!(c.see(OWNERS), "0 0:0\n1000 1000:1000\n100000 65534:65534");
    let mut c = Container::new();
    add_user_namespace(&mut c);
    let dir = owned_files(&c);
    c.bundle.mount(bind(&dir, &["bind"], None));
    assert_eq!(c.see(OWNERS), "0 65534:65534\n1000 65534:65534\n100000 0:0");
    let mut c = Container::new();
    let dir = owned_files(&c);
    c.bundle.mount(bind(&dir, &["bind", "idmap"], None));
    refused(&c.run("true"), "/mounts/7/options");
}

#[test]
fn ridmap_reaches_what_is_mounted_below_and_idmap_does_not() {
    needs_root!();
    for (option, owner) in [("ridmap", "0:0"), ("idmap", "1000:1000")] {
        let mut c = Container::new();
        let dir = c.bundle.scratch().dir("volume/below");
        let volume = dir.parent().unwrap().to_owned();
        let maps = json!([{ "containerID": 1000, "hostID": 0, "size": 1 }]);
        c.bundle.mount(bind(&volume, &["rbind", option], Some(maps)));
        let prepare = "mount -t tmpfs tmpfs \"$BUNDLE/volume/below\"; touch \"$BUNDLE/volume/below/file\"; \
                       chown 1000:1000 \"$BUNDLE/volume/below/file\"";
        let out = run_below(
            &mut c,
            &["--mount", "--propagation", "private"],
            prepare,
            "stat -c %u:%g /mnt/below/file",
        )
        .ok();
        assert_eq!(out.text(), owner, "{option}");
    }
}
