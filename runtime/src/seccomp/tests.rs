//! The compiler against a model that reads the profile afresh for each call.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator as Op};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::evaluate::{Call, Raw, check, evaluate};
use super::table::{self, SLOTS, Slot};
use super::*;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0;

fn profile(value: Value) -> LinuxSeccomp {
    serde_json::from_value(value).expect("a profile")
}

fn raw(program: &Program) -> Vec<Raw> {
    let raw: Vec<_> = program.instructions.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
    check(&raw).expect("the kernel takes the program");
    raw
}

fn compiled(value: Value, native: Arch) -> Vec<Raw> {
    raw(&compile(&profile(value), native).expect("compiles").program)
}

fn mistakes(value: Value) -> Vec<String> {
    let mistakes = compile(&profile(value), Arch::X86_64).expect_err("has mistakes");
    mistakes.into_iter().map(|mistake| mistake.pointer).collect()
}

fn number(name: &str, arch: Arch) -> u32 {
    table::find(name).and_then(|name| name.slot(arch)).expect("a number").number(arch)
}

fn run(program: &[Raw], arch: Arch, name: &str, args: [u64; 6]) -> u32 {
    evaluate(program, &Call { number: number(name, arch), arch: arch.audit(), args })
}

/// Reads the profile again for each call, one entry after the other.
mod model {
    use super::*;

    fn action(name: &str, errno: Option<u32>) -> u32 {
        let errno = errno.unwrap_or(1);
        match name {
            "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL,
            "SCMP_ACT_TRAP" => 0x0003_0000,
            "SCMP_ACT_ERRNO" => 0x0005_0000 + errno,
            "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
            "SCMP_ACT_TRACE" => 0x7ff0_0000 + errno,
            "SCMP_ACT_LOG" => 0x7ffc_0000,
            "SCMP_ACT_ALLOW" => ALLOW,
            other => panic!("{other}"),
        }
    }

    /// From the strictest to the loosest.
    fn rank(action: u32) -> usize {
        let order = [0x8000, 0, 0x3, 0x5, 0x7fc0, 0x7ff0, 0x7ffc, 0x7fff];
        order.iter().position(|&code| code == action >> 16).expect("an action")
    }

    /// `Err` is what holds, or does not, whatever the argument is.
    fn holds(arg: &LinuxSeccompArg, narrow: bool, actual: u64) -> Result<bool, bool> {
        let max = if narrow { 0xffff_ffff } else { u64::MAX };
        let masked = arg.op() == Op::ScmpCmpMaskedEq;
        let mask = if masked { arg.value() } else { u64::MAX };
        let mut value = if masked { arg.value_two().unwrap_or(0) & mask } else { arg.value() };
        if narrow && value >> 31 == 0x1_ffff_ffff {
            value &= max;
        }
        let actual = actual & max;
        let sure = match arg.op() {
            Op::ScmpCmpGe if value == 0 => Some(true),
            Op::ScmpCmpLt if value == 0 => Some(false),
            Op::ScmpCmpLe if value >= max => Some(true),
            Op::ScmpCmpGt if value >= max => Some(false),
            Op::ScmpCmpNe | Op::ScmpCmpLt if value > max => Some(true),
            Op::ScmpCmpEq | Op::ScmpCmpGe | Op::ScmpCmpMaskedEq if value > max => Some(false),
            Op::ScmpCmpMaskedEq if mask & max == 0 => Some(true),
            _ => None,
        };
        if let Some(sure) = sure {
            return Err(sure);
        }
        Ok(match arg.op() {
            Op::ScmpCmpNe => actual != value,
            Op::ScmpCmpLt => actual < value,
            Op::ScmpCmpLe => actual <= value,
            Op::ScmpCmpEq => actual == value,
            Op::ScmpCmpGe => actual >= value,
            Op::ScmpCmpGt => actual > value,
            Op::ScmpCmpMaskedEq => actual & mask == value,
        })
    }

