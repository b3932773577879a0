//! The parent half of a start: opens what the plan names, clones, and talks with the child until it is set up.
//!
//! Nothing of the calling process is changed (directory, umask, limits, environment, signals): a threaded
//! program may call this from any thread. See `dhow_init`'s wire module for the protocol.

use crate::error::{Error, StepError};
use crate::plan::{Descriptor, IdMap, Origin, Plan, VectorItem, flag_names};
use crate::sys;
use dhow_init::{ATTACHED, Clone3, GO, HOME_BYTES, Kind, MESSAGE_BYTES, Message, Op, Program, Step};
use rustix::fs::{Mode, OFlags, open};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, send, socketpair,
};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use std::io::{IoSliceMut, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

/// What the parent does while the child waits for it.
pub(crate) trait Parent {
    /// The container's process exists: told first, and once. It is in its cgroup when this returns; meanwhile it
    /// works on its mounts.
    fn cloned(&mut self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<(), Error>;
    /// What may be done while the child goes on; before any message of the child's is answered.
    fn attached(&mut self, _pid: i32) -> Result<(), Error> {
        Ok(())
    }
    /// Write the id maps of its user namespace.
    fn map_ids(&mut self, pid: i32) -> Result<(), Error>;
    /// Run prestart and createRuntime.
    fn host_hooks(&mut self, pid: i32) -> Result<(), Error>;
    /// Hand the seccomp listener to the agent.
    fn seccomp_listener(&mut self, pid: i32, listener: OwnedFd) -> Result<(), Error>;
    /// The child is set up: record it. After this it goes on to execve or to its gate.
    fn ready(&mut self, pid: i32) -> Result<(), Error>;
}

/// A container's process after the handshake.
pub(crate) struct Launched {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub console: Option<OwnedFd>,
}

/// Descriptors given from outside, in the place of [`Descriptor`]s that only the caller can provide.
#[derive(Default)]
pub(crate) struct Given<'a> {
    pub gate: Option<BorrowedFd<'a>>,
    pub console_socket: Option<BorrowedFd<'a>>,
    pub hook_states: Vec<(&'static str, BorrowedFd<'a>)>,
    pub hook_output: Option<BorrowedFd<'a>>,
    pub init: Option<BorrowedFd<'a>>,
    pub streams: Option<[BorrowedFd<'a>; 3]>,
    pub own_binary: (u64, u64),
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Mappings of the container's own user namespace, for trees without their own.
    pub container_maps: (IdMap, IdMap),
    /// Whether to wait until execve has succeeded (nobody will call start).
    pub until_exec: bool,
    /// Descriptors the child closes first.
    pub close: Vec<RawFd>,
}

/// Opens the descriptors of the plan, in its order.
fn prepare(plan: &Plan, given: &Given<'_>) -> Result<(Vec<RawFd>, Vec<OwnedFd>), Error> {
    let mut table = Vec::with_capacity(plan.descriptors.len());
    let mut owned = Vec::new();
    let missing = || -1;
    for descriptor in &plan.descriptors {
        let fd = match descriptor {
            Descriptor::Namespace { path, flag } => {
                let fd = open_namespace(path, *flag)?;
                let raw = fd.as_raw_fd();
                owned.push(fd);
                raw
            }
            Descriptor::Tree { source, recursive, idmap } => {
                let fd = sys::detached_clone(source, *recursive).map_err(|source_error| Error::Prepare {
                    origin: "mount source".into(),
                    action: "cloning the mount of",
                    path: source.clone(),
                    source: source_error,
                })?;
                if let Some(map) = idmap {
                    let or_own = |own: &IdMap, container: &IdMap| {
                        if own.is_empty() { container.clone() } else { own.clone() }
                    };
                    let uids = or_own(&map.uids, &given.container_maps.0);
                    let gids = or_own(&map.gids, &given.container_maps.1);
                    let prepare = |action, e| Error::Prepare {
                        origin: "mount source".into(),
                        action,
                        path: source.clone(),
                        source: e,
                    };
                    let namespace = match joined_user_namespace(plan) {
                        // A container that joins a user namespace has the mapping of that one.
                        Some(path) if uids.is_empty() && gids.is_empty() => {
                            open_namespace(path, dhow_init::namespace_flag(dhow_init::Namespace::User))?
                        }
                        _ => crate::idmap::user_namespace(&uids, &gids)
                            .map_err(|e| prepare("making the id mapping for", std::io::Error::other(e)))?,
                    };
                    sys::set_idmap(fd.as_fd(), namespace.as_fd(), map.recursive)
                        .map_err(|e| prepare("id-mapping", e))?;
                }
                let raw = fd.as_raw_fd();
                owned.push(fd);
                raw
            }
            Descriptor::Gate => given.gate.map_or_else(missing, |fd| fd.as_raw_fd()),
            Descriptor::ConsoleSocket => given.console_socket.map_or_else(missing, |fd| fd.as_raw_fd()),
            Descriptor::HookState(status) => {
                let found = given.hook_states.iter().find(|(known, _)| known == status);
                found.map_or_else(missing, |(_, fd)| fd.as_raw_fd())
            }
            Descriptor::HookOutput => given.hook_output.map_or_else(missing, |fd| fd.as_raw_fd()),
            Descriptor::InitPidfd => given.init.map_or_else(missing, |fd| fd.as_raw_fd()),
            Descriptor::Stream(n) => {
                given.streams.map_or_else(missing, |fds| fds[usize::from(*n)].as_raw_fd())
            }
        };
        table.push(fd);
    }
    Ok((table, owned))
}

fn joined_user_namespace(plan: &Plan) -> Option<&Path> {
    let user = dhow_init::namespace_flag(dhow_init::Namespace::User);
    plan.descriptors.iter().find_map(|descriptor| match descriptor {
        Descriptor::Namespace { path, flag } if *flag == user => Some(path.as_path()),
        _ => None,
    })
}

fn open_namespace(path: &Path, flag: u32) -> Result<OwnedFd, Error> {
    let failed = |source: rustix::io::Errno| Error::File {
        action: "opening namespace",
        path: path.to_path_buf(),
        source: source.into(),
    };
    let fd =
        open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).map_err(failed)?;
    if sys::namespace_type(fd.as_fd()) != Some(flag) {
        return Err(Error::WrongNamespace { path: path.to_path_buf(), expected: flag_names(flag.into()) });
    }
    Ok(fd)
}

/// Starts the process of a plan and sees it through the handshake. On an error the process is gone and reaped.
pub(crate) fn launch(
    plan: &Plan,
    given: &Given<'_>,
    parent: &mut dyn Parent,
    wrap: fn(StepError) -> Error,
) -> Result<Launched, Error> {
    let (fds, _owned) = prepare(plan, given)?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|e| Error::System { action: "making a socket pair", source: e.into() })?;
    if !plan.outer.is_empty() {
        // The second process is known by the pid that the kernel adds to what it says.
        rustix::net::sockopt::set_socket_passcred(&ours, true)
            .map_err(|e| Error::System { action: "preparing a socket pair", source: e.into() })?;
    }
    let mut home = vec![0u8; HOME_BYTES];
    let home = home.as_mut_ptr();
    let base = plan.strings.as_ptr();
    let vectors: Vec<*const libc::c_char> = plan
        .vectors
        .iter()
        .map(|item| match item {
            VectorItem::Text(text) => base.wrapping_add(text.0 as usize).cast(),
            VectorItem::Home => home.cast_const().cast(),
            VectorItem::End => std::ptr::null(),
        })
        .collect();
    let mut close = given.close.clone();
    close.push(ours.as_raw_fd());
    let mut keep: Vec<RawFd> = given.hook_states.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
    keep.extend([given.gate, given.hook_output].into_iter().flatten().map(|fd| fd.as_raw_fd()));
    keep.push(theirs.as_raw_fd());
    keep.sort_unstable();
    let program = Program {
        strings: &plan.strings,
        pairs: &plan.pairs,
        words: &plan.words,
        vectors: &vectors,
        home,
        fds: &fds,
        filter: &plan.filter,
        outer: &plan.outer,
        inner_flags: plan.inner_flags,
        steps: &plan.steps,
        socket: theirs.as_raw_fd(),
        close: &close,
        keep: &keep,
        ignored_signals: ignored_signals(),
        own_binary: given.own_binary,
    };
    let how = Clone3 {
        namespaces: plan.clone_flags,
        cgroup: given.cgroup.map(|fd| fd.as_raw_fd()),
        sibling: false,
    };
    let (pid, pidfd) = sys::clone_process(&how, &program).map_err(|fault| match fault.errno {
        libc::ENOSYS => Error::MissingCall { call: "clone3" },
        errno => Error::System {
            action: "clone3 of the container's process",
            source: std::io::Error::from_raw_os_error(errno),
        },
    })?;
    drop(theirs);
    let mut child = Child { pid, pidfd: Some(pidfd), console: None };
    handshake(plan, given, parent, wrap, &mut child, ours)?;
    child.launched()
}

