//! `mounts` of config.json: each becomes a tree (a new filesystem, a clone of a host path) that is given its
//! attributes while it is still detached, and is then attached inside the root.

use super::rootfs::stays_shared;
use super::{Context, MountChange, relative};
use crate::cgroup::Version;
use crate::mount_options::{self, MOUNT_ATTR_ATIME, MOUNT_ATTR_RDONLY, ParsedOptions, Reach};
use crate::plan::{Descriptor, IdMap, Origin, TreeIdMap};
use dhow_init::{Create, Step, propagation};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType as Type, Mount};
use std::path::Path;

/// Files of procfs that a mount may cover: a container can be given its own view of them (lxcfs, NVIDIA).
/// Everything else below /proc is refused, since a later step or the container's security may rely on it.
const PROC_ALLOWED: [&str; 11] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/driver",
    "proc/loadavg",
    "proc/meminfo",
    "proc/net/dev",
    "proc/slabinfo",
    "proc/stat",
    "proc/swaps",
    "proc/sys/kernel/ns_last_pid",
    "proc/uptime",
];

/// Appends the steps of every mount; returns those that have to wait until nothing is made below any more.
pub(crate) fn compile(cx: &mut Context<'_>) -> Vec<(Step, Origin)> {
    let mut late = Vec::new();
    let mounts = cx.spec.mounts().as_deref().unwrap_or(&[]);
    for (index, mount) in mounts.iter().enumerate() {
        one(cx, mount, Origin::Element("/mounts", index as u32), index, &mut late);
    }
    late
}

/// The steps of a change to a running container's mounts: made by a child in its mount namespace. A tree of the
/// host is cloned by the parent, since the child has left the host's namespace.
pub(crate) fn compile_change(cx: &mut Context<'_>, change: &MountChange<'_>) {
    let origin = Origin::Always("the container's mounts");
    let mut flags = super::namespaces::flag(Type::Mount);
    if cx.namespaces.contains(Type::User) {
        flags |= super::namespaces::flag(Type::User);
    }
    let fd = cx.plan.descriptor(Descriptor::InitPidfd);
    cx.push(Step::NotDumpable, origin);
    if matches!(change, MountChange::Remove(_)) {
        // Of the pid namespace this process is and stays in, which the container's user namespace does not own.
        cx.push(Step::PrivateProc, origin);
    }
    cx.push(Step::Join { fd, flags, later: false }, origin);
    if cx.namespaces.contains(Type::User) {
        cx.push(Step::BecomeRoot, origin);
    }
    let path = cx.plan.text("/");
    cx.push(Step::OpenRoot { path }, origin);
    match change {
        MountChange::Add(mount) => {
            cx.from_parent = true;
            let mut late = Vec::new();
            one(cx, mount, origin, 0, &mut late);
            for (step, origin) in late {
                cx.push(step, origin);
            }
        }
        MountChange::Remove(target) => {
            let target = cx.plan.text(relative(target));
            cx.push(Step::Unmount { target }, origin);
        }
    }
    cx.push(Step::Ready, Origin::Always("handshake"));
}

/// The mount's type as it counts: `bind` by type or by option.
fn one(cx: &mut Context<'_>, mount: &Mount, origin: Origin, index: usize, late: &mut Vec<(Step, Origin)>) {
    let options = mount.options().as_deref().unwrap_or(&[]);
    let parsed = mount_options::parse(options);
    let target = relative(mount.destination());
    if target.is_empty() {
        cx.mistake(
            format!("/mounts/{index}/destination"),
            "is the root itself: use root.path and root.readonly",
        );
        return;
    }
    let kind = mount.typ().as_deref().unwrap_or("none");
    if parsed.remount {
        remount(cx, &parsed, &target, kind == "bind" || parsed.bind.is_some(), origin);
    } else if parsed.bind.is_some() || kind == "bind" {
        bind(cx, mount, &parsed, &target, origin, index);
    } else if kind == "cgroup" || kind == "cgroup2" {
        cgroup(cx, &parsed, &target, origin, index);
    } else {
        filesystem(cx, mount, kind, &parsed, &target, origin, late);
    }
}

