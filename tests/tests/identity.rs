//! SECURITY.md classes G and H: who a container's process is, and what of the config reaches hooks and sysctls.

use dhow_tests::skip::is_root;
use dhow_tests::{Bundle, Output, leftovers, skip};
use serde_json::json;
use std::fs;

/// `/proc/self/status` of a process in the container, as key and value.
fn status(out: &Output) -> impl Fn(&str) -> String {
    let text = out.stdout.clone();
    move |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {key} in {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn users_and_groups_are_those_of_the_config_and_no_others() {
    if !is_root() {
        skip!("not root");
    }
    let mut bundle = Bundle::busybox();
    let runtime = bundle.runtime();
    // The caller's own supplementary groups must not come along.
    for (uid, gid, groups) in [
        (0u32, 0u32, vec![]),
        (1000, 1001, vec![7u32, 4_294_967_294]),
        (4_294_967_294, 4_294_967_294, vec![]),
        (65534, 0, vec![5]),
    ] {
        bundle.set("/process/user", json!({ "uid": uid, "gid": gid, "additionalGids": groups }));
        bundle.args(["/bin/cat", "/proc/self/status"]).write();
        let out = runtime.run("who", &bundle).ok();
        let status = status(&out);
        let four = |n: u32| [n; 4].map(|n| n.to_string()).join(" ");
        assert_eq!(status("Uid"), four(uid));
        assert_eq!(status("Gid"), four(gid));
        let listed: Vec<String> = groups.iter().map(u32::to_string).collect();
        assert_eq!(status("Groups"), listed.join(" "), "uid {uid}");
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(status(set), "0000000000000000", "{set} for uid {uid}");
        }
        // Without ambient capabilities the kernel takes all of them from a user other than root at execve.
        let expected = if uid == 0 { "00000000a80425fb" } else { "0000000000000000" };
        assert_eq!((status("CapEff").as_str(), status("CapPrm").as_str()), (expected, expected), "uid {uid}");
        assert_eq!(status("CapBnd"), "00000000a80425fb", "uid {uid}");
    }
}

#[test]
fn exec_is_as_strict_as_run() {
    if !is_root() {
        skip!("not root");
    }
    let mut bundle = Bundle::busybox();
    bundle.args(["/bin/sleep", "100"]).write();
    let runtime = bundle.runtime();
    runtime.run_detached("who", &bundle).ok();
    let out = runtime
        .call(["exec", "--user=1000:1001", "--additional-gids=7", "who", "/bin/cat", "/proc/self/status"])
        .ok();
    let found = status(&out);
    assert_eq!((found("Uid").as_str(), found("Groups").as_str()), ("1000 1000 1000 1000", "7"));
    assert_eq!(
        (found("CapInh").as_str(), found("CapAmb").as_str()),
        ("0000000000000000", "0000000000000000")
    );
    for user in ["4294967295", "-1", "4294967296", "0:4294967295", "root", "1000:", "0x0", "+1", " 1", ""] {
        let out = runtime.call(["exec", &format!("--user={user}"), "who", "/bin/id"]);
        // An empty flag is as good as none, as with runc.
        assert!(!out.success() || user.is_empty(), "--user {user:?}: {out}");
    }
    runtime.delete_force("who").ok();
}

#[test]
fn ids_beyond_the_last_are_refused() {
    if !is_root() {
        skip!("not root");
    }
    let mut bundle = Bundle::busybox();
    let runtime = bundle.runtime();
    for (pointer, value) in [
        ("/process/user/uid", json!(4_294_967_295u64)),
        ("/process/user/gid", json!(4_294_967_295u64)),
        ("/process/user/additionalGids", json!([4_294_967_295u64])),
        ("/process/user/uid", json!(4_294_967_296u64)),
        ("/process/user/uid", json!(-1)),
        ("/process/user/uid", json!("0")),
    ] {
        bundle.set("/process/user", json!({ "uid": 0, "gid": 0 }));
        bundle.set(pointer, value.clone()).write();
        let out = runtime.run("beyond", &bundle);
        assert!(!out.success(), "{pointer} {value}: {out}");
        assert!(out.stderr.contains("/process/user"), "{pointer} {value}: {out}");
        assert_eq!(runtime.ids_on_disk(), Vec::<String>::new());
    }
}

#[test]
fn a_sysctl_of_the_host_is_refused() {
    if !is_root() {
        skip!("not root");
    }
    let mut bundle = Bundle::busybox();
    let runtime = bundle.runtime();
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read core_pattern");
    // What the host has already: a runtime that lets one through must not change the machine that tests it.
    let value = |name: &str| {
        let path =
            if name.contains("core_pattern") { "kernel/core_pattern".into() } else { name.replace('.', "/") };
        let now = fs::read_to_string(format!("/proc/sys/{path}"));
        now.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    };
    for name in [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "kernel.modprobe",
        "vm.overcommit_memory",
        "fs.file-max",
        "kernel.shm_rmid_forced/../core_pattern",
        "net.ipv4.../../../kernel.core_pattern",
        "net/../kernel/core_pattern",
        "fs.mqueue/../../kernel/core_pattern",
        "kernel.shmmax/",
        "",
        ".",
        "/",
        "kernel",
        "kernel.hotplug",
        "user",
        "kernel.msgmax\u{0}x",
        "NET.ipv4.ip_forward",
        "user.max_user_namespaces",
    ] {
        bundle.set("/linux/sysctl", json!({ name: value(name) })).write();
        let out = runtime.run("sysctl", &bundle);
        assert!(!out.success(), "{name:?}: {out}");
        assert!(out.stderr.contains("/linux/sysctl"), "{name:?}: {out}");
    }
    bundle.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "4096" }));
    bundle.shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax").write();
    assert_eq!(runtime.run("sysctl", &bundle).ok().stdout, "1\n4096\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read core_pattern"), pattern);
    // The same name, without a namespace of its own, is the host's.
    for (namespace, name) in [("network", "net.ipv4.ip_forward"), ("ipc", "kernel.msgmax")] {
        let mut bundle = Bundle::busybox();
        bundle.without_namespace(namespace).set("/linux/sysctl", json!({ name: value(name) })).write();
        let out = runtime.run("sysctl", &bundle);
        assert!(!out.success() && out.stderr.contains("/linux/sysctl"), "{name}: {out}");
    }
}

