//! The option strings of `mounts[].options`: one table, its parser, and the names that `features` prints.
//!
//! The parser only sorts: every string is either known here or is data for the filesystem. What a kind of
//! mount then does with the result (a bind mount has no data, a remount no source) is the mount code's part.
//! Specification: config.md, "Linux mount options"; constants: `linux/mount.h`.

/// The mount is read-only.
pub const MOUNT_ATTR_RDONLY: u64 = 0x01;
/// Set-user-id bits and file capabilities have no effect.
pub const MOUNT_ATTR_NOSUID: u64 = 0x02;
/// Device nodes cannot be opened.
pub const MOUNT_ATTR_NODEV: u64 = 0x04;
/// Programs cannot be executed.
pub const MOUNT_ATTR_NOEXEC: u64 = 0x08;
/// Mask of the access time setting, which is one value and not a set of bits; `mount_setattr(2)` demands all
/// of it in `attr_clr` when any of it changes.
pub const MOUNT_ATTR_ATIME: u64 = 0x70;
/// Access times are updated relative to modification times (the kernel's default, no bit).
pub const MOUNT_ATTR_RELATIME: u64 = 0x00;
/// Access times are never updated.
pub const MOUNT_ATTR_NOATIME: u64 = 0x10;
/// Access times are always updated.
pub const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
/// Access times of directories are not updated.
pub const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
/// The mount has an id mapping.
pub const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
/// Symbolic links on the mount are not followed.
pub const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;

/// Superblock flag: the filesystem itself is read-only.
pub const SB_RDONLY: u64 = 1;
/// Superblock flag: writes are synchronous.
pub const SB_SYNCHRONOUS: u64 = 1 << 4;
/// Superblock flag: mandatory locks (gone from the kernel since 5.15).
pub const SB_MANDLOCK: u64 = 1 << 6;
/// Superblock flag: directory changes are synchronous.
pub const SB_DIRSYNC: u64 = 1 << 7;
/// Superblock flag: fewer kernel messages about a mount that fails. Only `mount(2)` can pass it.
pub const SB_SILENT: u64 = 1 << 15;
/// Superblock flag: count inode versions. Only `mount(2)` can pass it.
pub const SB_I_VERSION: u64 = 1 << 23;
/// Superblock flag: times are kept in memory and written later.
pub const SB_LAZYTIME: u64 = 1 << 25;

/// Propagation type, as `mount_attr.propagation` takes it: unbindable.
pub const MS_UNBINDABLE: u64 = 1 << 17;
/// Propagation type: private.
pub const MS_PRIVATE: u64 = 1 << 18;
/// Propagation type: slave.
pub const MS_SLAVE: u64 = 1 << 19;
/// Propagation type: shared.
pub const MS_SHARED: u64 = 1 << 20;

/// Whether something holds for one mount or for all mounts below it as well (`AT_RECURSIVE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This mount only.
    Mount,
    /// This mount and every one below it.
    Tree,
}

/// One change of propagation, applied in the order of the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// One of [`MS_SHARED`], [`MS_SLAVE`], [`MS_PRIVATE`], [`MS_UNBINDABLE`].
    pub kind: u64,
    /// Where it holds.
    pub reach: Reach,
}

/// The options of one mount, sorted by who takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedOptions {
    /// `MOUNT_ATTR_*` to set on this mount.
    pub attr_set: u64,
    /// `MOUNT_ATTR_*` that an option asked to clear on this mount; includes [`MOUNT_ATTR_ATIME`] whenever an
    /// option named an access time setting. A new mount starts with none, so this counts for bind mounts.
    pub attr_clear: u64,
    /// `MOUNT_ATTR_*` to set on this mount and all below it.
    pub recursive_set: u64,
    /// `MOUNT_ATTR_*` to clear on this mount and all below it.
    pub recursive_clear: u64,
    /// `SB_*` to set on the superblock of a new filesystem.
    pub sb_set: u64,
    /// `SB_*` that an option asked to clear.
    pub sb_clear: u64,
    /// Changes of propagation, in order; they come after everything else of the mount.
    pub propagation: Vec<Propagation>,
    /// A bind mount, by `bind` or `rbind`.
    pub bind: Option<Reach>,
    /// Change the existing mount at the destination instead of making one.
    pub remount: bool,
    /// Apply an id mapping (`idmap`, `ridmap`).
    pub idmap: Option<Reach>,
    /// Copy what the image has at the destination into the new tmpfs.
    pub tmpcopyup: bool,
    /// What is left for the filesystem: key and value, or a bare key.
    pub data: Vec<(String, Option<String>)>,
}

