//! SECURITY.md class A: descriptors, working directory, and the runtime's own binary.
//!
//! The victim is a copy of the runtime in a scratch directory. Where the binary under test is linked dynamically, the
//! container gets its libraries: the attacks do not depend on how it was linked.

use dhow_tests::runtime::binary;
use dhow_tests::skip::{is_root, missing_program};
use dhow_tests::{Bundle, Runtime, command, leftovers, run, skip};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A script that is no program of its own: the kernel opens the interpreter as the process that executes it, which at
/// that moment is still the runtime. `--log` on a FIFO makes that process wait, for as long as the attacker likes.
const TRAP: &str = "#!/proc/self/exe --log=/fifo\n";

/// Waits for a process that is not busybox, opens its file, lets it end, and writes to the file.
const ATTACKER: &str = r#"
while :; do
  for p in /proc/[0-9]*; do
    exe=$(readlink $p/exe) || continue
    case $exe in */busybox) continue;; esac
    ( exec 3<$p/exe || exit
      echo opened >>/result
      ( cat /fifo >/dev/null ) &
      for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        usleep 20000
        ( echo overwritten 1<>/proc/self/fd/3 >/proc/self/fd/3 ) && { echo wrote >>/result; break; }
      done )
  done
done
"#;

struct Victim {
    bundle: Bundle,
    path: PathBuf,
    before: Vec<u8>,
}

impl Victim {
    fn new() -> Victim {
        let bundle = Bundle::busybox();
        let path = bundle.scratch().join("victim");
        fs::copy(binary(), &path).expect("copy the runtime");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod the copy");
        libraries(&path, &bundle.rootfs());
        let evil = bundle.rootfs().join("evil");
        fs::write(&evil, TRAP).expect("write the trap");
        fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).expect("chmod the trap");
        run(Command::new("mkfifo").arg(bundle.rootfs().join("fifo"))).ok();
        let before = fs::read(&path).expect("read the copy");
        Victim { bundle, path, before }
    }

    fn runtime(&self) -> Runtime {
        self.bundle.runtime().using(&self.path)
    }

    fn result(&self) -> String {
        fs::read_to_string(self.bundle.rootfs().join("result")).unwrap_or_default()
    }

    #[track_caller]
    fn assert_unchanged(&self) {
        let now = fs::read(&self.path).expect("read the copy");
        if now != self.before {
            // The cleanup needs a runtime.
            let mut fresh = self.path.clone();
            fresh.set_extension("fresh");
            fs::write(&fresh, &self.before)
                .and_then(|()| fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)))
                .and_then(|()| fs::rename(&fresh, &self.path))
                .expect("put the runtime's binary back");
            panic!("the runtime's binary was overwritten");
        }
        let result = self.result();
        assert!(!result.contains("wrote"), "a write to the runtime's binary went through: {result}");
    }
}

/// Puts the shared libraries of a program where it looks for them below `rootfs`.
fn libraries(program: &Path, rootfs: &Path) {
    let list = run(Command::new("ldd").arg(program));
    for word in list.stdout.split_whitespace().filter(|w| w.starts_with('/')) {
        let target = rootfs.join(&word[1..]);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).expect("make a directory for libraries");
            fs::copy(word, &target).expect("copy a library");
        }
    }
}

/// Why these tests cannot run here.
fn obstacle() -> Option<String> {
    if !is_root() {
        return Some("not root".into());
    }
    missing_program(&["ldd", "mkfifo", "setpriv"]).map(|p| format!("{p} is not installed"))
}

#[test]
fn the_binary_is_refused_as_program() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut victim = Victim::new();
    let runtime = victim.runtime();
    victim.bundle.args(["/proc/self/exe", "--version"]).write();
    let out = runtime.run("own", &victim.bundle);
    assert_ne!(out.code, 0, "{out}");
    assert!(out.stderr.contains("own binary"), "{out}");
    victim.bundle.args(["/bin/sleep", "100"]).write();
    runtime.run_detached("own", &victim.bundle).ok();
    let out = runtime.exec("own", &["/proc/self/exe", "--version"]);
    assert_ne!(out.code, 0, "{out}");
    assert!(out.stderr.contains("own binary"), "{out}");
    victim.assert_unchanged();
}

#[test]
fn exec_of_a_trap_does_not_give_the_binary_away() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut victim = Victim::new();
    let runtime = victim.runtime();
    victim.bundle.shell(ATTACKER).write();
    runtime.run_detached("prey", &victim.bundle).ok();
    let mut exec = runtime.command(["exec", "prey", "/evil"]);
    command::run_with(&mut exec, b"", Duration::from_secs(20));
    command::wait_for(Duration::from_secs(5), || victim.result().contains("opened").then_some(()));
    std::thread::sleep(Duration::from_millis(600));
    assert!(victim.result().contains("opened"), "the attack did not get as far as it should");
    victim.assert_unchanged();
}

