//! `process`: user, limits, scheduling, capabilities and the rest, and what of `linux` is the process's too.

use crate::{needs_root, refused};
use dhow_tests::Container;
use serde_json::{Value, json};

#[test]
fn arguments_environment_and_directory_arrive() {
    needs_root!();
    let mut c = Container::new();
    c.set("/process/env", json!(["PATH=/bin", "EMPTY=", "SPACE=a b", "TWICE=1", "TWICE=2", "EQUALS=a=b"]));
    c.set("/process/cwd", json!("/made/on/demand"));
    c.bundle.args(["printf", "%s|", "a b", "", "*"]).write();
    assert_eq!(c.runtime.run(&c.id, &c.bundle).ok().stdout, "a b||*|");
    let seen = c.see("pwd; env | grep -v -e ^PWD -e ^SHLVL -e ^HOME | sort");
    assert!(seen.starts_with("/made/on/demand\n"), "{seen}");
    for line in ["EMPTY=", "EQUALS=a=b", "PATH=/bin", "SPACE=a b"] {
        assert!(seen.lines().any(|l| l == line), "no {line} in {seen}");
    }
    // Without PATH the default one is searched, but the container does not get it.
    c.set("/process/env", json!(["A=b"]));
    c.bundle.args(["env"]).write();
    let out = c.runtime.run(&c.id, &c.bundle).ok();
    assert_eq!(out.text(), "A=b\nHOME=/root");
}

#[test]
fn a_directory_the_user_may_not_enter_is_refused() {
    needs_root!();
    let mut c = Container::new();
    c.write("private/file", "");
    use std::os::unix::fs::PermissionsExt;
    let private = c.bundle.rootfs().join("private");
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o700)).unwrap();
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 })).set("/process/cwd", json!("/private"));
    c.set("/process/capabilities", json!({}));
    let output = c.run("true");
    if output.success() {
        // It was entered as root, before the user was set: as runc does.
        assert_eq!(c.see("pwd"), "/private");
    }
    // What only the user may enter (FUSE, NFS) works as well.
    std::os::unix::fs::chown(&private, Some(1000), Some(1000)).unwrap();
    assert_eq!(c.see("pwd; ls"), "/private\nfile");
    c.set("/process/cwd", json!("/etc/passwd"));
    refused(&c.run("true"), "ot a directory");
}

#[test]
fn the_user_has_its_ids_groups_and_umask() {
    needs_root!();
    let mut c = Container::new();
    c.set("/process/user", json!({ "uid": 1000, "gid": 2000, "additionalGids": [30, 40], "umask": 0o27 }));
    c.write("work/x", "");
    std::os::unix::fs::chown(c.bundle.rootfs().join("work"), Some(1000), None).unwrap();
    let see = "grep -E '^([UG]id|Groups):' /proc/self/status | tr -s '\\t ' ' ' | sed 's/ $//'; umask; touch /work/file; stat -c %a /work/file";
    assert_eq!(c.see(see), "Uid: 1000 1000 1000 1000\nGid: 2000 2000 2000 2000\nGroups: 30 40\n0027\n640");
    c.set("/process/user", json!({ "uid": 0, "gid": 0 }));
    assert_eq!(
        c.see("grep ^Groups: /proc/self/status | tr -s '\\t ' ' ' | sed 's/ $//'; umask"),
        "Groups:\n0022"
    );
}

#[test]
fn home_is_that_of_the_users_line_in_passwd() {
    needs_root!();
    let mut c = Container::new();
    c.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nbad line\nuser:x:1000:1000::/home/user:/bin/sh\n");
    for (uid, home) in [(0, "/root"), (1000, "/home/user"), (1001, "/")] {
        c.set("/process/user", json!({ "uid": uid, "gid": 0 }));
        assert_eq!(c.see("echo $HOME"), home);
    }
    c.set("/process/env/0", json!("PATH=/bin"));
    c.bundle.config_mut()["process"]["env"].as_array_mut().unwrap().push(json!("HOME=/given"));
    assert_eq!(c.see("echo $HOME"), "/given");
    c.bundle.config_mut()["process"]["env"].as_array_mut().unwrap().pop();
    std::fs::remove_file(c.bundle.rootfs().join("etc/passwd")).unwrap();
    assert_eq!(c.see("echo $HOME"), "/");
    // A passwd that is no file must neither hang nor be believed.
    dhow_tests::run(std::process::Command::new("mkfifo").arg(c.bundle.rootfs().join("etc/passwd"))).ok();
    assert_eq!(c.see("echo $HOME"), "/");
}

