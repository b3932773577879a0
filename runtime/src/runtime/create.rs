//! create, run and start.

use super::{CreateOptions, Running, Runtime, cgroup_error, state_json};
use crate::cgroup::{Cgroup, Driver, Layout, Limits, Location, UnitProperties, Version};
use crate::compile::{self, Host};
use crate::config::Bundle;
use crate::error::{Error, Mistake, StepError};
use crate::hooks;
use crate::launch::{Given, Launched, Parent, hook_failure, launch};
use crate::plan::Plan;
use crate::rdt::Resctrl;
use crate::state::{ContainerDir, Record, hear_gate, is_alive, start_time_ticks};
use crate::{clock, idmap, netdev, notify, sys};
use oci_spec::runtime::{LinuxIdMapping, Spec};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Everything that is known before anything is made.
pub(super) struct Prepared {
    pub(super) bundle: Bundle,
    pub(super) location: Option<Location>,
    pub(super) limits: Limits,
    plan: Plan,
    starts_in_cgroup: bool,
    unit: UnitProperties,
}

impl Runtime {
    /// What `create` would do, or `run` if it does not wait for `start`: in words, without doing any of it.
    ///
    /// # Errors
    /// Those of a config that cannot be used.
    pub fn plan(&self, id: &str, options: &CreateOptions, waits: bool) -> Result<String, Error> {
        crate::state::check_id(id)?;
        let prepared = self.prepare(id, options, waits)?;
        Ok(prepared.plan.to_string())
    }

    /// Sets a container up to the point before its program: `start` lets it go on.
    ///
    /// # Errors
    /// Any; then nothing is left of the container.
    pub fn create(&self, id: &str, options: &CreateOptions) -> Result<Running, Error> {
        self.make(id, options, true)
    }

    /// create and start in one, without the gate: an execve that fails is an error of `run`.
    ///
    /// # Errors
    /// As [`Runtime::create`], and a poststart hook's.
    pub fn run(&self, id: &str, options: &CreateOptions) -> Result<Running, Error> {
        self.make(id, options, false)
    }

    /// Reads the bundle and finds everything that is wrong with it, before anything is made.
    pub(super) fn prepare(&self, id: &str, options: &CreateOptions, gate: bool) -> Result<Prepared, Error> {
        let mut bundle = Bundle::load(&options.bundle).map_err(Error::Bundle)?;
        let wants_size = wants_terminal(&bundle.config.spec);
        let size = options.console_size.filter(|_| wants_size).and_then(|ask| ask());
        if let (Some((rows, columns)), Some(process)) = (size, bundle.config.spec.process_mut().as_mut()) {
            // Set before the program runs, which may ask for it at once.
            let size = oci_spec::runtime::BoxBuilder::default().height(rows).width(columns).build();
            process.set_console_size(size.ok());
        }
        if options.notify_socket.is_some() {
            add_notify_mount(&mut bundle.config.spec, &self.root.join(id).join(notify::DIRECTORY));
        }
        let spec = &bundle.config.spec;
        let host = self.host(spec, None, true)?;
        let layout = host.cgroups.as_ref();
        let resources = spec.linux().as_ref().and_then(|l| l.resources().as_ref());
        let mut mistakes = Vec::new();
        let limits = match Limits::compile(resources, layout.map_or(Version::V2, Layout::version)) {
            Ok(limits) => Some(limits),
            Err(found) => {
                mistakes.extend(found);
                None
            }
        };
        mistakes.extend(host_sysctls(spec));
        mistakes.extend(unprivileged(spec));
        let location = layout.map(|layout| self.location(id, spec, &host, layout)).transpose()?.flatten();
        if let (Some(limits), Some(location)) = (&limits, &location) {
            mistakes.extend(limits.unavailable(location));
        }
        let unit = match UnitProperties::parse(annotations(spec)) {
            Ok(unit) => unit,
            Err(found) => {
                mistakes.extend(found);
                UnitProperties::default()
            }
        };
        // A systemd unit begins with its first process, so nothing can be cloned into it.
        let starts_in_cgroup =
            location.as_ref().is_some_and(|l| l.version() == Version::V2 && l.driver() == Driver::Cgroupfs);
        let mut choices = compile::Options {
            id: id.to_owned(),
            gate,
            console_socket: options.terminal_socket.is_some(),
            no_pivot: options.no_pivot,
            no_new_keyring: options.no_new_keyring,
            preserve_fds: options.preserve_fds,
            listen_fds: options.listen_fds,
            starts_in_cgroup,
            cgroup_dirs: Vec::new(),
            streams: false,
            notify_socket: options.notify_socket.is_some().then(|| notify::ADDRESS.to_owned()),
        };
        if let Some(location) = &location {
            choices.cgroup_dirs = location
                .mounts()
                .map(|(mount, dir)| (mount.to_path_buf(), shown_directory(location, mount, dir)))
                .collect();
        }
        let plan = match compile::compile(spec, &bundle.dir, &host, &choices) {
            Ok(plan) => Some(plan),
            Err(found) => {
                mistakes.extend(found);
                None
            }
        };
        if options.terminal_socket.is_some() && !wants_terminal(spec) {
            return Err(Error::WrongStatus {
                message: "cannot use console socket if dhow-runtime will not detach or allocate tty: \
                          process.terminal is false in config.json"
                    .into(),
            });
        }
        if wants_terminal(spec) && options.terminal_socket.is_none() && !options.foreground {
            return Err(Error::WrongStatus {
                message: "cannot allocate tty if dhow-runtime will detach without setting console socket"
                    .into(),
            });
        }
        for mistake in mistakes {
            bundle.config.add(mistake);
        }
        match (limits, plan) {
            (Some(limits), Some(plan)) if bundle.config.mistakes.is_empty() => {
                Ok(Prepared { bundle, location, limits, plan, starts_in_cgroup, unit })
            }
            _ => {
                let mistakes = std::mem::take(&mut bundle.config.mistakes);
                Err(Error::Config { path: bundle.dir.join("config.json"), mistakes })
            }
        }
    }

