//! create, start, state, list, ps, kill, pause, resume, update, events, delete: what each does and when it is refused.

use crate::needs_root;
use dhow_tests::command::wait_for;
use dhow_tests::{Container, Output};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

#[track_caller]
fn refused(output: &Output, message: &str) {
    assert!(!output.success(), "{output}");
    assert!(output.stderr.contains(message), "expected {message:?}: {output}");
}

#[test]
fn create_waits_for_start_and_a_signal_ends_it() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.shell("echo ran >/tmp/ran; trap 'exit 3' TERM; mkfifo /tmp/f; read x <>/tmp/f").write();
    c.runtime.create(&c.id, &c.bundle).ok();
    let state = c.runtime.state(&c.id);
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], json!(c.id));
    assert_eq!(state["ociVersion"], "1.3.0", "what the state complies with, not the config");
    assert_eq!(state["bundle"], json!(c.bundle.path()));
    assert_eq!(state["rootfs"], json!(c.bundle.rootfs()));
    assert_eq!(state["owner"], "root");
    assert!(state["created"].as_str().is_some_and(|t| t.ends_with('Z')), "{state}");
    let pid = c.pid();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    assert!(!c.bundle.rootfs().join("tmp/ran").exists());

    c.runtime.start(&c.id).ok();
    assert_eq!(c.wait_file("tmp/ran"), "ran\n");
    assert_eq!(c.runtime.status(&c.id).as_deref(), Some("running"));
    assert_eq!(c.pid(), pid, "the process that waited is the one that runs");

    c.runtime.kill(&c.id, "TERM").ok();
    c.runtime.wait_status(&c.id, "stopped");
    assert_eq!(c.runtime.state(&c.id)["pid"], 0);
    c.runtime.delete(&c.id).ok();
    assert_eq!(c.runtime.status(&c.id), None);
}

#[test]
fn verbs_in_the_wrong_order_are_refused() {
    needs_root!();
    let mut c = Container::new();
    for verb in ["start", "state", "kill", "delete", "pause", "resume", "ps"] {
        refused(&c.runtime.call([verb, &c.id]), "container does not exist");
    }
    refused(&c.runtime.exec(&c.id, &["true"]), "container does not exist");

    c.bundle.shell("mkfifo /tmp/f; while :; do read x <>/tmp/f; done").write();
    c.runtime.create(&c.id, &c.bundle).ok();
    refused(&c.runtime.create(&c.id, &c.bundle), "container with given ID already exists");
    refused(&c.runtime.run(&c.id, &c.bundle), "container with given ID already exists");
    assert_eq!(c.runtime.status(&c.id).as_deref(), Some("created"), "the first is unharmed");
    refused(&c.runtime.call(["resume", &c.id]), "container not paused");

    c.runtime.start(&c.id).ok();
    refused(&c.runtime.start(&c.id), "cannot start an already running container");
    refused(&c.runtime.delete(&c.id), "that is not stopped: running");
    refused(&c.runtime.call(["resume", &c.id]), "container not paused");

    c.runtime.kill(&c.id, "KILL").ok();
    c.runtime.wait_status(&c.id, "stopped");
    refused(&c.runtime.kill(&c.id, "TERM"), "container not running");
    refused(&c.runtime.start(&c.id), "cannot start a container that has stopped");
    refused(&c.runtime.exec(&c.id, &["true"]), "cannot exec in a stopped container");
    refused(&c.runtime.call(["pause", &c.id]), "container not running");
    refused(&c.runtime.call(["update", "--pids-limit", "10", &c.id]), "container not running");
}

#[test]
fn delete_takes_a_created_one_and_with_force_any() {
    needs_root!();
    let c = Container::new();
    c.bundle.write();
    c.runtime.create(&c.id, &c.bundle).ok();
    c.runtime.delete(&c.id).ok();
    assert_eq!(c.runtime.status(&c.id), None);
    c.runtime.delete_force(&c.id).ok();

    let mut c = Container::new();
    c.start("sh -c 'trap : TERM; mkfifo /tmp/g; read x <>/tmp/g' & echo up >/tmp/up");
    c.wait_file("tmp/up");
    c.runtime.delete_force(&c.id).ok();
    assert_eq!(c.runtime.status(&c.id), None);
}

#[test]
fn an_exit_status_comes_through() {
    needs_root!();
    let mut c = Container::new();
    c.run("exit 0").code(0);
    c.run("exit 37").code(37);
    c.run("exit 255").code(255);
    // The first process of a pid namespace gets no signal of its own that it has no handler for.
    c.bundle.without_namespace("pid");
    c.run("kill -TERM $$").code(143);
}

