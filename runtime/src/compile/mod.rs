//! From config.json to a plan: pure, complete, before any side effect.
//!
//! `compile` makes no privileged call and no write. It collects every mistake with its JSON pointer instead of
//! stopping at the first, and it is tested without root against the plans it makes.
//!
//! The order of a container's steps is the contract between the files of this module:
//! namespaces and identity, root and mounts, devices, hooks of the runtime namespace, terminal, masks,
//! pivot_root, names and sysctls, limits and scheduling, user and capabilities, the program, `Ready`,
//! the filter, the gate, execve.

mod devices;
mod mounts;
mod namespaces;
mod process;
mod rootfs;

use crate::cgroup::Layout;
use crate::error::Mistake;
use crate::plan::{Origin, Plan};
use dhow_init::Step;
use oci_spec::runtime::{Hook, LinuxNamespaceType, Mount, Spec};
use std::path::{Path, PathBuf};

pub use process::ProcessOptions;

/// What this host is and can do, as far as plans depend on it.
pub struct Host {
    /// The cgroup mounts; not looked for where no plan needs them (exec).
    pub cgroups: Option<Layout>,
    /// Whether the caller is root of the initial user namespace: then mounts for a container with a user
    /// namespace are prepared by the parent.
    pub privileged: bool,
    /// Whether the caller lives in another user namespace than the initial one: then it may not make device nodes.
    pub in_user_namespace: bool,
    /// The capabilities that the caller can give: its permitted set. A new user namespace has all.
    pub permitted: u64,
    /// Whether SELinux is enabled.
    pub selinux: bool,
    /// Whether AppArmor is enabled.
    pub apparmor: bool,
}

/// What the caller wants besides the config.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The container's id.
    pub id: String,
    /// Wait for `start` before execve.
    pub gate: bool,
    /// The caller gave a console socket.
    pub console_socket: bool,
    /// Move the root over `/` instead of pivot_root.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors from 3 on the container gets.
    pub preserve_fds: u32,
    /// How many of them are sockets in the sense of sd_listen_fds(3).
    pub listen_fds: u32,
    /// The child starts in its cgroup by `CLONE_INTO_CGROUP`; otherwise the parent attaches it.
    pub starts_in_cgroup: bool,
    /// The container's own cgroup directories on the host: hierarchy's mount point and the directory below.
    pub cgroup_dirs: Vec<(PathBuf, PathBuf)>,
    /// The caller gives other streams than 0, 1 and 2.
    pub streams: bool,
    /// `NOTIFY_SOCKET` as the container sees it.
    pub notify_socket: Option<String>,
}

/// What compile works with.
pub(crate) struct Context<'a> {
    pub spec: &'a Spec,
    pub bundle: &'a Path,
    pub host: &'a Host,
    pub options: &'a Options,
    pub plan: Plan,
    pub mistakes: Vec<Mistake>,
    /// Namespaces of the container: kind, and whether it is new (not joined).
    pub namespaces: namespaces::Namespaces,
    /// Whether the step that waits for the cgroup and enters its namespace has been placed.
    pub cgroup_entered: bool,
    /// Host paths are cloned by the parent, whatever the namespaces.
    pub from_parent: bool,
}

impl Context<'_> {
    pub(crate) fn push(&mut self, step: Step, origin: Origin) {
        self.plan.push(step, origin);
    }

    pub(crate) fn mistake(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        self.mistakes.push(Mistake::new(pointer, message));
    }

    /// Whether the child may make itself undumpable: its files in /proc then belong to root, and a caller without
    /// privileges could not write the id maps any more.
    pub(crate) fn may_hide(&self) -> bool {
        !self.namespaces.contains(LinuxNamespaceType::User) || self.host.privileged
    }

    /// The container is in its cgroup, and in a cgroup namespace if it gets one, from here on. Placed as late
    /// as the plan allows: on v1 the parent's attach takes milliseconds that the child spends on mounts.
    pub(crate) fn enter_cgroup(&mut self) {
        if std::mem::replace(&mut self.cgroup_entered, true) {
            return;
        }
        if !self.namespaces.is_new(LinuxNamespaceType::Cgroup) {
            return;
        }
        let origin = Origin::Field("/linux/namespaces");
        if !self.options.starts_in_cgroup {
            self.push(Step::AwaitCgroup, Origin::Field("/linux/cgroupsPath"));
        }
        self.push(Step::UnshareCgroup, origin);
    }
}

/// Compiles the plan of a container.
///
/// # Errors
/// Every mistake found in the config.
pub fn compile(spec: &Spec, bundle: &Path, host: &Host, options: &Options) -> Result<Plan, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let namespaces = namespaces::Namespaces::read(spec, &mut mistakes);
    let mut cx = Context {
        spec,
        bundle,
        host,
        options,
        plan: Plan::new(),
        mistakes,
        namespaces,
        cgroup_entered: false,
        from_parent: false,
    };
    namespaces::compile(&mut cx);
    rootfs::open(&mut cx);
    if cx.namespaces.contains(LinuxNamespaceType::Mount) {
        let late = mounts::compile(&mut cx);
        devices::compile(&mut cx);
        rootfs::finish(&mut cx, late);
    } else {
        cx.enter_cgroup();
        host_hooks(&mut cx);
        container_hooks(&mut cx);
        process::terminal(&mut cx);
        cx.push(Step::Chroot, Origin::Field("/linux/namespaces"));
    }
    namespaces::names(&mut cx);
    process::compile(&mut cx);
    if cx.mistakes.is_empty() { Ok(cx.plan) } else { Err(cx.mistakes) }
}

