//! Device nodes and the links of /dev.

use super::{Context, relative};
use crate::plan::{Descriptor, Origin};
use dhow_init::{Create, Step};
use oci_spec::runtime::{LinuxDeviceType, LinuxNamespaceType as Type};
use std::path::PathBuf;

/// Name, major, minor of the devices that every container gets.
/// See [default devices](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config-linux.md#default-devices).
pub(crate) const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

struct Device {
    path: Vec<u8>,
    mode: u32,
    major: u32,
    minor: u32,
    uid: u32,
    gid: u32,
    origin: Origin,
}

/// Nodes and links, unless the container's /dev is a bind mount: then it is as the caller made it.
pub(crate) fn compile(cx: &mut Context<'_>) {
    if dev_is_bound(cx) {
        return;
    }
    let given = read(cx);
    let mut devices: Vec<Device> = DEFAULT
        .iter()
        .filter(|(name, ..)| !given.iter().any(|d| d.path == format!("dev/{name}").as_bytes()))
        .map(|&(name, major, minor)| Device {
            path: format!("dev/{name}").into_bytes(),
            mode: libc::S_IFCHR | 0o666,
            major,
            minor,
            uid: 0,
            gid: 0,
            origin: Origin::Always("default device"),
        })
        .collect();
    devices.extend(given);
    // A user namespace may not make device nodes: the host's are bound.
    let bind = cx.namespaces.contains(Type::User) || cx.host.in_user_namespace;
    let mut directory: Option<Vec<u8>> = None;
    for device in devices {
        if bind {
            bind_device(cx, &device);
            continue;
        }
        let at = device.path.iter().rposition(|&b| b == b'/').map_or(0, |n| n + 1);
        let (parent, name) = device.path.split_at(at);
        if directory.as_deref() != Some(parent) {
            let path = cx.plan.text(parent);
            cx.push(Step::OpenDirectory { path }, device.origin);
            directory = Some(parent.to_vec());
        }
        let number = libc::makedev(device.major as _, device.minor as _) as u64;
        let name = cx.plan.text(name);
        let step = Step::Device { name, mode: device.mode, device: number, uid: device.uid, gid: device.gid };
        cx.push(step, device.origin);
    }
    let origin = Origin::Always("links in /dev");
    if directory.as_deref() != Some(b"dev/") {
        let path = cx.plan.text("dev/");
        cx.push(Step::OpenDirectory { path }, origin);
    }
    for (name, content) in LINKS {
        let (name, content) = (cx.plan.text(name), cx.plan.text(content));
        cx.push(Step::Symlink { name, content }, origin);
    }
}

/// Whether a bind mount covers /dev.
fn dev_is_bound(cx: &Context<'_>) -> bool {
    cx.spec.mounts().iter().flatten().any(|m| {
        relative(m.destination()) == b"dev"
            && (m.typ().as_deref() == Some("bind")
                || m.options().iter().flatten().any(|o| o == "bind" || o == "rbind"))
    })
}

fn read(cx: &mut Context<'_>) -> Vec<Device> {
    let mut out = Vec::new();
    let devices = cx.spec.linux().as_ref().and_then(|l| l.devices().as_ref());
    for (index, device) in devices.into_iter().flatten().enumerate() {
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
            LinuxDeviceType::B => libc::S_IFBLK,
            LinuxDeviceType::P => libc::S_IFIFO,
            LinuxDeviceType::A => {
                let pointer = format!("/linux/devices/{index}/type");
                cx.mistakes
                    .push(crate::error::Mistake::new(pointer, "`a` is for device rules: use c, u, b or p"));
                continue;
            }
        };
        out.push(Device {
            path: relative(device.path()),
            mode: kind | device.file_mode().unwrap_or(0o666) & 0o7777,
            major: device.major() as u32,
            minor: device.minor() as u32,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
            origin: Origin::Element("/linux/devices", index as u32),
        });
    }
    out
}

fn bind_device(cx: &mut Context<'_>, device: &Device) {
    let mut host = b"/".to_vec();
    host.extend_from_slice(&device.path);
    let step = if cx.host.privileged {
        // SAFETY-free conversion: the bytes came from a path of config.json.
        let source = PathBuf::from(String::from_utf8_lossy(&host).into_owned());
        Step::UseTree { tree: cx.plan.descriptor(Descriptor::Tree { source, recursive: false, idmap: None }) }
    } else {
        Step::CloneTree { source: cx.plan.text(&host), recursive: false }
    };
    cx.push(step, device.origin);
    let target = cx.plan.text(&device.path);
    let step = Step::Attach { target, create: Create::File, not_on_proc: true, no_symlink: false };
    cx.push(step, device.origin);
}
