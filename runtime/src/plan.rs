//! A plan: what will be done for a container, complete before anything is done.
//!
//! [`crate::compile`] makes it; the parent opens what it names ([`Descriptor`]) and the child executes its
//! [`Step`]s. Strings lie in one arena, so a step is plain data in both processes. Each step knows the field
//! of config.json that it comes from ([`Origin`]): a failure names that field, and `create --plan` prints it.

use dhow_init::{Create, Fd, List, Pair, Step, Str, VectorRef, namespace_flag};
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

/// The field of config.json (or of the request) that a step comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A field by its JSON pointer.
    Field(&'static str),
    /// An element of a list: the list's JSON pointer and the index.
    Element(&'static str, u32),
    /// Something that every container gets, in a word.
    Always(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Field(pointer) => write!(f, "config.json {pointer}"),
            Origin::Element(pointer, index) => write!(f, "config.json {pointer}/{index}"),
            Origin::Always(what) => f.write_str(what),
        }
    }
}

/// An id mapping.
pub type IdMap = Vec<oci_spec::runtime::LinuxIdMapping>;

/// What the parent opens before the clone, in the order of the indices that steps use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// The file of an existing namespace, checked to be of this type (`CLONE_NEW*`).
    Namespace {
        /// Its path on the host.
        path: PathBuf,
        /// What it must be.
        flag: u32,
    },
    /// A detached clone of a host path's mounts, made by the parent because the child may not (its user
    /// namespace does not own the host's mounts) or because it is id-mapped.
    Tree {
        /// Path on the host.
        source: PathBuf,
        /// Whether mounts below come along.
        recursive: bool,
        /// The mapping, if it is id-mapped.
        idmap: Option<TreeIdMap>,
    },
    /// The FIFO that holds a created container back.
    Gate,
    /// The console socket of the caller, connected.
    ConsoleSocket,
    /// The state that hooks in the container's namespaces read: with this status.
    HookState(&'static str),
    /// Where their output goes.
    HookOutput,
    /// The pidfd of the container's init, for exec.
    InitPidfd,
    /// The caller's standard input, output or error, where they are not 0, 1 and 2 already.
    Stream(u8),
}

/// How a tree is id-mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeIdMap {
    /// Mapping of users; empty is the container's own.
    pub uids: IdMap,
    /// Mapping of groups; empty is the container's own.
    pub gids: IdMap,
    /// Whether mounts below are mapped as well.
    pub recursive: bool,
}

/// One pointer of an argument or environment vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VectorItem {
    /// A string of the arena.
    Text(Str),
    /// The buffer that [`Step::Home`] fills.
    Home,
    /// The NULL at the end.
    End,
}

/// What will be done for a container (or for an exec), in order.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub(crate) strings: Vec<u8>,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) words: Vec<u64>,
    pub(crate) vectors: Vec<VectorItem>,
    pub(crate) descriptors: Vec<Descriptor>,
    pub(crate) filter: Vec<u64>,
    pub(crate) outer: Vec<Step>,
    pub(crate) steps: Vec<Step>,
    /// One for each step of `outer`, then of `steps`.
    origins: Vec<Origin>,
    /// `CLONE_NEW*` of the first clone.
    pub(crate) clone_flags: u64,
    /// `CLONE_NEW*` of the second clone, which happens if `outer` is not empty.
    pub(crate) inner_flags: u64,
    interned: HashMap<Vec<u8>, Str>,
}

impl Plan {
    /// An empty plan.
    pub(crate) fn new() -> Self {
        Plan { strings: Vec::with_capacity(8192), steps: Vec::with_capacity(96), ..Plan::default() }
    }

    /// Puts a string into the arena. One that holds a NUL byte is cut there; compile refuses those before.
    pub(crate) fn text(&mut self, text: impl AsRef<[u8]>) -> Str {
        let text = text.as_ref();
        if let Some(&known) = self.interned.get(text) {
            return known;
        }
        let at = Str(self.strings.len() as u32);
        self.strings.extend_from_slice(text);
        self.strings.push(0);
        self.interned.insert(text.to_vec(), at);
        at
    }

