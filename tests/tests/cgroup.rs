//! The cgroup half of dhow-runtime against the kernel: on this host as it is (usually hybrid), and in private mount
//! namespaces that show it as pure v1 and as v2. Needs root; what a view lacks is skipped with a line that says so.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dhow_runtime::cgroup::{Cgroup, Driver, Error, Layout, Limits, Location, OomEvent, Version};
use oci_spec::runtime::LinuxResources;
use serde_json::json;

const VIEW: &str = "DHOW_TEST_CGROUP_VIEW";

/// Runs `test` in a view of the cgroup mounts: this test is run again below unshare(1) with the view prepared.
fn in_view(view: &str, test: fn()) {
    if std::env::var(VIEW).as_deref() == Ok(view) {
        return test();
    }
    if !is_root() {
        return skip("not root");
    }
    const BIND: &str = "mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup";
    const BIND_MISSING: &str =
        "test -e /sys/fs/cgroup/cgroup.controllers || mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup";
    const USER: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    // A user's session as systemd would make it: a cgroup of its own, in one that belongs to the user.
    const SESSION: &str = "d=/sys/fs/cgroup/dhow-test-user-$$; mkdir -p $d/session; \
        chown 65534 $d $d/cgroup.procs $d/cgroup.subtree_control $d/session $d/session/cgroup.procs; \
        trap 'rmdir $d/session $d' EXIT; (echo 0 >$d/session/cgroup.procs; exec ";
    let script = match view {
        "host" => "exec \"$0\" \"$@\"".to_owned(),
        "v1" => "umount /sys/fs/cgroup/unified && exec \"$0\" \"$@\"".to_owned(),
        "v2" => format!("{BIND} && exec \"$0\" \"$@\""),
        "user" => format!("{USER} test -x \"$0\" || exit 99; exec {USER} \"$0\" \"$@\""),
        "delegated" => {
            format!("{USER} test -x \"$0\" || exit 99; {BIND_MISSING}; {SESSION} {USER} \"$0\" \"$@\")")
        }
        other => panic!("no view {other}"),
    };
    let pure_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let needs_unified = match view {
        "host" | "user" => false,
        "delegated" => !pure_v2,
        _ => true,
    };
    if needs_unified && !Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        return skip("this host has no cgroup2 filesystem beside v1 ones");
    }
    let name = std::thread::current().name().expect("tests have named threads").to_owned();
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c"])
        .arg(script)
        .arg(std::env::current_exe().expect("own path"))
        .args([name.as_str(), "--exact", "--nocapture"])
        .env(VIEW, view)
        .output()
        .expect("unshare runs");
    if output.status.code() == Some(99) {
        return skip("an ordinary user cannot reach the test's binary");
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    for line in text.lines().filter(|l| l.starts_with("SKIP")) {
        skip(line.trim_start_matches("SKIP "));
    }
    assert!(output.status.success() && text.contains("1 passed"), "in the {view} view:\n{text}");
}

fn is_root() -> bool {
    // The owner of the process's own directory in /proc is its effective user.
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("/proc")) == 0
}

/// Says that something was not tested, past the harness, which hides what tests that pass print.
fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIP {why}");
}

