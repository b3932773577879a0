//! dhow-runtime under containerd's own shim: a task's whole life through `ctr`.

use dhow_tests::callers::Steps;
use dhow_tests::callers::containerd::Containerd;
use dhow_tests::command::{Output, wait_for};
use dhow_tests::sandbox::{CgroupLayout, cgroup_layout};
use dhow_tests::{leftovers, skip, skip_part};
use serde_json::Value;
use std::fs;
use std::time::Duration;

#[test]
fn containerd_shim() {
    let containerd = match Containerd::start() {
        Ok(containerd) => containerd,
        Err(reason) => skip!("{reason}"),
    };
    let mut steps = Steps::new("containerd");
    life(&containerd, &mut steps);
    settings(&containerd, &mut steps);
    errors(&containerd, &mut steps);
    steps.step("nothing is left", || {
        let tasks = containerd.ctr(["task", "list", "--quiet"]).ok();
        tasks.stdout.lines().for_each(|id| containerd.remove(id));
        let root = containerd.runtime_root();
        let entries = || leftovers::entries(&root);
        wait_for(Duration::from_secs(5), || entries().is_empty().then_some(()));
        assert!(entries().is_empty(), "in the runtime's root: {:?}", entries());
        // The namespace's cgroup is the test's own, the containers' are below it.
        let below = format!("{}/", containerd.sandbox().tag());
        let found = leftovers::find(containerd.sandbox().tag());
        let cgroups: Vec<_> =
            found.iter().filter(|l| l.starts_with("cgroup") && l.contains(&below)).collect();
        assert!(cgroups.is_empty(), "{cgroups:#?}");
        let shims: Vec<_> = found.iter().filter(|l| l.contains("containerd-shim")).collect();
        assert!(shims.is_empty(), "{shims:#?}");
    });
    steps.finish();
}

/// `ctr` prints the JSON of metrics and of containers.
fn json(out: Output) -> Value {
    out.ok().json()
}

