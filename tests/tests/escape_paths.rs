//! SECURITY.md class B: hostile paths in a root filesystem, still and racing, against a decoy on the host.

use dhow_tests::skip::is_root;
use dhow_tests::{Bundle, command, leftovers, run, skip};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Everything about a tree that a container must not change.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).expect("stat in the decoy");
        let kind = meta.file_type();
        let content = if kind.is_file() {
            fs::read_to_string(&path).expect("read in the decoy")
        } else if kind.is_symlink() {
            fs::read_link(&path).expect("readlink in the decoy").display().to_string()
        } else {
            String::new()
        };
        let facts = format!(
            "{:o} {} {} {} {}.{} {}.{} {:?} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
            kind.is_char_device()
        );
        if kind.is_dir() {
            todo.extend(fs::read_dir(&path).expect("list the decoy").flatten().map(|e| e.path()));
        }
        all.insert(path, facts);
    }
    all
}

fn decoy(bundle: &Bundle) -> PathBuf {
    let dir = bundle.scratch().dir("decoy");
    for name in ["sub", "sub/deep", "empty"] {
        fs::create_dir_all(dir.join(name)).expect("make the decoy");
    }
    for name in ["file", "sub/file", "null", "ptmx", "console"] {
        fs::write(dir.join(name), "of the host").expect("fill the decoy");
    }
    dir
}

/// What stands where the runtime wants something else.
const KINDS: [&str; 12] = [
    "absolute link",
    "absolute link to a file",
    "relative escape",
    "magic link",
    "magic link to a descriptor",
    "dangling link",
    "loop",
    "fifo",
    "socket",
    "device",
    "file",
    "directory",
];

fn plant(kind: &str, at: &Path, decoy: &Path) {
    let _ = fs::remove_file(at);
    let _ = fs::remove_dir_all(at);
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent).expect("make the way to the place");
    }
    let up = format!("{}{}", "../".repeat(40), decoy.display());
    let link = |to: &str| symlink(to, at).expect("plant a link");
    match kind {
        "absolute link" => link(&decoy.display().to_string()),
        "absolute link to a file" => link(&decoy.join("file").display().to_string()),
        "relative escape" => link(&up),
        "magic link" => link(&format!("/proc/1/root{}", decoy.display())),
        "magic link to a descriptor" => link("/proc/self/fd/3"),
        "dangling link" => link(&decoy.join("not/there").display().to_string()),
        "loop" => link(&at.file_name().expect("a name").to_string_lossy()),
        "fifo" => drop(run(Command::new("mkfifo").arg(at)).ok()),
        "socket" => drop(UnixListener::bind(at).expect("plant a socket")),
        "device" => drop(run(Command::new("mknod").arg(at).args(["c", "1", "7"])).ok()),
        "file" => fs::write(at, "of the image").expect("plant a file"),
        "directory" => fs::create_dir_all(at).expect("plant a directory"),
        other => panic!("no kind {other}"),
    }
}

/// Where: path in the image, and what of the config makes the runtime go there.
const PLACES: [&str; 16] = [
    "proc",
    "sys",
    "dev",
    "dev/pts",
    "dev/ptmx",
    "dev/console",
    "dev/null",
    "dev/shm",
    "mount",
    "mount-file",
    "way",
    "masked",
    "readonly",
    "cwd",
    "devices",
    "copyup",
];