    fn location(
        &self,
        id: &str,
        spec: &Spec,
        host: &Host,
        layout: &Layout,
    ) -> Result<Option<Location>, Error> {
        if self.no_cgroups {
            return Ok(None);
        }
        let path = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_ref());
        let path = path.map(|p| p.to_string_lossy().into_owned());
        let rootless =
            self.rootless.unwrap_or_else(|| !rustix::process::geteuid().is_root() || host.in_user_namespace);
        let location = Location::resolve(layout, path.as_deref(), id, self.driver(), rootless)
            .map_err(cgroup_error(id))?;
        Ok(Some(location))
    }

    fn make(&self, id: &str, options: &CreateOptions, gate: bool) -> Result<Running, Error> {
        crate::state::check_id(id)?;
        let prepared = self.prepare(id, options, gate)?;
        if is_seen_inside(&prepared.bundle.config.spec) {
            self.check_seal()?;
        }
        let console_socket = options
            .terminal_socket
            .as_deref()
            .map(|path| super::connect(path, "connecting to the console socket"))
            .transpose()?;
        let dir = ContainerDir::claim(&self.root, id)?;
        let made = Making { runtime: self, dir: &dir, prepared: &prepared, options, gate };
        let result = made.make(console_socket.as_ref().map(AsFd::as_fd));
        if result.is_err() {
            // What was made goes; the first error is the one that counts, and what cannot be removed now is found
            // by the next delete.
            self.undo(&dir).unwrap_or(());
        }
        result
    }

    /// Lets a created container go on to its program, then runs the poststart hooks. With the `NOTIFY_SOCKET` of the
    /// caller, if the container was created with one too, it then waits until the container is ready or has ended.
    ///
    /// # Errors
    /// [`Error::WrongStatus`] where it is not waiting; a startContainer or poststart hook that fails ends the
    /// container.
    pub fn start(&self, id: &str, notify_socket: Option<&Path>) -> Result<(), Error> {
        let (dir, record) = self.locked(id)?;
        let alive = is_alive(record.pid, record.start_time_ticks)?;
        if !alive {
            return Err(Error::WrongStatus { message: "cannot start a container that has stopped".into() });
        }
        if !dir.has_gate() {
            return Err(Error::WrongStatus { message: "cannot start an already running container".into() });
        }
        let notify = notify_socket.map(|path| dir.open_notify(path)).transpose()?.flatten();
        let pidfd = notify.as_ref().map(|_| super::delete::init_of(&record)).transpose()?.flatten();
        let listener = record
            .first_start_hook
            .map(|first| dir.listen_at_gate().map(|gate| (first, gate)))
            .transpose()?;
        if !dir.open_gate()? && !is_alive(record.pid, record.start_time_ticks)? {
            return Err(Error::WrongStatus { message: "cannot start a container that has stopped".into() });
        }
        // Either it goes on now, or an earlier start was killed between the byte and this line.
        dir.remove_gate()?;
        if let Some((first, gate)) = listener {
            if let Some((step, fault)) = hear_gate(&gate)? {
                return Err(failed_start(&super::kept_config(&dir)?, step.saturating_sub(first), fault));
            }
        }
        if record.has_poststart {
            let spec = super::kept_config(&dir)?;
            self.poststart(&record, &spec)?;
        }
        // Other verbs may work on it meanwhile.
        drop(dir);
        if let (Some(notify), Some(pidfd)) = (notify, pidfd) {
            let waited = notify.wait(record.pid, pidfd.as_fd());
            waited.map_err(|source| Error::System { action: "waiting for readiness", source })?;
        }
        Ok(())
    }

    /// A failing poststart hook fails the start: the container is ended.
    fn poststart(&self, record: &Record, spec: &Spec) -> Result<(), Error> {
        let Some(list) = spec.hooks().as_ref().and_then(|h| h.poststart().as_ref()) else { return Ok(()) };
        let state = state_json(record, "running", record.pid).to_string();
        let result = hooks::run(list, "/hooks/poststart", state.as_bytes(), &record.bundle);
        if result.is_err() {
            super::delete::init_of(record).and_then(|init| self.end(record, init)).unwrap_or(());
        }
        result
    }
}

