//! The seccomp compiler against libseccomp, used as runc uses it.
//!
//! Both programs are evaluated for the same calls. Where they differ by intent, the samples stay away
//! (the reasons are in the documentation of `dhow_runtime::seccomp`):
//!
//! - arguments of 32 bits with something in the upper half, which libseccomp compares on 64 bits, and
//!   values beyond 32 bits on 32-bit architectures, which it cuts;
//! - rules of one call that overlap and have different actions, which it sorts its own way;
//! - several rules with arguments for one call, unless all of them are equalities of one argument:
//!   libseccomp 2.5 merges them into one tree and gets `a < 5 or a < 2^32` wrong for 2^32 - 1;
//! - argument 0 of other calls beside a multiplexed one on 32-bit x86: with the rules `semop` and
//!   `ioctl(a != 1)` libseccomp 2.5.4 forgets to load the number in the section of x86;
//! - arguments of calls that are also multiplexed on 32-bit x86;
//! - comparisons that always hold, which are rules without arguments here;
//! - numbers that are no system call, and number -1: ENOSYS here.

#[path = "../../runtime/src/seccomp/evaluate.rs"]
mod evaluate;

use dhow_runtime::seccomp::{Arch, compile};
use evaluate::{Call, Raw, check, evaluate};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};
use proptest::prelude::*;
use serde_json::{Value, json};

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const X32_BIT: u32 = 0x4000_0000;
const ENOSYS: u32 = 0x0005_0026;

/// The few calls of libseccomp that runc makes.
mod sys {
    use std::ffi::{CStr, CString, c_int, c_uint, c_void};
    use std::fs::File;
    use std::io::{Read, Seek};
    use std::os::fd::{AsRawFd, FromRawFd};

    use super::evaluate::Raw;

    /// `SCMP_ARCH_*` of this library for x32, which has no `AUDIT_ARCH_*` of its own.
    pub const ARCH_X32: u32 = 0x4000_003e;

    /// `struct scmp_arg_cmp`.
    #[repr(C)]
    pub struct Comparison {
        pub arg: c_uint,
        pub op: c_uint,
        pub datum_a: u64,
        pub datum_b: u64,
    }

    pub struct Library {
        init: unsafe extern "C" fn(u32) -> *mut c_void,
        release: unsafe extern "C" fn(*mut c_void),
        arch_add: unsafe extern "C" fn(*mut c_void, u32) -> c_int,
        attr_set: unsafe extern "C" fn(*mut c_void, c_uint, u32) -> c_int,
        rule_add: unsafe extern "C" fn(*mut c_void, u32, c_int, c_uint, *const Comparison) -> c_int,
        export_bpf: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
        resolve: unsafe extern "C" fn(u32, *const libc::c_char) -> c_int,
        name: unsafe extern "C" fn(u32, c_int) -> *mut libc::c_char,
    }

    impl Library {
        #[expect(clippy::missing_transmute_annotations, reason = "the fields are the annotations")]
        pub fn open() -> Library {
            // SAFETY: the name is a C string; the library's constructors touch nothing of ours.
            let handle = unsafe { libc::dlopen(c"libseccomp.so.2".as_ptr(), libc::RTLD_NOW) };
            assert!(!handle.is_null(), "libseccomp.so.2 (Debian package libseccomp2) is needed");
            let symbol = |name: &CStr| {
                // SAFETY: `handle` is open and never closed, the name is a C string.
                let symbol = unsafe { libc::dlsym(handle, name.as_ptr()) };
                assert!(!symbol.is_null(), "libseccomp has no {name:?}");
                symbol
            };
            // SAFETY: the types are those of seccomp.h for these names, whose ABI is that of version 2.
            unsafe {
                Library {
                    init: std::mem::transmute(symbol(c"seccomp_init")),
                    release: std::mem::transmute(symbol(c"seccomp_release")),
                    arch_add: std::mem::transmute(symbol(c"seccomp_arch_add")),
                    attr_set: std::mem::transmute(symbol(c"seccomp_attr_set")),
                    rule_add: std::mem::transmute(symbol(c"seccomp_rule_add_array")),
                    export_bpf: std::mem::transmute(symbol(c"seccomp_export_bpf")),
                    resolve: std::mem::transmute(symbol(c"seccomp_syscall_resolve_name_arch")),
                    name: std::mem::transmute(symbol(c"seccomp_syscall_resolve_num_arch")),
                }
            }
        }

        /// The number of `name`; negative where `arch` has it under a multiplexer or not at all.
        pub fn resolve(&self, arch: u32, name: &str) -> i32 {
            let name = CString::new(name).expect("no NUL");
            // SAFETY: a C string that the call only reads.
            unsafe { (self.resolve)(arch, name.as_ptr()) }
        }

