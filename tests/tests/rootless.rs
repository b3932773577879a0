//! Containers of an ordinary user: user namespace of his own, mapped by the real newuidmap and newgidmap.
//!
//! The user is [`sailor`]'s: he has no capability, and nothing on the machine is his but two directories of the sandbox.

use dhow_tests::callers::{quote, with_terminal};
use dhow_tests::command::{Output, run, wait_for};
use dhow_tests::sailor::{self, SAILOR_ID, SAILOR_SUBIDS};
use dhow_tests::sandbox::{CgroupLayout, CgroupView, cgroup_layout};
use dhow_tests::skip::missing_program;
use dhow_tests::{Bundle, Sandbox, leftovers, runtime, skip};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A bundle of the user's, and the sandbox that he lives in.
struct Sailor {
    bundle: Bundle,
    sandbox: Sandbox,
}

impl Sailor {
    fn new(view: CgroupView) -> Result<Sailor, String> {
        if let Some(program) = missing_program(&["setpriv", "newuidmap", "newgidmap"]) {
            return Err(format!("{program} is not installed"));
        }
        let sandbox = Sandbox::new(view)?;
        sailor::enlist(&sandbox)?;
        let mut bundle = Bundle::busybox();
        bundle.config_mut()["linux"].as_object_mut().expect("an object").remove("cgroupsPath");
        bundle.config_mut()["linux"].as_object_mut().expect("an object").remove("resources");
        let namespaces = bundle.config_mut()["linux"]["namespaces"].as_array_mut().expect("an array");
        namespaces.push(json!({ "type": "user" }));
        let sailor = Sailor { bundle, sandbox };
        run(Command::new("chown")
            .arg("-R")
            .arg(format!("{SAILOR_ID}:{SAILOR_ID}"))
            .arg(sailor.bundle.path()))
        .ok();
        Ok(sailor)
    }

    /// Root is the user himself, and all his subordinate ids follow.
    fn map_ranges(&mut self) -> &mut Bundle {
        let map = json!([
            { "containerID": 0, "hostID": SAILOR_ID, "size": 1 },
            { "containerID": 1, "hostID": SAILOR_SUBIDS, "size": 65536 }
        ]);
        self.bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
    }

    /// Root is the user himself, and there is nobody else.
    fn map_self(&mut self) -> &mut Bundle {
        let map = json!([{ "containerID": 0, "hostID": SAILOR_ID, "size": 1 }]);
        self.bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        // The group of terminals does not exist here.
        let options = &mut self.bundle.config_mut()["mounts"][2]["options"];
        options.as_array_mut().expect("an array").retain(|o| o != "gid=5");
        &mut self.bundle
    }

    fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = sailor::command(&self.sandbox, runtime::binary());
        command.args(args);
        command
    }

    fn call<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        run(&mut self.command(args))
    }

    fn bundle_path(&self) -> String {
        self.bundle.path().display().to_string()
    }

    /// `run` of what the bundle says, in the foreground.
    fn run(&self, id: &str) -> Output {
        self.bundle.write();
        self.call(["run", "--bundle", &self.bundle_path(), id])
    }

    /// `run --detach`, with no pipe of the test's left in the container.
    fn run_detached(&self, id: &str) -> Output {
        self.bundle.write();
        self.call(["run", "--detach", "--bundle", &self.bundle_path(), id])
    }

    fn state(&self, id: &str) -> Value {
        self.call(["state", id]).ok().json()
    }

    fn wait_status(&self, id: &str, status: &str) {
        let reached =
            wait_for(Duration::from_secs(10), || (self.state(id)["status"] == status).then_some(()));
        assert!(reached.is_some(), "{id} is not {status}");
    }

    /// The default state directory.
    fn root(&self) -> PathBuf {
        self.sandbox.join("xdg/dhow/runtime")
    }

    fn nothing_left(&self) {
        leftovers::assert_none(self.bundle.tag(), Some(&self.root()));
    }
}

/// White space as one blank.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

macro_rules! sailor {
    ($view:expr) => {
        match Sailor::new($view) {
            Ok(sailor) => sailor,
            Err(reason) => skip!("{reason}"),
        }
    };
}

#[test]
fn a_users_container_lives_and_goes() {
    life(sailor!(CgroupView::Host));
}

#[test]
fn a_users_container_lives_and_goes_on_cgroup_v2() {
    life(sailor!(CgroupView::V2));
}