impl ParsedOptions {
    /// The superblock flags of a new filesystem by the names that `fsconfig(FSCONFIG_SET_FLAG)` knows. The
    /// three flags without such a name ([`SB_SILENT`], [`SB_I_VERSION`] and clearing them) have no effect there.
    pub fn superblock_flags(&self) -> impl Iterator<Item = &'static str> {
        const NAMES: &[(u64, &str)] = &[
            (SB_RDONLY, "ro"),
            (SB_SYNCHRONOUS, "sync"),
            (SB_DIRSYNC, "dirsync"),
            (SB_MANDLOCK, "mand"),
            (SB_LAZYTIME, "lazytime"),
        ];
        let set = self.sb_set;
        NAMES.iter().filter(move |(flag, _)| set & flag != 0).map(|&(_, name)| name)
    }

    /// Whether the mount wants any change of attributes, so that a bind mount without one can do without
    /// `mount_setattr(2)`.
    pub fn changes_attributes(&self) -> bool {
        self.attr_set | self.attr_clear | self.recursive_set | self.recursive_clear != 0
    }
}

#[derive(Clone, Copy)]
enum Meaning {
    /// `defaults`: nothing.
    Nothing,
    /// Attribute of this mount, set.
    Attr(u64),
    /// Attribute of this mount, cleared.
    NoAttr(u64),
    /// Access time setting of this mount.
    Atime(u64),
    /// Back to the default, if the setting is this one.
    NoAtime(u64),
    RecAttr(u64),
    RecNoAttr(u64),
    RecAtime(u64),
    RecNoAtime(u64),
    Sb(u64),
    NoSb(u64),
    Propagation(u64, Reach),
    Bind(Reach),
    Idmap(Reach),
    Remount,
    Tmpcopyup,
}

use Meaning as M;

/// Every option string that is not left to the filesystem, sorted by name (looked up by binary search).
const TABLE: &[(&str, Meaning)] = &[
    ("async", M::NoSb(SB_SYNCHRONOUS)),
    ("atime", M::NoAtime(MOUNT_ATTR_NOATIME)),
    ("bind", M::Bind(Reach::Mount)),
    ("defaults", M::Nothing),
    ("dev", M::NoAttr(MOUNT_ATTR_NODEV)),
    ("diratime", M::NoAttr(MOUNT_ATTR_NODIRATIME)),
    ("dirsync", M::Sb(SB_DIRSYNC)),
    ("exec", M::NoAttr(MOUNT_ATTR_NOEXEC)),
    ("idmap", M::Idmap(Reach::Mount)),
    ("iversion", M::Sb(SB_I_VERSION)),
    ("lazytime", M::Sb(SB_LAZYTIME)),
    ("loud", M::NoSb(SB_SILENT)),
    ("mand", M::Sb(SB_MANDLOCK)),
    ("noatime", M::Atime(MOUNT_ATTR_NOATIME)),
    ("nodev", M::Attr(MOUNT_ATTR_NODEV)),
    ("nodiratime", M::Attr(MOUNT_ATTR_NODIRATIME)),
    ("noexec", M::Attr(MOUNT_ATTR_NOEXEC)),
    ("noiversion", M::NoSb(SB_I_VERSION)),
    ("nolazytime", M::NoSb(SB_LAZYTIME)),
    ("nomand", M::NoSb(SB_MANDLOCK)),
    ("norelatime", M::NoAtime(MOUNT_ATTR_RELATIME)),
    ("nostrictatime", M::NoAtime(MOUNT_ATTR_STRICTATIME)),
    ("nosuid", M::Attr(MOUNT_ATTR_NOSUID)),
    ("nosymfollow", M::Attr(MOUNT_ATTR_NOSYMFOLLOW)),
    ("private", M::Propagation(MS_PRIVATE, Reach::Mount)),
    ("ratime", M::RecNoAtime(MOUNT_ATTR_NOATIME)),
    ("rbind", M::Bind(Reach::Tree)),
    ("rdev", M::RecNoAttr(MOUNT_ATTR_NODEV)),
    ("rdiratime", M::RecNoAttr(MOUNT_ATTR_NODIRATIME)),
    ("relatime", M::Atime(MOUNT_ATTR_RELATIME)),
    ("remount", M::Remount),
    ("rexec", M::RecNoAttr(MOUNT_ATTR_NOEXEC)),
    ("ridmap", M::Idmap(Reach::Tree)),
    ("rnoatime", M::RecAtime(MOUNT_ATTR_NOATIME)),
    ("rnodev", M::RecAttr(MOUNT_ATTR_NODEV)),
    ("rnodiratime", M::RecAttr(MOUNT_ATTR_NODIRATIME)),
    ("rnoexec", M::RecAttr(MOUNT_ATTR_NOEXEC)),
    ("rnorelatime", M::RecNoAtime(MOUNT_ATTR_RELATIME)),
    ("rnostrictatime", M::RecNoAtime(MOUNT_ATTR_STRICTATIME)),
    ("rnosuid", M::RecAttr(MOUNT_ATTR_NOSUID)),
    ("rnosymfollow", M::RecAttr(MOUNT_ATTR_NOSYMFOLLOW)),
    ("ro", M::Sb(SB_RDONLY)),
    ("rprivate", M::Propagation(MS_PRIVATE, Reach::Tree)),
    ("rrelatime", M::RecAtime(MOUNT_ATTR_RELATIME)),
    ("rro", M::RecAttr(MOUNT_ATTR_RDONLY)),
    ("rrw", M::RecNoAttr(MOUNT_ATTR_RDONLY)),
    ("rshared", M::Propagation(MS_SHARED, Reach::Tree)),
    ("rslave", M::Propagation(MS_SLAVE, Reach::Tree)),
    ("rstrictatime", M::RecAtime(MOUNT_ATTR_STRICTATIME)),
    ("rsuid", M::RecNoAttr(MOUNT_ATTR_NOSUID)),
    ("rsymfollow", M::RecNoAttr(MOUNT_ATTR_NOSYMFOLLOW)),
    ("runbindable", M::Propagation(MS_UNBINDABLE, Reach::Tree)),
    ("rw", M::NoSb(SB_RDONLY)),
    ("shared", M::Propagation(MS_SHARED, Reach::Mount)),
    ("silent", M::Sb(SB_SILENT)),
    ("slave", M::Propagation(MS_SLAVE, Reach::Mount)),
    ("strictatime", M::Atime(MOUNT_ATTR_STRICTATIME)),
    ("suid", M::NoAttr(MOUNT_ATTR_NOSUID)),
    ("symfollow", M::NoAttr(MOUNT_ATTR_NOSYMFOLLOW)),
    ("sync", M::Sb(SB_SYNCHRONOUS)),
    ("tmpcopyup", M::Tmpcopyup),
    ("unbindable", M::Propagation(MS_UNBINDABLE, Reach::Mount)),
];

