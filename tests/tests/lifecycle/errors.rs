//! Bad input: a clear message, the exit code that runc's callers know, and nothing left (which [`Container`] checks).

use crate::needs_root;
use dhow_tests::{Container, Output};
use serde_json::json;
use std::fs;

#[track_caller]
fn refused(output: &Output, message: &str) {
    assert!(!output.success(), "{output}");
    assert!(output.stderr.contains(message), "expected {message:?}: {output}");
}

/// args[0], and what the message says, as Docker and podman look for it.
const PROGRAMS: [(&str, &str); 4] = [
    ("no-such-program", "executable file not found in $PATH"),
    ("/no/such/program", "no such file or directory"),
    ("/etc/hosts", "permission denied"),
    ("/etc", "is a directory"),
];

#[test]
fn a_program_that_cannot_be_started_fails_create_and_run() {
    needs_root!();
    let mut c = Container::new();
    for (program, message) in PROGRAMS {
        c.bundle.args([program]).write();
        for output in [c.runtime.create(&c.id, &c.bundle), c.runtime.run(&c.id, &c.bundle)] {
            refused(&output, message);
            refused(&output, "unable to start container process");
            assert_eq!(output.code, 1, "{output}");
            assert!(c.runtime.ids_on_disk().is_empty());
        }
    }
    c.write_program("bin/broken", "this is no program\n");
    c.bundle.args(["broken"]).write();
    refused(&c.runtime.run(&c.id, &c.bundle), "exec format error");
    c.write_program("bin/script", "#!/no/such/interpreter\n");
    c.bundle.args(["script"]).write();
    refused(&c.runtime.run(&c.id, &c.bundle), "no such file or directory");
}

#[test]
fn a_program_that_cannot_be_started_fails_exec_with_255() {
    needs_root!();
    let mut c = Container::new();
    c.start(":");
    for (program, message) in PROGRAMS {
        let output = c.runtime.exec(&c.id, &[program]).code(255);
        refused(&output, message);
        refused(&output, "exec failed: unable to start container process");
    }
    assert_eq!(c.runtime.status(&c.id).as_deref(), Some("running"));
}

#[test]
fn all_mistakes_of_a_config_come_at_once() {
    needs_root!();
    let mut c = Container::new();
    c.set("/process/cwd", json!("relative"))
        .set("/process/rlimits", json!([{ "type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1 }]))
        .set("/mounts/0/destination", json!("/"))
        .set("/linux/resources/devices/1/access", json!("x"))
        .set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_NONSENSE" }));
    c.bundle.write();
    let output = c.runtime.create(&c.id, &c.bundle);
    for pointer in [
        "/process/cwd",
        "/process/rlimits/0/type",
        "/mounts/0/destination",
        "/linux/resources/devices/1/access",
        "/linux/seccomp/defaultAction",
    ] {
        refused(&output, pointer);
    }
    assert!(c.runtime.ids_on_disk().is_empty());
}

#[test]
fn wrong_ids_bundles_and_flags_are_refused() {
    needs_root!();
    let c = Container::new();
    let long = "x".repeat(5000);
    for id in ["", ".", "..", "a/b", "a b", "ä", &long] {
        let output = c.runtime.create(id, &c.bundle);
        assert!(!output.success(), "{output}");
        assert!(c.runtime.ids_on_disk().is_empty());
    }
    refused(&c.runtime.call(["create", "-b", "/no/such/bundle", &c.id]), "/no/such/bundle");
    fs::remove_file(c.bundle.path().join("config.json")).unwrap();
    refused(&c.runtime.create(&c.id, &c.bundle), "config.json");
    fs::write(c.bundle.path().join("config.json"), "{ this is no JSON").unwrap();
    refused(&c.runtime.create(&c.id, &c.bundle), "config.json");
    refused(&c.runtime.call(["create", "--no-such-flag", &c.id]), "no-such-flag");
    refused(&c.runtime.call(["no-such-verb", &c.id]), "no-such-verb");
    refused(&c.runtime.call(["create"]), "create");
}

#[test]
fn a_rootfs_that_is_missing_or_a_file_is_refused() {
    needs_root!();
    let mut c = Container::new();
    for root in ["no-such-rootfs", "config.json"] {
        c.set("/root/path", json!(root)).bundle.write();
        let output = c.runtime.create(&c.id, &c.bundle);
        refused(&output, root);
        assert!(c.runtime.ids_on_disk().is_empty());
    }
}

#[test]
fn the_log_has_the_error_as_its_last_line_in_json() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.args(["no-such-program"]).write();
    let log = c.host_path("log.json");
    let binary = dhow_tests::runtime::binary();
    let output = dhow_tests::run(
        std::process::Command::new(&binary)
            .arg("--root")
            .arg(c.runtime.root())
            .arg("--log")
            .arg(&log)
            .args(["--log-format", "json", "create", "-b"])
            .arg(c.bundle.path())
            .arg(&c.id),
    );
    assert!(!output.success());
    let text = fs::read_to_string(&log).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "error");
    assert!(last["msg"].as_str().unwrap().contains("executable file not found in $PATH"), "{last}");
}