#[test]
fn run_keeps_only_when_asked() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.shell("exit 4").write();
    let bundle = c.bundle.path().to_str().unwrap();
    c.runtime.call(["run", "--keep", "-b", bundle, &c.id]).code(4);
    assert_eq!(c.runtime.status(&c.id).as_deref(), Some("stopped"));
    c.runtime.delete(&c.id).ok();
    c.runtime.call(["run", "-b", bundle, &c.id]).code(4);
    assert_eq!(c.runtime.status(&c.id), None);
}

#[test]
fn run_passes_signals_on() {
    needs_root!();
    let mut c = Container::new();
    c.bundle
        .shell("trap 'exit 9' TERM; echo up >/tmp/up; mkfifo /tmp/f; while :; do read x <>/tmp/f; done")
        .write();
    let mut command =
        c.runtime.command(["run".as_ref(), "-b".as_ref(), c.bundle.path().as_os_str(), c.id.as_ref()]);
    let mut child = command.spawn().unwrap();
    c.wait_file("tmp/up");
    dhow_tests::command::kill_process(child.id(), libc::SIGTERM);
    let status = wait_for(Duration::from_secs(10), || child.try_wait().unwrap());
    assert_eq!(status.and_then(|s| s.code()), Some(9));
}

#[test]
fn kill_knows_names_and_numbers() {
    needs_root!();
    let mut c = Container::new();
    c.start("trap 'echo usr1 >>/tmp/got' USR1; trap 'echo hup >>/tmp/got' HUP; echo up >/tmp/up");
    c.wait_file("tmp/up");
    let got = c.bundle.rootfs().join("tmp/got");
    for (n, signal) in ["USR1", "SIGHUP", "10", "sigusr1"].into_iter().enumerate() {
        c.runtime.kill(&c.id, signal).ok();
        let lines = || std::fs::read_to_string(&got).unwrap_or_default().lines().count();
        assert!(wait_for(Duration::from_secs(10), || (lines() == n + 1).then_some(())).is_some(), "{signal}");
    }
    assert_eq!(std::fs::read_to_string(&got).unwrap(), "usr1\nhup\nusr1\nusr1\n");
    refused(&c.runtime.kill(&c.id, "NOSUCH"), "NOSUCH");
}

#[test]
fn kill_reaches_all_processes_of_a_container_in_the_hosts_pid_namespace() {
    needs_root!();
    for all in [true, false] {
        let mut c = Container::new();
        c.bundle.without_namespace("pid");
        c.start("setsid sleep 1000 & echo up >/tmp/up");
        c.wait_file("tmp/up");
        let count = || c.runtime.call(["ps", "-f", "json", &c.id]).ok().json().as_array().unwrap().len();
        assert!(wait_for(Duration::from_secs(5), || (count() == 2).then_some(())).is_some());
        // SIGKILL goes to all of them anyway: nobody else would ever end the others.
        let args: &[&str] = if all { &["kill", "--all", &c.id, "KILL"] } else { &["kill", &c.id, "KILL"] };
        c.runtime.call(args).ok();
        assert!(wait_for(Duration::from_secs(5), || (count() == 0).then_some(())).is_some(), "all: {all}");
        assert_eq!(c.runtime.status(&c.id).as_deref(), Some("stopped"));
        c.runtime.delete(&c.id).ok();
    }
}

#[test]
fn pause_stops_everything_until_resume() {
    needs_root!();
    let mut c = Container::new();
    c.start("(while :; do date +%N >>/tmp/ticks; sleep 0.02; done) &");
    c.wait_file("tmp/ticks");
    c.runtime.call(["pause", &c.id]).ok();
    assert_eq!(c.runtime.status(&c.id).as_deref(), Some("paused"));
    let size = || std::fs::metadata(c.bundle.rootfs().join("tmp/ticks")).unwrap().len();
    let before = size();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(size(), before);
    refused(&c.runtime.exec(&c.id, &["true"]), "cannot exec in a paused container");
    c.runtime.call(["resume", &c.id]).ok();
    assert_eq!(c.runtime.status(&c.id).as_deref(), Some("running"));
    assert!(wait_for(Duration::from_secs(5), || (size() > before).then_some(())).is_some());
    // A frozen container can be ended.
    c.runtime.call(["pause", &c.id]).ok();
    c.runtime.delete_force(&c.id).ok();
    assert_eq!(c.runtime.status(&c.id), None);
}

