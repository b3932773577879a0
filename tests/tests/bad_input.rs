//! Configs with mistakes, and kernels (or filters) that lack a call: a named error, before anything was done or with
//! everything undone.

use dhow_tests::skip::{is_root, missing_program};
use dhow_tests::{Bundle, leftovers, run, skip};
use serde_json::json;
use std::fs;
use std::process::Command;

#[test]
fn all_mistakes_are_told_at_once_before_anything_is_done() {
    if !is_root() {
        skip!("not root");
    }
    let mut bundle = Bundle::busybox();
    bundle
        .set("/process/cwd", json!("relative"))
        .set("/process/env", json!(["GOOD=1", "bad"]))
        .set("/process/user/uid", json!(4_294_967_295u64))
        .set("/linux/sysctl", json!({ "kernel.core_pattern": "|/evil" }))
        .set("/linux/maskedPaths", json!(["/proc/kcore", "relative"]))
        .set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_NONSENSE" }))
        .set(
            "/hooks/prestart",
            json!([{ "path": "/bin/busybox", "args": ["busybox", "touch", bundle_file()] }]),
        );
    bundle.mount(json!({ "destination": "/made-by-a-mount", "type": "tmpfs", "source": "t" }));
    bundle.write();
    let runtime = bundle.runtime();
    for verb in ["run", "create"] {
        let path = bundle.path().to_str().expect("a path in UTF-8").to_owned();
        let out = runtime.call([verb, "--bundle", &path, "mistaken"]);
        assert!(!out.success(), "{out}");
        for pointer in [
            "/process/cwd",
            "/process/env/1",
            "/process/user/uid",
            "/linux/sysctl/kernel.core_pattern",
            "/linux/maskedPaths/1",
            "/linux/seccomp/defaultAction",
        ] {
            assert!(out.stderr.contains(pointer), "{verb} does not name {pointer}: {out}");
        }
    }
    assert_eq!(runtime.ids_on_disk(), Vec::<String>::new());
    assert!(!bundle.rootfs().join("made-by-a-mount").exists());
    assert!(fs::metadata(bundle_file()).is_err(), "a hook has run");
    leftovers::assert_none(bundle.tag(), None);
}

fn bundle_file() -> String {
    format!("/dev/shm/dhow-test-hook-{}", std::process::id())
}

#[test]
fn text_that_is_no_config_is_an_error() {
    if !is_root() {
        skip!("not root");
    }
    let bundle = Bundle::busybox();
    let runtime = bundle.runtime();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let long = format!("{{\"ociVersion\":\"{}\"}}", "1".repeat(1 << 20));
    let twice = r#"{"ociVersion":"1.0.2","ociVersion":"1.0.2","process":{}}"#;
    for text in ["", "{", "null", "[]", "{}", "\u{feff}{}", "{\"ociVersion\":1}", &deep, &long, twice] {
        fs::write(bundle.path().join("config.json"), text).expect("write config.json");
        let out = runtime.run("text", &bundle);
        let start: String = text.chars().take(40).collect();
        assert!(!out.success(), "{start}: {out}");
        assert!(!out.stderr.contains("panicked") && out.code == 1, "{start}: {out}");
    }
    fs::remove_file(bundle.path().join("config.json")).expect("remove config.json");
    assert!(!runtime.run("text", &bundle).success());
    run(Command::new("mkfifo").arg(bundle.path().join("config.json"))).ok();
    let mut command = runtime.command(["run", "--bundle", bundle.path().to_str().expect("UTF-8"), "text"]);
    let out = dhow_tests::command::run_with(&mut command, b"", std::time::Duration::from_secs(10));
    assert!(!out.timed_out && !out.success(), "a FIFO as config.json: {out}");
    leftovers::assert_none(bundle.tag(), Some(runtime.root()));
}

/// Calls that are not in every kernel, or that filters of an outer container deny.
const MODERN: [&str; 14] = [
    "openat2",
    "clone3",
    "mount_setattr",
    "pidfd_open",
    "pidfd_send_signal",
    "open_tree",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "close_range",
    "statx",
    "memfd_create",
    "execveat",
];

#[test]
fn a_kernel_without_a_call_gives_an_error_that_names_it_or_a_way_around() {
    if !is_root() {
        skip!("not root");
    }
    if let Some(program) = missing_program(&["strace"]) {
        skip!("{program} is not installed");
    }
    let mut bundle = Bundle::busybox();
    bundle.set("/linux/maskedPaths", json!(["/proc/version"])).args(["/bin/cat", "/proc/version"]).write();
    let runtime = bundle.runtime();
    let path = bundle.path().to_str().expect("a path in UTF-8").to_owned();
    for call in MODERN {
        for errno in ["ENOSYS", "EPERM"] {
            let inject = format!("-einject={call}:error={errno}");
            let mut strace = Command::new("strace");
            let inner = runtime.command(["run", "--bundle", &path, "lacking"]);
            // The payload is left alone: its calls are not the runtime's.
            strace
                .args(["-f", "-qqq", "-o/dev/null", &inject])
                .arg(inner.get_program())
                .args(inner.get_args());
            let out = run(&mut strace);
            assert!(!out.timed_out, "{call} {errno}: {out}");
            if !out.success() {
                let text = out.stderr.to_lowercase();
                assert!(text.contains(call), "{call} {errno} is not named: {out}");
            } else {
                // A way around must not be a weaker one: the masked file is empty.
                assert_eq!(out.stdout, "", "{call} {errno}: {out}");
            }
            let left = leftovers::remaining(bundle.tag(), Some(runtime.root()));
            assert!(left.is_empty(), "{call} {errno}: left\n{}\n{out}", left.join("\n"));
        }
    }
}
