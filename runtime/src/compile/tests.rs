//! Golden plans: the steps that come of a config, in order, against the texts in `golden/`. No root and no side effect.
//!
//! After a change that is meant, `DHOW_BLESS=1 cargo test -p dhow-runtime golden` writes the texts anew; the diff is
//! what a reviewer reads.

use super::*;
use serde_json::{Value, json};

/// As on a host with one cgroup2 tree.
const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

/// As on a host with v1 hierarchies.
const LEGACY: &str = "\
30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro
31 30 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
";

fn host(mountinfo: &str) -> Host {
    Host {
        in_user_namespace: false,
        cgroups: Some(Layout::from_mountinfo(mountinfo)),
        privileged: true,
        permitted: u64::MAX,
        selinux: false,
        apparmor: false,
    }
}

fn options() -> Options {
    Options { id: "box".into(), starts_in_cgroup: true, ..Options::default() }
}

/// A config with the least that there can be.
fn minimal() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "root": { "path": "rootfs" },
        "process": { "cwd": "/", "args": ["true"], "user": { "uid": 0, "gid": 0 } },
        "linux": { "namespaces": [{ "type": "mount" }] }
    })
}

/// What Docker makes of `docker run`, shortened where it repeats itself.
fn docker() -> Value {
    let caps = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]);
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "/images/root" },
        "hostname": "box",
        "process": {
            "cwd": "/",
            "args": ["sh", "-c", "exit 3"],
            "env": ["PATH=/bin", "A=b"],
            "user": { "uid": 0, "gid": 0, "additionalGids": [0, 10] },
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "oomScoreAdj": 0
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"] },
            { "destination": "/etc/hosts", "type": "bind", "source": "/var/hosts", "options": ["rbind", "rprivate"] }
        ],
        "linux": {
            "namespaces": [
                { "type": "mount" }, { "type": "network" }, { "type": "uts" }, { "type": "pid" }, { "type": "ipc" },
                { "type": "cgroup" }
            ],
            "sysctl": { "net.ipv4.ip_unprivileged_port_start": "0" },
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{ "names": ["read", "write", "exit_group"], "action": "SCMP_ACT_ALLOW" }]
            },
            "maskedPaths": ["/proc/kcore", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys"]
        }
    })
}

fn spec_of(config: &Value) -> Spec {
    let text = config.to_string();
    match crate::config::parse(text.as_bytes()) {
        Ok(config) => config.spec,
        Err(mistakes) => panic!("{mistakes:?}"),
    }
}

fn plan(config: &Value, host: &Host, options: &Options) -> String {
    match compile(&spec_of(config), Path::new("/bundle"), host, options) {
        Ok(plan) => plan.to_string(),
        Err(mistakes) => panic!("{mistakes:?}"),
    }
}