fn attach(cx: &mut Context<'_>, target: &[u8], create: Create, procfs: bool, origin: Origin) {
    let on_proc_allowed = PROC_ALLOWED.iter().any(|allowed| target == allowed.as_bytes())
        || target.starts_with(b"proc/driver/");
    let not_on_proc = !on_proc_allowed;
    // procfs and sysfs go to a real directory: the image must not choose where they appear.
    let step = Step::Attach { target: cx.plan.text(target), create, not_on_proc, no_symlink: procfs };
    cx.push(step, origin);
}

/// What changes on the detached tree: recursive attributes first, since the mount's own ones are stronger.
fn attributes(cx: &mut Context<'_>, parsed: &ParsedOptions, set: u64, clear: u64, origin: Origin) {
    if parsed.recursive_set | parsed.recursive_clear != 0 {
        let step = Step::TreeAttributes {
            set: parsed.recursive_set,
            clear: parsed.recursive_clear,
            propagation: 0,
            recursive: true,
        };
        cx.push(step, origin);
    }
    if set | clear != 0 {
        cx.push(Step::TreeAttributes { set, clear, propagation: 0, recursive: false }, origin);
    }
    for change in &parsed.propagation {
        let recursive = change.reach == Reach::Tree;
        cx.push(Step::TreeAttributes { set: 0, clear: 0, propagation: change.kind, recursive }, origin);
    }
}

fn filesystem(
    cx: &mut Context<'_>,
    mount: &Mount,
    kind: &str,
    parsed: &ParsedOptions,
    target: &[u8],
    origin: Origin,
    late: &mut Vec<(Step, Origin)>,
) {
    let mut set = parsed.attr_set;
    let mut flags: Vec<&str> = parsed.superblock_flags().collect();
    // Directories are made below a tmpfs (devices, mount points of later mounts), so it becomes read-only
    // when all of them are there.
    let waits = kind == "tmpfs" && set & MOUNT_ATTR_RDONLY != 0;
    if waits {
        set &= !MOUNT_ATTR_RDONLY;
        flags.retain(|flag| *flag != "ro");
        let target = cx.plan.text(target);
        let step = Step::PathAttributes {
            target,
            set: MOUNT_ATTR_RDONLY,
            clear: 0,
            propagation: 0,
            recursive: false,
        };
        late.push((step, origin));
    }
    let label = cx.spec.linux().as_ref().and_then(|l| l.mount_label().as_deref()).filter(|l| !l.is_empty());
    let labelled = cx.host.selinux && matches!(kind, "tmpfs" | "devpts" | "overlay");
    let context = label.filter(|_| labelled).map(|label| format!("\"{label}\""));
    let parameters = flags
        .into_iter()
        .map(|flag| (flag, None))
        .chain(parsed.data.iter().map(|(key, value)| (key.as_str(), value.as_deref())))
        .chain(context.as_deref().map(|label| ("context", Some(label))));
    let parameters: Vec<_> = parameters.collect();
    let parameters = cx.plan.parameters(parameters);
    let fstype = cx.plan.text(kind);
    let source = mount.source().as_ref().map(|s| cx.plan.text(s.as_os_str().as_encoded_bytes()));
    cx.push(Step::NewFilesystem { fstype, source, parameters, attributes: set }, origin);
    if kind == "tmpfs" {
        let target_text = cx.plan.text(target);
        if parsed.tmpcopyup {
            cx.push(Step::CopyUp { target: target_text }, origin);
        } else if !parsed.data.iter().any(|(key, _)| key == "mode") {
            cx.push(Step::ModeOf { target: target_text }, origin);
        }
    }
    attributes(cx, parsed, 0, 0, origin);
    attach(cx, target, Create::Directory, matches!(kind, "proc" | "sysfs"), origin);
}

