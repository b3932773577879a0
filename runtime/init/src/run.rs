//! The executor: the clone, the outer process if there is one, and the match over the steps.

use crate::copy;
use crate::hook;
use crate::line::{Line, until_nul};
use crate::privileges::{FEW_GROUPS, ambient_set, bounding_set, session_keyring, set_many_groups};
use crate::pty::{self, Pty};
use crate::rootfs::{self, Missing, PROC_MAGIC};
use crate::step::{Create, Fd, HOME_BYTES, List, Op, Program, Step, Str, VectorRef};
use crate::streams::{null_streams, own_streams};
use crate::sys::{self, CloneArgs, Fault, O_PATH, Outcome, SchedAttr, attr, done};
use crate::wire::{ATTACHED, GO, Kind, Message};
use core::cell::Cell;
use core::ffi::CStr;

/// What the first clone asks of the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clone3 {
    /// `CLONE_NEW*` flags.
    pub namespaces: u64,
    /// A cgroup v2 directory that the child starts in (`CLONE_INTO_CGROUP`).
    pub cgroup: Option<i32>,
    /// Whether the child is a sibling of the caller, not its child (`CLONE_PARENT`): for exec's second process.
    pub sibling: bool,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Clones and executes `program` in the child. Returns the child's pid and its pidfd in the parent.
///
/// # Safety
/// `program` must be complete: indices within its tables, vectors NULL-terminated and pointing to live
/// strings. Then this may be called by a thread of a threaded program: the child makes system calls only.
pub unsafe fn clone_process(how: &Clone3, program: &Program<'_>) -> Result<(i32, i32), Fault> {
    let mut pidfd = -1i32;
    let mut args = CloneArgs {
        flags: how.namespaces | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        pidfd: &mut pidfd as *mut i32 as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(directory) = how.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = directory as u64;
    }
    if how.sibling {
        args.flags |= CLONE_PARENT;
        args.exit_signal = 0;
    }
    // SAFETY: the child runs `run`, which makes system calls only and never returns.
    let pid = unsafe { sys::clone3(&args) }?;
    if pid == 0 {
        run(program);
    }
    Ok((pid, pidfd))
}

/// Executes the program; the process ends with it or becomes the container's.
pub fn run(program: &Program<'_>) -> ! {
    // Locks and the parent's end of the pair: at once, they mean something to others.
    for &fd in program.close {
        sys::close(fd);
    }
    for signal in 1..=64 {
        if program.ignored_signals & 1 << (signal - 1) != 0 {
            sys::default_signal(signal);
        }
    }
    sys::unblock_signals();
    // Files and devices get the modes that the plan says; the container's own mask is set at the end.
    sys::umask(0);
    let mut child = Child::new(program);
    if !program.outer.is_empty() {
        child.execute(program.outer, 0);
        child.second_clone();
    }
    child.execute(program.steps, program.outer.len());
    // Every program ends with an Exec, which either succeeds or fails.
    sys::exit(0)
}

/// The executor's registers.
struct Child<'a> {
    program: &'a Program<'a>,
    /// The root directory, once a step has opened it.
    root: i32,
    /// The private procfs.
    proc: i32,
    /// The current tree.
    tree: i32,
    /// The kept tree.
    kept: i32,
    /// The current directory for devices and links.
    directory: i32,
    /// A clone of the host's null device.
    null: i32,
    /// The empty tmpfs for masks: detached until its first use, then a mount that can be cloned.
    empty: i32,
    /// Whether `empty` has been attached.
    empty_attached: bool,
    /// Whether chdir has to be tried again as the container's user.
    chdir_pending: bool,
    /// Bit n: the join with this descriptor index was postponed.
    postponed: u64,
    /// Whether the parent has been told `Ready`, after which nobody listens to failures of a created container.
    ready: bool,
    /// Whether the parent has said that the process is in its cgroup.
    attached: Cell<bool>,
    /// The gate, once it has been passed.
    gate: i32,
    /// What FindExecutable found.
    executable: [u8; 4096],
}

const NONE: i32 = -1;

impl<'a> Child<'a> {
    fn new(program: &'a Program<'a>) -> Self {
        Child {
            program,
            root: NONE,
            proc: NONE,
            tree: NONE,
            kept: NONE,
            directory: NONE,
            null: NONE,
            empty: NONE,
            empty_attached: false,
            chdir_pending: false,
            postponed: 0,
            ready: false,
            attached: Cell::new(false),
            gate: NONE,
            executable: [0; 4096],
        }
    }