        /// Whether `arch` has a call of this number.
        pub fn assigned(&self, arch: u32, number: i32) -> bool {
            // SAFETY: returns a string of malloc(3) or null; free(3) takes both.
            unsafe {
                let name = (self.name)(arch, number);
                libc::free(name.cast());
                !name.is_null()
            }
        }

        pub fn filter(&self, default: u32) -> Filter<'_> {
            // SAFETY: any action is allowed, a bad one gives null.
            let context = unsafe { (self.init)(default) };
            assert!(!context.is_null(), "seccomp_init({default:#x})");
            Filter { library: self, context }
        }
    }

    pub struct Filter<'a> {
        library: &'a Library,
        context: *mut c_void,
    }

    impl Drop for Filter<'_> {
        fn drop(&mut self) {
            // SAFETY: the context is live and not used after this.
            unsafe { (self.library.release)(self.context) }
        }
    }

    impl Filter<'_> {
        pub fn add_arch(&mut self, arch: u32) {
            // SAFETY: the context is live.
            let result = unsafe { (self.library.arch_add)(self.context, arch) };
            assert!(result == 0 || result == -libc::EEXIST, "seccomp_arch_add({arch:#x}): {result}");
        }

        /// `SCMP_FLTATR_CTL_OPTIMIZE`: 2 is a binary tree.
        pub fn optimize(&mut self, level: u32) {
            // SAFETY: the context is live.
            let result = unsafe { (self.library.attr_set)(self.context, 8, level) };
            assert_eq!(result, 0, "seccomp_attr_set");
        }

        pub fn add_rule(&mut self, action: u32, number: i32, comparisons: &[Comparison]) {
            let count = comparisons.len() as c_uint;
            // SAFETY: the context is live and the array has `count` elements, which are only read.
            let result =
                unsafe { (self.library.rule_add)(self.context, action, number, count, comparisons.as_ptr()) };
            assert_eq!(result, 0, "seccomp_rule_add_array({action:#x}, {number})");
        }

        pub fn export(&self) -> Vec<Raw> {
            // SAFETY: a C string, and flags that exist.
            let fd = unsafe { libc::memfd_create(c"bpf".as_ptr(), libc::MFD_CLOEXEC) };
            assert!(fd >= 0, "memfd_create");
            // SAFETY: the descriptor is new and nobody else's.
            let mut file = unsafe { File::from_raw_fd(fd) };
            // SAFETY: the context is live, the descriptor open.
            let result = unsafe { (self.library.export_bpf)(self.context, file.as_raw_fd()) };
            assert_eq!(result, 0, "seccomp_export_bpf");
            let mut bytes = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("reading a memfd");
            let field = |b: &[u8]| u16::from_ne_bytes([b[0], b[1]]);
            bytes
                .chunks_exact(8)
                .map(|b| (field(b), b[2], b[3], u32::from_ne_bytes([b[4], b[5], b[6], b[7]])))
                .collect()
        }
    }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    action.as_u32(errno)
}

/// What runc makes of a profile: libseccomp's program, and ENOSYS in front of it.
struct Oracle {
    program: Vec<Raw>,
    /// By (`AUDIT_ARCH_*`, x32): the highest number named.
    newest: Vec<((u32, bool), u32)>,
}

impl Oracle {
    fn new(library: &sys::Library, profile: &LinuxSeccomp) -> Oracle {
        let default = action(profile.default_action(), profile.default_errno_ret());
        let mut filter = library.filter(default);
        let mut archs = vec![(X86_64, (X86_64, false))];
        for arch in profile.architectures().iter().flatten() {
            match arch.to_string().as_str() {
                "SCMP_ARCH_X86" => archs.push((X86, (X86, false))),
                "SCMP_ARCH_X32" => archs.push((sys::ARCH_X32, (X86_64, true))),
                "SCMP_ARCH_X86_64" => {}
                other => panic!("{other} is not for this test"),
            }
        }
        for (token, _) in &archs {
            filter.add_arch(*token);
        }
        let calls: usize = profile.syscalls().iter().flatten().map(|entry| entry.names().len()).sum();
        if calls > 32 {
            filter.optimize(2);
        }
        for entry in profile.syscalls().iter().flatten() {
            add(library, &mut filter, entry, default);
        }
        let mut newest = Vec::new();
        if !matches!(default >> 16, 0x7fff | 0x7ffc | 0x7ff0) {
            for (token, key) in archs {
                let names = profile.syscalls().iter().flatten().flat_map(|entry| entry.names());
                let highest = names.map(|name| library.resolve(token, name)).max();
                newest.extend(highest.filter(|highest| *highest > 0).map(|highest| (key, highest as u32)));
            }
        }
        Oracle { program: filter.export(), newest }
    }