/// What failed behind the gate: the startContainer hook with this index, or after the last of them the program.
fn failed_start(spec: &Spec, index: u32, fault: dhow_init::Fault) -> Error {
    let hooks = spec.hooks().as_ref().and_then(|h| h.start_container().as_deref()).unwrap_or(&[]);
    let Some(hook) = hooks.get(index as usize) else {
        let args = spec.process().as_ref().and_then(|p| p.args().as_deref()).unwrap_or(&[]);
        let name = args.first().cloned().unwrap_or_default();
        return Error::Start(StepError::Program { name, errno: fault.errno });
    };
    Error::Hook {
        pointer: format!("/hooks/startContainer/{index}"),
        path: hook.path().clone(),
        how: hook_failure(fault),
        output: String::new(),
    }
}

/// `net.*` sysctls change the network namespace that the container joins: that must not be the host's.
fn host_sysctls(spec: &Spec) -> Option<Mistake> {
    use oci_spec::runtime::LinuxNamespaceType::Network;
    let linux = spec.linux().as_ref()?;
    let name =
        linux.sysctl().as_ref()?.keys().find(|key| key.starts_with("net.") || key.starts_with("net/"))?;
    let network = linux.namespaces().as_ref()?.iter().find(|n| n.typ() == Network)?;
    let joined = rustix::fs::stat(network.path().as_ref()?).ok()?;
    let own = rustix::fs::stat("/proc/self/ns/net").ok()?;
    let same = (joined.st_dev, joined.st_ino) == (own.st_dev, own.st_ino);
    same.then(|| {
        let pointer = format!("/linux/sysctl/{}", name.replace('~', "~0").replace('/', "~1"));
        Mistake::new(pointer, "would change the host: the container joins the host's network namespace")
    })
}

/// The directory of a hierarchy that a container without a cgroup namespace sees: its own, or, where an ordinary user
/// may not make that, the nearest one above, which holds its processes.
fn shown_directory(location: &Location, mount: &Path, own: &Path) -> PathBuf {
    use rustix::fs::{Access, access};
    let may_make = |dir: &Path| access(dir, Access::WRITE_OK).is_ok();
    let mut above = own.ancestors().skip(1).take_while(|dir| dir.starts_with(mount));
    if !location.is_rootless() || own.exists() {
        return own.to_path_buf();
    }
    match above.find(|dir| dir.exists()) {
        Some(dir) if !may_make(dir) => dir.to_path_buf(),
        _ => own.to_path_buf(),
    }
}