    /// The rest of the program as a sibling process in the namespaces that were joined: a pid or time
    /// namespace takes effect for children only.
    fn second_clone(&mut self) {
        let args = CloneArgs {
            flags: self.program.inner_flags | CLONE_PARENT | CLONE_CLEAR_SIGHAND,
            ..CloneArgs::default()
        };
        // SAFETY: this process has one thread, and the child goes on with system calls only.
        match unsafe { sys::clone3(&args) } {
            // It tells of itself, before anything else: the kernel adds its pid. A word of the first process could
            // come after the second's next one, or never.
            Ok(0) => {
                if self.say(Kind::Pid, None).is_err() {
                    sys::exit(1);
                }
            }
            Ok(_) => sys::exit(0),
            Err(fault) => self.fail(self.program.outer.len().saturating_sub(1), fault),
        }
    }

    fn execute(&mut self, steps: &[Step], first: usize) {
        for (index, step) in steps.iter().enumerate() {
            if let Err(fault) = self.step(step) {
                self.fail(first + index, fault);
            }
        }
    }

    /// Tells the parent, and ends. After the gate the parent is gone: the failure goes to the container's
    /// standard error and into the gate, where `start` may listen, and the exit status is a shell's.
    fn fail(&self, step: usize, fault: Fault) -> ! {
        let message = Message::Failed { step: step as u32, fault };
        let told = sys::send(self.program.socket, &message.encode(), None).is_ok();
        if self.gate != NONE && !told {
            let mut line = Line::new();
            if fault.op == Op::Execve {
                line.text(b"dhow-runtime: exec ");
                line.text(until_nul(&self.executable));
                line.text(b": errno ");
                line.number(fault.errno.unsigned_abs());
                line.text(b"\n");
            } else {
                line.text(b"dhow-runtime: a startContainer hook failed\n");
            }
            sys::write(self.gate, &message.encode()).map(|_| ()).unwrap_or(());
            // Standard error may be closed; there is nobody left to tell.
            sys::write(2, line.bytes()).map(|_| ()).unwrap_or(());
        }
        sys::exit(if fault.errno == libc::ENOENT { 127 } else { 126 })
    }