/// The names of all options that have a meaning of their own, sorted, as `features` lists them.
pub fn known() -> impl ExactSizeIterator<Item = &'static str> {
    TABLE.iter().map(|&(name, _)| name)
}

/// Whether `option` is one that the runtime takes for itself.
pub fn is_known(option: &str) -> bool {
    TABLE.binary_search_by_key(&option, |&(name, _)| name).is_ok()
}

fn set(flags: u64, to_set: &mut u64, to_clear: &mut u64) {
    *to_set |= flags;
    *to_clear &= !flags;
}

fn clear(flags: u64, to_set: &mut u64, to_clear: &mut u64) {
    *to_set &= !flags;
    *to_clear |= flags;
}

fn set_atime(value: u64, to_set: &mut u64, to_clear: &mut u64) {
    *to_set = (*to_set & !MOUNT_ATTR_ATIME) | value;
    *to_clear |= MOUNT_ATTR_ATIME;
}

fn unset_atime(value: u64, to_set: &mut u64, to_clear: &mut u64) {
    if *to_set & MOUNT_ATTR_ATIME == value {
        *to_set &= !MOUNT_ATTR_ATIME;
    }
    *to_clear |= MOUNT_ATTR_ATIME;
}

/// Sorts the options of a mount. A later option wins over an earlier one that says the opposite. An unknown
/// one becomes data for the filesystem, split at commas as the kernel itself would split it (not inside double
/// quotes, which security labels use, nor after a backslash, which overlayfs uses).
pub fn parse<S: AsRef<str>>(options: &[S]) -> ParsedOptions {
    let mut parsed = ParsedOptions::default();
    let o = &mut parsed;
    for option in options {
        let option = option.as_ref();
        let Ok(found) = TABLE.binary_search_by_key(&option, |&(name, _)| name) else {
            push_data(option, &mut o.data);
            continue;
        };
        match TABLE[found].1 {
            M::Nothing => {}
            M::Attr(flag) => set(flag, &mut o.attr_set, &mut o.attr_clear),
            M::NoAttr(flag) => clear(flag, &mut o.attr_set, &mut o.attr_clear),
            M::Atime(value) => set_atime(value, &mut o.attr_set, &mut o.attr_clear),
            M::NoAtime(value) => unset_atime(value, &mut o.attr_set, &mut o.attr_clear),
            M::RecAttr(flag) => set(flag, &mut o.recursive_set, &mut o.recursive_clear),
            M::RecNoAttr(flag) => clear(flag, &mut o.recursive_set, &mut o.recursive_clear),
            M::RecAtime(value) => set_atime(value, &mut o.recursive_set, &mut o.recursive_clear),
            M::RecNoAtime(value) => unset_atime(value, &mut o.recursive_set, &mut o.recursive_clear),
            M::Sb(flag) => {
                set(flag, &mut o.sb_set, &mut o.sb_clear);
                // `ro` is the one word that means the superblock and the mount, as in mount(2).
                if flag == SB_RDONLY {
                    set(MOUNT_ATTR_RDONLY, &mut o.attr_set, &mut o.attr_clear);
                }
            }
            M::NoSb(flag) => {
                clear(flag, &mut o.sb_set, &mut o.sb_clear);
                if flag == SB_RDONLY {
                    clear(MOUNT_ATTR_RDONLY, &mut o.attr_set, &mut o.attr_clear);
                }
            }
            M::Propagation(kind, reach) => o.propagation.push(Propagation { kind, reach }),
            M::Bind(reach) => o.bind = Some(reach),
            M::Idmap(reach) => o.idmap = Some(reach),
            M::Remount => o.remount = true,
            M::Tmpcopyup => o.tmpcopyup = true,
        }
    }
    parsed
}