/// The child while it may still have to be killed: dropping it unfinished ends it and reaps it.
struct Child {
    pid: i32,
    /// Taken when the process is set up, or has been reaped: then there is nothing to clean up.
    pidfd: Option<OwnedFd>,
    console: Option<OwnedFd>,
}

impl Child {
    fn pidfd(&self) -> Result<BorrowedFd<'_>, Error> {
        let gone = || Error::System {
            action: "working on the container's process, which has been reaped",
            source: std::io::ErrorKind::NotFound.into(),
        };
        self.pidfd.as_ref().map(AsFd::as_fd).ok_or_else(gone)
    }

    fn launched(mut self) -> Result<Launched, Error> {
        let gone = || Error::System {
            action: "launching a process that has been reaped",
            source: std::io::ErrorKind::NotFound.into(),
        };
        let pidfd = self.pidfd.take().ok_or_else(gone)?;
        Ok(Launched { pid: self.pid, pidfd, console: self.console.take() })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            // Both fail only if it is gone already, which is what is wanted.
            pidfd_send_signal(pidfd, Signal::KILL).unwrap_or(());
            waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).map(drop).unwrap_or(());
        }
    }
}

fn handshake(
    plan: &Plan,
    given: &Given<'_>,
    parent: &mut dyn Parent,
    wrap: fn(StepError) -> Error,
    child: &mut Child,
    socket: OwnedFd,
) -> Result<(), Error> {
    let two = !plan.outer.is_empty();
    let awaits_cgroup = plan.steps.contains(&Step::AwaitCgroup);
    let mut ready = false;
    if !two {
        begin(parent, child, &socket, awaits_cgroup)?;
    }
    loop {
        let Received { message, fd, sender } = receive(&socket)?;
        let Some(message) = message else {
            if ready {
                return Ok(());
            }
            return Err(wrap(died(child)));
        };
        match message {
            Message::Failed { step, fault } => {
                return Err(failure(plan, given, step as usize, fault, wrap));
            }
            Message::Say(kind) => match kind {
                Kind::Pid => {
                    adopt(child, sender)?;
                    begin(parent, child, &socket, awaits_cgroup)?;
                }
                Kind::MapIds => {
                    parent.map_ids(child.pid)?;
                    go(&socket)?;
                }
                Kind::HostHooks => {
                    parent.host_hooks(child.pid)?;
                    go(&socket)?;
                }
                Kind::Console => child.console = fd,
                Kind::SeccompFd => {
                    if let Some(listener) = fd {
                        parent.seccomp_listener(child.pid, listener)?;
                    }
                    go(&socket)?;
                }
                Kind::Ready => {
                    parent.ready(child.pid)?;
                    go(&socket)?;
                    ready = true;
                    if !given.until_exec {
                        return Ok(());
                    }
                }
                // Heard before, or decoded as a message of its own.
                Kind::Failed => {}
            },
        }
    }
}

