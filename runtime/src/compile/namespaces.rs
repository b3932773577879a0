//! Namespaces: which are new, which are joined, and in which process that happens.
//!
//! One clone3 makes all new namespaces. A second process is needed only where the kernel demands one: a pid or
//! time namespace that is joined or has offsets takes effect for children only, and a user namespace has to
//! be made after foreign namespaces were joined, or joined before others are made.

use super::Context;
use crate::error::Mistake;
use crate::plan::{Descriptor, Origin};
use dhow_init::{Namespace, Step, namespace_flag};
use oci_spec::runtime::{LinuxNamespaceType as Type, Spec};
use std::path::PathBuf;

/// The namespaces of a container.
#[derive(Default)]
pub(crate) struct Namespaces {
    /// Index in config.json, kind, path if it is joined.
    list: Vec<(u32, Type, Option<PathBuf>)>,
}

impl Namespaces {
    pub(crate) fn read(spec: &Spec, mistakes: &mut Vec<Mistake>) -> Namespaces {
        let mut list: Vec<(u32, Type, Option<PathBuf>)> = Vec::new();
        let given = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
        for (index, namespace) in given.into_iter().flatten().enumerate() {
            let kind = namespace.typ();
            if list.iter().any(|(_, known, _)| *known == kind) {
                mistakes.push(Mistake::new(
                    format!("/linux/namespaces/{index}/type"),
                    format!("a second {kind} namespace: each type may stand here once"),
                ));
                continue;
            }
            let path = namespace.path().clone().filter(|p| !p.as_os_str().is_empty());
            list.push((index as u32, kind, path));
        }
        Namespaces { list }
    }

    pub(crate) fn contains(&self, kind: Type) -> bool {
        self.list.iter().any(|(_, k, _)| *k == kind)
    }

    /// Whether the container gets a new namespace of this kind.
    pub(crate) fn is_new(&self, kind: Type) -> bool {
        self.list.iter().any(|(_, k, path)| *k == kind && path.is_none())
    }

    fn is_joined(&self, kind: Type) -> bool {
        self.list.iter().any(|(_, k, path)| *k == kind && path.is_some())
    }

    fn any_joined(&self) -> bool {
        self.list.iter().any(|(_, _, path)| path.is_some())
    }

    /// Whether processes that are not the container's, or were there before, can see the child in their /proc.
    pub(crate) fn shows_the_child(&self) -> bool {
        !self.is_new(Type::Pid) || self.any_joined()
    }

    /// `CLONE_NEW*` of all new ones, apart from the cgroup namespace, which is made when the process is in its cgroup.
    fn new_flags(&self) -> u64 {
        let new = self.list.iter().filter(|(_, kind, path)| path.is_none() && *kind != Type::Cgroup);
        new.fold(0, |flags, (_, kind, _)| flags | u64::from(flag(*kind)))
    }

    /// `CLONE_NEW*` of everything the container has that is not the host's: what exec joins.
    pub(crate) fn all_flags(&self) -> u32 {
        self.list.iter().fold(0, |flags, (_, kind, _)| flags | flag(*kind))
    }
}

pub(crate) fn flag(kind: Type) -> u32 {
    namespace_flag(match kind {
        Type::Pid => Namespace::Pid,
        Type::Network => Namespace::Network,
        Type::Mount => Namespace::Mount,
        Type::Ipc => Namespace::Ipc,
        Type::Uts => Namespace::Uts,
        Type::User => Namespace::User,
        Type::Cgroup => Namespace::Cgroup,
        Type::Time => Namespace::Time,
    })
}

