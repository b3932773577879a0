//! exec: another process in a container, by flags or by a file, with the container's limits and no more rights.

use crate::needs_root;
use dhow_tests::Container;
use serde_json::json;
use std::fs;

#[test]
fn exec_is_in_the_containers_namespaces_cgroup_and_root() {
    needs_root!();
    let mut c = Container::new();
    c.start("echo mark >/tmp/mark");
    c.wait_file("tmp/mark");
    assert_eq!(
        c.exec("cat /tmp/mark; hostname; pwd; echo $DHOW_TEST"),
        format!("mark\ndhow-test\n/\n{}", c.id)
    );
    let pid = c.pid();
    let links = c.exec("for n in pid net mnt ipc uts cgroup user; do readlink /proc/self/ns/$n; done");
    for (n, link) in ["pid", "net", "mnt", "ipc", "uts", "cgroup", "user"].iter().zip(links.lines()) {
        assert_eq!(fs::read_link(format!("/proc/{pid}/ns/{n}")).unwrap().to_str().unwrap(), link);
    }
    assert_eq!(c.exec("cat /proc/self/cgroup"), c.exec("cat /proc/1/cgroup"));
    // A sibling of init in every respect but its parent.
    assert_eq!(c.exec("grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status"), {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let wanted = |l: &&str| l.starts_with("Cap") || l.starts_with("NoNew") || l.starts_with("Seccomp:");
        status.lines().filter(wanted).collect::<Vec<_>>().join("\n")
    });
}

#[test]
fn exec_codes_and_streams_come_through() {
    needs_root!();
    let mut c = Container::new();
    c.start(":");
    c.runtime.exec(&c.id, &["sh", "-c", "exit 42"]).code(42);
    c.runtime.exec(&c.id, &["sh", "-c", "kill -9 $$"]).code(137);
    let out = c.runtime.call_with_input(["exec", &c.id, "sh", "-c", "cat; echo err >&2"], b"in").ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("in", "err\n"));
}

#[test]
fn flags_of_exec_reach_the_process() {
    needs_root!();
    let mut c = Container::new();
    c.start(":");
    let script = "pwd; id -u; id -g; id -G; echo $A $HOME; grep NoNewPrivs /proc/self/status";
    let out = c
        .runtime
        .call([
            "exec",
            "--cwd",
            "/etc",
            "--user",
            "1000:1001",
            "-g",
            "5",
            "-g",
            "6",
            "--env",
            "A=b",
            "--no-new-privs",
            &c.id,
            "sh",
            "-c",
            script,
        ])
        .ok();
    assert_eq!(out.text(), "/etc\n1000\n1001\n1001 5 6\nb /\nNoNewPrivs:\t1");

    let caps = "grep Cap /proc/self/status";
    let before = c.exec(caps);
    let after = c.runtime.call(["exec", "--cap", "CAP_SYS_TIME", &c.id, "sh", "-c", caps]).ok();
    let value = |text: &str, key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    for set in ["CapBnd:", "CapEff:", "CapPrm:"] {
        assert_eq!(value(after.text(), set) & !value(&before, set), 1 << 25, "{set}");
    }
    let limited = c.runtime.exec(&c.id, &["sh", "-c", "cd /no/such"]);
    assert!(!limited.success());
    let wrong = c.runtime.call(["exec", "--cwd", "/no/such", &c.id, "true"]).code(255);
    assert!(wrong.stderr.contains("/no/such"), "{wrong}");
}