fn life(containerd: &Containerd, steps: &mut Steps) {
    steps.step("run: outputs, input and exit code", || {
        let out = containerd.run(&[], "one", &["sh", "-c", "echo out; echo err >&2; exit 7"]).code(7);
        assert_eq!((out.text(), out.stderr.trim()), ("out", "err"));
        // ctr does not pass on the end of its input, so the container must know where to stop.
        let out = containerd.run_with_input(&[], "input", &["head", "-n", "1"], b"through\n").ok();
        assert_eq!(out.stdout, "through\n");
    });
    steps.step("run: a terminal", || {
        let script = "tty; stty size; exit 3";
        let command =
            containerd.run_command(&["--rm", "--tty"], "tty", &["sh", "-c", &format!("sleep 0.5; {script}")]);
        let out = containerd.on_terminal("stty rows 30 cols 90;", &command).code(3);
        assert!(out.stdout.contains("/dev/pts/0") && out.stdout.contains("30 90"), "{out}");
    });
    steps.step("a task that ends by itself waits for its delete", || {
        containerd.run_detached(&["--null-io"], "two", &["sh", "-c", "exit 6"]).ok();
        containerd.wait_status("two", "STOPPED");
        let out = containerd.ctr(["task", "delete", "two"]);
        assert!(out.code == 6 || out.stderr.contains("exit code 6"), "{out}");
        containerd.ctr(["container", "delete", "two"]).ok();
    });
    steps.step("exec: code, user, directory, environment, terminal", || {
        containerd.run_detached(&[], "long", &["sleep", "1000"]).ok();
        containerd.wait_status("long", "RUNNING");
        containerd.exec(&[], "long", &["sh", "-c", "exit 9"]).code(9);
        let out =
            containerd.exec(&["--user", "1000:1000", "--cwd", "/tmp"], "long", &["sh", "-c", "id -u; pwd"]);
        assert_eq!(out.ok().stdout, "1000\n/tmp\n");
        let exec = ["task", "exec", "--tty", "--exec-id", "terminal", "long"];
        let script = ["sh", "-c", "sleep 0.5; tty; stty size; exit 2"];
        let command = containerd.command([&exec[..], &script[..]].concat());
        let out = containerd.on_terminal("stty rows 31 cols 91;", &command).code(2);
        assert!(out.stdout.contains("/dev/pts/") && out.stdout.contains("31 91"), "{out}");
        let out = containerd.exec(&[], "long", &["nocommand"]);
        assert!(out.code != 0 && out.stderr.contains("executable file not found in $PATH"), "{out}");
    });
    steps.step("ps: the pids of init and of an exec", || {
        containerd.ctr(["task", "exec", "--detach", "--exec-id", "second", "long", "sleep", "999"]).ok();
        let pids = || {
            let out = containerd.ctr(["task", "ps", "long"]).ok();
            out.stdout
                .lines()
                .skip(1)
                .filter_map(|l| l.split_whitespace().next()?.parse::<u32>().ok())
                .count()
        };
        assert!(
            wait_for(Duration::from_secs(5), || (pids() == 2).then_some(())).is_some(),
            "{} pids",
            pids()
        );
        let ps = containerd.ctr(["task", "ps", "long"]).ok();
        assert!(ps.stdout.contains("second"), "{ps}");
        containerd.ctr(["task", "kill", "--exec-id", "second", "--signal", "KILL", "long"]).ok();
        assert!(
            wait_for(Duration::from_secs(5), || (pids() == 1).then_some(())).is_some(),
            "{} pids",
            pids()
        );
    });
    steps.step("metrics", || {
        let metrics = json(containerd.ctr(["task", "metrics", "--format", "json", "long"]));
        let text = metrics.to_string();
        assert!(text.contains("pids") && text.contains("memory"), "{text}");
    });
    steps.step("pause and resume", || {
        containerd.ctr(["task", "pause", "long"]).ok();
        assert_eq!(containerd.status("long").as_deref(), Some("PAUSED"));
        assert!(!containerd.exec(&[], "long", &["true"]).success(), "exec in a paused container");
        containerd.ctr(["task", "resume", "long"]).ok();
        containerd.wait_status("long", "RUNNING");
        containerd.exec(&[], "long", &["true"]).ok();
    });
    steps.step("kill, stopped, delete says the exit code", || {
        let out = containerd.ctr(["task", "delete", "long"]);
        assert!(!out.success(), "a running task was deleted: {out}");
        containerd.ctr(["task", "kill", "--signal", "SIGKILL", "long"]).ok();
        containerd.wait_status("long", "STOPPED");
        let out = containerd.ctr(["task", "delete", "long"]);
        assert!(out.code == 137 || out.stderr.contains("exit code 137"), "{out}");
        containerd.ctr(["container", "delete", "long"]).ok();
    });
    steps.step("kill --all reaches every process of a shared pid namespace", || {
        let script = "trap '' TERM; sleep 1000 & sleep 1001 & wait";
        containerd.run_detached(&["--with-ns", "pid:/proc/1/ns/pid"], "pids", &["sh", "-c", script]).ok();
        containerd.wait_status("pids", "RUNNING");
        let ours =
            || containerd.sandbox().shell("ps ax -o args | grep -c '^sleep 100[01]$'").text().to_owned();
        assert!(wait_for(Duration::from_secs(5), || (ours() == "2").then_some(())).is_some(), "{}", ours());
        containerd.ctr(["task", "kill", "--all", "--signal", "SIGKILL", "pids"]).ok();
        containerd.wait_status("pids", "STOPPED");
        assert!(wait_for(Duration::from_secs(5), || (ours() == "0").then_some(())).is_some(), "{}", ours());
        containerd.remove("pids");
    });
    steps.step("an OOM kill comes as an event", || {
        let log = containerd.sandbox().join("events.log");
        let mut events = containerd.command(["events"]);
        let mut events = events.stdout(fs::File::create(&log).unwrap()).spawn().expect("ctr starts");
        std::thread::sleep(Duration::from_millis(500));
        let script = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
        let out = containerd.run(&["--memory-limit", "16777216"], "oom", &["sh", "-c", script]);
        let seen = wait_for(Duration::from_secs(5), || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            (text.contains("/tasks/oom") && text.contains("/tasks/delete")).then_some(())
        });
        let _ = events.kill();
        let _ = events.wait();
        out.code(137);
        let text = fs::read_to_string(&log).unwrap_or_default();
        assert!(seen.is_some(), "{text}");
        for topic in ["/tasks/create", "/tasks/start", "/tasks/exit"] {
            assert!(text.contains(topic), "no {topic} in {text}");
        }
    });
}

