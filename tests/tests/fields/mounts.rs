//! `mounts`: types, sources, destinations, and every class of option.

use crate::{needs_root, refused, run_below};
use dhow_tests::Container;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

const BELOW: [&str; 3] = ["--mount", "--propagation", "private"];

/// The mount's own options, the optional fields, and the filesystem's options of what is mounted at /mnt.
const INFO: &str = "awk '$5 == \"/mnt\" { own = $6; fields = \"\"; for (i = 7; $i != \"-\"; i++) fields = fields $i \" \"; \
                    print own \" | \" fields \"| \" $(i + 1) \" | \" $(i + 3) }' /proc/self/mountinfo";

fn tmpfs(options: &[&str]) -> serde_json::Value {
    json!({ "destination": "/mnt", "type": "tmpfs", "source": "name", "options": options })
}

#[test]
fn options_of_a_filesystem_show_in_the_mount_table() {
    needs_root!();
    // What was asked for, and the mount's own options that come of it (relatime is the kernel's default).
    let cases: [(&[&str], &str); 19] = [
        (&[], "rw,relatime"),
        (&["ro"], "ro,relatime"),
        (&["ro", "rw"], "rw,relatime"),
        (&["nosuid"], "rw,nosuid,relatime"),
        (&["nosuid", "suid"], "rw,relatime"),
        (&["nodev"], "rw,nodev,relatime"),
        (&["nodev", "dev"], "rw,relatime"),
        (&["noexec"], "rw,noexec,relatime"),
        (&["noexec", "exec"], "rw,relatime"),
        (&["nosymfollow"], "rw,relatime,nosymfollow"),
        (&["nosymfollow", "symfollow"], "rw,relatime"),
        (&["noatime"], "rw,noatime"),
        (&["strictatime"], "rw"),
        (&["noatime", "relatime"], "rw,relatime"),
        (&["nodiratime"], "rw,nodiratime,relatime"),
        (&["nodiratime", "diratime"], "rw,relatime"),
        (&["nosuid", "nodev", "noexec", "ro", "noatime"], "ro,nosuid,nodev,noexec,noatime"),
        (&["defaults"], "rw,relatime"),
        (&["rro", "rnosuid", "rnodev", "rnoexec"], "ro,nosuid,nodev,noexec,relatime"),
    ];
    for (options, expected) in cases {
        let mut c = Container::new();
        c.bundle.mount(tmpfs(options));
        let seen = c.see(INFO);
        assert_eq!(seen.split(" | ").next(), Some(expected), "{options:?}: {seen}");
    }
}

#[test]
fn parameters_of_a_filesystem_are_passed_on() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.mount(tmpfs(&[
        "size=1m",
        "mode=1770",
        "uid=5",
        "gid=6",
        "nr_inodes=100",
        "sync",
        "dirsync",
        "lazytime",
    ]));
    let seen = c.see(&format!(
        "{INFO}; stat -c '%a %u:%g' /mnt; df -k /mnt | tail -n1 | tr -s ' ' | cut -d' ' -f1,2"
    ));
    let (info, rest) = seen.split_once('\n').unwrap();
    for option in
        ["size=1024k", "nr_inodes=100", "mode=1770", "uid=5", "gid=6", "sync", "dirsync", "lazytime"]
    {
        assert!(info.contains(option), "no {option}: {info}");
    }
    assert_eq!(rest, "1770 5:6\nname 1024");
    let mut c = Container::new();
    c.bundle.mount(tmpfs(&["no_such_parameter=1"]));
    let out = c.run("true");
    refused(&out, "/mounts/7");
    refused(&out, "tmpfs");
    let mut c = Container::new();
    c.bundle.mount(json!({ "destination": "/mnt", "type": "no-such-fs", "source": "x" }));
    let out = c.run("true");
    refused(&out, "/mounts/7");
    refused(&out, "no-such-fs");
}

