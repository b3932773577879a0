//! The systemd driver against a peer of our own that speaks for systemd, over a socket pair and through a real bus daemon.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use serde_json::json;

use super::super::dbus::{CALL, ERROR, RETURN, SIGNAL, read_line};
use super::super::fake::Tree;
use super::*;

/// What the peer does with a call.
#[derive(Clone, Copy, Default)]
struct Behaviour {
    /// The first StartTransientUnit fails because the unit exists.
    exists_once: bool,
    /// How jobs end.
    result: Option<&'static str>,
    /// There is no unit to stop.
    no_such_unit: bool,
    /// Signals go out before the answer to the call that caused them.
    signal_first: bool,
}

/// Answers calls as systemd does until the connection ends. Each call is passed on to `seen`.
fn serve(mut stream: UnixStream, behaviour: Behaviour, seen: &std::sync::mpsc::Sender<Message>) {
    let mut exists = behaviour.exists_once;
    let mut serial = 100;
    while let Ok(call) = Message::read(&mut stream) {
        if call.kind != CALL {
            continue;
        }
        // Before the answer, after which the test looks.
        let _ = seen.send(call.clone());
        let mut send = |message: Message| {
            serial += 1;
            let message = Message { serial, ..message };
            stream.write_all(&message.encode()).unwrap();
        };
        let answer = |kind| Message {
            kind,
            reply_to: call.serial,
            destination: call.sender.clone(),
            ..Message::default()
        };
        let error = |name: &str| {
            Message { error: format!("org.freedesktop.systemd1.{name}"), ..answer(ERROR) }
                .with(&[Value::text("as the test wants it")])
        };
        let removed = |job: &str, result: &str| {
            let path = Value::text(job);
            Message {
                kind: SIGNAL,
                path: OBJECT.into(),
                interface: MANAGER.into(),
                member: "JobRemoved".into(),
                ..Message::default()
            }
            .with(&[Value::U32(1), path, Value::text("x.scope"), Value::text(result)])
        };
        match call.member.as_str() {
            "StartTransientUnit" if std::mem::take(&mut exists) => send(error("UnitExists")),
            "StopUnit" if behaviour.no_such_unit => send(error("NoSuchUnit")),
            "StartTransientUnit" | "StopUnit" => {
                let reply = answer(RETURN).with(&[Value::text("/job/7")]);
                let end = removed("/job/7", behaviour.result.unwrap_or("done"));
                send(removed("/job/6", "failed"));
                if behaviour.signal_first {
                    send(end.clone());
                }
                send(reply);
                if !behaviour.signal_first {
                    send(end);
                }
            }
            "Get" => {
                let mut reader = call.reader();
                reader.text().unwrap();
                let text = match reader.text().unwrap() {
                    "Version" => "252.39-1~deb12u1",
                    "ControlGroup" => "/user.slice/user-1000.slice/user@1000.service",
                    other => panic!("{other}"),
                };
                send(answer(RETURN).with(&[Value::Variant(Box::new(Value::text(text)))]));
            }
            _ => send(answer(RETURN)),
        }
    }
}

/// A connection to a fake systemd and the calls that it has got.
fn systemd(behaviour: Behaviour) -> (Systemd, Receiver<Message>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (sender, seen) = channel();
    std::thread::spawn(move || {
        use std::io::Read;
        let mut zero = [1];
        theirs.read_exact(&mut zero).unwrap();
        assert_eq!(zero, [0]);
        for (line, reply) in [("AUTH EXTERNAL", "DATA\r\n"), ("DATA", "OK 0123\r\n"), ("BEGIN", "")] {
            assert_eq!(read_line(&mut theirs).unwrap(), line);
            theirs.write_all(reply.as_bytes()).unwrap();
        }
        serve(theirs, behaviour, &sender);
    });
    (Systemd { connection: Connection::over(ours).unwrap(), version: None }, seen)
}

fn members(seen: &Receiver<Message>) -> Vec<String> {
    seen.try_iter().map(|m| m.member).collect()
}

#[test]
fn units_are_named_as_runc_does() {
    let unit = |path| Unit::parse(path, "id", false);
    assert_eq!(unit(None).unwrap(), Unit { name: "dhow-id.scope".into(), slice: "system.slice".into() });
    assert_eq!(unit(Some(":docker:x")).unwrap().slice, "system.slice");
    assert_eq!(unit(Some("a.slice:docker:x")).unwrap().name, "docker-x.scope");
    assert_eq!(unit(Some("a.slice::pod.slice")).unwrap().name, "pod.slice");
    for wrong in ["/a/b", "a:b", "a:b:c:d", "a:b:", "a/b.slice:c:d"] {
        assert!(matches!(unit(Some(wrong)), Err(Error::CgroupsPath { .. })), "{wrong}");
    }
}

