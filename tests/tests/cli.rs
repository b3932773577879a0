//! The command line as its callers see it: messages, outputs and exit codes without a container, and the foreground
//! (signals, terminal, exit status) with one.

use dhow_tests::command::{DEADLINE, kill_process, run, run_with, wait_for};
use dhow_tests::{Bundle, Output, Runtime, Scratch, skip};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The message of the last line of a JSON log.
#[track_caller]
fn last_error(log: &Path) -> String {
    let text = fs::read_to_string(log).expect("a log");
    let line: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("a line of JSON");
    assert_eq!(line["level"], "error", "{text}");
    assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z') && time.contains('T')), "{text}");
    line["msg"].as_str().expect("a message").to_owned()
}

#[track_caller]
fn fails(runtime: &Runtime, args: &[&str], code: i32, message: &str) -> Output {
    let out = runtime.call(args).code(code);
    assert!(out.stderr.contains(message), "{message:?} is not in: {out}");
    assert_eq!(out.stdout, "", "{out}");
    out
}

#[test]
fn mistakes_in_arguments() {
    let runtime = Runtime::from_env();
    if !runtime.is_dhow() {
        skip!("the words are dhow's own");
    }
    fails(&runtime, &["delete", "--forse", "x"], 1, "unknown flag --forse; did you mean --force?");
    fails(&runtime, &["strat", "x"], 3, "did you mean start?");
    fails(&runtime, &["--nope", "list"], 1, "unknown flag --nope");
    fails(&runtime, &["state"], 1, r#"\"state\" requires exactly 1 argument(s)"#);
    fails(&runtime, &["state", ""], 1, "container id cannot be empty");
    fails(&runtime, &["restore", "--lsm-mount-context"], 1, "flag needs an argument: --lsm-mount-context");
    fails(&runtime, &["kill", "x", "FOO"], 1, r#"unknown signal \"FOO\""#);
    fails(&runtime, &["list", "--format", "yaml"], 1, "table or json expected");
    fails(&runtime, &["--log-format", "yaml", "list"], 1, "text or json expected");
    fails(&runtime, &["mounts", "move", "x", "/dev/null"], 1, "add or remove expected");
    assert_eq!(runtime.ids_on_disk(), Vec::<String>::new());
}

#[test]
fn containers_that_are_not_there() {
    let runtime = Runtime::from_env();
    for args in [
        &["state", "nope"][..],
        &["kill", "nope", "9"],
        &["delete", "nope"],
        &["start", "nope"],
        &["pause", "nope"],
    ] {
        fails(&runtime, args, 1, "container does not exist");
    }
    fails(&runtime, &["exec", "nope", "true"], 255, "exec failed: container does not exist");
    runtime.delete_force("nope").ok();
    assert_eq!(runtime.call(["list", "-q"]).ok().stdout, "");
    assert!(runtime.call(["list"]).ok().stdout.starts_with("ID          PID         STATUS      BUNDLE "));
    assert_eq!(runtime.ids_on_disk(), Vec::<String>::new());
}

#[test]
fn bundles_and_ids_that_cannot_be_used() {
    let runtime = Runtime::from_env();
    let scratch = Scratch::new();
    let empty = scratch.dir("empty");
    let empty = empty.to_str().expect("a path");
    fails(&runtime, &["run", "--bundle", empty, "c"], 1, "config.json");
    fails(&runtime, &["run", "--bundle", "/nowhere", "c"], 1, "/nowhere");
    for id in ["../c", "a/b", ".."] {
        fails(&runtime, &["create", "--bundle", empty, id], 1, "invalid container ID format");
        fails(&runtime, &["state", id], 1, "");
    }
    assert_eq!(runtime.ids_on_disk(), Vec::<String>::new());
}

#[test]
fn logs_are_for_callers_to_scrape() {
    let scratch = Scratch::new();
    let log = scratch.path().join("log");
    let json = Runtime::from_env().global(&format!("--log={}", log.display())).global("--log-format=json");
    let out = json.call(["state", "nope"]).code(1);
    assert_eq!(out.stderr, "container does not exist\n");
    assert_eq!(last_error(&log), "container does not exist");
    json.call(["exec", "nope", "true"]).code(255);
    assert_eq!(last_error(&log), "exec failed: container does not exist");
    assert_eq!(
        fs::read_to_string(&log).unwrap().lines().count(),
        2,
        "a line for each failure, and no others"
    );

    let text = Runtime::from_env().global("--log").global(log.to_str().unwrap());
    fs::remove_file(&log).unwrap();
    text.call(["state", "nope"]).code(1);
    let line = fs::read_to_string(&log).unwrap();
    assert!(
        line.starts_with("time=\"20") && line.ends_with("\" level=error msg=\"container does not exist\"\n"),
        "{line}"
    );
}

#[test]
fn help_and_version() {
    let runtime = Runtime::from_env();
    if !runtime.is_dhow() {
        skip!("the words are dhow's own");
    }
    let help = runtime.call(["--help"]).ok();
    assert!(help.stdout.starts_with("dhow-runtime - ") && help.stderr.is_empty(), "{help}");
    let none: [&str; 0] = [];
    assert_eq!(runtime.call(none).ok().stdout, help.stdout);
    assert_eq!(runtime.call(["help"]).ok().stdout, help.stdout);
    // podman finds out that checkpoints are supported by this.
    let verb = runtime.call(["checkpoint", "--help"]).ok();
    assert!(verb.stdout.contains("--image-path"), "{verb}");
    assert_eq!(runtime.call(["help", "checkpoint"]).ok().stdout, verb.stdout);
    runtime.call(["help", "nope"]).code(3);
    for flag in ["--version", "-v", "-version"] {
        let version = run(Command::new(runtime.binary()).arg(flag)).ok();
        assert!(
            version.stdout.starts_with("dhow-runtime version ") && version.stdout.contains("\nspec: 1.3.0\n"),
            "{version}"
        );
    }
}

#[test]
fn spec_and_features() {
    let runtime = Runtime::from_env();
    let scratch = Scratch::new();
    let bundle = scratch.path().to_str().expect("a path").to_owned();
    runtime.call(["spec", "--bundle", &bundle]).ok();
    let config: Value =
        serde_json::from_slice(&fs::read(scratch.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["process"]["args"], serde_json::json!(["sh"]));
    fails(&runtime, &["spec", "--bundle", &bundle], 1, "File config.json exists. Remove it first");
    let inner = scratch.dir("rootless");
    runtime.call(["spec", "--rootless", "-b", inner.to_str().unwrap()]).ok();
    let config: Value = serde_json::from_slice(&fs::read(inner.join("config.json")).unwrap()).unwrap();
    assert!(config["linux"]["uidMappings"][0]["size"] == 1, "{config}");
    let features = runtime.call(["features"]).ok().json();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert!(features["linux"]["seccomp"]["supportedFlags"].as_array().is_some_and(|flags| !flags.is_empty()));
}

#[test]
fn the_exit_status_is_that_of_the_process() {
    let mut bundle = Bundle::busybox();
    let runtime = bundle.runtime();
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$; sleep 9", 137)] {
        // Without a pid namespace even init can kill itself.
        bundle.without_namespace("pid").shell(script).write();
        runtime.run(&runtime.fresh_id(), &bundle).code(code);
    }
    bundle.args(["no-such-program"]).write();
    let out = runtime.run(&runtime.fresh_id(), &bundle).code(1);
    assert!(out.stderr.contains(r#"exec: \"no-such-program\": executable file not found in $PATH"#), "{out}");
    assert_eq!(
        runtime.ids_on_disk(),
        Vec::<String>::new(),
        "nothing is left of a container in the foreground"
    );
}

#[test]
fn a_kept_container_is_stopped() {
    let bundle = Bundle::busybox();
    bundle.write();
    let runtime = bundle.runtime();
    let id = runtime.fresh_id();
    runtime.call(["run", "--keep", "--bundle", bundle.path().to_str().unwrap(), &id]).ok();
    let state = runtime.state(&id);
    assert_eq!((state["status"].as_str(), state["pid"].as_i64()), (Some("stopped"), Some(0)), "{state}");
    runtime.delete(&id).ok();
}

#[test]
fn signals_go_to_the_process() {
    let mut bundle = Bundle::busybox();
    bundle
        .shell("trap 'echo one' USR1; trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.02; done")
        .write();
    let runtime = bundle.runtime();
    let id = runtime.fresh_id();
    let out = bundle.scratch().path().join("out");
    let mut child = runtime
        .command(["run", "--bundle", bundle.path().to_str().unwrap(), &id])
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out).unwrap())
        .spawn()
        .unwrap();
    let printed = |what: &str| {
        wait_for(Duration::from_secs(30), || fs::read_to_string(&out).ok()?.contains(what).then_some(()))
    };
    assert!(printed("ready\n").is_some());
    kill_process(child.id(), 10);
    assert!(printed("one\n").is_some());
    kill_process(child.id(), 15);
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert_eq!(fs::read_to_string(&out).unwrap(), "ready\none\nbye\n");
    assert_eq!(runtime.ids_on_disk(), Vec::<String>::new());
}

/// Runs a shell script on a terminal of 33 rows and 77 columns, typing `input` once the container is ready for it.
fn on_a_terminal(script: &str, input: &str) -> Output {
    let mut command = Command::new("sh");
    // util-linux' script gives the inner command a terminal. Its own input is a pipe, from which it types.
    let typed = format!("(sleep 1; printf '{input}'; sleep 1) | script -qefc \"$0\" /dev/null");
    command.arg("-c").arg(typed).arg(format!("stty rows 33 cols 77; {script}"));
    run_with(&mut command, b"", DEADLINE)
}

#[test]
fn a_terminal_is_relayed_and_given_back() {
    let mut bundle = Bundle::busybox();
    bundle.terminal(true).shell("test -t 0 && test -t 1 && stty size; read x; echo got $x; exit 5").write();
    let runtime = bundle.runtime();
    let id = runtime.fresh_id();
    let command = format!(
        "{} --root {} run -b {} {id}",
        runtime.binary().display(),
        runtime.root().display(),
        bundle.path().display()
    );
    let out = on_a_terminal(&format!("stty -g; {command}; echo code $?; stty -g"), "hello\\r").ok();
    let lines: Vec<&str> = out.stdout.lines().map(|line| line.trim_end_matches('\r')).collect();
    let [before, size, echo, got, code, after] = lines[..] else { panic!("{out}") };
    // The container's terminal echoes, the caller's does not: once, not twice.
    assert_eq!([size, echo, got, code], ["33 77", "hello", "got hello", "code 5"], "{out}");
    assert_eq!(before, after, "the terminal is as it was");

    // The interrupt character goes through to the container's terminal, which makes a signal of it.
    bundle.shell("trap 'echo int; exit 6' INT; while :; do sleep 0.02; done").write();
    let out = on_a_terminal(&format!("{command}; echo code $?"), "\\003").ok();
    assert!(out.stdout.contains("int\r\ncode 6\r\n"), "{out}");
}

#[test]
fn a_terminal_without_one_outside() {
    let mut bundle = Bundle::busybox();
    bundle.terminal(true).shell("stty -echo; test -t 0; echo $?; read x; echo got $x; exit 5").write();
    let runtime = bundle.runtime();
    let mut command = runtime.command(["run", "-b", bundle.path().to_str().unwrap(), &runtime.fresh_id()]);
    let out = run_with(&mut command, b"hello\n", DEADLINE).code(5);
    // Whether the input came before or after the echo was turned off.
    let stdout = out.stdout.strip_prefix("hello\r\n").unwrap_or(&out.stdout);
    assert_eq!(stdout, "0\r\ngot hello\r\n", "{out}");

    // Everything that was written before the end arrives, however much it is.
    bundle.shell("stty -onlcr; seq 20000").write();
    let out = runtime.run(&runtime.fresh_id(), &bundle).ok();
    let want: String = (1..=20000).map(|n| format!("{n}\n")).collect();
    assert!(out.stdout == want, "{} of {} bytes", out.stdout.len(), want.len());

    // Detached, somebody must take the terminal.
    let out = runtime.run_detached(&runtime.fresh_id(), &bundle).code(1);
    assert!(out.stderr.contains("cannot allocate tty"), "{out}");
    assert_eq!(runtime.ids_on_disk(), Vec::<String>::new());
}

#[test]
fn exec_in_the_foreground() {
    let mut bundle = Bundle::busybox();
    bundle.args(["sleep", "1000"]).write();
    let runtime = bundle.runtime();
    let id = runtime.fresh_id();
    runtime.run_detached(&id, &bundle).ok();
    runtime.exec(&id, &["sh", "-c", "exit 7"]).code(7);
    runtime.exec(&id, &["sh", "-c", "kill -TERM $$; sleep 9"]).code(143);
    let out = runtime
        .call([
            "exec",
            "--user",
            "5:6",
            "-g",
            "7",
            "-e",
            "A=b",
            "--cwd",
            "/tmp",
            &id,
            "sh",
            "-c",
            "id -u; id -g; echo $A; pwd",
        ])
        .ok();
    assert_eq!(out.stdout, "5\n6\nb\n/tmp\n");
    fails(&runtime, &["exec", &id], 255, "exec args cannot be empty");
    let out = runtime.exec(&id, &["no-such-program"]).code(255);
    assert!(out.stderr.contains(r#"exec: \"no-such-program\": executable file not found in $PATH"#), "{out}");
    assert_eq!(out.stderr.matches("exec failed").count(), 1, "{out}");
    let out = runtime.call_with_input(["exec", &id, "cat"], b"through").ok();
    assert_eq!(out.stdout, "through");

    let process = bundle.scratch().path().join("process.json");
    fs::write(&process, r#"{"user":{"uid":8},"args":["id","-u"],"cwd":"/","env":["PATH=/bin"]}"#).unwrap();
    assert_eq!(runtime.call(["exec", "--process", process.to_str().unwrap(), &id]).ok().text(), "8");

    let pids = runtime.call(["ps", "--format", "json", &id]).ok().json();
    assert_eq!(pids, serde_json::json!([runtime.state(&id)["pid"]]));
    let table = runtime.call(["ps", &id]).ok();
    assert!(table.stdout.lines().count() == 2 && table.stdout.contains("sleep 1000"), "{table}");
    let table = runtime.call(["ps", &id, "-o", "pid,args", "-e"]).ok();
    assert!(table.stdout.lines().count() == 2 && table.stdout.contains("PID COMMAND"), "{table}");

    let listed = runtime.call(["list", "--format", "json"]).ok().json();
    assert_eq!(
        (listed[0]["id"].as_str(), listed[0]["status"].as_str()),
        (Some(id.as_str()), Some("running")),
        "{listed}"
    );
    let event = runtime.call(["events", "--stats", &id]).ok().json();
    assert_eq!((event["type"].as_str(), event["id"].as_str()), (Some("stats"), Some(id.as_str())), "{event}");

    runtime.kill(&id, "KILL").ok();
    runtime.wait_status(&id, "stopped");
    fails(&runtime, &["kill", &id], 1, "container not running");
    fails(&runtime, &["exec", &id, "true"], 255, "cannot exec in a stopped container");
    fails(&runtime, &["start", &id], 1, "cannot start a container that has stopped");
    fails(&runtime, &["events", &id], 1, "is not running");
    runtime.delete(&id).ok();
}