#[test]
fn a_container_beside_the_attacker_does_not_give_the_binary_away() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut victim = Victim::new();
    let runtime = victim.runtime();
    victim.bundle.shell(ATTACKER).write();
    runtime.run_detached("prey", &victim.bundle).ok();
    let pid = runtime.state("prey")["pid"].to_string();
    let mut beside = Bundle::busybox();
    let rootfs = victim.bundle.rootfs();
    beside.set("/root/path", json!(rootfs)).args(["/evil"]).without_namespace("pid");
    let joined = json!({ "type": "pid", "path": format!("/proc/{pid}/ns/pid") });
    beside.config_mut()["linux"]["namespaces"].as_array_mut().expect("namespaces").push(joined);
    beside.write();
    let bundle = beside.path().to_str().expect("a path in UTF-8");
    let mut second = runtime.command(["run", "--bundle", bundle, "beside"]);
    command::run_with(&mut second, b"", Duration::from_secs(20));
    command::wait_for(Duration::from_secs(5), || victim.result().contains("opened").then_some(()));
    std::thread::sleep(Duration::from_millis(600));
    assert!(victim.result().contains("opened"), "the attack did not get as far as it should");
    victim.assert_unchanged();
}

#[test]
fn a_hook_inside_does_not_get_the_binary() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut victim = Victim::new();
    let runtime = victim.runtime();
    // The hook runs beside pid 1, which is still the runtime; it writes when nobody executes the file any more.
    let hook = "exec 3</proc/1/exe || exit 0; echo opened >/result; \
        ( exec >/dev/null 2>&1; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do usleep 50000; \
          ( echo overwritten 1<>/proc/self/fd/3 >/proc/self/fd/3 ) && { echo wrote >>/result; break; }; done ) & ";
    victim.bundle.set(
        "/hooks/startContainer",
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", hook], "env": ["PATH=/bin"] }]),
    );
    victim.bundle.args(["/bin/sleep", "100"]).write();
    runtime.run_detached("hooked", &victim.bundle).ok();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(victim.result().contains("opened"), "the attack did not get as far as it should");
    victim.assert_unchanged();
}

#[test]
fn as_interpreter_of_pid_1_the_binary_does_nothing() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut victim = Victim::new();
    let runtime = victim.runtime();
    let evil = victim.bundle.rootfs().join("evil");
    fs::write(&evil, "#!/proc/self/exe --log=/proof\n").expect("write the trap");
    victim.bundle.args(["/evil"]).write();
    let out = runtime.run("interpreter", &victim.bundle);
    assert_ne!(out.code, 0, "{out}");
    assert!(!victim.bundle.rootfs().join("proof").exists(), "the host's runtime worked for a container");
    victim.assert_unchanged();
    leftovers::assert_none(victim.bundle.tag(), Some(runtime.root()));
}

/// A minimal ELF program whose dynamic loader is `/proc/self/exe`.
fn elf_with_interpreter(machine: u16) -> Vec<u8> {
    let interpreter = b"/proc/self/exe\0";
    let mut elf = vec![0u8; 64 + 2 * 56];
    elf[..16].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &3u16.to_le_bytes()); // ET_DYN
    put(18, &machine.to_le_bytes());
    put(20, &1u32.to_le_bytes());
    put(32, &64u64.to_le_bytes()); // program headers
    put(52, &64u16.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &2u16.to_le_bytes());
    let length = interpreter.len() as u64;
    for (at, kind, flags, offset, size) in [(64, 3u32, 4u32, 176u64, length), (120, 1, 5, 0, 176 + length)] {
        put(at, &kind.to_le_bytes());
        put(at + 4, &flags.to_le_bytes());
        put(at + 8, &offset.to_le_bytes());
        put(at + 16, &offset.to_le_bytes());
        put(at + 32, &size.to_le_bytes());
        put(at + 40, &size.to_le_bytes());
        put(at + 48, &4096u64.to_le_bytes());
    }
    elf.extend_from_slice(interpreter);
    elf
}

#[test]
fn as_loader_of_a_program_the_binary_is_unchanged() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut victim = Victim::new();
    let runtime = victim.runtime();
    let machine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let evil = victim.bundle.rootfs().join("evil");
    fs::write(&evil, elf_with_interpreter(machine)).expect("write the program");
    victim.bundle.args(["/evil", "--version"]).write();
    let out = runtime.run("loader", &victim.bundle);
    assert!(!out.timed_out, "{out}");
    victim.bundle.shell(ATTACKER).write();
    runtime.run_detached("prey", &victim.bundle).ok();
    let mut exec = runtime.command(["exec", "prey", "/evil"]);
    command::run_with(&mut exec, b"", Duration::from_secs(20));
    victim.assert_unchanged();
}

