//! From a profile to what each architecture does with each number; every mistake on the way.
//!
//! [`Rules`] has one element per architecture: for each number an action, or a chain of conditional
//! rules of which the first that holds decides.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as SpecAction, LinuxSeccompArg, LinuxSeccompFilterFlag as SpecFlag,
    LinuxSeccompOperator as SpecOperator,
};

use super::arch::Arch;
use super::multiplex;
use super::table::{self, Name, SLOTS, Slot};
use crate::error::Mistake;

pub(super) const KILL_PROCESS: u32 = 0x8000_0000;
pub(super) const KILL_THREAD: u32 = 0x0000_0000;
pub(super) const TRAP: u32 = 0x0003_0000;
pub(super) const ERRNO: u32 = 0x0005_0000;
pub(super) const NOTIFY: u32 = 0x7fc0_0000;
pub(super) const TRACE: u32 = 0x7ff0_0000;
pub(super) const LOG: u32 = 0x7ffc_0000;
pub(super) const ALLOW: u32 = 0x7fff_0000;

/// The action without its data.
const ACTION: u32 = 0xffff_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// The kernel's MAX_ERRNO: it cuts what is above.
const MAX_ERRNO: u32 = 4095;

const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;
const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// What init may call between loading the filter and the arrival of the notification descriptor at the
/// parent. Nobody could answer a notification then.
const HANDOVER: [&str; 2] = ["write", "sendmsg"];

/// Arguments of a system call.
const ARGUMENTS: usize = 6;

/// What comes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// One action whatever the arguments.
    Action(u32),
    /// Index into [`Rules::chains`].
    Chain(u16),
}

/// How an argument, or its lower half, relates to the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// `argument & mask == value`; equality has a full mask.
    Masked(u64),
    /// `argument > value`, unsigned.
    Greater,
    /// `argument >= value`, unsigned.
    GreaterOrEqual,
}

/// One comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Index of the argument.
    pub argument: u8,
    /// Whether all 64 bits count; else the lower 32 do, and `value` and the mask have no others.
    pub wide: bool,
    /// The relation that must hold.
    pub relation: Relation,
    /// Or, if set, must not.
    pub negated: bool,
    /// What to compare with.
    pub value: u64,
}

/// Conditions of which all must hold, and what happens then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub conditions: Vec<Condition>,
    pub action: u32,
}

/// The conditional rules of one number, in the order of the profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    pub rules: Vec<Rule>,
}

/// What one architecture does.
pub(super) struct Rules {
    pub arch: Arch,
    /// For numbers without an entry, and where no rule of a chain holds.
    pub default: u32,
    /// For numbers above all slots.
    pub beyond: u32,
    pub chains: Vec<Chain>,
    outcomes: Vec<Option<Outcome>>,
    /// The highest number named in the profile, arm's private ones aside.
    newest: Option<Slot>,
}

/// A profile that has been read.
pub(super) struct Resolved {
    /// The native architecture's first.
    pub rules: Vec<Rules>,
    pub flags: u32,
    pub notify: bool,
}

/// Mistakes and warnings as they are found.
#[derive(Default)]
pub(super) struct Findings {
    pub mistakes: Vec<Mistake>,
    pub warnings: Vec<Mistake>,
}

