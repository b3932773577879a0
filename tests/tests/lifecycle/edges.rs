//! What is unusual but allowed: big things, odd places, things that go away meanwhile.

use crate::needs_root;
use dhow_tests::Container;
use dhow_tests::command::wait_for;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

fn with_user_namespace() -> Container {
    let mut c = Container::new();
    c.bundle.config_mut()["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    c.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    c
}

#[test]
fn arguments_and_environment_may_be_large() {
    needs_root!();
    let mut c = Container::new();
    let long = "x".repeat(100_000);
    for n in 0..8 {
        let env = c.bundle.config_mut()["process"]["env"].as_array_mut().unwrap();
        env.push(json!(format!("LONG{n}={long}")));
    }
    assert_eq!(c.see("echo ${#LONG0} ${#LONG7}"), "100000 100000");
    // Beyond what the kernel takes in one string.
    c.set("/process/env/1", json!(format!("TOO_LONG={}", "x".repeat(140_000))));
    let out = c.run("true").code(1);
    assert!(out.stderr.contains("unable to start container process"), "{out}");
    assert!(out.stderr.to_lowercase().contains("argument list too long"), "{out}");
}

#[test]
fn there_may_be_many_mounts_devices_and_groups() {
    needs_root!();
    for mut c in [Container::new(), with_user_namespace()] {
        let dir = c.bundle.scratch().dir("volume");
        fs::create_dir(c.bundle.rootfs().join("mnt")).unwrap();
        for n in 0..200 {
            fs::create_dir(c.bundle.rootfs().join(format!("mnt/{n}"))).unwrap();
            c.bundle.mount(json!({ "destination": format!("/mnt/{n}"), "type": "bind", "source": dir, "options": ["bind"] }));
        }
        let groups: Vec<u32> = (1..2000).collect();
        c.set("/process/user/additionalGids", json!(groups));
        assert_eq!(
            c.see("grep -c ' /mnt/' /proc/self/mounts; grep ^Groups: /proc/self/status | wc -w"),
            "200\n2000"
        );
    }
}

#[test]
fn the_bundle_and_the_root_may_be_links() {
    needs_root!();
    let mut c = Container::new();
    fs::rename(c.bundle.rootfs(), c.host_path("real")).unwrap();
    symlink("real", c.bundle.rootfs()).unwrap();
    c.bundle.shell("cat /etc/hosts").write();
    let link = c.host_path("link");
    symlink(c.bundle.path(), &link).unwrap();
    let out = c.runtime.call(["run", "-b", link.to_str().unwrap(), &c.id]).ok();
    assert_eq!(out.text(), "127.0.0.1 localhost");
    let mut command = c.runtime.command(["run", &c.id]);
    let out = dhow_tests::run(command.current_dir(c.bundle.path())).ok();
    assert_eq!(out.text(), "127.0.0.1 localhost", "the bundle is the current directory by default");
}

#[test]
fn a_config_may_leave_almost_everything_out() {
    needs_root!();
    let mut c = Container::new();
    let args = json!(["/bin/sh", "-c", "echo $((1 + 1))"]);
    *c.bundle.config_mut() = json!({
        "ociVersion": "1.0.0", "root": { "path": "rootfs" }, "process": { "cwd": "/", "args": args },
        "linux": { "cgroupsPath": format!("/{}", c.id), "namespaces": [{ "type": "mount" }] }
    });
    c.bundle.write();
    assert_eq!(c.runtime.run(&c.id, &c.bundle).ok().text(), "2");
}

#[test]
fn a_bundle_may_change_after_create() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.shell("echo original >/tmp/who; mkfifo /tmp/f; read x <>/tmp/f").write();
    c.runtime.create(&c.id, &c.bundle).ok();
    fs::write(c.bundle.path().join("config.json"), "nonsense").unwrap();
    c.runtime.start(&c.id).ok();
    assert_eq!(c.wait_file("tmp/who"), "original\n");
    assert_eq!(c.exec("echo still"), "still");
    fs::remove_file(c.bundle.path().join("config.json")).unwrap();
    assert_eq!(c.exec("echo still"), "still");
    assert_eq!(c.runtime.status(&c.id).as_deref(), Some("running"));
    c.runtime.delete_force(&c.id).ok();
}

#[test]
fn a_container_that_died_before_its_start_is_stopped() {
    needs_root!();
    let c = Container::new();
    c.bundle.write();
    c.runtime.create(&c.id, &c.bundle).ok();
    dhow_tests::command::kill_process(c.pid(), libc::SIGKILL);
    c.runtime.wait_status(&c.id, "stopped");
    let out = c.runtime.start(&c.id).code(1);
    assert!(out.stderr.contains("cannot start a container that has stopped"), "{out}");
    c.runtime.delete(&c.id).ok();
}

