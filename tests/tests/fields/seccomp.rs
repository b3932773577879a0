//! `linux.seccomp` in a container: actions, and an agent that answers for the kernel. The filters themselves have
//! tests of their own (seccomp_oracle, seccomp_kernel).

use crate::{needs_root, refused, sys};
use dhow_tests::Container;
use dhow_tests::command::wait_for;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

fn rule(names: &[&str], action: &str) -> Value {
    json!({ "names": names, "action": action })
}

fn profile(c: &mut Container, rules: Value) {
    c.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules }));
}

#[test]
fn an_errno_is_what_the_call_returns() {
    needs_root!();
    let mut c = Container::new();
    for no_new_privileges in [false, true] {
        c.set("/process/noNewPrivileges", json!(no_new_privileges));
        for uid in [0, 1000] {
            c.set("/process/user/uid", json!(uid));
            let mut with_errno = rule(&["mkdir", "mkdirat"], "SCMP_ACT_ERRNO");
            with_errno["errnoRet"] = json!(95);
            profile(&mut c, json!([with_errno, rule(&["symlink", "symlinkat"], "SCMP_ACT_ERRNO")]));
            let seen =
                c.see("mkdir /tmp/x 2>&1; ln -s a /tmp/y 2>&1; grep '^Seccomp:' /proc/self/status | cut -f2");
            let lines: Vec<_> = seen.lines().collect();
            assert!(lines[0].contains("not supported"), "{seen}");
            assert!(lines[1].contains("not permitted"), "{seen}");
            assert_eq!(lines[2], "2", "{seen}");
        }
    }
}

#[test]
fn a_killing_filter_kills() {
    needs_root!();
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"] {
        let mut c = Container::new();
        profile(&mut c, json!([rule(&["mkdir", "mkdirat"], action)]));
        let seen = c.see("mkdir /tmp/x; echo $?");
        assert_eq!(seen.lines().last(), Some("159"), "{action}: SIGSYS is 31");
    }
    let mut c = Container::new();
    profile(&mut c, json!([rule(&["mkdir", "mkdirat"], "SCMP_ACT_LOG")]));
    c.run("mkdir /tmp/x").ok();
}

#[test]
fn arguments_decide() {
    needs_root!();
    let mut c = Container::new();
    let mut by_mode = rule(&["umask"], "SCMP_ACT_ERRNO");
    by_mode["args"] = json!([{ "index": 0, "value": 0o77, "op": "SCMP_CMP_EQ" }]);
    by_mode["errnoRet"] = json!(0);
    profile(&mut c, json!([by_mode]));
    // "Failing" with errno 0 the call does nothing.
    assert_eq!(c.see("umask 077; umask 022; umask 077; umask 033; umask"), "0033");
}

#[test]
fn flags_are_taken_by_the_kernel() {
    needs_root!();
    for flags in [
        json!(["SECCOMP_FILTER_FLAG_TSYNC"]),
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
        json!([]),
    ] {
        let mut c = Container::new();
        profile(&mut c, json!([rule(&["mkdir", "mkdirat"], "SCMP_ACT_ERRNO")]));
        c.set("/linux/seccomp/flags", flags.clone());
        let seen =
            c.see("mkdir /tmp/x 2>&1; grep -E '^(Seccomp|Speculation_Store_Bypass):' /proc/self/status");
        assert!(seen.contains("not permitted") && seen.contains("Seccomp:\t2"), "{flags}: {seen}");
    }
    let mut c = Container::new();
    profile(&mut c, json!([rule(&["mkdir"], "SCMP_ACT_ERRNO")]));
    c.set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_NONSENSE"]));
    refused(&c.run("true"), "/linux/seccomp/flags/0");
}

#[test]
fn calls_of_another_architecture_are_filtered_too() {
    needs_root!();
    let mut c = Container::new();
    profile(&mut c, json!([rule(&["mkdir", "mkdirat"], "SCMP_ACT_ERRNO")]));
    c.set("/linux/seccomp/architectures", json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]));
    assert!(c.see("mkdir /tmp/x 2>&1 || true").contains("not permitted"));
    c.set("/linux/seccomp/architectures", json!(["SCMP_ARCH_NONSENSE"]));
    refused(&c.run("true"), "/linux/seccomp/architectures/0");
}