fn configure(bundle: &mut Bundle, place: &str) {
    let tag = bundle.tag().to_owned();
    *bundle.config_mut() = dhow_tests::bundle::docker_config(&tag);
    let source = bundle.scratch().dir("volume");
    fs::write(source.join("mine"), "volume").expect("fill the volume");
    let file = bundle.scratch().join("volume-file");
    fs::write(&file, "volume").expect("make the volume");
    let bind = |source: &Path, to: &str| json!({ "destination": to, "type": "bind", "source": source, "options": ["rbind"] });
    // The image's own /dev shows only where no tmpfs covers it.
    let own_dev = |bundle: &mut Bundle| {
        let mounts = bundle.config_mut()["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|m| m["destination"] != "/dev");
    };
    match place {
        "proc" | "sys" | "dev" => {}
        "dev/pts" | "dev/ptmx" | "dev/console" | "dev/null" | "dev/shm" => own_dev(bundle),
        "mount" => {
            bundle.mount(bind(&source, "/mount")).mount(bind(&source, "/mount/mine-too"));
        }
        "mount-file" => {
            bundle.mount(bind(&file, "/mount-file"));
        }
        "way" => {
            bundle.mount(bind(&source, "/way/sub/new"));
        }
        "masked" => {
            bundle.set("/linux/maskedPaths", json!(["/masked", "/masked/sub", "/masked/file"]));
        }
        "readonly" => {
            bundle.set("/linux/readonlyPaths", json!(["/readonly", "/readonly/sub", "/readonly/file"]));
        }
        "cwd" => {
            bundle.set("/process/cwd", json!("/cwd/made"));
        }
        "devices" => {
            let device = json!([{ "path": "/devices/null", "type": "c", "major": 1, "minor": 3, "uid": 7 }]);
            bundle.set("/linux/devices", device);
        }
        "copyup" => {
            bundle.mount(
                json!({ "destination": "/copyup", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"] }),
            );
        }
        other => panic!("no place {other}"),
    }
}

/// What the container does with the place: it tries to write through it, and says what it is.
/// `<>` does not wait for the other side of a FIFO.
const PROGRAM: &str = "(echo through 1<>/$P/written; echo through 1<>/$P) 2>/dev/null; \
    [ -e /proc/self/stat ] || exit 9; exit 0";

#[test]
fn nothing_in_an_image_leads_out_of_it() {
    if !is_root() {
        skip!("not root");
    }
    let mut bundle = Bundle::busybox();
    let decoy = decoy(&bundle);
    let before = snapshot(&decoy);
    let mut tried = 0;
    let mut succeeded = 0;
    for place in PLACES {
        for kind in KINDS {
            // A fresh image: the last one may have been changed by its container, as it may.
            let rootfs = bundle.rootfs();
            for dir in
                ["proc", "sys", "dev", "mount", "way", "masked", "readonly", "cwd", "devices", "copyup"]
            {
                let path = rootfs.join(dir);
                if fs::symlink_metadata(&path).is_ok_and(|m| !m.is_dir()) {
                    fs::remove_file(&path).expect("remove what was planted");
                }
                let _ = fs::remove_dir_all(&path);
            }
            for dir in ["proc", "sys", "dev"] {
                fs::create_dir_all(rootfs.join(dir)).expect("make a directory of the image");
            }
            configure(&mut bundle, place);
            plant(kind, &rootfs.join(place), &decoy);
            bundle.set("/process/env", json!(["PATH=/bin", format!("P={place}")]));
            let terminal = place == "dev/console" || place == "dev/ptmx";
            let runtime = bundle.runtime();
            bundle.shell(PROGRAM).write();
            let case = format!("{place} is a {kind}");
            let path = bundle.path().to_str().expect("a path in UTF-8").to_owned();
            let limit = Duration::from_secs(20);
            let id = "matrix";
            let mut command = runtime.command(["run", "--bundle", &path, id]);
            if terminal {
                bundle.terminal(true).write();
            }
            let out = command::run_with(&mut command, b"\n", limit);
            assert!(!out.timed_out, "{case}: run hangs: {out}");
            assert_ne!(out.code, 9, "{case}: the container has no procfs: {out}");
            assert!(!out.stderr.contains("panicked"), "{case}: {out}");
            succeeded += u32::from(out.success());
            tried += 1;
            runtime.delete_force(id).ok();

            if terminal {
                continue;
            }
            bundle.args(["/bin/sleep", "100"]).write();
            let mut command = runtime.command(["create", "--bundle", &path, id]);
            let out = command::run_with(&mut command, b"", limit);
            assert!(!out.timed_out, "{case}: create hangs: {out}");
            if out.success() && runtime.start(id).success() {
                let cwd = format!("/{place}");
                let mut command = runtime.command(["exec", "--cwd", &cwd, id, "/bin/sh", "-c", PROGRAM]);
                let out = command::run_with(&mut command, b"", limit);
                assert!(!out.timed_out, "{case}: exec hangs: {out}");
            }
            runtime.delete_force(id).ok();
            assert_eq!(snapshot(&decoy), before, "{case}: the decoy has changed");
        }
    }
    assert_eq!(snapshot(&decoy), before, "the decoy has changed");
    // What is harmless is not refused: a dangling link to a mount's target is made inside the root.
    assert!(succeeded > tried / 3, "{succeeded} of {tried} succeeded");
    leftovers::assert_none(bundle.tag(), Some(bundle.runtime().root()));
}

/// One directory of the image that is, in turns, a directory and a link to the decoy.
fn swap(at: &Path, decoy: &Path, stop: &AtomicBool) {
    let aside = at.with_extension("aside");
    let link = at.with_extension("link");
    symlink(format!("{}{}", "../".repeat(40), decoy.display()), &link).expect("make the link");
    while !stop.load(Ordering::Relaxed) {
        // The runtime makes what it needs in between, so any of these may fail.
        let _ = fs::rename(at, &aside);
        let _ = fs::rename(&link, at);
        std::thread::yield_now();
        if fs::symlink_metadata(at).is_ok_and(|m| m.is_symlink()) {
            let _ = fs::rename(at, &link);
        }
        let _ = fs::remove_dir_all(at);
        let _ = fs::rename(&aside, at);
        if fs::symlink_metadata(&link).is_err() {
            let _ = symlink(decoy, &link);
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_swap_while_containers_are_made_does_not_lead_out() {
    if !is_root() {
        skip!("not root");
    }
    let mut bundle = Bundle::busybox();
    let decoy = decoy(&bundle);
    let before = snapshot(&decoy);
    let place = bundle.rootfs().join("race");
    fs::create_dir_all(place.join("sub/deep")).expect("make the place");
    let source = bundle.scratch().dir("volume");
    for to in ["/race/new", "/race/sub/new", "/race/empty/new"] {
        bundle.mount(json!({ "destination": to, "type": "bind", "source": source, "options": ["rbind"] }));
    }
    bundle.mount(
        json!({ "destination": "/race/copy", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"] }),
    );
    bundle.set("/linux/maskedPaths", json!(["/race/sub/deep", "/race/file"]));
    bundle.set("/linux/readonlyPaths", json!(["/race/sub", "/race/sub/file"]));
    bundle.set("/linux/devices", json!([{ "path": "/race/made/null", "type": "c", "major": 1, "minor": 3 }]));
    bundle.set("/process/cwd", json!("/race/cwd/made"));
    bundle
        .shell("echo through >/race/new/written; echo through >/race/written; echo through >written")
        .write();
    let stop = AtomicBool::new(false);
    let rounds = 80;
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&place, &decoy, &stop));
        let runtime = bundle.runtime();
        for round in 0..rounds {
            let out = runtime.run("race", &bundle);
            if out.timed_out || snapshot(&decoy) != before {
                stop.store(true, Ordering::Relaxed);
                panic!("round {round}: the decoy has changed, or it hangs: {out}");
            }
            runtime.delete_force("race");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(snapshot(&decoy), before, "the decoy has changed");
    leftovers::assert_none(bundle.tag(), Some(bundle.runtime().root()));
}
