//! checkpoint and restore with a real CRIU: a counter goes on from where it was, with its mounts, streams, terminal
//! and limits; and images that want more of the host than `config.json` gives are refused.
//!
//! CRIU is that of the Debian 13 root made by `scripts/debian13-root.sh`, since Debian 12's does not know the vDSO of
//! newer kernels. Without that root the tests skip.

use dhow_tests::command::{DEADLINE, kill_process, run, wait_for};
use dhow_tests::{Bundle, Output, Runtime, leftovers, skip, skip_part};
use serde_json::json;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const ROOT: &str = "/var/cache/dhow-test/debian13";
const COUNT: &str =
    "i=0; while :; do i=$((i+1)); echo $i > /count.new; mv /count.new /count; sleep 0.05; done";

/// A container, a runtime and a `criu` of their own.
struct Place {
    bundle: Bundle,
    runtime: Runtime,
    id: String,
    path: OsString,
}

impl Place {
    /// Nothing where there is no CRIU.
    fn new() -> Result<Place, String> {
        let library = format!("{ROOT}/lib64/ld-linux-x86-64.so.2");
        let criu = format!("{ROOT}/usr/sbin/criu");
        if !dhow_tests::skip::is_root() {
            return Err("root is needed".into());
        }
        if !Path::new(&library).exists() || !Path::new(&criu).exists() {
            return Err(format!("no criu in {ROOT}: run scripts/debian13-root.sh"));
        }
        let mut bundle = Bundle::busybox();
        let directory = bundle.scratch().dir("criu-bin");
        let libraries = format!("{ROOT}/lib/x86_64-linux-gnu:{ROOT}/usr/lib/x86_64-linux-gnu");
        let script = format!("#!/bin/sh\nexec {library} --library-path {libraries} {criu} \"$@\"\n");
        fs::write(directory.join("criu"), script).expect("write the wrapper of criu");
        fs::set_permissions(directory.join("criu"), fs::Permissions::from_mode(0o755)).expect("chmod criu");
        let mut path = directory.into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        bundle.shell(COUNT).write();
        let runtime = bundle.runtime();
        let id = bundle.tag().to_owned();
        Ok(Place { bundle, runtime, id, path })
    }