fn life(mut sailor: Sailor) {
    sailor.map_ranges().args(["sleep", "100"]);
    sailor.run_detached("one").ok();
    let state = sailor.state("one");
    assert_eq!((&state["status"], &state["owner"]), (&json!("running"), &json!("sailor")), "{state}");
    assert!(sailor.root().join("one/state.json").is_file(), "the state is not below XDG_RUNTIME_DIR");
    assert_eq!(sailor.call(["list", "--quiet"]).ok().text(), "one");

    let map = sailor.call(["exec", "one", "cat", "/proc/self/uid_map", "/proc/self/gid_map"]).ok();
    let one = format!("0 {SAILOR_ID} 1 1 {SAILOR_SUBIDS} 65536");
    assert_eq!(words(&map.stdout), format!("{one} {one}"));
    let id = sailor.call(["exec", "--user", "7:8", "--additional-gids", "9", "one", "id"]).ok();
    assert_eq!(id.text(), "uid=7 gid=8 groups=9");
    // Somebody else than the user, on the host.
    let owner =
        "echo hello >/tmp/file; chown 7:8 /tmp/file; stat -c %u:%g /tmp/file; hostname inside; hostname";
    assert_eq!(
        sailor.call(["exec", "--cap", "CAP_SYS_ADMIN", "one", "sh", "-c", owner]).ok().text(),
        "7:8\ninside"
    );
    let seen = fs::metadata(sailor.bundle.rootfs().join("tmp/file")).expect("the file on the host");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&seen), SAILOR_SUBIDS + 6);

    let signal = sailor.call(["exec", "one", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(signal.code, 143, "{signal}");
    sailor.call(["kill", "one", "KILL"]).ok();
    sailor.wait_status("one", "stopped");
    sailor.call(["delete", "one"]).ok();
    sailor.nothing_left();
}

#[test]
fn a_users_container_is_created_and_started() {
    let mut sailor = sailor!(CgroupView::Host);
    sailor.map_ranges().shell("echo started; sleep 100");
    sailor.bundle.write();
    let path = sailor.bundle_path();
    let pid_file = sailor.sandbox.join("home/pid").display().to_string();
    sailor.call(["create", "--bundle", &path, "--pid-file", &pid_file, "two"]).ok();
    assert_eq!(sailor.state("two")["status"], "created");
    sailor.call(["start", "two"]).ok();
    assert_eq!(sailor.state("two")["status"], "running");
    assert!(fs::read_to_string(&pid_file).is_ok_and(|pid| pid.parse::<u32>().is_ok()));
    sailor.call(["delete", "--force", "two"]).ok();
    sailor.nothing_left();
}

#[test]
fn a_users_terminals() {
    let mut sailor = sailor!(CgroupView::Host);
    sailor.map_ranges().shell("tty; stat -c %u:%g:%a $(tty)").terminal(true);
    sailor.bundle.write();
    let on_terminal = |command: &Command| {
        let all = std::iter::once(command.get_program()).chain(command.get_args());
        let line: Vec<String> = all.map(|w| quote(&w.to_string_lossy())).collect();
        let mut script = with_terminal(&line.join(" "));
        script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        run(&mut script)
    };
    let path = sailor.bundle_path();
    let out = on_terminal(&sailor.command(["run", "--bundle", &path, "tty"])).ok();
    // script(1) gets no input, and says so to the terminal, which shows it.
    let shown = |out: &Output| words(&out.stdout.replace("^@", ""));
    assert_eq!(shown(&out), "/dev/pts/0 0:5:620");

    sailor.bundle.args(["sleep", "100"]).terminal(false);
    sailor.run_detached("tty").ok();
    let exec = sailor.command(["exec", "--tty", "tty", "sh", "-c", "tty; test -t 2 && echo two"]);
    let out = on_terminal(&exec).ok();
    assert_eq!(shown(&out), "/dev/pts/0 two");
    sailor.call(["delete", "--force", "tty"]).ok();
    sailor.nothing_left();
}

#[test]
fn one_id_needs_no_helper() {
    let mut sailor = sailor!(CgroupView::Host);
    sailor
        .map_self()
        .shell("id -u; id -g; cat /proc/self/setgroups /proc/self/uid_map; head -c 4 /dev/zero | wc -c");
    sailor.bundle.write();
    let path = sailor.bundle_path();
    // The runtime finds no newuidmap.
    let script = format!("PATH=/nonexistent exec {} run --bundle {path} alone", runtime::binary().display());
    let mut command = sailor::command(&sailor.sandbox, "sh");
    let out = run(command.args(["-c", &script])).ok();
    assert_eq!(words(&out.stdout), format!("0 0 deny 0 {SAILOR_ID} 1 4"));

    sailor.bundle.args(["sleep", "100"]);
    sailor.run_detached("alone").ok();
    assert_eq!(sailor.call(["exec", "alone", "id", "-u"]).ok().text(), "0");
    // A group that does not exist there cannot be had.
    let more = sailor.call(["exec", "--additional-gids", "3", "alone", "id"]);
    assert!(!more.success() && more.stderr.contains("/process/user"), "{more}");
    sailor.call(["delete", "--force", "alone"]).ok();
    sailor.nothing_left();
}

#[test]
fn a_template_for_a_user_runs() {
    let sailor = sailor!(CgroupView::Host);
    fs::remove_file(sailor.bundle.path().join("config.json")).expect("remove the config");
    sailor.call(["spec", "--rootless", "--bundle", &sailor.bundle_path()]).ok();
    let path = sailor.bundle.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("read the config")).expect("JSON");
    config["process"]["args"] = json!(["sh", "-c", "id -u; ls /sys | head -n 1; hostname"]);
    config["process"]["terminal"] = json!(false);
    fs::write(&path, config.to_string()).expect("write the config");
    let out = sailor.call(["run", "--bundle", &sailor.bundle_path(), "spec"]).ok();
    assert!(out.stdout.starts_with("0\nblock\n"), "{out}");
    sailor.nothing_left();
}