    pub fn outcome(profile: &LinuxSeccomp, native: Arch, call: &Call) -> u32 {
        let default = action(&profile.default_action().to_string(), profile.default_errno_ret());
        let mut archs = vec![native];
        for listed in profile.architectures().iter().flatten() {
            archs.extend(
                Arch::ALL.into_iter().filter(|arch| native.meets(*arch) && arch.name() == listed.to_string()),
            );
        }
        let x32 = call.arch == Arch::X86_64.audit() && call.number >= 0x4000_0000;
        let of_token = |arch: &&Arch| arch.audit() == call.arch;
        let minus_one = x32 && call.number == u32::MAX && !archs.contains(&Arch::X32);
        let Some(&arch) =
            archs.iter().filter(of_token).find(|&&arch| (arch == Arch::X32) == (x32 && !minus_one))
        else {
            return KILL;
        };
        let mut conditional = None;
        let mut unconditional = None;
        let mut newest = None;
        for entry in profile.syscalls().iter().flatten() {
            let given = action(&entry.action().to_string(), entry.errno_ret());
            let args = entry.args().as_deref().unwrap_or_default();
            for name in entry.names() {
                let Some(found) = table::find(name) else { continue };
                if let Some(slot) = found.slot(arch) {
                    let plain = slot.number(arch);
                    if !(arch == Arch::Arm && plain >= 0xf0000) {
                        newest = newest.max(Some(plain));
                    }
                    if plain == call.number && given != default {
                        let twice = args
                            .iter()
                            .enumerate()
                            .any(|(i, a)| args[i + 1..].iter().any(|b| a.index() == b.index()));
                        let truth: Vec<_> = args
                            .iter()
                            .map(|arg| {
                                holds(arg, found.narrow(arch) >> arg.index() & 1 != 0, call.args[arg.index()])
                            })
                            .collect();
                        if args.is_empty()
                            || (!twice && truth.iter().all(|truth| *truth == Err(true)))
                            || (twice && truth.contains(&Err(true)))
                        {
                            unconditional = unconditional.or(Some(given));
                        }
                        let yes = |truth: &Result<bool, bool>| truth.unwrap_or_else(|sure| sure);
                        if if twice { truth.iter().any(yes) } else { truth.iter().all(yes) } {
                            conditional = conditional.or(Some(given));
                        }
                    }
                }
                // Facts of the 32-bit x86 ABI, for the names that the tests use.
                let inner = match name.as_str() {
                    "socket" => Some((102, 1)),
                    "connect" => Some((102, 3)),
                    "semop" => Some((117, 1)),
                    "shmat" => Some((117, 21)),
                    _ => None,
                };
                if let (Arch::X86, Some((outer, inner))) = (arch, inner) {
                    newest = newest.max(Some(outer));
                    if call.number != outer || given == default {
                        continue;
                    }
                    let first = call.args[0] as u32;
                    let first = if outer == 117 { first & 0xffff } else { first };
                    if first == inner && (args.is_empty() || rank(given) < rank(default)) {
                        conditional = conditional.or(Some(given));
                    }
                }
            }
        }
        if let Some(given) = unconditional.or(conditional) {
            return given;
        }
        let known =
            (0..SLOTS as u16).any(|slot| Slot(slot).assigned(arch) && Slot(slot).number(arch) == call.number);
        let private = arch == Arch::Arm && call.number >= 0xf0000;
        match newest {
            Some(newest) if rank(default) < rank(0x7ff0_0000) => {
                if known && (private || call.number <= newest) { default } else { ENOSYS }
            }
            _ => default,
        }
    }
}

const NAMES: [&str; 30] = [
    "read",
    "write",
    "open",
    "socket",
    "connect",
    "semop",
    "shmat",
    "socketcall",
    "ipc",
    "clone",
    "clone3",
    "personality",
    "ioctl",
    "mmap",
    "mmap2",
    "lseek",
    "prctl",
    "ptrace",
    "listns",
    "mseal",
    "uretprobe",
    "set_tls",
    "cacheflush",
    "riscv_hwprobe",
    "arch_prctl",
    "futex_time64",
    "statx",
    "kexec_load",
    "s390_pci_mmio_read",
    "no_such_call",
];

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        prop::sample::select(vec![
            0,
            1,
            5,
            38,
            0x7e02_0000,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            0x1_0000_0000,
            0x1_0000_0005,
            0x5_0000_0000,
            0xffff_ffff_8000_0000,
            0xffff_ffff_7fff_ffff,
            u64::MAX - 7,
            u64::MAX,
        ]),
        any::<u32>().prop_map(u64::from),
        any::<u64>(),
    ]
}