fn annotations(spec: &Spec) -> impl Iterator<Item = (&str, &str)> {
    spec.annotations().iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()))
}

/// The host's id of the container's root where it has its own user and cgroup namespaces and a cgroup mount that it
/// may write to.
fn delegated_to(spec: &Spec) -> Option<u32> {
    use oci_spec::runtime::LinuxNamespaceType::{Cgroup, User};
    let linux = spec.linux().as_ref()?;
    let new = |kind| linux.namespaces().iter().flatten().any(|n| n.typ() == kind && n.path().is_none());
    let writable = spec.mounts().iter().flatten().any(|m| {
        matches!(m.typ().as_deref(), Some("cgroup" | "cgroup2"))
            && !m.options().iter().flatten().any(|o| o == "ro")
    });
    let root = linux.uid_mappings().iter().flatten().find(|m| m.container_id() == 0)?;
    (new(User) && new(Cgroup) && writable).then(|| root.host_id())
}

/// What an ordinary user's container cannot do without.
fn unprivileged(spec: &Spec) -> Option<Mistake> {
    use oci_spec::runtime::LinuxNamespaceType::User;
    if rustix::process::geteuid().is_root() {
        return None;
    }
    let namespaces = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    let has_user = namespaces.into_iter().flatten().any(|n| n.typ() == User);
    (!has_user).then(|| {
        Mistake::new(
            "/linux/namespaces",
            "has no user namespace, which the container of an ordinary user needs",
        )
    })
}

/// The directory of the container's notify socket: nothing there can be changed, and the socket be written to.
fn add_notify_mount(spec: &mut Spec, directory: &Path) {
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
    let mut mount = oci_spec::runtime::Mount::default();
    mount.set_destination(notify::MOUNT_POINT.into()).set_source(Some(directory.to_path_buf()));
    mount.set_typ(Some("bind".to_owned())).set_options(Some(options));
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
}

fn own_pid_namespace(spec: &Spec) -> bool {
    use oci_spec::runtime::LinuxNamespaceType::Pid;
    let namespaces = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|n| n.typ() == Pid && n.path().is_none())
}

/// Whether other processes of the container can look at the one that sets it up: it is in a pid namespace that others
/// are in, or hooks run beside it.
fn is_seen_inside(spec: &Spec) -> bool {
    use oci_spec::runtime::LinuxNamespaceType::Pid;
    let namespaces = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    let new = |path: &std::path::Path| path.as_os_str().is_empty();
    let own_pids = namespaces
        .is_some_and(|list| list.iter().any(|n| n.typ() == Pid && n.path().as_deref().is_none_or(new)));
    let has = |list: Option<&Vec<oci_spec::runtime::Hook>>| list.is_some_and(|l| !l.is_empty());
    let hooks = spec.hooks().as_ref();
    !own_pids
        || has(hooks.and_then(|h| h.create_container().as_ref()))
        || has(hooks.and_then(|h| h.start_container().as_ref()))
}

fn wants_terminal(spec: &Spec) -> bool {
    spec.process().as_ref().is_some_and(|p| p.terminal().unwrap_or(false))
}

impl Prepared {
    /// The root filesystem on the host.
    pub(super) fn rootfs(&self) -> PathBuf {
        let root = self.bundle.config.spec.root().as_ref();
        root.map(|root| self.bundle.dir.join(root.path())).unwrap_or_default()
    }

    /// What is remembered of the container while it has no process.
    pub(super) fn record(&self, id: &str) -> Record {
        let bundle = &self.bundle;
        let spec = &bundle.config.spec;
        let annotations = annotations(spec).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let hooks = spec.hooks().as_ref();
        let some = |list: Option<&Vec<oci_spec::runtime::Hook>>| list.is_some_and(|l| !l.is_empty());
        Record {
            version: Record::version(),
            oci_version: crate::config::SPEC_VERSION.to_owned(),
            id: id.to_owned(),
            bundle: bundle.dir.clone(),
            rootfs: self.rootfs(),
            created: clock::now_with_nanoseconds(),
            owner_uid: rustix::process::getuid().as_raw(),
            annotations,
            pid: 0,
            start_time_ticks: 0,
            cgroup: self.location.clone(),
            has_poststart: some(hooks.and_then(|h| h.poststart().as_ref())),
            resctrl: None,
            first_start_hook: self.plan.first_start_hook(),
            own_pid_namespace: own_pid_namespace(spec),
            has_poststop: some(hooks.and_then(|h| h.poststop().as_ref())),
        }
    }

