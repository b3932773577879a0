//! User namespaces of root's containers: mapped, joined by path, with what only the host's root may read.

use dhow_tests::{Bundle, Runtime, leftovers, skip};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

/// The host's id of the containers' root.
const BASE: u32 = 700_000;
/// How many ids there are.
const COUNT: u32 = 65_536;

/// A bundle whose container has a user namespace, with the root filesystem owned by its root.
fn bundle() -> Bundle {
    let mut bundle = Bundle::busybox();
    let map = json!([{ "containerID": 0, "hostID": BASE, "size": COUNT }]);
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    namespaces(&mut bundle).push(json!({ "type": "user" }));
    shift(&bundle.rootfs());
    bundle
}

fn namespaces(bundle: &mut Bundle) -> &mut Vec<Value> {
    bundle.config_mut()["linux"]["namespaces"].as_array_mut().expect("namespaces is an array")
}

/// Gives a tree to the containers' root.
fn shift(dir: &Path) {
    let mut todo = vec![dir.to_path_buf()];
    while let Some(path) = todo.pop() {
        std::os::unix::fs::lchown(&path, Some(BASE), Some(BASE)).expect("chown");
        if fs::symlink_metadata(&path).expect("metadata").is_dir() {
            todo.extend(fs::read_dir(&path).expect("read a directory").flatten().map(|e| e.path()));
        }
    }
}