#[test]
fn list_and_ps_show_what_there_is() {
    needs_root!();
    let mut c = Container::new();
    assert_eq!(c.runtime.call(["list", "--format", "json"]).ok().text(), "[]");
    c.set("/annotations", json!({ "org.example.key": "value" }));
    c.start("sleep 1000 & echo up >/tmp/up");
    c.wait_file("tmp/up");
    let list = c.runtime.call(["list", "--format", "json"]).ok().json();
    let state = c.runtime.state(&c.id);
    assert_eq!(list, json!([state]));
    assert_eq!(state["annotations"], json!({ "org.example.key": "value" }));
    assert_eq!(c.runtime.call(["list", "-q"]).ok().stdout, format!("{}\n", c.id));
    let table = c.runtime.call(["list"]).ok();
    let heads: Vec<_> = table.stdout.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heads, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert!(table.stdout.contains(&format!("{}", c.pid())), "{table}");

    let pids = c.runtime.call(["ps", "--format", "json", &c.id]).ok().json();
    let pids: Vec<u64> = pids.as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    assert_eq!(pids.len(), 2);
    assert!(pids.contains(&u64::from(c.pid())));
    let table = c.runtime.call(["ps", &c.id, "-o", "pid,args"]).ok();
    let mut lines = table.stdout.lines();
    assert!(lines.next().is_some_and(|head| head.contains("PID")), "{table}");
    assert_eq!(lines.filter(|l| l.contains("sleep 1000") || l.contains("/bin/sh")).count(), 2, "{table}");
}

#[test]
fn update_changes_limits_and_events_shows_them() {
    needs_root!();
    let mut c = Container::new();
    c.set("/linux/resources/pids", json!({ "limit": 50 }));
    c.set("/linux/resources/memory", json!({ "limit": 33_554_432 }));
    let probe = c.run("true");
    if !probe.success() && probe.stderr.contains(" controller") {
        dhow_tests::skip!("no pids or memory controller");
    }
    c.start("echo up >/tmp/up");
    c.wait_file("tmp/up");
    let stats = |c: &Container| c.runtime.call(["events", "--stats", &c.id]).ok().json();
    let before = stats(&c);
    assert_eq!(before["type"], "stats");
    assert_eq!(before["id"], json!(c.id));
    assert_eq!(before["data"]["pids"]["limit"], 50);
    c.runtime.call(["update", "--pids-limit", "60", &c.id]).ok();
    assert_eq!(stats(&c)["data"]["pids"]["limit"], 60);
    let input = br#"{"pids":{"limit":70},"memory":{"limit":67108864}}"#;
    c.runtime.call_with_input(["update", "-r", "-", &c.id], input).ok();
    let after = stats(&c);
    assert_eq!(after["data"]["pids"]["limit"], 70);
    assert_eq!(after["data"]["memory"]["usage"]["limit"], 67_108_864);
    refused(&c.runtime.call(["update", "--memory", "lots", &c.id]), "lots");
    refused(&c.runtime.call(["update", "--l3-cache-schema", "L3:0=f", &c.id]), "intelRdt");
}

#[test]
fn plan_says_what_would_be_done_and_does_nothing() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.shell("touch /tmp/ran").write();
    let bundle = c.bundle.path().to_str().unwrap();
    for verb in ["create", "run"] {
        let plan = c.runtime.call([verb, "--plan", "-b", bundle, &c.id]).ok();
        for line in [
            "clone3 pid,network,mount,ipc,uts",
            "attach at directory /proc  (config.json /mounts/0)",
            "mask /proc/kcore  (config.json /linux/maskedPaths/2)",
            "hostname dhow-test  (config.json /hostname)",
            "pivot_root",
            r#"exec ["/bin/sh", "-c", "touch /tmp/ran"]  (config.json /process/args)"#,
        ] {
            assert!(plan.stdout.contains(line), "no {line:?} in {plan}");
        }
        assert_eq!(plan.stdout.contains("wait for start"), verb == "create");
    }
    assert!(c.runtime.ids_on_disk().is_empty());
    assert!(!c.bundle.rootfs().join("tmp/ran").exists());
    c.set("/process/cwd", json!("relative")).bundle.write();
    let bundle = c.bundle.path().to_str().unwrap();
    refused(&c.runtime.call(["create", "--plan", "-b", bundle, &c.id]), "/process/cwd");
}