#[test]
fn a_bind_mount_shows_the_hosts_directory_or_file() {
    needs_root!();
    let mut c = Container::new();
    let dir = c.bundle.scratch().dir("volume");
    fs::write(dir.join("file"), "text\n").unwrap();
    for mount in [
        json!({ "destination": "/mnt/deep/dir", "type": "bind", "source": dir, "options": ["rbind", "ro"] }),
        json!({ "destination": "/mnt/file", "type": "bind", "source": dir.join("file"), "options": ["bind"] }),
        // Relative to the bundle; and only the option says that it is a bind mount.
        json!({ "destination": "/mnt/relative", "source": "volume", "options": ["bind"] }),
        json!({ "destination": "/etc/hosts", "type": "bind", "source": dir.join("file") }),
    ] {
        c.bundle.mount(mount);
    }
    let seen = c.see(
        "cat /mnt/deep/dir/file /mnt/file /mnt/relative/file /etc/hosts; touch /mnt/deep/dir/x 2>&1; \
         echo new >/mnt/relative/new; stat -c '%F %a' /mnt /mnt/deep",
    );
    assert!(seen.starts_with("text\ntext\ntext\ntext\n"), "{seen}");
    assert!(seen.contains("Read-only file system"), "{seen}");
    assert!(seen.ends_with("directory 755\ndirectory 755"), "{seen}");
    assert_eq!(fs::read_to_string(dir.join("new")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(c.bundle.rootfs().join("etc/hosts")).unwrap(), "127.0.0.1 localhost\n");
    let mut c = Container::new();
    c.bundle.mount(
        json!({ "destination": "/mnt", "type": "bind", "source": "/no/such/source", "options": ["bind"] }),
    );
    let out = c.run("true");
    refused(&out, "/no/such/source");
    refused(&out, "/mounts/7");
    // A directory over a file.
    let mut c = Container::new();
    c.bundle
        .mount(json!({ "destination": "/etc/hosts", "type": "bind", "source": "/tmp", "options": ["bind"] }));
    let out = c.run("true");
    refused(&out, "ot a directory");
    refused(&out, "/mounts/7");
}

/// A volume with a tmpfs below it, on the host.
const TREE: &str = "mkdir -p \"$BUNDLE/volume/below\"; mount -t tmpfs tmpfs \"$BUNDLE/volume/below\"; \
                    touch \"$BUNDLE/volume/below/file\"";

const WRITABLE: &str = "for d in /mnt /mnt/below; do touch $d/x 2>/dev/null && echo yes || echo no; done; ls /mnt/below | grep -c file";

#[test]
fn recursive_options_reach_what_is_mounted_below() {
    needs_root!();
    // Writable at the top, writable below, whether the mount below came along.
    let cases: [(&[&str], &str); 5] = [
        (&["rbind"], "yes\nyes\n1"),
        (&["rbind", "ro"], "no\nyes\n1"),
        (&["rbind", "rro"], "no\nno\n1"),
        (&["rbind", "rro", "rw"], "no\nno\n1"),
        (&["bind"], "yes\nyes\n0"),
    ];
    for (options, expected) in cases {
        let mut c = Container::new();
        c.bundle
            .mount(json!({ "destination": "/mnt", "type": "bind", "source": "volume", "options": options }));
        let out = run_below(&mut c, &BELOW, TREE, WRITABLE);
        assert_eq!(out.text(), expected, "{options:?}: {out}");
    }
    let mut c = Container::new();
    let options = ["rbind", "rnosuid", "rnodev", "rnoexec", "rnoatime", "rnosymfollow", "rnodiratime"];
    c.bundle.mount(json!({ "destination": "/mnt", "type": "bind", "source": "volume", "options": options }));
    let out = run_below(&mut c, &BELOW, TREE, "awk '$5 ~ /^\\/mnt/ { print $6 }' /proc/self/mountinfo").ok();
    let expected = "rw,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow";
    assert_eq!(out.text(), format!("{expected}\n{expected}"));
}

#[test]
fn links_are_not_followed_with_nosymfollow() {
    needs_root!();
    let mut c = Container::new();
    let dir = c.bundle.scratch().dir("volume");
    fs::write(dir.join("file"), "text\n").unwrap();
    symlink("file", dir.join("link")).unwrap();
    c.bundle.mount(
        json!({ "destination": "/mnt", "type": "bind", "source": dir, "options": ["bind", "nosymfollow"] }),
    );
    let seen = c.see("cat /mnt/file; cat /mnt/link 2>&1; readlink /mnt/link");
    assert!(seen.starts_with("text\n") && seen.ends_with("\nfile"), "{seen}");
    assert!(seen.contains("symbolic link"), "{seen}");
}

#[test]
fn a_bind_mount_keeps_what_the_host_forbids() {
    needs_root!();
    let prepare =
        "mkdir \"$BUNDLE/volume\"; mount -t tmpfs -o ro,nosuid,nodev,noexec,noatime tmpfs \"$BUNDLE/volume\"";
    for options in [&["bind"][..], &["bind", "rw"], &["bind", "rw", "rprivate"]] {
        let mut c = Container::new();
        c.bundle
            .mount(json!({ "destination": "/mnt", "type": "bind", "source": "volume", "options": options }));
        let out = run_below(&mut c, &BELOW, prepare, INFO).ok();
        assert!(out.text().starts_with("ro,nosuid,nodev,noexec,noatime |"), "{options:?}: {out}");
    }
}

#[test]
fn propagation_is_the_mounts_own() {
    needs_root!();
    let prepare = "mkdir \"$BUNDLE/volume\"; mount -t tmpfs tmpfs \"$BUNDLE/volume\"; mount --make-shared \"$BUNDLE/volume\"";
    let cases: [(&[&str], &[&str]); 7] = [
        (&["rbind"], &["master:"]),
        (&["rbind", "rslave"], &["master:"]),
        (&["rbind", "slave"], &["master:"]),
        (&["rbind", "rprivate"], &[]),
        (&["rbind", "private"], &[]),
        (&["rbind", "rslave", "rshared"], &["master:", "shared:"]),
        (&["rbind", "unbindable"], &["unbindable"]),
    ];
    for (options, expected) in cases {
        let mut c = Container::new();
        c.bundle
            .mount(json!({ "destination": "/mnt", "type": "bind", "source": "volume", "options": options }));
        let out = run_below(&mut c, &BELOW, prepare, INFO).ok();
        let fields: Vec<_> = out.text().split('|').nth(1).unwrap_or_default().split_whitespace().collect();
        assert_eq!(fields.len(), expected.len(), "{options:?}: {out}");
        assert!(expected.iter().all(|e| fields.iter().any(|f| f.starts_with(e))), "{options:?}: {out}");
    }
}

#[test]
fn mounts_of_the_host_arrive_in_a_slave_while_the_container_runs() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.mount(
        json!({ "destination": "/mnt", "type": "bind", "source": "volume", "options": ["rbind", "rslave"] }),
    );
    // The host mounts something below when the container says that it is up.
    let prepare = "mkdir -p \"$BUNDLE/volume/late\"; mount -t tmpfs tmpfs \"$BUNDLE/volume\"; mkdir \"$BUNDLE/volume/late\"; \
                   mount --make-shared \"$BUNDLE/volume\"; \
                   (while ! test -e \"$BUNDLE/volume/up\"; do sleep 0.05; done; mount -t tmpfs tmpfs \"$BUNDLE/volume/late\"; \
                   touch \"$BUNDLE/volume/late/arrived\") & :";
    let script = "touch /mnt/up; n=0; while ! test -e /mnt/late/arrived && test $n -lt 100; do n=$((n+1)); sleep 0.05; done; ls /mnt/late";
    let out = run_below(&mut c, &BELOW, prepare, script).ok();
    assert_eq!(out.text(), "arrived");
}