/// `mode` for a path of the host's root.
fn private(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

macro_rules! root {
    () => {
        if !dhow_tests::skip::is_root() {
            skip!("not root");
        }
    };
}

/// Runs the bundle in the foreground and returns what it printed, with white space as one blank.
#[track_caller]
fn output(runtime: &Runtime, bundle: &Bundle) -> String {
    bundle.write();
    let out = runtime.run(&runtime.fresh_id(), bundle).ok();
    out.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn ids_are_mapped_and_files_owned() {
    root!();
    let mut bundle = bundle();
    let runtime = bundle.runtime();
    bundle.shell(
        "id -u; cat /proc/self/uid_map; touch /root/new; chown 5:6 /root/new; stat -c %u:%g /root/new",
    );
    assert_eq!(output(&runtime, &bundle), format!("0 0 {BASE} {COUNT} 5:6"));
    let made = fs::metadata(bundle.rootfs().join("root/new")).expect("the file on the host");
    assert_eq!((made.uid(), made.gid()), (BASE + 5, BASE + 6));
    leftovers::assert_none(bundle.tag(), Some(runtime.root()));
}

#[test]
fn host_paths_that_only_root_may_enter() {
    root!();
    let mut bundle = bundle();
    let runtime = bundle.runtime();
    let secret = bundle.scratch().dir("secret/deep");
    fs::write(secret.join("file"), "content").expect("write a file");
    chown(secret.join("file"), Some(BASE), Some(BASE)).expect("chown");
    private(&secret.join("file"), 0o600);
    private(&bundle.scratch().join("secret"), 0o700);
    let source = secret.display().to_string();
    bundle.mount(
        json!({ "destination": "/mnt/dir", "source": &source, "type": "bind", "options": ["rbind", "ro"] }),
    );
    let file = secret.join("file").display().to_string();
    bundle.mount(json!({ "destination": "/mnt/file", "source": file, "options": ["bind"] }));
    let script =
        "cat /mnt/dir/file; echo; echo -n more >>/mnt/file; cat /mnt/file; echo; touch /mnt/dir/x 2>&1";
    bundle.shell(&format!("{script}; true"));
    let out = output(&runtime, &bundle);
    assert_eq!(out, "content contentmore touch: /mnt/dir/x: Read-only file system");

    // The root filesystem as well.
    private(bundle.path(), 0o700);
    bundle.shell("id -u; cat /mnt/dir/file");
    assert_eq!(output(&runtime, &bundle), "0 contentmore");
    leftovers::assert_none(bundle.tag(), Some(runtime.root()));
}

#[test]
fn devices_are_the_hosts() {
    root!();
    let mut bundle = bundle();
    let runtime = bundle.runtime();
    // One that config.json adds, from a path of the host.
    bundle.set("/linux/devices", json!([{ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11 }]));
    bundle.shell(
        "echo x >/dev/null; head -c 3 /dev/zero | wc -c; stat -c '%t:%T' /dev/null /dev/urandom /dev/kmsg; \
         readlink /dev/fd; readlink /dev/ptmx; ls -l /dev/console 2>/dev/null | wc -l",
    );
    assert_eq!(output(&runtime, &bundle), "3 1:3 1:9 1:b /proc/self/fd pts/ptmx 0");
    leftovers::assert_none(bundle.tag(), Some(runtime.root()));
}

#[test]
fn a_pod_of_namespaces_joined_by_path() {
    root!();
    let mut first = bundle();
    let runtime = first.runtime();
    first.args(["sleep", "100"]).set("/hostname", json!("pod"));
    first.write();
    let id = runtime.fresh_id();
    runtime.run_detached(&id, &first).ok();
    let pid = runtime.state(&id)["pid"].as_i64().expect("a pid");
    let link = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");

    // Which are joined, besides the user namespace, in each round.
    let rounds: [&[&str]; 4] =
        [&[], &["network", "ipc", "uts"], &["pid"], &["network", "ipc", "uts", "pid", "cgroup"]];
    for joined in rounds {
        let mut second = bundle();
        let linux = second.config_mut()["linux"].as_object_mut().expect("an object");
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        let mut all = vec!["user"];
        all.extend(joined);
        for kind in &all {
            let file = if *kind == "network" { "net" } else { kind };
            let entry = namespaces(&mut second).iter_mut().find(|n| n["type"] == **kind).expect("listed");
            entry["path"] = json!(format!("/proc/{pid}/ns/{file}"));
        }
        if joined.contains(&"uts") {
            second.config_mut().as_object_mut().expect("an object").remove("hostname");
        }
        second.shell(
            "id -u; hostname; readlink /proc/self/ns/user; readlink /proc/self/ns/net; echo $$; sleep 100",
        );
        second.terminal(false).write();
        let other = runtime.fresh_id();
        let log = second.scratch().join("log");
        let out = fs::File::create(&log).expect("make a file");
        let path = second.path().display().to_string();
        let mut command = runtime.command(["run", "--detach", "--bundle", &path, &other]);
        let err = second.scratch().join("err");
        let errors = fs::File::create(&err).expect("make a file");
        let status = command.stdout(out).stderr(errors).status().expect("run the runtime");
        assert!(status.success(), "{all:?}: {}", fs::read_to_string(&err).unwrap_or_default());
        let inside = runtime.state(&other)["pid"].to_string();
        for kind in ["user", "net", "ipc", "uts", "pid"] {
            let name = if kind == "net" { "network" } else { kind };
            let same = link(&inside, kind) == link(&pid.to_string(), kind);
            assert_eq!(same, all.contains(&name), "{kind} with {all:?}");
        }
        assert_eq!(runtime.exec(&other, &["id", "-u"]).ok().text(), "0");
        assert_eq!(runtime.exec(&other, &["stat", "-c", "%u", "/root"]).ok().text(), "0");
        let host = runtime.exec(&other, &["hostname"]).ok();
        assert_eq!(host.text(), if joined.contains(&"uts") { "pod" } else { "dhow-test" });
        runtime.delete_force(&other).ok();
        leftovers::assert_none(second.tag(), None);
    }
    runtime.delete_force(&id).ok();
    leftovers::assert_none(first.tag(), Some(runtime.root()));
}

#[test]
fn a_new_user_namespace_above_joined_ones() {
    root!();
    // The network namespace belongs to the host's user namespace: joined before the new one is made.
    let mut first = Bundle::busybox();
    let runtime = first.runtime();
    first.args(["sleep", "100"]);
    first.write();
    let id = runtime.fresh_id();
    runtime.run_detached(&id, &first).ok();
    let pid = runtime.state(&id)["pid"].to_string();
    let mut second = bundle();
    for entry in namespaces(&mut second) {
        if entry["type"] == "network" {
            entry["path"] = json!(format!("/proc/{pid}/ns/net"));
        }
    }
    // sysfs shows a network namespace, which is not this user namespace's.
    let mounts = second.config_mut()["mounts"].as_array_mut().expect("an array");
    for mount in mounts.iter_mut().filter(|m| m["destination"] == "/sys") {
        *mount =
            json!({ "destination": "/sys", "source": "/sys", "type": "bind", "options": ["rbind", "ro"] });
    }
    mounts.retain(|m| m["destination"] != "/sys/fs/cgroup");
    second.shell("id -u; readlink /proc/self/ns/net");
    let net = fs::read_link(format!("/proc/{pid}/ns/net")).expect("a namespace").display().to_string();
    assert_eq!(output(&runtime, &second), format!("0 {net}"));
    runtime.delete_force(&id).ok();
    leftovers::assert_none(second.tag(), None);
}

#[test]
fn id_mapped_mounts_in_a_user_namespace() {
    root!();
    let mut bundle = bundle();
    let runtime = bundle.runtime();
    let volume = bundle.scratch().dir("volume");
    fs::write(volume.join("file"), "x").expect("write a file");
    let source = volume.display().to_string();
    // The container's own mapping, and one of the mount's: host 0 is seen as the container's 7.
    bundle.mount(json!({ "destination": "/own", "source": &source, "options": ["bind", "idmap"] }));
    let map = json!([{ "containerID": 0, "hostID": BASE + 7, "size": 10 }]);
    bundle.mount(json!({ "destination": "/seven", "source": &source, "options": ["bind"],
        "uidMappings": map.clone(), "gidMappings": map }));
    bundle.mount(json!({ "destination": "/plain", "source": &source, "options": ["bind"] }));
    bundle.shell("stat -c %u:%g /own/file /seven/file /plain/file; touch /own/made");
    assert_eq!(output(&runtime, &bundle), "0:0 7:7 65534:65534");
    let made = fs::metadata(volume.join("made")).expect("the file on the host");
    assert_eq!((made.uid(), made.gid()), (0, 0));
    leftovers::assert_none(bundle.tag(), Some(runtime.root()));
}

#[test]
fn exec_in_a_user_namespace() {
    root!();
    let mut bundle = bundle();
    let runtime = bundle.runtime();
    bundle.args(["sleep", "100"]);
    bundle.write();
    let id = runtime.fresh_id();
    runtime.run_detached(&id, &bundle).ok();
    let out =
        runtime.exec(&id, &["sh", "-c", "id -u; cat /proc/self/uid_map; grep CapEff /proc/self/status"]).ok();
    let words: Vec<&str> = out.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", &BASE.to_string(), &COUNT.to_string(), "CapEff:", "00000000a80425fb"]);
    let user = runtime.call(["exec", "--user", "33:44", &id, "id"]).ok();
    assert_eq!(user.text(), "uid=33 gid=44");
    let outside = runtime.call(["exec", "--user", "70000", &id, "id"]);
    assert!(!outside.success() && outside.stderr.contains("/process/user"), "{outside}");
    runtime.delete_force(&id).ok();
    leftovers::assert_none(bundle.tag(), Some(runtime.root()));
}