/// The child is in its cgroup, and hears of it at once if it waits for that; the rest is done while it works.
fn begin(parent: &mut dyn Parent, child: &Child, socket: &OwnedFd, awaits_cgroup: bool) -> Result<(), Error> {
    parent.cloned(child.pid, child.pidfd()?)?;
    if awaits_cgroup {
        tell(socket, ATTACHED)?;
    }
    parent.attached(child.pid)
}

/// The second process takes the place of the first, which has done its part and is reaped.
fn adopt(child: &mut Child, second: Option<Pid>) -> Result<(), Error> {
    let system = |action| move |e: rustix::io::Errno| Error::System { action, source: e.into() };
    let second = second.ok_or(Error::System {
        action: "pid of the container's process",
        source: std::io::ErrorKind::InvalidData.into(),
    })?;
    let pidfd = pidfd_open(second, PidfdFlags::empty()).map_err(system("opening a pidfd"))?;
    let first = child.pidfd.replace(pidfd);
    child.pid = second.as_raw_pid();
    let Some(first) = first else { return Ok(()) };
    waitid(WaitId::PidFd(first.as_fd()), WaitIdOptions::EXITED)
        .map_err(system("waiting for the first process"))?;
    Ok(())
}

fn go(socket: &OwnedFd) -> Result<(), Error> {
    tell(socket, GO)
}

