//! The root filesystem around the mounts: made a mount point at first; masks, read-only paths and pivot_root
//! at the end.

use super::{Context, container_hooks, host_hooks, process, relative};
use crate::plan::{Descriptor, Origin, TreeIdMap};
use dhow_init::{Step, propagation};
use oci_spec::runtime::LinuxNamespaceType as Type;

/// The kind and reach of `linux.rootfsPropagation`; a slave of the host by default, so that unmounts there are
/// followed and nothing of the container is seen there.
fn root_propagation(cx: &Context<'_>) -> Option<(u64, bool)> {
    let text = cx.spec.linux().as_ref()?.rootfs_propagation().as_deref()?;
    Some(match text {
        "shared" => (propagation::SHARED, false),
        "rshared" => (propagation::SHARED, true),
        "slave" => (propagation::SLAVE, false),
        "rslave" => (propagation::SLAVE, true),
        "private" => (propagation::PRIVATE, false),
        "rprivate" => (propagation::PRIVATE, true),
        "unbindable" => (propagation::UNBINDABLE, false),
        "runbindable" => (propagation::UNBINDABLE, true),
        _ => return None,
    })
}

/// Whether mounts may stay in the peer groups of the host's.
pub(crate) fn stays_shared(cx: &Context<'_>) -> bool {
    matches!(root_propagation(cx), Some((propagation::SHARED, _)))
}

/// The root directory, as a mount of its own.
pub(crate) fn open(cx: &mut Context<'_>) {
    let origin = Origin::Field("/root/path");
    let Some(root) = cx.spec.root() else {
        cx.mistake("/root", "is missing: a container needs a root filesystem");
        return;
    };
    let host_path = cx.bundle.join(root.path());
    let path = cx.plan.text(host_path.as_os_str().as_encoded_bytes());
    if !cx.namespaces.contains(Type::Mount) {
        cx.push(Step::OpenRoot { path }, origin);
        return;
    }
    let (kind, _) = root_propagation(cx).unwrap_or((propagation::SLAVE, true));
    // Unbindable mounts could not be cloned from the host; the kind is applied to the container's root at the end.
    let kind = if kind == propagation::UNBINDABLE { propagation::PRIVATE } else { kind };
    if kind == propagation::SHARED {
        // What is shared with the host stays shared, so that volumes can propagate; only the mount that holds
        // the root is cut off, or the container's root would appear on the host.
        cx.push(Step::IsolateParent { path }, Origin::Field("/linux/rootfsPropagation"));
    } else {
        cx.push(Step::Propagation { kind, recursive: true }, Origin::Field("/linux/rootfsPropagation"));
    }
    if cx.namespaces.contains(Type::User) && cx.host.privileged {
        let tree = Descriptor::Tree { source: host_path, recursive: true, idmap: None::<TreeIdMap> };
        let tree = cx.plan.descriptor(tree);
        cx.push(Step::UseTree { tree }, origin);
        if kind != propagation::SHARED {
            // The parent's clone is still in the host's peer groups.
            let step = Step::TreeAttributes { set: 0, clear: 0, propagation: kind, recursive: true };
            cx.push(step, origin);
        }
        cx.push(Step::AttachRoot { path }, origin);
    } else {
        cx.push(Step::BindRoot { path }, origin);
    }
}

/// Everything between the last device and life inside: hooks, terminal, masks, read-only, pivot_root.
/// `late` are the attributes that mounts get when nothing has to be made below them any more.
pub(crate) fn finish(cx: &mut Context<'_>, late: Vec<(Step, Origin)>) {
    host_hooks(cx);
    container_hooks(cx);
    process::terminal(cx);
    if let Some(process) = cx.spec.process() {
        let cwd = relative(process.cwd());
        if !cwd.is_empty() {
            let path = cx.plan.text(cwd);
            cx.push(Step::MakeDirectory { path }, Origin::Field("/process/cwd"));
        }
    }
    if process::needs_proc(cx) {
        cx.push(Step::PrivateProc, Origin::Always("procfs"));
    }
    for (step, origin) in late {
        cx.push(step, origin);
    }
    let linux = cx.spec.linux().as_ref();
    let readonly = linux.and_then(|l| l.readonly_paths().as_deref()).unwrap_or(&[]);
    for (index, path) in readonly.iter().enumerate() {
        let path = cx.plan.text(relative(path.as_ref()));
        cx.push(Step::ReadOnly { path }, Origin::Element("/linux/readonlyPaths", index as u32));
    }
    let masked = linux.and_then(|l| l.masked_paths().as_deref()).unwrap_or(&[]);
    if !masked.is_empty() {
        cx.push(Step::NullDevice, Origin::Field("/linux/maskedPaths"));
    }
    for (index, path) in masked.iter().enumerate() {
        let path = cx.plan.text(relative(path.as_ref()));
        cx.push(Step::Mask { path }, Origin::Element("/linux/maskedPaths", index as u32));
    }
    if cx.spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false) {
        cx.push(Step::RootReadOnly, Origin::Field("/root/readonly"));
    }
    cx.enter_cgroup();
    let pivot =
        if cx.options.no_pivot { Step::MoveRoot } else { Step::PivotRoot { shared: stays_shared(cx) } };
    cx.push(pivot, Origin::Always("root"));
    if let Some((kind, recursive)) = root_propagation(cx) {
        cx.push(Step::Propagation { kind, recursive }, Origin::Field("/linux/rootfsPropagation"));
    }
}