fn bind(
    cx: &mut Context<'_>,
    mount: &Mount,
    parsed: &ParsedOptions,
    target: &[u8],
    origin: Origin,
    index: usize,
) {
    let Some(source) = mount.source().as_ref().filter(|s| !s.as_os_str().is_empty()) else {
        cx.mistake(format!("/mounts/{index}/source"), "is missing: a bind mount needs the path on the host");
        return;
    };
    let source = cx.bundle.join(source);
    let recursive = parsed.bind.unwrap_or(Reach::Tree) == Reach::Tree;
    let has_maps = mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
    let idmap = (parsed.idmap.is_some() || has_maps).then(|| TreeIdMap {
        uids: id_map(mount.uid_mappings()),
        gids: id_map(mount.gid_mappings()),
        recursive: parsed.idmap == Some(Reach::Tree),
    });
    if parsed.idmap.is_some() && !has_maps && !cx.namespaces.contains(Type::User) {
        cx.mistake(
            format!("/mounts/{index}/options"),
            "idmap without mappings takes those of the container's user namespace, and it has none: \
             add uidMappings and gidMappings to the mount",
        );
    }
    let by_parent =
        idmap.is_some() || cx.from_parent || (cx.namespaces.contains(Type::User) && cx.host.privileged);
    if by_parent {
        let tree = cx.plan.descriptor(Descriptor::Tree { source, recursive, idmap });
        cx.push(Step::UseTree { tree }, origin);
        // The parent's clone is still in the host's peer groups, which the child has left.
        if parsed.propagation.is_empty() && !stays_shared(cx) {
            let step =
                Step::TreeAttributes { set: 0, clear: 0, propagation: propagation::SLAVE, recursive: true };
            cx.push(step, origin);
        }
    } else {
        let source = cx.plan.text(source.as_os_str().as_encoded_bytes());
        cx.push(Step::CloneTree { source, recursive }, origin);
    }
    // A bind mount keeps the attributes of its source. `rw` does not open what the host mounted read-only, and
    // an access time that was not asked for stays.
    let set = parsed.attr_set;
    let mut clear = parsed.attr_clear & !MOUNT_ATTR_RDONLY;
    if set & MOUNT_ATTR_ATIME == 0 && clear & !MOUNT_ATTR_ATIME == 0 && set == 0 {
        clear = 0;
    }
    attributes(cx, parsed, set, clear, origin);
    attach(cx, target, Create::LikeTree, false, origin);
}

fn id_map(mappings: &Option<Vec<LinuxIdMapping>>) -> IdMap {
    mappings.clone().unwrap_or_default()
}

/// `remount`: the attributes of what is mounted there, and for a filesystem of its own the parameters too.
fn remount(cx: &mut Context<'_>, parsed: &ParsedOptions, target: &[u8], is_bind: bool, origin: Origin) {
    let target = cx.plan.text(target);
    if !is_bind {
        let flags: Vec<&str> = parsed.superblock_flags().collect();
        let parameters = flags
            .into_iter()
            .map(|flag| (flag, None))
            .chain(parsed.data.iter().map(|(key, value)| (key.as_str(), value.as_deref())));
        let parameters: Vec<_> = parameters.collect();
        if !parameters.is_empty() {
            let parameters = cx.plan.parameters(parameters);
            cx.push(Step::Reconfigure { target, parameters }, origin);
        }
    }
    let (mut set, mut clear, mut recursive) = (parsed.attr_set, parsed.attr_clear, false);
    if parsed.recursive_set | parsed.recursive_clear != 0 {
        set |= parsed.recursive_set;
        clear |= parsed.recursive_clear;
        recursive = true;
    }
    let kind = parsed.propagation.last().map_or(0, |change| change.kind);
    if set | clear | kind != 0 {
        cx.push(Step::PathAttributes { target, set, clear, propagation: kind, recursive }, origin);
    }
}