fn tell(socket: &OwnedFd, what: u8) -> Result<(), Error> {
    match send(socket, &[what], SendFlags::NOSIGNAL) {
        // A child that died in between shows as end of file at the next receive.
        Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
        Err(e) => Err(Error::System { action: "answering the container's process", source: e.into() }),
    }
}

/// What came from the child; nothing at all when it is gone.
#[derive(Default)]
struct Received {
    message: Option<Message>,
    fd: Option<OwnedFd>,
    /// Who sent it, where there are two processes.
    sender: Option<Pid>,
}

fn receive(socket: &OwnedFd) -> Result<Received, Error> {
    let mut bytes = [0u8; MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
    let mut reset = false;
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let got = match recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => got,
            Err(rustix::io::Errno::INTR) => continue,
            // It ended before it read all that it was told. That is said once, before its own last words.
            Err(rustix::io::Errno::CONNRESET) if !reset => {
                reset = true;
                continue;
            }
            Err(rustix::io::Errno::CONNRESET) => return Ok(Received::default()),
            Err(e) => {
                return Err(Error::System { action: "hearing the container's process", source: e.into() });
            }
        };
        let (mut fd, mut sender) = (None, None);
        for message in control.drain() {
            match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fd = fds.next(),
                RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
                _ => {}
            }
        }
        if got.bytes == 0 {
            return Ok(Received::default());
        }
        debug_assert!(!got.flags.contains(ReturnFlags::TRUNC));
        return match Message::decode(&bytes[..got.bytes]) {
            Some(message) => Ok(Received { message: Some(message), fd, sender }),
            None => Err(Error::System {
                action: "understanding the container's process",
                source: std::io::ErrorKind::InvalidData.into(),
            }),
        };
    }
}

fn died(child: &mut Child) -> StepError {
    let status = match child.pidfd().map(|fd| waitid(WaitId::PidFd(fd), WaitIdOptions::EXITED)) {
        Ok(Ok(Some(status))) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "unknown status".into(),
        },
        _ => "unknown status".into(),
    };
    child.pidfd = None;
    StepError::Died { status }
}