/// Each test in each view.
macro_rules! in_views {
    ($($test:ident: $($view:ident)+;)*) => {
        $(mod $test {
            $(#[test] fn $view() { super::in_view(stringify!($view), super::$test::body) })+
            pub(super) fn body() { super::bodies::$test() }
        })*
    };
}

in_views! {
    a_whole_life: host v1 v2;
    limits_reach_the_files: host v1 v2;
    cgroups_in_use_are_refused: host v1 v2;
    frozen_containers_stop_and_can_be_killed: host v1 v2;
    kill_reaches_forking_processes_and_children: host v1 v2;
    cgroups_made_by_the_container_are_removed: host v1 v2;
    devices_are_restricted_and_updated: host v1 v2;
    holes_in_wildcards_are_kept_on_v2: v2;
    update_finds_the_order_of_writes: host v1 v2;
    a_failing_limit_is_named: host v2;
    oom_is_reported: host v1 v2;
    stats_count: host v1 v2;
    remove_finishes_what_was_begun: host v1 v2;
    delegation_gives_the_listed_files: host v2;
    users_go_without_what_they_may_not_have: user;
    users_have_what_is_delegated: delegated;
}

/// A container's place for one test, cleaned up at its end whatever happens.
struct Place {
    layout: Layout,
    location: Location,
    children: Vec<Child>,
}

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let parent = format!("/dhow-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let layout = Layout::probe().expect("layout");
        let want = match std::env::var(VIEW).as_deref() {
            Ok("v1") => Version::V1,
            Ok("v2") => Version::V2,
            _ => layout.version(),
        };
        assert_eq!(layout.version(), want);
        let path = format!("{parent}/c");
        let location =
            Location::resolve(&layout, Some(&path), "c", Driver::Cgroupfs, false).expect("location");
        Place { layout, location, children: Vec::new() }
    }

    fn v2(&self) -> bool {
        self.layout.version() == Version::V2
    }

    fn limits(&self, resources: serde_json::Value) -> Limits {
        Limits::compile(Some(&parse(resources)), self.layout.version()).expect("limits")
    }

    fn create(&self) -> Cgroup {
        Cgroup::create(&self.location, &Limits::compile(None, self.layout.version()).unwrap())
            .expect("create")
    }

    /// The container's directory in the hierarchy of `controller`.
    fn dir(&self, controller: &str) -> PathBuf {
        let name = if self.v2() { "" } else { controller };
        let found = self.location.paths().find(|(c, _)| *c == name);
        found.unwrap_or_else(|| panic!("no {controller}")).1.to_path_buf()
    }

    fn has(&self, controller: &str) -> bool {
        match self.v2() {
            true => std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
                .is_ok_and(|text| text.split_whitespace().any(|c| c == controller)),
            false => self.location.paths().any(|(c, _)| c == controller),
        }
    }

    fn read(&self, controller: &str, file: &str) -> String {
        let path = self.dir(controller).join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.trim().to_owned()
    }

    /// Starts a shell that waits for a line before it does anything.
    fn shell(&mut self, script: &str) -> usize {
        let child = Command::new("sh")
            .args(["-c", &format!("read -r go; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh");
        self.children.push(child);
        self.children.len() - 1
    }

    fn pid(&self, child: usize) -> i32 {
        self.children[child].id() as i32
    }

    fn go(&mut self, child: usize) {
        self.children[child].stdin.as_mut().expect("stdin").write_all(b"\n").expect("go");
    }

    /// Lets a shell run and returns the first line that it prints.
    fn line(&mut self, child: usize) -> String {
        self.go(child);
        let mut line = String::new();
        let out = self.children[child].stdout.as_mut().expect("stdout");
        BufReader::new(out).read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    /// A process that sleeps in the container.
    fn sleeper(&mut self, cgroup: &mut Cgroup) -> i32 {
        let child = self.shell("exec sleep 1000");
        let pid = self.pid(child);
        cgroup.attach(pid).expect("attach");
        pid
    }

    fn reap(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn assert_gone(&self) {
        for (controller, dir) in self.location.paths() {
            assert!(!dir.exists(), "{controller}: {} is still there", dir.display());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Ok(cgroup) = Cgroup::open(&self.location) {
            let _ = cgroup.thaw();
            let _ = cgroup.kill();
        }
        self.reap();
        let _ = Cgroup::remove(&self.location);
        for (_, dir) in self.location.paths() {
            let _ = std::fs::remove_dir(dir.parent().expect("a parent"));
        }
    }
}

fn parse(resources: serde_json::Value) -> LinuxResources {
    serde_json::from_value(resources).expect("resources")
}

fn cgroups_of(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("process")
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

mod bodies {
    use super::*;

    pub(super) fn a_whole_life() {
        let mut place = Place::new();
        let mut cgroup = place.create();
        assert_eq!(cgroup.clone_into().is_some(), place.layout.version() != Version::V1);
        assert!(!cgroup.is_populated().unwrap());
        let pid = place.sleeper(&mut cgroup);
        let text = cgroups_of(pid);
        for (controller, dir) in place.location.paths() {
            let leaf: PathBuf = dir.iter().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect();
            let found = text.lines().any(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                fields.next().is_some_and(|names| names.split(',').any(|n| n == controller))
                    && fields.next().is_some_and(|path| path.ends_with(leaf.to_str().unwrap()))
            });
            assert!(found, "{controller}: not in {text}");
        }
        let reopened = Cgroup::open(&place.location).unwrap();
        reopened.apply(&place.limits(json!({}))).unwrap();
        assert_eq!(reopened.pids(false).unwrap(), [pid]);
        assert!(reopened.is_populated().unwrap());
        let init = reopened.cgroup_of_process(pid);
        assert_eq!(init.unwrap().is_some(), place.layout.version() != Version::V1);
        assert!(!reopened.wait_empty(10).unwrap());
        reopened.kill().unwrap();
        place.reap();
        assert!(reopened.wait_empty(10_000).unwrap());
        Cgroup::remove(&place.location).unwrap();
        place.assert_gone();
        Cgroup::remove(&place.location).unwrap();
        assert!(reopened.pids(true).unwrap().is_empty());
        assert!(!reopened.is_populated().unwrap());
        reopened.kill().unwrap();
    }

    pub(super) fn limits_reach_the_files() {
        let place = Place::new();
        let (memory, cpu) = (
            json!({"limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20, "swappiness": 10}),
            json!({"shares": 512, "quota": 50_000, "period": 200_000, "burst": 10_000}),
        );
        let mut resources = json!({});
        for (controller, field, value) in [
            ("memory", "memory", memory),
            ("cpu", "cpu", cpu),
            ("cpuset", "cpu", json!({"cpus": "0", "mems": "0"})),
            ("pids", "pids", json!({"limit": 33})),
            ("hugetlb", "hugepageLimits", json!([{"pageSize": "2MB", "limit": 4 << 20}])),
        ] {
            if !place.has(controller) {
                skip(&format!("no {controller} controller"));
            } else if let (Some(map), Some(more)) = (resources[field].as_object_mut(), value.as_object()) {
                map.extend(more.clone());
            } else {
                resources[field] = value;
            }
        }
        let limits = place.limits(resources);
        let cgroup = Cgroup::create(&place.location, &limits).unwrap();
        cgroup.apply(&limits).unwrap();
        let files: &[(&str, &str, &str)] = match place.v2() {
            true => &[
                ("memory", "memory.max", "67108864"),
                ("memory", "memory.swap.max", "67108864"),
                ("memory", "memory.low", "33554432"),
                ("cpu", "cpu.weight", "59"),
                ("cpu", "cpu.max", "50000 200000"),
                ("cpu", "cpu.max.burst", "10000"),
                ("cpuset", "cpuset.cpus", "0"),
                ("cpuset", "cpuset.mems", "0"),
                ("pids", "pids.max", "33"),
                ("hugetlb", "hugetlb.2MB.max", "4194304"),
                ("hugetlb", "hugetlb.2MB.rsvd.max", "4194304"),
            ],
            false => &[
                ("memory", "memory.limit_in_bytes", "67108864"),
                ("memory", "memory.memsw.limit_in_bytes", "134217728"),
                ("memory", "memory.soft_limit_in_bytes", "33554432"),
                ("memory", "memory.swappiness", "10"),
                ("cpu", "cpu.shares", "512"),
                ("cpu", "cpu.cfs_quota_us", "50000"),
                ("cpu", "cpu.cfs_period_us", "200000"),
                ("cpu", "cpu.cfs_burst_us", "10000"),
                ("cpuset", "cpuset.cpus", "0"),
                ("cpuset", "cpuset.mems", "0"),
                ("pids", "pids.max", "33"),
            ],
        };
        for (controller, file, value) in files {
            if place.has(controller) {
                assert_eq!(place.read(controller, file), *value, "{file}");
            }
        }
        if !place.v2() {
            let list = place.read("devices", "devices.list");
            assert!(list.contains("c 1:3 rwm") && list.contains("c 136:* rwm"), "{list}");
            assert!(!list.contains("a ") && list.lines().count() == 11, "{list}");
        }
    }

    pub(super) fn cgroups_in_use_are_refused() {
        let mut place = Place::new();
        let limits = place.limits(json!({}));
        place.location.check_unused().unwrap();
        let mut cgroup = place.create();
        place.location.check_unused().unwrap();
        // Empty ones are taken over.
        Cgroup::create(&place.location, &limits).unwrap();
        cgroup.freeze().unwrap();
        assert!(matches!(Cgroup::create(&place.location, &limits), Err(Error::Frozen { .. })));
        cgroup.thaw().unwrap();
        place.sleeper(&mut cgroup);
        assert!(place.location.check_unused().unwrap_err().is_foreign());
        assert!(matches!(
            Cgroup::create(&place.location, &limits),
            Err(Error::NotEmpty { processes: 1, .. })
        ));
        assert!(place.location.paths().all(|(_, dir)| dir.exists()), "a refusal must not remove anything");
    }

    pub(super) fn frozen_containers_stop_and_can_be_killed() {
        let mut place = Place::new();
        let mut cgroup = place.create();
        let child = place.shell("echo ran; exec sleep 1000");
        cgroup.attach(place.pid(child)).unwrap();
        cgroup.freeze().unwrap();
        assert!(cgroup.is_frozen().unwrap());
        cgroup.freeze().unwrap();
        place.go(child);
        std::thread::sleep(Duration::from_millis(50));
        cgroup.thaw().unwrap();
        assert!(!cgroup.is_frozen().unwrap());
        assert_eq!(place.line(child), "ran");
        cgroup.freeze().unwrap();
        cgroup.kill().unwrap();
        place.reap();
        assert!(cgroup.wait_empty(10_000).unwrap());
    }

    pub(super) fn kill_reaches_forking_processes_and_children() {
        let mut place = Place::new();
        let mut cgroup = place.create();
        let child =
            place.shell("f() { i=0; while [ $i -lt 400 ]; do sleep 1000 & i=$((i+1)); done; wait; }; f");
        cgroup.attach(place.pid(child)).unwrap();
        let below = place.dir("devices").join("nested");
        std::fs::create_dir(&below).unwrap();
        let inner = place.shell("exec sleep 1000");
        std::fs::write(below.join("cgroup.procs"), place.pid(inner).to_string()).unwrap();
        assert_eq!(cgroup.pids(false).unwrap(), [place.pid(child)]);
        assert_eq!(cgroup.pids(true).unwrap().len(), 2);
        place.go(child);
        until("some processes", || cgroup.pids(true).unwrap().len() > 20);
        cgroup.kill().unwrap();
        place.reap();
        assert!(cgroup.wait_empty(10_000).unwrap());
        assert_eq!(cgroup.pids(true).unwrap(), [0_i32; 0]);
    }

    pub(super) fn cgroups_made_by_the_container_are_removed() {
        let place = Place::new();
        let _cgroup = place.create();
        for (controller, dir) in place.location.paths() {
            std::fs::create_dir_all(dir.join("a/b")).unwrap_or_else(|e| panic!("{controller}: {e}"));
        }
        Cgroup::remove(&place.location).unwrap();
        place.assert_gone();
    }

    /// What opening /dev/kmsg, which is not among the default devices, and /dev/null says in the container.
    fn try_devices(place: &mut Place, cgroup: &mut Cgroup) -> String {
        let script = "a=no; b=no; (: </dev/kmsg) && a=yes; (: >/dev/null) && b=yes; echo $a $b";
        let child = place.shell(script);
        cgroup.attach(place.pid(child)).unwrap();
        place.line(child)
    }

    pub(super) fn devices_are_restricted_and_updated() {
        let mut place = Place::new();
        let mut cgroup = place.create();
        assert_eq!(try_devices(&mut place, &mut cgroup), "yes yes");
        cgroup.apply(&place.limits(json!({}))).unwrap();
        assert_eq!(try_devices(&mut place, &mut cgroup), "no yes");
        let update = |rules: serde_json::Value| {
            let resources = parse(json!({ "devices": rules }));
            Limits::compile_update(&resources, place.location.version()).unwrap()
        };
        let kmsg = update(json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"},
        ]));
        let nothing = update(json!([{"allow": false, "access": "rwm"}]));
        let all = update(json!([{"allow": true, "access": "rwm"}]));
        // As the next command of the runtime finds it: opened, not made.
        let mut cgroup = Cgroup::open(&place.location).unwrap();
        for (limits, want) in [
            (&kmsg, "yes yes"),
            (&nothing, "no yes"),
            (&all, "yes yes"),
            (&nothing, "no yes"),
            (&kmsg, "yes yes"),
        ] {
            cgroup.update(limits).unwrap();
            assert_eq!(try_devices(&mut place, &mut cgroup), want);
        }
        let without = Limits::compile_update(&parse(json!({})), place.location.version()).unwrap();
        cgroup.update(&without).unwrap();
        assert_eq!(try_devices(&mut place, &mut cgroup), "yes yes");
    }

    pub(super) fn holes_in_wildcards_are_kept_on_v2() {
        let mut place = Place::new();
        let mut cgroup = place.create();
        let limits = place.limits(json!({"devices": [
            {"allow": true, "type": "c", "major": 1, "access": "rw"},
            {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "w"},
        ]}));
        cgroup.apply(&limits).unwrap();
        let child = place.shell("r=no; w=no; (: </dev/kmsg) && r=yes; (: >/dev/kmsg) && w=yes; echo $r $w");
        cgroup.attach(place.pid(child)).unwrap();
        assert_eq!(place.line(child), "yes no");
    }

    pub(super) fn update_finds_the_order_of_writes() {
        let place = Place::new();
        let cgroup = place.create();
        let set = |resources: serde_json::Value| {
            let limits = Limits::compile_update(&parse(resources.clone()), place.location.version()).unwrap();
            cgroup
                .update(&limits)
                .unwrap_or_else(|e| panic!("{resources}: {e}: {:?}", std::error::Error::source(&e)));
        };
        let mib = |n: i64| n << 20;
        let (memory, swap) = match place.v2() {
            true => ("memory.max", "memory.swap.max"),
            false => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        };
        if place.has("memory") {
            for (limit, both) in [(64, 128), (256, 512), (16, 32), (64, 64), (16, 16)] {
                set(json!({"memory": {"limit": mib(limit), "swap": mib(both)}}));
                let second = if place.v2() { both - limit } else { both };
                assert_eq!(place.read("memory", memory), mib(limit).to_string());
                assert_eq!(place.read("memory", swap), mib(second).to_string());
            }
            set(json!({"memory": {"limit": -1}}));
            assert_eq!(place.read("memory", memory), place.read("memory", swap));
        } else {
            skip("no memory controller");
        }
        if !place.has("cpu") {
            return skip("no cpu controller");
        }
        if !place.v2() {
            // A parent's quota makes the ratio of quota and period matter.
            let parent = place.dir("cpu").parent().unwrap().to_path_buf();
            std::fs::write(parent.join("cpu.cfs_quota_us"), "50000").unwrap();
        }
        for (quota, period) in [(40_000, 100_000), (4_000, 10_000), (400_000, 1_000_000)] {
            set(json!({"cpu": {"quota": quota, "period": period}}));
            if place.v2() {
                assert_eq!(place.read("cpu", "cpu.max"), format!("{quota} {period}"));
            } else {
                assert_eq!(place.read("cpu", "cpu.cfs_quota_us"), quota.to_string());
                assert_eq!(place.read("cpu", "cpu.cfs_period_us"), period.to_string());
            }
        }
        set(json!({"cpu": {"burst": 1000}}));
        set(json!({"cpu": {"idle": 1}}));
        assert_eq!(place.read("cpu", "cpu.idle"), "1");
        set(json!({"cpu": {"idle": 0, "shares": 300}}));
        let (file, value) = if place.v2() { ("cpu.weight", "39") } else { ("cpu.shares", "300") };
        assert_eq!(place.read("cpu", file), value);
    }

    pub(super) fn a_failing_limit_is_named() {
        let place = Place::new();
        let cgroup = place.create();
        if place.has("hugetlb") {
            let limits = place.limits(json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}));
            let error = cgroup.apply(&limits).unwrap_err();
            assert!(error.to_string().starts_with("/linux/resources/hugepageLimits/0/limit: "), "{error}");
        }
        let limits = place.limits(json!({"rdma": {"mlx5": {"hcaHandles": 1}}}));
        match cgroup.apply(&limits) {
            Err(Error::NoController { pointer, controller }) => {
                assert_eq!((pointer.as_str(), controller.as_str()), ("/linux/resources/rdma/mlx5", "rdma"));
            }
            // A host that has the controller does not have the device.
            Err(Error::Limit { pointer, .. }) => assert_eq!(pointer, "/linux/resources/rdma/mlx5"),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn oom_is_reported() {
        let mut place = Place::new();
        if !place.has("memory") {
            return skip("no memory controller");
        }
        let limits = place.limits(json!({"memory": {"limit": 8 << 20, "swap": 8 << 20}}));
        let mut cgroup = Cgroup::create(&place.location, &limits).unwrap();
        cgroup.apply(&limits).unwrap();
        let child = place.shell("exec tail /dev/zero");
        cgroup.attach(place.pid(child)).unwrap();
        let mut watch = cgroup.oom_watch().unwrap();
        assert_eq!(watch.next_event().unwrap(), OomEvent::Nothing);
        place.go(child);
        until("an OOM kill", || watch.next_event().unwrap() == OomEvent::Oom);
        until("its count", || cgroup.oom_kills().unwrap() == 1);
        let _ = watch.as_fd();
        place.reap();
        Cgroup::remove(&place.location).unwrap();
        until("the end", || watch.next_event().unwrap() == OomEvent::Gone);
    }

    pub(super) fn stats_count() {
        let mut place = Place::new();
        let mut cgroup = place.create();
        let child =
            place.shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; exec sleep 1000");
        cgroup.attach(place.pid(child)).unwrap();
        assert_eq!(place.line(child), "done");
        let stats = cgroup.stats().unwrap();
        assert_eq!(stats.pids.current, 1);
        assert!(stats.cpu.usage.total > 0);
        if !place.v2() {
            assert!(!stats.cpu.usage.percpu.is_empty() && !stats.cpuset.cpus.is_empty());
            assert!(stats.memory.usage.limit > 0 && stats.memory.raw.contains_key("rss"));
        }
        let value = serde_json::to_value(&stats).unwrap();
        for key in ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"]
        {
            assert!(value.get(key).is_some(), "{key}");
        }
    }

    pub(super) fn remove_finishes_what_was_begun() {
        let place = Place::new();
        // Nothing there yet.
        Cgroup::remove(&place.location).unwrap();
        // A crash in the middle: some directories are there, others are not.
        drop(place.create());
        let dirs: Vec<_> = place.location.paths().map(|(_, dir)| dir.to_path_buf()).collect();
        std::fs::remove_dir(&dirs[0]).unwrap();
        Cgroup::remove(&place.location).unwrap();
        place.assert_gone();
    }

    pub(super) fn delegation_gives_the_listed_files() {
        use std::os::unix::fs::MetadataExt;
        let place = Place::new();
        let cgroup = place.create();
        cgroup.delegate(4711).unwrap();
        if !place.v2() {
            // Not safe there, and so not done.
            assert!(place.location.paths().all(|(_, dir)| std::fs::metadata(dir).unwrap().uid() == 0));
            return;
        }
        let owner = |name: &str| std::fs::metadata(place.dir("").join(name)).unwrap().uid();
        assert_eq!(owner("."), 4711);
        assert_eq!(owner("cgroup.procs"), 4711);
        assert_eq!(owner("cgroup.kill"), 0);
    }

    fn rootless(path: Option<&str>) -> (Layout, Location) {
        let layout = Layout::probe().unwrap();
        let id = format!("dhow-test-{}", std::process::id());
        let location = Location::resolve(&layout, path, &id, Driver::Cgroupfs, true).unwrap();
        (layout, location)
    }

    pub(super) fn users_go_without_what_they_may_not_have() {
        assert!(!is_root());
        let (layout, location) = rootless(None);
        let none = Limits::compile(None, layout.version()).unwrap();
        let mut cgroup = Cgroup::create(&location, &none).unwrap();
        assert!(cgroup.is_empty() && cgroup.clone_into().is_none());
        cgroup.attach(std::process::id() as i32).unwrap();
        cgroup.apply(&none).unwrap();
        assert!(!cgroup.is_frozen().unwrap() && cgroup.pids(true).unwrap().is_empty());
        cgroup.kill().unwrap();
        // The next command opens by path.
        let reopened = Cgroup::open(&location).unwrap();
        assert!(!reopened.is_populated().unwrap());
        reopened.kill().unwrap();
        Cgroup::remove(&location).unwrap();
        // A limit that is asked for is not left out silently, nor a path that is.
        let limits = Limits::compile(Some(&parse(json!({"pids": {"limit": 5}}))), layout.version()).unwrap();
        let error = Cgroup::create(&location, &limits).unwrap().apply(&limits).unwrap_err();
        assert_eq!(error.to_string(), "/linux/resources/pids/limit: the cgroup has no pids controller");
        let (_, explicit) = rootless(Some("/dhow-test-never/c"));
        assert!(matches!(Cgroup::create(&explicit, &none), Err(Error::Make { .. })));
    }

    pub(super) fn users_have_what_is_delegated() {
        assert!(!is_root());
        let (layout, location) = rootless(None);
        let limits = Limits::compile(None, layout.version()).unwrap();
        let mut cgroup = Cgroup::create(&location, &limits).unwrap();
        assert!(!cgroup.is_empty());
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        cgroup.attach(child.id() as i32).unwrap();
        // Device filters are beyond a user.
        cgroup.apply(&limits).unwrap();
        assert_eq!(cgroup.pids(false).unwrap(), [child.id() as i32]);
        cgroup.freeze().unwrap();
        cgroup.kill().unwrap();
        child.wait().unwrap();
        Cgroup::remove(&location).unwrap();
        assert!(location.paths().all(|(_, dir)| !dir.exists()));
    }
}
