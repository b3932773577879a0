//! Rules for `mounts` and for id mappings (config.md, "Mounts"; config-linux.md, "User namespace mappings").

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Mount, Spec};

use super::{Check, Namespaces};
use crate::mount_options::{self, Reach};

/// Lines that the kernel takes in one map (`UID_GID_MAP_MAX_EXTENTS`).
const MAX_MAP_LINES: usize = 340;

impl Check<'_> {
    pub(super) fn mounts(&mut self, spec: &Spec, namespaces: &Namespaces<'_>) {
        for (i, mount) in spec.mounts().iter().flatten().enumerate() {
            self.mount(mount, &format!("/mounts/{i}"), namespaces);
        }
    }

    fn mount(&mut self, mount: &Mount, at: &str, namespaces: &Namespaces<'_>) {
        let destination = mount.destination();
        if destination.as_os_str().is_empty() {
            self.mistake(format_args!("{at}/destination"), "is required");
        } else if !destination.is_absolute() {
            let message = format!("relative path {destination:?} is deprecated: taken as relative to /");
            self.warning(format_args!("{at}/destination"), message);
        }
        self.no_nul_path(format_args!("{at}/destination"), destination);
        if let Some(source) = mount.source() {
            self.no_nul_path(format_args!("{at}/source"), source);
        }
        if let Some(typ) = mount.typ() {
            self.no_nul(format_args!("{at}/type"), typ.as_bytes());
        }
        let strings = mount.options().as_deref().unwrap_or_default();
        for (i, option) in strings.iter().enumerate() {
            self.no_nul(format_args!("{at}/options/{i}"), option.as_bytes());
        }

        let options = mount_options::parse(strings);
        // As in runc, the type "bind" alone makes no bind mount; the specification goes by the options.
        if options.bind.is_some() {
            if mount.source().is_none() && !options.remount {
                self.mistake(format_args!("{at}/source"), "is required for a bind mount");
            }
            for (i, option) in strings.iter().enumerate() {
                if !option.is_empty() && !mount_options::is_known(option) {
                    let message = format!(
                        "{option:?} has no effect: a bind mount makes no filesystem that could have it"
                    );
                    self.warning(format_args!("{at}/options/{i}"), message);
                }
            }
        } else if mount.typ().is_none() && !options.remount {
            self.mistake(format_args!("{at}/type"), "is required, unless the options have bind or rbind");
        }
        if options.tmpcopyup && mount.typ().as_deref() != Some("tmpfs") {
            self.warning(format_args!("{at}/options"), "tmpcopyup has no effect: the mount is not a tmpfs");
        }
        self.mount_mappings(mount, at, options.idmap, options.bind, namespaces);
    }

    fn mount_mappings(
        &mut self,
        mount: &Mount,
        at: &str,
        idmap: Option<Reach>,
        bind: Option<Reach>,
        namespaces: &Namespaces<'_>,
    ) {
        let uid = mount.uid_mappings().as_deref().unwrap_or_default();
        let gid = mount.gid_mappings().as_deref().unwrap_or_default();
        self.id_mappings(format!("{at}/uidMappings"), uid);
        self.id_mappings(format!("{at}/gidMappings"), gid);
        match (uid.is_empty(), gid.is_empty()) {
            (false, true) => self.mistake(format_args!("{at}/gidMappings"), "is required with uidMappings"),
            (true, false) => self.mistake(format_args!("{at}/uidMappings"), "is required with gidMappings"),
            (true, true) if idmap.is_some() && namespaces.lacks(LinuxNamespaceType::User) => {
                let message = "an id-mapped mount needs uidMappings and gidMappings, or a user namespace";
                self.mistake(format_args!("{at}/options"), message);
            }
            _ => {}
        }
        if (idmap.is_some() || !uid.is_empty() || !gid.is_empty()) && bind.is_none() {
            self.mistake(format_args!("{at}/options"), "only bind mounts can be id-mapped");
        }
    }

    pub(super) fn id_mappings(&mut self, at: String, mappings: &[LinuxIdMapping]) {
        if mappings.len() > MAX_MAP_LINES {
            self.mistake(
                &at,
                format!("has {} entries, more than the kernel's {MAX_MAP_LINES}", mappings.len()),
            );
        }
        for (i, mapping) in mappings.iter().enumerate() {
            if mapping.size() == 0 {
                self.mistake(format_args!("{at}/{i}/size"), "must be greater than zero");
                continue;
            }
            // The id -1 is never valid, so the last id of a range is 2^32 - 2.
            for (name, first) in [("containerID", mapping.container_id()), ("hostID", mapping.host_id())] {
                if u64::from(first) + u64::from(mapping.size()) > u64::from(u32::MAX) {
                    let message =
                        format!("{first} and a size of {} go beyond {}", mapping.size(), u32::MAX - 1);
                    self.mistake(format_args!("{at}/{i}/{name}"), message);
                }
            }
            let overlaps = |a: (u32, u32), b: (u32, u32)| {
                u64::from(a.0) < u64::from(b.0) + u64::from(b.1)
                    && u64::from(b.0) < u64::from(a.0) + u64::from(a.1)
            };
            for earlier in mappings[..i].iter().take(MAX_MAP_LINES) {
                let inside =
                    ((earlier.container_id(), earlier.size()), (mapping.container_id(), mapping.size()));
                if overlaps(inside.0, inside.1) {
                    self.mistake(format_args!("{at}/{i}/containerID"), "overlaps an entry before it");
                    break;
                }
                let outside = ((earlier.host_id(), earlier.size()), (mapping.host_id(), mapping.size()));
                if overlaps(outside.0, outside.1) {
                    self.mistake(format_args!("{at}/{i}/hostID"), "overlaps an entry before it");
                    break;
                }
            }
        }
    }
}