/// The clones, the joins, the user namespace's identity, session and loopback.
pub(crate) fn compile(cx: &mut Context<'_>) {
    let offsets = time_offsets(cx);
    let ns = &cx.namespaces;
    let second = ns.is_joined(Type::Pid)
        || ns.is_joined(Type::Time)
        || offsets.is_some()
        || (ns.is_new(Type::User) && ns.any_joined())
        || (ns.is_joined(Type::User) && ns.new_flags() != 0);
    let joins: Vec<_> =
        ns.list.iter().filter_map(|(i, kind, path)| Some((*i, *kind, path.clone()?))).collect();
    let joins_user = joins.iter().any(|(_, kind, _)| *kind == Type::User);
    let mut flags = ns.new_flags();
    if offsets.is_some() {
        flags &= !u64::from(flag(Type::Time));
    }
    if second {
        cx.plan.inner_flags = flags;
    } else {
        cx.plan.clone_flags = flags;
    }

    if cx.namespaces.shows_the_child() && cx.may_hide() {
        // The container's other processes must not look at this one's memory and files; both processes of two.
        let origin = Origin::Field("/linux/namespaces");
        if second {
            cx.plan.push_outer(Step::NotDumpable, origin)
        } else {
            cx.push(Step::NotDumpable, origin)
        }
    }
    // Before the user namespace: as the caller, who may own the others. What it may not join yet comes after.
    let mut steps = Vec::new();
    for (index, kind, path) in &joins {
        if *kind == Type::User {
            continue;
        }
        let fd = cx.plan.descriptor(Descriptor::Namespace { path: path.clone(), flag: flag(*kind) });
        steps.push((Step::Join { fd, flags: flag(*kind), later: joins_user }, *index));
    }
    let first_round = steps.clone();
    for (index, kind, path) in &joins {
        if *kind != Type::User {
            continue;
        }
        let fd = cx.plan.descriptor(Descriptor::Namespace { path: path.clone(), flag: flag(*kind) });
        steps.push((Step::Join { fd, flags: flag(*kind), later: false }, *index));
        for (step, index) in &first_round {
            if let Step::Join { fd, flags, .. } = *step {
                steps.push((Step::JoinAgain { fd, flags }, *index));
            }
        }
    }
    for (step, index) in steps {
        let origin = Origin::Element("/linux/namespaces", index);
        if second { cx.plan.push_outer(step, origin) } else { cx.push(step, origin) }
    }
    if let Some(text) = offsets {
        let offsets = cx.plan.text(text);
        cx.plan.push_outer(Step::TimeNamespace { offsets }, Origin::Field("/linux/timeOffsets"));
    }

    if cx.namespaces.is_new(Type::User) {
        cx.push(Step::AwaitIdMaps, Origin::Field("/linux/uidMappings"));
    }
    if cx.namespaces.contains(Type::User) {
        cx.push(Step::BecomeRoot, Origin::Field("/linux/uidMappings"));
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
    if cx.namespaces.is_new(Type::Network) {
        cx.push(Step::LoopbackUp, Origin::Field("/linux/namespaces"));
    }
    if cx.options.starts_in_cgroup {
        cx.enter_cgroup();
    }
}

/// The text for `/proc/self/timens_offsets`, if there is anything to write.
fn time_offsets(cx: &mut Context<'_>) -> Option<String> {
    let offsets = cx.spec.linux().as_ref()?.time_offsets().as_ref()?;
    let mut text = String::new();
    let mut clocks: Vec<_> = offsets.iter().collect();
    clocks.sort_by_key(|(clock, _)| clock.as_str());
    for (clock, offset) in clocks {
        let line = format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        text.push_str(&line);
    }
    (!text.is_empty() && cx.namespaces.is_new(Type::Time)).then_some(text)
}

/// Host and domain name, and sysctls: all belong to the container's namespaces.
pub(crate) fn names(cx: &mut Context<'_>) {
    if let Some(hostname) = cx.spec.hostname().as_ref().filter(|h| !h.is_empty()) {
        let name = cx.plan.text(hostname);
        cx.push(Step::Hostname { name }, Origin::Field("/hostname"));
    }
    if let Some(domainname) = cx.spec.domainname().as_ref().filter(|d| !d.is_empty()) {
        let name = cx.plan.text(domainname);
        cx.push(Step::Domainname { name }, Origin::Field("/domainname"));
    }
    let sysctls = cx.spec.linux().as_ref().and_then(|l| l.sysctl().as_ref());
    let mut sysctls: Vec<_> = sysctls.into_iter().flatten().collect();
    sysctls.sort();
    for (name, value) in sysctls {
        let Some(path) = crate::config::sysctl::path(name) else { continue };
        let path = cx.plan.text(format!("sys/{path}"));
        let value = cx.plan.text(value);
        cx.push(Step::WriteProc { path, value }, Origin::Field("/linux/sysctl"));
    }
}