#[test]
fn a_created_container_can_be_signalled() {
    needs_root!();
    let c = Container::new();
    c.bundle.write();
    c.runtime.create(&c.id, &c.bundle).ok();
    c.runtime.kill(&c.id, "0").ok();
    assert_eq!(c.runtime.status(&c.id).as_deref(), Some("created"));
    c.runtime.kill(&c.id, "KILL").ok();
    c.runtime.wait_status(&c.id, "stopped");
}

#[test]
fn processes_go_with_their_container() {
    needs_root!();
    let mut c = Container::new();
    c.bundle
        .shell(
            "setsid sleep 1000 & setsid sleep 1000 & echo up >/tmp/up; mkfifo /tmp/f; read x </tmp/f; exit 3",
        )
        .write();
    c.runtime.run_detached(&c.id, &c.bundle).ok();
    c.wait_file("tmp/up");
    assert_eq!(c.runtime.call(["ps", "-f", "json", &c.id]).ok().json().as_array().unwrap().len(), 3);
    // Not by exec: that process would go with the others.
    fs::write(c.bundle.rootfs().join("tmp/f"), "\n").unwrap();
    c.runtime.wait_status(&c.id, "stopped");
    let none =
        || c.runtime.call(["ps", "-f", "json", &c.id]).ok().json().as_array().is_none_or(Vec::is_empty);
    assert!(wait_for(Duration::from_secs(5), || none().then_some(())).is_some());
    c.runtime.delete(&c.id).ok();
}

#[test]
fn a_container_in_the_hosts_pid_namespace_leaves_no_processes() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.without_namespace("pid");
    c.bundle.shell("setsid sleep 1000 & echo up >/tmp/up; exit 3").write();
    // The shell ends, the other process does not: run deletes it all the same.
    c.runtime.run(&c.id, &c.bundle).code(3);
    assert_eq!(c.runtime.status(&c.id), None);
    let left = dhow_tests::leftovers::remaining(c.bundle.tag(), None);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn files_that_are_none_of_ours_do_not_disturb_list() {
    needs_root!();
    let mut c = Container::new();
    c.start(":");
    fs::write(c.runtime.root().join("file"), "").unwrap();
    fs::create_dir(c.runtime.root().join("empty")).unwrap();
    fs::create_dir(c.runtime.root().join("not an id")).unwrap();
    let out = c.runtime.call(["list", "-q"]).ok();
    assert_eq!(out.stdout, format!("{}\n", c.id));
    for name in ["empty", "not an id"] {
        fs::remove_dir(c.runtime.root().join(name)).unwrap();
    }
    fs::remove_file(c.runtime.root().join("file")).unwrap();
}

#[test]
fn a_user_namespace_has_terminals_too() {
    needs_root!();
    use std::io::{Read, Write};
    let mut c = with_user_namespace();
    fs::set_permissions(c.bundle.rootfs().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    c.bundle
        .terminal(true)
        .shell("tty; stat -c %u /dev/pts/0; echo x >/dev/console; read x; echo got $x")
        .write();
    let path = c.host_path("console.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let bundle = c.bundle.path().to_str().unwrap();
    c.runtime.call(["run", "-d", "-b", bundle, "--console-socket", path.to_str().unwrap(), &c.id]).ok();
    let mut master = fs::File::from(crate::terminal::receive(&listener).1);
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains("x\r\n") {
        let n = master.read(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    assert!(text.starts_with("/dev/pts/0\r\n0\r\n"), "{text:?}");
    master.write_all(b"hello\n").unwrap();
    c.runtime.wait_status(&c.id, "stopped");
}

#[test]
fn a_read_only_image_without_mount_points_is_named() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.mount(json!({ "destination": "/no/such/place", "type": "tmpfs", "source": "tmpfs" }));
    c.bundle.write();
    let script = r#"set -e; mount --bind "$BUNDLE/rootfs" "$BUNDLE/rootfs"; mount -o remount,bind,ro "$BUNDLE/rootfs"; exec "$BINARY" --root "$ROOT" run -b "$BUNDLE" "$ID""#;
    let out = dhow_tests::run(
        std::process::Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .env("BINARY", c.runtime.binary())
            .env("ROOT", c.runtime.root())
            .env("BUNDLE", c.bundle.path())
            .env("ID", &c.id),
    );
    assert!(!out.success() && out.stderr.contains("/no/such/place"), "{out}");
    assert!(out.stderr.to_lowercase().contains("read-only file system"), "{out}");
}

#[test]
fn events_end_with_the_container() {
    needs_root!();
    let mut c = Container::new();
    c.set("/linux/resources/memory", json!({ "limit": 33_554_432 }));
    let probe = c.run("true");
    if !probe.success() && probe.stderr.contains(" controller") {
        dhow_tests::skip!("no memory controller, whose events these are");
    }
    c.start(":");
    let mut child = c
        .runtime
        .command(["events", "--interval", "100ms", &c.id])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    c.runtime.delete_force(&c.id).ok();
    let ended = wait_for(Duration::from_secs(10), || child.try_wait().unwrap());
    if ended.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(ended.is_some(), "events goes on without a container");
}
