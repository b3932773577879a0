//! Mounts of a host whose root is shared, as systemd makes it: a container must not take any of them away.

use dhow_tests::sandbox::CgroupView;
use dhow_tests::{Bundle, Sandbox, leftovers, skip};
use serde_json::json;

#[test]
fn the_host_keeps_its_mounts_whatever_propagates() {
    let sandbox = match Sandbox::new(CgroupView::Host) {
        Ok(sandbox) => sandbox,
        Err(reason) => skip!("{reason}"),
    };
    sandbox.shell("mount --make-rshared /").ok();
    let mounts = || sandbox.shell("cut -d' ' -f3-5 /proc/self/mountinfo | sort").ok().stdout;
    let before = mounts();
    for kind in ["shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"] {
        let mut bundle = Bundle::busybox();
        bundle.set("/linux/rootfsPropagation", json!(kind)).args(["sleep", "100"]);
        bundle.write();
        let runtime = bundle.runtime();
        let id = runtime.fresh_id();
        let path = bundle.path().display().to_string();
        let inside = |args: &[&str]| {
            let root = runtime.root().display().to_string();
            let binary = runtime.binary().display().to_string();
            sandbox.run(&binary, [&["--root", &root], args].concat())
        };
        inside(&["run", "--detach", "--bundle", &path, &id]).ok();
        assert_eq!(mounts(), before, "while a container with {kind} runs");
        inside(&["delete", "--force", &id]).ok();
        assert_eq!(mounts(), before, "after a container with {kind}");
        leftovers::assert_none(bundle.tag(), Some(runtime.root()));
    }
}