fn settings(containerd: &Containerd, steps: &mut Steps) {
    steps.step("environment, directory, mounts, read-only root", || {
        let dir = containerd.sandbox().scratch().dir("shared");
        fs::write(dir.join("file"), "content\n").unwrap();
        let mount = format!("type=bind,src={},dst=/mnt,options=rbind:ro", dir.display());
        let options = ["--env", "A=b", "--cwd", "/tmp", "--mount", &mount, "--read-only"];
        let script = "echo $A; pwd; cat /mnt/file; touch /mnt/x /x 2>/dev/null || echo kept";
        let out = containerd.run(&options, "settings", &["sh", "-c", script]).ok();
        assert_eq!(out.stdout, "b\n/tmp\ncontent\nkept\n");
    });
    steps.step("capabilities, seccomp, no new privileges", || {
        let cat = ["cat", "/proc/self/status"];
        let options = ["--cap-add", "CAP_NET_ADMIN", "--cap-drop", "CAP_CHOWN", "--seccomp"];
        let out = containerd.run(&options, "rights", &cat).ok();
        for line in ["CapEff:\t00000000a80435fa", "Seccomp:\t2", "NoNewPrivs:\t1"] {
            assert!(out.stdout.contains(line), "no {line:?} in {out}");
        }
        let out = containerd.run(&["--allow-new-privs"], "rights", &cat).ok();
        assert!(out.stdout.contains("NoNewPrivs:\t0") && out.stdout.contains("Seccomp:\t0"), "{out}");
    });
    steps.step("limits and devices", || {
        let options = ["--memory-limit", "67108864", "--cpus", "0.5", "--device", "/dev/kmsg"];
        containerd.run_detached(&options, "limits", &["sleep", "1000"]).ok();
        let tag = containerd.sandbox().tag();
        let limit = |v1: (&str, &str), v2: &str| {
            let path = match cgroup_layout() {
                CgroupLayout::Unified => format!("/sys/fs/cgroup/{tag}/limits/{v2}"),
                _ => format!("/sys/fs/cgroup/{}/{tag}/limits/{}", v1.0, v1.1),
            };
            fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
        };
        assert_eq!(limit(("memory", "memory.limit_in_bytes"), "memory.max"), "67108864");
        let quota = limit(("cpu", "cpu.cfs_quota_us"), "cpu.max");
        assert!(quota == "50000" || quota == "50000 100000", "{quota}");
        containerd.exec(&[], "limits", &["test", "-c", "/dev/kmsg"]).ok();
        containerd.remove("limits");
    });
    steps.step("the host's network", || {
        let out = containerd.run(&["--net-host"], "net", &["readlink", "/proc/self/ns/net"]).ok();
        let host = containerd.sandbox().run("readlink", ["/proc/1/ns/net"]).ok();
        assert_eq!(out.text(), host.text());
        let out = containerd.run(&[], "net", &["readlink", "/proc/self/ns/net"]).ok();
        assert_ne!(out.text(), host.text());
    });
    steps.step("a user namespace", || {
        let options = ["--uidmap", "0:200000:65536", "--gidmap", "0:300000:65536"];
        let script = "cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /tmp/x && stat -c %u /tmp/x /bin/sh; \
                      mount -t tmpfs x /mnt 2>/dev/null || echo no mount";
        let out = containerd.run(&options, "users", &["sh", "-c", script]).ok();
        let words: Vec<_> = out.stdout.split_whitespace().collect();
        let expected = ["0", "200000", "65536", "0", "300000", "65536", "0", "0", "0", "no", "mount"];
        assert_eq!(words, expected);
    });
    steps.step("a configuration of one's own", || {
        let bundle = dhow_tests::Bundle::busybox();
        let mut config = bundle.config().clone();
        config["process"]["args"] =
            serde_json::json!(["sh", "-c", "cat /etc/hostname; echo $GIVEN; ls /only"]);
        config["process"]["env"] = serde_json::json!(["PATH=/bin", "GIVEN=yes"]);
        config["root"]["path"] = serde_json::json!(bundle.rootfs());
        config["linux"]["cgroupsPath"] = serde_json::json!(format!("/{}/own", containerd.sandbox().tag()));
        fs::write(bundle.rootfs().join("etc/hostname"), "own\n").unwrap();
        fs::create_dir(bundle.rootfs().join("only")).unwrap();
        fs::write(bundle.rootfs().join("only/here"), "").unwrap();
        let path = containerd.sandbox().join("own.json");
        fs::write(&path, config.to_string()).unwrap();
        let mut command = containerd.command(["run", "--rm", "--runc-binary"]);
        command
            .arg(dhow_tests::runtime::binary())
            .arg("--runc-root")
            .arg(containerd.sandbox().join("runtime-root"));
        let out = dhow_tests::run(command.arg("--config").arg(&path).arg("own")).ok();
        assert_eq!(out.stdout, "own\nyes\nhere\n");
    });
}