    /// Records the container and makes its groups: from here on a delete finds them, whatever happens to this process.
    pub(super) fn begin(&self, dir: &ContainerDir, record: &mut Record) -> Result<Option<Cgroup>, Error> {
        let Prepared { bundle, location, limits, .. } = self;
        let spec = &bundle.config.spec;
        let rdt = spec.linux().as_ref().and_then(|l| l.intel_rdt().as_ref());
        if let Some(rdt) = rdt {
            let group = Resctrl::find().and_then(|fs| fs.plan(rdt, dir.id())).map_err(Error::Rdt)?;
            record.resctrl = Some(group);
        }
        if let Some(location) = location {
            // Before the record says that it is this container's: whoever undoes a create ends what is in there.
            location.check_unused().map_err(cgroup_error(dir.id()))?;
        }
        // The intent: from here on a delete finds the cgroups, whatever happens to this process.
        dir.save(record)?;
        dir.save_config(&bundle.bytes)?;
        if let (Some(group), Some(rdt)) = (&record.resctrl, rdt) {
            group.create(rdt).map_err(Error::Rdt)?;
        }
        let failed = cgroup_error(&record.id);
        let cgroup = match location {
            Some(location) => match Cgroup::create(location, limits) {
                Ok(cgroup) => Some(cgroup.with_unit_properties(self.unit.clone())),
                Err(error) => {
                    if error.is_foreign() {
                        record.cgroup = None;
                        dir.save(record)?;
                    }
                    return Err(failed(error));
                }
            },
            None => None,
        };
        if location.as_ref().is_some_and(|l| l.is_rootless() && l.driver() == Driver::Cgroupfs) {
            // What the user may not make is no part of his container; `ready` saves it.
            record.cgroup = cgroup.as_ref().map(Cgroup::location_made);
        }
        Ok(cgroup)
    }

    /// Puts a process into the container's groups, with their limits.
    pub(super) fn enter(&self, cgroup: Option<&mut Cgroup>, record: &Record, pid: i32) -> Result<(), Error> {
        if let Some(cgroup) = cgroup {
            let failed = cgroup_error(&record.id);
            cgroup.restrict(&self.limits).map_err(&failed)?;
            cgroup.attach(pid).map_err(&failed)?;
            cgroup.apply(&self.limits).map_err(&failed)?;
            if let Some(uid) = delegated_to(&self.bundle.config.spec) {
                cgroup.delegate(uid).map_err(&failed)?;
            }
        }
        match &record.resctrl {
            Some(group) => group.attach(pid.unsigned_abs()).map_err(Error::Rdt),
            None => Ok(()),
        }
    }
}

/// One create or run.
struct Making<'a> {
    runtime: &'a Runtime,
    dir: &'a ContainerDir,
    prepared: &'a Prepared,
    options: &'a CreateOptions,
    gate: bool,
}