    fn outcome(&self, call: &Call) -> u32 {
        let key = (call.arch, call.arch == X86_64 && call.number & X32_BIT != 0);
        match self.newest.iter().find(|(of, _)| *of == key) {
            Some((_, newest)) if call.number > *newest => ENOSYS,
            _ => evaluate(&self.program, call),
        }
    }
}

fn add(library: &sys::Library, filter: &mut sys::Filter<'_>, entry: &LinuxSyscall, default: u32) {
    let action = action(entry.action(), entry.errno_ret());
    if action == default {
        return;
    }
    let comparisons = || {
        entry.args().iter().flatten().map(|arg| sys::Comparison {
            arg: arg.index() as u32,
            op: arg.op() as u32,
            datum_a: arg.value(),
            datum_b: arg.value_two().unwrap_or(0),
        })
    };
    let mut indices: Vec<_> = entry.args().iter().flatten().map(|arg| arg.index()).collect();
    indices.sort_unstable();
    let repeated = indices.windows(2).any(|pair| pair[0] == pair[1]);
    for name in entry.names() {
        let number = library.resolve(X86_64, name);
        assert_ne!(number, -1, "libseccomp does not know {name}");
        if repeated {
            for comparison in comparisons() {
                filter.add_rule(action, number, &[comparison]);
            }
        } else {
            filter.add_rule(action, number, &comparisons().collect::<Vec<_>>());
        }
    }
}

/// Compiles both ways and compares the outcomes of calls with every number and these values.
fn agree(library: &sys::Library, value: Value, values: &[u64]) -> Result<(), TestCaseError> {
    let mut value = value;
    for entry in value["syscalls"].as_array_mut().into_iter().flatten() {
        let names = entry["names"].as_array_mut().expect("names");
        names.retain(|name| name.as_str().is_some_and(|name| library.resolve(X86_64, name) != -1));
    }
    let profile: LinuxSeccomp = serde_json::from_value(value).expect("a profile");
    let oracle = Oracle::new(library, &profile);
    let compiled =
        compile(&profile, Arch::X86_64).map_err(|mistakes| TestCaseError::fail(format!("{mistakes:?}")))?;
    let ours: Vec<Raw> = compiled.program.instructions.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
    check(&ours).map_err(TestCaseError::fail)?;
    let mut compared = 0_u32;
    for plain in (0..700).chain([0xffff, 0x3fff_ffff]) {
        for (arch, bit) in [(X86_64, 0), (X86, 0), (X86_64, X32_BIT), (0xc000_00b7, 0)] {
            for round in 0..6 {
                let args =
                    std::array::from_fn(|i| values[(plain as usize + round * 11 + i * 3) % values.len()]);
                let call = Call { number: plain | bit, arch, args };
                let (got, expected) = (evaluate(&ours, &call), oracle.outcome(&call));
                if got != expected {
                    let token = if bit != 0 { sys::ARCH_X32 } else { arch };
                    // Newer than Debian 12's libseccomp, for x32 at least.
                    let newer = (450..512).contains(&plain);
                    let hole = !library.assigned(token, call.number as i32);
                    prop_assert!(
                        hole && (got == ENOSYS || newer),
                        "{:x?}: {:#x}, libseccomp {:#x}",
                        call,
                        got,
                        expected
                    );
                }
                compared += 1;
            }
        }
    }
    prop_assert!(compared > 10_000);
    Ok(())
}

#[test]
fn docker_default_profile_agrees() {
    let library = sys::Library::open();
    let profile: Value = serde_json::from_str(include_str!("../data/seccomp-docker.json")).expect("JSON");
    let values =
        [0, 1, 2, 8, 16, 37, 38, 39, 40, 41, 0x20000, 0x20008, 0x0010_0011, 0x1000_0000, 0xffff_ffff, 7];
    agree(&library, profile, &values).expect("agrees");
}

/// Values that no operator turns into something that always or never holds.
const NARROW: [u64; 9] = [1, 2, 5, 38, 0x1234, 0x7e02_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0];
const WIDE: [u64; 9] = [
    5,
    0x1234,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0005,
    0x5_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_0000_0000,
    0xffff_ffff_ffff_fff0,
];

fn arg(values: &'static [u64], indices: &'static [usize]) -> impl Strategy<Value = Value> {
    let ops = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let value = || prop::sample::select(values);
    (prop::sample::select(indices), value(), value(), prop::sample::select(ops.to_vec())).prop_map(
        |(index, value, two, op)| json!({ "index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{op}") }),
    )
}

/// An entry with one comparison for each argument.
fn conditional(
    names: &'static [(&'static str, &'static str)],
    args: BoxedStrategy<Value>,
) -> BoxedStrategy<Value> {
    (prop::sample::select(names), prop::collection::vec(args, 1..4))
        .prop_map(|((name, action), mut args)| {
            let mut seen = Vec::new();
            args.retain(|arg| {
                !seen.contains(&arg["index"]) && {
                    seen.push(arg["index"].clone());
                    true
                }
            });
            json!({ "names": [name], "action": action, "args": args })
        })
        .boxed()
}

