//! Readiness (sd_notify) and socket activation: what a supervisor such as systemd hands to the runtime.
//!
//! busybox has no client for datagrams, so the test says that the container is ready, through its root in /proc.

use dhow_tests::command::wait_for;
use dhow_tests::{Bundle, Runtime, leftovers, skip};
use serde_json::json;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The supervisor's socket.
struct Supervisor {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Supervisor {
    fn new(bundle: &Bundle) -> Supervisor {
        let path = bundle.scratch().join("supervisor");
        let socket = UnixDatagram::bind(&path).expect("bind a socket");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("set a timeout");
        Supervisor { socket, path }
    }

    /// The next message.
    fn hears(&self) -> String {
        let mut buffer = [0; 1000];
        let length = self.socket.recv(&mut buffer).expect("a message within the time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// That the container is ready, and the question whether that was read: answered by closing its descriptor.
    fn hears_ready(&self, pid: &str) {
        assert_eq!(self.hears(), format!("MAINPID={pid}\nREADY=1\n"));
        assert_eq!(self.hears(), "BARRIER=1");
    }

    /// Whether nothing has come.
    fn hears_nothing(&self) -> bool {
        self.socket.set_nonblocking(true).expect("change a socket");
        let none = self.socket.recv(&mut [0; 100]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
        self.socket.set_nonblocking(false).expect("change a socket");
        none
    }
}

/// Says something as the container's program would: to the socket that its environment names, in its root.
fn say(pid: &str, text: &str) {
    let socket = UnixDatagram::unbound().expect("make a socket");
    let path = format!("/proc/{pid}/root/run/notify/notify.sock");
    let connected = wait_for(Duration::from_secs(10), || socket.connect(&path).ok());
    assert!(connected.is_some(), "nobody listens at {path}: {:?}", socket.connect(&path));
    socket.send(text.as_bytes()).expect("send a message");
}

/// A runtime's process with no pipe of the test's.
fn spawn(command: &mut Command, supervisor: &Supervisor) -> Child {
    command.env("NOTIFY_SOCKET", &supervisor.path).stdin(Stdio::null());
    command.stdout(Stdio::null()).spawn().expect("start the runtime")
}

fn pid_of(runtime: &Runtime, id: &str) -> String {
    let pid = wait_for(Duration::from_secs(10), || {
        let out = runtime.call(["state", id]);
        let running = out.success() && out.json()["status"] == "running";
        running.then(|| out.json()["pid"].to_string())
    });
    pid.expect("the container runs")
}

fn wait(mut child: Child) -> i32 {
    let ended = wait_for(Duration::from_secs(20), || child.try_wait().ok().flatten());
    if ended.is_none() {
        child.kill().expect("end the runtime");
        child.wait().expect("wait for the runtime");
    }
    ended.expect("the runtime ends").code().unwrap_or(-1)
}

fn bundle_arg(bundle: &Bundle) -> String {
    bundle.write();
    bundle.path().display().to_string()
}

macro_rules! root {
    () => {
        if !dhow_tests::skip::is_root() {
            skip!("not root");
        }
    };
}

#[test]
fn a_detached_run_returns_when_the_container_is_ready() {
    root!();
    let mut bundle = Bundle::busybox();
    let runtime = bundle.runtime();
    let supervisor = Supervisor::new(&bundle);
    bundle.args(["sleep", "100"]);
    let (path, id) = (bundle_arg(&bundle), runtime.fresh_id());
    let mut child = spawn(&mut runtime.command(["run", "--detach", "--bundle", &path, &id]), &supervisor);
    let pid = pid_of(&runtime, &id);
    let env = runtime.call(["exec", &id, "cat", "/proc/1/environ"]).ok();
    let names: Vec<&str> = env.stdout.split('\0').filter(|v| v.contains("NOTIFY")).collect();
    assert_eq!(names, ["NOTIFY_SOCKET=/run/notify/notify.sock"]);
    let options = runtime.exec(&id, &["grep", " /run/notify ", "/proc/mounts"]).ok();
    assert!(options.text().contains(" ro,nosuid,nodev,noexec"), "{options}");

    say(&pid, "STATUS=starting\nMAINPID=1");
    assert!(child.try_wait().expect("ask").is_none(), "it did not wait");
    assert!(supervisor.hears_nothing());
    say(&pid, "READY=1");
    supervisor.hears_ready(&pid);
    assert_eq!(wait(child), 0);
    runtime.delete_force(&id).ok();
    leftovers::assert_none(bundle.tag(), Some(runtime.root()));
}

#[test]
fn start_returns_when_the_container_is_ready() {
    root!();
    let mut bundle = Bundle::busybox();
    let runtime = bundle.runtime();
    let supervisor = Supervisor::new(&bundle);
    bundle.args(["sleep", "100"]);
    let (path, id) = (bundle_arg(&bundle), runtime.fresh_id());
    assert_eq!(wait(spawn(&mut runtime.command(["create", "--bundle", &path, &id]), &supervisor)), 0);
    let child = spawn(&mut runtime.command(["start", &id]), &supervisor);
    let pid = pid_of(&runtime, &id);
    // Other verbs do not wait for it.
    runtime.exec(&id, &["true"]).ok();
    say(&pid, "READY=1");
    supervisor.hears_ready(&pid);
    assert_eq!(wait(child), 0);
    runtime.kill(&id, "KILL").ok();
    runtime.wait_status(&id, "stopped");
    runtime.delete(&id).ok();
    leftovers::assert_none(bundle.tag(), Some(runtime.root()));
}

#[test]
fn in_the_foreground_the_runtime_is_the_main_process() {
    root!();
    let mut bundle = Bundle::busybox();
    let runtime = bundle.runtime();
    let supervisor = Supervisor::new(&bundle);
    bundle.args(["sleep", "100"]);
    let (path, id) = (bundle_arg(&bundle), runtime.fresh_id());
    let child = spawn(&mut runtime.command(["run", "--bundle", &path, &id]), &supervisor);
    let own = child.id();
    let pid = pid_of(&runtime, &id);
    for _ in 0..2 {
        say(&pid, "READY=1");
        assert_eq!(supervisor.hears(), format!("MAINPID={own}\nREADY=1\n"));
    }
    runtime.kill(&id, "KILL").ok();
    assert_eq!(wait(child), 137);
    leftovers::assert_none(bundle.tag(), Some(runtime.root()));
}

#[test]
fn a_container_that_ends_before_it_is_ready() {
    root!();
    let mut bundle = Bundle::busybox();
    let runtime = bundle.runtime();
    let supervisor = Supervisor::new(&bundle);
    bundle.args(["true"]);
    let (path, id) = (bundle_arg(&bundle), runtime.fresh_id());
    let child = spawn(&mut runtime.command(["run", "--detach", "--bundle", &path, &id]), &supervisor);
    assert_eq!(wait(child), 0);
    assert!(supervisor.hears_nothing());
    runtime.delete(&id).ok();

    // Nobody listens: the container runs, nobody waits.
    let missing =
        Supervisor { socket: UnixDatagram::unbound().expect("make a socket"), path: "/nonexistent".into() };
    let child = spawn(&mut runtime.command(["run", "--bundle", &path, &id]), &missing);
    assert_eq!(wait(child), 0);
    leftovers::assert_none(bundle.tag(), Some(runtime.root()));
}

#[test]
fn a_user_namespace_has_a_socket_too() {
    root!();
    let mut bundle = Bundle::busybox();
    let runtime = bundle.runtime();
    let supervisor = Supervisor::new(&bundle);
    let map = json!([{ "containerID": 0, "hostID": 700_000, "size": 65536 }]);
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let list = bundle.config_mut()["linux"]["namespaces"].as_array_mut().expect("an array");
    list.push(json!({ "type": "user" }));
    // The mount point cannot be made in a root filesystem of somebody else's.
    std::fs::create_dir_all(bundle.rootfs().join("run/notify")).expect("make a directory");
    bundle.args(["sleep", "100"]);
    let (path, id) = (bundle_arg(&bundle), runtime.fresh_id());
    let child = spawn(&mut runtime.command(["run", "--detach", "--bundle", &path, &id]), &supervisor);
    let pid = pid_of(&runtime, &id);
    runtime.exec(&id, &["test", "-S", "/run/notify/notify.sock", "-a", "-w", "/run/notify/notify.sock"]).ok();
    say(&pid, "READY=1");
    supervisor.hears_ready(&pid);
    assert_eq!(wait(child), 0);
    runtime.delete_force(&id).ok();
    leftovers::assert_none(bundle.tag(), Some(runtime.root()));
}

#[test]
fn sockets_of_the_supervisor_are_passed_on() {
    root!();
    let mut bundle = Bundle::busybox();
    let runtime = bundle.runtime();
    let script = "echo $LISTEN_FDS $LISTEN_PID $$; cat <&3; cat <&4; ls /proc/self/fd | wc -l";
    bundle.shell(script);
    let path = bundle_arg(&bundle);
    let (one, two) = (bundle.scratch().join("one"), bundle.scratch().join("two"));
    std::fs::write(&one, "first\n").expect("write a file");
    std::fs::write(&two, "second\n").expect("write a file");
    let run = |pid: &str| {
        let line = format!(
            "exec 3<{} 4<{}; export LISTEN_FDS=2 LISTEN_PID={pid}; exec {} --root {} run --bundle {path} {}",
            one.display(),
            two.display(),
            runtime.binary().display(),
            runtime.root().display(),
            runtime.fresh_id()
        );
        dhow_tests::run(Command::new("sh").args(["-c", &line])).ok().stdout
    };
    // ls opens the directory itself.
    assert_eq!(run("$$"), "2 1 1\nfirst\nsecond\n6\n");
    leftovers::assert_none(bundle.tag(), Some(runtime.root()));
}