#[test]
fn slices_expand_to_their_parents() {
    assert_eq!(slice_path("a-b-c.slice").unwrap(), Path::new("a.slice/a-b.slice/a-b-c.slice"));
    assert_eq!(slice_path("-.slice").unwrap(), Path::new(""));
    for wrong in ["a", ".slice", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice"] {
        assert!(slice_path(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_unit_is_started_with_its_process_and_limits() {
    let tree = Tree::new();
    let location: super::super::Location = serde_json::from_value(json!({
        "version": "v2", "driver": "systemd", "rootless": false, "explicit": true,
        "places": [{"controllers": [], "mount": tree.path(), "dir": tree.path().join("a.slice/p-n.scope")}],
        "unit": {"name": "p-n.scope", "slice": "a.slice"},
    }))
    .unwrap();
    let resources: LinuxResources = serde_json::from_value(json!({
        "memory": {"limit": 4096, "swap": 8192, "reservation": 1024},
        "pids": {"limit": -1},
        "cpu": {"shares": 1024, "quota": 15_500, "period": 100_000, "cpus": "0-2,9"},
        "unified": {"memory.high": "max", "memory.oom.group": "1"},
    }))
    .unwrap();
    let limits = Limits::compile(Some(&resources), Version::V2).unwrap();
    let properties =
        UnitProperties::parse([("org.systemd.property.TimeoutStopSec", "uint64 5"), ("other", "x")]).unwrap();
    let cgroup = Cgroup::create(&location, &limits).unwrap().with_unit_properties(properties);
    assert!(cgroup.clone_into().is_none());
    let (mut systemd, seen) = systemd(Behaviour { signal_first: true, ..Behaviour::default() });
    let pending = cgroup.pending.as_ref().unwrap();
    cgroup.start_unit_at(&mut systemd, location.unit.as_ref().unwrap(), pending, 77).unwrap();
    let calls: Vec<Message> = seen.try_iter().collect();
    let start = calls.iter().find(|c| c.member == "StartTransientUnit").unwrap();
    assert_eq!(start.signature, "ssa(sv)a(sa(sv))");
    let contains = |name: &str, value: Value| {
        // A property is a struct, which begins at a multiple of 8: the same bytes wherever it stands.
        let one = Message::default()
            .with(&[Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value.clone()))])]);
        let found = start.body.windows(one.body.len()).any(|w| w == one.body);
        assert!(found, "{name} {value:?}");
    };
    contains("Slice", Value::text("a.slice"));
    contains("PIDs", Value::Array("u", vec![Value::U32(77)]));
    contains("Delegate", Value::Bool(true));
    contains("MemoryMax", Value::U64(4096));
    contains("MemorySwapMax", Value::U64(4096));
    contains("MemoryLow", Value::U64(1024));
    contains("MemoryHigh", Value::U64(u64::MAX));
    contains("TasksMax", Value::U64(u64::MAX));
    contains("CPUWeight", Value::U64(100));
    contains("CPUQuotaPeriodUSec", Value::U64(100_000));
    contains("CPUQuotaPerSecUSec", Value::U64(160_000));
    contains("AllowedCPUs", Value::Array("y", vec![Value::Byte(7), Value::Byte(2)]));
    contains("DevicePolicy", Value::text("strict"));
    contains("TimeoutStopUSec", Value::U64(5_000_000));
    contains("IOAccounting", Value::Bool(true));
    assert_eq!(calls.iter().filter(|c| c.member == "Get").count(), 1, "the version is asked once");
    // systemd 252 does not know OOMPolicy for scopes.
    assert!(!start.body.windows(9).any(|w| w == b"OOMPolicy"));
}

#[test]
fn a_leftover_unit_is_reset_and_the_start_repeated() {
    let (mut systemd, seen) = systemd(Behaviour { exists_once: true, ..Behaviour::default() });
    systemd.start("x.scope", &[]).unwrap();
    assert_eq!(members(&seen), ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]);
}

#[test]
fn a_failed_job_is_an_error_and_leaves_no_failed_unit() {
    let (mut systemd, seen) = systemd(Behaviour { result: Some("failed"), ..Behaviour::default() });
    let error = systemd.start("x.scope", &[]).unwrap_err();
    assert_eq!(error.to_string(), "cannot start x.scope: systemd's job ended as \"failed\"");
    assert_eq!(members(&seen), ["StartTransientUnit", "ResetFailedUnit"]);
}

#[test]
fn stopping_what_is_gone_is_no_error() {
    let (mut gone, seen) = systemd(Behaviour { no_such_unit: true, ..Behaviour::default() });
    gone.stop("x.scope").unwrap();
    assert_eq!(members(&seen), ["StopUnit", "ResetFailedUnit"]);
    let (mut running, _seen) = systemd(Behaviour::default());
    running.stop("x.scope").unwrap();
}

#[test]
fn a_peer_that_hangs_up_is_an_error() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    assert!(matches!(Connection::over(ours), Err(BusError::Broken { .. })));
}