fn arg() -> impl Strategy<Value = Value> {
    (0..6_usize, value(), prop::option::of(value()), prop::sample::select(known_operators().to_vec()))
        .prop_map(|(index, value, two, op)| match two {
            Some(two) => json!({ "index": index, "value": value, "valueTwo": two, "op": op }),
            None => json!({ "index": index, "value": value, "op": op }),
        })
}

fn entry(names: Vec<&'static str>) -> impl Strategy<Value = Value> {
    let actions = known_actions().to_vec();
    (
        prop::collection::vec(prop::sample::select(names), 1..4),
        prop::sample::select(actions),
        1..40_u32,
        prop::collection::vec(arg(), 0..4),
    )
        .prop_map(|(names, action, errno, args)| {
            let names: Vec<_> = names
                .into_iter()
                .filter(|name| !(["write", "sendmsg"].contains(name) && action == "SCMP_ACT_NOTIFY"))
                .collect();
            let names = if names.is_empty() { vec!["read"] } else { names };
            let mut entry = json!({ "names": names, "action": action, "args": args });
            if action == "SCMP_ACT_ERRNO" || action == "SCMP_ACT_TRACE" {
                entry["errnoRet"] = errno.into();
            }
            entry
        })
}

fn random_profile(names: Vec<&'static str>, most: usize) -> impl Strategy<Value = Value> {
    let defaults: Vec<_> =
        known_actions().iter().filter(|name| **name != "SCMP_ACT_NOTIFY").copied().collect();
    (
        prop::sample::select(defaults),
        prop::collection::vec(prop::sample::select(known_archs().to_vec()), 0..6),
        prop::collection::vec(entry(names), 0..most),
    )
        .prop_map(|(default, archs, syscalls)| {
            json!({ "defaultAction": default, "architectures": archs, "syscalls": syscalls, "listenerPath": "/agent" })
        })
}