#[test]
fn what_a_user_may_not_have_is_said() {
    let mut sailor = sailor!(CgroupView::Host);
    let bad = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
    sailor.map_ranges().set("/linux/uidMappings", bad);
    let out = sailor.run("bad").code(1);
    for part in ["newuidmap", "/etc/subuid", "600000 to 665535"] {
        assert!(out.stderr.contains(part), "no {part:?}: {out}");
    }
    // The user has no range at all.
    sailor.map_ranges();
    sailor.bundle.write();
    sailor.sandbox.shell("umount /etc/subuid; umount /etc/subgid").ok();
    let out = sailor.run("none").code(1);
    assert!(out.stderr.contains("/etc/subuid"), "{out}");

    // No user namespace at all.
    let namespaces = &mut sailor.bundle.config_mut()["linux"]["namespaces"];
    namespaces.as_array_mut().expect("an array").retain(|n| n["type"] != "user");
    for key in ["uidMappings", "gidMappings"] {
        sailor.bundle.config_mut()["linux"].as_object_mut().expect("an object").remove(key);
    }
    let out = sailor.run("plain").code(1);
    assert!(out.stderr.contains("user namespace"), "{out}");
    sailor.nothing_left();
}

#[test]
fn a_user_with_a_cgroup_of_his_own() {
    let view = if cgroup_layout() == CgroupLayout::Legacy { CgroupView::Host } else { CgroupView::V2 };
    let mut sailor = sailor!(view);
    if cgroup_layout() == CgroupLayout::Legacy {
        skip!("no cgroup v2 here");
    }
    let tag = sailor.sandbox.tag().to_owned();
    let delegate = format!(
        "set -e; cd /sys/fs/cgroup; mkdir {tag} {tag}/login; chown {SAILOR_ID} {tag} {tag}/login \
         {tag}/cgroup.procs {tag}/cgroup.subtree_control {tag}/login/cgroup.procs"
    );
    sailor.sandbox.shell(&delegate).ok();
    sailor.map_ranges().args(["sleep", "100"]).set("/linux/cgroupsPath", json!(format!("/{tag}/{tag}-box")));
    sailor.bundle.write();
    // A user may move processes only within what is his: the runtime starts in it.
    let join = format!("echo $$ >/sys/fs/cgroup/{tag}/login/cgroup.procs; exec \"$@\"");
    let inside = |args: &[&str]| {
        let mut command = sailor.sandbox.command("sh");
        command.args(["-c", &join, "sh", "setpriv"]).arg(format!("--reuid={SAILOR_ID}"));
        command.arg(format!("--regid={SAILOR_ID}")).args(["--clear-groups", "--"]);
        command.arg(runtime::binary()).args(args);
        command.env("HOME", sailor.sandbox.join("home")).env("XDG_RUNTIME_DIR", sailor.sandbox.join("xdg"));
        run(&mut command)
    };
    inside(&["run", "--detach", "--bundle", &sailor.bundle_path(), "box"]).ok();
    let procs = sailor.sandbox.shell(&format!("wc -l </sys/fs/cgroup/{tag}/{tag}-box/cgroup.procs")).ok();
    assert_eq!(procs.text(), "1");
    assert_eq!(inside(&["exec", "box", "cat", "/proc/self/cgroup"]).ok().stdout.lines().last(), Some("0::/"));
    inside(&["pause", "box"]).ok();
    assert_eq!(sailor.state("box")["status"], "paused");
    inside(&["resume", "box"]).ok();
    assert_eq!(sailor.state("box")["status"], "running");
    inside(&["delete", "--force", "box"]).ok();
    sailor.nothing_left();
}

#[test]
fn a_users_container_without_a_cgroup_cannot_pause() {
    let mut sailor = sailor!(CgroupView::Host);
    sailor.map_ranges().args(["sleep", "100"]);
    sailor.run_detached("still").ok();
    let out = sailor.call(["pause", "still"]);
    assert!(!out.success() && out.stderr.contains("cgroup"), "{out}");
    assert_eq!(sailor.state("still")["status"], "running");
    sailor.call(["delete", "--force", "still"]).ok();
    sailor.nothing_left();
}
