//! Hooks: when each of the six kinds runs, in which namespaces, with which state, and what its failure does.

use crate::needs_root;
use dhow_tests::{Container, Output};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that appends a line of JSON to `log` (a path of the host, or of the container for startContainer):
/// its name, the state it got, its namespaces, its arguments and environment.
fn recorder(name: &str, log: &str) -> Value {
    let script = format!(
        r#"state=$(cat); printf '{{"hook":"{name}","mnt":"%s","pid":"%s","uts":"%s","args":"%s","env":"%s","cwd":"%s","state":%s}}\n' \
           "$(readlink /proc/self/ns/mnt)" "$(readlink /proc/self/ns/pid)" "$(readlink /proc/self/ns/uts)" \
           "$0 $*" "$KEY$HOME$DHOW_TEST" "$(pwd)" "$state" >>{log}"#
    );
    // busybox is static: the same program runs in the container and outside.
    json!({ "path": "/bin/busybox", "args": ["sh", "-c", script, "zero", "one"], "env": ["KEY=value", "PATH=/bin:/usr/bin"] })
}

fn records(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

fn own(namespace: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn hooks_run_in_order_with_their_state_and_namespaces() {
    needs_root!();
    let mut c = Container::new();
    let host_log = c.host_path("hooks.log").to_str().unwrap().to_owned();
    for kind in KINDS {
        let log = if kind == "startContainer" { "/tmp/hooks.log" } else { &host_log };
        let (first, second) = (recorder(kind, log), recorder(&format!("{kind}-2"), log));
        c.set(&format!("/hooks/{kind}"), json!([first, second]));
    }
    c.set("/annotations", json!({ "a": "b" }));
    c.bundle.shell("echo program >>/tmp/hooks.log; mkfifo /tmp/f; read x <>/tmp/f").write();
    c.runtime.create(&c.id, &c.bundle).ok();
    let pid = c.pid();
    let container =
        |ns: &str| fs::read_link(format!("/proc/{pid}/ns/{ns}")).unwrap().to_str().unwrap().to_owned();
    let (mnt, pidns, uts) = (container("mnt"), container("pid"), container("uts"));
    let created = fs::read_to_string(&host_log).unwrap();
    assert!(!c.bundle.rootfs().join("tmp/hooks.log").exists(), "startContainer is for start");
    c.runtime.start(&c.id).ok();
    let inside = c.wait_file("tmp/hooks.log");
    let inside = if inside.contains("program") {
        inside
    } else {
        std::thread::sleep(Duration::from_millis(300));
        c.wait_file("tmp/hooks.log")
    };
    let inside = inside.strip_suffix("program\n").expect("hooks come before the program");
    c.runtime.kill(&c.id, "KILL").ok();
    c.runtime.wait_status(&c.id, "stopped");
    c.runtime.delete(&c.id).ok();

    let outside = records(&fs::read_to_string(&host_log).unwrap());
    let names = |list: &[Value]| -> Vec<String> {
        list.iter().map(|r| r["hook"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        names(&records(&created)),
        [
            "prestart",
            "prestart-2",
            "createRuntime",
            "createRuntime-2",
            "createContainer",
            "createContainer-2"
        ]
    );
    assert_eq!(names(&outside)[6..], ["poststart", "poststart-2", "poststop", "poststop-2"]);
    let inside = records(inside);
    assert_eq!(names(&inside), ["startContainer", "startContainer-2"]);

    for record in outside.iter().chain(&inside) {
        let hook = record["hook"].as_str().unwrap().trim_end_matches("-2");
        let status = match hook {
            "prestart" | "createRuntime" | "createContainer" => "creating",
            "startContainer" => "created",
            "poststart" => "running",
            _ => "stopped",
        };
        let state = &record["state"];
        assert_eq!(state["status"], status, "{record}");
        assert_eq!(state["id"], json!(c.id));
        assert_eq!(state["ociVersion"], "1.3.0", "what the state complies with, not the config");
        assert_eq!(state["bundle"], json!(c.bundle.path()));
        assert_eq!(state["annotations"], json!({ "a": "b" }));
        if hook != "poststop" {
            assert_eq!(state["pid"], pid, "{record}");
        }
        // args[0] is the hook's own; `$0` of `sh -c` is the first argument after the script.
        assert_eq!(record["args"], "zero one");
        assert_eq!(record["env"], "value", "the environment is the hook's own and nothing else");
        let directory = match hook {
            "createContainer" => c.bundle.rootfs(),
            "startContainer" => "/".into(),
            _ => c.bundle.path().to_owned(),
        };
        assert_eq!(record["cwd"], json!(directory), "{record}");
        let expected = match hook {
            "createContainer" | "startContainer" => [&mnt, &pidns, &uts],
            _ => [&own("mnt"), &own("pid"), &own("uts")],
        };
        assert_eq!([&record["mnt"], &record["pid"], &record["uts"]], expected, "{record}");
    }
}

#[test]
fn create_container_sees_the_hosts_paths_and_the_containers_mounts() {
    needs_root!();
    let mut c = Container::new();
    let (log, rootfs) = (c.host_path("hook.log"), c.bundle.rootfs());
    let script = format!("grep -c ' {0}/proc ' /proc/self/mounts >{1}", rootfs.display(), log.display());
    c.set("/hooks/createContainer", json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    c.run("true").ok();
    assert_eq!(fs::read_to_string(log).unwrap().trim(), "1");
}

fn failing(script: &str) -> Value {
    json!([{ "path": "/bin/busybox", "args": ["sh", "-c", script] }])
}

#[track_caller]
fn names_hook(output: &Output, kind: &str, how: &str) {
    assert_eq!(output.code, 1, "{output}");
    for part in [format!("/hooks/{kind}/0"), how.to_owned(), "it broke".to_owned()] {
        assert!(output.stderr.contains(&part), "no {part:?}: {output}");
    }
}

#[test]
fn a_failing_hook_fails_its_verb_and_says_why() {
    needs_root!();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut c = Container::new();
        c.set(&format!("/hooks/{kind}"), failing("echo it broke >&2; exit 3")).bundle.write();
        names_hook(&c.runtime.create(&c.id, &c.bundle), kind, "exited with status 3");
        assert!(c.runtime.ids_on_disk().is_empty(), "{kind}");
        names_hook(&c.runtime.run(&c.id, &c.bundle), kind, "exited with status 3");
        assert!(c.runtime.ids_on_disk().is_empty(), "{kind}");
    }
}

#[test]
fn a_failing_start_container_hook_keeps_the_program_from_running() {
    needs_root!();
    let mut c = Container::new();
    c.set("/hooks/startContainer", failing("echo it broke >&2; exit 3"));
    c.bundle.shell("touch /tmp/ran").write();
    names_hook(&c.runtime.run(&c.id, &c.bundle), "startContainer", "exited with status 3");
    assert!(c.runtime.ids_on_disk().is_empty());
    c.runtime.create(&c.id, &c.bundle).ok();
    let started = c.runtime.start(&c.id).code(1);
    assert!(started.stderr.contains("/hooks/startContainer/0"), "{started}");
    assert!(started.stderr.contains("exited with status 3"), "{started}");
    c.runtime.wait_status(&c.id, "stopped");
    assert!(!c.bundle.rootfs().join("tmp/ran").exists());
}

#[test]
fn a_failing_poststart_hook_fails_the_start_and_ends_the_container() {
    needs_root!();
    let mut c = Container::new();
    c.set("/hooks/poststart", failing("echo it broke >&2; exit 3"));
    c.bundle.shell("mkfifo /tmp/f; read x <>/tmp/f").write();
    c.runtime.create(&c.id, &c.bundle).ok();
    names_hook(&c.runtime.start(&c.id), "poststart", "exited with status 3");
    assert_eq!(c.runtime.status(&c.id).as_deref(), Some("stopped"));
    c.runtime.delete(&c.id).ok();
    names_hook(&c.runtime.run_detached(&c.id, &c.bundle), "poststart", "exited with status 3");
}

#[test]
fn a_failing_poststop_hook_leaves_nothing_behind() {
    needs_root!();
    let mut c = Container::new();
    let log = c.host_path("log");
    let second = format!("echo second >{}", log.display());
    c.set(
        "/hooks/poststop",
        json!([
            { "path": "/bin/busybox", "args": ["sh", "-c", "echo it broke >&2; exit 3"] },
            { "path": "/bin/busybox", "args": ["sh", "-c", second] }
        ]),
    );
    c.bundle.write();
    c.runtime.create(&c.id, &c.bundle).ok();
    let output = c.runtime.delete(&c.id).ok();
    assert!(output.stderr.contains("/hooks/poststop/0"), "{output}");
    assert!(output.stderr.contains("it broke"), "{output}");
    assert_eq!(c.runtime.status(&c.id), None);
    // The specification: a failure is logged, and the remaining hooks still run.
    assert_eq!(fs::read_to_string(log).unwrap(), "second\n");
}

#[test]
fn a_hook_that_takes_too_long_is_killed() {
    needs_root!();
    for kind in ["createRuntime", "createContainer"] {
        let mut c = Container::new();
        let hook = json!([{ "path": "/bin/busybox", "args": ["sh", "-c", "echo it broke; exec sleep 100"], "timeout": 1 }]);
        c.set(&format!("/hooks/{kind}"), hook).bundle.write();
        let begun = Instant::now();
        names_hook(&c.runtime.create(&c.id, &c.bundle), kind, "took longer than 1");
        assert!(begun.elapsed() < Duration::from_secs(60), "it was not waited for");
    }
}

#[test]
fn a_hook_that_is_missing_is_named() {
    needs_root!();
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        let mut c = Container::new();
        c.set(&format!("/hooks/{kind}"), json!([{ "path": "/no/such/hook" }])).bundle.write();
        let output = c.runtime.run(&c.id, &c.bundle).code(1);
        assert!(output.stderr.contains("/no/such/hook"), "{output}");
        assert!(output.stderr.contains(&format!("/hooks/{kind}/0")), "{output}");
    }
}

#[test]
fn a_hook_is_a_program_not_a_shell_line() {
    needs_root!();
    let mut c = Container::new();
    let script = c.host_path("hook.sh");
    let log = c.host_path("log");
    // Written by another process: see Container::write_program.
    c.write_program("../hook.sh", &format!("#!/bin/sh\necho \"$0 $#\" >{}\n", log.display()));
    // No args: the path stands for args[0].
    c.set("/hooks/createRuntime", json!([{ "path": script }]));
    c.run("true").ok();
    assert_eq!(fs::read_to_string(log).unwrap(), format!("{} 0\n", script.display()));
}
