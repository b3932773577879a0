//! `mounts add` and `mounts remove`: the mounts of a container that runs.

use crate::needs_root;
use dhow_tests::{Container, Output};
use serde_json::{Value, json};
use std::fs;

fn change(c: &Container, action: &str, mounts: &Value) -> Output {
    let file = c.host_path("mounts.json");
    fs::write(&file, mounts.to_string()).unwrap();
    c.runtime.call(["mounts", action, &c.id, file.to_str().unwrap()])
}

fn whole_life(c: &mut Container) {
    let dir = c.bundle.scratch().dir("volume");
    fs::write(dir.join("file"), "in the volume\n").unwrap();
    let one = c.host_path("one");
    fs::write(&one, "one file\n").unwrap();
    for path in [dir.join("file"), one.clone()] {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    c.start(":");
    let before = c.exec("cat /proc/self/mounts | wc -l");
    let mounts = json!([
        { "destination": "/mnt/new/dir", "type": "bind", "source": dir, "options": ["rbind", "ro", "nosuid"] },
        { "destination": "/mnt/file", "type": "bind", "source": one, "options": ["bind"] },
        { "destination": "/mnt/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=700"] }
    ]);
    change(c, "add", &mounts).ok();
    assert_eq!(c.exec("cat /mnt/new/dir/file /mnt/file"), "in the volume\none file");
    let options = c.exec("grep /mnt/new/dir /proc/self/mounts | cut -d' ' -f4");
    assert!(options.starts_with("ro,nosuid"), "{options}");
    assert!(c.exec("touch /mnt/new/dir/x 2>&1 || true").contains("Read-only"));
    assert_eq!(c.exec("stat -c %a /mnt/tmp"), "700");
    // The program sees it as well: same mount namespace.
    let pid = c.pid();
    assert!(fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap().contains("/mnt/tmp"));
    change(c, "remove", &mounts).ok();
    assert_eq!(c.exec("cat /proc/self/mounts | wc -l"), before);
    assert_eq!(c.exec("ls /mnt/new/dir; cat /mnt/file"), "");
    let again = change(c, "remove", &mounts);
    assert!(!again.success() && again.stderr.contains("/mnt/new/dir"), "{again}");
}

#[test]
fn mounts_come_and_go() {
    needs_root!();
    whole_life(&mut Container::new());
}

#[test]
fn mounts_come_and_go_with_a_user_namespace() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.config_mut()["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    c.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    // The mapped root makes the mount points.
    for dir in [c.bundle.rootfs(), c.bundle.rootfs().join("mnt")] {
        fs::create_dir_all(&dir).unwrap();
        std::os::unix::fs::chown(dir, Some(100_000), Some(100_000)).unwrap();
    }
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(c.bundle.rootfs().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    whole_life(&mut c);
}

#[test]
fn mistakes_and_missing_sources_are_named() {
    needs_root!();
    let mut c = Container::new();
    c.start(":");
    let missing =
        json!([{ "destination": "/mnt", "type": "bind", "source": "/no/such/source", "options": ["bind"] }]);
    let out = change(&c, "add", &missing);
    assert!(!out.success() && out.stderr.contains("/no/such/source"), "{out}");
    let on_proc = json!([{ "destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs" }]);
    let out = change(&c, "add", &on_proc);
    assert!(!out.success() && out.stderr.contains("procfs"), "{out}");
    let root = json!([{ "destination": "/", "type": "tmpfs", "source": "tmpfs" }]);
    let out = change(&c, "add", &root);
    assert!(!out.success() && out.stderr.contains("the root itself"), "{out}");
    assert_eq!(c.runtime.status(&c.id).as_deref(), Some("running"));
}