#[test]
fn hooks_get_their_own_environment_and_nothing_else() {
    if !is_root() {
        skip!("not root");
    }
    let mut bundle = Bundle::busybox();
    let runtime = bundle.runtime();
    let kinds = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    for kind in kinds {
        // startContainer's path and file are in the container.
        let file = if kind == "startContainer" {
            "/seen".into()
        } else {
            bundle.scratch().join(kind).display().to_string()
        };
        let script = format!(
            "read -r all </proc/self/environ; echo \"$all\" >{file}; ls -l /proc/self/fd >{file}.fds"
        );
        for environment in [json!(null), json!(["ONLY=this"])] {
            let mut hook = json!({ "path": "/bin/busybox", "args": ["busybox", "sh", "-c", script] });
            if !environment.is_null() {
                hook["env"] = environment.clone();
            }
            bundle.set("/hooks", json!({ kind: [hook] }));
            bundle.set("/process/env", json!(["PATH=/bin", "LD_PRELOAD=/evil.so", "SECRET=1"]));
            bundle.args(["/bin/true"]).write();
            let mut command =
                runtime.command(["run", "--bundle", bundle.path().to_str().expect("UTF-8"), "hooked"]);
            command.env("CALLER", "secret").env("LD_LIBRARY_PATH", "/nowhere");
            let out = dhow_tests::run(&mut command);
            let file = if kind == "startContainer" {
                bundle.rootfs().join("seen")
            } else {
                bundle.scratch().join(kind)
            };
            let seen = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{kind}: {e}: {out}"));
            let expected = match (environment.is_null(), kind) {
                (false, _) => "ONLY=this",
                // In the container, as the container: it has the program's, as with runc.
                (true, "startContainer") => "PATH=/binLD_PRELOAD=/evil.soSECRET=1HOME=/root",
                // On the host nothing of the image may reach a hook (CVE-2025-23266), nor of the caller.
                (true, _) => "",
            };
            assert_eq!(seen.trim_end(), expected, "{kind}");
            let fds = fs::read_to_string(format!("{}.fds", file.display())).expect("what the hook has open");
            // What the shell has open itself is a pipe, /proc, or what it redirects to.
            let leaked: Vec<&str> = fds
                .lines()
                .filter_map(|l| Some(l.split_once(" -> ")?.1))
                .filter(|to| {
                    to.contains("socket:")
                        || to.ends_with(".fifo")
                        || to.contains("/state")
                        || *to == "/"
                        || to.ends_with(bundle.tag())
                        || to.contains("anon_inode")
                        || to.ends_with(".json")
                })
                .collect();
            assert!(leaked.is_empty(), "{kind} has {leaked:?} open");
            fs::remove_file(&file).expect("remove the hook's file");
            fs::remove_file(format!("{}.fds", file.display())).expect("remove the hook's file");
        }
    }
    leftovers::assert_none(bundle.tag(), Some(runtime.root()));
}