#[test]
fn every_rlimit_is_set() {
    needs_root!();
    let lines = [
        ("RLIMIT_CPU", "Max cpu time", 1000, 2000),
        ("RLIMIT_FSIZE", "Max file size", 1_000_000, 2_000_000),
        ("RLIMIT_DATA", "Max data size", 50_000_000, 60_000_000),
        ("RLIMIT_STACK", "Max stack size", 4_000_000, 5_000_000),
        ("RLIMIT_CORE", "Max core file size", 0, 10),
        ("RLIMIT_RSS", "Max resident set", 70_000_000, 80_000_000),
        ("RLIMIT_NPROC", "Max processes", 5000, 6000),
        ("RLIMIT_NOFILE", "Max open files", 500, 600),
        ("RLIMIT_MEMLOCK", "Max locked memory", 10_000, 20_000),
        ("RLIMIT_AS", "Max address space", 800_000_000, 900_000_000),
        ("RLIMIT_LOCKS", "Max file locks", 11, 12),
        ("RLIMIT_SIGPENDING", "Max pending signals", 13, 14),
        ("RLIMIT_MSGQUEUE", "Max msgqueue size", 1500, 1600),
        ("RLIMIT_NICE", "Max nice priority", 0, 0),
        ("RLIMIT_RTPRIO", "Max realtime priority", 0, 0),
        ("RLIMIT_RTTIME", "Max realtime timeout", 17, 18),
    ];
    let mut c = Container::new();
    let limits: Vec<Value> = lines
        .iter()
        .map(|(kind, _, soft, hard)| json!({ "type": kind, "soft": soft, "hard": hard }))
        .collect();
    c.set("/process/rlimits", json!(limits));
    let seen = c.see("cat /proc/self/limits");
    for (kind, name, soft, hard) in lines {
        let line = seen.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        let values: Vec<_> = line[name.len()..].split_whitespace().collect();
        assert_eq!(values[..2], [soft.to_string(), hard.to_string()], "{kind}");
    }
}

#[test]
fn capabilities_are_the_five_sets() {
    needs_root!();
    let mut c = Container::new();
    let see = "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2";
    let sets =
        |seen: &str| -> Vec<u64> { seen.lines().map(|l| u64::from_str_radix(l, 16).unwrap()).collect() };
    // Of a program that root executes the kernel raises permitted and effective to inheritable and bounding;
    // as another user the sets are what was given.
    c.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    c.set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_ADMIN"],
            "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
            "effective": ["CAP_CHOWN", "CAP_KILL"],
            "inheritable": ["CAP_CHOWN", "CAP_SETUID"],
            "ambient": ["CAP_CHOWN"]
        }),
    );
    let (chown, kill, setuid, net_admin) = (1u64, 1u64 << 5, 1u64 << 7, 1u64 << 12);
    // After execve by a user other than root, permitted and effective are the ambient set.
    assert_eq!(sets(&c.see(see)), [chown | setuid, chown, chown, chown | kill | setuid | net_admin, chown]);
    c.set("/process/user", json!({ "uid": 0, "gid": 0 }));
    let all = chown | kill | setuid | net_admin;
    let root = sets(&c.see(see));
    assert_eq!((root[0], root[3]), (chown | setuid, all));
    c.set("/process/capabilities", json!({}));
    assert_eq!(sets(&c.see(see)), [0; 5]);
    c.bundle.config_mut()["process"].as_object_mut().unwrap().remove("capabilities");
    assert_eq!(sets(&c.see(see)), [0; 5]);
    // A capability that this kernel does not know is left out, with a warning.
    c.set("/process/capabilities", json!({ "bounding": ["CAP_KILL", "CAP_FUTURE"] }));
    let out = c.run(see).ok();
    assert_eq!(sets(out.text())[3], kill);
    assert!(out.stderr.contains("CAP_FUTURE"), "{out}");
}

