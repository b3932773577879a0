//! The vocabulary of a plan: every step the child can take, as plain data.

/// A NUL-terminated string: its offset in [`Program::strings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Str(pub u32);

/// A descriptor that the parent prepared: its index in [`Program::fds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fd(pub u16);

/// A range of one of the program's tables; which table is said by the step that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    /// Index of the first element.
    pub start: u32,
    /// Number of elements.
    pub len: u32,
}

impl List {
    /// No elements.
    pub const EMPTY: List = List { start: 0, len: 0 };

    /// The indices as a range.
    pub fn range(self) -> core::ops::Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }
}

/// A NULL-terminated vector of strings: index of its first pointer in [`Program::vectors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorRef(pub u32);

/// One parameter of a new filesystem: `key` alone is a flag, with a value a string (fsconfig(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Name of the parameter.
    pub key: Str,
    /// Its value, if it has one.
    pub value: Option<Str>,
}

/// The kinds of namespaces, in the order of runtime-spec's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Process ids.
    Pid,
    /// Network devices, addresses, ports.
    Network,
    /// The mount table.
    Mount,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// User and group ids.
    User,
    /// The view of the cgroup tree.
    Cgroup,
    /// Offsets of the boot and monotonic clocks.
    Time,
}

/// What is made at a mount's target when nothing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// A directory, mode 0755.
    Directory,
    /// An empty regular file, mode 0644.
    File,
    /// A directory, or a file, after the type of the tree that is about to be attached.
    LikeTree,
}