#[test]
fn v1_units_get_the_properties_of_v1() {
    let (mut systemd, _seen) = systemd(Behaviour::default());
    let resources: LinuxResources = serde_json::from_value(json!({
        "memory": {"limit": 4096}, "cpu": {"shares": 99, "quota": -1}, "blockIO": {"weight": 300},
        "devices": [{"allow": true, "access": "rwm"}],
    }))
    .unwrap();
    let limits = Limits::compile(Some(&resources), Version::V1).unwrap();
    let found = resource_properties(&mut systemd, &limits, true).unwrap();
    let want = [
        ("DeviceAllow", Value::Array("(ss)", Vec::new())),
        ("DevicePolicy", Value::text("auto")),
        ("MemoryLimit", Value::U64(4096)),
        ("CPUShares", Value::U64(99)),
        ("BlockIOWeight", Value::U64(300)),
        ("CPUQuotaPerSecUSec", Value::U64(u64::MAX)),
    ];
    assert_eq!(found, want.map(|(n, v)| (n.to_owned(), v)));
}

#[test]
fn annotations_are_gvariant_text() {
    let parse = |text: &str| parse_gvariant(text);
    assert_eq!(parse("true"), Some(Value::Bool(true)));
    assert_eq!(parse("'a\\'b'"), Some(Value::text("a'b")));
    assert_eq!(parse("-5"), Some(Value::I32(-5)));
    assert_eq!(parse("uint64 0x10"), Some(Value::U64(16)));
    assert_eq!(parse("1.5"), Some(Value::F64(1.5)));
    assert_eq!(
        parse("['a', \"b, c\"]"),
        Some(Value::Array("s", vec![Value::text("a"), Value::text("b, c")]))
    );
    assert_eq!(parse("@as []"), Some(Value::Array("s", Vec::new())));
    assert_eq!(parse("@au [1, 2]"), Some(Value::Array("u", vec![Value::U32(1), Value::U32(2)])));
    for wrong in ["", "nonsense", "uint32 -1", "'open", "[1, 'a']", "[]", "(1, 2)", "byte 256"] {
        assert_eq!(parse(wrong), None, "{wrong}");
    }
    let mistakes = UnitProperties::parse([
        ("org.systemd.property.Bad-Name", "true"),
        ("org.systemd.property.TimeoutStopSec", "'soon'"),
        ("org.systemd.property.Ok", "what"),
    ])
    .unwrap_err();
    assert_eq!(mistakes.len(), 3);
    assert_eq!(mistakes[0].pointer, "/annotations/org.systemd.property.Bad-Name");
    let seconds = UnitProperties::parse([("org.systemd.property.TimeoutStopSec", "1.5")]).unwrap();
    assert_eq!(seconds.0, [("TimeoutStopUSec".to_owned(), Value::U64(1_500_000))]);
}

#[test]
fn cpu_lists_become_masks() {
    assert_eq!(range_bits("0"), Some(vec![1]));
    assert_eq!(range_bits("1,8-9"), Some(vec![2, 3]));
    assert_eq!(range_bits(""), None);
    assert_eq!(range_bits("x"), None);
}

/// The same exchange through Debian's dbus-daemon, which checks every byte that passes.
#[test]
fn a_real_bus_daemon_understands_us() {
    let tree = Tree::new();
    let socket = tree.path().join("bus");
    let daemon = Command::new("dbus-daemon")
        .args(["--session", "--nofork", "--nopidfile", "--nosyslog"])
        .arg(format!("--address=unix:path={}", socket.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut daemon) = daemon else { return };
    let end = Instant::now() + Duration::from_secs(10);
    while !socket.exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    let result = std::panic::catch_unwind(|| {
        let mut peer = Connection::open(&socket).unwrap();
        let driver = |member: &str| Message {
            path: "/org/freedesktop/DBus".into(),
            interface: BUS.into(),
            destination: BUS.into(),
            member: member.into(),
            ..Message::default()
        };
        peer.call(driver("Hello")).unwrap();
        peer.call(driver("RequestName").with(&[Value::text(SYSTEMD), Value::U32(0)])).unwrap();
        let (sender, seen) = channel();
        std::thread::spawn(move || serve(peer.into_stream(), Behaviour::default(), &sender));
        let mut systemd = Systemd::on_bus(Connection::open(&socket).unwrap()).unwrap();
        assert_eq!(systemd.version().unwrap(), 252);
        let properties = [
            ("DeviceAllow".to_owned(), Value::Array("(ss)", Vec::new())),
            ("PIDs".to_owned(), Value::Array("u", vec![Value::U32(1)])),
            ("AllowedCPUs".to_owned(), Value::Array("y", vec![Value::Byte(1)])),
        ];
        systemd.start("x.scope", &properties).unwrap();
        systemd.set_properties("x.scope", &properties).unwrap();
        systemd.attach("x.scope", 1).unwrap();
        systemd.stop("x.scope").unwrap();
        let nobody = Message { destination: "org.nobody".into(), ..manager_call("X") };
        assert!(matches!(systemd.connection.call(nobody), Err(BusError::Remote { .. })));
        assert_eq!(
            members(&seen),
            [
                "Subscribe",
                "Get",
                "StartTransientUnit",
                "SetUnitProperties",
                "AttachProcessesToUnit",
                "StopUnit",
                "ResetFailedUnit"
            ]
        );
    });
    let _ = daemon.kill();
    let _ = daemon.wait();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
