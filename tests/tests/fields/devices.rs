//! `linux.devices`, the default devices and the links of /dev.

use crate::namespaces::add_user_namespace;
use crate::{needs_root, refused};
use dhow_tests::Container;
use serde_json::json;

#[test]
fn every_container_has_the_default_devices_and_links() {
    needs_root!();
    let mut c = Container::new();
    let see = "cd /dev; stat -c '%n %F %t:%T %a %u:%g' null zero full random urandom tty; \
               for l in fd stdin stdout stderr ptmx; do echo $l $(readlink $l); done";
    let special = "character special file";
    let expected = format!(
        "null {special} 1:3 666 0:0\nzero {special} 1:5 666 0:0\nfull {special} 1:7 666 0:0\n\
         random {special} 1:8 666 0:0\nurandom {special} 1:9 666 0:0\ntty {special} 5:0 666 0:0\n\
         fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\nstderr /proc/self/fd/2\nptmx pts/ptmx"
    );
    assert_eq!(c.see(see), expected);
    assert_eq!(
        c.see("echo x >/dev/null; head -c 3 /dev/zero | wc -c; echo to /dev/stdout >/dev/stdout"),
        "3\nto /dev/stdout"
    );
}

#[test]
fn devices_get_their_type_number_mode_and_owner() {
    needs_root!();
    let mut c = Container::new();
    c.set(
        "/linux/devices",
        json!([
            { "path": "/dev/char", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 11, "gid": 12 },
            { "path": "/dev/sub/dir/unbuffered", "type": "u", "major": 1, "minor": 5, "fileMode": 0o600 },
            { "path": "/dev/block", "type": "b", "major": 7, "minor": 200, "fileMode": 0o660 },
            { "path": "/dev/pipe", "type": "p", "fileMode": 0o622 },
            { "path": "/elsewhere", "type": "c", "major": 1, "minor": 7 },
            { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o444, "uid": 13 }
        ]),
    );
    let see = "stat -c '%n %F %t:%T %a %u:%g' /dev/char /dev/sub/dir/unbuffered /dev/block /dev/pipe /elsewhere /dev/null";
    assert_eq!(
        c.see(see),
        "/dev/char character special file 1:3 640 11:12\n\
         /dev/sub/dir/unbuffered character special file 1:5 600 0:0\n\
         /dev/block block special file 7:c8 660 0:0\n\
         /dev/pipe fifo 0:0 622 0:0\n\
         /elsewhere character special file 1:7 666 0:0\n\
         /dev/null character special file 1:3 444 13:0"
    );
}

#[test]
fn a_path_that_is_something_else_already_is_refused() {
    needs_root!();
    let mut c = Container::new();
    c.write("file", "text");
    c.set("/linux/devices", json!([{ "path": "/file", "type": "c", "major": 1, "minor": 3 }]));
    refused(&c.run("true"), "/linux/devices/0");
}

#[test]
fn a_user_namespace_gets_the_hosts_devices() {
    needs_root!();
    let mut c = Container::new();
    add_user_namespace(&mut c);
    assert_eq!(c.see("echo x >/dev/null; head -c 3 /dev/zero | wc -c; stat -c '%t:%T' /dev/full"), "3\n1:7");
}

#[test]
fn a_dev_that_is_bound_is_left_alone() {
    needs_root!();
    let mut c = Container::new();
    let dev = c.bundle.scratch().dir("dev");
    std::fs::write(dev.join("mark"), "").unwrap();
    let mounts = c.bundle.config_mut()["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    c.bundle.mount(json!({ "destination": "/dev", "type": "bind", "source": dev, "options": ["rbind"] }));
    assert_eq!(c.see("ls /dev"), "mark");
}
