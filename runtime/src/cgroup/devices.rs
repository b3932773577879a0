//! Which devices a container may use: the rules of `linux.resources.devices` as an eBPF program (v2) or as entries of
//! `devices.allow` and `devices.deny` (v1).
//!
//! Rules apply in order and the last that matches wins, for each of read, write and mknod by itself. The devices that
//! every container has are allowed after all of them, as in runc.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use rustix::fs::OFlags;

use crate::error::Mistake;

use super::file::{Dir, write_all_at_once};
use super::sys::{self, Instruction};
use super::{Cgroup, Error, Group, Version, is_refusal};

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Block,
    Char,
}

/// A device or a family of them; `None` stands for every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    devices: Match,
    access: u8,
    allow: bool,
}

/// A compiled device policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// What holds where no rule matches.
    default_allow: bool,
    /// In the order of the configuration; none has a later one that makes it pointless.
    rules: Vec<Rule>,
    /// The exceptions from the default as v1 keeps them; not used on v2.
    exceptions: BTreeMap<Match, u8>,
}

/// What every container may use: mknod of anything (the node is then useless), and null, zero, full, random, urandom, tty,
/// ptmx, the pseudoterminals and net/tun.
const DEFAULT: [(Kind, Option<u32>, Option<u32>, u8); 11] = [
    (Kind::Char, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Char, Some(1), Some(3), ALL),
    (Kind::Char, Some(1), Some(8), ALL),
    (Kind::Char, Some(1), Some(7), ALL),
    (Kind::Char, Some(5), Some(0), ALL),
    (Kind::Char, Some(1), Some(5), ALL),
    (Kind::Char, Some(1), Some(9), ALL),
    (Kind::Char, Some(136), None, ALL),
    (Kind::Char, Some(5), Some(2), ALL),
    (Kind::Char, Some(10), Some(200), ALL),
];

