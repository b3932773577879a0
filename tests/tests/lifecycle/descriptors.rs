//! What the caller gets and gives: pid files, pidfds, descriptors that are passed on, sockets of systemd.

use crate::needs_root;
use crate::terminal::receive;
use dhow_tests::Container;
use dhow_tests::command::run;
use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;

#[test]
fn the_pid_file_has_the_pid() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.shell("mkfifo /tmp/f; read x <>/tmp/f").write();
    let (bundle, file) = (c.bundle.path().to_str().unwrap(), c.host_path("pid"));
    c.runtime.call(["create", "-b", bundle, "--pid-file", file.to_str().unwrap(), &c.id]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), c.pid().to_string());
    c.runtime.start(&c.id).ok();
    let file = c.host_path("exec-pid");
    c.runtime
        .call([
            "exec",
            "-d",
            "--pid-file",
            file.to_str().unwrap(),
            &c.id,
            "sh",
            "-c",
            "mkfifo /tmp/g; read x <>/tmp/g",
        ])
        .ok();
    let pid = fs::read_to_string(&file).unwrap();
    let cgroup = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(cgroup(&pid), cgroup(&c.pid().to_string()));
}

#[test]
fn the_pidfd_socket_gets_a_pidfd() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.shell("mkfifo /tmp/f; read x <>/tmp/f").write();
    let socket = c.host_path("pidfd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (bundle, socket) = (c.bundle.path().to_str().unwrap(), socket.to_str().unwrap());
    let pid_of = |listener: &UnixListener| {
        use std::os::fd::AsRawFd;
        let fd = receive(listener).1;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
        let line = info.lines().find_map(|l| l.strip_prefix("Pid:")).expect("a pidfd");
        line.trim().parse::<u32>().unwrap()
    };
    c.runtime.call(["run", "-d", "-b", bundle, "--pidfd-socket", socket, &c.id]).ok();
    assert_eq!(pid_of(&listener), c.pid());
    let file = c.host_path("exec-pid");
    let command = ["sh", "-c", "mkfifo /tmp/g; read x <>/tmp/g"];
    let args = ["exec", "-d", "--pidfd-socket", socket, "--pid-file", file.to_str().unwrap(), &c.id];
    c.runtime.call(args.iter().chain(&command)).ok();
    assert_eq!(pid_of(&listener).to_string(), fs::read_to_string(&file).unwrap());
}

/// The shell that the runtime is started by, to have descriptors of its own.
fn by_shell(c: &Container, prepare: &str, runtime: &str) -> dhow_tests::Output {
    let script = format!("{prepare}; exec \"$BINARY\" --root \"$ROOT\" {runtime}");
    run(Command::new("sh")
        .args(["-c", &script])
        .env("BINARY", c.runtime.binary())
        .env("ROOT", c.runtime.root())
        .env("BUNDLE", c.bundle.path())
        .env("ID", &c.id))
}

#[test]
fn descriptors_are_passed_on_only_when_asked() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.shell("cat /proc/self/fd/3 <&3; ls /proc/self/fd | wc -l; cat <&4").write();
    fs::write(c.host_path("three"), "3").unwrap();
    fs::write(c.host_path("four"), "4").unwrap();
    let open = r#"exec 3<"$BUNDLE/three" 4<"$BUNDLE/four" 5<"$BUNDLE/four""#;
    let out = by_shell(&c, open, r#"run --preserve-fds 2 -b "$BUNDLE" "$ID""#).ok();
    // 0, 1, 2, 3, 4, and the directory that ls itself opens.
    assert_eq!(out.text(), "36\n4");

    c.bundle.shell("ls /proc/self/fd | wc -l").write();
    let out = by_shell(&c, open, r#"run -b "$BUNDLE" "$ID""#).ok();
    assert_eq!(out.text(), "4");

    c.start(":");
    let out =
        by_shell(&c, open, r#"exec --preserve-fds 1 "$ID" sh -c 'cat <&3; ls /proc/self/fd | wc -l'"#).ok();
    assert_eq!(out.text(), "35");
}

#[test]
fn sockets_of_systemd_are_passed_on() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.shell("echo $LISTEN_FDS $LISTEN_PID; cat <&3; cat <&4").write();
    fs::write(c.host_path("three"), "3").unwrap();
    fs::write(c.host_path("four"), "4").unwrap();
    let open = r#"exec 3<"$BUNDLE/three" 4<"$BUNDLE/four"; export LISTEN_FDS=1 LISTEN_PID=$$"#;
    let out = by_shell(&c, open, r#"run --preserve-fds 1 -b "$BUNDLE" "$ID""#).ok();
    assert_eq!(out.text(), "1 1\n34");
}

#[test]
fn signals_and_the_session_start_afresh() {
    needs_root!();
    let mut c = Container::new();
    c.bundle.args(["/bin/grep", "-E", "Sig(Ign|Blk)|NSsid", "/proc/self/status"]).write();
    // What a caller ignores is not the container's business.
    let out = by_shell(&c, "trap '' PIPE INT QUIT HUP USR1", r#"run -b "$BUNDLE" "$ID""#).ok();
    assert!(out.stdout.contains("SigBlk:\t0000000000000000"), "{out}");
    assert!(out.stdout.contains("SigIgn:\t0000000000000000"), "{out}");
    assert_eq!(out.stdout.lines().find(|l| l.starts_with("NSsid")), Some("NSsid:\t1"), "{out}");
}