#[test]
fn remount_changes_what_is_there() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.mount(tmpfs(&["size=1m"]));
    c.bundle.mount(json!({ "destination": "/mnt", "type": "tmpfs", "source": "name", "options": ["remount", "size=2m", "noexec"] }));
    let seen = c.see(INFO);
    assert!(seen.starts_with("rw,noexec") && seen.contains("size=2048k"), "{seen}");
    c.bundle.mount(json!({ "destination": "/mnt", "type": "bind", "source": "name", "options": ["remount", "bind", "ro", "nosuid"] }));
    let seen = c.see(INFO);
    assert!(seen.starts_with("ro,nosuid,noexec"), "{seen}");
}

#[test]
fn tmpcopyup_fills_a_tmpfs_with_what_it_covers() {
    needs_root!();
    let mut c = Container::new();
    c.write("data/dir/file", "text\n");
    symlink("dir/file", c.bundle.rootfs().join("data/link")).unwrap();
    let file = c.bundle.rootfs().join("data/dir/file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&file, Some(5), Some(6)).unwrap();
    fs::set_permissions(c.bundle.rootfs().join("data"), fs::Permissions::from_mode(0o750)).unwrap();
    c.bundle.mount(
        json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] }),
    );
    let seen = c.see("cat /data/link; stat -c '%a %u:%g' /data/dir/file; stat -c %a /data; echo new >/data/dir/file; stat -f -c %T /data");
    assert_eq!(seen, "text\n640 5:6\n750\ntmpfs");
    assert_eq!(fs::read_to_string(&file).unwrap(), "text\n");
}

#[test]
fn a_tmpfs_has_the_mode_of_what_it_covers() {
    needs_root!();
    let mut c = Container::new();
    fs::create_dir(c.bundle.rootfs().join("mnt")).unwrap();
    fs::set_permissions(c.bundle.rootfs().join("mnt"), fs::Permissions::from_mode(0o1751)).unwrap();
    c.bundle.mount(tmpfs(&[]));
    assert_eq!(c.see("stat -c %a /mnt"), "1751");
}