#[test]
fn a_process_comes_from_a_file() {
    needs_root!();
    let mut c = Container::new();
    c.start(":");
    let process = json!({
        "user": { "uid": 7, "gid": 8, "umask": 0o77, "additionalGids": [9] },
        "args": ["sh", "-c", "id -u; id -g; id -G; umask; echo $X; pwd; ulimit -n; cat /proc/self/oom_score_adj"],
        "env": ["PATH=/bin", "X=y"],
        "cwd": "/tmp",
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 78 }],
        "oomScoreAdj": 123
    });
    let file = c.host_path("process.json");
    fs::write(&file, process.to_string()).unwrap();
    let out = c.runtime.call(["exec", "--process", file.to_str().unwrap(), &c.id]).ok();
    assert_eq!(out.text(), "7\n8\n8 9\n0077\ny\n/tmp\n77\n123");
    fs::write(&file, r#"{"args":[],"cwd":"relative","rlimits":[{"type":"x","soft":1,"hard":1}]}"#).unwrap();
    let wrong = c.runtime.call(["exec", "--process", file.to_str().unwrap(), &c.id]).code(255);
    for pointer in ["/cwd", "/args", "/rlimits/0/type"] {
        assert!(wrong.stderr.contains(pointer), "no {pointer}: {wrong}");
    }
    // What may be left out, as runc takes it.
    fs::write(&file, r#"{"args":["/bin/id","-u"],"cwd":"/"}"#).unwrap();
    assert_eq!(c.runtime.call(["exec", "--process", file.to_str().unwrap(), &c.id]).ok().text(), "0");
}

#[test]
fn a_detached_exec_lives_on() {
    needs_root!();
    let mut c = Container::new();
    c.start(":");
    c.runtime
        .call(["exec", "-d", &c.id, "sh", "-c", "echo up >/tmp/up; mkfifo /tmp/g; read x <>/tmp/g"])
        .ok();
    c.wait_file("tmp/up");
    let pids = c.runtime.call(["ps", "-f", "json", &c.id]).ok().json();
    assert_eq!(pids.as_array().unwrap().len(), 2);
}

#[test]
fn exec_has_the_containers_seccomp_filter() {
    needs_root!();
    let mut c = Container::new();
    let deny = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 });
    c.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [deny] }));
    c.start(":");
    let out = c.runtime.exec(&c.id, &["mkdir", "/tmp/x"]).code(1);
    assert!(out.stderr.contains("not supported"), "{out}");
}

#[test]
fn exec_in_a_paused_container_waits_if_asked() {
    needs_root!();
    let mut c = Container::new();
    c.start(":");
    c.runtime.call(["pause", &c.id]).ok();
    let mut child = c
        .runtime
        .command(["exec", "--ignore-paused", &c.id, "sh", "-c", "echo ran >/tmp/ran"])
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!c.bundle.rootfs().join("tmp/ran").exists());
    c.runtime.call(["resume", &c.id]).ok();
    assert!(child.wait().unwrap().success());
    assert_eq!(c.wait_file("tmp/ran"), "ran\n");
}

#[test]
fn exec_cpu_affinity_is_set_before_and_after_the_cgroup() {
    needs_root!();
    let mut c = Container::new();
    c.start(":");
    let file = c.host_path("process.json");
    let mut process = json!({
        "args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"],
        "user": { "uid": 0, "gid": 0 },
        "execCPUAffinity": { "initial": "0", "final": "0" }
    });
    fs::write(&file, process.to_string()).unwrap();
    let out = c.runtime.call(["exec", "-p", file.to_str().unwrap(), &c.id]).ok();
    assert_eq!(out.text(), "Cpus_allowed_list:\t0");
    process["execCPUAffinity"]["final"] = json!("nonsense");
    fs::write(&file, process.to_string()).unwrap();
    let out = c.runtime.call(["exec", "-p", file.to_str().unwrap(), &c.id]).code(255);
    assert!(out.stderr.contains("/execCPUAffinity"), "{out}");
}

#[test]
fn exec_joins_a_user_namespace_and_a_time_namespace() {
    needs_root!();
    let mut c = Container::new();
    let all = c.bundle.config_mut()["linux"]["namespaces"].as_array_mut().unwrap();
    all.push(json!({ "type": "user" }));
    all.push(json!({ "type": "time" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    c.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    c.set("/linux/timeOffsets", json!({ "boottime": { "secs": 864_000 } }));
    c.start(":");
    assert_eq!(c.exec("id -u; cat /proc/self/uid_map | tr -s ' '"), "0\n 0 100000 65536");
    assert_eq!(c.exec("readlink /proc/self/ns/time"), c.exec("readlink /proc/1/ns/time"));
    let uptime: f64 = c.exec("cut -d' ' -f1 /proc/uptime").parse().unwrap();
    assert!(uptime > 864_000.0, "{uptime}");
}
