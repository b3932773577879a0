//! The program, run by an evaluator, against the plain meaning of the rules; and the entries of v1.

use proptest::prelude::*;
use serde_json::json;

use super::super::fake::Tree;
use super::super::location::Place;
use super::*;

fn rules(value: serde_json::Value) -> Vec<LinuxDeviceCgroup> {
    serde_json::from_value(value).unwrap()
}

fn policy(value: serde_json::Value, version: Version) -> Policy {
    Policy::compile(&rules(value), version).unwrap()
}

/// Runs a program on one access; panics where the kernel's verifier would refuse it.
fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let context = [access << 16 | kind, major, minor];
    let mut r = [None::<u32>; 6];
    let mut pc = 0_usize;
    loop {
        let i = program[pc];
        let (dst, src) = ((i.registers & 15) as usize, (i.registers >> 4) as usize);
        let jump = |yes: bool| if yes { usize::try_from(i.offset).unwrap() } else { 0 };
        let imm = i.immediate as u32;
        match i.code {
            LOAD => {
                assert_eq!(src, 1);
                r[dst] = Some(context[i.offset as usize / 4]);
            }
            AND => r[dst] = Some(r[dst].unwrap() & imm),
            SHIFT_RIGHT => r[dst] = Some(r[dst].unwrap() >> imm),
            MOVE => r[dst] = Some(imm),
            JUMP => pc += jump(true),
            IF_ANY => pc += jump(r[dst].unwrap() & imm != 0),
            IF_NOT_EQUAL => pc += jump(r[dst].unwrap() != imm),
            EXIT => return r[0].unwrap() == 1,
            other => panic!("opcode {other:#x}"),
        }
        pc += 1;
    }
}

/// What the specification says: for each of the accesses the last rule that matches decides.
fn meaning(rules: &[LinuxDeviceCgroup], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
    [READ, WRITE, MKNOD].into_iter().filter(|bit| access & bit != 0).all(|bit| {
        let mut allowed = false;
        for rule in rules {
            let of_kind = match rule.typ() {
                None | Some(LinuxDeviceType::A) => {
                    allowed = rule.allow();
                    continue;
                }
                Some(LinuxDeviceType::B) => kind == Kind::Block,
                _ => kind == Kind::Char,
            };
            let is = |want: Option<i64>, n: u32| want.is_none_or(|w| w == -1 || w == i64::from(n));
            let access = parse_access(rule.access().as_deref().unwrap()).unwrap();
            if of_kind && is(rule.major(), major) && is(rule.minor(), minor) && access & bit != 0 {
                allowed = rule.allow();
            }
        }
        let default = DEFAULT.iter().any(|&(k, ma, mi, a)| {
            k == kind && ma.is_none_or(|n| n == major) && mi.is_none_or(|n| n == minor) && a & bit != 0
        });
        allowed || default
    })
}

fn any_rule() -> impl Strategy<Value = serde_json::Value> {
    let number = prop_oneof![
        Just(json!(null)),
        Just(json!(-1)),
        Just(json!(1)),
        Just(json!(5)),
        Just(json!(4_294_967_295_u32))
    ];
    (
        any::<bool>(),
        prop_oneof![1 => Just("a"), 6 => Just("b"), 6 => Just("c")],
        number.clone(),
        number,
        prop_oneof![Just("r"), Just("w"), Just("m"), Just("rw"), Just("rwm"), Just("mw")],
    )
        .prop_map(|(allow, typ, major, minor, access)| {
            json!({"allow": allow, "type": typ, "major": major, "minor": minor, "access": access})
        })
}

proptest! {
    #[test]
    fn the_program_means_what_the_rules_say(
        list in prop::collection::vec(any_rule(), 0..12),
        accesses in prop::collection::vec(
            (any::<bool>(), 1_u8..8, prop_oneof![Just(1_u32), Just(5), Just(7), Just(u32::MAX)],
             prop_oneof![Just(0_u32), Just(1), Just(3), Just(5), Just(u32::MAX)]),
            1..30,
        ),
    ) {
        let list = rules(json!(list));
        let policy = Policy::compile(&list, Version::V2).unwrap();
        let program = policy.program();
        for (block, access, major, minor) in accesses {
            let kind = if block { Kind::Block } else { Kind::Char };
            let got = run(&program, if block { 1 } else { 2 }, access.into(), major, minor);
            prop_assert_eq!(got, meaning(&list, kind, access, major, minor));
            if policy.allows_all() {
                prop_assert!(got);
            }
        }
    }
}