    /// Puts a NULL-terminated vector of strings into its table.
    pub(crate) fn vector<T: AsRef<[u8]>>(&mut self, items: impl IntoIterator<Item = T>) -> VectorRef {
        let items: Vec<VectorItem> =
            items.into_iter().map(|item| VectorItem::Text(self.text(item))).collect();
        let at = VectorRef(self.vectors.len() as u32);
        self.vectors.extend(items);
        self.vectors.push(VectorItem::End);
        at
    }

    /// As [`Plan::vector`], with `HOME=...` at its end as [`Step::Home`] finds it.
    pub(crate) fn vector_with_home<T: AsRef<[u8]>>(
        &mut self,
        items: impl IntoIterator<Item = T>,
    ) -> VectorRef {
        let at = self.vector(items);
        self.vectors.pop();
        self.vectors.extend([VectorItem::Home, VectorItem::End]);
        at
    }

    /// Puts numbers into their table.
    pub(crate) fn words(&mut self, words: impl IntoIterator<Item = u64>) -> List {
        let start = self.words.len();
        self.words.extend(words);
        List { start: start as u32, len: (self.words.len() - start) as u32 }
    }

    /// Puts filesystem parameters into their table.
    pub(crate) fn parameters<'p>(
        &mut self,
        items: impl IntoIterator<Item = (&'p str, Option<&'p str>)>,
    ) -> List {
        let start = self.pairs.len();
        for (key, value) in items {
            let pair = Pair { key: self.text(key), value: value.map(|value| self.text(value)) };
            self.pairs.push(pair);
        }
        List { start: start as u32, len: (self.pairs.len() - start) as u32 }
    }

    /// A descriptor the parent has to open; equal ones are opened once.
    pub(crate) fn descriptor(&mut self, descriptor: Descriptor) -> Fd {
        let shared = !matches!(descriptor, Descriptor::Tree { .. });
        if shared {
            if let Some(at) = self.descriptors.iter().position(|d| *d == descriptor) {
                return Fd(at as u16);
            }
        }
        self.descriptors.push(descriptor);
        Fd((self.descriptors.len() - 1) as u16)
    }

    /// Appends a step of the container's process.
    pub(crate) fn push(&mut self, step: Step, origin: Origin) {
        self.steps.push(step);
        self.origins.push(origin);
    }

    /// Appends a step of the process before it. All of these come before the first [`Plan::push`].
    pub(crate) fn push_outer(&mut self, step: Step, origin: Origin) {
        debug_assert!(self.steps.is_empty());
        self.outer.push(step);
        self.origins.push(origin);
    }

    /// The step with this index, as the child counts them, and where it comes from.
    pub(crate) fn step(&self, index: usize) -> Option<(&Step, Origin)> {
        let step = self.outer.iter().chain(&self.steps).nth(index)?;
        Some((step, *self.origins.get(index)?))
    }

    /// The index, as the child counts them, of the first hook after the gate: startContainer's.
    pub(crate) fn first_start_hook(&self) -> Option<u32> {
        let gate = self.steps.iter().position(|step| matches!(step, Step::Gate { .. }))?;
        let hook = self.steps[gate..].iter().position(|step| matches!(step, Step::Hook { .. }))?;
        u32::try_from(self.outer.len() + gate + hook).ok()
    }

    /// A string of the arena, for messages.
    pub(crate) fn str(&self, at: Str) -> std::borrow::Cow<'_, str> {
        let bytes = self.strings.get(at.0 as usize..).unwrap_or(&[]);
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end])
    }

    fn vector_text(&self, at: VectorRef) -> String {
        let items = self.vectors.get(at.0 as usize..).unwrap_or(&[]).iter();
        let words: Vec<_> = items
            .map_while(|item| match item {
                VectorItem::Text(text) => Some(self.str(*text)),
                VectorItem::Home => Some("HOME=...".into()),
                VectorItem::End => None,
            })
            .collect();
        format!("{words:?}")
    }

    fn parameters_text(&self, list: List) -> String {
        let mut out = String::new();
        for pair in self.pairs.get(list.range()).unwrap_or(&[]) {
            out.push(' ');
            out.push_str(&self.str(pair.key));
            if let Some(value) = pair.value {
                out.push('=');
                out.push_str(&self.str(value));
            }
        }
        out
    }

    fn descriptor_text(&self, fd: Fd) -> String {
        match self.descriptors.get(usize::from(fd.0)) {
            Some(Descriptor::Namespace { path, .. }) => path.display().to_string(),
            Some(Descriptor::Tree { source, recursive, idmap }) => format!(
                "{}{}{}",
                source.display(),
                if *recursive { " (and below)" } else { "" },
                if idmap.is_some() { " id-mapped" } else { "" }
            ),
            Some(other) => format!("{other:?}"),
            None => String::from("nothing"),
        }
    }

    /// The step in words.
    pub(crate) fn describe(&self, step: &Step) -> String {
        let s = |at: Str| self.str(at);
        match *step {
            Step::Join { fd, flags, .. } => {
                format!("join {} of {}", flag_names(flags.into()), self.descriptor_text(fd))
            }
            Step::JoinAgain { fd, .. } => {
                format!("join {} if that was refused before", self.descriptor_text(fd))
            }
            Step::TimeNamespace { offsets } => format!("new time namespace, offsets {:?}", s(offsets)),
            Step::AwaitIdMaps => "wait for the id maps".into(),
            Step::BecomeRoot => "become root of the user namespace".into(),
            Step::AwaitCgroup => "wait for the cgroup".into(),
            Step::UnshareCgroup => "new cgroup namespace".into(),
            Step::OomScore { value } => format!("oom_score_adj {}", s(value)),
            Step::NotDumpable => "not dumpable".into(),
            Step::NewSession => "new session".into(),
            Step::SessionKeyring { name } => format!("session keyring {}", s(name)),
            Step::LoopbackUp => "loopback up".into(),
            Step::Hostname { name } => format!("hostname {}", s(name)),
            Step::Domainname { name } => format!("domainname {}", s(name)),
            Step::Propagation { kind, recursive } => {
                format!("make / {}{}", if recursive { "r" } else { "" }, propagation_name(kind))
            }
            Step::IsolateParent { path } => format!("make the mount of {} private", s(path)),
            Step::OpenRoot { path } => format!("open root {}", s(path)),
            Step::BindRoot { path } => format!("bind root {}", s(path)),
            Step::AttachRoot { path } => format!("attach it as root over {}", s(path)),
            Step::PrivateProc => "private procfs".into(),
            Step::NewFilesystem { fstype, parameters, attributes, .. } => {
                format!(
                    "new {}{}{}",
                    s(fstype),
                    self.parameters_text(parameters),
                    attribute_names(attributes)
                )
            }
            Step::CloneTree { source, recursive } => {
                format!("clone {}{}", s(source), if recursive { " (and below)" } else { "" })
            }
            Step::UseTree { tree } => format!("take {}", self.descriptor_text(tree)),
            Step::TreeAttributes { set, clear, propagation, recursive } => {
                format!("set{}", attributes_text(set, clear, propagation, recursive))
            }
            Step::KeepTree => "keep it open".into(),
            Step::KeptDirectory { name } => format!("directory {} in it", s(name)),
            Step::KeptSymlink { name, content } => format!("link {} -> {} in it", s(name), s(content)),
            Step::AttachKept { name } => format!("attach at {} in it", s(name)),
            Step::DropKept { set } => format!("done with it,{}", attributes_text(set, 0, 0, false)),
            Step::CopyUp { target } => format!("fill it with what is in /{}", s(target)),
            Step::Attach { target, create, .. } => {
                let what = match create {
                    Create::Directory => "directory",
                    Create::File => "file",
                    Create::LikeTree => "path",
                };
                format!("attach at {what} /{}", s(target))
            }
            Step::PathAttributes { target, set, clear, propagation, recursive } => {
                format!("set on /{}{}", s(target), attributes_text(set, clear, propagation, recursive))
            }
            Step::Reconfigure { target, parameters } => {
                format!("reconfigure /{}{}", s(target), self.parameters_text(parameters))
            }
            Step::Unmount { target } => format!("unmount /{}", s(target)),
            Step::OpenDirectory { path } => format!("in directory /{}", s(path)),
            Step::Device { name, mode, device, uid, gid } => format!(
                "device {} {} {}:{} mode {:04o} owner {uid}:{gid}",
                s(name),
                match mode & libc::S_IFMT {
                    libc::S_IFBLK => "b",
                    libc::S_IFIFO => "p",
                    _ => "c",
                },
                libc::major(device as _),
                libc::minor(device as _),
                mode & 0o7777
            ),
            Step::Symlink { name, content } => format!("link {} -> {}", s(name), s(content)),
            Step::MakeDirectory { path } => format!("directory /{}", s(path)),
            Step::NullDevice => "null device of the host".into(),
            Step::Mask { path } => format!("mask /{}", s(path)),
            Step::ReadOnly { path } => format!("read-only /{}", s(path)),
            Step::RootReadOnly => "read-only root".into(),
            Step::WriteProc { path, value } => format!("write {:?} to /proc/{}", s(value), s(path)),
            Step::PivotRoot { shared: false } => "pivot_root".into(),
            Step::PivotRoot { shared: true } => "pivot_root, the old root cut off from the host's".into(),
            Step::MoveRoot => "move the root over / and chroot".into(),
            Step::Chroot => "chroot".into(),
            Step::Terminal { socket, console, .. } => format!(
                "pseudo-terminal{}, its master to {}",
                if console { " on /dev/console" } else { "" },
                if socket.is_some() { "the console socket" } else { "the parent" }
            ),
            Step::Streams { .. } => "standard streams".into(),
            Step::NullStreams => "standard streams on the container's null device".into(),
            Step::OwnStreams { uid } => format!("standard streams belong to {uid}"),
            Step::Rlimit { resource, soft, hard } => format!("rlimit {resource} soft {soft} hard {hard}"),
            Step::Umask { mask } => format!("umask {mask:04o}"),
            Step::Personality { persona } => format!("personality {persona:#x}"),
            Step::Scheduler { policy, nice, priority, .. } => {
                format!("scheduler policy {policy} nice {nice} priority {priority}")
            }
            Step::IoPriority { value } => {
                format!("I/O priority class {} level {}", value >> 13, value & 0x1fff)
            }
            Step::MemoryPolicy { mode, .. } => format!("memory policy {mode:#x}"),
            Step::CpuAffinity { cpus } => {
                format!("CPU affinity {:x?}", self.words.get(cpus.range()).unwrap_or(&[]))
            }
            Step::NoNewPrivileges => "no new privileges".into(),
            Step::BoundingSet { keep } => format!("bounding set {keep:#x}"),
            Step::SetUser { uid, gid, groups, .. } => {
                format!("user {uid}:{gid} groups {:?}", self.words.get(groups.range()).unwrap_or(&[]))
            }
            Step::RaiseEffective => "raise the effective capabilities".into(),
            Step::Capabilities { effective, permitted, inheritable, ambient } => format!(
                "capabilities effective {effective:#x} permitted {permitted:#x} inheritable {inheritable:#x} ambient {ambient:#x}"
            ),
            Step::Chdir { path } => format!("chdir {}", s(path)),
            Step::ChdirAsUser { path } => format!("check that {} is inside", s(path)),
            Step::FindExecutable { name, path } => format!("find {:?} in {:?}", s(name), s(path)),
            Step::Seccomp { flags, notify } => format!(
                "seccomp filter of {} instructions, flags {flags:#x}{}",
                self.filter.len(),
                if notify { ", listener to the agent" } else { "" }
            ),
            Step::HostHooks => "hooks prestart and createRuntime".into(),
            Step::Hook { path, argv, timeout_ms, .. } => {
                let limit = if timeout_ms == 0 { String::new() } else { format!(", {timeout_ms} ms") };
                format!("hook {} {}{limit}", s(path), self.vector_text(argv))
            }
            Step::ModeOf { target } => format!("with the mode of /{}", s(target)),
            Step::Home { uid } => format!("home directory of {uid}"),
            Step::Ready => "tell the parent".into(),
            Step::CloseDescriptors { preserve } => format!("close descriptors from {}", 3 + preserve),
            Step::Gate { .. } => "wait for start".into(),
            Step::Exec { argv, .. } => format!("exec {}", self.vector_text(argv)),
        }
    }
}

