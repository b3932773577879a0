//! The container's process: terminal, limits, scheduling, user, capabilities, seccomp, the program itself.

use super::{Context, push_hooks};
use crate::plan::{Descriptor, Origin};
use crate::seccomp;
use dhow_init::{List, Step};
use oci_spec::runtime::{
    Capabilities, IOPriorityClass, LinuxNamespaceType as Type, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, PosixRlimitType, Process,
};

/// Where programs are looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
const NEW_LISTENER: u32 = 1 << 3;

/// What exec needs besides the container's config.
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// The process to start.
    pub process: Process,
    /// Whether a console socket was given.
    pub console_socket: bool,
}

/// The kernel's CPU and node lists (`0-3,7`) as a mask of 64-bit words.
fn cpu_list(text: &str) -> Option<Vec<u64>> {
    let ranges = crate::config::parse_list(text, 8192)?;
    let mut mask: Vec<u64> = Vec::new();
    for (first, last) in ranges {
        let (first, last) = (first as usize, last as usize);
        if mask.len() <= last / 64 {
            mask.resize(last / 64 + 1, 0);
        }
        for n in first..=last {
            mask[n / 64] |= 1 << (n % 64);
        }
    }
    Some(mask)
}

fn set_of(capabilities: &Option<Capabilities>) -> u64 {
    capabilities.iter().flatten().fold(0, |set, capability| {
        let name = capability.to_string();
        let name = if name.starts_with("CAP_") { name } else { format!("CAP_{name}") };
        set | name.parse::<caps::Capability>().map_or(0, |known| 1 << known.index())
    })
}

fn wants_terminal(process: &Process) -> bool {
    process.terminal().unwrap_or(false)
}

fn terminal_step(cx: &mut Context<'_>, process: &Process, console: bool, socket: bool) {
    let socket = socket.then(|| cx.plan.descriptor(Descriptor::ConsoleSocket));
    let size = process.console_size().map(|size| (size.height() as u16, size.width() as u16));
    let uid = process.user().uid();
    cx.push(Step::Terminal { socket, size, console, uid }, Origin::Field("/process/terminal"));
}

/// The container's terminal: of its own devpts, so after the mounts.
pub(crate) fn terminal(cx: &mut Context<'_>) {
    let Some(process) = cx.spec.process() else { return };
    if wants_terminal(process) {
        terminal_step(cx, process, cx.namespaces.contains(Type::Mount), cx.options.console_socket);
    }
}

/// Whether a step writes to procfs.
pub(crate) fn needs_proc(cx: &Context<'_>) -> bool {
    let sysctls = cx.spec.linux().as_ref().and_then(|l| l.sysctl().as_ref()).is_some_and(|s| !s.is_empty());
    sysctls || cx.spec.process().as_ref().is_some_and(has_label)
}

fn has_label(process: &Process) -> bool {
    let set = |label: &Option<String>| label.as_ref().is_some_and(|l| !l.is_empty());
    set(process.apparmor_profile()) || set(process.selinux_label())
}

fn labels(cx: &mut Context<'_>, process: &Process) {
    if let Some(profile) = process.apparmor_profile().as_ref().filter(|p| !p.is_empty()) {
        if !cx.host.apparmor {
            let message =
                format!("AppArmor is not enabled on this host, so profile {profile:?} cannot be applied");
            cx.mistake("/process/apparmorProfile", message);
        }
        let path = cx.plan.text("thread-self/attr/apparmor/exec");
        let value = cx.plan.text(format!("exec {profile}"));
        cx.push(Step::WriteProc { path, value }, Origin::Field("/process/apparmorProfile"));
    }
    if let Some(label) = process.selinux_label().as_ref().filter(|l| !l.is_empty()) {
        if !cx.host.selinux {
            let message =
                format!("SELinux is not enabled on this host, so label {label:?} cannot be applied");
            cx.mistake("/process/selinuxLabel", message);
        }
        let path = cx.plan.text("thread-self/attr/exec");
        let value = cx.plan.text(label);
        cx.push(Step::WriteProc { path, value }, Origin::Field("/process/selinuxLabel"));
    }
}

/// The steps after pivot_root.
pub(crate) fn compile(cx: &mut Context<'_>) {
    let spec = cx.spec;
    let Some(process) = spec.process() else {
        cx.mistake("/process", "is missing: there is nothing to start");
        return;
    };
    execution_domain(cx);
    before_user(cx, process);
    user_and_program(cx, process, true);
}