#[test]
fn without_rules_there_are_the_default_devices() {
    let program = policy(json!([]), Version::V2).program();
    assert!(run(&program, 2, 6, 1, 3), "null is readable and writable");
    assert!(run(&program, 2, 6, 136, 12345), "pseudoterminals");
    assert!(run(&program, 1, 1, 8, 0), "mknod of a disk");
    assert!(!run(&program, 1, 2, 8, 0), "but not reading it");
    assert!(!run(&program, 2, 2, 1, 1), "nor memory");
}

#[test]
fn mistakes_are_all_found() {
    let found = Policy::compile(
        &rules(json!([
            {"allow": true, "type": "c", "access": ""},
            {"allow": true, "type": "c", "access": "rx"},
            {"allow": true, "type": "p", "access": "r"},
            {"allow": true, "type": "c", "major": -2, "minor": 4_294_967_296_i64, "access": "r"},
        ])),
        Version::V2,
    )
    .unwrap_err();
    let pointers: Vec<&str> = found.iter().map(|m| m.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        [0, 1, 2, 3, 3]
            .iter()
            .zip(["access", "access", "type", "major", "minor"])
            .map(|(i, f)| format!("/linux/resources/devices/{i}/{f}"))
            .collect::<Vec<_>>()
    );
}

#[test]
fn v1_cannot_make_exceptions_from_wildcards_and_says_so() {
    let list = json!([
        {"allow": true, "type": "c", "major": 1, "access": "rw"},
        {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "w"},
    ]);
    let found = Policy::compile(&rules(list.clone()), Version::V1).unwrap_err();
    assert_eq!(found[0].pointer, "/linux/resources/devices/1");
    policy(list, Version::V2);
}

fn v1_group(tree: &Tree, fresh: bool, list: &str) -> Group {
    let files = [("devices.allow", ""), ("devices.deny", ""), ("devices.list", list)];
    let path = tree.make("c", &files);
    let place = Place { controllers: vec!["devices".into()], mount: tree.path().into(), dir: path.clone() };
    Group { place, dir: Dir::at(path), fresh }
}

#[test]
fn v1_updates_write_only_the_difference() {
    let tree = Tree::new();
    let kept = "c 1:3 rwm\nc 1:8 rwm\nc 1:7 rwm\nc 5:0 rwm\nc 1:5 rwm\nc 1:9 rwm\nc 136:* rwm\nc 5:2 rwm\nc 10:200 rwm\n";
    let list = format!("c *:* m\nb *:* m\n{kept}b 8:0 r\n");
    let group = v1_group(&tree, false, &list);
    let wanted =
        policy(json!([{"allow": true, "type": "b", "major": 8, "minor": 16, "access": "rw"}]), Version::V1);
    list_v1(&group, &wanted).unwrap();
    // A file keeps what was written last from its start; each of these was one write.
    assert_eq!(tree.read("c/devices.allow"), "b 8:16 rw");
    assert_eq!(tree.read("c/devices.deny"), "b 8:0 r");
}

#[test]
fn v1_without_a_usable_list_starts_from_nothing() {
    for (fresh, list) in [(true, ""), (false, "a *:* rwm\n")] {
        let tree = Tree::new();
        list_v1(&v1_group(&tree, fresh, list), &policy(json!([]), Version::V1)).unwrap();
        assert_eq!(tree.read("c/devices.deny"), "a");
        assert!(tree.read("c/devices.allow").contains("c 136:* rwm"));
    }
    let tree = Tree::new();
    let all = policy(json!([{"allow": true, "access": "rwm"}]), Version::V1);
    list_v1(&v1_group(&tree, true, ""), &all).unwrap();
    assert_eq!((tree.read("c/devices.allow").as_str(), tree.read("c/devices.deny").as_str()), ("a", ""));
}

#[test]
fn systemd_gets_a_list_where_there_can_be_one() {
    let list = policy(json!([]), Version::V2).allow_list().unwrap();
    assert!(list.contains(&("/dev/char/1:3".into(), "rwm".into())));
    assert!(list.contains(&("char-136".into(), "rwm".into())));
    assert!(list.contains(&("block-*".into(), "m".into())));
    let deny = json!([{"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "access": "w"}]);
    assert_eq!(policy(deny, Version::V2).allow_list(), None);
}
