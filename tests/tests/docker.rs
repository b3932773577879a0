//! dhow-runtime under Docker Engine: a container's whole life through the `docker` command.

use dhow_tests::callers::Steps;
use dhow_tests::callers::docker::Docker;
use dhow_tests::command::{kill_process, wait_for};
use dhow_tests::sandbox::{CgroupLayout, CgroupView, cgroup_layout};
use dhow_tests::{leftovers, runtime, skip, skip_part};
use std::time::{Duration, Instant};

/// Reads a limit of the container's own cgroup from inside: its name on v1, and on v2.
fn limit(docker: &Docker, container: &str, v1: &str, v2: &str) -> String {
    let file = if cgroup_layout() == CgroupLayout::Unified { v2 } else { v1 };
    let path = format!("/sys/fs/cgroup/{file}");
    docker.call(["exec", container, "cat", &path]).ok().text().to_owned()
}

/// The value of a line `name:<tab>value` in the text of /proc/<pid>/status.
fn status_field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim()
}

/// Docker gives a privileged container every capability the kernel knows. Where this process lacks one, runc fails;
/// the specification says that a runtime should go on without it, and dhow-runtime is held to that.
fn peer_lacks_rights() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("status of this process");
    let last =
        std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("the last capability's number");
    let all = (1u64 << (last.trim().parse::<u32>().expect("a number") + 1)) - 1;
    !runtime::is_dhow() && u64::from_str_radix(status_field(&status, "CapBnd"), 16) != Ok(all)
}

#[test]
fn docker_engine() {
    let docker = match Docker::start(CgroupView::Host) {
        Ok(docker) => docker,
        Err(reason) => skip!("{reason}"),
    };
    let mut steps = Steps::new("docker");
    basics(&docker, &mut steps);
    life(&docker, &mut steps);
    errors(&docker, &mut steps);
    rights(&docker, &mut steps);
    resources(&docker, &mut steps);
    namespaces(&docker, &mut steps);
    files(&docker, &mut steps);
    network(&docker, &mut steps);
    nothing_left(&docker, &mut steps);
    steps.finish();
}

#[test]
fn docker_on_cgroup_v2() {
    if cgroup_layout() == CgroupLayout::Unified {
        skip!("docker_engine runs on cgroup v2 here");
    }
    let docker = match Docker::start(CgroupView::V2) {
        Ok(docker) => docker,
        Err(reason) => skip!("{reason}"),
    };
    let mut steps = Steps::new("docker v2");
    basics(&docker, &mut steps);
    life(&docker, &mut steps);
    rights(&docker, &mut steps);
    namespaces(&docker, &mut steps);
    nothing_left(&docker, &mut steps);
    steps.finish();
}

#[test]
fn docker_with_user_namespaces() {
    let docker = match Docker::start_remapped(400_000) {
        Ok(docker) => docker,
        Err(reason) => skip!("{reason}"),
    };
    let mut steps = Steps::new("docker userns");
    steps.step("the container's ids are mapped", || {
        let script =
            "cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /tmp/x; stat -c '%u %g' /tmp/x /bin/sh";
        let out = docker.run(&["--rm"], &["sh", "-c", script]).ok();
        let words: Vec<_> = out.stdout.split_whitespace().collect();
        let expected = ["0", "400000", "65536", "0", "400000", "65536", "0", "0", "0", "0", "0"];
        assert_eq!(words, expected);
        docker.run(&["-d", "--name", "mapped"], &["sleep", "1000"]).ok();
        let pid = docker.inspect("mapped", "{{.State.Pid}}");
        let status = docker.sandbox().run("cat", [format!("/proc/{pid}/status")]).ok();
        assert_eq!(status_field(&status.stdout, "Uid"), "400000\t400000\t400000\t400000");
        docker.remove("mapped");
    });
    basics(&docker, &mut steps);
    life(&docker, &mut steps);
    errors(&docker, &mut steps);
    nothing_left(&docker, &mut steps);
    steps.finish();
}

fn nothing_left(docker: &Docker, steps: &mut Steps) {
    steps.step("nothing is left", || {
        let ids = docker.call(["ps", "--all", "--quiet"]).ok();
        for id in ids.stdout.lines() {
            docker.remove(id);
        }
        let left = wait_for(Duration::from_secs(5), || docker.runtime_entries().is_empty().then_some(()));
        assert!(left.is_some(), "in the runtime's root: {:?}", docker.runtime_entries());
        let tag = docker.sandbox().tag();
        // The parent cgroup is the test's own, the containers' are below it.
        let below = format!("{tag}/");
        let found = leftovers::find(tag);
        let cgroups: Vec<_> =
            found.iter().filter(|l| l.starts_with("cgroup") && l.contains(&below)).collect();
        assert!(cgroups.is_empty(), "{cgroups:#?}");
    });
}