fn push_data(option: &str, data: &mut Vec<(String, Option<String>)>) {
    let (mut quoted, mut escaped) = (false, false);
    let parts = option.split(|c: char| {
        let literal = escaped;
        escaped = c == '\\' && !literal;
        if c == '"' && !literal {
            quoted = !quoted;
        }
        c == ',' && !quoted && !literal
    });
    for part in parts.filter(|part| !part.is_empty()) {
        let pair = match part.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (part.to_owned(), None),
        };
        data.push(pair);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: &str, value: &str) -> (String, Option<String>) {
        (key.to_owned(), Some(value.to_owned()))
    }

    #[test]
    fn table_is_sorted() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn every_option_of_the_specification_is_known() {
        let names = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime \
            nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow \
            private ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodiratime rnoexec \
            rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave \
            rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync \
            tmpcopyup unbindable idmap ridmap rnodev";
        for name in names.split_whitespace() {
            assert!(is_known(name), "{name}");
            assert!(parse(&[name]).data.is_empty(), "{name}");
        }
        assert!(!is_known("size=1"));
    }

    #[test]
    fn dev_of_docker() {
        let o = parse(&["nosuid", "strictatime", "mode=755", "size=65536k"]);
        assert_eq!(o.attr_set, MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME);
        assert_eq!(o.data, [value("mode", "755"), value("size", "65536k")]);
        assert_eq!(o.bind, None);
    }

    #[test]
    fn the_later_of_two_opposites_wins() {
        let o = parse(&["ro", "rw", "nosuid", "suid", "noexec"]);
        assert_eq!((o.attr_set, o.attr_clear), (MOUNT_ATTR_NOEXEC, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID));
        assert_eq!((o.sb_set, o.sb_clear), (0, SB_RDONLY));
        let o = parse(&["rrw", "rro"]);
        assert_eq!((o.recursive_set, o.recursive_clear), (MOUNT_ATTR_RDONLY, 0));
        assert_eq!(o.attr_set, 0);
    }

    #[test]
    fn access_time_is_one_value() {
        let o = parse(&["noatime", "strictatime"]);
        assert_eq!((o.attr_set, o.attr_clear), (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME));
        let o = parse(&["noatime", "atime"]);
        assert_eq!((o.attr_set, o.attr_clear), (0, MOUNT_ATTR_ATIME));
        // Takes back strictatime only, which was not set.
        let o = parse(&["rnoatime", "rnostrictatime", "rnodiratime"]);
        assert_eq!(o.recursive_set, MOUNT_ATTR_NOATIME | MOUNT_ATTR_NODIRATIME);
        assert_eq!(o.recursive_clear, MOUNT_ATTR_ATIME);
    }

    #[test]
    fn bind_and_propagation_in_order() {
        let o = parse(&["rbind", "rslave", "shared", "ro"]);
        assert_eq!(o.bind, Some(Reach::Tree));
        let kinds: Vec<_> = o.propagation.iter().map(|p| (p.kind, p.reach)).collect();
        assert_eq!(kinds, [(MS_SLAVE, Reach::Tree), (MS_SHARED, Reach::Mount)]);
        assert!(o.changes_attributes());
        assert!(!parse(&["rbind", "rprivate"]).changes_attributes());
    }

    #[test]
    fn data_is_split_as_the_kernel_would() {
        let o =
            parse(&["size=1k,mode=700", "newinstance", "context=\"a,b\"", r"lowerdir=/x\,y:/z", "", ",,"]);
        assert_eq!(
            o.data,
            [
                value("size", "1k"),
                value("mode", "700"),
                ("newinstance".to_owned(), None),
                value("context", "\"a,b\""),
                value("lowerdir", r"/x\,y:/z"),
            ]
        );
    }

    #[test]
    fn superblock_flags_by_name() {
        let o = parse(&["ro", "dirsync", "silent", "lazytime", "sync", "async"]);
        assert_eq!(o.superblock_flags().collect::<Vec<_>>(), ["ro", "dirsync", "lazytime"]);
    }
}