    fn images(&self, name: &str) -> PathBuf {
        self.bundle.scratch().dir(format!("images/{name}"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.runtime.command(args);
        command.env("PATH", &self.path);
        command
    }

    fn call(&self, args: &[&str]) -> Output {
        run(&mut self.command(args))
    }

    /// Runs it with nothing of this process as its streams.
    fn start(&self) {
        let bundle = self.bundle.path().to_str().expect("a path of text");
        let status = self
            .command(&["run", "--detach", "--bundle", bundle, &self.id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("run the runtime");
        assert!(status.success());
        self.wait_count(1);
    }

    fn checkpoint(&self, images: &Path, flags: &[&str]) -> Output {
        let images = images.to_str().expect("a path of text");
        let mut args = vec!["checkpoint", "--image-path", images];
        args.extend(flags);
        args.push(&self.id);
        self.call(&args)
    }

    fn restore_args<'a>(&'a self, images: &'a Path, flags: &[&'a str]) -> Vec<&'a str> {
        let bundle = self.bundle.path().to_str().expect("a path of text");
        let images = images.to_str().expect("a path of text");
        let mut args = vec!["restore", "--image-path", images, "--bundle", bundle];
        args.extend(flags);
        args.push(&self.id);
        args
    }

    fn restore(&self, images: &Path, flags: &[&str]) -> Output {
        let flags: Vec<_> = ["--detach"].iter().chain(flags).copied().collect();
        self.call(&self.restore_args(images, &flags))
    }

    fn count(&self) -> u64 {
        let text = fs::read_to_string(self.bundle.rootfs().join("count")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Waits until it has counted to `number`.
    #[track_caller]
    fn wait_count(&self, number: u64) {
        let reached = wait_for(Duration::from_secs(20), || (self.count() >= number).then_some(()));
        assert!(reached.is_some(), "it counts to {}, not {number}", self.count());
    }

    /// That it goes on from `stopped`, and does not begin again.
    #[track_caller]
    fn assert_goes_on(&self, stopped: u64) {
        self.wait_count(stopped + 3);
        assert!(stopped > 0 && self.count() >= stopped);
    }

    #[track_caller]
    fn finish(self) {
        self.runtime.delete_force(&self.id).ok();
        leftovers::assert_none(self.bundle.tag(), Some(self.runtime.root()));
    }
}

macro_rules! place {
    () => {
        match Place::new() {
            Ok(place) => place,
            Err(reason) => skip!("{reason}"),
        }
    };
}

#[track_caller]
fn fails(out: Output, text: &str) -> Output {
    assert!(!out.success() && out.stderr.contains(text), "{text:?} is not in: {out}");
    out
}

#[test]
fn a_counter_goes_on_with_its_mounts() {
    let mut place = place!();
    let data = place.bundle.scratch().dir("data");
    let fixed = place.bundle.scratch().dir("fixed");
    fs::write(fixed.join("file"), "given").unwrap();
    // A link in the root filesystem: mount points are found behind it.
    symlink("/run", place.bundle.rootfs().join("var/run")).unwrap();
    place
        .bundle
        .mount(json!({"destination": "/data", "type": "bind", "source": data, "options": ["rbind", "rw"]}))
        .mount(json!({"destination": "/var/run/fixed", "type": "bind", "source": fixed, "options": ["bind", "ro"]}))
        .mount(json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs"}))
        .shell(&format!("echo kept > /scratch/file; echo made > /data/file; {COUNT}"));
    place.bundle.set("/linux/resources/pids", json!({"limit": 100}));
    place.bundle.write();
    place.start();
    let images = place.images("one");
    place.checkpoint(&images, &[]).ok();
    let stopped = place.count();
    assert!(images.join("dump.log").exists());
    // As with runc: the container is gone with its cgroups, and its id is free.
    assert_eq!(place.runtime.status(&place.id), None);
    leftovers::assert_none(place.bundle.tag(), Some(place.runtime.root()));

    let pid_file = place.bundle.scratch().join("pid");
    place.restore(&images, &["--pid-file", pid_file.to_str().unwrap()]).ok();
    place.assert_goes_on(stopped);
    let state = place.runtime.state(&place.id);
    assert_eq!(state["status"], "running");
    assert_eq!(fs::read_to_string(pid_file).unwrap(), state["pid"].to_string());
    let exec = |script: &str| place.runtime.exec(&place.id, &["/bin/sh", "-c", script]);
    assert_eq!(exec("cat /scratch/file /data/file /run/fixed/file").ok().text(), "kept\nmade\ngiven");
    fails(exec("echo x > /run/fixed/file"), "Read-only file system");
    assert!(exec("cat /proc/keys").ok().text().is_empty());
    assert_eq!(exec("hostname").ok().text(), "dhow-test");
    let limit = Path::new("/sys/fs/cgroup/pids").join(place.bundle.tag()).join("pids.max");
    if limit.parent().is_some_and(Path::is_dir) {
        assert_eq!(fs::read_to_string(limit).unwrap().trim(), "100");
    }
    // What is restored can be saved again.
    let images = place.images("two");
    place.checkpoint(&images, &[]).ok();
    let stopped = place.count();
    place.restore(&images, &[]).ok();
    place.assert_goes_on(stopped);
    place.runtime.kill(&place.id, "KILL").ok();
    place.runtime.wait_status(&place.id, "stopped");
    place.runtime.delete(&place.id).ok();
    place.finish();
}

#[test]
fn leave_running_and_pre_dump() {
    let place = place!();
    place.start();
    place.checkpoint(&place.images("running"), &["--leave-running"]).ok();
    let then = place.count();
    assert_eq!(place.runtime.status(&place.id).as_deref(), Some("running"));
    place.wait_count(then + 3);

    let first = place.images("first");
    let out = place.checkpoint(&first, &["--pre-dump"]);
    let mut flags = vec!["--work-path", "WORK"];
    if out.success() {
        assert_eq!(place.runtime.status(&place.id).as_deref(), Some("running"));
        flags.extend(["--parent-path", "../first"]);
    } else {
        fails(out, "lacks memory tracking");
        skip_part!("this kernel has no soft-dirty tracking, so there are no pre-dumps");
    }
    let work = place.bundle.scratch().dir("work");
    flags[1] = work.to_str().unwrap();
    let images = place.images("second");
    place.checkpoint(&images, &flags).ok();
    assert!(work.join("dump.log").exists());
    let stopped = place.count();
    place.restore(&images, &["--work-path", flags[1]]).ok();
    assert!(work.join("restore.log").exists() && !images.join("restore.log").exists());
    place.assert_goes_on(stopped);
    place.finish();
}

/// Its lines, as they come.
fn lines(child: &mut Child) -> mpsc::Receiver<String> {
    let out = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for line in out.lines() {
            let Ok(line) = line else { break };
            if send.send(line).is_err() {
                break;
            }
        }
    });
    receive
}

#[track_caller]
fn next_number(lines: &mpsc::Receiver<String>) -> u64 {
    let line = lines.recv_timeout(Duration::from_secs(20)).expect("another line");
    line.trim().parse().unwrap_or_else(|_| panic!("{line:?} is not a number"))
}

/// A foreground run whose count is read from its output, a checkpoint, and a restore in the foreground.
fn foreground(mut place: Place, terminal: bool) {
    place.bundle.terminal(terminal).shell("i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done").write();
    let spawn = |args: &[&str]| {
        place
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the runtime")
    };
    let mut first = spawn(&["run", "--bundle", place.bundle.path().to_str().unwrap(), &place.id]);
    let numbers = lines(&mut first);
    let mut seen = 0;
    while seen < 3 {
        seen = next_number(&numbers);
    }
    let images = place.images("one");
    place.checkpoint(&images, &[]).ok();
    let ended = wait_for(DEADLINE, || first.try_wait().expect("wait"));
    assert!(ended.is_some(), "run ends with its container");
    // The checkpoint may have come before another line.
    let stopped = numbers.iter().last().map_or(seen, |line| line.trim().parse().expect("a number"));

    let mut second = spawn(&place.restore_args(&images, &[]));
    let numbers = lines(&mut second);
    let number = next_number(&numbers);
    // A line in the pipe at the checkpoint may come only now.
    assert!((stopped..stopped + 5).contains(&number), "{stopped}, then {number}");
    while next_number(&numbers) < stopped + 3 {}
    // The signal is passed on; a counter that is a shell dies of it, and restore says so and removes the container.
    kill_process(second.id(), libc::SIGHUP);
    place.runtime.kill(&place.id, "KILL");
    let status = wait_for(DEADLINE, || second.try_wait().expect("wait")).expect("restore ends");
    assert!(matches!(status.code(), Some(137 | 129)), "{status}");
    assert_eq!(place.runtime.status(&place.id), None);
    place.finish();
}

#[test]
fn standard_streams_are_the_callers() {
    foreground(place!(), false);
}

#[test]
fn terminals_are_handed_over() {
    foreground(place!(), true);
}

#[test]
fn network_hooks_run_before_the_program_goes_on() {
    let mut place = place!();
    let told = place.bundle.scratch().join("told");
    let hook = |name: &str| {
        json!([{"path": "/bin/sh", "args": ["sh", "-c",
            format!("read -r state; echo \"{name} $state\" >> {}", told.display())]}])
    };
    place.bundle.set("/hooks", json!({"prestart": hook("prestart"), "createRuntime": hook("createRuntime")}));
    place.bundle.write();
    place.start();
    let images = place.images("one");
    place.checkpoint(&images, &["--empty-ns", "network"]).ok();
    fs::write(&told, "").unwrap();
    place.restore(&images, &["--empty-ns", "network"]).ok();
    let pid = place.runtime.state(&place.id)["pid"].to_string();
    let text = fs::read_to_string(&told).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("prestart ") && lines[1].starts_with("createRuntime "), "{text}");
    assert!(lines[0].contains(&format!("\"pid\":{pid}")), "{pid} in {text}");
    place.finish();
}

#[test]
fn joined_network_namespaces_are_left_alone() {
    let mut place = place!();
    if dhow_tests::skip::missing_program(&["unshare"]).is_some() {
        skip!("no unshare");
    }
    let mut holder = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().expect("unshare");
    let path = format!("/proc/{}/ns/net", holder.id());
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    wait_for(DEADLINE, || fs::read_link(&path).ok().filter(|ns| *ns != own)).expect("a namespace");
    place.bundle.without_namespace("network");
    let mut namespaces = place.bundle.config()["linux"]["namespaces"].clone();
    namespaces.as_array_mut().unwrap().push(json!({"type": "network", "path": path}));
    place.bundle.set("/linux/namespaces", namespaces).write();
    place.start();
    let images = place.images("one");
    place.checkpoint(&images, &[]).ok();
    let stopped = place.count();
    place.restore(&images, &[]).ok();
    place.assert_goes_on(stopped);
    let pid = place.runtime.state(&place.id)["pid"].clone();
    assert_eq!(fs::read_link(format!("/proc/{pid}/ns/net")).unwrap(), fs::read_link(&path).unwrap());
    place.runtime.delete_force(&place.id).ok();
    holder.kill().unwrap();
    holder.wait().unwrap();
    place.finish();
}

#[test]
fn without_criu_the_error_says_so() {
    let place = place!();
    place.start();
    let images = place.images("one");
    let mut command = place.command(&["checkpoint", "--image-path", images.to_str().unwrap(), &place.id]);
    command.env("PATH", place.bundle.scratch().path());
    fails(run(&mut command), "criu not found in PATH; install package criu");
    assert_eq!(place.runtime.status(&place.id).as_deref(), Some("running"));
    place.checkpoint(&images, &[]).ok();
    let mut command = place.command(&place.restore_args(&images, &["--detach"]));
    command.env("PATH", place.bundle.scratch().path());
    fails(run(&mut command), "criu not found in PATH; install package criu");
    leftovers::assert_none(place.bundle.tag(), Some(place.runtime.root()));
    place.finish();
}

#[test]
fn only_running_containers_have_a_checkpoint() {
    let place = place!();
    place.runtime.create(&place.id, &place.bundle).ok();
    let images = place.images("one");
    fails(place.checkpoint(&images, &[]), "Container cannot be checkpointed in created state");
    place.runtime.kill(&place.id, "KILL").ok();
    place.runtime.wait_status(&place.id, "stopped");
    fails(place.checkpoint(&images, &[]), "Container cannot be checkpointed in stopped state");
    place.runtime.delete(&place.id).ok();
    fails(place.checkpoint(&images, &[]), "container does not exist");
    place.finish();
}

#[test]
fn a_failure_quotes_the_log_and_leaves_nothing() {
    let place = place!();
    place.start();
    let images = place.images("one");
    place.checkpoint(&images, &[]).ok();
    let saved = fs::read(images.join("inventory.img")).unwrap();
    fs::write(images.join("inventory.img"), b"rubbish!").unwrap();
    let out = fails(place.restore(&images, &[]), "criu failed: type RESTORE");
    assert!(out.stderr.contains("restore.log") && out.stderr.contains("Error"), "{out}");
    leftovers::assert_none(place.bundle.tag(), Some(place.runtime.root()));
    // An error in the middle: a process of the images is missing.
    fs::write(images.join("inventory.img"), saved).unwrap();
    fs::remove_file(images.join("core-1.img")).unwrap();
    fails(place.restore(&images, &[]), "criu failed: type RESTORE");
    leftovers::assert_none(place.bundle.tag(), Some(place.runtime.root()));
    place.finish();
}

#[test]
fn images_get_no_more_of_the_host_than_the_config_gives() {
    let mut place = place!();
    let data = place.bundle.scratch().dir("data");
    let mount = |options: &[&str]| json!({"destination": "/data", "type": "bind", "source": data, "options": options});
    let bare = place.bundle.config()["mounts"].clone();
    place.bundle.mount(mount(&["rbind", "rw"])).write();
    place.start();
    let images = place.images("one");
    place.checkpoint(&images, &[]).ok();
    let stopped = place.count();
    let refused = |place: &Place, text: &str| {
        fails(place.restore(&images, &[]), text);
        leftovers::assert_none(place.bundle.tag(), Some(place.runtime.root()));
    };
    // The image names a mount that the config does not have, or not there, or not with those rights.
    place.bundle.set("/mounts", bare.clone()).write();
    refused(&place, "external mount \\\"/data\\\" on \\\"/data\\\" is none of the mounts of config.json");
    let mut other = mount(&["rbind", "rw"]);
    other["destination"] = json!("/other");
    place.bundle.mount(other).write();
    refused(&place, "is none of the mounts of config.json");
    place.bundle.set("/mounts", bare).mount(mount(&["rbind", "ro"])).write();
    refused(&place, "lacks a restriction");
    let last = place.bundle.config()["mounts"].as_array().unwrap().len() - 1;
    place.bundle.set(&format!("/mounts/{last}"), mount(&["rbind", "rw"])).write();
    // The name in the image is right, and its place (field 7) is not.
    let table = fs::read_dir(&images)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.file_name().unwrap().to_string_lossy().starts_with("mountpoints-"))
        .expect("a table of mounts");
    let good = fs::read(&table).unwrap();
    let mountpoint = b"\x3a\x05/data";
    let at = good.windows(7).position(|w| w == mountpoint).expect("the mount point");
    let mut bad = good.clone();
    bad[at + 2..at + 7].copy_from_slice(b"/home");
    fs::write(&table, &bad).unwrap();
    refused(&place, "is not where config.json mounts it");
    fs::write(&table, &good).unwrap();