fn basics(docker: &Docker, steps: &mut Steps) {
    steps.step("run: both outputs and the exit code", || {
        let out = docker.run(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 7"]).code(7);
        assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\n", "err\n"));
    });
    steps.step("run -i: standard input", || {
        let out = docker.run_with_input(&["--rm", "-i"], &["sh", "-c", "tr a-z A-Z"], b"hello\n").ok();
        assert_eq!(out.stdout, "HELLO\n");
    });
    steps.step("run: a signal's exit code", || {
        docker.run(&["--rm"], &["sh", "-c", "sh -c 'kill -TERM $$'; exit $?"]).code(143);
    });
    steps.step("run: environment, directory, host name", || {
        let options = ["--rm", "-e", "A=b c", "-w", "/var/new", "--hostname", "vessel"];
        let out = docker.run(&options, &["sh", "-c", "echo \"$A\"; pwd; hostname"]).ok();
        assert_eq!(out.stdout, "b c\n/var/new\nvessel\n");
    });
    steps.step("run -t: a terminal of the size given", || {
        let args = ["run", "--rm", "-t", "-i", "--runtime", "dhow", "busybox"];
        let shell = ["sh", "-c", "tty; test -t 0 && test -t 1 && echo both; exit 5"];
        let out = docker.call_on_terminal("", &[&args[..], &shell[..]].concat()).code(5);
        assert!(out.stdout.contains("/dev/pts/0\r\nboth\r\n"), "{out}");
    });
    steps.step("run: many at the same time", || {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..6)
                .map(|n| {
                    scope.spawn(move || {
                        let line = format!("echo {n}; exit {n}");
                        docker.run(&["--rm", "--network", "none"], &["sh", "-c", &line])
                    })
                })
                .collect();
            for (n, thread) in all.into_iter().enumerate() {
                let out = thread.join().expect("the thread does not panic").code(n as i32);
                assert_eq!(out.text(), n.to_string());
            }
        });
    });
}