/// Calls around everything that the profile names.
fn calls(profile: &LinuxSeccomp, extra: &[(u32, [u64; 6])]) -> Vec<Call> {
    let mut numbers: Vec<u32> = vec![
        0, 102, 117, 223, 335, 350, 423, 600, 607, 608, 609, 639, 640, 999, 1000, 1001, 1024, 0xeffff,
        0xf0000,
    ];
    numbers.extend([0xf0002, 0xf0005, 0xf0017, 0xf0018, 0x3fff_ffff, 0x4000_0000, 0x4000_0400, 0x7fff_ffff]);
    numbers.extend([0x8000_0000, u32::MAX - 1, u32::MAX]);
    let mut values = vec![0, 1, 3, 21, 0x1_0015];
    for entry in profile.syscalls().iter().flatten() {
        for name in entry.names().iter().filter_map(|name| table::find(name)) {
            for arch in Arch::ALL {
                let Some(number) = name.slot(arch).map(|slot| slot.number(arch)) else { continue };
                numbers.extend([number, number.wrapping_sub(1), number + 1, number | 0x4000_0000]);
            }
        }
        for arg in entry.args().iter().flatten() {
            for value in [arg.value(), arg.value_two().unwrap_or(0)] {
                values.extend([value, value.wrapping_sub(1), value.wrapping_add(1), value ^ 1 << 40]);
            }
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    let mut calls = Vec::new();
    for (i, &number) in numbers.iter().enumerate() {
        for arch in Arch::ALL {
            for round in 0..4 {
                let at = |j: usize| values[(i * 7 + round * 13 + j * 5) % values.len()];
                calls.push(Call { number, arch: arch.audit(), args: std::array::from_fn(at) });
                calls.push(Call { number, arch: arch.audit(), args: [at(0); 6] });
            }
        }
    }
    for &(number, args) in extra {
        calls.extend(Arch::ALL.map(|arch| Call { number, arch: arch.audit(), args }));
    }
    calls.push(Call { number: 0, arch: 0x8000_0016, args: [0; 6] });
    calls
}

fn agree(value: Value, native: Arch, extra: &[(u32, [u64; 6])]) -> Result<(), TestCaseError> {
    let profile = profile(value);
    let program = match compile(&profile, native) {
        Ok(compiled) => raw(&compiled.program),
        Err(mistakes) => {
            // The one mistake that a random profile can have.
            for mistake in &mistakes {
                prop_assert!(mistake.message.contains("another action"), "{}", mistake);
            }
            return Err(TestCaseError::reject("contradicts itself"));
        }
    };
    for call in calls(&profile, extra) {
        let expected = model::outcome(&profile, native, &call);
        prop_assert_eq!(evaluate(&program, &call), expected, "{:x?} {:#x}", call, expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn small_profiles_agree_with_the_model(
        value in random_profile(NAMES.to_vec(), 9),
        native in prop::sample::select(Arch::ALL.to_vec()),
        extra in prop::collection::vec((any::<u32>(), any::<[u64; 6]>()), 8),
    ) {
        agree(value, native, &extra)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    /// Long enough that jumps need bridges.
    #[test]
    fn large_profiles_agree_with_the_model(
        value in random_profile(table::names().filter(|name| name.as_bytes()[0] % 2 == 0 && !multiplexed(name)).collect(), 90),
        native in prop::sample::select(Arch::ALL.to_vec()),
    ) {
        agree(value, native, &[])?;
    }
}

/// Names under `socketcall` and `ipc` that the model does not know.
fn multiplexed(name: &str) -> bool {
    multiplex::CALLS.iter().any(|call| call.0 == name)
        && !["socket", "connect", "semop", "shmat"].contains(&name)
}

fn docker() -> Value {
    serde_json::from_str(include_str!("../../../tests/data/seccomp-docker.json")).expect("JSON")
}

#[test]
fn docker_default_profile() {
    let result = compile(&profile(docker()), Arch::X86_64).expect("compiles");
    assert_eq!(result.warnings, []);
    assert_eq!((result.program.flags, result.program.notify), (1 << 2, false));
    let program = raw(&result.program);
    assert!(program.len() < 600, "{} instructions", program.len());
    let x86_64 = |name, args| run(&program, Arch::X86_64, name, args);
    assert_eq!(x86_64("read", [0; 6]), ALLOW);
    assert_eq!(x86_64("mount", [0; 6]), EPERM);
    assert_eq!(x86_64("clone3", [0; 6]), ENOSYS);
    assert_eq!(x86_64("file_getattr", [0; 6]), ENOSYS);
    assert_eq!(x86_64("chroot", [0; 6]), ALLOW);
    assert_eq!(x86_64("clone", [0x0010_0011, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(x86_64("clone", [0x1000_0000, 0, 0, 0, 0, 0]), EPERM);
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        for high in [0, 1 << 32, 0xffff_ffff << 32] {
            let socket = |domain: u64| run(&program, arch, "socket", [high | domain, 1, 0, 0, 0, 0]);
            assert_eq!((socket(1), socket(2), socket(10), socket(16)), (ALLOW, ALLOW, ALLOW, ALLOW));
            assert_eq!((socket(38), socket(39), socket(40), socket(41)), (EPERM, ALLOW, EPERM, ALLOW));
            let personality =
                |persona: u64| run(&program, arch, "personality", [high | persona, 0, 0, 0, 0, 0]);
            assert_eq!((personality(0), personality(0xffff_ffff)), (ALLOW, ALLOW));
            assert_eq!(personality(0x0004_0000), EPERM);
        }
    }
    assert_eq!(evaluate(&program, &Call { number: 0, arch: Arch::Aarch64.audit(), args: [0; 6] }), KILL);
}

#[test]
fn x32_is_off_unless_listed() {
    let base = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }] });
    let program = compiled(base.clone(), Arch::X86_64);
    assert_eq!(run(&program, Arch::X86_64, "read", [0; 6]), ALLOW);
    assert_eq!(run(&program, Arch::X32, "read", [0; 6]), KILL);
    assert_eq!(run(&program, Arch::X86, "read", [0; 6]), KILL);
    let mut listed = base;
    listed["architectures"] = json!(["SCMP_ARCH_X32"]);
    let program = compiled(listed, Arch::X86_64);
    assert_eq!(run(&program, Arch::X32, "read", [0; 6]), ALLOW);
    assert_eq!(run(&program, Arch::X32, "open", [0; 6]), ENOSYS);
}

#[test]
fn newer_numbers_are_enosys_where_the_default_denies() {
    for (default, listns, hole) in [
        ("SCMP_ACT_ERRNO", ENOSYS, ENOSYS),
        ("SCMP_ACT_KILL", ENOSYS, ENOSYS),
        ("SCMP_ACT_TRAP", ENOSYS, ENOSYS),
        ("SCMP_ACT_ALLOW", ALLOW, ALLOW),
        ("SCMP_ACT_LOG", 0x7ffc_0000, 0x7ffc_0000),
        ("SCMP_ACT_TRACE", 0x7ff0_0001, 0x7ff0_0001),
    ] {
        let program = compiled(
            json!({ "defaultAction": default, "syscalls": [
                // Without effect, but known to the profile.
                { "names": ["mseal"], "action": default },
                { "names": ["read"], "action": "SCMP_ACT_KILL_PROCESS" },
            ] }),
            Arch::X86_64,
        );
        assert_eq!(run(&program, Arch::X86_64, "listns", [0; 6]), listns, "{default}");
        assert_ne!(run(&program, Arch::X86_64, "mseal", [0; 6]), ENOSYS, "{default}");
        let at = |number| evaluate(&program, &Call { number, arch: Arch::X86_64.audit(), args: [0; 6] });
        assert_eq!(at(400), hole, "{default}");
    }
    let nothing = compiled(json!({ "defaultAction": "SCMP_ACT_ERRNO" }), Arch::X86_64);
    assert_eq!(run(&nothing, Arch::X86_64, "listns", [0; 6]), EPERM);
}

#[test]
fn negative_values_compare_on_32_bits() {
    for value in [0xffff_ffff_u64, u64::MAX] {
        let program = compiled(
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["kill"], "action": "SCMP_ACT_ERRNO",
                "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }] }] }),
            Arch::X86_64,
        );
        for pid in [0xffff_ffff, u64::MAX, 0x7_ffff_ffff] {
            assert_eq!(
                run(&program, Arch::X86_64, "kill", [pid, 9, 0, 0, 0, 0]),
                EPERM,
                "{value:#x} {pid:#x}"
            );
        }
        assert_eq!(run(&program, Arch::X86_64, "kill", [1, 9, 0, 0, 0, 0]), ALLOW);
    }
}

#[test]
fn a_value_too_wide_is_a_warning() {
    let compiled = compile(
        &profile(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["socket"],
            "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 0x1_0000_0002_u64, "op": "SCMP_CMP_EQ" }] }] })),
        Arch::X86_64,
    )
    .expect("compiles");
    assert_eq!(compiled.warnings.len(), 1);
    assert_eq!(compiled.warnings[0].pointer, "/linux/seccomp/syscalls/0/args/0/value");
    let program = raw(&compiled.program);
    assert_eq!(run(&program, Arch::X86_64, "socket", [2, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(run(&program, Arch::X86_64, "socket", [0x1_0000_0002, 0, 0, 0, 0, 0]), EPERM);
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let compiled = compile(
        &profile(json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_MIPS", "SCMP_ARCH_ARM", "SCMP_ARCH_NATIVE"],
            "syscalls": [
                { "names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW" },
                { "names": ["read"], "action": "SCMP_ACT_LOG" },
                { "names": ["write"], "action": "SCMP_ACT_LOG", "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }] },
                { "names": ["write"], "action": "SCMP_ACT_ALLOW" },
            ] })),
        Arch::X86_64,
    )
    .expect("compiles");
    let pointers: Vec<_> = compiled.warnings.iter().map(|warning| warning.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        [
            "/linux/seccomp/architectures/0",
            "/linux/seccomp/architectures/1",
            "/linux/seccomp/syscalls/0/names/1",
            "/linux/seccomp/syscalls/1/names/0",
            "/linux/seccomp/syscalls/3/names/0",
        ]
    );
    let program = raw(&compiled.program);
    assert_eq!(run(&program, Arch::X86_64, "read", [0; 6]), ALLOW);
    assert_eq!(run(&program, Arch::X86_64, "write", [1, 0, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn an_index_listed_twice_means_either() {
    let program = compiled(
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": [
            { "index": 1, "value": 9, "op": "SCMP_CMP_EQ" },
            { "index": 1, "value": 15, "op": "SCMP_CMP_EQ" },
            { "index": 0, "value": 7, "op": "SCMP_CMP_EQ" },
        ] }] }),
        Arch::X86_64,
    );
    let kill = |pid, signal| run(&program, Arch::X86_64, "kill", [pid, signal, 0, 0, 0, 0]);
    assert_eq!((kill(1, 9), kill(1, 15), kill(7, 1), kill(1, 1)), (ALLOW, ALLOW, ALLOW, EPERM));
}

#[test]
fn all_mistakes_at_once() {
    assert_eq!(
        mistakes(json!({
            "defaultAction": "SCMP_ACT_NOTIFY", "defaultErrnoRet": 1,
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], "listenerMetadata": "x",
            "syscalls": [
                { "names": [], "action": "SCMP_ACT_ALLOW" },
                { "names": ["read", ""], "action": "SCMP_ACT_ALLOW", "errnoRet": 1 },
                { "names": ["open"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096 },
                { "names": ["open"], "action": "SCMP_ACT_TRACE", "errnoRet": 65536 },
                { "names": ["close"], "action": "SCMP_ACT_ALLOW",
                    "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }] },
                { "names": ["dup"], "action": "SCMP_ACT_ALLOW",
                    "args": [{ "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }] },
                { "names": ["dup"], "action": "SCMP_ACT_LOG",
                    "args": [{ "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }] },
            ],
        })),
        [
            "/linux/seccomp/defaultErrnoRet",
            "/linux/seccomp/defaultAction",
            "/linux/seccomp/syscalls/0/names",
            "/linux/seccomp/syscalls/1/errnoRet",
            "/linux/seccomp/syscalls/1/names/1",
            "/linux/seccomp/syscalls/2/errnoRet",
            "/linux/seccomp/syscalls/3/errnoRet",
            "/linux/seccomp/syscalls/4/args/0/index",
            "/linux/seccomp/syscalls/6/names/0",
            "/linux/seccomp/flags/1",
            "/linux/seccomp/listenerMetadata",
        ]
    );
}

#[test]
fn notify_needs_a_listener_and_leaves_write_alone() {
    let notify = |names: Value| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": names, "action": "SCMP_ACT_NOTIFY" }] });
    assert_eq!(mistakes(notify(json!(["mkdir"]))), ["/linux/seccomp/listenerPath"]);
    let mut good = notify(json!(["mkdir", "read"]));
    good["listenerPath"] = "/run/agent".into();
    good["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"]);
    let result = compile(&profile(good.clone()), Arch::X86_64).expect("compiles");
    assert_eq!((result.program.flags, result.program.notify), (1 << 5, true));
    good["syscalls"][0]["names"] = json!(["mkdir", "write"]);
    assert_eq!(mistakes(good.clone()), ["/linux/seccomp/syscalls/0/names/1"]);
    good["syscalls"][0]["names"] = json!(["sendmsg", "mkdir"]);
    assert_eq!(mistakes(good), ["/linux/seccomp/syscalls/0/names/0"]);
}

#[test]
fn flags_absent_and_empty() {
    let flags = |value: Value| compile(&profile(value), Arch::X86_64).expect("compiles").program.flags;
    assert_eq!(flags(json!({ "defaultAction": "SCMP_ACT_ALLOW" })), 1 << 2);
    assert_eq!(flags(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": [] })), 0);
    let both = json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    assert_eq!(flags(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": both })), 1 << 1 | 1 << 2);
}

#[test]
fn a_filter_beyond_the_kernel_s_limit_is_a_mistake() {
    let syscalls: Vec<_> = (0..3000_u64)
        .map(|value| {
            json!({ "names": ["mmap"], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 2, "value": value, "op": "SCMP_CMP_EQ" }] })
        })
        .collect();
    let mut value = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": syscalls });
    assert_eq!(mistakes(value.clone()), ["/linux/seccomp/syscalls"]);
    value["syscalls"].as_array_mut().expect("a list").truncate(900);
    let program = compiled(value, Arch::X86_64);
    for prot in [0, 450, 899, 900, 1 << 32] {
        let expected = if prot < 900 { ALLOW } else { EPERM };
        assert_eq!(run(&program, Arch::X86_64, "mmap", [0, 0, prot, 0, 0, 0]), expected, "{prot}");
    }
}