/// The plan as `create --plan` prints it: one line a step, with where it comes from.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut origins = self.origins.iter();
        if !self.outer.is_empty() {
            writeln!(f, "first process: clone3 {}", flag_names(self.clone_flags))?;
            for (step, origin) in self.outer.iter().zip(origins.by_ref()) {
                writeln!(f, "  {}  ({origin})", self.describe(step))?;
            }
        }
        let flags = if self.outer.is_empty() { self.clone_flags } else { self.inner_flags };
        writeln!(f, "container process: clone3 {}", flag_names(flags))?;
        for (step, origin) in self.steps.iter().zip(origins) {
            writeln!(f, "  {}  ({origin})", self.describe(step))?;
        }
        Ok(())
    }
}

/// The spec's names of the namespaces in a set of `CLONE_NEW*`.
pub(crate) fn flag_names(flags: u64) -> String {
    use dhow_init::Namespace as N;
    let all = [
        (N::User, "user"),
        (N::Pid, "pid"),
        (N::Network, "network"),
        (N::Mount, "mount"),
        (N::Ipc, "ipc"),
        (N::Uts, "uts"),
        (N::Cgroup, "cgroup"),
        (N::Time, "time"),
    ];
    let names: Vec<_> = all
        .iter()
        .filter(|(n, _)| flags & u64::from(namespace_flag(*n)) != 0)
        .map(|(_, name)| *name)
        .collect();
    if names.is_empty() { "no namespace".into() } else { names.join(",") }
}