impl Policy {
    /// Compiles the rules of a container, starting from "nothing is allowed".
    ///
    /// # Errors
    /// Every rule that is malformed, and on v1 those that v1 cannot express: an exception from a wildcard.
    pub(super) fn compile(rules: &[LinuxDeviceCgroup], version: Version) -> Result<Policy, Vec<Mistake>> {
        let mut policy = Policy { default_allow: false, rules: Vec::new(), exceptions: BTreeMap::new() };
        let mut mistakes = Vec::new();
        for (i, rule) in rules.iter().enumerate() {
            let pointer = |field: &str| format!("/linux/resources/devices/{i}{field}");
            let access = match parse_access(rule.access().as_deref().unwrap_or_default()) {
                Some(access) => access,
                None => {
                    mistakes.push(Mistake::new(pointer("/access"), "is not a combination of r, w and m"));
                    continue;
                }
            };
            let kind = match rule.typ() {
                None | Some(LinuxDeviceType::A) => {
                    policy.default_allow = rule.allow();
                    policy.rules.clear();
                    policy.exceptions.clear();
                    continue;
                }
                Some(LinuxDeviceType::B) => Kind::Block,
                Some(LinuxDeviceType::C) => Kind::Char,
                Some(_) => {
                    mistakes.push(Mistake::new(pointer("/type"), "is not a, b or c"));
                    continue;
                }
            };
            let mut number = |value: Option<i64>, field: &str| match value {
                None | Some(-1) => None,
                Some(n) => u32::try_from(n).map(Some).unwrap_or_else(|_| {
                    mistakes.push(Mistake::new(pointer(field), format!("{n} is not a device number")));
                    None
                }),
            };
            let devices =
                Match { kind, major: number(rule.major(), "/major"), minor: number(rule.minor(), "/minor") };
            let rule = Rule { devices, access, allow: rule.allow() };
            if version != Version::V2 {
                if let Err(message) = policy.except(rule) {
                    mistakes.push(Mistake::new(pointer(""), message));
                }
            }
            policy.rules.push(rule);
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        for (kind, major, minor, access) in DEFAULT {
            let rule = Rule { devices: Match { kind, major, minor }, access, allow: true };
            policy.rules.push(rule);
            if version != Version::V2 {
                // Only a "deny" rule can be impossible where the default is "deny"; where it is "allow", an exception
                // for a whole family that one of these is a member of stays what the configuration asked for.
                let _ = policy.except(rule);
            }
        }
        policy.drop_pointless();
        Ok(policy)
    }

    /// Brings one rule into the list of exceptions that v1 keeps.
    fn except(&mut self, rule: Rule) -> Result<(), String> {
        let Match { kind, major, minor } = rule.devices;
        if rule.allow != self.default_allow {
            *self.exceptions.entry(rule.devices).or_default() |= rule.access;
            return Ok(());
        }
        // The kernel ignores an exception from an exception without a word.
        for wider in [(None, minor), (major, None), (None, None)] {
            let wider = Match { kind, major: wider.0, minor: wider.1 };
            let overlap = self.exceptions.get(&wider).is_some_and(|a| a & rule.access != 0);
            if wider != rule.devices && overlap {
                return Err(format!(
                    "cgroup v1 cannot make an exception ({}) from a wildcard ({})",
                    entry(rule.devices, rule.access),
                    entry(wider, ALL)
                ));
            }
        }
        if let Some(access) = self.exceptions.get_mut(&rule.devices) {
            *access &= !rule.access;
            if *access == 0 {
                self.exceptions.remove(&rule.devices);
            }
        }
        Ok(())
    }

    /// Drops rules whose whole effect a later rule for the same devices takes back or repeats.
    fn drop_pointless(&mut self) {
        let all = std::mem::take(&mut self.rules);
        self.rules = all
            .iter()
            .enumerate()
            .filter(|(i, rule)| {
                !all[i + 1..]
                    .iter()
                    .any(|later| later.devices == rule.devices && later.access & rule.access == rule.access)
            })
            .map(|(_, rule)| *rule)
            .collect();
    }

    /// Whether every access to every device is allowed.
    pub(super) fn allows_all(&self) -> bool {
        self.default_allow && self.rules.iter().all(|rule| rule.allow)
    }

    /// The devices that are allowed, each with its access, where that is all there is to the policy: what systemd can
    /// express. `None` if there are rules that deny, or allow a minor number of every driver.
    pub(super) fn allow_list(&self) -> Option<Vec<(String, String)>> {
        if self.default_allow || self.rules.iter().any(|rule| !rule.allow) {
            return None;
        }
        let mut merged: BTreeMap<Match, u8> = BTreeMap::new();
        for rule in &self.rules {
            *merged.entry(rule.devices).or_default() |= rule.access;
        }
        let mut list = Vec::with_capacity(merged.len());
        for (devices, access) in merged {
            let kind = if devices.kind == Kind::Char { "char" } else { "block" };
            let node = match (devices.major, devices.minor) {
                (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
                (Some(major), None) => format!("{kind}-{major}"),
                (None, None) => format!("{kind}-*"),
                (None, Some(_)) => return None,
            };
            list.push((node, access_text(access)));
        }
        Some(list)
    }

    /// The program: 1 in r0 lets an access pass, 0 refuses it.
    ///
    /// It walks the rules from the last to the first with the accesses that are still undecided in r3. A deny rule that
    /// matches any of them refuses; an allow rule takes its own away, and when none is left, the access passes.
    fn program(&self) -> Vec<Instruction> {
        let mut program = Vec::with_capacity(8 + self.rules.len() * 7);
        let mut op = |code: u8, registers: u8, offset: i16, immediate: u32| {
            program.push(Instruction { code, registers, offset, immediate: immediate as i32 });
        };
        // struct bpf_cgroup_dev_ctx { u32 access_type (access << 16 | type); u32 major; u32 minor; }
        op(LOAD, 0x12, 0, 0);
        op(AND, 2, 0, 0xffff);
        op(LOAD, 0x13, 0, 0);
        op(SHIFT_RIGHT, 3, 0, 16);
        op(LOAD, 0x14, 4, 0);
        op(LOAD, 0x15, 8, 0);
        for rule in self.rules.iter().rev() {
            let verdict: &[(u8, u8, i16, u32)] = match (rule.allow, rule.access) {
                (allow, ALL) => &[(MOVE, 0, 0, allow as u32), (EXIT, 0, 0, 0)],
                (true, access) => &[
                    (AND, 3, 0, u32::from(ALL & !access)),
                    (IF_NOT_EQUAL, 3, 2, 0),
                    (MOVE, 0, 0, 1),
                    (EXIT, 0, 0, 0),
                ],
                (false, access) => {
                    &[(IF_ANY, 3, 1, u32::from(access)), (JUMP, 0, 2, 0), (MOVE, 0, 0, 0), (EXIT, 0, 0, 0)]
                }
            };
            let kind = match rule.devices.kind {
                Kind::Block => 1,
                Kind::Char => 2,
            };
            let tests = [(2, Some(kind)), (4, rule.devices.major), (5, rule.devices.minor)];
            let mut left = tests.iter().filter(|t| t.1.is_some()).count();
            for (register, value) in tests {
                if let Some(value) = value {
                    left -= 1;
                    op(IF_NOT_EQUAL, register, (left + verdict.len()) as i16, value);
                }
            }
            for &(code, registers, offset, immediate) in verdict {
                op(code, registers, offset, immediate);
            }
        }
        op(MOVE, 0, 0, self.default_allow as u32);
        op(EXIT, 0, 0, 0);
        program
    }
}

// Opcodes of eBPF. All arithmetic and comparison is on 32 bits, so that numbers above 2^31 are not sign-extended.
const LOAD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xb4;
const JUMP: u8 = 0x05;
const IF_ANY: u8 = 0x46;
const IF_NOT_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

fn parse_access(text: &str) -> Option<u8> {
    let bits = text.bytes().map(|b| match b {
        b'r' => READ,
        b'w' => WRITE,
        b'm' => MKNOD,
        _ => 0,
    });
    bits.reduce(|all, bit| if bit == 0 || all == 0 { 0 } else { all | bit }).filter(|&access| access != 0)
}

fn access_text(access: u8) -> String {
    [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
        .iter()
        .filter(|(bit, _)| access & bit != 0)
        .map(|(_, c)| c)
        .collect()
}

/// An entry in the format of v1's `devices.allow`.
fn entry(devices: Match, access: u8) -> String {
    let mut text = String::from(if devices.kind == Kind::Char { "c " } else { "b " });
    for (number, end) in [(devices.major, ':'), (devices.minor, ' ')] {
        match number {
            Some(n) => {
                let _ = write!(text, "{n}");
            }
            None => text.push('*'),
        }
        text.push(end);
    }
    text + &access_text(access)
}

/// Reads v1's `devices.list`: `None` where everything is allowed (or all but what the file does not say).
fn parse_list(text: &str) -> Option<BTreeMap<Match, u8>> {
    let mut list = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split([' ', ':']);
        let kind = match fields.next()? {
            "c" => Kind::Char,
            "b" => Kind::Block,
            _ => return None,
        };
        let mut number = || match fields.next()? {
            "*" => Some(None),
            n => n.parse().ok().map(Some),
        };
        let devices = Match { kind, major: number()?, minor: number()? };
        *list.entry(devices).or_default() |= parse_access(fields.next()?)?;
    }
    Some(list)
}

impl Cgroup {
    /// Makes the device access of the container what `policy` says.
    pub(super) fn restrict_devices(&self, policy: &Policy) -> Result<(), Error> {
        let Some(group) = self.group("devices") else {
            return match self.location.rootless {
                true => Ok(()),
                false => Err(Error::Unavailable { controller: "devices" }),
            };
        };
        let result = match self.location.version {
            Version::V2 => filter_v2(group, policy),
            Version::V1 | Version::Hybrid => list_v1(group, policy),
        };
        match result {
            // Without rights over devices a user cannot be given more of them either.
            Err(Error::DeviceFilter { source, .. } | Error::Limit { source, .. })
                if self.location.rootless && is_refusal(&source) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}

fn filter_v2(group: &Group, policy: &Policy) -> Result<(), Error> {
    let fail = |action: &'static str| {
        let path = group.dir.path().to_path_buf();
        move |source: io::Error| Error::DeviceFilter { action, path, source }
    };
    if group.fresh && policy.allows_all() {
        return Ok(());
    }
    let fd = group.dir.fd().ok_or_else(|| fail("attach")(io::ErrorKind::NotFound.into()))?;
    let old = match group.fresh {
        true => Vec::new(),
        false => sys::attached(fd).map_err(fail("query"))?,
    };
    if !policy.allows_all() {
        let program = sys::load(&policy.program()).map_err(fail("load"))?;
        let program = sys::borrow(&program);
        if let [only] = &old[..] {
            match sys::attach(fd, program, Some(sys::borrow(only))) {
                Ok(()) => return Ok(()),
                // Kernels before 5.6 cannot replace, and a program attached otherwise than ours cannot be.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                Err(e) => return Err(fail("replace")(e)),
            }
        }
        // For a moment both hold: an access has to pass each.
        sys::attach(fd, program, None).map_err(fail("attach"))?;
    }
    old.iter().try_for_each(|old| sys::detach(fd, sys::borrow(old))).map_err(fail("detach"))
}

fn list_v1(group: &Group, policy: &Policy) -> Result<(), Error> {
    let dir = &group.dir;
    let files = ["devices.deny", "devices.allow"];
    let write = |allow: bool, entries: &[String]| -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        let name = files[usize::from(allow)];
        let fail = |value: &str, source: io::Error| Error::Limit {
            pointer: "/linux/resources/devices".to_owned(),
            value: value.to_owned(),
            path: dir.path().join(name),
            source,
        };
        let file = dir.open_file(name, OFlags::WRONLY).map_err(|e| fail("", e))?;
        entries.iter().try_for_each(|entry| write_all_at_once(&file, entry).map_err(|e| fail(entry, e)))
    };
    let current = match group.fresh || policy.default_allow {
        true => None,
        false => parse_list(&list_of(dir)?),
    };
    let Some(current) = current else {
        let exceptions: Vec<String> = policy.exceptions.iter().map(|(d, a)| entry(*d, *a)).collect();
        write(policy.default_allow, &["a".to_owned()])?;
        return write(!policy.default_allow, &exceptions);
    };
    // A running container never loses what it keeps, not even for a moment.
    let difference = |from: &BTreeMap<Match, u8>, other: &BTreeMap<Match, u8>| -> Vec<String> {
        from.iter()
            .map(|(d, a)| (d, a & !other.get(d).copied().unwrap_or(0)))
            .filter(|(_, access)| *access != 0)
            .map(|(d, access)| entry(*d, access))
            .collect()
    };
    write(true, &difference(&policy.exceptions, &current))?;
    write(false, &difference(&current, &policy.exceptions))
}

fn list_of(dir: &Dir) -> Result<String, Error> {
    dir.read("devices.list").map_err(|source| Error::Read { path: dir.path().join("devices.list"), source })
}

#[cfg(test)]
mod tests;