fn life(docker: &Docker, steps: &mut Steps) {
    steps.step("run -d, logs, top, stop", || {
        let script = "echo up; trap 'echo down; exit 3' TERM; while :; do sleep 0.1; done";
        docker.run(&["-d", "--name", "life"], &["sh", "-c", script]).ok();
        let up = wait_for(Duration::from_secs(10), || {
            (docker.call(["logs", "life"]).text() == "up").then_some(())
        });
        assert!(up.is_some(), "{}", docker.call(["logs", "life"]));
        assert!(!docker.runtime_entries().is_empty(), "the runtime's root is somewhere else");
        let top = docker.call(["top", "life"]).ok();
        assert!(top.stdout.contains("trap"), "{top}");
        docker.call(["stop", "life"]).ok();
        assert_eq!(docker.inspect("life", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
        assert_eq!(docker.call(["logs", "life"]).text(), "up\ndown");
        docker.call(["start", "life"]).ok();
        docker.wait_inspect("life", "{{.State.Running}}", "true", 5);
        docker.call(["restart", "--time", "1", "life"]).ok();
        assert_eq!(docker.inspect("life", "{{.State.Running}}"), "true");
        docker.remove("life");
    });
    steps.step("stop: SIGKILL after the time given", || {
        docker.run(&["-d", "--name", "deaf"], &["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]).ok();
        let start = Instant::now();
        docker.call(["stop", "--time", "1", "deaf"]).ok();
        assert!(start.elapsed() >= Duration::from_secs(1), "stopped too early");
        assert_eq!(docker.inspect("deaf", "{{.State.ExitCode}}"), "137");
        docker.remove("deaf");
    });
    steps.step("kill -s, wait", || {
        let script = "trap 'exit 12' USR1; echo ready; while :; do sleep 0.1; done";
        docker.run(&["-d", "--name", "signal"], &["sh", "-c", script]).ok();
        wait_for(Duration::from_secs(10), || {
            (docker.call(["logs", "signal"]).text() == "ready").then_some(())
        });
        docker.call(["kill", "-s", "USR1", "signal"]).ok();
        assert_eq!(docker.call(["wait", "signal"]).ok().text(), "12");
        docker.remove("signal");
    });
    steps.step("exec: code, user, environment, directory, input", || {
        docker.run(&["-d", "--name", "exec"], &["sleep", "1000"]).ok();
        docker.call(["exec", "exec", "sh", "-c", "exit 9"]).code(9);
        let options = ["exec", "-u", "1234:56", "-e", "X=y", "-w", "/tmp", "exec"];
        let shell = ["sh", "-c", "id -u; id -g; echo $X; pwd; echo e >&2"];
        let out = docker.call([&options[..], &shell[..]].concat()).ok();
        assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("1234\n56\ny\n/tmp\n", "e\n"));
        let mut cat = docker.command(["exec", "-i", "exec", "cat"]);
        let out = dhow_tests::command::run_with(&mut cat, b"through", Duration::from_secs(20)).ok();
        assert_eq!(out.stdout, "through");
        docker.call(["exec", "-d", "exec", "touch", "/tmp/detached"]).ok();
        let made = wait_for(Duration::from_secs(5), || {
            docker.call(["exec", "exec", "test", "-e", "/tmp/detached"]).success().then_some(())
        });
        assert!(made.is_some(), "exec -d did nothing");
    });
    steps.step("exec: in the container's cgroup, with its rights", || {
        let out =
            docker.call(["exec", "exec", "sh", "-c", "cat /proc/1/cgroup; echo; cat /proc/self/cgroup"]);
        let out = out.ok();
        let (init, own) = out.stdout.split_once("\n\n").expect("two files");
        assert_eq!(init.trim(), own.trim());
        let fields = ["CapInh", "CapPrm", "CapEff", "CapBnd", "Seccomp", "NoNewPrivs"];
        let own = docker.call(["exec", "exec", "cat", "/proc/self/status"]).ok();
        let init = docker.call(["exec", "exec", "cat", "/proc/1/status"]).ok();
        for field in fields {
            assert_eq!(status_field(&own.stdout, field), status_field(&init.stdout, field), "{field}");
        }
    });
    steps.step("exec -it: a terminal, with the client's size", || {
        let shell = ["sh", "-c", "sleep 0.5; tty; stty size; exit 4"];
        let args = [&["exec", "-it", "exec"][..], &shell[..]].concat();
        let out = docker.call_on_terminal("stty rows 33 cols 77;", &args).code(4);
        assert!(out.stdout.contains("/dev/pts/") && out.stdout.contains("33 77"), "{out}");
    });
    steps.step("exec: what is not there, and what is not executable", || {
        let out = docker.call(["exec", "exec", "nocommand"]).code(126);
        let text = format!("{}{}", out.stdout, out.stderr);
        assert!(text.contains("executable file not found in $PATH"), "{out}");
        let out = docker.call(["exec", "exec", "/etc/passwd"]).code(126);
        let text = format!("{}{}", out.stdout, out.stderr);
        assert!(text.contains("permission denied"), "{out}");
        docker.remove("exec");
    });
    steps.step("pause and unpause", || {
        let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
        docker.run(&["-d", "--name", "pause"], &["sh", "-c", script]).ok();
        docker.wait_inspect("pause", "{{.State.Running}}", "true", 5);
        docker.call(["pause", "pause"]).ok();
        assert_eq!(docker.inspect("pause", "{{.State.Status}}"), "paused");
        let count = || docker.call(["logs", "pause"]).ok().stdout.lines().count();
        std::thread::sleep(Duration::from_millis(300));
        let before = count();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(count(), before, "it runs while paused");
        assert!(!docker.call(["exec", "pause", "true"]).success());
        docker.call(["unpause", "pause"]).ok();
        assert!(
            wait_for(Duration::from_secs(5), || (count() > before).then_some(())).is_some(),
            "still frozen"
        );
        docker.call(["pause", "pause"]).ok();
        docker.call(["kill", "pause"]);
        docker.call(["rm", "--force", "pause"]).ok();
    });
    steps.step("a healthcheck becomes healthy, and unhealthy", || {
        let options =
            ["-d", "--name", "health", "--health-cmd", "test -e /tmp/well", "--health-interval", "300ms"];
        let more = ["--health-retries", "2", "--health-timeout", "20s"];
        docker.run(&[&options[..], &more[..]].concat(), &["sh", "-c", "touch /tmp/well; sleep 1000"]).ok();
        docker.wait_inspect("health", "{{.State.Health.Status}}", "healthy", 20);
        docker.call(["exec", "health", "rm", "/tmp/well"]).ok();
        docker.wait_inspect("health", "{{.State.Health.Status}}", "unhealthy", 20);
        docker.remove("health");
    });
    steps.step("--init: a reaper is pid 1", || {
        // The orphan has ended and left no zombie.
        let script = "cat /proc/1/comm; sh -c 'sleep 0.1 &'; sleep 1; \
                      grep -l 'State:.*Z' /proc/[0-9]*/status 2>/dev/null; echo done";
        let out = docker.run(&["--rm", "--init"], &["sh", "-c", script]).ok();
        assert_eq!(out.stdout, "docker-init\ndone\n");
    });
    steps.step("a container that ends at once is restarted by its policy", || {
        docker.run(&["-d", "--name", "again", "--restart", "on-failure:2"], &["false"]).ok();
        docker.wait_inspect("again", "{{.RestartCount}} {{.State.Status}}", "2 exited", 20);
        docker.remove("again");
    });
    steps.step("init killed from outside", || {
        docker.run(&["-d", "--name", "shot"], &["sleep", "1000"]).ok();
        // Docker's pids are those of the sandbox.
        let pid = docker.inspect("shot", "{{.State.Pid}}");
        docker.sandbox().run("kill", ["-KILL", &pid]).ok();
        docker.wait_inspect("shot", "{{.State.Status}} {{.State.ExitCode}}", "exited 137", 10);
        docker.remove("shot");
    });
    steps.step("cp, diff, commit, rename of a running container", || {
        docker.run(&["-d", "--name", "copy"], &["sh", "-c", "echo text >/root/file; sleep 1000"]).ok();
        let out = wait_for(Duration::from_secs(5), || {
            Some(docker.call(["exec", "copy", "cat", "/root/file"])).filter(|o| o.success())
        });
        assert_eq!(out.expect("the file appears").text(), "text");
        let here = docker.sandbox().join("copied");
        docker.call(["cp", "copy:/root/file", &here.display().to_string()]).ok();
        assert_eq!(std::fs::read_to_string(&here).unwrap(), "text\n");
        assert!(docker.call(["diff", "copy"]).ok().stdout.contains("A /root/file"));
        docker.call(["commit", "copy", "committed"]).ok();
        docker.remove("copy");
        let out = docker.call(["run", "--rm", "--runtime", "dhow", "committed", "cat", "/root/file"]).ok();
        assert_eq!(out.text(), "text");
    });
    steps.step("the client's death leaves the container alone", || {
        let mut client = docker
            .command([
                "run",
                "--runtime",
                "dhow",
                "--name",
                "orphan",
                "busybox",
                "sh",
                "-c",
                "sleep 2; exit 8",
            ])
            .spawn()
            .expect("docker starts");
        let found = wait_for(Duration::from_secs(10), || {
            (docker.call(["inspect", "--format", "{{.State.Running}}", "orphan"]).text() == "true")
                .then_some(())
        });
        kill_process(client.id(), 9);
        client.wait().expect("it can be waited for");
        assert!(found.is_some(), "never ran");
        docker.wait_inspect("orphan", "{{.State.Status}} {{.State.ExitCode}}", "exited 8", 10);
        docker.remove("orphan");
    });
}

fn errors(docker: &Docker, steps: &mut Steps) {
    steps.step("run: 127 for a command that is not there", || {
        let out = docker.run(&["--rm"], &["nocommand"]).code(127);
        assert!(out.stderr.contains("executable file not found in $PATH"), "{out}");
        let out = docker.run(&["--rm"], &["/no/such/file"]).code(127);
        assert!(out.stderr.contains("no such file or directory"), "{out}");
    });
    steps.step("run: 126 for a file that is not executable", || {
        let out = docker.run(&["--rm"], &["/etc/passwd"]).code(126);
        assert!(out.stderr.contains("permission denied"), "{out}");
        docker.run(&["--rm"], &["/etc"]).code(126);
    });
    steps.step("run: a directory that cannot be entered", || {
        let out = docker.run(&["--rm", "-w", "/etc/passwd"], &["true"]);
        assert!(matches!(out.code, 125..=127), "{out}");
    });
    steps.step("run: a mount that cannot be made names its place", || {
        docker.call(["volume", "create", "-d", "local", "-o", "type=nosuchfs", "-o", "device=x", "bad"]).ok();
        docker.run(&["--rm", "-v", "bad:/mnt"], &["true"]).code(125);
        docker.call(["volume", "rm", "bad"]);
        let out = docker.run(&["--rm", "-v", "/dev/null:/etc"], &["true"]);
        assert!(matches!(out.code, 125..=127) && out.stderr.contains("/etc"), "{out}");
    });
    steps.step("a start that failed can be tried again", || {
        docker.call(["create", "--runtime", "dhow", "--name", "later", "busybox", "/bin/later"]).ok();
        assert!(!docker.call(["start", "-a", "later"]).success());
        assert_eq!(docker.inspect("later", "{{.State.ExitCode}}"), "127");
        let busybox = docker.sandbox().join("later");
        std::fs::write(&busybox, "#!/bin/sh\necho now\n").unwrap();
        std::process::Command::new("chmod").arg("755").arg(&busybox).status().unwrap();
        docker.call(["cp", &busybox.display().to_string(), "later:/bin/later"]).ok();
        assert_eq!(docker.call(["start", "-a", "later"]).ok().text(), "now");
        docker.remove("later");
    });
}

fn rights(docker: &Docker, steps: &mut Steps) {
    let status = |options: &[&str]| docker.run(options, &["cat", "/proc/self/status"]).ok().stdout;
    steps.step("the default: capabilities, seccomp, masked paths", || {
        let text = status(&["--rm"]);
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(status_field(&text, set), "00000000a80425fb", "{set}");
        }
        assert_eq!(status_field(&text, "Seccomp"), "2");
        let script = "wc -c </proc/timer_list; touch /proc/sys/kernel/x; \
                      mount -t tmpfs x /mnt; unshare -m true; ls /sys/firmware | wc -l; echo end";
        let out = docker.run(&["--rm"], &["sh", "-c", script]).ok();
        assert_eq!(out.stdout, "0\n0\nend\n");
        assert_eq!(out.stderr.lines().count(), 3, "{out}");
    });
    steps.step("--privileged", || {
        if peer_lacks_rights() {
            skip_part!("the peer cannot give a privileged container fewer capabilities than there are");
            return;
        }
        let text = status(&["--rm", "--privileged"]);
        assert_eq!(capabilities(&text), all_that_docker_knows());
        assert_eq!(status_field(&text, "Seccomp"), "0");
        let script = "mkdir /mnt; mount -t tmpfs x /mnt && touch /mnt/a && umount /mnt && \
                      test -e /dev/kmsg && mkdir /sys/fs/cgroup/cpu/inner 2>/dev/null; \
                      rmdir /sys/fs/cgroup/cpu/inner 2>/dev/null; sysctl -w kernel.domainname=d && \
                      mknod /tmp/z b 7 0 && dd if=/dev/zero of=/tmp/z count=0 && echo done";
        assert!(docker.run(&["--rm", "--privileged"], &["sh", "-c", script]).ok().stdout.ends_with("done\n"));
    });
    steps.step("exec --privileged", || {
        if peer_lacks_rights() {
            return;
        }
        docker.run(&["-d", "--name", "plain"], &["sleep", "1000"]).ok();
        let text = docker.call(["exec", "--privileged", "plain", "cat", "/proc/self/status"]).ok().stdout;
        assert_eq!(capabilities(&text), all_that_docker_knows());
        docker.remove("plain");
    });
    steps.step("--cap-drop and --cap-add", || {
        let text = status(&["--rm", "--cap-drop", "ALL"]);
        assert_eq!(status_field(&text, "CapBnd"), "0000000000000000");
        docker.run(&["--rm", "--cap-drop", "CHOWN"], &["chown", "1", "/tmp"]).code(1);
        let text = status(&["--rm", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]);
        assert_eq!(status_field(&text, "CapEff"), "0000000000001000");
    });
    steps.step("--user and --group-add", || {
        let text = status(&["--rm", "--user", "1000:1001", "--group-add", "44"]);
        assert_eq!(status_field(&text, "Uid"), "1000\t1000\t1000\t1000");
        assert_eq!(status_field(&text, "Gid"), "1001\t1001\t1001\t1001");
        assert!(status_field(&text, "Groups").split(' ').any(|g| g == "44"));
        assert_eq!(status_field(&text, "CapEff"), "0000000000000000");
        let out = docker.run(&["--rm", "--user", "nobody"], &["id", "-u"]).ok();
        assert_eq!(out.text(), "65534");
        let out = docker
            .run(&["--rm", "--user", "1000"], &["sh", "-c", "echo x >/dev/stdout; echo y >/dev/stderr"]);
        assert_eq!(out.ok().text(), "x");
    });
    steps.step("--read-only, with a tmpfs", || {
        let options = ["--rm", "--read-only", "--tmpfs", "/tmp:size=1m,mode=1777"];
        let script =
            "touch /x 2>/dev/null && echo writable; touch /tmp/x && echo tmp; echo >/dev/null && echo null";
        assert_eq!(docker.run(&options, &["sh", "-c", script]).ok().stdout, "tmp\nnull\n");
    });
    steps.step("no-new-privileges", || {
        let text = status(&["--rm", "--security-opt", "no-new-privileges"]);
        assert_eq!(status_field(&text, "NoNewPrivs"), "1");
        assert_eq!(status_field(&status(&["--rm"]), "NoNewPrivs"), "0");
    });
    steps.step("a seccomp profile of one's own", || {
        let profile = docker.sandbox().join("seccomp.json");
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95},
            {"names":["sethostname"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#;
        std::fs::write(&profile, text).unwrap();
        let option = format!("seccomp={}", profile.display());
        let out = docker.run(&["--rm", "--security-opt", &option], &["mkdir", "/tmp/x"]).code(1);
        assert!(out.stderr.contains("not supported"), "{out}");
        docker.run(&["--rm", "--security-opt", &option], &["hostname", "x"]).code(159);
        let text = status(&["--rm", "--security-opt", "seccomp=unconfined"]);
        assert_eq!(status_field(&text, "Seccomp"), "0");
    });
    steps.step("the device cgroup", || {
        let script = "mknod /tmp/m c 1 1 && cat /tmp/m; mknod /tmp/z c 1 5 && head -c 1 /tmp/z | wc -c";
        let out = docker.run(&["--rm"], &["sh", "-c", script]).ok();
        assert_eq!(out.text(), "1");
        assert!(out.stderr.contains("Operation not permitted"), "{out}");
        let options = ["--rm", "--device", "/dev/kmsg:/dev/other:r"];
        let out = docker.run(&options, &["sh", "-c", "ls -l /dev/other; echo >/dev/other"]).code(1);
        assert!(out.stdout.contains("1,  11") && out.stderr.contains("not permitted"), "{out}");
        let rule = ["--rm", "--device-cgroup-rule", "c 1:11 r", "--cap-add", "SYSLOG"];
        let script = "mknod /tmp/k c 1 11 && head -c 1 /tmp/k | wc -c";
        assert_eq!(docker.run(&rule, &["sh", "-c", script]).ok().text(), "1");
    });
}

fn resources(docker: &Docker, steps: &mut Steps) {
    steps.step("limits at the start", || {
        let options = ["-d", "--name", "limits", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "50"];
        let more = ["--cpu-shares", "512", "--cpuset-cpus", "0", "--memory-reservation", "32m"];
        docker.run(&[&options[..], &more[..]].concat(), &["sleep", "1000"]).ok();
        assert_eq!(limit(docker, "limits", "memory/memory.limit_in_bytes", "memory.max"), "67108864");
        assert_eq!(limit(docker, "limits", "pids/pids.max", "pids.max"), "50");
        assert_eq!(limit(docker, "limits", "cpuset/cpuset.cpus", "cpuset.cpus"), "0");
        let quota = limit(docker, "limits", "cpu/cpu.cfs_quota_us", "cpu.max");
        assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    });
    steps.step("stats", || {
        let format = "{{.MemUsage}} {{.PIDs}}";
        let out = docker.call(["stats", "--no-stream", "--format", format, "limits"]).ok();
        assert!(out.text().ends_with("/ 64MiB 1"), "{out}");
    });
    steps.step("update", || {
        let all =
            ["update", "--memory", "96m", "--memory-swap", "192m", "--cpus", "0.25", "--pids-limit", "77"];
        docker.call([&all[..], &["--cpuset-cpus", "0-1", "limits"]].concat()).ok();
        assert_eq!(limit(docker, "limits", "memory/memory.limit_in_bytes", "memory.max"), "100663296");
        assert_eq!(limit(docker, "limits", "pids/pids.max", "pids.max"), "77");
        assert_eq!(limit(docker, "limits", "cpuset/cpuset.cpus", "cpuset.cpus"), "0-1");
        let quota = limit(docker, "limits", "cpu/cpu.cfs_quota_us", "cpu.max");
        assert!(quota == "25000" || quota == "25000 100000", "{quota}");
        docker.remove("limits");
    });
    steps.step("pids limit holds", || {
        let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait";
        let out = docker.run(&["--rm", "--pids-limit", "5"], &["sh", "-c", script]);
        assert!(out.stderr.contains("can't fork"), "{out}");
    });
    steps.step("an OOM kill is seen", || {
        let script = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
        docker
            .run(&["--name", "oom", "--memory", "16m", "--memory-swap", "16m"], &["sh", "-c", script])
            .code(137);
        assert_eq!(docker.inspect("oom", "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
        docker.remove("oom");
    });
    steps.step("the smallest memory limit that Docker allows", || {
        docker.run(&["--rm", "--memory", "6m"], &["true"]).ok();
    });
    steps.step("--ulimit", || {
        let out =
            docker.run(&["--rm", "--ulimit", "nofile=100:200"], &["sh", "-c", "ulimit -Sn; ulimit -Hn"]).ok();
        assert_eq!(out.stdout, "100\n200\n");
    });
    steps.step("--oom-score-adj", || {
        let out = docker.run(&["--rm", "--oom-score-adj", "500"], &["cat", "/proc/self/oom_score_adj"]).ok();
        assert_eq!(out.text(), "500");
    });
}

fn namespaces(docker: &Docker, steps: &mut Steps) {
    steps.step("--sysctl and --shm-size", || {
        let options = ["--rm", "--sysctl", "net.ipv4.ip_forward=0", "--sysctl", "kernel.msgmax=4096"];
        let more = ["--shm-size", "1m"];
        let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; df -k /dev/shm | tail -1";
        let out = docker.run(&[&options[..], &more[..]].concat(), &["sh", "-c", script]).ok();
        let lines: Vec<_> = out.stdout.lines().collect();
        assert_eq!(&lines[..2], ["0", "4096"]);
        assert!(lines[2].contains(" 1024 "), "{out}");
    });
    steps.step("joining another container's namespaces", || {
        let options = ["-d", "--name", "host", "--ipc", "shareable", "--hostname", "first"];
        docker.run(&options, &["sh", "-c", "httpd -p 81 -h /etc; touch /dev/shm/mine; sleep 1000"]).ok();
        let join = ["--rm", "--network", "container:host", "--ipc", "container:host", "--pid", "container:host"];
        let script = "wget -qO- http://127.0.0.1:81/passwd | head -1; ls /dev/shm; hostname; ps | grep -c 'sleep 100[0]'";
        let out = docker.run(&join, &["sh", "-c", script]).ok();
        assert_eq!(out.stdout, "root:x:0:0:root:/root:/bin/sh\nmine\nfirst\n1\n");
        docker.remove("host");
    });
    steps.step("the host's namespaces", || {
        let link = |name: &str| {
            docker.sandbox().run("readlink", [format!("/proc/1/ns/{name}")]).ok().text().to_owned()
        };
        let options = ["--rm", "--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host"];
        let names = ["net", "pid", "ipc", "uts"];
        let paths: Vec<String> = names.iter().map(|n| format!("/proc/self/ns/{n}")).collect();
        let mut args = vec!["readlink"];
        args.extend(paths.iter().map(String::as_str));
        for (i, path) in paths.iter().enumerate() {
            let out = docker.run(&options, &["readlink", path]).ok();
            assert_eq!(out.text(), link(names[i]), "{}", names[i]);
        }
    });
    steps.step("--cgroupns", || {
        let out = docker.run(&["--rm", "--cgroupns", "private"], &["cat", "/proc/self/cgroup"]).ok();
        assert!(out.stdout.lines().all(|l| l.ends_with(":/")), "{out}");
        let out = docker.run(&["--rm", "--cgroupns", "host"], &["cat", "/proc/self/cgroup"]).ok();
        assert!(out.stdout.contains(docker.sandbox().tag()), "{out}");
    });
}

fn files(docker: &Docker, steps: &mut Steps) {
    steps.step("bind mounts, read-only and not, files and directories", || {
        let dir = docker.sandbox().scratch().dir("shared/sub");
        std::fs::write(dir.join("file"), "content\n").unwrap();
        let rw = format!("{}:/mnt/rw", dir.display());
        let ro = format!("{}:/mnt/ro:ro", dir.display());
        let file = format!("{}:/etc/given:ro", dir.join("file").display());
        let script = "cat /etc/given; touch /mnt/ro/x 2>/dev/null && echo writable; echo new >/mnt/rw/made; \
                      echo x 2>/dev/null >/etc/given || echo kept";
        let out = docker.run(&["--rm", "-v", &rw, "-v", &ro, "-v", &file], &["sh", "-c", script]).ok();
        assert_eq!(out.stdout, "content\nkept\n");
        assert_eq!(std::fs::read_to_string(dir.join("made")).unwrap(), "new\n");
    });
    steps.step("volumes keep their data, and are filled from the image", || {
        docker.run(&["--rm", "-v", "kept:/etc"], &["sh", "-c", "echo 1 >/etc/one"]).ok();
        let out =
            docker.run(&["--rm", "-v", "kept:/mnt"], &["sh", "-c", "cat /mnt/one; ls /mnt/passwd"]).ok();
        assert_eq!(out.stdout, "1\n/mnt/passwd\n");
        docker.call(["volume", "rm", "kept"]).ok();
    });
    steps.step("mount propagation", || {
        let dir = docker.sandbox().scratch().dir("propagated");
        let path = dir.display().to_string();
        docker.sandbox().shell(&format!("mount --bind {path} {path} && mount --make-rshared {path}")).ok();
        let options = ["-d", "--name", "prop", "-v"];
        let slave = format!("{path}:/mnt:rslave");
        docker.run(&[&options[..], &[&slave]].concat(), &["sleep", "1000"]).ok();
        docker
            .sandbox()
            .shell(&format!("mkdir {path}/in && mount -t tmpfs in {path}/in && touch {path}/in/seen"))
            .ok();
        let out = docker.call(["exec", "prop", "ls", "/mnt/in"]).ok();
        docker.remove("prop");
        docker.sandbox().shell(&format!("umount {path}/in; umount {path}")).ok();
        assert_eq!(out.text(), "seen");
    });
    steps.step("the standard devices and links", || {
        let script = "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; \
                      for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; \
                      stat -c %a /dev/null /dev/shm /dev/pts";
        let out = docker.run(&["--rm"], &["sh", "-c", script]).ok();
        let expected =
            "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n666\n1777\n755\n";
        assert_eq!(out.stdout, expected);
    });
    steps.step("no file descriptor of the runtime is left open", || {
        let out = docker.run(&["--rm"], &["sh", "-c", "ls /proc/self/fd | wc -l; ls /proc/1/fd"]).ok();
        // Of ls: 0, 1, 2 and the directory.
        assert_eq!(out.stdout.lines().next(), Some("4"), "{out}");
    });
}

fn network(docker: &Docker, steps: &mut Steps) {
    steps.step("a bridge network with a published port", || {
        let options = ["-d", "--name", "web", "-p", "8080:80"];
        docker.run(&options, &["httpd", "-f", "-p", "80", "-h", "/etc"]).ok();
        let got = wait_for(Duration::from_secs(10), || {
            let out = docker.sandbox().run("/bin/busybox", ["wget", "-qO-", "http://127.0.0.1:8080/hosts"]);
            out.success().then_some(out.stdout)
        });
        docker.remove("web");
        assert!(got.is_some_and(|t| t.contains("localhost")), "no answer through the published port");
    });
    steps.step("containers find each other by name on a network", || {
        docker.call(["network", "create", "quay"]).ok();
        docker.run(&["-d", "--name", "server", "--network", "quay"], &["httpd", "-f", "-h", "/bin"]).ok();
        let out =
            docker.run(&["--rm", "--network", "quay"], &["wget", "-qO-", "http://server/../etc/nothing"]);
        // Any answer of the server shows that name and route work.
        assert!(out.stderr.contains("404") || out.stderr.contains("400"), "{out}");
        docker.remove("server");
        docker.call(["network", "rm", "quay"]).ok();
    });
    steps.step("--network none", || {
        let out =
            docker.run(&["--rm", "--network", "none"], &["sh", "-c", "cat /proc/net/dev | grep -c :"]).ok();
        assert!(
            !docker.run(&["--rm", "--network", "none"], &["ip", "link", "show", "eth0"]).success(),
            "{out}"
        );
        let out = docker.run(&["--rm", "--network", "none"], &["ip", "-o", "addr", "show", "lo"]).ok();
        assert!(out.stdout.contains("127.0.0.1"), "{out}");
    });
}

/// The effective capabilities in the text of a status file.
fn capabilities(status: &str) -> u64 {
    u64::from_str_radix(status_field(status, "CapEff"), 16).expect("a set of capabilities")
}

/// What a privileged container can have here: Docker 20.10 asks for the capabilities up to number 37, and nobody gives
/// what this process does not have.
fn all_that_docker_knows() -> u64 {
    let own = std::fs::read_to_string("/proc/self/status").expect("the own status");
    capabilities(&own) & ((1 << 38) - 1)
}