/// The container's cgroups: with a cgroup namespace new mounts of the hierarchies, which show its own
/// subtree; without one, clones of its directories on the host.
fn cgroup(cx: &mut Context<'_>, parsed: &ParsedOptions, target: &[u8], origin: Origin, index: usize) {
    cx.enter_cgroup();
    let own_namespace = cx.namespaces.is_new(Type::Cgroup);
    let Some(layout) = &cx.host.cgroups else { return };
    let unified_only = layout.version() == Version::V2;
    if unified_only {
        if own_namespace {
            new_hierarchy(cx, "cgroup2", &[], parsed.attr_set, origin);
        } else if !clone_own(cx, None, parsed.attr_set, origin) {
            cx.mistake(format!("/mounts/{index}"), "the container has no cgroup that could be shown");
            return;
        }
        attributes(cx, parsed, 0, 0, origin);
        attach(cx, target, Create::Directory, false, origin);
        return;
    }
    let fstype = cx.plan.text("tmpfs");
    let source = Some(cx.plan.text("tmpfs"));
    let parameters = cx.plan.parameters([("mode", Some("755"))]);
    let set = parsed.attr_set & !MOUNT_ATTR_RDONLY;
    cx.push(Step::NewFilesystem { fstype, source, parameters, attributes: set }, origin);
    cx.push(Step::KeepTree, origin);
    attributes(cx, parsed, 0, 0, origin);
    attach(cx, target, Create::Directory, false, origin);
    let hierarchies: Vec<(String, Vec<String>, std::path::PathBuf)> = layout
        .hierarchies()
        .iter()
        .filter_map(|h| {
            let name = h.mount_point.file_name()?.to_str()?.to_owned();
            Some((name, h.controllers.clone(), h.mount_point.clone()))
        })
        .collect();
    for (name, controllers, mount_point) in hierarchies {
        if own_namespace {
            let keys: Vec<&str> = controllers.iter().map(String::as_str).collect();
            new_hierarchy(cx, "cgroup", &keys, parsed.attr_set, origin);
        } else if !clone_own(cx, Some(&mount_point), parsed.attr_set, origin) {
            continue;
        }
        let directory = cx.plan.text(&name);
        cx.push(Step::KeptDirectory { name: directory }, origin);
        cx.push(Step::AttachKept { name: directory }, origin);
        if controllers.len() > 1 {
            for controller in controllers.iter().filter(|c| **c != name && !c.starts_with("name=")) {
                let step = Step::KeptSymlink { name: cx.plan.text(controller), content: directory };
                cx.push(step, origin);
            }
        }
    }
    cx.push(Step::DropKept { set: parsed.attr_set & MOUNT_ATTR_RDONLY }, origin);
}

fn new_hierarchy(cx: &mut Context<'_>, kind: &str, controllers: &[&str], set: u64, origin: Origin) {
    let pairs: Vec<(&str, Option<&str>)> = controllers
        .iter()
        .map(|c| c.strip_prefix("name=").map_or((*c, None), |name| ("name", Some(name))))
        .collect();
    // A hierarchy without controllers has to say so.
    let pairs = if kind == "cgroup" && pairs.iter().all(|(key, _)| *key == "name") {
        std::iter::once(("none", None)).chain(pairs).collect()
    } else {
        pairs
    };
    let fstype = cx.plan.text(kind);
    // Each name costs a system call, and v1 has ten of these mounts: only the one of v2 gets it.
    let source = (kind == "cgroup2").then(|| cx.plan.text("cgroup"));
    let parameters = cx.plan.parameters(pairs);
    cx.push(Step::NewFilesystem { fstype, source, parameters, attributes: set }, origin);
}

/// A clone of the container's own directory in the hierarchy mounted there (or in the unified one).
fn clone_own(cx: &mut Context<'_>, mount_point: Option<&Path>, set: u64, origin: Origin) -> bool {
    let found = cx.options.cgroup_dirs.iter().find(|(mount, _)| mount_point.is_none_or(|m| m == mount));
    let Some((_, directory)) = found.cloned() else { return false };
    if cx.namespaces.contains(Type::User) && cx.host.privileged {
        let tree = cx.plan.descriptor(Descriptor::Tree { source: directory, recursive: true, idmap: None });
        cx.push(Step::UseTree { tree }, origin);
    } else {
        let source = cx.plan.text(directory.as_os_str().as_encoded_bytes());
        cx.push(Step::CloneTree { source, recursive: true }, origin);
    }
    if set != 0 {
        cx.push(Step::TreeAttributes { set, clear: 0, propagation: 0, recursive: false }, origin);
    }
    true
}