/// Personality and memory policy: the container's, also for what is executed in it later.
fn execution_domain(cx: &mut Context<'_>) {
    let spec = cx.spec;
    let linux = spec.linux().as_ref();
    if let Some(personality) = linux.and_then(|l| l.personality().as_ref()) {
        let persona = match personality.domain() {
            LinuxPersonalityDomain::PerLinux32 => 0x0008,
            LinuxPersonalityDomain::PerLinux => 0x0000,
        };
        cx.push(Step::Personality { persona }, Origin::Field("/linux/personality"));
    }
    if let Some(policy) = linux.and_then(|l| l.memory_policy().as_ref()) {
        let mode = match policy.mode() {
            MemoryPolicyModeType::MpolDefault => 0,
            MemoryPolicyModeType::MpolPreferred => 1,
            MemoryPolicyModeType::MpolBind => 2,
            MemoryPolicyModeType::MpolInterleave => 3,
            MemoryPolicyModeType::MpolLocal => 4,
            MemoryPolicyModeType::MpolPreferredMany => 5,
            MemoryPolicyModeType::MpolWeightedInterleave => 6,
        };
        let flags = policy.flags().iter().flatten().fold(0, |flags, flag| {
            flags
                | match flag {
                    MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
                    MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                    MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                }
        });
        match policy.nodes().as_deref().map_or(Some(Vec::new()), cpu_list) {
            Some(nodes) => {
                let nodes = cx.plan.words(nodes);
                let step = Step::MemoryPolicy { mode: mode | flags, nodes };
                cx.push(step, Origin::Field("/linux/memoryPolicy"));
            }
            None => cx.mistake("/linux/memoryPolicy/nodes", "is not a list of nodes such as `0-1,3`"),
        }
    }
}

/// exec: join the container, then what a container's process gets.
pub(crate) fn compile_exec(cx: &mut Context<'_>, exec: &ProcessOptions) {
    let process = &exec.process;
    let origin = Origin::Always("the container's namespaces");
    let flags = cx.namespaces.all_flags();
    let join = cx.plan.descriptor(Descriptor::InitPidfd);
    if let Some(adjustment) = process.oom_score_adj() {
        // Before it stops being dumpable: then the file belongs to root alone.
        let value = cx.plan.text(adjustment.to_string());
        cx.plan.push_outer(Step::OomScore { value }, Origin::Field("/process/oomScoreAdj"));
    }
    cx.plan.push_outer(Step::NotDumpable, origin);
    let affinity = process.exec_cpu_affinity().as_ref();
    let initial = affinity.and_then(|a| a.initial().as_deref()).and_then(|list| cpus(cx, list, "initial"));
    let last =
        affinity.and_then(|a| a.cpu_affinity_final().as_deref()).and_then(|list| cpus(cx, list, "final"));
    if let Some(cpus) = initial {
        cx.plan.push_outer(Step::CpuAffinity { cpus }, Origin::Field("/process/execCPUAffinity/initial"));
    }
    if flags != 0 {
        cx.plan.push_outer(Step::Join { fd: join, flags, later: false }, origin);
    }
    if let Some(cpus) = last {
        // Joining a cpuset would change it again.
        cx.push(Step::AwaitCgroup, origin);
        cx.push(Step::CpuAffinity { cpus }, Origin::Field("/process/execCPUAffinity/final"));
    }
    if cx.namespaces.contains(Type::User) {
        cx.push(Step::BecomeRoot, origin);
    }
    if cx.options.streams {
        let [stdin, stdout, stderr] = [0, 1, 2].map(|n| cx.plan.descriptor(Descriptor::Stream(n)));
        cx.push(Step::Streams { stdin, stdout, stderr }, Origin::Always("standard streams"));
    }
    cx.push(Step::NewSession, Origin::Always("session"));
    if !cx.options.no_new_keyring {
        let name = cx.plan.text(format!("_ses.{}", cx.options.id));
        cx.push(Step::SessionKeyring { name }, Origin::Always("session keyring"));
    }
    if wants_terminal(process) {
        terminal_step(cx, process, false, exec.console_socket);
    }
    if has_label(process) {
        cx.push(Step::PrivateProc, Origin::Always("procfs"));
    }
    execution_domain(cx);
    before_user(cx, process);
    user_and_program(cx, process, false);
}

fn cpus(cx: &mut Context<'_>, list: &str, member: &str) -> Option<List> {
    match cpu_list(list).filter(|mask| !mask.is_empty()) {
        Some(mask) => Some(cx.plan.words(mask)),
        None => {
            cx.mistake(format!("/process/execCPUAffinity/{member}"), "is not a list of CPUs such as `0-3,7`");
            None
        }
    }
}