/// Compiles the plan of a process that joins a running container.
///
/// # Errors
/// Every mistake found in the process's description.
pub fn compile_exec(
    spec: &Spec,
    bundle: &Path,
    host: &Host,
    options: &Options,
    exec: &ProcessOptions,
) -> Result<Plan, Vec<Mistake>> {
    let namespaces = namespaces::Namespaces::read(spec, &mut Vec::new());
    let mut cx = Context {
        spec,
        bundle,
        host,
        options,
        plan: Plan::new(),
        mistakes: Vec::new(),
        namespaces,
        cgroup_entered: true,
        from_parent: false,
    };
    process::compile_exec(&mut cx, exec);
    if cx.mistakes.is_empty() { Ok(cx.plan) } else { Err(cx.mistakes) }
}

/// A change to the mounts of a running container.
#[derive(Clone, Copy, Debug)]
pub enum MountChange<'a> {
    /// As an entry of `mounts` in config.json.
    Add(&'a Mount),
    /// What is mounted at this path of the container.
    Remove(&'a Path),
}

/// Compiles a change to the mounts of a running container.
///
/// # Errors
/// Every mistake found in the mount.
pub fn compile_mount(
    spec: &Spec,
    bundle: &Path,
    host: &Host,
    change: &MountChange<'_>,
) -> Result<Plan, Vec<Mistake>> {
    let options = Options::default();
    let namespaces = namespaces::Namespaces::read(spec, &mut Vec::new());
    let mut cx = Context {
        spec,
        bundle,
        host,
        options: &options,
        plan: Plan::new(),
        mistakes: Vec::new(),
        namespaces,
        cgroup_entered: true,
        from_parent: false,
    };
    if !cx.namespaces.contains(LinuxNamespaceType::Mount) {
        cx.mistake("", "the container has no mount namespace of its own: its mounts are the host's");
    }
    mounts::compile_change(&mut cx, change);
    if cx.mistakes.is_empty() { Ok(cx.plan) } else { Err(cx.mistakes) }
}

/// prestart and createRuntime: the parent runs them while the child waits.
pub(crate) fn host_hooks(cx: &mut Context<'_>) {
    let wanted = |list: &Option<Vec<Hook>>| list.as_ref().is_some_and(|l| !l.is_empty());
    let Some(hooks) = cx.spec.hooks() else { return };
    #[allow(deprecated)] // the specification still has them
    // Hooks in the container wait for the parent as well: it writes the state that they read.
    if wanted(hooks.prestart()) || wanted(hooks.create_runtime()) || wanted(hooks.create_container()) {
        cx.push(Step::HostHooks, Origin::Field("/hooks"));
    }
}

/// createContainer: in the container's namespaces, paths of the runtime's.
pub(crate) fn container_hooks(cx: &mut Context<'_>) {
    let Some(hooks) = cx.spec.hooks() else { return };
    if let Some(list) = hooks.create_container() {
        push_hooks(cx, list, "/hooks/createContainer", "creating", None);
    }
}

/// `environment` is that of hooks without one.
pub(crate) fn push_hooks(
    cx: &mut Context<'_>,
    list: &[Hook],
    pointer: &'static str,
    status: &'static str,
    environment: Option<dhow_init::VectorRef>,
) {
    use crate::plan::Descriptor;
    for (index, hook) in list.iter().enumerate() {
        let args = match hook.args() {
            Some(args) if !args.is_empty() => args.clone(),
            _ => vec![hook.path().display().to_string()],
        };
        let path = cx.plan.text(hook.path().as_os_str().as_encoded_bytes());
        let argv = cx.plan.vector(args);
        let envp = match (hook.env(), environment) {
            (None, Some(environment)) => environment,
            (own, _) => cx.plan.vector(own.as_deref().unwrap_or(&[])),
        };
        let state = cx.plan.descriptor(Descriptor::HookState(status));
        let output = cx.plan.descriptor(Descriptor::HookOutput);
        let timeout_ms =
            hook.timeout().and_then(|s| u32::try_from(s).ok()).map_or(0, |s| s.saturating_mul(1000));
        // As with runc: createContainer in the root directory, startContainer in the process's.
        let in_root = status == "creating";
        let step = Step::Hook { path, argv, envp, timeout_ms, state, output, in_root };
        cx.push(step, Origin::Element(pointer, index as u32));
    }
}

/// A path as the container sees it, without its leading slash, `.` and `..` taken out as text. Links are the
/// kernel's business; `..` of a path in config.json means the text.
pub(crate) fn relative(path: &Path) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.as_os_str().as_encoded_bytes().split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests;