/// A fault of the child in the words of the plan.
fn failure(
    plan: &Plan,
    given: &Given<'_>,
    index: usize,
    fault: dhow_init::Fault,
    wrap: fn(StepError) -> Error,
) -> Error {
    let Some((step, origin)) = plan.step(index) else {
        return wrap(StepError::Step {
            what: format!("step {index}"),
            origin: String::new(),
            operation: operation(fault.op),
            errno: fault.errno,
        });
    };
    let text = origin_text(origin);
    let error = match (step, fault.op) {
        (Step::FindExecutable { name, .. }, Op::NotInPath) if fault.errno == libc::ENOENT => {
            StepError::NotInPath { name: plan.str(*name).into_owned() }
        }
        (Step::FindExecutable { name, .. }, Op::OwnBinary) => {
            StepError::OwnBinary { name: plan.str(*name).into_owned() }
        }
        (Step::FindExecutable { name, .. }, _) => {
            StepError::Program { name: plan.str(*name).into_owned(), errno: fault.errno }
        }
        (Step::Exec { argv, .. }, _) => {
            let name = match plan.vectors.get(argv.0 as usize) {
                Some(VectorItem::Text(name)) => plan.str(*name).into_owned(),
                _ => String::new(),
            };
            StepError::Program { name, errno: fault.errno }
        }
        (_, Op::CwdOutside) => StepError::CwdOutside { origin: text },
        (Step::Hook { path, .. }, _) => StepError::Hook {
            origin: text,
            path: plan.str(*path).into_owned(),
            how: hook_failure(fault),
            output: given.hook_output.map_or_else(String::new, tail),
        },
        _ => StepError::Step {
            what: plan.describe(step),
            origin: text,
            operation: operation(fault.op),
            errno: fault.errno,
        },
    };
    wrap(error)
}

/// How a hook of the container's namespaces failed.
pub(crate) fn hook_failure(fault: dhow_init::Fault) -> String {
    match fault.op {
        Op::HookStatus => crate::hooks::status_text(fault.argument as i32),
        Op::HookTimeout => format!("took longer than {} ms", fault.argument),
        other => format!("could not be run: {}: errno {}", operation(other), fault.errno),
    }
}

/// `mount 4 of 13`-like numbering is in the pointer: `/mounts/3`.
fn origin_text(origin: Origin) -> String {
    origin.to_string()
}

/// The name of a system call, or what a check found.
fn operation(op: Op) -> String {
    match op {
        Op::TargetOnProc => "the target is on procfs, and only a few of its files may be covered".into(),
        Op::NotADirectory => "it must be mounted on ordinary directory, not through a link".into(),
        Op::NotNullDevice => "the host's /dev/null is not the device 1:3".into(),
        Op::NotDevpts => {
            "the container's /dev/pts/ptmx is not a terminal multiplexer: mount a devpts at /dev/pts".into()
        }
        Op::NotProcfs => "not a procfs".into(),
        Op::PathTooLong => "the path is too long".into(),
        Op::TooManyLinks => "too many symbolic links".into(),
        Op::ParentGone => "the runtime is gone".into(),
        Op::WrongDevice => "something else is there already".into(),
        Op::FsconfigParameter => "fsconfig (a parameter the filesystem refuses)".into(),
        other => format!("{other:?}").chars().fold(String::new(), |mut out, c| {
            if c.is_ascii_uppercase() && !out.is_empty() {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
            out
        }),
    }
}

fn ignored_in_status() -> Option<u64> {
    let fd = open("/proc/self/status", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut buffer = [0u8; 4096];
    let length = rustix::io::read(&fd, &mut buffer).ok()?;
    let status = &buffer[..length];
    let key = b"SigIgn:\t";
    let at = status.windows(key.len()).position(|w| w == key)? + key.len();
    u64::from_str_radix(std::str::from_utf8(status.get(at..at + 16)?).ok()?, 16).ok()
}

/// The last bytes of what hooks printed.
pub(crate) fn tail(output: BorrowedFd<'_>) -> String {
    const MOST_BYTES: u64 = 2048;
    let Ok(copy) = output.try_clone_to_owned() else { return String::new() };
    let mut file = std::fs::File::from(copy);
    let Ok(end) = file.seek(SeekFrom::End(0)) else { return String::new() };
    if file.seek(SeekFrom::Start(end.saturating_sub(MOST_BYTES))).is_err() {
        return String::new();
    }
    let mut bytes = Vec::new();
    match file.read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// The signals this process ignores, which the child would inherit through execve.
fn ignored_signals() -> u64 {
    // Without /proc nothing is known; then everything is reset.
    ignored_in_status().unwrap_or(u64::MAX)
}