    fn text(&self, string: Str) -> &'a CStr {
        let start = string.0 as usize;
        match self.program.strings.get(start..).map(CStr::from_bytes_until_nul) {
            Some(Ok(text)) => text,
            _ => c"",
        }
    }

    fn fd(&self, fd: Fd) -> i32 {
        self.program.fds.get(usize::from(fd.0)).copied().unwrap_or(NONE)
    }

    fn words(&self, list: List) -> &'a [u64] {
        self.program.words.get(list.range()).unwrap_or(&[])
    }

    fn vector(&self, at: VectorRef) -> *const *const libc::c_char {
        self.program.vectors[at.0 as usize..].as_ptr()
    }

    fn say(&self, kind: Kind, fd: Option<i32>) -> Outcome {
        sys::send(self.program.socket, &Message::Say(kind).encode(), fd)
    }

    /// Says something and waits for the answer; end of file means that the parent died, and so does the child.
    fn ask(&self, kind: Kind, fd: Option<i32>) -> Outcome {
        self.say(kind, fd)?;
        self.hear_go()
    }

    fn hear_go(&self) -> Outcome {
        self.hear(GO)
    }

    /// Waits for an answer. [`ATTACHED`] comes unasked, so it may come first.
    fn hear(&self, wanted: u8) -> Outcome {
        loop {
            let mut answer = [0u8; 1];
            if sys::read(self.program.socket, &mut answer)? != 1 {
                return Err(Fault::new(Op::ParentGone, 0));
            }
            if answer[0] == ATTACHED {
                self.attached.set(true);
            }
            if answer[0] == wanted {
                return Ok(());
            }
        }
    }

    fn take_tree(&mut self, tree: i32) {
        if self.tree != self.kept {
            done(self.tree);
        }
        self.tree = tree;
    }

    fn drop_tree(&mut self) {
        self.take_tree(NONE);
    }

    fn step(&mut self, step: &Step) -> Outcome {
        match *step {
            Step::Join { fd, flags, later } => match sys::setns(self.fd(fd), flags) {
                Err(fault) if later && fault.errno == libc::EPERM => {
                    self.postponed |= 1 << (fd.0 & 63);
                    Ok(())
                }
                other => other,
            },
            Step::JoinAgain { fd, flags } => {
                if self.postponed & 1 << (fd.0 & 63) == 0 {
                    return Ok(());
                }
                sys::setns(self.fd(fd), flags)
            }
            Step::TimeNamespace { offsets } => self.time_namespace(offsets),
            Step::AwaitIdMaps => self.ask(Kind::MapIds, None),
            Step::BecomeRoot => {
                sys::setresgid(0)?;
                sys::setresuid(0)
            }
            Step::AwaitCgroup if self.attached.get() => Ok(()),
            Step::AwaitCgroup => self.hear(ATTACHED),
            Step::UnshareCgroup => sys::unshare(sys::namespace_flag(crate::Namespace::Cgroup)),
            Step::OomScore { value } => {
                let file = sys::open(c"/proc/self/oom_score_adj", libc::O_WRONLY)?;
                sys::write(file, self.text(value).to_bytes()).map(drop)
            }
            Step::NotDumpable => sys::prctl(libc::PR_SET_DUMPABLE, 0, 0),
            Step::NewSession => sys::setsid(),
            Step::SessionKeyring { name } => session_keyring(self.text(name)),
            Step::LoopbackUp => sys::loopback_up(),
            Step::Hostname { name } => sys::sethostname(self.text(name).to_bytes()),
            Step::Domainname { name } => sys::setdomainname(self.text(name).to_bytes()),

            Step::Propagation { kind, recursive } => {
                sys::mount_setattr(libc::AT_FDCWD, c"/", recursive, 0, 0, kind)
            }
            Step::IsolateParent { path } => isolate_parent(self.text(path)),
            Step::OpenRoot { path } => {
                self.root = sys::open(self.text(path), O_PATH | libc::O_DIRECTORY)?;
                Ok(())
            }
            Step::BindRoot { path } => {
                let tree = sys::open_tree(libc::AT_FDCWD, self.text(path), true)?;
                self.attach_root(path, tree)
            }
            Step::AttachRoot { path } => {
                let tree = core::mem::replace(&mut self.tree, NONE);
                self.attach_root(path, tree)
            }
            Step::PrivateProc => self.private_proc(),
            Step::NewFilesystem { fstype, source, parameters, attributes } => {
                self.new_filesystem(fstype, source, parameters, attributes)
            }
            Step::CloneTree { source, recursive } => {
                let tree = sys::open_tree(libc::AT_FDCWD, self.text(source), recursive)?;
                self.take_tree(tree);
                Ok(())
            }
            Step::UseTree { tree } => {
                self.take_tree(self.fd(tree));
                Ok(())
            }
            Step::TreeAttributes { set, clear, propagation, recursive } => {
                sys::mount_setattr(self.tree, c"", recursive, set, clear, propagation)
            }
            Step::KeepTree => {
                self.kept = self.tree;
                Ok(())
            }
            Step::KeptDirectory { name } => sys::mkdirat(self.kept, self.text(name), 0o755),
            Step::KeptSymlink { name, content } => {
                sys::symlinkat(self.text(content), self.kept, self.text(name))
            }
            Step::AttachKept { name } => {
                sys::move_mount(self.tree, self.kept, self.text(name))?;
                self.drop_tree();
                Ok(())
            }
            Step::DropKept { set } => {
                if set != 0 {
                    sys::mount_setattr(self.kept, c"", false, set, 0, 0)?;
                }
                done(self.kept);
                if self.tree == self.kept {
                    self.tree = NONE;
                }
                self.kept = NONE;
                Ok(())
            }
            Step::CopyUp { target } => self.copy_up(target),
            Step::ModeOf { target } => self.mode_of(target),
            Step::Attach { target, create, not_on_proc, no_symlink } => {
                self.attach(target, create, not_on_proc, no_symlink)
            }
            Step::PathAttributes { target, set, clear, propagation, recursive } => {
                let fd = sys::open_in_root(self.root, self.text(target), O_PATH)?;
                let result = sys::mount_setattr(fd, c"", recursive, set, clear, propagation);
                done(fd);
                result
            }
            Step::Reconfigure { target, parameters } => self.reconfigure(target, parameters),
            Step::Unmount { target } => self.unmount(target),
            Step::OpenDirectory { path } => {
                done(self.directory);
                self.directory = NONE;
                self.directory = rootfs::open_or_make(self.root, self.text(path), Missing::Directory)?;
                Ok(())
            }
            Step::Device { name, mode, device, uid, gid } => self.device(name, mode, device, uid, gid),
            Step::Symlink { name, content } => {
                match sys::symlinkat(self.text(content), self.directory, self.text(name)) {
                    Err(fault) if fault.errno == libc::EEXIST => Ok(()),
                    other => other,
                }
            }
            Step::MakeDirectory { path } => {
                done(rootfs::open_or_make(self.root, self.text(path), Missing::Directory)?);
                Ok(())
            }
            Step::NullDevice => self.null_device(),
            Step::Mask { path } => self.mask(path),
            Step::ReadOnly { path } => self.read_only(path),
            Step::RootReadOnly => sys::mount_setattr(self.root, c"", false, attr::RDONLY, 0, 0),
            Step::WriteProc { path, value } => self.write_proc(path, value),
            Step::PivotRoot { shared } => {
                let old = if shared { sys::open(c"/", O_PATH | libc::O_DIRECTORY)? } else { NONE };
                // The new root covers the old one at the same place, which is then detached: no directory for
                // the old root is needed.
                sys::fchdir(self.root)?;
                sys::pivot_root_here()?;
                if shared {
                    sys::mount_setattr(old, c"", true, 0, 0, sys::propagation::SLAVE)?;
                    done(old);
                }
                sys::detach(c".")
            }
            Step::MoveRoot => {
                sys::fchdir(self.root)?;
                let slash = sys::open(c"/", O_PATH | libc::O_DIRECTORY)?;
                sys::move_mount(self.root, slash, c"")?;
                done(slash);
                sys::chroot_here()
            }
            Step::Chroot => {
                sys::fchdir(self.root)?;
                sys::chroot_here()
            }

            Step::Terminal { socket, size, console, uid } => self.terminal(socket, size, console, uid),
            Step::Streams { stdin, stdout, stderr } => {
                sys::dup_onto(self.fd(stdin), 0)?;
                sys::dup_onto(self.fd(stdout), 1)?;
                sys::dup_onto(self.fd(stderr), 2)
            }
            Step::NullStreams => null_streams(),
            Step::OwnStreams { uid } => own_streams(uid),

            Step::Rlimit { resource, soft, hard } => sys::prlimit(resource, soft, hard),
            Step::Umask { mask } => {
                sys::umask(mask);
                Ok(())
            }
            Step::Personality { persona } => sys::personality(persona),
            Step::Scheduler { policy, flags, nice, priority, runtime_ns, deadline_ns, period_ns } => {
                sys::sched_setattr(&SchedAttr {
                    size: size_of::<SchedAttr>() as u32,
                    policy,
                    flags,
                    nice,
                    priority,
                    runtime_ns,
                    deadline_ns,
                    period_ns,
                })
            }
            Step::IoPriority { value } => sys::ioprio_set(value),
            Step::MemoryPolicy { mode, nodes } => sys::set_mempolicy(mode, self.words(nodes)),
            Step::CpuAffinity { cpus } => sys::sched_setaffinity(self.words(cpus)),
            Step::NoNewPrivileges => sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0),
            Step::BoundingSet { keep } => bounding_set(keep),
            Step::SetUser { uid, gid, groups, may_be_denied } => {
                self.set_user(uid, gid, groups, may_be_denied)
            }
            Step::RaiseEffective => {
                let permitted = sys::permitted()?;
                sys::capset(permitted, permitted, 0)
            }
            Step::Capabilities { effective, permitted, inheritable, ambient } => {
                sys::capset(effective, permitted, inheritable)?;
                ambient_set(ambient)
            }
            Step::Chdir { path } => match sys::chdir(self.text(path)) {
                Err(fault) if fault.errno == libc::EACCES || fault.errno == libc::EPERM => {
                    self.chdir_pending = true;
                    Ok(())
                }
                other => other,
            },
            Step::ChdirAsUser { path } => {
                if self.chdir_pending {
                    sys::chdir(self.text(path))?;
                }
                if sys::cwd_is_inside()? { Ok(()) } else { Err(Fault::new(Op::CwdOutside, 0)) }
            }
            Step::FindExecutable { name, path } => self.find_executable(name, path),
            Step::Seccomp { flags, notify } => {
                let listener = sys::seccomp(flags, self.program.filter)?;
                if notify {
                    self.ask(Kind::SeccompFd, Some(listener))?;
                    sys::close(listener);
                }
                Ok(())
            }

            Step::HostHooks => self.ask(Kind::HostHooks, None),
            Step::Hook { path, argv, envp, timeout_ms, state, output, in_root } => hook::run(&hook::Hook {
                path: self.text(path),
                argv: self.vector(argv),
                envp: self.vector(envp),
                timeout_ms,
                state: self.fd(state),
                output: self.fd(output),
                directory: in_root.then_some(self.root),
            }),
            Step::Home { uid } => {
                // SAFETY: the parent made the buffer of this size for the child alone; nothing borrows it.
                let home = unsafe { core::slice::from_raw_parts_mut(self.program.home, HOME_BYTES) };
                crate::passwd::home(uid, home)
            }
            Step::Ready => {
                self.ready = true;
                self.ask(Kind::Ready, None)
            }
            Step::CloseDescriptors { preserve } => self.close_descriptors(3 + preserve),
            Step::Gate { fd } => {
                let mut byte = [0u8; 1];
                sys::read(self.fd(fd), &mut byte)?;
                self.gate = self.fd(fd);
                Ok(())
            }
            Step::Exec { argv, envp } => {
                let path = CStr::from_bytes_until_nul(&self.executable)
                    .map_err(|_| Fault::new(Op::PathTooLong, libc::ENAMETOOLONG))?;
                Err(sys::execve(path, self.vector(argv), self.vector(envp)))
            }
        }
    }

    fn time_namespace(&self, offsets: Str) -> Outcome {
        sys::unshare(sys::namespace_flag(crate::Namespace::Time))?;
        let offsets = self.text(offsets).to_bytes();
        if offsets.is_empty() {
            return Ok(());
        }
        let proc = host_proc()?;
        let file = sys::openat(proc, c"self/timens_offsets", libc::O_WRONLY | libc::O_NOFOLLOW, 0)?;
        done(proc);
        let result = sys::write(file, offsets);
        done(file);
        result.map(drop)
    }

    fn attach_root(&mut self, path: Str, tree: i32) -> Outcome {
        match sys::move_mount(tree, libc::AT_FDCWD, self.text(path)) {
            // The root of a user namespace may not enter the way to it. Any place will do that pivot_root finds above.
            Err(fault) if fault.errno == libc::EACCES => {
                sys::move_mount(tree, libc::AT_FDCWD, c"/")?;
            }
            other => other?,
        }
        self.root = tree;
        Ok(())
    }

    /// A procfs of this pid namespace that is attached nowhere. Where the kernel refuses a new one (a user
    /// namespace whose procfs is partly covered), the host's, with its type checked.
    fn private_proc(&mut self) -> Outcome {
        let made = sys::fsopen(c"proc").and_then(|context| {
            let tree = sys::fsconfig_create(context)
                .and_then(|()| sys::fsmount(context, attr::NOSUID | attr::NODEV | attr::NOEXEC));
            done(context);
            tree
        });
        self.proc = match made {
            Ok(tree) => tree,
            Err(fault) if fault.errno == libc::EPERM => host_proc()?,
            Err(fault) => return Err(fault),
        };
        Ok(())
    }

    fn parameters(&self, context: i32, parameters: List) -> Outcome {
        let pairs = self.program.pairs.get(parameters.range()).unwrap_or(&[]);
        for pair in pairs {
            sys::fsconfig_parameter(context, self.text(pair.key), pair.value.map(|v| self.text(v)))?;
        }
        Ok(())
    }

    fn new_filesystem(
        &mut self,
        fstype: Str,
        source: Option<Str>,
        parameters: List,
        attributes: u64,
    ) -> Outcome {
        let context = sys::fsopen(self.text(fstype))?;
        let made = source
            .map_or(Ok(()), |source| sys::fsconfig_parameter(context, c"source", Some(self.text(source))))
            .and_then(|()| self.parameters(context, parameters))
            .and_then(|()| sys::fsconfig_create(context))
            .and_then(|()| sys::fsmount(context, attributes));
        done(context);
        self.take_tree(made?);
        Ok(())
    }

    fn reconfigure(&mut self, target: Str, parameters: List) -> Outcome {
        let fd = sys::open_in_root(self.root, self.text(target), O_PATH)?;
        let picked = sys::fspick(fd);
        done(fd);
        let context = picked?;
        let result = self.parameters(context, parameters).and_then(|()| sys::fsconfig_reconfigure(context));
        done(context);
        result
    }

    fn copy_up(&mut self, target: Str) -> Outcome {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let from = match sys::open_in_root(self.root, self.text(target), flags) {
            Ok(fd) => fd,
            Err(fault) if fault.errno == libc::ENOENT => return Ok(()),
            Err(fault) => return Err(fault),
        };
        // The tree's descriptor is O_PATH; changing its mode and times needs a real one.
        let result = sys::openat(self.tree, c".", flags, 0).and_then(|to| {
            let result = copy::root(from, to);
            done(to);
            result
        });
        done(from);
        result
    }

    fn mode_of(&self, target: Str) -> Outcome {
        let covered = match sys::open_in_root(self.root, self.text(target), O_PATH) {
            Ok(fd) => fd,
            Err(fault) if fault.errno == libc::ENOENT => return Ok(()),
            Err(fault) => return Err(fault),
        };
        let facts = sys::facts(covered, c"");
        done(covered);
        let mode = facts?.mode & 0o7777;
        // The tree's descriptor is O_PATH; changing a mode needs a real one.
        let to = sys::openat(self.tree, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        let result = sys::fchmod(to, mode);
        done(to);
        result
    }

    fn attach(&mut self, target: Str, create: Create, not_on_proc: bool, no_symlink: bool) -> Outcome {
        let path = self.text(target);
        let missing = match create {
            Create::Directory => Missing::Directory,
            Create::File => Missing::File,
            Create::LikeTree if sys::facts(self.tree, c"")?.is_directory() => Missing::Directory,
            Create::LikeTree => Missing::File,
        };
        let fd = if no_symlink {
            // /proc and /sys are single components of the root: a link there would let the image choose what
            // later steps take for procfs. O_NOFOLLOW with O_PATH opens the link itself.
            match sys::open_in_root(self.root, path, O_PATH | libc::O_NOFOLLOW) {
                Ok(fd) if sys::facts(fd, c"")?.is_directory() => fd,
                Ok(_) => return Err(Fault::new(Op::NotADirectory, libc::ENOTDIR)),
                Err(fault) if fault.errno == libc::ENOENT => rootfs::open_or_make(self.root, path, missing)?,
                Err(fault) => return Err(fault),
            }
        } else {
            rootfs::open_or_make(self.root, path, missing)?
        };
        // A directory of the root that is no link is on the root filesystem.
        let allowed = if not_on_proc && !no_symlink {
            match sys::filesystem(fd) {
                Ok(PROC_MAGIC) => Err(Fault::new(Op::TargetOnProc, 0)),
                Ok(_) => Ok(()),
                Err(fault) => Err(fault),
            }
        } else {
            Ok(())
        };
        let mut result = allowed.and_then(|()| sys::move_mount(self.tree, fd, c""));
        if matches!(result, Err(fault) if fault.errno == libc::EINVAL) {
            // A directory over a file or the other way round, which callers know by mount(2)'s errno.
            let is_directory = |fd| sys::facts(fd, c"").map(|facts| facts.is_directory());
            if is_directory(self.tree)? != is_directory(fd)? {
                result = Err(Fault::new(Op::MoveMount, libc::ENOTDIR));
            }
        }
        done(fd);
        result?;
        self.drop_tree();
        Ok(())
    }

    /// umount2 knows paths only: the descriptor's link in the private procfs is one that nobody can swap.
    fn unmount(&self, target: Str) -> Outcome {
        let fd = sys::open_in_root(self.root, self.text(target), O_PATH)?;
        if !sys::facts(fd, c"")?.mount_root {
            return Err(Fault::new(Op::Umount, libc::EINVAL));
        }
        let links = sys::openat(self.proc, c"self/fd", O_PATH | libc::O_DIRECTORY, 0)?;
        sys::fchdir(links)?;
        let mut name = Line::new();
        name.number(fd.unsigned_abs());
        name.text(b"\0");
        let name =
            CStr::from_bytes_until_nul(name.bytes()).map_err(|_| Fault::new(Op::Umount, libc::EINVAL))?;
        sys::detach(name)
    }

    fn device(&self, name: Str, mode: u32, device: u64, uid: u32, gid: u32) -> Outcome {
        let name = self.text(name);
        match sys::mknodat(self.directory, name, mode, device) {
            Ok(()) => {}
            Err(fault) if fault.errno == libc::EEXIST => {
                // A /dev from the host or the image: right only if it is the very device.
                let facts = sys::facts(self.directory, name)?;
                let number = libc::makedev(facts.device.0 as _, facts.device.1 as _) as u64;
                let same = facts.kind() == mode & libc::S_IFMT
                    && (facts.kind() == libc::S_IFIFO || number == device);
                return if same { Ok(()) } else { Err(Fault::new(Op::WrongDevice, libc::EEXIST)) };
            }
            Err(fault) => return Err(fault),
        }
        if uid != 0 || gid != 0 {
            sys::fchownat(self.directory, name, uid, gid, libc::AT_SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn null_device(&mut self) -> Outcome {
        let tree = sys::open(c"/dev/null", O_PATH | libc::O_NOFOLLOW)?;
        if !sys::facts(tree, c"")?.is_null_device() {
            return Err(Fault::new(Op::NotNullDevice, 0));
        }
        self.null = tree;
        Ok(())
    }

    fn mask(&mut self, path: Str) -> Outcome {
        let target = match sys::open_in_root(self.root, self.text(path), O_PATH) {
            Ok(fd) => fd,
            Err(fault) if matches!(fault.errno, libc::ENOENT | libc::ENOTDIR) => return Ok(()),
            Err(fault) => return Err(fault),
        };
        let result = self.mask_at(target);
        done(target);
        result
    }

    fn mask_at(&mut self, target: i32) -> Outcome {
        if !sys::facts(target, c"")?.is_directory() {
            let tree = sys::open_tree(self.null, c"", false)?;
            let result = sys::move_mount(tree, target, c"");
            done(tree);
            return result;
        }
        if self.empty == NONE {
            let context = sys::fsopen(c"tmpfs")?;
            let made = sys::fsconfig_parameter(context, c"size", Some(c"4k"))
                .and_then(|()| sys::fsconfig_parameter(context, c"nr_inodes", Some(c"2")))
                .and_then(|()| sys::fsconfig_parameter(context, c"mode", Some(c"755")))
                .and_then(|()| sys::fsconfig_parameter(context, c"ro", None))
                .and_then(|()| sys::fsconfig_create(context))
                .and_then(|()| {
                    sys::fsmount(context, attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)
                });
            done(context);
            self.empty = made?;
        }
        if !self.empty_attached {
            // Kernels before 6.15 clone attached mounts only, so the first use attaches the original.
            sys::move_mount(self.empty, target, c"")?;
            self.empty_attached = true;
            return Ok(());
        }
        let tree = sys::open_tree(self.empty, c"", false)?;
        let result = sys::move_mount(tree, target, c"");
        done(tree);
        result
    }

    fn read_only(&mut self, path: Str) -> Outcome {
        let target = match sys::open_in_root(self.root, self.text(path), O_PATH) {
            Ok(fd) => fd,
            Err(fault) if matches!(fault.errno, libc::ENOENT | libc::ENOTDIR) => return Ok(()),
            Err(fault) => return Err(fault),
        };
        let tree = sys::open_tree(target, c"", true);
        let result = tree.and_then(|tree| {
            let result = sys::mount_setattr(tree, c"", false, attr::RDONLY, 0, 0)
                .and_then(|()| sys::move_mount(tree, target, c""));
            done(tree);
            result
        });
        done(target);
        result
    }

    fn write_proc(&self, path: Str, value: Str) -> Outcome {
        let file = sys::openat(self.proc, self.text(path), libc::O_WRONLY, 0)?;
        let checked = sys::filesystem(file)
            .and_then(|magic| if magic == PROC_MAGIC { Ok(()) } else { Err(Fault::new(Op::NotProcfs, 0)) });
        let result = checked.and_then(|()| sys::write(file, self.text(value).to_bytes()));
        done(file);
        result.map(drop)
    }

    fn terminal(&mut self, socket: Option<Fd>, size: Option<(u16, u16)>, console: bool, uid: u32) -> Outcome {
        if self.root == NONE {
            self.root = sys::open(c"/", O_PATH | libc::O_DIRECTORY)?;
        }
        let Pty { master, peer } = pty::open(self.root, size, uid)?;
        if console {
            pty::bind_console(self.root, peer)?;
        }
        match socket {
            Some(socket) => {
                sys::send(self.fd(socket), b"/dev/ptmx", Some(master))?;
                done(self.fd(socket));
            }
            None => self.say(Kind::Console, Some(master))?,
        }
        done(master);
        pty::adopt(peer)
    }

    fn set_user(&self, uid: u32, gid: u32, groups: List, may_be_denied: bool) -> Outcome {
        const KEEPCAPS: i32 = libc::PR_SET_KEEPCAPS;
        if uid != 0 {
            sys::prctl(KEEPCAPS, 1, 0)?;
        }
        let groups = self.words(groups);
        let set = if groups.len() <= FEW_GROUPS {
            sys::setgroups(groups, &mut [0u32; FEW_GROUPS])
        } else {
            set_many_groups(groups)
        };
        match set {
            Err(fault) if fault.errno == libc::EPERM && may_be_denied && groups.is_empty() => {}
            other => other?,
        }
        sys::setresgid(gid)?;
        sys::setresuid(uid)?;
        if uid != 0 { sys::prctl(KEEPCAPS, 0, 0) } else { Ok(()) }
    }

    /// Closes everything but the standard streams, what the container gets, and what is still needed.
    fn close_descriptors(&self, first: u32) -> Outcome {
        let mut from = first;
        // Sorted by the parent.
        for &kept in self.program.keep {
            let kept = kept.unsigned_abs();
            if kept < from {
                continue;
            }
            if kept > from {
                sys::close_range(from, kept - 1, false)?;
            }
            from = kept + 1;
        }
        sys::close_range(from, u32::MAX, false)
    }

    fn find_executable(&mut self, name: Str, path: Str) -> Outcome {
        let name = self.text(name).to_bytes();
        if name.contains(&b'/') {
            set_path(&mut self.executable, &[name])?;
            return self.try_executable();
        }
        let mut denied = false;
        for directory in self.text(path).to_bytes().split(|&b| b == b':') {
            // A relative directory would find different programs in different working directories.
            if directory.first() != Some(&b'/') {
                continue;
            }
            if set_path(&mut self.executable, &[directory, b"/", name]).is_err() {
                continue;
            }
            match self.try_executable() {
                Ok(()) => return Ok(()),
                Err(fault) if fault.op == Op::OwnBinary => return Err(fault),
                Err(fault) if fault.errno == libc::EACCES => denied = true,
                Err(_) => {}
            }
        }
        Err(Fault::new(Op::NotInPath, if denied { libc::EACCES } else { libc::ENOENT }))
    }

    /// Whether the path can be executed by the container's user, and is not this very binary: a container
    /// that runs the runtime's file through a link in /proc could keep it open and write to it later.
    fn try_executable(&self) -> Outcome {
        let path = CStr::from_bytes_until_nul(&self.executable)
            .map_err(|_| Fault::new(Op::PathTooLong, libc::ENAMETOOLONG))?;
        let facts = sys::facts_with(libc::AT_FDCWD, path, 0)?;
        if facts.is_directory() {
            return Err(Fault::new(Op::Access, libc::EISDIR));
        }
        let device = libc::makedev(facts.on_device.0 as _, facts.on_device.1 as _) as u64;
        if (device, facts.inode) == self.program.own_binary {
            return Err(Fault::new(Op::OwnBinary, libc::EACCES));
        }
        sys::access_execute(path)
    }
}

fn set_path(buffer: &mut [u8; 4096], parts: &[&[u8]]) -> Outcome {
    let mut at = 0;
    for part in parts {
        let end = at + part.len();
        if end >= buffer.len() {
            return Err(Fault::new(Op::PathTooLong, libc::ENAMETOOLONG));
        }
        buffer[at..end].copy_from_slice(part);
        at = end;
    }
    buffer[at] = 0;
    Ok(())
}

/// The procfs of the mount namespace the process is still in, with its type checked.
fn host_proc() -> Outcome<i32> {
    let proc = sys::open(c"/proc", O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)?;
    if sys::filesystem(proc)? != PROC_MAGIC {
        return Err(Fault::new(Op::NotProcfs, 0));
    }
    Ok(proc)
}

/// Walks up to the root of the mount that holds `path` and makes that mount private.
fn isolate_parent(path: &CStr) -> Outcome {
    let mut fd = sys::open(path, O_PATH | libc::O_DIRECTORY)?;
    while !sys::facts(fd, c"")?.mount_root {
        let up = sys::openat(fd, c"..", O_PATH | libc::O_DIRECTORY, 0)?;
        done(fd);
        fd = up;
    }
    let result = sys::mount_setattr(fd, c"", false, 0, 0, sys::propagation::PRIVATE);
    done(fd);
    result
}