#[test]
fn destinations_stay_inside_the_root() {
    needs_root!();
    let mut c = Container::new();
    let outside = c.bundle.scratch().dir("outside");
    symlink(&outside, c.bundle.rootfs().join("absolute")).unwrap();
    symlink("../../../../../..", c.bundle.rootfs().join("up")).unwrap();
    symlink("/run/made", c.bundle.rootfs().join("var/dangling")).unwrap();
    for destination in ["/absolute/a", "/up/b", "/var/dangling/c", "/../../d"] {
        c.bundle.mount(json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" }));
    }
    let seen = c.see("awk '$3 == \"tmpfs\" { print $2 }' /proc/self/mounts | grep '/[abcd]$'");
    let inside = format!("{}/a\n/b\n/run/made/c\n/d", outside.display());
    assert_eq!(seen, inside);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(c.bundle.rootfs().join("b").is_dir() && c.bundle.rootfs().join("d").is_dir());
}

#[test]
fn procfs_and_sysfs_want_a_real_directory_and_stay_uncovered() {
    needs_root!();
    for (name, pointer) in [("proc", "/mounts/0"), ("sys", "/mounts/3")] {
        let mut c = Container::new();
        fs::remove_dir(c.bundle.rootfs().join(name)).unwrap();
        symlink("tmp", c.bundle.rootfs().join(name)).unwrap();
        let out = c.run("true");
        refused(&out, "must be mounted on ordinary directory");
        refused(&out, pointer);
    }
    for destination in ["/proc", "/proc/sys/kernel", "/proc/1"] {
        let mut c = Container::new();
        c.bundle.mount(json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" }));
        refused(&c.run("true"), "/mounts/7");
    }
    let mut c = Container::new();
    let file = c.host_path("uptime");
    fs::write(&file, "1 2\n").unwrap();
    c.bundle
        .mount(json!({ "destination": "/proc/uptime", "type": "bind", "source": file, "options": ["bind"] }));
    assert_eq!(c.see("cat /proc/uptime"), "1 2");
    let mut c = Container::new();
    c.bundle.mount(json!({ "destination": "/", "type": "tmpfs", "source": "tmpfs" }));
    refused(&c.run("true"), "/mounts/7/destination");
}

#[test]
fn the_cgroup_mount_shows_the_containers_own() {
    needs_root!();
    let mut c = Container::new();
    // On v1 a directory for each hierarchy, on v2 the files themselves.
    let see = "cd /sys/fs/cgroup; d=.; test -e cgroup.procs || d=pids; wc -l <$d/cgroup.procs; touch $d/x 2>&1 | grep -c -i read-only";
    // The shell and wc.
    assert_eq!(c.see(see), "2\n1");
    c.bundle.without_namespace("cgroup");
    assert_eq!(c.see(see), "2\n1");
}

#[test]
fn every_kernel_filesystem_of_the_specification_is_mounted() {
    needs_root!();
    let mut c = Container::new();
    let seen =
        c.see("awk '{ print $2 \" \" $3 }' /proc/self/mounts | grep -E '^/(proc|sys|dev|dev/[a-z]*) '");
    for line in
        ["/proc proc", "/dev tmpfs", "/dev/pts devpts", "/sys sysfs", "/dev/mqueue mqueue", "/dev/shm tmpfs"]
    {
        assert!(seen.lines().any(|l| l == line), "no {line} in {seen}");
    }
}

#[test]
fn an_overlay_is_mounted() {
    needs_root!();
    let mut c = Container::new();
    for dir in ["lower", "upper", "work"] {
        c.bundle.scratch().dir(dir);
    }
    fs::write(c.host_path("lower/file"), "lower\n").unwrap();
    let option = |key: &str, dir: &str| format!("{key}={}", c.host_path(dir).display());
    let options = [option("lowerdir", "lower"), option("upperdir", "upper"), option("workdir", "work")];
    c.bundle
        .mount(json!({ "destination": "/mnt", "type": "overlay", "source": "overlay", "options": options }));
    assert_eq!(c.see("cat /mnt/file; echo upper >/mnt/file"), "lower");
    assert_eq!(fs::read_to_string(c.host_path("upper/file")).unwrap(), "upper\n");
    assert_eq!(fs::read_to_string(c.host_path("lower/file")).unwrap(), "lower\n");
}