#[test]
fn no_new_privileges_is_set_only_when_asked() {
    needs_root!();
    let mut c = Container::new();
    for (value, seen) in [(true, "1"), (false, "0")] {
        c.set("/process/noNewPrivileges", json!(value));
        assert_eq!(c.see("grep NoNewPrivs /proc/self/status | cut -f2"), seen);
    }
}

#[test]
fn the_oom_score_is_adjusted() {
    needs_root!();
    let mut c = Container::new();
    c.set("/process/oomScoreAdj", json!(456));
    assert_eq!(c.see("cat /proc/self/oom_score_adj"), "456");
    c.bundle.config_mut()["process"].as_object_mut().unwrap().remove("oomScoreAdj");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(c.see("cat /proc/self/oom_score_adj"), own.trim());
}

#[test]
fn the_scheduler_is_set() {
    needs_root!();
    let mut c = Container::new();
    // Nice value, realtime priority, policy.
    let see = "cut -d' ' -f19,40,41 /proc/self/stat";
    c.set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 7 }));
    assert_eq!(c.see(see), "7 0 3");
    c.set("/process/scheduler", json!({ "policy": "SCHED_IDLE" }));
    assert_eq!(c.see(see), "0 0 5");
    c.set(
        "/process/scheduler",
        json!({ "policy": "SCHED_OTHER", "nice": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"] }),
    );
    assert_eq!(c.see("cut -d' ' -f19,40,41 /proc/$$/stat"), "3 0 0");
    c.set("/process/scheduler", json!({ "policy": "SCHED_FIFO", "priority": 5 }));
    let out = c.run(see);
    if out.success() {
        assert_eq!(out.text(), "0 5 1");
    } else {
        // A cgroup without realtime runtime, or no capability for it.
        refused(&out, "/process/scheduler");
    }
}

#[test]
fn a_deadline_is_scheduled_or_refused() {
    needs_root!();
    let mut c = Container::new();
    let times = json!({ "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 5_000_000, "period": 10_000_000 });
    c.set("/process/scheduler", times);
    c.bundle.args(["/bin/cut", "-d ", "-f41", "/proc/self/stat"]).write();
    let out = c.runtime.run(&c.id, &c.bundle);
    if out.success() {
        assert_eq!(out.text(), "6");
    } else {
        // In a cpuset or with little bandwidth left the kernel admits nobody.
        refused(&out, "/process/scheduler");
    }
    c.set("/process/scheduler/runtime", json!(20_000_000));
    refused(&c.run("true"), "/process/scheduler");
}

#[test]
fn the_io_priority_is_set() {
    needs_root!();
    let mut c = Container::new();
    c.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }));
    assert_eq!(c.see("ionice -p $$"), "best-effort: prio 6");
    c.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 }));
    assert!(c.see("ionice -p $$").starts_with("idle"));
    c.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_RT", "priority": 1 }));
    assert_eq!(c.see("ionice -p $$"), "realtime: prio 1");
}

#[test]
fn the_personality_is_set() {
    needs_root!();
    let mut c = Container::new();
    c.set("/linux/personality", json!({ "domain": "LINUX32" }));
    let machine = c.see("uname -m");
    if cfg!(target_arch = "x86_64") {
        assert_eq!(machine, "i686");
    }
    assert_eq!(c.see("cat /proc/self/personality"), "00000008");
    c.start(":");
    assert_eq!(c.exec("cat /proc/self/personality"), "00000008", "exec is in the container's domain");
    let mut c = Container::new();
    c.set("/linux/personality", json!({ "domain": "LINUX" }));
    assert_eq!(c.see("cat /proc/self/personality"), "00000000");
}

