//! `root`, `rootfsPropagation`, `maskedPaths`, `readonlyPaths`.

use crate::{needs_root, refused, run_below};
use dhow_tests::Container;
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;

#[test]
fn the_root_is_what_path_says() {
    needs_root!();
    let mut c = Container::new();
    c.write("etc/mark", "relative path\n");
    assert_eq!(c.see("cat /etc/mark; ls -d /..; cat /../../etc/mark | wc -l"), "relative path\n/..\n1");
    let path = c.bundle.rootfs();
    c.set("/root/path", json!(path));
    assert_eq!(c.see("cat /etc/mark"), "relative path");
    // Nothing of the host's mounts is left below or above.
    let mounts = c.see("cut -d' ' -f2 /proc/self/mounts | grep -v -e '^/proc' -e '^/sys' -e '^/dev'");
    assert_eq!(mounts, "/");
}

#[test]
fn a_readonly_root_takes_no_writes_but_its_mounts_do() {
    needs_root!();
    let mut c = Container::new();
    c.set("/root/readonly", json!(true));
    c.bundle.mount(
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"] }),
    );
    let seen = c.see("touch /etc/x 2>&1; mkdir /dir 2>&1; touch /tmp/x && echo written; mount -o remount,rw / 2>&1 || true");
    assert_eq!(seen.matches("Read-only file system").count(), 2, "{seen}");
    assert!(seen.contains("written") && seen.contains("denied"), "{seen}");
    assert!(!c.bundle.rootfs().join("etc/x").exists());
    // The host's own view of the directory stays as it was.
    fs::write(c.bundle.rootfs().join("etc/y"), "y").unwrap();
}

/// The propagation of the mount at a path, from mountinfo's optional fields.
const PROPAGATION: &str =
    "sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \\/ [^ ]* \\(.*\\)- .*/\\1/p' /proc/self/mountinfo";

#[test]
fn rootfs_propagation_is_that_of_the_containers_root() {
    needs_root!();
    let cases = [
        ("private", ""),
        ("rprivate", ""),
        ("slave", "master:"),
        ("rslave", "master:"),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
    ];
    for (value, expected) in cases {
        let mut c = Container::new();
        c.set("/linux/rootfsPropagation", json!(value));
        // A root on a mount that is shared on the host.
        let prepare =
            "mount --bind \"$BUNDLE/rootfs\" \"$BUNDLE/rootfs\"; mount --make-shared \"$BUNDLE/rootfs\"";
        let out = run_below(&mut c, &["--mount", "--propagation", "private"], prepare, PROPAGATION).ok();
        if expected.is_empty() {
            assert_eq!(out.text(), "", "{value}");
        } else {
            assert!(out.text().starts_with(expected), "{value}: {out}");
        }
    }
}

#[test]
fn mounts_of_a_container_do_not_reach_a_shared_host() {
    needs_root!();
    for value in ["shared", "rslave"] {
        let mut c = Container::new();
        c.set("/linux/rootfsPropagation", json!(value));
        let list = c.host_path("mounts");
        let hook = format!("cat /proc/self/mountinfo >{}", list.display());
        c.set("/hooks/poststart", json!([{ "path": "/bin/sh", "args": ["sh", "-c", hook] }]));
        let prepare = "mount --bind \"$BUNDLE\" \"$BUNDLE\"; mount --make-shared \"$BUNDLE\"";
        run_below(&mut c, &["--mount", "--propagation", "private"], prepare, "sleep 0.2").ok();
        let mounts = fs::read_to_string(&list).unwrap();
        assert_eq!(mounts.lines().filter(|l| l.contains(&c.id)).count(), 1, "{value}:\n{mounts}");
    }
}

#[test]
fn masked_paths_are_empty() {
    needs_root!();
    let mut c = Container::new();
    c.write("secret/dir/file", "secret\n");
    c.write("secret/other", "secret\n");
    c.write("secret/visible", "visible\n");
    symlink("other", c.bundle.rootfs().join("secret/link")).unwrap();
    let masked = [
        "/secret/dir",
        "/secret/other",
        "/secret/no-such",
        "/proc/timer_list",
        "/sys/firmware",
        "/proc/scsi",
    ];
    c.set("/linux/maskedPaths", json!(masked));
    let seen = c.see(
        "ls /secret/dir | wc -l; cat /secret/other /secret/link | wc -c; cat /secret/visible; \
         head -c 10 /proc/timer_list | wc -c; ls /sys/firmware | wc -l; touch /secret/dir/x 2>&1; umount /secret/dir 2>&1 || true",
    );
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines[..5], ["0", "0", "visible", "0", "0"], "{seen}");
    assert!(lines[5].contains("Read-only"), "{seen}");
    assert!(lines[6].contains("ermitted"), "{seen}");
    assert_eq!(fs::read_to_string(c.bundle.rootfs().join("secret/other")).unwrap(), "secret\n");
}

#[test]
fn readonly_paths_can_be_read_only() {
    needs_root!();
    let mut c = Container::new();
    c.write("data/file", "text\n");
    c.write("data/dir/file", "text\n");
    c.set("/linux/readonlyPaths", json!(["/data/file", "/data/dir", "/no/such", "/proc/sys"]));
    let seen = c.see(
        "cat /data/file /data/dir/file; echo x 2>&1 >/data/file || echo refused; touch /data/dir/x 2>&1 || echo refused; \
         echo 1 2>/dev/null >/proc/sys/net/ipv4/ip_forward || echo refused; touch /data/new && echo made",
    );
    assert!(seen.starts_with("text\ntext\n"), "{seen}");
    assert_eq!(seen.matches("refused").count(), 3, "{seen}");
    assert!(seen.ends_with("made"), "{seen}");
}

#[test]
fn masks_follow_no_link_out_of_the_root() {
    needs_root!();
    let mut c = Container::new();
    let outside = c.bundle.scratch().dir("outside");
    fs::write(outside.join("file"), "host\n").unwrap();
    symlink(&outside, c.bundle.rootfs().join("escape")).unwrap();
    c.set("/linux/maskedPaths", json!(["/escape/file"])).set("/linux/readonlyPaths", json!(["/escape"]));
    // Inside the root the link leads nowhere, and what leads nowhere is passed over.
    c.run("true").ok();
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "host\n");
    fs::write(outside.join("file"), "still writable\n").unwrap();
}

#[test]
fn a_missing_root_is_refused() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.config_mut().as_object_mut().unwrap().remove("root");
    refused(&c.run("true"), "/root");
}