impl Making<'_> {
    fn make(&self, console_socket: Option<BorrowedFd<'_>>) -> Result<Running, Error> {
        let Prepared { bundle, limits, plan, starts_in_cgroup, .. } = self.prepared;
        let spec = &bundle.config.spec;
        let mut record = self.prepared.record(self.dir.id());
        let cgroup = self.prepared.begin(self.dir, &mut record)?;
        let mut warnings = bundle.config.warnings.clone();
        let mut notify = None;
        if let Some(path) = &self.options.notify_socket {
            self.dir.make_notify()?;
            if !self.gate {
                match self.dir.open_notify(path) {
                    Ok(opened) => notify = opened,
                    // A container that nobody waits for can run all the same.
                    Err(error) => {
                        warnings.push(Mistake::new("", format!("nobody hears of readiness: {error}")))
                    }
                }
            }
        }
        let gate = if self.gate { Some(self.dir.make_gate()?) } else { None };
        let has = |list: Option<&Vec<_>>| list.is_some_and(|l: &Vec<oci_spec::runtime::Hook>| !l.is_empty());
        let hooks = spec.hooks().as_ref();
        let creating = has(hooks.and_then(|h| h.create_container().as_ref()));
        let starting = has(hooks.and_then(|h| h.start_container().as_ref()));
        let mut states: Vec<(&'static str, OwnedFd)> = Vec::new();
        for (wanted, status) in [(creating, "creating"), (starting, "created")] {
            if wanted {
                states.push((status, hooks::memory_file("hook-state")?));
            }
        }
        let output = if creating || starting { Some(hooks::memory_file("hook-output")?) } else { None };
        let linux = spec.linux().as_ref();
        let maps = |list: Option<&Vec<LinuxIdMapping>>| list.cloned().unwrap_or_default();
        let uids = maps(linux.and_then(|l| l.uid_mappings().as_ref()));
        let gids = maps(linux.and_then(|l| l.gid_mappings().as_ref()));
        let clone_into = cgroup.as_ref().filter(|_| *starts_in_cgroup);
        let clone_into = clone_into.and_then(Cgroup::clone_into).map(|fd| fd.try_clone_to_owned());
        let clone_into = clone_into
            .transpose()
            .map_err(|source| Error::System { action: "copying a descriptor", source })?;
        let given = Given {
            gate: gate.as_ref().map(AsFd::as_fd),
            console_socket,
            hook_states: states.iter().map(|(status, fd)| (*status, fd.as_fd())).collect(),
            hook_output: output.as_ref().map(AsFd::as_fd),
            own_binary: sys::own_binary(),
            cgroup: clone_into.as_ref().map(AsFd::as_fd),
            container_maps: (uids.clone(), gids.clone()),
            until_exec: !self.gate,
            close: vec![self.dir.raw_fd()],
            ..Given::default()
        };
        let mut host = HostSide {
            dir: self.dir,
            spec,
            limits,
            cgroup,
            starts_in_cgroup: clone_into.is_some(),
            record: &mut record,
            options: self.options,
            uids,
            gids,
            states: &states,
            pidfd: None,
            network_settled: false,
            delegate_to: delegated_to(spec),
        };
        let launched = launch(plan, &given, &mut host, Error::Start)?;
        let Launched { pid, pidfd, console } = launched;
        if !self.gate && record.has_poststart {
            self.runtime.poststart(&record, spec)?;
        }
        warnings.extend_from_slice(limits.ignored());
        Ok(Running { pid, pidfd, console, notify, warnings })
    }
}

/// Runs prestart and createRuntime: the container's namespaces are there, its program is not.
pub(super) fn host_hooks(spec: &Spec, record: &Record, pid: i32) -> Result<(), Error> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    let state = state_json(record, "creating", pid).to_string();
    #[allow(deprecated)] // the specification still has prestart
    let lists = [(hooks.prestart(), "/hooks/prestart"), (hooks.create_runtime(), "/hooks/createRuntime")];
    for (list, pointer) in lists {
        if let Some(list) = list {
            hooks::run(list, pointer, state.as_bytes(), &record.bundle)?;
        }
    }
    Ok(())
}

/// What the parent does during the handshake of a create.
struct HostSide<'a> {
    dir: &'a ContainerDir,
    spec: &'a Spec,
    limits: &'a Limits,
    cgroup: Option<Cgroup>,
    starts_in_cgroup: bool,
    record: &'a mut Record,
    options: &'a CreateOptions,
    uids: Vec<LinuxIdMapping>,
    gids: Vec<LinuxIdMapping>,
    states: &'a [(&'static str, OwnedFd)],
    pidfd: Option<OwnedFd>,
    network_settled: bool,
    /// The host's id of the container's root, if it may manage its own cgroup.
    delegate_to: Option<u32>,
}