impl Findings {
    fn mistake(&mut self, pointer: String, message: impl Into<String>) {
        let mistake = Mistake { pointer, message: message.into() };
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    fn warn(&mut self, pointer: String, message: impl Into<String>) {
        let warning = Mistake { pointer, message: message.into() };
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

/// Which of two actions lets less happen, in the kernel's own order.
pub(super) fn stricter(a: u32, b: u32) -> bool {
    ((a & ACTION) as i32) < ((b & ACTION) as i32)
}

fn permissive(action: u32) -> bool {
    // Trace among them: a tracer answers for calls that it does not know.
    matches!(action & ACTION, ALLOW | LOG | TRACE)
}

/// The value that a filter returns for `action`.
fn action(
    action: SpecAction,
    errno: Option<u32>,
    pointer: impl FnOnce() -> String,
    findings: &mut Findings,
) -> u32 {
    let (code, limit) = match action {
        SpecAction::ScmpActErrno => (ERRNO, MAX_ERRNO),
        SpecAction::ScmpActTrace => (TRACE, u32::from(u16::MAX)),
        other => {
            if errno.is_some() {
                findings.mistake(
                    pointer(),
                    format!("{other} returns no errno; only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do"),
                );
            }
            return match other {
                SpecAction::ScmpActKillProcess => KILL_PROCESS,
                SpecAction::ScmpActTrap => TRAP,
                SpecAction::ScmpActNotify => NOTIFY,
                SpecAction::ScmpActLog => LOG,
                SpecAction::ScmpActAllow => ALLOW,
                // KILL is the older name of KILL_THREAD.
                _ => KILL_THREAD,
            };
        }
    };
    let errno = errno.unwrap_or(EPERM);
    if errno > limit {
        findings
            .mistake(pointer(), format!("{errno} is above {limit}, the highest that {action} can return"));
    }
    code | (errno & 0xffff)
}

/// Reads `profile`. With a mistake among the `findings`, the result is not to be used.
pub(super) fn resolve(profile: &LinuxSeccomp, native: Arch, findings: &mut Findings) -> Resolved {
    let default = action(
        profile.default_action(),
        profile.default_errno_ret(),
        || "/linux/seccomp/defaultErrnoRet".into(),
        findings,
    );
    if default == NOTIFY {
        findings.mistake(
            "/linux/seccomp/defaultAction".into(),
            "SCMP_ACT_NOTIFY would also stop the calls that hand the notification descriptor over; use it in syscalls",
        );
    }
    let mut rules: Vec<Rules> =
        architectures(profile, native, findings).into_iter().map(|arch| Rules::new(arch, default)).collect();
    let mut notify = false;
    for (entry, syscall) in profile.syscalls().iter().flatten().enumerate() {
        let action = action(
            syscall.action(),
            syscall.errno_ret(),
            || format!("/linux/seccomp/syscalls/{entry}/errnoRet"),
            findings,
        );
        notify |= action == NOTIFY;
        if syscall.names().is_empty() {
            findings
                .mistake(format!("/linux/seccomp/syscalls/{entry}/names"), "at least one name is required");
        }
        let args = syscall.args().as_deref().unwrap_or_default();
        check_args(entry, args, findings);
        for (index, name) in syscall.names().iter().enumerate() {
            let place = Place { entry, name: index };
            if action == NOTIFY && HANDOVER.contains(&name.as_str()) {
                findings.mistake(
                    place.pointer(),
                    format!("SCMP_ACT_NOTIFY on {name} would stop the call that hands the notification descriptor over"),
                );
            }
            let Some(found) = table::find(name) else {
                if name.is_empty() {
                    findings.mistake(place.pointer(), "the name is empty");
                } else {
                    findings.warn(place.pointer(), format!("`{name}` is no system call known here: ignored"));
                }
                continue;
            };
            for (index, rules) in rules.iter_mut().enumerate() {
                rules.add(found, name, args, action, place, index == 0, findings);
            }
        }
    }
    for rules in &mut rules {
        rules.close();
    }
    let flags = flags(profile, notify, findings);
    listener(profile, notify, findings);
    Resolved { rules, flags, notify }
}

/// The architectures of the filter, the native one first: listed or not, it is always among them.
fn architectures(profile: &LinuxSeccomp, native: Arch, findings: &mut Findings) -> Vec<Arch> {
    let mut archs = vec![native];
    for (index, listed) in profile.architectures().iter().flatten().enumerate() {
        match Arch::from_spec(*listed, native) {
            Some(arch) if archs.contains(&arch) => {}
            Some(arch) if native.meets(arch) => archs.push(arch),
            _ => findings.warn(
                format!("/linux/seccomp/architectures/{index}"),
                format!("{} never runs {listed} programs: ignored", native.name()),
            ),
        }
    }
    archs
}

/// `SECCOMP_FILTER_FLAG_*` for the system call.
fn flags(profile: &LinuxSeccomp, notify: bool, findings: &mut Findings) -> u32 {
    // Without the field at all runc sets this one: a filtered process is no more at risk from
    // speculation than another, and the mitigation costs dear.
    let Some(listed) = profile.flags() else { return FLAG_SPEC_ALLOW };
    let mut flags = 0;
    for (index, flag) in listed.iter().enumerate() {
        flags |= match flag {
            SpecFlag::SeccompFilterFlagLog => FLAG_LOG,
            SpecFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
            // The container's process has one thread when it loads the filter, and together with
            // a listener the kernel would refuse it.
            SpecFlag::SeccompFilterFlagTsync => 0,
            SpecFlag::SeccompFilterFlagWaitKillableRecv => {
                if !notify {
                    findings.mistake(
                        format!("/linux/seccomp/flags/{index}"),
                        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs an entry with SCMP_ACT_NOTIFY",
                    );
                }
                FLAG_WAIT_KILLABLE_RECV
            }
        };
    }
    flags
}

fn listener(profile: &LinuxSeccomp, notify: bool, findings: &mut Findings) {
    let path = profile.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
    if notify && path.is_none() {
        findings.mistake(
            "/linux/seccomp/listenerPath".into(),
            "required, since an entry has SCMP_ACT_NOTIFY: the socket of the agent",
        );
    }
    let metadata = profile.listener_metadata().as_ref().is_some_and(|metadata| !metadata.is_empty());
    if metadata && path.is_none() {
        findings.mistake("/linux/seccomp/listenerMetadata".into(), "must not be set without listenerPath");
    }
}

fn check_args(entry: usize, args: &[LinuxSeccompArg], findings: &mut Findings) {
    for (index, arg) in args.iter().enumerate() {
        if arg.index() >= ARGUMENTS {
            findings.mistake(
                format!("/linux/seccomp/syscalls/{entry}/args/{index}/index"),
                format!("{} is no argument: a system call has {ARGUMENTS}, counted from 0", arg.index()),
            );
        }
    }
}

/// Where a name stands in the profile.
#[derive(Clone, Copy)]
struct Place {
    entry: usize,
    name: usize,
}

impl Place {
    fn pointer(self) -> String {
        format!("/linux/seccomp/syscalls/{}/names/{}", self.entry, self.name)
    }
}

impl Rules {
    fn new(arch: Arch, default: u32) -> Rules {
        Rules {
            arch,
            default,
            beyond: default,
            chains: Vec::new(),
            outcomes: vec![None; SLOTS],
            newest: None,
        }
    }

    /// What comes of the number of `slot`.
    pub fn outcome(&self, slot: Slot) -> Outcome {
        self.outcomes[usize::from(slot.0)].unwrap_or(Outcome::Action(self.default))
    }

    /// Adds one name of one entry. Contradictions and lost values are told for `native` alone.
    #[expect(clippy::too_many_arguments)]
    fn add(
        &mut self,
        found: Name,
        name: &str,
        args: &[LinuxSeccompArg],
        action: u32,
        place: Place,
        native: bool,
        findings: &mut Findings,
    ) {
        let slot = found.slot(self.arch);
        let multiplexed = multiplex::of(found, self.arch);
        for slot in slot.into_iter().chain(multiplexed.map(|(slot, _)| slot)) {
            if slot < Slot::PRIVATE {
                self.newest = self.newest.max(Some(slot));
            }
        }
        if action == self.default {
            return;
        }
        if let Some(slot) = slot.filter(|_| args.is_empty()) {
            self.add_rule(slot, Vec::new(), action, name, place, native, findings);
        } else if let Some(slot) = slot {
            let narrow = found.narrow(self.arch);
            let mut never = |arg: usize| {
                if native {
                    findings.warn(
                        format!("/linux/seccomp/syscalls/{}/args/{arg}/value", place.entry),
                        format!(
                            "does not fit argument {} of {name}, which has 32 bits: it compares as a number above them all",
                            args[arg].index()
                        ),
                    );
                }
            };
            let alternatives = alternatives(args, narrow, &mut never);
            for conditions in alternatives {
                self.add_rule(slot, conditions, action, name, place, native, findings);
            }
        }
        if let Some((slot, condition)) = multiplexed {
            // The multiplexed call's arguments are behind a pointer, where no filter can look. What
            // is stricter than the default then counts whatever they are, what is looser never.
            if args.is_empty() || stricter(action, self.default) {
                self.add_rule(slot, vec![condition], action, name, place, false, findings);
            }
        }
    }

    #[expect(clippy::too_many_arguments)]
    fn add_rule(
        &mut self,
        slot: Slot,
        conditions: Vec<Condition>,
        action: u32,
        name: &str,
        place: Place,
        native: bool,
        findings: &mut Findings,
    ) {
        let mut without_effect = |what: &str| {
            if native {
                findings
                    .warn(place.pointer(), format!("{what} for {name} with another action has no effect"));
            }
        };
        let outcome = &mut self.outcomes[usize::from(slot.0)];
        match *outcome {
            Some(Outcome::Action(earlier)) => {
                if earlier != action {
                    without_effect("after an entry without arguments, this one");
                }
            }
            Some(Outcome::Chain(index)) if conditions.is_empty() => {
                if self.chains[usize::from(index)].rules.iter().any(|rule| rule.action != action) {
                    without_effect("with this entry without arguments, an earlier one");
                }
                self.chains[usize::from(index)].rules.clear();
                *outcome = Some(Outcome::Action(action));
            }
            Some(Outcome::Chain(index)) => {
                let rules = &mut self.chains[usize::from(index)].rules;
                match rules.iter().find(|rule| rule.conditions == conditions) {
                    Some(same) if same.action == action => {}
                    Some(_) if native => findings.mistake(
                        place.pointer(),
                        format!("an earlier entry gives {name} another action for the same arguments"),
                    ),
                    Some(_) => {}
                    None => rules.push(Rule { conditions, action }),
                }
            }
            None if conditions.is_empty() => *outcome = Some(Outcome::Action(action)),
            None => {
                // At most one chain a slot.
                *outcome = Some(Outcome::Chain(self.chains.len() as u16));
                self.chains.push(Chain { rules: vec![Rule { conditions, action }] });
            }
        }
    }

    /// Gives ENOSYS to the numbers that the profile cannot have known.
    fn close(&mut self) {
        let Some(newest) = self.newest else { return };
        if permissive(self.default) {
            return;
        }
        let unknown = Outcome::Action(ERRNO | ENOSYS);
        self.beyond = ERRNO | ENOSYS;
        for slot in (0..SLOTS as u16).map(Slot) {
            let newer = slot > newest && slot < Slot::PRIVATE;
            if newer || !slot.assigned(self.arch) {
                self.outcomes[usize::from(slot.0)].get_or_insert(unknown);
            }
        }
    }
}

/// The rules that an entry's arguments stand for: each a list of conditions that must all hold.
///
/// Usually it is one rule; where an index stands twice, each argument is a rule of its own, as in runc.
/// `lost` is told the arguments whose value a 32-bit argument cannot have.
fn alternatives(args: &[LinuxSeccompArg], narrow: u8, lost: &mut dyn FnMut(usize)) -> Vec<Vec<Condition>> {
    let repeated = args.iter().enumerate().any(|(i, arg)| args[..i].iter().any(|a| a.index() == arg.index()));
    let mut rules = Vec::with_capacity(1);
    let mut all = Some(Vec::with_capacity(args.len()));
    for (index, arg) in args.iter().enumerate() {
        // Too high an index is a mistake already told.
        let wide = narrow >> arg.index().min(ARGUMENTS) & 1 == 0;
        let truth = condition(arg, wide, &mut || lost(index));
        if repeated {
            match truth {
                Truth::Always => rules.push(Vec::new()),
                Truth::Never => {}
                Truth::If(condition) => rules.push(vec![condition]),
            }
        } else {
            match (truth, &mut all) {
                (Truth::If(condition), Some(all)) => all.push(condition),
                (Truth::Never, _) => all = None,
                _ => {}
            }
        }
    }
    if !repeated {
        rules.extend(all);
    }
    rules
}

/// What a comparison comes to once the width of the argument is known.
enum Truth {
    Always,
    Never,
    If(Condition),
}

fn condition(arg: &LinuxSeccompArg, wide: bool, lost: &mut dyn FnMut()) -> Truth {
    let max = if wide { u64::MAX } else { u64::from(u32::MAX) };
    // The value as the argument can have it; a negative one has been extended with ones.
    let fit = |value: u64| (value <= max || value as i32 as u64 == value).then_some(value & max);
    let known = |holds| if holds { Truth::Always } else { Truth::Never };
    let operator = arg.op();
    let (mask, value) = match operator {
        SpecOperator::ScmpCmpMaskedEq => (arg.value(), arg.value_two().unwrap_or(0) & arg.value()),
        _ => (u64::MAX, arg.value()),
    };
    let Some(value) = fit(value) else {
        lost();
        return known(matches!(
            operator,
            SpecOperator::ScmpCmpNe | SpecOperator::ScmpCmpLt | SpecOperator::ScmpCmpLe
        ));
    };
    let mask = mask & max;
    let (relation, negated) = match operator {
        SpecOperator::ScmpCmpEq | SpecOperator::ScmpCmpMaskedEq if mask == 0 => return Truth::Always,
        SpecOperator::ScmpCmpEq | SpecOperator::ScmpCmpMaskedEq => (Relation::Masked(mask), false),
        SpecOperator::ScmpCmpNe => (Relation::Masked(mask), true),
        SpecOperator::ScmpCmpGt if value == max => return Truth::Never,
        SpecOperator::ScmpCmpGt => (Relation::Greater, false),
        SpecOperator::ScmpCmpLe if value == max => return Truth::Always,
        SpecOperator::ScmpCmpLe => (Relation::Greater, true),
        SpecOperator::ScmpCmpGe if value == 0 => return Truth::Always,
        SpecOperator::ScmpCmpGe => (Relation::GreaterOrEqual, false),
        SpecOperator::ScmpCmpLt if value == 0 => return Truth::Never,
        SpecOperator::ScmpCmpLt => (Relation::GreaterOrEqual, true),
    };
    Truth::If(Condition { argument: arg.index() as u8, wide, relation, negated, value: value & mask })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_order_of_actions() {
        let order = [KILL_PROCESS, KILL_THREAD, TRAP, ERRNO | 7, NOTIFY, TRACE, LOG, ALLOW];
        for pair in order.windows(2) {
            assert!(stricter(pair[0], pair[1]) && !stricter(pair[1], pair[0]));
        }
    }
}