#[test]
fn the_default_action_is_for_everything_else() {
    needs_root!();
    let Some(filter) = dhow_tests::bundle::default_seccomp() else { dhow_tests::skip!("no default profile") };
    let mut c = Container::new();
    c.set("/linux/seccomp", filter);
    let seen = c.see("mount -t tmpfs tmpfs /tmp 2>&1; unshare -U true 2>&1; echo alive");
    assert!(seen.contains("denied") && seen.ends_with("alive"), "{seen}");
}

/// An agent: takes one listener, and lets mkdir fail with ENOSPC until the listener is closed. Returns the message.
fn agent(listener: UnixListener) -> std::thread::JoinHandle<Value> {
    std::thread::spawn(move || {
        listener.set_nonblocking(true).unwrap();
        let stream = wait_for(Duration::from_secs(20), || listener.accept().ok()).expect("a connection").0;
        stream.set_nonblocking(false).unwrap();
        let mut bytes = vec![0; 65536];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .unwrap();
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let fd: OwnedFd = fd.expect("a descriptor");
        let call = sys::receive(fd.as_fd()).expect("a notification");
        assert!(call.number == libc::SYS_mkdir as i32 || call.number == libc::SYS_mkdirat as i32, "{call:?}");
        sys::answer(fd.as_fd(), call.id, 0, libc::ENOSPC).expect("an answer");
        serde_json::from_slice(&bytes[..got.bytes]).expect("JSON")
    })
}

#[test]
#[cfg(target_arch = "x86_64")]
fn an_agent_gets_the_listener_and_answers() {
    needs_root!();
    for no_new_privileges in [false, true] {
        let mut c = Container::new();
        let path = c.host_path("agent.sock");
        let agent = agent(UnixListener::bind(&path).unwrap());
        c.set("/process/noNewPrivileges", json!(no_new_privileges));
        profile(&mut c, json!([rule(&["mkdir", "mkdirat"], "SCMP_ACT_NOTIFY")]));
        c.set("/linux/seccomp/listenerPath", json!(path));
        c.set("/linux/seccomp/listenerMetadata", json!("meta data"));
        c.set("/annotations", json!({ "a": "b" }));
        let seen = c.see("mkdir /tmp/x 2>&1 || true");
        assert!(seen.contains("No space left"), "{seen}");
        let message = agent.join().unwrap();
        assert_eq!(message["fds"], json!(["seccompFd"]));
        assert_eq!(message["metadata"], "meta data");
        assert_eq!(message["ociVersion"], "1.3.0");
        assert_eq!(message["state"]["id"], json!(c.id));
        assert_eq!(message["state"]["annotations"], json!({ "a": "b" }));
        assert!(message["pid"].as_u64().is_some_and(|pid| pid > 0));
        assert_eq!(message["pid"], message["state"]["pid"]);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn exec_hands_a_listener_over_too() {
    needs_root!();
    let mut c = Container::new();
    let path = c.host_path("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let second = listener.try_clone().unwrap();
    profile(&mut c, json!([rule(&["mkdir", "mkdirat"], "SCMP_ACT_NOTIFY")]));
    c.set("/linux/seccomp/listenerPath", json!(path));
    let first = agent(listener);
    c.start("mkdir /tmp/first 2>/tmp/said");
    assert!(c.wait_file("tmp/said").contains("No space left"));
    first.join().unwrap();
    let second = agent(second);
    let seen = c.exec("mkdir /tmp/x 2>&1 || true");
    assert!(seen.contains("No space left"), "{seen}");
    assert_eq!(second.join().unwrap()["state"]["status"], "running");
}

#[test]
fn an_agent_that_is_not_there_fails_the_start() {
    needs_root!();
    let mut c = Container::new();
    profile(&mut c, json!([rule(&["mkdir"], "SCMP_ACT_NOTIFY")]));
    c.set("/linux/seccomp/listenerPath", json!("/no/such/agent.sock"));
    refused(&c.run("true"), "/no/such/agent.sock");
    assert!(c.runtime.ids_on_disk().is_empty());
}