/// Limits, scheduling and labels: what needs the privileges of root.
fn before_user(cx: &mut Context<'_>, process: &Process) {
    if !wants_terminal(process) {
        cx.push(Step::NullStreams, Origin::Always("standard streams"));
    }
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let origin = Origin::Element("/process/rlimits", index as u32);
        let step =
            Step::Rlimit { resource: rlimit_number(limit.typ()), soft: limit.soft(), hard: limit.hard() };
        cx.push(step, origin);
    }
    if let Some(scheduler) = process.scheduler() {
        let policy = match scheduler.policy() {
            LinuxSchedulerPolicy::SchedOther => 0,
            LinuxSchedulerPolicy::SchedFifo => 1,
            LinuxSchedulerPolicy::SchedRr => 2,
            LinuxSchedulerPolicy::SchedBatch => 3,
            LinuxSchedulerPolicy::SchedIso => 4,
            LinuxSchedulerPolicy::SchedIdle => 5,
            LinuxSchedulerPolicy::SchedDeadline => 6,
        };
        let flags = scheduler.flags().iter().flatten().fold(0, |flags, flag| {
            flags
                | match flag {
                    LinuxSchedulerFlag::SchedResetOnFork => 0x01,
                    LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
                    LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
                    LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
                    LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
                    LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
                    LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
                }
        });
        let step = Step::Scheduler {
            policy,
            flags,
            nice: scheduler.nice().unwrap_or(0),
            priority: scheduler.priority().unwrap_or(0) as u32,
            runtime_ns: scheduler.runtime().unwrap_or(0),
            deadline_ns: scheduler.deadline().unwrap_or(0),
            period_ns: scheduler.period().unwrap_or(0),
        };
        cx.push(step, Origin::Field("/process/scheduler"));
    }
    if let Some(io) = process.io_priority() {
        let class = match io.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let value = class << 13 | io.priority() as u32;
        cx.push(Step::IoPriority { value }, Origin::Field("/process/ioPriority"));
    }
    labels(cx, process);
}