fn propagation_name(kind: u64) -> &'static str {
    match kind {
        dhow_init::propagation::SHARED => "shared",
        dhow_init::propagation::SLAVE => "slave",
        dhow_init::propagation::UNBINDABLE => "unbindable",
        _ => "private",
    }
}

fn attribute_names(set: u64) -> String {
    use dhow_init::attr;
    let mut out = String::new();
    let bits = [
        (attr::RDONLY, "ro"),
        (attr::NOSUID, "nosuid"),
        (attr::NODEV, "nodev"),
        (attr::NOEXEC, "noexec"),
        (attr::NODIRATIME, "nodiratime"),
        (attr::NOSYMFOLLOW, "nosymfollow"),
        (attr::IDMAP, "idmap"),
    ];
    for (bit, name) in bits {
        if set & bit != 0 {
            out.push(' ');
            out.push_str(name);
        }
    }
    match set & attr::ATIME {
        attr::NOATIME => out.push_str(" noatime"),
        attr::STRICTATIME => out.push_str(" strictatime"),
        _ => {}
    }
    out
}

fn attributes_text(set: u64, clear: u64, propagation: u64, recursive: bool) -> String {
    let mut out = attribute_names(set);
    if clear != 0 {
        out.push_str(" clear");
        out.push_str(&attribute_names(clear));
    }
    if propagation != 0 {
        out.push(' ');
        out.push_str(propagation_name(propagation));
    }
    if recursive {
        out.push_str(" recursively");
    }
    out
}