/// One argument equal to one of several values, in one entry or in many.
fn equalities(name: &'static str, values: &'static [u64]) -> BoxedStrategy<Value> {
    prop::collection::vec(prop::sample::select(values), 1..4)
        .prop_map(move |values| {
            let arg = |value| json!({ "index": 0, "value": value, "op": "SCMP_CMP_EQ" });
            let args: Vec<_> = values.into_iter().map(arg).collect();
            json!({ "names": [name], "action": "SCMP_ACT_TRAP", "args": args })
        })
        .boxed()
}

fn plain(names: &'static [&'static str]) -> BoxedStrategy<Value> {
    let actions = dhow_runtime::seccomp::known_actions();
    (prop::collection::vec(prop::sample::select(names), 1..5), prop::sample::select(actions))
        .prop_map(|(names, action)| json!({ "names": names, "action": action }))
        .prop_filter("notify on write", |entry| {
            entry["action"] != "SCMP_ACT_NOTIFY" || !entry["names"].to_string().contains("\"write\"")
        })
        .boxed()
}

fn profile(entries: BoxedStrategy<Value>, archs: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let defaults = [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_LOG",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_TRACE",
    ];
    (
        prop::sample::select(defaults.to_vec()),
        prop::sample::subsequence(archs, 0..=archs.len()),
        prop::collection::vec(entries, 0..24),
    )
        .prop_map(|(default, archs, mut entries)| {
            let mut seen = Vec::new();
            entries.retain(|entry| {
                let name = &entry["names"][0];
                let single = entry["args"].is_array() && name != "personality" && name != "munmap";
                !(single && seen.contains(name)) && {
                    if single {
                        seen.push(name.clone());
                    }
                    true
                }
            });
            // So that the highest number is the same with and without the multiplexed names.
            entries.push(json!({ "names": ["openat2"], "action": "SCMP_ACT_ALLOW" }));
            json!({ "defaultAction": default, "architectures": archs, "syscalls": entries, "listenerPath": "/agent" })
        })
}

const PLAIN: [&str; 12] = [
    "read", "write", "open", "mmap", "mmap2", "ioctl", "kill", "prctl", "set_tls", "clone3", "rseq",
    "preadv2",
];

/// Calls with a form under `socketcall` or `ipc`; libseccomp refuses a second action for these.
const MULTIPLEXED: [(&str, &str); 4] = [
    ("socket", "SCMP_ACT_ERRNO"),
    ("connect", "SCMP_ACT_ALLOW"),
    ("semop", "SCMP_ACT_LOG"),
    ("shmat", "SCMP_ACT_TRAP"),
];

fn multiplexed() -> BoxedStrategy<Value> {
    prop::sample::select(MULTIPLEXED.to_vec())
        .prop_map(|(name, action)| json!({ "names": [name], "action": action }))
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_of_32_bits_agree_on_all_x86(
        value in profile(
            prop_oneof![
                conditional(
                    &[("mmap", "SCMP_ACT_ALLOW"), ("ioctl", "SCMP_ACT_ERRNO"), ("prctl", "SCMP_ACT_TRAP"), ("clone", "SCMP_ACT_LOG")],
                    arg(&NARROW, &[1, 2, 3, 4, 5]).boxed(),
                ),
                plain(&PLAIN),
                multiplexed(),
                equalities("personality", &NARROW),
            ].boxed(),
            &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        ),
    ) {
        agree(&sys::Library::open(), value, &[0, 1, 2, 3, 5, 6, 38, 0x1234, 0x7e02_0000, 0x1000_0000, 0x8000_0000, 0xffff_fff0, 0xffff_ffff])?;
    }

    #[test]
    fn values_of_64_bits_agree_on_x86_64(
        value in profile(
            prop_oneof![
                conditional(
                    &[("mmap", "SCMP_ACT_ALLOW"), ("mprotect", "SCMP_ACT_ERRNO"), ("mremap", "SCMP_ACT_LOG")],
                    arg(&WIDE, &[0, 1, 2]).boxed(),
                ),
                plain(&PLAIN),
                multiplexed(),
                equalities("munmap", &WIDE),
            ].boxed(),
            &["SCMP_ARCH_X86_64"],
        ),
    ) {
        agree(&sys::Library::open(), value, &[0, 1, 5, 6, 0x1234, 0xffff_ffff, 1 << 32, 0x1_0000_0004, 0x1_0000_0005, 0x5_0000_0001, u64::MAX / 2, u64::MAX << 32, u64::MAX])?;
    }
}