/// The number of instructions in a filter changes with the table of system calls, which is none of a plan's business.
fn without_numbers(plan: &str) -> String {
    let mut out = String::new();
    for line in plan.lines() {
        match (line.find("filter of "), line.find(" instructions")) {
            (Some(from), Some(to)) => {
                out.push_str(&line[..from + "filter of ".len()]);
                out.push('N');
                out.push_str(&line[to..]);
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[track_caller]
fn golden(name: &str, plan: &str) {
    let plan = without_numbers(plan);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/compile/golden").join(format!("{name}.txt"));
    if std::env::var_os("DHOW_BLESS").is_some() {
        std::fs::write(&path, &plan).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = |n: &usize| expected.lines().nth(*n) != plan.lines().nth(*n);
    let most = expected.lines().count().max(plan.lines().count());
    if let Some(n) = (0..most).find(differs) {
        let line = |text: &str| text.lines().nth(n).unwrap_or("(end)").to_owned();
        panic!(
            "{name}.txt, line {}: expected\n  {}\nfound\n  {}\nwhole plan:\n{plan}",
            n + 1,
            line(&expected),
            line(&plan)
        );
    }
}

#[test]
fn golden_minimal() {
    golden("minimal", &plan(&minimal(), &host(UNIFIED), &options()));
}

#[test]
fn golden_docker_on_v2() {
    golden("docker-v2", &plan(&docker(), &host(UNIFIED), &options()));
}

#[test]
fn golden_docker_on_v1_with_a_gate() {
    let options = Options { gate: true, starts_in_cgroup: false, ..options() };
    golden("docker-v1-create", &plan(&docker(), &host(LEGACY), &options));
}

#[test]
fn golden_cgroup_mounts_without_a_cgroup_namespace() {
    let mut config = docker();
    config["linux"]["namespaces"].as_array_mut().unwrap().pop();
    let own = |controller: &str| {
        let mount = PathBuf::from("/sys/fs/cgroup").join(controller);
        let dir = mount.join("box");
        (mount, dir)
    };
    let cgroup_dirs = ["systemd", "cpu,cpuacct", "memory", "devices"].map(own).to_vec();
    let options = Options { starts_in_cgroup: false, cgroup_dirs, ..options() };
    golden("host-cgroup-namespace-v1", &plan(&config, &host(LEGACY), &options));
}

fn with_user_namespace() -> Value {
    let mut config = docker();
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    config["mounts"].as_array_mut().unwrap().push(
        json!({ "destination": "/volume", "type": "bind", "source": "/var/volume", "options": ["rbind", "ridmap", "rro"] }),
    );
    config
}

#[test]
fn golden_user_namespace_of_root() {
    golden("user-namespace", &plan(&with_user_namespace(), &host(UNIFIED), &options()));
}

#[test]
fn golden_user_namespace_of_an_ordinary_user() {
    let host = Host { privileged: false, permitted: 0, ..host(UNIFIED) };
    let mut config = with_user_namespace();
    config["mounts"].as_array_mut().unwrap().pop();
    golden("rootless", &plan(&config, &host, &options()));
}

#[test]
fn golden_member_of_a_pod() {
    let mut config = docker();
    let path = |kind: &str, file: &str| json!({ "type": kind, "path": format!("/proc/7/ns/{file}") });
    config["linux"]["namespaces"] = json!([
        { "type": "mount" }, { "type": "cgroup" }, path("pid", "pid"), path("network", "net"), path("ipc", "ipc"),
        path("uts", "uts"), path("user", "user")
    ]);
    config.as_object_mut().unwrap().remove("hostname");
    config["linux"].as_object_mut().unwrap().remove("sysctl");
    golden("pod", &plan(&config, &host(UNIFIED), &options()));
}

#[test]
fn golden_time_offsets() {
    let mut config = minimal();
    config["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "pid" }, { "type": "time" }]);
    config["linux"]["timeOffsets"] =
        json!({ "boottime": { "secs": 5, "nanosecs": 6 }, "monotonic": { "secs": -7 } });
    golden("time-offsets", &plan(&config, &host(UNIFIED), &options()));
}

#[test]
fn golden_without_a_mount_namespace() {
    let mut config = minimal();
    config["linux"]["namespaces"] = json!([{ "type": "uts" }]);
    config["hostname"] = json!("name");
    golden("chroot", &plan(&config, &host(UNIFIED), &options()));
}

/// Every kind of step that the other plans do not have.
#[test]
fn golden_everything() {
    let mut config = docker();
    config["domainname"] = json!("example.org");
    config["root"]["readonly"] = json!(true);
    let hook = |name: &str| json!([{ "path": format!("/hooks/{name}"), "args": [name, "now"], "env": ["H=1"], "timeout": 3 }]);
    config["hooks"] = json!({
        "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
        "createContainer": hook("createContainer"), "startContainer": hook("startContainer"),
        "poststart": hook("poststart"), "poststop": hook("poststop")
    });
    let process = &mut config["process"];
    process["terminal"] = json!(true);
    process["consoleSize"] = json!({ "height": 24, "width": 80 });
    process["cwd"] = json!("/work/../work/dir");
    process["user"] = json!({ "uid": 1000, "gid": 1001, "umask": 0o27, "additionalGids": [5] });
    process["noNewPrivileges"] = json!(true);
    process["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 2048 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }
    ]);
    process["capabilities"]["inheritable"] = json!(["CAP_CHOWN"]);
    process["capabilities"]["ambient"] = json!(["CAP_CHOWN"]);
    process["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 4 });
    process["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 7 });
    let linux = &mut config["linux"];
    linux["rootfsPropagation"] = json!("rshared");
    linux["personality"] = json!({ "domain": "LINUX32" });
    linux["memoryPolicy"] =
        json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"] });
    linux["devices"] = json!([
        { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600, "uid": 1, "gid": 2 },
        { "path": "/dev/dir/pipe", "type": "p" }
    ]);
    linux["seccomp"]["listenerPath"] = json!("/agent.sock");
    linux["seccomp"]["syscalls"][0]["action"] = json!("SCMP_ACT_NOTIFY");
    linux["seccomp"]["defaultAction"] = json!("SCMP_ACT_ALLOW");
    linux["seccomp"]["syscalls"][0]["names"] = json!(["mkdir"]);
    config["mounts"].as_array_mut().unwrap().extend([
        json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "tmpcopyup", "size=1m"] }),
        json!({ "destination": "/plain", "type": "tmpfs", "source": "tmpfs", "options": ["noatime", "nosymfollow"] }),
        json!({ "destination": "/plain", "type": "tmpfs", "source": "tmpfs", "options": ["remount", "size=2m", "noexec"] }),
        json!({ "destination": "/data", "type": "bind", "source": "/x", "options": ["remount", "bind", "rro"] }),
        json!({ "destination": "/maps", "type": "bind", "source": "volume", "options": ["bind", "idmap", "rslave"],
                "uidMappings": [{ "containerID": 0, "hostID": 9, "size": 1 }],
                "gidMappings": [{ "containerID": 0, "hostID": 9, "size": 1 }] }),
    ]);
    let options = Options {
        gate: true,
        console_socket: true,
        no_pivot: true,
        no_new_keyring: true,
        preserve_fds: 2,
        listen_fds: 1,
        streams: true,
        notify_socket: Some("/run/notify".into()),
        ..options()
    };
    golden("everything", &plan(&config, &host(UNIFIED), &options));
}

#[test]
fn golden_exec() {
    let spec = spec_of(&with_user_namespace());
    let process = json!({
        "cwd": "/tmp", "args": ["ls"], "env": ["HOME=/given"], "terminal": true,
        "user": { "uid": 5, "gid": 6, "additionalGids": [7] },
        "capabilities": { "bounding": ["CAP_KILL"] },
        "execCPUAffinity": { "initial": "0-1", "final": "1" },
        "rlimits": [{ "type": "RLIMIT_NPROC", "soft": 3, "hard": 4 }]
    });
    let (process, _) = crate::config::parse_process(process.to_string().as_bytes()).unwrap();
    let exec = ProcessOptions { process, console_socket: false };
    match compile_exec(&spec, Path::new("/bundle"), &host(UNIFIED), &options(), &exec) {
        Ok(plan) => golden("exec", &plan.to_string()),
        Err(mistakes) => panic!("{mistakes:?}"),
    }
}

#[test]
fn golden_mount_changes() {
    let mount: Mount = serde_json::from_value(
        json!({ "destination": "/a/b", "type": "bind", "source": "/var/a", "options": ["rbind", "ro"] }),
    )
    .unwrap();
    for (name, config) in [("mounts", docker()), ("mounts-user-namespace", with_user_namespace())] {
        let spec = spec_of(&config);
        let change = |change| match compile_mount(&spec, Path::new("/bundle"), &host(UNIFIED), &change) {
            Ok(plan) => plan.to_string(),
            Err(mistakes) => panic!("{mistakes:?}"),
        };
        let both = change(MountChange::Add(&mount)) + &change(MountChange::Remove(Path::new("/a/b")));
        golden(name, &both);
    }
}

#[test]
fn mistakes_of_all_parts_come_together() {
    let mut config = docker();
    config["mounts"][5].as_object_mut().unwrap().remove("source");
    config["mounts"].as_array_mut().unwrap().extend([
        json!({ "destination": "/x", "type": "bind", "source": "/x", "options": ["idmap"] }),
        json!({ "destination": "/", "type": "tmpfs", "source": "tmpfs" }),
    ]);
    config["process"]["apparmorProfile"] = json!("profile");
    config["process"]["selinuxLabel"] = json!("label");
    // Straight to compile: some of it config::parse finds as well.
    let text = config.to_string();
    let spec: Spec = serde_json::from_str(&text).unwrap();
    let mistakes = compile(&spec, Path::new("/bundle"), &host(UNIFIED), &options()).map(drop).unwrap_err();
    let mut pointers: Vec<_> = mistakes.iter().map(|m| m.pointer.as_str()).collect();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        [
            "/mounts/5/source",
            "/mounts/6/options",
            "/mounts/7/destination",
            "/process/apparmorProfile",
            "/process/selinuxLabel"
        ]
    );
}

#[test]
fn relative_paths_are_text() {
    for (path, expected) in [("/a/b", "a/b"), ("//a/./b/", "a/b"), ("/a/../../b", "b"), ("/", ""), ("a", "a")]
    {
        assert_eq!(relative(Path::new(path)), expected.as_bytes());
    }
}