/// Everything from the user on. The program is looked for as the container's user, in the container's root;
/// `Ready` comes when nothing but the filter and the gate is left that could fail.
fn user_and_program(cx: &mut Context<'_>, process: &Process, container: bool) {
    let spec = cx.spec;
    let user = process.user();
    let (uid, gid) = (user.uid(), user.gid());
    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    let field = Origin::Field;

    let args = process.args().as_deref().unwrap_or(&[]);
    let Some(program) = args.first().filter(|name| !name.is_empty()) else {
        cx.mistake("/process/args", "is empty: the first element is the program to start");
        return;
    };
    let env = process.env().as_deref().unwrap_or(&[]);
    let lookup = |key: &str| env.iter().rev().find_map(|e| e.strip_prefix(key)?.strip_prefix('='));

    if !wants_terminal(process) && (uid != 0 || cx.namespaces.contains(Type::User)) {
        cx.push(Step::OwnStreams { uid }, field("/process/user"));
    }
    cx.push(Step::Umask { mask: user.umask().unwrap_or(0o022) }, field("/process/user/umask"));
    if no_new_privileges {
        cx.push(Step::NoNewPrivileges, field("/process/noNewPrivileges"));
    }
    let sets = process.capabilities().as_ref();
    let [bounding, effective, permitted, inheritable, ambient] = sets.map_or([0; 5], |c| {
        [c.bounding(), c.effective(), c.permitted(), c.inheritable(), c.ambient()].map(set_of)
    });
    // What the caller does not have cannot be given: it is left out, as the specification asks.
    let mask = if cx.namespaces.contains(Type::User) { u64::MAX } else { cx.host.permitted };
    let [effective, permitted, inheritable] = [effective, permitted, inheritable].map(|set| set & mask);
    // The kernel raises what is permitted and inheritable, and nothing else.
    let ambient = ambient & permitted & inheritable;
    cx.push(Step::BoundingSet { keep: bounding }, field("/process/capabilities/bounding"));
    let cwd = if process.cwd().as_os_str().is_empty() { "/".as_ref() } else { process.cwd().as_path() };
    let path = cx.plan.text(cwd.as_os_str().as_encoded_bytes());
    cx.push(Step::Chdir { path }, field("/process/cwd"));
    let groups = match user.additional_gids() {
        Some(groups) => cx.plan.words(groups.iter().map(|&g| u64::from(g))),
        None => List::EMPTY,
    };
    let may_be_denied = cx.namespaces.contains(Type::User);
    cx.push(Step::SetUser { uid, gid, groups, may_be_denied }, field("/process/user"));
    cx.push(Step::ChdirAsUser { path }, field("/process/cwd"));
    let name = cx.plan.text(program);
    let search = cx.plan.text(lookup("PATH").unwrap_or(DEFAULT_PATH));
    cx.push(Step::FindExecutable { name, path: search }, field("/process/args"));
    let needs_home = lookup("HOME").is_none_or(str::is_empty);
    if needs_home {
        cx.push(Step::Home { uid }, field("/process/user"));
    }
    let set_caps = Step::Capabilities { effective, permitted, inheritable, ambient };
    let preserve = cx.options.preserve_fds + cx.options.listen_fds;
    let filter = seccomp_step(cx);
    let listener = matches!(filter, Some(Step::Seccomp { notify: true, .. }));
    // A filter needs no privilege with no_new_privs, and CAP_SYS_ADMIN without: so it is loaded after or before
    // the capabilities go. Either way as few calls as possible come after it: read (gate), capset, execve.
    if no_new_privileges || filter.is_none() {
        cx.push(set_caps, field("/process/capabilities"));
    } else if uid != 0 {
        cx.push(Step::RaiseEffective, field("/linux/seccomp"));
    }
    if container && cx.options.gate && cx.may_hide() && !cx.namespaces.shows_the_child() {
        // It may wait at the gate for long, and exec puts others beside it.
        cx.push(Step::NotDumpable, Origin::Always("start"));
    }
    cx.push(Step::CloseDescriptors { preserve }, Origin::Always("descriptors"));
    if !listener {
        cx.push(Step::Ready, Origin::Always("handshake"));
    }
    if let Some(filter) = filter {
        cx.push(filter, field("/linux/seccomp"));
        if !no_new_privileges {
            cx.push(set_caps, field("/process/capabilities"));
        }
    }
    if listener {
        cx.push(Step::Ready, Origin::Always("handshake"));
    }
    if cx.options.gate {
        let fd = cx.plan.descriptor(Descriptor::Gate);
        cx.push(Step::Gate { fd }, Origin::Always("start"));
    }
    let argv = cx.plan.vector(args);
    // Of a name that stands twice the last one counts; a C library would take the first. The caller's come after
    // these.
    let mut environment: Vec<String> = Vec::with_capacity(env.len() + 3);
    let mut names = std::collections::BTreeSet::new();
    if cx.options.listen_fds > 0 {
        names.extend(["LISTEN_FDS", "LISTEN_PID"]);
    }
    if cx.options.notify_socket.is_some() {
        names.insert("NOTIFY_SOCKET");
    }
    for entry in env.iter().rev() {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        // An empty HOME is as good as none.
        if names.insert(name) && !(needs_home && name == "HOME") {
            environment.push(entry.clone());
        }
    }
    environment.reverse();
    if cx.options.listen_fds > 0 {
        environment.push(format!("LISTEN_FDS={}", cx.options.listen_fds));
        environment.push("LISTEN_PID=1".into());
    }
    if let Some(socket) = &cx.options.notify_socket {
        environment.push(format!("NOTIFY_SOCKET={socket}"));
    }
    let envp = if needs_home { cx.plan.vector_with_home(environment) } else { cx.plan.vector(environment) };
    if container {
        // As in runc, a hook inside without an environment of its own has the program's.
        if let Some(list) = spec.hooks().as_ref().and_then(|h| h.start_container().as_ref()) {
            push_hooks(cx, list, "/hooks/startContainer", "created", Some(envp));
        }
    }
    cx.push(Step::Exec { argv, envp }, field("/process/args"));
}

fn seccomp_step(cx: &mut Context<'_>) -> Option<Step> {
    let profile = cx.spec.linux().as_ref()?.seccomp().as_ref()?;
    match seccomp::compile(profile, seccomp::Arch::native()) {
        Ok(compiled) => {
            let program = compiled.program;
            if program.instructions.is_empty() {
                return None;
            }
            cx.plan.filter = program.instructions.iter().map(|i| i.to_bits()).collect();
            let listener = if program.notify { NEW_LISTENER } else { 0 };
            Some(Step::Seccomp { flags: program.flags | listener, notify: program.notify })
        }
        Err(mistakes) => {
            cx.mistakes.extend(mistakes);
            None
        }
    }
}

#[allow(clippy::unnecessary_cast)] // the type differs between C libraries
fn rlimit_number(kind: PosixRlimitType) -> u32 {
    (match kind {
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
    }) as u32
}