    // Links of the images, which CRIU would follow to the host's files.
    let decoy = place.bundle.scratch().join("decoy");
    fs::write(&decoy, "untouched").unwrap();
    for name in ["pages-1.img", "restore.log", "anything"] {
        let path = images.join(name);
        let saved = fs::read(&path).ok();
        let _ = fs::remove_file(&path);
        symlink(&decoy, &path).unwrap();
        refused(&place, "a symbolic link");
        fs::remove_file(&path).unwrap();
        if let Some(saved) = saved {
            fs::write(&path, saved).unwrap();
        }
    }
    assert_eq!(fs::read_to_string(&decoy).unwrap(), "untouched");
    let link = place.bundle.scratch().join("link");
    symlink(&images, &link).unwrap();
    fails(place.restore(&link, &[]), "opening directory");
    // And after all that it is still good.
    place.restore(&images, &[]).ok();
    place.assert_goes_on(stopped);
    place.finish();
}

#[test]
fn images_of_runc_can_be_restored() {
    let mut place = place!();
    if dhow_tests::skip::missing_program(&["runc"]).is_some() {
        skip!("no runc");
    }
    let data = place.bundle.scratch().dir("data");
    place.bundle.mount(json!({"destination": "/data", "type": "bind", "source": data, "options": ["rbind"]}));
    place.bundle.write();
    let root = place.bundle.scratch().dir("runc");
    let runc = |args: &[&str]| {
        let mut command = Command::new("runc");
        command.arg("--root").arg(&root).args(args).env("PATH", &place.path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().expect("runc").success(), "runc {args:?}");
    };
    runc(&["run", "--detach", "--bundle", place.bundle.path().to_str().unwrap(), &place.id]);
    place.wait_count(3);
    let images = place.images("one");
    runc(&["checkpoint", "--image-path", images.to_str().unwrap(), &place.id]);
    let stopped = place.count();
    place.restore(&images, &[]).ok();
    place.assert_goes_on(stopped);
    place.finish();
}