/// What an open descriptor of a process is.
fn descriptors(pid: &str) -> Vec<(u32, String)> {
    let dir = PathBuf::from(format!("/proc/{pid}/fd"));
    let mut all: Vec<(u32, String)> = fs::read_dir(&dir)
        .expect("read /proc/PID/fd")
        .flatten()
        .filter_map(|e| {
            let number = e.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(e.path()).ok()?.to_string_lossy().into_owned()))
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_container_has_three_descriptors_and_those_it_was_given() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut bundle = Bundle::busybox();
    bundle.args(["/bin/sleep", "100"]).write();
    let runtime = bundle.runtime();
    let path = bundle.path().to_str().expect("a path in UTF-8").to_owned();
    for preserved in 0..3u32 {
        let id = format!("fds{preserved}");
        // The caller has more open than it gives.
        let script = r#"exec 3</etc/hostname 4</etc/hostname 5</etc/hostname 9</; exec "$@""#;
        let wrapped = |verb: &[&str]| {
            let inner = runtime.command(verb);
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
            command
        };
        let preserve = format!("--preserve-fds={preserved}");
        run(&mut wrapped(&["run", "-d", &preserve, "--bundle", &path, &id])).ok();
        let expected: Vec<u32> = (0..3 + preserved).collect();
        let pid = runtime.state(&id)["pid"].to_string();
        let found: Vec<u32> = descriptors(&pid).into_iter().map(|(n, _)| n).collect();
        assert_eq!(found, expected, "run with --preserve-fds {preserved}: {:?}", descriptors(&pid));

        let pid_file = bundle.scratch().join("exec.pid");
        let pid_flag = format!("--pid-file={}", pid_file.display());
        run(&mut wrapped(&["exec", "-d", &preserve, &pid_flag, &id, "/bin/sleep", "100"])).ok();
        let pid = fs::read_to_string(&pid_file).expect("read the pid file");
        let found: Vec<u32> = descriptors(&pid).into_iter().map(|(n, _)| n).collect();
        assert_eq!(found, expected, "exec with --preserve-fds {preserved}: {:?}", descriptors(&pid));
        runtime.delete_force(&id).ok();
    }
}

#[test]
fn a_created_container_holds_nothing_of_the_host_but_its_gate() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut bundle = Bundle::busybox();
    bundle.args(["/bin/sleep", "100"]).write();
    let runtime = bundle.runtime();
    runtime.create("waiting", &bundle).ok();
    let pid = runtime.state("waiting")["pid"].to_string();
    let gate = runtime.root().join("waiting/start.fifo");
    for (number, what) in descriptors(&pid) {
        let allowed = match number {
            0..=2 => true,
            _ => {
                what == gate.to_string_lossy()
                    || what.starts_with("socket:[")
                    // Of the container itself: its root, its empty mask, its null device.
                    || what == "/"
                    || what == "/dev/null"
                    || what == "/null"
            }
        };
        assert!(allowed, "descriptor {number} is {what}: {:?}", descriptors(&pid));
    }
    // Not even a process of the same user and capabilities may look at it.
    let mut look = Command::new("setpriv");
    look.args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", "ls", "-l"])
        .arg(format!("/proc/{pid}/exe"));
    let out = run(&mut look);
    assert_ne!(out.code, 0, "the child can be looked at: {out}");
    runtime.delete_force("waiting").ok();
}

#[test]
fn no_working_directory_outside_the_root() {
    if let Some(why) = obstacle() {
        skip!("{why}");
    }
    let mut bundle = Bundle::busybox();
    let runtime = bundle.runtime();
    bundle.args(["/bin/sleep", "100"]).write();
    runtime.run_detached("target", &bundle).ok();
    bundle.shell("pwd; ls -a; ls ..").write();
    let script = r#"exec 3</ 4</etc 5</proc 6</dev/shm; exec "$@""#;
    for number in 0..40 {
        let cwd = format!("/proc/self/fd/{number}");
        bundle.set("/process/cwd", json!(cwd)).write();
        let path = bundle.path().to_str().expect("a path in UTF-8");
        for verb in [
            vec!["run", "--bundle", path, "cwd"],
            vec!["run", "--preserve-fds=4", "--bundle", path, "cwd"],
            vec!["exec", "--preserve-fds=4", "--cwd", &cwd, "target", "/bin/ls", "-a"],
        ] {
            let inner = runtime.command(&verb);
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
            let out = run(&mut command);
            assert!(!out.success(), "{cwd}: {out}");
        }
    }
    leftovers::assert_none("cwd-none", None);
}