fn errors(containerd: &Containerd, steps: &mut Steps) {
    steps.step("a command that is not there, or not executable", || {
        let out = containerd.run(&[], "missing", &["nocommand"]);
        assert!(out.code != 0 && out.stderr.contains("executable file not found in $PATH"), "{out}");
        containerd.remove("missing");
        let out = containerd.run(&[], "plain", &["/etc/passwd"]);
        assert!(out.code != 0 && out.stderr.contains("permission denied"), "{out}");
        containerd.remove("plain");
    });
    steps.step("a mount that cannot be made", || {
        let options = ["--mount", "type=bind,src=/no/such/source,dst=/mnt,options=rbind"];
        let out = containerd.run(&options, "mount", &["true"]);
        assert!(out.code != 0 && out.stderr.contains("/no/such/source"), "{out}");
        containerd.remove("mount");
    });
    steps.step("the runtime's process is killed while it creates", || {
        if !dhow_tests::runtime::is_dhow() {
            skip_part!("the peer leaves its cgroups behind when it is killed");
            return;
        }
        // The shim then does `delete --force`, which must find whatever there is.
        let wrapper = containerd.sandbox().join("killed-runtime");
        let binary = dhow_tests::runtime::binary();
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *\" create \"*) timeout --signal KILL 0.02 {0} \"$@\"; exit $?;; esac\n\
             exec {0} \"$@\"\n",
            binary.display()
        );
        fs::write(&wrapper, script).unwrap();
        dhow_tests::run(std::process::Command::new("chmod").arg("755").arg(&wrapper)).ok();
        for n in 0..3 {
            let id = format!("killed{n}");
            let mut command = containerd.command(["run", "--rm", "--runc-binary"]);
            command.arg(&wrapper).arg("--runc-root").arg(containerd.sandbox().join("runtime-root"));
            let image = dhow_tests::callers::containerd::IMAGE;
            // Whether it was killed in time does not matter here: what is left at the end does.
            dhow_tests::run(command.args([image, &id, "true"]));
            containerd.remove(&id);
        }
    });
}