/// One step of the child. Paths named `target` or `path` are relative to the container's root unless said
/// otherwise, have no leading slash, and are resolved inside that root (openat2, `RESOLVE_IN_ROOT`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    // ----- namespaces and identity -----
    /// setns(2) to a namespace. With `later`, EPERM is not an error yet: [`Step::JoinAgain`] follows once the
    /// user namespace, which may own this one, has been joined.
    Join {
        /// The namespace's file, or a pidfd.
        fd: Fd,
        /// `CLONE_NEW*`, or several of them for a pidfd.
        flags: u32,
        /// Whether EPERM is postponed.
        later: bool,
    },
    /// The second attempt for the joins that were postponed.
    JoinAgain {
        /// As in [`Step::Join`].
        fd: Fd,
        /// As in [`Step::Join`].
        flags: u32,
    },
    /// unshare(CLONE_NEWTIME) and the clocks' offsets: text in the format of `/proc/PID/timens_offsets`.
    TimeNamespace {
        /// Lines `clock seconds nanoseconds`.
        offsets: Str,
    },
    /// Ask the parent to write the id maps of the new user namespace, and wait.
    AwaitIdMaps,
    /// Become root of the user namespace: setresgid and setresuid 0, no supplementary groups kept if possible.
    BecomeRoot,
    /// Wait until the parent has put this process into its cgroup.
    AwaitCgroup,
    /// unshare(CLONE_NEWCGROUP): the cgroup the process is in becomes the root of its view.
    UnshareCgroup,
    /// Write this process's `oom_score_adj`, in the procfs of the namespace that the runtime is in.
    OomScore {
        /// The value in decimal.
        value: Str,
    },
    /// prctl(PR_SET_DUMPABLE, 0): nothing in a joined namespace may look at this process's memory or files.
    NotDumpable,
    /// A new session.
    NewSession,
    /// A new session keyring of this name.
    SessionKeyring {
        /// Name, shown by keyctl.
        name: Str,
    },
    /// Bring the loopback device up.
    LoopbackUp,
    /// sethostname(2).
    Hostname {
        /// The name.
        name: Str,
    },
    /// setdomainname(2).
    Domainname {
        /// The name.
        name: Str,
    },

    // ----- the root filesystem -----
    /// Change the propagation of every mount of this namespace.
    Propagation {
        /// `MS_SLAVE`, `MS_PRIVATE`, `MS_SHARED` or `MS_UNBINDABLE`.
        kind: u64,
        /// Whether mounts below are changed as well.
        recursive: bool,
    },
    /// Make the mount that holds this host path private, so that what is attached below it stays here.
    IsolateParent {
        /// Absolute host path.
        path: Str,
    },
    /// Open the root directory without mounting anything (a container without a mount namespace).
    OpenRoot {
        /// Absolute host path.
        path: Str,
    },
    /// Clone the root directory's mounts and attach the clone over the directory, so that it is a mount point.
    BindRoot {
        /// Absolute host path.
        path: Str,
    },
    /// As [`Step::BindRoot`] with the current tree, which the parent made (an overlay, an id-mapped clone).
    AttachRoot {
        /// Absolute host path of the directory to cover.
        path: Str,
    },
    /// A private procfs for writes that must reach the real one; never visible in the container.
    PrivateProc,
    /// A new filesystem as the current tree.
    NewFilesystem {
        /// Filesystem type.
        fstype: Str,
        /// What the mount table shows as its source.
        source: Option<Str>,
        /// Its parameters: a range of [`Program::pairs`].
        parameters: List,
        /// `MOUNT_ATTR_*` to set.
        attributes: u64,
    },
    /// A clone of a host path's mount (or mounts) as the current tree.
    CloneTree {
        /// Absolute host path.
        source: Str,
        /// Whether mounts below come along.
        recursive: bool,
    },
    /// A tree that the parent prepared as the current tree.
    UseTree {
        /// The detached tree.
        tree: Fd,
    },
    /// mount_setattr(2) on the current tree.
    TreeAttributes {
        /// `MOUNT_ATTR_*` to set.
        set: u64,
        /// `MOUNT_ATTR_*` to clear.
        clear: u64,
        /// 0, or one of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`.
        propagation: u64,
        /// Whether mounts below are changed as well.
        recursive: bool,
    },
    /// Remember the current tree: the `Kept` steps work in it after it has been attached. It must be a
    /// filesystem made by this plan, so that nobody else can have put anything into it.
    KeepTree,
    /// mkdir in the kept tree.
    KeptDirectory {
        /// One path component.
        name: Str,
    },
    /// symlink in the kept tree.
    KeptSymlink {
        /// One path component.
        name: Str,
        /// Content of the link.
        content: Str,
    },
    /// Attach the current tree at a directory of the kept tree.
    AttachKept {
        /// One path component, made by [`Step::KeptDirectory`].
        name: Str,
    },
    /// Give the kept tree these attributes and forget it.
    DropKept {
        /// `MOUNT_ATTR_*` to set.
        set: u64,
    },
    /// Fill the current tree with what the container has at `target` (tmpcopyup).
    CopyUp {
        /// Path in the container.
        target: Str,
    },
    /// Give the current tree's root the mode of the directory it is about to cover, if there is one.
    ModeOf {
        /// Path in the container.
        target: Str,
    },
    /// Attach the current tree at a path of the container.
    Attach {
        /// Path in the container.
        target: Str,
        /// What to make when it is missing.
        create: Create,
        /// Whether a target on procfs is refused.
        not_on_proc: bool,
        /// Whether the last component must be a real directory, not a link.
        no_symlink: bool,
    },
    /// mount_setattr(2) on what is mounted at a path of the container.
    PathAttributes {
        /// Path in the container.
        target: Str,
        /// `MOUNT_ATTR_*` to set.
        set: u64,
        /// `MOUNT_ATTR_*` to clear.
        clear: u64,
        /// 0 or a propagation kind.
        propagation: u64,
        /// Whether mounts below are changed as well.
        recursive: bool,
    },
    /// Change the parameters of the filesystem mounted at a path (`remount` of a real filesystem).
    Reconfigure {
        /// Path in the container.
        target: Str,
        /// A range of [`Program::pairs`].
        parameters: List,
    },
    /// Unmount (detach) what is mounted at a path; needs the private procfs.
    Unmount {
        /// Path in the container.
        target: Str,
    },
    /// Open (and make) a directory of the container as the current directory for the following steps.
    OpenDirectory {
        /// Path in the container.
        path: Str,
    },
    /// mknod in the current directory, with owner.
    Device {
        /// One path component.
        name: Str,
        /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO` and permission bits.
        mode: u32,
        /// Device number as makedev(3) packs it.
        device: u64,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// symlink in the current directory; one that exists is left as it is.
    Symlink {
        /// One path component.
        name: Str,
        /// Content of the link.
        content: Str,
    },
    /// Make a directory of the container, and those above it, when it is missing.
    MakeDirectory {
        /// Path in the container.
        path: Str,
    },
    /// A clone of the host's null device for [`Step::Mask`]; refused if it is not the device 1:3.
    NullDevice,
    /// Hide a path: a directory under an empty read-only tmpfs, anything else under the null device.
    /// A path that does not exist is passed over.
    Mask {
        /// Path in the container.
        path: Str,
    },
    /// Make a path read-only by a mount of itself. A path that does not exist is passed over.
    ReadOnly {
        /// Path in the container.
        path: Str,
    },
    /// Make the root mount itself read-only.
    RootReadOnly,
    /// Write to a file of the private procfs, as for a sysctl.
    WriteProc {
        /// Path below the procfs.
        path: Str,
        /// What is written, in one write.
        value: Str,
    },
    /// pivot_root into the root and detach the old one.
    PivotRoot {
        /// Mounts of the old root may be peers of the host's: they are cut off first, or the host would lose them.
        shared: bool,
    },
    /// Move the root over `/` and chroot (`--no-pivot`).
    MoveRoot,
    /// chroot into the root (a container without a mount namespace).
    Chroot,

    // ----- terminal and standard streams -----
    /// Open a pseudo-terminal of the container's own devpts, bind its peer to /dev/console, hand the master
    /// over, and make it the controlling terminal and the standard streams.
    Terminal {
        /// The connected socket that takes the master; without one the parent gets it.
        socket: Option<Fd>,
        /// Rows and columns, if they are known.
        size: Option<(u16, u16)>,
        /// Whether to bind /dev/console (not for exec).
        console: bool,
        /// Owner of the peer.
        uid: u32,
    },
    /// Use these descriptors as standard input, output and error.
    Streams {
        /// Standard input.
        stdin: Fd,
        /// Standard output.
        stdout: Fd,
        /// Standard error.
        stderr: Fd,
    },
    /// Where a standard stream is the host's null device, use the container's own instead.
    NullStreams,
    /// Give the standard streams to this user, where they are not the null device.
    OwnStreams {
        /// Owner.
        uid: u32,
    },

    // ----- the process -----
    /// prlimit(2).
    Rlimit {
        /// `RLIMIT_*`.
        resource: u32,
        /// Soft limit.
        soft: u64,
        /// Hard limit.
        hard: u64,
    },
    /// umask(2).
    Umask {
        /// Permission bits to take away.
        mask: u32,
    },
    /// personality(2).
    Personality {
        /// Domain and flags.
        persona: u64,
    },
    /// sched_setattr(2).
    Scheduler {
        /// `SCHED_*`.
        policy: u32,
        /// `SCHED_FLAG_*`.
        flags: u64,
        /// Nice value.
        nice: i32,
        /// Static priority.
        priority: u32,
        /// Runtime in nanoseconds.
        runtime_ns: u64,
        /// Deadline in nanoseconds.
        deadline_ns: u64,
        /// Period in nanoseconds.
        period_ns: u64,
    },
    /// ioprio_set(2).
    IoPriority {
        /// Class and level, packed.
        value: u32,
    },
    /// set_mempolicy(2).
    MemoryPolicy {
        /// `MPOL_*` and its flags.
        mode: u32,
        /// Nodes: a range of [`Program::words`].
        nodes: List,
    },
    /// sched_setaffinity(2).
    CpuAffinity {
        /// CPUs: a range of [`Program::words`].
        cpus: List,
    },
    /// prctl(PR_SET_NO_NEW_PRIVS).
    NoNewPrivileges,
    /// Drop every capability that is not in `keep` from the bounding set.
    BoundingSet {
        /// Bit n is capability n.
        keep: u64,
    },
    /// setgroups, setresgid, setresuid; the permitted capabilities survive.
    SetUser {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Supplementary groups: a range of [`Program::words`].
        groups: List,
        /// In a user namespace the kernel may deny setgroups (an unprivileged single mapping). Where no groups are
        /// wanted, the caller's stay then.
        may_be_denied: bool,
    },
    /// All permitted capabilities effective again after a change of user, for the steps until `Capabilities`.
    RaiseEffective,
    /// capset(2) and the ambient set.
    Capabilities {
        /// Effective.
        effective: u64,
        /// Permitted.
        permitted: u64,
        /// Inheritable.
        inheritable: u64,
        /// Ambient.
        ambient: u64,
    },
    /// chdir(2) in the container; a failure waits for [`Step::ChdirAsUser`].
    Chdir {
        /// Absolute path in the container.
        path: Str,
    },
    /// Try chdir(2) again where it failed before the change of user, then check that the working directory is
    /// inside the root.
    ChdirAsUser {
        /// Absolute path in the container.
        path: Str,
    },
    /// Find the program, as the container's user, and refuse the runtime's own binary.
    FindExecutable {
        /// `args[0]`.
        name: Str,
        /// Value of the container's PATH.
        path: Str,
    },
    /// Load the seccomp filter ([`Program::filter`]); with `notify` the parent gets the listener.
    Seccomp {
        /// `SECCOMP_FILTER_FLAG_*`.
        flags: u32,
        /// Whether the listener goes to the parent.
        notify: bool,
    },

    // ----- talking to the parent -----
    /// Ask the parent to run the hooks of the runtime namespace (prestart, createRuntime), and wait.
    HostHooks,
    /// Run a hook here and wait for it.
    Hook {
        /// Absolute path of the program.
        path: Str,
        /// Its arguments.
        argv: VectorRef,
        /// Its environment.
        envp: VectorRef,
        /// Time limit in milliseconds; 0 is none.
        timeout_ms: u32,
        /// Its standard input: the container's state, read from the start.
        state: Fd,
        /// Where its output goes, for the parent's error message.
        output: Fd,
        /// Whether it starts in the container's root directory, not in the current one.
        in_root: bool,
    },
    /// Look up the home directory of a user in the container's /etc/passwd, for [`Program::home`].
    Home {
        /// The user.
        uid: u32,
    },
    /// Everything is set up: tell the parent and wait until it has recorded that.
    Ready,
    /// Close every descriptor from `3 + preserve` on, apart from [`Program::keep`].
    CloseDescriptors {
        /// How many descriptors after 2 the container gets.
        preserve: u32,
    },
    /// Wait for one byte: `start` opens and writes the FIFO.
    Gate {
        /// The FIFO, open for reading and writing.
        fd: Fd,
    },
    /// execve(2) of what [`Step::FindExecutable`] found.
    Exec {
        /// Arguments.
        argv: VectorRef,
        /// Environment.
        envp: VectorRef,
    },
}

/// What a step was doing when it failed: the system call, for the parent's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)] // the names are those of the system calls
pub enum Op {
    Unknown = 0,
    Setns,
    Unshare,
    Clone3,
    Open,
    Openat2,
    Read,
    Write,
    Setresuid,
    Setresgid,
    Setgroups,
    Setsid,
    Keyctl,
    Socket,
    Ioctl,
    Sethostname,
    Setdomainname,
    MountSetattr,
    Statx,
    OpenTree,
    MoveMount,
    Fsopen,
    FsconfigParameter,
    FsconfigCreate,
    Fsmount,
    Fspick,
    Mkdir,
    Mknod,
    Chown,
    Symlink,
    Readlink,
    PivotRoot,
    Umount,
    Chdir,
    Chroot,
    Getcwd,
    Prlimit,
    Personality,
    SchedSetattr,
    SchedSetaffinity,
    IoprioSet,
    SetMempolicy,
    Prctl,
    Capset,
    Capget,
    Seccomp,
    Dup,
    Sendmsg,
    Recv,
    CloseRange,
    Access,
    Execve,
    Wait,
    /// Not a call that failed but a check that refused: the path leads to procfs.
    TargetOnProc,
    /// The path is not a real directory.
    NotADirectory,
    /// The null device is not the device 1:3.
    NotNullDevice,
    /// The multiplexer is not a devpts.
    NotDevpts,
    /// The filesystem is not procfs.
    NotProcfs,
    /// The working directory is outside the container.
    CwdOutside,
    /// The program is the runtime's own binary.
    OwnBinary,
    /// The program was not found in any directory of PATH.
    NotInPath,
    /// A path is longer than 4,095 bytes.
    PathTooLong,
    /// Too many symbolic links.
    TooManyLinks,
    /// A hook ended with a status: the argument of the fault, as wait(2) gives it.
    HookStatus,
    /// A hook took longer than its time limit.
    HookTimeout,
    /// The parent is gone.
    ParentGone,
    /// A device exists at the path and is not the one asked for.
    WrongDevice,
}

impl Op {
    /// The operation with this number, as it came over the wire.
    pub fn from_wire(n: u32) -> Op {
        if n <= Op::WrongDevice as u32 {
            // SAFETY: Op is repr(u32) and its discriminants are 0..=WrongDevice without a gap.
            unsafe { core::mem::transmute::<u32, Op>(n) }
        } else {
            Op::Unknown
        }
    }
}

/// Size of the buffer behind [`Program::home`].
pub const HOME_BYTES: usize = 1024;

/// Everything the child needs, borrowed from the parent's memory of before the clone.
pub struct Program<'a> {
    /// NUL-terminated strings, one after the other.
    pub strings: &'a [u8],
    /// Parameters of filesystems.
    pub pairs: &'a [Pair],
    /// Numbers: supplementary groups, CPU and node masks.
    pub words: &'a [u64],
    /// NULL-terminated argument and environment vectors, pointing into `strings`.
    pub vectors: &'a [*const libc::c_char],
    /// Where [`Step::Home`] writes `HOME=...`: [`HOME_BYTES`] bytes that the environment vector points to.
    pub home: *mut u8,
    /// Prepared descriptors.
    pub fds: &'a [i32],
    /// The seccomp filter: `struct sock_filter`, 8 bytes each.
    pub filter: &'a [u64],
    /// What the first process does before it clones the container's own; empty when there is only one.
    pub outer: &'a [Step],
    /// `CLONE_NEW*` flags for the second clone; only with `outer`.
    pub inner_flags: u64,
    /// What the container's process does.
    pub steps: &'a [Step],
    /// The child's end of the socket pair.
    pub socket: i32,
    /// Descriptors to close first (the parent's end of the pair, its locks).
    pub close: &'a [i32],
    /// Descriptors that [`Step::CloseDescriptors`] leaves open, ascending; all of them close-on-exec.
    pub keep: &'a [i32],
    /// Bit n-1: signal n is ignored in the parent and must not be here.
    pub ignored_signals: u64,
    /// Device and inode of the running binary, which the container must not execute.
    pub own_binary: (u64, u64),
}