#[test]
fn the_memory_policy_is_set_or_refused_by_name() {
    needs_root!();
    let mut c = Container::new();
    c.set("/linux/memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "0" }));
    let out = c.run("head -n1 /proc/self/numa_maps | cut -d' ' -f2");
    if std::path::Path::new("/proc/self/numa_maps").exists() {
        assert_eq!(out.ok().text(), "bind:0");
    } else {
        refused(&out, "/linux/memoryPolicy");
    }
    if std::path::Path::new("/proc/self/numa_maps").exists() {
        for (policy, seen) in [
            (json!({ "mode": "MPOL_DEFAULT" }), "default"),
            (json!({ "mode": "MPOL_LOCAL" }), "local"),
            (json!({ "mode": "MPOL_PREFERRED", "nodes": "0" }), "prefer:0"),
            (json!({ "mode": "MPOL_PREFERRED_MANY", "nodes": "0" }), "prefer"),
            (json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" }), "interleave:0"),
            (json!({ "mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0" }), "weighted"),
            (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }), "bind=static:0"),
            (
                json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"] }),
                "bind=relative:0",
            ),
        ] {
            c.set("/linux/memoryPolicy", policy.clone());
            let found = c.see("head -n1 /proc/self/numa_maps | cut -d' ' -f2");
            assert!(found.starts_with(seen), "{policy}: {found}");
        }
    }
    c.set("/linux/memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "zero" }));
    refused(&c.run("true"), "/linux/memoryPolicy/nodes");
}

#[test]
fn a_container_has_a_session_keyring_of_its_own() {
    needs_root!();
    let mut c = Container::new();
    c.set("/linux/maskedPaths", json!([]));
    if c.run("cat /proc/keys | wc -l").ok().text() == "0" {
        dhow_tests::skip!("no /proc/keys");
    }
    let see = |c: &Container| format!("grep -c ' _ses.{}' /proc/keys", c.id);
    // A container each: the kernel frees a keyring some time after its last process.
    let mut own = Container::new();
    own.set("/linux/maskedPaths", json!([]));
    let script = see(&own);
    assert_eq!(own.run(&script).text(), "1");
    let mut callers = Container::new();
    callers.set("/linux/maskedPaths", json!([]));
    callers.bundle.shell(&see(&callers)).write();
    let bundle = callers.bundle.path().to_str().unwrap();
    let out = callers.runtime.call(["run", "--no-new-keyring", "-b", bundle, &callers.id]);
    assert_eq!(out.text(), "0");
}

#[test]
fn labels_without_their_security_module_are_refused() {
    needs_root!();
    let mut c = Container::new();
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        c.set("/process/selinuxLabel", json!("system_u:system_r:container_t:s0"));
        refused(&c.run("true"), "/process/selinuxLabel");
        // Without SELinux a mount label is nothing that could matter.
        c.bundle.config_mut()["process"].as_object_mut().unwrap().remove("selinuxLabel");
        c.set("/linux/mountLabel", json!("system_u:object_r:container_file_t:s0"));
        c.run("true").ok();
    }
    if !std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.first() == Some(&b'Y')) {
        c.set("/process/apparmorProfile", json!("docker-default"));
        refused(&c.run("true"), "/process/apparmorProfile");
    }
}

#[test]
fn rdt_without_resctrl_is_refused() {
    needs_root!();
    if std::fs::read_to_string("/proc/self/mounts").unwrap().contains(" resctrl ") {
        dhow_tests::skip!("resctrl is mounted");
    }
    let mut c = Container::new();
    c.set("/linux/intelRdt", json!({ "closID": "dhow-test", "schemata": ["L3:0=f"] }));
    refused(&c.run("true"), "resctrl");
    assert!(c.runtime.ids_on_disk().is_empty());
}

#[test]
fn exec_cpu_affinity_is_for_exec_only() {
    needs_root!();
    let mut c = Container::new();
    c.set("/process/execCPUAffinity", json!({ "initial": "0", "final": "0" }));
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:\t")).unwrap().to_owned();
    let see = "grep Cpus_allowed_list /proc/self/status | cut -f2";
    assert_eq!(c.see(see), own);
    c.start(":");
    assert_eq!(c.exec(see), "0");
}

#[test]
fn the_terminal_is_the_standard_streams() {
    needs_root!();
    // Console sockets and sizes: tests/lifecycle/terminal.rs.
    let mut c = Container::new();
    let out = c.run("test -t 0 || test -t 1 || test -t 2 || echo none; readlink /proc/self/fd/0").ok();
    assert_eq!(out.text(), "none\n/dev/null");
}

#[test]
fn annotations_are_in_the_state() {
    needs_root!();
    let mut c = Container::new();
    c.set("/annotations", json!({ "org.example/a~b": "c", "empty": "" }));
    c.start(":");
    assert_eq!(c.runtime.state(&c.id)["annotations"], json!({ "org.example/a~b": "c", "empty": "" }));
}