impl HostSide<'_> {
    /// Moves the devices of `linux.netDevices`: when the child is in its network namespace, before any hook.
    fn settle_network(&mut self, pid: i32) -> Result<(), Error> {
        if std::mem::replace(&mut self.network_settled, true) {
            return Ok(());
        }
        let devices = self.spec.linux().as_ref().and_then(|l| l.net_devices().as_ref());
        let Some(devices) = devices.filter(|devices| !devices.is_empty()) else { return Ok(()) };
        let path = std::path::PathBuf::from(format!("/proc/{pid}/ns/net"));
        let namespace = std::fs::File::open(&path).map_err(|source| Error::File {
            action: "opening namespace",
            path,
            source,
        })?;
        let mut devices: Vec<_> = devices.iter().collect();
        devices.sort_by_key(|(name, _)| name.as_str());
        for (name, device) in devices {
            let new_name = device.name().as_deref().filter(|n| !n.is_empty()).unwrap_or(name);
            netdev::move_into(namespace.as_fd(), name, new_name)
                .map_err(|source| Error::NetDevice { name: name.clone(), source })?;
        }
        Ok(())
    }

    fn write_states(&self, pid: i32) -> Result<(), Error> {
        for (status, fd) in self.states {
            let text = state_json(self.record, status, pid).to_string();
            let copy = fd.try_clone();
            let written = copy.and_then(|copy| {
                let mut file = std::fs::File::from(copy);
                file.write_all(text.as_bytes())?;
                file.seek(SeekFrom::Start(0))
            });
            written.map_err(|source| Error::System { action: "writing the state for hooks", source })?;
        }
        Ok(())
    }
}

impl Parent for HostSide<'_> {
    fn cloned(&mut self, pid: i32, pidfd: BorrowedFd<'_>) -> Result<(), Error> {
        if self.options.pidfd_socket.is_some() {
            let copy = pidfd.try_clone_to_owned();
            self.pidfd = Some(copy.map_err(|source| Error::System { action: "copying a pidfd", source })?);
        }
        // While the child works on its mounts: on v1 the first attach after a quiet time takes milliseconds.
        if let Some(cgroup) = &mut self.cgroup {
            let failed = cgroup_error(&self.record.id);
            if !self.starts_in_cgroup {
                cgroup.restrict(self.limits).map_err(&failed)?;
                cgroup.attach(pid).map_err(&failed)?;
            }
        }
        Ok(())
    }

    fn attached(&mut self, pid: i32) -> Result<(), Error> {
        if let Some(cgroup) = &self.cgroup {
            let failed = cgroup_error(&self.record.id);
            cgroup.apply(self.limits).map_err(&failed)?;
            if let Some(uid) = self.delegate_to {
                cgroup.delegate(uid).map_err(&failed)?;
            }
        }
        if let Some(group) = &self.record.resctrl {
            group.attach(pid.unsigned_abs()).map_err(Error::Rdt)?;
        }
        if let Some(adjustment) = self.spec.process().as_ref().and_then(|p| p.oom_score_adj()) {
            super::set_oom_score(pid, adjustment)?;
        }
        if !self.states.is_empty() {
            self.write_states(pid)?;
        }
        Ok(())
    }

    fn map_ids(&mut self, pid: i32) -> Result<(), Error> {
        let root = rustix::process::geteuid().is_root();
        idmap::write_maps(pid.unsigned_abs(), &self.uids, &self.gids, root).map_err(Error::IdMap)
    }

    fn host_hooks(&mut self, pid: i32) -> Result<(), Error> {
        self.settle_network(pid)?;
        host_hooks(self.spec, self.record, pid)
    }

    fn seccomp_listener(&mut self, pid: i32, listener: OwnedFd) -> Result<(), Error> {
        let state = state_json(self.record, "creating", pid);
        super::send_listener(self.spec, &self.record.oci_version, pid, listener.as_fd(), &state)
    }

    fn ready(&mut self, pid: i32) -> Result<(), Error> {
        self.settle_network(pid)?;
        self.record.pid = pid;
        self.record.start_time_ticks = start_time_ticks(pid)?;
        self.dir.save(self.record)?;
        if let Some(path) = &self.options.pid_file {
            super::write_pid_file(path, pid)?;
        }
        if let (Some(path), Some(pidfd)) = (&self.options.pidfd_socket, &self.pidfd) {
            super::send_pidfd(path, pidfd.as_fd())?;
        }
        Ok(())
    }
}
